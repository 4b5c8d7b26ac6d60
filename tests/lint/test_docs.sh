#!/usr/bin/env bash
# The documents name what there is: every command in the man page, every linked file, no more.
set -u
failed=0
page=$SRC/docs/man/agentctl.1.scd
commands=$("$BIN/agentctl" --help | sed -n '/^commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p')
[ "$(wc -w <<<"$commands")" -gt 10 ] || { echo "no commands found in --help"; failed=1; }
for c in $commands; do
    grep -q -E "^\*$c[ *]|, \*$c\*" "$page" || { echo "agentctl.1 does not name '$c'"; failed=1; }
done
for c in $(grep -o -E '^\*[a-z]+' "$page" | tr -d '*' | grep -v -x -E 'agentctl|agentd'); do
    grep -q -x "$c" <<<"$commands" || { echo "agentctl.1 names '$c', which does not exist"; failed=1; }
done
for f in $(grep -o -h -E '\]\([^)#:]+\)' "$SRC"/*.md "$SRC"/models/*.md "$SRC"/train/*.md | tr -d '])('); do
    [ -e "$SRC/$f" ] || [ -e "$SRC/models/$f" ] || [ -e "$SRC/train/$f" ] ||
        { echo "a link to $f leads nowhere"; failed=1; }
done
for page in "$SRC"/docs/man/*.scd; do
    ! command -v scdoc >/dev/null || scdoc <"$page" >/dev/null || { echo "$page does not build"; failed=1; }
done
exit $failed
