"""
How fast: `tokenize --batch --time` against Hugging Face `tokenizers` (encode_batch_fast, which leaves offsets out; ours has them), tiktoken and sentencepiece,
on every sixth text of ../shared/data, one thread each, then ours on two; the sides take turns, medians and ratios of ROUNDS rounds. Then 112,000 samples of about
400 tokens, and runs of one letter of growing length.
  bench_tokenizers.py [--rounds 5] [--every 6] [--only WORD]      TOKENIZE=program
"""
import argparse
import os
import re
import statistics
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizer_reference as ref


def ours(path, data, threads):
    """Seconds that encoding took, without reading and printing."""
    program = os.environ.get("TOKENIZE", os.path.join(ref.ROOT, "tokenize"))
    done = ref.run_on(data, [program, "--tokenizer", path, "--batch", "--special", "--time", "--threads", str(threads)])
    done.check_returncode()
    texts, tokens, seconds = re.match(rb"(\d+) texts, (\d+) tokens, ([0-9.]+) s", done.stderr).groups()
    return float(seconds), int(texts), int(tokens)


def theirs(reference, texts):
    begin = time.perf_counter()
    if isinstance(reference, ref.HuggingFace):
        reference.tokenizer.encode_batch_fast(texts)
    elif isinstance(reference, ref.SentencePiece):
        reference.processor.encode(texts, num_threads=1)
    else:
        reference.encoding.encode_ordinary_batch(texts, num_threads=1)
    return time.perf_counter() - begin


def compare(tokenizers, texts, rounds):
    data = ref.netstrings(texts)
    n_bytes = sum(len(t.encode()) for t in texts)
    print(f"{len(texts)} texts, {n_bytes / 1e6:.1f} MB, medians of {rounds} interleaved rounds\n")
    print("| tokenizer | library, MB/s | ours, 1 thread, MB/s | ratio | ours, 2 threads, MB/s | speed-up |\n|---|---|---|---|---|---|")
    for name, (path, make) in tokenizers.items():
        reference = make()
        rows = []
        for _ in range(rounds):
            one, two, other = ours(path, data, 1)[0], ours(path, data, 2)[0], theirs(reference, texts)
            rows.append((other, one, two))
        other, one, two = (statistics.median(r[i] for r in rows) for i in range(3))
        ratio, speed_up = (statistics.median(r[a] / r[b] for r in rows) for a, b in ((0, 1), (1, 2)))
        print(f"| {name} | {n_bytes / 1e6 / other:.1f} | {n_bytes / 1e6 / one:.1f} | **{ratio:.1f}** | {n_bytes / 1e6 / two:.1f} | {speed_up:.2f} |", flush=True)


def samples(path, texts, n=112000, tokens=400):
    """n texts of about so many tokens, cut and joined from the real ones."""
    joined = "\n\n".join(texts)
    size = int(tokens * 4.3)
    starts = (i * 997 % (len(joined) - size) for i in range(n))
    parts = [joined[a:a + size] for a in starts]
    return ref.netstrings(parts)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--only", default="")
    p.add_argument("--every", type=int, default=6, help="of the texts, to compare the speed on")
    p.add_argument("--samples", type=int, default=112000)
    o = p.parse_args()
    published = ref.published(os.path.join(ref.ROOT, "build", "reference"))
    tokenizers = {n: r for n, r in published.items() if o.only in n and "special" not in n}
    texts = ref.shared_texts()
    compare(tokenizers, texts[::o.every], o.rounds)
    print(f"\n{o.samples} samples, two threads:\n\n| tokenizer | tokens a sample | seconds |\n|---|---|---|")
    for name, (path, _) in tokenizers.items():
        seconds, n, total = ours(path, samples(path, texts, o.samples), 2)
        print(f"| {name} | {total / n:.0f} | {seconds:.1f} |", flush=True)
    print("\nOne letter, milliseconds (linear: ten times as long, ten times as much):\n\n| tokenizer | 10 kB | 100 kB | 1 MB | 10 MB |\n|---|---|---|---|---|")
    for name, (path, _) in tokenizers.items():
        print(f"| {name} | " + " | ".join(f"{1e3 * min(ours(path, ref.netstrings(['a' * n]), 1)[0] for _ in range(3)):.1f}" for n in (10**4, 10**5, 10**6, 10**7)) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
