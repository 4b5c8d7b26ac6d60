/* avx512.c - the vector kernels for AVX-512 (F, BW, VL, DQ). */
#include "engine/kernel/simd.h"

const struct kernel_ops kernel_avx512 = SIMD_TABLE("avx512");
