/*
 * attn_bf16.h - the part of attn_simd.h that multiplies rows of bf16: two products to a lane
 * and instruction where the machine has that (AVX512-BF16), else both halves in turn.
 *
 * A lane holds two neighbouring elements of a sum. Rows of a cache have them side by side for
 * `dots_b`; for `mix_b` two rows are interleaved on the way, a row of weights on the left.
 */

/* Elements of bf16 in a vector. */
enum { HALVES = 2 * LANES };

typedef int32_t loose __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
#define WORDS_AT(p) ((ivec)(*(const loose *)(const void *)(p)))

#ifdef __AVX512BF16__
#define TWICE(acc, a, b) \
    ((vec)_mm512_dpbf16_ps((__m512)(acc), (__m512bh)(a), (__m512bh)(b)))
#else
INLINE vec twice(vec acc, ivec a, ivec b)
{
    const ivec high = ALL_WORDS((int32_t)0xffff0000);
    acc += (vec)(a & high) * (vec)(b & high);
    return acc + (vec)(a << 16) * (vec)(b << 16);
}
#define TWICE(acc, a, b) twice(acc, a, b)
#endif

/* One word, which is two elements, in all lanes. */
INLINE ivec both_at(const uint16_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return ALL_WORDS(v);
}

INLINE ivec words_tail(const uint16_t *p, uint32_t n)
{
    uint16_t t[HALVES] = {0};
    memcpy(t, p, n * sizeof *p);
    return WORDS_AT(t);
}

/* --- dots ------------------------------------------------------------------------------ */

INLINE void dots_b_tile(const uint16_t *const *q, const uint16_t *const *k, uint32_t width,
                        vec *acc, struct wish *w)
{
    for (int i = 0; i < QS * KS; i++)
        acc[i] = (vec){0};
    uint32_t c = 0;
    for (; c + HALVES <= width; c += HALVES) {
        ivec kv[KS];
        wish_line(w);
        for (int b = 0; b < KS; b++)
            kv[b] = WORDS_AT(k[b] + c);
        for (int a = 0; a < QS; a++) {
            ivec qv = WORDS_AT(q[a] + c);
            for (int b = 0; b < KS; b++)
                acc[a * KS + b] = TWICE(acc[a * KS + b], qv, kv[b]);
        }
    }
    for (int a = 0; c < width && a < QS; a++)
        for (int b = 0; b < KS; b++)
            acc[a * KS + b] = TWICE(acc[a * KS + b], words_tail(q[a] + c, width - c),
                                    words_tail(k[b] + c, width - c));
}

/* Rows of k that stay in the first cache while all of q goes by. */
enum { K_BLOCK = 16 };

static void simd_dots_b(float *z, size_t ldz, const uint16_t *q, size_t ldq, uint32_t n_q,
                        const uint8_t *const *k, uint32_t n_k, uint32_t width,
                        const struct attn_next *next)
{
    uint32_t wished = 0;
    for (uint32_t from = 0; from < n_k; from += K_BLOCK) {
        uint32_t to = n_k - from < K_BLOCK ? n_k : from + K_BLOCK;
        for (uint32_t i = 0; i < n_q; i += QS) {
            uint32_t n = n_q - i < QS ? n_q - i : QS;
            const uint16_t *kr[KS], *qr[QS];
            for (uint32_t a = 0; a < QS; a++)
                qr[a] = q + (size_t)(i + (a < n ? a : 0)) * ldq;
            for (uint32_t s = from; s < to; s += KS) {
                uint32_t m = to - s < KS ? to - s : KS;
                vec acc[QS * KS];
                for (uint32_t b = 0; b < KS; b++)
                    kr[b] = (const void *)k[s + (b < m ? b : 0)];
                struct wish w = wish_for(next, wished++, kr[0]);
                dots_b_tile(qr, kr, width, acc, &w);
                fold_tile(z + i * ldz + s, ldz, n, m, acc);
            }
        }
    }
}

/* --- mix ------------------------------------------------------------------------------- */

#if defined(__aarch64__)
#define INTERLEAVE_LOW(a, b) \
    ((ivec)vzip1q_u16((uint16x8_t)(a), (uint16x8_t)(b)))
