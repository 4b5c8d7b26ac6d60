#!/usr/bin/env bash
# T20: the proxy, with a real server on loopback. See harness.py.
[ "$(uname -s)" = Linux ] || exit 77
exec /usr/bin/python3 "$(dirname "$0")/network.py"
