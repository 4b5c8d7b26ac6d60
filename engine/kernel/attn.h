/*
 * attn.h - what attention and the indexer do to blocks of cached rows, behind one table.
 *
 * attn_ref.c is the meaning; tests hold the others to it. Every function is
 * single-threaded, and every output element is one fixed chain of additions over its own
 * inputs: it does not depend on which rows stand beside it, nor on how many there are.
 */
#ifndef ENGINE_KERNEL_ATTN_H
#define ENGINE_KERNEL_ATTN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ATTN_TILE = 64 }; /* positions that go together: a page of the cache */

/* Running softmax of one query over tiles of positions. */
struct softmax {
    float max, sum; /* -INFINITY and 0 before the first tile */
};

/*
 * Memory that the next call will want: n stretches of `bytes`. The kernels ask for it line
 * by line between their additions, since asked for at once it would only make them wait.
 */
struct attn_next {
    const uint8_t *at[ATTN_TILE];
    uint32_t n;
    size_t bytes;
};

struct attn_ops {
    const char *name; /* that of the kernel_ops beside it */

    /* z[i * ldz + s] = q[i] . k[s] over `width` floats, n_q rows of q and n_k of k; next
     * may be NULL */
    void (*dots)(float *z, size_t ldz, const float *q, size_t ldq, uint32_t n_q,
                 const float *k, size_t ldk, uint32_t n_k, uint32_t width,
                 const struct attn_next *next);
    /* y[i * ldy + c] = (add ? y : 0) + sum_s p[i * ldp + s] * v[s * ldv + c], c < width */
    void (*mix)(float *y, size_t ldy, const float *p, size_t ldp, uint32_t n_p,
                const float *v, size_t ldv, uint32_t n_v, uint32_t width, bool add);
    /*
     * out[s] = sum_h w[h] * max(0, q[h] . k[s]) for ATTN_TILE positions.
     * q (n_heads, dim); kt (dim, ATTN_TILE): the keys of a page, standing. next may be
     * NULL; only its first stretch counts.
     */
    void (*index)(float *out, const float *q, const float *w, uint32_t n_heads,
                  const float *kt, uint32_t dim, const struct attn_next *next);
    /*
     * The same in whole numbers, exact: q (n_heads, dim) int8; k (dim / 4, ATTN_TILE, 4)
     * bytes, each key's number plus 128; w has the queries' scales in it, scale the keys'.
     *
     *   out[s] = scale[s] * sum_h w[h] * max(0, sum_c q[h][c] * (k[s][c] - 128))
     */
    void (*index_i8)(float *out, const int8_t *q, const float *w, uint32_t n_heads,
                     const uint8_t *k, const float *scale, uint32_t dim,
                     const struct attn_next *next);
    /*
     * One tile of scores into weights: z[s] = exp(scale * z[s] - max) for the s < ATTN_TILE
     * whose bit is set, else 0; s->max and s->sum move on. Returns what everything summed
     * so far must be multiplied by, 1 when nothing changed. exp is exp_fast() of expf.h,
     * within 2e-7 of its value.
     */
    float (*soften)(struct softmax *s, float *z, uint64_t bits, float scale);
    /* y[i] *= a */
    void (*scale)(float *y, float a, size_t n);
    /*
     * Ranking: a score's key is its bits made to order like the number, -0 as +0
     * (attn_key). within: the scores whose key lies in [lo, hi], in their order; returns
     * how many. above: positions of keys > least, and the first `ties` equal to it,
     * ascending.
     */
    uint32_t (*within)(float *out, const float *scores, uint32_t n, uint32_t lo,
                       uint32_t hi);
    void (*above)(uint32_t *out, const float *scores, uint32_t n, uint32_t least,
                  uint32_t ties);
    /*
     * The same products with bf16 on both sides and sums in f32: half the bytes, and on
     * machines made for it twice the speed. Rows of the cache are named by where they lie.
     *
     * dots_b: z[i * ldz + s] = q[i] . k[s]
     * mix_b: y[i * ldy + c] = (add ? y : 0) + sum_s p[i * ldp + s] * v[s][c], c < width
     * mix_pairs: the same; v (n_v / 2 rounded up, width, 2) holds two rows as pair() makes them
     *
     * Behind an odd n_v of them, a row of p holds a zero.
     */
    void (*dots_b)(float *z, size_t ldz, const uint16_t *q, size_t ldq, uint32_t n_q,
                   const uint8_t *const *k, uint32_t n_k, uint32_t width,
                   const struct attn_next *next);
    void (*mix_b)(float *y, size_t ldy, const uint16_t *p, size_t ldp, uint32_t n_p,
                  const uint8_t *const *v, uint32_t n_v, uint32_t width, bool add);
    void (*mix_pairs)(float *y, size_t ldy, const uint16_t *p, size_t ldp, uint32_t n_p,
                      const uint16_t *v, uint32_t n_v, uint32_t width, bool add);
    /* n floats as bf16, to nearest, ties to even */
    void (*narrow)(uint16_t *out, const float *x, size_t n);
    /* n rows of floats as bf16, rows 2i and 2i + 1 element by element; zeros behind the last */
    void (*pair)(uint16_t *out, const float *x, size_t ldx, uint32_t n, uint32_t width);
    /* n rows of bf16, standing: (width / 2 rounded up, n, 2), which is pairs of columns; zeros
     * behind the last */
    void (*stand)(uint16_t *out, const uint8_t *const *rows, uint32_t n, uint32_t width);
    /* y[i] = e4m3 code[i] * scale[i * step]: step 0 for one scale, 1 for one each */
    void (*widen_f8)(float *y, const uint8_t *code, const float *scale, uint32_t step,
                     uint32_t n);
};

extern const struct attn_ops attn_ref;
#if defined(__x86_64__)
extern const struct attn_ops attn_avx2, attn_avx512, attn_avx512bf16;
#elif defined(__aarch64__)
extern const struct attn_ops attn_neon;
#endif

/* The table that goes with a kernel_ops of this name; attn_ref where there is none. */
const struct attn_ops *attn_ops(const char *name);

static inline uint32_t attn_key(uint32_t bits_of_sum_with_zero)
{
    uint32_t u = bits_of_sum_with_zero;
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

#endif
