/*
 * test_quant.c - block formats against bytes computed by hand, 16-bit and 8-bit floats over
 * every code, and each type's round trip and dot product against double precision on random
 * and edge blocks.
 */
#include "test.h"

#include <math.h>

#include "engine/quant/half.h"
#include "engine/quant/quant.h"
#include "quant_twin.h"

static uint64_t rng_state = 88172645463325252u;

static double uniform(void) /* [-1, 1) */
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (double)(rng_state >> 11) * 0x1p-52 - 1.0;
}

/* Sum of six: close enough to a bell, and bounded. */
static float bell(void)
{
    double s = 0;
    for (int i = 0; i < 6; i++)
        s += uniform();
    return (float)(s * 0.7071);
}

static void same(const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], 4) != 0)
            fail_msg("element %zu is %.9g, not %.9g", i, got[i], want[i]);
}

/* --- floats ----------------------------------------------------------------------------- */

static void f16_every_code(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        double e = (h >> 10) & 31, m = h & 1023, sign = h & 0x8000 ? -1 : 1;
        float f = f16_to_f32((uint16_t)h);
        if (e == 31 && m != 0) {
            assert_true(isnan(f) && isnan(f16_to_f32(f32_to_f16(f))));
            continue;
        }
        double want = e == 31 ? INFINITY : e == 0 ? ldexp(m, -24) : ldexp(1024 + m, (int)e - 25);
        assert_true((double)f == sign * want);
        assert_int_equal(f32_to_f16(f), h);
        if (e == 31)
            continue;
        /* Halfway to the next code goes to the even one, a hair to either side does not. */
        float next = f16_to_f32((uint16_t)(h + 1));
        if (!isfinite(next))
            next = (float)(sign * 65536.0);
        float half = (float)(((double)f + next) / 2);
        uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
        assert_int_equal(f32_to_f16(half), even);
        assert_int_equal(f32_to_f16(nextafterf(half, f)), h);
        assert_int_equal(f32_to_f16(nextafterf(half, next)), h + 1);
    }
}

static void bf16_rounds_to_even(void **state)
{
    (void)state;
    assert_int_equal(f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(f32_to_bf16(bits_float(0x3f808000)), 0x3f80); /* tie, even below */
    assert_int_equal(f32_to_bf16(bits_float(0x3f818000)), 0x3f82); /* tie, even above */
    assert_int_equal(f32_to_bf16(bits_float(0x3f808001)), 0x3f81);
    assert_int_equal(f32_to_bf16(bits_float(0x7f7fffff)), 0x7f80);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(bits_float(0x7f800001)))));
    for (uint32_t h = 0; h < 65536; h++)
        if (!isnan(bf16_to_f32((uint16_t)h)))
            assert_int_equal(f32_to_bf16(bf16_to_f32((uint16_t)h)), h);
}

static void f8_every_code(void **state)
{
    (void)state;
    float last = -1;
    for (unsigned b = 0; b < 256; b++) {
        unsigned e = b >> 3 & 15, m = b & 7;
        double sign = b & 0x80 ? -1 : 1;
        float f = quant_f8_decode((uint8_t)b);
        if (e == 15 && m == 7) {
            assert_true(isnan(f));
            continue;
        }
        assert_true(f == sign * (e ? ldexp(8 + m, (int)e - 10) : ldexp(m, -9)));
        assert_int_equal(quant_f8_encode(f), b);
        assert_int_equal(!!signbit(f), b >> 7);
        if (b < 0x7f) {
            assert_true(f > last);
            last = f;
        }
    }
    assert_true(quant_f8_decode(0x38) == 1.0f && quant_f8_decode(0x7e) == 448.0f);
    assert_int_equal(quant_f8_encode(1e9f), 0x7e);
    assert_int_equal(quant_f8_encode(-INFINITY), 0xfe);
    assert_int_equal(quant_f8_encode(NAN), 0x7f);
    assert_int_equal(quant_f8_encode(1.0625f), 0x38);  /* tie between 1 and 1.125 */
    assert_int_equal(quant_f8_encode(1.1875f), 0x3a);  /* tie between 1.125 and 1.25 */
    assert_int_equal(quant_f8_encode(0x1p-10f), 0x00); /* tie with zero */
    assert_int_equal(quant_f8_encode(-0.0f), 0x80);
}

