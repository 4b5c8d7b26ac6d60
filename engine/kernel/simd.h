/*
 * simd.h - the kernels in vectors of floats, written once and compiled for each
 * instruction set (avx2.c, avx512.c, neon.c), which includes this file and names the table, its
 * PACK, INT8_MATMUL and MAC_INT8: packed rows are multiplied as int8.h says.
 *
 * Every sum is one chain of fused multiply-adds in LANES lanes, folded at the end; a tile
 * of outputs is that many chains side by side. So one row and many rows, alone or in a
 * batch, give the same bits.
 */
#if defined(__aarch64__)
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/kernel/expf.h"
#include "engine/kernel/int8.h"
#include "engine/kernel/kernel.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

/* Tiles fill the registers: 32 of 64 or 16 bytes, or 16 of 32. */
#if defined(__AVX512F__)
enum { LANES = 16, TILE_W = 4, TILE_X = 4, WIDE = 8 };
#elif defined(__aarch64__)
enum { LANES = 4, TILE_W = 4, TILE_X = 4, WIDE = 8 };
#else
enum { LANES = 8, TILE_W = 4, TILE_X = 2, WIDE = 8 };
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(1), may_alias));

/* LANES floats, int8 or f16 at any address as floats; one f16 as a float. Macros: vectors by
 * value are no part of an ABI. */
#define LOAD(p) (*(const vec *)(p))
#if defined(__aarch64__)
typedef int8_t codes __attribute__((vector_size(LANES), aligned(1), may_alias));
#define LOAD_I8(p) __builtin_convertvector(*(const codes *)(p), vec)
#define LOAD_F16(p) ((vec)vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))))
#define ONE_F16(bits) f16_to_f32(bits)
#define KEEP(v) __asm__ volatile("" : "+w"(v))
#elif defined(__AVX512F__)
#define LOAD_I8(p)                                                                       \
    ((vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p)))))
#define LOAD_F16(p) ((vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p))))
#else
#define LOAD_I8(p)                                                                       \
    ((vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p)))))
#define LOAD_F16(p) ((vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p))))
#endif
#ifndef KEEP
#define ONE_F16(bits) _cvtsh_ss(bits)
#define KEEP(v) __asm__ volatile("" : "+v"(v)) /* in a register, whatever it is for */
#endif

/* Halves onto halves, down to one. */
#if defined(__aarch64__)
static inline float fold(const vec *v)
{
    vec x = *v;
    return (x[0] + x[2]) + (x[1] + x[3]);
}
#else
static inline float fold(const vec *v)
{
#ifdef __AVX512F__
    __m512 all = (__m512)*v;
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
#else
    __m256 h = (__m256)*v;
#endif
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
#endif

/* The last n < LANES elements, zeros behind them. */
static inline void load_tail(vec *v, const float *p, size_t n)
{
    float t[LANES] = {0};
    memcpy(t, p, n * sizeof *p);
    *v = LOAD(t);
}

/* y[b * ldy + a] = w[a] . x[b]: a small rectangle of outputs, a and b compile-time small.
 */
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

static void simd_swiglu(float *g, const float *u, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g[i] = g[i] / (1.0f + exp_fast(-g[i])) * u[i];
}

/* Asks for memory that is wanted soon; any address will do. */
static inline void fetch(const uint8_t *p, size_t n)
{
    for (size_t at = 0; at < n; at += 64)
        __builtin_prefetch(p + at);
}

/* Far enough ahead that a page's first lines are asked for before its turn. */
static uint64_t simd_read(const void *p, size_t n)
{
    enum { AHEAD = 4096, STREAMS = 4 };
    const uint8_t *at = p;
    uvec sum[STREAMS] = {{0}};
    for (size_t i = 0; i + STREAMS * sizeof(uvec) <= n; i += STREAMS * sizeof(uvec)) {
        fetch(at + i + AHEAD, STREAMS * sizeof(uvec));
        for (size_t k = 0; k < STREAMS; k++)
            sum[k] += *(const uvec *)(const void *)(at + i + k * sizeof(uvec));
    }
    uint64_t all = 0;
    for (size_t k = 0; k < STREAMS; k++)
        for (size_t j = 0; j < LANES; j++)
            all += sum[k][j];
    return all;
}

static uint64_t simd_mac_f32(uint64_t rounds)
{
    enum { CHAINS = 12 }; /* two units, a latency of four or five */
    vec acc[CHAINS] = {{0}}, a = acc[0] + 0.5f;
    for (uint64_t i = 0; i < rounds; i++)
        for (int k = 0; k < CHAINS; k++) {
            acc[k] += a * a;
            KEEP(acc[k]);
        }
    return rounds * CHAINS * LANES;
}

/* --- weights as floats
 * ------------------------------------------------------------------- */

static void widen_bf16(float *y, const uint8_t *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        halves h = *(const halves *)(x + 2 * i);
        ivec v = __builtin_convertvector(h, ivec) << 16;
        memcpy(y + i, &v, sizeof v);
    }
    for (; i < n; i++)
        y[i] = bf16_to_f32(load_u16(x + 2 * i));
}

static void widen_f16(float *y, const uint8_t *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        *(vec *)(y + i) = LOAD_F16(x + 2 * i);
    for (; i < n; i++)
        y[i] = f16_to_f32(load_u16(x + 2 * i));
}

static void widen_q8_0(float *y, const uint8_t *x, size_t n)
{
    for (size_t i = 0; i < n; i += 32, x += 34) {
        float d = ONE_F16(load_u16(x));
        for (size_t j = 0; j < 32; j += LANES)
            *(vec *)(y + i + j) = LOAD_I8(x + 2 + j) * d;
    }
}

