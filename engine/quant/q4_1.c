/*
 * q4_1.c - 32 elements in 20 bytes: f16 d, m; u8 qs[16].   y = d * q + m
 * Byte j holds element j in its low nibble and element j + 16 in its high one.
 */
#include "engine/quant/fit.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { N = 32, BYTES = 20 };

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p), m = load_f16(p + 2);
        for (int j = 0; j < 16; j++) {
            y[i + j] = d * (float)(p[4 + j] & 15) + m;
            y[i + j + 16] = d * (float)(p[4 + j] >> 4) + m;
        }
    }
}

static void write_row(void *y, const float *x, size_t n)
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float least = x[i], most = x[i];
        for (int j = 1; j < N; j++) {
            least = x[i + j] < least ? x[i + j] : least;
            most = x[i + j] > most ? x[i + j] : most;
        }
        float m = store_scale(p + 2, least);
        float inv = inverse(store_scale(p, most / 15 - least / 15));
        for (int j = 0; j < 16; j++) {
            int lo = round_to((x[i + j] - m) * inv, 0, 15);
            int hi = round_to((x[i + j + 16] - m) * inv, 0, 15);
            p[4 + j] = (uint8_t)(lo | hi << 4);
        }
    }
}

const struct quant_traits quant_q4_1 = {"q4_1", QUANT_Q4_1, N, BYTES, read_row, write_row};
