/* Runs the target on the files named, once each, without a fuzzer: the regression test, and the way to step through a
 * finding in gdb. */
#include <string.h>
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n);

int main(int argc, char** argv) {
    for (int i = 1; i < argc; i++) {
        FILE* f = fopen(argv[i], "rb");
        MUST(f);
        uint8_t* data = malloc(1 << 20);
        size_t n = fread(data, 1, 1 << 20, f);
        fclose(f);
        uint8_t* exact = malloc(n ? n : 1);  // so that a read beyond the end is seen
        memcpy(exact, data, n);
        free(data);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
        printf("ok %s\n", argv[i]);
        fflush(stdout);
    }
    return 0;
}
