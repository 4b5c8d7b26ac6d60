/*
 * q8_0.c - 32 elements in 34 bytes: f16 d; i8 q[32].   y = d * q
 */
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { N = 32, BYTES = 34 };

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p);
        for (int j = 0; j < N; j++)
            y[i + j] = d * (float)(int8_t)p[2 + j];
    }
}

static void write_row(void *y, const float *x, size_t n)
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float amax = 0.0f;
        for (int j = 0; j < N; j++)
            amax = fmaxf(amax, fabsf(x[i + j]));
        float inv = inverse(store_scale(p, amax / 127.0f));
        for (int j = 0; j < N; j++)
            p[2 + j] = (uint8_t)(int8_t)round_to(x[i + j] * inv, -127, 127);
    }
}

const struct quant_traits quant_q8_0 = {"q8_0", QUANT_Q8_0, N, BYTES, read_row, write_row};
