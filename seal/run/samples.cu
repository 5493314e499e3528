/* Rows of files to samples, as the options say. See samples.h. */
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "base/ranks.h"
#include "kernels.h"
#include "run/samples.h"
#include "device.h"

void check_sizes(const ModelConfig* c) {
    device_refuse_old();
    if (!attention_head_size_supported(c->HS))
        fatal(
            "head size %d (width %d, %d heads) has no attention kernel here; supported are 32, 64, 80, 96, 128 and, "
            "where a block may have 132 KiB of shared memory (A100, H100), 256",
            c->HS, c->C, c->NH);
    int most = c->norm == NORM_RMSNORM ? rmsnorm_most_width() : layernorm_most_width();
    if (c->C > most) fatal("width %d is not supported; the largest is %d", c->C, most);
}

// ---------------------------------------------------------------------------------------------------
// data with prompts and responses

static TokenOptions token_options(const TrainOptions* o, const ModelConfig* config, const char* cache) {
    TokenOptions t = {};
    t.rows.prompt_template = o->prompt_template;
    t.rows.prompt_field = o->prompt_field;
    t.rows.response_field = o->response_field;
    t.max_length = o->max_length ? (int)o->max_length : config->longest;
    t.vocab = config->V;
    t.compat = o->compat;
    t.quiet = o->quiet;
    t.silent = ranks_rank() > 0;
    t.cache = cache;
    return t;
}

void open_chat(ChatFormat* chat, const TrainOptions* o, const TextEncoder* encoder, bool quiet) {
    const ChatOptions options = {o->chat, o->loss_on, o->parse_special, o->compat, o->prompt_template};
    chat_format_open(chat, &options, o->model, (const Tokenizer*)encoder->self, quiet);
}

typedef struct {
    const char *run, *answer;
    char* tokenizer_digest;
    AtomicFile* left_out;
    bool silent;  // not a line of the rows left out: the caller speaks of them
} LoadOptions;

static void load(TokenSet* set, const StringList* files, const char* kind, const TrainOptions* o,
                 const ModelConfig* config, const LoadOptions* how) {
    const char* run = how->run;
    Path cache;
    TextEncoder encoder;
    if (run) {
        cache = path_of(run, "%s.tokens.safetensors", kind);
        directory_make(run);
    }
    TokenOptions options = token_options(o, config, run ? cache.s : NULL);
    options.left_out = how->left_out;
    options.rows.answer = how->answer;
    if (how->silent) options.quiet = options.silent = true;
    text_encoder_open(&encoder, o->model, config->eos_id);
    ChatFormat chat;
    open_chat(&chat, o, &encoder, options.quiet || options.silent);
    if (chat.chat) options.chat = &chat;
    if (ranks_rank()) ranks_barrier();  // rank 0 tokenises and leaves the cache, the others read it
    tokens_load(set, files, &encoder, &options);
    if (!ranks_rank()) ranks_barrier();
    if (how->tokenizer_digest) snprintf(how->tokenizer_digest, 65, "%s", encoder.digest);
    chat_format_name(&chat, set->chat, sizeof set->chat);
    snprintf(set->chat_digest, sizeof set->chat_digest, "%s", chat.digest);
    chat_format_close(&chat);
    text_encoder_close(&encoder);
    if (!o->quiet) tokens_print(set, kind, stdout);
    const char* of = !strcmp(kind, "safe")      ? "D_safe"
                     : !strcmp(kind, "valid")   ? "held-out data"
                     : !strcmp(kind, "harmful") ? "--harmful"
                                                : NULL;
    if (of && !options.quiet && !options.silent) tokens_unweighted(set, files->items[0], of);
}

// Tokenises a list of files; the cache is next to the run under `kind`.
void load_samples(TokenSet* set, const StringList* files, const char* kind, const char* run, const TrainOptions* o,
                  const ModelConfig* config, Hex tokenizer_digest, AtomicFile* left_out) {
    const LoadOptions how = {run, NULL, tokenizer_digest, left_out, false};
    load(set, files, kind, o, config, &how);
}

void load_answers(TokenSet* set, const StringList* files, const char* kind, const TrainOptions* o,
                  const ModelConfig* config, const char* answer, bool silent) {
    const LoadOptions how = {NULL, answer, NULL, NULL, silent};
    load(set, files, kind, o, config, &how);
}
