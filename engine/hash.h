/* hash.h - XXH3 in 128 bits: checksums and fingerprints, not secrets. */
#ifndef ENGINE_HASH_H
#define ENGINE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint8_t b[16]; /* canonical (big-endian) form, same on every machine */
};

struct hash128 hash128(const void *p, size_t n);
/* Chained: the hash of `seed` and then the bytes, for streams without allocation. */
struct hash128 hash128_more(struct hash128 seed, const void *p, size_t n);
uint64_t hash64(const void *p, size_t n);
void hash128_hex(struct hash128 h, char out[33]);

#endif
