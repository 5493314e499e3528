"""
The seeds of dev/fuzz: for every target a few tiny valid files and a few broken ones, from which the fuzzer starts and which the test suite replays.
Tokenizers are trained on a made-up text by Hugging Face `tokenizers` and by sentencepiece, so that the seeds are what those libraries write.
  venv/bin/python dev/reference/make_fuzz_seeds.py            writes dev/fuzz/seeds (files found by fuzzing, whose names begin with found_, stay)
"""
import base64
import gzip
import io
import json
import os
import struct
import tempfile

import gguf
import numpy as np
import pyarrow
import sentencepiece
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SEEDS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fuzz", "seeds")
TEXT = ["a bat and a cat sat on a mat", "the cat ate, the bat sat 12 34", "café naïve \u4f60\u597d"] * 3


def put(target, name, data):
    os.makedirs(os.path.join(SEEDS, target), exist_ok=True)
    with open(os.path.join(SEEDS, target, name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def compact(tokenizer, **changes):
    spec = json.loads(tokenizer.to_str())
    spec.update(changes)
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"))


def bpe(vocab=60, **options):
    """A small BPE over characters, trained on TEXT."""
    t = Tokenizer(models.BPE(unk_token="<unk>", **options))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=vocab, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False))
    return t


def tokenizer_json():
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level.decoder = decoders.ByteLevel()
    byte_level.normalizer = normalizers.NFC()
    byte_level.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=60, special_tokens=["<|endoftext|>"], show_progress=False))
    byte_level.post_processor = processors.ByteLevel(trim_offsets=True)
    put("tokenizer_json", "byte_level", compact(byte_level))

    metaspace = bpe(byte_fallback=False, fuse_unk=True)
    metaspace.pre_tokenizer = pre_tokenizers.Metaspace()
    metaspace.decoder = decoders.Metaspace()
    metaspace.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    metaspace.add_tokens([AddedToken("cat ", lstrip=True, rstrip=True, single_word=True), AddedToken("\u00e9", normalized=True)])
    put("tokenizer_json", "metaspace", compact(metaspace))

    prepend = bpe(fuse_unk=True)
    prepend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581"), normalizers.Replace(Regex("a+"), "a")])
    prepend.pre_tokenizer = None
    prepend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    put("tokenizer_json", "prepend", compact(prepend))

    split = bpe()
    split.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])
    split.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("[\\s\\d]+"), "merged_with_next", invert=True), pre_tokenizers.Digits(True),
                                                   pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.WhitespaceSplit()])
    put("tokenizer_json", "split", compact(split))

    word = Tokenizer(models.WordLevel({"<unk>": 0, "cat": 1, "bat": 2, "sat": 3}, unk_token="<unk>"))
    word.pre_tokenizer = pre_tokenizers.Whitespace()
    put("tokenizer_json", "word_level", compact(word))
    text = compact(byte_level)
    put("tokenizer_json", "truncated", text[: len(text) // 2])
    put("tokenizer_json", "unknown_model", compact(word).replace('"WordLevel"', '"Unigram"'))


def vocab_merges():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=60, special_tokens=["<|endoftext|>"], show_progress=False))
    model = json.loads(t.to_str())["model"]
    vocab = json.dumps(model["vocab"], ensure_ascii=False, separators=(",", ":"))
    merges = "#version: 0.2\n" + "\n".join(m if isinstance(m, str) else " ".join(m) for m in model["merges"]) + "\n"
    put("vocab_merges", "pair", vocab + "\0" + merges)
    put("vocab_merges", "with_config", vocab + "\0" + merges + '\0{"bos_token":{"content":"<|endoftext|>"},"eos_token":"</s>"}')
    put("vocab_merges", "merge_of_nothing", '{"a":0,"b":1}\0#version: 0.2\na c\n')
    put("vocab_merges", "no_merges", vocab + "\0")


