#!/usr/bin/env bash
# Every threat has an attack with a control, and the documentation says which. See threats.py.
[ "$(uname -s)" = Linux ] || exit 77
exec /usr/bin/python3 "$(dirname "$0")/threats.py"
