#!/usr/bin/env bash
# Installs the Debian packages that the build and the tests need and this machine lacks; says nothing where all are there.
# Without root, sudo or apt-get it names them and lets the build try: PKG_CONFIG_PATH and CPATH may lead to copies elsewhere.
set -u
# package : how to see that it is there
table='
libopenblas-dev   package openblas
libcjson-dev      header cjson/cJSON.h
libpcre2-dev      header pcre2.h
libutf8proc-dev   header utf8proc.h
zlib1g-dev        header zlib.h
libssl-dev        header openssl/sha.h
libstb-dev        header stb/stb_ds.h
libcmocka-dev     header cmocka.h
libopenmpi-dev    command mpicc
openmpi-bin       command mpirun
gnuplot-nox       command gnuplot
pkg-config        command pkg-config
g++               command g++
'
missing=()
while read -r package kind what; do
    [ -n "$package" ] || continue
    case $kind in
        header) printf '#define PCRE2_CODE_UNIT_WIDTH 8\n#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>\n#include <%s>\n' "$what" |
                    gcc -E -x c - -I/usr/include/"$(gcc -dumpmachine 2>/dev/null)" >/dev/null 2>&1 || missing+=("$package") ;;
        package) pkg-config --exists "$what" 2>/dev/null || missing+=("$package") ;;   # cblas.h may be another library's
        command) command -v "$what" >/dev/null 2>&1 || missing+=("$package") ;;
    esac
done <<<"$table"
[ ${#missing[@]} -eq 0 ] && exit 0

if command -v apt-get >/dev/null 2>&1; then
    sudo=''
    if [ "$(id -u)" -ne 0 ]; then sudo=$(command -v sudo || true); fi
    if [ "$(id -u)" -eq 0 ] || [ -n "$sudo" ]; then
        echo "installing: ${missing[*]}"
        $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null && exit 0
        echo "apt-get could not install: ${missing[*]}" >&2
        exit 2
    fi
fi
echo "missing: ${missing[*]} (Debian's names); install them, or set PKG_CONFIG_PATH and CPATH to where they are" >&2
