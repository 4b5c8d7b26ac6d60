#!/usr/bin/env bash
# What a copy workspace lists, takes over and drops: see changes.py.
[ "$(uname -s)" = Linux ] || exit 77
exec /usr/bin/python3 "$(dirname "$0")/changes.py"
