/*
What the files of the library share. A tokenizer is data: lists of steps (normalise, split), tables (pieces, merges,
added tokens) and flags, filled by one loader per file format and walked by one encoder.

  utf8.c, text.c      characters; texts that remember where their bytes came from; normalisers
  split.c             regular expressions and pre-tokenisers
  table.c             the tables of pieces, merges and added tokens
  bpe.c, unigram.c    merging and the word cache; the best cut of a word
  encode.c            the pipeline: added tokens, normalise, split, merge, post-process
  decode.c            ids back to text
  load_*.c            the file formats; load_config.c: what the files beside a tokenizer say
  unicode_table.h     what `tokenizers` knows of characters (generated)
  chat.c              chat templates: which one, and whether it is the model's
  jinja*.c            runs them (jinja_internal.h)
*/
#ifndef TOKENIZER_INTERNAL_H
#define TOKENIZER_INTERNAL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>
#include <stb/stb_ds.h>
#include "tokenizer.h"
#include "unicode_table.h"

#ifndef MAX_VOCAB            // the fuzz targets take less, or one large id would cost them 400 MB
#define MAX_VOCAB (1 << 24)  // a larger id is a damaged file
#endif
#define MAX_PIECE 4096       // bytes of a piece whose parts are looked for one by one
#define MAX_FILE (1u << 30)  // bytes of a tokenizer's file, unpacked
#define NO_SPAN UINT32_MAX

typedef struct {
    uint32_t at, n;
} Span;  // bytes of the arena; at = NO_SPAN: no such piece

typedef struct {
    char* text;
    size_t size;
} ErrorBuffer;
// Writes one line, returns false.
// Where memory is short: the beginning of what an error says.
#define NO_MEMORY "out of host memory for "
__attribute__((format(printf, 2, 3))) bool tok_error(ErrorBuffer e, const char* format, ...);
void* tok_memory(void* p);  // p; where it is NULL no memory is left, which ends the program

enum { TOK_FOLDER = 4096, TOK_PATH = 4200 };  // bytes of buffers: a directory's path; with the name of a file in it

// ---- tables ----------------------------------------------------------------------------------------
typedef struct {
    int32_t* slot;
    uint32_t mask;
    uint32_t n;
} PieceTable;  // bytes → id; open addressing over a Span array
typedef struct {
    uint64_t pair;
    uint32_t rank;
    int32_t id;
} Merge;  // (left id, right id) → what they become, and when
typedef struct {
    Merge* slot;
    uint64_t mask;
    uint32_t n;
} MergeTable;
typedef struct {
    int32_t child, sibling, token;
    unsigned char byte;
} TrieNode;  // token: index of the added token that ends here; −1: none
typedef struct {
    TrieNode* node;
    bool first[256];
    bool any;
} Trie;  // stb_ds array; node 0 is the root

void piece_table_init(PieceTable* p, uint32_t expected);
int32_t piece_find(const PieceTable* p, const Span* spans, const char* arena, const char* bytes,
                   uint32_t n);                                                   // −1: none
bool piece_add(PieceTable* p, const Span* spans, const char* arena, int32_t id);  // false: the bytes are there already
void merge_table_init(MergeTable* m, uint32_t expected);
const Merge* merge_find(const MergeTable* m, int32_t left, int32_t right);  // NULL: none
bool merge_add(MergeTable* m, int32_t left, int32_t right, uint32_t rank,
               int32_t id);  // false: was there, now replaced
void trie_add(Trie* t, const char* bytes, uint32_t n, int32_t token);
int32_t trie_longest(const Trie* t, const char* bytes, int64_t n, int32_t* length);  // −1: none starts here
uint64_t hash_bytes(const char* bytes, uint32_t n);

// ---- text ------------------------------------------------------------------------------------------
typedef struct {
    int32_t start, end;
} Range;

// A text being worked on. from = NULL: byte i is byte base + i of the original; else it comes from [from[i], to[i]) of
// the original.
typedef struct {
    const char* bytes;
    int32_t n, base;
    const int32_t *from, *to;
} TokText;
typedef struct {
    char* bytes;
    int32_t *from, *to;
} TextBuffer;  // three stb_ds arrays of one length

