#!/usr/bin/env bash
# The remote engine against a real HTTP server on loopback.
exec python3 "$SRC/tests/integration/remote_test.py"
