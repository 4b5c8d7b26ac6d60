/* avx2_attn.c - blocks of cached rows for AVX2 with FMA and F16C. */
#include "engine/kernel/attn_simd.h"

const struct attn_ops attn_avx2 = ATTN_TABLE("avx2");
