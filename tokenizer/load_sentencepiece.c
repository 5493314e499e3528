/*
sentencepiece's tokenizer.model: a protobuf of pieces with scores, how it was trained and how it normalises. BPE models
only: two symbols merge when together they are a piece, the highest score first. The few fields that matter are read by
number; the rest is skipped.
*/
#include <math.h>
#include <stdlib.h>
#include "tokenizer_internal.h"

// ---- protobuf --------------------------------------------------------------------------------------

typedef struct {
    const unsigned char *at, *end;
    bool bad;
} Wire;
typedef struct {
    uint32_t number;
    int type;
    uint64_t value;
    Wire bytes;
} Field;  // type 0 varint, 1 eight bytes, 2 bytes, 5 four bytes

static uint64_t varint(Wire* w) {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (w->at == w->end) break;
        unsigned char b = *w->at++;
        v |= (uint64_t)(b & 0x7F) << shift;
        if (!(b & 0x80)) return v;
    }
    w->bad = true;
    return 0;
}

static bool next_field(Wire* w, Field* f) {
    if (w->at == w->end || w->bad) return false;
    uint64_t key = varint(w), n = 0;
    *f = (Field){.number = (uint32_t)(key >> 3), .type = (int)(key & 7)};
    if (f->type == 0) f->value = varint(w);
    else if (f->type == 1) n = 8;
    else if (f->type == 2) n = varint(w);
    else if (f->type == 5) n = 4;
    else w->bad = true;
    if (w->bad || n > (uint64_t)(w->end - w->at)) {
        w->bad = true;
        return false;
    }
    f->bytes = (Wire){w->at, w->at + n, false};
    w->at += n;
    return true;
}

static size_t field_length(const Field* f) { return (size_t)(f->bytes.end - f->bytes.at); }

// ---- the model -------------------------------------------------------------------------------------

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };
enum { UNIGRAM = 1, BPE, WORD, CHAR };

typedef struct {
    Tokenizer* t;
    const char* file;
    ErrorBuffer error;
    float* score;   // stb_ds, by id
    uint8_t* type;  // stb_ds, by id
    uint64_t model;
    bool suffix;  // treat_whitespace_as_suffix
    char bos[64], eos[64];
    Normalize step;
} Model;

static bool read_piece(Model* m, Wire w) {
    Tokenizer* t = m->t;
    Field f, text = {0};
    float score = 0;
    uint64_t type = NORMAL;
    while (next_field(&w, &f)) {
        if (f.number == 1 && f.type == 2) text = f;
        if (f.number == 2 && f.type == 5) memcpy(&score, f.bytes.at, 4);
        if (f.number == 3 && f.type == 0) type = f.value;
    }
    int32_t id = t->n_vocab;
    const char* bytes = (const char*)text.bytes.at;
    size_t n = field_length(&text);
    if (n > MAX_PIECE)
        return tok_error(m->error, "%s: piece %d has %zu bytes; at most %d are supported", m->file, id, n, MAX_PIECE);
    if (w.bad || !n || !isfinite(score)) return tok_error(m->error, "%s: piece %d is damaged", m->file, id);
    if (type == UNUSED || type < NORMAL || type > BYTE)
        return tok_error(m->error, "%s: piece %d is of type %d, which is not supported", m->file, id, (int)type);
    if (!tokenizer_set_piece(t, id, bytes, n, m->file, m->error)) return false;
    arrput(m->score, score);
    arrput(m->type, (uint8_t)type);
    return true;
}

// What the types of the pieces mean to sentencepiece.
static void apply_types(Model* m) {
    Tokenizer* t = m->t;
    for (int32_t id = 0; id < t->n_vocab; id++) {
        const uint8_t type = m->type[id];
        if (type != NORMAL && type != USER_DEFINED) t->raw[id].at = NO_SPAN;
        if (type == CONTROL) t->special[id] = true;
        if (type == UNKNOWN) t->unk = id;
        if (type == UNKNOWN) t->out[id] = arena_put(t, " \xE2\x81\x87 ", 5);  // sentencepiece's unk_surface
        if (type == CONTROL || type == USER_DEFINED) {
            // User-defined pieces are found before anything merges; control pieces only where special text is asked
            // for.
            AddedToken a = {
                .id = id, .content = t->text[id], .special = type == CONTROL, .normalized = type == USER_DEFINED};
            tokenizer_add_token(t, a);
        }
    }
}

