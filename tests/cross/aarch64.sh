#!/usr/bin/env bash
# Builds agentd for aarch64 on another machine and runs there, under emulation, the tests that
# emulation allows: kernels against their plain twins, the golden model, parsers, the store. What
# needs namespaces or seccomp wants a real machine (the filter for aarch64 is compiled and tried
# rule by rule on any machine, by sandbox/test_seccomp). Needs Debian, these packages
#
#   gcc-aarch64-linux-gnu qemu-user-static
#
# and apt's lists; makes build/aarch64-root (a tree of arm64 libraries, no root needed) and
# build/aarch64. usage: tests/cross/aarch64.sh [TEST...]
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
root=$top/build/aarch64-root
for tool in aarch64-linux-gnu-gcc qemu-aarch64-static dpkg-deb; do
    command -v "$tool" >/dev/null || { echo "no $tool: apt-get install gcc-aarch64-linux-gnu qemu-user-static" >&2; exit 2; }
done

libraries() { # the -dev packages that the build names, for arm64, unpacked
    local apt=$root.apt
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    : >"$apt/status"
    local as=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$apt"
        -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" -o Debug::NoLocking=1)
    apt-get "${as[@]}" update -q
    # shellcheck disable=SC2046
    apt-get "${as[@]}" install -y -q --download-only --no-install-recommends libc6-dev gcc \
        $(sed '/^#/d' "$top/.ci/packages" | tr ' ' '\n' | grep -e '^lib.*-dev$')
    mkdir -p "$root.new/usr/lib" "$root.new/usr/bin" "$root.new/usr/sbin"
    for dir in lib bin sbin; do ln -s "usr/$dir" "$root.new/$dir"; done
    for deb in "$apt"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root.new" --keep-directory-symlink
    done
    mv "$root.new" "$root"
}
[ -d "$root" ] || libraries

cat >"$root.cmake" <<END
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_SYSROOT $root)
set(CMAKE_FIND_ROOT_PATH $root)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-aarch64-static;-L;$root")
set(ENV{PKG_CONFIG_LIBDIR} $root/usr/lib/aarch64-linux-gnu/pkgconfig:$root/usr/share/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} $root)
END
cd "$top"
cmake -G Ninja -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE="$root.cmake" -DCMAKE_BUILD_TYPE=None \
    -DAGENTD_WERROR=ON >/dev/null
cmake --build build/aarch64

[ $# -gt 0 ] || set -- base_test_base engine_test_kernel engine_test_attn engine_test_quant \
    engine_test_pool engine_test_gguf engine_test_safetensors engine_test_sampler \
    engine_test_forward sandbox_test_plan agentd_test_store agentd_test_dsml
failed=0
for test in "$@"; do
    if SRC=$top BIN=$top/build/aarch64/bin BUILD=$top/build/aarch64 \
        qemu-aarch64-static -cpu max -L "$root" "build/aarch64/tests/$test" >"$root.log" 2>&1; then
        echo "ok   $test"
    else
        echo "FAIL $test"; tail -20 "$root.log"; failed=1
    fi
done
exit $failed
