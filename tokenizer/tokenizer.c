/* Opening and closing: finds the file and its format, runs the loader, derives the tables that follow from the others.
   And the small questions one asks a tokenizer. */
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "tokenizer_internal.h"

void* tok_memory(void* p) {
    if (p) return p;
    fputs(NO_MEMORY "a tokenizer\n", stderr);
    exit(2);
}

bool tok_error(ErrorBuffer e, const char* format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(e.text, e.size, format, args);
    va_end(args);
    for (char* c = e.text; e.size && *c; c++)
        if ((unsigned char)*c < ' ') *c = ' ';  // one line, whatever the file held
    return false;
}

// ---- filling ---------------------------------------------------------------------------------------

Span arena_put(Tokenizer* t, const char* bytes, size_t n) {
    Span s = {(uint32_t)arrlen(t->arena), (uint32_t)n};
    memcpy(arraddnptr(t->arena, n + 1), bytes, n);
    t->arena[s.at + n] = 0;
    return s;
}

bool tokenizer_set_piece(Tokenizer* t, int64_t id, const char* text, size_t n, const char* file, ErrorBuffer error) {
    if (id < 0 || id >= MAX_VOCAB)
        return tok_error(error, "%s: token %.*s has id %lld; ids are 0 to %d", file, (int)(n < 60 ? n : 60), text,
                         (long long)id, MAX_VOCAB - 1);
    while (t->n_vocab <= id) {
        const Span none = {NO_SPAN, 0};
        arrput(t->text, none);
        arrput(t->raw, none);
        arrput(t->out, none);
        arrput(t->special, false);
        t->n_vocab++;
    }
    if (t->text[id].at != NO_SPAN) return tok_error(error, "%s: id %lld belongs to two tokens", file, (long long)id);
    t->text[id] = t->raw[id] = t->out[id] = arena_put(t, text, n);
    if (!piece_add(&t->by_text, t->text, t->arena, (int32_t)id))
        return tok_error(error, "%s: token %.*s is a duplicate in the vocabulary", file, (int)(n < 60 ? n : 60), text);
    return true;
}

static void put_in_trie(Tokenizer* t, const AddedToken* a, ptrdiff_t index) {
    trie_add(a->normalized ? &t->normalized_trie : &t->added_trie, t->arena + a->content.at, a->content.n,
             (int32_t)index);
}

void tokenizer_add_token(Tokenizer* t, AddedToken token) {
    arrput(t->added, token);
    if (token.special) t->special[token.id] = true;
    put_in_trie(t, &token, arrlen(t->added) - 1);
}

// A token that was there gets the rules of the later one. In AddedVocabulary, what was special stays so, and what was
// searched before or after normalising still is.
static void change_token(Tokenizer* t, ptrdiff_t index, AddedToken later) {
    AddedToken* a = &t->added[index];
    a->lstrip = later.lstrip;
    a->rstrip = later.rstrip;
    a->single_word = later.single_word;
    a->special |= later.special;
    if (a->special) t->special[a->id] = true;
    put_in_trie(t, &later, index);
}

// Where AddedVocabulary::add_tokens puts a token that the model does not have.
static int32_t next_added_id(const Tokenizer* t) {
    int32_t next = t->n_model;
    for (ptrdiff_t i = 0; i < arrlen(t->added); i++)
        if (t->added[i].id >= next) next = t->added[i].id + 1;
    return next;
}

