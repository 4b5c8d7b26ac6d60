/*
 * half.h - 16-bit floats by their bits, so that every compiler and machine rounds alike:
 * to nearest, ties to even; NaN stays NaN, overflow becomes infinity.
 */
#ifndef ENGINE_QUANT_HALF_H
#define ENGINE_QUANT_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float bf16_to_f32(uint16_t h)
{
    return bits_float((uint32_t)h << 16);
}

static inline uint16_t f32_to_bf16(float f)
{
    uint32_t u = float_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* rounding could carry a NaN into infinity */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31)
        return bits_float(sign | 0x7f800000 | m << 13);
    if (e == 0)
        return bits_float(sign | float_bits((float)m * 0x1p-24f));
    return bits_float(sign | (e + 112) << 23 | m << 13);
}

static inline uint16_t f32_to_f16(float f)
{
    uint32_t u = float_bits(f), sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (u >= 0x47800000)
        return (uint16_t)(sign | 0x7c00);
    if (u < 0x38800000) /* below 2^-14: at 0.5 one unit in the last place is 2^-24 */
        return (uint16_t)(sign | (float_bits(bits_float(u) + 0.5f) - 0x3f000000));
    u += 0xfff + (u >> 13 & 1);
    return (uint16_t)(sign | (u - (112u << 23)) >> 13);
}

/* Fields of a block, which nothing aligns. */
static inline uint16_t load_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_u16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline float load_f16(const void *p)
{
    return f16_to_f32(load_u16(p));
}

/* Stores a block's scale and returns it as a reader will see it; saturates instead of
 * becoming infinite, because infinity times code zero is NaN. */
static inline float store_scale(void *p, float d)
{
    if (d > 65504.0f)
        d = 65504.0f;
    if (d < -65504.0f)
        d = -65504.0f;
    uint16_t h = f32_to_f16(d);
    store_u16(p, h);
    return f16_to_f32(h);
}

/* 1/d, or 0 where that would not be finite: every code is then the one for zero. */
static inline float inverse(float d)
{
    float inv = d != 0.0f ? 1.0f / d : 0.0f;
    return isfinite(inv) ? inv : 0.0f;
}

/*
 * The nearest integer in lo..hi (ties to even), both small; NaN gives lo. Adding 1.5 * 2^23
 * leaves the integer in the low bits: unlike a call of lrintf, compilers vectorise it.
 */
static inline int round_to(float x, int lo, int hi)
{
    float c = x > (float)lo ? x : (float)lo;
    c = c < (float)hi ? c : (float)hi;
    return (int)(float_bits(c + 12582912.0f) - 0x4b400000u);
}

#endif
