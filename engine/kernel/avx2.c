/* avx2.c - the vector kernels for AVX2 with FMA. */
#define PACK int8_pack_avx2
#define INT8_MATMUL int8_matmul_avx2
#define MAC_INT8 int8_mac_avx2
#include "engine/kernel/simd.h"

const struct kernel_ops kernel_avx2 = SIMD_TABLE("avx2");
