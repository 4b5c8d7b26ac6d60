/*
 * tensor.h - a named block of numbers somewhere in a mapped file. It owns nothing: data,
 * scales and name live as long as the weights they came from.
 *
 * ne[0] is the contiguous dimension (GGUF's order): a linear layer [outputs, inputs] of
 * the papers has ne = {inputs, outputs}, and its row r is the r-th output's coefficients.
 */
#ifndef ENGINE_TENSOR_H
#define ENGINE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TENSOR_DIMS = 4, TENSOR_F8_BLOCK = 128 };

struct tensor {
    const char *name; /* as in the file; NULL = this tensor does not exist */
    uint32_t type;    /* enum quant_type of engine/quant/quant.h */
    uint32_t n_dims;
    uint64_t ne[TENSOR_DIMS]; /* unused dimensions are 1 */
    const void *data;         /* not aligned to more than one byte */
    size_t bytes;             /* product(ne) elements */
    size_t row_bytes;         /* ne[0] elements */
    /*
     * E4M3 only: w[r][c] = f8 * scale[(scale_row0 + r) / 128][c / 128]. scale_row0 is not
     * 0 for a view of rows that starts inside a block.
     */
    const float *scale;
    uint32_t scale_cols, scale_row0;
};

static inline bool tensor_exists(const struct tensor *t)
{
    return t->data != NULL;
}

/* Outputs of a linear layer: every dimension but the contiguous one. */
static inline uint64_t tensor_n_rows(const struct tensor *t)
{
    return t->ne[1] * t->ne[2] * t->ne[3];
}

static inline const void *tensor_row(const struct tensor *t, uint64_t r)
{
    return (const uint8_t *)t->data + r * t->row_bytes;
}

/* Rows first..first+n-1 as a matrix of their own. */
static inline struct tensor tensor_rows(const struct tensor *t, uint64_t first,
                                        uint64_t n)
{
    struct tensor v = *t;
    v.n_dims = 2;
    v.ne[1] = n;
    v.ne[2] = v.ne[3] = 1;
    v.data = tensor_row(t, first);
    v.bytes = (size_t)n * t->row_bytes;
    v.scale_row0 = t->scale_row0 + (uint32_t)first;
    return v;
}

/* Row r as floats, exact, scales applied; the type must have traits; out holds ne[0]. */
void tensor_read_row(const struct tensor *t, uint64_t r, float *out);

#endif
