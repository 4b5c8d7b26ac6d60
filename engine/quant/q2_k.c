/*
 * q2_k.c - 256 elements in 84 bytes: u8 scales[16]; u8 qs[64]; f16 d, dmin.
 * Sixteen groups of 16: y = d * (s & 15) * q - dmin * (s >> 4), two bits of q at a time.
 * Group k = 8n + 2c + p sits in bytes 32n+16p.. of qs at bit 2c, and covers the elements
 * from 128n + 32c + 16p.
 */
#include "engine/quant/fit.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { N = 256, BYTES = 84, GROUPS = 16, QS = 16, D = 80 };

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p + D), dmin = load_f16(p + D + 2);
        for (int k = 0; k < GROUPS; k++) {
            int half = k / 8, shift = k % 8 / 2 * 2, part = k % 2;
            float dl = d * (float)(p[k] & 15), ml = dmin * (float)(p[k] >> 4);
            const uint8_t *q = p + QS + 32 * half + 16 * part;
            for (int l = 0; l < 16; l++)
                y[i + 16 * k + l] = dl * (float)(q[l] >> shift & 3) - ml;
        }
    }
}

static void write_block(uint8_t *p, const float *x)
{
    float scale[GROUPS], min[GROUPS];
    struct fit_peak peak = fit_affines(x, GROUPS, 16, 3, scale, min);
    float d = store_scale(p + D, peak.scale / 15), dmin = store_scale(p + D + 2, peak.min / 15);
    float inv_d = inverse(d), inv_min = inverse(dmin);
    memset(p + QS, 0, 64);
    for (int k = 0; k < GROUPS; k++) {
        int half = k / 8, shift = k % 8 / 2 * 2, part = k % 2;
        int s = round_to(scale[k] * inv_d, 0, 15), m = round_to(min[k] * inv_min, 0, 15);
        float inv = inverse(d * (float)s), ml = dmin * (float)m;
        p[k] = (uint8_t)(s | m << 4);
        for (int l = 0; l < 16; l++)
            p[QS + 32 * half + 16 * part + l] |=
                (uint8_t)(round_to((x[16 * k + l] + ml) * inv, 0, 3) << shift);
    }
}

static void write_row(void *y, const float *x, size_t n)
{
    write_blocks(y, x, n, N, BYTES, write_block);
}

const struct quant_traits quant_q2_k = {"q2_k", QUANT_Q2_K, N, BYTES, read_row, write_row};
