/*
 * avx512_int8.c - int8.h for AVX-512 with VNNI.
 *
 * Sixteen rows of a weight are one panel: its codes are transposed so that a register holds
 * four neighbouring codes of each row, and one instruction adds four products to each of the
 * sixteen sums. Codes are stored 128 too high, since that instruction wants one unsigned
 * factor; the sums start at -128 times the sum of the activations to make up for it.
 */
#include "engine/kernel/int8.h"

#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "engine/quant/half.h"
#include "engine/quant/iq4.h"
#include "engine/quant/quant.h"

enum {
    ROWS = 16,               /* rows of a panel: the lanes of a register */
    BLOCKS = 8,              /* blocks of 32 in a chunk: a block of the K types */
    WORDS = 8,               /* registers that hold a block's codes */
    TILE = 8,                /* rows of activations that share a panel's registers */
};

#include "engine/kernel/int8_source.h"

struct chunk {
    __m512i q[BLOCKS][WORDS];
    __m512 s[BLOCKS][2], m[BLOCKS][2];
};

/* --- sixteen rows at once ----------------------------------------------------------------- */

#define LOAD16(at) _mm_loadu_si128((const __m128i *)(at))
#define LOAD32(at) _mm256_loadu_si256((const __m256i *)(at))
#define BYTES(x) _mm512_set1_epi8((char)(x))
#define AND(a, b) _mm512_and_si512(a, b)
#define OR(a, b) _mm512_or_si512(a, b)
#define NIBBLE_LOW(z) AND(z, BYTES(15))
#define NIBBLE_HIGH(z) AND(_mm512_srli_epi16(z, 4), BYTES(15))

