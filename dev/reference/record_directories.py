"""
Records what transformers' AutoTokenizer makes of tokenizer directories → golden/tokenizers/directories, which dev/test/test_directories.c holds ours against.
Every directory is made here: small tokenizers of each published style, with tokenizer_config.json, special_tokens_map.json, added_tokens.json and config.json in
the combinations that change what is loaded, and tokenizer.json files with every part (model, normalizer, pre_tokenizer, post_processor, decoder) that is read.
  record_directories.py [--check]      --check: makes everything again and compares it with what is committed
  record_directories.py --try          compares the program `tokenize` with transformers at once and prints what differs (TOKENIZE=program)

The file, gzip, is JSON: files (base64), texts, cases: name, files (name → index of files), bos, eos, size, and for every text the ids with and without special
tokens added, what the ids decode to, and that without special tokens (null: bytes that are not UTF-8, which a string cannot hold).
"""
import argparse
import base64
import gzip
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.filterwarnings("ignore")

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import record_tokenizers as rt
import tokenizer_reference as ref

GOLDEN = os.path.join(ref.HERE, "golden", "tokenizers", "directories.gz")
TEXTS = ["", " ", "  ", "a", "Hello world", " Hello  world ", "the ba ko \n\n ri", "Baing thest\tmu", "it's we'll DON'T", "x=12345678 3.14, 1e5", "é ñ Ça ße e\u0301 n\u0303 ﬁ Å",
         "да конитης 你好世界 ひらが 한국어 שלום مر", "😀👩\u200d💻 \u00a0\u3000|\u2028", "<s>ba</s> ko<unk>", "<|im_start|>user\nba ko<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>  b  <|im_start|> c",
         "<|endoftext|>the<|endoftext|> ko", "\u2581ba\u2581\u2581ko \u2581", "def f(x):\n    return x + 1\n\n\n", "...!!?? -- [a] {b} (c) _d_ $5 50% #1 a/b c\\d", "bakoristan lomuer", "ABC abcDef GHIjkl XyZ\u01c5", "\u0661\u0662\u0663 \u00bd\u00b2 \u2167 １２３",
         "<0x41><0xE2> <0x0A>", " <extra> <l> <r>  x<w>y <w> z", "\r\n\r\n a\r b\n\u0085c", "zzzzqqqq\U0001F9FFxx", "mu\u200bmu\ufeff", "a <bos> b <eos> c", "!ba ?ko\n/ri//x"]


# ---- small tokenizers -----------------------------------------------------------------------------------------------------------------------------------

def dump(spec):
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":")).encode()


def load(t):
    return json.loads(t.to_str())


def byte_level(vocab=420, pre=None, normalizer=None, **options):
    t = rt.trained(pre or pre_tokenizers.ByteLevel(add_prefix_space=False), normalizer, vocab, **options)
    return load(t)


