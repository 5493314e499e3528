"""
What tokenizer/jinja.c is held against: renderings by transformers' own environment, with the spans of {% generation %}.
  golden/chat_templates/snippets.gz   our small templates (jinja_snippets.py), each with its text, or that it fails, or that we refuse it by name
  golden/chat_templates/real.gz       the real templates of ../shared (which are not ours to keep): digests of every rendering of chat_reference.rows()
  venv/bin/python dev/reference/record_chat_templates.py [--check]
Both are netstrings (LENGTH:BYTES,), as the tests read them.
"""
import argparse
import gzip
import hashlib
import json
import os
import re

import chat_reference
from jinja_snippets import SNIPPETS, VARIABLES

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "chat_templates")
# what Jinja prints differently every time, or what is HTML, chance or another file: ours is an error that names it
REFUSED = re.compile(r" at 0x[0-9a-f]+>|<class '")
REFUSED_TEMPLATES = {"{% block a %}x{% endblock %}", "{% autoescape true %}{% endautoescape %}", "{{ lipsum() }}", "{{ s.encode() }}", "{{ l | random }}"}


def netstring(value):
    data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return b"%d:%s," % (len(data), data)


def spans_text(result):
    """Bytes where the reference has characters."""
    size = lambda n: len(result["text"][:n].encode("utf-8", "surrogatepass"))  # noqa: E731
    return " ".join(f"{size(a)}:{size(b)}" for a, b in result["spans"])


def snippets():
    out = netstring(json.dumps(VARIABLES, ensure_ascii=False))
    for template in SNIPPETS:
        r = chat_reference.render(template, VARIABLES)
        outcome = "error" if "error" in r else "refused" if template in REFUSED_TEMPLATES or REFUSED.search(r["text"]) else "text"
        out += netstring(template) + netstring(outcome) + netstring(r["text"] if outcome == "text" else "") + netstring(spans_text(r) if outcome == "text" else "")
    return out


def real():
    rows = chat_reference.rows()
    out = netstring("\n".join(json.dumps(r, ensure_ascii=False) for r in rows))
    for name, template in chat_reference.templates().items():
        results = [chat_reference.render(template, r) for r in rows]
        lines = ["error" if "error" in r else hashlib.sha256((r["text"] + "\0" + spans_text(r)).encode("utf-8", "surrogatepass")).hexdigest()[:16] for r in results]
        out += netstring(name) + netstring(hashlib.sha256(template.encode()).hexdigest()) + netstring("\n".join(lines))
        print(f"{name}: {len(lines)} rows, {lines.count('error')} of them refused")
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check, bad = parser.parse_args().check, 0
    os.makedirs(OUT, exist_ok=True)
    for name, make in (("snippets", snippets), ("real", real)):
        path, data = os.path.join(OUT, name + ".gz"), make()
        if check:
            same = gzip.open(path).read() == data
            bad += not same
            print(f"{name}: {'agrees' if same else 'differs'}")
        else:
            with open(path, "wb") as f:
                f.write(gzip.compress(data, 9, mtime=0))
    return bad


if __name__ == "__main__":
    raise SystemExit(main())
