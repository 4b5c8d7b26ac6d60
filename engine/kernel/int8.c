/* int8.c - the formats of quantised weights as codes, and the plain meaning of int8.h. */
#include "engine/kernel/int8.h"

#include <math.h>
#include <string.h>

#include "engine/quant/half.h"
#include "engine/quant/iq4.h"
#include "engine/quant/k_scales.h"
#include "engine/quant/quant.h"

/* --- stored blocks as codes --------------------------------------------------------------- */

static void unpack_q8_0(const uint8_t *p, int8_t *q, float *s, float *m)
{
    (void)m;
    s[0] = load_f16(p);
    memcpy(q, p + 2, 32);
}

/* Sixteen bytes: low nibbles are the first half, high ones the second. */
static void nibbles(int8_t *q, const uint8_t *p, int offset)
{
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((p[i] & 15) - offset);
        q[i + 16] = (int8_t)((p[i] >> 4) - offset);
    }
}

static void levels(int8_t *q, const uint8_t *p, const signed char *level)
{
    for (int i = 0; i < 16; i++) {
        q[i] = level[p[i] & 15];
        q[i + 16] = level[p[i] >> 4];
    }
}

static void fifth_bits(int8_t *q, const uint8_t *p)
{
    uint32_t high;
    memcpy(&high, p, sizeof high);
    for (int i = 0; i < 32; i++)
        q[i] = (int8_t)(q[i] + (int)(high >> i & 1) * 16);
}

static void unpack_q4_0(const uint8_t *p, int8_t *q, float *s, float *m)
{
    (void)m;
    s[0] = load_f16(p);
    nibbles(q, p + 2, 8);
}

static void unpack_q4_1(const uint8_t *p, int8_t *q, float *s, float *m)
{
    s[0] = load_f16(p);
    m[0] = load_f16(p + 2);
    nibbles(q, p + 4, 0);
}

static void unpack_q5_0(const uint8_t *p, int8_t *q, float *s, float *m)
{
    (void)m;
    s[0] = load_f16(p);
    nibbles(q, p + 6, 16);
    fifth_bits(q, p + 2);
}

static void unpack_q5_1(const uint8_t *p, int8_t *q, float *s, float *m)
{
    s[0] = load_f16(p);
    m[0] = load_f16(p + 2);
    nibbles(q, p + 8, 0);
    fifth_bits(q, p + 4);
}

static void unpack_iq4_nl(const uint8_t *p, int8_t *q, float *s, float *m)
{
    (void)m;
    s[0] = load_f16(p);
    levels(q, p + 2, iq4_levels);
}

static void unpack_mxfp4(const uint8_t *p, int8_t *q, float *s, float *m)
{
    static const signed char level[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                          0, -1, -2, -3, -4, -6, -8, -12};
    (void)m;
    s[0] = ldexpf(1.0f, (int)p[0] - 128);
    levels(q, p + 1, level);
}

static void unpack_iq4_xs(const uint8_t *p, int8_t *q, float *s, float *m)
{
    (void)m;
    float d = load_f16(p);
    unsigned high = load_u16(p + 2);
    for (int b = 0; b < 8; b++) {
        int scale = (p[4 + b / 2] >> 4 * (b % 2) & 15) | (high >> 2 * b & 3) << 4;
        s[2 * b] = d * (float)(scale - 32);
        levels(q + 32 * b, p + 8 + 16 * b, iq4_levels);
    }
}

static void k_scales(const uint8_t *p, float *s, float *m)
{
    float d = load_f16(p), dmin = load_f16(p + 2);
    for (int j = 0; j < 8; j++) {
        int scale, min;
        k_scale_get(p + 4, j, &scale, &min);
        s[2 * j] = d * (float)scale;
        m[2 * j] = -(dmin * (float)min);
    }
}

static void unpack_q4_k(const uint8_t *p, int8_t *q, float *s, float *m)
{
    k_scales(p, s, m);
    for (int e = 0; e < 256; e++)
        q[e] = (int8_t)(p[16 + e / 64 * 32 + e % 32] >> e / 32 % 2 * 4 & 15);
}

