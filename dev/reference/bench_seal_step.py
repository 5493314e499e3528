"""
The peer of SEAL's selector step: Algorithm 2 as the reference runs it for Pythia, in PyTorch. Micro-batches of 4 samples padded to the longest, a pass
over the safe ones and another over the tune ones, logits of every position, gradients accumulated to the batch; then clipping, AdamW for θ and
dense Adam for ω. Prints one JSON line; `trained_tokens_per_s` counts every real token of every sample, padding not. The trainer's step on
samples of the same lengths is to be measured beside it, in the same run on the same machine.

    python bench_seal_step.py --layers 4 --width 256 --heads 4 --vocab 8192 --batch 16 --lengths lengths.txt
    python bench_seal_step.py --family llama --layers 32 --width 4096 --heads 32 --kv-heads 8 --ff 14336 --vocab 128256 --lora q,v --micro-batch 1 --checkpointing \\
        --device cuda --dtype bf16 --lengths lengths.txt                    the paper's Llama-3-8B: PEFT over a frozen bf16 model

A lengths file holds a sample a line: `safe LENGTH PROMPT` or `tune LENGTH PROMPT`, in tokens; samples are drawn from it in a seeded order. Without one,
lengths are log-normal; --write-lengths FILE keeps them for the other side.
"""
import argparse
import json
import math
import os
import random
import re
import statistics
import sys
import time

from common import gpt2, padded_losses
import torch


