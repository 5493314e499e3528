#!/usr/bin/env bash
# What the build and the tests need beyond a POSIX system: one table, which the Makefile's list, its stop before
# compiling and `make deps` are read from.
#   deps.sh                    installs the Debian packages that are missing (apt-get, as root or through sudo); says
#                              nothing
#                              where all are there. INSTALL=no, or no root, sudo or apt-get: names them instead.
#   deps.sh --list             a tick or a cross for each row
#   deps.sh --has NAME         status 0 where the table's NAME is there
#   deps.sh --need USE…        nothing where all that USE needs is there; else one block that names all of it, and
#                              status 2
# USE: build (every program), cpu (the CPU build), fast (the same with AVX-512), tests, ranks (several processes),
# pictures. Only what `make` was asked for stops it. CC, CXX, PKG_CONFIG, PKG_CONFIG_PATH, CPATH, LIBRARY_PATH are the
# build's own.
set -u
CC=${CC:-gcc} CXX=${CXX:-g++} PKG_CONFIG=${PKG_CONFIG:-pkg-config}
# Each probe can be asked alone, also for a thing that does not exist: dev/test/test_probes.sh.
probe_program() { command -v "${1%% *}" >/dev/null 2>&1; }
# a compiler that adds flags of its own, which the Makefile asks it for
probe_flags() { [ -n "$("$1" -show 2>/dev/null)" ]; }
# `-include` and not a line on stdin: the names of headers must not pass through the quoting of two languages.
preludes='-DPCRE2_CODE_UNIT_WIDTH=8 -include stdarg.h -include stddef.h -include stdint.h -include setjmp.h'
probe_header() { $prober -E -x c $preludes -include "$1" /dev/null >/dev/null 2>&1; }
# By pkg-config where that knows it, and either way by compiling against the header and linking: the flags are the
# Makefile's.
probe_library() {
    local name=${1%:*} least=${1#*:} header=$2 flags=$3 condition=${4:-1} cflags=
    if $PKG_CONFIG --exists "$name" 2>/dev/null; then
        # (utf8proc's file for pkg-config has other numbers than the library: 2.5.0 calls itself 2.3.2. Its header is
        # right.)
        [ "$condition" != 1 ] || $PKG_CONFIG --atleast-version="$least" "$name" || {
            found="found $($PKG_CONFIG --modversion "$name")"; return 1
        }
        cflags=$($PKG_CONFIG --cflags "$name") flags=$($PKG_CONFIG --libs "$name")
    fi
    echo "_Static_assert($condition, \"\"); int main(void) { return 0; }" >"$scratch/probe.c"
    $prober $cflags $preludes -include "$header" -c "$scratch/probe.c" -o "$scratch/probe.o" >/dev/null 2>&1 || return 1
    # By the compiler that links the programs: a library in C++ may need a newer libstdc++ than an older compiler has.
    $linker "$scratch/probe.o" -o "$scratch/probe" $flags >/dev/null 2>&1 && return 0
    found="it does not link with $linker"
    return 1
}
# Where the compiler itself is missing another one finds the libraries, and where there is none their files do.
prober=
for compiler in "$CC" gcc cc clang; do probe_program "$compiler" && { prober=$compiler; break; }; done
linker=$prober
probe_program "$CXX" && linker=$CXX
if [ -z "$prober" ]; then
    probe_header() { compgen -G "/usr/include/$1" >/dev/null || compgen -G "/usr/include/*-linux-gnu*/$1" >/dev/null; }
    probe_library() { probe_header "$2"; }
fi
# Debian names the packages of further compilers after the programs.
compiler_package() {
    case $(basename "${1%% *}") in
        cc) echo gcc ;;
        c++) echo g++ ;;
        clang++*) basename "${1%% *}" | sed s/++// ;;
        *) basename "${1%% *}" ;;
    esac
}
scratch=$(mktemp -d) || exit 2
trap 'rm -rf "$scratch"' EXIT

