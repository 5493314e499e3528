/* A tokenizer.json with the files that transformers reads beside it. Input: up to four files with zero bytes between:
 * tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json. */
#include <string.h>
#include <unistd.h>
#include "tokenizer_check.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    static const char* const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "added_tokens.json"};
    enum { N = sizeof names / sizeof *names };
    char error[600] = "";
    size_t at = 0;
    if (n && data[0] != '{') return -1;
    for (int i = 0; i < N; i++) {
        const uint8_t* zero = i + 1 < N && at < n ? memchr(data + at, 0, n - at) : NULL;
        size_t end = zero ? (size_t)(zero - data) : n;
        const char* path = fuzz_file(names[i], data + at, end - at);
        if (i && end == at) unlink(path);
        at = zero ? end + 1 : n;
    }
    Tokenizer* t = tokenizer_open(fuzz_directory(), error, sizeof error);
    if (t) {
        for (int i = 0; tokenizer_note(t, i); i++) check_one_line(tokenizer_note(t, i));
        check_tokenizer(t, data, n);
    } else {
        check_one_line(error);
    }
    tokenizer_close(t);
    return 0;
}