static void unpack_q5_k(const uint8_t *p, int8_t *q, float *s, float *m)
{
    k_scales(p, s, m);
    for (int e = 0; e < 256; e++) {
        int low = p[48 + e / 64 * 32 + e % 32] >> e / 32 % 2 * 4 & 15;
        q[e] = (int8_t)(low | (p[16 + e % 32] >> e / 32 & 1) << 4);
    }
}

static void unpack_q6_k(const uint8_t *p, int8_t *q, float *s, float *m)
{
    (void)m;
    float d = load_f16(p + 208);
    for (int k = 0; k < 16; k++)
        s[k] = d * (float)(int8_t)p[192 + k];
    for (int e = 0; e < 256; e++) {
        int half = e / 128, run = e % 128 / 32, l = e % 32;
        int low = p[64 * half + 32 * (run % 2) + l] >> run / 2 * 4 & 15;
        int high = p[128 + 32 * half + l] >> 2 * run & 3;
        q[e] = (int8_t)((low | high << 4) - 32);
    }
}

static void unpack_q3_k(const uint8_t *p, int8_t *q, float *s, float *m)
{
    (void)m;
    float d = load_f16(p + 108);
    const uint8_t *sc = p + 96;
    for (int k = 0; k < 16; k++) {
        int low = k < 8 ? sc[k] & 15 : sc[k - 8] >> 4;
        s[k] = d * (float)((low | (sc[8 + k % 4] >> 2 * (k / 4) & 3) << 4) - 32);
    }
    for (int e = 0; e < 256; e++) {
        int half = e / 128, run = e % 128 / 32, l = e % 32;
        int low = p[32 + 32 * half + l] >> 2 * run & 3;
        int high = p[l] >> (4 * half + run) & 1;
        q[e] = (int8_t)(low - (high ? 0 : 4));
    }
}

static void unpack_q2_k(const uint8_t *p, int8_t *q, float *s, float *m)
{
    float d = load_f16(p + 80), dmin = load_f16(p + 82);
    for (int k = 0; k < 16; k++) {
        s[k] = d * (float)(p[k] & 15);
        m[k] = -(dmin * (float)(p[k] >> 4));
    }
    for (int e = 0; e < 256; e++)
        q[e] = (int8_t)(p[16 + 32 * (e / 128) + e % 32] >> e % 128 / 32 * 2 & 3);
}

const struct int8_format *int8_format(uint32_t type)
{
    static const struct int8_format all[] = {
        {QUANT_Q8_0, 32, 34, CODES_PLAIN, unpack_q8_0},
        {QUANT_Q4_K, 256, 144, CODES_MIN, unpack_q4_k},
        {QUANT_Q6_K, 256, 210, CODES_HALVES, unpack_q6_k},
        {QUANT_Q5_K, 256, 176, CODES_MIN, unpack_q5_k},
        {QUANT_Q4_0, 32, 18, CODES_PLAIN, unpack_q4_0},
        {QUANT_Q4_1, 32, 20, CODES_MIN, unpack_q4_1},
        {QUANT_Q5_0, 32, 22, CODES_PLAIN, unpack_q5_0},
        {QUANT_Q5_1, 32, 24, CODES_MIN, unpack_q5_1},
        {QUANT_IQ4_NL, 32, 18, CODES_PLAIN, unpack_iq4_nl},
        {QUANT_IQ4_XS, 256, 136, CODES_PLAIN, unpack_iq4_xs},
        {QUANT_MXFP4, 32, 17, CODES_PLAIN, unpack_mxfp4},
        {QUANT_Q3_K, 256, 110, CODES_HALVES, unpack_q3_k},
        {QUANT_Q2_K, 256, 84, CODES_HALVES_MIN, unpack_q2_k},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].type == type)
            return &all[i];
    return NULL;
}

/* --- activations -------------------------------------------------------------------------- */

size_t int8_pack_bytes(uint32_t type, uint64_t cols)
{
    return int8_format(type) ? (size_t)cols + (size_t)cols / INT8_BLOCK * 28 : 0;
}

