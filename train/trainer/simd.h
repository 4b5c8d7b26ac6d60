/* simd.h - sixteen numbers at a time: AVX-512 with BF16 where the compiler may use it, GCC's vector
 * extensions (whatever the processor has) elsewhere: the same functions, several times slower, and
 * sums rounded in another order, so weights are the same bytes only on the same kind of processor.
 */
#ifndef TRAIN_SIMD_H
#define TRAIN_SIMD_H

#include <stdint.h>
#include <string.h>

typedef uint16_t v16m; /* one bit per lane */

#if defined __AVX512F__ && defined __AVX512BF16__
#include <immintrin.h>

#define SIMD_NAME "AVX-512 with BF16"
#define SIMD_NATIVE 1
typedef __m512 v16f;
typedef __m512i v16i;
#define v16_zero _mm512_setzero_ps
#define v16_set1 _mm512_set1_ps
#define v16_set1i _mm512_set1_epi32
#define v16_load _mm512_loadu_ps
#define v16_loadi _mm512_loadu_si512
#define v16_store _mm512_storeu_ps
#define v16_storei _mm512_storeu_si512
#define v16_load_if _mm512_maskz_loadu_ps
#define v16_store_if _mm512_mask_storeu_ps
#define v16_storei_if _mm512_mask_storeu_epi32
#define v16_keep _mm512_maskz_mov_ps /* lanes of the mask, zero elsewhere */
#define v16_keepi(m, x, other) _mm512_mask_mov_epi32(other, m, x)
#define v16_add _mm512_add_ps
#define v16_sub _mm512_sub_ps
#define v16_mul _mm512_mul_ps
#define v16_div _mm512_div_ps
#define v16_max _mm512_max_ps
#define v16_min _mm512_min_ps
#define v16_largest_if(a, m, b) _mm512_mask_max_ps(a, m, a, b) /* larger lanes, of the mask */
#define v16_fma _mm512_fmadd_ps /* a b + c */
#define v16_fms _mm512_fmsub_ps /* a b - c */
#define v16_fnma _mm512_fnmadd_ps /* c - a b */
#define v16_sum _mm512_reduce_add_ps
#define v16_largest _mm512_reduce_max_ps
#define v16_bits _mm512_castps_si512
#define v16_and _mm512_and_si512
#define v16_xor _mm512_xor_si512
#define v16_or _mm512_or_si512
#define v16_sra _mm512_srai_epi32
#define v16_sll _mm512_slli_epi32
#define v16_gt _mm512_cmpgt_epi32_mask
#define v16_ge _mm512_cmpge_epi32_mask
#define v16_eq _mm512_cmpeq_epi32_mask
#define v16_round(x) _mm512_roundscale_ps(x, 0)
#define v16_scale _mm512_scalef_ps /* x 2^n, n whole */

/* acc + products of two bf16 pairs a lane */
#define v16_dot(acc, a, b) _mm512_dpbf16_ps(acc, (__m512bh)(a), (__m512bh)(b))

/* 32 floats to 16 pairs of bf16, neighbours together */
static inline v16i v16_narrow2(v16f lo, v16f hi)
{
    return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
}

/* 16 floats each to 16 pairs of bf16: lane i holds (lo[i], hi[i]) */
static inline v16i v16_pair(v16f lo, v16f hi)
{
    __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(lo));
    __m512i b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(hi));
    return _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
}

/* every sixteenth number */
static inline v16i v16_column(const uint32_t *p)
{
    __m512i ix = _mm512_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208,
                                   224, 240);
    return _mm512_i32gather_epi32(ix, p, 4);
}

#else


#define SIMD_NAME "plain vectors (no AVX-512 with BF16: several times slower)"
typedef float v16f __attribute__((vector_size(64)));
typedef int32_t v16i __attribute__((vector_size(64)));
typedef uint32_t v16u __attribute__((vector_size(64)));
typedef uint16_t v16h __attribute__((vector_size(32)));

