/* The memory plan: rows to classes, classes to one allocation each. See memory.h. */
#include <stdarg.h>
#include <string.h>
#include "cuda_common.h"
#include "base/error.h"
#include "base/text.h"
#include "device.h"
#include "memory.h"

static const struct {
    const char* name;
    bool zero;
} classes[N_MEMORY_CLASSES] = {
    {"weights", true},      {"gradients", true}, {"master weights", true}, {"Adam m", true},   {"Adam v", true},
    {"activations", false}, {"scratch", false},  {"packs", false},         {"selector", true}, {"cache", false},
};

static size_t aligned(size_t bytes) { return (bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT; }

void memory_add_buffer(MemoryPlan* plan, MemoryClass class_id, void** pointer, size_t bytes, const char* name, ...) {
    if (plan->n_rows == plan->capacity) {
        plan->capacity = plan->capacity ? 2 * plan->capacity : 64;
        plan->rows = (MemoryRow*)host_resize(plan->rows, plan->capacity * sizeof(MemoryRow), "the memory plan");
    }
    MemoryRow* row = &plan->rows[plan->n_rows++];
    va_list args;
    va_start(args, name);
    vsnprintf(row->name, sizeof row->name, name, args);
    va_end(args);
    row->class_id = class_id;
    row->bytes = bytes;
    row->pointer = pointer;
    if (pointer) *pointer = NULL;
    plan->bytes[class_id] += aligned(bytes);
}

size_t memory_total(const MemoryPlan* plan) {
    size_t total = 0;
    for (int c = 0; c < N_MEMORY_CLASSES; c++) total += plan->bytes[c];
    return total;
}

void memory_print(const MemoryPlan* plan, FILE* out) {
    fprintf(out, "| memory         |          MiB |\n|----------------|--------------|\n");
    for (int c = 0; c < N_MEMORY_CLASSES; c++)
        if (plan->bytes[c]) fprintf(out, "| %-14s | %12.2f |\n", classes[c].name, plan->bytes[c] / 1048576.0);
    fprintf(out, "| %-14s | %12.2f |\n", "total", memory_total(plan) / 1048576.0);
}

// The largest buffer of a class: what to name when the class does not fit.
static const MemoryRow* largest_row(const MemoryPlan* plan, MemoryClass class_id) {
    const MemoryRow* largest = NULL;
    for (int i = 0; i < plan->n_rows; i++)
        if (plan->rows[i].class_id == class_id && (!largest || plan->rows[i].bytes > largest->bytes))
            largest = &plan->rows[i];
    return largest;
}

void memory_allocate(MemoryPlan* plan) {
    device_require();
    for (int c = 0; c < N_MEMORY_CLASSES; c++) {
        size_t bytes = plan->bytes[c];
        for (int i = 0; i < plan->n_rows; i++)
            if (plan->rows[i].class_id == c && !plan->rows[i].pointer) bytes -= aligned(plan->rows[i].bytes);
        if (!bytes) continue;
        if (cudaMalloc(&plan->base[c], bytes) != cudaSuccess) {
            size_t free_bytes = 0, total_bytes = 0;
            cudaMemGetInfo(&free_bytes, &total_bytes);
            const MemoryRow* row = largest_row(plan, (MemoryClass)c);
            fatal(
                "out of device memory: %s need %.1f MiB (largest: %s, %.1f MiB), %.1f of %.1f MiB are free; lower "
                "--tokens or use --recompute",
                classes[c].name, plan->bytes[c] / 1048576.0, row->name, row->bytes / 1048576.0, free_bytes / 1048576.0,
                total_bytes / 1048576.0);
        }
        if (classes[c].zero) cudaCheck(cudaMemset(plan->base[c], 0, bytes));
    }
    size_t used[N_MEMORY_CLASSES] = {0};
    for (int i = 0; i < plan->n_rows; i++) {
        MemoryRow* row = &plan->rows[i];
        if (!row->bytes || !row->pointer) continue;
        *row->pointer = (char*)plan->base[row->class_id] + used[row->class_id];
        used[row->class_id] += aligned(row->bytes);
    }
}

void memory_free(MemoryPlan* plan) {
    for (int c = 0; c < N_MEMORY_CLASSES; c++)
        if (plan->base[c]) cudaCheck(cudaFree(plan->base[c]));
    free(plan->rows);
    memset(plan, 0, sizeof *plan);
}
