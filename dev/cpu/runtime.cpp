/*
The runtime API: memory, streams, events. Streams are LATE: kernels, copies and BLAS calls only queue, and run when a
synchronise, an event or a dependent stream asks; the target of a pending copy to the host holds 0xFF bytes (NaN) until
then. So a missing wait shows on a CPU too.
*/
#include <errno.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>
#include <cxxabi.h>
#include <deque>
#include <map>
#include <string>
#include <vector>
#include "cpu_internal.h"

// ---------------------------------------------------------------------------------------------------
// memory

struct Allocation {
    size_t bytes;
    bool device;
};
static std::map<uintptr_t, Allocation> allocations;
static size_t device_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static cudaError_t last_error = cudaSuccess;
static uint64_t generation;  // of the allocations

static cudaError_t failed(cudaError_t error) { return last_error = error; }
static bool absent(void) {  // every call fails where there is no driver
    const char* text = getenv("CPU_DEVICE");
    return text && !strcmp(text, "none");
}

static const Allocation* find_allocation(const void* p, size_t bytes, bool* whole) {
    auto it = allocations.upper_bound((uintptr_t)p);
    if (it == allocations.begin()) return NULL;
    --it;
    if ((uintptr_t)p >= it->first + it->second.bytes) return NULL;
    *whole = (uintptr_t)p + bytes <= it->first + it->second.bytes;
    return &it->second;
}
bool cpu_is_device(const void* p, size_t bytes) {
    bool whole = false;
    const Allocation* a = find_allocation(p, bytes, &whole);
    return a && a->device && whole;
}

uint64_t cpu_allocations(void (*visit)(uint64_t begin, uint64_t bytes, void* context), void* context) {
    pthread_mutex_lock(&lock);
    for (auto a = allocations.begin(); visit && a != allocations.end(); ++a) visit(a->first, a->second.bytes, context);
    uint64_t now = generation;
    pthread_mutex_unlock(&lock);
    return now;
}

static size_t memory_limit(void) {  // CPU_MEMORY_MIB: a smaller device, for tests of running out
    const char* text = getenv("CPU_MEMORY_MIB");
    size_t pages = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    return text ? strtoull(text, NULL, 10) << 20 : pages;
}
// Device memory is surrounded by margins: a pattern, checked when it is freed and when the device is synchronised.
// Under AddressSanitizer malloc's own redzones do that, and all device memory is poisoned for the host: it opens while
// the queues run.
#define DEVICE_MARGIN 256  // keeps the alignment of cudaMalloc
static const unsigned char margin_byte = 0xa5;

#if CPU_ASAN
static void open_device(void) {
    for (auto& a : allocations)
        if (a.second.device) __asan_unpoison_memory_region((void*)a.first, a.second.bytes);
}
static void close_device(void) {
    for (auto& a : allocations)
        if (a.second.device) __asan_poison_memory_region((void*)a.first, a.second.bytes);
}
static void check_margins(uintptr_t, const Allocation&) {}
#else
static void open_device(void) {}
static void close_device(void) {}
static void check_margins(uintptr_t at, const Allocation& a) {
    if (!a.device) return;
    const unsigned char *before = (const unsigned char*)at - DEVICE_MARGIN, *after = (const unsigned char*)at + a.bytes;
    for (int i = 0; i < DEVICE_MARGIN; i++)
        if (before[i] != margin_byte || after[i] != margin_byte)
            cpu_fail("a kernel wrote outside device memory: %d bytes %s the allocation of %zu bytes at %p",
                     before[i] != margin_byte ? DEVICE_MARGIN - i : i + 1,
                     before[i] != margin_byte ? "before" : "past the end of", a.bytes, (void*)at);
}
#endif
static int running;  // nested operations of the queues