static inline v16f v16_set1(float x)
{
    return (v16f){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
static inline v16i v16_set1i(int32_t x)
{
    return (v16i){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
static inline v16f v16_zero(void)
{
    return (v16f){0};
}
static inline v16f v16_load(const float *p)
{
    v16f x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline v16i v16_loadi(const void *p)
{
    v16i x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void v16_store(float *p, v16f x)
{
    memcpy(p, &x, sizeof x);
}
static inline void v16_storei(void *p, v16i x)
{
    memcpy(p, &x, sizeof x);
}
static inline v16i v16_bits(v16f x)
{
    return (v16i)x;
}
/* all ones in the lanes of a mask */
static inline v16i v16_lanes(v16m m)
{
    const v16i bit = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    return (v16_set1i(m) & bit) != 0;
}
static inline v16f v16_either(v16i on, v16f a, v16f b)
{
    return (v16f)(((v16i)a & on) | ((v16i)b & ~on));
}
static inline v16f v16_keep(v16m m, v16f x)
{
    return (v16f)((v16i)x & v16_lanes(m));
}
static inline v16i v16_keepi(v16m m, v16i x, v16i other)
{
    v16i on = v16_lanes(m);
    return (x & on) | (other & ~on);
}
static inline v16f v16_load_if(v16m m, const float *p)
{
    v16f x = {0};
    if (m == 0xffff)
        return v16_load(p);
    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            x[i] = p[i];
    return x;
}
static inline void v16_store_if(float *p, v16m m, v16f x)
{
    if (m == 0xffff) {
        v16_store(p, x);
        return;
    }
    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            p[i] = x[i];
}
static inline void v16_storei_if(uint32_t *p, v16m m, v16i x)
{
    for (int i = 0; i < 16; i++)
        if (m >> i & 1)
            p[i] = (uint32_t)x[i];
}
#define v16_add(a, b) ((a) + (b))
#define v16_sub(a, b) ((a) - (b))
#define v16_mul(a, b) ((a) * (b))
#define v16_div(a, b) ((a) / (b))
#define v16_fma(a, b, c) ((a) * (b) + (c))
#define v16_fms(a, b, c) ((a) * (b) - (c))
#define v16_fnma(a, b, c) ((c) - (a) * (b))
#define v16_and(a, b) ((a) & (b))
#define v16_xor(a, b) ((a) ^ (b))
#define v16_or(a, b) ((a) | (b))
#define v16_sra(a, n) ((a) >> (n))
#define v16_sll(a, n) ((v16i)((v16u)(a) << (n)))
static inline v16f v16_max(v16f a, v16f b)
{
    return v16_either(a > b, a, b);
}
static inline v16f v16_largest_if(v16f a, v16m m, v16f b)
{
    return v16_either((b > a) & v16_lanes(m), b, a);
}
static inline v16f v16_min(v16f a, v16f b)
{
    return v16_either(a < b, a, b);
}
static inline float v16_sum(v16f x)
{
    float s[8];
    for (int i = 0; i < 8; i++)
        s[i] = x[i] + x[i + 8];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
static inline float v16_largest(v16f x)
{
    float f = x[0];
    for (int i = 1; i < 16; i++)
        f = x[i] > f ? x[i] : f;
    return f;
}
static inline v16m v16_mask(v16i on)
{
    unsigned m = 0;
    for (int i = 0; i < 16; i++)
        m |= (unsigned)(on[i] & 1) << i;
    return (v16m)m;
}
static inline v16m v16_gt(v16i a, v16i b)
{
    return v16_mask(a > b);
}
static inline v16m v16_ge(v16i a, v16i b)
{
    return v16_mask(a >= b);
}
static inline v16m v16_eq(v16i a, v16i b)
{
    return v16_mask(a == b);
}
/* |x| < 2^21, as inside vexp; half away from zero rather than to even makes no difference there */
static inline v16f v16_round(v16f x)
{
    v16f half = (v16f)(((v16i)x & INT32_MIN) | (v16i)v16_set1(0.5f));
    return __builtin_convertvector(__builtin_convertvector(x + half, v16i), v16f);
}
/* x 2^n for x in [0.5, 2] and n >= -160: what is too small becomes 0 in two steps */
static inline v16f v16_scale(v16f x, v16f n)
{
    v16i k = __builtin_convertvector(n, v16i), half = k >> 1;
    return x * (v16f)((half + 127) << 23) * (v16f)((k - half + 127) << 23);
}

/* bf16 in the low half of each lane, rounded to nearest, ties to even */
static inline v16u v16_bf16(v16f x)
{
    v16u i = (v16u)x;
    return (i + 0x7fff + (i >> 16 & 1)) >> 16;
}
static inline v16i v16_narrow2(v16f lo, v16f hi)
{
    v16h half[2] = {__builtin_convertvector(v16_bf16(lo), v16h),
                    __builtin_convertvector(v16_bf16(hi), v16h)};
    return v16_loadi(half);
}
static inline v16i v16_pair(v16f lo, v16f hi)
{
    return (v16i)(v16_bf16(lo) | v16_bf16(hi) << 16);
}
static inline v16i v16_column(const uint32_t *p)
{
    v16i x;
    for (int i = 0; i < 16; i++)
        x[i] = (int32_t)p[16 * i];
    return x;
}
#endif
#endif
