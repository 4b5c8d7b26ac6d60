#!/usr/bin/env bash
# Calls of one block that only read, side by side.
exec python3 "$SRC/tests/integration/parallel_test.py"
