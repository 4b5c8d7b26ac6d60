#!/usr/bin/env bash
# The oracles' words, played through the real daemon by its scripted engine, get byte for byte
# the results that training data holds, and pass their verifiers: eval.py's way, end to end.
set -eu
py=/usr/bin/python3
if ! command -v lua5.4 >/dev/null; then
    echo "skipped: the environments need the package lua5.4"
    exit 77
fi
if ! "$BIN/agentctl" sandbox run -- true >/dev/null 2>&1; then
    echo "skipped: this kernel does not let us make a sandbox"
    exit 77
fi
export PYTHONDONTWRITEBYTECODE=1
"$py" "$SRC/train/check.py" daemon --bin "$BIN" --count 3
