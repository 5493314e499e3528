/* tokenizer.json. Input: the file. */
#include "tokenizer_check.h"
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    if (n && data[0] != '{') return -1;  // the other formats have targets of their own
    return check_file("tokenizer.json", data, n);
}