def random_lengths(count, median, maximum, seed):
    """Lengths as instruction data has them: log-normal (σ 0.7), at least 4 tokens; the prompt takes 30 to 60 per cent."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        length = min(max(int(round(math.exp(rng.gauss(math.log(median), 0.7)))), 4), maximum)
        rows.append(("safe" if i % 2 else "tune", length, max(1, int(length * rng.uniform(0.3, 0.6)))))
    return rows


def fail(message):
    print("bench_seal_step: " + message, file=sys.stderr)
    sys.exit(2)


def read_lengths(path):
    rows = []
    try:
        lines = open(path).read().splitlines()
    except OSError as error:
        fail(f"{path}: {error.strerror}; name a lengths file or leave --lengths out")
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"(safe|tune) (\d+) (\d+)", line)
        if not match or int(match[2]) < 2 or int(match[3]) >= int(match[2]):
            fail(f"{path}:{number}: expected `safe|tune LENGTH PROMPT`, LENGTH at least 2, PROMPT < LENGTH")
        rows.append((match[1], int(match[2]), int(match[3])))
    return rows


def seal_step(model, optimizer, omega, optimizer_omega, safe, tune, args):
    """One step on |B| safe samples and |B| tune samples ([(tokens, prompt)] and [(row, tokens, prompt)]). Returns the safe loss of the batch."""
    optimizer.zero_grad(set_to_none=True)
    optimizer_omega.zero_grad(set_to_none=True)
    total = 0.0
    autocast = torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "bf16")
    for begin in range(0, len(safe), args.micro_batch):
        with autocast:
            loss = padded_losses(model, safe[begin:begin + args.micro_batch]).sum() / len(safe)
        ((1.0 - args.gamma) * loss).backward()
        total += loss.item()
        part = tune[begin:begin + args.micro_batch]
        with autocast:
            losses = padded_losses(model, [(tokens, prompt) for _, tokens, prompt in part])
        weight = (len(omega) * torch.softmax(omega, 0) if args.activation == "softmax" else 2.0 * torch.sigmoid(omega))[[row for row, _, _ in part]]
        (args.gamma * (weight.detach() * losses).sum() / len(tune)).backward()
        ((weight * losses.detach()).sum() / len(tune)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.nn.utils.clip_grad_norm_([omega], 10.0)
    optimizer.step()
    optimizer_omega.step()
    return total


def make_model(args):
    if args.family == "gpt2":
        if args.lora != "none":
            fail("--lora is for --family llama here")
        return gpt2(args.layers, args.width, args.heads, args.vocab, args.max_length, attention=args.attention)
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(hidden_size=args.width, num_hidden_layers=args.layers, num_attention_heads=args.heads, num_key_value_heads=args.kv_heads or args.heads,
                         intermediate_size=args.ff or (args.width * 8 // 3 + 7) // 8 * 8, vocab_size=args.vocab, max_position_embeddings=args.max_length,
                         attn_implementation=args.attention, use_cache=False)
    with torch.device(args.device):  # drawn where it will live: a large model on a CPU takes minutes
        model = LlamaForCausalLM(config)
    if args.lora == "none":
        return model.train()
    if args.dtype == "bf16":
        model = model.bfloat16()
    names = dict(q="q_proj", k="k_proj", v="v_proj", o="o_proj", gate="gate_proj", up="up_proj", down="down_proj")
    targets = list(names.values()) if args.lora == "all" else [names[m] for m in args.lora.split(",")]
    model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=targets, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"))
    if args.checkpointing:
        model.enable_input_require_grads()  # a frozen embedding would leave the checkpoints without a gradient to pass
    return model.train()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=("gpt2", "llama"), default="gpt2")
    parser.add_argument("--kv-heads", type=int, default=0)
    parser.add_argument("--ff", type=int, default=0)
    parser.add_argument("--lora", default="none", metavar="MODULES", help="of llama: q,v and the like, or all")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=16, help="safe samples a step, and as many tune samples")
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--lengths", metavar="FILE")
    parser.add_argument("--median", type=int, default=60, help="of the random lengths")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--samples", type=int, default=512, help="number of random lengths")
    parser.add_argument("--write-lengths", metavar="FILE")
    parser.add_argument("--activation", choices=("softmax", "sigmoid"), default="softmax")
    parser.add_argument("--gamma", type=float, default=0.03)
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations, as the reference's scripts do")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="bf16: fp32 weights under autocast; with --lora the frozen ones in bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=7, help="measured")
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()

    rows = read_lengths(args.lengths) if args.lengths else random_lengths(args.samples, args.median, args.max_length, args.seed)
    rows = [(kind, min(length, args.max_length), min(prompt, min(length, args.max_length) - 1)) for kind, length, prompt in rows]
    if args.write_lengths:
        with open(args.write_lengths + ".tmp", "w") as file:
            file.writelines("%s %d %d\n" % row for row in rows)
        os.replace(args.write_lengths + ".tmp", args.write_lengths)
    sets = {kind: [(length, prompt) for k, length, prompt in rows if k == kind] for kind in ("safe", "tune")}
    if min(len(sets["safe"]), len(sets["tune"])) < args.batch:
        fail(f"{args.lengths or 'the random lengths'}: fewer than --batch {args.batch} samples of a kind; name a smaller batch")

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    model = make_model(args).to(args.device)
    if args.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    omega = torch.nn.Parameter(torch.full((len(sets["tune"]),), 0.1 if args.activation == "softmax" else -1e-4, device=args.device))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0)
    optimizer_omega = torch.optim.Adam([omega], lr=5e-3, betas=(0.9, 0.95))

    def draw(kind):
        picked = rng.sample(range(len(sets[kind])), args.batch)
        return picked, [([rng.randrange(args.vocab) for _ in range(sets[kind][i][0])], sets[kind][i][1]) for i in picked]

    times, tokens, padded = [], [], 0
    for step in range(args.warmup + args.steps):
        (_, safe), (picked, tune) = draw("safe"), draw("tune")
        start = time.perf_counter()
        loss = seal_step(model, optimizer, omega, optimizer_omega, safe, [(i, t, p) for i, (t, p) in zip(picked, tune)], args)
        if step < args.warmup:
            continue
        times.append(time.perf_counter() - start)
        tokens.append(sum(len(t) for t, _ in safe + tune))
        for part in (safe, tune):
            for begin in range(0, args.batch, args.micro_batch):
                micro = part[begin:begin + args.micro_batch]
                padded += len(micro) * max(len(t) for t, _ in micro)
    print(json.dumps(dict(what="seal_step", peer=f"torch {torch.__version__} eager, two passes, micro-batches of {args.micro_batch} padded", algorithm=2, family=args.family, lora=args.lora,
                          layers=args.layers, width=args.width, heads=args.heads, vocab=args.vocab, batch=args.batch, gamma=args.gamma,
                          activation=args.activation, attention=args.attention, checkpointing=args.checkpointing, threads=args.threads, device=args.device, dtype=args.dtype, steps=args.steps,
                          lengths=args.lengths or f"log-normal, median {args.median}", N=len(omega), ms=round(1e3 * statistics.median(times), 1),
                          tokens_per_step=round(statistics.mean(tokens), 1), padding=round(1.0 - sum(tokens) / padded, 3),
                          trained_tokens_per_s=round(statistics.median(n / t for n, t in zip(tokens, times)), 1), safe_loss=round(loss, 4))))


if __name__ == "__main__":
    main()
