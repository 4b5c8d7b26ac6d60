/*
 * test_attn.c - the tables of attn.h that this machine can run against attn_ref.c, on random
 * and edge shapes; and their promise: an output's bits depend on its own inputs alone.
 */
#include "engine/kernel/attn.h"

#include <math.h>

#include "base/mem.h"
#include "engine/forward.h"
#include "engine/kernel/kernel.h"
#include "engine/quant/half.h"
#include "random.h"
#include "test.h"

enum { TILE = ATTN_TILE };

static bool near(float got, float want, double scale)
{
    return fabs((double)got - (double)want) <= 2e-6 * scale + 1e-6;
}

/* The i-th table that is not the reference; NULL behind the last. */
static const struct attn_ops *table(unsigned i)
{
    const struct kernel_ops *o;
    for (unsigned k = 0; (o = kernel_list(k)); k++)
        if (attn_ops(o->name) != &attn_ref && i-- == 0)
            return attn_ops(o->name);
    return NULL;
}

static void one_dots(const struct attn_ops *o, uint32_t n_q, uint32_t n_k, uint32_t width)
{
    uint32_t ldq = width + 3, ldk = width + 5, ldz = n_k + 2;
    float *q = random_rows((size_t)n_q * ldq), *k = random_rows((size_t)n_k * ldk);
    float *a = random_rows((size_t)n_q * ldz), *b = random_rows((size_t)n_q * ldz), one;
    memcpy(b, a, (size_t)n_q * ldz * sizeof *a); /* what lies between rows stays */
    struct attn_next next = {.at = {(const uint8_t *)q, (const uint8_t *)k}, .n = 2, .bytes = 64};
    o->dots(a, ldz, q, ldq, n_q, k, ldk, n_k, width, &next);
    attn_ref.dots(b, ldz, q, ldq, n_q, k, ldk, n_k, width, NULL);
    for (size_t i = 0; i < (size_t)n_q * ldz; i++)
        assert_true(near(a[i], b[i], sqrt(width)));
    for (uint32_t i = 0; i < n_q; i++)
        for (uint32_t s = 0; s < n_k; s++) {
            o->dots(&one, 1, q + i * ldq, ldq, 1, k + s * ldk, ldk, 1, width, NULL);
            assert_memory_equal(&one, a + i * ldz + s, sizeof one);
        }
    mem_free(q);
    mem_free(k);
    mem_free(a);
    mem_free(b);
}

static void one_mix(const struct attn_ops *o, uint32_t n_p, uint32_t n_v, uint32_t width,
                    bool add)
{
    uint32_t ldp = n_v + 1, ldv = width + 4, ldy = width + 7;
    float *p = random_rows((size_t)n_p * ldp), *v = random_rows((size_t)n_v * ldv);
    float *a = random_rows((size_t)n_p * ldy), *b = random_rows((size_t)n_p * ldy);
    float *before = random_rows((size_t)n_p * ldy), *one = random_rows(width);
    memcpy(b, a, (size_t)n_p * ldy * sizeof *a);
    memcpy(before, a, (size_t)n_p * ldy * sizeof *a);
    o->mix(a, ldy, p, ldp, n_p, v, ldv, n_v, width, add);
    attn_ref.mix(b, ldy, p, ldp, n_p, v, ldv, n_v, width, add);
    for (size_t i = 0; i < (size_t)n_p * ldy; i++)
        assert_true(near(a[i], b[i], sqrt(n_v) + 1));
    for (uint32_t i = 0; i < n_p; i++) {
        memcpy(one, before + i * ldy, width * sizeof *one);
        o->mix(one, width, p + i * ldp, ldp, 1, v, ldv, n_v, width, add);
        assert_memory_equal(one, a + i * ldy, width * sizeof *one);
    }
    mem_free(p);
    mem_free(v);
    mem_free(a);
    mem_free(b);
    mem_free(before);
    mem_free(one);
}

