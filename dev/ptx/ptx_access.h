/* The part of ptx_run.h that names the module's file: checked addresses, and what a block or a warp does together.
 * Included once by a translated module, after its `ptx_file`. */

// ---- checked addresses ------------------------------------------------------------------------------
static inline bool ptx_in_window(uint64_t a) { return a - (uint64_t)(uintptr_t)ptx_window.base < PTX_WINDOW_BYTES; }
static inline bool ptx_aligned(uint64_t a, unsigned n) { return (a & (n - 1)) == 0; }

static inline char* ptx_shared(uint32_t a, unsigned n, int line) {
    if (!ptx_aligned(a, n)) ptx_misaligned(a, n, ptx_file, line);
    const PtxWindow* w = &ptx_window;
    for (int i = 0; i < w->n; i++) {
        uint32_t offset = a - w->arrays[i].at;
        if (offset < w->arrays[i].size && n <= w->arrays[i].size - offset) return w->base + a;
    }
    ptx_bad_access("shared", a, n, ptx_file, line);
}
static inline char* ptx_global(uint64_t a, unsigned n, int line, unsigned* site) {
    if (!ptx_aligned(a, n)) ptx_misaligned(a, n, ptx_file, line);
    const PtxRange* r = &ptx_ranges[__atomic_load_n(site, __ATOMIC_RELAXED)];
    if (a >= r->begin && a < r->end && n <= r->end - a) return (char*)(uintptr_t)a;
    return ptx_global_slow(a, n, ptx_file, line, site);
}
static inline char* ptx_local(uint64_t a, unsigned n, const char* depot, size_t size, int line) {
    uint64_t offset = a - (uint64_t)(uintptr_t)depot;
    if (!ptx_aligned(a, n)) ptx_misaligned(a, n, ptx_file, line);
    if (offset >= size || n > size - offset) ptx_bad_access("local", a, n, ptx_file, line);
    return (char*)(uintptr_t)a;
}
static inline char* ptx_generic(uint64_t a, unsigned n, const char* depot, size_t size, int line, unsigned* site) {
    if (ptx_in_window(a)) return ptx_shared((uint32_t)(a - (uint64_t)(uintptr_t)ptx_window.base), n, line);
    if (a - (uint64_t)(uintptr_t)depot < size) return ptx_local(a, n, depot, size, line);
    return ptx_global(a, n, line, site);
}
static inline uint64_t ptx_to_shared(uint64_t a, int line) {
    if (!ptx_in_window(a)) ptx_fail(ptx_file, line, "%p is not an address of shared memory", (void*)(uintptr_t)a);
    return a - (uint64_t)(uintptr_t)ptx_window.base;
}
static inline uint64_t ptx_from_shared(uint64_t a) { return a + (uint64_t)(uintptr_t)ptx_window.base; }
static inline bool ptx_is_shared(uint64_t a, const char*, size_t) { return ptx_in_window(a); }
static inline bool ptx_is_local(uint64_t a, const char* depot, size_t size) {
    return a - (uint64_t)(uintptr_t)depot < size;
}
static inline bool ptx_is_global(uint64_t a, const char* depot, size_t size) {
    return !ptx_in_window(a) && !ptx_is_local(a, depot, size);
}
static inline void ptx_trap(int line) { ptx_fail(ptx_file, line, "trap"); }

