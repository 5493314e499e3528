"""
Random templates against Jinja itself: expressions and statements are drawn from a grammar that knows the language, rendered by transformers' environment and by
`tokenize --render`. What we refuse by name (an address printed, chance, HTML) may differ; anything else is printed.
  venv/bin/python dev/reference/check_jinja.py [--seed N] [--templates N] [--program ./tokenize]
"""
import argparse
import random
import re

import chat_reference
from jinja_snippets import VARIABLES

REFUSED = re.compile(r"shows an address|not supported|beyond 64 bits|out of range|too deeply|more than \d+ (MB|steps)")
THEIRS = re.compile(r" at 0x[0-9a-f]+>|<class '")
NAMES = ["n", "f", "s", "t", "no", "e", "u", "ws", "l", "words", "d", "nested", "neg", "rows", "floats", "items", "html", "lines", "q", "mixed", "messages", "zz", "x"]
ATTRIBUTES = ["a", "b", "name", "k", "role", "content", "items", "keys", "get", "zz", "upper", "in", "real", "index", "count"]
METHODS = ["upper()", "lower()", "strip()", "title()", "split()", "split(',')", "split('a', 1)", "rsplit(none, 1)", "replace('a', 'b')", "startswith('H')", "endswith(('a', 'd'))", "find('a')", "count('l')", "splitlines()",
           "join(words)", "items()", "keys()", "values()", "get('a')", "get('zz', 1)", "isdigit()", "capitalize()", "lstrip('H')", "zfill(5)", "center(9)", "partition('l')", "index(1)", "copy()", "format(1, 2)", "swapcase()", "isupper()"]
FILTERS = ["upper", "lower", "trim", "length", "list", "first", "last", "join(',')", "join", "string", "tojson", "tojson(indent=2)", "default('D')", "default('D', true)", "int", "float", "abs", "round(1)", "sort", "reverse", "unique",
           "min", "max", "sum", "title", "capitalize", "replace('l', 'L')", "items", "dictsort", "map('upper')", "map(attribute='name')", "select", "select('string')", "reject('none')", "selectattr('k')", "rejectattr('role', 'equalto', 'user')",
           "batch(2)", "slice(2)", "indent", "indent(2, true)", "e", "safe", "count", "wordcount", "groupby('k')", "truncate(8)", "urlencode", "map('string')", "select('number')", "center(10)", "format(1)", "striptags", "attr('a')"]
TESTS = ["defined", "undefined", "none", "string", "number", "mapping", "sequence", "iterable", "true", "false", "boolean", "integer", "float", "callable", "lower", "upper", "odd", "even", "in l", "eq 3", "sameas none", "divisibleby 2", "gt 1", "escaped"]
LITERALS = ["1", "0", "-2", "2.5", "'a'", "''", "'Hello'", "\"it's\"", "true", "false", "none", "[]", "[1, 'a']", "{}", "{'a': 1}", "(1, 2)", "'é🙂'", "100", "1e3", "'%s'", "'a b'", "range(3)"]
LOOP = ["index", "index0", "first", "last", "length", "revindex", "previtem", "nextitem", "depth", "cycle('x', 'y')", "changed(i)"]


