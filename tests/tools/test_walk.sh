#!/usr/bin/env bash
# Every tool through a real daemon, well and badly called.
set -eu
exec python3 "$SRC/tests/tools/walk_test.py"
