/* avx512bf16_attn.c - blocks of cached rows for AVX-512 with its products of bf16. */
#include "engine/kernel/attn_simd.h"

const struct attn_ops attn_avx512bf16 = ATTN_TABLE("avx512bf16");
