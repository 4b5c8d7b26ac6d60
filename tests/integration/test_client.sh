#!/usr/bin/env bash
# agentctl as people and scripts use it, against a real daemon.
exec python3 "$SRC/tests/integration/client_test.py"
