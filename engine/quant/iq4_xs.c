/*
 * iq4_xs.c - 256 elements in 136 bytes: f16 d; u16 scales_h; u8 scales_l[4]; u8 qs[128].
 * y = d * (s - 32) * T[q]: eight groups of 32, a six-bit scale each (low four bits in
 * scales_l, high two in scales_h), nibbles within a group as in q4_0.
 */
#include "engine/quant/fit.h"
#include "engine/quant/half.h"
#include "engine/quant/iq4.h"
#include "engine/quant/quant.h"

enum { N = 256, BYTES = 136, GROUPS = 8 };

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p);
        unsigned high = load_u16(p + 2);
        for (int b = 0; b < GROUPS; b++) {
            int s = (p[4 + b / 2] >> 4 * (b % 2) & 15) | (high >> 2 * b & 3) << 4;
            float ds = d * (float)(s - 32);
            const uint8_t *q = p + 8 + 16 * b;
            for (int j = 0; j < 16; j++) {
                y[i + 32 * b + j] = ds * (float)iq4_levels[q[j] & 15];
                y[i + 32 * b + j + 16] = ds * (float)iq4_levels[q[j] >> 4];
            }
        }
    }
}

static void write_block(uint8_t *p, const float *x)
{
    float want[GROUPS], peak = 0;
    for (int b = 0; b < GROUPS; b++) {
        want[b] = fit_levels(x + 32 * b, 32, iq4_levels, 16);
        if (fabsf(want[b]) > fabsf(peak))
            peak = want[b];
    }
    float d = store_scale(p, peak / -32), inv = inverse(d);
    unsigned high = 0;
    memset(p + 4, 0, 4);
    for (int b = 0; b < GROUPS; b++) {
        int s = round_to(want[b] * inv, -32, 31);
        float inv_s = inverse(d * (float)s);
        p[4 + b / 2] |= (uint8_t)((s + 32) & 15) << 4 * (b % 2);
        high |= (unsigned)(s + 32) >> 4 << 2 * b;
        uint8_t q[32];
        nearest_levels(x + 32 * b, 32, inv_s, iq4_levels, 16, q);
        for (int j = 0; j < 16; j++)
            p[8 + 16 * b + j] = (uint8_t)(q[j] | q[j + 16] << 4);
    }
    store_u16(p + 2, (uint16_t)high);
}

static void write_row(void *y, const float *x, size_t n)
{
    write_blocks(y, x, n, N, BYTES, write_block);
}

const struct quant_traits quant_iq4_xs = {"iq4_xs", QUANT_IQ4_XS, N,
                                          BYTES,    read_row,     write_row};
