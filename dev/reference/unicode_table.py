"""
Writes tokenizer/unicode_table.h: what the libraries that define the tokenizers know of characters, so that ids depend on no version of PCRE2 and utf8proc.
`tokenizers` itself is asked about every character: its patterns (Oniguruma, Rust's regex) know Unicode 16, its normal forms are those of Unicode 9, its
punctuation that of Unicode 8, its lower case and digits Rust's. Perl knows since when a character has been there; the Python package regex knows properties.
  unicode_table.py [--check]
"""
import os
import subprocess
import sys
import unicodedata

import regex
from tokenizers import Regex, normalizers, pre_tokenizers

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tokenizer", "unicode_table.h")
ALL = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(ALL)
CATEGORIES = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
UNICODE = 16  # of the patterns of `tokenizers`; check() holds it


def matched(pattern):
    """The characters that a pattern of `tokenizers` matches."""
    rest = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(TEXT)
    out, at = set(), 0
    for _, (start, end) in rest:
        out.update(ALL[at:start])
        at = end
    return out | set(ALL[at:])


def categories():
    known = {}
    for number, name in enumerate(CATEGORIES):
        if name != "Cn":
            known.update((c, number) for c in matched(r"\p{%s}" % name))
    return known


def known_in(version):
    out = subprocess.run(["perl", "-e", r"for (0 .. 0x10FFFF) { print qq($_\n) if chr($_) =~ /\p{In=%s}/ }" % version], check=True, capture_output=True, text=True).stdout
    return {chr(int(c)) for c in out.split() if not 0xD800 <= int(c) < 0xE000}


def runs(known):
    """Stretches of characters with one category that came at one time: first << 8 | time << 6 | category."""
    in13, in14 = known_in("13.0"), known_in("14.0")
    out, before = [], None
    for c in ALL:
        category = known.get(c, 0)
        kind = (0 if c in in13 or not category else 1 if c in in14 else 2) << 6 | category
        if kind != before or ord(c) == 0xE000:
            out.append(ord(c) << 8 | kind)
        before = kind
    return out


def words():
    whitespace = pre_tokenizers.Whitespace()  # \w+|[^\w\s]+
    return {c for c in ALL if len(whitespace.pre_tokenize_str("a" + c)) == 1 and not c.isspace()}


def digits():
    return {c for c in ALL if pre_tokenizers.Digits().pre_tokenize_str("a" + c) != [("a" + c, (0, 2))]}


def punctuation():
    split = pre_tokenizers.Punctuation("removed")
    return {c for c in ALL if not split.pre_tokenize_str(c)}


def inert():
    """Characters that normalising leaves alone, beside what marks they may stand."""
    nfkd = normalizers.NFKD()
    low, high = "\u0334", "\u0345"  # classes 1 and 240
    return {c for c in ALL if nfkd.normalize_str(c) == c and nfkd.normalize_str("a" + c + low) == "a" + c + low and nfkd.normalize_str("a" + high + c) == "a" + high + c}


def second_of_pairs():
    """The characters that compose with one before them: composing what decomposing gave brings a character back."""
    nfc, out = normalizers.NFC(), set()
    for c in ALL:
        parts = unicodedata.normalize("NFD", c)
        if parts != c and not 0xAC00 <= ord(c) <= 0xD7A3 and nfc.normalize_str(parts) == c:
            out.add(parts[-1])
    return out | {chr(c) for c in range(0x1161, 0x1176)} | {chr(c) for c in range(0x11A8, 0x11C3)}


def lower():
    """Stretches of characters, every one or every other one of which has a lower case that is `delta` away."""
    form, out = normalizers.Lowercase(), []
    for c in ALL:
        small = form.normalize_str(c)
        if small == c or len(small) > 1:  # U+0130 alone becomes two
            continue
        c, delta = ord(c), ord(small) - ord(c)
        last = out[-1] if out else [0, -9, 0, 0]
        if last[3] == delta and c - last[1] in ((1, 2) if last[2] == 0 else (last[2],)):
            last[2] = c - last[1]
            last[1] = c
        else:
            out.append([c, c, 0, delta])
    return [(first, last, step or 1, delta) for first, last, step, delta in out]


def ranges(characters):
    out = []
    for c in sorted(map(ord, characters)):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def rows(cells):
    lines, line = [], "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > 119:
            lines.append(line)
            line = "   "
        line += " " + cell + ","
    return "\n".join(lines + [line])


def table(name, comment, characters):
    return f"// {comment}\nstatic const CharacterRange {name}[] = {{\n{rows('{0x%X, 0x%X}' % (a, b) for a, b in ranges(characters))}\n}};\n"


def build():
    known = categories()
    word = {c for c, n in known.items() if CATEGORIES[n][0] in "LM" or CATEGORIES[n] in ("Nd", "Nl", "Pc")}
    assert words() >= word
    numbers = {c for c, n in known.items() if CATEGORIES[n][0] == "N"}
    assert matched(r"\w") >= word and matched(r"\d") == {c for c, n in known.items() if CATEGORIES[n] == "Nd"}
    return ("/* Written by dev/reference/unicode_table.py: what `tokenizers` knows of characters. Each user takes the tables it needs. */\n"
            "// clang-format off\n#ifndef UNICODE_TABLE_H\n#define UNICODE_TABLE_H\n\n#include <stdint.h>\n\n"
            "typedef struct {\n    int32_t first, last;\n} CharacterRange;\n\n"
            f"#define CHARACTERS_UNICODE {UNICODE}\n"
            "enum {\n" + rows("CATEGORY_" + n.upper() for n in CATEGORIES) + "\n    N_CATEGORIES\n};\n"
            "static const char category_names[N_CATEGORIES][3] = {\n" + rows(f'"{n}"' for n in CATEGORIES) + "\n};\n\n"
            "// Every character: a stretch begins at value >> 8; its category is value & 63; value >> 6 & 3 is 0 for what Unicode 13\n"
            "// has, 1 for what came with Unicode 14, 2 for what came later. CN: not assigned.\n"
            "static const uint32_t characters[] = {\n" + rows("0x%X" % r for r in runs(known)) + "\n};\n\n"
            + table("more_words", "\\w of Oniguruma (patterns) beside L, M, Nd, Nl and Pc", matched(r"\w") - word) + "\n"
            + table("more_rust_words", "and of Rust's regex (Whitespace, single_word)", words() - word) + "\n"
            + table("more_digits", "the pre-tokeniser Digits beside N", digits() - numbers) + "\n"
            + table("punctuation", "the pre-tokeniser Punctuation", punctuation()) + "\n"
            + table("han", "the script Han", matched(r"\p{Han}")) + "\n"
            + table("normalized", "what normalising may change: it has a class or a decomposition, or composes with what is before it", set(ALL) - inert() | second_of_pairs()) + "\n"
            "// The lower case of every step-th character from first to last is delta away.\n"
            "static const struct {\n    int32_t first, last, step, delta;\n} lower_case[] = {\n" + rows("{0x%X, 0x%X, %d, %d}" % r for r in lower()) + "\n};\n\n#endif\n")


if __name__ == "__main__":
    text = build()
    if "--check" in sys.argv:
        with open(PATH, encoding="utf-8") as f:
            same = f.read() == text
        print("same" if same else "DIFFERS")
        sys.exit(not same)
    with open(PATH, "w", encoding="utf-8") as f:
        f.write(text)
