"""
Records what transformers and PEFT compute with a tiny random model of every family that the trainer supports: logits, losses, every gradient and five AdamW
steps, of all weights and of LoRA adapters on frozen weights; for fp32, and for weights rounded to bf16. dev/test/test_families.cu holds the trainer
against these files. As in record_gpt2.py each sample runs through the model alone, from position 0. Logits, losses and gradients are computed in fp64
(but for what transformers itself keeps in fp32: RMS norms and rotary tables) and stored in fp32, because gradients of key projections are sums that
cancel, to 5e-6 in fp32; the AdamW steps run in fp32.

    python record_families.py             writes golden/families/NAME (a Hugging Face directory, states*.safetensors, a PEFT directory an adapter)
    python record_families.py --check     computes everything again and compares with the files
    python record_families.py --spread    writes golden/families/spread.txt: how far PyTorch's own bf16 is off
    python record_families.py --survey    how far fp64 and a bf16 model are from what is recorded
"""
import argparse
import glob
import json
import os
import shutil
import sys

from common import GOLDEN, bf16, compare_golden, parameters, single_thread, write_golden
from record_gpt2 import BETAS, CLIP, EPS, WEIGHT_DECAY, gradients, make_batch, train, worst
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM,
                          GraniteConfig, GraniteForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Olmo2Config, Olmo2ForCausalLM,
                          Olmo3Config, Olmo3ForCausalLM,
                          Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, SmolLM3Config, SmolLM3ForCausalLM)

