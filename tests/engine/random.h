/* random.h - rows of numbers in [-1, 1), the same in every run of a program. */
#ifndef TESTS_ENGINE_RANDOM_H
#define TESTS_ENGINE_RANDOM_H

#include "base/mem.h"

static uint32_t random_seed = 7;

UNUSED static float random_float(void)
{
    random_seed = random_seed * 1664525u + 1013904223u;
    return (float)(random_seed >> 8) / 8388608.0f - 1.0f;
}

/* n of them, owned by the caller; room behind them as vector code may read it. */
UNUSED static float *random_rows(size_t n)
{
    float *p = mem_aligned(64, n * sizeof *p + 64);
    for (size_t i = 0; p && i < n; i++)
        p[i] = random_float();
    return p;
}

#endif
