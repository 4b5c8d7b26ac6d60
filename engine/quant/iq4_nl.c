/*
 * iq4_nl.c - 32 elements in 18 bytes: f16 d; u8 qs[16].   y = d * T[q]
 * T is uneven: finer near zero. Nibbles as in q4_0.
 */
#include "engine/quant/fit.h"
#include "engine/quant/half.h"
#include "engine/quant/iq4.h"
#include "engine/quant/quant.h"

enum { N = 32, BYTES = 18 };

const signed char iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p);
        for (int j = 0; j < 16; j++) {
            y[i + j] = d * (float)iq4_levels[p[2 + j] & 15];
            y[i + j + 16] = d * (float)iq4_levels[p[2 + j] >> 4];
        }
    }
}

static void write_row(void *y, const float *x, size_t n)
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float inv = inverse(store_scale(p, fit_levels(x + i, N, iq4_levels, 16)));
        uint8_t q[N];
        nearest_levels(x + i, N, inv, iq4_levels, 16, q);
        for (int j = 0; j < 16; j++)
            p[2 + j] = (uint8_t)(q[j] | q[j + 16] << 4);
    }
}

const struct quant_traits quant_iq4_nl = {"iq4_nl", QUANT_IQ4_NL, N,
                                          BYTES,    read_row,     write_row};