/* 32 bytes of each row at `off`: out[k] has the k-th four of rows 0..15. */
INLINE void rows32(__m512i out[WORDS], struct source *w, size_t off)
{
    __m512i z[8], t[8];
    for (size_t i = 0; i < 8; i++) {
        FETCH(w);
        const uint8_t *a = w->p + off + (i / 4 * 8 + i % 4) * w->stride;
        z[i] = _mm512_inserti64x4(_mm512_castsi256_si512(LOAD32(a)), LOAD32(a + 4 * w->stride),
                                  1);
    }
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi32(z[i], z[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(z[i], z[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        z[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        z[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        z[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        z[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* Quarters of z[k] and z[4 + k]: words k and 4 + k of four rows, of the next four. */
    for (int k = 0; k < 4; k++) {
        out[k] = _mm512_shuffle_i32x4(z[k], z[4 + k], 0x88);
        out[4 + k] = _mm512_shuffle_i32x4(z[k], z[4 + k], 0xdd);
    }
}

/* 16 bytes of each row. */
INLINE void rows16(__m512i out[4], struct source *w, size_t off)
{
    __m512i z[4], t[4];
    for (size_t i = 0; i < 4; i++) {
        FETCH(w);
        const uint8_t *a = w->p + off + i * w->stride;
        z[i] = _mm512_castsi128_si512(LOAD16(a));
        z[i] = _mm512_inserti32x4(z[i], LOAD16(a + 4 * w->stride), 1);
        z[i] = _mm512_inserti32x4(z[i], LOAD16(a + 8 * w->stride), 2);
        z[i] = _mm512_inserti32x4(z[i], LOAD16(a + 12 * w->stride), 3);
    }
    t[0] = _mm512_unpacklo_epi32(z[0], z[1]);
    t[1] = _mm512_unpackhi_epi32(z[0], z[1]);
    t[2] = _mm512_unpacklo_epi32(z[2], z[3]);
    t[3] = _mm512_unpackhi_epi32(z[2], z[3]);
    out[0] = _mm512_unpacklo_epi64(t[0], t[2]);
    out[1] = _mm512_unpackhi_epi64(t[0], t[2]);
    out[2] = _mm512_unpacklo_epi64(t[1], t[3]);
    out[3] = _mm512_unpackhi_epi64(t[1], t[3]);
}

/* The f16 at `off` of each row. */
INLINE __m512 halves(struct source *w, size_t off)
{
    uint16_t h[ROWS];
    FETCH(w);
    for (size_t r = 0; r < ROWS; r++)
        h[r] = load_u16(w->p + off + r * w->stride);
    return _mm512_cvtph_ps(LOAD32(h));
}

INLINE __m512 low_half(__m512i words)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
}

/* The 4 n bits from bit 4 k of each word's 32, one to a byte, times 16. */
INLINE __m512i fifth(__m512i bits, int k)
{
    __m512i four = AND(_mm512_srli_epi32(bits, (unsigned)(4 * k)), _mm512_set1_epi32(15));
    __m512i spread = _mm512_mullo_epi32(four, _mm512_set1_epi32(0x00204081));
    return _mm512_slli_epi32(AND(spread, BYTES(1)), 4);
}

/* --- stored blocks as chunks: nb blocks of 32 from the source's start --------------------- */

INLINE void chunk_q8_0(struct chunk *c, struct source *w, unsigned nb)
{
    for (unsigned b = 0; b < nb; b++) {
        c->s[b][0] = halves(w, 34 * b);
        rows32(c->q[b], w, 34 * b + 2);
        for (int k = 0; k < WORDS; k++)
            c->q[b][k] = _mm512_xor_si512(c->q[b][k], BYTES(0x80));
    }
}

/* Nibbles at `off` of blocks of `bytes`: codes by a table of sixteen, plus 16 for a bit of the
 * word `high` bytes before where there is one. */
INLINE void chunk_nibbles(struct chunk *c, struct source *w, unsigned nb, size_t bytes,
                          size_t off, __m512i table, size_t high)
{
    for (unsigned b = 0; b < nb; b++, off += bytes) {
        __m512i z[4], bits = _mm512_setzero_si512();
        rows16(z, w, off);
        if (high) {
            uint32_t h[ROWS];
            for (size_t r = 0; r < ROWS; r++)
                memcpy(&h[r], w->p + off - high + r * w->stride, sizeof *h);
            bits = _mm512_loadu_si512(h);
        }
        for (int k = 0; k < 4; k++) {
            __m512i lo = _mm512_shuffle_epi8(table, NIBBLE_LOW(z[k]));
            __m512i hi = _mm512_shuffle_epi8(table, NIBBLE_HIGH(z[k]));
            c->q[b][k] = high ? _mm512_add_epi8(lo, fifth(bits, k)) : lo;
            c->q[b][4 + k] = high ? _mm512_add_epi8(hi, fifth(bits, 4 + k)) : hi;
        }
    }
}

INLINE void chunk_f16(struct chunk *c, struct source *w, unsigned nb, size_t bytes, bool min)
{
    for (unsigned b = 0; b < nb; b++) {
        c->s[b][0] = halves(w, bytes * b);
        if (min)
            c->m[b][0] = halves(w, bytes * b + 2);
    }
}

/* 2^(e - 128); e below 2 gives what ldexpf() does: subnormals. */
INLINE void chunk_exponents(struct chunk *c, struct source *w, unsigned nb)
{
    for (unsigned b = 0; b < nb; b++) {
        uint32_t bits[ROWS];
        for (size_t r = 0; r < ROWS; r++) {
            uint32_t e = w->p[17 * b + r * w->stride];
            bits[r] = e < 2 ? UINT32_C(1) << (21 + e) : (e - 1) << 23;
        }
        c->s[b][0] = _mm512_loadu_ps(bits);
    }
}

/* Codes from..from+15, 128 too high. */
INLINE __m512i table_from(int from)
{
    signed char t[16];
    for (int i = 0; i < 16; i++)
        t[i] = (signed char)(from + i);
    return _mm512_xor_si512(_mm512_broadcast_i32x4(LOAD16(t)), BYTES(0x80));
}

INLINE __m512i table_of(const signed char *level)
{
    return _mm512_xor_si512(_mm512_broadcast_i32x4(LOAD16(level)), BYTES(0x80));
}

/* Scales and minima of Q4_K and Q5_K from the block's first sixteen bytes. */
INLINE void k_scales(struct chunk *c, struct source *w)
{
    __m512i z[4], six = _mm512_set1_epi32(63), four = _mm512_set1_epi32(15);
    __m512i top = _mm512_set1_epi32(48);
    rows16(z, w, 0);
    __m512 d = low_half(z[0]), dmin = low_half(_mm512_srli_epi32(z[0], 16));
    dmin = _mm512_xor_ps(dmin, _mm512_set1_ps(-0.0f));
    for (unsigned j = 0; j < 4; j++) {
        __m512i a = _mm512_srli_epi32(z[1], 8 * j), b = _mm512_srli_epi32(z[2], 8 * j);
        __m512i e = _mm512_srli_epi32(z[3], 8 * j);
        __m512i s = OR(AND(e, four), AND(_mm512_srli_epi32(a, 2), top));
        __m512i m = OR(AND(_mm512_srli_epi32(e, 4), four), AND(_mm512_srli_epi32(b, 2), top));
        c->s[j][0] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(AND(a, six)));
        c->m[j][0] = _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(AND(b, six)));
        c->s[4 + j][0] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(s));
        c->m[4 + j][0] = _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(m));
    }
}

INLINE void chunk_q4_k(struct chunk *c, struct source *w)
{
    k_scales(c, w);
    for (unsigned i = 0; i < 4; i++) {
        __m512i z[WORDS];
        rows32(z, w, 16 + 32 * i);
        for (int k = 0; k < WORDS; k++) {
            c->q[2 * i][k] = OR(NIBBLE_LOW(z[k]), BYTES(0x80));
            c->q[2 * i + 1][k] = OR(NIBBLE_HIGH(z[k]), BYTES(0x80));
        }
    }
}

INLINE void chunk_q5_k(struct chunk *c, struct source *w)
{
    __m512i h[WORDS];
    k_scales(c, w);
    rows32(h, w, 16);
    for (unsigned i = 0; i < 4; i++) {
        __m512i z[WORDS];
        rows32(z, w, 48 + 32 * i);
        for (int k = 0; k < WORDS; k++) {
            __m512i five = _mm512_srli_epi16(h[k], 2 * i);
            __m512i lo = AND(_mm512_slli_epi16(five, 4), BYTES(16));
            __m512i hi = AND(_mm512_slli_epi16(five, 3), BYTES(16));
            c->q[2 * i][k] = OR(OR(NIBBLE_LOW(z[k]), lo), BYTES(0x80));
            c->q[2 * i + 1][k] = OR(OR(NIBBLE_HIGH(z[k]), hi), BYTES(0x80));
        }
    }
}

INLINE void chunk_q6_k(struct chunk *c, struct source *w)
{
    __m512i sc[4], top = BYTES(0x30), up = BYTES(128 - 32);
    __m512 d = halves(w, 208);
    rows16(sc, w, 192);
    for (unsigned i = 0; i < 16; i++) {
        __m512i s = _mm512_slli_epi32(sc[i / 4], 24 - 8 * (i % 4));
        c->s[i / 2][i % 2] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_srai_epi32(s, 24)));
    }
    for (unsigned half = 0; half < 2; half++) {
        __m512i l[2][WORDS], h[WORDS];
        rows32(l[0], w, 64 * half);
        rows32(l[1], w, 64 * half + 32);
        rows32(h, w, 128 + 32 * half);
        for (unsigned i = 0; i < 2; i++)
            for (int k = 0; k < WORDS; k++) {
                __m512i lo = AND(_mm512_slli_epi16(h[k], 4 - 2 * i), top);
                __m512i hi = AND(i ? _mm512_srli_epi16(h[k], 2) : h[k], top);
                lo = OR(lo, NIBBLE_LOW(l[i][k]));
                hi = OR(hi, NIBBLE_HIGH(l[i][k]));
                c->q[4 * half + i][k] = _mm512_add_epi8(lo, up);
                c->q[4 * half + 2 + i][k] = _mm512_add_epi8(hi, up);
            }
    }
}

INLINE void chunk_iq4_xs(struct chunk *c, struct source *w)
{
    __m512i z[4], table = table_of(iq4_levels), four = _mm512_set1_epi32(15);
    rows16(z, w, 0);
    __m512 d = low_half(z[0]);
    for (unsigned b = 0; b < BLOCKS; b++) {
        __m512i low = AND(_mm512_srli_epi32(z[1], 4 * b), four);
        __m512i high = _mm512_slli_epi32(_mm512_srli_epi32(z[0], 16 + 2 * b), 4);
        __m512i s = OR(low, AND(high, _mm512_set1_epi32(48)));
        s = _mm512_sub_epi32(s, _mm512_set1_epi32(32));
        c->s[b][0] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(s));
    }
    chunk_nibbles(c, w, BLOCKS, 16, 8, table, 0);
}

