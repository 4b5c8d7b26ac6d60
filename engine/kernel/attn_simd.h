/*
 * attn_simd.h - blocks of cached rows in vectors, written once and compiled for each
 * instruction set (avx2_attn.c, avx512_attn.c, neon_attn.c), which includes this file and names the
 * table.
 *
 * Products with rows that lie side by side in memory (`dots`) add in LANES lanes, folded at
 * the end; the others (`mix`, `index`) hold one output per lane and add in order. A tile of
 * outputs is that many chains at once, enough to hide the latency of an addition; edges of
 * a block run the same chains with rows repeated, and keep what is theirs.
 */
#if defined(__aarch64__)
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/kernel/attn.h"
#include "engine/kernel/expf.h"
#include "engine/quant/half.h"

#define INLINE static inline __attribute__((always_inline))

/* QS x 4 outputs of `dots`, MR rows x NV vectors of `mix` and `index` fill the registers. */
#if defined(__AVX512F__)
enum { LANES = 16, QS = 4, MR = 8, NV = 2, I8_HEADS = 4, I8_VECS = 4 };
#elif defined(__aarch64__)
enum { LANES = 4, QS = 4, MR = 8, NV = 2, I8_HEADS = 4, I8_VECS = 4 };
#else
enum { LANES = 8, QS = 2, MR = 4, NV = 2, I8_HEADS = 4, I8_VECS = 2 };
#endif
enum { KS = 4, VECS = ATTN_TILE / LANES };

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define LOAD(p) (*(const vec *)(p))
#define STORE(p, v) (*(vec *)(p) = (v))
#if defined(__aarch64__)
/* As x86 has them: the second where the first is not a number. */
#define MAX(a, b) SELECT((a) > (b), a, b)
#define MIN(a, b) SELECT((a) < (b), a, b)
#elif defined(__AVX512F__)
#define MAX(a, b) ((vec)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define MIN(a, b) ((vec)_mm512_min_ps((__m512)(a), (__m512)(b)))
#else
#define MAX(a, b) ((vec)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define MIN(a, b) ((vec)_mm256_min_ps((__m256)(a), (__m256)(b)))
#endif
#define ALL(x) ((vec){0} + (x))
#define ALL_WORDS(x) ((ivec){0} + (x))
/* a where the lane's mask is all ones, else b */
#define SELECT(mask, a, b) ((vec)(((mask) & (ivec)(a)) | (~(mask) & (ivec)(b))))

/* --- dots ------------------------------------------------------------------------------ */

#if defined(__aarch64__)
INLINE void fold_tile(float *z, size_t ldz, uint32_t n_q, uint32_t n_k, const vec *acc)
{
    for (uint32_t a = 0; a < n_q; a++) {
        const vec *v = acc + a * KS;
        float32x4_t lo = vpaddq_f32((float32x4_t)v[0], (float32x4_t)v[1]);
        float32x4_t hi = vpaddq_f32((float32x4_t)v[2], (float32x4_t)v[3]);
        float out[KS];
        vst1q_f32(out, vpaddq_f32(lo, hi));
        memcpy(z + a * ldz, out, n_k * sizeof *z);
    }
}
#elif defined(__AVX512F__)
INLINE __m512 fold_pair(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

INLINE __m512 fold_quad(__m512 a, __m512 b)
{
    __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}

INLINE __m512 fold_lanes(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88),
                         _mm512_shuffle_f32x4(a, b, 0xdd));
}

/* The sums of sixteen vectors, each by the same tree: z[a * ldz + b] of acc[a * 4 + b]. */
INLINE void fold_tile(float *z, size_t ldz, uint32_t n_q, uint32_t n_k, const vec *acc)
{
    __m512 quad[4];
    for (int i = 0; i < 4; i++) {
        __m512 lo = fold_pair((__m512)acc[4 * i], (__m512)acc[4 * i + 1]);
        __m512 hi = fold_pair((__m512)acc[4 * i + 2], (__m512)acc[4 * i + 3]);
        quad[i] = fold_quad(lo, hi);
    }
    __m512 all = fold_lanes(fold_lanes(quad[0], quad[1]), fold_lanes(quad[2], quad[3]));
    float out[QS * KS];
    _mm512_storeu_ps(out, all);
    for (uint32_t a = 0; a < n_q; a++) {
        if (n_k == KS)
            memcpy(z + a * ldz, out + a * KS, KS * sizeof *z);
        else
            memcpy(z + a * ldz, out + a * KS, n_k * sizeof *z);
    }
}
#else
INLINE void fold_tile(float *z, size_t ldz, uint32_t n_q, uint32_t n_k, const vec *acc)
{
    for (uint32_t a = 0; a < n_q; a++) {
        const vec *v = acc + a * KS;
        __m256 lo = _mm256_hadd_ps((__m256)v[0], (__m256)v[1]);
        __m256 hi = _mm256_hadd_ps((__m256)v[2], (__m256)v[3]);
        __m256 four = _mm256_hadd_ps(lo, hi);
        float out[KS];
        _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(four),
                                      _mm256_extractf128_ps(four, 1)));
        memcpy(z + a * ldz, out, n_k * sizeof *z);
    }
}
#endif

