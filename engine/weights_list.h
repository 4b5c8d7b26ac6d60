/* weights_list.h - the file behind the weights, for what lists, checks or rewrites it. */
#ifndef ENGINE_WEIGHTS_LIST_H
#define ENGINE_WEIGHTS_LIST_H

#include "engine/gguf.h"
#include "engine/tensors.h"
#include "engine/weights.h"

const struct tensors *weights_tensors(const struct weights *w);
/* The GGUF file, or NULL when the model is a safetensors folder. */
const struct gguf *weights_gguf(const struct weights *w);
/* How many listed tensors no place in the model wanted; *first names one of them. */
uint32_t weights_unused(const struct weights *w, const char **first);
/* Reads every element; -ERR_CORRUPT names the first that is not finite. progress(0..1). */
NODISCARD int weights_scan(const struct weights *w, void (*progress)(void *arg, double done),
                           void *arg, struct err *err);

/* "[outer, ..., inner]" as papers print shapes, into a buffer of 96. */
void tensor_shape(const uint64_t *ne, uint32_t n_dims, char out[96]);

#endif