INLINE void chunk_q2_k(struct chunk *c, struct source *w)
{
    __m512i sc[4], tail[4], four = _mm512_set1_epi32(15);
    rows16(sc, w, 0);
    rows16(tail, w, 68); /* d and dmin are its last word */
    __m512 d = low_half(tail[3]), dmin = low_half(_mm512_srli_epi32(tail[3], 16));
    dmin = _mm512_xor_ps(dmin, _mm512_set1_ps(-0.0f));
    for (unsigned k = 0; k < 16; k++) {
        __m512i both = _mm512_srli_epi32(sc[k / 4], 8 * (k % 4));
        __m512i m = AND(_mm512_srli_epi32(both, 4), four);
        c->s[k / 2][k % 2] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(AND(both, four)));
        c->m[k / 2][k % 2] = _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(m));
    }
    for (unsigned half = 0; half < 2; half++) {
        __m512i z[WORDS];
        rows32(z, w, 16 + 32 * half);
        for (unsigned run = 0; run < 4; run++)
            for (int k = 0; k < WORDS; k++)
                c->q[4 * half + run][k] =
                    OR(AND(_mm512_srli_epi16(z[k], 2 * run), BYTES(3)), BYTES(0x80));
    }
}

INLINE void chunk_q3_k(struct chunk *c, struct source *w)
{
    __m512i h[WORDS], t[4], sc[3], two = _mm512_set1_epi32(3), four = _mm512_set1_epi32(15);
    rows32(h, w, 0);
    rows16(t, w, 94); /* from two bytes before the scales: a block ends with them and d */
    for (int i = 0; i < 3; i++)
        sc[i] = OR(_mm512_srli_epi32(t[i], 16), _mm512_slli_epi32(t[i + 1], 16));
    __m512 d = low_half(_mm512_srli_epi32(t[3], 16));
    for (unsigned j = 0; j < 16; j++) {
        unsigned at = 8 * (j % 4);
        __m512i low = AND(_mm512_srli_epi32(sc[j % 8 / 4], at + (j < 8 ? 0 : 4)), four);
        __m512i high = AND(_mm512_srli_epi32(sc[2], at + 2 * (j / 4)), two);
        __m512i s = _mm512_sub_epi32(OR(low, _mm512_slli_epi32(high, 4)),
                                     _mm512_set1_epi32(32));
        c->s[j / 2][j % 2] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(s));
    }
    for (unsigned half = 0; half < 2; half++) {
        __m512i z[WORDS];
        rows32(z, w, 32 + 32 * half);
        for (unsigned run = 0; run < 4; run++)
            for (int k = 0; k < WORDS; k++) {
                unsigned bit = 4 * half + run;
                __m512i third = bit < 2 ? _mm512_slli_epi16(h[k], 2 - bit)
                                        : _mm512_srli_epi16(h[k], bit < 2 ? 0 : bit - 2);
                __m512i low = AND(_mm512_srli_epi16(z[k], 2 * run), BYTES(3));
                c->q[bit][k] = _mm512_add_epi8(OR(low, AND(third, BYTES(4))), BYTES(124));
            }
    }
}

