/*
 * testmodel.h - small models whose every weight is a formula: the deterministic test
 * model and its relatives. They exist to be compared with golden numbers, not to talk.
 *
 * Element i of tensor `name` comes from splitmix64 of fnv1a64(name) and i, rounded to
 * bf16; see testmodel.c. Nothing is read and nothing is random.
 */
#ifndef ENGINE_TESTMODEL_H
#define ENGINE_TESTMODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum testmodel_kind {
    TESTMODEL_V32,     /* "tiny-v32": q LoRA, indexer, groups, YaRN, MTP */
    TESTMODEL_GLM,     /* glm_moe_dsa: paired index rope, a shared index layer, no YaRN */
    TESTMODEL_DENSE,   /* no q LoRA, no indexer (the Moonlight shape) */
    TESTMODEL_SOFTMAX, /* V2: softmax router, best group by maximum */
    TESTMODEL_KINDS,
};

/* "tiny-v32", "tiny-glm", "tiny-dense", "tiny-softmax". */
const char *testmodel_name(enum testmodel_kind kind);
/* The text of config.json. */
const char *testmodel_config(enum testmodel_kind kind);

struct testmodel_tensor {
    char name[96];   /* as in a checkpoint: "model.layers.0.self_attn.q_a_proj.weight" */
    uint32_t n_dims; /* 1 or 2 */
    uint64_t shape[2]; /* row-major: {n}, or {outputs, inputs} */
    bool f32;          /* stored as F32 (norm of the indexer, router bias), else BF16 */
};
uint32_t testmodel_n_tensors(enum testmodel_kind kind);
/* The i-th tensor, in checkpoint order; i below testmodel_n_tensors(). */
void testmodel_tensor(enum testmodel_kind kind, uint32_t i, struct testmodel_tensor *out);
/* Its shape[0] * shape[1] values; each is exact in bf16. */
void testmodel_fill(const struct testmodel_tensor *t, float *out);

#endif
