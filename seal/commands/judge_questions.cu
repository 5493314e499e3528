/* Questions to a judge. See judge_questions.h. */
#include <string.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "commands/judge_questions.h"
#include "packed.h"
#include "peft.h"
#include "rows/dataset.h"
#include "run/samples.h"

#define TEMPLATE_MOST ((size_t)1 << 20)  // bytes

// ---------------------------------------------------------------------------------------------------
// the text of a question

// The template with texts in place of its names. Texts are not looked through: an output may spell {output_2}. ranges
// (most): where they are in `out`; returns how many.
static int fill(const char* text, const char* const names[], const char* const values[], int n, Text* out,
                TextRange* ranges, int most) {
    int n_ranges = 0;
    out->n = 0;
    text_add(out, "", 0);
    while (*text) {
        int k = 0;
        while (k < n && strncmp(text, names[k], strlen(names[k]))) k++;
        size_t from = out->n;
        text_add(out, k < n ? values[k] : text, k < n ? strlen(values[k]) : 1);
        if (k < n && n_ranges < most) ranges[n_ranges++] = TextRange{from, out->n};
        text += k < n ? strlen(names[k]) : 1;
    }
    return n_ranges;
}

static void read_template(Judge* j) {
    const char* path = j->template_path;
    const char* own = j->o->judge_template ? NULL : j->rubric->prompt_text;
    size_t length = own ? strlen(own) : 0;
    j->question = own ? host_copy(own, length) : file_read(path, TEMPLATE_MOST, &length);
    while (length && (j->question[length - 1] == '\n' || j->question[length - 1] == ' '))
        j->question[--length] = 0;  // an editor's line end; a space belongs to the answer
    for (int k = 0; k < j->n_names; k++) {
        const char* at = strstr(j->question, j->names[k]);
        if (!at) fatal("%s does not contain %s", path, j->names[k]);
        int n = 0;
        for (; at; at = strstr(at + 1, j->names[k])) n++;
        if (j->rubric->bare && n > 2) fatal("%s contains %s %d times; expected at most 2", path, j->names[k], n);
    }
}

// A conversation by the judge's chat template: one turn of the user, or also the assistant's.
static bool render(Judge* j, const char* user, const char* assistant, bool parts, Text* text, char* error,
                   size_t error_size) {
    Text json = {};
    JinjaResult r;
    const char* const turns[] = {user, assistant};
    text_printf(&json, "{\"messages\":[");
    for (int k = 0; k < 2 && turns[k]; k++) {
        text_printf(&json, "%s{\"role\":\"%s\",\"content\":%s", k ? "," : "", k ? "assistant" : "user",
                    parts ? "[{\"type\":\"text\",\"text\":" : "");
        json_put_text(&json, turns[k], strlen(turns[k]));
        text_printf(&json, "%s}", parts ? "}]" : "");
    }
    text_printf(&json, "],\"add_generation_prompt\":true}");
    bool good = chat_render(j->chat.chat, j->rendering, json.s, json.n, &r, error, error_size);
    text_free(&json);
    if (!good) return false;
    text->n = 0;
    text_add(text, r.text, r.n);
    j->plain = PlainText{r.given, (int)r.n_given, j->chat.tokens.guarded, j->chat.tokens.n_guarded};
    return true;
}

static bool contains(const Text* text, const char* part) {  // without the white space that templates take off
    size_t n = strlen(part), from = strspn(part, " \n\t\r");
    while (n > from && strchr(" \n\t\r", part[n - 1])) n--;
    return n <= from || (text->n && memmem(text->s, text->n, part + from, n - from));
}

