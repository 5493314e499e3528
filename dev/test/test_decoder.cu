/*
Generation with a cache against transformers' generate (dev/reference/record_generation.py): greedy tokens of a tiny
model of every family, with a repetition penalty, with an adapter. And what needs no record: the batch changes nothing,
greedy or drawn; another seed draws other tokens; an end token ends. fp32: the same tokens. bf16: the same up to the
first place where the record's lead is within what rounding moves a logit.
*/
#include "check.h"
#include "commands/decoder.h"
#include "base/error.h"
#include "base/safetensors.h"

#define NEW 16

typedef struct {
    const char *name, *directory;
} Case;
static const Case cases[] = {
    {"gpt2_tiny", "gpt2_tiny"},
    {"gpt2_hs80", "gpt2_hs80"},
    {"gpt2", "families/gpt2"},
    {"llama", "families/llama"},
    {"llama_tied", "families/llama_tied"},
    {"mistral", "families/mistral"},
    {"gpt_neox", "families/gpt_neox"},
    {"gpt_neox_sequential", "families/gpt_neox_sequential"},
    {"phi3", "families/phi3"},
    {"qwen2", "families/qwen2"},
    {"phi4_mini", "families/phi4_mini"},
    {"smollm3", "families/smollm3"},
    {"granite", "families/granite"},
    {"mistral_window", "families/mistral_window"},
    {"llama_yarn", "families/llama_yarn"},
    {"qwen3", "families/qwen3"},
    {"olmo2", "families/olmo2"},
    {"olmo3", "families/olmo3"},
    {"gemma2", "families/gemma2"},
    {"gemma3", "families/gemma3"},
};
#define N_CASES ((int)(sizeof cases / sizeof *cases))

typedef struct {
    const Case* of;
    char directory[256], adapter[320];
    StReader record;
    int k;  // prompts
    int32_t *prompts, *lengths;
    int longest;
} Model;

static void open_model(Model* m, const Case* c) {
    char path[256];
    memset(m, 0, sizeof *m);
    m->of = c;
    snprintf(m->directory, sizeof m->directory, "dev/reference/golden/%s", c->directory);
    snprintf(m->adapter, sizeof m->adapter, "%s/lora_qv", m->directory);
    snprintf(path, sizeof path, "dev/reference/golden/generation/%s.safetensors", c->name);
    st_open(&m->record, path);
    m->k = (int)st_need(&m->record, "lengths")->count;
    int64_t n = st_need(&m->record, "prompts")->count;
    m->lengths = (int32_t*)malloc(m->k * sizeof(int32_t));
    m->prompts = (int32_t*)malloc(n * sizeof(int32_t));
    st_copy(&m->record, "lengths", ST_I32, m->k, m->lengths);
    st_copy(&m->record, "prompts", ST_I32, n, m->prompts);
    for (int i = 0; i < m->k; i++) m->longest = m->lengths[i] > m->longest ? m->lengths[i] : m->longest;
}
static void close_model(Model* m) {
    free(m->lengths);
    free(m->prompts);
    st_close(&m->record);
}

static void count_done(void* context, int i) { ((int*)context)[i]++; }

// The answers (k, NEW) of a run, −1 after an end; to be freed.
static int32_t* run_prompts(const Model* m, const char* adapter, int slots, int T, SampleSettings sampling,
                            uint64_t seed, int end, int prefix) {
    ModelConfig config;
    DecoderSettings settings = {};
    Decoder d;
    model_config_read(&config, m->directory);
    settings.model = m->directory;
    settings.adapter = adapter;
    settings.slots = slots;
    settings.longest_prompt = m->longest;
    settings.reach = m->longest + NEW;
    settings.T = T;
    settings.sampling = sampling;
    settings.seed = seed;
    settings.n_ends = end >= 0;
    settings.ends[0] = end;
    settings.quiet = true;
    settings.prefix = prefix;
    decoder_open(&d, &config, &settings);
    Sequence* s = (Sequence*)calloc(m->k, sizeof *s);
    int32_t *out = (int32_t*)malloc(m->k * NEW * sizeof(int32_t)), at = 0;
    for (int i = 0; i < m->k; i++) {
        s[i].n = s[i].n_prompt = m->lengths[i];
        s[i].capacity = m->lengths[i] + NEW;
        s[i].number = i;
        s[i].tokens = (int32_t*)malloc(s[i].capacity * sizeof(int32_t));
        memcpy(s[i].tokens, m->prompts + at, m->lengths[i] * sizeof(int32_t));
        at += m->lengths[i];
    }
    int* times = (int*)calloc(m->k, sizeof(int));
    decoder_run(&d, s, m->k, count_done, times);
    for (int i = 0; i < m->k; i++) {
        if (times[i] != 1) check(0, "%s: sequence %d was reported done %d times", m->of->name, i, times[i]);
        for (int j = 0; j < NEW; j++)
            out[i * NEW + j] = m->lengths[i] + j < s[i].n ? s[i].tokens[m->lengths[i] + j] : -1;
        free(s[i].tokens);
    }
    free(s);
    free(times);
    decoder_close(&d);
    return out;
}

static int32_t* run(const Model* m, const char* adapter, int slots, int T, SampleSettings sampling, uint64_t seed,
                    int end) {
    return run_prompts(m, adapter, slots, T, sampling, seed, end, 0);
}