static void products_agree_with_ref(void **state)
{
    (void)state;
    static const uint32_t rows[] = {1, 2, 3, 4, 7, 16, 33}, keys[] = {1, 3, 4, 6, 63, 64};
    static const uint32_t widths[] = {1, 8, 15, 16, 40, 64, 100, 576};
    const struct attn_ops *o;
    for (unsigned t = 0; (o = table(t)); t++)
        for (unsigned r = 0; r < ARRAY_LEN(rows); r++)
            for (unsigned k = 0; k < ARRAY_LEN(keys); k++)
                for (unsigned w = 0; w < ARRAY_LEN(widths); w++) {
                    one_dots(o, rows[r], keys[k], widths[w]);
                    one_mix(o, rows[r], keys[k], widths[w], w & 1);
                }
}

static uint16_t *random_bf16(size_t n)
{
    uint16_t *p = mem_alloc(n * sizeof *p + 2);
    for (size_t i = 0; i < n; i++)
        p[i] = f32_to_bf16(random_float());
    return p;
}

/* Rows of bf16 that lie anywhere, at odd places too. */
static void one_bf16(const struct attn_ops *o, uint32_t n_q, uint32_t n_k, uint32_t width)
{
    uint32_t ld = width + 3, ldp = n_k + n_k % 2, ldz = n_k + 2, ldy = width + 5;
    uint16_t *q = random_bf16((size_t)n_q * ld), *v = random_bf16((size_t)n_k * ld);
    uint16_t *p = random_bf16((size_t)n_q * ldp);
    uint16_t *pairs = mem_alloc((size_t)ldp * width * 2), *twin = mem_alloc((size_t)ldp * width * 2);
    float *a = random_rows((size_t)n_q * ldz), *b = random_rows((size_t)n_q * ldz), one;
    float *y = random_rows((size_t)n_q * ldy), *y_twin = random_rows((size_t)n_q * ldy);
    float *y_pairs = random_rows((size_t)n_q * ldy), *floats = random_rows((size_t)n_k * width);
    const uint8_t *row[TILE];
    for (uint32_t s = 0; s < n_k; s++) { /* in no order */
        row[s] = (const uint8_t *)(v + (size_t)((s * 7 + 3) % n_k) * ld);
        for (uint32_t c = 0; c < width; c++)
            floats[(size_t)s * width + c] = bf16_to_f32(load_u16(row[s] + 2 * c));
    }
    for (uint32_t i = 0; n_k % 2 && i < n_q; i++)
        p[i * ldp + n_k] = 0;
    memcpy(b, a, (size_t)n_q * ldz * sizeof *a);
    struct attn_next next = {.at = {(const uint8_t *)q}, .n = 1, .bytes = 64};
    o->dots_b(a, ldz, q, ld, n_q, row, n_k, width, &next);
    attn_ref.dots_b(b, ldz, q, ld, n_q, row, n_k, width, NULL);
    for (size_t i = 0; i < (size_t)n_q * ldz; i++)
        assert_true(near(a[i], b[i], sqrt(width)));
    for (uint32_t i = 0; i < n_q; i++)
        for (uint32_t s = 0; s < n_k; s++) {
            o->dots_b(&one, 1, q + i * ld, ld, 1, &row[s], 1, width, NULL);
            assert_memory_equal(&one, a + i * ldz + s, sizeof one);
        }
    o->pair(pairs, floats, width, n_k, width);
    attn_ref.pair(twin, floats, width, n_k, width);
    assert_memory_equal(pairs, twin, (size_t)ldp * width * 2);
    for (int add = 0; add < 2; add++) {
        memcpy(y_twin, y, (size_t)n_q * ldy * sizeof *y);
        memcpy(y_pairs, y, (size_t)n_q * ldy * sizeof *y);
        float *before = mem_alloc((size_t)n_q * ldy * sizeof *y), *alone = random_rows(width);
        memcpy(before, y, (size_t)n_q * ldy * sizeof *y);
        o->mix_b(y, ldy, p, ldp, n_q, row, n_k, width, add);
        attn_ref.mix_b(y_twin, ldy, p, ldp, n_q, row, n_k, width, add);
        o->mix_pairs(y_pairs, ldy, p, ldp, n_q, pairs, n_k, width, add);
        for (size_t i = 0; i < (size_t)n_q * ldy; i++) {
            assert_true(near(y[i], y_twin[i], sqrt(n_k) + 2));
            assert_true(near(y_pairs[i], y_twin[i], sqrt(n_k) + 2));
        }
        for (uint32_t i = 0; i < n_q; i++) {
            memcpy(alone, before + i * ldy, width * sizeof *alone);
            o->mix_b(alone, width, p + i * ldp, ldp, 1, row, n_k, width, add);
            assert_memory_equal(alone, y + i * ldy, width * sizeof *alone);
            memcpy(alone, before + i * ldy, width * sizeof *alone);
            o->mix_pairs(alone, width, p + i * ldp, ldp, 1, pairs, n_k, width, add);
            assert_memory_equal(alone, y_pairs + i * ldy, width * sizeof *alone);
        }
        attn_ref.mix_pairs(y_pairs, ldy, p, ldp, n_q, pairs, n_k, width, false);
        attn_ref.mix_b(y_twin, ldy, p, ldp, n_q, row, n_k, width, false);
        for (uint32_t i = 0; i < n_q; i++)
            assert_memory_equal(y_pairs + i * ldy, y_twin + i * ldy, width * sizeof *y);
        mem_free(before);
        mem_free(alone);
    }
    uint32_t even = width + width % 2;
    uint16_t *up = mem_alloc((size_t)n_k * even * 2), *up_twin = mem_alloc((size_t)n_k * even * 2);
    o->stand(up, row, n_k, width);
    attn_ref.stand(up_twin, row, n_k, width);
    assert_memory_equal(up, up_twin, (size_t)n_k * even * 2);
    void *owned[] = {q, v, p, pairs, twin, a, b, y, y_twin, y_pairs, floats, up, up_twin};
    for (unsigned i = 0; i < ARRAY_LEN(owned); i++)
        mem_free(owned[i]);
}

