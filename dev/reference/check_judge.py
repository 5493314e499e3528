"""
A judge's verdicts, asked again of transformers: the preference of every pair in annotations.json, both orders, from the logits of the two words.
  venv/bin/python dev/reference/check_judge.py JUDGE_DIR TEMPLATE ANNOTATIONS [m,M]
"""
import json
import math
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM


def main(judge, template, annotations, words="m,M"):
    model = AutoModelForCausalLM.from_pretrained(judge, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(os.path.join(judge, "tokenizer.json"))
    question, worst, n = open(template).read().rstrip("\n "), 0.0, 0

    def ask(instruction, one, two):
        """p of the second word"""
        text = ""
        rest = question
        while rest:  # as the program fills it in: texts are not looked through
            for name, value in (("{instruction}", instruction), ("{output_1}", one), ("{output_2}", two)):
                if rest.startswith(name):
                    text, rest = text + value, rest[len(name):]
                    break
            else:
                text, rest = text + rest[0], rest[1:]
        ids = tokenizer.encode(text).ids
        for blank in (" ", ""):  # both words in one way of writing, with a space if that can be
            encoded = [tokenizer.encode(text + blank + word).ids for word in words.split(",")]
            if all(len(x) == len(ids) + 1 and x[:-1] == ids for x in encoded):
                break
        behind = [x[-1] for x in encoded]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        return 1.0 / (1.0 + math.exp(float(logits[behind[0]] - logits[behind[1]])))

    for a in json.load(open(annotations)):
        for field, one, two, mine in (("preference_given", "output_1", "output_2", lambda p: 1 + p), ("preference_swapped", "output_2", "output_1", lambda p: 2 - p)):
            if a[field] is not None:
                worst, n = max(worst, abs(a[field] - mine(ask(a["instruction"], a[one], a[two])))), n + 1
    print(f"{'ok' if worst <= 1e-4 and n else 'not ok'} {n} preferences, transformers' differ by at most {worst:.1e}")
    return not (worst <= 1e-4 and n)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
