#!/usr/bin/env bash
# The native engine behind the loop: exact tokens, idle re-prefill, snapshots.
exec python3 "$SRC/tests/integration/native_test.py"
