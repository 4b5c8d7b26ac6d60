/*
 * fit.h - scales for a group of numbers: the search that the integer formats share. Each
 * tries a handful of scales around the obvious one, rounds, and solves for the best scale of
 * those codes; the smallest squared error wins. Deterministic.
 */
#ifndef ENGINE_QUANT_FIT_H
#define ENGINE_QUANT_FIT_H

/* d with x[i] near d * q[i], q in lo..hi, lo < 0 < hi. d may be negative: the long side of
 * the range then serves the larger magnitude. */
float fit_scale(const float *x, int n, int lo, int hi);
/* d and m >= 0 with x[i] near d * q[i] - m, q in 0..hi. */
float fit_affine(const float *x, int n, int hi, float *m);
/* d with x[i] near d * level[q[i]]; levels ascend, n_levels of them. */
float fit_levels(const float *x, int n, const signed char *level, int n_levels);
/* out[i]: the index of the level nearest to x[i] * inv; n at most FIT_MAX. */
enum { FIT_MAX = 32 };
void nearest_levels(const float *x, int n, float inv, const signed char *level, int n_levels,
                    unsigned char *out);

#endif
