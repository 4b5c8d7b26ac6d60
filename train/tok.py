"""tok.py - trains and runs the small model's tokenizer: byte-level BPE, DeepSeek V3's splits.

Ordinary BPE would cut a random name differently after a space, a quote or a slash, and then
copying it is spelling, which costs a small model most of its size. So merges come in three
ranks: inside letter runs; inside runs of punctuation and blanks; and last, a blank in front
of a frequent whole word. Digits never merge. The file is a plain tokenizer.json all the same.
"""
import collections
import heapq
import json

import regex

import render

SPLIT = regex.compile(r"(\p{N}{1,3}|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+)")
PIECE = regex.compile(
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    r"""|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": r"\p{N}{1,3}"},
            "behavior": "Isolated",
            "invert": False,
        },
        {
            "type": "Split",
            "pattern": {"Regex": "[一-龥\u3040-ゟ゠-ヿ]+"},
            "behavior": "Isolated",
            "invert": False,
        },
        {
            "type": "Split",
            "pattern": {
                "Regex": "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
                "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
                "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
            },
            "behavior": "Isolated",
            "invert": False,
        },
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ],
}


def alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, spare = {}, 256
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(spare)
            spare += 1
    return table


BYTE = alphabet()
SPACE = BYTE[32]


def spell(s):
    return "".join(BYTE[b] for b in s.encode())


def pieces(text):
    for i, part in enumerate(SPLIT.split(text)):
        if i % 2:
            yield part
        elif part:
            yield from PIECE.findall(part)


def learn(words, n, known):
    """n merges for words {spelling: count}, most frequent pair first, ties by spelling."""
    splits = {w: list(w) for w in words}
    where, count = collections.defaultdict(set), collections.Counter()
    for w, parts in splits.items():
        for pair in zip(parts, parts[1:]):
            count[pair] += words[w]
            where[pair].add(w)
    heap = [(-c, p) for p, c in count.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < n:
        c, pair = heapq.heappop(heap)
        if count[pair] != -c or c == 0:
            continue
        joined = pair[0] + pair[1]
        touched = set()
        for w in sorted(where.pop(pair)):
            old, new, i = splits[w], [], 0
            while i < len(old):
                if i + 1 < len(old) and (old[i], old[i + 1]) == pair:
                    new.append(joined)
                    i += 2
                else:
                    new.append(old[i])
                    i += 1
            for p in zip(old, old[1:]):
                count[p] -= words[w]
                touched.add(p)
            for p in zip(new, new[1:]):
                count[p] += words[w]
                where[p].add(w)
                touched.add(p)
            splits[w] = new
        for p in touched:
            if p != pair and count[p] > 0:
                heapq.heappush(heap, (-count[p], p))
        count[pair] = 0
        if joined not in known:
            merges.append(pair)
            known.add(joined)
    return merges


LETTERS = regex.compile(r"[A-Za-z]+")
# Short words that may take a blank; others would also begin random names.
SHORT = (
    "the",
    "of",
    "in",
    "to",
    "is",
    "and",
    "I",
    "it",
    "has",
    "was",
    "one",
    "for",
    "use",
    "you",
    "It",
)
OTHER = regex.compile(r"^[^A-Za-z0-9]+$")


def train(texts, size, cap=400, n_words=320, n_other=90):
    """tokenizer.json's contents from texts (one per example); size counts everything."""
    letters, other, spaced = collections.Counter(), collections.Counter(), collections.Counter()
    for text in texts:
        seen = set()
        for p in pieces(text):
            run = LETTERS.search(p)
            if run:
                seen.add(run.group())
                if p == " " + run.group():
                    spaced[run.group()] += 1
            elif OTHER.match(p):
                other[p] += 1
        letters.update(seen)
    known = set(BYTE.values())
    n_letters = size - 256 - len(render.LITERALS) - n_words - n_other
    # Fixed words are seen thousands of times, random ones once: the cap lets both have a say.
    merges = learn({spell(w): min(c, cap) for w, c in letters.items()}, n_letters, known)
    merges += learn({spell(w): c for w, c in other.items() if len(w.encode()) > 1}, n_other, known)
    room = size - 256 - len(render.LITERALS) - len(merges)
    words = [
        w
        for w, _ in sorted(spaced.items(), key=lambda x: (-x[1], x[0]))
        if w in known and (len(w) > 3 or w in SHORT)
    ]
    merges += [(SPACE, w) for w in words[:room]]

    vocab = {}

    def add(token):
        vocab[token] = len(vocab) + 2

    for b in range(256):
        add(BYTE[b])
    for a, b in merges:
        add(a + b)
    special = [render.BOS, render.EOS] + render.LITERALS[2:]
    ids = [0, 1] + [len(vocab) + 2 + i for i in range(len(special) - 2)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": s,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, s in zip(ids, special)
        ],
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZER,
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocab,
            "merges": [f"{a} {b}" for a, b in merges],
        },
    }


class Tokenizer:
    def __init__(self, data):
        self.vocab = data["model"]["vocab"]
        self.rank = {tuple(m.split(" ")): i for i, m in enumerate(data["model"]["merges"])}
        self.special = {t["content"]: t["id"] for t in data["added_tokens"]}
        self.size = len(self.vocab) + len(self.special)
        self.cache = {}
        unspell = {c: b for b, c in BYTE.items()}
        self.bytes = {i: bytes(unspell[c] for c in s) for s, i in self.vocab.items()}
        self.bytes.update({i: s.encode() for s, i in self.special.items()})

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as f:
            return cls(json.load(f))

    def piece(self, p):
        got = self.cache.get(p)
        if got is not None:
            return got
        parts = list(spell(p))
        while len(parts) > 1:
            best = min(zip(parts, parts[1:]), key=lambda x: self.rank.get(x, 1 << 30))
            if best not in self.rank:
                break
            new, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                    new.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    new.append(parts[i])
                    i += 1
            parts = new
        got = [self.vocab[x] for x in parts]
        if len(self.cache) < 500000:
            self.cache[p] = got
        return got

    def encode(self, text):
        out = []
        for p in pieces(text):
            out += self.piece(p)
        return out

    def decode(self, ids):
        return b"".join(self.bytes[i] for i in ids)
