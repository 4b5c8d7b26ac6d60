/*
 * int8.h - products of quantised weights and activations in whole numbers.
 *
 * A row of activations is rounded once to int8, 32 to a block (pack). A weight is read as
 * codes: w = s * q + m with q in int8, s and m per 32 or per 16 elements, whatever its type.
 * Then
 *
 *   y = sum over blocks b of  s_b d_b (sum q_w q_x) + m_b d_b (sum q_x)
 *
 * where the inner sums are exact and the outer one is a single chain of fused multiply-adds
 * in ascending b, from zero; for halves of a block first one half, then the other. That is
 * the whole arithmetic: no tile, no batch, no thread and no instruction set enters it, so all
 * tables give the same bits. What is lost is the rounding of the activations: at most 1/254
 * of the largest in a block of 32, each.
 */
#ifndef ENGINE_KERNEL_INT8_H
#define ENGINE_KERNEL_INT8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/kernel/kernel.h"

enum { INT8_BLOCK = 32, INT8_SUPER = 256 };

/* What a type's blocks of 32 have. */
enum int8_kind {
    CODES_PLAIN,     /* one scale */
    CODES_MIN,       /* one scale, one minimum */
    CODES_HALVES,    /* a scale per 16 */
    CODES_HALVES_MIN /* a scale and a minimum per 16 */
};

struct int8_format {
    uint32_t type;
    uint32_t block, bytes; /* elements and bytes of one stored block */
    enum int8_kind kind;
    /*
     * One stored block: q[block]; s and m two per 32 elements, the second of a pair only
     * where the kind has halves, m only where it has minima.
     */
    void (*unpack)(const uint8_t *p, int8_t *q, float *s, float *m);
};

/* The format of a type, NULL for those that are multiplied as floats. */
const struct int8_format *int8_format(uint32_t type);

/* A packed row of n = cols / 32 blocks; see int8_view(). */
struct int8_row {
    const int8_t *q;        /* (cols) */
    const float *d;         /* (n) x is nearly d * q */
    const float *sum;       /* (n) d * sum q */
    const int32_t *shift;   /* (n) -128 * sum q, for kernels whose codes are unsigned */
    const float *half_sum;  /* (2 n) the same two for each half of a block */
    const int32_t *half_shift;
};

size_t int8_pack_bytes(uint32_t type, uint64_t cols);
/* A block with a NaN or an infinity gets the scale NaN, and so do all sums over it. */
void int8_pack(uint32_t type, const float *x, uint64_t cols, void *out);

static inline struct int8_row int8_view(const uint8_t *p, uint64_t cols)
{
    size_t n = (size_t)cols / INT8_BLOCK;
    const void *d = p + cols;
    struct int8_row r = {.q = (const void *)p, .d = d};
    r.sum = r.d + n;
    r.half_sum = r.sum + n;
    r.shift = (const void *)(r.half_sum + 2 * n);
    r.half_shift = r.shift + n;
    return r;
}

/* As kernel_ops.matmul, for types with a format and x->packed. */
typedef void int8_matmul_fn(const struct tensor *w, uint64_t first, uint64_t last,
                            const struct acts *x, uint32_t n, float *y, size_t ldy,
                            void *work);
int8_matmul_fn int8_matmul;
#if defined(__x86_64__)
int8_matmul_fn int8_matmul_avx512, int8_matmul_avx2;
void int8_pack_avx512(uint32_t type, const float *x, uint64_t cols, void *out);
void int8_pack_avx2(uint32_t type, const float *x, uint64_t cols, void *out);
uint64_t int8_mac_avx512(uint64_t rounds);
uint64_t int8_mac_avx2(uint64_t rounds);
#elif defined(__aarch64__)
int8_matmul_fn int8_matmul_neon;
uint64_t int8_mac_neon(uint64_t rounds);
#endif

#endif
