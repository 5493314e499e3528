/*
Switching stacks: save the callee-saved registers, exchange stack pointers, restore. About 4 ns; x86-64 and aarch64
System V, and ucontext, at a system call a switch, for any other CPU or with -DCPU_UCONTEXT.
*/
#ifndef CPU_SWITCH_H
#define CPU_SWITCH_H

#include <stdint.h>
#include <string.h>

// Saves this stack's state below its top, stores where in *save, and continues with the state `load`.

extern "C" void cpu_switch(void** save, void* load);
#if defined(CPU_UCONTEXT) || !(defined(__x86_64__) || defined(__aarch64__))
#include <ucontext.h>
extern "C" void cpu_switch(void** save, void* load) {
    ucontext_t here;  // lives on the stack that is left, as the registers do in the other variants
    *save = &here;
    swapcontext(&here, (ucontext_t*)load);
}
static void* fresh_stack(char* top, void (*entry)(void)) {
    ucontext_t* fresh = (ucontext_t*)((uintptr_t)(top - sizeof(ucontext_t)) & ~(uintptr_t)63);
    getcontext(fresh);
    fresh->uc_link = NULL;
    fresh->uc_stack.ss_size = 16384;  // only its end matters
    fresh->uc_stack.ss_sp = (char*)fresh - 16384;
    makecontext(fresh, entry, 0);
    return fresh;
}
#elif defined(__x86_64__)
asm(R"(
.text
.type cpu_switch,@function
.globl cpu_switch
cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmpq *%rcx
.size cpu_switch,.-cpu_switch
)");
static void* fresh_stack(char* top, void (*entry)(void)) {
    void** sp = (void**)((uintptr_t)top & ~(uintptr_t)15);
    *--sp = NULL;          // where entry's return address would be: rsp % 16 = 8 at its first instruction
    *--sp = (void*)entry;  // popped into rcx
    for (int i = 0; i < 6; i++) *--sp = NULL;
    return sp;
}
#else
asm(R"(
.text
.type cpu_switch,%function
.globl cpu_switch
cpu_switch:
    sub sp, sp, #176
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #176
    ret
.size cpu_switch,.-cpu_switch
)");
static void* fresh_stack(char* top, void (*entry)(void)) {
    char* sp = (char*)((uintptr_t)top & ~(uintptr_t)15) - 176;
    memset(sp, 0, 176);
    *(void**)(sp + 88) = (void*)entry;  // x30
    return sp;
}
#endif

#endif
