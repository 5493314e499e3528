/* Encoding: any text through a tokenizer of every style. Input: a byte for the tokenizer, then the text. Runs in the
 * project's folder. */
#include "tokenizer_check.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    static const char* const names[] = {"gpt2_style.json",         "neox_style.json",        "llama3_style.json",
                                        "prefix_style.json",       "llama2_style.json",      "mistral_style.json",
                                        "normal_forms_style.json", "word_level_style.json",  "ranks.model",
                                        "sentence_fallback.model", "sentence_unknown.model", "sentence_plain.model"};
    enum { N = sizeof names / sizeof *names };
    static Tokenizer* tokenizers[N];
    static Encoding e;  // one for all: moving between tokenizers is part of the game
    char path[128], error[300];
    if (!n) return -1;
    const int i = data[0] % N;
    if (!tokenizers[i]) {
        snprintf(path, sizeof path, "dev/reference/golden/tokenizers/%s.gz", names[i]);
        tokenizers[i] = tokenizer_open(path, error, sizeof error);
        MUST(tokenizers[i]);
    }
    check_text(tokenizers[i], (const char*)data + 1, n - 1, 0, &e);
    check_text(tokenizers[i], (const char*)data + 1, n - 1, TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &e);
    return 0;
}
