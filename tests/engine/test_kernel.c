/*
 * test_kernel.c - every table that this machine can run against ref.c, on random and edge
 * shapes; and the promise of kernel.h: a row's bits depend on nothing but itself.
 */
#include "engine/kernel/kernel.h"

#include <math.h>

#include "base/mem.h"
#include "engine/quant/quant.h"
#include "random.h"
#include "test.h"

static bool near(float got, float want, double scale)
{
    return fabs((double)got - (double)want) <= 3e-6 * scale + 1e-6;
}

static void vectors_agree_with_ref(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 3, 15, 16, 17, 31, 32, 48, 63, 64, 100, 576, 1000};
    const struct kernel_ops *o;
    for (unsigned t = 0; (o = kernel_list(t)); t++)
        for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
            size_t n = sizes[i];
            float *a = random_rows(n), *b = random_rows(n), *x = random_rows(n);
            float *y = random_rows(n), *z = random_rows(n);
            assert_true(near(o->dot(a, b, n), kernel_ref.dot(a, b, n), sqrt((double)n)));
            memcpy(z, y, n * sizeof *y);
            o->axpy(y, 0.7f, x, n);
            kernel_ref.axpy(z, 0.7f, x, n);
            for (size_t j = 0; j < n; j++)
                assert_true(near(y[j], z[j], 1));
            o->rmsnorm(y, a, b, n, 1e-6f);
            kernel_ref.rmsnorm(z, a, b, n, 1e-6f);
            for (size_t j = 0; j < n; j++)
                assert_true(near(y[j], z[j], 2));
            memcpy(y, a, n * sizeof *a);
            memcpy(z, a, n * sizeof *a);
            o->swiglu(y, b, n);
            for (size_t j = 0; j < n; j++)
                assert_true(near(
                    y[j], (float)((double)a[j] / (1 + exp((double)-a[j])) * (double)b[j]),
                    1));
            mem_free(a);
            mem_free(b);
            mem_free(x);
            mem_free(y);
            mem_free(z);
        }
}

/* A random matrix of a type. */
static struct tensor random_tensor(uint32_t type, uint64_t cols, uint64_t rows,
                                   void **owned)
{
    const struct quant_traits *q = quant_traits(type);
    uint64_t row_bytes;
    assert_true(quant_row_bytes(q, cols, &row_bytes));
    float *x = random_rows(cols);
    uint8_t *data = mem_alloc(row_bytes * rows + 1);
    *owned = data;
    data += rows % 2; /* files align nothing */
    for (uint64_t r = 0; r < rows; r++) {
        for (uint64_t c = 0; c < cols; c++)
            x[c] = random_float();
        q->quantize(data + r * row_bytes, x, cols);
    }
    mem_free(x);
    return (struct tensor){.name = "w",
                           .type = type,
                           .n_dims = 2,
                           .ne = {cols, rows, 1, 1},
                           .data = data,
                           .bytes = row_bytes * rows,
                           .row_bytes = row_bytes};
}

/* Packs rows as kernel.c would. */
static struct acts pack(const struct kernel_ops *o, uint32_t type, const float *x,
                        uint64_t cols, uint32_t n, uint8_t **owned)
{
    struct acts a = {.x = x, .ldx = cols};
    a.ldp = (o->pack_bytes(type, cols) + 63) & ~(size_t)63;
    *owned = mem_aligned(64, a.ldp * n + 64);
    memset(*owned, 0, a.ldp * n);
    a.packed = a.ldp ? *owned : NULL;
    for (uint32_t i = 0; a.ldp && i < n; i++)
        o->pack(type, x + i * cols, cols, *owned + i * a.ldp);
    return a;
}

static void one_matmul(const struct kernel_ops *o, uint32_t type, uint64_t cols,
                       uint64_t rows, uint32_t n)
{
    void *wp, *work = mem_aligned(64, KERNEL_WORK(cols));
    uint8_t *packed, *none, *again;
    struct tensor w = random_tensor(type, cols, rows, &wp);
    float *x = random_rows(n * cols), *y = random_rows(n * rows),
          *z = random_rows(n * rows);
    float *alone = random_rows(rows);
    struct acts a = pack(o, type, x, cols, n, &packed);
    struct acts plain = pack(&kernel_exact, type, x, cols, n, &none);
    o->matmul(&w, 0, rows, &a, n, y, rows, work);
    kernel_exact.matmul(&w, 0, rows, &plain, n, z, rows, work);
    /* Packed activations are off by up to 1/254 of their block's largest, evenly spread:
     * a deviation of 0.0023 in each product, and this is five of the sum's. */
    double bound =
        a.ldp ? 0.012 * sqrt((double)cols) : 3e-6 * sqrt((double)cols) + 1e-6;
    for (size_t i = 0; i < n * rows; i++)
        if (fabs((double)y[i] - (double)z[i]) > bound)
            fail_msg("%s type %u: %llux%llu, %u rows: %g is not %g", o->name, type,
                     (unsigned long long)rows, (unsigned long long)cols, n, (double)y[i],
                     (double)z[i]);
    /* In whole numbers there is one answer: the plain twin's bits. */
    if (a.ldp) {
        struct acts twin = pack(&kernel_ref, type, x, cols, n, &again);
        assert_int_equal(twin.ldp, a.ldp);
        assert_memory_equal(packed, again, a.ldp * n);
        kernel_ref.matmul(&w, 0, rows, &twin, n, z, rows, work);
        assert_memory_equal(y, z, n * rows * sizeof *y);
        mem_free(again);
    }
    /* One row at a time, and cut anywhere: the same bits. */
    for (uint32_t i = 0; i < n; i++) {
        struct acts one = a;
        one.pick = &i;
        uint64_t cut = (i * 7 + 3) % (rows + 1);
        o->matmul(&w, 0, cut, &one, 1, alone, rows, work);
        o->matmul(&w, cut, rows, &one, 1, alone + cut, rows, work);
        assert_memory_equal(alone, y + i * rows, rows * sizeof *alone);
    }
    mem_free(wp);
    mem_free(work);
    mem_free(packed);
    mem_free(none);
    mem_free(x);
    mem_free(y);
    mem_free(z);
    mem_free(alone);
}

