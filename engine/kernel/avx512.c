/* avx512.c - the vector kernels for AVX-512 (F, BW, VL, DQ) with VNNI. */
#define PACK int8_pack_avx512
#define INT8_MATMUL int8_matmul_avx512
#define MAC_INT8 int8_mac_avx512
#include "engine/kernel/simd.h"

/* They differ in attention alone: attn_ops() goes by the name. */
const struct kernel_ops kernel_avx512bf16 = SIMD_TABLE("avx512bf16");
const struct kernel_ops kernel_avx512 = SIMD_TABLE("avx512");