// The whole question in `text`.
static void write_question(Judge* j, const char* const values[], Text* text) {
    char error[512] = "";
    if (j->question) {
        int n = fill(j->question, j->names, values, j->n_names, text, j->ranges, 8);
        if (j->rubric->bare) j->plain = PlainText{j->ranges, n, NULL, 0};
        if (j->mixed && !j->rubric->bare) {
            char* whole = host_copy(text->s, text->n);
            if (!render(j, whole, NULL, false, text, error, sizeof error)) fatal("%s", error);
            free(whole);
        }
        return;
    }
    // Turns: a template that reads content in parts alone (Llama Guard 3's of 1B) gets it so.
    for (int parts = 0; parts < 2; parts++)
        if (render(j, values[0], values[1], parts != 0, text, error, sizeof error) && contains(text, values[0]) &&
            contains(text, values[1]))
            return;
    if (*error) fatal("%s", error);
    fatal(
        "%s: the chat template leaves the request or the answer out; --rubric %s needs a judge's template that "
        "writes both",
        j->o->judge, j->rubric->name);
}

// ---------------------------------------------------------------------------------------------------
// tokens

// The judge's tokens of a text; with a chat template the text spells the special tokens itself, and those in the
// outputs are text.
static int64_t encode(Judge* j, const char* text, size_t n) {
    bool whole = j->chat.chat && !j->rubric->bare;  // the template writes what begins and ends a text
    int64_t got = j->mixed ? tokenizer_encode_mixed(j->tokenizer, text, n, &j->plain, whole ? 0 : TOKENIZER_ADD_SPECIAL,
                                                    &j->encoding)
                           : tokenizer_encode(j->tokenizer, text, n, TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL,
                                              &j->encoding);
    if (got < 0) fatal("%s: %s", j->o->judge, j->encoding.error);
    int eos = tokenizer_eos(j->tokenizer);
    if (!whole && got && j->encoding.ids[got - 1] == eos) got--;  // some tokenizers end a text themselves
    return got;
}

// The token that a word begins with after the question of n tokens in `text`; *more = the tokens of the whole word. −1
// where the word changes the question's own tokens.
static int word_token(Judge* j, Text* text, const int32_t* tokens, int n, const char* before, const char* word,
                      int* more) {
    size_t length = text->n;
    text_add(text, before, strlen(before));
    text_add(text, word, strlen(word));
    int64_t got = encode(j, text->s, text->n);
    text->n = length;
    text->s[length] = 0;
    *more = (int)got - n;
    return got > n && !memcmp(j->encoding.ids, tokens, (size_t)n * sizeof(int32_t)) ? j->encoding.ids[n] : -1;
}

// All words written the same way: whether one position after the question tells them apart.
static bool words_fit(Judge* j, const JudgeAnswer* a, Text* text, const int32_t* tokens, int n, const char* before,
                      int* id, int* more) {
    bool fit = true;
    for (int w = 0; w < a->n_words; w++) {
        id[w] = word_token(j, text, tokens, n, before, a->words[w], &more[w]);
        fit &= id[w] >= 0 && (!j->rubric->exact || more[w] == 1);
        for (int v = 0; v < w; v++) fit &= id[v] != id[w];
    }
    return fit;
}

// One position decides, so the words must be one token each after the question (of a guard's, the first tells them
// apart), the same tokens after every question. After a word, as after "Better answer:", a judge leaves a space,
// which most vocabularies have in a token with the word: "m" alone is what nobody would say there. After white space,
// as chat templates end, there is none. The other way of writing is taken only where the words need it.
static void find_words(Judge* j, int answer, Text* text, const int32_t* tokens, int n) {
    static const char* const spaces[] = {" ", ""};
    const JudgeAnswer* a = &j->answers[answer];
    int id[JUDGE_WORDS], more[JUDGE_WORDS], apart = text->n && strchr(" \n\t", text->s[text->n - 1]) ? 1 : 0;
    if (!words_fit(j, a, text, tokens, n, spaces[apart], id, more) &&
        !words_fit(j, a, text, tokens, n, spaces[!apart], id, more)) {
        words_fit(j, a, text, tokens, n, spaces[apart], id, more);
        for (int w = 0; w < a->n_words; w++)
            if (id[w] < 0 || (more[w] > 1 && j->rubric->exact))
                fatal(
                    "%s: \"%s\" after the question is %d tokens; expected one. Choose other --words, or end %s "
                    "differently",
                    j->o->judge, a->words[w], more[w], j->template_path);
        for (int w = 0; w < a->n_words; w++)
            for (int v = 0; v < w; v++)
                if (id[v] == id[w])
                    fatal("%s: \"%s\" and \"%s\" begin with the same token; one position cannot tell them apart",
                          j->o->judge, a->words[v], a->words[w]);
    }
    for (int w = 0; w < a->n_words; w++) {
        if (j->word_id[answer][w] >= 0 && j->word_id[answer][w] != id[w])
            fatal(
                "%s: \"%s\" is not the same token after every question; end the template with text of its own, not "
                "with an output",
                j->template_path, a->words[w]);
        j->word_id[answer][w] = id[w];
    }
}

