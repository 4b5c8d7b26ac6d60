/*
 * convert_plan.h - which tensors a converted file will hold, in which type, and how to make
 * a row of each from the weights at hand. Private to the converter and randmodel.c.
 */
#ifndef ENGINE_CONVERT_PLAN_H
#define ENGINE_CONVERT_PLAN_H

#include "engine/model.h"
#include "engine/tensors.h"
#include "engine/weights.h"

enum out_kind {
    OUT_PLAIN, /* the rows of src */
    OUT_STACK, /* the rows of each expert's gate, up or down, one expert after another */
    OUT_K_B,   /* the key half of kv_b, each head transposed: row c of head h has `nope` */
    OUT_V_B,   /* the value half of kv_b */
};
enum out_part { PART_GATE, PART_UP, PART_DOWN };

struct out_tensor {
    char name[64];
    uint32_t type, n_dims;
    uint64_t ne[TENSOR_DIMS];
    uint64_t bytes, offset;
    enum out_kind kind;
    enum out_part part;
    const struct tensor *src;         /* borrowed from the weights */
    const struct ffn_weights *expert; /* OUT_STACK */
};

struct plan {
    const struct weights *w;
    struct out_tensor *item; /* owned */
    uint32_t n, cap;
    uint64_t bytes; /* of all data, padded */
    float *head;    /* owned scratch: one head of kv_b as floats, for OUT_K_B */
    int64_t head_at; /* which head of which tensor it holds; -1 none */
    const struct out_tensor *head_of;
    /* Makes every row instead of `src`, from any thread; NULL = rows come from the weights. */
    void (*fill)(void *arg, const struct out_tensor *t, uint64_t r, float *out);
    void *fill_arg;
};

NODISCARD int plan_make(struct plan *p, const struct weights *w,
                        const struct model_convert *o, struct err *err);
void plan_done(struct plan *p);
/* Row r of an output tensor as ne[0] floats. */
void plan_row(struct plan *p, const struct out_tensor *t, uint64_t r, float *out);
/* Where the bytes are the same in both files: the row, else NULL. */
const void *plan_raw_row(const struct plan *p, const struct out_tensor *t, uint64_t r);
/* Writes a plan of o->dst, which is whole or absent; takes up o->dst.partial. */
NODISCARD int convert_write(struct plan *p, const struct model_convert *o, struct err *err);

#endif
