#!/usr/bin/env bash
# search, open, find and the local index.
set -eu
exec python3 "$SRC/tests/tools/search_test.py"