/* A ragged row: 130 elements take two scales, and the scale multiplies. */
static void f8_scales_by_128(void **state)
{
    (void)state;
    uint8_t x[130];
    float y[130], scale[2] = {2.0f, 0.5f};
    memset(x, 0x38, sizeof x);
    x[127] = 0xc0; /* -2 */
    quant_f8_row(y, x, scale, 130);
    assert_true(y[0] == 2.0f && y[127] == -4.0f && y[128] == 0.5f && y[129] == 0.5f);
}

/* --- layouts by hand -------------------------------------------------------------------- */

static void q8_0_layout(void **state)
{
    (void)state;
    uint8_t block[34] = {0x00, 0x38}; /* d = 0.5 */
    float y[32], want[32];
    for (int i = 0; i < 32; i++) {
        block[2 + i] = (uint8_t)(i * 8 - 128);
        want[i] = 0.5f * (float)(i * 8 - 128);
    }
    quant_q8_0.dequantize(y, block, 32);
    same(y, want, 32);
}

/* A block of zeros but for the bytes given, then one element of it. */
static float element(const struct quant_traits *t, const uint8_t *at, const uint8_t *byte,
                     int n, int e)
{
    uint8_t block[256] = {0};
    float y[256];
    for (int i = 0; i < n; i++)
        block[at[i]] = byte[i];
    t->dequantize(y, block, t->block);
    return y[e];
}

#define AT(...) ((const uint8_t[]){__VA_ARGS__})
#define ELEMENT(t, at, byte, e) element(&quant_##t, at, byte, sizeof(byte), e)

/* 0x3c00 is 1.0, 0x3800 0.5, 0x4000 2.0: each value below was worked out with a pencil. */
static void layouts_by_hand(void **state)
{
    (void)state;
    assert_true(ELEMENT(q4_0, AT(1, 5), AT(0x3c, 0xf1), 3) == -7.0f);
    assert_true(ELEMENT(q4_0, AT(1, 5), AT(0x3c, 0xf1), 19) == 7.0f);
    assert_true(ELEMENT(q4_1, AT(1, 3, 4), AT(0x3c, 0x40, 0x5a), 0) == 12.0f);
    assert_true(ELEMENT(q4_1, AT(1, 3, 4), AT(0x3c, 0x40, 0x5a), 16) == 7.0f);
    assert_true(ELEMENT(q5_0, AT(1, 2, 6), AT(0x3c, 0x01, 0x03), 0) == 3.0f);
    assert_true(ELEMENT(q5_0, AT(1, 4, 6), AT(0x3c, 0x01, 0x30), 16) == 3.0f);
    assert_true(ELEMENT(q5_0, AT(1), AT(0x3c), 31) == -16.0f);
    assert_true(ELEMENT(q5_1, AT(1, 3, 7, 23), AT(0x3c, 0x38, 0x80, 0xf0), 31) == 31.5f);
    assert_true(ELEMENT(iq4_nl, AT(1, 2), AT(0x38, 0xf8), 0) == 0.5f);
    assert_true(ELEMENT(iq4_nl, AT(1, 2), AT(0x38, 0xf8), 16) == 56.5f);
    assert_true(ELEMENT(mxfp4, AT(0, 1), AT(129, 0x9f), 0) == -24.0f);
    assert_true(ELEMENT(mxfp4, AT(0, 1), AT(127, 0x97), 16) == -0.5f);
    assert_true(ELEMENT(mxfp4, AT(0, 1), AT(0, 0x01), 0) == 0x1p-128f);
    /* Group 9 of Q2_K: second half, first pair of bits, upper sixteen bytes. */
    assert_true(ELEMENT(q2_k, AT(9, 16 + 48, 81, 83), AT(0x23, 2, 0x3c, 0x3c), 144) == 4.0f);
    /* Group 13 of Q3_K: low scale bits in the high nibble of byte 5, high ones in byte 9. */
    assert_true(ELEMENT(q3_k, AT(96 + 5, 96 + 9, 32 + 48, 16, 109),
                        AT(0x50, 0x80, 0x20, 0x40, 0x3c), 208) == 2.0f * (0x25 - 32));
    assert_true(ELEMENT(q4_k, AT(1, 4 + 3, 16 + 32), AT(0x3c, 5, 0x70), 96) == 35.0f);
    /* Group 6 of Q4_K: scale 2 | 2<<4 = 34 (bytes 10, 2), minimum 3 | 1<<4 = 19 (10, 6). */
    assert_true(ELEMENT(q4_k, AT(1, 3, 4 + 10, 4 + 2, 4 + 6, 16 + 96), AT(0x3c, 0x3c, 0x32,
                        0x80, 0x40, 0x05), 192) == 34.0f * 5 - 19);
    assert_true(ELEMENT(q5_k, AT(1, 3, 4 + 1, 4 + 5, 16 + 7, 48 + 7), AT(0x3c, 0x3c, 3, 4,
                        0x02, 0x90), 39) == 3.0f * (9 + 16) - 4);
    /* Third run of Q6_K's second half: high nibble of the first 32 bytes, bits 4-5 of qh. */
    assert_true(ELEMENT(q6_k, AT(64 + 20, 128 + 32 + 20, 192 + 8 + 5, 209), AT(0xa0, 0x30,
                        0xfe, 0x3c), 212) == -2.0f * (0x3a - 32));
    assert_true(ELEMENT(iq4_xs, AT(1, 3, 5, 8 + 48 + 15), AT(0x3c, 0x00, 0x70, 0xe0), 127) ==
                89.0f * (7 - 32));
}