STEPS = 5
LORA_SEED, RANK, ALPHA = 31, 4, 6  # the scale is 1.5: neither 1 nor a power of two
B_SIZE = 0.1
# (length, prompt length, c_x), as in record_gpt2.py; the longest crosses a tile of the attention kernels
SAMPLES = [(29, 9, 0.31), (1, 0, 0.20), (11, 10, 0.07), (67, 20, 0.24), (7, 0, 0.18)]
ROPE = dict(max_position_embeddings=128, attn_implementation="sdpa", bos_token_id=0, eos_token_id=1)
# dtype: of the file. Weights are exactly bf16 whatever the file's type, so that both precisions share logits and gradients, but for `llama`, whose
# fp32 weights are rounded on loading. shard: save_pretrained's limit, which makes several files and an index.
CASES = {
    # three query heads share one key-value head, heads wider than C / NH, Llama-3 scaling with frequencies in each of its three ranges
    "llama": dict(cls=LlamaForCausalLM, dtype=torch.float32, seed=11, qv=["q_proj", "v_proj"], config=LlamaConfig(
        vocab_size=93, hidden_size=48, intermediate_size=56, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, head_dim=32, rms_norm_eps=1e-5,
        rope_theta=500000.0, rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32), **ROPE)),
    # head size 96, a tied head, biases on every projection
    "llama_tied": dict(cls=LlamaForCausalLM, dtype=torch.bfloat16, seed=12, qv=["q_proj", "v_proj"], config=LlamaConfig(
        vocab_size=71, hidden_size=40, intermediate_size=56, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=96, rms_norm_eps=1e-6,
        tie_word_embeddings=True, attention_bias=True, mlp_bias=True, **ROPE)),
    # head size 80, a window no sample leaves, a file in fp16
    "mistral": dict(cls=MistralForCausalLM, dtype=torch.float16, seed=13, qv=["q_proj", "v_proj"], config=MistralConfig(
        vocab_size=83, hidden_size=40, intermediate_size=56, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=80, rms_norm_eps=1e-5,
        rope_theta=10000.0, sliding_window=96, **ROPE)),
    # parallel residual, a quarter of the head turns: halves of 4; q, k, v interleaved by head; several files
    "gpt_neox": dict(cls=GPTNeoXForCausalLM, dtype=torch.bfloat16, seed=14, qv=["query_key_value"], shard="60KB", config=GPTNeoXConfig(
        vocab_size=61, hidden_size=64, intermediate_size=72, num_hidden_layers=2, num_attention_heads=2, rotary_pct=0.25, layer_norm_eps=1e-5,
        use_parallel_residual=True, hidden_dropout=0.0, attention_dropout=0.0, **ROPE)),
    # sequential residual, head size 80 as in Pythia-2.8B: halves of 10
    "gpt_neox_sequential": dict(cls=GPTNeoXForCausalLM, dtype=torch.bfloat16, seed=15, qv=["query_key_value"], config=GPTNeoXConfig(
        vocab_size=53, hidden_size=80, intermediate_size=40, num_hidden_layers=1, num_attention_heads=1, rotary_pct=0.25, layer_norm_eps=1e-5,
        use_parallel_residual=False, hidden_dropout=0.0, attention_dropout=0.0, **ROPE)),
    # fused qkv and gate_up, GQA 2:1, LongRoPE: every sample is within the original positions, so the short factors hold, with the attention factor
    "phi3": dict(cls=Phi3ForCausalLM, dtype=torch.bfloat16, seed=16, qv=["qkv_proj"], config=Phi3Config(
        vocab_size=67, hidden_size=64, intermediate_size=56, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-5, sliding_window=100,
        original_max_position_embeddings=72, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attention_dropout=0.0,
        rope_scaling=dict(type="longrope", short_factor=[1.0 + 0.05 * i for i in range(16)], long_factor=[2.0 + 0.5 * i for i in range(16)]), **ROPE)),
    # biases on q, k, v alone; the second layer has a window that the longer samples leave
    "qwen2": dict(cls=Qwen2ForCausalLM, dtype=torch.bfloat16, seed=18, qv=["q_proj", "v_proj"], config=Qwen2Config(
        vocab_size=59, hidden_size=64, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-6,
        rope_theta=1e6, use_sliding_window=True, sliding_window=24, max_window_layers=1, **ROPE)),
    # Phi-4-mini: three quarters of a head turn, a tied head, LongRoPE within its original positions
    "phi4_mini": dict(cls=Phi3ForCausalLM, dtype=torch.bfloat16, seed=19, qv=["qkv_proj"], config=Phi3Config(
        vocab_size=51, hidden_size=64, intermediate_size=40, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, rms_norm_eps=1e-5,
        sliding_window=None, partial_rotary_factor=0.75, tie_word_embeddings=True, original_max_position_embeddings=72, pad_token_id=0, resid_pdrop=0.0,
        embd_pdrop=0.0, attention_dropout=0.0,
        rope_scaling=dict(type="longrope", short_factor=[1.0 + 0.05 * i for i in range(24)], long_factor=[2.0 + 0.5 * i for i in range(24)]), **ROPE)),
    # a layer with rotary positions and one without
    "smollm3": dict(cls=SmolLM3ForCausalLM, dtype=torch.bfloat16, seed=20, qv=["q_proj", "v_proj"], config=SmolLM3Config(
        vocab_size=57, hidden_size=64, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-6,
        no_rope_layers=[1, 0], pad_token_id=None, **ROPE)),
    # four scalars; dynamic RoPE, which within the positions of the model is the plain one
    "granite": dict(cls=GraniteForCausalLM, dtype=torch.bfloat16, seed=21, qv=["q_proj", "v_proj"], config=GraniteConfig(
        vocab_size=55, hidden_size=64, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-5,
        embedding_multiplier=3.0, residual_multiplier=0.22, attention_multiplier=0.11, logits_scaling=1.7, rope_scaling=dict(rope_type="dynamic", factor=2.0), **ROPE)),
    # a window that the longer samples leave, in every layer
    "mistral_window": dict(cls=MistralForCausalLM, dtype=torch.bfloat16, seed=22, qv=["q_proj", "v_proj"], config=MistralConfig(
        vocab_size=47, hidden_size=48, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1, head_dim=32, rms_norm_eps=1e-5,
        sliding_window=20, **ROPE)),
    # YaRN, longer than the positions of the model's first training
    "llama_yarn": dict(cls=LlamaForCausalLM, dtype=torch.bfloat16, seed=23, qv=["q_proj", "v_proj"], config=LlamaConfig(
        vocab_size=45, hidden_size=64, intermediate_size=40, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, rms_norm_eps=1e-5,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32), **ROPE)),
    # a norm per head on queries and keys, heads wider than C / NH, a tied head
    "qwen3": dict(cls=Qwen3ForCausalLM, dtype=torch.bfloat16, seed=24, qv=["q_proj", "v_proj"], config=Qwen3Config(
        vocab_size=49, hidden_size=48, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=64, rms_norm_eps=1e-6,
        rope_theta=1e6, tie_word_embeddings=True, **ROPE)),
    # norms after attention and MLP only; one norm over all query heads, one over all key heads
    "olmo2": dict(cls=Olmo2ForCausalLM, dtype=torch.bfloat16, seed=25, qv=["q_proj", "v_proj"], config=Olmo2Config(
        vocab_size=54, hidden_size=64, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-5,
        rope_theta=500000.0, pad_token_id=2, **ROPE)),
    # OLMo 2 with a window and plain positions in the first layer, YaRN in the second
    "olmo3": dict(cls=Olmo3ForCausalLM, dtype=torch.bfloat16, seed=28, qv=["q_proj", "v_proj"], config=Olmo3Config(
        vocab_size=53, hidden_size=64, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-6,
        rope_theta=500000.0, sliding_window=24, layer_types=["sliding_attention", "full_attention"], pad_token_id=1,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=32), **ROPE)),
    # four norms of 1 + w, caps that bend scores and logits of this size, a scale of its own, a window in the first layer
    "gemma2": dict(cls=Gemma2ForCausalLM, dtype=torch.bfloat16, seed=26, qv=["q_proj", "v_proj"], config=Gemma2Config(
        vocab_size=52, hidden_size=40, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=32, rms_norm_eps=1e-6,
        query_pre_attn_scalar=24, sliding_window=24, attn_logit_softcapping=2.0, final_logit_softcapping=4.0, pad_token_id=0,
        **dict(ROPE, attn_implementation="eager"))),
    # norms per head, two layers with a window and a base of their own to one that attends to everything, with linear positions
    "gemma3": dict(cls=Gemma3ForCausalLM, dtype=torch.bfloat16, seed=27, qv=["q_proj", "v_proj"], config=Gemma3TextConfig(
        vocab_size=50, hidden_size=32, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=32, rms_norm_eps=1e-6,
        query_pre_attn_scalar=20, sliding_window=24, sliding_window_pattern=3, rope_theta=1e6, rope_local_base_freq=1e4, pad_token_id=0,
        rope_scaling=dict(rope_type="linear", factor=8.0), **ROPE)),
    # the family of test_gpt2.cu, here for its adapters
    "gpt2": dict(cls=GPT2LMHeadModel, dtype=torch.bfloat16, seed=17, qv=["c_attn"], config=GPT2Config(
        vocab_size=77, n_positions=72, n_embd=64, n_layer=1, n_head=2, n_inner=72, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        attn_implementation="sdpa")),
}
for case in CASES.values():
    case.update(vocab=case["config"].vocab_size, samples=SAMPLES, lr=1e-3)
    case["config"]._name_or_path = ""


