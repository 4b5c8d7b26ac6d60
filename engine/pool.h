/*
 * pool.h - worker threads that split rows. One caller, which works too; a job is a
 * function over the item range [0, n), cut so that every item is done by exactly one
 * thread. Which thread does it must not change the result: that is the job's promise, not
 * the pool's.
 */
#ifndef ENGINE_POOL_H
#define ENGINE_POOL_H

#include <stdint.h>

#include "base/err.h"

struct pool;

enum { POOL_THREADS_MAX = 256 };

/* Cores this process may use: affinity mask, then the cgroup's CPU quota, at least 1. */
uint32_t pool_cores(void);

/* n_threads counts the caller; 0 = pool_cores(). At most twice the cores, or 8. */
NODISCARD int pool_open(struct pool **out, uint32_t n_threads, struct err *err);
void pool_close(struct pool *p);
uint32_t pool_threads(const struct pool *p);

/* Items first..last-1 on behalf of thread `thread` (0 = the caller). */
typedef void pool_fn(void *arg, uint32_t thread, uint64_t first, uint64_t last);
/*
 * Runs fn over [0, n) and returns when all is done. Threads take runs of `grain` items as
 * they become free (0 = one even share each). Allocates nothing.
 */
void pool_run(struct pool *p, pool_fn *fn, void *arg, uint64_t n, uint64_t grain);
/*
 * The same in runs that shrink: each is the threads' even share of half of what is left, and
 * at least `least` items. For items of like cost that are best done in long runs, such as
 * the rows of a matrix that memory has to deliver.
 */
void pool_share(struct pool *p, pool_fn *fn, void *arg, uint64_t n, uint64_t least);

#endif