static void bf16_agrees_with_ref(void **state)
{
    (void)state;
    static const uint32_t rows[] = {1, 2, 3, 7, 8, 16, 33}, keys[] = {1, 2, 5, 16, 17, 63, 64};
    static const uint32_t widths[] = {2, 7, 16, 31, 32, 33, 64, 100, 576};
    const struct attn_ops *o;
    for (unsigned t = 0; (o = table(t)); t++)
        for (unsigned r = 0; r < ARRAY_LEN(rows); r++)
            for (unsigned k = 0; k < ARRAY_LEN(keys); k++)
                for (unsigned w = 0; w < ARRAY_LEN(widths); w++)
                    one_bf16(o, rows[r], keys[k], widths[w]);
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    static const uint32_t edge[] = {0,          0x80000000, 0x3f800000, 0x3f808000, 0x3f818000,
                                    0x3f808001, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7f800001,
                                    0x7fc00000, 0xffffffff, 0x7f7f8000, 0x00800000, 0x3f80ffff};
    const struct attn_ops *o;
    for (unsigned t = 0; (o = table(t)); t++)
        for (size_t n = 0; n < 70; n++) {
            float x[70];
            uint16_t got[71], want[71];
            for (size_t i = 0; i < n; i++)
                x[i] = i < ARRAY_LEN(edge) ? bits_float(edge[i]) : random_float();
            got[n] = want[n] = 0xdead;
            o->narrow(got, x, n);
            attn_ref.narrow(want, x, n);
            assert_memory_equal(got, want, (n + 1) * sizeof *got);
        }
}

