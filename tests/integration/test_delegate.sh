#!/usr/bin/env bash
# Sub-agents, tools of the client, and other parameters of a session, through the real socket.
exec python3 "$SRC/tests/integration/delegate_test.py"
