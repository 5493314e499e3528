/*
Kernels that nvcc compiled to PTX, in place of those that g++ compiled: a launch finds its kernel here by the file that
it is in, its name and the architecture of the emulated device (CPU_DEVICE). CPU_PTX=sm_80|sm_90 takes another
architecture, CPU_PTX=first,second the first that has the kernel. A kernel of seal_kernels that has no PTX is an error.
CPU_PTX_REPORT=file: what ran, appended at the end of the program.
*/
#include "ptx_run.h"
#include <cxxabi.h>
#include <stdarg.h>
#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <vector>
#include "cpu_internal.h"

__thread PtxWindow ptx_window;
static PtxRange no_range[1];
const PtxRange* ptx_ranges = no_range;

// ---- modules ----------------------------------------------------------------------------------------
static std::string demangled(const char* name) {
    int status;
    char* text = abi::__cxa_demangle(name, NULL, NULL, &status);
    std::string result = text ? text : name;
    free(text);
    return result;
}
struct Known {
    const PtxKernel* kernel;
    long launches;
};
// (architecture, file, kernel as the demangler writes it); made when first asked for, since modules register before
// main
typedef std::map<std::string, Known> Kernels;
static Kernels& kernels(void) {
    static Kernels* all = new Kernels;
    return *all;
}
static std::vector<PtxVariable>& variables(void) {
    static std::vector<PtxVariable>* all = new std::vector<PtxVariable>;
    return *all;
}
static std::string key_of(const char* arch, const char* source, const std::string& name) {
    return std::string(arch) + "\t" + source + "\t" + name;
}
PtxModule::PtxModule(const PtxKernel* k, int n, const PtxVariable* v) {
    for (int i = 0; i < n; i++)
        if (!kernels().insert({key_of(k[i].arch, k[i].source, demangled(k[i].name)), {&k[i], 0}}).second)
            cpu_fail("PTX: %s of %s is a duplicate for %s", demangled(k[i].name).c_str(), k[i].source, k[i].arch);
    for (; v->address; v++) variables().push_back(*v);
}

// ---- launches ---------------------------------------------------------------------------------------
// The architectures whose code is taken, the first that has the kernel.
static std::vector<std::string> architectures(void) {
    const char* text = getenv("CPU_PTX");
    int major = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    // without CPU_PTX what the driver of the emulated GPU would take
    std::string rest = text && *text ? text : major >= 9 ? "sm_90" : "sm_80";
    std::vector<std::string> all;
    for (size_t at; (at = rest.find(',')) != std::string::npos; rest = rest.substr(at + 1))
        all.push_back(rest.substr(0, at));
    all.push_back(rest);
    return all;
}
static std::map<std::string, long> others;  // launches that g++'s code ran
static std::mutex launch_lock;

static void report(void) {
    const char* path = getenv("CPU_PTX_REPORT");
    FILE* f = path ? fopen(path, "a") : NULL;
    if (!f) return;
    for (auto& k : kernels())
        if (k.second.launches) fprintf(f, "ptx\t%s\t%ld\n", k.first.c_str(), k.second.launches);
    for (auto& o : others) fprintf(f, "g++\t%s\t%ld\n", o.first.c_str(), o.second);
    fclose(f);
}

struct Arguments {
    const PtxKernel* kernel;
    alignas(16) char params[4096];
};

// The loop of cpu_kernel::run_threads (cuda_runtime.h), around a translated kernel.
static void run_threads(const void* context) {
    const Arguments* a = (const Arguments*)context;
    while (cpu_now.next < cpu_now.n_threads) {
        int i = cpu_now.next++, tid = cpu_now.order ? cpu_now.order[i] : i;
        threadIdx.x = tid % blockDim.x;
        threadIdx.y = tid / blockDim.x % blockDim.y;
        threadIdx.z = tid / (blockDim.x * blockDim.y);
        a->kernel->run(a->params);
        cpu_now.exited[ptx_thread() & 1023] = 1;  // this stack may have waited and continued as another thread's
        cpu_now.done++;
        if (cpu_now.waiting) cpu_resume_waiting();
    }
}
static void release(void* context) { delete (Arguments*)context; }