bool tokenizer_put_added(Tokenizer* t, const ConfigToken* token, int64_t expected, const char* file, Encoding* e,
                         ErrorBuffer error) {
    if (!*token->content) return true;
    AddedToken a = {.id = tokenizer_id(t, token->content),
                    .special = token->special,
                    .lstrip = token->lstrip,
                    .rstrip = token->rstrip,
                    .normalized = token->normalized,
                    .single_word = token->single_word};
    ptrdiff_t same = 0;
    while (same < arrlen(t->added) && (a.id < 0 || t->added[same].id != a.id)) same++;
    if (a.id < 0) {
        a.id = next_added_id(t);
        if (!tokenizer_set_piece(t, a.id, token->content, strlen(token->content), file, error)) return false;
        t->raw[a.id].at = NO_SPAN;  // not a piece of the model: merging never makes it
    }
    if (expected >= 0 && expected != a.id)
        tokenizer_put_note(
            t, "%s: the added token %.60s is written with id %lld, but `tokenizers` gives it %d; that is used", file,
            token->content, (long long)expected, a.id);
    // The content of a normalised token is normalised too, as AddedVocabulary does.
    TokText text = {token->content, (int32_t)strlen(token->content), 0, NULL, NULL};
    if (!e->scratch) tokenizer_encode(t, "", 0, 0, e);  // makes the scratch that normalising needs
    if (a.normalized && !normalize_text(t, &text, e)) return tok_error(error, "%s: %s", file, e->error);
    a.content = arena_put(t, text.bytes, (size_t)text.n);
    if (same < arrlen(t->added)) change_token(t, same, a);
    else tokenizer_add_token(t, a);
    return true;
}

// GPT-2 writes every byte as a printable character: itself, or one from U+0100 on for the 68 bytes that are not
// printable.
int byte_of_character(int32_t c) {
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF)) return c;
    if (c >= 0x100 && c <= 0x120) return c - 0x100;         // 0–32
    if (c >= 0x121 && c <= 0x142) return c - 0x121 + 0x7F;  // 127–160
    return c == 0x143 ? 0xAD : -1;
}

int32_t character_of_byte(int b) {
    if (byte_of_character(b) == b) return b;
    return b <= 0x20 ? 0x100 + b : b == 0xAD ? 0x143 : 0x121 + b - 0x7F;
}

Span unmap_byte_level(Tokenizer* t, const char* text, uint32_t n, bool* good) {
    char stack[256], *bytes = n <= sizeof stack ? stack : malloc(n);
    uint32_t length = 0;
    *good = bytes != NULL;
    for (uint32_t i = 0; *good && i < n;) {
        int32_t c;
        i += (uint32_t)utf8_decode(text + i, n - i, &c);
        int byte = byte_of_character(c);
        if (byte < 0) *good = false;
        else bytes[length++] = (char)byte;
    }
    Span s = {NO_SPAN, 0};
    if (*good) s = arena_put(t, bytes, length);
    if (bytes != stack) free(bytes);
    return s;
}

bool byte_of_name(const char* text, size_t n, char* byte) {
    int value = 0;
    if (n != 6 || memcmp(text, "<0x", 3) || text[5] != '>') return false;
    for (int i = 3; i < 5; i++) {
        const char c = text[i];
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return false;
        value = 16 * value + digit;
    }
    *byte = (char)value;
    return true;
}

// Every match of `pattern` in every piece becomes `content`.
void replace_in_pieces(Tokenizer* t, Span* table, const Pattern* pattern, const char* content) {
    const size_t n_content = strlen(content), n_literal = pattern->literal ? strlen(pattern->literal) : 0;
    Encoding e = {0};
    if (!pattern->literal) tokenizer_encode(t, "", 0, 0, &e);  // makes the scratch that searching needs
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (table[id].at == NO_SPAN) continue;
        const char* p = t->arena + table[id].at;
        const int32_t n = (int32_t)table[id].n;
        if (pattern->literal && (!n_literal || !memmem(p, (size_t)n, pattern->literal, n_literal))) continue;
        bool valid = true;
        if (!pattern->literal && n && (utf8_stretch(p, n, 0, &valid) < n || !valid)) continue;  // stray bytes
        char* fresh = NULL;
        int32_t copied = 0;
        Range found = {0, 0};
        while (pattern_search(pattern, p, n, found.end, &found, &e) > 0) {
            if (found.start > copied)
                memcpy(arraddnptr(fresh, found.start - copied), p + copied, (size_t)(found.start - copied));
            if (n_content) memcpy(arraddnptr(fresh, n_content), content, n_content);
            copied = found.end;
        }
        if (copied) {
            if (n > copied) memcpy(arraddnptr(fresh, n - copied), p + copied, (size_t)(n - copied));
            table[id] = arena_put(t, fresh ? fresh : "", (size_t)arrlen(fresh));
        }
        arrfree(fresh);
    }
    encoding_free(&e);
}

