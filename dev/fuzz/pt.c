/* seal/commands/pt_reader.c. Input: a .pt file. */
#include <string.h>
#include "fuzz.h"
#include "commands/pt_reader.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    char why[256] = "";
    int64_t count = -1;
    float* values = pt_parse(data, n, &count, why, sizeof why);
    if (values) {
        volatile float sum = 0;
        MUST(count >= 0);
        for (int64_t i = 0; i < count; i++) sum += values[i];
    } else {
        MUST(*why && !strchr(why, '\n'));
    }
    free(values);
    return 0;
}