bool ptx_launch(cpu_launch* launch, const ptx_argument* arguments, int n) {
    std::lock_guard<std::mutex> guard(launch_lock);
    static bool first = true;
    if (first) atexit(report);
    first = false;
    std::string name = cpu_kernel_name(*launch);
    static const std::vector<std::string> wanted = architectures();
    auto found = kernels().end();
    for (size_t i = 0; i < wanted.size() && found == kernels().end(); i++)
        found = kernels().find(key_of(wanted[i].c_str(), launch->base_file, name));
    if (found == kernels().end()) {
        if (!strncmp(launch->base_file, "seal_kernels/", 13))
            cpu_fail("PTX: no %s code of %s, launched at %s:%d", wanted.back().c_str(), name.c_str(), launch->file,
                     launch->line);
        others[key_of("-", launch->base_file, name)]++;
        return false;
    }
    const PtxKernel* kernel = found->second.kernel;
    found->second.launches++;
    Arguments* a = new Arguments;
    a->kernel = kernel;
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        at = (at + arguments[i].align - 1) / arguments[i].align * arguments[i].align;
        if (at + arguments[i].bytes > sizeof a->params)
            cpu_fail("PTX: %s has more than 4 KiB of arguments", kernel->name);
        memcpy(a->params + at, arguments[i].value, arguments[i].bytes);
        at += arguments[i].bytes;
    }
    if ((int)at != kernel->param_bytes)
        cpu_fail("PTX: %s takes %d bytes of arguments, the launch at %s:%d has %zu", name.c_str(), kernel->param_bytes,
                 launch->file, launch->line, at);
    launch->ptx = kernel;
    launch->run_threads = run_threads;
    launch->release = release;
    launch->arguments = a;
    return true;
}

// ---- blocks -----------------------------------------------------------------------------------------
size_t ptx_static_shared(const PtxKernel* kernel) {
    size_t bytes = 0;
    for (int i = 0; i < kernel->n_shared; i++) bytes += kernel->shared[i].size;
    return bytes;
}
void ptx_begin_block(const PtxKernel* kernel, size_t dynamic_bytes) {
    PtxWindow* w = &ptx_window;
    if (!w->base) w->base = (char*)aligned_alloc(4096, PTX_WINDOW_BYTES);
    if (!w->base || kernel->n_shared > 64) cpu_fail("PTX: no room for shared memory");
    w->n = 0;
    for (int i = 0; i < kernel->n_shared; i++) {
        PtxArray array = kernel->shared[i];
        if (!array.size) array.size = (uint32_t)dynamic_bytes;
        if (!array.size) continue;  // launched without
        if ((size_t)array.at + array.size > PTX_WINDOW_BYTES) cpu_fail("PTX: no room for shared memory");
        memset(w->base + array.at, 0xff, array.size);  // NaN until somebody has written
        w->arrays[w->n++] = array;
    }
}

// ---- memory -----------------------------------------------------------------------------------------
static std::vector<PtxRange> ranges;
void ptx_begin_grid(void) {
    static uint64_t made = ~0ull;
    uint64_t now = cpu_allocations(NULL, NULL);
    if (now == made) return;
    made = now;
    ranges.clear();
    cpu_allocations([](uint64_t begin, uint64_t bytes, void*) { ranges.push_back({begin, begin + bytes}); }, NULL);
    for (auto& v : variables())
        ranges.push_back({(uint64_t)(uintptr_t)v.address, (uint64_t)(uintptr_t)v.address + v.bytes});
    std::sort(ranges.begin(), ranges.end(), [](const PtxRange& a, const PtxRange& b) { return a.begin < b.begin; });
    // Every index that a place of the code has remembered stays one of the table.
    static size_t most;
    most = std::max(most, ranges.size() + 1);
    ranges.resize(most);
    ptx_ranges = ranges.data();
}
char* ptx_global_slow(uint64_t a, unsigned n, const char* file, int line, unsigned* site) {
    for (size_t i = 0; i < ranges.size(); i++) {
        const PtxRange* r = &ranges[i];
        if (a < r->begin || a >= r->end || n > r->end - a) continue;
        __atomic_store_n(site, (unsigned)i, __ATOMIC_RELAXED);
        return (char*)(uintptr_t)a;
    }
    ptx_bad_access("global", a, n, file, line);
}

