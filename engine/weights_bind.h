/*
 * weights_bind.h - how the two containers' binders find tensors: by name, with the shape and
 * the kind of type a place in the model demands. Private to weights*.c.
 */
#ifndef ENGINE_WEIGHTS_BIND_H
#define ENGINE_WEIGHTS_BIND_H

#include "engine/tensors.h"
#include "engine/weights.h"

struct binder {
    const struct tensors *list;
    const char *prefix; /* "" or "language_model.": goes before every name */
    char at[64];        /* "model.layers.3." or "blk.3." */
    struct weights *w;
    bool *used; /* one per tensor of the list: some place in the model wants it */
    int rc; /* remembered failure: after the first, finding does nothing */
    struct err *err;
};

/* A matrix {in, out}; a vector {n}: F32, F16 or BF16; absence is an error. */
void bind_matrix(struct binder *b, struct tensor *to, const char *tail, uint64_t in,
                 uint64_t out);
void bind_vector(struct binder *b, struct tensor *to, const char *tail, uint64_t n);
/* {a, b, c}, for what GGUF stacks. */
void bind_cube(struct binder *b, struct tensor *to, const char *tail, uint64_t ne0,
               uint64_t ne1, uint64_t ne2);
/* The tensor at `tail`, or NULL. */
const struct tensor *bind_peek(const struct binder *b, const char *tail);

/* Known, and wanted in another form: a copy of what is bound elsewhere. */
void bind_skip(struct binder *b, const char *tail);

/* Binds everything; w->hp is complete and w->layer allocated. */
void weights_bind_hf(struct binder *b, bool tied);
void weights_bind_gguf(struct binder *b);
/* Room for the experts of one layer in w->layer[l]. */
void weights_alloc_experts(struct binder *b, uint32_t l);

#endif
