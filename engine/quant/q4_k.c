/*
 * q4_k.c - 256 elements in 144 bytes: f16 d, dmin; u8 scales[12]; u8 qs[128].
 * Eight groups of 32: y = d * s * q - dmin * m. Chunk c of 32 bytes holds group 2c in its low
 * nibbles and group 2c + 1 in its high ones.
 */
#include "engine/quant/k_scales.h"
#include "engine/quant/quant.h"

enum { N = 256, BYTES = 144, QS = 16 };

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        for (int j = 0; j < K_GROUPS; j++) {
            float slope, offset;
            k_line_get(p, j, &slope, &offset);
            const uint8_t *q = p + QS + 32 * (j / 2);
            for (int l = 0; l < 32; l++)
                y[i + 32 * j + l] = slope * (float)(q[l] >> 4 * (j % 2) & 15) - offset;
        }
    }
}

static void write_block(uint8_t *p, const float *x)
{
    float inverse_slope[K_GROUPS], offset[K_GROUPS];
    memset(p, 0, BYTES);
    k_lines_put(p, x, 15, inverse_slope, offset);
    for (int j = 0; j < K_GROUPS; j++)
        for (int l = 0; l < 32; l++)
            p[QS + 32 * (j / 2) + l] |= (uint8_t)(
                round_to((x[32 * j + l] + offset[j]) * inverse_slope[j], 0, 15) << 4 * (j % 2));
}

static void write_row(void *y, const float *x, size_t n)
{
    write_blocks(y, x, n, N, BYTES, write_block);
}

const struct quant_traits quant_q4_k = {"q4_k", QUANT_Q4_K, N, BYTES, read_row, write_row};
