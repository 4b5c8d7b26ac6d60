#!/usr/bin/env bash
# agentctl tool call, unconfined and in a cell.
set -eu
exec python3 "$SRC/tests/tools/call_test.py"
