/*
 * avx2_int8.c - int8.h for AVX2.
 *
 * Eight rows of a weight are one panel. Each row's codes are unpacked in a line, then words
 * of four are transposed so that a register holds one word of every row. The instruction that
 * multiplies bytes wants one unsigned factor and adds in 16 bits: it gets the codes'
 * magnitudes, and the activations with the codes' signs, which stays within 2 * 128 * 127.
 */
#include "engine/kernel/int8.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "engine/kernel/int8_source.h"
#include "engine/quant/half.h"
#include "engine/quant/iq4.h"
#include "engine/quant/quant.h"

enum {
    ROWS = 8,   /* rows of a panel: the lanes of a register */
    BLOCKS = 8, /* blocks of 32 in a chunk: a block of the K types */
    WORDS = 8,  /* registers that hold a block's codes */
    TILE = 4,   /* rows of activations that share a panel's registers */
};

struct chunk {
    __m256i q[BLOCKS][WORDS], size[BLOCKS][WORDS]; /* codes, and their magnitudes */
    __m256 s[BLOCKS][2], m[BLOCKS][2];
};

/* One chunk of one row, in a line. */
struct line {
    _Alignas(32) int8_t q[INT8_SUPER];
    _Alignas(32) float s[BLOCKS][2], m[BLOCKS][2];
};

#define LOAD16(at) _mm_loadu_si128((const __m128i *)(const void *)(at))
#define LOAD32(at) _mm256_loadu_si256((const __m256i *)(const void *)(at))
#define STORE32(at, v) _mm256_storeu_si256((__m256i *)(void *)(at), v)
#define BYTES(x) _mm256_set1_epi8((char)(x))
#define AND(a, b) _mm256_and_si256(a, b)
#define OR(a, b) _mm256_or_si256(a, b)
#define NIBBLE_LOW(z) AND(z, BYTES(15))
#define NIBBLE_HIGH(z) AND(_mm256_srli_epi16(z, 4), BYTES(15))

/* --- one row ------------------------------------------------------------------------------ */

INLINE float half_at(const uint8_t *p)
{
    return _cvtsh_ss(load_u16(p));
}

/* Sixteen bytes as 32 codes from a table of sixteen. */
INLINE __m256i codes16(const uint8_t *p, __m256i table)
{
    __m128i z = LOAD16(p);
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(z), _mm_srli_epi16(z, 4), 1);
    return _mm256_shuffle_epi8(table, NIBBLE_LOW(both));
}

/* 16 in byte i where bit i of the word is set. */
INLINE __m256i fifth(uint32_t word)
{
    const __m256i byte = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2,
                                          2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i w = _mm256_shuffle_epi8(_mm256_set1_epi32((int)word), byte);
    return AND(_mm256_cmpeq_epi8(AND(w, bit), bit), BYTES(16));
}

INLINE __m256i table_from(int from)
{
    signed char t[16];
    for (int i = 0; i < 16; i++)
        t[i] = (signed char)(from + i);
    return _mm256_broadcastsi128_si256(LOAD16(t));
}

INLINE void line_q8_0(struct line *l, const uint8_t *p, unsigned nb)
{
    for (unsigned b = 0; b < nb; b++, p += 34) {
        l->s[b][0] = half_at(p);
        STORE32(l->q + 32 * b, LOAD32(p + 2));
    }
}

/* Blocks of `bytes`: an f16 scale, an f16 minimum, a word of fifth bits, and nibbles. */
INLINE void line_nibbles(struct line *l, const uint8_t *p, unsigned nb, size_t bytes, bool min,
                         bool five, __m256i table)
{
    for (unsigned b = 0; b < nb; b++, p += bytes) {
        __m256i q = codes16(p + bytes - 16, table);
        l->s[b][0] = half_at(p);
        if (min)
            l->m[b][0] = half_at(p + 2);
        if (five) {
            uint32_t word;
            memcpy(&word, p + bytes - 20, sizeof word);
            q = _mm256_add_epi8(q, fifth(word));
        }
        STORE32(l->q + 32 * b, q);
    }
}