INLINE vec load_tail(const float *p, uint32_t n)
{
    float t[LANES] = {0};
    memcpy(t, p, n * sizeof *p);
    return LOAD(t);
}

/* One stretch of memory that is asked for by and by, to lie in the second cache. At its end
 * the last line is asked for again, which costs less than a branch in the loops. */
struct wish {
    const uint8_t *at, *end;
};

INLINE void wish_line(struct wish *w)
{
    __builtin_prefetch(w->at, 0, 2);
    w->at += w->at < w->end ? 64 : 0;
}

/* The i-th stretch of `next`, or nothing: then what is at hand, `here`. */
INLINE struct wish wish_for(const struct attn_next *next, uint32_t i, const void *here)
{
    struct wish w = {here, here};
    if (next && i < next->n && next->bytes) {
        w.at = next->at[i];
        w.end = w.at + next->bytes - 1;
    }
    return w;
}

INLINE void dots_tile(const float *const *q, const float *const *k, uint32_t width, vec *acc,
                      struct wish *w)
{
    for (int i = 0; i < QS * KS; i++)
        acc[i] = (vec){0};
    uint32_t c = 0;
    for (; c + LANES <= width; c += LANES) {
        vec kv[KS];
        wish_line(w);
        for (int b = 0; b < KS; b++)
            kv[b] = LOAD(k[b] + c);
        for (int a = 0; a < QS; a++) {
            vec qv = LOAD(q[a] + c);
            for (int b = 0; b < KS; b++)
                acc[a * KS + b] += qv * kv[b];
        }
    }
    for (int a = 0; c < width && a < QS; a++)
        for (int b = 0; b < KS; b++)
            acc[a * KS + b] +=
                load_tail(q[a] + c, width - c) * load_tail(k[b] + c, width - c);
}

static void simd_dots(float *z, size_t ldz, const float *q, size_t ldq, uint32_t n_q,
                      const float *k, size_t ldk, uint32_t n_k, uint32_t width,
                      const struct attn_next *next)
{
    uint32_t wished = 0;
    for (uint32_t s = 0; s < n_k; s += KS) {
        uint32_t m = n_k - s < KS ? n_k - s : KS;
        const float *kr[KS], *qr[QS];
        for (uint32_t b = 0; b < KS; b++)
            kr[b] = k + (size_t)(s + (b < m ? b : 0)) * ldk;
        for (uint32_t i = 0; i < n_q; i += QS) {
            uint32_t n = n_q - i < QS ? n_q - i : QS;
            vec acc[QS * KS];
            for (uint32_t a = 0; a < QS; a++)
                qr[a] = q + (size_t)(i + (a < n ? a : 0)) * ldq;
            struct wish w = wish_for(next, wished++, kr[0]);
            dots_tile(qr, kr, width, acc, &w);
            fold_tile(z + i * ldz + s, ldz, n, m, acc);
        }
    }
}

/* --- mix ------------------------------------------------------------------------------- */

/* `rows` rows by NV vectors, from zero or from y. */
INLINE void mix_tile(float *y, size_t ldy, const float *p, size_t ldp, int rows,
                     const float *v, size_t ldv, uint32_t n_v, bool add)
{
    vec acc[MR * NV];
    for (int a = 0; a < rows; a++)
        for (int b = 0; b < NV; b++)
            acc[a * NV + b] = add ? LOAD(y + a * ldy + b * LANES) : (vec){0};
    for (uint32_t s = 0; s < n_v; s++, v += ldv) {
        vec x[NV];
        for (int b = 0; b < NV; b++)
            x[b] = LOAD(v + b * LANES);
        for (int a = 0; a < rows; a++) {
            float w = p[a * ldp + s];
            for (int b = 0; b < NV; b++)
                acc[a * NV + b] += w * x[b];
        }
    }
    for (int a = 0; a < rows; a++)
        for (int b = 0; b < NV; b++)
            STORE(y + a * ldy + b * LANES, acc[a * NV + b]);
}

