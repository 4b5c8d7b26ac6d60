#!/usr/bin/env bash
# The house rules hold in the tree, and the checker itself sees a planted fault of each kind.
set -eu
python3 "$SRC/tests/lint/lint.py" "$SRC"

bad=$(mktemp -d)
trap 'rm -rf "$bad"' EXIT
mkdir -p "$bad/engine"
{
    echo '/* planted.c - every fault once. */'
    echo '#include <uv.h>'
    echo '#include "agentd/ev.h"'
    echo 'void f(void)'
    echo '{'
    for _ in $(seq 101); do echo '    ;'; done
    echo '    strcpy(a, b); free(malloc(1)); /* TODO */'
    echo '}'
} > "$bad/engine/planted.c"
out=$(python3 "$SRC/tests/lint/lint.py" "$bad" || true)
for want in 'uv.h> belongs' 'may not include agentd' 'function of' 'strcpy' 'base/mem.h' 'promise'; do
    grep -q "$want" <<<"$out" || { echo "lint is blind to: $want"; exit 1; }
done