int utf8_length(const char* s, int64_t n);  // bytes of the character at s (1–4), 0: not UTF-8 (n ≥ 1)
int utf8_decode(const char* s, int64_t n,
                int32_t* codepoint);            // the same, with the character; −1 as character: not UTF-8, length 1
int utf8_encode(int32_t codepoint, char* out);  // up to 4 bytes
int32_t utf8_stretch(const char* s, int32_t n, int32_t from,
                     bool* valid);  // end of the longest s[from, end) that is all UTF-8, or has none
int32_t character_before(const char* s, int32_t end,
                         int32_t least);    // where the character (or stray byte) that ends at `end` begins
int character_category(int32_t codepoint);  // CATEGORY_CN … of unicode_table.h
bool in_ranges(int32_t codepoint, const CharacterRange* ranges, size_t n);  // ranges in order
bool is_white_space(int32_t codepoint);                                     // Unicode White_Space
bool is_word(int32_t codepoint);  // Alphabetic, M, Nd, Pc, Join_Control: \w of the Rust regex library
TokText buffer_text(const TextBuffer* b);
void buffer_clear(TextBuffer* b);
TextBuffer* buffer_other(const TokText* text, Encoding* e);
void buffer_free(TextBuffer* b);
void buffer_copy(TextBuffer* b, const TokText* t, int32_t start, int32_t end);           // bytes with their origins
void buffer_put(TextBuffer* b, const char* bytes, int32_t n, int32_t from, int32_t to);  // n bytes, all from [from, to)
void put_in_front(TextBuffer* b, const char* bytes, int32_t n, const TokText* t,
                  int32_t start);  // with the origin of t's character at start
static inline int32_t origin_from(const TokText* t, int32_t i) { return t->from ? t->from[i] : t->base + i; }
static inline int32_t origin_to(const TokText* t, int32_t i) { return t->from ? t->to[i] : t->base + i + 1; }

// ---- steps -----------------------------------------------------------------------------------------
typedef struct {
    char* literal;
    pcre2_code* code;
    bool jit;
} Pattern;  // a text as it is, or (NULL) a regular expression
typedef enum {
    NORMALIZE_NFC,
    NORMALIZE_NFD,
    NORMALIZE_NFKC,
    NORMALIZE_NFKD,
    NORMALIZE_LOWERCASE,
    NORMALIZE_PREPEND,
    NORMALIZE_REPLACE,
    NORMALIZE_STRIP,
    NORMALIZE_SENTENCEPIECE,
    NORMALIZE_CHARSMAP
} NormalizeType;
typedef struct {
    NormalizeType type;
    Pattern pattern;   // REPLACE: pattern → content
    char* content;     // REPLACE, PREPEND
    bool left, right;  // STRIP: which sides; SENTENCEPIECE: left = add_dummy_prefix, right = remove_extra_whitespaces
    bool escape;       // SENTENCEPIECE: spaces become U+2581
    uint32_t* trie;    // CHARSMAP: stb_ds, a double array (Darts) over what is replaced; its values are places in
    char* texts;       // stb_ds, zero-terminated, what takes their place
} Normalize;

typedef enum {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS
} SplitBehaviour;
typedef enum { PRETOKENIZE_SPLIT, PRETOKENIZE_PREFIX_SPACE, PRETOKENIZE_METASPACE } PretokenizeType;
typedef enum { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } PrependScheme;
typedef struct {
    PretokenizeType type;
    Pattern pattern;  // SPLIT; METASPACE: the text that stands for a space
    SplitBehaviour behaviour;
    bool invert;
    bool mapped;  // SPLIT: after ByteLevel, whose characters the pattern sees
    PrependScheme scheme;
    bool split;  // METASPACE: split before every replacement
} Pretokenize;

// Qwen's way to cut text into words: Llama-3's, but for digits, which are words of their own.
#define QWEN2_PATTERN                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
// GPT-2's way to cut text into words, as `tokenizers` and tiktoken have it.
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

typedef struct {
    int32_t id;
    Span content;
    bool special, lstrip, rstrip, normalized, single_word;
} AddedToken;

