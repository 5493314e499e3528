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

void model_rope_table(const ModelConfig* c, int P, float* cos_sin) {
    const RopeConfig* r = &c->rope;
    int half = r->rotary / 2;
    for (int i = 0; i < half; i++) {
        float power = (float)pow((double)r->base, (double)((float)(2 * i) / (float)r->rotary));
        float f = 1.0f / (r->scaling == ROPE_LONG ? r->short_factor[i] * power : power);
        if (r->scaling == ROPE_LINEAR) f /= r->factor;
        if (r->scaling == ROPE_LLAMA3) f = llama3_frequency(r, f);
        for (int p = 0; p < P; p++) {
            float angle = (float)p * f, *at = cos_sin + ((size_t)p * half + i) * 2;
            at[0] = (float)cos((double)angle) * r->attention_factor;
            at[1] = (float)sin((double)angle) * r->attention_factor;
        }
    }
}
