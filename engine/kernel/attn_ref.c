/* attn_ref.c - the meaning of attn.h's table in plain C, and the choice among tables. */
#include "engine/kernel/attn.h"

#include <math.h>
#include <string.h>

#include "engine/kernel/expf.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

static void ref_dots(float *z, size_t ldz, const float *q, size_t ldq, uint32_t n_q,
                     const float *k, size_t ldk, uint32_t n_k, uint32_t width,
                     const struct attn_next *next)
{
    (void)next;
    for (uint32_t i = 0; i < n_q; i++)
        for (uint32_t s = 0; s < n_k; s++) {
            float sum = 0;
            for (uint32_t c = 0; c < width; c++)
                sum += q[i * ldq + c] * k[s * ldk + c];
            z[i * ldz + s] = sum;
        }
}

static void ref_mix(float *y, size_t ldy, const float *p, size_t ldp, uint32_t n_p,
                    const float *v, size_t ldv, uint32_t n_v, uint32_t width, bool add)
{
    for (uint32_t i = 0; i < n_p; i++)
        for (uint32_t c = 0; c < width; c++) {
            float sum = add ? y[i * ldy + c] : 0;
            for (uint32_t s = 0; s < n_v; s++)
                sum += p[i * ldp + s] * v[s * ldv + c];
            y[i * ldy + c] = sum;
        }
}

static void ref_index(float *out, const float *q, const float *w, uint32_t n_heads,
                      const float *kt, uint32_t dim, const struct attn_next *next)
{
    (void)next;
    for (uint32_t s = 0; s < ATTN_TILE; s++) {
        float sum = 0;
        for (uint32_t h = 0; h < n_heads; h++) {
            float dot = 0;
            for (uint32_t c = 0; c < dim; c++)
                dot += q[(size_t)h * dim + c] * kt[(size_t)c * ATTN_TILE + s];
            sum += w[h] * (dot > 0 ? dot : 0);
        }
        out[s] = sum;
    }
}

static void ref_index_i8(float *out, const int8_t *q, const float *w, uint32_t n_heads,
                         const uint8_t *k, const float *scale, uint32_t dim,
                         const struct attn_next *next)
{
    (void)next;
    for (uint32_t s = 0; s < ATTN_TILE; s++) {
        float sum = 0;
        for (uint32_t h = 0; h < n_heads; h++) {
            int32_t dot = 0;
            for (uint32_t c = 0; c < dim; c++)
                dot += q[(size_t)h * dim + c] *
                       (k[((size_t)(c / 4) * ATTN_TILE + s) * 4 + c % 4] - 128);
            sum += w[h] * (float)(dot > 0 ? dot : 0);
        }
        out[s] = sum * scale[s];
    }
}

static void ref_dots_b(float *z, size_t ldz, const uint16_t *q, size_t ldq, uint32_t n_q,
                       const uint8_t *const *k, uint32_t n_k, uint32_t width,
                       const struct attn_next *next)
{
    (void)next;
    for (uint32_t i = 0; i < n_q; i++)
        for (uint32_t s = 0; s < n_k; s++) {
            float sum = 0;
            for (uint32_t c = 0; c < width; c++)
                sum += bf16_to_f32(q[i * ldq + c]) * bf16_to_f32(load_u16(k[s] + 2 * c));
            z[i * ldz + s] = sum;
        }
}

static void ref_mix_b(float *y, size_t ldy, const uint16_t *p, size_t ldp, uint32_t n_p,
                      const uint8_t *const *v, uint32_t n_v, uint32_t width, bool add)
{
    for (uint32_t i = 0; i < n_p; i++)
        for (uint32_t c = 0; c < width; c++) {
            float sum = add ? y[i * ldy + c] : 0;
            for (uint32_t s = 0; s < n_v; s++)
                sum += bf16_to_f32(p[i * ldp + s]) * bf16_to_f32(load_u16(v[s] + 2 * c));
            y[i * ldy + c] = sum;
        }
}

