# shellcheck shell=bash
# Builds .cu programs for the CPU with a sanitizer: sourced by test_cpu.sh and sanitize.sh, from the root of the tree.
#   build_program KIND DIR SOURCE [OBJECT…]   KIND plain|ucontext|asan|tsan: DIR/KIND/NAME from one .cu file, the shim
#                                             and further objects
#   build_object KIND DIR SOURCE              DIR/KIND/SOURCE.o, unless it is newer than the source and every header
#   build_shim KIND DIR                       the objects of dev/cpu/*.cpp
# DEFINES (e.g. -DPRECISION_BF16) is added to every command.
CXX=${CXX:-g++}
includes="-Idev/cpu/include -Iseal_kernels -Iseal -Idev/test -Idev/kernels"
warnings="-Wall -Wextra"
[ "${WERROR:-}" = 1 ] && warnings+=" -Werror"  # as in CI
flags_of() {
    case $1 in
        plain) echo "-O3 -march=native -fno-math-errno -fno-trapping-math -g" ;;
        ucontext) echo "-O1 -g -Wno-psabi -DCPU_UCONTEXT" ;;
        asan) echo "-O1 -g -Wno-psabi -fsanitize=address,undefined -fno-sanitize-recover=undefined" ;;
        # fences are not modelled, which is all that the warning says
        tsan) echo "-O1 -g -Wno-psabi -fsanitize=thread -Wno-tsan" ;;
    esac
}
# The scheduler's bookkeeping is the shim's, not the kernel's: fiber.cpp stays without instrumentation under TSan.
flags_of_file() {
    if [ "$1" = tsan ] && [ "$2" = dev/cpu/fiber.cpp ]; then echo "-O1 -g -Wno-psabi -DCPU_TSAN"; else flags_of "$1"; fi
}

build_object() {
    local object=$2/$1/$3.o
    mkdir -p "$(dirname "$object")"
    if [ -e "$object" ] &&
        [ -z "$(find "$3" dev/cpu seal_kernels dev/kernels dev/test -name '*.h' -newer "$object" -print -quit)" ] &&
        [ "$object" -nt "$3" ]; then
        return 0
    fi
    $CXX -x c++ -std=c++17 $warnings $(flags_of_file "$1" "$3") ${DEFINES:-} $includes -c "$3" \
        -o "$object.part$BASHPID" && mv "$object.part$BASHPID" "$object"
}
shim_sources() { ls dev/cpu/*.cpp | grep -v /nccl.cpp; }  # kernels know nothing of ranks
build_shim() { local f; for f in $(shim_sources); do build_object "$1" "$2" "$f" || return 1; done; }
shim_objects() { local f; for f in $(shim_sources); do echo "$2/$1/$f.o"; done; }
build_program() {
    local kind=$1 dir=$2 source=$3; shift 3
    build_shim "$kind" "$dir" && build_object "$kind" "$dir" "$source" || return 1
    $CXX $(flags_of "$kind") "$dir/$kind/$source.o" "$@" $(shim_objects "$kind" "$dir") \
        -o "$dir/$kind/$(basename "$source" .cu)" -lopenblas -lpthread
}

# TSan's map of memory does not fit addresses as random as newer kernels make them: without randomisation where that can
# be had.
run_without_aslr=
if command -v setarch >/dev/null && setarch "$(uname -m)" -R true 2>/dev/null; then
    run_without_aslr="setarch $(uname -m) -R"
fi
