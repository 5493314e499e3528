"""
Rendering and tokenising chat rows: `tokenize --chat … --time` on two threads beside transformers' apply_chat_template, one after the other on the same machine.
  venv/bin/python dev/reference/bench_chat.py [--rows 112000] [--program ./tokenize]
The rows are made up: some 400 tokens each, two turns of each speaker. transformers is timed on a share of them, for it takes minutes.
"""
import argparse
import json
import os
import random
import re
import resource
import subprocess
import tempfile
import time

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import chat_reference

SPECIAL = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>"]
SHARE = 2000  # rows that transformers is timed on


def words(r):
    syllables = ["ka", "lo", "mi", "ten", "ra", "so", "vel", "in", "du", "per", "na", "tis", "or", "gal", "be"]
    return ["".join(r.choice(syllables) for _ in range(r.randrange(1, 4))) for _ in range(4000)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=112000)
    parser.add_argument("--program", default="./tokenize")
    o = parser.parse_args()
    r = random.Random(1)
    vocabulary = words(r)
    text = lambda n: " ".join(r.choice(vocabulary) for _ in range(n)) + "."  # noqa: E731
    rows = [[{"role": "system", "content": text(12)}] + [{"role": role, "content": text(r.randrange(40, 130))} for role in ("user", "assistant", "user", "assistant")] for _ in range(o.rows)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator((m["content"] for row in rows[:3000] for m in row), trainers.BpeTrainer(vocab_size=8000, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save(os.path.join(directory, "tokenizer.json"))
        lines = "".join(json.dumps({"messages": row}) + "\n" for row in rows).encode()
        print("| template | tokens per row | tokenize, 2 threads | its CPU time, reading included | transformers, per row | its CPU time, per row | ratio | ratio of CPU times |\n|---|---:|---:|---:|---:|---:|---:|---:|")
        for name in ("llama3", "chatml", "qwen3"):
            template = chat_reference.templates()[name]
            with open(os.path.join(directory, "chat_template.jinja"), "w", encoding="utf-8") as f:
                f.write(template)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run([o.program, "--tokenizer", directory, "--chat", "auto", "--threads", "2", "--time"], input=lines, capture_output=True, check=True)
            _, tokens, seconds = re.search(r"(\d+) conversations, (\d+) tokens, ([\d.]+) s", done.stderr.decode()).groups()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            hf = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", chat_template=template)
            hf.apply_chat_template(rows[0])
            began, began_cpu = time.perf_counter(), time.process_time()
            theirs = sum(len(hf.apply_chat_template(row)) for row in rows[:SHARE])
            each, each_cpu = (time.perf_counter() - began) / min(SHARE, len(rows)), (time.process_time() - began_cpu) / min(SHARE, len(rows))
            ours = subprocess.run([o.program, "--tokenizer", directory, "--chat", "auto"], input="".join(json.dumps({"messages": row}) + "\n" for row in rows[:SHARE]).encode(), capture_output=True, check=True)
            assert len(ours.stdout.split()) == theirs, "other tokens"
            print(f"| {name} | {int(tokens) / len(rows):.0f} | {float(seconds):.2f} s | {cpu:.2f} s | {1e3 * each:.2f} ms | {1e3 * each_cpu:.2f} ms | {each * len(rows) / float(seconds):.0f} × | {each_cpu * len(rows) / cpu:.0f} × |", flush=True)


if __name__ == "__main__":
    main()
