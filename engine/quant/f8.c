/*
 * f8.c - e4m3 bytes: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinities, NaN at
 * 0x7f and 0xff, largest 448, smallest 2^-9.
 */
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

/*
 * The seven bits in place of a float's low exponent and high mantissa bits are the number
 * times 2^-120, subnormals included: one exact product puts it right. No branches, so that
 * loops become vector code.
 */
static inline float decode(uint8_t b)
{
    uint32_t low = b & 0x7f, u = float_bits(bits_float(low << 20) * 0x1p120f);
    u = low == 0x7f ? 0x7fc00000 : u;
    return bits_float(u | (uint32_t)(b & 0x80) << 24);
}

float quant_f8_decode(uint8_t b)
{
    return decode(b);
}

uint8_t quant_f8_encode(float x)
{
    uint32_t u = float_bits(x), sign = u >> 24 & 0x80;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return 0x7f;
    if (u >= 0x43e00000) /* 448 and above */
        return (uint8_t)(sign | 0x7e);
    if (u < 0x3c800000) /* below 2^-6: at 2^14 one unit in the last place is 2^-9 */
        return (uint8_t)(sign | (float_bits(bits_float(u) + 16384.0f) - 0x46800000));
    u += 0x7ffff + (u >> 20 & 1);
    u = (u - (120u << 23)) >> 20;
    return (uint8_t)(sign | (u > 0x7e ? 0x7e : u));
}

static void read_row(float *y, const void *x, size_t n)
{
    const uint8_t *p = x;
    for (size_t i = 0; i < n; i++)
        y[i] = decode(p[i]);
}

static void write_row(void *y, const float *x, size_t n)
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i++)
        p[i] = quant_f8_encode(x[i]);
}

void quant_f8_row(float *y, const uint8_t *x, const float *scale, size_t n)
{
    for (size_t i = 0; i < n; i += 128)
        for (size_t j = i; j < n && j < i + 128; j++)
            y[j] = decode(x[j]) * scale[i / 128];
}

const struct quant_traits quant_f8_e4m3 = {"f8_e4m3", QUANT_F8_E4M3, 1,
                                           1,         read_row,      write_row};
