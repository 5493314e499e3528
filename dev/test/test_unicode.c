/*
Characters: what `tokenizers` said about 64,000 of them in every part of a tokenizer.json that depends on what a
character is (dev/reference/record_unicode.py), whatever PCRE2 and utf8proc are here; and the ways in which a class is
spelled for PCRE2s of several ages, against each other and the table.
*/
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/evp.h>
#include "base/text.h"
#include "check.h"
#include "tokenizer_internal.h"
#include "unicode_table.h"

#define GOLDEN "dev/reference/golden/tokenizers/unicode.txt"

static const int32_t stretches[][2] = {  // record_unicode.py's
    {0, 0x3500},        {0x4D00, 0x4F00},    {0x9F00, 0xAD00},   {0xD700, 0xD800},   {0xE000, 0xE100},
    {0xF800, 0x17100},  {0x18C00, 0x20000},  {0x2A600, 0x2A800}, {0x2B700, 0x2B900}, {0x2CE00, 0x2CF00},
    {0x2EB00, 0x2EF00}, {0x2F800, 0x2FB00},  {0x30000, 0x30100}, {0x31300, 0x31400}, {0x32300, 0x32400},
    {0xE0000, 0xE0200}, {0x10FF00, 0x110000}};

static bool begins_character(const char* text, int32_t n, int32_t i) {
    return i <= 0 || i >= n || ((unsigned char)text[i] & 0xC0) != 0x80;
}

// Ids and offsets of the shape with each character in place of @, hashed. A token that is a part of a character covers
// the whole of it for `tokenizers`.
static bool digest_part(const Tokenizer* t, const char* shape, Hex hex) {
    EVP_MD_CTX* sha = EVP_MD_CTX_new();
    Encoding e = {0};
    bool good = EVP_DigestInit_ex(sha, EVP_sha256(), NULL) == 1;
    for (size_t s = 0; s < sizeof stretches / sizeof *stretches; s++)
        for (int32_t c = stretches[s][0]; c < stretches[s][1] && good; c++) {
            char text[128], character[4];
            int32_t n = 0;
            const int length = utf8_encode(c, character);
            for (const char* p = shape; *p; p++) {
                if (*p == '@') {
                    memcpy(text + n, character, (size_t)length);
                    n += length;
                } else text[n++] = *p;
            }
            good = tokenizer_encode(t, text, (size_t)n, TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &e) >= 0;
            for (int64_t i = 0; i < e.n; i++) {
                int32_t start = (int32_t)e.start[i], end = (int32_t)e.end[i];
                while (start < end && !begins_character(text, n, start)) start--;
                while (start < end && !begins_character(text, n, end)) end++;
                const int32_t row[3] = {e.ids[i], start, end};
                EVP_DigestUpdate(sha, row, sizeof row);
            }
            const int32_t stop = -1;
            EVP_DigestUpdate(sha, &stop, sizeof stop);
        }
    unsigned char bytes[32];
    EVP_DigestFinal_ex(sha, bytes, NULL);
    hex_of(bytes, hex);
    EVP_MD_CTX_free(sha);
    encoding_free(&e);
    return good;
}

static void test_parts(void) {
    FILE* f = fopen(GOLDEN, "r");
    if (!check(f != NULL, "%s is there", GOLDEN)) return;
    char *line = NULL, error[512], path[] = "/tmp/unicode-XXXXXX/tokenizer.json";
    size_t room = 0;
    char* slash = strrchr(path, '/');
    *slash = 0;
    if (!check(mkdtemp(path) != NULL, "a folder")) return;
    int n = 0;
    while (getline(&line, &room, f) > 0) {
        char *rest = line, *digest = strsep(&rest, "\t"), *shape = strsep(&rest, "\t"), *name = strsep(&rest, "\t");
        *slash = '/';
        FILE* out = fopen(path, "w");
        fputs(rest, out);
        fclose(out);
        Tokenizer* t = tokenizer_open(path, error, sizeof error);
        Hex hex = "";
        bool good = t && digest_part(t, shape, hex);
        check(good && !strcmp(hex, digest), "%s: ids and offsets as recorded%s%s", name, t ? "" : ": ", t ? "" : error);
        tokenizer_close(t);
        unlink(path);
        *slash = 0;
        n++;
    }
    rmdir(path);
    check(n >= 15, "%d parts", n);
    free(line);
    fclose(f);
}