// ---- shuffles and votes -----------------------------------------------------------------------------
// c: bits 0-4 the segment's end, bits 8-12 its mask. A lane whose source is outside of its segment keeps its own value,
// and the predicate is false.
static inline bool ptx_shuffle(uint32_t* result, uint32_t x, int from, bool inside, uint32_t mask, int line) {
    *result = cpu_shuffle_from(mask, x, inside ? from : (int)cpu_lane(), ptx_file, line);
    return inside;
}
static inline int ptx_segment_most(uint32_t c) {
    uint32_t segments = c >> 8 & 31;
    return (int)((cpu_lane() & segments) | (c & 31 & ~segments));
}
static inline bool ptx_shuffle_up(uint32_t* r, uint32_t x, uint32_t b, uint32_t c, uint32_t mask, int line) {
    int from = (int)cpu_lane() - (int)(b & 31);
    return ptx_shuffle(r, x, from, from >= ptx_segment_most(c), mask, line);
}
static inline bool ptx_shuffle_down(uint32_t* r, uint32_t x, uint32_t b, uint32_t c, uint32_t mask, int line) {
    int from = (int)cpu_lane() + (int)(b & 31);
    return ptx_shuffle(r, x, from, from <= ptx_segment_most(c), mask, line);
}
static inline bool ptx_shuffle_bfly(uint32_t* r, uint32_t x, uint32_t b, uint32_t c, uint32_t mask, int line) {
    int from = (int)cpu_lane() ^ (int)(b & 31);
    return ptx_shuffle(r, x, from, from <= ptx_segment_most(c), mask, line);
}
static inline bool ptx_shuffle_idx(uint32_t* r, uint32_t x, uint32_t b, uint32_t c, uint32_t mask, int line) {
    uint32_t segments = c >> 8 & 31;
    int from = (int)((cpu_lane() & segments) | (b & 31 & ~segments));
    return ptx_shuffle(r, x, from, from <= ptx_segment_most(c), mask, line);
}
static inline uint32_t ptx_ballot(bool x, uint32_t mask, int line) { return __ballot_sync(mask, x, ptx_file, line); }
static inline bool ptx_vote_any(bool x, uint32_t mask, int line) { return ptx_ballot(x, mask, line) != 0; }
static inline bool ptx_vote_all(bool x, uint32_t mask, int line) { return ptx_ballot(!x, mask, line) == 0; }
static inline bool ptx_vote_uni(bool x, uint32_t mask, int line) {
    uint32_t votes = ptx_ballot(x, mask, line);
    return votes == 0 || votes == mask;
}
template <typename T, typename F> static inline T ptx_redux(T x, uint32_t mask, int line, F join) {
    T result = x;
    bool first = true;
    for (int l = 0; l < 32; l++) {
        if (!(mask >> l & 1)) continue;
        T y = cpu_shuffle_from(mask, x, l, ptx_file, line);
        result = first ? y : join(result, y);
        first = false;
    }
    return result;
}
#define PTX_REDUX(name, expression)                                                        \
    template <typename T> static inline T ptx_redux_##name(T x, uint32_t mask, int line) { \
        return ptx_redux(x, mask, line, [](T p, T q) -> T { return (T)(expression); });    \
    }
PTX_REDUX(add, (uint32_t)p + (uint32_t)q)
PTX_REDUX(min, p < q ? p : q)
PTX_REDUX(max, p > q ? p : q)
PTX_REDUX(and, p& q)
PTX_REDUX(or, p | q)
PTX_REDUX(xor, p ^ q)

// ---- tensor cores, asynchronous copies: the emulator's own -------------------------------------------
static inline void ptx_ldmatrix(uint32_t* to, const char* row, int n, bool transposed, int line) {
    cpu_ldmatrix l = {(const __nv_bfloat16*)row, to, n, transposed, ptx_file, line};
    cpu_collect(CPU_LDMATRIX, 0xffffffffu, &l, cpu_ldmatrix_work, NULL, ptx_file, line);
}
static inline void ptx_mma(float* d, const uint32_t* a, const uint32_t* b, int line) {
    cpu_mma m = {d, a, b};
    cpu_collect(CPU_MMA, 0xffffffffu, &m, cpu_mma_work, NULL, ptx_file, line);
}
static inline void ptx_cp_async(char* to, uint64_t from, int bytes, uint32_t read, int line, unsigned* site) {
    if (!ptx_aligned(from, bytes)) ptx_misaligned(from, bytes, ptx_file, line);
    const char* source = (const char*)(uintptr_t)from;
    for (uint32_t at = 0; at < read; at += 4)  // what is read must be there, in pieces that any count is made of
        ptx_global(from + at, read - at < 4 ? 1 : 4, line, site);
    cpu_cp_async(to, source, bytes, (int)read);
}
