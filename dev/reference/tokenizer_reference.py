"""
What the tokenizer scripts share: the published tokenizers of ../shared/data (where they are) and small ones of our own, each with the library that is its
reference (Hugging Face `tokenizers`, tiktoken, sentencepiece); texts to try them on; and our own program `tokenize`, spoken to in batches.
A reference answers with ids and the bytes of the text that each token covers. `tokenizers` and sentencepiece give characters: there a token that is a part of a
character covers the whole of it, and so ours is widened before comparing. tiktoken gives bytes.
"""
import base64
import gzip
import json
import os
import random
import re
import subprocess
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import sentencepiece
import tiktoken
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SHARED = os.path.join(os.path.dirname(ROOT), "shared", "data")
STRESS = os.path.join(ROOT, "dev", "test", "tokenizer_stress.txt")

# Llama-3's code, not its file, has the pattern and the special tokens (meta-llama/llama-models, models/llama3/tokenizer.py).
LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_NAMED = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|step_id|>",
                "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>", "<|image|>"]
LLAMA3_SPECIAL = LLAMA3_NAMED + [f"<|reserved_special_token_{i + 2}|>" for i in range(256 - len(LLAMA3_NAMED))]
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def read(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
        return f.read()


# ---- references -----------------------------------------------------------------------------------------------------------------------------------

def char_starts(text):
    """Byte offset of every character and of the end; None for ASCII, where they are the same."""
    if text.isascii():
        return None
    at, starts = 0, []
    for c in text:
        starts.append(at)
        at += len(c.encode())
    return starts + [at]


class HuggingFace:
    """A tokenizers.Tokenizer: encode as the library does by default, special tokens read and added."""
    flags = ["--special"]
    bytes_too = False
    whole_characters = True

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def encode(self, texts):
        answers = []
        for text, e in zip(texts, self.tokenizer.encode_batch(texts)):
            starts, spans = char_starts(text), e.offsets
            answers.append((e.ids, spans if starts is None else [(starts[a], starts[b]) for a, b in spans]))
        return answers

    def decode(self, ids):
        return self.tokenizer.decode_batch(ids, skip_special_tokens=False)


def hugging_face(data):
    """From a tokenizer.json. Offsets are compared as the model covers the text, without the blanks that trim_offsets cuts off afterwards."""
    return HuggingFace(tokenizers.Tokenizer.from_str(data.decode().replace('"trim_offsets":true', '"trim_offsets":false').replace('"trim_offsets": true', '"trim_offsets": false')))


def hugging_face_pair(vocab, merges):
    """encoder.json + vocab.bpe, put together as GPT-2's tokenizer is."""
    pairs = [tuple(line.split(" ")) for line in merges.decode().split("\n") if line and not line.startswith("#version")]
    t = tokenizers.Tokenizer(models.BPE(json.loads(vocab), pairs))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_special_tokens(["<|endoftext|>"])
    return HuggingFace(t)


class TikToken:
    """Ranks with Llama-3's pattern and special tokens; text is text, as encode_ordinary has it."""
    flags = []
    bytes_too = False
    whole_characters = False

    def __init__(self, data, special=LLAMA3_SPECIAL):
        ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in data.splitlines() if line}
        self.encoding = tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=ranks, special_tokens={s: max(ranks.values()) + 1 + i for i, s in enumerate(special)})

    def encode(self, texts):
        answers = []
        for ids in self.encoding.encode_ordinary_batch(texts, num_threads=2):
            ends, at = [], 0
            for i in ids:
                ends.append((at, at := at + len(self.encoding.decode_single_token_bytes(i))))
            answers.append((ids, ends))
        return answers

    def decode(self, ids):
        return [self.encoding.decode_bytes(i) for i in ids]


class TikTokenSpecial(TikToken):
    """The same with special tokens read, and begin_of_text in front."""
    flags = ["--special"]

    def encode(self, texts):
        bos = self.encoding.encode_single_token("<|begin_of_text|>")
        answers = []
        for ids in self.encoding.encode_batch(texts, num_threads=2, allowed_special="all"):
            ends, at = [(0, 0)], 0
            for i in ids:
                ends.append((at, at := at + len(self.encoding.decode_single_token_bytes(i))))
            answers.append(([bos] + ids, ends))
        return answers


