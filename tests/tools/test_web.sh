#!/usr/bin/env bash
# search and open against a server on the loopback.
set -eu
exec python3 "$SRC/tests/tools/web_test.py"
