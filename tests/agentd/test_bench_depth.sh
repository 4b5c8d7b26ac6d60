#!/usr/bin/env bash
# agentctl bench depth: every figure is there and positive, in each form; odd lists are refused.
set -eu
ctl=$BIN/agentctl
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "FAIL: $*" >&2; exit 1; }
"$ctl" model make-random --quiet --size tiny --type q8_0 "$tmp/m.gguf" || fail "make-random"
mkdir "$tmp/work"
TMPDIR=$tmp/work "$ctl" bench depth "$tmp/m.gguf" --depths 200,64,1000 --runs 1 --prefill --json \
    --csv "$tmp/o.csv" --svg "$tmp/o.svg" >"$tmp/o.json" || fail "bench depth"
[ -z "$(ls "$tmp/work")" ] || fail "a snapshot was left: $(ls "$tmp/work")"
python3 - "$tmp" <<'PY' || fail "figures"
import csv, json, sys, xml.dom.minidom
tmp = sys.argv[1]
d = json.load(open(tmp + "/o.json"))
assert [w["way"] for w in d["ways"]] == ["sparse", "sparse, all f16", "dense"], d
for w in d["ways"]:
    assert [r["depth"] for r in w["rows"]] == [64, 200, 1000], w
    assert all(r["decode_tokens_per_s"] > 0 and r["prefill_tokens_per_s"] > 0 for r in w["rows"])
    assert w["rows"][0]["share_of_first"] == 1
    assert all(r["cpu_seconds_per_token"] > 0 for r in w["rows"])
s = d["snapshot"]
assert s["depth"] == 1000 and s["bytes"] >= s["file_bytes"] * 0.9 > 0, s
assert s["save_seconds"] > 0 and s["load_seconds"] > 0 and s["fork_seconds"] > 0, s
rows = list(csv.DictReader(open(tmp + "/o.csv", newline="")))
assert len(rows) == 9 and float(rows[8]["decode_tokens_per_s"]) > 0, rows
xml.dom.minidom.parse(tmp + "/o.svg")
PY
for bad in "" x 1,,2 0 1, -5 99999999; do
    rc=0
    "$ctl" bench depth "$tmp/m.gguf" --depths "$bad" >/dev/null 2>"$tmp/err" || rc=$?
    [ $rc = 2 ] && grep -q "not a list" "$tmp/err" || fail "--depths '$bad': exit $rc"
done
rc=0
"$ctl" bench depth "$tmp/m.gguf" --depths 1000000 --runs 1 --json >/dev/null 2>"$tmp/err" || rc=$?
[ $rc = 1 ] && grep -q "longer than the model's" "$tmp/err" || fail "too deep: $(cat "$tmp/err")"
"$ctl" bench depth "$tmp/m.gguf" --depths 100 --runs 1 2>/dev/null | grep -q "positions," || fail table