static void unpack_chunk(struct chunk *c, const struct int8_format *f, struct source *w,
                         unsigned nb)
{
    static const signed char fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    switch (f->type) {
    case QUANT_Q8_0:
        chunk_q8_0(c, w, nb);
        break;
    case QUANT_Q4_K:
        chunk_q4_k(c, w);
        break;
    case QUANT_Q5_K:
        chunk_q5_k(c, w);
        break;
    case QUANT_Q6_K:
        chunk_q6_k(c, w);
        break;
    case QUANT_Q2_K:
        chunk_q2_k(c, w);
        break;
    case QUANT_Q3_K:
        chunk_q3_k(c, w);
        break;
    case QUANT_Q4_0:
        chunk_f16(c, w, nb, 18, false);
        chunk_nibbles(c, w, nb, 18, 2, table_from(-8), 0);
        break;
    case QUANT_Q4_1:
        chunk_f16(c, w, nb, 20, true);
        chunk_nibbles(c, w, nb, 20, 4, table_from(0), 0);
        break;
    case QUANT_Q5_0:
        chunk_f16(c, w, nb, 22, false);
        chunk_nibbles(c, w, nb, 22, 6, table_from(-16), 4);
        break;
    case QUANT_Q5_1:
        chunk_f16(c, w, nb, 24, true);
        chunk_nibbles(c, w, nb, 24, 8, table_from(0), 4);
        break;
    case QUANT_IQ4_NL:
        chunk_f16(c, w, nb, 18, false);
        chunk_nibbles(c, w, nb, 18, 2, table_of(iq4_levels), 0);
        break;
    case QUANT_MXFP4:
        chunk_exponents(c, w, nb);
        chunk_nibbles(c, w, nb, 17, 1, table_of(fp4), 0);
        break;
    case QUANT_IQ4_XS:
        chunk_iq4_xs(c, w);
        break;
    default:
        assert(!"a format without its unpacking");
    }
}

