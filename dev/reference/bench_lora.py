"""A step of LoRA fine-tuning on a real chat model, beside PEFT on the same rows in the same run.

    bench_lora.py BUILD MODEL ROWS.jsonl [--rows 24] [--lora all] [--dtype fp32] [--threads 2] [--pairs 3] [--micro-batch 1,4]

BUILD is the folder of the programs (build/cpu-fp32, or build/cpu-bf16 with --dtype bf16: PEFT then runs under bf16 autocast). A step is forward,
backward and AdamW over all rows, written by the model's own chat template, loss on the answers. PEFT takes them in micro-batches sorted by length,
padded to their longest (transformers with sdpa attention); of the sizes given, the fastest in a trial is its own. The two sides alternate. Ours is the
difference of a run of two steps and a run of one, so that loading counts on neither side. Printed: tokens per second by the clock and per second of
processor time, which is the one to read where others use the machine; and both sides' first loss, which must agree.
"""
import argparse
import json
import os
import sys
import tempfile
import time

from bench_common import Pairs, add_arguments, processor_seconds, run_ours  # sets the environment of transformers

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

MODULES = dict(q="q_proj", k="k_proj", v="v_proj", o="o_proj", gate="gate_proj", up="up_proj", down="down_proj")


class Ours:
    def __init__(self, args, rows, folder):
        self.args, self.folder = args, folder
        self.file = os.path.join(folder, "rows.jsonl")
        with open(self.file, "w") as f:
            f.writelines(json.dumps({"messages": messages}) + "\n" for messages in rows)

    def run(self, steps):
        out = os.path.join(self.folder, f"out{steps}-{time.monotonic_ns()}")
        _, cpu = run_ours(self.args, "train_seal", ["sft", "--model", self.args.model, "--lora", self.args.lora, "--tune", self.file, "--batch",
                                                    str(self.args.rows), "--epochs", str(steps), "--max-steps", str(steps), "--max-length",
                                                    str(self.args.max_length), "--tokens", str(max(self.args.max_length, 1024)), "--lr", "1e-4",
                                                    "--out", out, "--quiet"])
        log = [json.loads(line) for line in open(os.path.join(out, "log.jsonl"))]
        return cpu, [line for line in log if "tokens_per_s" in line]

    def step(self, tokens):
        """Seconds by the clock, of the processor, and the first loss."""
        one, _ = self.run(1)
        two, log = self.run(2)
        return tokens / log[1]["tokens_per_s"], two - one, next(log[0][key] for key in ("loss", "tune_loss") if key in log[0])


class Peft:
    def __init__(self, args, rows):
        self.args = args
        tokenizer = AutoTokenizer.from_pretrained(args.model)
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa")
        targets = list(MODULES.values()) if args.lora == "all" else [MODULES[m] for m in args.lora.split(",")]
        self.model = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM")).train()
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0)
        self.rows = []
        for messages in rows:
            prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=False)
            text = tokenizer.apply_chat_template(messages, tokenize=False).rstrip("\n")  # a template may write a line end after the turn
            whole = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert whole[:len(prompt)] == prompt
            self.rows.append((whole, len(prompt)))
        self.rows.sort(key=lambda row: len(row[0]))
        self.tokens = sum(len(whole) for whole, _ in self.rows)

    def step(self, micro, update=True):
        wall, cpu, total = time.perf_counter(), processor_seconds(), 0.0
        for begin in range(0, len(self.rows), micro):
            part = self.rows[begin:begin + micro]
            longest = max(len(whole) for whole, _ in part)
            ids = torch.tensor([whole + [0] * (longest - len(whole)) for whole, _ in part])
            mask = torch.tensor([[1] * len(whole) + [0] * (longest - len(whole)) for whole, _ in part])
            labels = torch.tensor([[-100] * prompt + whole[prompt:] + [-100] * (longest - len(whole)) for whole, prompt in part])
            with torch.autocast("cpu", torch.bfloat16, enabled=self.args.dtype == "bf16"):
                loss = self.model(input_ids=ids, attention_mask=mask, labels=labels).loss
            (loss * len(part) / len(self.rows)).backward()
            total += loss.item() * len(part) / len(self.rows)
        if update:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - wall, processor_seconds() - cpu, total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("rows_file", metavar="ROWS.jsonl")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--prompt-field", default="question")
    parser.add_argument("--response-field", default="answer")
    parser.add_argument("--lora", default="all")
    parser.add_argument("--micro-batch", default="1,4", help="sizes that PEFT may choose from")
    parser.add_argument("--max-length", type=int, default=1024)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [json.loads(line) for line in open(args.rows_file).readlines()[:args.rows]]
    args.rows = len(rows)
    rows = [[{"role": "user", "content": r[args.prompt_field]}, {"role": "assistant", "content": r[args.response_field]}] for r in rows]
    with tempfile.TemporaryDirectory() as folder:
        ours, peft = Ours(args, rows, folder), Peft(args, rows)
        trials = {micro: peft.step(micro, update=False) for micro in map(int, args.micro_batch.split(","))}
        micro = min(trials, key=lambda m: trials[m][1])
        print(f"{args.rows} rows, {peft.tokens} tokens, LoRA {args.lora}, {args.dtype}, {args.threads} threads; PEFT's micro-batch {micro} "
              f"(processor seconds of each: {', '.join(f'{m}: {t[1]:.1f}' for m, t in trials.items())})", flush=True)
        pairs = Pairs("PEFT")
        for pair in range(args.pairs):
            a, b = ours.step(peft.tokens), peft.step(micro)
            if pair == 0 and abs(a[2] - trials[1][2] if 1 in trials else 0.0) > (2e-4 if args.dtype == "fp32" else 5e-2):
                sys.exit(f"the first losses differ: {a[2]} and {trials[1][2]}: not the same rows or tokens")
            print(pairs.add((peft.tokens, *a[:2]), (peft.tokens, *b[:2])), flush=True)
        print(f"{pairs.median()}; first loss {a[2]:.5f}")


if __name__ == "__main__":
    main()
