"""
What `tokenizers` makes of 64,000 characters, all of those about which versions of Unicode differ, in every part of a tokenizer.json that depends on what a
character is (check_unicode.py has the parts and compares all characters). A line a part: SHA-256 of ids and offsets, the shape of the texts, the part, its
tokenizer.json. dev/test/test_unicode.c compares them whatever PCRE2 and utf8proc it is built with. → golden/tokenizers/unicode.txt
"""
import hashlib
import json
import os
from array import array

import tokenizer_reference as ref
from check_unicode import PARTS, SHAPES, text_of

# The same stretches are in dev/test/test_unicode.c. What is left out is alike inside: ideographs, Hangul, Tangut, private use.
STRETCHES = [(0, 0x3500), (0x4D00, 0x4F00), (0x9F00, 0xAD00), (0xD700, 0xD800), (0xE000, 0xE100), (0xF800, 0x17100), (0x18C00, 0x20000), (0x2A600, 0x2A800),
             (0x2B700, 0x2B900), (0x2CE00, 0x2CF00), (0x2EB00, 0x2EF00), (0x2F800, 0x2FB00), (0x30000, 0x30100), (0x31300, 0x31400), (0x32300, 0x32400),
             (0xE0000, 0xE0200), (0x10FF00, 0x110000)]


def main():
    characters = [chr(c) for first, end in STRETCHES for c in range(first, end)]
    with open(os.path.join(ref.HERE, "golden", "tokenizers", "unicode.txt"), "w", encoding="utf-8") as out:
        for name, (data, shape) in PARTS.items():
            texts = [text_of(shape, c) for c in characters]
            numbers = array("i")
            for ids, spans in ref.hugging_face(data).encode(texts):
                for i, (start, end) in zip(ids, spans):
                    numbers.extend((i, start, end))
                numbers.append(-1)
            out.write("\t".join((hashlib.sha256(numbers.tobytes()).hexdigest(), SHAPES[shape], name, json.dumps(json.loads(data), ensure_ascii=True))) + "\n")
            print(name, flush=True)


if __name__ == "__main__":
    main()
