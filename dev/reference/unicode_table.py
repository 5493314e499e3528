"""
Writes tokenizer/unicode_table.h: where the libraries that define the tokenizers know another Unicode than PCRE2 and utf8proc do. `tokenizers` itself is asked
about every character: its patterns (Oniguruma, Rust's regex) know characters that PCRE2 10.42 (Unicode 14) takes for unassigned, its normal forms are those
of Unicode 9, its punctuation that of Unicode 8. What the newest Unicode says comes from the Python package regex.
  unicode_table.py [--check]
"""
import os
import sys
import unicodedata

import regex
from tokenizers import Regex, normalizers, pre_tokenizers

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tokenizer", "unicode_table.h")
ALL = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
assert unicodedata.unidata_version == "14.0.0", "Python 3.11 has the Unicode of PCRE2 10.42"


def matched(pattern):
    """The characters that a pattern of `tokenizers` matches."""
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    return {c for c in ALL if not split.pre_tokenize_str(c)}


def words():
    whitespace = pre_tokenizers.Whitespace()  # \w+|[^\w\s]+
    return {c for c in ALL if len(whitespace.pre_tokenize_str("a" + c)) == 1 and not c.isspace()}


def punctuation():
    split = pre_tokenizers.Punctuation("removed")
    return {c for c in ALL if not split.pre_tokenize_str(c)}


def inert():
    """Characters that normalising leaves alone, beside what marks they may stand."""
    nfkd = normalizers.NFKD()
    low, high = "\u0334", "\u0345"  # classes 1 and 240
    return {c for c in ALL if nfkd.normalize_str(c) == c and nfkd.normalize_str("a" + c + low) == "a" + c + low and nfkd.normalize_str("a" + high + c) == "a" + high + c}


def newest(pattern):
    return {c for c in ALL if regex.match(pattern, c)}


def ranges(characters):
    out = []
    for c in sorted(map(ord, characters)):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(name, comment, characters):
    cells = ["{0x%X, 0x%X}" % (a, b) for a, b in ranges(characters)]
    lines, line = [], "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > 158:
            lines.append(line)
            line = "   "
        line += " " + cell + ","
    return f"// {comment}\nstatic const CharacterRange {name}[] = {{\n" + "\n".join(lines + [line]) + "\n};\n"


def category(*names):
    return {c for c in ALL if unicodedata.category(c).startswith(names)}


def build():
    letters, numbers = matched(r"\p{L}"), matched(r"\p{N}")
    word = words()
    known_words = category("L", "M", "Nd", "Pc") | {c for c in ALL if regex.match(r"[\p{Alphabetic}\p{Join_Control}]", c) and unicodedata.category(c) != "Cn"}
    changes = newest(r"[^\p{ccc=0}]|\P{dt=None}")
    return ("/* Written by dev/reference/unicode_table.py: where the tokenizers' own libraries and PCRE2 or utf8proc differ about a character. Each user takes\n"
            "   the tables it needs. */\n#ifndef UNICODE_TABLE_H\n#define UNICODE_TABLE_H\n\n#include <stdint.h>\n\n"
            "typedef struct { int32_t first, last; } CharacterRange;\n\n"
            + table("younger_letters", "\\p{L} since Unicode 15", letters - category("L")) + "\n"
            + table("younger_numbers", "\\p{N} since Unicode 15", numbers - category("N")) + "\n"
            + table("younger_words", "\\w since Unicode 15", word - known_words) + "\n"
            + table("not_punctuation", "\\p{P} now, but not for `tokenizers`' pre-tokeniser Punctuation", newest(r"\p{P}") - punctuation()) + "\n"
            + table("once_punctuation", "and the other way round", punctuation() - newest(r"\p{P}") - set("$+<=>^`|~")) + "\n"
            + table("not_normalized", "has a class or a decomposition now, but not in Unicode 9, by which `tokenizers` normalises", changes & inert())
            + "\n#endif\n")


if __name__ == "__main__":
    text = build()
    if "--check" in sys.argv:
        with open(PATH, encoding="utf-8") as f:
            same = f.read() == text
        print("same" if same else "DIFFERS")
        sys.exit(not same)
    with open(PATH, "w", encoding="utf-8") as f:
        f.write(text)
