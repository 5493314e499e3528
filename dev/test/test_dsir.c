/*
DSIR without a device: words as Python cuts them, buckets, log weights and kept rows against upstream's own run
(dev/reference/record_dsir.py), the noise, the refusals. golden/dsir holds texts made for the purpose.
*/
#include <math.h>
#include <string.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include "check.h"
#include "commands/dsir.h"
#include "base/error.h"
#include "base/file.h"
#include "refuses.h"
#include "commands/scores.h"

#define GOLDEN "dev/reference/golden/dsir/"

static cJSON* expected;
static double number(const char* array, int64_t i) {
    return cJSON_GetArrayItem(cJSON_GetObjectItem(expected, array), (int)i)->valuedouble;
}

static void join(void* context, const char* word, size_t n) {
    Text* t = context;
    if (t->n) text_add(t, "|", 1);
    text_add(t, word, n);
}
static void words_are(const char* name, const char* text, const char* want) {
    Text got = {0};
    text_add(&got, "", 0);
    dsir_words(text, strlen(text), join, &got);
    if (!check(!strcmp(got.s, want), "%s", name)) printf("# got %s\n", got.s);
    text_free(&got);
}

static void test_words(void) {
    words_are("words and punctuation", "Alice is eating.", "alice|is|eating|.");
    words_are("runs of punctuation stay together", "don't... (x_1)?!", "don|'|t|...|(|x_1|)?!");
    words_are("no words", " \n\t\xE3\x80\x80", "");
    words_are("marks are not word characters", "e\xCC\x81t", "e|\xCC\x81|t");
    words_are("final and other sigma", "\xCE\x9F\xCE\x94\xCE\x9F\xCE\xA3 \xCE\xA3\xCE\x91",
              "\xCE\xBF\xCE\xB4\xCE\xBF\xCF\x82|\xCF\x83\xCE\xB1");
    words_are("I with a dot", "\xC4\xB0x", "i|\xCC\x87|x");
    words_are("bytes that are not UTF-8 are punctuation",
              "a\xFF\xFE"
              "b",
              "a|\xFF\xFE|b");
    const cJSON *vectors = cJSON_GetObjectItem(expected, "vectors"), *v;
    cJSON_ArrayForEach(v, vectors) check(dsir_bucket(v->string, strlen(v->string)) == v->valueint,
                                         "bucket of \"%s\" is %d", v->string, v->valueint);
    check(dsir_bucket("alice", 5) == 6720 && dsir_bucket("is eating", 9) == 2719 &&
              dsir_bucket("hello world", 11) == 1529,
          "buckets as published");
}

static void test_weights(void) {
    const char *data = GOLDEN "data.jsonl", *target = GOLDEN "target.jsonl";
    const StringList files = {&data, 1}, targets = {&target, 1};
    double worst = 0.0;
    bool words = true, same = true;
    DsirScores s[2];
    for (int threads = 0; threads < 2; threads++)
        dsir_score(&s[threads], &files, &targets, &(DsirOptions){.threads = 1 + 2 * threads, .quiet = true});
    int64_t n = s[0].n;
    check(n == cJSON_GetArraySize(cJSON_GetObjectItem(expected, "words")) && s[0].n_rows == n,
          "every row has a weight (%lld)", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        worst = larger(worst, fabs(s[0].log_weight[i] - number("log_weight", i)));
        words &= s[0].words[i] == (int)number("words", i) && s[0].rows[i] == i;
    }
    same = s[1].n == n && !memcmp(s[0].log_weight, s[1].log_weight, (size_t)n * sizeof(double));
    check(worst <= 1e-9, "log weights are upstream's: |a-b| at most %.1e, allowed 1e-9", worst);
    check(words, "and the numbers of words");
    check(same, "any number of threads gives the same bits");

    int64_t* order = calloc((size_t)n, sizeof *order);
    double* score = calloc((size_t)n, sizeof *score);
    uint8_t* keep = calloc((size_t)n, 1);
    const ScoreMethod* method = score_method("dsir");
    score_rows(method, &(ScoreInput){.scores = s[0].log_weight}, s[0].rows, n, score);
    int64_t kept = n * 7 / 10, shared = 0;
    score_order(score, s[0].rows, n, 1, order);
    for (int64_t i = 0; i < kept; i++) keep[order[i]] = 1;
    for (int64_t i = 0; i < kept; i++) shared += keep[(int)number("kept_70", i)];
    check(shared == kept && kept == cJSON_GetArraySize(cJSON_GetObjectItem(expected, "kept_70")),
          "without noise the rows upstream keeps (%lld)", (long long)kept);

    // With noise the first place is a draw by weight: P = w_i / Σ w. Two rows of log weights 0 and 1: e/(1+e) of the
    // draws.
    const double two[2] = {0.0, 1.0};
    const int64_t rows[2] = {0, 1};
    int first = 0, draws = 4000;
    for (int seed = 0; seed < draws; seed++) {
        score_rows(method, &(ScoreInput){.scores = two, .seed = (uint64_t)seed, .noise = true}, rows, 2, score);
        first += score[1] > score[0];
    }
    double p = exp(1.0) / (1.0 + exp(1.0)), deviation = sqrt(p * (1.0 - p) * draws);
    check(fabs(first - p * draws) < 4.0 * deviation,
          "with noise the first row is a draw by weight (%d of %d, expected %.0f ± %.0f)", first, draws, p * draws,
          deviation);
    for (int t = 0; t < 2; t++) dsir_free(&s[t]);
    free(order);
    free(score);
    free(keep);
}

static void score(const void* paths) {
    const char* const* p = paths;
    const char *data = p[0], *target = p[1];
    DsirScores s;
    dsir_score(&s, &(StringList){&data, 1}, &(StringList){&target, 1}, &(DsirOptions){.quiet = true});
}

static void test_refusals(void) {
    char wordless[] = "/tmp/seal_dsir_XXXXXX.jsonl";
    int file = mkstemps(wordless, 6);
    const char row[] = "{\"prompt\":\" \",\"response\":\" \"}\n";
    if (file < 0 || write(file, row, sizeof row - 1) != (ssize_t)sizeof row - 1)
        fatal("%s: cannot be written", wordless);
    close(file);
    check(refuses(score, (const char*[]){GOLDEN "data.jsonl", wordless}, "contains a word"),
          "a target without words is refused");
    check(refuses(score, (const char*[]){"/nowhere.jsonl", GOLDEN "target.jsonl"}, "/nowhere.jsonl"),
          "a file that is not there is refused");
    unlink(wordless);
}

int main(void) {
    program_name = "test_dsir";
    char* text = file_read(GOLDEN "expected.json", 1 << 20, &(size_t){0});
    expected = cJSON_Parse(text);
    if (!expected) fatal(GOLDEN "expected.json: is not JSON");
    test_words();
    test_weights();
    test_refusals();
    cJSON_Delete(expected);
    free(text);
    return check_report();
}