static void index_agrees_with_ref(void **state)
{
    (void)state;
    const struct attn_ops *o;
    for (unsigned t = 0; (o = table(t)); t++)
        for (uint32_t heads = 1; heads <= 64; heads = heads * 2 + heads % 3)
            for (uint32_t dim = 8; dim <= 128; dim *= 2) {
                float *q = random_rows(heads * dim), *w = random_rows(heads);
                float *k = random_rows(TILE * dim), a[TILE], b[TILE];
                struct attn_next next = {.at = {(const uint8_t *)q}, .n = 1, .bytes = 130};
                o->index(a, q, w, heads, k, dim, &next);
                attn_ref.index(b, q, w, heads, k, dim, NULL);
                for (int i = 0; i < TILE; i++)
                    assert_true(near(a[i], b[i], heads * sqrt(dim)));
                /* Garbage beside a position does not reach it. */
                for (uint32_t c = 0; c < dim; c++)
                    k[c * TILE + 5] = NAN;
                o->index(b, q, w, heads, k, dim, NULL);
                a[5] = b[5] = 0;
                assert_memory_equal(a, b, sizeof a);
                mem_free(q);
                mem_free(w);
                mem_free(k);
            }
}

static void index_i8_is_exact(void **state)
{
    (void)state;
    static const uint32_t heads[] = {1, 2, 7, 8, 9, 64};
    const struct attn_ops *o;
    for (unsigned t = 0; (o = table(t)); t++)
        for (unsigned h = 0; h < ARRAY_LEN(heads); h++)
            for (uint32_t dim = 4; dim <= 1024; dim *= 4) {
                uint32_t n = heads[h];
                int8_t *q = mem_alloc((size_t)n * dim);
                uint8_t *k = mem_alloc((size_t)TILE * dim);
                float w[64], scale[TILE], a[TILE], b[TILE];
                for (uint32_t i = 0; i < n * dim; i++) /* the extremes too */
                    q[i] = (int8_t)(h == 3 ? 127 : random_float() * 127.9f);
                for (uint32_t i = 0; i < TILE * dim; i++)
                    k[i] = (uint8_t)(h == 3 ? 1 + 254 * (int)(i / 4 % 2)
                                            : 128 + (int)(random_float() * 127.9f));
                for (uint32_t i = 0; i < n; i++)
                    w[i] = i == 0 ? 1.0f : 0.0f; /* one head: no rounding */
                for (uint32_t i = 0; i < TILE; i++)
                    scale[i] = 1.0f;
                o->index_i8(a, q, w, n, k, scale, dim, NULL);
                attn_ref.index_i8(b, q, w, n, k, scale, dim, NULL);
                assert_memory_equal(a, b, sizeof a);
                for (uint32_t i = 0; i < n; i++)
                    w[i] = random_float() / 16384.0f;
                for (uint32_t i = 0; i < TILE; i++)
                    scale[i] = random_float();
                o->index_i8(a, q, w, n, k, scale, dim, NULL);
                attn_ref.index_i8(b, q, w, n, k, scale, dim, NULL);
                for (int i = 0; i < TILE; i++)
                    assert_true(near(a[i], b[i], n * (double)dim));
                mem_free(q);
                mem_free(k);
            }
}