/* Eight scales and eight minima, six bits each, as floats. */
INLINE void k_scales(struct line *l, const uint8_t *p)
{
    uint32_t a, b, c;
    memcpy(&a, p + 4, sizeof a);
    memcpy(&b, p + 8, sizeof b);
    memcpy(&c, p + 12, sizeof c);
    uint32_t s1 = (c & 0x0f0f0f0f) | (a >> 6 & 0x03030303) << 4;
    uint32_t m1 = (c >> 4 & 0x0f0f0f0f) | (b >> 6 & 0x03030303) << 4;
    __m128i s = _mm_set_epi32(0, 0, (int)s1, (int)(a & 0x3f3f3f3f));
    __m128i m = _mm_set_epi32(0, 0, (int)m1, (int)(b & 0x3f3f3f3f));
    __m256 d = _mm256_set1_ps(half_at(p)), dmin = _mm256_set1_ps(-half_at(p + 2));
    float scale[8], least[8];
    _mm256_storeu_ps(scale, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(s))));
    _mm256_storeu_ps(least, _mm256_mul_ps(dmin, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(m))));
    for (int j = 0; j < 8; j++) {
        l->s[j][0] = scale[j];
        l->m[j][0] = least[j];
    }
}

INLINE void line_q4_k(struct line *l, const uint8_t *p)
{
    k_scales(l, p);
    for (int i = 0; i < 4; i++) {
        __m256i z = LOAD32(p + 16 + 32 * i);
        STORE32(l->q + 64 * i, NIBBLE_LOW(z));
        STORE32(l->q + 64 * i + 32, NIBBLE_HIGH(z));
    }
}

INLINE void line_q5_k(struct line *l, const uint8_t *p)
{
    k_scales(l, p);
    __m256i h = LOAD32(p + 16);
    for (int i = 0; i < 4; i++, h = _mm256_srli_epi16(h, 2)) {
        __m256i z = LOAD32(p + 48 + 32 * i);
        __m256i lo = AND(_mm256_slli_epi16(h, 4), BYTES(16));
        __m256i hi = AND(_mm256_slli_epi16(h, 3), BYTES(16));
        STORE32(l->q + 64 * i, OR(NIBBLE_LOW(z), lo));
        STORE32(l->q + 64 * i + 32, OR(NIBBLE_HIGH(z), hi));
    }
}

INLINE void line_q6_k(struct line *l, const uint8_t *p)
{
    const __m256i top = BYTES(0x30), down = BYTES(-32);
    __m256 d = _mm256_set1_ps(half_at(p + 208));
    for (int i = 0; i < 2; i++) {
        __m128i s = _mm_loadl_epi64((const __m128i *)(const void *)(p + 192 + 8 * i));
        _mm256_storeu_ps(&l->s[4 * i][0],
                         _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(s))));
    }
    for (int half = 0; half < 2; half++) {
        __m256i h = LOAD32(p + 128 + 32 * half);
        int8_t *q = l->q + 128 * half;
        for (int i = 0; i < 2; i++) {
            __m256i z = LOAD32(p + 64 * half + 32 * i);
            __m256i lo = AND(i ? _mm256_slli_epi16(h, 2) : _mm256_slli_epi16(h, 4), top);
            __m256i hi = AND(i ? _mm256_srli_epi16(h, 2) : h, top);
            STORE32(q + 32 * i, _mm256_add_epi8(OR(NIBBLE_LOW(z), lo), down));
            STORE32(q + 64 + 32 * i, _mm256_add_epi8(OR(NIBBLE_HIGH(z), hi), down));
        }
    }
}

INLINE void line_iq4_xs(struct line *l, const uint8_t *p, __m256i table)
{
    float d = half_at(p);
    unsigned high = load_u16(p + 2);
    for (int b = 0; b < BLOCKS; b++) {
        int s = (p[4 + b / 2] >> 4 * (b % 2) & 15) | (high >> 2 * b & 3) << 4;
        l->s[b][0] = d * (float)(s - 32);
        STORE32(l->q + 32 * b, codes16(p + 8 + 16 * b, table));
    }
}

