/*
 * k_scales.h - the twelve bytes in which Q4_K and Q5_K pack eight six-bit scales and eight
 * six-bit minima: the first four of each whole, the low six bits of bytes 0-3 and 4-7; the
 * others as nibbles in bytes 8-11 with their high two bits on top of bytes 0-7.
 */
#ifndef ENGINE_QUANT_K_SCALES_H
#define ENGINE_QUANT_K_SCALES_H

#include <stdint.h>

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

#endif
