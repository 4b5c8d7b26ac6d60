#!/usr/bin/env bash
# T09 to T18: processes outside, outliving a call, bombs, floods. See harness.py.
[ "$(uname -s)" = Linux ] || exit 77
exec /usr/bin/python3 "$(dirname "$0")/processes.py"