static void unpack_line(struct line *l, const struct int8_format *f, const uint8_t *p,
                        unsigned nb)
{
    switch (f->type) {
    case QUANT_Q8_0:
        line_q8_0(l, p, nb);
        break;
    case QUANT_Q4_K:
        line_q4_k(l, p);
        break;
    case QUANT_Q5_K:
        line_q5_k(l, p);
        break;
    case QUANT_Q6_K:
        line_q6_k(l, p);
        break;
    case QUANT_Q4_0:
        line_nibbles(l, p, nb, 18, false, false, table_from(-8));
        break;
    case QUANT_Q4_1:
        line_nibbles(l, p, nb, 20, true, false, table_from(0));
        break;
    case QUANT_Q5_0:
        line_nibbles(l, p, nb, 22, false, true, table_from(-16));
        break;
    case QUANT_Q5_1:
        line_nibbles(l, p, nb, 24, true, true, table_from(0));
        break;
    case QUANT_IQ4_NL:
        line_nibbles(l, p, nb, 18, false, false,
                     _mm256_broadcastsi128_si256(LOAD16(iq4_levels)));
        break;
    case QUANT_IQ4_XS:
        line_iq4_xs(l, p, _mm256_broadcastsi128_si256(LOAD16(iq4_levels)));
        break;
    default: /* the plain code, block by block */
        for (unsigned b = 0; b < nb; b += f->block / INT8_BLOCK, p += f->bytes)
            f->unpack(p, l->q + INT8_BLOCK * b, l->s[b], l->m[b]);
    }
}

/* --- eight rows --------------------------------------------------------------------------- */