class Grammar:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.loop, self.macros = 0, []

    def pick(self, items):
        return self.r.choice(items)

    def expression(self, depth=0):
        if depth > 2 or self.r.random() < 0.4:
            return self.pick(NAMES + (["i"] if self.loop else [])) if self.r.random() < 0.65 else self.pick(LITERALS)
        e = lambda: self.expression(depth + 1)  # noqa: E731
        kind = self.r.randrange(17)
        if kind < 4:
            return f"{e()} | {self.pick(FILTERS)}"
        if kind == 4:
            return f"({e()}).{self.pick(METHODS)}"
        if kind == 5:
            return f"{self.pick(NAMES)}.{self.pick(ATTRIBUTES)}"
        if kind == 6:
            return f"({self.pick(NAMES)})[{self.pick(['0', '-1', '1:', ':2', '::-1', '-2:', '::2', repr(self.pick(ATTRIBUTES)), e()])}]"
        if kind in (7, 8):
            return f"{e()} {self.pick(['+', '-', '*', '/', '//', '%', '~', '~', '+'])} {e()}"
        if kind in (9, 10):
            return f"{e()} {self.pick(['==', '!=', '<', '>', '<=', '>=', 'in', 'not in', 'and', 'or'])} {e()}"
        if kind == 11:
            return f"({e()} if {e()} else {e()})"
        if kind == 12:
            return f"({e()}) is {self.pick(['', 'not '])}{self.pick(TESTS)}"
        if kind == 13:
            return f"not {e()}"
        if kind == 14:
            return f"[{e()}, {e()}]"
        if kind == 15:
            return f"{{'a': {e()}, 'zz': {e()}}}"
        if self.loop and self.r.random() < 0.6:
            return f"loop.{self.pick(LOOP)}"
        if self.macros and self.r.random() < 0.7:
            return f"{self.pick(self.macros)}({', '.join(e() for _ in range(self.r.randrange(3)))})"
        return f"({e()})"

    def space(self):
        return self.pick(["", "", " ", "\n", " \n ", "a", "\n\nb ", "  x"])

    def tag(self, body):
        return f"{{%{self.pick(['', '', '-', '+'])} {body} {self.pick(['', '', '-', '+'])}%}}"

    def statements(self, depth=0):
        return "".join(self.space() + self.statement(depth) for _ in range(self.r.randrange(1, 3))) + self.space()

    def statement(self, depth):
        kind = self.r.randrange(14)
        if depth > 2 or kind < 5:
            return f"{{{{{self.pick(['', '-'])} {self.expression()} {self.pick(['', '-'])}}}}}"
        if kind < 7:
            other = self.tag("else") + self.statements(depth + 1) if self.r.random() < 0.5 else ""
            return self.tag(f"if {self.expression(1)}") + self.statements(depth + 1) + other + self.tag("endif")
        if kind < 9:
            self.loop += 1
            source = self.expression(2)
            head = self.tag(f"for i in {source}" + (f" if {self.expression(3)}" if self.r.random() < 0.2 else ""))
            body = self.statements(depth + 1) + (self.tag(f"if {self.expression(2)}") + self.tag(self.pick(["break", "continue"])) + self.tag("endif") if self.r.random() < 0.2 else "")
            body += self.tag("else") + self.space() if self.r.random() < 0.2 else ""
            self.loop -= 1
            return head + body + self.tag("endfor")
        if kind == 9:
            return self.tag(f"set {self.pick(['x', 'n', 'zz', 'x, zz'])} = {self.expression(1)}")
        if kind == 10:
            loop, self.loop = self.loop, 0
            text = self.tag(f"set {self.pick(['x', 'zz'])}{self.pick(['', ' | trim', ' | upper'])}") + self.statements(depth + 1) + self.tag("endset")
            self.loop = loop
            return text
        if kind == 11:
            name, loop, macros = f"m{self.r.randrange(3)}", self.loop, list(self.macros)
            self.loop = 0
            text = self.tag(f"macro {name}(i=1, x={self.expression(3)})") + self.statements(depth + 1) + self.tag("endmacro")
            self.loop, self.macros = loop, macros + [name]
            return text
        if kind == 12:
            return self.tag(f"with x = {self.expression(2)}") + self.statements(depth + 1) + self.tag("endwith")
        return self.pick(["{# c #}", "{#- c -#}", self.tag("generation") + self.statements(3) + self.tag("endgeneration"), self.tag("filter " + self.pick(["upper", "trim", "length"])) + self.statements(3) + self.tag("endfilter"),
                          self.tag("set ns = namespace(x=1)") + self.tag("set ns.x = ns.x + 1") + "{{ ns.x }}", "{% raw %} {{ n }} {% endraw %}"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--templates", type=int, default=2000)
    parser.add_argument("--program", default="./tokenize")
    o = parser.parse_args()
    counts = {"same": 0, "both refuse": 0, "refused by name": 0, "differ": 0}
    for seed in range(o.seed, o.seed + o.templates):
        template = Grammar(seed).statements()
        expected = chat_reference.render(template, VARIABLES)
        try:
            (got,), (error,) = chat_reference.ours(template, [VARIABLES], o.program)
        except RuntimeError as e:
            got, error = "", str(e)
        if "text" in expected and expected["text"] == got:
            counts["same"] += 1
        elif "error" in expected and got is None:
            counts["both refuse"] += 1
        elif got is None and REFUSED.search(error) or "text" in expected and THEIRS.search(expected["text"]):
            counts["refused by name"] += 1
        else:
            counts["differ"] += 1
            print(f"seed {seed}\n  template {template!r}\n  expected {str(expected)[:1500]}\n  ours     {got!r:.1500} {error}")
    print(counts)
    return counts["differ"] != 0


if __name__ == "__main__":
    raise SystemExit(main())
