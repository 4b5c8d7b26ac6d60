#!/usr/bin/env bash
# T29 to T34: the interpreter, start-up files, other sessions, leftovers, weak hosts. See harness.py.
# AGENTD_CELLS=1000 makes the leak check as long as the release demands.
[ "$(uname -s)" = Linux ] || exit 77
exec /usr/bin/python3 "$(dirname "$0")/session.py"