/* Several tiles in a row against sums in double. */
static void softmax_is_right(void **state)
{
    (void)state;
    const struct attn_ops *o = &attn_ref;
    for (unsigned t = 0; o; o = table(t++))
        for (int hard = 0; hard < 2; hard++) {
            struct softmax s = {-INFINITY, 0};
            /* A difference of large numbers is rounded before exp() sees it. */
            double max = -INFINITY, sum = 0, keep = 1, want[TILE], tol = hard ? 4e-5 : 4e-6;
            for (int n = 0; n < 6; n++) {
                float z[TILE];
                uint64_t bits = n == 0   ? 0
                                : n == 2 ? UINT64_MAX
                                         : UINT64_C(0x8000f00fff0000a1) << n;
                double high = max;
                for (int i = 0; i < TILE; i++) {
                    z[i] = random_float() * (hard ? 300.0f : 3.0f);
                    want[i] = bits >> i & 1 ? (double)(z[i] * 0.5f) : -INFINITY;
                    high = fmax(high, want[i]);
                }
                float shrink = o->soften(&s, z, bits, 0.5f);
                keep = high > max ? exp(max - high) : 1;
                max = high;
                sum *= keep;
                for (int i = 0; i < TILE; i++) {
                    double e = bits >> i & 1 ? exp(want[i] - max) : 0;
                    sum += e;
                    assert_true(fabs((double)z[i] - e) <= tol * e + 2e-38);
                }
                assert_true(s.max == (float)max);
                assert_true(fabs((double)s.sum - sum) <= tol * sum);
                assert_true(fabs((double)shrink - keep) <= tol * keep + 2e-38);
            }
        }
}

static void ranking_is_exact(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {2, 7, 16, 17, 63, 64, 1000, 4099, 40000};
    float *work = mem_array(INDEXER_WORK, sizeof *work);
    const struct attn_ops *o = &attn_ref;
    for (unsigned t = 0; o; o = table(t++))
        for (unsigned i = 0; i < ARRAY_LEN(sizes); i++)
            for (int kind = 0; kind < 4; kind++) {
                uint32_t n = sizes[i], k = 1 + (n - 1) * (uint32_t)kind / 4;
                k = k < n ? k : n - 1;
                float *score = random_rows(n);
                uint32_t *want = mem_array(n, sizeof *want), *got = mem_array(n, sizeof *got);
                for (uint32_t s = 0; s < n; s++) {
                    if (kind == 1) /* ties, and zeros of both signs */
                        score[s] = score[s] > 0.3f ? 0.25f : score[s] > 0 ? 0.0f : -0.0f;
                    if (kind == 2) /* all in one bin */
                        score[s] = 1.0f + score[s] * 1e-3f * (score[s] > 0 ? 1.0f : -1.0f);
                    if (kind == 3)
                        score[s] = s % 9 == 4 ? -INFINITY : score[s] * 1e30f;
                }
                indexer_topk(score, n, k, want);
                got[k] = 0xdeadbeef; /* one further is not touched */
                indexer_pick(o, score, n, k, got, work);
                assert_memory_equal(got, want, k * sizeof *got);
                assert_int_equal(got[k], 0xdeadbeef);
                mem_free(score);
                mem_free(want);
                mem_free(got);
            }
    mem_free(work);
}

static void small_ops_agree(void **state)
{
    (void)state;
    const struct attn_ops *o;
    for (unsigned t = 0; (o = table(t)); t++) {
        uint8_t code[256];
        float a[256], b[256], scale[256];
        for (int i = 0; i < 256; i++) {
            code[i] = (uint8_t)i;
            scale[i] = random_float();
        }
        for (uint32_t step = 0; step < 2; step++) {
            o->widen_f8(a, code, scale, step, 255);
            attn_ref.widen_f8(b, code, scale, step, 255);
            for (int i = 0; i < 255; i++)
                assert_true(a[i] == b[i] || (isnan(a[i]) && isnan(b[i])));
        }
        for (size_t n = 0; n < 40; n++) {
            for (size_t i = 0; i <= n; i++)
                a[i] = b[i] = random_float();
            o->scale(a, 0.3f, n);
            attn_ref.scale(b, 0.3f, n);
            assert_memory_equal(a, b, (n + 1) * sizeof *a);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_agree_with_ref), cmocka_unit_test(bf16_agrees_with_ref),
        cmocka_unit_test(bf16_rounds_to_nearest_even), cmocka_unit_test(index_agrees_with_ref),
        cmocka_unit_test(index_i8_is_exact), cmocka_unit_test(softmax_is_right),        cmocka_unit_test(ranking_is_exact),
        cmocka_unit_test(small_ops_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
