#!/usr/bin/env bash
# The tools as they run inside a cell, driven over their line protocol.
set -eu
exec python3 "$SRC/tests/tools/serve_test.py"