// ---- spellings -------------------------------------------------------------------------------------

// Not the surrogates, and of the planes that are all but empty every 61st.
static int32_t next_character(int32_t c) {
    return c == 0xD7FF ? 0xE000 : c < 0x33000 || (c >= 0xE0000 && c < 0xE0200) ? c + 1 : c + 61;
}

static unsigned char* matched(const char* regex, int unicode) {
    char why[400] = "";
    Pattern p = {0};
    pattern_unicode = unicode;
    bool good = pattern_compile(&p, regex, REGEX_RUBY, (ErrorBuffer){why, sizeof why});
    pattern_unicode = 0;
    if (!good) {
        check(false, "%s compiles for Unicode %d: %s", regex, unicode, why);
        return NULL;
    }
    unsigned char* out = calloc(0x110000, 1);
    pcre2_match_data* match = pcre2_match_data_create(4, NULL);
    for (int32_t c = 0; c < 0x110000; c = next_character(c)) {
        char text[4];
        out[c] = pcre2_match(p.code, (PCRE2_SPTR)text, (PCRE2_SIZE)utf8_encode(c, text), 0, PCRE2_NO_UTF_CHECK, match,
                             NULL) > 0;
    }
    pcre2_match_data_free(match);
    pattern_free(&p);
    return out;
}

static bool any(int category) { return category >= 0; }
static bool letter(int k) { return k >= CATEGORY_LU && k <= CATEGORY_LO; }
static bool upper(int k) { return k == CATEGORY_LU || k == CATEGORY_LT; }
static bool number(int k) { return k >= CATEGORY_ND && k <= CATEGORY_NO; }
static bool decimal(int k) { return k == CATEGORY_ND; }
static bool mark(int k) { return k >= CATEGORY_MN && k <= CATEGORY_ME; }
static bool sign(int k) { return k >= CATEGORY_PC && k <= CATEGORY_SO; }
static bool unassigned(int k) { return k == CATEGORY_CN; }

static void test_spellings(void) {
    static const struct {
        const char* regex;
        bool (*category)(int);
        bool opposite;
    } rows[] = {
        {"\\p{L}", letter, false},
        {"\\pL", letter, false},
        {"[\\p{L}]", letter, false},
        {"[^\\p{L}]", letter, true},
        {"\\P{L}", letter, true},
        {"\\p{^L}", letter, true},
        {"[\\P{L}]", letter, true},
        {"[^\\P{L}]", letter, false},
        {"[\\p{Lu}\\p{Lt}]", upper, false},
        {"\\p{N}", number, false},
        {"\\d", decimal, false},
        {"[\\D]", decimal, true},
        {"\\p{M}", mark, false},
        {"[\\p{P}\\p{S}]", sign, false},
        {"\\p{Cn}", unassigned, false},
        {"[\\s\\S]", any, false},
        {"[\\w\\W]", any, false},
        {"\\w|\\W", any, false},
        {"\\w", NULL, false},
        {"\\s", NULL, false},
        {"\\p{Han}", NULL, false},
        {"\\p{RustWord}", NULL, false},
        {"[^\\s\\p{L}\\p{N}]", NULL, false},
    };
    char version[64] = "";
    pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
    // PCRE2 may be told that it is older than it is, not that it is younger; the last one has every range written
    const int older = atoi(version) <= CHARACTERS_UNICODE ? 13 : 0, newer = CHARACTERS_UNICODE + 1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned char *here = matched(rows[i].regex, 0), *old = matched(rows[i].regex, older),
                      *ranges = matched(rows[i].regex, newer);
        int differ = 0;
        for (int32_t c = 0; here && old && ranges && c < 0x110000; c = next_character(c)) {
            differ += here[c] != old[c] || here[c] != ranges[c] ||
                      (rows[i].category && here[c] == (rows[i].category(character_category(c)) == rows[i].opposite));
        }
        check(here && old && ranges && !differ,
              "%s is the same for Unicode %s, 13 and later than the table's (%d characters differ)", rows[i].regex,
              version, differ);
        free(here);
        free(old);
        free(ranges);
    }
}

int main(void) {
    test_spellings();
    test_parts();
    return check_report();
}