// ---- errors -----------------------------------------------------------------------------------------
// The instruction, and the line of the source that it was compiled from (.loc), where the file is still there.
static void describe(const char* file, int line, char* to, size_t size) {
    FILE* f = fopen(file, "r");
    std::string text, source, instruction;
    int number = 0, source_file = 0, source_line = 0;
    std::map<int, std::string> files;
    char row[4096], path[2048];
    while (f && fgets(row, sizeof row, f)) {
        int a, b;
        number++;
        if (number <= line && sscanf(row, " .loc %d %d", &a, &b) == 2 && b) {
            source_file = a;
            source_line = b;
        }
        if (sscanf(row, " .file %d \"%2047[^\"]", &a, path) == 2) files[a] = path;
        if (number == line) {
            instruction = row;
            size_t from = instruction.find_first_not_of(" \t"), end = instruction.find_last_not_of(" \t\n");
            instruction = from == std::string::npos ? "" : instruction.substr(from, end - from + 1);
        }
    }
    if (f) fclose(f);
    snprintf(to, size, "%s:%d", file, line);
    size_t at = strlen(to);
    if (!instruction.empty()) snprintf(to + at, size - at, ": %s", instruction.c_str());
    at = strlen(to);
    if (source_line && files.count(source_file))
        snprintf(to + at, size - at, "\n  compiled from %s:%d", files[source_file].c_str(), source_line);
}
void ptx_fail(const char* file, int line, const char* format, ...) {
    char message[512], place[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    describe(file, line, place, sizeof place);
    cpu_fail("PTX: %s\n  at %s", message, place);
}
void ptx_misaligned(uint64_t a, unsigned n, const char* file, int line) {
    ptx_fail(file, line, "misaligned access: 0x%llx is not a multiple of %u", (unsigned long long)a, n);
}
void ptx_bad_access(const char* what, uint64_t a, unsigned n, const char* file, int line) {
    ptx_fail(file, line, "%u bytes at 0x%llx are outside of %s memory", n, (unsigned long long)a, what);
}

// ---- vprintf ----------------------------------------------------------------------------------------
// Arguments are packed as a struct of C: 4 bytes for int, 8 for what is longer, for pointers and for every float.
void ptx_vprintf(const char* format_address, const char* arguments_address, char* result) {
    const char *format = ptx_load<const char*>(format_address), *arguments = ptx_load<const char*>(arguments_address);
    std::string out;
    size_t at = 0;
    int count = 0;
    for (const char* p = format; *p; p++) {
        if (*p != '%' || p[1] == '%') {
            out += *p;
            if (*p == '%') p++;
            continue;
        }
        size_t length = strspn(p + 1, "-+ #0123456789.") + 1, wide = strspn(p + length, "hlzjt");
        std::string spec(p, length);
        char text[256], type = p[length + wide];
        bool is_long = wide && p[length] != 'h';
        p += length + wide;
        if (!type) break;
        size_t size = strchr("dioxXuc", type) && !is_long ? 4 : 8;
        at = (at + size - 1) / size * size;
        const char* value = arguments + at;
        at += size;
        count++;
        if (strchr("di", type))
            snprintf(text, sizeof text, (spec + "lld").c_str(),
                     size == 4 ? (long long)ptx_load<int32_t>(value) : ptx_load<long long>(value));
        else if (strchr("oxXu", type))
            snprintf(text, sizeof text, (spec + "ll" + type).c_str(),
                     size == 4 ? (unsigned long long)ptx_load<uint32_t>(value) : ptx_load<unsigned long long>(value));
        else if (type == 'c') snprintf(text, sizeof text, (spec + "c").c_str(), (int)ptx_load<int32_t>(value));
        else if (strchr("eEfFgGaA", type)) snprintf(text, sizeof text, (spec + type).c_str(), ptx_load<double>(value));
        else if (type == 's') snprintf(text, sizeof text, (spec + "s").c_str(), ptx_load<const char*>(value));
        else if (type == 'p') snprintf(text, sizeof text, (spec + "p").c_str(), ptx_load<void*>(value));
        else cpu_fail("PTX: vprintf with %%%c", type);
        out += text;
    }
    fputs(out.c_str(), stdout);
    ptx_store<int32_t>(result, count);
}
