"""
`tokenize` against the libraries that define the formats: ids and byte offsets of every token, and decoding, on every text of ../shared/data, on
dev/test/tokenizer_stress.txt and on random strings. Prints a Markdown table; status 1 if anything differs.
  check_tokenizers.py [--random N] [--only WORD]      N random strings per tokenizer [100000]; TOKENIZE=program
Texts are cut into their characters' bytes the same way on both sides: see tokenizer_reference.py. Where a text is not UTF-8 only sentencepiece, which takes
bytes, can say what is right; for the others such texts must come back from decoding as they were (or as U+FFFD where the vocabulary has no such byte).
"""
import argparse
import hashlib
import os
import sys
import unicodedata

import tokenizer_reference as ref


def compare(texts, theirs, ours, show):
    """How many texts differ in ids, in offsets."""
    bad_ids = bad_spans = 0
    for text, a, b in zip(texts, theirs, ours):
        if list(a[0]) != list(b[0]):
            bad_ids += 1
            if show and bad_ids <= 3:
                print(f"  ids of {text!r}\n    theirs {a}\n    ours   {b}", file=sys.stderr)
        elif [tuple(s) for s in a[1]] != [tuple(s) for s in b[1]]:
            bad_spans += 1
            if show and bad_spans <= 3:
                print(f"  offsets of {text!r}\n    theirs {a}\n    ours   {b}", file=sys.stderr)
        if not show and (list(a[0]) != list(b[0]) or [tuple(s) for s in a[1]] != [tuple(s) for s in b[1]]) and bad_ids + bad_spans <= 3:
            data = text.encode()
            print(f"  differs: a text of {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()[:16]}", file=sys.stderr)
    return bad_ids, bad_spans


def compare_decoding(reference, path, answers):
    """What both sides make of the same ids. Bytes that are not UTF-8 are compared as the replacement characters a string holds for them."""
    ids = [list(a[0]) for a in answers]
    bad = 0
    for one, theirs, ours in zip(ids, reference.decode(ids), ref.our_decode(path, ids)):
        theirs = theirs if isinstance(theirs, bytes) else theirs.encode()
        if theirs != ours and theirs.decode("utf-8", "replace") != ours.decode("utf-8", "replace"):
            bad += 1
            if bad <= 3:
                print(f"  decoding of {one[:40]}", file=sys.stderr)
    return bad


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--random", type=int, default=100000)
    p.add_argument("--only", default="")
    p.add_argument("--folder", default=os.path.join(ref.ROOT, "build", "reference"))
    o = p.parse_args()
    os.makedirs(o.folder, exist_ok=True)
    sys.path.insert(0, ref.HERE)
    tokenizers = {name: row for name, row in ref.published(o.folder).items() if o.only in name}
    if not tokenizers:
        sys.exit("no tokenizers: ../shared/data is missing, or --only fits none")
    shared, stress = ref.shared_texts(), ref.stress_texts()
    valid = [t.decode() for t in stress if is_utf8(t)]
    broken = [t for t in stress if not is_utf8(t)]
    print(f"{len(shared)} texts of ../shared/data, {len(valid)} + {len(broken)} stress texts (UTF-8 + not), {o.random} random strings\n")
    print("| tokenizer | texts | tokens | ids differ | offsets differ | decoding differs | not UTF-8: differ |\n|---|---|---|---|---|---|---|")
    failed = 0
    for name, (path, make) in tokenizers.items():
        reference = make()
        n_texts = n_tokens = bad_ids = bad_spans = bad_decoding = 0
        pieces = pieces_of(reference)
        for texts, show in ((shared, False), (valid, True), (ref.random_texts(o.random, seed=len(name), pieces=pieces), True)):
            for at in range(0, len(texts), 20000):
                part = texts[at:at + 20000]
                theirs = reference.encode(part)
                ids, spans = compare(part, theirs, ref.our_encode(path, part, reference), show)
                bad_ids, bad_spans = bad_ids + ids, bad_spans + spans
                bad_decoding += compare_decoding(reference, path, theirs)
                n_texts, n_tokens = n_texts + len(part), n_tokens + sum(len(a[0]) for a in theirs)
        if reference.bytes_too:
            ours = ref.our_encode(path, broken, reference)
            bad_broken = sum(list(a[0]) != list(b[0]) for a, b in zip(reference.encode(broken), ours))
        else:
            ours = [a[0] for a in ref.our_encode(path, broken, reference)]
            decoded = ref.our_decode(path, ours)
            bad_broken = sum(not same_bytes(t, d) for t, d in zip(broken, decoded))
        print(f"| {name} | {n_texts} | {n_tokens} | {bad_ids} | {bad_spans} | {bad_decoding} | {bad_broken} of {len(broken)} |", flush=True)
        failed |= bad_ids + bad_spans + bad_decoding + bad_broken > 0
    return failed


def is_utf8(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def same_bytes(text, decoded):
    """Decoded, up to what stands in front (BOS), what added tokens strip and what NFC composes: the bytes that are not UTF-8 must all be there, or, where the
    vocabulary lacks such a byte, U+FFFD."""
    strip = lambda b: bytes(c for c in b if c >= 0x80)
    composed = strip(decoded.replace("é".encode(), "e\u0301".encode()))
    if strip(text) in (strip(decoded), composed):
        return True
    known = lambda b: "".join(c for c in unicodedata.normalize("NFC", b.decode("utf-8", "replace")) if ord(c) >= 0x80 and c != "\ufffd")
    return known(text) == known(decoded) and "\ufffd" in decoded.decode("utf-8", "replace")


def pieces_of(reference):
    if isinstance(reference, ref.HuggingFace):
        t = reference.tokenizer
        return [s for s in (t.decode([i], skip_special_tokens=False) for i in range(0, t.get_vocab_size(), 3)) if s and "\ufffd" not in s]
    if isinstance(reference, ref.SentencePiece):
        return [s for s in (reference.processor.id_to_piece(i).replace("\u2581", " ") for i in range(300, reference.processor.get_piece_size(), 3)) if s]
    e = reference.encoding
    return [s for s in (e.decode([i]) for i in range(0, 100000, 7)) if "\ufffd" not in s]


if __name__ == "__main__":
    sys.exit(main())