static bool read_trainer(Model* m, Wire w) {
    Field f;
    while (next_field(&w, &f)) {
        if (f.number == 3 && f.type == 0) m->model = f.value;
        if (f.number == 24 && f.type == 0) m->suffix = f.value;
        if (f.number == 35 && f.type == 0) m->t->byte_fallback = f.value;
        if (f.number == 46 && f.type == 2)
            snprintf(m->bos, sizeof m->bos, "%.*s", (int)field_length(&f) & 63, (const char*)f.bytes.at);
        if (f.number == 47 && f.type == 2)
            snprintf(m->eos, sizeof m->eos, "%.*s", (int)field_length(&f) & 63, (const char*)f.bytes.at);
    }
    return !w.bad || tok_error(m->error, "%s: the trainer's part is damaged", m->file);
}

static bool read_normalizer(Model* m, Wire w) {
    Field f, name = {0};
    bool charsmap = false;
    while (next_field(&w, &f)) {
        if (f.number == 1 && f.type == 2) name = f;
        if (f.number == 2 && f.type == 2) charsmap = field_length(&f) > 0;
        if (f.number == 3 && f.type == 0) m->step.left = f.value;
        if (f.number == 4 && f.type == 0) m->step.right = f.value;
        if (f.number == 5 && f.type == 0) m->step.escape = f.value;
    }
    if (w.bad) return tok_error(m->error, "%s: the normaliser's part is damaged", m->file);
    int n = (int)field_length(&name);
    return !charsmap || tok_error(m->error, "%s: the normaliser %.*s is not supported; expected identity", m->file,
                                  n < 40 ? n : 40, n ? (const char*)name.bytes.at : "");
}

static int descending(const void* a, const void* b) {
    float x = *(const float*)a, y = *(const float*)b;
    return (x < y) - (x > y);
}

// Equal scores are equal ranks: sentencepiece then merges the leftmost.
static uint32_t* ranks_of(const float* score, int32_t n) {
    float* sorted = tok_memory(malloc((size_t)n * sizeof *sorted));
    uint32_t* rank = tok_memory(malloc((size_t)n * sizeof *rank));
    memcpy(sorted, score, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, descending);
    for (int32_t i = 0; i < n; i++) {
        int32_t low = 0, high = n - 1;  // the first entry that is not larger
        while (low < high) {
            int32_t middle = (low + high) / 2;
            if (sorted[middle] > score[i]) low = middle + 1;
            else high = middle;
        }
        rank[i] = (uint32_t)low;
    }
    free(sorted);
    return rank;
}

// ---- as transformers converts it -------------------------------------------------------------------

typedef struct {
    float score;
    int32_t n_left, n_right, left, right, id, order;  // lengths in characters
} Candidate;

// generate_merges: highest score, then longest left, then longest right; what is equal in all stays in order.
static int by_merge_rank(const void* a, const void* b) {
    const Candidate *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    if (x->n_left != y->n_left) return x->n_left < y->n_left ? 1 : -1;
    if (x->n_right != y->n_right) return x->n_right < y->n_right ? 1 : -1;
    return x->order < y->order ? -1 : 1;
}

