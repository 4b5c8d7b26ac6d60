#!/usr/bin/env bash
# Every key of a policy left out, misspelt, emptied: see policy_test.py.
[ "$(uname -s)" = Linux ] || exit 77
exec /usr/bin/python3 "$(dirname "$0")/policy_test.py"
