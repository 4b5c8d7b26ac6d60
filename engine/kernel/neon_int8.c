/*
 * neon_int8.c - int8.h for aarch64 with the dot product instructions.
 *
 * Eight rows of a weight are one panel. Each row's codes are unpacked in a line by the plain
 * code, then words of four are transposed so that two registers hold one word of every row:
 * the instruction adds four products of signed bytes to each lane, and takes the word of the
 * activations out of a lane of another register.
 */
#include "engine/kernel/int8.h"

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "engine/kernel/int8_source.h"
#include "engine/quant/half.h"

enum {
    ROWS = 8,        /* rows of a panel */
    QUADS = ROWS / 4, /* registers that hold one word of each */
    BLOCKS = 8,      /* blocks of 32 in a chunk: a block of the K types */
    WORDS = 8,       /* words of a block's codes */
    TILE = 4,        /* rows of activations that share a panel's registers */
};

struct chunk {
    int8x16_t q[BLOCKS][WORDS][QUADS];
    float32x4_t s[BLOCKS][2][QUADS], m[BLOCKS][2][QUADS];
};

/* One chunk of one row, in a line. */
struct line {
    _Alignas(16) int8_t q[INT8_SUPER];
    _Alignas(16) float s[BLOCKS][2], m[BLOCKS][2];
};

/* out[k] has the k-th 32 bits of each of four rows, which are `stride` bytes apart. */
INLINE void transpose(uint32x4_t out[4], const void *first, size_t stride)
{
    uint32x4_t row[4];
    for (int r = 0; r < 4; r++)
        row[r] = vld1q_u32((const uint32_t *)(const void *)((const uint8_t *)first +
                                                            (size_t)r * stride));
    uint32x4x2_t a = vtrnq_u32(row[0], row[1]), b = vtrnq_u32(row[2], row[3]);
    for (int k = 0; k < 2; k++) {
        out[k] = vcombine_u32(vget_low_u32(a.val[k]), vget_low_u32(b.val[k]));
        out[k + 2] = vcombine_u32(vget_high_u32(a.val[k]), vget_high_u32(b.val[k]));
    }
}

/* Sixteen floats of each row. */
INLINE void transpose_floats(float32x4_t (*to)[2][QUADS], const void *first)
{
    for (int quad = 0; quad < QUADS; quad++)
        for (int i = 0; i < 2 * BLOCKS; i += 4) {
            uint32x4_t out[4];
            const uint8_t *from = (const uint8_t *)first + (size_t)quad * 4 * sizeof(struct line);
            transpose(out, from + (size_t)i * sizeof(float), sizeof(struct line));
            for (int k = 0; k < 4; k++)
                to[(i + k) / 2][(i + k) % 2][quad] = vreinterpretq_f32_u32(out[k]);
        }
}

static void unpack_chunk(struct chunk *c, const struct int8_format *f, struct source *w,
                         unsigned nb)
{
    struct line l[ROWS];
    size_t per_row = (size_t)nb * INT8_BLOCK / f->block * f->bytes;
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < per_row; i += LINE)
            FETCH(w);
        memset(l[r].s, 0, sizeof l[r].s + sizeof l[r].m);
        const uint8_t *p = w->p + r * w->stride;
        for (unsigned b = 0; b < nb; b += f->block / INT8_BLOCK, p += f->bytes)
            f->unpack(p, l[r].q + INT8_BLOCK * b, l[r].s[b], l[r].m[b]);
    }
    transpose_floats(c->s, l[0].s);
    transpose_floats(c->m, l[0].m);
    for (unsigned b = 0; b < nb; b++)
        for (int quad = 0; quad < QUADS; quad++)
            for (int k = 0; k < WORDS; k += 4) {
                uint32x4_t out[4];
                transpose(out, l[4 * quad].q + INT8_BLOCK * b + 4 * k, sizeof(struct line));
                for (int i = 0; i < 4; i++)
                    c->q[b][k + i][quad] = vreinterpretq_s8_u32(out[i]);
            }
}