// ---------------------------------------------------------------------------------------------------
// asking

// The question and what the judge writes before a word of the answer, in one of the ways in which those before it may
// be written.
static void write_branch(const Judge* j, int answer, int branch, size_t length, Text* text) {
    int words[JUDGE_ANSWERS];
    const char* s = j->answers[answer].after;
    judge_branch(j->rubric, answer, branch, words);
    text->n = length;
    text->s[length] = 0;
    if (length && text->s[length - 1] == '\n')
        while (*s == '\n') s++;
    for (; *s; s++) {
        int k = s[0] == '{' && s[1] > '0' && s[1] <= '0' + answer && s[2] == '}' ? s[1] - '1' : -1;
        const char* part = k < 0 ? s : j->answers[k].words[words[k]];
        text_add(text, part, k < 0 ? 1 : strlen(part));
        if (k >= 0) s += 2;
    }
}

static Question* add_question(Judge* j, const int32_t* tokens, int n) {
    if (j->n == j->capacity) {
        j->capacity = j->capacity ? 2 * j->capacity : 256;
        j->questions = (Question*)host_resize(j->questions, (size_t)j->capacity * sizeof *j->questions,
                                              "the judge's questions");
    }
    Question* q = &j->questions[j->n++];
    memset(q, 0, sizeof *q);
    q->tokens = (int32_t*)host_alloc((size_t)n * sizeof(int32_t), "the judge's questions");
    memcpy(q->tokens, tokens, (size_t)n * sizeof(int32_t));
    q->n = n;
    q->item = j->n_items;
    for (int i = 0; i < n; i++)
        if (tokens[i] >= j->config.V)
            fatal(
                "%s: the tokenizer gives token %d but the model's vocabulary has %d tokens; this tokenizer is not the "
                "model's",
                j->o->judge, tokens[i], j->config.V);
    return q;
}

// A text that begins like another one is read as its beginning: from the longest, which come last. The questions from
// `first` on are the item's.
static void share_questions(Judge* j, int first) {
    for (int a = j->n - 1; a >= first; a--)
        for (int b = j->n - 1; b > a; b--) {
            Question *shorter = &j->questions[a], *longer = &j->questions[b];
            if (shorter->n > longer->n || longer->n_places == JUDGE_ANSWERS ||
                memcmp(shorter->tokens, longer->tokens, (size_t)shorter->n * sizeof(int32_t)))
                continue;
            longer->place[longer->n_places] = shorter->place[0];
            longer->reading[longer->n_places++] = shorter->reading[0];
            free(shorter->tokens);
            memmove(shorter, shorter + 1, (size_t)(j->n - 1 - a) * sizeof *shorter);
            j->n--;
            break;
        }
}