static cudaError_t allocate(void** p, size_t bytes, bool device) {
    if (absent()) return failed(cudaErrorNoDevice);
    if (!p) return failed(cudaErrorInvalidValue);
    *p = NULL;
    if (bytes == 0) return cudaSuccess;
    if (device && device_bytes + bytes > memory_limit()) return failed(cudaErrorMemoryAllocation);
    size_t margin = device && !CPU_ASAN ? DEVICE_MARGIN : 0;
    void* q = NULL;
    if (posix_memalign(&q, 256, bytes + 2 * margin)) return failed(cudaErrorMemoryAllocation);
    memset(q, margin_byte, margin);
    q = (char*)q + margin;
    memset((char*)q + bytes, margin_byte, margin);
    if (device) memset(q, 0xff, bytes);
    pthread_mutex_lock(&lock);
    allocations[(uintptr_t)q] = {bytes, device};
    generation++;
    if (device) device_bytes += bytes;
    pthread_mutex_unlock(&lock);
    if (!running) close_device();
    *p = q;
    return cudaSuccess;
}
static cudaError_t release(void* p, bool device) {
    if (!p) return cudaSuccess;
    cudaDeviceSynchronize();
    auto it = allocations.find((uintptr_t)p);
    if (it == allocations.end() || it->second.device != device)
        cpu_fail("%s of %p, which is no such allocation", device ? "cudaFree" : "cudaFreeHost", p);
    check_margins(it->first, it->second);
    if (device) device_bytes -= it->second.bytes;
    allocations.erase(it);
    generation++;
    free((char*)p - (device && !CPU_ASAN ? DEVICE_MARGIN : 0));
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** p, size_t bytes) { return allocate(p, bytes, true); }
cudaError_t cudaFree(void* p) { return release(p, true); }
cudaError_t cudaMallocHost(void** p, size_t bytes) { return allocate(p, bytes, false); }
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) { return allocate(p, bytes, false); }
cudaError_t cudaFreeHost(void* p) { return release(p, false); }
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
    if (absent()) return failed(cudaErrorNoDevice);
    *total_bytes = memory_limit();
    *free_bytes = *total_bytes > device_bytes ? *total_bytes - device_bytes : 0;
    return cudaSuccess;
}

// ---------------------------------------------------------------------------------------------------
// streams and events

struct Operation {
    uint64_t sequence;
    void (*run)(void*);
    void (*release)(void*);
    void* context;
    cpu_event* record;  // not NULL: a record of this event
    cpu_event* wait;    // not NULL: a wait for the record wait_sequence
    uint64_t wait_sequence;
    const char* what;
};
struct cpu_stream {
    std::deque<Operation> queue;
    bool blocking;  // takes part in the legacy ordering with stream 0
    bool running;
};
struct cpu_event {
    cpu_stream* stream;
    uint64_t recorded;  // sequence of the latest record, 0: none
    uint64_t done;      // sequence of the latest record that has run
    double time;
};
static uint64_t sequence;
static cpu_stream null_stream = {{}, true, false};
static std::vector<cpu_stream*> streams;

static cpu_stream* stream_of(cudaStream_t s) { return s ? s : &null_stream; }
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

