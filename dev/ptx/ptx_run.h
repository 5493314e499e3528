/*
What translated PTX is made of: the semantics of instructions that are more than an operator of C++, and the tables that
a translated module registers. translate.py writes the code that uses them; docs/ptx.md is the page. Approximate
instructions (ex2.approx, rsqrt.approx, …) are libm's functions in double precision, rounded once.
*/
#ifndef PTX_RUN_H
#define PTX_RUN_H

#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <ptx_cpu.h>
#include <fenv.h>
#include <limits>
#undef expf
#undef tanhf
#undef rsqrtf

// ---- what a module registers ------------------------------------------------------------------------
struct PtxArray {
    uint32_t at, size;  // in the block's window of shared memory; size 0: the dynamic array
};
struct PtxKernel {
    const char *name, *arch, *source, *file;  // mangled; sm_90; the .cu file; the .ptx file
    void (*run)(const char* params);          // one thread
    int param_bytes;
    const PtxArray* shared;
    int n_shared;
};
struct PtxVariable {
    const void* address;
    size_t bytes;
};
struct PtxModule {
    PtxModule(const PtxKernel* kernels, int n, const PtxVariable* variables);
};

// ---- memory: where a thread may read and write ------------------------------------------------------
// Shared memory of the block that this OS thread runs. A shared address is an offset in the window, as on a GPU; a
// generic one is a pointer.
struct PtxWindow {
    char* base;
    int n;
    PtxArray arrays[65];
};
#define PTX_WINDOW_BYTES (512 * 1024)
extern __thread PtxWindow ptx_window;

// Allocations of the device and variables of modules; the table does not change while a kernel runs. An access
// remembers the entry that it met last.
struct PtxRange {
    uint64_t begin, end;
};
extern const PtxRange* ptx_ranges;
char* ptx_global_slow(uint64_t a, unsigned n, const char* file, int line, unsigned* site);
void ptx_bad_access(const char* what, uint64_t a, unsigned n, const char* file, int line) __attribute__((noreturn));
void ptx_misaligned(uint64_t a, unsigned n, const char* file, int line) __attribute__((noreturn));
void ptx_fail(const char* file, int line, const char* format, ...)
    __attribute__((format(printf, 3, 4), noreturn, cold));
void ptx_vprintf(const char* format, const char* arguments, char* result);

static inline unsigned ptx_thread(void) { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

// ---- bits -------------------------------------------------------------------------------------------
template <typename T, typename F> static inline T bits(F x) {
    static_assert(sizeof(T) == sizeof(F), "bits of another size");
    T y;
    memcpy(&y, &x, sizeof y);
    return y;
}
template <typename T> static inline T ptx_load(const char* p) {
    T x;
    memcpy(&x, p, sizeof x);
    return x;
}
template <typename T> static inline void ptx_store(char* p, T x) { memcpy(p, &x, sizeof x); }

// ---- floats -----------------------------------------------------------------------------------------
static inline float ptx_ftz(float x) {
    return fabsf(x) < std::numeric_limits<float>::min() ? copysignf(0.0f, x) : x;  // a NaN fails the comparison
}
template <typename T> static inline T ptx_sat(T x) { return !(x > 0) ? 0 : x > 1 ? 1 : x; }  // NaN gives 0

// One operation in another rounding mode. The barriers keep the compiler from moving it out from between the switches.
#define PTX_ROUNDED(name, parameters, expression)                                   \
    template <int MODE, typename T> static inline T ptx_rounded_##name parameters { \
        int mode = fegetround();                                                    \
        fesetround(MODE);                                                           \
        asm volatile("" : "+m"(x) : : "memory");                                    \
        T result = (expression);                                                    \
        asm volatile("" : "+m"(result) : : "memory");                               \
        fesetround(mode);                                                           \
        return result;                                                              \
    }
