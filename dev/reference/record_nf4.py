"""
bitsandbytes' NF4 with double-quantised scales, and what QLoRA computes over it → golden/nf4.

drawn.safetensors   of matrices that both sides draw from a counter: means and tops of their scales, and SHA-256 of codes, scales, and values in fp32 and bf16
NAME/states.safetensors, states_bf16.safetensors
                    losses and gradients of the adapter families/NAME/lora_all over the model families/NAME whose linear layers went through NF4, by
                    transformers and PEFT: weights in fp32, and rounded to bf16; in fp64, as record_families.py has them

    python record_nf4.py [--check]

bitsandbytes runs on a CPU of x86-64 without AVX-512 in PyTorch, on one thread: PyTorch adds up in another order elsewhere.
"""
import argparse
import hashlib
import os
import sys

from common import GOLDEN, compare_golden, single_thread, write_golden
from record_families import CASES, adapter_name, add_adapter, adapters, bf16, exact, make_batch, make_model
import bitsandbytes.functional as F
import numpy as np
import torch

# name: (blocks, exponents the scales of blocks spread over, every so many blocks one is zero). Fewer numbers than a vector, than four vectors, whole and
# broken groups of 256, one and several levels of the sum.
DRAWN = {"one": (1, 0, 0), "three": (3, 2, 0), "nine": (9, 0, 4), "hundred": (100, 3, 7), "group": (256, 1, 0), "groups": (1000, 8, 0), "level": (4096, 2, 50),
         "levels": (30000, 1, 0), "parallel": (70000, 2, 999), "alike": (300, -1, 0), "zeros": (5, 0, 1)}
FAMILIES = ("llama", "gpt_neox", "gpt2", "phi3")
BLOCK = 64


def drawn(blocks, spread, zero):
    """Weight i of block b: a counter through splitmix64's mixer, to 24 bits in [−1, 1), cubed, times 2^−(the block's share of the spread). spread −1: 0.5 at
    the first of every block, so that all scales are alike, and less than that elsewhere."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, blocks * BLOCK + 1, dtype=np.uint64) + np.uint64(blocks)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    w = ((z >> np.uint64(40)).astype(np.float32) * np.float32(2.0 ** -23) - np.float32(1.0)).reshape(blocks, BLOCK)
    w = (w * w).astype(np.float32) * w
    b = np.arange(blocks)
    if spread < 0:
        w = w * np.float32(0.25)
        w[:, 0] = 0.5
    else:
        w = w * np.exp2(-(b % (spread + 1)).astype(np.float32))[:, None].astype(np.float32)
    if zero:
        w[b % zero == 0] = 0.0
    return torch.tensor(w)


def sha256(tensor):
    return torch.frombuffer(bytearray(hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).digest()), dtype=torch.uint8).to(torch.int32)


def packed(w):
    codes, state = F.quantize_4bit(w, quant_type="nf4", blocksize=BLOCK, compress_statistics=True)
    return codes.flatten(), state


def through_nf4(w):
    codes, state = packed(w)
    return F.dequantize_4bit(codes[:, None], state)


def record_drawn():
    tensors = {}
    for name, numbers in DRAWN.items():
        w = drawn(*numbers)
        codes, state = packed(w)
        tensors[f"{name}.drawn"] = torch.tensor(numbers, dtype=torch.int32)
        tensors[f"{name}.weights"] = sha256(w)
        tensors[f"{name}.codes"] = sha256(codes)
        tensors[f"{name}.scales"] = sha256(state.absmax)
        tensors[f"{name}.tops"] = state.state2.absmax
        tensors[f"{name}.mean"] = state.offset.reshape(1)
        tensors[f"{name}.fp32"] = sha256(F.dequantize_4bit(codes[:, None], state).flatten())
        state.dtype = torch.bfloat16
        tensors[f"{name}.bf16"] = sha256(F.dequantize_4bit(codes[:, None], state).flatten())
    return tensors


def quantised_model(case, rounded):
    """The model with every linear layer of its blocks as it comes back from NF4. A Conv1D's weight is turned round first, as transformers does it."""
    model = make_model(case)
    turned = case["config"].model_type == "gpt2"
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() != 2 or any(part in name for part in ("embed", "wte", "wpe", "lm_head")):
                continue
            w = through_nf4((p.T if turned else p).to(case["dtype"]).float().contiguous())
            p.copy_(w.T if turned else w)
        if rounded:
            for p in model.parameters():
                p.copy_(bf16(p))
    return model


def record(name):
    case = CASES[name]
    batch = make_batch(case)
    files = {}
    for rounded in (False, True):
        model = add_adapter(case, quantised_model(case, rounded), adapters(case)["lora_all"])
        tensors = exact(model, adapter_name, batch, torch.bfloat16 if rounded else torch.float32)
        tensors.pop("logits")
        files["states_bf16.safetensors" if rounded else "states.safetensors"] = tensors
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check, bad = parser.parse_args().check, 0
    single_thread()
    files = {"drawn.safetensors": record_drawn()}
    for name in FAMILIES:
        files.update({f"{name}/{file}": tensors for file, tensors in record(name).items()})
    for file, tensors in files.items():
        path = os.path.join(GOLDEN, "nf4", file)
        if check:
            bad += compare_golden(path, tensors, 0.0 if file == "drawn.safetensors" else 1e-2 if "bf16" in file else 5e-6)
        else:
            write_golden(path, tensors, "record_nf4.py")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
