/*
 * q5_k.c - 256 elements in 176 bytes: f16 d, dmin; u8 scales[12]; u8 qh[32]; u8 qs[128].
 * As q4_k, with a fifth bit of q: bit j of qh[l] for element l of group j.
 */
#include "engine/quant/fit.h"
#include "engine/quant/half.h"
#include "engine/quant/k_scales.h"
#include "engine/quant/quant.h"

enum { N = 256, BYTES = 176, GROUPS = 8, SC = 4, QH = 16, QS = 48 };

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p), dmin = load_f16(p + 2);
        for (int j = 0; j < GROUPS; j++) {
            int s, m;
            k_scale_get(p + SC, j, &s, &m);
            float dl = d * (float)s, ml = dmin * (float)m;
            const uint8_t *q = p + QS + 32 * (j / 2), *h = p + QH;
            for (int l = 0; l < 32; l++) {
                int v = (q[l] >> 4 * (j % 2) & 15) | (h[l] >> j & 1) << 4;
                y[i + 32 * j + l] = dl * (float)v - ml;
            }
        }
    }
}

static void write_block(uint8_t *p, const float *x)
{
    float scale[GROUPS], min[GROUPS], max_scale = 0, max_min = 0;
    for (int j = 0; j < GROUPS; j++) {
        scale[j] = fit_affine(x + 32 * j, 32, 31, &min[j]);
        max_scale = scale[j] > max_scale ? scale[j] : max_scale;
        max_min = min[j] > max_min ? min[j] : max_min;
    }
    memset(p, 0, BYTES);
    float d = store_scale(p, max_scale / 63), dmin = store_scale(p + 2, max_min / 63);
    float inv_d = inverse(d), inv_min = inverse(dmin);
    for (int j = 0; j < GROUPS; j++) {
        int s = round_to(scale[j] * inv_d, 0, 63), m = round_to(min[j] * inv_min, 0, 63);
        float inv = inverse(d * (float)s), ml = dmin * (float)m;
        k_scale_put(p + SC, j, s, m);
        for (int l = 0; l < 32; l++) {
            int q = round_to((x[32 * j + l] + ml) * inv, 0, 31);
            p[QS + 32 * (j / 2) + l] |= (uint8_t)((q & 15) << 4 * (j % 2));
            p[QH + l] |= (uint8_t)((q >> 4) << j);
        }
    }
}

static void write_row(void *y, const float *x, size_t n)
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i += N, p += BYTES)
        write_block(p, x + i);
}

const struct quant_traits quant_q5_k = {"q5_k", QUANT_Q5_K, N, BYTES, read_row, write_row};
