/* Schedules. See schedule.h. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "schedule.h"

// ---------------------------------------------------------------------------------------------------
// learning rate: what is left of it after the fraction x of the run after the warm-up

static double constant(double x) {
    (void)x;
    return 1.0;
}
static double linear(double x) { return 1.0 - x; }
static double cosine(double x) { return 0.5 * (1.0 + cos(3.14159265358979323846 * x)); }
static const struct {
    const char* name;
    double (*left)(double x);
} lr_schedules[] = {{"constant", constant}, {"linear", linear}, {"cosine", cosine}};

double lr_at(const LrSchedule* s, int64_t step, int64_t steps) {
    double warmup = s->warmup < 1.0 ? ceil(s->warmup * (double)steps) : s->warmup;
    if ((double)step < warmup) return s->lr * (double)step / warmup;
    double x = (double)steps > warmup ? ((double)step - warmup) / ((double)steps - warmup) : 0.0;
    for (size_t i = 0; i < sizeof lr_schedules / sizeof *lr_schedules; i++)
        if (!strcmp(lr_schedules[i].name, s->name)) return s->lr * lr_schedules[i].left(x > 1.0 ? 1.0 : x);
    program_error("learning-rate schedule %s", s->name);
}

// ---------------------------------------------------------------------------------------------------
// γ

typedef struct {
    int epoch;
    double progress;
} When;  // progress in [0, 1] over the whole run
static double g_linear(const GammaSchedule* g, When w) { return g->values[0] + g->values[1] * w.epoch; }
static double g_fixed(const GammaSchedule* g, When w) {
    (void)w;
    return g->values[0];
}
static double g_geometric(const GammaSchedule* g, When w) { return g->values[0] * pow(g->values[1], w.epoch); }
static double g_list(const GammaSchedule* g, When w) { return g->values[w.epoch < g->n ? w.epoch : g->n - 1]; }
static double g_ramp(const GammaSchedule* g, When w) {
    return g->values[0] + (g->values[1] - g->values[0]) * w.progress;
}

static const struct {
    const char* name;
    int values;
    const char* form;
    double (*at)(const GammaSchedule*, When);
} gammas[] = {
    {"linear", 2, "linear:START,STEP", g_linear},
    {"fixed", 1, "fixed:G", g_fixed},
    {"geometric", 2, "geometric:G0,RATIO", g_geometric},
    {"list", 0, "list:a,b,c", g_list},
    {"ramp", 2, "ramp:START,END", g_ramp},
};
#define N_GAMMAS (int)(sizeof gammas / sizeof *gammas)

void gamma_parse(GammaSchedule* g, const char* text) {
    const char* colon = strchr(text, ':');
    memset(g, 0, sizeof *g);
    for (g->kind = 0; g->kind < N_GAMMAS; g->kind++)
        if (colon && strlen(gammas[g->kind].name) == (size_t)(colon - text) &&
            !strncmp(gammas[g->kind].name, text, (size_t)(colon - text)))
            break;
    if (g->kind == N_GAMMAS)
        fatal(
            "--gamma is \"%s\"; expected linear:START,STEP, fixed:G, geometric:G0,RATIO, list:a,b,c or ramp:START,END",
            text);
    const char* p = colon + 1;
    bool more = true;
    while (more) {
        char* end;
        double x = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !isfinite(x))
            fatal("--gamma is \"%s\": \"%s\" does not begin with a number; expected %s", text, p, gammas[g->kind].form);
        if (g->n == GAMMA_LIST_MAX) fatal("--gamma lists more than %d values", GAMMA_LIST_MAX);
        g->values[g->n++] = x;
        more = *end == ',';
        p = end + 1;
    }
    if (gammas[g->kind].values && g->n != gammas[g->kind].values)
        fatal("--gamma is \"%s\"; expected %s", text, gammas[g->kind].form);
}

double gamma_at(const GammaSchedule* g, int epoch, int64_t step, int64_t steps) {
    When w = {epoch, steps > 1 ? (double)step / (double)(steps - 1) : 0.0};
    double x = gammas[g->kind].at(g, w);
    return x > 1.0 ? 1.0 : x > 0.0 ? x : 0.0;  // so is what numbers beyond all reason leave undefined
}
