/*
 * q5_k.c - 256 elements in 176 bytes: f16 d, dmin; u8 scales[12]; u8 qh[32]; u8 qs[128].
 * As q4_k, with a fifth bit of q: bit j of qh[l] for element l of group j.
 */
#include "engine/quant/k_scales.h"
#include "engine/quant/quant.h"

enum { N = 256, BYTES = 176, QH = 16, QS = 48 };

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        for (int j = 0; j < K_GROUPS; j++) {
            float slope, offset;
            k_line_get(p, j, &slope, &offset);
            const uint8_t *q = p + QS + 32 * (j / 2), *h = p + QH;
            for (int l = 0; l < 32; l++) {
                int v = (q[l] >> 4 * (j % 2) & 15) | (h[l] >> j & 1) << 4;
                y[i + 32 * j + l] = slope * (float)v - offset;
            }
        }
    }
}

static void write_block(uint8_t *p, const float *x)
{
    float inverse_slope[K_GROUPS], offset[K_GROUPS];
    memset(p, 0, BYTES);
    k_lines_put(p, x, 31, inverse_slope, offset);
    for (int j = 0; j < K_GROUPS; j++)
        for (int l = 0; l < 32; l++) {
            int q = round_to((x[32 * j + l] + offset[j]) * inverse_slope[j], 0, 31);
            p[QS + 32 * (j / 2) + l] |= (uint8_t)((q & 15) << 4 * (j % 2));
            p[QH + l] |= (uint8_t)((q >> 4) << j);
        }
}

static void write_row(void *y, const float *x, size_t n)
{
    write_blocks(y, x, n, N, BYTES, write_block);
}

const struct quant_traits quant_q5_k = {"q5_k", QUANT_Q5_K, N, BYTES, read_row, write_row};