class SentencePiece:
    """Only the last byte token of a character has an extent there; all of them are given the character."""
    flags = []
    bytes_too = True  # takes any bytes
    whole_characters = True

    def __init__(self, data):
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=data)

    def encode(self, texts):
        answers = []
        for text in texts:
            e = self.processor.encode(text, return_type="offset_mapping")
            spans, starts = list(e["offsets"]), char_starts(text) if isinstance(text, str) else None
            for i in range(len(spans) - 2, -1, -1):
                if spans[i][0] == spans[i][1] == spans[i + 1][0] and e["pieces"][i][:3] in ("<0x", b"<0x"):
                    spans[i] = spans[i + 1]
            answers.append((e["ids"], spans if starts is None else [(starts[a], starts[b]) for a, b in spans]))
        return answers

    def decode(self, ids):
        return [self.processor.decode(list(i)) for i in ids]


def llama3_json(ranks):
    """tokenizer.json of Llama-3, made from its ranks the way transformers makes it."""
    from transformers.convert_slow_tokenizer import TikTokenConverter
    with tempfile.NamedTemporaryFile() as f:
        f.write(ranks)
        f.flush()
        t = TikTokenConverter(vocab_file=f.name, pattern=LLAMA3_PATTERN, additional_special_tokens=LLAMA3_SPECIAL).converted()
    spec = json.loads(t.to_str())
    spec["model"]["ignore_merges"] = True  # as in the published file
    bos = "<|begin_of_text|>"
    spec["post_processor"] = {"type": "Sequence", "processors": [spec["post_processor"], {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
        "special_tokens": {bos: {"id": bos, "ids": [len(spec["model"]["vocab"])], "tokens": [bos]}}}]}
    return json.dumps(spec, ensure_ascii=False).encode()


def llama2_json(data):
    """The copy of ../shared has blanks where the published file has no-break spaces (four pieces, three merges), which `tokenizers` refuses. Put back from
    what sentencepiece's model says; a piece of the vocabulary holds no other blank, because normalising leaves none."""
    spec = json.loads(data)
    mend = lambda s: s.replace(" ", "\u00a0")
    model = spec["model"]
    model["vocab"] = {mend(piece): i for piece, i in model["vocab"].items()}
    model["merges"] = [m if m.count(" ") == 1 else {"   ": "\u00a0 \u00a0", "     ": "\u00a0\u00a0 \u00a0\u00a0", "\u2581  ": "\u2581 \u00a0"}[m] for m in model["merges"]]
    return json.dumps(spec, ensure_ascii=False).encode()


def made(folder, name, make):
    """A file in `folder`, made once."""
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        with open(path + ".tmp", "wb") as f:
            f.write(make())
        os.replace(path + ".tmp", path)
    return path


def published(folder=None):
    """name → (what `tokenize` opens, reference). Empty where ../shared is missing. Files that have to be made go to `folder`."""
    base = os.path.join(SHARED, "tokenizers")
    if not os.path.isdir(base):
        return {}
    at = lambda *parts: os.path.join(base, *parts)
    found = {}
    for name, path in (("neox20b tokenizer.json", at("neox20b", "20B_tokenizer.json.gz")),
                       ("mistral tokenizer.json", at("mistral_v0.3", "tokenizer.json.gz")), ("phi3 tokenizer.json", at("phi3", "tokenizer.json.gz"))):
        found[name] = (path, lambda path=path: hugging_face(read(path)))
    found["gpt2 encoder.json + vocab.bpe"] = (at("gpt2", "encoder.json.gz"), lambda: hugging_face_pair(read(at("gpt2", "encoder.json.gz")), read(at("gpt2", "vocab.bpe"))))
    llama3 = at("llama3", "tokenizer.model.gz")
    found["llama3 ranks"] = (llama3, lambda: TikToken(read(llama3)))
    found["llama3 ranks, special"] = (llama3, lambda: TikTokenSpecial(read(llama3)))
    found["llama2 tokenizer.model"] = (at("llama2", "tokenizer.model"), lambda: SentencePiece(read(at("llama2", "tokenizer.model"))))
    found["mistral tokenizer.model"] = (at("mistral_v0.3", "tokenizer.model.v3"), lambda: SentencePiece(read(at("mistral_v0.3", "tokenizer.model.v3"))))
    if folder:
        os.makedirs(folder, exist_ok=True)
        for name, path in (("llama2 tokenizer.json (mended)", made(folder, "llama2.json", lambda: llama2_json(read(at("llama2", "tokenizer.json.gz"))))),
                           ("llama3 tokenizer.json (made from the ranks)", made(folder, "llama3.json", lambda: llama3_json(read(llama3))))):
            found[name] = (path, lambda path=path: hugging_face(read(path)))
    return found


