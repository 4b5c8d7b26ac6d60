/*
 * ref.c - the meaning of every kernel, in plain C. Additions run in sixteen lanes that
 * are folded at the end: the one order that vector code can keep too.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/kernel/expf.h"
#include "engine/kernel/int8.h"
#include "engine/kernel/kernel.h"
#include "engine/quant/quant.h"

enum { LANES = 16 };

static float fold(const float acc[LANES])
{
    float t[8];
    for (int i = 0; i < 8; i++)
        t[i] = acc[i] + acc[i + 8];
    for (int i = 0; i < 4; i++)
        t[i] += t[i + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
}

static float ref_dot(const float *a, const float *b, size_t n)
{
    float acc[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            acc[j] += a[i + j] * b[i + j];
    for (size_t j = 0; i + j < n; j++)
        acc[j] += a[i + j] * b[i + j];
    return fold(acc);
}

static void ref_axpy(float *y, float a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static void ref_rmsnorm(float *out, const float *x, const float *w, size_t n, float eps)
{
    float scale = 1.0f / sqrtf(ref_dot(x, x, n) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        out[i] = w[i] * (x[i] * scale);
}

static void ref_swiglu(float *g, const float *u, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g[i] = g[i] / (1.0f + exp_fast(-g[i])) * u[i];
}

static void ref_widen(uint32_t type, float *y, const void *x, size_t n)
{
    quant_traits(type)->dequantize(y, x, n);
}

static size_t no_pack_bytes(uint32_t type, uint64_t cols)
{
    (void)type;
    (void)cols;
    return 0;
}

static void no_pack(uint32_t type, const float *x, uint64_t cols, void *out)
{
    (void)type;
    (void)x;
    (void)cols;
    (void)out;
}

static void ref_matmul(const struct tensor *w, uint64_t first, uint64_t last,
                       const struct acts *x, uint32_t n, float *y, size_t ldy, void *work)
{
    if (x->packed && int8_format(w->type)) {
        int8_matmul(w, first, last, x, n, y, ldy, work);
        return;
    }
    float *row = work;
    size_t cols = (size_t)w->ne[0];
    for (uint64_t r = first; r < last; r++) {
        tensor_read_row(w, r, row);
        for (uint32_t i = 0; i < n; i++) {
            const float *xi = x->x + (x->pick ? x->pick[i] : i) * x->ldx;
            y[i * ldy + (r - first)] = ref_dot(row, xi, cols);
        }
    }
}

static uint64_t ref_read(const void *p, size_t n)
{
    uint64_t sum[4] = {0}, v[4];
    for (size_t i = 0; i + sizeof v <= n; i += sizeof v) {
        memcpy(v, (const uint8_t *)p + i, sizeof v);
        for (int k = 0; k < 4; k++)
            sum[k] += v[k];
    }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static uint64_t ref_mac_int8(uint64_t rounds)
{
    int32_t sum = 0;
    int8_t a = 3, b = 5;
    for (uint64_t i = 0; i < rounds; i++) {
        __asm__ volatile("" : "+r"(a), "+r"(b));
        sum += a * b;
    }
    __asm__ volatile("" : : "r"(sum));
    return rounds;
}

static uint64_t ref_mac_f32(uint64_t rounds)
{
    float acc[LANES] = {0}, a[LANES], b[LANES];
    for (int j = 0; j < LANES; j++)
        a[j] = b[j] = 0.5f;
    for (uint64_t i = 0; i < rounds; i++) {
        for (int j = 0; j < LANES; j++)
            acc[j] += a[j] * b[j];
        __asm__ volatile("" : : "r"(acc), "r"(a) : "memory");
    }
    return rounds * LANES;
}

#define REF_TABLE(label, bytes, rows)                                                    \
    {                                                                                    \
        .name = label, .dot = ref_dot, .axpy = ref_axpy, .rmsnorm = ref_rmsnorm,         \
        .swiglu = ref_swiglu, .widen = ref_widen, .pack_bytes = bytes, .pack = rows,     \
        .matmul = ref_matmul, .read = ref_read, .mac_int8 = ref_mac_int8,                \
        .mac_f32 = ref_mac_f32,                                                          \
    }

const struct kernel_ops kernel_ref = REF_TABLE("ref", int8_pack_bytes, int8_pack);
const struct kernel_ops kernel_exact = REF_TABLE("exact", no_pack_bytes, no_pack);
