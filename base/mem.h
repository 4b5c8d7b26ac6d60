/*
 * mem.h - allocation that may fail and is tested to: every request goes through here, so
 * that a test can make the Nth one fail. Sizes are computed with overflow checks; arenas
 * serve what is freed whole (a session, a turn, a request).
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/str.h"

/* Heap. Zero-sized requests return a unique pointer; NULL always means failure. */
NODISCARD void *mem_alloc(size_t size);
NODISCARD void *mem_zalloc(size_t size);
NODISCARD void *mem_array(size_t n, size_t size);            /* zeroed; NULL on overflow */
NODISCARD void *mem_resize(void *p, size_t n, size_t size);  /* frees nothing on failure */
NODISCARD void *mem_aligned(size_t align, size_t size);      /* align: power of two */
NODISCARD char *mem_strdup(struct str s);                    /* NUL-terminated copy */
void mem_free(void *p);

/* true and *out = a*b (a+b) when it fits; false, *out untouched, when it does not. */
NODISCARD bool mem_mul(size_t a, size_t b, size_t *out);
NODISCARD bool mem_add(size_t a, size_t b, size_t *out);

/* Tests only: the Nth allocation from now (1 = the next) fails, once; 0 switches it off. */
void mem_fail_at(uint64_t n);
/* Allocations made by this process so far. */
uint64_t mem_count(void);

/* An arena: pointers live until arena_done(); no single free. */
struct arena_block;
struct arena {
    struct arena_block *head; /* owned; newest block first */
    size_t used, limit;       /* bytes handed out; 0 = no limit */
};

void arena_init(struct arena *a, size_t limit);
void arena_done(struct arena *a);
NODISCARD void *arena_alloc(struct arena *a, size_t size); /* zeroed, 16-byte aligned */
NODISCARD char *arena_strdup(struct arena *a, struct str s);

#endif