// The bytes that the model's pieces stand for in a text.
void unmap_pieces(Tokenizer* t) {
    for (int32_t id = 0; id < t->n_vocab; id++) {
        bool good;
        if (t->raw[id].at == NO_SPAN) continue;
        char* copy = strndup(t->arena + t->raw[id].at, t->raw[id].n);
        t->raw[id] = unmap_byte_level(t, copy, t->raw[id].n, &good);
        free(copy);
    }
}

// Whether no piece has U+2581 after another character: then no merge does either, and a text may be cut there.
static bool space_only_leads(const Tokenizer* t) {
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (t->text[id].at == NO_SPAN) continue;
        const char* p = t->arena + t->text[id].at;
        bool other = false;
        for (uint32_t i = 0; i < t->text[id].n;) {
            if (i + 3 <= t->text[id].n && !memcmp(p + i, "\xE2\x96\x81", 3)) {
                if (other) return false;
                i += 3;
            } else {
                other = true;
                i++;
            }
        }
    }
    return true;
}

bool tokenizer_finish(Tokenizer* t, const char* file, ErrorBuffer error) {
    if (!t->n_vocab) return tok_error(error, "%s: the vocabulary is empty", file);
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (t->raw[id].at != NO_SPAN) piece_add(&t->by_raw, t->raw, t->arena, id);
        if (t->out[id].at != NO_SPAN && (int32_t)t->out[id].n > t->longest_piece)
            t->longest_piece = (int32_t)t->out[id].n;
        if (t->out_first && t->out_first[id].at != NO_SPAN && (int32_t)t->out_first[id].n > t->longest_piece)
            t->longest_piece = (int32_t)t->out_first[id].n;
    }
    int64_t longest = t->longest_piece + 1;  // with the space between words
    for (ptrdiff_t i = 0; i < arrlen(t->stages); i++) {
        const DecodeStage* d = &t->stages[i];
        longest += (int64_t)d->n_pattern * (d->stop + 1) + 6;  // what it held back
        if (d->type == STAGE_REPLACE) longest *= 1 + (int64_t)(strlen(d->content) / d->n_pattern);
    }
    if (longest > MAX_FILE) return tok_error(error, "%s: the decoder's replacements are too long", file);
    t->longest_piece = (int32_t)longest - (arrlen(t->stages) == 0);
    for (int i = 0; i < 128; i++) {
        char c = (char)i;
        t->ascii_id[i] = piece_find(&t->by_raw, t->raw, t->arena, &c, 1);
        if (t->ascii_id[i] < 0 && t->late_fallback) {
            int32_t id = piece_find(&t->by_virtual, t->virtual_text, t->arena, &c, 1);
            if (id >= 0) t->ascii_id[i] = id + t->n_vocab;
        }
    }
    for (int i = 0; i < 256; i++) {
        char c = (char)i, name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        t->byte_id[i] = t->byte_level      ? piece_find(&t->by_raw, t->raw, t->arena, &c, 1)
                        : t->byte_fallback ? piece_find(&t->by_text, t->text, t->arena, name, 6)
                                           : -1;
    }
    // ignore_merges looks a whole text up, so cutting it would change the answer.
    t->split_at_space = t->model == MODEL_BPE && !t->byte_level && !t->ignore_merges && !t->subword &&
                        space_only_leads(t) && piece_find(&t->by_text, t->text, t->arena, "\xE2\x96\x81", 3) >= 0;
    return true;
}

// ---- files -----------------------------------------------------------------------------------------