int judge_ask(Judge* j, const char* const values[]) {
    Text text = {};
    int first = j->n, reading = 0;
    if (j->n_items == j->item_capacity) {
        j->item_capacity = j->item_capacity ? 2 * j->item_capacity : 256;
        j->unread = (bool*)host_resize(j->unread, (size_t)j->item_capacity, "the judge's questions");
    }
    write_question(j, values, &text);
    const size_t length = text.n;
    for (int k = 0; k < j->rubric->n_answers; k++)
        for (int b = 0; b < judge_branches(j->rubric, k); b++) {
            write_branch(j, k, b, length, &text);
            int64_t n = encode(j, text.s, text.n);
            if (n < 1) fatal("%s: the question has no tokens", j->template_path);
            Question* q = add_question(j, j->encoding.ids, (int)n);
            find_words(j, k, &text, q->tokens, (int)n);
            q->n_places = 1;
            q->place[0] = (int)n - 1;
            q->reading[0] = reading++;
        }
    share_questions(j, first);
    bool unread = false;
    for (int i = first; i < j->n; i++) unread |= j->questions[i].n > j->config.longest;
    for (int i = first; i < j->n; i++) {
        if (unread) j->questions[i].n = 0;
        if (j->questions[i].n > j->longest) j->longest = j->questions[i].n;
    }
    j->too_long += unread;
    j->unread[j->n_items] = unread;
    text_free(&text);
    return j->n_items++;
}

// ---------------------------------------------------------------------------------------------------
// answers

static JudgeReading* reading_of(const Judge* j, const Question* q, int place) {
    return &j->readings[(size_t)q->item * j->n_readings + q->reading[place]];
}

// The answer that a reading is about.
static int answer_of(const Judge* j, int reading) {
    int k = 0;
    for (; reading >= judge_branches(j->rubric, k); k++) reading -= judge_branches(j->rubric, k);
    return k;
}

static void take_logits(const Judge* j, const Question* q, int place, const float* logits) {
    JudgeReading* x = reading_of(j, q, place);
    int answer = answer_of(j, q->reading[place]);
    double highest = -INFINITY, sum = 0.0;
    for (int v = 0; v < j->config.V; v++) highest = fmax(highest, (double)logits[v]);
    for (int v = 0; v < j->config.V; v++) sum += exp(logits[v] - highest);
    x->log_sum = (float)(highest + log(sum));
    for (int w = 0; w < j->answers[answer].n_words; w++) x->logit[w] = logits[j->word_id[answer][w]];
    if (!isfinite(x->log_sum)) fatal("%s: its logits are not finite; is the model damaged?", j->o->judge);
}

// The journal: a line per question, of each of its places the logits of the words and the logarithm of the sum of all.
static bool take_answer(void* context, const cJSON* item) {
    const Judge* j = (const Judge*)context;
    const cJSON *number = cJSON_GetObjectItem(item, "i"), *numbers = cJSON_GetObjectItem(item, "logits"), *x;
    if (!cJSON_IsNumber(number) || !(number->valuedouble >= 0 && number->valuedouble < j->n) || !cJSON_IsArray(numbers))
        return false;
    Question* q = &j->questions[number->valueint];
    x = numbers->child;
    for (int place = 0; place < q->n_places; place++) {
        JudgeReading* r = reading_of(j, q, place);
        int n = j->answers[answer_of(j, q->reading[place])].n_words;
        for (int w = 0; w <= n; w++, x = x->next) {
            if (!cJSON_IsNumber(x)) return false;
            *(w < n ? &r->logit[w] : &r->log_sum) = (float)x->valuedouble;
        }
    }
    q->answered = true;
    return true;
}

static void open_journal(Judge* j) {
    const EvalOptions* o = j->o;
    const int numbers[] = {(int)sizeof(floatX), j->trainer.settings.T, (int)o->batch};
    Text t = {};
    text_add(&t, "judge", 5);
    text_add(&t, "", 1);
    text_add(&t, numbers, sizeof numbers);
    for (int k = 0; k < j->rubric->n_answers; k++)
        text_add(&t, j->word_id[k], (size_t)j->answers[k].n_words * sizeof(int));
    for (int i = 0; i < j->n; i++) {
        const Question* q = &j->questions[i];
        text_add(&t, &q->n, sizeof q->n);
        text_add(&t, q->tokens, (size_t)q->n * sizeof(int32_t));
        if (j->n_readings > 1) {  // of one, the place is the end
            text_add(&t, q->place, (size_t)q->n_places * sizeof(int));
            text_add(&t, q->reading, (size_t)q->n_places * sizeof(int));
        }
    }
    journal_add_model(&t, o->judge);
    journal_add_model(&t, o->adapter);
    base_decides(&t, j->trainer.settings.base);
    journal_open(&j->journal, o->out, &t, o->resume, take_answer, j);
    text_free(&t);
}

