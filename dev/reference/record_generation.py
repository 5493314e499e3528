"""
Greedy answers of the tiny models in golden/, by transformers' generate with its cache: without and with a repetition penalty, and with a PEFT adapter. Every prompt
runs alone. Beside each token is the margin, by how much its logit leads the next: where rounding to bf16 may say otherwise.
  venv/bin/python dev/reference/record_generation.py [--check]     writes golden/generation/NAME.safetensors
"""
import argparse
import os

from common import GOLDEN, compare_golden, single_thread, write_golden
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

NAMES = ["gpt2_tiny", "gpt2_hs80"] + [os.path.join("families", f) for f in ("gpt2", "llama", "llama_tied", "mistral", "gpt_neox", "gpt_neox_sequential", "phi3",
                                                                       "qwen2", "phi4_mini", "smollm3", "granite", "mistral_window", "llama_yarn", "qwen3", "olmo2", "olmo3", "gemma2", "gemma3")]
LENGTHS, NEW, PENALTY = [1, 3, 40, 9, 20], 16, 1.3


def answers(model, prompts, **options):
    """tokens (k, NEW), margin (k, NEW)"""
    tokens, margins = [], []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW, eos_token_id=None, pad_token_id=0,
                             output_scores=True, return_dict_in_generate=True, **options)
        top = torch.stack([s[0].topk(2).values for s in out.scores])
        tokens.append(out.sequences[0, len(prompt):].to(torch.int32))
        margins.append(top[:, 0] - top[:, 1])
    return torch.stack(tokens), torch.stack(margins)


def record(name):
    directory = os.path.join(GOLDEN, name)
    generator = torch.Generator().manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()  # sdpa knows no cap of scores
    vocab = model.config.vocab_size
    prompts = [torch.randint(2, vocab, (n,), generator=generator).tolist() for n in LENGTHS]
    tensors = {"prompts": torch.tensor([t for p in prompts for t in p], dtype=torch.int32), "lengths": torch.tensor(LENGTHS, dtype=torch.int32),
               "penalty": torch.tensor([PENALTY])}
    tensors["greedy"], tensors["greedy.margin"] = answers(model, prompts)
    tensors["penalised"], tensors["penalised.margin"] = answers(model, prompts, repetition_penalty=PENALTY)
    adapter = os.path.join(directory, "lora_qv")
    if os.path.isdir(adapter):
        tensors["adapted"], tensors["adapted.margin"] = answers(PeftModel.from_pretrained(model, adapter).eval(), prompts)
    return tensors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("names", nargs="*", help="of golden/ (default: all)")
    args = parser.parse_args()
    check, bad = args.check, 0
    single_thread()
    torch.use_deterministic_algorithms(False)  # generate's own sorting has no such kernel
    for name in args.names or NAMES:
        path, tensors = os.path.join(GOLDEN, "generation", os.path.basename(name) + ".safetensors"), record(name)
        if check:
            bad += compare_golden(path, tensors, 1e-4)
            continue
        write_golden(path, tensors, "greedy answers by transformers' generate, fp32")
        print(f"{name}: smallest margins {tensors['greedy.margin'].min():.4f}, {tensors['penalised.margin'].min():.4f}; {len(set(tensors['greedy'].flatten().tolist()))} different tokens")
    return bad


if __name__ == "__main__":
    raise SystemExit(main())