// Runs the stream's operations up to and including `last`. What a legacy stream must wait for is run first.
static void run_until(cpu_stream* s, uint64_t last) {
    while (!s->queue.empty() && s->queue.front().sequence <= last) {
        Operation o = s->queue.front();
        if (s == &null_stream) {
            for (cpu_stream* other : streams)
                if (other->blocking) run_until(other, o.sequence - 1);
        } else if (s->blocking) {
            if (!null_stream.running) run_until(&null_stream, o.sequence - 1);
        }
        if (s->queue.empty() || s->queue.front().sequence != o.sequence) continue;  // it ran on the way
        s->queue.pop_front();
        bool was = s->running;
        s->running = true;
        if (o.wait && o.wait->stream && o.wait->done < o.wait_sequence) run_until(o.wait->stream, o.wait_sequence);
        if (o.run) {
            if (running++ == 0) open_device();
            o.run(o.context);
            if (--running == 0) close_device();
        }
        if (o.release) o.release(o.context);
        if (o.record) {
            o.record->done = o.sequence;
            o.record->time = now();
        }
        s->running = was;
    }
}
static Operation& push(cudaStream_t stream, const char* what) {
    if (cpu_in_kernel()) cpu_fail("%s called from a kernel", what);
    Operation o = {++sequence, NULL, NULL, NULL, NULL, NULL, 0, what};
    cpu_stream* s = stream_of(stream);
    s->queue.push_back(o);
    return s->queue.back();
}
void cpu_enqueue(cudaStream_t stream, void (*run)(void*), void (*release)(void*), void* context, const char* what) {
    Operation& o = push(stream, what);
    o.run = run;
    o.release = release;
    o.context = context;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    if (absent()) return failed(cudaErrorNoDevice);
    *stream = new cpu_stream{{}, !(flags & cudaStreamNonBlocking), false};
    streams.push_back(*stream);
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    run_until(stream_of(stream), sequence);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    cudaStreamSynchronize(stream);
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == stream) streams.erase(streams.begin() + i--);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    return stream_of(stream)->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize(void) {
    run_until(&null_stream, sequence);
    for (cpu_stream* s : streams) run_until(s, sequence);
    for (auto& a : allocations) check_margins(a.first, a.second);
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    if (absent()) return failed(cudaErrorNoDevice);
    *event = new cpu_event{NULL, 0, 0, 0.0};
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->stream && event->done < event->recorded) run_until(event->stream, event->recorded);
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    if (event) cudaEventSynchronize(event);
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    Operation& o = push(stream, "cudaEventRecord");
    o.record = event;
    event->stream = stream_of(stream);
    event->recorded = o.sequence;
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    return event->done >= event->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    if (!event->recorded) return cudaSuccess;
    Operation& o = push(stream, "cudaStreamWaitEvent");
    o.wait = event;
    o.wait_sequence = event->recorded;
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
    if (!from->recorded || !to->recorded) return failed(cudaErrorInvalidResourceHandle);
    if (from->done < from->recorded || to->done < to->recorded) return failed(cudaErrorNotReady);
    *ms = (float)((to->time - from->time) * 1e3);
    return cudaSuccess;
}

// ---------------------------------------------------------------------------------------------------
// copies

struct Copy {
    char* to;
    const char* from;
    size_t to_pitch, from_pitch, width, height;
    char* staged;
    int value;
};

static void run_copy(void* context) {
    Copy* c = (Copy*)context;
    for (size_t i = 0; i < c->height; i++)
        memmove(c->to + i * c->to_pitch, c->staged ? c->staged + i * c->width : c->from + i * c->from_pitch, c->width);
}
static void free_copy(void* context) {
    free(((Copy*)context)->staged);
    delete (Copy*)context;
}
// A pointer on the side that `kind` says, inside one allocation; the host side may be any memory.
static void check_side(const void* p, size_t bytes, bool device, const char* what, const char* side) {
    bool whole = false;
    const Allocation* a = find_allocation(p, bytes, &whole);
    if (device && (!a || !a->device)) cpu_fail("%s: the %s %p is not device memory", what, side, p);
    if (!device && a && a->device) cpu_fail("%s: the %s %p is device memory", what, side, p);
    if (a && !whole) cpu_fail("%s: the %s, %zu bytes at %p, passes the end of its allocation", what, side, bytes, p);
}
static cudaError_t copy(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                        cudaMemcpyKind kind, cudaStream_t stream, const char* what) {
    if (!width || !height) return cudaSuccess;
    if (to_pitch < width || from_pitch < width) return failed(cudaErrorInvalidPitchValue);
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice,
         from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault) {
        to_device = cpu_is_device(to, 1);
        from_device = cpu_is_device(from, 1);
    }
    size_t to_bytes = (height - 1) * to_pitch + width, from_bytes = (height - 1) * from_pitch + width;
    check_side(to, to_bytes, to_device, what, "target");
    check_side(from, from_bytes, from_device, what, "source");
    Copy* c = new Copy{(char*)to, (const char*)from, to_pitch, from_pitch, width, height, NULL, 0};
    bool whole;
    if (!from_device &&
        !find_allocation(
            from, 1,
            &whole)) {  // pageable: a GPU's driver has taken it when the call returns; pinned memory is read late
        c->staged = (char*)malloc(width * height);
        for (size_t i = 0; i < height; i++) memcpy(c->staged + i * width, (const char*)from + i * from_pitch, width);
    }
    if (!to_device)
        for (size_t i = 0; i < height; i++) memset((char*)to + i * to_pitch, 0xff, width);
    cpu_enqueue(stream, run_copy, free_copy, c, what);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    return copy(to, bytes, from, bytes, bytes, 1, kind, stream, "cudaMemcpyAsync");
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
    return copy(to, to_pitch, from, from_pitch, width, height, kind, stream, "cudaMemcpy2DAsync");
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    cudaError_t error = copy(to, bytes, from, bytes, bytes, 1, kind, NULL, "cudaMemcpy");
    cudaStreamSynchronize(NULL);
    return error;
}
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
    cudaError_t error = copy(to, to_pitch, from, from_pitch, width, height, kind, NULL, "cudaMemcpy2D");
    cudaStreamSynchronize(NULL);
    return error;
}
static void run_memset(void* context) {
    Copy* c = (Copy*)context;
    memset(c->to, c->value, c->width);
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
    if (!bytes) return cudaSuccess;
    check_side(p, bytes, true, "cudaMemsetAsync", "target");
    cpu_enqueue(stream, run_memset, free_copy, new Copy{(char*)p, NULL, 0, 0, bytes, 1, NULL, value},
                "cudaMemsetAsync");
    return cudaSuccess;
}
cudaError_t cudaMemset(void* p, int value, size_t bytes) {
    cudaError_t error = cudaMemsetAsync(p, value, bytes, NULL);
    cudaStreamSynchronize(NULL);
    return error;
}