# ---- texts ------------------------------------------------------------------------------------------------------------------------------------------

def stress_texts():
    """The lines of tokenizer_stress.txt as bytes, and the empty text."""
    simple = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}

    def unescape(line):
        out, i = b"", 0
        while i < len(line):
            if line[i] != "\\":
                out, i = out + line[i].encode(), i + 1
            elif m := re.match(r"\\x([0-9a-fA-F]{2})", line[i:]):
                out, i = out + bytes([int(m[1], 16)]), i + 4
            elif m := re.match(r"\\u\{([0-9A-Fa-f]+)\}", line[i:]):
                out, i = out + chr(int(m[1], 16)).encode(), i + len(m[0])
            elif m := re.match(r"\\\{(\d+)\*((?:[^}\\]|\\[nrt\\]|\\x..|\\u\{[^}]*\})*)\}", line[i:]):
                out, i = out + int(m[1]) * unescape(m[2]), i + len(m[0])
            else:
                out, i = out + simple[line[i + 1]], i + 2
        return out
    with open(STRESS, encoding="utf-8", newline="\n") as f:
        return [b""] + [unescape(line) for line in f.read().split("\n") if line and not line.startswith("# ")]


BLOCKS = [(0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0xDFF), (0xE00, 0x11FF), (0x1E00, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF),
          (0xAC00, 0xD7FF), (0xE000, 0xFFFD), (0x1F000, 0x1FAFF), (0x20000, 0x2A6DF), (0x10000, 0x10FFFF), (0, 0x1F), (0x7F, 0x9F)]
SPACES = [" ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "    ", "\u2028", "\u200b"]
WORDS = ("the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were when we there can an your which their said if do into has "
         "I'm don't we'll They've HELLO World naïve über straße Москва hello 你好 世界 日本 한국어 שלום مرحبا नमस्ते e\u0301 n\u0303 12 345 6789 3.14 1e5 !! ?! ... -- () [] {} == != -> => "
         "😀 👩\u200d💻 🇩🇪 <s> </s> <|endoftext|> <unk> [INST] <|user|> <|end|> <|eot_id|>").split(" ")


def random_text(rng, pieces=()):
    """One random string: of characters, of words, of runs, or of the tokenizer's own pieces."""
    kind = rng.random()
    if kind < 0.25:
        low, high = rng.choice(BLOCKS)
        return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 24)))
    if kind < 0.4:
        return "".join(chr(rng.randint(*rng.choice(BLOCKS))) for _ in range(rng.randint(1, 16)))
    if kind < 0.6:
        return "".join(rng.choice(WORDS) + (rng.choice(SPACES) if rng.random() < 0.85 else "") for _ in range(rng.randint(1, 9)))
    if kind < 0.7:
        return "".join(rng.choice([rng.choice(WORDS), chr(rng.randint(*rng.choice(BLOCKS))), rng.choice(SPACES)]) * rng.choice([1, 1, 2, 3, 7, 20]) for _ in range(rng.randint(1, 5)))
    if kind < 0.75:
        return "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 30)))
    if kind < 0.85 or not pieces:
        return "".join(rng.choice("etaoin shrdlu \n.,'") for _ in range(rng.randint(1, 40)))
    return "".join(rng.choice(pieces) + (" " if rng.random() < 0.2 else "") for _ in range(rng.randint(1, 7)))


