"""
What `eval_seal winrate --length-controlled` is held against: the same logistic regression fitted by PyTorch's L-BFGS in fp64 (no Newton step of ours), its
jackknife by fitting every subset anew. Preferences are fractions, so the likelihood is the cross-entropy with them.
  venv/bin/python dev/reference/record_winrate.py [--check]                       writes golden/winrate/controlled.txt
  venv/bin/python dev/reference/record_winrate.py --annotations FILE.json[.gz]    prints the fit of AlpacaEval's annotations
"""
import argparse
import gzip
import json
import os

import numpy as np
import torch

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "winrate")


def fit(y, d):
    sd = d.std(ddof=1)
    x = np.tanh(d / sd) if sd > 0 else np.zeros_like(d)

    x, y = torch.tensor(x), torch.tensor(y)
    t = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([t], max_iter=200, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe")

    def loss():
        search.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(t[0] + t[1] * x, y)
        value.backward()
        return value

    search.step(loss)
    return t.detach().numpy()


def controlled(y, d):
    a, b = fit(y, d)
    rate = lambda t: 100 / (1 + np.exp(-t))
    left = np.array([rate(fit(np.delete(y, i), np.delete(d, i))[0]) for i in range(len(y))])
    return rate(a), np.sqrt((len(y) - 1) / len(y) * ((left - left.mean()) ** 2).sum()), b


def cases():
    r = np.random.default_rng(7)
    for name, n, a, b, soft in (("even", 40, 0.0, 0.0, False), ("longer-wins", 60, -0.7, 1.5, False), ("soft", 50, 0.4, 0.8, True), ("draws", 30, 0.2, -1.0, False)):
        d = np.round(r.normal(100, 300, n))
        p = 1 / (1 + np.exp(-(a + b * np.tanh(d / 300))))
        y = np.round(np.clip(p + r.normal(0, 0.2, n), 0, 1), 3) if soft else (r.random(n) < p).astype(float)
        if name == "draws":
            y[::5] = 0.5
        yield name, y, d


def text():
    return "".join(f"{name} {' '.join(f'{v:.8f}' for v in controlled(y, d))} {len(y)}\n{' '.join(f'{v:g}' for v in y)}\n{' '.join(f'{v:g}' for v in d)}\n" for name, y, d in cases())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--annotations")
    args = parser.parse_args()
    path = os.path.join(OUT, "controlled.txt")
    if args.annotations:
        rows = json.load((gzip.open if args.annotations.endswith(".gz") else open)(args.annotations, "rt", encoding="utf-8"))
        rows = [x for x in rows if x["preference"] is not None and x["preference"] == x["preference"]]
        y = np.array([(x["preference"] or 1.5) - 1 for x in rows])
        print("length-controlled %.4f, standard error %.4f, effect of length %.4f" % controlled(y, np.array([len(x["output_2"]) - len(x["output_1"]) for x in rows], float)))
    elif args.check:
        a, b = open(path).read().split(), text().split()
        assert len(a) == len(b) and all(x == y or abs(float(x) - float(y)) < 1e-6 for x, y in zip(a, b)), "the fits differ"
        print(f"ok {path} is what this script records")
    else:
        os.makedirs(OUT, exist_ok=True)
        open(path, "w").write(text())


if __name__ == "__main__":
    main()
