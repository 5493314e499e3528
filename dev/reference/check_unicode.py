"""
Every character of Unicode through every part of a tokenizer.json that depends on what a character is, against `tokenizers`: split patterns, pre-tokenisers,
normalisers, added tokens that must be words of their own. Prints how many characters differ; status 1 if any.
  check_unicode.py [WORD …]      parts whose name holds one of the words; TOKENIZE=program
"""
import json
import os
import sys
import tempfile

import tokenizer_reference as ref

CHARACTERS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
WORD_LEVEL = {"type": "WordLevel", "vocab": {"<unk>": 0, "the": 1}, "unk_token": "<unk>"}        # every word is <unk>: offsets show where it was cut
BYTES = {"type": "BPE", "unk_token": "<unk>", "fuse_unk": False, "byte_fallback": True, "vocab": {"<unk>": 0} | {f"<0x{i:02X}>": i + 1 for i in range(256)}, "merges": []}


def spec(model, pre_tokenizer=None, normalizer=None, added=()):
    return json.dumps({"version": "1.0", "added_tokens": list(added), "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": None, "model": model}).encode()


def added(**rules):
    return [{"id": 1, "content": "the", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False} | rules]


def split(pattern):
    return spec(WORD_LEVEL, {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False})


# Texts around a character, which is the @.
SHAPES = {
    "beside": "@a@1@ @!@",
    # marks of the classes 1, 220, 230 and 240, and a letter that composes with them
    "marks": "@\u0334\u0345 e@\u0301@\u0323 x\u0345@",
    "words": "@the the@",
    "strip": "x@the@x",
}


def text_of(shape, c):
    return SHAPES[shape].replace("@", c)


PARTS = {
    "GPT-2's pattern": (split(ref.GPT2_PATTERN), "beside"),
    "Llama-3's pattern": (split(ref.LLAMA3_PATTERN), "beside"),
    "ByteLevel": (spec(WORD_LEVEL, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}), "beside"),
    "Whitespace": (spec(WORD_LEVEL, {"type": "Whitespace"}), "beside"),
    "WhitespaceSplit": (spec(WORD_LEVEL, {"type": "WhitespaceSplit"}), "beside"),
    "Punctuation": (spec(WORD_LEVEL, {"type": "Punctuation", "behavior": "Isolated"}), "beside"),
    "Digits": (spec(WORD_LEVEL, {"type": "Digits", "individual_digits": False}), "beside"),
    r"\w": (split(r"\w+"), "beside"),
    r"\d, \s": (split(r"\d+|\s+"), "beside"),
    "categories": (split(r"[\p{Lu}\p{Lt}]+|[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{P}+|\p{S}+|\p{Nd}"), "beside"),
    "Han": (split(r"\p{Han}+"), "beside"),
    **{form: (spec(BYTES, normalizer={"type": form}), "marks") for form in ("NFC", "NFD", "NFKC", "NFKD")},
    "Lowercase": (spec(BYTES, normalizer={"type": "Lowercase"}), "beside"),
    "Strip": (spec(BYTES, normalizer={"type": "Strip", "strip_left": True, "strip_right": True}), "beside"),
    "single_word": (spec(WORD_LEVEL, {"type": "WhitespaceSplit"}, added=added(single_word=True)), "words"),
    "lstrip, rstrip": (spec(WORD_LEVEL, {"type": "WhitespaceSplit"}, added=added(lstrip=True, rstrip=True)), "strip"),
}


def main():
    total = 0
    print("| part | characters | differ |\n|---|---|---|")
    for name, (data, shape) in PARTS.items():
        if sys.argv[1:] and not any(word in name for word in sys.argv[1:]):
            continue
        with tempfile.NamedTemporaryFile(suffix=".json") as f:
            f.write(data)
            f.flush()
            reference, bad = ref.hugging_face(data), []
            for at in range(0, len(CHARACTERS), 50000):
                texts = [text_of(shape, c) for c in CHARACTERS[at:at + 50000]]
                for c, a, b in zip(CHARACTERS[at:], reference.encode(texts), ref.our_encode(f.name, texts, reference)):
                    if list(a[0]) != list(b[0]) or [tuple(s) for s in a[1]] != b[1]:
                        bad.append(ord(c))
        print(f"| {name} | {len(CHARACTERS)} | {len(bad)} {' '.join(f'U+{c:04X}' for c in bad[:10])} |", flush=True)
        total += len(bad)
    return total > 0


if __name__ == "__main__":
    sys.exit(main())
