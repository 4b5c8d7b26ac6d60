/*
 * sampler.h - from logits to one id. Scratch is sized at open; nothing is allocated
 * later.
 *
 * The distribution, in this order: mask, temperature, top-k, softmax, min-p, top-p, and
 * the rest renormalised. Draws walk the ids in ascending order, so a seed gives the same
 * text on every machine that computes the same logits.
 */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H

#include "engine/engine.h"

struct sampler;

/* n_ids: logits at and above it are padding of the head and never chosen. */
NODISCARD int sampler_open(struct sampler **out, uint32_t n_vocab, uint32_t n_ids,
                           struct err *err);
void sampler_close(struct sampler *s);

NODISCARD int sampler_pick(struct sampler *s, const float *logits,
                           const struct sample_opts *o, struct sample_rng *rng,
                           struct sample_result *out, struct err *err);
/* See engine_sample_verify(). */
NODISCARD int sampler_verify(struct sampler *s, const float *p, const float *q,
                             int32_t draft, const struct sample_opts *o,
                             struct sample_rng *rng, bool *kept,
                             struct sample_result *out, struct err *err);

/* The next number of the stream, in [0, 1). */
double sample_uniform(struct sample_rng *rng);

#endif
