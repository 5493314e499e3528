"""
The peer of dev/bench_step: one training step of GPT-2 in PyTorch eager (forward, loss on all tokens, backward, clipping, AdamW), sdpa attention, fp32
or, with --dtype bf16, under autocast. Prints one JSON line; the trainer's own step is to be measured beside it, in the same run on the same machine, and only the ratio counts.

    python bench_gpt2_step.py --layers 4 --width 256 --heads 4 --vocab 8192 --tokens 1024 --samples 4
"""
import argparse
import json
import statistics
import time

from common import gpt2
import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--tokens", type=int, default=1024, help="of the step")
    parser.add_argument("--samples", type=int, default=1, help="equal samples the tokens are split into: a batch without padding")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="bf16: fp32 weights under autocast")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="measured; the median counts")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--fused", action="store_true", help="torch's fused AdamW instead of its default")
    args = parser.parse_args()
    if args.tokens % args.samples or args.tokens // args.samples < 2:
        parser.error("--tokens must be a multiple of --samples, two tokens a sample at least")

    torch.set_num_threads(args.threads)
    torch.manual_seed(42)
    length = args.tokens // args.samples
    model = gpt2(args.layers, args.width, args.heads, args.vocab, max(length, 64), attention="sdpa").to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=args.fused or None)
    times = []
    for i in range(args.warmup + args.steps):
        ids = torch.randint(0, args.vocab, (args.samples, length), device=args.device)
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "bf16"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        value = loss.item()
        if i >= args.warmup:
            times.append(1e3 * (time.perf_counter() - start))
    ms = statistics.median(times)
    print(json.dumps(dict(what="gpt2_step", peer=f"torch {torch.__version__} eager", layers=args.layers, width=args.width, heads=args.heads,
                          vocab=args.vocab, tokens=args.tokens, samples=args.samples, threads=args.threads, device=args.device, dtype=args.dtype, fused_adamw=args.fused, steps=args.steps,
                          ms=round(ms, 2), ms_min=round(min(times), 2), ms_max=round(max(times), 2), tokens_per_s=round(1e3 * args.tokens / ms, 1),
                          loss=round(value, 4))))


if __name__ == "__main__":
    main()