/* The columns behind the last full tile. */
static void mix_tail(float *y, size_t ldy, const float *p, size_t ldp, uint32_t n_p,
                     const float *v, size_t ldv, uint32_t n_v, uint32_t width, bool add)
{
    for (uint32_t i = 0; i < n_p; i++)
        for (uint32_t c = 0; c < width; c++) {
            float sum = add ? y[i * ldy + c] : 0;
            for (uint32_t s = 0; s < n_v; s++)
                sum = fmaf(p[i * ldp + s], v[s * ldv + c], sum);
            y[i * ldy + c] = sum;
        }
}

static void simd_mix(float *y, size_t ldy, const float *p, size_t ldp, uint32_t n_p,
                     const float *v, size_t ldv, uint32_t n_v, uint32_t width, bool add)
{
    uint32_t c = 0;
    for (; c + NV * LANES <= width; c += NV * LANES) {
        uint32_t i = 0;
        for (; i + MR <= n_p; i += MR)
            mix_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, MR, v + c, ldv, n_v, add);
        for (; i + 2 <= n_p; i += 2)
            mix_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, 2, v + c, ldv, n_v, add);
        if (i < n_p)
            mix_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, 1, v + c, ldv, n_v, add);
    }
    if (c < width)
        mix_tail(y + c, ldy, p, ldp, n_p, v + c, ldv, n_v, width - c, add);
}

/* --- index ----------------------------------------------------------------------------- */

INLINE void index_heads(vec *sum, const float *q, const float *w, int heads, const float *kt,
                        uint32_t dim, struct wish *next)
{
    vec acc[MR * NV];
    for (int i = 0; i < heads * NV; i++)
        acc[i] = (vec){0};
    for (uint32_t c = 0; c < dim; c++, kt += ATTN_TILE) {
        vec x[NV];
        wish_line(next);
        for (int b = 0; b < NV; b++)
            x[b] = LOAD(kt + b * LANES);
        for (int a = 0; a < heads; a++) {
            float one = q[(size_t)a * dim + c];
            for (int b = 0; b < NV; b++)
                acc[a * NV + b] += one * x[b];
        }
    }
    for (int a = 0; a < heads; a++)
        for (int b = 0; b < NV; b++) {
            vec x = acc[a * NV + b];
            sum[b] += w[a] * MAX(x, (vec){0});
        }
}

static void simd_index(float *out, const float *q, const float *w, uint32_t n_heads,
                       const float *kt, uint32_t dim, const struct attn_next *next)
{
    struct wish wish = wish_for(next, 0, kt);
    for (int s = 0; s < ATTN_TILE; s += NV * LANES) {
        vec sum[NV];
        for (int b = 0; b < NV; b++)
            sum[b] = (vec){0};
        uint32_t h = 0;
        for (; h + MR <= n_heads; h += MR)
            index_heads(sum, q + (size_t)h * dim, w + h, MR, kt + s, dim, &wish);
        for (; h + 2 <= n_heads; h += 2)
            index_heads(sum, q + (size_t)h * dim, w + h, 2, kt + s, dim, &wish);
        for (; h < n_heads; h++)
            index_heads(sum, q + (size_t)h * dim, w + h, 1, kt + s, dim, &wish);
        for (int b = 0; b < NV; b++)
            STORE(out + s + b * LANES, sum[b]);
    }
}

/* --- index in whole numbers -------------------------------------------------------------- */

/* What the offset of the keys' bytes adds, -128 sum_c q[c]: nothing where they are made
 * signed on the way. */
#if defined(__aarch64__)
INLINE int32_t less_offset(const int8_t *q, uint32_t dim)
{
    (void)q, (void)dim;
    return 0;
}

#define DOT4(acc, k, q)                                                                  \
    ((ivec)vdotq_s32((int32x4_t)(acc),                                                   \
                     vreinterpretq_s8_u8(veorq_u8((uint8x16_t)(k), vdupq_n_u8(128))),    \
                     (int8x16_t)(q)))
