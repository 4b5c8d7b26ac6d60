#!/usr/bin/env bash
# The log under bad conditions; configuration; the service manager.
exec python3 "$SRC/tests/integration/store_test.py"
