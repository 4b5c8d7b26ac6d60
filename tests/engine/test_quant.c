/*
 * test_quant.c - block formats against bytes computed by hand, 16-bit and 8-bit floats over
 * every code, and each type's round trip and dot product against double precision on random
 * and edge blocks.
 */
#include "test.h"

#include <math.h>

#include "engine/quant/half.h"
#include "engine/quant/quant.h"

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

/* --- every type: round trip against double precision ------------------------------------- */

/* Largest relative RMS error of a bell-shaped row, with room above what was measured. */
static const struct {
    uint32_t type;
    double rms;
} bound[] = {
    {QUANT_F32, 0},      {QUANT_F16, 3e-4},     {QUANT_BF16, 2e-3},
    {QUANT_Q8_0, 0.006}, {QUANT_F8_E4M3, 0.03},
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
        cmocka_unit_test(q8_0_layout),         cmocka_unit_test(round_trips),
        cmocka_unit_test(edge_blocks),         cmocka_unit_test(table_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
