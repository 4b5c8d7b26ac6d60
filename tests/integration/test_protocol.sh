#!/usr/bin/env bash
# The native protocol, well-behaved and hostile clients. DISCONNECTS=1000 for the long form.
exec python3 "$SRC/tests/integration/protocol_test.py"