static int by_pair(const void* a, const void* b) {
    const Candidate *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

// Every pair of pieces that makes a third, whatever its type: transformers does not look at that.
static void merges_from_scores(Model* m) {
    Tokenizer* t = m->t;
    Candidate* all = NULL;
    for (int32_t id = 0; id < t->n_vocab; id++) {
        const char* bytes = t->arena + t->text[id].at;
        const int64_t n = t->text[id].n;
        int32_t c, length = 0, k = 0;
        const ptrdiff_t first = arrlen(all);
        for (int64_t at = 0; at < n; at += utf8_decode(bytes + at, n - at, &c)) length++;
        for (int64_t at = utf8_decode(bytes, n, &c); at < n; at += utf8_decode(bytes + at, n - at, &c)) {
            k++;
            Candidate x = {m->score[id], k, length - k, 0, 0, id, 0};
            x.left = piece_find(&t->by_text, t->text, t->arena, bytes, (uint32_t)at);
            x.right = x.left < 0 ? -1 : piece_find(&t->by_text, t->text, t->arena, bytes + at, (uint32_t)(n - at));
            if (x.right >= 0) arrput(all, x);
        }
        if (arrlen(all) > first) qsort(all + first, (size_t)(arrlen(all) - first), sizeof *all, by_pair);
    }
    for (ptrdiff_t i = 0; i < arrlen(all); i++) all[i].order = (int32_t)i;
    if (all) qsort(all, (size_t)arrlen(all), sizeof *all, by_merge_rank);
    merge_table_init(&t->merges, (uint32_t)arrlen(all));
    for (ptrdiff_t i = 0; i < arrlen(all); i++)
        merge_add(&t->merges, all[i].left, all[i].right, (uint32_t)i, all[i].id);
    arrfree(all);
}

static bool has_prefix(const Profile* p) {
    return p->class->convert != CONVERT_GEMMA && (p->prefix == PREFIX_MISSING || p->prefix == PREFIX_ON);
}

// The normaliser and pre-tokeniser of LlamaConverter and GemmaConverter.
static void put_converted_steps(Tokenizer* t, const Profile* p) {
    Normalize prepend = {.type = NORMALIZE_PREPEND, .content = strdup("\xE2\x96\x81")},
              replace = {.type = NORMALIZE_REPLACE, .content = strdup("\xE2\x96\x81")};
    Pretokenize metaspace = {.type = PRETOKENIZE_METASPACE}, split = {.type = PRETOKENIZE_SPLIT};
    replace.pattern.literal = strdup(" ");
    const bool gemma = p->class->convert == CONVERT_GEMMA, prefix = has_prefix(p);
    if (prefix && p->legacy) arrput(t->normalize, prepend);
    else free(prepend.content);
    if (gemma || p->legacy) {
        arrput(t->normalize, replace);
    } else {
        pattern_free(&replace.pattern);
        free(replace.content);
    }
    if (gemma) {
        split.pattern.literal = strdup(" ");
        split.behaviour = SPLIT_MERGED_WITH_PREVIOUS;
        arrput(t->pretokenize, split);
    } else if (!p->legacy) {
        metaspace.pattern.literal = strdup("\xE2\x96\x81");
        metaspace.scheme = prefix ? PREPEND_FIRST : PREPEND_NEVER;
        arrput(t->pretokenize, metaspace);
    }
}

// And their decoder.
static void put_converted_decoder(Tokenizer* t, const Profile* p) {
    replace_in_pieces(t, t->out, &(Pattern){.literal = (char*)"\xE2\x96\x81"}, " ");
    for (int32_t id = 0; id < t->n_vocab; id++) {
        char byte;
        if (t->text[id].at != NO_SPAN && byte_of_name(t->arena + t->text[id].at, t->text[id].n, &byte))
            t->out[id] = arena_put(t, &byte, 1);
    }
    if (has_prefix(p)) {
        DecodeStage strip = {.type = STAGE_STRIP, .pattern = strdup(" "), .n_pattern = 1, .start = 1};
        arrput(t->stages, strip);
    }
}

// "<0x09>" of Gemma's models is the tab itself, where there is no other.
static bool rename_tab(Model* m) {
    Tokenizer* t = m->t;
    int32_t id = tokenizer_id(t, "<0x09>");
    if (id < 0 || tokenizer_id(t, "\t") >= 0) return true;
    t->text[id] = t->raw[id] = t->out[id] = arena_put(t, "\t", 1);
    m->score[id] = 0;
    return piece_add(&t->by_text, t->text, t->arena, id);
}

static bool convert_model(Model* m, Profile* p) {
    Tokenizer* t = m->t;
    const bool gemma = p->class->convert == CONVERT_GEMMA;
    Encoding e = {0};
    bool good = !gemma || rename_tab(m);
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (id < 3) m->score[id] = 0;
        if (m->type[id] == UNKNOWN) t->unk = id;
    }
    if (t->unk < 0) return tok_error(m->error, "%s has no unknown piece", m->file);
    t->format = "sentencepiece, as transformers converts it";
    char steps[64];
    snprintf(steps, sizeof steps, "converted %d %d %d\n", gemma, p->legacy, (int)p->prefix);
    put_text(&t->changes, steps);
    t->default_flags = TOKENIZER_PARSE_SPECIAL;
    t->decode = DECODE_CONCATENATE;
    t->byte_fallback = t->fuse_unk = true;
    merges_from_scores(m);
    put_converted_steps(t, p);
    t->n_model = t->n_vocab;
    for (int32_t id = 0; good && id < t->n_model; id++) {
        const bool control = m->type[id] == CONTROL;
        if (!control && m->type[id] != USER_DEFINED) continue;
        char* content = strdup(t->arena + t->text[id].at);  // the arena may move
        ConfigToken token = {.content = content,
                             .special = control || (gemma && (!strcmp(content, "<start_of_turn>") ||
                                                              !strcmp(content, "<end_of_turn>")))};
        good = tokenizer_put_added(t, &token, -1, m->file, &e, m->error);
        free(content);
    }
    encoding_free(&e);
    if (!good || !profile_add_tokens(p, t, m->error)) return false;
    put_converted_decoder(t, p);
    return tokenizer_finish(t, m->file, m->error) && profile_finish(p, t, m->error);
}

