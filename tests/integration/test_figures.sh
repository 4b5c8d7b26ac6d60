#!/usr/bin/env bash
# Start to READY, and what a step costs beyond model and tool.
exec python3 "$SRC/tests/integration/figures_test.py"
