/*
 * planes.h - byte j of every element together: exponents next to exponents compress, mixed
 * bytes do not.
 */
#ifndef ENGINE_KERNEL_PLANES_H
#define ENGINE_KERNEL_PLANES_H

#include <stddef.h>
#include <stdint.h>

/* n bytes of elements of `size` bytes into `size` planes; bytes behind the last whole
 * element stay behind. out and in do not overlap. */
void planes_split(uint8_t *out, const uint8_t *in, size_t n, size_t size);
/* The inverse. */
void planes_join(uint8_t *out, const uint8_t *in, size_t n, size_t size);

#endif
