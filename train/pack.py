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
import pickle
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


def tokenized(path, t, tools, pre, limit):
    """The sequences of one shard, from its cache beside the records when that is newer.
    -> [(family, ids, mask)], number dropped"""
    cache = f"{path[: -len('.jsonl')]}.{limit}.tok"
    try:
        if os.path.getmtime(cache) > max(os.path.getmtime(path), t.made):
            with open(cache, "rb") as f:
                return pickle.load(f)
    except OSError:
        pass
    n_pre, pre_ids, pre_mask = pre
    out, dropped = [], 0
    with open(path, encoding="utf-8") as f:
        for r in map(json.loads, f):
            for last in range(len(r["turns"])):
                ids, mask = array.array("H", pre_ids), array.array("B", pre_mask)
                encode(t, render.example(r, last, tools)[n_pre:], ids, mask)
                if len(ids) > limit:
                    dropped += 1
                else:
                    out.append((r["family"], ids.tobytes(), mask.tobytes()))
    with open(cache + ".part", "wb") as f:
        pickle.dump((out, dropped), f)
    os.rename(cache + ".part", cache)
    return out, dropped


def write_split(folder, name, seqs):
    """The four files of a split, each whole at once; the order is drawn anew but always alike."""
    random.Random(1).shuffle(seqs)
    off = array.array("I", [0])
    for _, ids, _ in seqs:
        off.append(off[-1] + len(ids) // 2)
    parts = {
        "ids": (s[1] for s in seqs),
        "msk": (s[2] for s in seqs),
        "fam": [bytes(s[0] for s in seqs)],
        "off": [off.tobytes()],
    }
    for ext, chunks in parts.items():
        path = os.path.join(folder, f"{name}.{ext}")
        with open(path + ".part", "wb") as f:
            f.writelines(chunks)
        os.rename(path + ".part", path)
    print(
        f"{name}: {len(seqs)} sequences, {off[-1]} tokens,"
        f" {sum(s[2].count(1) for s in seqs)} to learn,"
        f" longest {max((len(s[2]) for s in seqs), default=0)}"
    )


def make_data(out, limit):
    path = os.path.join(out, "tokenizer.json")
    t, tools = tok.Tokenizer.load(path), render.load_tools()
    t.made = os.path.getmtime(path)
    ids, mask, g = array.array("H"), array.array("B"), render.Segments()
    render.preamble(g, tools)
    g.flush()  # up to USER, a literal: its tokens are the same in every sequence
    encode(t, g.out, ids, mask)
    splits, dropped = {"drill": [], "train": [], "held": []}, 0
    for path in sorted(glob.glob(os.path.join(out, "records", "*.jsonl"))):
        first = int(path.rsplit("-", 1)[1].split(".")[0])
        seqs, n = tokenized(path, t, tools, (len(g.out), ids, mask), limit)
        dropped += n
        for s in seqs:
            splits["held" if first >= HELD else "drill" if s[0] == 0 else "train"].append(s)
    folder = os.path.join(out, "data")
    os.makedirs(folder, exist_ok=True)
    for name, seqs in splits.items():
        write_split(folder, name, seqs)
    with open(os.path.join(folder, "meta.json"), "w") as f:
        json.dump({"vocab": t.size, "prefix_len": len(ids)}, f)
    print(
        f"vocabulary {t.size}, preamble {len(ids)} tokens, {dropped} sequences over {limit} dropped"
    )


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["tokenizer", "data"])
    p.add_argument("--out", default=os.path.join(HERE, "out"))
    p.add_argument("--size", type=int, default=2048)
    p.add_argument("--limit", type=int, default=2500, help="tokens of the longest sequence kept")
    o = p.parse_args()
    if o.what == "tokenizer":
        make_tokenizer(o.out, o.size)
    else:
        make_data(o.out, o.limit)


if __name__ == "__main__":
    main()