#define FLOATS(v) __builtin_convertvector(v, vec)
#define POSITIVE(v) ((ivec)vmaxq_s32((int32x4_t)(v), vdupq_n_s32(0)))
#else
INLINE int32_t less_offset(const int8_t *q, uint32_t dim)
{
    int32_t sum = 0;
    uint32_t c = 0;
#ifdef __AVX512F__
    __m512i all = _mm512_setzero_si512();
    for (; c + 64 <= dim; c += 64)
        all = _mm512_dpbusd_epi32(all, _mm512_set1_epi8(1), _mm512_loadu_si512(q + c));
    sum = _mm512_reduce_add_epi32(all);
#endif
    for (; c < dim; c++)
        sum += q[c];
    return sum * -128;
}
#endif

#if defined(__AVX512F__)
#define DOT4(acc, k, q) ((ivec)_mm512_dpbusd_epi32((__m512i)(acc), (__m512i)(k), (__m512i)(q)))
#define FLOATS(v) ((vec)_mm512_cvtepi32_ps((__m512i)(v)))
#define POSITIVE(v) ((ivec)_mm512_max_epi32((__m512i)(v), _mm512_setzero_si512()))
#elif !defined(__aarch64__)
/* Without an instruction for it: 16-bit pairs, which cannot overflow, then their sums. */
INLINE ivec dot4(ivec acc, ivec k, ivec q)
{
    const __m256i low = _mm256_set1_epi16(0xff);
    __m256i even = _mm256_and_si256((__m256i)k, low);
    __m256i odd = _mm256_srli_epi16((__m256i)k, 8);
    __m256i q_even = _mm256_srai_epi16(_mm256_slli_epi16((__m256i)q, 8), 8);
    __m256i q_odd = _mm256_srai_epi16((__m256i)q, 8);
    return acc + (ivec)_mm256_madd_epi16(even, q_even) +
           (ivec)_mm256_madd_epi16(odd, q_odd);
}
#define DOT4(acc, k, q) dot4(acc, k, q)
#define FLOATS(v) ((vec)_mm256_cvtepi32_ps((__m256i)(v)))
#define POSITIVE(v) ((ivec)_mm256_max_epi32((__m256i)(v), _mm256_setzero_si256()))
#endif

/* Four heads at a time over all of a page. */
INLINE void index_i8_heads(vec *sum, const int8_t *q, const float *w, int heads,
                           const uint8_t *k, uint32_t dim, struct wish *next)
{
    ivec acc[I8_HEADS * I8_VECS];
    for (int a = 0; a < heads; a++) {
        ivec from = ALL_WORDS(less_offset(q + (size_t)a * dim, dim));
        for (int b = 0; b < I8_VECS; b++)
            acc[a * I8_VECS + b] = from;
    }
    for (uint32_t c = 0; c < dim; c += 4, k += ATTN_TILE * 4) {
        ivec x[I8_VECS];
        wish_line(next);
        for (int b = 0; b < I8_VECS; b++)
            x[b] = *(const ivec *)(const void *)(k + b * LANES * 4);
        for (int a = 0; a < heads; a++) {
            int32_t four;
            memcpy(&four, q + (size_t)a * dim + c, sizeof four);
            ivec all = ALL_WORDS(four);
            for (int b = 0; b < I8_VECS; b++)
                acc[a * I8_VECS + b] = DOT4(acc[a * I8_VECS + b], x[b], all);
        }
    }
    for (int a = 0; a < heads; a++)
        for (int b = 0; b < I8_VECS; b++)
            sum[b] += w[a] * FLOATS(POSITIVE(acc[a * I8_VECS + b]));
}

static void simd_index_i8(float *out, const int8_t *q, const float *w, uint32_t n_heads,
                          const uint8_t *k, const float *scale, uint32_t dim,
                          const struct attn_next *next)
{
    struct wish wish = wish_for(next, 0, k);
    for (int s = 0; s < ATTN_TILE; s += I8_VECS * LANES) {
        vec sum[I8_VECS];
        for (int b = 0; b < I8_VECS; b++)
            sum[b] = (vec){0};
        uint32_t h = 0;
        for (; h + I8_HEADS <= n_heads; h += I8_HEADS)
            index_i8_heads(sum, q + (size_t)h * dim, w + h, I8_HEADS, k + s * 4, dim, &wish);
        for (; h < n_heads; h++)
            index_i8_heads(sum, q + (size_t)h * dim, w + h, 1, k + s * 4, dim, &wish);
        for (int b = 0; b < I8_VECS; b++)
            STORE(out + s + b * LANES, sum[b] * LOAD(scale + s + b * LANES));
    }
}

