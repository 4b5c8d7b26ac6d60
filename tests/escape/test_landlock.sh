#!/bin/sh
# Level landlock, on a host that is made weak: see landlock.py.
exec /usr/bin/python3 "$SRC/tests/escape/landlock.py"
