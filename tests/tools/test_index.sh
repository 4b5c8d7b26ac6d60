#!/usr/bin/env bash
# agentctl index through its user's eyes.
set -eu
exec python3 "$SRC/tests/tools/index_test.py"
