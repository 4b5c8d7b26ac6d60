/* neon_attn.c - blocks of cached rows for aarch64 with the dot product instructions. */
#include "engine/kernel/attn_simd.h"

const struct attn_ops attn_neon = ATTN_TABLE("neon");
