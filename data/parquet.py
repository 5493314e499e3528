#!/usr/bin/env python3
"""
Parquet and Arrow files to JSONL, which the trainer reads.
  python3 data/parquet.py train.parquet                       writes train.jsonl beside it
  python3 data/parquet.py train-*.parquet --out train.jsonl   several files, in the order given, into one
  python3 data/parquet.py train.parquet --out -               to stdout
Needs pyarrow (pip install pyarrow). Every row becomes an object with all its columns: lists and structures stay what they are, dates become ISO texts; bytes that are not text
are an error. The output appears under its name only when it is whole.
"""
import argparse
import base64
import datetime
import decimal
import json
import os
import sys

ENDINGS = (".parquet", ".arrow", ".feather")


def stop(text):
    print(f"parquet.py: {text}", file=sys.stderr)
    sys.exit(2)


try:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet
except ImportError:
    stop("needs pyarrow: pip install pyarrow")


def batches(path):
    """The record batches of a file; Arrow's two formats (with and without a footer) are told apart by their first bytes."""
    with open(path, "rb") as f:
        head = f.read(48)
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        stop(f"{path}: a Git LFS pointer, not the file itself: run git lfs pull in its repository")
    if head.startswith(b"PAR1"):
        yield from pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024)
    elif head.startswith(b"ARROW1"):
        with pyarrow.ipc.open_file(path) as reader:
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)
    elif path.endswith(ENDINGS[1:]):
        with pyarrow.ipc.open_stream(path) as reader:
            yield from reader
    else:
        stop(f"{path}: neither a Parquet nor an Arrow file")


def plain(value):
    """What json.dumps does not know."""
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError(f"bytes that are not text ({base64.b64encode(value[:12]).decode()}…); drop that column") from None
    raise ValueError(f"a value of type {type(value).__name__}")


def write(paths, out):
    rows = 0
    for path in paths:
        row = 0
        try:
            for batch in batches(path):
                for record in batch.to_pylist():
                    out.write(json.dumps(record, ensure_ascii=False, default=plain) + "\n")
                    row += 1
        except OSError as e:
            stop(f"{path}: {e.strerror or e}")
        except (ValueError, pyarrow.ArrowException) as e:
            stop(f"{path}: row {row}: {e}")
        rows += row
    return rows


def main():
    parser = argparse.ArgumentParser(description="Parquet and Arrow files to JSONL", epilog="Needs pyarrow.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--out", metavar="FILE.jsonl", help="- is stdout; default: the file's own name with .jsonl")
    o = parser.parse_args()
    if not o.out and len(o.files) > 1:
        stop("several files need --out FILE.jsonl")
    out = o.out or os.path.splitext(o.files[0])[0] + ".jsonl"
    if out == "-":
        write(o.files, sys.stdout)
        return
    if any(os.path.realpath(out) == os.path.realpath(f) for f in o.files):
        stop(f"{out}: is read; it would be overwritten")
    temporary = f"{out}.tmp.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8") as f:
            rows = write(o.files, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, out)
    except OSError as e:
        stop(f"{out}: {e.strerror}")
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    print(f"{out}: {rows} rows")


if __name__ == "__main__":
    main()