def directories():
    """tokenizer.json and what transformers reads beside it."""
    model = '"model":{"type":"BPE","vocab":{"<s>":0,"</s>":1,"a":2,"b":3,"ab":4,"\u2581":5,"<0x41>":6},"merges":["a b"]}'
    added = '"added_tokens":[{"id":0,"content":"<s>","special":true,"normalized":true},{"id":1,"content":"</s>","special":true}]'
    plain = "{" + added + "," + model + "}"
    steps = ('"normalizer":{"type":"Prepend","prepend":"\u2581"},"decoder":{"type":"Sequence","decoders":[{"type":"Metaspace"},{"type":"ByteFallback"},{"type":"Fuse"},'
             '{"type":"Replace","pattern":{"String":"ab"},"content":"xyz"},{"type":"Strip","content":"a","start":1,"stop":2},{"type":"ByteFallback"}]}')
    put("directories", "llama", plain + '\0{"tokenizer_class":"LlamaTokenizer","add_eos_token":true,"unk_token":null}')
    put("directories", "decoder", plain + '\0{"tokenizer_class":"PreTrainedTokenizerFast","added_tokens_decoder":{"1":{"content":"</s>","rstrip":true},"9":{"content":"<x>","lstrip":true,"single_word":true}},"eos_token":"</s>"}')
    put("directories", "map_and_added", plain + '\0{"eos_token":"</s>"}\0{"eos_token":{"content":"<s>"},"additional_special_tokens":["<y>"]}\0{"<y>":7,"ab":8}')
    put("directories", "steps", "{" + added + "," + steps + "," + model + "}" + '\0{"tokenizer_class":"T5Tokenizer","extra_ids":3}')
    put("directories", "unigram", '{"model":{"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[["<unk>",0.0],["a",-1.5],["ab",-2.0],["<0x41>",-9.0]]},"normalizer":{"type":"Precompiled","precompiled_charsmap":"BAAAAAEAAABhAA=="}}')
    after = '"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Split","pattern":{"Regex":"^[a-z]{1,2}+$|\\\\h{2}?"},"behavior":"Contiguous","invert":true}]}'
    put("directories", "after_bytes", "{" + after + ',"model":{"type":"BPE","continuing_subword_prefix":"","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}' + '\0{"add_prefix_space":true}')
    put("directories", "subwords", '{"model":{"type":"BPE","continuing_subword_prefix":"##","unk_token":"a","vocab":{"a":0,"##b":1,"ab":2},"merges":["a ##b"]}}')
    vocab = ",".join('{"rank":%d,"token_bytes":"%s"}' % (i, base64.b64encode(bytes([i])).decode()) for i in range(256))
    put("directories", "tekken", '{"config":{"pattern":"\\\\p{L}+|.$","default_vocab_size":260,"default_num_special_tokens":4,"version":"v3"},"vocab":[' + vocab + "]}")
    put("directories", "no_bos", plain + '\0{"tokenizer_class":"LlamaTokenizer","bos_token":null}')


def tiktoken():
    pieces = [b"a", b"t", b"h", b"at", b"cat", b" cat", b"  ", b"th", b"the", b"\xe4\xbd\xa0", b"12"]
    put("tiktoken", "ranks", "".join(f"{base64.b64encode(p).decode()} {i}\n" for i, p in enumerate(pieces)))
    put("tiktoken", "rank_twice", "YQ== 0\nYg== 0\n")
    put("tiktoken", "no_rank", "YQ== 0\nYg==\n")
    put("tiktoken", "no_base64", "YQ== 0\n!! 1\n")
    put("tiktoken", "large_rank", "YQ== 0\nYWE= 99999999999999999999\n")


def sentence_model(**options):
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "m")
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXT), model_prefix=prefix, model_type=options.pop("model_type", "bpe"), character_coverage=1.0,
                                                 minloglevel=2, **options)
        with open(prefix + ".model", "rb") as f:
            return f.read()


