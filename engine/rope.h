/*
 * rope.h - rotary position: frequencies with YaRN, and the two pairings.
 *
 * MLA rotates adjacent pairs in every model of the family; DeepSeek's indexer rotates
 * split halves, GLM's adjacent pairs. Swapping them passes every shape check and stays
 * fluent.
 */
#ifndef ENGINE_ROPE_H
#define ENGINE_ROPE_H

#include <stdint.h>

#include "engine/hparams.h"

/*
 * freq[i], i < qk_rope_head_dim / 2: base^(-2i/d), under YaRN blended towards 1/factor of
 * it along a ramp between the pairs that turn beta_fast and beta_slow times in the
 * original context.
 */
void rope_freqs(float *freq, const struct hparams *hp);
/* cos and sin of pos * freq[i] (an f32 product, as the reference computes it), times mul.
 */
void rope_angles(float *cos_out, float *sin_out, const float *freq, uint32_t half,
                 uint32_t pos, float mul);
/* (x[2i], x[2i+1]) turned by angle i. */
void rope_pairs(float *x, const float *cos_in, const float *sin_in, uint32_t half);
/* (x[i], x[i + half]) turned by angle i. */
void rope_halves(float *x, const float *cos_in, const float *sin_in, uint32_t half);

#endif
