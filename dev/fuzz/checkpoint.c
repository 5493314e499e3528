/* seal/run/checkpoint.c and run_record.c. Input: a byte of mode, two bytes n, run.json (n bytes), rank-0.safetensors.
   Mode 1: the sums that a writer would have left, so that what comes after them is reached; mode 0: rank-0.sha256 takes
   the place of the tensors. */
#include <string.h>
#include <sys/stat.h>
#include "run/checkpoint.h"
#include "fuzz.h"
#include "run/run_record.h"

static Checkpoint c;
static RunRecord record;

static void body(void* run) {
    float values[64];
    if (!checkpoint_any(run) || !checkpoint_open(&c, run, -1)) return;
    MUST(c.ranks >= 1 && c.step == 7);
    checkpoint_integer(&c, "step");
    checkpoint_number(&c, "loss");
    record_check(&record, &c);
    checkpoint_read(&c, "theta.m", 64, 0, 64, values);
    checkpoint_read(&c, "theta.m", 64, 13, 5, values);
    checkpoint_close(&c);
}

static void put(const char* name, const void* data, size_t n) {
    char path[256];
    snprintf(path, sizeof path, "run/checkpoint/step-7/%s", name);
    fuzz_file(path, data, n);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    static const char* const folders[] = {"run", "run/checkpoint", "run/checkpoint/step-7"};
    char path[256], sums[512];
    Hex hex;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", fuzz_directory(), folders[i]);
        mkdir(path, 0700);
    }
    if (n < 3) return 0;
    size_t json = data[1] | (size_t)data[2] << 8;
    if (json > n - 3) json = n - 3;
    const uint8_t* tensors = data + 3 + json;
    size_t rest = n - 3 - json;
    put("run.json", data + 3, json);
    put("rank-0.safetensors", tensors, rest);
    sha256_hex(tensors, rest, hex);
    int at = snprintf(sums, sizeof sums, "%s  rank-0.safetensors\n", hex);
    sha256_hex(data + 3, json, hex);
    at += snprintf(sums + at, sizeof sums - (size_t)at, "%s  run.json\n", hex);
    if (data[0] & 1) put("rank-0.sha256", sums, (size_t)at);
    else put("rank-0.sha256", tensors, rest);
    memset(&c, 0, sizeof c);
    memset(&record, 0, sizeof record);
    record.command = "sft";
    record.options = (char*)"{\"lr\":1e-05,\"batch\":64,\"tune\":[\"a\",\"b\"],\"quiet\":true}";
    record_fact(&record, "tune data", "0123456789abcdef");
    snprintf(path, sizeof path, "%s/run", fuzz_directory());
    if (!survive(body, path)) fuzz_unmap();
    return 0;
}