def noise_of(shape, generator, scale):
    return torch.randn(shape, generator=generator) * scale


def make_model(case):
    """fp32, train mode, every parameter random: norms around 1, a matrix keeps the scale of its input, biases and embeddings are not small."""
    model = case["cls"](case["config"]).float().train()
    generator = torch.Generator().manual_seed(case["seed"])
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name or "ln_" in name:
                offset = 0.0 if "gemma" in case["config"].model_type else 1.0  # Gemma multiplies by 1 + w
                p.copy_(noise_of(p.shape, generator, 0.2) + (offset if name.endswith("weight") else 0.0))
            elif p.dim() == 1:
                p.copy_(noise_of(p.shape, generator, 0.2))
            elif any(part in name for part in ("embed_tokens", "embed_in", "wte", "wpe")):
                p.copy_(noise_of(p.shape, generator, 0.2 if case["config"].tie_word_embeddings else 0.5))
            else:  # Linear (out, in); Conv1D (in, out)
                p.copy_(noise_of(p.shape, generator, p.shape[0 if case["cls"] is GPT2LMHeadModel else 1] ** -0.5))
            if case["dtype"] != torch.float32:
                p.copy_(bf16(p.half().float()))  # exact in bf16 and, through fp16 first, in fp16 as well
    return model


def add_adapter(case, model, target):
    """model with LoRA on `target`, B random and small: at PEFT's own B = 0 the gradient of A would be zero, and a B as large as A makes the adapters twice the
    model, which PyTorch's own bf16 then misses by 8% (--survey)."""
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=target, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
                      fan_in_fan_out=case["cls"] is GPT2LMHeadModel)
    model = get_peft_model(model, lora).train()
    generator = torch.Generator().manual_seed(LORA_SEED)
    with torch.no_grad():
        for name, p in parameters(model).items():
            p.copy_(bf16(noise_of(p.shape, generator, p.shape[1] ** -0.5 * (B_SIZE if "lora_B" in name else 1.0))))
    return model


def adapter_name(name):
    """A parameter's name in adapter_model.safetensors."""
    return name.replace(".default", "")


def round_(tensors):
    with torch.no_grad():
        for p in tensors:
            p.copy_(bf16(p))