static void simd_widen(uint32_t type, float *y, const void *x, size_t n)
{
    switch (type) {
    case QUANT_F32:
        memcpy(y, x, n * sizeof *y);
        break;
    case QUANT_F16:
        widen_f16(y, x, n);
        break;
    case QUANT_BF16:
        widen_bf16(y, x, n);
        break;
    case QUANT_Q8_0:
        widen_q8_0(y, x, n);
        break;
    default:
        quant_traits(type)->dequantize(y, x, n);
    }
}

/* Row r as floats: where it lies, or widened into `room`. */
static inline const float *row_floats(const struct tensor *w, uint64_t r, float *room)
{
    const uint8_t *p = tensor_row(w, r);
    if (w->type == QUANT_F32 && (uintptr_t)p % sizeof(float) == 0)
        return (const float *)(const void *)p;
    if (w->type == QUANT_F8_E4M3)
        tensor_read_row(w, r, room);
    else
        simd_widen(w->type, room, p, (size_t)w->ne[0]);
    return room;
}

/* tile() on rows of Q8_0 as they lie: the same additions, without the detour by memory.
 */
static inline __attribute__((always_inline)) void tile_q8(const uint8_t *const *w,
                                                          int n_w, const float *const *x,
                                                          int n_x, size_t cols, float *y,
                                                          size_t ldy)
{
    vec acc[WIDE * TILE_X];
    for (int i = 0; i < n_w * n_x; i++)
        acc[i] = (vec){0};
    for (size_t c = 0, at = 0; c < cols; c += 32, at += 34)
        for (int a = 0; a < n_w; a++) {
            float d = ONE_F16(load_u16(w[a] + at));
            for (size_t j = 0; j < 32; j += LANES) {
                vec wv = LOAD_I8(w[a] + at + 2 + j) * d;
                for (int b = 0; b < n_x; b++)
                    acc[a * n_x + b] += wv * LOAD(x[b] + c + j);
            }
        }
    for (int a = 0; a < n_w; a++)
        for (int b = 0; b < n_x; b++)
            y[(size_t)b * ldy + (size_t)a] = fold(&acc[a * n_x + b]);
}

/* --- products
 * ---------------------------------------------------------------------------- */

static inline const float *acts_row(const struct acts *x, uint32_t i)
{
    return x->x + (x->pick ? x->pick[i] : i) * x->ldx;
}

/* Four rows of w against every row of x. */
static void four_rows(const float *const *w, const struct acts *x, uint32_t n,
                      size_t cols, float *y, size_t ldy)
{
    uint32_t i = 0;
    for (; i + TILE_X <= n; i += TILE_X) {
        const float *xr[TILE_X];
        for (uint32_t b = 0; b < TILE_X; b++)
            xr[b] = acts_row(x, i + b);
        tile(w, TILE_W, xr, TILE_X, cols, y + i * ldy, ldy);
    }
    for (; i < n; i++) {
        const float *xr = acts_row(x, i);
        tile(w, TILE_W, &xr, 1, cols, y + i * ldy, ldy);
    }
}

/* Few rows of x against Q8_0: eight or four rows of w at a time; returns the rows done.
 */
static uint64_t few_q8(const struct tensor *w, uint64_t first, uint64_t last,
                       const struct acts *x, uint32_t n, float *y, size_t ldy)
{
    size_t cols = (size_t)w->ne[0];
    const float *xr[TILE_X];
    const uint8_t *wr[WIDE];
    uint64_t r = first, step = n == 1 ? WIDE : TILE_W;
    for (uint32_t i = 0; i < n; i++)
        xr[i] = acts_row(x, i);
    for (; r + step <= last; r += step) {
        float *to = y + (r - first);
        for (uint64_t a = 0; a < step; a++) {
            wr[a] = tensor_row(w, r + a);
            if (r + a + step < last)
                fetch(wr[a] + step * w->row_bytes, w->row_bytes);
        }
        switch (n) {
        case 1:
            tile_q8(wr, WIDE, xr, 1, cols, to, ldy);
            break;
        case 2:
            tile_q8(wr, TILE_W, xr, 2, cols, to, ldy);
            break;
        case 3:
            tile_q8(wr, TILE_W, xr, 3, cols, to, ldy);
            break;
        default:
            tile_q8(wr, TILE_W, xr, TILE_X, cols, to, ldy);
        }
    }
    return r;
}

static void simd_matmul(const struct tensor *w, uint64_t first, uint64_t last,
                        const struct acts *x, uint32_t n, float *y, size_t ldy,
                        void *work)
{
    if (x->packed && int8_format(w->type)) {
        INT8_MATMUL(w, first, last, x, n, y, ldy, work);
        return;
    }
    size_t cols = (size_t)w->ne[0], room = (cols + 15) & ~(size_t)15;
    float *at = work;
    const float *wr[WIDE];
    uint64_t r = first;
    if (w->type == QUANT_Q8_0 && n <= TILE_X)
        r = few_q8(w, first, last, x, n, y, ldy);
    for (; n == 1 && r + WIDE <= last; r += WIDE) {
        const float *xr = acts_row(x, 0);
        for (uint64_t a = 0; a < WIDE; a++) {
            if (r + a + WIDE < last)
                fetch(tensor_row(w, r + a + WIDE), w->row_bytes);
            wr[a] = row_floats(w, r + a, at + a * room);
        }
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

#define SIMD_TABLE(label)                                                                \
    {                                                                                    \
        .name = label, .dot = simd_dot, .axpy = simd_axpy, .rmsnorm = simd_rmsnorm,      \
        .swiglu = simd_swiglu, .widen = simd_widen, .pack_bytes = int8_pack_bytes,       \
        .pack = PACK, .matmul = simd_matmul, .read = simd_read,                          \
        .mac_int8 = MAC_INT8, .mac_f32 = simd_mac_f32,                                   \
    }
