#!/usr/bin/env bash
# README's two commands, `make demo` and `make test`, on the systems that people have: each is made by debootstrap in a
# folder of its own and gets a clean clone of HEAD. As root, which installs the packages; as a user without sudo, who
# has them; and with further compilers, warnings being errors. Prints a table in Markdown; status 1 where anything
# failed.
#   distributions.sh [--dir DIR] [--keep] [--again] [--ccache] [--out FILE] [CASE…]
# CASE is SYSTEM, SYSTEM:USER or SYSTEM:USER:COMPILER with patterns: debian12, '*:user', 'debian13:user:clang*'. All of
# them without one. SYSTEM debian11 debian12 debian13 sid ubuntu22.04 ubuntu24.04; USER root user; COMPILER default
# gcc-13 clang-19 …
#   --dir DIR   the folder (default: a temporary one). Results in DIR/results are taken as they are unless --again: a
#               run
#               that was interrupted continues there, and later runs add to the table.
#   --keep      the systems stay in DIR for the next run (default: each is removed after its last case)
#   --only demo|test   one of the two commands
#   --ccache    compile through ccache with a cache in DIR: for trying, not for what is published
#   --out FILE  the table goes to FILE as well
# Needs root, debootstrap and git; for Ubuntu its keyring (Debian 13's ubuntu-archive-keyring, or $UBUNTU_KEYRING a
# file).
# Mirrors: $DEBIAN_MIRROR and $UBUNTU_MIRROR, else this machine's own, else debootstrap's.
# Every mount is in a mount namespace of its own and every process in a process namespace: none outlives its case,
# however it ends, and the folder can be removed at any time.
set -u
cd "$(dirname "$0")/../.." || exit 2
die() { echo "distributions.sh: $*" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || die "debootstrap needs root"
for program in debootstrap git unshare chroot; do
    command -v $program >/dev/null || die "$program is not installed"
done

dir='' keep='' again='' ccache='' out='' commands='demo test' cases=()
while [ $# -gt 0 ]; do
    case $1 in
        --dir) dir=${2:?}; shift ;;
        --keep) keep=1 ;;
        --only) commands=${2:?}; shift ;;
        --again) again=1 ;;
        --ccache) ccache=1 ;;
        --out) out=${2:?}; shift ;;
        -*) die "unknown option $1" ;;
        *) cases+=("$1") ;;
    esac
    shift
done
# The name here, debootstrap's name, the keyring's package, and the compilers besides the default one. debian11 has
# gcc-10 alone.
systems='
debian12    bookworm debian-archive-keyring  gcc-11 clang-14 clang-16 clang-19
debian13    trixie   debian-archive-keyring  gcc-12 gcc-13 clang-17 clang-19 clang-22
debian11    bullseye debian-archive-keyring
sid         sid      debian-archive-keyring
ubuntu22.04 jammy    ubuntu-archive-keyring
ubuntu24.04 noble    ubuntu-archive-keyring
'
limit=${LIMIT:-7200}  # seconds a command
work=${dir:-$(mktemp -d)}
mkdir -p "$work/results" || die "$work cannot be made"
work=$(cd "$work" && pwd)
commit=$(git rev-parse --short HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] ||
    echo "note: HEAD ($commit) is tried, not what is changed since" >&2
clean_up() { if [ -z "$dir" ]; then rm -rf --one-file-system "$work"; fi; }
trap clean_up EXIT
running=
# A command and all its processes are a group of their own, timeout's. KILL, since unshare takes no other signal.
trap '[ -z "$running" ] || { kill -KILL -- "-$running"; wait "$running"; }; exit 130' INT TERM

