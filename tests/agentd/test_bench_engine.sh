#!/usr/bin/env bash
# agentctl model make-random and bench engine: the same seed gives the same file, architectures
# share tensors, nothing half under the final name; every figure is there and positive.
set -eu
ctl=$BIN/agentctl
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
fail() { echo "FAIL: $*" >&2; exit 1; }
make() { "$ctl" model make-random --quiet --size tiny "$@" || fail "make-random $*"; }

make --type q8_0 "$tmp/a.gguf"
make --type q8_0 "$tmp/b.gguf"
make --type q8_0 --seed 2 "$tmp/c.gguf"
cmp "$tmp/a.gguf" "$tmp/b.gguf" || fail "the same seed gives other bytes"
! cmp -s <(tail -c 65536 "$tmp/a.gguf") <(tail -c 65536 "$tmp/c.gguf") ||
    fail "another seed gives the same weights"
[ ! -e "$tmp/a.gguf.partial" ] || fail "a partial file is left"
"$ctl" model info --check --json "$tmp/a.gguf" >"$tmp/info.json" || fail "model info"

# Without what the indexer picks, the sparse model is the dense one: its weights agree.
make --arch deepseek2 --type f32 "$tmp/dense.gguf"
make --arch deepseek32 --type f32 "$tmp/v32.gguf"
make --arch glm-dsa --type q4_k "$tmp/glm.gguf"
tok=5,9,900,33,2047,0,17
for m in dense v32; do
    "$ctl" model logits "$tmp/$m.gguf" --tokens $tok --raw "$tmp/$m.raw" >/dev/null
done
cmp "$tmp/dense.raw" "$tmp/v32.raw" || fail "architectures do not share their weights"
"$ctl" model logits "$tmp/glm.gguf" --tokens $tok >/dev/null || fail "glm-dsa does not run"

# Interrupted: only the partial file is there, and the same command completes it.
head -c 1000000 "$tmp/a.gguf" >"$tmp/d.gguf.partial"
make --type q8_0 "$tmp/d.gguf"
cmp "$tmp/a.gguf" "$tmp/d.gguf" || fail "a continued file differs"

# A peer that says what it was asked, in llama-bench's words: rates come from its JSON alone.
cat >"$tmp/peer" <<'SH'
#!/usr/bin/env bash
echo "$*" >>"$0.log"
[ ! -e "$0.mute" ] || { echo '[]'; exit 0; }
[ ! -e "$0.fail" ] || exit 3
echo '[{"build_commit": "abc", "n_prompt": 512, "n_gen": 0, "avg_ts": 2.5},
       {"build_commit": "abc", "n_prompt": 0, "n_gen": 32, "avg_ts": 0.5}]'
SH
chmod +x "$tmp/peer"
"$ctl" bench engine "$tmp/a.gguf" --depths 0,64 --runs 1 --json --csv "$tmp/o.csv" \
    --svg "$tmp/o.svg" --sessions 3 --vs "$tmp/peer" >"$tmp/bench.json" || fail "bench engine"
threads=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["threads"])' \
    "$tmp/bench.json")
printf -- "-m $tmp/a.gguf -p 512 -n 32 -d %s -t $threads -r 1 -o json\n" 0 64 |
    cmp - "$tmp/peer.log" || fail "the peer was asked: $(cat "$tmp/peer.log")"