/* Any bytes, every element, against the twin. */
static void layouts_by_twin(void **state)
{
    (void)state;
    unsigned n;
    const struct quant_traits *const *list = quant_list(&n);
    for (unsigned k = 0; k < n; k++) {
        const struct quant_traits *t = list[k];
        if (t->block == 1)
            continue;
        for (int round = 0; round < 200; round++) {
            uint8_t block[256];
            float y[256];
            for (uint32_t i = 0; i < t->bytes; i++)
                block[i] = (uint8_t)(uniform() * 128 + 128);
            t->dequantize(y, block, t->block);
            double peak = 0;
            for (uint32_t e = 0; e < t->block; e++)
                peak = isfinite(y[e]) ? fmax(peak, fabs((double)y[e])) : peak;
            for (uint32_t e = 0; e < t->block; e++) {
                double want = twin_element(t, block, (int)e);
                /* f16 infinities and NaN are no scales; the twin reads them as numbers. */
                if (isfinite(y[e]) && fabs(y[e] - want) > 1e-6 * peak + 1e-40)
                    fail_msg("%s element %u: %.9g, not %.9g", t->name, e, y[e], want);
            }
        }
    }
}

/* --- every type: round trip against double precision ------------------------------------- */

/* Largest relative RMS error of a bell-shaped row, with room above what was measured. */
static const struct {
    uint32_t type;
    double rms;
} bound[] = {
    {QUANT_F32, 0},      {QUANT_F16, 3e-4},     {QUANT_BF16, 2e-3},
    {QUANT_Q8_0, 0.006}, {QUANT_F8_E4M3, 0.03}, {QUANT_Q4_0, 0.09},  {QUANT_Q4_1, 0.08},
    {QUANT_Q5_0, 0.045}, {QUANT_Q5_1, 0.04},   {QUANT_Q2_K, 0.3},   {QUANT_Q3_K, 0.15},
    {QUANT_Q4_K, 0.075}, {QUANT_Q5_K, 0.04},   {QUANT_Q6_K, 0.02},  {QUANT_IQ4_NL, 0.085},
    {QUANT_IQ4_XS, 0.09}, {QUANT_MXFP4, 0.14},
};

enum { ROW = 4096 };

