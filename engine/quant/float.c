/* float.c - F32, F16 and BF16: one element is one block. */
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

static void f32_read(float *y, const void *x, size_t n)
{
    memcpy(y, x, n * sizeof *y);
}

static void f32_write(void *y, const float *x, size_t n)
{
    memcpy(y, x, n * sizeof *x);
}

static void f16_read(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i++)
        y[i] = f16_to_f32(load_u16(p + 2 * i));
}

static void f16_write(void *y, const float *x, size_t n)
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i++)
        store_u16(p + 2 * i, f32_to_f16(x[i]));
}

static void bf16_read(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i++)
        y[i] = bf16_to_f32(load_u16(p + 2 * i));
}

static void bf16_write(void *y, const float *x, size_t n)
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i++)
        store_u16(p + 2 * i, f32_to_bf16(x[i]));
}

const struct quant_traits quant_f32 = {"f32", QUANT_F32, 1, 4, f32_read, f32_write};
const struct quant_traits quant_f16 = {"f16", QUANT_F16, 1, 2, f16_read, f16_write};
const struct quant_traits quant_bf16 = {"bf16", QUANT_BF16, 1, 2, bf16_read, bf16_write};
