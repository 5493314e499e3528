"""Tiny GGUF files by the `gguf` package, and what comes of them → golden/gguf. dev/test/test_gguf.c holds the importer against them.

    record_gguf.py [--check] [NAME …]

types.gguf, types.safetensors       a tensor of every type that is read, of random bits where the package cannot quantise, and its values by the package
FAMILY.gguf, FAMILY.json            a random model of transformers, written as llama.cpp's converter does (rows of q and k interleaved, norms + 1, …), its tensors
                                    of the types in turn; the JSON has the shape and SHA-256 of every Hugging Face tensor in fp32, in the file's order, and the
                                    keys of config.json that matter; llama_split-0000N-of-00003.gguf is llama.gguf in three files
tokenizer_NAME.gguf, .json          a tokenizer and no tensors; the JSON has texts and the ids that `tokenizers` gives for the pipeline of the published models
                                    that the name stands for, or sentencepiece for its model
"""
import hashlib
import json
import os
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import gguf
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from safetensors.numpy import save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "golden", "gguf")
T = gguf.GGMLQuantizationType
QUANTISED = [T.Q8_0, T.Q4_0, T.Q5_1, T.F16, T.Q4_1, T.Q5_0, T.BF16, T.Q4_0, T.Q4_1]  # what the package can quantise, in turn

# ---- types ---------------------------------------------------------------------------------------------------------------------------------


def random_blocks(kind, n_blocks, rng):
    """Blocks of random bits with finite scales."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (n_blocks, size), dtype=np.uint8)
    scales = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}[kind]
    for at in scales:
        values = rng.normal(0, 0.01, n_blocks).astype(np.float16)
        values[0], values[1] = 6e-8, -3e-6  # subnormal
        blocks[:, at:at + 2] = values.view(np.uint8).reshape(-1, 2)
    return blocks


def record_types(out):
    rng = np.random.default_rng(5)
    writer = gguf.GGUFWriter(f"{out}/types.gguf", "llama")
    values = {}
    for kind in (T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K):
        if kind in (T.F32, T.F16, T.BF16):
            x = rng.normal(0, 1, (2, 24)).astype(np.float32)
            x[0, :4] = [6e-8, -3e-6, 0.0, -0.0]
            data = x if kind == T.F32 else gguf.quants.quantize(x, kind)
        else:
            block, size = gguf.GGML_QUANT_SIZES[kind]
            data = random_blocks(kind, 2 * (256 // block), rng).reshape(2, -1)
        values[kind.name] = np.ascontiguousarray(gguf.quants.dequantize(data, kind).astype(np.float32))
        writer.add_tensor(kind.name, data, raw_dtype=None if kind in (T.F32, T.F16) else kind)
    finish(writer)
    save_file(values, f"{out}/types.safetensors")


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- tokenizers ----------------------------------------------------------------------------------------------------------------------------

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?"
         r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
          r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# name of tokenizer.ggml.pre: (normaliser, digits apart, pattern, ignore_merges)
PRES = {"gpt-2": (None, False, None, False), "olmo": ("NFC", False, None, False), "smollm": (None, True, None, False), "refact": (None, True, None, False),
        "llama-bpe": (None, False, LLAMA3, True), "dbrx": (None, False, LLAMA3, False), "qwen2": ("NFC", False, QWEN2, False),
        "gpt-4o": (None, False, O200K, False), "tekken": (None, False, TEKKEN, True)}
# text to train on: pieces cross every boundary that a pattern draws
TRAINING = ["It's 2024 and they'RE 12345 miles away... we'll see!", "  two  spaces\n\n\nand lines \r\n of 100 000 words", "HelloWorld camelCase ABCdef don't",
            "naïve café e\u0301 Ünïcode 你好世界 123", "x=1;y=22;z=333 // a/b/c\n\n"] * 4
TEXTS = ["", " ", "a", "It's 2024.", "they'RE here, WE'LL see", "12345678 and 1 2 3", "  two  spaces   at the end   ", "\n\n\nlines\r\n\r\n of\ttabs\t\t", "HelloWorld camelCase ABCdef",
         "café cafe\u0301 Ünïcode", "你好世界 123你好", "x=1;y=22; // a/b/c\n\n", "don't 'S 'Tis", "100 000,5", "<s> <|im_start|>user\nhi<|im_end|>", "…¡!?#$%", "\u00a0nbsp \u2003em",
         "emoji 🙂🙂 text", "ﬁ Å Å", "a" * 40, " " * 20 + "x", "<table> <br>\n<table>\n"]


def byte_level():
    """(tokens, merges): bytes first, then what merges make, across words."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=360, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), max_token_length=6, show_progress=False)
    tokenizer.train_from_iterator(TRAINING, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].get)
    return vocab, [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def add_byte_level(writer, pre, vocab, merges, user=()):
    """SPECIAL in front, as in SmolLM2; `user`: tokens that are not special, at the end."""
    tokens = SPECIAL + vocab + list(user)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens + ["[PAD%d]" % len(tokens)])
    writer.add_token_types([3] * len(SPECIAL) + [1] * len(vocab) + [4] * len(user) + [5])
    writer.add_token_merges([" ".join(m) for m in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    return len(tokens) + 1


def reference(pre, vocab, merges, user=()):
    """The published pipeline over the same vocabulary."""
    nfc, digits, pattern, whole = PRES[pre]
    tokens = SPECIAL + vocab + list(user)
    t = tokenizers.Tokenizer(models.BPE(vocab={x: i for i, x in enumerate(tokens)}, merges=merges, ignore_merges=whole))
    if nfc:
        t.normalizer = normalizers.NFC()
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if pattern:
        steps.append(pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"))
    t.pre_tokenizer = pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)])
    t.add_special_tokens([tokenizers.AddedToken(x, special=True, normalized=False) for x in SPECIAL])
    t.add_tokens([tokenizers.AddedToken(x, special=False, normalized=False) for x in user])
    return t


