/*
 * mxfp4.c - 32 elements in 17 bytes: u8 e; u8 qs[16].   y = 2^(e-128) * M[q]
 * M holds doubled e2m1 values, hence 128 and not 127. Nibbles as in q4_0; raw checkpoints
 * pack neighbours instead, and have to be reordered before they get here.
 */
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { N = 32, BYTES = 17 };

static const signed char level[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
static const signed char size[8] = {0, 1, 2, 3, 4, 6, 8, 12};

/* e below 2 gives f32 subnormals: ldexpf is exact there too. */
static float scale_of(uint8_t e)
{
    return ldexpf(1.0f, (int)e - 128);
}

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = scale_of(p[0]);
        for (int j = 0; j < 16; j++) {
            y[i + j] = d * (float)level[p[1 + j] & 15];
            y[i + j + 16] = d * (float)level[p[1 + j] >> 4];
        }
    }
}

static int code_of(float x, float inv)
{
    float v = fabsf(x * inv);
    int q = 0;
    while (q < 7 && v - size[q] > size[q + 1] - v)
        q++;
    return x < 0 && q ? q | 8 : q;
}

static double error_of(const float *x, uint8_t e)
{
    double err = 0, d = ldexp(1.0, (int)e - 128);
    float inv = inverse(scale_of(e));
    for (int j = 0; j < N; j++) {
        double diff = d * level[code_of(x[j], inv)] - x[j];
        err += diff * diff;
    }
    return err;
}

/* The largest level is 12: the exponent that just holds the peak, or a neighbour. */
static uint8_t choose(const float *x)
{
    float peak = 0;
    for (int j = 0; j < N; j++)
        peak = fabsf(x[j]) > peak ? fabsf(x[j]) : peak;
    if (!(peak > 0) || !isfinite(peak))
        return 0;
    int exponent, best = 0;
    frexpf(peak / 12, &exponent);
    double least = INFINITY;
    for (int e = exponent + 126; e <= exponent + 129; e++) {
        /* 254 keeps 12 * 2^126 within f32; 2^-127 is the smallest with a finite inverse. */
        uint8_t c = (uint8_t)(e < 1 ? 1 : e > 252 ? 252 : e);
        double err = error_of(x, c);
        if (err < least) {
            least = err;
            best = c;
        }
    }
    return (uint8_t)best;
}

static void write_row(void *y, const float *x, size_t n)
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        p[0] = choose(x + i);
        float inv = inverse(scale_of(p[0]));
        for (int j = 0; j < 16; j++)
            p[1 + j] = (uint8_t)(code_of(x[i + j], inv) | code_of(x[i + j + 16], inv) << 4);
    }
}

const struct quant_traits quant_mxfp4 = {"mxfp4", QUANT_MXFP4, N, BYTES, read_row, write_row};
