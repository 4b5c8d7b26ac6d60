#!/usr/bin/env bash
# 64 sessions with random cancels and reconnects. SOAK_SECONDS=600 for the long form.
exec python3 "$SRC/tests/integration/soak_test.py"
