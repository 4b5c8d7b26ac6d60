/* neon.c - the vector kernels for aarch64 with the dot product instructions. */
#define PACK int8_pack
#define INT8_MATMUL int8_matmul_neon
#define MAC_INT8 int8_mac_neon
#include "engine/kernel/simd.h"

const struct kernel_ops kernel_neon = SIMD_TABLE("neon");
