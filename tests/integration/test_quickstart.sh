#!/usr/bin/env bash
# ./quickstart and ./check before they build: each thing that is missing is named with its remedy,
# and nothing else happens. The programs that answer are stand-ins in a PATH of our own.
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
clone="$tmp/a clone" # with a blank in its path
mkdir -p "$clone" "$tmp/bin"
cp -r "$SRC/.ci" "$SRC/quickstart" "$SRC/check" "$clone"
for tool in bash sh dirname readlink sed date awk mktemp rm mkdir stat grep tr env flock cat tail; do
    ln -s "$(command -v $tool)" "$tmp/bin/$tool"
done
stub() { # NAME 'SHELL CODE'
    rm -f "$tmp/bin/$1"
    printf '#!/bin/sh\n%s\n' "$2" >"$tmp/bin/$1"
    chmod +x "$tmp/bin/$1"
}
healthy() {
    stub df 'printf "x\nx x x 9000000\n"'
    stub dpkg-query 'echo installed'
    stub id 'echo 1000'
    for tool in cc ninja pkg-config; do stub $tool 'exit 0'; done
    stub cmake 'echo "cmake was here"; exit 1'
    rm -f "$tmp/bin/sudo" "$tmp/bin/apt-get"
}
expect() { # CODE 'TEXT' COMMAND...
    local code=$1 text=$2 rc=0
    shift 2
    (cd / && PATH="$tmp/bin" TMPDIR="$tmp" "$@") >"$tmp/said" 2>&1 </dev/null || rc=$?
    if [ $rc != "$code" ] || ! grep -qF -- "$text" "$tmp/said"; then
        echo "FAILED: $* -> $rc, wanted $code and '$text'; it said:"
        cat "$tmp/said"
        exit 1
    fi
}

healthy
expect 1 'cmake was here' "$clone/quickstart" # all is there: the build begins
expect 1 'the build failed' "$clone/quickstart" what is 2 + 2
ln -s "$clone/quickstart" "$tmp/link"
expect 1 'the build failed' "$tmp/link"
expect 0 'usage: ./quickstart' "$clone/quickstart" --help
expect 2 "unknown option '--nope'" "$clone/quickstart" --nope
expect 0 'usage: ./check' "$clone/check" --help
expect 2 "no preset ''" "$clone/check" --preset

for who in quickstart check; do
    healthy
    stub df 'printf "x\nx x x 200000\n"'
    expect 1 "$who: $clone has 195 MB free" "$clone/$who"
    healthy
    stub dpkg-query 'case "$*" in *libedit-dev*) exit 1 ;; esac; echo installed'
    expect 1 'apt-get install -y libedit-dev' "$clone/$who" # no sudo: what root is to run
    stub sudo 'exec "$@"'
    stub apt-get 'echo "E: the mirror is asleep"; exit 100'
    expect 1 'the mirror is asleep' "$clone/$who"
    expect 1 'apt-get could not install them' "$clone/$who"
    healthy
    rm "$tmp/bin/cc"
    expect 1 'there is no cc in PATH; the package build-essential has it' "$clone/$who"
    healthy
    rm "$tmp/bin/dpkg-query"
    expect 1 'This system has no dpkg. The build needs the equivalents of' "$clone/$who"
done

healthy
stub mktemp 'exit 1'
expect 1 'set TMPDIR' "$clone/quickstart"
rm "$tmp/bin/mktemp"
ln -s "$(command -v mktemp)" "$tmp/bin/mktemp"

# A build that names another folder is thrown away.
mkdir -p "$clone/build/release"
echo 'CMAKE_HOME_DIRECTORY:INTERNAL=/somewhere/else' >"$clone/build/release/CMakeCache.txt"
expect 1 'this clone was moved; building anew' "$clone/quickstart"
[ ! -e "$clone/build/release/CMakeCache.txt" ]

# A kernel that cannot confine: no turn in which every tool would be refused, unless told so.
stub cmake 'exit 0'
mkdir -p "$clone/build/release/bin"
printf '#!/bin/sh\n[ "$1" = sandbox ] && { echo "agentctl: no user namespaces" >&2; exit 1; }\n%s\n' \
    'echo "turn: $*"' >"$clone/build/release/bin/agentctl"
chmod +x "$clone/build/release/bin/agentctl"
expect 1 'this kernel cannot confine tools, so none will run' "$clone/quickstart"
expect 1 'no user namespaces' "$clone/quickstart"
expect 0 '--sandbox off -- how many?' "$clone/quickstart" --yes-without-sandbox how 'many?'
