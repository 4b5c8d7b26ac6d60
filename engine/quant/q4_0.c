/*
 * q4_0.c - 32 elements in 18 bytes: f16 d; u8 qs[16].   y = d * (q - 8)
 * Byte j holds element j in its low nibble and element j + 16 in its high one.
 */
#include "engine/quant/fit.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { N = 32, BYTES = 18 };

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p);
        for (int j = 0; j < 16; j++) {
            y[i + j] = d * (float)((p[2 + j] & 15) - 8);
            y[i + j + 16] = d * (float)((p[2 + j] >> 4) - 8);
        }
    }
}

static void write_row(void *y, const float *x, size_t n)
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float inv = inverse(store_scale(p, fit_scale(x + i, N, -8, 7)));
        for (int j = 0; j < 16; j++) {
            int lo = round_to(x[i + j] * inv, -8, 7) + 8;
            int hi = round_to(x[i + j + 16] * inv, -8, 7) + 8;
            p[2 + j] = (uint8_t)(lo | hi << 4);
        }
    }
}

const struct quant_traits quant_q4_0 = {"q4_0", QUANT_Q4_0, N, BYTES, read_row, write_row};
