/*
 * fit.h - scales for a group of numbers: the search that the integer formats share. Each
 * tries a handful of scales around the obvious one, rounds, and solves for the best scale of
 * those codes; the smallest squared error wins. Deterministic.
 */
#ifndef ENGINE_QUANT_FIT_H
#define ENGINE_QUANT_FIT_H

#include <stddef.h>
#include <stdint.h>

/* d with x[i] near d * q[i], q in lo..hi, lo < 0 < hi. d may be negative: the long side of
 * the range then serves the larger magnitude. */
float fit_scale(const float *x, int n, int lo, int hi);
/* d and m >= 0 with x[i] near d * q[i] - m, q in 0..hi. */
float fit_affine(const float *x, int n, int hi, float *m);
/* The two above for each of `groups` runs of n elements. fit_scales() returns the scale of the
 * largest magnitude, sign and all; fit_affines() the largest of each kind. */
float fit_scales(const float *x, int groups, int n, int lo, int hi, float *scale);
struct fit_peak {
    float scale, min;
};
struct fit_peak fit_affines(const float *x, int groups, int n, int hi, float *scale, float *min);
/* d with x[i] near d * level[q[i]]; levels ascend, n_levels of them. */
float fit_levels(const float *x, int n, const signed char *level, int n_levels);
/* out[i]: the index of the level nearest to x[i] * inv; n at most FIT_MAX. */
enum { FIT_MAX = 32 };
void nearest_levels(const float *x, int n, float inv, const signed char *level, int n_levels,
                    unsigned char *out);

/* A row of n elements, one block of `elements` into `bytes` after the other. */
static inline void write_blocks(void *y, const float *x, size_t n, size_t elements, size_t bytes,
                                void (*write_block)(uint8_t *p, const float *x))
{
    uint8_t *p = y;
    for (size_t i = 0; i < n; i += elements, p += bytes)
        write_block(p, x + i);
}

#endif
