/*
The memory plan: every device buffer is a row {class, name, bytes, where its pointer goes}. The plan is printed before
anything is allocated (`--dry-run` stops there). Then each class becomes ONE cudaMalloc, and the pointers are handed
out.
*/
#ifndef SEAL_MEMORY_H
#define SEAL_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum {
    MEMORY_WEIGHTS,      // parameters as the model reads them, floatX
    MEMORY_GRADIENTS,    // of parameters, fp32
    MEMORY_MASTER,       // fp32 master weights (bf16 build)
    MEMORY_ADAM_M,       // fp32
    MEMORY_ADAM_V,       // fp32
    MEMORY_ACTIVATIONS,  // kept from forward to backward
    MEMORY_SCRATCH,      // reused across layers, packs and steps
    MEMORY_PACK,         // token ids, positions, indices of the packs in flight
    MEMORY_SELECTOR,     // ω, its gradient and moments
    MEMORY_CACHE,        // keys and values of texts that are being generated
    N_MEMORY_CLASSES
} MemoryClass;

typedef struct {
    MemoryClass class_id;
    char name[48];
    size_t bytes;
    void** pointer;  // receives the address at memory_allocate; NULL: counted here, allocated by its owner
} MemoryRow;

typedef struct {
    MemoryRow* rows;
    int n_rows, capacity;
    void* base[N_MEMORY_CLASSES];  // device
    size_t bytes[N_MEMORY_CLASSES];
} MemoryPlan;

#define MEMORY_ALIGNMENT 256  // bytes; every buffer begins on such a boundary

// Adds a buffer; 0 bytes leaves the pointer NULL, so that a disabled buffer faults. pointer NULL: the buffer is only
// counted. The name is printf-style.
#define memory_add(plan, class_id, pointer, ...) memory_add_buffer(plan, class_id, (void**)(pointer), __VA_ARGS__)
__attribute__((format(printf, 5, 6))) void memory_add_buffer(MemoryPlan* plan, MemoryClass class_id, void** pointer,
                                                             size_t bytes, const char* name, ...);
size_t memory_total(const MemoryPlan* plan);
// The table of bytes by class, as Markdown.
void memory_print(const MemoryPlan* plan, FILE* out);
// One cudaMalloc per class; gradients, moments and selector start as zero bytes. Too little memory ends the program
// with one line: the class that did not fit, the bytes it needs, and the bytes that are free.
void memory_allocate(MemoryPlan* plan);
void memory_free(MemoryPlan* plan);

#endif