bool read_file(const char* path, char** data, size_t* n, ErrorBuffer error) {
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) return tok_error(error, "%s is not a regular file", path);
    gzFile f = gzopen(path, "rb");
    if (!f) return tok_error(error, "%s cannot be opened: %s", path, strerror(errno));
    size_t room = 1 << 20, length = 0;
    char* bytes = malloc(room + 1);
    int got = 0;
    while (bytes && (got = gzread(f, bytes + length, (unsigned)(room - length))) > 0) {
        length += (size_t)got;
        if (length > MAX_FILE) break;
        if (length == room) {
            char* more = realloc(bytes, (room *= 2) + 1);
            if (!more) free(bytes);
            bytes = more;
        }
    }
    int code = 0;
    gzerror(f, &code);
    gzclose(f);
    if (!bytes) return tok_error(error, "%s: " NO_MEMORY "the file", path);
    if (got < 0 || code < 0) {
        free(bytes);
        return tok_error(error, "%s: reading failed, the file is truncated or damaged", path);
    }
    if (length > MAX_FILE) {
        free(bytes);
        return tok_error(error, "%s is larger than %u MiB; it is not a tokenizer", path, MAX_FILE >> 20);
    }
    bytes[length] = 0;
    static const char pointer[] = "version https://git-lfs.github.com/spec/";
    if (!strncmp(bytes, pointer, sizeof pointer - 1)) {
        free(bytes);
        return tok_error(error, "%s: a Git LFS pointer, not the file itself: run git lfs pull in its repository", path);
    }
    *data = bytes;
    *n = length;
    return true;
}

static const char* base_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool exists(const char* directory, const char* name, char* path, size_t size) {
    static const char* const endings[] = {"", ".gz"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, size, "%s%s%s%s", directory, *directory ? "/" : "", name, endings[i]);
        if (access(path, R_OK) == 0) return true;
    }
    return false;
}

