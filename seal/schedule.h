/* Schedules as tables: of the learning rate (by step) and of γ (by epoch or step). Parsed strictly; a bad text is the
 * user's error. */
#ifndef SEAL_SCHEDULE_H
#define SEAL_SCHEDULE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Learning rate at step 0 … steps − 1: linear warm-up over `warmup` steps (≥ 1) or a share of the run (< 1), then
// constant, linear to 0, or half a cosine to 0. transformers' get_scheduler of the same names.
typedef struct {
    const char* name;
    double lr, warmup;
} LrSchedule;
double lr_at(const LrSchedule* s, int64_t step, int64_t steps);

#define GAMMA_LIST_MAX 64
typedef struct {
    int kind;
    double values[GAMMA_LIST_MAX];
    int n;
} GammaSchedule;
// linear:START,STEP (per epoch) · fixed:G · geometric:G0,RATIO (per epoch) · list:a,b,c (per epoch, the last one stays)
// · ramp:START,END (per step, over the run)
void gamma_parse(GammaSchedule* g, const char* text);
// γ at a step of an epoch, clamped to [0, 1].
double gamma_at(const GammaSchedule* g, int epoch, int64_t step, int64_t steps);

#ifdef __cplusplus
}
#endif
#endif
