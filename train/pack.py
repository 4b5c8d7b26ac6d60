"""pack.py - records to token files, and the tokenizer that makes them.

usage: pack.py tokenizer [--size 2048]      records -> out/tokenizer.json (kept if it exists)
       pack.py data                         records -> out/data/{drill,train,held}.*

For each split: .ids (u16, all sequences end to end), .msk (u8, 1 = learn to predict this
token), .off (u32, n+1 offsets), .fam (u8 per sequence: 0 drill, 1..4). meta.json: vocab,
prefix_len (tokens of the preamble that every sequence starts with). Little endian. Each file
appears whole (written beside, then renamed). Shards whose first seed is >= 900,000,000 are `held`.
"""
import argparse
import array
import glob
import json
import os
import random

import render
import tok

HERE = os.path.dirname(os.path.abspath(__file__))
HELD = 900_000_000
SAMPLE = 3000  # records of each environment that the tokenizer is trained on


def records(out, want=lambda first: True):
    for path in sorted(glob.glob(os.path.join(out, "records", "*.jsonl"))):
        first = int(path.rsplit("-", 1)[1].split(".")[0])
        if want(first):
            with open(path, encoding="utf-8") as f:
                for line in f:
                    yield first, json.loads(line)


def make_tokenizer(out, size):
    path = os.path.join(out, "tokenizer.json")
    if os.path.exists(path):
        return
    tools = render.load_tools()

    def plain(g):
        g.flush()
        return "\n".join(text for text, literal, _ in g.out if not literal)

    def texts():
        seen = {}
        for _, r in records(out, lambda first: first < HELD):
            seen[r["env"]] = seen.get(r["env"], 0) + 1
            if seen[r["env"]] > SAMPLE:
                continue
            g = render.Segments()
            for t in r["turns"]:
                render.turn(g, t["request"], t["steps"], True)
            yield plain(g)
        g = render.Segments()
        render.preamble(g, tools)
        for _ in range(400):  # in every prompt, so every word of it deserves a token
            yield plain(g)

    data = tok.train(texts(), size)
    with open(path + ".part", "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, indent=1)
    os.rename(path + ".part", path)


def encode(t, segments, ids, mask):
    for text, literal, target in segments:
        got = [t.special[text]] if literal else t.encode(text)
        ids.extend(got)
        mask.extend([1 if target else 0] * len(got))


class Split:
    def __init__(self):
        self.seqs = []

    def write(self, folder, name, seed):
        random.Random(seed).shuffle(self.seqs)
        ids, mask, off, fam = array.array("H"), array.array("B"), array.array("I", [0]), array.array("B")
        for s_ids, s_mask, family in self.seqs:
            ids.extend(s_ids)
            mask.extend(s_mask)
            off.append(len(ids))
            fam.append(family)
        for ext, a in (("ids", ids), ("msk", mask), ("fam", fam), ("off", off)):
            path = os.path.join(folder, f"{name}.{ext}")
            with open(path + ".part", "wb") as f:
                a.tofile(f)
            os.rename(path + ".part", path)
        n = len(fam)
        print(f"{name}: {n} sequences, {len(ids)} tokens, {sum(mask)} to learn,"
              f" longest {max((off[i + 1] - off[i] for i in range(n)), default=0)}")


def make_data(out, limit):
    t, tools = tok.Tokenizer.load(os.path.join(out, "tokenizer.json")), render.load_tools()
    pre_ids, pre_mask = array.array("H"), array.array("B")
    g = render.Segments()
    render.preamble(g, tools)
    cut = len(g.held)
    # The preamble's last piece runs up to USER, a literal: its tokens are the same everywhere.
    g.flush()
    encode(t, g.out, pre_ids, pre_mask)
    n_pre = len(g.out)
    splits = {"drill": Split(), "train": Split(), "held": Split()}
    dropped = 0
    for first, r in records(out):
        name = "held" if first >= HELD else "drill" if r["family"] == 0 else "train"
        for last in range(len(r["turns"])):
            ids, mask = array.array("H", pre_ids), array.array("B", pre_mask)
            encode(t, render.example(r, last, tools)[n_pre:], ids, mask)
            if len(ids) > limit:
                dropped += 1
                continue
            splits[name].seqs.append((ids, mask, r["family"]))
    folder = os.path.join(out, "data")
    os.makedirs(folder, exist_ok=True)
    for name, s in splits.items():
        s.write(folder, name, 1)
    with open(os.path.join(folder, "meta.json"), "w") as f:
        json.dump({"vocab": t.size, "prefix_len": len(pre_ids)}, f)
    print(f"vocabulary {t.size}, preamble {len(pre_ids)} tokens, {dropped} sequences over {limit} dropped")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["tokenizer", "data"])
    p.add_argument("--out", default=os.path.join(HERE, "out"))
    p.add_argument("--size", type=int, default=2048)
    p.add_argument("--limit", type=int, default=2048)
    o = p.parse_args()
    if o.what == "tokenizer":
        make_tokenizer(o.out, o.size)
    else:
        make_data(o.out, o.limit)


if __name__ == "__main__":
    main()
