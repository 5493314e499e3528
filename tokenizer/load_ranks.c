#include "tokenizer_internal.h"
bool load_vocab_and_merges(Tokenizer* t, const char* a, const char* b, size_t n, const char* c, const char* d, ErrorBuffer error) { (void)t;(void)a;(void)b;(void)n;(void)c;(void)d; return tok_error(error, "%s: not yet", a); }
bool load_tiktoken(Tokenizer* t, const char* a, const char* b, size_t n, ErrorBuffer error) { (void)t;(void)a;(void)b;(void)n; return tok_error(error, "%s: not yet", a); }
bool load_sentencepiece(Tokenizer* t, const char* a, const char* b, size_t n, ErrorBuffer error) { (void)t;(void)a;(void)b;(void)n; return tok_error(error, "%s: not yet", a); }
