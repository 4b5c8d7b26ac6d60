/*
 * expf.h - exp for floats that a compiler can turn into vector code: no branches, no
 * calls.
 *
 *   exp(x) = 2^k * exp(r),  k = round(x / ln 2),  |r| <= ln 2 / 2
 *
 * exp(r) by its Taylor polynomial of degree 7 (error below 2^-26). Arguments are clamped
 * to
 * [-87, 88], so results below 1.6e-38 become exactly that and are of no weight in a sum.
 */
#ifndef ENGINE_KERNEL_EXPF_H
#define ENGINE_KERNEL_EXPF_H

#include <stdint.h>
#include <string.h>

static inline float exp_fast(float x)
{
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float t = x * 1.44269504f + shift;
    float k = t - shift;
    float r = x - k * 0.693145752f;
    r = r - k * 1.42860677e-6f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits << 23) + 0x3f800000u; /* low bits of t hold k */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

#endif