static inline float ptx_fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static inline double ptx_fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
PTX_ROUNDED(add, (T x, T y), x + y)
PTX_ROUNDED(sub, (T x, T y), x - y)
PTX_ROUNDED(mul, (T x, T y), x* y)
PTX_ROUNDED(div, (T x, T y), x / y)
PTX_ROUNDED(fma_exactly, (T x, T y, T z), ptx_fma(x, y, z))
PTX_ROUNDED(rcp, (T x), 1 / x)
PTX_ROUNDED(sqrt, (T x), std::sqrt(x))
template <int MODE, typename T, typename F> static inline T ptx_rounded_from(F x) {
    int mode = fegetround();
    fesetround(MODE);
    asm volatile("" : "+m"(x) : : "memory");
    T result = (T)x;
    asm volatile("" : "+m"(result) : : "memory");
    fesetround(mode);
    return result;
}
// fma.rm.f32 is in every exp() of a GPU, so it does without a switch of modes: the product of two floats is a double,
// the sum's rounding error another, and the nearest float is at most one step above what is sought.
static inline float ptx_fma_down(float x, float y, float z) {
    double p = (double)x * y, s = p + z, t = s - p, error = (p - (s - t)) + (z - t);
    if (s == 0.0) return std::signbit(p) || std::signbit(z) ? -0.0f : 0.0f;
    float r = (float)s;
    if (!(r > s || (r == s && error < 0.0))) return r;
    if (r == 0.0f) return -std::numeric_limits<float>::denorm_min();
    return bits<float>(r > 0.0f ? bits<uint32_t>(r) - 1 : bits<uint32_t>(r) + 1);
}
template <int MODE> static inline float ptx_rounded_fma(float x, float y, float z) {
    return MODE == FE_DOWNWARD ? ptx_fma_down(x, y, z) : ptx_rounded_fma_exactly<MODE>(x, y, z);
}
template <int MODE> static inline double ptx_rounded_fma(double x, double y, double z) {
    return ptx_rounded_fma_exactly<MODE>(x, y, z);
}
// A NaN loses against a number; −0 is below +0.
template <typename T> static inline T ptx_min(T x, T y) {
    return x != x ? y : y != y ? x : x == y ? (std::signbit(x) ? x : y) : x < y ? x : y;
}
template <typename T> static inline T ptx_max(T x, T y) {
    return x != x ? y : y != y ? x : x == y ? (std::signbit(x) ? y : x) : x > y ? x : y;
}
template <typename T> static inline T ptx_min_nan(T x, T y) { return x != x ? x : y != y ? y : ptx_min(x, y); }
template <typename T> static inline T ptx_max_nan(T x, T y) { return x != x ? x : y != y ? y : ptx_max(x, y); }

static inline float ptx_rcp(float x) { return 1.0f / x; }
static inline float ptx_sqrt(float x) { return sqrtf(x); }
static inline float ptx_rsqrt(float x) { return (float)(1.0 / sqrt((double)x)); }
static inline float ptx_ex2(float x) { return exp2f(x); }
static inline float ptx_lg2(float x) { return log2f(x); }
static inline float ptx_sin(float x) { return (float)sin((double)x); }
static inline float ptx_cos(float x) { return (float)cos((double)x); }
static inline float ptx_tanh(float x) { return (float)tanh((double)x); }
// div.approx: a divisor from 2^126 on gives 0 (a NaN under an infinity), as the reciprocal that it multiplies by is
// flushed
static inline float ptx_div_approx(float x, float y) {
    if (fabsf(y) > 0x1p126f && !std::isinf(y)) return x * copysignf(0.0f, y);
    return x / y;
}
static inline float ptx_div_full(float x, float y) { return x / y; }