// ---------------------------------------------------------------------------------------------------
// launches

#define SHARED_LIMIT_DEFAULT (48 * 1024)
// CPU_DEVICE: the GPU that is emulated. Without it the multiprocessors are the CPU's own threads, so that a grid sized
// by them is not larger than it need be, and a block has an H100's shared memory.
static const struct Device {
    const char *name, *title;
    int multiprocessors, shared_kib, major, minor;  // multiprocessors 0: threads of the CPU
} devices[] = {
    {"", "CPU", 0, 227, 8, 9},
    {"a100", "A100 on the CPU", 108, 163, 8, 0},
    {"h100", "H100 on the CPU", 132, 227, 9, 0},
    {"rtx4090", "RTX 4090 on the CPU", 128, 99, 8, 9},
    {"rtx2080", "RTX 2080 on the CPU", 46, 64, 7, 5},  // older than the kernels' instructions
    {"none", "", 0, 0, 0, 0},                          // a login node: no driver
};
static const Device* the_device(void) {
    const char* text = getenv("CPU_DEVICE");
    for (const Device& d : devices)
        if (!strcmp(text ? text : "", d.name)) return &d;
    fprintf(stderr, "CPU_DEVICE is a100, h100, rtx4090, rtx2080 or none, not \"%s\"\n", text);
    exit(2);
}
bool cpu_plain_attention(void) {
    static const bool plain = [] {
        const char* text = getenv("CPU_ATTENTION");
        if (text && strcmp(text, "plain") && strcmp(text, "tensor")) {
            fprintf(stderr, "CPU_ATTENTION is plain or tensor, not \"%s\"\n", text);
            exit(2);
        }
        return !text || !strcmp(text, "plain");
    }();
    return plain;
}

