#!/usr/bin/env bash
# Kill-anywhere matrix: a row for each named point.
exec python3 "$SRC/tests/integration/crash_test.py"