/* --- a panel times rows ------------------------------------------------------------------- */

INLINE __m512i word_at(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

INLINE __m512 float_at(const uint8_t *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_ps(v);
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
    const size_t from = halves ? o.half_shift : o.shift, sum = halves ? o.half_sum : o.sum;
    __m512 a[TILE];
    for (int i = 0; i < n; i++)
        a[i] = _mm512_load_ps(acc + i * ROWS);
    for (unsigned b = 0; b < nb; b++)
        for (int h = 0; h < parts; h++) {
            size_t part = 4 * ((size_t)parts * b + (size_t)h);
            __m512i t[TILE];
            for (int i = 0; i < n; i++)
                t[i] = word_at(x[i] + from + part);
            for (int k = h * words; k < (h + 1) * words; k++)
                for (int i = 0; i < n; i++)
                    t[i] = _mm512_dpbusd_epi32(
                        t[i], c->q[b][k], word_at(x[i] + o.q + INT8_BLOCK * b + 4 * k));
            for (int i = 0; i < n; i++) {
                __m512 s = _mm512_mul_ps(c->s[b][h], float_at(x[i] + o.d + 4 * b));
                a[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(t[i]), s, a[i]);
                if (min)
                    a[i] = _mm512_fmadd_ps(c->m[b][h], float_at(x[i] + sum + part), a[i]);
            }
        }
    for (int i = 0; i < n; i++)
        _mm512_store_ps(acc + i * ROWS, a[i]);
}

/* --- few rows, the types that most weights have: nothing goes through memory -------------- */

/* a + scale * (t + words of four codes . those of the row) */
INLINE __m512 block_times(const bool alone, const __m512i q[WORDS], const uint8_t *x,
                          __m512i t, __m512 scale, __m512 a)
{
    __m512i u = _mm512_setzero_si512();
    for (int k = 0; k < WORDS; k++)
        if (alone && k % 2) /* two chains, where no other row fills the wait */
            u = _mm512_dpbusd_epi32(u, q[k], word_at(x + 4 * k));
        else
            t = _mm512_dpbusd_epi32(t, q[k], word_at(x + 4 * k));
    if (alone)
        t = _mm512_add_epi32(t, u);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(t), scale, a);
}

