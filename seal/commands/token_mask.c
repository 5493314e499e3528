/* See token_mask.h. */
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/safetensors.h"
#include "base/text.h"
#include "commands/token_mask.h"

void token_mask_write(const TokenMask* m, const char* path) {
    StWriter w;
    const int64_t ends = m->n + 1, tokens = m->start[m->n];
    st_create(&w, path);
    st_set_metadata(&w, "format", "seal token mask");
    st_set_metadata(&w, "digest", m->digest);
    st_set_metadata(&w, "tokenizer", m->tokenizer);
    st_set_metadata(&w, "chat_template", m->chat);
    st_declare(&w, "row", ST_I64, 1, &m->n);
    st_declare(&w, "text_hash", ST_I64, 1, &m->n);
    st_declare(&w, "start", ST_I64, 1, &ends);
    st_declare(&w, "keep", ST_U8, 1, &tokens);
    st_write(&w, m->rows, (size_t)m->n * sizeof *m->rows);
    st_write(&w, m->hashes, (size_t)m->n * sizeof *m->hashes);
    st_write(&w, m->start, (size_t)ends * sizeof *m->start);
    st_write(&w, m->keep, (size_t)tokens);
    st_commit(&w);
}

static const char* text_of(const StReader* r, const char* key) {
    const char* text = st_metadata(r, key);
    return text ? text : "";
}

void token_mask_read(TokenMask* m, const char* path) {
    StReader r;
    st_open(&r, path);
    if (strcmp(text_of(&r, "format"), "seal token mask")) fatal("%s is not a mask of tokens", path);
    m->n = st_need(&r, "row")->count;
    const int64_t tokens = st_need(&r, "keep")->count;
    m->rows = host_alloc((size_t)m->n * sizeof *m->rows, "a mask of tokens");
    m->hashes = host_alloc((size_t)m->n * sizeof *m->hashes, "a mask of tokens");
    m->start = host_alloc(((size_t)m->n + 1) * sizeof *m->start, "a mask of tokens");
    m->keep = host_alloc((size_t)tokens, "a mask of tokens");
    st_copy(&r, "row", ST_I64, m->n, m->rows);
    st_copy(&r, "text_hash", ST_I64, m->n, m->hashes);
    st_copy(&r, "start", ST_I64, m->n + 1, m->start);
    st_copy(&r, "keep", ST_U8, tokens, m->keep);
    snprintf(m->digest, sizeof m->digest, "%s", text_of(&r, "digest"));
    snprintf(m->tokenizer, sizeof m->tokenizer, "%s", text_of(&r, "tokenizer"));
    snprintf(m->chat, sizeof m->chat, "%s", text_of(&r, "chat_template"));
    if (m->start[0] || m->start[m->n] != tokens) fatal("%s is damaged: its tensors start and keep do not match", path);
    for (int64_t i = 0; i < m->n; i++)
        if (m->start[i + 1] < m->start[i])
            fatal("%s is damaged: its tensor start decreases at row %lld", path, (long long)i);
    for (int64_t i = 0; i < tokens; i++)
        if (m->keep[i] > 1) fatal("%s is damaged: its tensor keep has a %d; expected 0 or 1", path, m->keep[i]);
    st_close(&r);
}

void token_mask_free(TokenMask* m) {
    free(m->rows);
    free(m->hashes);
    free(m->start);
    free(m->keep);
}

uint8_t* token_mask_apply(const char* path, TokenSet* set, const char* tokenizer) {
    TokenMask m = {0};
    token_mask_read(&m, path);
    if (strcmp(m.digest, set->digest))
        fatal("%s was made for other rows (sha256 %.12s) than those of --tune (%.12s)", path, m.digest, set->digest);
    if (strcmp(m.tokenizer, tokenizer)) fatal("%s was made with another tokenizer than --model's", path);
    if (strcmp(m.chat, set->chat_digest)) fatal("%s was made with another chat template than this run's", path);
    uint8_t* flags = host_alloc((size_t)set->n_tokens + 1, "the tokens that carry loss");
    uint8_t* to = flags;
    int64_t k = 0;
    set->n_loss = 0;
    for (int i = 0; i < set->n; i++) {
        PackSample* s = &set->samples[i];
        while (k < m.n && m.rows[k] < set->rows[i]) k++;
        if (k == m.n || m.rows[k] != set->rows[i] || m.hashes[k] != set->hashes[i])
            fatal("%s does not have row %lld of --tune", path, (long long)set->rows[i]);
        if (m.start[k + 1] - m.start[k] != s->n_loss)
            fatal(
                "%s: row %lld has %lld tokens that carry loss but %d here; give the --max-length, --loss-on and "
                "--compat that it was made with",
                path, (long long)set->rows[i], (long long)(m.start[k + 1] - m.start[k]), s->n_loss);
        const uint8_t* keep = m.keep + m.start[k];
        s->n_loss = 0;
        for (int t = 0; t < s->length; t++) {
            bool bears = t > 0 && (!s->bears_loss || s->bears_loss[t]);
            to[t] = bears ? *keep++ : 0;
            s->n_loss += to[t];
        }
        if (!s->n_loss) fatal("%s drops every token of row %lld", path, (long long)set->rows[i]);
        set->n_loss += s->n_loss;
        s->bears_loss = to;
        to += s->length;
    }
    token_mask_free(&m);
    return flags;
}