typedef enum { MODEL_BPE, MODEL_WORD_LEVEL, MODEL_UNIGRAM } ModelType;
typedef enum { DECODE_JOIN_SPACES, DECODE_CONCATENATE, DECODE_SENTENCEPIECE } DecodeType;
// A step of a decoder that works on the whole text: Replace, Strip, or ByteFallback for a text that is one <0xHH>.
typedef enum { STAGE_REPLACE, STAGE_STRIP, STAGE_BYTE } StageType;
typedef struct {
    StageType type;
    char* pattern;  // what is replaced, or stripped
    size_t n_pattern;
    char* content;
    int32_t start, stop;  // STRIP: at most so many
} DecodeStage;
typedef struct TokenStage StageState;

struct Tokenizer {
    char* file[2];  // that it was read from; NULL: none, or from memory
    const char* format;
    int default_flags;
    // pieces, by id
    char* arena;    // stb_ds
    Span* text;     // stb_ds, (n_vocab) as written in the file
    Span* raw;      // stb_ds, (n_vocab) the bytes a piece stands for when encoding
    Span* out;      // stb_ds, (n_vocab) the bytes it becomes when decoding
    bool* special;  // stb_ds, (n_vocab)
    int32_t n_vocab;
    int32_t n_model;  // pieces of the model; added tokens get ids from there on
    PieceTable by_text, by_raw;
    int32_t bos, eos, unk;
    int32_t named_unk;  // what the files beside call unk_token, where the model has none; −1: none
    bool names_eos;     // the files beside name the end of sequence; else it is a guess
    bool text_only;     // split_special_tokens: special tokens in a text are never read
    char* changes;      // stb_ds: what the files beside a tokenizer changed
    char** notes;       // stb_ds: lines that the caller who opened the tokenizer should see
    // added tokens
    AddedToken* added;   // stb_ds
    int64_t* added_ids;  // stb_ds: the ids that tokenizer.json writes for them
    Trie added_trie, normalized_trie;
    // steps
    Normalize* normalize;      // stb_ds
    Pretokenize* pretokenize;  // stb_ds
    // model
    ModelType model;
    bool byte_level;  // symbols are bytes; else characters
    char* subword;    // BPE: what all characters of a word but the first have in front (continuing_subword_prefix)
    bool byte_fallback, fuse_unk, ignore_merges;
    bool
        late_fallback;  // sentencepiece: characters outside the vocabulary may still merge, and fall back after merging
    int32_t byte_id[256];   // of a byte (byte_level) or of <0xHH> (byte_fallback); −1: none
    int32_t ascii_id[128];  // of a one-byte character
    MergeTable merges;
    Trie unigram_trie;  // Unigram: all pieces; token is the id
    double* score;      // stb_ds, (pieces of the model)
    double worst_score;
    int32_t n_virtual;      // late_fallback: characters that occur only inside pieces have ids from n_vocab on
    PieceTable by_virtual;  // over virtual_text
    Span* virtual_text;     // stb_ds
    bool
        split_at_space;  // no merge ever crosses from another character to U+2581, so words can be merged one at a time
    // around a text
    int32_t *prefix, *suffix;  // stb_ds
    // decoding
    DecodeType decode;
    Span* out_first;        // stb_ds, (n_vocab) what the first token of a text becomes; NULL: the same
    DecodeStage* stages;    // stb_ds
    bool strip_first;       // sentencepiece: a space goes from the first piece that is written with U+2581
    bool strip_until_text;  // and from every piece, until there is text
    int32_t longest_piece;  // bytes that one token can bring out, what was held back before it included
};

// ---- scratch ---------------------------------------------------------------------------------------
typedef struct {
    int32_t id, start, end, previous, next;
} Symbol;
typedef struct {
    double score;
    int32_t start, id;  // of the last piece on the best way here; start −1: none yet
} UnigramNode;
#define CACHE_KEY 23
#define CACHE_IDS 9
#define CACHE_SLOTS (1 << 15)
typedef struct {
    char key[CACHE_KEY];
    uint8_t n_key;
    int32_t id[CACHE_IDS];
    uint32_t n;
} CachedWord;  // 64 bytes