INLINE void few_q8_0(const int n, struct source w, const uint8_t *const *x, uint64_t cols,
                     float (*acc)[ROWS])
{
    struct offsets o = offsets_at(cols, 0);
    __m512 a[TILE];
    for (int i = 0; i < n; i++)
        a[i] = _mm512_setzero_ps();
    for (size_t b = 0; b < cols / INT8_BLOCK; b++) {
        __m512i q[WORDS];
        __m512 s = halves(&w, 34 * b);
        rows32(q, &w, 34 * b + 2);
        for (int k = 0; k < WORDS; k++)
            q[k] = _mm512_xor_si512(q[k], BYTES(0x80));
        for (int i = 0; i < n; i++)
            a[i] = block_times(n == 1, q, x[i] + INT8_BLOCK * b,
                               word_at(x[i] + o.shift + 4 * b),
                               _mm512_mul_ps(s, float_at(x[i] + o.d + 4 * b)), a[i]);
    }
    for (int i = 0; i < n; i++)
        _mm512_store_ps(acc[i], a[i]);
}

/* Codes of four bits are as unsigned as they come: no shift, and no sum to make up for it. */
INLINE void few_q4_k(const int n, struct source w, const uint8_t *const *x, uint64_t cols,
                     float (*acc)[ROWS])
{
    struct offsets o = offsets_at(cols, 0);
    __m512 a[TILE];
    for (int i = 0; i < n; i++)
        a[i] = _mm512_setzero_ps();
    for (size_t b = 0; b < cols / INT8_BLOCK; b += BLOCKS, w.p += 144) {
        struct chunk c; /* its scales */
        k_scales(&c, &w);
        for (size_t j = 0; j < BLOCKS; j += 2) {
            __m512i z[WORDS], q[WORDS];
            rows32(z, &w, 16 * (j + 1));
            for (size_t h = 0; h < 2; h++) {
                size_t at = b + j + h;
                for (int k = 0; k < WORDS; k++)
                    q[k] = h ? NIBBLE_HIGH(z[k]) : NIBBLE_LOW(z[k]);
                for (int i = 0; i < n; i++) {
                    a[i] = block_times(
                        n == 1, q, x[i] + INT8_BLOCK * at, _mm512_setzero_si512(),
                        _mm512_mul_ps(c.s[j + h][0], float_at(x[i] + o.d + 4 * at)), a[i]);
                    a[i] = _mm512_fmadd_ps(c.m[j + h][0], float_at(x[i] + o.sum + 4 * at),
                                           a[i]);
                }
            }
        }
    }
    for (int i = 0; i < n; i++)
        _mm512_store_ps(acc[i], a[i]);
}

#define FEW(type, n)                                                                       \
    static void few_##type##_##n(struct source w, const uint8_t *const *x, uint64_t cols,  \
                                 float (*acc)[ROWS])                                       \
    {                                                                                      \
        few_##type(n, w, x, cols, acc);                                                    \
    }
