/* hash.c - XXH3 behind our face; alone includes the library. */
#include "engine/hash.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

static struct hash128 canonical(XXH128_hash_t h)
{
    XXH128_canonical_t c;
    struct hash128 out;
    XXH128_canonicalFromHash(&c, h);
    static_assert(sizeof out == sizeof c, "canonical form is 16 bytes");
    memcpy(&out, &c, sizeof out);
    return out;
}

struct hash128 hash128(const void *p, size_t n)
{
    return canonical(XXH3_128bits(p, n));
}

struct hash128 hash128_more(struct hash128 seed, const void *p, size_t n)
{
    struct hash128 pair[2] = {seed, hash128(p, n)};
    return hash128(pair, sizeof pair);
}

uint64_t hash64(const void *p, size_t n)
{
    return XXH3_64bits(p, n);
}

void hash128_hex(struct hash128 h, char out[33])
{
    for (int i = 0; i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", h.b[i]);
}