/* The scale of 32 activations and their codes. */
static float pack_block(const float *x, int8_t *q)
{
    uint32_t peak = 0; /* bits of magnitudes order as the magnitudes do, NaN above all */
    for (int i = 0; i < INT8_BLOCK; i++) {
        uint32_t mag = float_bits(x[i]) & 0x7fffffff;
        peak = mag > peak ? mag : peak;
    }
    float max = bits_float(peak), inv = inverse(max / 127.0f);
    bool finite = isfinite(max);
    for (int i = 0; i < INT8_BLOCK; i++)
        q[i] = (int8_t)(finite ? round_to(x[i] * inv, -127, 127) : 0);
    return finite ? max / 127.0f : NAN;
}

void int8_pack(uint32_t type, const float *x, uint64_t cols, void *out)
{
    (void)type;
    struct int8_row r = int8_view(out, cols);
    int8_t *q = out;
    size_t n = (size_t)cols / INT8_BLOCK;
    float *d = (float *)((uint8_t *)out + cols), *sum = d + n, *half_sum = sum + n;
    int32_t *shift = (int32_t *)(void *)(half_sum + 2 * n), *half_shift = shift + n;
    for (size_t b = 0; b < n; b++) {
        d[b] = pack_block(x + b * INT8_BLOCK, q + b * INT8_BLOCK);
        int32_t all = 0;
        for (int h = 0; h < 2; h++) {
            int32_t part = 0;
            for (int i = 0; i < 16; i++)
                part += r.q[b * INT8_BLOCK + (size_t)(16 * h + i)];
            half_sum[2 * b + (size_t)h] = d[b] * (float)part;
            half_shift[2 * b + (size_t)h] = -128 * part;
            all += part;
        }
        sum[b] = d[b] * (float)all;
        shift[b] = -128 * all;
    }
}

/* --- products ----------------------------------------------------------------------------- */

static int32_t whole(const int8_t *a, const int8_t *b, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* acc and one block of 32. */
static float add_block(enum int8_kind kind, float acc, const int8_t *q, const float *s,
                       const float *m, const struct int8_row *x, size_t b)
{
    const int8_t *xq = x->q + b * INT8_BLOCK;
    if (kind == CODES_PLAIN || kind == CODES_MIN) {
        acc = fmaf((float)whole(q, xq, 32), s[0] * x->d[b], acc);
        return kind == CODES_MIN ? fmaf(m[0], x->sum[b], acc) : acc;
    }
    for (int h = 0; h < 2; h++) {
        acc = fmaf((float)whole(q + 16 * h, xq + 16 * h, 16), s[h] * x->d[b], acc);
        if (kind == CODES_HALVES_MIN)
            acc = fmaf(m[h], x->half_sum[2 * b + (size_t)h], acc);
    }
    return acc;
}

void int8_matmul(const struct tensor *w, uint64_t first, uint64_t last,
                 const struct acts *x, uint32_t n, float *y, size_t ldy, void *work)
{
    (void)work;
    const struct int8_format *f = int8_format(w->type);
    uint64_t cols = w->ne[0];
    for (uint64_t r = first; r < last; r++) {
        for (uint32_t i = 0; i < n; i++)
            y[i * ldy + (r - first)] = 0;
        const uint8_t *p = tensor_row(w, r);
        for (uint64_t c = 0; c < cols; c += f->block, p += f->bytes) {
            int8_t q[INT8_SUPER];
            float s[2 * INT8_SUPER / INT8_BLOCK], m[2 * INT8_SUPER / INT8_BLOCK];
            f->unpack(p, q, s, m);
            for (uint32_t i = 0; i < n; i++) {
                struct int8_row v = int8_view(
                    x->packed + (x->pick ? x->pick[i] : i) * x->ldp, cols);
                float *to = &y[i * ldy + (r - first)];
                for (uint32_t b = 0; b < f->block / INT8_BLOCK; b++)
                    *to = add_block(f->kind, *to, q + b * INT8_BLOCK, s + 2 * b, m + 2 * b,
                                    &v, c / INT8_BLOCK + b);
            }
        }
    }
}
