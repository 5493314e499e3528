/* Win rates: the published one of AlpacaEval's own annotations (where ../shared is there), and small files with draws,
 * nulls, NaN and what must be refused. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "check.h"
#include "base/error.h"
#include "base/file.h"
#include "refuses.h"
#include "commands/winrate.h"

#define PUBLISHED "../shared/data/alpaca_eval/alpaca-7b_alpaca_eval_gpt4_annotations.json.gz"

static char path[64];
static WinRate of(const char* json) {
    int n;
    file_write(path, json, strlen(json));
    WinRate *rates = winrate_read(path, &n), w = rates[0];
    free(rates);
    return w;
}
static void body(const void* json) { of(json); }
static bool close_to(double a, double b) { return fabs(a - b) <= 1e-12 * (1 + fabs(b)); }

static void test_published(void) {
    if (!file_exists(PUBLISHED)) {
        check_skip("AlpacaEval's published win rate", PUBLISHED " is not there");
        return;
    }
    int n;
    WinRate *rates = winrate_read(PUBLISHED, &n), w = rates[0];
    free(rates);
    check(close_to(w.win_rate, 26.459627329192543) && close_to(w.standard_error, 1.535711469748),
          "alpaca-7b has the published win rate: %.4f, standard error %.4f", w.win_rate, w.standard_error);
    check(w.n == 805 && w.wins == 205 && w.losses == 584 && w.draws == 16, "and its wins, losses and draws");
    check(floor(w.length_2) == 396, "and mean length (%.1f characters)", w.length_2);
    check(!strcmp(w.generator_2, "alpaca-7b") && !strcmp(w.generator_1, "text_davinci_003"), "and names");
}

static void test_small(void) {
    WinRate w = of(
        "[{\"preference\":1},{\"preference\":2},{\"preference\":2},{\"preference\":0},{\"preference\":1.5}]");
    check(close_to(w.win_rate, 60) && w.draws == 2 && w.wins == 2 && w.losses == 1, "0 and 1.5 are draws");
    check(close_to(w.standard_error, 100 * sqrt((0.36 + 2 * 0.16 + 2 * 0.01) / 4 / 5)),
          "the standard error is of a sample");
    w = of("[{\"preference\":1.25},{\"preference\":1.75}]");
    check(close_to(w.win_rate, 50) && close_to(w.standard_error, 25) && w.wins == 1, "weighted preferences");
    w = of(
        "[{\"preference\":null},{\"preference\": NaN, \"note\":\"NaN\"},{\"preference\":2,\"price_per_example\":NaN}]");
    check(w.n == 1 && w.null == 1 && w.nan == 1 && close_to(w.win_rate, 100) && isnan(w.standard_error),
          "null and NaN are dropped and counted, NaN elsewhere is none of that");
    w = of("[{\"preference\":null}]");
    check(w.n == 0 && isnan(w.win_rate), "without a preference there is no win rate");
    w = of(
        "[{\"preference\":2,\"preference_given\":1.9,\"preference_swapped\":1.2},{\"preference\":2,\"preference_"
        "given\":1.9,\"preference_swapped\":1.6}]");
    check(w.both == 2 && w.flips == 1, "two orders that disagree are a flip");
    w = of("[{\"preference\":2,\"output_1\":\"abc\",\"output_2\":\"\xC3\xA4\xC3\xB6\"}]");
    check(w.length_1 == 3 && w.length_2 == 2, "lengths are of characters");
    snprintf(path + strlen(path) - 4, 16, "jsonl");
    w = of("{\"preference\":1}\n{\"preference\":2}\n");
    check(w.n == 2 && close_to(w.win_rate, 50), "a record a line");
    unlink(path);
    snprintf(path + strlen(path) - 5, 16, "json");
}

static void test_annotators(void) {
    int n;
    const char* json =
        "[{\"annotator\":\"x\",\"preference\":1},{\"annotator\":\"y\",\"preference\":2},{\"annotator\":\"x\","
        "\"preference\":2},{\"preference\":null},{\"annotator\":\"y\",\"preference\":2,\"raw\":\"\\ud83d\"}]";
    file_write(path, json, strlen(json));
    WinRate* rates = winrate_read(path, &n);
    check(n == 3 && !strcmp(rates[0].annotator, "x") && !strcmp(rates[1].annotator, "y") && !*rates[2].annotator,
          "annotators are told apart, those without a name too");
    check(n == 3 && rates[0].n == 2 && close_to(rates[0].win_rate, 50) && rates[1].n == 2 &&
              close_to(rates[1].win_rate, 100) && rates[2].n == 0 && rates[2].null == 1,
          "each has a win rate of its own");
    free(rates);
}

// The values of dev/reference/record_winrate.py: golden/winrate/controlled.txt, a case a line: name, rate, error,
// effect, n, then n preferences and n differences.
static void test_controlled(void) {
    FILE* f = fopen("dev/reference/golden/winrate/controlled.txt", "r");
    char name[64];
    double expected[3], preference[512], difference[512];
    int n, cases = 0;
    if (!check(f != NULL, "recorded fits are there")) return;
    while (fscanf(f, "%63s %lf %lf %lf %d", name, &expected[0], &expected[1], &expected[2], &n) == 5 && n <= 512) {
        int got = 0;
        for (int i = 0; i < n; i++) got += fscanf(f, "%lf", &preference[i]);
        for (int i = 0; i < n; i++) got += fscanf(f, "%lf", &difference[i]);
        double error, effect, rate = length_controlled(preference, difference, n, &error, &effect);
        check(got == 2 * n && fabs(rate - expected[0]) < 1e-6 && fabs(error - expected[1]) < 1e-6 &&
                  fabs(effect - expected[2]) < 1e-6,
              "%s: length-controlled %.6f (%.6f), effect %.6f", name, rate, error, effect);
        cases++;
    }
    fclose(f);
    check(cases == 4, "four of them");
    double error, effect, same[] = {0, 1, 1, 1}, alike[] = {7, 7, 7, 7}, rate;
    rate = length_controlled(same, alike, 4, &error, &effect);
    check(fabs(rate - 75) < 1e-9 && effect == 0, "lengths that all differ alike leave the win rate");
    double decided[] = {0, 0, 1, 1}, by_length[] = {-5, -1, 1, 5};
    rate = length_controlled(decided, by_length, 4, &error, &effect);
    check(isnan(rate) && isnan(error) && isnan(effect), "lengths that decide everything have no finite fit");
    double ones[] = {1, 1, 1}, any[] = {1, 2, 3};
    check(isnan(length_controlled(ones, any, 3, &error, &effect)), "nor have wins alone");
    double hanging[] = {0, 1, 1, 1}, far[] = {1, 2, -3, 4};
    rate = length_controlled(hanging, far, 4, &error, &effect);
    check(isfinite(rate) && isnan(error), "one that hangs on one pair has no standard error");
    check(isnan(length_controlled(ones, any, 0, &error, &effect)), "nor has nothing a rate");
}

static void controlled_body(const void* json) {
    int n;
    file_write(path, json, strlen(json));
    winrate_read_controlled(path, &n);
}

static void test_refusals(void) {
    check(refuses(controlled_body, "[{\"preference\":2,\"output_1\":\"x\"}]", "has a preference but not both outputs"),
          "length control without an output is refused");
    check(refuses(body, "[{\"preference\":3}]", "the preference is 3"), "a preference outside 1 to 2 is refused");
    check(refuses(body, "[{\"preference\":\"2\"}]", "is not an annotation"), "a preference that is a text is refused");
    check(refuses(body, "[{\"output\":\"x\"}]", "row 0 is not an annotation"), "outputs are not annotations");
    check(refuses(body, "[{\"preference\":2,\"generator_2\":\"a\"},{\"preference\":2,\"generator_2\":\"b\"}]",
                  "compares two models"),
          "two models in one file are refused");
    check(refuses(body, "[{\"preference\":2,]", "row 0"), "what is not JSON is refused");
}

int main(void) {
    program_name = "test_winrate";
    snprintf(path, sizeof path, "/tmp/seal_winrate_%d.json", (int)getpid());
    test_published();
    test_small();
    test_annotators();
    test_controlled();
    test_refusals();
    unlink(path);
    return check_report();
}
