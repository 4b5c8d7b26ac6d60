/*
 * q5_1.c - 32 elements in 24 bytes: f16 d, m; u32 qh; u8 qs[16].   y = d * q + m
 * q's low four bits are nibbles as in q4_0, its fifth is bit j of qh for element j.
 */
#include "engine/quant/fit.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { N = 32, BYTES = 24 };

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i += N, p += BYTES) {
        float d = load_f16(p), m = load_f16(p + 2);
        uint32_t qh;
        memcpy(&qh, p + 4, sizeof qh);
        for (int j = 0; j < 16; j++) {
            int lo = (p[8 + j] & 15) | (qh >> j & 1) << 4;
            int hi = p[8 + j] >> 4 | (qh >> (j + 16) & 1) << 4;
            y[i + j] = d * (float)lo + m;
            y[i + j + 16] = d * (float)hi + m;
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
        float inv = inverse(store_scale(p, most / 31 - least / 31));
        uint32_t qh = 0;
        for (int j = 0; j < 16; j++) {
            unsigned lo = (unsigned)round_to((x[i + j] - m) * inv, 0, 31);
            unsigned hi = (unsigned)round_to((x[i + j + 16] - m) * inv, 0, 31);
            p[8 + j] = (uint8_t)((lo & 15) | (hi & 15) << 4);
            qh |= (lo >> 4) << j | (hi >> 4) << (j + 16);
        }
        memcpy(p + 4, &qh, sizeof qh);
    }
}

const struct quant_traits quant_q5_1 = {"q5_1", QUANT_Q5_1, N, BYTES, read_row, write_row};
