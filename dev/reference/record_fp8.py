"""
PyTorch's float8_e4m3fn, and what LoRA computes over a model whose linear layers multiply in it → golden/fp8.

numbers.safetensors       SHA-256 of the e4m3 bytes of every bf16 number up to 448, of numbers at and next to half-way between two of e4m3, and of drawn
                          matrices with their scales
NAME/                     a tiny model whose sides are multiples of 16, NAME/ADAPTER an adapter with a batch, and its losses and gradients by transformers and PEFT
                          with every linear layer of the blocks replaced: weights in e4m3 with one scale, each token's inputs and each token's gradients in e4m3
                          with a scale of their own, all scales powers of two; in fp64, as record_families.py has them; and how far PyTorch's own
                          bf16 is from that

    python record_fp8.py [--check]

An activation close to half-way between two numbers of e4m3 would round one way in fp64 and another in fp32. Batches are drawn until none is that close.
"""
import argparse
import os
import sys

import record_families
from common import GOLDEN, compare_golden, single_thread, write_golden
from record_families import adapter_name, add_adapter, exact, make_batch, make_model
from record_gpt2 import gradients
from record_nf4 import drawn, sha256
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM
from transformers.pytorch_utils import Conv1D

MOST, MOST_EXPONENT = 448.0, 64
SPREAD = 32
MARGIN, TRIES = 5e-7, 4000  # of a row's largest; fp32 errs by some 1e-7
SAMPLES = [(3, 1, 0.4), (2, 1, 0.6)]
SIZES = dict(vocab_size=61, max_position_embeddings=32, bos_token_id=0, eos_token_id=1, attn_implementation="sdpa")
CASES = {
    # three projections are one product elsewhere, two layers
    "llama": dict(cls=LlamaForCausalLM, seed=41, adapters={"lora_all": "all-linear", "lora_qv": ["q_proj", "v_proj"]}, config=LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32, rms_norm_eps=1e-5, **SIZES)),
    # parallel residual, biases, q, k, v interleaved by head
    "gpt_neox": dict(cls=GPTNeoXForCausalLM, seed=42, adapters={"lora_all": "all-linear"}, config=GPTNeoXConfig(
        hidden_size=64, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, rotary_pct=0.25, layer_norm_eps=1e-5, use_parallel_residual=True,
        hidden_dropout=0.0, attention_dropout=0.0, **SIZES)),
    # the GELU without an adapter after it, transposed files
    "gpt2": dict(cls=GPT2LMHeadModel, seed=43, adapters={"lora_qv": ["c_attn"]}, config=GPT2Config(
        vocab_size=61, n_positions=32, n_embd=64, n_layer=1, n_head=2, n_inner=48, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        attn_implementation="sdpa")),
    # fused projections in the file
    "phi3": dict(cls=Phi3ForCausalLM, seed=44, adapters={"lora_all": "all-linear"}, config=Phi3Config(
        hidden_size=64, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-5, pad_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attention_dropout=0.0, **SIZES)),
}
for case in CASES.values():
    case.update(vocab=61, dtype=torch.bfloat16, samples=SAMPLES)
    case["config"]._name_or_path = ""
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # products of one input: their gradients are one row
closest = 1.0


def power_for(most):
    """2^k, the largest that keeps `most` at 448 or below."""
    mantissa, exponent = torch.frexp(most)
    k = torch.where(mantissa <= 0.875, 9 - exponent, 8 - exponent).clamp(max=MOST_EXPONENT)
    return torch.exp2(torch.where(most == 0, 0, k).to(most.dtype))


def e4m3(x):
    return x.clamp(-MOST, MOST).float().to(torch.float8_e4m3fn)


def rows_in_e4m3(x):
    """x with each row of its last dimension through e4m3; notes how close, against the row's largest, a number came to another rounding."""
    global closest
    kind, x = x.dtype, x if x.dtype == torch.float64 else x.float()
    power = power_for(x.abs().amax(-1, keepdim=True))
    y = x * power
    q = e4m3(y).to(x.dtype)
    _, exponent = torch.frexp(q.abs().clamp(min=2.0 ** -6))
    step = torch.exp2((exponent - 4).to(x.dtype))
    up, down = q.abs() + step / 2, q.abs() - torch.where(q.abs() == 4 * step * 2, step / 4, step / 2)
    distance = torch.minimum((up - y.abs()).abs(), (y.abs() - down).abs())[step >= 2.0 ** -8]  # a smaller step is too little to be seen
    if distance.numel():
        closest = min(closest, (distance.min() / MOST).item())
    return (q / power).to(kind)


def weight_in_e4m3(w):
    power = power_for(w.abs().amax())
    return e4m3(w.float() * power.float()).float() / power.float()


class Products(torch.autograd.Function):
    """x through several linear layers (weights (out, in), biases or None) in e4m3."""
    @staticmethod
    def forward(ctx, x, biases, *weights):
        ctx.save_for_backward(*weights)
        q = rows_in_e4m3(x)
        return tuple(q @ w.T.to(x.dtype) + (0 if b is None else b) for w, b in zip(weights, biases))

    @staticmethod
    def backward(ctx, *gradients):
        q, at, total = rows_in_e4m3(torch.cat(gradients, -1)), 0, 0
        for w in ctx.saved_tensors:
            total = total + q[..., at:at + w.shape[0]] @ w.to(q.dtype)
            at += w.shape[0]
        return (total, None) + (None,) * len(ctx.saved_tensors)