// The tokenizer of a directory, best format first.
static bool find_in_directory(const char* directory, char* path, size_t size, ErrorBuffer error) {
    static const char* const names[] = {"tokenizer.json", "tokenizer.model", "tokenizer.model.v3",
                                        "tekken.json",    "encoder.json",    "vocab.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (exists(directory, names[i], path, size)) return true;
    // a file like 20B_tokenizer.json or qwen.tiktoken, if there is exactly one
    DIR* d = opendir(directory);
    int found = 0;
    for (struct dirent* entry; d && (entry = readdir(d));)
        if ((strstr(entry->d_name, "_tokenizer.json") || strstr(entry->d_name, ".tiktoken")) && ++found == 1)
            snprintf(path, size, "%s/%s", directory, entry->d_name);
    if (d) closedir(d);
    return found == 1 ||
           tok_error(error, "%s holds no tokenizer.json, tokenizer.model, tekken.json, or encoder.json with vocab.bpe",
                     directory);
}

// vocab.bpe beside encoder.json, merges.txt beside vocab.json, whichever of the two was named.
static bool load_pair(Tokenizer* t, const char* path, const char* data, size_t n, bool is_merges, Profile* profile,
                      ErrorBuffer error) {
    static const char* const vocab_names[] = {"encoder.json", "vocab.json"};
    static const char* const merge_names[] = {"vocab.bpe", "merges.txt"};
    const char* const* names = is_merges ? vocab_names : merge_names;
    char directory[TOK_FOLDER], other[TOK_PATH], *text;
    size_t n_other;
    snprintf(directory, sizeof directory, "%.*s", base_name(path) == path ? 1 : (int)(base_name(path) - path - 1),
             base_name(path) == path ? "." : path);
    int first = strstr(base_name(path), is_merges ? "merges" : "vocab") && !strstr(base_name(path), ".bpe");
    if (!exists(directory, names[first], other, sizeof other) && !exists(directory, names[!first], other, sizeof other))
        return tok_error(error, "%s needs %s (or %s) beside it", path, names[first], names[!first]);
    if (!read_file(other, &text, &n_other, error)) return false;
    t->file[1] = strdup(other);
    bool good = is_merges ? load_vocab_and_merges(t, other, text, n_other, path, data, profile, error)
                          : load_vocab_and_merges(t, path, data, n, other, text, profile, error);
    free(text);
    return good;
}

typedef enum { KIND_JSON, KIND_TEKKEN, KIND_VOCAB, KIND_MERGES, KIND_TIKTOKEN, KIND_SENTENCEPIECE } Kind;

// A vocabulary may well hold a token "model", but its value is a number.
static bool names_a_model(const char* data) {
    for (const char* p = strstr(data, "\"model\""); p; p = strstr(p + 1, "\"model\"")) {
        const char* q = p + 7 + strspn(p + 7, " \t\r\n");
        if (*q == ':' && q[1 + strspn(q + 1, " \t\r\n")] == '{') return true;
    }
    return false;
}

// By content, not by name: tokenizer.model is sentencepiece's for Llama-2 and tiktoken's for Llama-3.
static Kind sniff(const char* data, size_t n) {
    size_t i = strspn(data, " \t\r\n\xEF\xBB\xBF");
    if (data[i] == '{')
        return names_a_model(data) ? KIND_JSON : strstr(data, "\"token_bytes\"") ? KIND_TEKKEN : KIND_VOCAB;
    if (!strncmp(data, "#version", 8)) return KIND_MERGES;
    size_t base64 = strspn(data, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=");
    if (base64 && base64 < n && data[base64] == ' ' && data[base64 + 1] >= '0' && data[base64 + 1] <= '9')
        return KIND_TIKTOKEN;
    return KIND_SENTENCEPIECE;
}

static Tokenizer* empty(void) {
    Tokenizer* t = calloc(1, sizeof *t);
    if (t) t->bos = t->eos = t->unk = t->named_unk = -1;
    return t;
}

static bool load_bytes(Tokenizer* t, const char* name, const char* data, size_t n, bool memory, Profile* profile,
                       ErrorBuffer error) {
    if (!n) return tok_error(error, "%s is empty", name);
    Kind kind = sniff(data, n);
    if (memory && (kind == KIND_VOCAB || kind == KIND_MERGES))
        return tok_error(error, "%s: neither a tokenizer.json nor a tokenizer.model", name);
    switch (kind) {
        case KIND_JSON: return load_tokenizer_json(t, name, data, n, profile, error);
        case KIND_TEKKEN: return load_tekken(t, name, data, n, profile, error);
        case KIND_TIKTOKEN: return load_tiktoken(t, name, data, n, profile, error);
        case KIND_SENTENCEPIECE: return load_sentencepiece(t, name, data, n, profile, error);
        case KIND_VOCAB:
        case KIND_MERGES: return load_pair(t, name, data, n, kind == KIND_MERGES, profile, error);
    }
    return false;
}

// A directory's tokenizer and what the files beside say. Some classes of transformers read tokenizer.model where there
// is a tokenizer.json too.
static bool open_directory(Tokenizer* t, const char* directory, char* file, size_t size, Profile* p,
                           ErrorBuffer error) {
    char model[TOK_PATH];
    if (!find_in_directory(directory, file, size, error) || !profile_read(p, t, directory, error)) return false;
    if (!profile_converts(p) || strncmp(base_name(file), "tokenizer.json", 14)) return true;
    if (exists(directory, "tokenizer.model", model, sizeof model)) snprintf(file, size, "%s", model);
    else
        tokenizer_put_note(t,
                           "%s: add_prefix_space makes transformers convert tokenizer.model, which is not there; "
                           "tokenizer.json is used as it is",
                           directory);
    return true;
}

Tokenizer* tokenizer_open(const char* path, char* error, size_t error_size) {
    ErrorBuffer buffer = {error, error_size};
    char file[TOK_PATH], *data = NULL;
    size_t n;
    struct stat info;
    snprintf(file, sizeof file, "%s", path);
    if (stat(path, &info) != 0) {
        tok_error(buffer, "%s: %s", path, strerror(errno));
        return NULL;
    }
    Tokenizer* t = empty();
    if (!t) {
        tok_error(buffer, "%s: out of host memory for the tokenizer", path);
        return NULL;
    }
    Profile profile = {0};
    const bool directory = S_ISDIR(info.st_mode);
    bool good = !directory || open_directory(t, path, file, sizeof file, &profile, buffer);
    if (good) t->file[0] = strdup(file);
    good = good && read_file(file, &data, &n, buffer) &&
           load_bytes(t, file, data, n, false, directory && profile.class ? &profile : NULL, buffer);
    profile_free(&profile);
    free(data);
    if (good) return t;
    tokenizer_close(t);
    return NULL;
}

Tokenizer* tokenizer_open_memory(const char* name, const void* data, size_t n, char* error, size_t error_size) {
    ErrorBuffer buffer = {error, error_size};
    Tokenizer* t = empty();
    char* copy = malloc(n + 1);  // the loaders count on a zero after the bytes
    bool good = false;
    if (t && copy) {
        memcpy(copy, data, n);
        copy[n] = 0;
        good = load_bytes(t, name, copy, n, true, NULL, buffer);
    } else {
        tok_error(buffer, "%s: out of host memory for the tokenizer", name);
    }
    free(copy);
    if (good) return t;
    tokenizer_close(t);
    return NULL;
}

void tokenizer_close(Tokenizer* t) {
    if (!t) return;
    for (ptrdiff_t i = 0; i < arrlen(t->normalize); i++) {
        pattern_free(&t->normalize[i].pattern);
        free(t->normalize[i].content);
        arrfree(t->normalize[i].trie);
        arrfree(t->normalize[i].texts);
    }
    for (ptrdiff_t i = 0; i < arrlen(t->pretokenize); i++) pattern_free(&t->pretokenize[i].pattern);
    for (ptrdiff_t i = 0; i < arrlen(t->stages); i++) {
        free(t->stages[i].pattern);
        free(t->stages[i].content);
    }
    arrfree(t->stages);
    free(t->subword);
    arrfree(t->out_first);
    arrfree(t->unigram_trie.node);
    arrfree(t->score);
    free(t->file[0]);
    free(t->file[1]);
    arrfree(t->arena);
    arrfree(t->text);
    arrfree(t->raw);
    arrfree(t->out);
    arrfree(t->special);
    for (ptrdiff_t i = 0; i < arrlen(t->notes); i++) free(t->notes[i]);
    arrfree(t->notes);
    arrfree(t->changes);
    arrfree(t->added);
    arrfree(t->added_ids);
    arrfree(t->added_trie.node);
    arrfree(t->normalized_trie.node);
    arrfree(t->normalize);
    arrfree(t->pretokenize);
    arrfree(t->virtual_text);
    arrfree(t->prefix);
    arrfree(t->suffix);
    free(t->by_text.slot);
    free(t->by_raw.slot);
    free(t->by_virtual.slot);
    free(t->merges.slot);
    free(t);
}

// ---- questions -------------------------------------------------------------------------------------

int tokenizer_vocab_size(const Tokenizer* t) { return t->n_vocab; }
int tokenizer_longest_piece(const Tokenizer* t) { return t->longest_piece; }
int32_t tokenizer_bos(const Tokenizer* t) { return t->bos; }
int32_t tokenizer_eos(const Tokenizer* t) { return t->eos; }
bool tokenizer_names_eos(const Tokenizer* t) { return t->names_eos; }
char* tokenizer_changes(const Tokenizer* t) {
    return tok_memory(strndup(t->changes ? t->changes : "", (size_t)arrlen(t->changes)));
}
const char* tokenizer_note(const Tokenizer* t, int i) { return i >= 0 && i < arrlen(t->notes) ? t->notes[i] : NULL; }
int32_t tokenizer_id(const Tokenizer* t, const char* piece) {
    return piece_find(&t->by_text, t->text, t->arena, piece, (uint32_t)strlen(piece));
}
const char* tokenizer_file(const Tokenizer* t, int i) { return i == 0 || i == 1 ? t->file[i] : NULL; }
const char* tokenizer_format(const Tokenizer* t) { return t->format; }
int tokenizer_default_flags(const Tokenizer* t) { return t->default_flags; }
bool tokenizer_is_special(const Tokenizer* t, int32_t id) { return id >= 0 && id < t->n_vocab && t->special[id]; }

const char* tokenizer_piece(const Tokenizer* t, int32_t id, int* length) {
    if (id < 0 || id >= t->n_vocab || t->text[id].at == NO_SPAN) return NULL;
    if (length) *length = (int)t->text[id].n;
    return t->arena + t->text[id].at;
}