wanted() {  # SYSTEM USER COMPILER
    local pattern
    [ ${#cases[@]} -eq 0 ] && return 0
    for pattern in "${cases[@]}"; do
        while [[ $pattern != *:*:* ]]; do pattern+=':*'; done
        # shellcheck disable=SC2053  # patterns are meant
        [[ $1:$2:$3 == $pattern ]] && return 0
    done
    return 1
}

host_mirror() {  # WORD: the first mirror with WORD in it that this machine's apt uses
    cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -vE '^[[:space:]]*#' |
        grep -oE "https?://[^ ]*/$1/?( |\$)" | head -1
}

make_system() {  # NAME SUITE KEYRING
    local root=$work/$1 mirror official recipe keyring=/usr/share/keyrings/$3.gpg
    [ -e "$root/made" ] && return 0
    rm -rf --one-file-system "$root"
    case $1 in
        ubuntu*)
            keyring=${UBUNTU_KEYRING:-$keyring} official=http://archive.ubuntu.com/ubuntu \
                mirror=${UBUNTU_MIRROR:-$(host_mirror ubuntu)} ;;
        *) official=http://deb.debian.org/debian mirror=${DEBIAN_MIRROR:-$(host_mirror debian)} ;;
    esac
    [ -e "$keyring" ] || { echo "the package $3 is needed" >&2; return 1; }
    # An older debootstrap has no name for a newer suite, but the recipe is the same.
    recipe=/usr/share/debootstrap/scripts/$2
    [ -e "$recipe" ] || case $1 in ubuntu*) recipe=${recipe%/*}/jammy ;; *) recipe=${recipe%/*}/sid ;; esac
    debootstrap --variant=minbase --include=ca-certificates --keyring="$keyring" "$2" "$root" \
        "${mirror:-$official}" "$recipe" >"$work/results/$1.debootstrap.log" 2>&1 || return 1
    case $1 in ubuntu*) sed -i 's/ main$/ main universe/' "$root/etc/apt/sources.list" ;; esac
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    cp /etc/apt/apt.conf.d/*proxy* "$root/etc/apt/apt.conf.d/" 2>/dev/null
    printf 'APT::Install-Recommends "false";\n' >"$root/etc/apt/apt.conf.d/90small"
    # a mirror may be one of a past day
    printf 'Acquire::Check-Valid-Until "false";\n' >"$root/etc/apt/apt.conf.d/91frozen"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" && chmod +x "$root/usr/sbin/policy-rc.d"
    inside "$1" root / "apt-get update -qq && apt-get install -y -qq make && useradd -m -s /bin/bash user" \
        >>"$work/results/$1.debootstrap.log" 2>&1 && touch "$root/made"
}

# As that user, with a login's environment. The shell stays for `exit`: it is the first process of its namespace and
# takes orphans in, over which make 4.3 loops for ever in its place.
inside() {  # SYSTEM USER FOLDER COMMAND
    local root=$work/$1 user=$2 folder=$3 command=$4
    unshare --mount --pid --fork --kill-child bash -c '
        root=$1 user=$2 folder=$3 command=$4 ccache=$5
        mount --make-rprivate / && mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
            mount --rbind /sys "$root/sys" && mount -t tmpfs -o mode=1777 tmpfs "$root/tmp" || exit 2
        if [ -n "$ccache" ]; then
            mkdir -p "$root/ccache" "$ccache" && chmod 1777 "$ccache" && mount --bind "$ccache" "$root/ccache"
        fi
        home=/root; [ "$user" = root ] || home=/home/$user
        path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        settings=
        if [ -n "$ccache" ]; then
            path=/usr/lib/ccache:$path settings="CCACHE_DIR=/ccache CCACHE_UMASK=000 CCACHE_NOHASHDIR=1"
            settings="$settings CCACHE_COMPILERCHECK=content"
        fi
        as=; [ "$user" = root ] || as="setpriv --reuid=$user --regid=$user --clear-groups"
        exec chroot "$root" env -i HOME=$home USER=$user PATH=$path LANG=C.UTF-8 $settings $as \
            bash -c "cd $folder && $command; exit \$?"
    ' inside "$root" "$user" "$folder" "$command" "${ccache:+$work/ccache}"
}

# One command of a case. DIR/results/CASE.COMMAND.log, and .cell: what the table says of it.
attempt() {  # CASE SYSTEM USER FOLDER COMMAND SETTINGS
    local base=$work/results/$1.$5 began=$SECONDS status summary took result
    timeout --signal=KILL "$limit" bash -c "$(declare -f inside); $(declare -p work ccache); inside \"\$@\"" inside \
        "$2" "$3" "$4" "make $6 $5" >"$base.log" 2>&1 </dev/null &
    running=$!
    wait $running; status=$?
    running=
    summary=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$base.log" | tail -1)
    took=$(printf '%d:%02d' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)))
    if [ $status -eq 124 ] || [ $status -eq 137 ]; then result="**no end within $took**"
    elif [ $status -ne 0 ]; then result="**${summary:-status $status}**, $took"
    else result="${summary:-works}, $took"; fi
    echo "$result, $(grep -c 'warning:' "$base.log") warnings ($commit)" >"$base.cell"
    echo "$1: make ${6:+$6 }$5: $(cat "$base.cell")"
    return $status
}

case_done() {
    local command
    [ -z "$again" ] && for command in $commands; do [ -e "$work/results/$1.$command.cell" ] || return 1; done
}

run_case() {  # SYSTEM USER COMPILER
    local name=$1.$2.$3 user=$2 cc=gcc cxx=g++ settings='' home=/root command good=0
    [ "$user" = root ] || home=/home/$user
    if [ "$3" != default ]; then
        cc=$3 cxx=${3/gcc/g++}; cxx=${cxx/clang/clang++}
        settings="CC=$cc CXX=$cxx WERROR=1"
        inside "$1" root / "apt-get install -y -qq $cc $([[ $cc == gcc* ]] && echo "$cxx")" \
            >"$work/results/$name.install.log" 2>&1 || {
            echo "$1: $3 cannot be installed" >&2; return 1
        }
    fi
    [ -z "$ccache" ] || inside "$1" root / "apt-get install -y -qq ccache" >/dev/null 2>&1
    rm -rf --one-file-system "$work/$1$home/seal"
    git clone -q --no-hardlinks . "$work/$1$home/seal" && git -C "$work/$1$home/seal" checkout -q "$commit" || return 1
    if [ "$user" != root ]; then  # the packages, by that machine's root
        inside "$1" root "$home/seal" "dev/deps.sh && chown -R $user:$user ." >"$work/results/$name.deps.log" 2>&1 ||
            return 1
    fi
    for command in $commands; do
        [ -z "$again" ] && [ -e "$work/results/$name.$command.cell" ] && continue
        attempt "$name" "$1" "$user" "$home/seal" "$command" "$settings" || good=1
    done
    inside "$1" root / "{ $cc --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -1
        make --version | sed -n '1s/.* //p'
        pkg-config --modversion libpcre2-8
        grep -hE 'UTF8PROC_VERSION_(MAJOR|MINOR) [0-9]' /usr/include/utf8proc.h | grep -oE '[0-9]+$' | paste -sd.
        mpirun --version | sed -n '1s/.* //p'; } 2>/dev/null | paste -sd' '" >"$work/results/$name.versions"
    rm -rf --one-file-system "$work/$1$home/seal"
    return $good
}

header='| system | user | compiler | make | PCRE2 | utf8proc | Open MPI | `make demo` | `make test` |
|---|---|---|---|---|---|---|---|---|'
status=0
while read -r name suite keyring compilers; do
    [ -n "$name" ] || continue
    todo=()
    for spec in root:default user:default $(printf 'user:%s ' $compilers); do
        user=${spec%%:*} compiler=${spec#*:}
        [ "$spec" = user: ] && continue
        wanted "$name" "$user" "$compiler" || continue
        case_done "$name.$user.$compiler" && continue
        todo+=("$spec")
    done
    [ ${#todo[@]} -gt 0 ] || continue
    if ! make_system "$name" "$suite" "$keyring"; then
        echo "$name: the system could not be made: $(tail -1 "$work/results/$name.debootstrap.log" 2>/dev/null)" >&2
        status=1
        continue
    fi
    for spec in "${todo[@]}"; do run_case "$name" "${spec%%:*}" "${spec#*:}" || status=1; done
    [ -n "$keep" ] || rm -rf --one-file-system "${work:?}/$name"
done <<<"$systems"

cell() { cat "$work/results/$1.cell" 2>/dev/null || echo "not tried"; }
table() {
    local name user file compiler version make pcre2 utf8proc mpi
    echo "$header"
    while read -r name _; do
        [ -n "$name" ] || continue
        for user in root user; do
            for file in "$work/results/$name.$user."*.versions; do
                [ -e "$file" ] || continue
                compiler=${file#"$work/results/$name.$user."} compiler=${compiler%.versions}
                read -r version make pcre2 utf8proc mpi <"$file"
                [ "$compiler" = default ] && compiler=gcc
                file=$(basename "${file%.versions}")
                echo "| $name | $user | ${compiler%-*} $version | $make | $pcre2 | $utf8proc | $mpi |" \
                    "$(cell "$file.demo") | $(cell "$file.test") |"
            done
        done
    done < <(sort <<<"$systems")
}
echo
table
[ -z "$out" ] || table >"$out"
exit $status
