/*
The table of rotary positions: cos and sin of position · frequency, with the frequencies as the model's scaling bends
them (transformers, modeling_rope_utils.py). Every intermediate is rounded to fp32 as there: at position 100,000 a
frequency's last bit turns the angle by 0.01.
*/
#include <math.h>
#include "model_config.h"

// Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between interpolated.
static float llama3_frequency(const RopeConfig* r, float f) {
    const float two_pi = 6.283185307179586f;
    float low = (float)r->original_positions / r->low_frequency,
          high = (float)r->original_positions / r->high_frequency;
    float wavelength = two_pi / f;
    if (wavelength < high) return f;
    if (wavelength > low) return f / r->factor;
    float smooth = ((float)r->original_positions / wavelength - r->low_frequency) /
                   (r->high_frequency - r->low_frequency);
    return (1.0f - smooth) * f / r->factor + smooth * f;
}

// YaRN: fast turns are kept, slow ones divided by the factor, a ramp over the frequencies between. The ramp ends at the
// frequencies that turn beta_fast and beta_slow times within the positions that the model was first trained on.
typedef struct {
    float low, span;
} Ramp;
static double yarn_dimension(const RopeConfig* r, double turns) {
    const double two_pi = 6.283185307179586;
    return r->rotary * log((double)r->original_positions / (turns * two_pi)) / (2.0 * log((double)r->base));
}
static Ramp yarn_ramp(const RopeConfig* r) {
    double low = yarn_dimension(r, r->beta_fast), high = yarn_dimension(r, r->beta_slow);
    if (r->ramp_truncated) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0.0 ? low : 0.0;
    high = high < r->rotary - 1 ? high : r->rotary - 1;
    if (low == high) high += 0.001;
    Ramp ramp = {(float)low, (float)(high - low)};
    return ramp;
}
static float yarn_frequency(const RopeConfig* r, Ramp ramp, int i, float power) {
    float x = ((float)i - ramp.low) / ramp.span;
    x = x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x;
    float kept = 1.0f - x;
    return 1.0f / (r->factor * power) * (1.0f - kept) + 1.0f / power * kept;
}

void model_rope_table(const RopeConfig* r, int P, float* cos_sin) {
    Ramp ramp = {0.0f, 1.0f};
    if (r->scaling == ROPE_YARN) ramp = yarn_ramp(r);
    int half = r->rotary / 2;
    for (int i = 0; i < half; i++) {
        float power = (float)pow((double)r->base, (double)((float)(2 * i) / (float)r->rotary));
        float f = 1.0f / (r->scaling == ROPE_LONG ? r->short_factor[i] * power : power);
        if (r->scaling == ROPE_LINEAR) f /= r->factor;
        if (r->scaling == ROPE_LLAMA3) f = llama3_frequency(r, f);
        if (r->scaling == ROPE_YARN) f = yarn_frequency(r, ramp, i, power);
        for (int p = 0; p < P; p++) {
            float angle = (float)p * f, *at = cos_sin + ((size_t)p * half + i) * 2;
            at[0] = (float)cos((double)angle) * r->attention_factor;
            at[1] = (float)sin((double)angle) * r->attention_factor;
        }
    }
}