/* out[k] has the k-th 32 bits of each row. */
INLINE void transpose(__m256i out[8], const __m256i row[8])
{
    __m256i t[8], z[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(row[i], row[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(row[i], row[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        z[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        z[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        z[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        z[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int k = 0; k < 4; k++) {
        out[k] = _mm256_permute2x128_si256(z[k], z[4 + k], 0x20);
        out[4 + k] = _mm256_permute2x128_si256(z[k], z[4 + k], 0x31);
    }
}

/* Sixteen floats of each row, eight at a time. */
INLINE void transpose_floats(__m256 (*to)[2], const struct line *l, size_t at)
{
    __m256i row[8], out[8];
    for (int half = 0; half < 2; half++) {
        for (int r = 0; r < ROWS; r++)
            row[r] = LOAD32((const uint8_t *)&l[r] + at + 32 * (size_t)half);
        transpose(out, row);
        for (int i = 0; i < 8; i++)
            to[4 * half + i / 2][i % 2] = _mm256_castsi256_ps(out[i]);
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
        unpack_line(&l[r], f, w->p + r * w->stride, nb);
    }
    transpose_floats(c->s, l, offsetof(struct line, s));
    if (f->kind == CODES_MIN || f->kind == CODES_HALVES_MIN)
        transpose_floats(c->m, l, offsetof(struct line, m));
    for (unsigned b = 0; b < nb; b++) {
        __m256i row[ROWS];
        for (int r = 0; r < ROWS; r++)
            row[r] = LOAD32(l[r].q + INT8_BLOCK * b);
        transpose(c->q[b], row);
        for (int k = 0; k < WORDS; k++)
            c->size[b][k] = _mm256_abs_epi8(c->q[b][k]);
    }
}

/* --- a panel times rows ------------------------------------------------------------------- */

INLINE __m256i word_at(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

INLINE __m256 float_at(const uint8_t *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_ps(v);
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
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 a[TILE];
    for (int i = 0; i < n; i++)
        a[i] = _mm256_load_ps(acc + i * ROWS);
    for (unsigned b = 0; b < nb; b++)
        for (int h = 0; h < parts; h++) {
            size_t part = 4 * ((size_t)parts * b + (size_t)h);
            __m256i t[TILE];
            for (int i = 0; i < n; i++)
                t[i] = _mm256_setzero_si256();
            for (int k = h * words; k < (h + 1) * words; k++)
                for (int i = 0; i < n; i++) {
                    __m256i xw = word_at(x[i] + o.q + INT8_BLOCK * b + 4 * k);
                    __m256i pairs = _mm256_maddubs_epi16(
                        c->size[b][k], _mm256_sign_epi8(xw, c->q[b][k]));
                    t[i] = _mm256_add_epi32(t[i], _mm256_madd_epi16(pairs, ones));
                }
            for (int i = 0; i < n; i++) {
                __m256 s = _mm256_mul_ps(c->s[b][h], float_at(x[i] + o.d + 4 * b));
                a[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(t[i]), s, a[i]);
                if (min)
                    a[i] = _mm256_fmadd_ps(c->m[b][h], float_at(x[i] + sum + part), a[i]);
            }
        }
    for (int i = 0; i < n; i++)
        _mm256_store_ps(acc + i * ROWS, a[i]);
}

static bool panel_times(const struct int8_format *f, struct source w, const uint8_t **x,
                        uint32_t n, uint64_t cols, float (*acc)[ROWS])
{
    (void)f, (void)w, (void)x, (void)n, (void)cols, (void)acc;
    return false;
}

#define TIMES_LOG 3
#define INT8_MATMUL int8_matmul_avx2
#include "engine/kernel/int8_panel.h"

/* --- activations -------------------------------------------------------------------------- */

void int8_pack_avx2(uint32_t type, const float *x, uint64_t cols, void *out)
{
    (void)type;
    int8_t *q = out;
    size_t n = (size_t)cols / INT8_BLOCK;
    float *d = (float *)(void *)(q + cols), *sum = d + n, *half_sum = sum + n;
    int32_t *shift = (int32_t *)(void *)(half_sum + 2 * n), *half_shift = shift + n;
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    for (size_t b = 0; b < n; b++, x += INT8_BLOCK, q += INT8_BLOCK) {
        __m256 v[4];
        __m256i mag = _mm256_setzero_si256();
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            mag = _mm256_max_epu32(mag, AND(_mm256_castps_si256(v[i]), magnitude));
        }
        __m128i m = _mm_max_epu32(_mm256_castsi256_si128(mag), _mm256_extracti128_si256(mag, 1));
        m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
        m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
        float max = bits_float((uint32_t)_mm_cvtsi128_si32(m)), inv = inverse(max / 127.0f);
        bool finite = isfinite(max);
        d[b] = finite ? max / 127.0f : NAN;
        __m256i keep = _mm256_set1_epi32(finite ? -1 : 0), code[4];
        for (int i = 0; i < 4; i++)
            code[i] = AND(_mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inv))), keep);
        int32_t all = 0;
        for (size_t h = 0; h < 2; h++) {
            __m256i c16 = _mm256_packs_epi32(code[2 * h], code[2 * h + 1]);
            c16 = _mm256_permute4x64_epi64(c16, 0xd8);
            __m128i c8 = _mm_packs_epi16(_mm256_castsi256_si128(c16),
                                         _mm256_extracti128_si256(c16, 1));
            _mm_storeu_si128((__m128i *)(void *)(q + 16 * h), c8);
            int32_t part = 0;
            for (int i = 0; i < 16; i++)
                part += q[16 * h + (size_t)i];
            half_sum[2 * b + h] = d[b] * (float)part;
            half_shift[2 * b + h] = -128 * part;
            all += part;
        }
        sum[b] = d[b] * (float)all;
        shift[b] = -128 * all;
    }
}

#define CHAIN(tmp, sum)                                                                    \
    "vpmaddubsw %0, %0, %%ymm" #tmp "\n\tvpmaddwd %1, %%ymm" #tmp ", %%ymm" #tmp              \
    "\n\tvpaddd %%ymm" #tmp ", %%ymm" #sum ", %%ymm" #sum "\n\t"

/* Written out, since a compiler that keeps the sums in memory would measure that. */
uint64_t int8_mac_avx2(uint64_t rounds)
{
    __m256i one = BYTES(1), pairs = _mm256_set1_epi16(1);
    for (uint64_t i = 0; i < rounds; i++)
        __asm__ volatile(CHAIN(2, 8) CHAIN(3, 9) CHAIN(4, 10) CHAIN(5, 11) CHAIN(6, 12)
                             CHAIN(7, 13)
                         :
                         : "x"(one), "x"(pairs)
                         : "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                           "xmm10", "xmm11", "xmm12", "xmm13");
    return rounds * 6 * sizeof one;
}