static bool finish_model(Model* m, Profile* profile) {
    static const char* const names[] = {"unknown", "unigram", "BPE", "word", "char"};
    Tokenizer* t = m->t;
    if (m->model != BPE)
        return tok_error(m->error, "%s: a sentencepiece model of type %s is not supported; expected BPE", m->file,
                         names[m->model <= CHAR ? m->model : 0]);
    if (m->suffix) return tok_error(m->error, "%s: treat_whitespace_as_suffix is not supported", m->file);
    if (profile && profile->config &&
        (profile->class->convert == CONVERT_LLAMA || profile->class->convert == CONVERT_GEMMA))
        return convert_model(m, profile);
    apply_types(m);
    if (t->unk < 0) return tok_error(m->error, "%s has no unknown piece", m->file);
    for (int i = 0; i < 256 && t->byte_fallback; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        int32_t id = tokenizer_id(t, name);
        if (id < 0) return tok_error(m->error, "%s: byte_fallback is on but there is no piece %s", m->file, name);
        char c = (char)i;
        t->out[id] = arena_put(t, &c, 1);
    }
    t->format = "sentencepiece";
    t->decode = DECODE_SENTENCEPIECE;
    t->late_fallback = t->fuse_unk = true;
    t->strip_first = m->step.left || m->step.right;
    t->strip_until_text = m->step.right;
    replace_in_pieces(t, t->out, &(Pattern){.literal = (char*)"\xE2\x96\x81"}, " ");
    t->n_model = t->n_vocab;
    uint32_t* rank = ranks_of(m->score, t->n_vocab);
    merges_from_vocabulary(t, rank);
    free(rank);
    arrput(t->normalize, m->step);
    t->bos = tokenizer_id(t, m->bos);
    t->eos = tokenizer_id(t, m->eos);
    if (t->bos >= 0) arrput(t->prefix, t->bos);
    return profile_add_tokens(profile, t, m->error) && tokenizer_finish(t, m->file, m->error) &&
           profile_finish(profile, t, m->error);
}

bool load_sentencepiece(Tokenizer* t, const char* name, const char* data, size_t n, Profile* profile,
                        ErrorBuffer error) {
    Model m = {.t = t,
               .file = name,
               .error = error,
               .model = UNIGRAM,
               .bos = "<s>",
               .eos = "</s>",
               .step = {.type = NORMALIZE_SENTENCEPIECE, .left = true, .right = true, .escape = true}};
    Wire w = {(const unsigned char*)data, (const unsigned char*)data + n, false};
    Field f;
    bool good = true;
    while (good && next_field(&w, &f)) {
        if (f.type != 2) continue;
        if (f.number == 1) good = read_piece(&m, f.bytes);
        if (f.number == 2) good = read_trainer(&m, f.bytes);
        if (f.number == 3) good = read_normalizer(&m, f.bytes);
    }
    if (good && (w.bad || !t->n_vocab))
        good = tok_error(
            error, "%s is not a known kind of tokenizer (JSON, tiktoken ranks, sentencepiece), or it is truncated",
            name);
    good = good && finish_model(&m, profile);
    arrfree(m.score);
    arrfree(m.type);
    return good;
}
