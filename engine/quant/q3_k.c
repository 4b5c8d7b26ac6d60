/*
 * q3_k.c - 256 elements in 110 bytes: u8 hmask[32]; u8 qs[64]; u8 scales[12]; f16 d.
 * Sixteen groups of 16 laid out as in q2_k: y = d * (s - 32) * (q - 4), q's low two bits in
 * qs and its third in hmask, bit 4n + c of byte 16p + l. Six-bit scale j: low four bits in
 * nibble j/8 of byte j%8, high two in byte 8 + j%4 at bit 2(j/4).
 */
#include "engine/quant/fit.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { N = 256, BYTES = 110, GROUPS = 16, QS = 32, SC = 96, D = 108 };

static int get_scale(const uint8_t *s, int j)
{
    int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    return (low | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32;
}

static void put_scale(uint8_t *s, int j, int v)
{
    unsigned u = (unsigned)(v + 32);
    s[j % 8] |= (uint8_t)((u & 15) << (j < 8 ? 0 : 4));
    s[8 + j % 4] |= (uint8_t)(u >> 4 << 2 * (j / 4));
}

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p + D);
        for (int k = 0; k < GROUPS; k++) {
            int half = k / 8, c = k % 8 / 2, part = k % 2;
            float dl = d * (float)get_scale(p + SC, k);
            const uint8_t *q = p + QS + 32 * half + 16 * part, *h = p + 16 * part;
            for (int l = 0; l < 16; l++) {
                int low = q[l] >> 2 * c & 3, high = h[l] >> (4 * half + c) & 1;
                y[i + 16 * k + l] = dl * (float)(low - (high ? 0 : 4));
            }
        }
    }
}

static void write_block(uint8_t *p, const float *x)
{
    float want[GROUPS], peak = fit_scales(x, GROUPS, 16, -4, 3, want);
    memset(p, 0, D);
    float d = store_scale(p + D, peak / -32), inv_d = inverse(d);
    for (int k = 0; k < GROUPS; k++) {
        int half = k / 8, c = k % 8 / 2, part = k % 2;
        int s = round_to(want[k] * inv_d, -32, 31);
        float inv = inverse(d * (float)s);
        put_scale(p + SC, k, s);
        for (int l = 0; l < 16; l++) {
            int q = round_to(x[16 * k + l] * inv, -4, 3) + 4;
            p[QS + 32 * half + 16 * part + l] |= (uint8_t)((q & 3) << 2 * c);
            p[16 * part + l] |= (uint8_t)((q >> 2) << (4 * half + c));
        }
    }
}

static void write_row(void *y, const float *x, size_t n)
{
    write_blocks(y, x, n, N, BYTES, write_block);
}

const struct quant_traits quant_q3_k = {"q3_k", QUANT_Q3_K, N, BYTES, read_row, write_row};
