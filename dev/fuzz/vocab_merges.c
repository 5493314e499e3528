/* encoder.json + vocab.bpe, as a directory with the files beside. Input: up to three files with zero bytes between:
 * vocabulary, merges, tokenizer_config.json. */
#include <string.h>
#include <unistd.h>
#include "tokenizer_check.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    static const char* const names[] = {"encoder.json", "vocab.bpe", "tokenizer_config.json"};
    char error[300] = "";
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        const uint8_t* zero = i < 2 && at < n ? memchr(data + at, 0, n - at) : NULL;
        size_t end = zero ? (size_t)(zero - data) : n;
        const char* path = fuzz_file(names[i], data + at, end - at);
        if (i == 2 && end == at) unlink(path);
        at = zero ? end + 1 : n;
    }
    Tokenizer* t = tokenizer_open(fuzz_directory(), error, sizeof error);
    if (t) check_tokenizer(t, data, n);
    else check_one_line(error);
    tokenizer_close(t);
    return 0;
}
