/* rope.c - rotary frequencies (YaRN) and rotations. */
#include "engine/rope.h"

#include <math.h>

/* The pair index, as a real number, that turns `turns` times within the original context.
 */
static double pair_of(const struct hparams *hp, double turns)
{
    double d = hp->qk_rope_head_dim;
    return d * log(hp->yarn_orig_ctx / (2 * M_PI * turns)) /
           (2 * log((double)hp->rope_theta));
}

void rope_freqs(float *freq, const struct hparams *hp)
{
    uint32_t d = hp->qk_rope_head_dim;
    double lo = 0, hi = 0;
    if (hp->yarn) {
        lo = fmax(floor(pair_of(hp, (double)hp->yarn_beta_fast)), 0);
        hi = fmin(ceil(pair_of(hp, (double)hp->yarn_beta_slow)), d - 1.0);
        if (lo == hi)
            hi += 0.001;
    }
    for (uint32_t i = 0; i < d / 2; i++) {
        double base = pow((double)hp->rope_theta, -2.0 * i / d);
        if (hp->yarn) {
            double ramp = fmin(fmax((i - lo) / (hi - lo), 0), 1);
            base = base * (1 - ramp) + base / (double)hp->yarn_factor * ramp;
        }
        freq[i] = (float)base;
    }
}

void rope_angles(float *cos_out, float *sin_out, const float *freq, uint32_t half,
                 uint32_t pos, float mul)
{
    for (uint32_t i = 0; i < half; i++) {
        float angle = (float)pos * freq[i];
        cos_out[i] = cosf(angle) * mul;
        sin_out[i] = sinf(angle) * mul;
    }
}

void rope_pairs(float *x, const float *cos_in, const float *sin_in, uint32_t half)
{
    for (uint32_t i = 0; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos_in[i] - b * sin_in[i];
        x[2 * i + 1] = b * cos_in[i] + a * sin_in[i];
    }
}

void rope_halves(float *x, const float *cos_in, const float *sin_in, uint32_t half)
{
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos_in[i] - b * sin_in[i];
        x[i + half] = b * cos_in[i] + a * sin_in[i];
    }
}