def random_texts(n, seed, pieces=()):
    rng = random.Random(seed)
    texts = []
    while len(texts) < n:
        t = random_text(rng, pieces)
        if not any("\ud800" <= c <= "\udfff" for c in t):
            texts.append(t)
    return texts


def shared_texts():
    """Every string of every data file of ../shared/data, deduplicated. Some are offensive: never print them."""
    import csv
    import io
    seen = {}

    def walk(value):
        if isinstance(value, str):
            try:
                value.encode()
                seen[value] = None
            except UnicodeEncodeError:
                pass  # a lone surrogate escape is not text
        elif isinstance(value, dict):
            for v in value.values():
                walk(v)
        elif isinstance(value, list):
            for v in value:
                walk(v)
    csv.field_size_limit(1 << 30)
    for folder, _, files in sorted(os.walk(SHARED)):
        if os.path.basename(folder) in ("tokenizers", "selectors") or "/tokenizers/" in folder + "/":
            continue
        for name in sorted(files):
            kind = name[:-3] if name.endswith(".gz") else name
            data = read(os.path.join(folder, name)).decode("utf-8", "replace")
            if kind.endswith(".jsonl"):
                for line in data.split("\n"):
                    if line.strip():
                        walk(json.loads(line))
            elif kind.endswith(".json"):
                walk(json.loads(data))
            elif kind.endswith(".csv"):
                for row in csv.reader(io.StringIO(data, newline="")):
                    walk(row)
            elif kind.endswith(".txt"):
                walk(data.split("\n"))
    return list(seen)


# ---- our program --------------------------------------------------------------------------------------------------------------------------------------

def netstrings(texts):
    return b"".join(b"%d:%s," % (len(b), b) for b in (t if isinstance(t, bytes) else t.encode() for t in texts))


def run_on(data, command):
    """The program with the bytes as its stdin, from a file: subprocess feeds a pipe 512 bytes at a time."""
    with tempfile.TemporaryFile() as f:
        f.write(data)
        f.seek(0)
        return subprocess.run(command, stdin=f, capture_output=True)


def run_tokenize(path, arguments, data):
    program = os.environ.get("TOKENIZE", os.path.join(ROOT, "tokenize"))
    done = run_on(data, [program, "--tokenizer", path, *arguments])
    if done.returncode:
        raise SystemExit(f"tokenize: status {done.returncode}: {done.stderr.decode('utf-8', 'replace')}")
    return done.stdout


def our_encode(path, texts, reference):
    """[(ids, [(start, end)])], offsets widened to whole characters where the reference knows no others."""
    lines = run_tokenize(path, ["--batch", "--offsets", *reference.flags], netstrings(texts)).split(b"\n")
    answers = []
    for text, line in zip(texts, lines):
        parts = [p.split(b":") for p in line.split()]
        ids, spans = [int(p[0]) for p in parts], [(int(p[1]), int(p[2])) for p in parts]
        data = text if isinstance(text, bytes) else text.encode()
        answers.append((ids, spans if data.isascii() or isinstance(text, bytes) or not reference.whole_characters else [widen(data, a, b) for a, b in spans]))
    return answers


def widen(data, start, end):
    if start == end:
        return start, end
    while start > 0 and data[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return start, end


def our_decode(path, ids):
    """Bytes of every list of ids, special tokens included."""
    out, texts, at = run_tokenize(path, ["--batch", "--decode", "--special"], b"".join(b" ".join(b"%d" % i for i in line) + b"\n" for line in ids)), [], 0
    while at < len(out):
        colon = out.index(b":", at)
        n = int(out[at:colon])
        texts.append(out[colon + 1:colon + 1 + n])
        at = colon + n + 2
    return texts
