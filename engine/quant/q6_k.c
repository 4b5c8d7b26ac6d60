/*
 * q6_k.c - 256 elements in 210 bytes: u8 ql[128]; u8 qh[64]; i8 scales[16]; f16 d.
 * Sixteen groups of 16: y = d * s * (q - 32). Each half of 128 elements is four runs of 32:
 * run r takes its low nibbles from bytes 32(r%2).. of the half's ql (low ones for r < 2) and
 * its high two bits from bits 2r of the half's qh.
 */
#include "engine/quant/fit.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { N = 256, BYTES = 210, GROUPS = 16, QH = 128, SC = 192, D = 208 };

/* 16 elements: run r, bytes l.. of a half's ql and qh. */
static inline void read_group(float *y, const uint8_t *ql, const uint8_t *qh, int r, float dl)
{
    int low = 4 * (r / 2), high = 2 * r;
    for (int l = 0; l < 16; l++) {
        int q = (ql[l] >> low & 15) | (qh[l] >> high & 3) << 4;
        y[l] = dl * (float)(q - 32);
    }
}

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p + D);
        for (int g = 0; g < GROUPS; g++) {
            int half = g / 8, r = g % 8 / 2, l = g % 2 * 16;
            read_group(y + i + 16 * g, p + 64 * half + 32 * (r % 2) + l, p + QH + 32 * half + l,
                       r, d * (float)(int8_t)p[SC + g]);
        }
    }
}

static void write_block(uint8_t *p, const float *x)
{
    float want[GROUPS], peak = fit_scales(x, GROUPS, 16, -32, 31, want);
    memset(p, 0, BYTES);
    float d = store_scale(p + D, peak / -128), inv_d = inverse(d);
    for (int e = 0; e < N; e++) {
        int half = e / 128, r = e % 128 / 32, l = e % 32;
        int s = round_to(want[e / 16] * inv_d, -128, 127);
        int q = round_to(x[e] * inverse(d * (float)s), -32, 31) + 32;
        p[SC + e / 16] = (uint8_t)(int8_t)s;
        p[64 * half + 32 * (r % 2) + l] |= (uint8_t)((q & 15) << 4 * (r / 2));
        p[QH + 32 * half + l] |= (uint8_t)((q >> 4) << 2 * r);
    }
}

static void write_row(void *y, const float *x, size_t n)
{
    write_blocks(y, x, n, N, BYTES, write_block);
}

const struct quant_traits quant_q6_k = {"q6_k", QUANT_Q6_K, N, BYTES, read_row, write_row};
