"""
What the recording scripts share: a small GPT-2 from transformers with weights that make every gradient matter, the weights of the tokens after the
loss of the trainer (a sample counts by c_x, split evenly over its n_x tokens that carry loss), rounding to bf16, and writing or re-checking a file of
golden states. Nothing here knows the trainer: it is the other side of the comparison.
"""
import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")          # nothing is fetched: every model is made here
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden")


def single_thread():
    """One thread and deterministic kernels: the same machine records the same bits."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def gpt2(layers, width, heads, vocab, positions, attention="eager"):
    """GPT2LMHeadModel without dropout, fp32, head tied to wte, train mode."""
    config = GPT2Config(vocab_size=vocab, n_positions=positions, n_embd=width, n_layer=layers, n_head=heads, resid_pdrop=0.0, embd_pdrop=0.0,
                        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, attn_implementation=attention)
    model = GPT2LMHeadModel(config).float().train()
    return model


def randomise(model, seed, embedding=0.25, matrix=1.0, bias=0.1):
    """Every parameter random, biases and norms too, so that no gradient is zero by accident; a matrix keeps the scale of its input."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if ".ln_" in name:
                p.copy_(noise * bias + (1.0 if name.endswith("weight") else 0.0))
            elif p.dim() == 1:
                p.copy_(noise * bias)
            elif "wte" in name or "wpe" in name:
                p.copy_(noise * embedding)
            else:                                     # Conv1D: (in, out)
                p.copy_(noise * (matrix / p.shape[0] ** 0.5))


def parameters(model):
    """{HF name: trained parameter}; the tied lm_head.weight is not listed a second time, nor are weights frozen under an adapter."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def bf16(x):
    """x rounded to the nearest bf16 (ties to even), as fp32."""
    return x.to(torch.bfloat16).to(x.dtype)


def loss_targets(tokens, cu_seqlens, prompt_len):
    """targets (T): at row t the token t+1 of the same sample if that token carries loss (it comes after the prompt), else −1."""
    targets = torch.full((len(tokens),), -1, dtype=torch.int32)
    for s, prompt in enumerate(prompt_len):
        begin, end = cu_seqlens[s], cu_seqlens[s + 1]
        for t in range(begin, end - 1):
            if t + 1 - begin >= prompt:
                targets[t] = tokens[t + 1]
    return targets


def token_weights(targets, cu_seqlens, sample_weight):
    """weight (T) = c_x / n_x on rows with a target, else 0; computed in double, rounded once."""
    weight = torch.zeros(len(targets), dtype=torch.float64)
    for s, c in enumerate(sample_weight):
        rows = range(cu_seqlens[s], cu_seqlens[s + 1])
        bearing = [t for t in rows if targets[t] >= 0]
        for t in bearing:
            weight[t] = float(c) / len(bearing)
    return weight.float()


def write_golden(path, tensors, note):
    """One safetensors file, contiguous tensors, under a temporary name first."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, path + ".tmp", metadata={"note": note})
    os.replace(path + ".tmp", path)


def compare_golden(path, tensors, tolerance):
    """A recorded file against tensors computed now: integers equal, floats max|a−b| ≤ tolerance · max|b|. Returns the number of differences."""
    old, bad = load_file(path), 0
    for name in sorted(set(old) | set(tensors)):
        if name not in old or name not in tensors or old[name].shape != tensors[name].shape or old[name].dtype != tensors[name].dtype:
            print(f"not ok {name}: missing on one side, or of another shape or dtype")
            bad += 1
            continue
        a, b = tensors[name].detach().double(), old[name].double()
        allowed = (0.0 if not old[name].dtype.is_floating_point else tolerance) * max(b.abs().max().item(), 1e-30)
        worst = (a - b).abs().max().item()
        if not worst <= allowed:
            print(f"not ok {name}: max|a-b| {worst:.3e}, allowed {allowed:.3e}")
            bad += 1
    print(f"{os.path.relpath(path, HERE)}: {len(old)} tensors, {bad} differ")
    return bad


def texts_main(record, folder):
    """main() of a script whose golden files are texts: writes {name: text} of record() into folder; --check compares and returns how many differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check, bad = parser.parse_args().check, 0
    os.makedirs(folder, exist_ok=True)
    for name, text in record().items():
        path = os.path.join(folder, name)
        if check:
            same = open(path, encoding="utf-8").read() == text
            bad += not same
            print(f"{name}: {'agrees' if same else 'differs'}")
        else:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
    return bad


def single_losses(model, samples):
    """Mean loss over each sample's response (b), every sample alone through the model. samples: [(tokens, prompt length)]."""
    losses = []
    for tokens, prompt in samples:
        ids = torch.tensor([tokens])
        logits = model(input_ids=ids).logits[0]
        first = max(prompt, 1)                        # the first token of a sample is nobody's target
        losses.append(torch.nn.functional.cross_entropy(logits[first - 1:-1], ids[0, first:]))
    return torch.stack(losses)


def padded_losses(model, samples):
    """The same from one batch padded on the right, the way the reference runs micro-batches; logits of every position."""
    longest = max(len(tokens) for tokens, _ in samples)
    ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in samples], device=model.device)
    mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in samples], device=model.device)
    labels = torch.tensor([[-100] * max(prompt, 1) + tokens[max(prompt, 1):] + [-100] * (longest - len(tokens)) for tokens, prompt in samples], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask).logits
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none")
    bearing = (labels[:, 1:] != -100).to(nll.dtype)
    return (nll.view(bearing.shape) * bearing).sum(1) / bearing.sum(1)