/* --- softmax --------------------------------------------------------------------------- */

/* exp_fast() in every lane. */
INLINE vec exp_vec(vec x)
{
    const float shift = 12582912.0f;
    x = MIN(MAX(x, ALL(-87.0f)), ALL(88.0f));
    vec t = x * 1.44269504f + shift;
    vec k = t - shift;
    vec r = x - k * 0.693145752f;
    r = r - k * 1.42860677e-6f;
    vec p = r * 1.98412698e-4f + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uvec bits = ((uvec)t << 23) + 0x3f800000u;
    return p * (vec)bits;
}

#ifdef __AVX512F__
#define fold_max(v) _mm512_reduce_max_ps((__m512)(v))
#define fold_sum(v) _mm512_reduce_add_ps((__m512)(v)) /* halves onto halves, as below */
/* x where the lane's bit is set, else b */
#define BLEND(bits, x, b) \
    ((vec)_mm512_mask_blend_ps((__mmask16)(bits), (__m512)(b), (__m512)(x)))
#else
INLINE float fold_max(vec v)
{
    float t[LANES], max;
    STORE(t, v);
    for (int n = LANES / 2; n; n /= 2)
        for (int i = 0; i < n; i++)
            t[i] = t[i] > t[i + n] ? t[i] : t[i + n];
    max = t[0];
    return max;
}

INLINE float fold_sum(vec v)
{
    float t[LANES];
    STORE(t, v);
    for (int n = LANES / 2; n; n /= 2)
        for (int i = 0; i < n; i++)
            t[i] += t[i + n];
    return t[0];
}

/* All ones in the lanes whose bit is set. */
INLINE ivec lanes_of(uint64_t bits)
{
    ivec lane;
    for (int i = 0; i < LANES; i++)
        lane[i] = 1 << i;
    ivec all = (ivec){0} + (int32_t)(bits & ((1u << LANES) - 1));
    return (all & lane) != 0;
}
#define BLEND(bits, x, b) SELECT(lanes_of(bits), x, b)
#endif

static float simd_soften(struct softmax *x, float *z, uint64_t bits, float scale)
{
    const vec none = (vec){0} - INFINITY;
    vec zv[VECS], top = none;
    for (int i = 0; i < VECS; i++) {
        zv[i] = LOAD(z + i * LANES) * scale;
        if (bits != UINT64_MAX)
            zv[i] = BLEND(bits >> (i * LANES), zv[i], none);
        top = MAX(zv[i], top);
    }
    float max = fold_max(top), shrink = 1;
    if (max > x->max) {
        shrink = x->max == -INFINITY ? 0 : exp_fast(x->max - max);
        x->sum *= shrink;
        x->max = max;
    }
    vec sum = {0};
    for (int i = 0; i < VECS; i++) {
        vec e = exp_vec(zv[i] - x->max);
#ifdef __AVX512F__
        e = (vec)_mm512_maskz_mov_ps(
            _mm512_cmp_ps_mask((__m512)zv[i], (__m512)none, _CMP_NEQ_UQ), (__m512)e);
#else
        e = SELECT((ivec)(zv[i] != none), e, (vec){0});
#endif
        STORE(z + i * LANES, e);
        sum += e;
    }
    x->sum += fold_sum(sum);
    return shrink;
}

static void simd_scale(float *y, float a, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        STORE(y + i, LOAD(y + i) * a);
    for (; i < n; i++)
        y[i] *= a;
}

/* --- ranking --------------------------------------------------------------------------- */

INLINE uvec key_vec(vec x)
{
    uvec u = (uvec)(x + 0.0f);
    return u ^ ((uvec)((ivec)u >> 31) | 0x80000000u);
}

