/*
 * tensors.h - what a weight file lists: tensors, found by name. Both containers (GGUF and
 * safetensors) fill one of these, and everything behind them reads only this.
 */
#ifndef ENGINE_TENSORS_H
#define ENGINE_TENSORS_H

#include "base/err.h"
#include "base/mem.h"
#include "engine/tensor.h"

enum { TENSOR_NAME_MAX = 127 };

struct tensors {
    struct tensor *item; /* owned; pointers into it hold once the list is complete */
    uint32_t n, cap;
    int32_t *slot; /* owned; open addressing by name, -1 empty */
    uint32_t mask;
    struct arena names;
};

void tensors_init(struct tensors *t);
void tensors_done(struct tensors *t);
/* Copies the name. -ERR_PARSE when it is there already, empty, too long or not plain text;
 * -ERR_LIMIT beyond LIMIT_TENSORS. */
NODISCARD int tensors_add(struct tensors *t, struct str name, const struct tensor *x,
                          struct err *err);
/* NULL when absent. */
struct tensor *tensors_find(const struct tensors *t, const char *name);

#endif