def sentence_model(prefix, user):
    with tempfile.TemporaryDirectory() as scratch:
        with open(f"{scratch}/text", "w") as f:
            f.write("\n".join(x.replace("\n", " ") for x in TRAINING))
        sentencepiece.SentencePieceTrainer.train(
            input=f"{scratch}/text", model_prefix=f"{scratch}/m", model_type="bpe", vocab_size=390, byte_fallback=True, hard_vocab_limit=False, add_dummy_prefix=prefix,
            remove_extra_whitespaces=False, normalization_rule_name="identity", user_defined_symbols=user, minloglevel=2, character_coverage=1.0)
        with open(f"{scratch}/m.model", "rb") as f:
            return f.read()


def add_sentencepiece(writer, data, prefix):
    """As llama.cpp's converter: spaces of user-defined pieces are spaces, scores of what is no piece of text −1000."""
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(data)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([p.piece.replace("▁", " ") if p.type == 4 else p.piece for p in model.pieces])
    writer.add_token_scores([-1000.0 if p.type in (2, 3, 4) else p.score for p in model.pieces])
    writer.add_token_types([p.type for p in model.pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(prefix)
    return len(model.pieces)


SENTENCE = {"spm": dict(prefix=True, user=[]), "spm_no_prefix": dict(prefix=False, user=["<table>", "\n", "\n\n", "\t", "▁▁", "▁▁▁"])}


def record_tokenizer(out, name, byte_level_model):
    writer = gguf.GGUFWriter(f"{out}/tokenizer_{name}.gguf", "llama")
    if name in PRES:
        user = ["<table>", "<br>\n"]
        add_byte_level(writer, name, *byte_level_model, user=user)
        library = reference(name, *byte_level_model, user=user)
        ids = [library.encode(t, add_special_tokens=False).ids for t in TEXTS]
    else:
        data = sentence_model(**SENTENCE[name])
        add_sentencepiece(writer, data, SENTENCE[name]["prefix"])
        ids = sentencepiece.SentencePieceProcessor(model_proto=data).encode([t.replace("<s>", "s") for t in TEXTS])
    finish(writer)
    texts = TEXTS if name in PRES else [t.replace("<s>", "s") for t in TEXTS]
    write_json(f"{out}/tokenizer_{name}.json", {"texts": texts, "ids": ids})


# ---- families ------------------------------------------------------------------------------------------------------------------------------

COMMON = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256, head_dim=32)
# families whose config has no head_dim
PLAIN = dict({k: v for k, v in COMMON.items() if k != "head_dim"}, hidden_size=64)
LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
# name: (architecture, class of the config, its arguments, pre-tokenizer or sentencepiece)
FAMILIES = {
    "llama": ("llama", "LlamaConfig", dict(COMMON, rope_theta=500000.0, rope_scaling=LLAMA3_ROPE, max_position_embeddings=131072), "llama-bpe"),
    "llama_biases": ("llama", "LlamaConfig", dict(COMMON, attention_bias=True, mlp_bias=True, rope_scaling=dict(rope_type="linear", factor=4.0),
                                                  tie_word_embeddings=True), "smollm"),
    "mistral": ("llama", "MistralConfig", dict(COMMON, sliding_window=64), "spm"),
    "gpt2": ("gpt2", "GPT2Config", dict(n_embd=64, n_layer=2, n_head=2, n_positions=64, n_inner=96), "gpt-2"),
    "gpt_neox": ("gptneox", "GPTNeoXConfig", dict({k: v for k, v in PLAIN.items() if k != "num_key_value_heads"}, rotary_pct=0.25,
                                                  use_parallel_residual=True), "olmo"),
    "phi3": ("phi3", "Phi3Config", dict(PLAIN, max_position_embeddings=1024, original_max_position_embeddings=256,
                                        sliding_window=100, pad_token_id=0, rope_scaling=dict(type="longrope", short_factor=[1 + 0.05 * i for i in range(16)],
                                                                                              long_factor=[2 + 0.5 * i for i in range(16)])), "spm"),
    "qwen2": ("qwen2", "Qwen2Config", dict(PLAIN, rope_theta=1e6, tie_word_embeddings=True), "qwen2"),
    "qwen3": ("qwen3", "Qwen3Config", dict(COMMON, rope_theta=1e6), "qwen2"),
    "granite": ("granite", "GraniteConfig", dict(PLAIN, embedding_multiplier=12.0, attention_multiplier=0.015625,
                                                 residual_multiplier=0.22, logits_scaling=8.0, tie_word_embeddings=True), "refact"),
    "smollm3": ("smollm3", "SmolLM3Config", dict(dict(PLAIN, num_hidden_layers=4), pad_token_id=2), "llama-bpe"),
    "olmo2": ("olmo2", "Olmo2Config", dict(PLAIN, rope_theta=500000.0), "dbrx"),
    "gemma2": ("gemma2", "Gemma2Config", dict(COMMON, sliding_window=64, query_pre_attn_scalar=32), "spm_no_prefix"),
    "gemma3": ("gemma3", "Gemma3TextConfig", dict(COMMON, num_hidden_layers=7, sliding_window=64, query_pre_attn_scalar=32), "spm_no_prefix"),
}
# of config.json, as transformers writes it: what must come back
KEYS = ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings",
        "vocab_size", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_theta", "rotary_emb_base", "rotary_pct", "use_parallel_residual", "tie_word_embeddings",
        "attention_bias", "mlp_bias", "n_embd", "n_layer", "n_head", "n_positions", "sliding_window", "original_max_position_embeddings", "rope_scaling",
        "embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling", "query_pre_attn_scalar", "attn_logit_softcapping",
        "final_logit_softcapping", "rope_local_base_freq", "layer_types", "no_rope_layers", "bos_token_id", "eos_token_id"]


