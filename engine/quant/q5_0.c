/*
 * q5_0.c - 32 elements in 22 bytes: f16 d; u32 qh; u8 qs[16].   y = d * (q - 16)
 * q's low four bits are nibbles as in q4_0, its fifth is bit j of qh for element j.
 */
#include "engine/quant/fit.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { N = 32, BYTES = 22 };

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p);
        uint32_t qh;
        memcpy(&qh, p + 2, sizeof qh);
        for (int j = 0; j < 16; j++) {
            int lo = (p[6 + j] & 15) | (qh >> j & 1) << 4;
            int hi = p[6 + j] >> 4 | (qh >> (j + 16) & 1) << 4;
            y[i + j] = d * (float)(lo - 16);
            y[i + j + 16] = d * (float)(hi - 16);
        }
    }
}

static void write_row(void *y, const float *x, size_t n)
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float inv = inverse(store_scale(p, fit_scale(x + i, N, -16, 15)));
        uint32_t qh = 0;
        for (int j = 0; j < 16; j++) {
            unsigned lo = (unsigned)(round_to(x[i + j] * inv, -16, 15) + 16);
            unsigned hi = (unsigned)(round_to(x[i + j + 16] * inv, -16, 15) + 16);
            p[6 + j] = (uint8_t)((lo & 15) | (hi & 15) << 4);
            qh |= (lo >> 4) << j | (hi >> 4) << (j + 16);
        }
        memcpy(p + 2, &qh, sizeof qh);
    }
}

const struct quant_traits quant_q5_0 = {"q5_0", QUANT_Q5_0, N, BYTES, read_row, write_row};