# oneDNN helps the CPU build where a CPU has AVX-512. The version that was tried first is 2.6; 1.x has other headers.
# Threads must be ones that can be kept to one, as the pool of dev/cpu needs it.
onednn='DNNL_VERSION_MAJOR>=2&&(DNNL_CPU_THREADING_RUNTIME==DNNL_RUNTIME_OMP||DNNL_CPU_THREADING_RUNTIME==DNNL_RUNTIME_SEQ)'
utf8proc='UTF8PROC_VERSION_MAJOR*100+UTF8PROC_VERSION_MINOR>=205'
# package          use       name        how to see that it is there
table="
$(compiler_package "$CC")                build     C           program  $CC
$(compiler_package "$CXX")                build     C++         program  $CXX
libpcre2-dev       build     PCRE2       library  libpcre2-8:10.36  pcre2.h  -lpcre2-8
libutf8proc-dev    build     utf8proc    library  libutf8proc:2.5  utf8proc.h  -lutf8proc  $utf8proc
libcjson-dev       build     cJSON       library  libcjson:1.7.10  cjson/cJSON.h  -lcjson
zlib1g-dev         build     zlib        library  zlib:1.2  zlib.h  -lz
libzstd-dev        build     zstd        library  libzstd:1.4  zstd.h  -lzstd
libssl-dev         build     libcrypto   library  libcrypto:1.1.1  openssl/evp.h  -lcrypto
libstb-dev         build     stb_ds      header   stb/stb_ds.h
libopenblas-dev    cpu       OpenBLAS    library  openblas:0.3  cblas.h  -lopenblas
libdnnl-dev        fast      oneDNN      library  dnnl:2.0  oneapi/dnnl/dnnl.h  -Wl,-ldnnl,-lgomp  $onednn
libcmocka-dev      tests     cmocka      library  cmocka:1.1  cmocka.h  -lcmocka
libopenmpi-dev     ranks     MPI         flags    mpicc
openmpi-bin        ranks     mpirun      program  mpirun
gnuplot-nox        pictures  gnuplot     program  gnuplot
pkg-config         finding   pkg-config  program  $PKG_CONFIG
"

[ "${1:-}" = --probe ] && { kind=$2; shift 2; "probe_$kind" "$@"; exit; }  # one probe alone: for its test

mode=${1:-} uses=" ${*:2} "
missing=() lines=()
while read -r package use name kind what; do
    [ -n "$package" ] || continue
    [ "$mode" != --need ] || [[ $uses == *" $use "* ]] || continue
    [ "$mode" != --has ] || [[ $uses == *" $name "* ]] || continue
    found='' label=$name
    [ "$kind" = library ] && { least=${what%% *}; label="$name ${least#*:} or newer"; }
    [ "$kind" = program ] && label="$name ($what)"
    if "probe_$kind" $what; then
        [ "$mode" = --list ] && echo "  ✓ $name"
        continue
    fi
    [ "$mode" = --has ] && exit 1
    # What only makes a build faster is not asked for again where the system's own is too old, nor where it would do
    # nothing.
    [ "$use" = fast ] && [ -z "$mode" ] && {
        [ "$(uname -m)" != x86_64 ] || dpkg -s "$package" >/dev/null 2>&1
    } && continue
    [[ " ${missing[*]-} " == *" $package "* ]] || missing+=("$package")  # clang is C and C++
    lines+=("$label${found:+, $found}")
    case $use in
        cpu) why="; the GEMMs of the CPU build" ;;
        fast) why="; faster on an x86-64 CPU with AVX-512 (oneDNN ${least#*:} or newer, for OpenMP)" ;;
        tests) why="; tests only" ;;
        ranks) why="; without it the build is for one process" ;;
        pictures) why="; pictures only" ;;
        finding) why="; without it only the system's own folders are searched" ;;
        *) why= ;;
    esac
    [ "$mode" = --list ] && echo "  ✗ $name${found:+: $found}: apt-get install $package$why"
done <<<"$table"
[ "$mode" = --list ] || [ "$mode" = --has ] && exit 0
[ ${#missing[@]} -eq 0 ] && exit 0

command_line="apt-get install ${missing[*]}"
if [ "$mode" = --need ]; then
    {
        echo "missing, so nothing was compiled:"
        printf '    %s\n' "${lines[@]}"
        echo "On Debian and Ubuntu: $([ "$(id -u)" -eq 0 ] || echo 'sudo ')$command_line"
        echo "Other systems, and machines where you are not root: docs/install.md (PKG_CONFIG_PATH, CPATH and LIBRARY_PATH are honoured)"
    } >&2
    exit 2
fi
if [ "${INSTALL:-yes}" != no ] && command -v apt-get >/dev/null 2>&1; then
    sudo=
    if [ "$(id -u)" -ne 0 ]; then sudo=$(command -v sudo || true); fi
    if [ "$(id -u)" -eq 0 ] || [ -n "$sudo" ]; then
        echo "this installs Debian packages (INSTALL=no: it does not): ${sudo:+sudo }$command_line"
        $sudo apt-get update -qq &&
            $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null && exit 0
        echo "apt-get could not install: ${missing[*]}" >&2
        exit 2
    fi
fi
echo "missing: ${missing[*]} (Debian's names, as root: $command_line); other systems: docs/install.md" >&2