def sentencepiece_models():
    plain = sentence_model(vocab_size=50, normalization_rule_name="identity", add_dummy_prefix=True, remove_extra_whitespaces=False)
    put("sentencepiece", "bpe", plain)
    put("sentencepiece", "bpe_blanks", sentence_model(vocab_size=45, normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=True,
                                                      user_defined_symbols=["cat", "<user>"], control_symbols=["[INST]"]))
    put("sentencepiece", "byte_fallback", sentence_model(vocab_size=300, normalization_rule_name="identity", byte_fallback=True))
    put("sentencepiece", "truncated", plain[: len(plain) * 2 // 3])
    put("sentencepiece", "unigram", sentence_model(vocab_size=28, model_type="unigram", normalization_rule_name="identity"))


def safetensors():
    def file(header, data=b""):
        text = header if isinstance(header, str) else json.dumps(header)
        return struct.pack("<Q", len(text)) + text.encode() + data
    good = {"__metadata__": {"seed": "42"}, "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
            "c": {"dtype": "F16", "shape": [], "data_offsets": [22, 24]}, "d": {"dtype": "I64", "shape": [0], "data_offsets": [24, 24]}}
    put("safetensors", "good", file(good, bytes(range(24))))
    put("safetensors", "truncated", file(good, bytes(20)))
    put("safetensors", "overlap", file({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}, bytes(6)))
    put("safetensors", "long_header", struct.pack("<Q", 1 << 40) + b"{}")
    put("safetensors", "huge_shape", file({"a": {"dtype": "F64", "shape": [4294967296, 4294967296, 16], "data_offsets": [0, 0]}}))
    put("safetensors", "no_json", file("{\"a\":"))


def model_config():
    gpt2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 331, "n_positions": 96, "layer_norm_epsilon": 1e-05, "n_inner": None,
            "activation_function": "gelu_new", "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0}
    llama = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 320,
             "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "hidden_act": "silu", "tie_word_embeddings": False, "head_dim": 16,
             "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}
    neox = {"model_type": "gpt_neox", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256, "vocab_size": 320, "rotary_pct": 0.25,
            "max_position_embeddings": 128, "layer_norm_eps": 1e-05, "use_parallel_residual": True, "hidden_act": "gelu"}
    for name, config in (("gpt2", gpt2), ("llama", llama), ("gpt_neox", neox), ("mistral", llama | {"model_type": "mistral", "sliding_window": None}),
                         ("phi3", llama | {"model_type": "phi3", "rope_scaling": None}), ("bad_heads", gpt2 | {"n_head": 3}), ("fraction", gpt2 | {"n_layer": 1.5})):
        put("model_config", name, json.dumps(config))


def rows():
    lines = ['{"prompt": "p", "chosen": "c"}', '{"instruction": "i", "input": "", "output": "o \\u00e9 \\ud83d\\ude00"}', '{"question": "q", "answer": 12}',
             '{"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}', '{"chosen": "\\n\\nHuman: x\\n\\nAssistant: y", "rejected": "\\n\\nHuman: x\\n\\nAssistant: z"}',
             '{"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]}', "", "{broken", '{"prompt": ""}']
    jsonl, array = "\n".join(lines) + "\n", "[" + ",\n".join(x for x in lines if x and x != "{broken") + "]\n"
    csv = 'prompt,response\r\nhello,"a ""quoted"" one,\r\nover two lines"\r\nx\r\n"a"b,c\r\n'
    for kind, text in enumerate((jsonl, array, csv)):
        for option in range(6):
            if option in (0, kind + 1, kind + 3):
                put("rows", f"{('jsonl', 'json', 'csv')[kind]}_{option}", bytes([kind, option]) + text.encode())
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as f:
            f.write(text.encode())
        put("rows", f"{('jsonl', 'json', 'csv')[kind]}_gz", bytes([kind + 3, 0]) + packed.getvalue())
        put("rows", f"{('jsonl', 'json', 'csv')[kind]}_gz_cut", bytes([kind + 3, 0]) + packed.getvalue()[:-12])
    user, assistant = '{"role": "user", "content": [{"type": "text", "text": "u"}]}', '{"role": "assistant", "content": "a", "weight": 0, "tool_calls": [{"x": NaN}]}'
    people = ['{"system": "s", "instruction": "i", "input": 5.10, "output": "o", "history": [["a", "b"]], "note": "n", "weight": 0.5}',
              '{"messages": [%s, %s, {"role": "tool", "content": "7"}, %s], "tools": "[{}]"}' % (user, user, assistant),
              '{"prompt": [%s], "chosen": [%s], "rejected": [%s]}' % (user, assistant, assistant), '{"prompt": "\\ud83d", "response": "r", "x": -Infinity}',
              '{"conversations": [{"from": "human", "value": "h"}, {"from": "function_call", "value": "{\\"name\\": \\"f\\"}"}, {"from": "gpt", "value": "g"}]}']
    text = "\n".join(people) + "\n"
    for option in (0, 1, 5, 7):
        put("rows", f"people_{option}", bytes([0, option]) + text.encode())
    put("rows", "people_wrapped", bytes([1, 7]) + ('{"v": "]", "data": [' + ",\n".join(people) + '], "more": {}}').encode())
    put("rows", "people_values", bytes([0, 0]) + json.dumps({"prompt": "p", "response": "r"}, indent=1).encode() * 2)
    put("rows", "people_array", bytes([0, 0]) + ("[\n" + ",\n".join(people) + "]").encode())
    for name, coding in (("little", "utf-16-le"), ("big", "utf-16-be"), ("mark", "utf-16")):
        put("rows", f"people_{name}", bytes([0, 0]) + text.replace("u", "\u00e9\U0001f600").encode(coding))
    packed = pyarrow.compress(text.encode(), codec="zstd", asbytes=True)
    put("rows", "people_zst", bytes([8, 7]) + packed)
    put("rows", "people_zst_cut", bytes([8, 0]) + packed[:-6])
    put("rows", "tsv", bytes([6, 0]) + b"prompt\tresponse\na\t\"b\tc\"\n")
    put("rows", "csv_spaces", bytes([2, 0]) + b"sep=;\r\nPrompt ; \"response\"\r\na; \"b; c\" \r\nd\r\n")
    put("rows", "pointer", bytes([0, 0]) + b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def pt():
    def saved(value):
        out = io.BytesIO()
        torch.save(value, out)
        return out.getvalue()
    put("pt", "tensor", saved(torch.arange(5.0)))
    put("pt", "parameter", saved(torch.nn.Parameter(torch.arange(3.0))))
    put("pt", "slice", saved(torch.arange(8.0)[2:5]))
    put("pt", "two_dimensions", saved(torch.zeros(2, 2)))
    put("pt", "half", saved(torch.zeros(3, dtype=torch.float16)))
    put("pt", "list", saved([1, 2, "three"]))


def gguf_models():
    """A whole model, a tokenizer of each kind, tensors of every type, and damage. Small: the fuzzer's inputs are at most 16 KB."""
    def file(architecture, fill, tensors=()):
        with tempfile.TemporaryDirectory() as scratch:
            writer = gguf.GGUFWriter(f"{scratch}/x.gguf", architecture)
            fill(writer)
            for name, x in tensors:
                writer.add_tensor(name, x)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            with open(f"{scratch}/x.gguf", "rb") as f:
                return f.read()

    def sizes(writer):
        writer.add_context_length(64)
        writer.add_embedding_length(32)
        writer.add_block_count(1)
        writer.add_feed_forward_length(32)
        writer.add_head_count(1)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_layer_norm_eps(1e-5)

    def byte_level(writer):
        sizes(writer)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:40]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(["<s>", *alphabet, "ab", "[PAD42]"])
        writer.add_token_types([3] + [1] * 41 + [5])
        writer.add_token_merges([f"{alphabet[0]} {alphabet[1]}"] if alphabet[0] + alphabet[1] == "ab" else [])
        writer.add_bos_token_id(0)
        writer.add_add_bos_token(True)
        writer.add_chat_template("{{ messages }}")

    def pieces(writer):
        sizes(writer)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["<unk>", "<s>", "</s>", "a", "b", "ab", "\u2581", "\u2581ab", "  ", "<0x0A>"])
        writer.add_token_scores([0.0, 0.0, 0.0, -3.0, -4.0, -1.0, -5.0, -2.0, -1000.0, 0.0])
        writer.add_token_types([2, 3, 3, 1, 1, 1, 1, 1, 4, 6])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)

    embedding = [("token_embd.weight", np.zeros((43, 32), np.float16))]
    put("gguf", "byte_level", file("llama", byte_level, embedding))
    put("gguf", "pieces", file("phi3", pieces, embedding))
    put("gguf", "gpt2", file("gpt2", byte_level, embedding))
    put("gguf", "neox", file("gptneox", byte_level, embedding))
    put("gguf", "no_tokenizer", file("llama", sizes, embedding))
    put("gguf", "linear", file("llama", lambda w: (byte_level(w), w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR), w.add_rope_scaling_factor(4.0)), embedding))
    put("gguf", "llama3", file("llama", byte_level, embedding + [("rope_freqs.weight", np.ones(16, np.float32))]))
    put("gguf", "long", file("phi3", lambda w: (pieces(w), w.add_rope_scaling_orig_ctx_len(32)),
                             embedding + [(f"rope_factors_{k}.weight", np.ones(16, np.float32)) for k in ("long", "short")]))
    put("gguf", "cut", file("llama", byte_level, embedding)[:-1])
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "gguf", "types.gguf"), "rb") as f:
        put("gguf", "types", f.read())