def exact(model, name, batch, dtype):
    """Logits, losses and gradients in fp64; losses to be stored in fp32, the rest in dtype (bf16: two digits more than the comparison asks)."""
    logits, nll, sample_loss, loss, grad = gradients(model.double(), batch)
    return dict(nll=nll.float(), sample_loss=sample_loss.float(), loss=loss.float().reshape(1), logits=logits.to(dtype),
                **{"grad." + name(n): g.to(dtype) for n, g in grad.items()})


def states_of(case, make):
    """(states, bf16 states) of the trained parameters of make(rounded), which returns a fresh model and how its parameters are called in the file."""
    batch = make_batch(case)
    adamw = torch.tensor([case["lr"], *BETAS, EPS, WEIGHT_DECAY, CLIP], dtype=torch.float32)
    states, rounded = (exact(*make(rounded), batch, torch.bfloat16 if rounded else torch.float32) for rounded in (False, True))
    if case["dtype"] != torch.float32:  # the same numbers as those of fp32
        rounded = {n: x for n, x in rounded.items() if n in ("nll", "sample_loss", "loss")}
    states["adamw"] = adamw
    model, name = make(False)
    states["step_loss"], states["step_grad_norm"], after = train(model, batch, False, case["lr"], steps=STEPS)
    rounded["step_loss"], rounded["step_grad_norm"], _ = train(make(False, base_rounded=True)[0], batch, True, case["lr"], steps=STEPS)
    return batch, states, rounded, {"after." + name(n): p for n, p in after.items()}


def record(case):
    """{file: tensors} of the case's directory, without the model and the adapters themselves."""
    def full(rounded, base_rounded=False):
        model = make_model(case)
        if rounded:
            round_(model.parameters())
        return model, lambda n: n

    batch, states, rounded, _ = states_of(case, full)
    files = {"states.safetensors": dict(batch, **states), "states_bf16.safetensors": rounded}
    for folder, target in adapters(case).items():
        def lora(rounded, base_rounded=False):
            model = make_model(case)
            if rounded or base_rounded:
                round_(model.parameters())
            return add_adapter(case, model, target), adapter_name  # the adapter's own values are exactly bf16

        _, states, rounded, after = states_of(case, lora)
        for tensors in (states, rounded):
            tensors.pop("logits", None)  # the losses say as much
        files[folder + "/states.safetensors"] = dict(states, **after)
        files[folder + "/states_bf16.safetensors"] = rounded
    return files


def adapters(case):
    """{directory: PEFT's target_modules}: what --lora q,v and --lora all mean in this family."""
    return {"lora_qv": case["qv"], "lora_all": "all-linear"}