struct TokenizerScratch {
    const Tokenizer* owner;  // whose words the cache holds
    const PlainText* plain;  // of the text at hand; NULL: special tokens are read everywhere or nowhere
    TextBuffer buffer[4];
    int stage;                    // 0: the normalisers' two buffers, 2: the pre-tokenisers'
    Range *ranges, *ranges_next;  // stb_ds
    Symbol* symbols;              // room for n_symbols
    int64_t n_symbols;
    UnigramNode* lattice;  // stb_ds, of Unigram: one a byte, and the end
    char* mapped;          // stb_ds, of steps after ByteLevel
    uint64_t* heap;        // stb_ds, of long words: rank and place of what may merge
    pcre2_match_data* match;
    pcre2_jit_stack* jit_stack;
    pcre2_match_context* context;
    CachedWord* cache;  // (CACHE_SLOTS), direct-mapped
    int64_t room;       // of the Encoding's arrays
};

void put_text(char** out, const char* text);  // to the end of an stb_ds array
void put_characters(char** out, const CharacterRange* ranges,
                    size_t n);  // as a regular expression has them between brackets
// Whose Unicode the patterns are spelled for: PCRE2's own, unless a test sets another (0: PCRE2's own).
extern int pattern_unicode;
typedef enum { REGEX_RUST, REGEX_RUBY } RegexSyntax;  // of tiktoken's patterns; of tokenizer.json (Oniguruma)
bool pattern_compile(Pattern* p, const char* regex, RegexSyntax syntax, ErrorBuffer error);
void pattern_free(Pattern* p);
// The first match in bytes[from, n) that is not empty; 1 found, 0 none, −1 failed (e->error). A regular expression
// needs valid UTF-8.
int pattern_search(const Pattern* p, const char* bytes, int32_t n, int32_t from, Range* found, Encoding* e);

bool normalize_text(const Tokenizer* t, TokText* text, Encoding* e);
bool pretokenize_text(const Tokenizer* t, TokText* text, Encoding* e);  // leaves the words in scratch->ranges
bool encode_unigram(const Tokenizer* t, const TokText* text, Range word, Encoding* e);
bool encode_word(const Tokenizer* t, const TokText* text, Range word, Encoding* e);
void encoding_put(Encoding* e, int32_t id, int32_t start, int32_t end);

// ---- loading ---------------------------------------------------------------------------------------
Span arena_put(Tokenizer* t, const char* bytes, size_t n);  // zero-terminated after
bool tokenizer_set_piece(Tokenizer* t, int64_t id, const char* text, size_t n, const char* file, ErrorBuffer error);
void tokenizer_add_token(Tokenizer* t, AddedToken token);
bool tokenizer_finish(Tokenizer* t, const char* file,
                      ErrorBuffer error);  // tables that follow from the others; the last step of every loader
int base64_decode(const char** p, char* out, int room);  // what is at *p, as far as it goes; −1: more than room
bool tokenizer_put_pattern(Tokenizer* t, const char* pattern, ErrorBuffer error);  // words: tiktoken's syntax
bool tokenizer_put_special(Tokenizer* t, int32_t id, const char* content, const char* file,
                           ErrorBuffer error);  // one that is read where special tokens are
int byte_of_character(int32_t codepoint);       // GPT-2's printable stand-in → byte; −1: not one
int32_t character_of_byte(int byte);            // and back
Span unmap_byte_level(Tokenizer* t, const char* text, uint32_t n,
                      bool* good);  // the bytes that a piece of stand-ins means
void unmap_pieces(Tokenizer* t);    // the same for all pieces, into raw
void replace_in_pieces(Tokenizer* t, Span* table, const Pattern* pattern,
                       const char* content);                // in what pieces decode to; table: out or out_first
bool byte_of_name(const char* text, size_t n, char* byte);  // <0xHH> → byte
void merges_from_vocabulary(
    Tokenizer* t, const uint32_t* rank);  // every pair of pieces that concatenates to a piece; rank NULL: the id
bool read_file(const char* path, char** data, size_t* n, ErrorBuffer error);  // unpacks gzip; zero-terminated

