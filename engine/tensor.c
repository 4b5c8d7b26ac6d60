/* tensor.c - what a tensor says about itself: rows as floats, shapes as text. */
#include "engine/tensor.h"

#include <stdio.h>

#include "engine/quant/quant.h"
#include "engine/weights_list.h"

void tensor_read_row(const struct tensor *x, uint64_t r, float *out)
{
    const struct quant_traits *t = quant_traits(x->type);
    size_t n = (size_t)x->ne[0];
    if (x->type == QUANT_F8_E4M3 && x->scale) {
        uint64_t block = (x->scale_row0 + r) / TENSOR_F8_BLOCK;
        quant_f8_row(out, tensor_row(x, r), x->scale + block * x->scale_cols, n);
        return;
    }
    t->dequantize(out, tensor_row(x, r), n);
}

void tensor_shape(const uint64_t *ne, uint32_t n_dims, char out[96])
{
    int at = snprintf(out, 96, "[");
    for (uint32_t d = n_dims < TENSOR_DIMS ? n_dims : TENSOR_DIMS; d-- > 0;)
        at += snprintf(out + at, 96 - (size_t)at, "%llu%s", (unsigned long long)ne[d],
                       d ? ", " : "");
    snprintf(out + at, 96 - (size_t)at, "]");
}
