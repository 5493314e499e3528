"""A GGUF file imported by `train_seal import`, held against the `gguf` package and transformers.

    check_gguf.py BUILD FILE.gguf ROWS.jsonl [--rows 50] [--prompts 50] [--new-tokens 64] [--shortest] [--prompt-field question] [--response-field answer]

BUILD is the folder of the programs (build/cpu-fp32). Prints a Markdown table; the status is 1 where something disagrees:
  tensors   every tensor of the fp32 import is what gguf.quants.dequantize gives, bit for bit; which tensor is which is the package's own
            table of names, and the order of rows is undone here once more, in numpy
  tokens    ids of the rows' texts by our `tokenize` and by `tokenizers` from the directory we wrote; for a sentencepiece model those of the
            sentencepiece library as well, whose model file is put together from the same metadata
  losses    of the rows, by eval_seal in fp32, by transformers in fp32 and by transformers in fp64, from the directory we wrote: the largest relative
            difference of each pair. Ours is held to fp64 by 1e-5; PyTorch's own fp32 may be off by more
  answers   of greedy decoding, by both
"""
import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
TEMPLATE = "Human: {prompt}\nAssistant: "
QUESTION = "Human: {prompt}\nAssistant:"  # what is answered: the space belongs to the answer


def run(*command):
    started = time.time()
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}: {result.stderr}")
    return result.stdout, time.time() - started


class Expected:
    """The file's tensors under Hugging Face's names, in Hugging Face's order."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.architecture = self.value("general.architecture")
        arch = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[self.architecture]
        self.names = gguf.get_tensor_name_map(arch, int(self.key("block_count")))
        self.tensors = {t.name: t for t in self.reader.tensors}

    def value(self, key, otherwise=None):
        field = self.reader.fields.get(key)
        return field.contents() if field else otherwise

    def key(self, key, otherwise=None):
        return self.value(f"{self.architecture}.{key}", otherwise)

    def get(self, hf_name):
        # the package's table knows the published names, with and without the first word
        name = self.names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        t = self.tensors[name]
        x = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).reshape([int(n) for n in reversed(t.shape)])
        heads = int(self.key("attention.head_count"))
        if self.architecture in ("llama", "granite", "smollm3") and (".attn_q." in name or ".attn_k." in name):
            heads = int(self.key("attention.head_count_kv", heads)) if ".attn_k." in name else heads
            x = x.reshape(heads, x.shape[0] // heads // 2, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
        if self.architecture == "gpt2" and hf_name.endswith(".weight") and x.ndim == 2 and ".h." in hf_name:
            x = x.T
        if self.architecture == "gptneox" and ".attn_qkv." in name:
            x = x.reshape(3, heads, x.shape[0] // heads // 3, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
        if self.architecture in ("gemma2", "gemma3") and name.endswith("norm.weight"):
            x = x - np.float32(1)
        return x, t.tensor_type.name


def check_tensors(path, directory):
    expected, types, bad = Expected(path), {}, []
    for name, ours in load_file(f"{directory}/model.safetensors").items():
        x, kind = expected.get(name)
        types[kind] = types.get(kind, 0) + 1
        if ours.numpy().shape != x.shape or ours.numpy().tobytes() != np.ascontiguousarray(x).tobytes():
            bad.append(name)
    return types, bad


def sentencepiece_of(expected):
    """The sentencepiece model that the metadata came from, as far as they say."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as pb
    model = pb.ModelProto()
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = expected.value("tokenizer.ggml.add_space_prefix", True)
    model.normalizer_spec.remove_extra_whitespaces = False
    for text, score, kind in zip(*(expected.value(f"tokenizer.ggml.{k}") for k in ("tokens", "scores", "token_type"))):
        kind = 2 if text == "<unk>" else kind
        model.pieces.add(piece=text.replace(" ", "▁") if kind == 4 else text, score=score, type=kind)
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def stress_texts():
    data, texts, at = gzip.open(os.path.join(HERE, "golden", "tokenizers", "texts.gz")).read(), [], 0
    while at < len(data):
        colon = data.index(b":", at)
        length = int(data[at:colon])
        texts.append(data[colon + 1:colon + 1 + length])
        at = colon + length + 2
    return [t.decode() for t in texts if is_text(t)]


def is_text(data):
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def check_tokens(path, directory, build, texts):
    """[(library, disagreements)]"""
    expected = Expected(path)
    batch = b"".join(b"%d:%s," % (len(t.encode()), t.encode()) for t in texts)
    out = subprocess.run([f"{build}/tokenize", "--tokenizer", directory, "--batch"], input=batch, capture_output=True, check=True).stdout
    ours = [[int(x) for x in line.split()] for line in out.decode().split("\n")[:-1]]
    library = Tokenizer.from_file(f"{directory}/tokenizer.json")
    results = [("tokenizers", [i for i, (o, t) in enumerate(zip(ours, texts, strict=True)) if o != library.encode(t, add_special_tokens=False).ids])]
    if expected.value("tokenizer.ggml.model") == "llama":
        sp = sentencepiece_of(expected)
        results.append(("sentencepiece", [i for i, (o, t) in enumerate(zip(ours, texts)) if o != sp.encode(t)]))
    return results


