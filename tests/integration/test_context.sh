#!/usr/bin/env bash
# A turn in all its ends, through the real socket.
exec python3 "$SRC/tests/integration/context_test.py"