// Every prompt four times in a run of its own, in which they share the first two thirds of it, and all but one token:
// the answers (k, NEW), −1 where the four disagree.
static int32_t* run_shared(const Model* m, int slots, bool most) {
    const SampleSettings greedy = {true, 1.0f, 1.0f, 0, 1.0f};
    int32_t *out = (int32_t*)malloc(m->k * NEW * sizeof(int32_t)), at = 0;
    for (int i = 0; i < m->k; at += m->lengths[i++]) {
        Model one = *m;
        int n = m->lengths[i], prefix = most ? n - 1 : 2 * n / 3;
        int32_t lengths[4] = {n, n, n, n};
        one.k = 4;
        one.lengths = lengths;
        one.prompts = (int32_t*)malloc(4 * n * sizeof(int32_t));
        for (int j = 0; j < 4; j++) memcpy(one.prompts + j * n, m->prompts + at, n * sizeof(int32_t));
        int32_t* four = run_prompts(&one, NULL, slots, 256, greedy, 1, -1, prefix);
        for (int j = 0; j < NEW; j++) {
            out[i * NEW + j] = four[j];
            for (int copy = 1; copy < 4; copy++)
                if (four[copy * NEW + j] != four[j]) out[i * NEW + j] = -1;
        }
        free(four);
        free(one.prompts);
    }
    return out;
}

static void check_recorded(const Model* m, const char* what, const char* tensor, const int32_t* got) {
    char margin_name[64];
    snprintf(margin_name, sizeof margin_name, "%s.margin", tensor);
    int32_t* want = (int32_t*)malloc(m->k * NEW * sizeof(int32_t));
    float* margin = (float*)malloc(m->k * NEW * sizeof(float));
    int same = 0, bad = 0;
    st_copy(&m->record, tensor, ST_I32, m->k * NEW, want);
    st_copy(&m->record, margin_name, ST_F32, m->k * NEW, margin);
    for (int i = 0; i < m->k; i++)
        for (int j = 0; j < NEW; j++) {
            int at = i * NEW + j;
            if (got[at] == want[at]) {
                same++;
                continue;
            }
#ifdef PRECISION_BF16
            bad += margin[at] > 0.1f;  // logits of some units, rounded to eight bits on their way
#else
            bad++;
#endif
            break;  // what follows answers another text
        }
    check(bad == 0 && same > m->k * NEW / 2, "%s, %s: transformers' tokens (%d of %d)", m->of->name, what, same,
          m->k * NEW);
    free(want);
    free(margin);
}

static void check_case(const Case* c) {
    const SampleSettings greedy = {true, 1.0f, 1.0f, 0, 1.0f}, drawn = {false, 0.8f, 0.9f, 30, 1.1f};
    Model m;
    open_model(&m, c);
    size_t bytes = m.k * NEW * sizeof(int32_t);
    int32_t *three = run(&m, NULL, 3, m.longest, greedy, 1, -1), *all = run(&m, NULL, m.k, 256, greedy, 1, -1),
            *one = run(&m, NULL, 1, 256, greedy, 1, -1);
    check_recorded(&m, "greedy", "greedy", three);
    check(!memcmp(three, all, bytes) && !memcmp(three, one, bytes), "%s: slots and packs change nothing", c->name);
    int32_t *shared = run_shared(&m, 3, false), *most = run_shared(&m, 4, true);
    check_recorded(&m, "two thirds of a prompt shared", "greedy", shared);
    check_recorded(&m, "all but a token of a prompt shared", "greedy", most);
    free(shared);
    free(most);
    SampleSettings penalised = greedy;
    st_copy(&m.record, "penalty", ST_F32, 1, &penalised.repetition_penalty);
    int32_t* again = run(&m, NULL, 3, m.longest, penalised, 1, -1);
    check_recorded(&m, "repetition penalty", "penalised", again);
    free(again);
    if (!strncmp(c->directory, "families/", 9)) {
        again = run(&m, m.adapter, 2, m.longest, greedy, 1, -1);
        check_recorded(&m, "adapter", "adapted", again);
        free(again);
    }
    // the end token is the third of the first answer
    int end = three[2];
    bool ends = true;
    again = run(&m, NULL, 2, m.longest, greedy, 1, end);
    for (int i = 0; i < m.k; i++) {
        int j = 0;
        for (; j < NEW && three[i * NEW + j] != end; j++) ends = ends && again[i * NEW + j] == three[i * NEW + j];
        for (; j < NEW; j++) ends = ends && again[i * NEW + j] == -1;
    }
    check(ends, "%s: an answer ends before its end token", c->name);
    free(again);
    int32_t *drawn_one = run(&m, NULL, 1, 256, drawn, 7, -1), *drawn_all = run(&m, NULL, m.k, m.longest, drawn, 7, -1),
            *other = run(&m, NULL, m.k, 256, drawn, 8, -1);
    check(!memcmp(drawn_one, drawn_all, bytes), "%s: a prompt draws its own numbers, whatever the batch", c->name);
    check(memcmp(drawn_one, other, bytes) && memcmp(drawn_one, three, bytes), "%s: another seed draws other tokens",
          c->name);
    int32_t* lists[] = {three, all, one, drawn_one, drawn_all, other};
    for (int32_t* list : lists) free(list);
    close_model(&m);
}

int main(void) {
    program_name = "test_decoder";
    for (int i = 0; i < N_CASES; i++) check_case(&cases[i]);
    return check_report();
}