python3 - "$tmp" <<'PY' || fail "figures"
import csv, json, sys, xml.dom.minidom
tmp = sys.argv[1]
i = json.load(open(tmp + "/info.json"))
assert i["arch"] == "deepseek32" and i["numbers"]["index_topk"] == 64, i
assert 5.1e6 < i["parameters"]["total"] < 5.3e6, i["parameters"]
assert 3.4e6 < i["parameters"]["active"] < 3.6e6, i["parameters"]
d = json.load(open(tmp + "/bench.json"))
assert d["weight_bytes_per_token"] == i["bytes_per_token"]["total"]
assert d["cpu"] and d["version"] and d["threads"] > 0 and d["runs"] == 1
assert d["memory_bytes_per_s"] > 0
assert [r["depth"] for r in d["rows"]] == [0, 64]
for r in d["rows"]:
    assert all(v > 0 for k, v in r.items() if k != "depth"), r
    # Weights, and at the middle of 32 tokens the cache of a quantised model: latents of two
    # bytes, index keys of one with a scale each; pages of 64 positions are whole ones of 4096.
    pos = r["depth"] + 16
    cache = 3 * 2 * 576 * min(pos, 64) + (3 * 132 * pos if pos > 64 else 0)
    more = r["bytes_per_token"] - d["weight_bytes_per_token"] - cache
    assert 0 <= more <= (4096 / 64 * pos if pos > 64 else 0), r
    assert abs(r["roofline_tokens_per_s"] * r["bytes_per_token"] / d["memory_bytes_per_s"] - 1) < 1e-9
    assert abs(r["prefill_ratio"] * 2.5 / r["prefill_tokens_per_s"] - 1) < 1e-9, r
    assert abs(r["decode_ratio"] * 0.5 / r["decode_tokens_per_s"] - 1) < 1e-9, r
    share = r["prefill_tokens_per_s"] * d["prefill_macs_per_token"] / d["int8_macs_per_s"]
    assert abs(r["prefill_int8_share"] / share - 1) < 1e-9, r
    assert abs(r["together_tokens_per_s"] / r["decode_tokens_per_s"] / r["together_ratio"] - 1) < 1e-9
assert d["sessions"] == 3 and d["peer_commit"] == "abc" and d["commit"], d
assert d["prefill_macs_per_token"] == i["parameters"]["active"] - 2048 * 256, d
rows = list(csv.DictReader(open(tmp + "/o.csv", newline="")))
assert [int(r["depth"]) for r in rows] == [0, 64] and float(rows[1]["decode_tokens_per_s"]) > 0
assert xml.dom.minidom.parse(tmp + "/o.svg").getElementsByTagName("polyline").length == 5
assert float(rows[1]["peer_decode_tokens_per_s"]) == 0.5 and rows[1]["peer_commit"] == "abc"
PY

# A processor without fast instructions works, and is told apart. Same bits whatever multiplies.
AGENTD_KERNEL=ref "$ctl" bench engine "$tmp/a.gguf" --depths 0 --runs 1 --json |
    grep -q '"kernels": "ref"' || fail "kernels are not named"
AGENTD_KERNEL=ref "$ctl" doctor >"$tmp/doctor" 2>&1 || true
grep -q 'plain C (ref)' "$tmp/doctor" || fail "doctor says nothing of plain kernels"

# Refusals.
refuse() { # EXIT TEXT ARGS...
    local want=$1 text=$2 code=0; shift 2
    "$ctl" "$@" >/dev/null 2>"$tmp/err" || code=$?
    [ "$code" = "$want" ] && grep -q -- "$text" "$tmp/err" || fail "$*: $code, $(cat "$tmp/err")"
}
refuse 1 "size 'huge'" model make-random --size huge "$tmp/x.gguf"
refuse 1 "architecture 'llama'" model make-random --arch llama "$tmp/x.gguf"
refuse 1 "type 'q9'" model make-random --type q9 "$tmp/x.gguf"
refuse 2 "depths" bench engine --depths 0,x "$tmp/a.gguf"
refuse 2 "depths" bench engine --depths -1 "$tmp/a.gguf"
refuse 2 "runs" bench engine --runs 0 "$tmp/a.gguf"
refuse 1 "163840" bench engine --depths 163840 "$tmp/a.gguf"
refuse 1 "nowhere" bench engine "$tmp/nowhere"
refuse 2 "sessions" bench engine --sessions 65 "$tmp/a.gguf"
refuse 1 "no such peer" bench engine --runs 1 --depths 0 --vs "$tmp/no such peer" "$tmp/a.gguf"
touch "$tmp/peer.mute"
refuse 1 "no prefill and decode rate" bench engine --runs 1 --depths 0 --vs "$tmp/peer" "$tmp/a.gguf"
rm "$tmp/peer.mute"; touch "$tmp/peer.fail"
refuse 1 "status 3" bench engine --runs 1 --depths 0 --vs "$tmp/peer" "$tmp/a.gguf"
[ ! -e "$tmp/x.gguf" ] || fail "a refused model left a file"