def write_directories(case, folder):
    """The model as save_pretrained writes it, and beside it a PEFT directory an adapter."""
    model = make_model(case)
    temporary = folder + ".tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    model.to(case["dtype"]).save_pretrained(temporary, max_shard_size=case.get("shard", "1GB"))
    for unused in ("generation_config.json",):
        os.remove(os.path.join(temporary, unused))
    for name, target in adapters(case).items():
        lora = add_adapter(case, make_model(case), target)
        lora.save_pretrained(os.path.join(temporary, name), save_embedding_layers=False)
        os.remove(os.path.join(temporary, name, "README.md"))
        path = os.path.join(temporary, name, "adapter_config.json")
        with open(path) as f:
            config = json.load(f)
        config["target_modules"] = sorted(config["target_modules"])  # a set: any order otherwise
        config["base_model_name_or_path"] = None
        with open(path, "w") as f:
            json.dump(config, f, indent=2, sort_keys=True)
            f.write("\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def compare_directories(case, folder):
    """The recorded weights against weights made now: equal, or 1 difference each."""
    bad, stored = 0, {}
    for path in glob.glob(os.path.join(folder, "model*.safetensors")):
        stored.update(load_file(path))
    start = parameters(make_model(case))
    bad += set(stored) != set(start) or any(not torch.equal(stored[n].float(), p) for n, p in start.items())
    for name, target in adapters(case).items():
        stored = load_file(os.path.join(folder, name, "adapter_model.safetensors"))
        start = {adapter_name(n): p for n, p in parameters(add_adapter(case, make_model(case), target)).items()}
        bad += set(stored) != set(start) or any(not torch.equal(stored[n], p) for n, p in start.items())
    if bad:
        print(f"not ok {folder}: {bad} of the weights' files are others")
    return bad


SPREAD = 16


def spread(name, case):
    """What bf16 costs in models this small: for all weights and for each adapter, SPREAD random models of the case (others than the recorded one), each with
    a batch of its own, in PyTorch's own bf16 against fp64 on the same bf16 weights. A line: whose gradients, the largest |norm ratio − 1| of a tensor, the root
    mean square over tensors and models, the mean with its standard error over models, the share of tensors off by more than 1%."""
    lines = []
    for folder, target in {"": None, **adapters(case)}.items():
        off = []
        for seed in range(100, 100 + SPREAD):
            drawn = dict(case, seed=seed)
            batch = make_batch(drawn)

            def model():
                made = make_model(drawn)
                round_(made.parameters())
                return made if target is None else add_adapter(drawn, made, target)

            ideal, low = gradients(model().double(), batch)[4], gradients(model().bfloat16(), batch)[4]
            off.append(torch.stack([low[n].double().norm() / ideal[n].double().norm() - 1 for n in ideal if ideal[n].norm() > 0]))
        means, every = torch.stack([x.mean() for x in off]), torch.cat(off)
        lines.append(f"{name}{'/' + folder if folder else ''} {every.abs().max():.4f} {every.square().mean().sqrt():.4f} {means.mean():+.4f} {means.std() / SPREAD ** 0.5:.4f} "
                     f"{(every.abs() > 0.01).double().mean():.3f}\n")
        print(lines[-1], end="", flush=True)
    return lines


def survey(name, case):
    """Is the record a fair judge? Its own rounding against fp64, and what a bf16 model of PyTorch reaches."""
    batch = make_batch(case)
    logits, _, _, loss, grad = gradients(make_model(case), batch)
    wide_logits, _, _, _, wide = gradients(make_model(case).double(), batch)
    print(f"{name}: loss {loss.item():.6f}, logits std {logits.std():.3f}, parameters {sum(g.numel() for g in grad.values())}")
    print("  fp32 against fp64: logits %.1e" % worst({"logits": logits}, {"logits": wide_logits})[0], "gradients %.1e (%s)" % worst(grad, wide))
    model = make_model(case)
    round_(model.parameters())
    _, _, _, _, ideal = gradients(model, batch)
    _, _, _, _, low = gradients(model.bfloat16(), batch)
    rows = sorted((torch.nn.functional.cosine_similarity(low[n].double().flatten(), ideal[n].double().flatten(), dim=0).item(),
                   (low[n].double().norm() / ideal[n].double().norm()).item(), n) for n in ideal)
    for cosine, ratio, n in rows[:3]:
        print(f"  PyTorch's own bf16 gradients, the worst: cosine {cosine:.6f}, norm ratio {ratio:.5f} {n}")
    small = sorted((g.abs().max().item(), n) for n, g in grad.items())
    print("  smallest largest gradient %.1e (%s)" % small[0])
    for folder, target in adapters(case).items():
        lora = add_adapter(case, make_model(case), target)
        _, _, _, _, grad = gradients(lora, batch)
        _, _, _, _, wide = gradients(add_adapter(case, make_model(case), target).double(), batch)
        print("  %s: %d numbers, gradients fp32 against fp64 %.1e (%s)" % (folder, sum(g.numel() for g in grad.values()), *worst(grad, wide)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--survey", action="store_true")
    parser.add_argument("--spread", action="store_true")
    parser.add_argument("names", nargs="*", help="families (default: all)")
    args = parser.parse_args()
    single_thread()
    bad = total = 0
    if args.spread:
        path = os.path.join(GOLDEN, "families", "spread.txt")
        kept = [line for line in open(path) if line.split("/")[0].split()[0] not in args.names] if args.names and os.path.exists(path) else []
        kept += [line for name, case in CASES.items() if not args.names or name in args.names for line in spread(name, case)]
        with open(path, "w") as f:
            f.writelines(sorted(kept))
        return
    for name, case in CASES.items():
        if args.names and name not in args.names:
            continue
        if args.survey:
            survey(name, case)
            continue
        folder = os.path.join(GOLDEN, "families", name)
        if args.check:
            bad += compare_directories(case, folder)
        else:
            write_directories(case, folder)
        for file, tensors in record(case).items():
            path = os.path.join(folder, file)
            if args.check:  # another machine's BLAS sums in another order; bf16 states may differ by one rounding
                bad += compare_golden(path, tensors, 1e-2 if "bf16" in file else 5e-6)
            else:
                write_golden(path, tensors, "record_families.py" + (", weights rounded to bf16, arithmetic fp32" if "bf16" in file else ", fp32"))
        if not args.check:
            size = sum(os.path.getsize(p) for p in glob.glob(folder + "/**", recursive=True) if os.path.isfile(p))
            total += size
            print(f"{name}: {size} bytes")
    if total:
        print(f"{total} bytes in all")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
