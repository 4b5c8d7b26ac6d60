/*
 * membench.c - how fast all threads together read memory and multiply in registers: the
 * roofs over decoding and over prefill.
 */
#include <sys/stat.h>

#include "base/io.h"
#include "base/mem.h"
#include "engine/kernel/kernel.h"
#include "engine/mapfile.h"
#include "engine/model.h"
#include "engine/pool.h"

/* Larger than the caches of desktop and small server machines. */
enum { BUFFER_BYTES = 512 << 20, LINE = 64 };

struct line {
    uint64_t v[LINE / sizeof(uint64_t)];
};

struct read_job {
    const struct kernel_ops *ops;
    const struct line *line;
    uint64_t sum; /* makes the loads count */
};

struct touch_job {
    struct line *line;
};

static void touch(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct touch_job *j = arg;
    (void)thread;
    for (uint64_t i = first; i < last; i++)
        for (unsigned k = 0; k < ARRAY_LEN(j->line[i].v); k++)
            j->line[i].v[k] = i;
}

static void read_lines(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct read_job *j = arg;
    (void)thread;
    uint64_t sum = j->ops->read(&j->line[first], (last - first) * LINE);
    __atomic_fetch_add(&j->sum, sum, __ATOMIC_RELAXED);
}

/* The best of some passes over n lines. */
static double read_best(struct pool *pool, struct read_job *job, uint64_t n, uint32_t passes)
{
    double best = 0;
    for (uint32_t i = 0; i < passes; i++) {
        int64_t t = io_mono_ns();
        pool_run(pool, read_lines, job, n, 0);
        double rate = (double)n * LINE / ((double)(io_mono_ns() - t) / 1e9);
        best = rate > best ? rate : best;
    }
    return best;
}

int model_read_rate(double *out, uint32_t n_threads, uint32_t passes, struct err *err)
{
    const uint64_t n = BUFFER_BYTES / LINE;
    struct pool *pool = NULL;
    struct line *room = mem_array(n, sizeof *room);
    struct read_job job = {.ops = kernel_best(), .line = room};
    int rc = room ? pool_open(&pool, n_threads, err) : err_nomem(err);
    *out = 0;
    if (rc == 0) {
        struct touch_job t = {room};
        pool_run(pool, touch, &t, n, 0);
        *out = read_best(pool, &job, n, passes);
    }
    pool_close(pool);
    mem_free(room);
    return rc;
}

int model_file_read_rate(double *out, const char *path, uint32_t n_threads, uint32_t passes,
                         struct err *err)
{
    struct mapfile map = {.fd = -1};
    struct pool *pool = NULL;
    struct stat st;
    *out = 0;
    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < BUFFER_BYTES)
        return 0;
    int rc = mapfile_open(&map, path, err);
    if (rc == 0)
        rc = pool_open(&pool, n_threads, err);
    if (rc == 0) {
        /* The end: experts or the head, never the header. A first pass brings it in. */
        const uint8_t *end = map.p + map.n / LINE * LINE;
        struct read_job job = {.ops = kernel_best(), .line = (const void *)(end - BUFFER_BYTES)};
        *out = read_best(pool, &job, BUFFER_BYTES / LINE, passes + 1);
    }
    pool_close(pool);
    mapfile_close(&map);
    return rc;
}

const char *model_kernels(void)
{
    return kernel_best()->name;
}

/* --- arithmetic --------------------------------------------------------------------------- */

enum { ROUNDS = 1 << 20, PIECES = 8 };

struct mac_job {
    uint64_t (*mac)(uint64_t rounds);
    uint64_t done;
};

static void multiply(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct mac_job *j = arg;
    (void)thread;
    __atomic_fetch_add(&j->done, j->mac((last - first) * ROUNDS), __ATOMIC_RELAXED);
}

static double best_rate(struct pool *pool, uint64_t (*mac)(uint64_t), uint32_t passes)
{
    double best = 0;
    for (uint32_t i = 0; i < passes; i++) {
        struct mac_job job = {.mac = mac};
        int64_t t = io_mono_ns();
        pool_run(pool, multiply, &job, (uint64_t)pool_threads(pool) * PIECES, PIECES);
        double rate = (double)job.done / ((double)(io_mono_ns() - t) / 1e9);
        best = rate > best ? rate : best;
    }
    return best;
}

int model_multiply_rate(double *int8, double *f32, uint32_t n_threads, uint32_t passes,
                        struct err *err)
{
    const struct kernel_ops *ops = kernel_best();
    struct pool *pool = NULL;
    int rc = pool_open(&pool, n_threads, err);
    if (rc < 0)
        return rc;
    *int8 = best_rate(pool, ops->mac_int8, passes);
    *f32 = best_rate(pool, ops->mac_f32, passes);
    pool_close(pool);
    return 0;
}
