"""Greedy answers of a real chat model, beside transformers' generate on the same prompts in the same run.

    bench_generate.py BUILD MODEL PROMPTS.jsonl [--prompts 48] [--new 32] [--dtype fp32] [--threads 2] [--pairs 3] [--prompt-field prompt]

eval_seal generate answers all prompts at once, and so does transformers (left padding, sdpa attention, a cache). The two sides alternate. Ours is timed
by its own clock, which begins when the model is loaded; its processor time is that of the run less that of one prompt and one token. Printed: new
tokens per second by the clock and per second of processor time, which is the one to read where others use the machine; and how many answers agree.
"""
import argparse
import json
import os
import re
import tempfile
import time

from bench_common import Pairs, add_arguments, processor_seconds, run_ours  # sets the environment of transformers

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def ours(args, prompts, new, folder):
    """Tokens, seconds by its clock, processor seconds, answers."""
    name = os.path.join(folder, str(time.monotonic_ns()))
    with open(name + ".jsonl", "w") as f:
        f.writelines(json.dumps({"prompt": p}) + "\n" for p in prompts)
    printed, cpu = run_ours(args, "eval_seal", ["generate", "--model", args.model, "--prompts", name + ".jsonl", "--greedy", "--max-new-tokens", str(new),
                                                "--batch", str(len(prompts)), "--out", name + ".json"])
    tokens, seconds = re.search(r"([0-9]+) tokens in ([0-9.]+) s", printed).groups()
    answers = [item["output"] for item in json.load(open(name + ".json"))]
    return int(tokens), float(seconds), cpu, answers


def theirs(model, tokenizer, prompts, new):
    texts = [tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True) for p in prompts]
    wall, cpu = time.perf_counter(), processor_seconds()
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.no_grad():
        out = model.generate(**batch, max_new_tokens=new, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    wall, cpu = time.perf_counter() - wall, processor_seconds() - cpu
    answers = out[:, batch["input_ids"].shape[1]:].tolist()
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    counts = [next((i + 1 for i, token in enumerate(answer) if token in ends), len(answer)) for answer in answers]
    return sum(counts), wall, cpu, tokenizer.batch_decode(answers, skip_special_tokens=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("prompts_file", metavar="PROMPTS.jsonl")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--prompt-field", default="prompt")
    parser.add_argument("--new", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    prompts = [json.loads(line)[args.prompt_field] for line in open(args.prompts_file).readlines()[:args.prompts]]
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32 if args.dtype == "fp32" else torch.bfloat16, attn_implementation="sdpa").eval()
    pairs = Pairs("transformers")
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.pairs):
            loading = ours(args, prompts[:1], 1, folder)[2]
            tokens, seconds, cpu, answers = ours(args, prompts, args.new, folder)
            cpu -= loading
            *their_figures, their_answers = theirs(model, tokenizer, prompts, args.new)
            same = sum(a.strip() == b.strip() for a, b in zip(answers, their_answers))
            print(f"{len(prompts)} prompts: {pairs.add((tokens, seconds, cpu), their_figures)}; {same} answers agree", flush=True)
    print(pairs.median())


if __name__ == "__main__":
    main()