static void matmuls_agree_with_ref(void **state)
{
    (void)state;
    static const uint32_t types[] = {
        QUANT_F32,  QUANT_F16,  QUANT_BF16,   QUANT_Q8_0,   QUANT_Q4_0,
        QUANT_Q4_1, QUANT_Q5_0, QUANT_Q5_1,   QUANT_Q2_K,   QUANT_Q3_K,
        QUANT_Q4_K, QUANT_Q5_K, QUANT_Q6_K,   QUANT_IQ4_NL, QUANT_IQ4_XS,
        QUANT_MXFP4};
    static const uint64_t rows[] = {1, 2, 5, 8, 16, 33};
    static const uint32_t ns[] = {1, 2, 3, 4, 5, 9, 21};
    const struct kernel_ops *o;
    for (unsigned t = 0; (o = kernel_list(t)); t++)
        for (unsigned q = 0; q < ARRAY_LEN(types); q++) {
            const struct quant_traits *tr = quant_traits(types[q]);
            for (uint64_t cols = tr->block; tr && cols <= 768;
                 cols = cols * 2 + tr->block)
                for (unsigned r = 0; r < ARRAY_LEN(rows); r++)
                    for (unsigned n = 0; n < ARRAY_LEN(ns); n++)
                        one_matmul(o, types[q], cols, rows[r], ns[n]);
        }
}

/* A CPU without any one of the features a table is compiled with is never given it. */
static void masked_features_hide_tables(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t needs;
    } want[] = {
#if defined(__x86_64__)
        {"avx512bf16", KERNEL_AVX2 | KERNEL_FMA | KERNEL_F16C | KERNEL_AVX512F |
                           KERNEL_AVX512BW | KERNEL_AVX512VL | KERNEL_AVX512DQ |
                           KERNEL_AVX512VNNI | KERNEL_AVX512BF16},
        {"avx512", KERNEL_AVX2 | KERNEL_FMA | KERNEL_F16C | KERNEL_AVX512F |
                       KERNEL_AVX512BW | KERNEL_AVX512VL | KERNEL_AVX512DQ |
                       KERNEL_AVX512VNNI},
        {"avx2", KERNEL_AVX2 | KERNEL_FMA | KERNEL_F16C},
#elif defined(__aarch64__)
        {"neon", KERNEL_DOTPROD},
#endif
        {"ref", 0},
        {"exact", 0},
    };
    for (unsigned t = 0; t < ARRAY_LEN(want); t++) {
        assert_non_null(kernel_choose(KERNEL_CPU_ALL, want[t].name, 0));
        for (uint32_t bit = 1; bit < KERNEL_CPU_ALL; bit *= 2) {
            uint32_t cpu = KERNEL_CPU_ALL & ~bit;
            bool hidden = (want[t].needs & bit) != 0;
            assert_int_equal(kernel_choose(cpu, want[t].name, 0) == NULL, hidden);
            for (unsigned i = 0; kernel_choose(cpu, NULL, i); i++)
                assert_true(!hidden ||
                            strcmp(kernel_choose(cpu, NULL, i)->name, want[t].name) != 0);
        }
    }
    assert_string_equal(kernel_choose(0, NULL, 0)->name, "ref");
    assert_null(kernel_choose(KERNEL_CPU_ALL, "avx", 0));
    setenv("AGENTD_KERNEL", "none such", 1);
    assert_ptr_equal(kernel_best(), kernel_list(0));
    setenv("AGENTD_KERNEL", "ref", 1);
    assert_ptr_equal(kernel_best(), &kernel_ref);
    unsetenv("AGENTD_KERNEL");
}

/* What is not finite stays visible through the rounding of activations. */
static void nan_activations_reach_the_sum(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    const struct kernel_ops *o;
    for (unsigned t = 0; (o = kernel_list(t)); t++)
        for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
            void *wp, *work = mem_aligned(64, KERNEL_WORK(64));
            uint8_t *packed;
            struct tensor w = random_tensor(QUANT_Q8_0, 64, 17, &wp);
            float *x = random_rows(64), y[17];
            x[40] = bad[i];
            struct acts a = pack(o, QUANT_Q8_0, x, 64, 1, &packed);
            o->matmul(&w, 0, 17, &a, 1, y, 17, work);
            for (int r = 0; r < 17; r++)
                assert_false(isfinite(y[r]));
            mem_free(wp);
            mem_free(work);
            mem_free(packed);
            mem_free(x);
        }
}

int main(void)
{
    const struct kernel_ops *o;
    for (unsigned t = 0; (o = kernel_list(t)); t++)
        print_message("this machine runs: %s\n", o->name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_agree_with_ref),
        cmocka_unit_test(matmuls_agree_with_ref),
        cmocka_unit_test(masked_features_hide_tables),
        cmocka_unit_test(nan_activations_reach_the_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