// ---- conversions ------------------------------------------------------------------------------------
template <typename T> static inline T ptx_rni(T x) { return std::nearbyint(x); }
template <typename T> static inline T ptx_rzi(T x) { return std::trunc(x); }
template <typename T> static inline T ptx_rmi(T x) { return std::floor(x); }
template <typename T> static inline T ptx_rpi(T x) { return std::ceil(x); }
// A whole number to an integer type: clamped to its range, NaN to 0.
template <typename I, typename F> static inline I ptx_to_integer(F x) {
    typedef std::numeric_limits<I> Limits;
    const F beyond = std::ldexp((F)1, Limits::digits);  // the first number that does not fit
    if (x != x) return 0;
    if (x >= beyond) return Limits::max();
    if (x < (F)Limits::min()) return Limits::min();
    return (I)x;
}
template <typename D, typename S> static inline D ptx_saturate(S x) {
    __int128 low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max(), y = x;
    return (D)(y < low ? low : y > high ? high : y);
}
static inline uint16_t ptx_bf16_rn(float x) { return __float2bfloat16_rn(x).x; }
static inline uint16_t ptx_bf16_rz(float x) { return x != x ? 0x7fff : (uint16_t)(bits<uint32_t>(x) >> 16); }
// cvt.rn.satfinite: whole steps of 2^-9, or of an eighth of the number's power of two; a NaN is 0x7f, too much 448.
static inline uint8_t ptx_e4m3(float x) {
    const float size = fabsf(x);
    const uint8_t sign = bits<uint32_t>(x) >> 31 ? 0x80 : 0;
    if (x != x) return 0x7f;
    if (size >= 464.0f) return sign | 0x7e;
    const int exponent = size < 0x1p-6f ? -6 : ilogbf(size);
    return (uint8_t)(sign | (((exponent + 6) << 3) + (int)nearbyintf(ldexpf(size, 3 - exponent))));
}

