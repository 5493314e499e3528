/* Characters: UTF-8 both ways, without trusting the bytes, and the two classes of characters that the formats' own
   libraries use (Rust's and Oniguruma's \s and \w, which differ from PCRE2's). */
#include "tokenizer_internal.h"
#include "unicode_table.h"

int utf8_length(const char* s, int64_t n) {
    int32_t codepoint;
    int length = utf8_decode(s, n, &codepoint);
    return codepoint < 0 ? 0 : length;
}

int utf8_decode(const char* s, int64_t n, int32_t* codepoint) {
    const unsigned char* u = (const unsigned char*)s;
    if (u[0] < 0x80) {
        *codepoint = u[0];
        return 1;
    }
    *codepoint = -1;
    int length = u[0] >= 0xF0 ? 4 : u[0] >= 0xE0 ? 3 : 2;
    if (u[0] < 0xC2 || u[0] > 0xF4 || length > n) return 1;
    int32_t c = u[0] & (0x7F >> length);
    for (int i = 1; i < length; i++) {
        if ((u[i] & 0xC0) != 0x80) return 1;
        c = c << 6 | (u[i] & 0x3F);
    }
    static const int32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < least[length] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 1;  // overlong, too large, surrogate
    *codepoint = c;
    return length;
}

int32_t utf8_stretch(const char* s, int32_t n, int32_t from, bool* valid) {
    int32_t at = from, c;
    *valid = utf8_length(s + from, n - from) > 0;
    while (at < n) {
        uint64_t eight;
        while (*valid && at + 8 <= n && (memcpy(&eight, s + at, 8), !(eight & 0x8080808080808080u)))
            at += 8;  // most text is ASCII
        if (at == n) break;
        int length = utf8_decode(s + at, n - at, &c);
        if ((c >= 0) != *valid) break;
        at += length;
    }
    return at;
}

int32_t character_before(const char* s, int32_t end, int32_t least) {
    int32_t at = end - 1;
    while (at > least && end - at < 4 && ((unsigned char)s[at] & 0xC0) == 0x80) at--;
    return at;
}

int utf8_encode(int32_t c, char* out) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (c & 0x3F));
        c >>= 6;
    }
    out[0] = (char)((0xF00 >> length & 0xF0) | c);
    return length;
}

bool in_ranges(int32_t c, const CharacterRange* ranges, size_t n) {
    size_t low = 0, high = n;  // the first range that ends at c or after it
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (ranges[middle].last < c) low = middle + 1;
        else high = middle;
    }
    return low < n && ranges[low].first <= c;
}

int character_category(int32_t c) {
    size_t low = 0, high = sizeof characters / sizeof *characters;  // the last stretch that begins at c or before it
    while (low + 1 < high) {
        size_t middle = (low + high) / 2;
        if ((int32_t)(characters[middle] >> 8) <= c) low = middle;
        else high = middle;
    }
    return (int)(characters[low] & 63);
}

bool is_white_space(int32_t c) {
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word(int32_t c) {
    if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
    switch (character_category(c)) {
        case CATEGORY_LU:
        case CATEGORY_LL:
        case CATEGORY_LT:
        case CATEGORY_LM:
        case CATEGORY_LO:
        case CATEGORY_MN:
        case CATEGORY_MC:
        case CATEGORY_ME:
        case CATEGORY_ND:
        case CATEGORY_NL:
        case CATEGORY_PC: return true;
        default: return in_ranges(c, more_rust_words, sizeof more_rust_words / sizeof *more_rust_words);
    }
}