def to_gguf(architecture, config, name, x):
    """A Hugging Face tensor as llama.cpp's converter has it."""
    heads = config.num_attention_heads
    if architecture in ("llama", "granite", "smollm3") and ("q_proj" in name or "k_proj" in name):
        n = heads if "q_proj" in name else config.num_key_value_heads
        x = x.reshape(n, 2, x.shape[0] // n // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
    if architecture == "gpt2" and ".h." in name and x.ndim == 2:
        x = x.T
    if architecture == "gptneox" and "query_key_value" in name:
        x = x.reshape(heads, 3, x.shape[0] // heads // 3, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
    if architecture in ("gemma2", "gemma3") and name.endswith("norm.weight"):
        x = x + np.float32(1)
    return np.ascontiguousarray(x)


def from_gguf(architecture, config, name, x):
    """And back, for the values that rounding left."""
    heads = config.num_attention_heads
    if architecture in ("llama", "granite", "smollm3") and ("q_proj" in name or "k_proj" in name):
        n = heads if "q_proj" in name else config.num_key_value_heads
        x = x.reshape(n, x.shape[0] // n // 2, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
    if architecture == "gpt2" and ".h." in name and x.ndim == 2:
        x = x.T
    if architecture == "gptneox" and "query_key_value" in name:
        x = x.reshape(3, heads, x.shape[0] // heads // 3, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
    if architecture in ("gemma2", "gemma3") and name.endswith("norm.weight"):
        x = x - np.float32(1)
    return np.ascontiguousarray(x)


def add_config(writer, architecture, c):
    get = lambda *names: next((getattr(c, n) for n in names if getattr(c, n, None) is not None), None)
    heads, width = c.num_attention_heads, c.hidden_size
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(width)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(get("intermediate_size", "n_inner") or 4 * width)
    writer.add_head_count(heads)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(c.layer_norm_epsilon)
        return
    head_size = get("head_dim") or width // heads
    if architecture == "gptneox":
        writer.add_layer_norm_eps(c.layer_norm_eps)
        writer.add_parallel_residual(c.use_parallel_residual)
        writer.add_rope_dimension_count(int(c.rotary_pct * head_size))
        return
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_rope_dimension_count(head_size)
    if get("head_dim"):
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
    if get("sliding_window") and (architecture != "qwen2" and architecture != "qwen3"):
        writer.add_sliding_window(c.sliding_window)
    scaling = get("rope_scaling") or {}
    if scaling.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    if scaling.get("rope_type") == "llama3":
        base = c.rope_theta ** (np.arange(0, head_size, 2, dtype=np.float32) / head_size)
        low, high = (scaling["original_max_position_embeddings"] / scaling[f"{k}_freq_factor"] for k in ("low", "high"))
        smooth = (scaling["original_max_position_embeddings"] / (2 * np.pi * base) - scaling["low_freq_factor"]) / (scaling["high_freq_factor"] - scaling["low_freq_factor"])
        factors = np.where(2 * np.pi * base < high, 1, np.where(2 * np.pi * base > low, scaling["factor"], 1 / ((1 - smooth) / scaling["factor"] + smooth)))
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    if architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(c.original_max_position_embeddings)
        scale = c.max_position_embeddings / c.original_max_position_embeddings
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(scale) / np.log(c.original_max_position_embeddings))))
        writer.add_tensor("rope_factors_long.weight", np.array(scaling["long_factor"], np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(scaling["short_factor"], np.float32))
    if architecture == "granite":
        writer.add_attention_scale(c.attention_multiplier)
        writer.add_embedding_scale(c.embedding_multiplier)
        writer.add_residual_scale(c.residual_multiplier)
        writer.add_logit_scale(c.logits_scaling)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(c.attn_logit_softcapping)
        writer.add_final_logit_softcapping(c.final_logit_softcapping)


def record_family(out, name, byte_level_model, seed, split=0):
    """split: tensors of a file; then only the GGUF is written, as NAME_split-00001-of-0000N.gguf."""
    architecture, config_class, arguments, tokenizer = FAMILIES[name]
    arch = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    writer = gguf.GGUFWriter(f"{out}/{name}{'_split' if split else ''}.gguf", architecture, split_max_tensors=split)
    writer.add_name(name)
    if tokenizer in PRES:
        vocab = add_byte_level(writer, tokenizer, *byte_level_model)
    else:
        vocab = add_sentencepiece(writer, sentence_model(**SENTENCE[tokenizer]), SENTENCE[tokenizer]["prefix"])
    config = getattr(transformers, config_class)(**dict(dict(bos_token_id=1, eos_token_id=2), vocab_size=vocab, **arguments))
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    add_config(writer, architecture, config)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}")
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    digests, turn = {}, seed
    tied = getattr(config, "tie_word_embeddings", False)
    generator = torch.Generator().manual_seed(seed)
    for hf_name, p in model.state_dict().items():
        if tied and hf_name == "lm_head.weight":
            continue
        x = torch.randn(p.shape, generator=generator).numpy().astype(np.float32) * np.float32(0.1)
        data, kind = to_gguf(architecture, config, hf_name, x), T.F32
        if x.ndim == 2:
            turn += 1
            kind = QUANTISED[turn % len(QUANTISED)]
        data = data if kind == T.F32 else gguf.quants.quantize(data, kind)
        writer.add_tensor(names.get_name(hf_name, try_suffixes=(".weight", ".bias")), data, raw_dtype=None if kind in (T.F32, T.F16) else kind)
        values = from_gguf(architecture, config, hf_name, gguf.quants.dequantize(data, kind).astype(np.float32).reshape(to_gguf(architecture, config, hf_name, x).shape))
        digests[hf_name] = {"shape": list(values.shape), "sha256": hashlib.sha256(values.tobytes()).hexdigest()}
    finish(writer)
    if split:
        return
    written = json.loads(config.to_json_string(use_diff=False))
    write_json(f"{out}/{name}.json", {"config": {k: written[k] for k in KEYS if k in written and not (architecture == "gptneox" and k == "rope_theta")}, "tensors": digests})


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=0, ensure_ascii=False)
        f.write("\n")


# --------------------------------------------------------------------------------------------------------------------------------------------


def main():
    wanted = [a for a in sys.argv[1:] if not a.startswith("-")]
    check = "--check" in sys.argv
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        out = scratch if check else GOLDEN
        os.makedirs(out, exist_ok=True)
        model = byte_level()
        if not wanted or "types" in wanted:
            record_types(out)
        for name in [*PRES, *SENTENCE]:
            if not wanted or f"tokenizer_{name}" in wanted:
                record_tokenizer(out, name, model)
        for seed, name in enumerate(FAMILIES):
            if not wanted or name in wanted:
                record_family(out, name, model, seed + 1)
        if not wanted or "llama" in wanted:
            record_family(out, "llama", model, [*FAMILIES].index("llama") + 1, split=8)
        if not check:
            return
        bad = 0
        for name in sorted(os.listdir(scratch)):
            same = open(f"{scratch}/{name}", "rb").read() == open(f"{GOLDEN}/{name}", "rb").read()
            print(f"{'ok' if same else 'not ok'} {name}")
            bad += not same
        sys.exit(bad > 0)


if __name__ == "__main__":
    main()
