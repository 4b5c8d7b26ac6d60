#!/usr/bin/env bash
# T01 to T08: files, secrets, sockets by path, links, traps, set-id. See harness.py.
[ "$(uname -s)" = Linux ] || exit 77
exec /usr/bin/python3 "$(dirname "$0")/files.py"
