#!/usr/bin/env bash
# agentctl eval: the shipped model plays a few held-out tasks through the daemon, the figures add
# up, a task is the same when played again, and what is missing is named.
set -eu
if ! command -v lua5.4 >/dev/null; then
    echo "skipped: the environments need the package lua5.4"
    exit 77
fi
if ! "$BIN/agentctl" sandbox run -- true >/dev/null 2>&1; then
    echo "skipped: this kernel does not let us make a sandbox"
    exit 77
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
model=$SRC/models/agentd-small.gguf
cd "$tmp" # from any folder
fail() { echo "FAILED: $*" >&2; exit 1; }

"$BIN/agentctl" eval "$model" --tasks 3 --seed 77 --json --out "$tmp/results" >"$tmp/json"
/usr/bin/python3 - "$tmp/json" "$tmp/results" <<'PY'
import json, sys
said = json.load(open(sys.argv[1]))
rows = [json.loads(line) for line in open(sys.argv[2])]
assert said["tasks"] == len(rows) == 12, said
assert [f["name"] for f in said["families"]] == ["python", "files", "documents", "session"]
assert said["passed"] + len(said["failures"]) == 12
assert sum(f["passed"] for f in said["families"]) == said["passed"]
assert said["passed"] >= 8, said["failures"]  # a model that can do next to nothing is not shipped
assert all(f["turns"][0]["request"] for f in said["failures"])
PY

# The same seed is the same tasks, and decoding is greedy.
"$BIN/agentctl" eval "$model" --tasks 2 --seed 77 --family files --json >"$tmp/again"
/usr/bin/python3 - "$tmp/again" "$tmp/results" <<'PY'
import json, sys
again = json.load(open(sys.argv[1]))
first = [json.loads(line) for line in open(sys.argv[2])]
passed = sum(r["pass"] for r in [r for r in first if r["family"] == 2][:2])
assert (again["tasks"], again["passed"]) == (2, passed), again
PY

expect() { # CODE 'TEXT' COMMAND...: the exit code, and words on standard error
    local code=$1 text=$2 rc=0
    shift 2
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || rc=$?
    [ $rc = "$code" ] || { cat "$tmp/err"; fail "$*: exit code $rc, not $code"; }
    grep -q -- "$text" "$tmp/err" || { cat "$tmp/err"; fail "$*: does not say '$text'"; }
}
expect 2 'argument is missing' "$BIN/agentctl" eval
expect 1 'cannot read the model' "$BIN/agentctl" eval /nowhere.gguf
expect 2 'there are 1 python' "$BIN/agentctl" eval "$model" --family 9
expect 2 'from 1 to' "$BIN/agentctl" eval "$model" --tasks 0
expect 2 'from 1 to' "$BIN/agentctl" eval "$model" --tasks -1
expect 2 'go from 0' "$BIN/agentctl" eval "$model" --require -1
expect 1 "begin with 'GGUF'" "$BIN/agentctl" eval "$SRC/README.md" --tasks 1
expect 1 'no eval.py' "$BIN/agentctl" eval "$model" --harness "$tmp"
expect 1 'package lua5.4' env PATH="$tmp" "$BIN/agentctl" eval "$model"
rc=0
"$BIN/agentctl" eval "$model" --tasks 1 --require 101 >/dev/null || rc=$?
[ $rc = 3 ] || fail "--require 101: exit code $rc, not 3"