#define FEW_ALL(type) FEW(type, 1) FEW(type, 2) FEW(type, 4) FEW(type, 8)
FEW_ALL(q8_0)
FEW_ALL(q4_k)

/* The whole panel times at most TILE rows, where there is a way without a chunk; x has room
 * for TILE rows. */
static bool panel_times(const struct int8_format *f, struct source w, const uint8_t **x,
                        uint32_t n, uint64_t cols, float (*acc)[ROWS])
{
    typedef void few_fn(struct source w, const uint8_t *const *x, uint64_t cols,
                        float (*acc)[ROWS]);
    static few_fn *const q8_0[] = {few_q8_0_1, few_q8_0_2, few_q8_0_4, few_q8_0_8};
    static few_fn *const q4_k[] = {few_q4_k_1, few_q4_k_2, few_q4_k_4, few_q4_k_8};
    few_fn *const *few = f->type == QUANT_Q8_0 ? q8_0 : f->type == QUANT_Q4_K ? q4_k : NULL;
    if (!few)
        return false;
    int p = 0;
    for (; 1u << p < n; p++)
        ;
    for (uint32_t i = n; i < 1u << p; i++)
        x[i] = x[0]; /* done and thrown away */
    few[p](w, x, cols, acc);
    return true;
}

#define TIMES_LOG 4
#define INT8_MATMUL int8_matmul_avx512
#include "engine/kernel/int8_panel.h"

/* --- activations -------------------------------------------------------------------------- */

void int8_pack_avx512(uint32_t type, const float *x, uint64_t cols, void *out)
{
    (void)type;
    int8_t *q = out;
    size_t n = (size_t)cols / INT8_BLOCK;
    float *d = (float *)(void *)(q + cols), *sum = d + n, *half_sum = sum + n;
    int32_t *shift = (int32_t *)(void *)(half_sum + 2 * n), *half_shift = shift + n;
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (size_t b = 0; b < n; b++, x += INT8_BLOCK, q += INT8_BLOCK) {
        __m512 v[2] = {_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16)};
        __m512i mag = _mm512_max_epu32(AND(_mm512_castps_si512(v[0]), magnitude),
                                       AND(_mm512_castps_si512(v[1]), magnitude));
        float max = bits_float(_mm512_reduce_max_epu32(mag)), inv = inverse(max / 127.0f);
        bool finite = isfinite(max);
        __mmask16 keep = finite ? 0xffff : 0;
        d[b] = finite ? max / 127.0f : NAN;
        int32_t all = 0;
        for (size_t h = 0; h < 2; h++) {
            __m512 scaled = _mm512_mul_ps(v[h], _mm512_set1_ps(inv));
            __m512i code = _mm512_maskz_cvtps_epi32(keep, scaled);
            _mm_storeu_si128((__m128i *)(void *)(q + 16 * h), _mm512_cvtsepi32_epi8(code));
            int32_t part = _mm512_reduce_add_epi32(code);
            half_sum[2 * b + h] = d[b] * (float)part;
            half_shift[2 * b + h] = -128 * part;
            all += part;
        }
        sum[b] = d[b] * (float)all;
        shift[b] = -128 * all;
    }
}

#define CHAIN(n) "vpdpbusd %0, %0, %%zmm" #n "\n\t"

/* Twelve sums, for two units with a latency of four or five: written out, since a compiler
 * that keeps them in memory would measure that. */
uint64_t int8_mac_avx512(uint64_t rounds)
{
    __m512i one = BYTES(1);
    for (uint64_t i = 0; i < rounds; i++)
        __asm__ volatile(CHAIN(20) CHAIN(21) CHAIN(22) CHAIN(23) CHAIN(24) CHAIN(25)
                             CHAIN(26) CHAIN(27) CHAIN(28) CHAIN(29) CHAIN(30) CHAIN(31)
                         :
                         : "v"(one)
                         : "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",
                           "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
    return rounds * 12 * sizeof one;
}
