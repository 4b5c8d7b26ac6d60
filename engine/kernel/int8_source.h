/*
 * int8_source.h - where a panel's bytes and a packed row's parts are: shared by the vector
 * forms of int8.h, each of which includes this and, after its own parts, int8_panel.h.
 */
#ifndef ENGINE_KERNEL_INT8_SOURCE_H
#define ENGINE_KERNEL_INT8_SOURCE_H

#include "engine/kernel/int8.h"

#define INLINE static inline __attribute__((always_inline))

/*
 * A panel's stored bytes: row r is at p + r * stride. Each reading of some asks for as many
 * bytes at `ahead`, where the next panel is: a few at a time, since a core can only wait for
 * some twenty lines at once and would do nothing else meanwhile.
 */
struct source {
    const uint8_t *p;
    size_t stride;
    const uint8_t *ahead;
};

enum {
    LINE = 64,     /* bytes of a cache line */
    AHEAD = 16384, /* bytes between what is read and what is asked for */
};
#define FETCH(w) (__builtin_prefetch((w)->ahead), (w)->ahead += LINE)

/* Where the parts of a packed row begin, and the block in them to start from. */
struct offsets {
    size_t q, d, sum, half_sum, shift, half_shift;
};

static struct offsets offsets_at(uint64_t cols, uint64_t block)
{
    size_t n = (size_t)cols / INT8_BLOCK, f = (size_t)cols, b = (size_t)block;
    return (struct offsets){.q = b * INT8_BLOCK,
                            .d = f + 4 * b,
                            .sum = f + 4 * n + 4 * b,
                            .half_sum = f + 8 * n + 8 * b,
                            .shift = f + 16 * n + 4 * b,
                            .half_shift = f + 20 * n + 8 * b};
}

#endif