#define INTERLEAVE_HIGH(a, b) \
    ((ivec)vzip2q_u16((uint16x8_t)(a), (uint16x8_t)(b)))
#elif defined(__AVX512F__)
#define INTERLEAVE_LOW(a, b) ((ivec)_mm512_unpacklo_epi16((__m512i)(a), (__m512i)(b)))
#define INTERLEAVE_HIGH(a, b) ((ivec)_mm512_unpackhi_epi16((__m512i)(a), (__m512i)(b)))
#else
#define INTERLEAVE_LOW(a, b) ((ivec)_mm256_unpacklo_epi16((__m256i)(a), (__m256i)(b)))
#define INTERLEAVE_HIGH(a, b) ((ivec)_mm256_unpackhi_epi16((__m256i)(a), (__m256i)(b)))
#endif

/* Interleaving goes within quarters of a vector: lo has columns 0..3, 8..11, ... and hi those
 * between. To and from columns in order. */
INLINE void in_order(vec *lo, vec *hi)
{
#if defined(__aarch64__)
    (void)lo, (void)hi; /* one quarter is all there is */
#elif defined(__AVX512F__)
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21,
                                            22, 23);
    const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15,
                                             28, 29, 30, 31);
    vec a = (vec)_mm512_permutex2var_ps((__m512)*lo, first, (__m512)*hi);
    *hi = (vec)_mm512_permutex2var_ps((__m512)*lo, second, (__m512)*hi);
    *lo = a;
#else
    vec a = (vec)_mm256_permute2f128_ps((__m256)*lo, (__m256)*hi, 0x20);
    *hi = (vec)_mm256_permute2f128_ps((__m256)*lo, (__m256)*hi, 0x31);
    *lo = a;
#endif
}

INLINE void in_halves(vec *a, vec *b)
{
#ifdef __AVX512F__
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25,
                                          26, 27);
    const __m512i high = _mm512_setr_epi32(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29,
                                           30, 31);
    vec lo = (vec)_mm512_permutex2var_ps((__m512)*a, low, (__m512)*b);
    *b = (vec)_mm512_permutex2var_ps((__m512)*a, high, (__m512)*b);
    *a = lo;
#else
    in_order(a, b); /* with two quarters it is its own inverse */
#endif
}

/* `rows` rows by the HALVES columns from c on, from zero or from y. */
INLINE void mix_b_tile(float *y, size_t ldy, const uint16_t *p, size_t ldp, int rows,
                       const uint8_t *const *v, uint32_t n_v, uint32_t c, bool add)
{
    vec acc[MR][2];
    for (int a = 0; a < rows; a++) {
        for (int b = 0; b < 2; b++)
            acc[a][b] = add ? LOAD(y + a * ldy + b * LANES) : (vec){0};
        if (add)
            in_halves(&acc[a][0], &acc[a][1]);
    }
    for (uint32_t s = 0; s < n_v; s += 2) {
        ivec even = WORDS_AT((const uint16_t *)(const void *)v[s] + c);
        ivec odd = WORDS_AT((const uint16_t *)(const void *)v[s + 1 < n_v ? s + 1 : s] + c);
        ivec lo = INTERLEAVE_LOW(even, odd), hi = INTERLEAVE_HIGH(even, odd);
        for (int a = 0; a < rows; a++) {
            ivec w = both_at(p + a * ldp + s);
            acc[a][0] = TWICE(acc[a][0], lo, w);
            acc[a][1] = TWICE(acc[a][1], hi, w);
        }
    }
    for (int a = 0; a < rows; a++) {
        in_order(&acc[a][0], &acc[a][1]);
        for (int b = 0; b < 2; b++)
            STORE(y + a * ldy + b * LANES, acc[a][b]);
    }
}

/* Columns from..width-1. */
static void mix_b_tail(float *y, size_t ldy, const uint16_t *p, size_t ldp, uint32_t n_p,
                       const uint8_t *const *v, uint32_t n_v, uint32_t from, uint32_t width,
                       bool add)
{
    for (uint32_t i = 0; i < n_p; i++)
        for (uint32_t c = from; c < width; c++) {
            float sum = add ? y[i * ldy + c] : 0;
            for (uint32_t s = 0; s < n_v; s++)
                sum = fmaf(bf16_to_f32(p[i * ldp + s]), bf16_to_f32(load_u16(v[s] + 2 * c)),
                           sum);
            y[i * ldy + c] = sum;
        }
}

