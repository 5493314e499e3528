"""
DSIR by upstream's own package (PyPI data-selection, p-lambda/dsir) on texts made here: log importance weights, words, the rows kept without noise. Writes
golden/dsir/{data,target}.jsonl and expected.json. The texts hold every code point whose lower case differs, and a sample of all others, so that a word or a
letter cut differently shows. nltk is held at a version whose words are Python's re (from 3.10 on it asks the package regex, to which marks are letters).
  venv/bin/pip install --no-deps data-selection==1.0.3 nltk==3.9.1 joblib cloudpickle tqdm regex click      (numpy comes with torch)
  venv/bin/python dev/reference/record_dsir.py [--check]
"""
import json
import os
import random
import sys
import tempfile
import unicodedata

import numpy as np
from data_selection import HashedNgramDSIR
from data_selection.hashed_ngram_dsir import hash_buckets

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden", "dsir")
SEED, ROWS, TARGET_ROWS = 20, 120, 60
VECTORS = ["alice", "is", "eating", ".", "alice is", "is eating", "hello world", "ς", "i̇"]


def vocabulary(rng):
    syllables = ["ba", "ko", "mi", "ru", "te", "lo", "sha", "ni", "vu", "pe"]
    return ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 3))) for _ in range(300)]


def sentence(rng, words, weights, n):
    out = []
    for _ in range(n):
        w = rng.choices(words, weights)[0]
        kind = rng.random()
        w = w.capitalize() if kind < 0.1 else w.upper() if kind < 0.13 else w
        w += rng.choice([".", ",", "!?", "...", "'s", "-", ")", ""]) if rng.random() < 0.2 else ""
        out.append(w)
    return "".join(w + rng.choice([" ", " ", " ", " ", "\n", "\t", "  ", "\u00a0", "\u2028"]) for w in out)


def odd_texts():
    """Code points in the middle of words and around sigmas, in pieces of some hundred. None that Python's Unicode does not know: a later one may."""
    cased = [chr(c) for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000 and chr(c).lower() != chr(c)]
    some = [chr(c) for c in range(1, 0x3000) if c % 5 == 0] + [chr(c) for c in range(0x3000, 0x110000, 251) if not 0xD800 <= c < 0xE000]
    some = [c for c in some if unicodedata.category(c) != "Cn"]
    some += [chr(c) for c in range(1, 0x21)] + list("\x7f\x80\x85\xa0\xad\u1680\u180e\u200b\u200c\u200d\u2028\u202f\u205f\u2060\u3000\ufeff\u0345\u0301_²½Ⅷ①一〇")
    pieces = [" ".join("ab" + c + "cd" for c in group) for group in (cased[:700], cased[700:], some[::2], some[1::2])]
    pieces.append("Σ ΑΣ ΑΣΣ ΑΣ. ΑΣΑ ΣΑ Α\u0301Σ ΑΣ\u0301 ΑΣ\u0301Α Α'Σ ΑΣ'Α 1Σ AΣ1 \u02b0Σ ΟΔΟΣ ΟΔΟΣ, İSTANBUL Iİ DŽ ẞ K Å Ω")
    return pieces


def make():
    rng = random.Random(SEED)
    words = vocabulary(rng)
    zipf = [1.0 / (i + 1) for i in range(len(words))]
    tilted = [1.0 / (1 + (i * 7) % len(words)) for i in range(len(words))]
    odd = odd_texts()
    def row(weights):
        return {"prompt": sentence(rng, words, weights, rng.randint(1, 30)), "response": sentence(rng, words, weights, rng.randint(1, 120))}
    data = [row(zipf if rng.random() < 0.6 else tilted) for _ in range(ROWS)] + [{"prompt": "?", "response": text} for text in odd]
    data += [{"prompt": " ", "response": "\u3000"}, {"prompt": "alice is", "response": "eating."}]
    target = [row(tilted) for _ in range(TARGET_ROWS)] + [{"prompt": "!", "response": text} for text in odd[::2]]
    return data, target


def load(path):
    with open(path, encoding="utf-8", newline="\n") as f:
        return [json.loads(line) for line in f.read().split("\n") if line]


def record(data, target):
    os.makedirs(GOLDEN, exist_ok=True)
    paths = [os.path.join(GOLDEN, name) for name in ("data.jsonl", "target.jsonl")]
    for path, rows in zip(paths, (data, target)):
        with open(path, "w", encoding="utf-8", newline="\n") as f:
            f.writelines(json.dumps(r, ensure_ascii=i % 3 == 0) + "\n" for i, r in enumerate(rows))  # some rows as escapes
    with tempfile.TemporaryDirectory() as folder:
        text = lambda row: row["prompt"] + "\n" + row["response"]
        dsir = HashedNgramDSIR([paths[0]], [paths[1]], folder, raw_load_dataset_fn=load, raw_parse_example_fn=text, target_load_dataset_fn=load,
                               target_parse_example_fn=text, num_proc=1, min_example_length=0)
        dsir.fit_importance_estimator(num_tokens_to_fit="all")
        dsir.compute_importance_weights()
        weights = np.load(os.path.join(folder, "log_importance_weights", "0.npy"))
        words = np.load(os.path.join(folder, "perexample_metadata", "0.npy"))
        keep = len(data) * 7 // 10
        kept = sorted(int(i) for i in np.argpartition(-weights, keep)[:keep])
    return {"log_weight": [float(w) for w in weights], "words": [int(w) for w in words], "kept_70": kept, "vectors": {v: hash_buckets(v) for v in VECTORS}}


def main():
    path = os.path.join(GOLDEN, "expected.json")
    old = json.load(open(path)) if "--check" in sys.argv else None
    expected = record(*make())
    if old is None:
        with open(path, "w") as f:
            json.dump(expected, f, ensure_ascii=False)
        print(f"{os.path.relpath(path, HERE)}: {len(expected['words'])} rows, log weights {min(expected['log_weight']):.3f} to {max(expected['log_weight']):.3f}")
        return 0
    worst = max(abs(a - b) for a, b in zip(old["log_weight"], expected["log_weight"]))
    same = worst <= 1e-9 and all(old[k] == expected[k] for k in ("words", "kept_70", "vectors"))
    print(f"{'ok' if same else 'not ok'} {os.path.relpath(path, HERE)}: log weights differ by at most {worst:.1e}")
    return not same


if __name__ == "__main__":
    sys.exit(main())
