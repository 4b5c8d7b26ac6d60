/* mem.c - counted allocation with a planted failure for tests, and arenas. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The planted failure: two counters, both set before a test's second thread starts. */
static _Atomic uint64_t count;
static _Atomic uint64_t fail_at;

static bool may_allocate(void)
{
    uint64_t n = atomic_fetch_add_explicit(&count, 1, memory_order_relaxed) + 1;
    uint64_t at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    return at == 0 || n != at;
}

void mem_fail_at(uint64_t n)
{
    atomic_store(&fail_at, n ? atomic_load(&count) + n : 0);
}

uint64_t mem_count(void)
{
    return atomic_load(&count);
}

void *mem_alloc(size_t size)
{
    return may_allocate() ? malloc(size ? size : 1) : NULL;
}

void *mem_zalloc(size_t size)
{
    return may_allocate() ? calloc(1, size ? size : 1) : NULL;
}

void *mem_array(size_t n, size_t size)
{
    size_t total;
    return mem_mul(n, size, &total) ? mem_zalloc(total) : NULL;
}

void *mem_resize(void *p, size_t n, size_t size)
{
    size_t total;
    if (!mem_mul(n, size, &total) || !may_allocate())
        return NULL;
    return realloc(p, total ? total : 1);
}

void *mem_aligned(size_t align, size_t size)
{
    void *p;
    if (!may_allocate() || posix_memalign(&p, align, size ? size : align) != 0)
        return NULL;
    return p;
}

char *mem_strdup(struct str s)
{
    char *p = s.n < SIZE_MAX ? mem_alloc(s.n + 1) : NULL;
    if (!p)
        return NULL;
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return p;
}

void mem_free(void *p)
{
    free(p);
}

bool mem_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

bool mem_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

enum { ARENA_BLOCK = 16384, ARENA_ALIGN = 16 };

struct arena_block {
    struct arena_block *next;
    size_t used, size;
    _Alignas(ARENA_ALIGN) unsigned char data[];
};

void arena_init(struct arena *a, size_t limit)
{
    *a = (struct arena){.limit = limit};
}

void arena_done(struct arena *a)
{
    while (a->head) {
        struct arena_block *b = a->head;
        a->head = b->next;
        mem_free(b);
    }
    a->used = 0;
}

void *arena_alloc(struct arena *a, size_t size)
{
    size_t want;
    if (!mem_add(size, ARENA_ALIGN - 1, &want))
        return NULL;
    want &= ~(size_t)(ARENA_ALIGN - 1);
    if (a->limit && (want > a->limit || a->used > a->limit - want))
        return NULL;

    struct arena_block *b = a->head;
    if (!b || b->size - b->used < want) {
        size_t room = want > ARENA_BLOCK ? want : ARENA_BLOCK;
        size_t total;
        if (!mem_add(room, sizeof *b, &total) || !(b = mem_alloc(total)))
            return NULL;
        *b = (struct arena_block){.next = a->head, .size = room};
        a->head = b;
    }
    void *p = b->data + b->used;
    memset(p, 0, want);
    b->used += want;
    a->used += want;
    return p;
}

char *arena_strdup(struct arena *a, struct str s)
{
    char *p = s.n < SIZE_MAX ? arena_alloc(a, s.n + 1) : NULL;
    if (p && s.n)
        memcpy(p, s.p, s.n);
    return p;
}