def llama(vocab=460):
    spec = rt.sentence_style(pre_tokenizers.Metaspace(split=True), None, vocab)
    spec["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    spec["pre_tokenizer"] = None
    return spec


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def then_bytes(*steps):
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = "|".join([r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                  r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
TEKKEN = O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace(r"\p{N}{1,3}", r"\p{N}")
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
DEEPSEEK_V3 = (r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK_LLM = (r"[\r\n]", r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", r"[一-龥ࠀ-一가-퟿]+")


def token(content, special=True, **rules):
    return {"content": content, "lstrip": False, "normalized": not special, "rstrip": False, "single_word": False, "special": special} | rules


class Cases:
    def __init__(self):
        self.cases = []

    def add(self, name, spec=None, config=None, asked=None, **files):
        """spec: of tokenizer.json; config: of tokenizer_config.json; files: name with __ for . → bytes or object; asked: who else than transformers."""
        out = {}
        if spec is not None:
            out["tokenizer.json"] = dump(spec) if isinstance(spec, dict) else spec
        if config is not None:
            out["tokenizer_config.json"] = dump(config)
        for key, value in files.items():
            out[key.replace("__", ".")] = value if isinstance(value, bytes) else dump(value)
        self.cases.append((name, out, asked or ask))


def flags(c):
    """add_bos_token and add_eos_token, by class; eos_token by file; tokens that only the files beside know."""
    spec = llama()
    bare = spec | {"post_processor": None}
    template = json.loads(processors.TemplateProcessing(single="<s> <s> $A </s> </s>", special_tokens=[("<s>", 1), ("</s>", 2)]).__getstate__())
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for kind in ("LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "GPT2Tokenizer", "T5TokenizerFast"):
        for how, more in (("none", {}), ("no-bos", {"add_bos_token": False}), ("both", {"add_bos_token": True, "add_eos_token": True}), ("eos", {"add_bos_token": False, "add_eos_token": True})):
            c.add(f"{kind} {how}", spec, {"tokenizer_class": kind} | names | more)
        c.add(f"{kind} no post-processor", bare, {"tokenizer_class": kind} | names)
        c.add(f"{kind} defaults", spec, {"tokenizer_class": kind})
    c.add("template of several", spec | {"post_processor": template}, {"tokenizer_class": "PreTrainedTokenizerFast"} | names)
    c.add("null flags", spec, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": None, "add_eos_token": None} | names)
    c.add("split special tokens", spec, {"tokenizer_class": "LlamaTokenizer", "split_special_tokens": True} | names)
    ends = {"added_tokens_decoder": {"1": token("<s>"), "2": token("</s>")}}
    c.add("eos in config", spec, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "ba", "bos_token": None}, config__json={"model_type": "llama", "eos_token_id": 1})
    c.add("eos in config and map", spec, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "ba"}, special_tokens_map__json={"eos_token": "ko"})
    c.add("eos in config and map, with a decoder", spec, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "ba"} | ends, special_tokens_map__json={"eos_token": "ko"})
    c.add("eos in map alone", spec, {"tokenizer_class": "PreTrainedTokenizerFast"}, special_tokens_map__json={"eos_token": {"content": "ko", "lstrip": False, "normalized": False, "rstrip": True, "single_word": False}})
    c.add("eos that is nowhere", spec, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>", "<extra>"]})
    c.add("eos as an object", spec, {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": True, "normalized": False, "rstrip": True, "single_word": False}})
    extra = {"image_token": "<extra>", "end": "<|im_end|>", "known": "</s>"}
    for kind in ("LlamaTokenizer", "PreTrainedTokenizerFast", "CodeLlamaTokenizer"):
        c.add(f"{kind} extra_special_tokens", spec, {"tokenizer_class": kind, "extra_special_tokens": extra, "additional_special_tokens": ["<l>"]} | names)
    c.add("extra_special_tokens that added_tokens.json has, split", spec, {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": extra, "split_special_tokens": True} | names, added_tokens__json={"<|im_end|>": len(spec["model"]["vocab"])})
    ruled = {"__type": "AddedToken", "content": "</s>", "lstrip": True, "normalized": True, "rstrip": True, "single_word": False}
    for how, more in (("decoder", ends), ("decoder without it", {"added_tokens_decoder": {}}), ("no decoder", {})):
        c.add(f"eos with other rules, {how}", spec, {"tokenizer_class": "PreTrainedTokenizerFast"} | names | {"eos_token": ruled} | more)
        c.add(f"additional with other rules, {how}", spec, {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "additional_special_tokens": [ruled]} | more)
    c.add("two names for a token, the second with rules", spec, {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {}} | names | {"pad_token": ruled})
    c.add("class of config.json", bare, {"bos_token": "<s>"}, config__json={"model_type": "llama"})
    n = len(spec["model"]["vocab"])
    turns = {"<|im_end|>": n, "<|im_start|>": n + 1}
    for kind in ("LlamaTokenizer", "PreTrainedTokenizerFast"):
        c.add(f"{kind} added_tokens.json", spec, {"tokenizer_class": kind} | names, added_tokens__json=turns)
        c.add(f"{kind} added_tokens.json, special by the map", spec, {"tokenizer_class": kind} | names, added_tokens__json=turns, special_tokens_map__json={"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        c.add(f"{kind} added_tokens.json, ids the other way", spec, {"tokenizer_class": kind} | names, added_tokens__json={"<|im_start|>": n + 1, "<|im_end|>": n})
        c.add(f"{kind} added_tokens.json, holes", spec, {"tokenizer_class": kind} | names, added_tokens__json={"<|im_start|>": n + 9, "<|im_end|>": n + 5, "ba": n + 7})
        decoder = {"0": token("<unk>"), "1": token("<s>"), "2": token("</s>"), str(n): token("<|im_end|>"), str(n + 1): token("<|im_start|>", special=False)}
        c.add(f"{kind} decoder", spec, {"tokenizer_class": kind, "added_tokens_decoder": decoder} | names, added_tokens__json={"<other>": n})
        rules = decoder | {str(n + 2): token("<l>", lstrip=True), str(n + 3): token("<r>", special=False, rstrip=True, normalized=False), str(n + 4): token("<w>", special=False, single_word=True),
                           str(n + 40): token("<extra>", special=False, normalized=True), "2": token("</s>", lstrip=True, rstrip=True)}
        c.add(f"{kind} decoder with rules", spec, {"tokenizer_class": kind, "added_tokens_decoder": rules} | names)
        c.add(f"{kind} decoder without the model's", spec, {"tokenizer_class": kind, "added_tokens_decoder": {str(n): token("<|im_start|>")}, "eos_token": "<|im_end|>", "pad_token": "<pad>"})
    holes = spec | {"added_tokens": spec["added_tokens"] + [token("<|im_start|>") | {"id": n + 6}, token("<|im_end|>", special=False, lstrip=True) | {"id": n + 3}]}
    c.add("tokenizer.json with holes", holes, {"tokenizer_class": "PreTrainedTokenizerFast"} | names)


def prefix_space(c):
    spec = byte_level()
    on = json.loads(json.dumps(spec))
    on["pre_tokenizer"]["add_prefix_space"] = True
    inside = spec | {"pre_tokenizer": load_pre(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]))}
    for kind in ("GPT2Tokenizer", "PreTrainedTokenizerFast", "LlamaTokenizer", "CohereTokenizer", "BloomTokenizer", "GPTNeoXTokenizer"):
        for how, more in (("missing", {}), ("true", {"add_prefix_space": True}), ("false", {"add_prefix_space": False}), ("null", {"add_prefix_space": None})):
            if kind == "LlamaTokenizer" and how in ("true", "false"):
                continue  # transformers expects tokenizer.model then
            for what, file in (("off", spec), ("on", on), ("inside", inside)):
                if kind in ("GPT2Tokenizer", "GPTNeoXTokenizer") and what == "inside":
                    continue
                c.add(f"{kind} add_prefix_space {how}, {what} in the file", file, {"tokenizer_class": kind, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": None, "pad_token": None} | more)


def load_pre(part):
    return json.loads(part.__getstate__())


def styles(c):
    """Published ways to cut a text."""
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    nfc = normalizers.NFC()
    for name, pre, normalizer, options in (
            ("qwen2", then_bytes(split(QWEN2)), nfc, {}), ("o200k", then_bytes(split(O200K)), None, {}), ("tekken", then_bytes(split(TEKKEN)), None, {"ignore_merges": True}),
            ("cl100k", then_bytes(split(CL100K)), None, {}), ("cl100k, inverted and removed", then_bytes(split(CL100K, "removed", True)), None, {}),
            ("llama-4", then_bytes(split(O200K), split(r"\p{N}", "isolated")), None, {}), ("deepseek v3", then_bytes(*[split(p) for p in DEEPSEEK_V3]), None, {}),
            ("deepseek llm", then_bytes(*[split(p) for p in DEEPSEEK_LLM], pre_tokenizers.Digits(True)), None, {}),
            ("smollm", pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]), None, {}),
            ("falcon", pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")]), None, {}),
            ("steps after bytes", pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False), split("\u0120", "merged_with_next"), split("[\u00c3\u00d0]", "removed")]), None, {}),
            ("bytes twice", pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Whitespace()]), None, {}),
            ("lines", then_bytes(split(r"^.+$|\s+$"), split(r"\Aba|x\z")), None, {}),
            ("intervals", then_bytes(split(r"[a-z]{1,2}+|\p{N}{2}?|.")), None, {}),
            ("hexadecimal and scripts", then_bytes(split(r"\h+|\p{Han}+|\p{Cyrillic}+|[[:punct:]]+|[^\p{Latin}\s]")), None, {}),
            ("white space", then_bytes(pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()), None, {})):
        c.add(name, byte_level(pre=pre, normalizer=normalizer, **options), plain)
    for behavior in ("isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"):
        for invert in (False, True):
            c.add(f"split {behavior}{' inverted' * invert}", byte_level(pre=then_bytes(split(r"\p{L}|\s", behavior, invert))), plain)
        c.add(f"punctuation {behavior}", byte_level(pre=then_bytes(pre_tokenizers.Punctuation(behavior))), plain)
    c.add("character delimiter", byte_level(pre=then_bytes(pre_tokenizers.CharDelimiterSplit("o"))), plain)


def charsmap():
    """sentencepiece's compiled rules, a few of them: a small file."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    out = io.BytesIO()
    rules = {"e\u0301": "\u00e9", "n\u0303": "\u00f1", "\ufb01": "fi", "\u00bd": "1/2", "\u3000": " ", "\u00a0": " ", "\n": " ", "\t": " ", "\u200b": "", "\u200d": " ", "\uff11": "1", "\u00df": "ss", "\u01c5": "D\u017e", "\u4f60\u597d": "X", "AB": "a"}
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as f:
        for old, new in rules.items():
            f.write(" ".join(f"{ord(c):X}" for c in old) + "\t" + " ".join(f"{ord(c):X}" for c in new) + "\n")
        f.flush()
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(x for x in rt.made_up_texts(lines=300) if "\n" not in x), model_writer=out, vocab_size=200, hard_vocab_limit=False, normalization_rule_tsv=f.name, minloglevel=2)
    m = sentencepiece_model_pb2.ModelProto()
    m.ParseFromString(out.getvalue())
    return m.normalizer_spec.precompiled_charsmap


def sentences(c):
    """Models over characters: Gemma, Mistral, unknown characters, Metaspace in every way, prefixes of subwords, Unigram, words."""
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    base = llama()
    gemma = base | {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, "pre_tokenizer": load_pre(pre_tokenizers.Split(" ", "merged_with_previous")),
                    "decoder": json.loads(decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]).__getstate__())}
    c.add("gemma", gemma, {"tokenizer_class": "GemmaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"})
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            pre = load_pre(pre_tokenizers.Metaspace(prepend_scheme=scheme, split=cut))
            c.add(f"metaspace {scheme} {cut}", base | {"normalizer": None, "pre_tokenizer": pre, "decoder": json.loads(decoders.Metaspace(prepend_scheme=scheme).__getstate__())}, plain)
    old = {"type": "Metaspace", "replacement": "_", "add_prefix_space": True}
    c.add("metaspace of old", base | {"normalizer": None, "pre_tokenizer": old, "decoder": old}, plain)
    for name, changes in (("no byte fallback", {"byte_fallback": False}), ("unknown not fused", {"byte_fallback": False, "fuse_unk": False}), ("no unknown", {"byte_fallback": False, "unk_token": None}), ("ignore merges", {"ignore_merges": True})):
        c.add(f"llama, {name}", base | {"model": base["model"] | changes}, plain)
    t = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.train_from_iterator(rt.made_up_texts(), trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", "<s>", "</s>"], limit_alphabet=60, continuing_subword_prefix="##", show_progress=False))
    c.add("continuing_subword_prefix", load(t), plain)
    for name, fallback, extra in (("unigram", False, []), ("unigram with bytes", True, rt.BYTES)):
        t = Tokenizer(models.Unigram())
        t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
        t.pre_tokenizer = pre_tokenizers.Metaspace()
        t.train_from_iterator(rt.made_up_texts(), trainers.UnigramTrainer(vocab_size=420, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False))
        t.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
        t.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        spec = load(t)
        spec["model"]["vocab"] += [[b, -14.0] for b in extra]
        spec["model"]["byte_fallback"] = fallback
        c.add(name, spec, plain)
        c.add(f"{name}, T5", spec, {"tokenizer_class": "T5Tokenizer", "extra_ids": 7, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"})
        c.add(f"{name}, no unknown", spec | {"normalizer": None, "model": spec["model"] | {"vocab": spec["model"]["vocab"] + [[chr(i), -13.0] for i in range(32, 127) if chr(i) not in dict(spec["model"]["vocab"])]}}, plain)
        c.add(f"{name}, charsmap", spec | {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap()).decode()}, {"type": "Strip", "strip_left": False, "strip_right": True}]}}, plain)
    words = sorted({w for x in rt.made_up_texts(lines=200) for w in x.split()})[:200]
    t = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, **{w: i + 2 for i, w in enumerate(words)}}, unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    c.add("word level", load(t), plain)


def decoding(c):
    """Decoders in any order."""
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    base = llama()
    R, B, F, S, M, L = decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0), decoders.Metaspace(), decoders.ByteLevel()
    for name, steps in (("B F R S", [B, F, R, S]), ("B F S R", [B, F, S, R]), ("F R B", [F, R, B]), ("S R B F", [decoders.Strip("\u2581", 1, 0), R, B, F]), ("strips per token", [R, B, decoders.Strip(" ", 1, 1)]),
                        ("strip both ends", [R, B, F, decoders.Strip(" ", 2, 2)]), ("strip letters", [R, B, F, decoders.Strip("a", 1, 1), decoders.Strip(" ", 1, 1)]), ("M B F", [M, B, F]), ("B M", [B, M]), ("F M", [F, M]),
                        ("M never", [B, decoders.Metaspace(prepend_scheme="never"), F]), ("replace texts", [B, decoders.Replace("ba", "<BA>"), F, decoders.Replace("\u2581ko", "-")]), ("replace across tokens", [R, B, F, decoders.Replace("o r", "0"), decoders.Replace("aab", "b")]),
                        ("replace by nothing", [B, F, decoders.Replace("\u2581\u2581", ""), R]), ("regular expression", [decoders.Replace(Regex("\u2581+"), " "), B, F]), ("R only", [R]), ("R M", [decoders.Replace("a", "\u2581"), M]), ("F F", [F, F, R]),
                        ("strip a wide sign", [B, F, decoders.Strip("\u2581", 2, 1), R])):
        c.add(f"decoder {name}", base | {"decoder": json.loads(decoders.Sequence(steps).__getstate__())}, plain)
    c.add("no decoder", base | {"decoder": None}, plain)
    spec = byte_level()
    end = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    for name, steps in (("L R S", [L, decoders.Replace(" ba", "_"), decoders.Strip(" ", 1, 0)]), ("R L", [decoders.Replace("\u0120", "_"), L]), ("S L", [decoders.Strip("\u0120", 1, 0), L])):
        c.add(f"byte-level decoder {name}", spec | {"decoder": json.loads(decoders.Sequence(steps).__getstate__())}, end)


def sentencepiece_models(c):
    """tokenizer.model, which transformers converts."""
    for name, options in (("fallback", {"vocab_size": 700, "byte_fallback": True, "character_coverage": 0.99, "remove_extra_whitespaces": False}),
                          ("user", {"vocab_size": 700, "byte_fallback": True, "character_coverage": 0.98, "remove_extra_whitespaces": False, "user_defined_symbols": ["<user>", "  ", "<extra>"], "control_symbols": ["<|im_end|>"]})):
        model = rt.sentence_model(**options)
        for how, more in (("legacy", {}), ("new", {"legacy": False}), ("no prefix", {"legacy": False, "add_prefix_space": False}), ("legacy without prefix", {"add_prefix_space": False}), ("null prefix", {"add_prefix_space": None, "legacy": False})):
            config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False} | more
            c.add(f"sentencepiece {name}, {how}", None, config, tokenizer__model=model)
        n = 700
        c.add(f"sentencepiece {name}, added_tokens.json", None, {"tokenizer_class": "LlamaTokenizer"}, tokenizer__model=model, added_tokens__json={"<|im_start|>": n, "<|im_end|>": n + 1})
        c.add(f"sentencepiece {name}, decoder", None, {"tokenizer_class": "LlamaTokenizer", "legacy": False, "added_tokens_decoder": {str(n): token("<|im_start|>", special=False), str(n + 1): token("<r>", rstrip=True)}}, tokenizer__model=model)
        if name == "fallback":
            c.add("sentencepiece and tokenizer.json, add_prefix_space", llama(), {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": True, "legacy": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, tokenizer__model=model)
            c.add("sentencepiece code llama", None, {"tokenizer_class": "CodeLlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, tokenizer__model=model)
    gemma = rt.sentence_model(vocab_size=700, byte_fallback=True, character_coverage=0.99, remove_extra_whitespaces=False, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
                              user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n\n", "  "])
    c.add("sentencepiece gemma", None, {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}, tokenizer__model=gemma)


def pairs(c):
    spec = byte_level()
    vocab, merges = dump(spec["model"]["vocab"]), ("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in spec["model"]["merges"])).encode()
    for kind in ("GPT2Tokenizer", "Qwen2Tokenizer"):
        c.add(f"pair {kind}", None, {"tokenizer_class": kind}, vocab__json=vocab, merges__txt=merges)
        c.add(f"pair {kind}, prefix", None, {"tokenizer_class": kind, "add_prefix_space": True}, vocab__json=vocab, merges__txt=merges)
        c.add(f"pair {kind}, flags", None, {"tokenizer_class": kind, "add_bos_token": True, "bos_token": "<|endoftext|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}, vocab__json=vocab, merges__txt=merges)


def by_ranks(encode, decode, special, size, prefix=()):
    """An answer in the shape of `ask`, of a library that encodes plain text: the special tokens (name → id) cut it first, as they do where they are allowed."""
    def asked(folder):
        import re
        cut = re.compile("(" + "|".join(re.escape(name) for name in sorted(special, key=len, reverse=True)) + ")")
        answer = {"bos": -1, "eos": -1, "size": size, "with": [], "without": [], "decoded": [], "skipped": []}
        for text in TEXTS:
            ids = [i for part in cut.split(text) if part for i in ([special[part]] if part in special else encode(part))]
            answer["without"].append(ids)
            answer["with"].append([*prefix, *ids])
            names = {v: k for k, v in special.items()}
            for key, keep in (("decoded", True), ("skipped", False)):
                out = b"".join((names[i].encode() if keep else b"") if i in names else decode(i) for i in answer["with"][-1])
                answer[key].append(text_of(out.decode("utf-8", "replace"), text))
        return answer
    return asked


def ranks(c):
    """tiktoken's files, by name, and tekken.json (mistral_common)."""
    import unicodedata
    import tiktoken
    spec = byte_level(460)
    data = rt.ranks_of(dump(spec))
    table = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in data.splitlines()}
    n = len(table)
    end = "<|endoftext|>"
    for name, pattern, special, nfc in (("qwen.tiktoken", QWEN2, {end: n, "<|im_start|>": n + 1, "<|im_end|>": n + 2} | {f"<|extra_{i}|>": n + 3 + i for i in range(205)}, True),
                                        ("cl100k_base.tiktoken", CL100K, {end: n + 1, "<|fim_prefix|>": n + 2, "<|fim_middle|>": n + 3, "<|fim_suffix|>": n + 4, "<|endofprompt|>": n + 20}, False),
                                        ("o200k_base.tiktoken", O200K, {end: n + 1, "<|endofprompt|>": n + 20}, False), ("r50k_base.tiktoken", ref.GPT2_PATTERN, {end: n}, False)):
        e = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=table, special_tokens={})
        encode = (lambda text, e=e: e.encode_ordinary(unicodedata.normalize("NFC", text))) if nfc else e.encode_ordinary
        c.add(name, None, None, by_ranks(encode, e.decode_single_token_bytes, special, max(special.values()) + 1), **{name.replace(".", "__"): data})
    vocab = [{"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": piece.decode("utf-8", "replace")} for piece, rank in table.items()]
    named = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<|im_end|>", "<extra>"]
    deprecated = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
                  "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"]
    for version, listed in (("v3", None), ("v7", named), ("v11", named)):
        cut = n - 20
        file = {"config": {"pattern": TEKKEN, "num_vocab_tokens": n, "default_vocab_size": cut + 24, "default_num_special_tokens": 24, "version": version}, "vocab": vocab}
        if listed:
            file["special_tokens"] = [{"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(listed)]
        names = listed or deprecated
        special = {(names[i] if i < len(names) else f"<SPECIAL_{i}>"): i for i in range(24)}
        c.add(f"tekken {version}", None, None, tekken(special, cut + 24), tekken__json=file)


def tekken(special, size):
    """The library itself, for its ids; it is told nothing but the file."""
    def asked(folder):
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer
        t = Tekkenizer.from_file(os.path.join(folder, "tekken.json"))
        assert {t.id_to_piece(i): i for i in range(t.num_special_tokens)} == special and t.n_words == size
        return by_ranks(lambda text: t.encode(text, bos=False, eos=False), lambda i: t.id_to_byte_piece(i), special, size, (1,))(folder)
    return asked


def all_cases():
    c = Cases()
    for part in (flags, prefix_space, styles, sentences, decoding, sentencepiece_models, pairs, ranks):
        part(c)
    return c.cases


# ---- what transformers says -----------------------------------------------------------------------------------------------------------------------------

def write(folder, files):
    os.makedirs(folder, exist_ok=True)
    for name, data in files.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)


def text_of(decoded, text):
    return None if "\ufffd" in decoded and "\ufffd" not in text else decoded


def decode(t, ids, text, skip):
    try:
        return text_of(t.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False), text)
    except BaseException as e:  # a decoder Strip that cuts more than there is panics in the library
        if type(e).__name__ != "PanicException":
            raise
        return None


def ask(folder):
    from transformers import AutoTokenizer
    t = AutoTokenizer.from_pretrained(folder)
    answer = {"bos": -1 if t.bos_token is None else t.bos_token_id, "eos": -1 if t.eos_token is None else t.eos_token_id, "size": max(t.get_vocab().values()) + 1, "with": [], "without": [], "decoded": [], "skipped": []}
    for text in TEXTS:
        ids, plain = t(text)["input_ids"], t(text, add_special_tokens=False)["input_ids"]
        answer["with"].append(ids)
        answer["without"].append(plain)
        answer["decoded"].append(decode(t, ids, text, False))
        answer["skipped"].append(decode(t, ids, text, True))
    return answer


def try_one(folder, answer):
    """What `tokenize` gives differently."""
    wrong = []
    try:
        data = ref.netstrings(TEXTS)
        ours = [[int(i) for i in line.split()] for line in ref.run_tokenize(folder, ["--batch", "--special"], data).split(b"\n")[:-1]]
        plain = [[int(i) for i in line.split()] for line in ref.run_tokenize(folder, ["--batch"], data).split(b"\n")[:-1]]
        decoded = [d.decode("utf-8", "replace") for d in ref.our_decode(folder, answer["with"])]
        for text, theirs, got in zip(TEXTS, answer["with"], ours):
            if theirs != got:
                wrong.append(f"with: {text!r}: {theirs} ours {got}")
        for text, theirs, got in zip(TEXTS, answer["without"], plain):
            if theirs != got:
                wrong.append(f"without: {text!r}: {theirs} ours {got}")
        for text, theirs, got in zip(TEXTS, answer["decoded"], decoded):
            if theirs is not None and theirs != got:
                wrong.append(f"decoded: {theirs!r} ours {got!r}")
    except SystemExit as e:
        wrong.append(str(e))
    return wrong


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--check", action="store_true")
    p.add_argument("--try", dest="attempt", action="store_true")
    p.add_argument("--only", default="")
    o = p.parse_args()
    logging.disable(logging.WARNING)
    files, cases, bad = [], [], 0
    with tempfile.TemporaryDirectory() as work:
        for i, (name, parts, asked) in enumerate(all_cases()):
            if o.only not in name:
                continue
            folder = os.path.join(work, str(i))
            write(folder, parts)
            try:
                answer = asked(folder)
            except Exception as e:
                answer = {"refused": f"{type(e).__name__}: {e}"[:200]}
                print(f"{name}: transformers refuses it: {answer['refused']}", file=sys.stderr)
                if not o.attempt:
                    continue
            if o.attempt:
                if "refused" in answer:
                    continue
                wrong = try_one(folder, answer)
                bad += bool(wrong)
                if wrong:
                    print(f"{name}: {len(wrong)} differ\n   " + "\n   ".join(w[:400] for w in wrong[:3]), flush=True)
                continue
            for data in parts.values():
                if data not in files:
                    files.append(data)
            cases.append({"name": name, "files": {k: files.index(v) for k, v in parts.items()}} | answer)
    if o.attempt:
        return bad > 0
    data = json.dumps({"files": [base64.b64encode(f).decode() for f in files], "texts": TEXTS, "cases": cases}, ensure_ascii=False, separators=(",", ":")).encode()
    if o.check:
        same = os.path.exists(GOLDEN) and ref.read(GOLDEN) == data
        print(f"directories: {'same' if same else 'DIFFERS'}")
        return not same
    with open(GOLDEN, "wb") as f:
        f.write(gzip.compress(data, 9, mtime=0))
    print(f"{len(cases)} directories, {len(files)} files, {os.path.getsize(GOLDEN)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