static void ref_mix_pairs(float *y, size_t ldy, const uint16_t *p, size_t ldp, uint32_t n_p,
                          const uint16_t *v, uint32_t n_v, uint32_t width, bool add)
{
    for (uint32_t i = 0; i < n_p; i++)
        for (uint32_t c = 0; c < width; c++) {
            float sum = add ? y[i * ldy + c] : 0;
            for (uint32_t s = 0; s < n_v; s++)
                sum += bf16_to_f32(p[i * ldp + s]) *
                       bf16_to_f32(v[((size_t)(s / 2) * width + c) * 2 + s % 2]);
            y[i * ldy + c] = sum;
        }
}

static void ref_narrow(uint16_t *out, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = f32_to_bf16(x[i]);
}

static void ref_pair(uint16_t *out, const float *x, size_t ldx, uint32_t n, uint32_t width)
{
    for (uint32_t s = 0; s < n + n % 2; s++)
        for (uint32_t c = 0; c < width; c++)
            out[((size_t)(s / 2) * width + c) * 2 + s % 2] =
                s < n ? f32_to_bf16(x[s * ldx + c]) : 0;
}

static void ref_stand(uint16_t *out, const uint8_t *const *rows, uint32_t n, uint32_t width)
{
    for (uint32_t c = 0; c < width + width % 2; c++)
        for (uint32_t s = 0; s < n; s++)
            out[((size_t)(c / 2) * n + s) * 2 + c % 2] =
                c < width ? load_u16(rows[s] + 2 * c) : 0;
}

static float ref_soften(struct softmax *x, float *z, uint64_t bits, float scale)
{
    float max = x->max, shrink = 1;
    for (uint32_t s = 0; s < ATTN_TILE; s++) {
        z[s] = bits >> s & 1 ? z[s] * scale : -INFINITY;
        max = z[s] > max ? z[s] : max;
    }
    if (max > x->max) {
        shrink = x->max == -INFINITY ? 0 : exp_fast(x->max - max);
        x->sum *= shrink;
        x->max = max;
    }
    float sum[16] = {0};
    for (uint32_t s = 0; s < ATTN_TILE; s++) {
        z[s] = z[s] == -INFINITY ? 0 : exp_fast(z[s] - max);
        sum[s % 16] += z[s];
    }
    for (int n = 8; n; n /= 2)
        for (int i = 0; i < n; i++)
            sum[i] += sum[i + n];
    x->sum += sum[0];
    return shrink;
}

static void ref_scale(float *y, float a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] *= a;
}

static uint32_t ref_within(float *out, const float *scores, uint32_t n, uint32_t lo,
                           uint32_t hi)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t key = attn_key(float_bits(scores[i] + 0.0f));
        if (key >= lo && key <= hi)
            out[at++] = scores[i];
    }
    return at;
}

static void ref_above(uint32_t *out, const float *scores, uint32_t n, uint32_t least,
                      uint32_t ties)
{
    for (uint32_t i = 0, at = 0; i < n; i++) {
        uint32_t key = attn_key(float_bits(scores[i] + 0.0f));
        if (key > least || (key == least && ties)) {
            ties -= key == least;
            out[at++] = i;
        }
    }
}

static void ref_widen_f8(float *y, const uint8_t *code, const float *scale, uint32_t step,
                         uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = quant_f8_decode(code[i]) * scale[i * step];
}

const struct attn_ops attn_ref = {
    .name = "ref",
    .dots = ref_dots,
    .mix = ref_mix,
    .index = ref_index,
    .index_i8 = ref_index_i8,
    .soften = ref_soften,
    .scale = ref_scale,
    .within = ref_within,
    .above = ref_above,
    .widen_f8 = ref_widen_f8,
    .dots_b = ref_dots_b,
    .mix_b = ref_mix_b,
    .mix_pairs = ref_mix_pairs,
    .narrow = ref_narrow,
    .pair = ref_pair,
    .stand = ref_stand,
};

const struct attn_ops *attn_ops(const char *name)
{
#if defined(__x86_64__)
    if (strcmp(name, attn_avx512bf16.name) == 0)
        return &attn_avx512bf16;
    if (strcmp(name, attn_avx512.name) == 0)
        return &attn_avx512;
    if (strcmp(name, attn_avx2.name) == 0)
        return &attn_avx2;
#elif defined(__aarch64__)
    if (strcmp(name, attn_neon.name) == 0)
        return &attn_neon;
#else
    (void)name;
#endif
    return &attn_ref;
}
