#!/usr/bin/env bash
# T19, T21 to T28: network, system calls, privilege, limits. See harness.py. The numbers of
# system calls are those of x86-64.
[ "$(uname -sm)" = "Linux x86_64" ] || exit 77
exec /usr/bin/python3 "$(dirname "$0")/kernel.py"
