/* avx512_attn.c - blocks of cached rows for AVX-512 (F, BW, VL, DQ). */
#include "engine/kernel/attn_simd.h"

const struct attn_ops attn_avx512 = ATTN_TABLE("avx512");