def check_losses(directory, build, rows, scratch):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    data = f"{scratch}/rows.jsonl"
    with open(data, "w") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows)
    run(f"{build}/eval_seal", "loss", "--model", directory, "--data", data, "--template", TEMPLATE, "--out", f"{scratch}/losses.jsonl", "--quiet")
    ours = [json.loads(line)["loss"] for line in open(f"{scratch}/losses.jsonl")]
    exact = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").double().eval()
    off = {}
    for r, loss in zip(rows, ours, strict=True):
        prompt = TEMPLATE.format(prompt=r["prompt"])
        e = tokenizer(prompt + r["response"] + " " + tokenizer.eos_token, return_offsets_mapping=True)
        ids = torch.tensor(e["input_ids"])
        labels = torch.tensor([i if b > len(prompt) else -100 for i, (_, b) in zip(e["input_ids"], e["offset_mapping"])])
        with torch.no_grad():
            true, theirs = (torch.nn.functional.cross_entropy(m(ids[None]).logits[0, :-1], labels[1:]).item() for m in (exact, model))
        for pair, (a, b) in {"ours, fp64": (loss, true), "ours, fp32": (loss, theirs), "fp32, fp64": (theirs, true)}.items():
            off.setdefault(pair, []).append(abs(a - b) / b)
    return off, model, tokenizer


def check_answers(directory, build, model, tokenizer, prompts, new_tokens, scratch):
    data = f"{scratch}/prompts.jsonl"
    with open(data, "w") as f:
        f.writelines(json.dumps({"instruction": p}) + "\n" for p in prompts)
    run(f"{build}/eval_seal", "generate", "--model", directory, "--prompts", data, "--template", QUESTION, "--greedy", "--max-new-tokens", str(new_tokens),
        "--out", f"{scratch}/outputs.json", "--quiet")
    ours = [r["output"] for r in json.load(open(f"{scratch}/outputs.json"))]
    different = []
    for i, (prompt, answer) in enumerate(zip(prompts, ours, strict=True)):
        e = tokenizer(QUESTION.format(prompt=prompt), return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**e, max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        theirs = tokenizer.decode(out[0, e["input_ids"].shape[1]:], skip_special_tokens=True)
        if theirs.strip() != answer.strip():
            different.append((i, answer, theirs))
    return different


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("gguf")
    parser.add_argument("rows_file")
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--shortest", action="store_true", help="the shortest rows of the file, not the first")
    parser.add_argument("--prompt-field", default="question")
    parser.add_argument("--response-field", default="answer")
    args = parser.parse_args()
    torch.set_num_threads(2)
    with open(args.rows_file) as f:
        rows = [json.loads(line) for line in f]
    rows = sorted(rows, key=lambda r: len(r[args.prompt_field] + r[args.response_field])) if args.shortest else rows
    rows = [{"prompt": r[args.prompt_field], "response": r[args.response_field]} for r in rows[:max(args.rows, args.prompts)]]
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        run(f"{args.build}/train_seal", "import", "--gguf", args.gguf, "--out", f"{scratch}/fp32", "--dtype", "fp32", "--shard-gb", "1000", "--quiet")
        _, seconds = run(f"{args.build}/train_seal", "import", "--gguf", args.gguf, "--out", f"{scratch}/model", "--quiet")
        print("| check | of | result |\n|---|---|---|")
        print(f"| import | {os.path.getsize(args.gguf) / 1e6:.0f} MB | {seconds:.2f} s |")
        types, wrong = check_tensors(args.gguf, f"{scratch}/fp32")
        bad += len(wrong)
        print(f"| tensors, bit for bit | {', '.join(f'{n} {t}' for t, n in sorted(types.items()))} | {len(wrong)} differ |")
        texts = [r["prompt"] + " " + r["response"] for r in rows] + stress_texts()
        for library, wrong in check_tokens(args.gguf, f"{scratch}/model", args.build, texts):
            bad += len(wrong)
            print(f"| token ids, {library} | {len(texts)} texts | {len(wrong)} differ |")
            for i in wrong[:20]:
                print(f"text {i}, {library}: {texts[i]!r}", file=sys.stderr)
        off, model, tokenizer = check_losses(f"{scratch}/model", args.build, rows[:args.rows], scratch)
        bad += max(off["ours, fp64"]) > 1e-5
        for pair, what in {"ours, fp64": "losses, transformers in fp64", "ours, fp32": "losses, transformers in fp32",
                           "fp32, fp64": "transformers in fp32 against itself in fp64"}.items():
            print(f"| {what} | {args.rows} rows | {max(off[pair]):.1e} relative at most, {sum(x > 1e-5 for x in off[pair])} beyond 1e-5 |")
        different = check_answers(f"{scratch}/model", args.build, model, tokenizer, [r["prompt"] for r in rows[:args.prompts]], args.new_tokens, scratch)
        bad += len(different)
        print(f"| greedy answers, transformers | {args.prompts} prompts, {args.new_tokens} tokens | {len(different)} differ |")
        for i, ours, theirs in different:
            print(f"prompt {i}: ours {ours!r}, theirs {theirs!r}", file=sys.stderr)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
