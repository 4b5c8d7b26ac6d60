#!/usr/bin/env bash
# Tool calls in a kept session, through the real daemon.
exec python3 "$SRC/tests/integration/toolcall_test.py"