def texts():
    samples = [b"The cat sat.\n\n  12 345", "caf\u00e9 e\u0301\u0323 \uac00\u11a8 \ufb01".encode(), "\u4f60\u597d \U0001f469\u200d\U0001f4bb".encode(), b"<s>a</s> <|endoftext|>  <l> x", b"\xff\xc3( \xe2\x82",
               b"a" * 70 + b" " * 20 + b"=" * 9, b"\0\x01\x1b[0m", "\u2581 \u2581\u2581a".encode()]
    for i in range(12):
        put("texts", f"tokenizer_{i}", bytes([i]) + samples[i % len(samples)])


def options():
    put("options", "selector", "selector\n--model\nd\n--safe=s.jsonl\n--tune\nt.jsonl\n--tune\nu.jsonl\n--out\nr\n--algorithm\n1\n--gamma-scales-omega\non\n--lr\n1e-5\n--recompute\n")
    put("options", "typo", "sft\n--modle\nd\n")
    put("options", "number", "init\n--layers\n12x\n--out\nd\n")
    put("options", "twice", "init\n--seed=1\n--seed=2\n")
    put("options", "command", "selectr\n")


def jinja():
    """Templates, each with what it is rendered with after a zero byte or without: then the target has a conversation."""
    from chat_reference import render
    from jinja_snippets import SNIPPETS, VARIABLES
    short = [t for t in SNIPPETS if 0 < len(t) < 600]
    good = [t for t in short if "text" in render(t, VARIABLES) and "range(100000)" not in t]
    for i in range(0, len(good), 24):
        put("jinja", f"good_{i // 24}", "\n".join(good[i:i + 24]).encode())
    for i, t in enumerate([t for t in short if "error" in render(t, {})][::16]):
        put("jinja", f"bad_{i}", t.encode())
    put("jinja", "row", b"{{ m | tojson }}{{ m.a ~ m['b'] }}\0{\"m\":{\"a\":\"\\u00e9\\ud83d\\ude00\\ud800\",\"b\":[1e5,-0.0,123456789012345678901]}}")


if __name__ == "__main__":
    for make in (tokenizer_json, directories, vocab_merges, tiktoken, sentencepiece_models, safetensors, model_config, rows, pt, options, texts, gguf_models, jinja):
        make()
    print(f"{sum(len(files) for _, _, files in os.walk(SEEDS))} seeds, {sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(SEEDS) for f in files)} bytes")
