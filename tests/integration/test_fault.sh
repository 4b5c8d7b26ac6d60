#!/usr/bin/env bash
# A disk that fails under the daemon.
exec python3 "$SRC/tests/integration/fault_test.py"