/* --- a panel times rows ------------------------------------------------------------------- */

INLINE float float_at(const uint8_t *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* t += the codes of WORDS / parts words . the activations at x, one sum a row. */
INLINE void words_times(int32x4_t t[QUADS], const int8x16_t (*q)[QUADS], const uint8_t *x)
{
    int8x16_t four = vld1q_s8((const int8_t *)x);
    for (int quad = 0; quad < QUADS; quad++) {
        t[quad] = vdotq_laneq_s32(t[quad], q[0][quad], four, 0);
        t[quad] = vdotq_laneq_s32(t[quad], q[1][quad], four, 1);
        t[quad] = vdotq_laneq_s32(t[quad], q[2][quad], four, 2);
        t[quad] = vdotq_laneq_s32(t[quad], q[3][quad], four, 3);
    }
}

/* acc[i] += blocks of the chunk . row i, for n rows; kind and n known when compiled. */
INLINE void chunk_times(const enum int8_kind kind, const int n, const struct chunk *c,
                        unsigned nb, const uint8_t *const *x, const struct offsets *at,
                        float *acc)
{
    const struct offsets o = *at;
    const bool halves = kind == CODES_HALVES || kind == CODES_HALVES_MIN;
    const bool min = kind == CODES_MIN || kind == CODES_HALVES_MIN;
    const int parts = halves ? 2 : 1, words = WORDS / parts;
    const size_t sum = halves ? o.half_sum : o.sum;
    float32x4_t a[TILE][QUADS];
    for (int i = 0; i < n; i++)
        for (int quad = 0; quad < QUADS; quad++)
            a[i][quad] = vld1q_f32(acc + i * ROWS + 4 * quad);
    for (unsigned b = 0; b < nb; b++)
        for (int h = 0; h < parts; h++) {
            size_t part = 4 * ((size_t)parts * b + (size_t)h);
            for (int i = 0; i < n; i++) {
                int32x4_t t[QUADS] = {vdupq_n_s32(0), vdupq_n_s32(0)};
                for (int k = h * words; k < (h + 1) * words; k += 4)
                    words_times(t, &c->q[b][k], x[i] + o.q + INT8_BLOCK * b + 4 * k);
                float d = float_at(x[i] + o.d + 4 * b);
                float all = min ? float_at(x[i] + sum + part) : 0;
                for (int quad = 0; quad < QUADS; quad++) {
                    float32x4_t s = vmulq_n_f32(c->s[b][h][quad], d);
                    a[i][quad] = vfmaq_f32(a[i][quad], vcvtq_f32_s32(t[quad]), s);
                    if (min)
                        a[i][quad] = vfmaq_n_f32(a[i][quad], c->m[b][h][quad], all);
                }
            }
        }
    for (int i = 0; i < n; i++)
        for (int quad = 0; quad < QUADS; quad++)
            vst1q_f32(acc + i * ROWS + 4 * quad, a[i][quad]);
}

static bool panel_times(const struct int8_format *f, struct source w, const uint8_t **x,
                        uint32_t n, uint64_t cols, float (*acc)[ROWS])
{
    (void)f, (void)w, (void)x, (void)n, (void)cols, (void)acc;
    return false;
}

#define TIMES_LOG 3
#define INT8_MATMUL int8_matmul_neon
#include "engine/kernel/int8_panel.h"

/* --- the roof ----------------------------------------------------------------------------- */

uint64_t int8_mac_neon(uint64_t rounds)
{
    enum { CHAINS = 12 }; /* two to four units, a latency of three or four */
    int32x4_t sum[CHAINS] = {vdupq_n_s32(0)};
    int8x16_t one = vdupq_n_s8(1);
    for (uint64_t i = 0; i < rounds; i++)
        for (int k = 0; k < CHAINS; k++) {
            sum[k] = vdotq_s32(sum[k], one, one);
            __asm__ volatile("" : "+w"(sum[k]));
        }
    return rounds * CHAINS * sizeof one;
}
