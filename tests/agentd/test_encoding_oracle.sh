#!/usr/bin/env bash
# The encoder and the strict parser against a second reading of the format, on random input.
set -u
exec python3 "$SRC/tests/agentd/encoding_oracle.py" "$BIN/agentctl" "${ORACLE_COUNT:-1500}"