class Together:
    """The linear layers of one input. The first that is asked computes all; the others find theirs."""
    def __init__(self, layers):
        self.layers, self.x, self.out = layers, None, {}
        for layer in layers:
            w = layer.weight.detach().T if isinstance(layer, Conv1D) else layer.weight.detach()
            layer.in_e4m3 = weight_in_e4m3(w.float()).double()
            layer.forward = lambda x, layer=layer: self.ask(layer, x)

    def ask(self, layer, x):
        if self.x is not x or layer not in self.out:
            out = Products.apply(x, [l.bias for l in self.layers], *[l.in_e4m3 for l in self.layers])
            self.x, self.out = x, dict(zip(self.layers, out))
        return self.out.pop(layer)


def replace(model):
    """Every linear layer of the blocks in e4m3."""
    for parent in list(model.modules()):
        children = {n: c for n, c in parent.named_children() if isinstance(c, (torch.nn.Linear, Conv1D)) and n not in ("lm_head", "embed_out")}
        for names in TOGETHER:
            if all(n in children for n in names):
                Together([children.pop(n) for n in names])
        for child in children.values():
            Together([child])
    return model


def states(case, target):
    """The batch that is furthest from a rounding the other way, and what is computed with it."""
    global closest
    model = add_adapter(case, replace(make_model(case)), target)
    for seed in range(TRIES):
        batch = make_batch(dict(case, seed=seed))
        closest = 1.0
        tensors = exact(model, adapter_name, batch, torch.float32)
        if closest >= MARGIN:
            tensors.pop("logits")
            return seed, dict(batch, adamw=torch.zeros(6), **tensors)
    raise SystemExit(f"no batch of {TRIES} keeps every rounding")


def spread(case, target):
    """How far PyTorch's own bf16 is from fp64: a rounding to bf16 pushes some numbers over to the next one of e4m3, which is 6 to 12% away. The largest of
    SPREAD batches: of a sample's loss, relative; of the gradient of the whole adapter, as ‖difference‖ / ‖gradient‖."""
    wide, low = (add_adapter(case, replace(make_model(case)), target) for _ in range(2))
    wide, low, far = wide.double(), low.bfloat16(), []
    for seed in range(1000, 1000 + SPREAD):
        batch = make_batch(dict(case, seed=seed))
        (_, _, a, _, x), (_, _, b, _, y) = gradients(wide, batch), gradients(low, batch)
        difference, size = (sum((f(n) ** 2).sum() for n in x) for f in (lambda n: y[n].double() - x[n], lambda n: x[n]))
        far.append(torch.stack([((b.double() - a).abs() / a).max(), (difference / size).sqrt()]))
    return torch.stack(far).amax(0).float()


def half_ways():
    """Positive numbers of e4m3 two by two: what is half-way, and the next fp32 number on either side."""
    numbers = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    half = (numbers[:-1] + numbers[1:]) / 2
    above, below = torch.full_like(half, float("inf")), torch.zeros_like(half)
    return torch.stack([torch.nextafter(half, below), half, torch.nextafter(half, above)], 1).flatten()


def record_numbers():
    every = (torch.arange(65536, dtype=torch.int32) - 32768).to(torch.int16).view(torch.bfloat16).float()
    every = every[every.abs() <= MOST]
    tensors = {"bf16": sha256(e4m3(every).view(torch.uint8)), "half_ways": sha256(e4m3(half_ways()).view(torch.uint8))}
    for name, blocks in {"small": 4, "matrix": 300}.items():  # blocks of 64 as rows of 64
        w = drawn(blocks, 3, 0).reshape(blocks, 64)
        power = power_for(w.abs().amax())
        tensors[name + ".scale"] = (1.0 / power).reshape(1)
        values = e4m3(w * power).view(torch.uint8)
        tensors[name + ".values"] = sha256(values)
        tensors[name + ".transposed"] = sha256(values.T.contiguous())
    return tensors


def write_directories(case, folder):
    case = dict(case, qv=None)
    keep, record_families.adapters = record_families.adapters, lambda case: case["adapters"]
    record_families.write_directories(case, folder)
    record_families.adapters = keep


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check, bad = parser.parse_args().check, 0
    single_thread()
    files = {"numbers.safetensors": record_numbers()}
    for name, case in CASES.items():
        if not check:
            write_directories(case, os.path.join(GOLDEN, "fp8", name))
        for adapter, target in case["adapters"].items():
            seed, tensors = states(case, target)
            print(f"{name}/{adapter}: batch {seed}, {closest:.1e} from another rounding")
            files[f"{name}/{adapter}/states.safetensors"] = tensors
            files[f"{name}/{adapter}/states_bf16.safetensors"] = {"spread": spread(case, target)}  # the file's weights are bf16
    for file, tensors in files.items():
        path = os.path.join(GOLDEN, "fp8", file)
        if check:
            bad += compare_golden(path, tensors, 0.0 if file == "numbers.safetensors" else 5e-6)
        else:
            write_golden(path, tensors, "record_fp8.py")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
