#!/usr/bin/env bash
# Real work under coding.yaml: compilers, git, python, node. See harness.py.
[ "$(uname -s)" = Linux ] || exit 77
exec /usr/bin/python3 "$(dirname "$0")/work.py"