static void round_trips(void **state)
{
    (void)state;
    static float x[ROW], y[ROW], w[ROW];
    static uint8_t packed[ROW * 4];
    for (size_t k = 0; k < ARRAY_LEN(bound); k++) {
        const struct quant_traits *t = quant_traits(bound[k].type);
        assert_non_null(t);
        double err = 0, norm = 0, dot = 0, true_dot = 0, spread = 0;
        for (int i = 0; i < ROW; i++) {
            x[i] = bell();
            w[i] = bell();
        }
        t->quantize(packed, x, ROW);
        t->dequantize(y, packed, ROW);
        for (int i = 0; i < ROW; i++) {
            double e = (double)y[i] - x[i];
            err += e * e;
            norm += (double)x[i] * x[i];
            dot += (double)y[i] * w[i];
            true_dot += (double)x[i] * w[i];
            spread += e * e * w[i] * w[i];
        }
        double rms = sqrt(err / norm);
        print_message("%-8s relative rms error %.5f\n", t->name, rms);
        if (rms > bound[k].rms)
            fail_msg("%s: rms error %.5f above %.5f", t->name, rms, bound[k].rms);
        if (fabs(dot - true_dot) > 6 * sqrt(spread) + 1e-9)
            fail_msg("%s: dot product %.6f, not %.6f", t->name, dot, true_dot);
    }
}

/* Zeros, one spike, one sign, huge, tiny, subnormal, and bytes that are no numbers. */
static void edge_blocks(void **state)
{
    (void)state;
    unsigned n;
    const struct quant_traits *const *list = quant_list(&n);
    static const float level[] = {0.0f, -0.0f, 1.0f, -1.0f, 1e30f, -3e38f, 1e-20f, 1e-42f};
    static float x[256], y[256], again[256];
    static uint8_t packed[1024], packed2[1024];
    for (unsigned k = 0; k < n; k++) {
        for (size_t l = 0; l < ARRAY_LEN(level); l++)
            for (int spike = 0; spike < 3; spike++) {
                for (int i = 0; i < 256; i++)
                    x[i] = spike == 0 || (spike == 1 && i == 37) ? level[l]
                           : spike == 2                          ? level[l] * (float)uniform()
                                                                 : 0.0f;
                list[k]->quantize(packed, x, 256);
                list[k]->dequantize(y, packed, 256);
                for (int i = 0; i < 256; i++) {
                    bool half = list[k]->type == QUANT_F16 || list[k]->type == QUANT_BF16;
                    if (!isfinite(y[i]) && !(half && fabsf(x[i]) > 65504))
                        fail_msg("%s: %g became %g", list[k]->name, x[i], y[i]);
                    if (level[l] == 0.0f && y[i] != 0.0f)
                        fail_msg("%s: zero became %g", list[k]->name, y[i]);
                }
                /* The same input gives the same bytes. */
                list[k]->quantize(packed2, x, 256);
                assert_memory_equal(packed, packed2, 256 / list[k]->block * list[k]->bytes);
            }
        x[3] = NAN;
        x[200] = INFINITY;
        list[k]->quantize(packed, x, 256);
        for (size_t i = 0; i < sizeof packed; i++)
            packed[i] = (uint8_t)(uniform() * 128);
        list[k]->dequantize(y, packed, 256);
        list[k]->dequantize(again, packed, 256);
        assert_memory_equal(y, again, sizeof y);
    }
}

static void table_answers(void **state)
{
    (void)state;
    unsigned n;
    const struct quant_traits *const *list = quant_list(&n);
    for (unsigned i = 0; i < n; i++) {
        assert_ptr_equal(quant_traits(list[i]->type), list[i]);
        assert_ptr_equal(quant_find(str_c(list[i]->name)), list[i]);
        assert_string_equal(quant_type_name(list[i]->type), list[i]->name);
    }
    assert_ptr_equal(quant_find(STR("BF16")), &quant_bf16);
    assert_null(quant_find(STR("q8")));
    assert_null(quant_traits(16));
    assert_string_equal(quant_type_name(16), "iq2_xxs");
    uint64_t bytes = 0;
    assert_true(quant_row_bytes(&quant_q8_0, 64, &bytes) && bytes == 68);
    assert_false(quant_row_bytes(&quant_q8_0, 33, &bytes));
    assert_false(quant_row_bytes(&quant_f32, UINT64_MAX / 2, &bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_every_code),      cmocka_unit_test(bf16_rounds_to_even),
        cmocka_unit_test(f8_every_code),       cmocka_unit_test(f8_scales_by_128),
        cmocka_unit_test(q8_0_layout),         cmocka_unit_test(layouts_by_hand),
        cmocka_unit_test(layouts_by_twin),     cmocka_unit_test(round_trips),
        cmocka_unit_test(edge_blocks),         cmocka_unit_test(table_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
