/*
 * quant_twin.h - block formats a second time, in double precision and element by element:
 * where in the block the bits of element e lie, straight from the format's description. It
 * shares no code with engine/quant, so that an error has to be made twice to hide.
 */
#ifndef TESTS_ENGINE_QUANT_TWIN_H
#define TESTS_ENGINE_QUANT_TWIN_H

#include <math.h>
#include <stdint.h>

#include "engine/quant/quant.h"

static double twin_f16(const uint8_t *p)
{
    unsigned h = p[0] | p[1] << 8, e = h >> 10 & 31, m = h & 1023;
    double v = e ? ldexp(1024 + m, (int)e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

static int twin_bit(const uint8_t *p, int i)
{
    return p[i / 8] >> i % 8 & 1;
}

/* Nibble of element e where byte j holds j below and j + 16 above. */
static int twin_nibble(const uint8_t *q, int e)
{
    return e < 16 ? q[e] & 15 : q[e - 16] >> 4;
}

static const int twin_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};
static const int twin_fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Scale and minimum j of the twelve packed bytes, put together bit by bit. */
static void twin_k_scale(const uint8_t *s, int j, int *sc, int *mn)
{
    *sc = *mn = 0;
    for (int b = 0; b < 6; b++) {
        if (j < 4) {
            *sc |= twin_bit(s + j, b) << b;
            *mn |= twin_bit(s + j + 4, b) << b;
        } else if (b < 4) {
            *sc |= twin_bit(s + j + 4, b) << b;
            *mn |= twin_bit(s + j + 4, b + 4) << b;
        } else {
            *sc |= twin_bit(s + j - 4, b + 2) << b;
            *mn |= twin_bit(s + j, b + 2) << b;
        }
    }
}

static double twin_k(const struct quant_traits *t, const uint8_t *p, int e)
{
    int half = e / 128, in = e % 128, run = in / 32, l = in % 32, part = l / 16;
    int k = e / 16, sc, mn, q;
    switch (t->type) {
    case QUANT_Q2_K:
        q = p[16 + 32 * half + l] >> 2 * run & 3;
        return twin_f16(p + 80) * (p[k] % 16) * q - twin_f16(p + 82) * (p[k] / 16);
    case QUANT_Q3_K:
        sc = k < 8 ? p[96 + k] % 16 : p[96 + k - 8] / 16;
        sc += 16 * (p[96 + 8 + k % 4] >> 2 * (k / 4) & 3) - 32;
        q = (p[32 + 32 * half + l] >> 2 * run & 3) - 4 +
            4 * twin_bit(p + 16 * part + l % 16, 4 * half + run);
        return twin_f16(p + 108) * sc * q;
    case QUANT_Q4_K:
        twin_k_scale(p + 4, e / 32, &sc, &mn);
        q = e % 64 < 32 ? p[16 + 32 * (e / 64) + l] % 16 : p[16 + 32 * (e / 64) + l] / 16;
        return twin_f16(p) * sc * q - twin_f16(p + 2) * mn;
    case QUANT_Q5_K:
        twin_k_scale(p + 4, e / 32, &sc, &mn);
        q = e % 64 < 32 ? p[48 + 32 * (e / 64) + l] % 16 : p[48 + 32 * (e / 64) + l] / 16;
        q += 16 * twin_bit(p + 16 + l, e / 32);
        return twin_f16(p) * sc * q - twin_f16(p + 2) * mn;
    case QUANT_Q6_K:
        q = p[64 * half + l + (run % 2 ? 32 : 0)];
        q = run < 2 ? q % 16 : q / 16;
        q += 16 * (p[128 + 32 * half + l] >> 2 * run & 3);
        return twin_f16(p + 208) * (int8_t)p[192 + 8 * half + part + 2 * run] * (q - 32);
    case QUANT_IQ4_XS:
        sc = (e / 32 % 2 ? p[4 + e / 64] / 16 : p[4 + e / 64] % 16) +
             16 * ((p[2] | p[3] << 8) >> 2 * (e / 32) & 3);
        return twin_f16(p) * (sc - 32) * twin_iq4[twin_nibble(p + 8 + e / 32 * 16, l)];
    }
    return NAN;
}

/* Element e of the block at p. */
static double twin_element(const struct quant_traits *t, const uint8_t *p, int e)
{
    switch (t->type) {
    case QUANT_Q8_0:
        return twin_f16(p) * (int8_t)p[2 + e];
    case QUANT_Q4_0:
        return twin_f16(p) * (twin_nibble(p + 2, e) - 8);
    case QUANT_Q4_1:
        return twin_f16(p) * twin_nibble(p + 4, e) + twin_f16(p + 2);
    case QUANT_Q5_0:
        return twin_f16(p) * (twin_nibble(p + 6, e) + 16 * twin_bit(p + 2, e) - 16);
    case QUANT_Q5_1:
        return twin_f16(p) * (twin_nibble(p + 8, e) + 16 * twin_bit(p + 4, e)) +
               twin_f16(p + 2);
    case QUANT_IQ4_NL:
        return twin_f16(p) * twin_iq4[twin_nibble(p + 2, e)];
    case QUANT_MXFP4:
        return ldexp(twin_fp4[twin_nibble(p + 1, e)], p[0] - 128);
    }
    return twin_k(t, p, e);
}

#endif
