#!/usr/bin/env bash
# The words of CUDA that dev/cpu/include defines are macros, and a C++ library may use the same ones: every standard
# header is included after them, with the compiler of the build and, where they are installed, with clang++ and clang's
# own library.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
failed=0
{
    echo '#include <cuda_runtime.h>'
    echo '#include <cuda_bf16.h>'
    for header in algorithm any array atomic bitset charconv chrono codecvt complex condition_variable deque exception \
        execution filesystem \
        forward_list fstream functional future initializer_list iomanip ios iosfwd iostream istream iterator limits \
        list locale map memory \
        memory_resource mutex new numeric optional ostream queue random ratio regex scoped_allocator set shared_mutex \
        sstream stack stdexcept \
        streambuf string string_view system_error thread tuple type_traits typeindex typeinfo unordered_map \
        unordered_set utility valarray \
        variant vector cassert cctype cerrno cfenv cfloat cinttypes climits clocale cmath csetjmp csignal cstdarg \
        cstddef cstdint cstdio \
        cstdlib cstring ctime cuchar cwchar cwctype immintrin.h pthread.h sys/mman.h sys/stat.h ucontext.h; do
        echo "#if __has_include(<$header>)"
        echo "#include <$header>"
        echo '#endif'
    done
    # what the library's templates hold is compiled when they are used
    echo 'int main() { std::shared_ptr<int> p = std::make_shared<int>(1); std::regex r("a"); std::valarray<float> v(3); std::atomic<int> a{*p}; std::string s = "a";'
    echo '    std::vector<std::string> w{s}; std::sort(w.begin(), w.end()); return (int)v.size() + a + std::regex_match(s, r) - 5; }'
} >"$work/headers.cpp"
try() {  # NAME COMPILER…
    local name=$1; shift
    if "$@" -std=c++17 -fsyntax-only -Wall -Wextra -Werror -Wno-deprecated-declarations \
        -Idev/cpu/include "$work/headers.cpp" 2>"$work/err"; then
        echo "ok standard headers after cuda_runtime.h: $name"
    else echo "not ok standard headers after cuda_runtime.h: $name"; grep -E 'error|warning' "$work/err" | head -10
    failed=1; fi
}
try "${CXX:-g++}" ${CXX:-g++}
tried=" $(readlink -f "$(type -P ${CXX:-g++})") "
for compiler in $(compgen -c | grep -E '^(g\+\+|clang\+\+)(-[0-9]+)?$' | sort -u); do
    path=$(readlink -f "$(type -P "$compiler")")
    case $path in *ccache) continue ;; esac  # the compiler is there without it as well
    [[ $tried == *" $path "* ]] && continue
    tried+="$path "
    try "$compiler" "$compiler"
done
libcxx=0
for compiler in $(compgen -c | grep -E '^clang\+\+(-[0-9]+)?$' | sort -u); do
    echo '#include <vector>' | "$compiler" -stdlib=libc++ -x c++ -fsyntax-only - 2>/dev/null || continue
    libcxx=1
    try "$compiler with libc++" "$compiler" -stdlib=libc++
done
[ $libcxx = 1 ] || echo "ok libc++ # SKIP not installed (apt-get install libc++-dev)"
exit $failed
