/* planes.c - bytes of elements apart and together again; widths that caches have go as
 * vector code. */
#include "engine/kernel/planes.h"

#include <string.h>

static inline void split(uint8_t *restrict out, const uint8_t *restrict in, size_t each,
                         size_t size)
{
    for (size_t i = 0; i < each; i++)
        for (size_t j = 0; j < size; j++)
            out[j * each + i] = in[i * size + j];
}

static inline void join(uint8_t *restrict out, const uint8_t *restrict in, size_t each,
                        size_t size)
{
    for (size_t i = 0; i < each; i++)
        for (size_t j = 0; j < size; j++)
            out[i * size + j] = in[j * each + i];
}

void planes_split(uint8_t *out, const uint8_t *in, size_t n, size_t size)
{
    size_t each = n / size;
    if (size == 2)
        split(out, in, each, 2);
    else if (size == 4)
        split(out, in, each, 4);
    else
        split(out, in, each, size);
    memcpy(out + each * size, in + each * size, n - each * size);
}

void planes_join(uint8_t *out, const uint8_t *in, size_t n, size_t size)
{
    size_t each = n / size;
    if (size == 2)
        join(out, in, each, 2);
    else if (size == 4)
        join(out, in, each, 4);
    else
        join(out, in, each, size);
    memcpy(out + each * size, in + each * size, n - each * size);
}