static void simd_mix_b(float *y, size_t ldy, const uint16_t *p, size_t ldp, uint32_t n_p,
                       const uint8_t *const *v, uint32_t n_v, uint32_t width, bool add)
{
    uint32_t c = 0;
    for (; c + HALVES <= width; c += HALVES) {
        uint32_t i = 0;
        for (; i + MR <= n_p; i += MR)
            mix_b_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, MR, v, n_v, c, add);
        for (; i + 2 <= n_p; i += 2)
            mix_b_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, 2, v, n_v, c, add);
        if (i < n_p)
            mix_b_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, 1, v, n_v, c, add);
    }
    if (c < width)
        mix_b_tail(y, ldy, p, ldp, n_p, v, n_v, c, width, add);
}

/* --- mix of pairs ---------------------------------------------------------------------- */

INLINE void mix_pairs_tile(float *y, size_t ldy, const uint16_t *p, size_t ldp, int rows,
                           const uint16_t *v, size_t ldv, uint32_t n_v, bool add)
{
    vec acc[MR][2];
    for (int a = 0; a < rows; a++)
        for (int b = 0; b < 2; b++)
            acc[a][b] = add ? LOAD(y + a * ldy + b * LANES) : (vec){0};
    for (uint32_t s = 0; s < n_v; s += 2, v += ldv) {
        ivec x[2] = {WORDS_AT(v), WORDS_AT(v + HALVES)};
        for (int a = 0; a < rows; a++) {
            ivec w = both_at(p + a * ldp + s);
            acc[a][0] = TWICE(acc[a][0], x[0], w);
            acc[a][1] = TWICE(acc[a][1], x[1], w);
        }
    }
    for (int a = 0; a < rows; a++)
        for (int b = 0; b < 2; b++)
            STORE(y + a * ldy + b * LANES, acc[a][b]);
}

static void simd_mix_pairs(float *y, size_t ldy, const uint16_t *p, size_t ldp, uint32_t n_p,
                           const uint16_t *v, uint32_t n_v, uint32_t width, bool add)
{
    size_t ldv = 2 * (size_t)width;
    uint32_t c = 0;
    for (; c + 2 * LANES <= width; c += 2 * LANES) {
        uint32_t i = 0;
        for (; i + MR <= n_p; i += MR)
            mix_pairs_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, MR, v + 2 * c, ldv, n_v,
                           add);
        for (; i + 2 <= n_p; i += 2)
            mix_pairs_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, 2, v + 2 * c, ldv, n_v,
                           add);
        if (i < n_p)
            mix_pairs_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, 1, v + 2 * c, ldv, n_v,
                           add);
    }
    for (uint32_t i = 0; c < width && i < n_p; i++)
        for (uint32_t t = c; t < width; t++) {
            float sum = add ? y[i * ldy + t] : 0;
            for (uint32_t s = 0; s < n_v; s++)
                sum = fmaf(bf16_to_f32(p[i * ldp + s]),
                           bf16_to_f32(v[s / 2 * ldv + 2 * t + s % 2]), sum);
            y[i * ldy + t] = sum;
        }
}

/* --- rounding -------------------------------------------------------------------------- */

/* Each lane's float as bf16 in its low half; NaN stays NaN. */
INLINE uvec rounded(vec x)
{
    uvec u = (uvec)x, up = (u + (0x7fffu + (u >> 16 & 1u))) >> 16;
    ivec nan = (ivec)(x != x);
    return (uvec)((nan & (ivec)(u >> 16 | 0x40u)) | (~nan & (ivec)up));
}