static void journal_answer(Judge* j, const Question* q) {
    float numbers[JUDGE_ANSWERS * (JUDGE_WORDS + 1)];
    int n = 0;
    for (int place = 0; place < q->n_places; place++) {
        const JudgeReading* r = reading_of(j, q, place);
        int n_words = j->answers[answer_of(j, q->reading[place])].n_words;
        for (int w = 0; w < n_words; w++) numbers[n++] = r->logit[w];
        numbers[n++] = r->log_sum;
    }
    cJSON* item = cJSON_CreateObject();
    cJSON_AddNumberToObject(item, "i", (double)(q - j->questions));
    cJSON_AddItemToObject(item, "logits", cJSON_CreateFloatArray(numbers, n));
    journal_add(&j->journal, item);
}

static void open_model(Judge* j) {
    const EvalOptions* o = j->o;
    TrainerSettings settings = {};
    settings.T = o->tokens > j->longest ? (int)o->tokens : j->longest > 2048 || o->tokens ? j->longest : 2048;
    settings.batch_max = (int)o->batch;
    settings.head_rows = (int)(o->batch < 64 ? o->batch : 64);
    settings.forward_only = true;
    settings.base = base_find(o->base);
    if (o->adapter) peft_settings(o->adapter, &j->config, &settings.lora);
    trainer_plan(&j->trainer, &j->config, &settings);
    if (o->dry_run) trainer_dry_run(&j->trainer);
    open_journal(j);
    trainer_allocate(&j->trainer);
    trainer_load(&j->trainer, o->judge, o->adapter, 0, o->quiet);
    if (j->trainer.with_lora) lora_publish(&j->trainer.lora, &j->trainer.base, j->trainer.stream);
}

// All questions, in packs of as many as fit; a pack that an earlier run answered whole is left out, so that the
// others are packed as they were.
static void answer_all(Judge* j) {
    Trainer* t = &j->trainer;
    const ParameterSet* model = t->with_lora ? &t->base : &t->theta;
    size_t most = (size_t)t->settings.batch_max, places = 1;
    for (int i = 0; i < j->n; i++)
        if ((size_t)j->questions[i].n_places > places) places = (size_t)j->questions[i].n_places;
    int* rows = (int*)host_alloc(most * places * sizeof(int), "the judge's questions");
    Question** asked = (Question**)host_alloc(most * sizeof *asked, "the judge's questions");
    float* logits = (float*)host_alloc(most * places * (size_t)j->config.V * sizeof(float), "the judge's logits");
    Progress progress;
    progress_begin(&progress, "judge", j->n, j->o->quiet);
    for (int next = 0; next < j->n;) {
        int k = 0, at = 0, open = 0, n_rows = 0;
        for (; next < j->n && k < (int)most && at + j->questions[next].n <= t->settings.T; next++) {
            Question* q = &j->questions[next];
            if (!q->n) continue;
            PackSample sample = {q->tokens, NULL, q->n, q->n - 1, 0};
            t->samples[k] = sample;
            for (int place = 0; place < q->n_places; place++) rows[n_rows++] = at + q->place[place];
            at += q->n;
            asked[k++] = q;
            open += !q->answered;
        }
        if (!open) continue;
        DevicePack s;
        host_pack_build(&t->packed, t->samples, k, j->config.V, j->config.longest);
        pack_upload(&t->uploader, &s, &t->packed, NULL, NULL, t->stream);
        transformer_forward(&t->transformer, model, &s, t->stream);
        transformer_logits(&t->transformer, model, rows, n_rows, logits, t->stream);
        const float* of_row = logits;
        for (int i = 0; i < k; i++) {
            for (int place = 0; place < asked[i]->n_places; place++, of_row += j->config.V)
                take_logits(j, asked[i], place, of_row);
            asked[i]->answered = true;
            journal_answer(j, asked[i]);
        }
        journal_flush(&j->journal);
        progress_update(&progress, next, "questions");
    }
    progress_end(&progress);
    free(rows);
    free(asked);
    free(logits);
}

