#!/usr/bin/python3
"""average.py - the plain mean of the weights of several checkpoints of one run.

usage: average.py OUT MEAN...     MEAN: files `run/mean`, kept from the ends of several rounds

A checkpoint of weights is a header of 32 bytes (magic, number of weights, of values for each, the
step) and 32-bit floats, little endian. OUT takes the header of the last file named and goes into
`trainer export` like any other.
"""
import array
import sys

HEADER, MAGIC = 32, b"TNGACKT1"


def weights(path):
    with open(path, "rb") as f:
        header, rest = f.read(HEADER), f.read()
    body = array.array("f", rest[: len(rest) // 4 * 4])
    if header[:8] != MAGIC or not body:
        sys.exit(f"average.py: {path} holds no weights")
    return header, body


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: average.py OUT MEAN...")
    header, total = None, None
    for path in sys.argv[2:]:
        header, body = weights(path)
        if total is not None and len(body) != len(total):
            sys.exit(f"average.py: {path} has {len(body)} weights, not {len(total)}")
        total = body if total is None else array.array("d", map(sum, zip(total, body)))
    n = len(sys.argv) - 2
    with open(sys.argv[1], "wb") as f:
        f.write(header)
        array.array("f", [w / n for w in total]).tofile(f)


if __name__ == "__main__":
    main()
