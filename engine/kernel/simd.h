/*
 * simd.h - the kernels in vectors of sixteen floats, written once and compiled for each
 * instruction set (avx2.c, avx512.c), which includes this file and names the table.
 *
 * Every sum runs in sixteen lanes with fused multiply-adds, one chain per output element,
 * folded as ref.c folds them; a tile of four by four elements is sixteen such chains side by
 * side. So one row and many rows, alone or in a batch, give the same bits.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/kernel/expf.h"
#include "engine/kernel/kernel.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { LANES = 16, TILE_W = 4, TILE_X = 4, WIDE = 8 };

typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int8_t bytes16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t halves16 __attribute__((vector_size(32), aligned(1), may_alias));

/* Sixteen floats at any address. A macro: vectors by value are no part of an ABI. */
#define LOAD(p) (*(const vec *)(p))

static inline float fold(const vec *v)
{
    float t[8];
    for (int i = 0; i < 8; i++)
        t[i] = (*v)[i] + (*v)[i + 8];
    for (int i = 0; i < 4; i++)
        t[i] += t[i + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
}

/* The last n < 16 elements, zeros behind them. */
static inline void load_tail(vec *v, const float *p, size_t n)
{
    float t[LANES] = {0};
    memcpy(t, p, n * sizeof *p);
    *v = LOAD(t);
}

/* y[b * ldy + a] = w[a] . x[b]: a small rectangle of outputs, a and b compile-time small. */
static inline __attribute__((always_inline)) void tile(const float *const *w, int n_w,
                                                       const float *const *x, int n_x,
                                                       size_t cols, float *y, size_t ldy)
{
    vec acc[WIDE * TILE_X];
    for (int i = 0; i < n_w * n_x; i++)
        acc[i] = (vec){0};
    size_t c = 0;
    for (; c + LANES <= cols; c += LANES) {
        vec xv[TILE_X];
        for (int b = 0; b < n_x; b++)
            xv[b] = LOAD(x[b] + c);
        for (int a = 0; a < n_w; a++) {
            vec wv = LOAD(w[a] + c);
            for (int b = 0; b < n_x; b++)
                acc[a * n_x + b] += wv * xv[b];
        }
    }
    for (int a = 0; c < cols && a < n_w; a++) {
        vec wv, xv;
        load_tail(&wv, w[a] + c, cols - c);
        for (int b = 0; b < n_x; b++) {
            load_tail(&xv, x[b] + c, cols - c);
            acc[a * n_x + b] += wv * xv;
        }
    }
    for (int a = 0; a < n_w; a++)
        for (int b = 0; b < n_x; b++)
            y[(size_t)b * ldy + (size_t)a] = fold(&acc[a * n_x + b]);
}

static float simd_dot(const float *a, const float *b, size_t n)
{
    float y;
    tile(&a, 1, &b, 1, n, &y, 1);
    return y;
}

static void simd_axpy(float *y, float a, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        *(vec *)(y + i) += a * LOAD(x + i);
    for (; i < n; i++)
        y[i] = fmaf(a, x[i], y[i]);
}

static void simd_rmsnorm(float *out, const float *x, const float *w, size_t n, float eps)
{
    float scale = 1.0f / sqrtf(simd_dot(x, x, n) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = w[i] * (x[i] * scale);
}

static float simd_exp_sum(float *x, size_t n, float max)
{
    float sum[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            float e = exp_fast(x[i + j] - max);
            e = x[i + j] == -INFINITY ? 0.0f : e;
            x[i + j] = e;
            sum[j] += e;
        }
    for (size_t j = 0; i + j < n; j++) {
        float e = x[i + j] == -INFINITY ? 0.0f : exp_fast(x[i + j] - max);
        x[i + j] = e;
        sum[j] += e;
    }
    vec v = LOAD(sum);
    return fold(&v);
}

static void simd_swiglu(float *g, const float *u, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g[i] = g[i] / (1.0f + exp_fast(-g[i])) * u[i];
}

/* --- weights as floats ------------------------------------------------------------------- */

static void widen_bf16(float *y, const uint8_t *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        halves16 h = *(const halves16 *)(x + 2 * i);
        ivec v = __builtin_convertvector(h, ivec) << 16;
        memcpy(y + i, &v, sizeof v);
    }
    for (; i < n; i++)
        y[i] = bf16_to_f32(load_u16(x + 2 * i));
}

static void widen_q8_0(float *y, const uint8_t *x, size_t n)
{
    for (size_t i = 0; i < n; i += 32, x += 34) {
        float d = load_f16(x);
        for (int half = 0; half < 2; half++) {
            bytes16 q = *(const bytes16 *)(x + 2 + 16 * half);
            *(vec *)(y + i + 16 * half) = __builtin_convertvector(q, vec) * d;
        }
    }
}

/* Row r as floats: where it lies, or widened into `room`. */
static inline const float *row_floats(const struct tensor *w, uint64_t r, float *room)
{
    const uint8_t *p = tensor_row(w, r);
    size_t n = (size_t)w->ne[0];
    if (w->type == QUANT_F32 && (uintptr_t)p % sizeof(float) == 0)
        return (const float *)(const void *)p;
    if (w->type == QUANT_BF16)
        widen_bf16(room, p, n);
    else if (w->type == QUANT_Q8_0)
        widen_q8_0(room, p, n);
    else
        kernel_row(w, r, room);
    return room;
}

/* --- products ---------------------------------------------------------------------------- */

static inline const float *acts_row(const struct acts *x, uint32_t i)
{
    return x->x + (x->pick ? x->pick[i] : i) * x->ldx;
}

/* Four rows of w against every row of x. */
static void four_rows(const float *const *w, const struct acts *x, uint32_t n, size_t cols,
                      float *y, size_t ldy)
{
    uint32_t i = 0;
    for (; i + TILE_X <= n; i += TILE_X) {
        const float *xr[TILE_X] = {acts_row(x, i), acts_row(x, i + 1), acts_row(x, i + 2),
                                   acts_row(x, i + 3)};
        tile(w, TILE_W, xr, TILE_X, cols, y + i * ldy, ldy);
    }
    for (; i < n; i++) {
        const float *xr = acts_row(x, i);
        tile(w, TILE_W, &xr, 1, cols, y + i * ldy, ldy);
    }
}

static void simd_matmul(const struct tensor *w, uint64_t first, uint64_t last,
                        const struct acts *x, uint32_t n, float *y, size_t ldy, void *work)
{
    size_t cols = (size_t)w->ne[0], room = (cols + 15) & ~(size_t)15;
    float *at = work;
    const float *wr[WIDE];
    uint64_t r = first;
    for (; n == 1 && r + WIDE <= last; r += WIDE) {
        const float *xr = acts_row(x, 0);
        for (uint64_t a = 0; a < WIDE; a++)
            wr[a] = row_floats(w, r + a, at + a * room);
        tile(wr, WIDE, &xr, 1, cols, y + (r - first), ldy);
    }
    for (; r + TILE_W <= last; r += TILE_W) {
        for (uint64_t a = 0; a < TILE_W; a++)
            wr[a] = row_floats(w, r + a, at + a * room);
        four_rows(wr, x, n, cols, y + (r - first), ldy);
    }
    for (; r < last; r++) {
        const float *one = row_floats(w, r, at);
        for (uint32_t i = 0; i < n; i++) {
            const float *xr = acts_row(x, i);
            tile(&one, 1, &xr, 1, cols, y + i * ldy + (r - first), ldy);
        }
    }
}

static void simd_index_scores(float *out, const float *q, const float *w, uint32_t n_heads,
                              const float *k, uint32_t n, uint32_t dim)
{
    for (uint32_t s = 0; s < n; s++) {
        const float *key = k + (size_t)s * dim;
        float sum = 0, d[TILE_W];
        uint32_t h = 0;
        for (; h + TILE_W <= n_heads; h += TILE_W) {
            const float *qr[TILE_W] = {q + (size_t)h * dim, q + (size_t)(h + 1) * dim,
                                       q + (size_t)(h + 2) * dim, q + (size_t)(h + 3) * dim};
            tile(qr, TILE_W, &key, 1, dim, d, 1);
            for (int a = 0; a < TILE_W; a++)
                sum += w[h + (uint32_t)a] * (d[a] > 0 ? d[a] : 0);
        }
        for (; h < n_heads; h++) {
            d[0] = simd_dot(q + (size_t)h * dim, key, dim);
            sum += w[h] * (d[0] > 0 ? d[0] : 0);
        }
        out[s] = sum;
    }
}

static size_t simd_pack_bytes(uint32_t type, uint64_t cols)
{
    (void)type;
    (void)cols;
    return 0;
}

static void simd_pack(uint32_t type, const float *x, uint64_t cols, void *out)
{
    (void)type;
    (void)x;
    (void)cols;
    (void)out;
}

#define SIMD_TABLE(label)                                                                \
    {                                                                                    \
        .name = label, .dot = simd_dot, .axpy = simd_axpy, .rmsnorm = simd_rmsnorm,      \
        .exp_sum = simd_exp_sum, .swiglu = simd_swiglu,                                  \
        .index_scores = simd_index_scores, .pack_bytes = simd_pack_bytes,                \
        .pack = simd_pack, .matmul = simd_matmul,                                        \
    }