void judge_answer(Judge* j) {
    if (!j->n && !j->o->dry_run) return;  // without a question no model is loaded
    j->readings = (JudgeReading*)host_alloc((size_t)(j->n_items + 1) * j->n_readings * sizeof *j->readings,
                                            "the judge's answers");
    open_model(j);
    answer_all(j);
}

const JudgeReading* judge_readings(const Judge* j, int item) {
    return item < 0 || j->unread[item] ? NULL : &j->readings[(size_t)item * j->n_readings];
}

// ---------------------------------------------------------------------------------------------------

void judge_open(Judge* j, const EvalOptions* o, const JudgeRubric* rubric, const char* const* words) {
    static const char* const pair_names[] = {"{instruction}", "{output_1}", "{output_2}"};
    static const char* const one_names[] = {"{instruction}", "{output}"};
    char error[512];
    memset(j, 0, sizeof *j);
    j->o = o;
    j->rubric = rubric;
    j->names = rubric->pair ? pair_names : one_names;
    j->n_names = rubric->pair ? 3 : 2;
    memcpy(j->answers, rubric->answers, sizeof j->answers);
    for (int w = 0; w < 2 && words; w++) j->answers[0].words[w] = words[w];
    for (int k = 0; k < JUDGE_ANSWERS; k++)
        for (int w = 0; w < JUDGE_WORDS; w++) j->word_id[k][w] = -1;
    for (int k = 0; k < rubric->n_answers; k++) j->n_readings += judge_branches(rubric, k);
    bool turns = !rubric->prompt && !rubric->prompt_text;
    if (turns && o->judge_template)
        fatal("judge: --judge-template has no effect with --rubric %s, whose question is the judge's own chat template",
              rubric->name);
    if (rubric->bare && o->chat)
        fatal("judge: --chat has no effect with --rubric %s, whose question spells the judge's special tokens itself",
              rubric->name);
    j->template_path = o->judge_template     ? o->judge_template
                       : rubric->prompt_text ? rubric->name
                       : rubric->prompt      ? beside_program(rubric->prompt)
                                             : "the chat template";
    output_is_not(o->out, j->template_path);
    model_config_read(&j->config, o->judge);
    check_sizes(&j->config);
    j->tokenizer = tokenizer_open(o->judge, error, sizeof error);
    if (!j->tokenizer) fatal("%s", error);
    const ChatOptions chat = {rubric->bare ? "none" : o->chat, NULL, false, false, NULL};
    chat_format_open(&j->chat, &chat, o->judge, j->tokenizer, o->quiet);
    if (turns && !j->chat.chat)
        fatal("--rubric %s asks by the judge's own chat template, and %s has none; give --chat FILE", rubric->name,
              o->judge);
    j->rendering = (JinjaScratch*)host_made(jinja_begin(NULL), "a chat template");
    j->mixed = rubric->bare || j->chat.chat;
    if (!turns) read_template(j);
}

void judge_close(Judge* j) {
    journal_close(&j->journal);
    if (j->trainer.stream) trainer_free(&j->trainer);
    for (int i = 0; i < j->n; i++) free(j->questions[i].tokens);
    free(j->questions);
    free(j->readings);
    free(j->unread);
    free(j->question);
    jinja_end(j->rendering);
    chat_format_close(&j->chat);
    encoding_free(&j->encoding);
    tokenizer_close(j->tokenizer);
}
