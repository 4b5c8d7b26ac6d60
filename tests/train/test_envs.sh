#!/usr/bin/env bash
# Every environment: its oracle scores 1 with the real tools, a run that does nothing scores 0,
# a seed means one task. The renderer agrees with the daemon's encoder, the trained tokenizer
# with the engine's.
set -eu
py=/usr/bin/python3
if ! "$py" -c 'import regex' 2>/dev/null || ! command -v lua5.4 >/dev/null; then
    echo "skipped: the recipe needs the packages python3-regex and lua5.4"
    exit 77
fi
export PYTHONDONTWRITEBYTECODE=1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
"$py" "$SRC/train/check.py" envs --bin "$BIN" --count 12
"$py" "$SRC/train/check.py" render --bin "$BIN" --count 5
for env in copy files session; do
    "$py" "$SRC/train/synth.py" "$env" --count 20 --bin "$BIN" --out "$tmp/records"
done
# Names from everyday speech: oracles stand (synth.py stops at one that does not), other tasks.
for env in python files session; do
    "$py" "$SRC/train/synth.py" "$env" --count 25 --plain 45 --bin "$BIN" --out "$tmp/plain/records"
done
"$py" - "$tmp" <<'PY'
import json, sys
a, b = (open(f"{sys.argv[1]}{d}/records/files-000000000.jsonl").read().splitlines() for d in ("", "/plain"))
same = sum(json.loads(x)["turns"] == json.loads(y)["turns"] for x, y in zip(a, b))
assert len(b) == 25 and same == 0, f"{same} of {len(a)} tasks are those without --plain"
PY
"$py" "$SRC/train/pack.py" tokenizer --out "$tmp" --size 1024
"$py" "$SRC/train/check.py" tokenizer "$tmp/tokenizer.json" --bin "$BIN" --count 5
"$py" "$SRC/train/pack.py" data --out "$tmp" | grep 'drill: 20 sequences'
first=$(sha256sum <"$tmp/data/train.ids")
"$py" "$SRC/train/pack.py" data --out "$tmp" >/dev/null
[ "$first" = "$(sha256sum <"$tmp/data/train.ids")" ] || { echo "packing is not deterministic"; exit 1; }
