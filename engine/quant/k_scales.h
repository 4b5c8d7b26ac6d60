/*
 * k_scales.h - the sixteen bytes that open a block of Q4_K and Q5_K: f16 d, f16 dmin, and
 * twelve bytes in which eight six-bit scales and eight six-bit minima are packed: the first
 * four of each whole, the low six bits of bytes 0-3 and 4-7; the others as nibbles in bytes
 * 8-11 with their high two bits on top of bytes 0-7. Group j of 32 elements is
 * y = d * scale[j] * q - dmin * min[j].
 */
#ifndef ENGINE_QUANT_K_SCALES_H
#define ENGINE_QUANT_K_SCALES_H

#include <stdint.h>

#include "engine/quant/fit.h"
#include "engine/quant/half.h"

enum { K_GROUPS = 8, K_GROUP = 32, K_SCALES = 4 };

static inline void k_scale_get(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

/* The bytes start as zeros. */
static inline void k_scale_put(uint8_t *s, int j, int scale, int min)
{
    if (j < 4) {
        s[j] |= (uint8_t)scale;
        s[j + 4] |= (uint8_t)min;
    } else {
        s[j + 4] |= (uint8_t)((scale & 15) | (min & 15) << 4);
        s[j - 4] |= (uint8_t)(scale >> 4 << 6);
        s[j] |= (uint8_t)(min >> 4 << 6);
    }
}

/* Group j of the block at p is y = slope * q - offset. */
static inline void k_line_get(const uint8_t *p, int j, float *slope, float *offset)
{
    int s, m;
    k_scale_get(p + K_SCALES, j, &s, &m);
    *slope = load_f16(p) * (float)s;
    *offset = load_f16(p + 2) * (float)m;
}

/* Fits codes 0..hi to the 256 elements of x and writes the sixteen bytes: element i of group j
 * is then coded as (x + offset[j]) * inverse_slope[j], rounded. The bytes start as zeros. */
static inline void k_lines_put(uint8_t *p, const float *x, int hi, float *inverse_slope,
                               float *offset)
{
    float scale[K_GROUPS], min[K_GROUPS];
    struct fit_peak peak = fit_affines(x, K_GROUPS, K_GROUP, hi, scale, min);
    float d = store_scale(p, peak.scale / 63), dmin = store_scale(p + 2, peak.min / 63);
    for (int j = 0; j < K_GROUPS; j++) {
        int s = round_to(scale[j] * inverse(d), 0, 63);
        int m = round_to(min[j] * inverse(dmin), 0, 63);
        k_scale_put(p + K_SCALES, j, s, m);
        inverse_slope[j] = inverse(d * (float)s);
        offset[j] = dmin * (float)m;
    }
}

#endif