static void simd_narrow(uint16_t *out, const float *x, size_t n)
{
    size_t i = 0;
#if defined(__aarch64__)
    for (; i + LANES <= n; i += LANES)
        vst1_u16(out + i, vmovn_u32((uint32x4_t)rounded(LOAD(x + i))));
#elif defined(__AVX512F__) /* not the instruction for it, which takes subnormals for zero */
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_si256((__m256i *)(void *)(out + i),
                            _mm512_cvtepi32_epi16((__m512i)rounded(LOAD(x + i))));
#else
    for (; i + LANES <= n; i += LANES) {
        __m256i w = (__m256i)rounded(LOAD(x + i));
        _mm_storeu_si128((__m128i *)(void *)(out + i),
                         _mm_packus_epi32(_mm256_castsi256_si128(w),
                                          _mm256_extracti128_si256(w, 1)));
    }
#endif
    for (; i < n; i++)
        out[i] = f32_to_bf16(x[i]);
}

static void simd_pair(uint16_t *out, const float *x, size_t ldx, uint32_t n, uint32_t width)
{
    for (uint32_t s = 0; s < n; s += 2, x += 2 * ldx, out += 2 * (size_t)width) {
        const float *odd = s + 1 < n ? x + ldx : NULL;
        uint32_t c = 0;
        for (; c + LANES <= width; c += LANES) {
            uvec w = rounded(LOAD(x + c));
            if (odd)
                w |= rounded(LOAD(odd + c)) << 16;
            *(uvec *)(void *)(out + 2 * c) = w;
        }
        for (; c < width; c++) {
            out[2 * c] = f32_to_bf16(x[c]);
            out[2 * c + 1] = odd ? f32_to_bf16(odd[c]) : 0;
        }
    }
}

/* --- rows, standing -------------------------------------------------------------------- */

#ifdef __AVX512F__
/* LANES words of LANES rows, transposed. */
INLINE void stand_tile(uint16_t *out, size_t ldo, const uint8_t *const *rows)
{
    __m512i z[16], t[16];
    for (int i = 0; i < 16; i++)
        z[i] = _mm512_loadu_si512(rows[i]);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(z[i], z[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(z[i], z[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        z[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        z[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        z[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        z[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* z[4 g + k]: words k, 4 + k, 8 + k, 12 + k of rows 4 g..4 g + 3, a quarter each. */
    for (int k = 0; k < 4; k++) {
        __m512i a = _mm512_shuffle_i32x4(z[k], z[4 + k], 0x88);
        __m512i b = _mm512_shuffle_i32x4(z[k], z[4 + k], 0xdd);
        __m512i c = _mm512_shuffle_i32x4(z[8 + k], z[12 + k], 0x88);
        __m512i d = _mm512_shuffle_i32x4(z[8 + k], z[12 + k], 0xdd);
        t[k] = _mm512_shuffle_i32x4(a, c, 0x88);
        t[4 + k] = _mm512_shuffle_i32x4(b, d, 0x88);
        t[8 + k] = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[12 + k] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        _mm512_storeu_si512(out + (size_t)i * ldo, t[i]);
}
#endif

static void simd_stand(uint16_t *out, const uint8_t *const *rows, uint32_t n, uint32_t width)
{
    size_t ldo = 2 * (size_t)n;
    uint32_t done = 0, words = width / 2;
#ifdef __AVX512F__
    for (; done + LANES <= n; done += LANES) {
        uint32_t w = 0;
        for (; w + LANES <= words; w += LANES) {
            const uint8_t *at[LANES];
            for (int i = 0; i < LANES; i++)
                at[i] = rows[done + (uint32_t)i] + 4 * (size_t)w;
            stand_tile(out + w * ldo + 2 * (size_t)done, ldo, at);
        }
        for (; w < words; w++)
            for (uint32_t s = done; s < done + LANES; s++)
                memcpy(out + w * ldo + 2 * (size_t)s, rows[s] + 4 * (size_t)w, 4);
    }
#endif
    for (uint32_t s = done; s < n; s++)
        for (uint32_t w = 0; w < words; w++)
            memcpy(out + w * ldo + 2 * (size_t)s, rows[s] + 4 * (size_t)w, 4);
    for (uint32_t s = 0; width % 2 && s < n; s++) {
        out[words * ldo + 2 * (size_t)s] = load_u16(rows[s] + 2 * ((size_t)width - 1));
        out[words * ldo + 2 * (size_t)s + 1] = 0;
    }
}
