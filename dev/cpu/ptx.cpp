/* Tensor-core instructions and asynchronous copies, one at a time. Lane layouts are those of the PTX manual (see
 * seal_kernels/ptx.h). */
#include <ptx_cpu.h>
#include <vector>
#include "cpu_internal.h"

// One lane does the work of all, registers of the others included, which are not memory on a GPU (cpu_collect).
#if defined(__SANITIZE_THREAD__)
#define UNSEEN __attribute__((no_sanitize_thread))
#else
#define UNSEEN
#endif

UNSEEN void cpu_ldmatrix_work(void** lanes, uint32_t, void*) {
    int n = ((cpu_ldmatrix*)lanes[0])->n;
    bool transposed = ((cpu_ldmatrix*)lanes[0])->transposed;
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < n; i++) {
            __nv_bfloat16 pair[2];
            for (int e = 0; e < 2; e++) {
                int row = transposed ? l % 4 * 2 + e : l / 4, col = transposed ? l / 4 : l % 4 * 2 + e;
                pair[e] = ((cpu_ldmatrix*)lanes[8 * i + row])->row[col];
            }
            memcpy(&((cpu_ldmatrix*)lanes[l])->to[i], pair, 4);
        }
}

UNSEEN void cpu_mma_work(void** lanes, uint32_t, void*) {
    float A[16][16], B[16][8];
    for (int l = 0; l < 32; l++) {
        const cpu_mma* m = (const cpu_mma*)lanes[l];
        int row = l / 4, col = l % 4 * 2;
        for (int r = 0; r < 4; r++) {
            A[row + r % 2 * 8][r / 2 * 8 + col] = cpu_low(m->a[r]);
            A[row + r % 2 * 8][r / 2 * 8 + col + 1] = cpu_high(m->a[r]);
        }
        for (int r = 0; r < 2; r++) {
            B[8 * r + col][row] = cpu_low(m->b[r]);
            B[8 * r + col + 1][row] = cpu_high(m->b[r]);
        }
    }
    for (int l = 0; l < 32; l++) {
        cpu_mma* m = (cpu_mma*)lanes[l];
        for (int r = 0; r < 4; r++) {
            int row = l / 4 + r / 2 * 8, col = l % 4 * 2 + r % 2;
            float sum = m->d[r];
            for (int k = 0; k < 16; k++) sum += A[row][k] * B[k][col];
            m->d[r] = sum;
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// cp.async: each thread's copies in flight, in order; commit closes a group

struct Flight {
    char* to;
    const char* from;
    int bytes, read;
    int group;
};
struct Flights {
    std::vector<Flight> copies;
    size_t landed;
    int group;
};
static __thread std::vector<Flights>* flights;
static __thread bool flying;
static __thread int used;  // of flights, since the block began

static Flights& mine(void) {
    if (!flights) flights = new std::vector<Flights>(1024);
    __atomic_store_n(&flying, true, __ATOMIC_RELAXED);
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    if (!CPU_TSAN && thread >= used) used = thread + 1;  // to ThreadSanitizer `used` is shared by threads
    return (*flights)[thread];
}
void cpu_async_begin_block(void) {
#if CPU_TSAN
    if (!flights)
        flights = new std::vector<Flights>(1024);  // by the host side, before the threads that it is shared by
#endif
    if (!flying) return;
    for (int i = 0; i < (CPU_TSAN ? (int)flights->size() : used); i++) {
        Flights& f = (*flights)[i];
        f.copies.clear();
        f.landed = 0;
        f.group = 0;
    }
    used = 0;
    flying = false;
}
void cpu_cp_async(void* shared, const void* global, int bytes, int read) {
    cpu_check_aligned(shared, bytes);
    if (read) cpu_check_aligned(global, bytes);
    if (bytes == 16) memset(shared, 0xff, 16);  // (a constant size is two stores, any other a call)
    else memset(shared, 0xff, bytes);
    Flights& f = mine();
    f.copies.emplace_back();  // and field by field: a Flight that is written in parts and copied whole stalls the CPU
    Flight& copy = f.copies.back();
    copy.to = (char*)shared;
    copy.from = (const char*)global;
    copy.bytes = bytes;
    copy.read = read;
    copy.group = f.group;
}
void cp_async_16(void* shared, const void* global, bool valid) { cpu_cp_async(shared, global, 16, valid ? 16 : 0); }
void cp_async_4(void* shared, const void* global, bool valid) { cpu_cp_async(shared, global, 4, valid ? 4 : 0); }
void cp_async_commit(void) { mine().group++; }
void cpu_async_wait(int groups_left) {
    Flights& f = mine();
    while (f.landed < f.copies.size() && f.copies[f.landed].group < f.group - groups_left) {
        const Flight& c = f.copies[f.landed++];
        if (c.read == 16) memcpy(c.to, c.from, 16);
        else {
            memcpy(c.to, c.from, c.read);
            memset(c.to + c.read, 0, c.bytes - c.read);
        }
    }
    if (f.landed == f.copies.size()) {
        f.copies.clear();
        f.landed = 0;
    }
}