#ifdef __AVX512F__
static uint32_t simd_within(float *out, const float *scores, uint32_t n, uint32_t lo,
                            uint32_t hi)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i += LANES) {
        __mmask16 live = n - i < LANES ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        __m512 x = _mm512_maskz_loadu_ps(live, scores + i);
        __m512i key = (__m512i)key_vec((vec)x);
        __mmask16 hit = _mm512_mask_cmpge_epu32_mask(live, key, _mm512_set1_epi32((int)lo));
        hit = _mm512_mask_cmple_epu32_mask(hit, key, _mm512_set1_epi32((int)hi));
        if (!hit)
            continue;
        uint32_t m = (uint32_t)__builtin_popcount(hit);
        _mm512_mask_storeu_ps(out + at, (__mmask16)((1u << m) - 1),
                              _mm512_maskz_compress_ps(hit, x));
        at += m;
    }
    return at;
}

static void simd_above(uint32_t *out, const float *scores, uint32_t n, uint32_t least,
                       uint32_t ties)
{
    __m512i pos = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i += LANES) {
        __mmask16 live = n - i < LANES ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        __m512i key = (__m512i)key_vec((vec)_mm512_maskz_loadu_ps(live, scores + i));
        __m512i edge = _mm512_set1_epi32((int)least);
        __mmask16 hit = _mm512_mask_cmpgt_epu32_mask(live, key, edge);
        __mmask16 equal = ties ? _mm512_mask_cmpeq_epu32_mask(live, key, edge) : 0;
        for (; equal && ties; ties--, equal &= (__mmask16)(equal - 1))
            hit |= equal & (__mmask16)-equal;
        uint32_t m = (uint32_t)__builtin_popcount(hit);
        _mm512_mask_storeu_epi32(
            out + at, (__mmask16)((1u << m) - 1),
            _mm512_maskz_compress_epi32(hit,
                                        _mm512_add_epi32(pos, _mm512_set1_epi32((int)i))));
        at += m;
    }
}
#else
/* No compress here: whole vectors without a hit are skipped, the others go one by one. */
INLINE int any_lane(uvec mask)
{
#if defined(__aarch64__)
    return vmaxvq_u32((uint32x4_t)mask) != 0;
#else
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#endif
}

static uint32_t simd_within(float *out, const float *scores, uint32_t n, uint32_t lo,
                            uint32_t hi)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i += LANES) {
        uint32_t m = n - i < LANES ? n - i : LANES;
        if (m == LANES) {
            uvec key = key_vec(LOAD(scores + i));
            if (!any_lane((uvec)((key >= lo) & (key <= hi))))
                continue;
        }
        for (uint32_t j = i; j < i + m; j++) {
            uint32_t key = attn_key(float_bits(scores[j] + 0.0f));
            if (key >= lo && key <= hi)
                out[at++] = scores[j];
        }
    }
    return at;
}

static void simd_above(uint32_t *out, const float *scores, uint32_t n, uint32_t least,
                       uint32_t ties)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i += LANES) {
        uint32_t m = n - i < LANES ? n - i : LANES;
        if (m == LANES && !any_lane((uvec)(key_vec(LOAD(scores + i)) >= least)))
            continue;
        for (uint32_t j = i; j < i + m; j++) {
            uint32_t key = attn_key(float_bits(scores[j] + 0.0f));
            if (key > least || (key == least && ties)) {
                ties -= key == least;
                out[at++] = j;
            }
        }
    }
}
#endif

static void simd_widen_f8(float *y, const uint8_t *code, const float *scale, uint32_t step,
                          uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t low = code[i] & 0x7f;
        uint32_t u = float_bits(bits_float(low << 20) * 0x1p120f);
        u = low == 0x7f ? 0x7fc00000 : u;
        y[i] = bits_float(u | (uint32_t)(code[i] & 0x80) << 24) *
               scale[(size_t)i * step];
    }
}

#include "engine/kernel/attn_bf16.h"

#define ATTN_TABLE(label)                                                                \
    {                                                                                    \
        .name = label, .dots = simd_dots, .mix = simd_mix, .index = simd_index,          \
        .index_i8 = simd_index_i8,                                                       \
        .soften = simd_soften, .scale = simd_scale, .within = simd_within,               \
        .above = simd_above, .widen_f8 = simd_widen_f8, .dots_b = simd_dots_b,           \
        .mix_b = simd_mix_b, .mix_pairs = simd_mix_pairs, .narrow = simd_narrow,         \
        .pair = simd_pair, .stand = simd_stand,                                          \
    }
