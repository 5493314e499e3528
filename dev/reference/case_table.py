"""
Writes tokenizer/case_table.h: what Python's str does to characters beyond utf8proc's simple mappings and categories. Letters that become several in another
case, and the characters that islower, isupper, isdigit and isnumeric know besides those of their category. Asserts that for every other character both agree.
  case_table.py [--check]
"""
import ctypes
import ctypes.util
import os
import sys
from unicodedata import category

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tokenizer", "case_table.h")
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(predicate):
    out = []
    for c in ALL:
        if predicate(chr(c)):
            if out and out[-1][1] == c - 1:
                out[-1][1] = c
            else:
                out.append([c, c])
    return out


def wrapped(cells, width=116):
    lines, line = [], "   "
    for cell in cells:
        if len(line) + len(cell) + 2 > width:
            lines.append(line)
            line = "   "
        line += " " + cell + ","
    return "\n".join(lines + [line]) + "\n"


def text(s):
    return '"' + "".join("\\x%02x" % b for b in s.encode()) + '"'


def table():
    library = ctypes.CDLL(ctypes.util.find_library("utf8proc"))
    special = set()
    for python, theirs in ((str.upper, library.utf8proc_toupper), (str.lower, library.utf8proc_tolower), (str.title, library.utf8proc_totitle)):
        theirs.restype = ctypes.c_int32
        for c in ALL:
            mapped = python(chr(c))
            if len(mapped) > 1:
                special.add(c)
            else:
                assert ord(mapped) == theirs(c), hex(c)
    out = "/* Written by dev/reference/case_table.py: what Python's str knows about characters beyond utf8proc's simple mappings\n   and categories. */\n"
    out += "#ifndef CASE_TABLE_H\n#define CASE_TABLE_H\n\n"
    out += "typedef struct {\n    int32_t c;\n    const char *upper, *lower, *title;\n} SpecialCase;\n\n"
    out += "// letters that become several in another case, in order\nstatic const SpecialCase special_cases[] = {\n"
    out += wrapped(["{0x%X, %s, %s, %s}" % (c, text(chr(c).upper()), text(chr(c).lower()), text(chr(c).title())) for c in sorted(special)]) + "};\n"
    for name, comment, predicate in (
            ("other_lower", "lower case, but not Ll", lambda c: c.islower() and category(c) != "Ll"),
            ("other_upper", "upper case, but not Lu", lambda c: c.isupper() and category(c) != "Lu"),
            ("other_digits", "digits, but not Nd", lambda c: c.isdigit() and category(c) != "Nd"),
            ("other_numeric", "numeric, but not N", lambda c: c.isnumeric() and category(c)[0] != "N")):
        out += "\n// %s\nstatic const CharacterRange %s[] = {\n%s};\n" % (comment, name, wrapped(["{0x%X, 0x%X}" % (a, b) for a, b in ranges(predicate)]))
    for c in map(chr, ALL):
        assert not (category(c) == "Ll" and not c.islower()) and not (category(c) == "Lu" and not c.isupper())
    return out + "\n#endif\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        same = open(PATH, encoding="utf-8").read() == table()
        print("tokenizer/case_table.h agrees" if same else "tokenizer/case_table.h differs")
        raise SystemExit(not same)
    with open(PATH, "w", encoding="utf-8") as f:
        f.write(table())
