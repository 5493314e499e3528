/* tiktoken ranks. Input: the file; a line for every byte is put after it, with ranks from 500 on, because a file
 * without them is refused early. */
#include <string.h>
#include "tokenizer_check.h"

static size_t base64_of_byte(int byte, char* out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out[0] = digits[byte >> 2];
    out[1] = digits[(byte & 3) << 4];
    memcpy(out + 2, "==", 2);
    return 4;
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    if (n && (data[0] == '{' || data[0] == 10)) return -1;
    check_file("tokenizer.model", data, n);
    char* whole = malloc(n + 256 * 16);
    size_t at = n;
    memcpy(whole, data, n);
    for (int byte = 0; byte < 256; byte++) {
        at += base64_of_byte(byte, whole + at);
        at += (size_t)sprintf(whole + at, " %d\n", byte + 500);
    }
    check_file("tokenizer.model", (const uint8_t*)whole, at);
    free(whole);
    return 0;
}