static int multiprocessors(void) {
    return the_device()->multiprocessors ? the_device()->multiprocessors : cpu_threads();
}
static int shared_most(void) {  // CPU_SHARED_KIB: a smaller device, for kernels that then do with less
    const char* text = getenv("CPU_SHARED_KIB");
    return (text ? atoi(text) : the_device()->shared_kib) * 1024;
}
static std::map<const void*, size_t> shared_limits;

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || value > shared_most()) return failed(cudaErrorInvalidValue);
    shared_limits[function] = value;
    return cudaSuccess;
}
static void run_launch(void* context) { cpu_run_grid(*(cpu_launch*)context); }
static void free_launch(void* context) {
    cpu_launch* launch = (cpu_launch*)context;
    launch->release(launch->arguments);
    delete launch;
}
// CPU_KERNELS=file: every kernel that was launched, with its template arguments, appended at the end of the program.
static std::map<std::string, long> launched;
static void write_launched(void) {
    FILE* f = fopen(getenv("CPU_KERNELS"), "a");
    if (!f) return;
    for (auto& k : launched) fprintf(f, "%s\t%ld\n", k.first.c_str(), k.second);
    fclose(f);
}
std::string cpu_kernel_name(const cpu_launch& l) {
    // "cpu_kernel<&(name(parameters)), types…>": what is between the parentheses
    int status, depth = 0;
    char* demangled = abi::__cxa_demangle(l.instance, NULL, NULL, &status);
    std::string text = demangled ? demangled : l.kernel;
    free(demangled);
    size_t begin = text.find("<&("), end = begin == std::string::npos ? text.size() : begin + 2;
    for (; end < text.size(); end++) {
        depth += text[end] == '(' ? 1 : text[end] == ')' ? -1 : 0;
        if (depth == 0) return text.substr(begin + 3, end - begin - 3);
    }
    return text;
}
static void note_launch(const cpu_launch& l) {
    pthread_mutex_lock(&lock);
    if (launched.empty()) atexit(write_launched);
    launched[std::string(l.base_file) + "\t" + cpu_kernel_name(l)]++;
    pthread_mutex_unlock(&lock);
}
void cpu_launch_kernel(const cpu_launch& l, cudaStream_t stream) {
    static const bool noted = getenv("CPU_KERNELS");
    if (noted) note_launch(l);
    const char* wrong = NULL;
    size_t threads = (size_t)l.block.x * l.block.y * l.block.z;
    auto allowed = shared_limits.find(l.function);
    size_t shared = allowed == shared_limits.end() ? SHARED_LIMIT_DEFAULT : allowed->second;
    if (threads == 0 || (size_t)l.grid.x * l.grid.y * l.grid.z == 0) wrong = "an empty grid or block";
    else if (threads > 1024) wrong = "more than 1024 threads a block";
    else if (l.block.z > 64) wrong = "a block deeper than 64";
    else if (l.grid.x > 2147483647u || l.grid.y > 65535 || l.grid.z > 65535) wrong = "grid y or z above 65535";
#ifdef CPU_PTX
    else if (l.ptx && l.shared_bytes + ptx_static_shared(l.ptx) > (size_t)std::max(shared_most(), SHARED_LIMIT_DEFAULT))
        wrong = "more static and dynamic shared memory than a block of this device has";
#endif
    else if (l.shared_bytes > shared)
        wrong = "more dynamic shared memory than allowed (48 KB without cudaFuncSetAttribute, never above 227 KB)";
    if (wrong)
        cpu_fail("launch of %s at %s:%d: %s (grid %u,%u,%u, block %u,%u,%u, %zu bytes)", l.kernel, l.file, l.line,
                 wrong, l.grid.x, l.grid.y, l.grid.z, l.block.x, l.block.y, l.block.z, l.shared_bytes);
    cpu_enqueue(stream, run_launch, free_launch, new cpu_launch(l), l.kernel);
}

// ---------------------------------------------------------------------------------------------------
// the device, errors

cudaError_t cudaGetDeviceCount(int* n) {
    *n = 0;
    if (absent()) return failed(cudaErrorNoDevice);
    *n = 1;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    if (absent()) return failed(cudaErrorNoDevice);
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : failed(cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
    if (absent()) return failed(cudaErrorNoDevice);
    if (device) return failed(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s (%d threads)", the_device()->title, cpu_threads());
    p->totalGlobalMem = memory_limit();
    p->sharedMemPerBlock = SHARED_LIMIT_DEFAULT;
    p->sharedMemPerBlockOptin = shared_most();
    p->major = the_device()->major;
    p->minor = the_device()->minor;
    p->multiProcessorCount = multiprocessors();
    p->maxThreadsPerBlock = 1024;
    p->warpSize_ = 32;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    if (absent()) return failed(cudaErrorNoDevice);
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount: *value = multiprocessors(); break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = shared_most() + 1024; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = shared_most(); break;
        case cudaDevAttrComputeCapabilityMajor: *value = the_device()->major; break;
        case cudaDevAttrComputeCapabilityMinor: *value = the_device()->minor; break;
        default: return failed(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 0;
    return cudaSuccess;
}
cudaError_t cudaGetLastError(void) {
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }
static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidPitchValue, "cudaErrorInvalidPitchValue", "invalid pitch argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
};
const char* cudaGetErrorString(cudaError_t e) {
    for (auto& row : errors)
        if (row.error == e) return row.text;
    return "unknown error";
}
const char* cudaGetErrorName(cudaError_t e) {
    for (auto& row : errors)
        if (row.error == e) return row.name;
    return "unknown error";
}