// What the files beside a tokenizer say: load_config.c.
enum { N_SPECIAL = 7, N_MORE = 4 };
typedef enum { CONVERT_NOT, CONVERT_LLAMA, CONVERT_GEMMA, CONVERT_GPT2, CONVERT_QWEN2 } Conversion;
typedef enum {
    PREFIX_PLAIN,       // add_prefix_space sets that of a pre_tokenizer ByteLevel, false where it is missing
    PREFIX_EVERYWHERE,  // and where it is true, that of every part of a Sequence
    PREFIX_CONVERTS     // where it is there, tokenizer.json is not read: tokenizer.model is converted
} PrefixRule;
typedef struct {
    const char* name;
    bool rebuilds;  // the post-processor from add_bos_token, add_eos_token
    bool add_bos;   // the former, where it is missing
    PrefixRule prefix;
    Conversion convert;  // of the older formats, where there is no tokenizer.json
    int extra_ids;
    const char* special[N_SPECIAL];  // where the files name none: bos, eos, unk, sep, pad, cls, mask
    const char* more[N_MORE];        // additional ones
} TokenizerClass;
typedef struct {
    char* content;
    bool special, lstrip, rstrip, normalized, single_word;
    bool with_rules;  // written as an object, not as a text
} ConfigToken;
typedef struct {
    int64_t index;
    ConfigToken token;
} ConfigAdded;
typedef struct {
    const char* directory;
    Tokenizer* notes_of;
    const TokenizerClass* class;     // NULL: nothing is there that transformers would read
    ConfigToken special[N_SPECIAL];  // content NULL: none
    bool named[N_SPECIAL];           // by a file, be it as null
    ConfigToken* additional;         // stb_ds; the last n_extra are extra_special_tokens
    int n_extra;
    ConfigAdded* added;  // stb_ds: added_tokens_decoder, or added_tokens.json
    bool config;         // there is a tokenizer_config.json
    bool by_type;        // the class is that of config.json's model_type
    bool old_style;      // without added_tokens_decoder
    bool add_bos, add_eos, legacy, text_only, rebuild;
    enum { PREFIX_MISSING, PREFIX_NULL, PREFIX_OFF, PREFIX_ON } prefix;  // add_prefix_space
    int extra_ids;
    int64_t model_bos, model_eos;  // ids of config.json, for a tokenizer that names none; −1: none
} Profile;
bool profile_read(Profile* p, Tokenizer* t, const char* directory, ErrorBuffer error);
void profile_free(Profile* p);
bool profile_prefix_space(const Profile* p, bool in_file, bool top);  // of a pre_tokenizer ByteLevel
bool profile_converts(const Profile* p);  // whether tokenizer.model is read, though there is a tokenizer.json
bool profile_add_tokens(Profile* p, Tokenizer* t, ErrorBuffer error);  // between the model and what works on all pieces
bool profile_finish(const Profile* p, Tokenizer* t, ErrorBuffer error);  // BOS, EOS, what goes around a text
// One more added token, with the id that `tokenizers` gives it: the model's where it has the piece, else the next. One
// of the same text gets its rules. expected ≥ 0: what a file says of the id, for a note.
bool tokenizer_put_added(Tokenizer* t, const ConfigToken* token, int64_t expected, const char* file, Encoding* e,
                         ErrorBuffer error);
__attribute__((format(printf, 2, 3))) void tokenizer_put_note(Tokenizer* t, const char* format, ...);

// profile NULL: a file on its own, read as its own library does
bool load_tokenizer_json(Tokenizer* t, const char* name, const char* data, size_t n, Profile* profile,
                         ErrorBuffer error);
bool load_vocab_and_merges(Tokenizer* t, const char* vocab_name, const char* vocab, size_t n_vocab,
                           const char* merges_name, const char* merges, Profile* profile, ErrorBuffer error);
bool load_tekken(Tokenizer* t, const char* name, const char* data, size_t n, Profile* profile, ErrorBuffer error);
bool load_tiktoken(Tokenizer* t, const char* name, const char* data, size_t n, Profile* profile, ErrorBuffer error);
bool load_sentencepiece(Tokenizer* t, const char* name, const char* data, size_t n, Profile* profile,
                        ErrorBuffer error);

#endif
