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
"$py" "$SRC/train/pack.py" tokenizer --out "$tmp" --size 1024
"$py" "$SRC/train/check.py" tokenizer "$tmp/tokenizer.json" --bin "$BIN" --count 5
"$py" "$SRC/train/pack.py" data --out "$tmp" | grep -q 'drill: 20 sequences'
first=$(sha256sum <"$tmp/data/train.ids")
"$py" "$SRC/train/pack.py" data --out "$tmp" >/dev/null
[ "$first" = "$(sha256sum <"$tmp/data/train.ids")" ] || { echo "packing is not deterministic"; exit 1; }