// ---- integers ---------------------------------------------------------------------------------------
// A GPU divides by zero without a word; here it is an error.
#define ptx_div(x, y, line) ptx_quotient(x, y, ptx_file, line)
#define ptx_rem(x, y, line) ptx_remainder(x, y, ptx_file, line)
template <typename T> static inline T ptx_quotient(T x, T y, const char* file, int line) {
    if (y == 0) ptx_fail(file, line, "division by zero");
    return std::is_signed<T>::value && y == (T)-1 ? (T)(0 - (typename std::make_unsigned<T>::type)x) : (T)(x / y);
}
template <typename T> static inline T ptx_remainder(T x, T y, const char* file, int line) {
    if (y == 0) ptx_fail(file, line, "remainder of a division by zero");
    return std::is_signed<T>::value && y == (T)-1 ? 0 : (T)(x % y);
}
template <typename T> static inline T ptx_shl(T x, uint32_t n) { return n >= 8 * sizeof(T) ? 0 : (T)(x << n); }
template <typename T> static inline T ptx_shr(T x, uint32_t n) {  // arithmetic where T is signed
    const uint32_t most = 8 * sizeof(T) - 1;
    return n > most ? (std::is_signed<T>::value ? (T)(x >> most) : 0) : (T)(x >> n);
}
static inline uint32_t ptx_shf_l_wrap(uint32_t a, uint32_t b, uint32_t n) {
    return (uint32_t)(((uint64_t)b << 32 | a) << (n & 31) >> 32);
}
static inline uint32_t ptx_shf_l_clamp(uint32_t a, uint32_t b, uint32_t n) {
    return n > 31 ? a : ptx_shf_l_wrap(a, b, n);
}
static inline uint32_t ptx_shf_r_wrap(uint32_t a, uint32_t b, uint32_t n) {
    return (uint32_t)(((uint64_t)b << 32 | a) >> (n & 31));
}
static inline uint32_t ptx_shf_r_clamp(uint32_t a, uint32_t b, uint32_t n) {
    return n > 31 ? b : ptx_shf_r_wrap(a, b, n);
}
template <typename T> static inline T ptx_bfe(T x, uint32_t position, uint32_t length) {
    const unsigned width = 8 * sizeof(T);
    position &= 0xff;
    length &= 0xff;
    typedef typename std::make_unsigned<T>::type U;
    // Bits past the end of x are copies of the sign, which is the field's last bit or x's.
    unsigned there = position >= width ? 0 : length < width - position ? length : width - position;
    U mask = there >= width ? ~(U)0 : ((U)1 << there) - 1, field = there ? (U)x >> position & mask : 0;
    unsigned last = position + length - 1;
    bool sign = std::is_signed<T>::value && length && ((U)x >> (last < width - 1 ? last : width - 1) & 1);
    return (T)(sign ? field | ~mask : field);
}
template <typename T> static inline T ptx_bfi(T from, T into, uint32_t position, uint32_t length) {
    const unsigned width = 8 * sizeof(T);
    position &= 0xff;
    length &= 0xff;
    if (position >= width || !length) return into;
    T mask = (T)((length >= width ? ~(T)0 : ((T)1 << length) - 1) << position);
    return (into & ~mask) | ((T)(from << position) & mask);
}
static inline uint32_t ptx_prmt(uint32_t a, uint32_t b, uint32_t selector) {
    uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t s = selector >> 4 * i & 15, byte = (uint32_t)(bytes >> 8 * (s & 7)) & 0xff;
        if (s & 8) byte = byte & 0x80 ? 0xff : 0;  // the byte's sign, eight times
        result |= byte << 8 * i;
    }
    return result;
}
static inline uint32_t ptx_lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
    uint32_t result = 0;
    for (int i = 0; i < 8; i++)
        if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return result;
}
template <typename T> static inline uint32_t ptx_popc(T x) { return __builtin_popcountll(x); }
template <typename T> static inline uint32_t ptx_clz(T x) {
    return x ? __builtin_clzll(x) - (64 - 8 * sizeof(T)) : 8 * sizeof(T);
}
template <typename T> static inline T ptx_brev(T x) {
    T y = 0;
    for (unsigned i = 0; i < 8 * sizeof(T); i++) y |= (T)(x >> i & 1) << (8 * sizeof(T) - 1 - i);
    return y;
}
// The highest bit that differs from the sign; all ones where there is none.
template <typename T> static inline uint32_t ptx_bfind(T x) {
    typedef typename std::make_unsigned<T>::type U;
    U u = std::is_signed<T>::value && x < 0 ? ~(U)x : (U)x;
    return u ? 63 - __builtin_clzll(u) : 0xffffffffu;
}
template <typename T> static inline uint32_t ptx_bfind_shift(T x) {
    uint32_t at = ptx_bfind(x);
    return at == 0xffffffffu ? at : 8 * sizeof(T) - 1 - at;
}

// ---- atomics ----------------------------------------------------------------------------------------
template <typename T, typename F> static inline T ptx_atomic(T* p, F next) {
    T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (!__atomic_compare_exchange_n(p, &old, next(old), true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    return old;
}
#define PTX_ATOMIC(name, expression)                                       \
    template <typename T> static inline T ptx_atomic_##name(T* p, T x) {   \
        return ptx_atomic(p, [x](T old) -> T { return (T)(expression); }); \
    }
PTX_ATOMIC(add, (typename std::make_unsigned<T>::type)old + (typename std::make_unsigned<T>::type)x)
PTX_ATOMIC(min, old < x ? old : x)
PTX_ATOMIC(max, old > x ? old : x)
PTX_ATOMIC(and, old& x)
PTX_ATOMIC(or, old | x)
PTX_ATOMIC(xor, old ^ x)
PTX_ATOMIC(exch, x)
PTX_ATOMIC(inc, old >= x ? 0 : old + 1)
PTX_ATOMIC(dec, old == 0 || old > x ? x : old - 1)
template <typename T> static inline T ptx_atomic_cas(T* p, T expected, T x) {
    return ptx_atomic(p, [expected, x](T old) -> T { return old == expected ? x : old; });
}

#endif
