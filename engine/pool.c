/*
 * pool.c - worker threads: spin a little for the next job, then sleep on a futex.
 *
 * One 64-bit ticket is the whole agreement: the job's number in the high half, its first
 * untaken item in the low half. A thread takes a run by moving the ticket from what it
 * saw to a run further; that fails when the job has changed meanwhile, and cannot succeed
 * once all items are taken. So a thread that wakes late finds nothing to do, and the
 * caller, who works too and leaves when all items are done, never waits for a thread that
 * the kernel has not scheduled: on a busy machine it does the work alone.
 */
#include "engine/pool.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/mem.h"

enum {
    SPIN = 4000,
    FEW_THREADS = 8, /* allowed on any machine */
};

struct worker {
    struct pool *pool;
    pthread_t tid;
    uint32_t index;
    bool running;
};

struct pool {
    uint32_t n_threads;
    _Atomic bool stop;
    /* The job. Written before its ticket appears, and not again before all items are
     * done. */
    _Atomic(pool_fn *) fn;
    _Atomic(void *) arg;
    _Atomic uint32_t n, grain, share; /* share: runs are a part of what is left, 0 = grain */
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t done; /* items; the caller sleeps on it */
    _Atomic uint32_t epoch;             /* job number again, as the futex to sleep on */
    _Atomic uint32_t sleepers, caller_sleeps;
    struct worker worker[POOL_THREADS_MAX];
};

static void futex_wait(_Atomic uint32_t *at, uint32_t seen)
{
    syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *at, int n)
{
    syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_runs(struct pool *p, uint32_t thread)
{
    uint64_t ticket = atomic_load(&p->ticket);
    for (;;) {
        pool_fn *fn = atomic_load_explicit(&p->fn, memory_order_acquire);
        void *arg = atomic_load_explicit(&p->arg, memory_order_acquire);
        uint32_t n = atomic_load_explicit(&p->n, memory_order_acquire);
        uint32_t grain = atomic_load_explicit(&p->grain, memory_order_acquire);
        uint32_t share = atomic_load_explicit(&p->share, memory_order_acquire);
        uint32_t first = (uint32_t)ticket;
        if (first >= n)
            return;
        uint32_t count = share && (n - first) / share > grain ? (n - first) / share : grain;
        count = n - first < count ? n - first : count;
        if (!atomic_compare_exchange_weak(&p->ticket, &ticket, ticket + count))
            continue; /* ticket holds what it is now */
        fn(arg, thread, first, first + count);
        if (atomic_fetch_add(&p->done, count) + count == n &&
            atomic_load(&p->caller_sleeps))
            futex_wake(&p->done, 1);
        ticket = atomic_load(&p->ticket);
    }
}

/* Waits for a job other than number `seen`: by spinning, then asleep. */
static uint32_t wait_job(struct pool *p, uint32_t seen)
{
    for (int i = 0; i < SPIN; i++) {
        uint32_t now = atomic_load_explicit(&p->epoch, memory_order_acquire);
        if (now != seen)
            return now;
        relax();
    }
    atomic_fetch_add(&p->sleepers, 1);
    uint32_t now;
    while ((now = atomic_load(&p->epoch)) == seen)
        futex_wait(&p->epoch, seen);
    atomic_fetch_sub(&p->sleepers, 1);
    return now;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_job(p, seen);
        if (atomic_load(&p->stop))
            return NULL;
        take_runs(p, w->index);
    }
}

static void wait_done(struct pool *p, uint32_t n)
{
    for (int i = 0; i < SPIN; i++) {
        if (atomic_load_explicit(&p->done, memory_order_acquire) == n)
            return;
        relax();
    }
    atomic_store(&p->caller_sleeps, 1);
    uint32_t done;
    while ((done = atomic_load(&p->done)) != n)
        futex_wait(&p->done, done);
    atomic_store(&p->caller_sleeps, 0);
}

static void run(struct pool *p, pool_fn *fn, void *arg, uint64_t n, uint64_t grain,
                uint32_t share)
{
    if (n == 0)
        return;
    if (grain == 0)
        grain = (n + p->n_threads - 1) / p->n_threads;
    if (p->n_threads == 1 || n <= grain) {
        fn(arg, 0, 0, n);
        return;
    }
    assert(n < UINT32_MAX);
    /* Nobody holds a run of the old job: they were all done. A thread may still be
     * looking, so the ticket closes before the fields change: who reads a new field sees
     * it closed. */
    uint32_t job = atomic_load_explicit(&p->epoch, memory_order_relaxed) + 1;
    atomic_store(&p->ticket, (uint64_t)job << 32 | UINT32_MAX);
    atomic_store_explicit(&p->fn, fn, memory_order_release);
    atomic_store_explicit(&p->arg, arg, memory_order_release);
    atomic_store_explicit(&p->n, (uint32_t)n, memory_order_release);
    atomic_store_explicit(&p->grain, (uint32_t)grain, memory_order_release);
    atomic_store_explicit(&p->share, share, memory_order_release);
    atomic_store(&p->done, 0);
    atomic_store(&p->ticket, (uint64_t)job << 32);
    atomic_store(&p->epoch, job);
    if (atomic_load(&p->sleepers))
        futex_wake(&p->epoch, POOL_THREADS_MAX);
    take_runs(p, 0);
    wait_done(p, (uint32_t)n);
}

void pool_run(struct pool *p, pool_fn *fn, void *arg, uint64_t n, uint64_t grain)
{
    run(p, fn, arg, n, grain, 0);
}

void pool_share(struct pool *p, pool_fn *fn, void *arg, uint64_t n, uint64_t least)
{
    run(p, fn, arg, n, least ? least : 1, 2 * p->n_threads);
}

uint32_t pool_threads(const struct pool *p)
{
    return p->n_threads;
}

static long cores_in_mask(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                       : sysconf(_SC_NPROCESSORS_ONLN);
}

int pool_open(struct pool **out, uint32_t n_threads, struct err *err)
{
    if (n_threads == 0)
        n_threads = pool_cores();
    /* More than there are cores only take turns; a few are let be, for comparisons. */
    long cores = cores_in_mask();
    uint32_t most = cores > FEW_THREADS / 2 ? 2 * (uint32_t)cores : FEW_THREADS;
    most = most < POOL_THREADS_MAX ? most : POOL_THREADS_MAX;
    n_threads = n_threads < most ? n_threads : most;
    struct pool *p = mem_aligned(64, sizeof *p);
    if (!p)
        return err_nomem(err);
    memset(p, 0, sizeof *p);
    p->n_threads = n_threads;
    /* Signals belong to the main thread: workers are born with all of them blocked. */
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGBUS); /* mapfile.c answers for weight files that shrink */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    for (uint32_t i = 1; i < n_threads && rc == 0; i++) {
        p->worker[i] = (struct worker){.pool = p, .index = i};
        int no = pthread_create(&p->worker[i].tid, NULL, work, &p->worker[i]);
        if (no != 0) {
            errno = no;
            rc = err_sys(err, "start worker thread %u of %u", i, n_threads);
        } else {
            p->worker[i].running = true;
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc < 0) {
        pool_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

void pool_close(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->epoch, 1);
    futex_wake(&p->epoch, POOL_THREADS_MAX);
    for (uint32_t i = 1; i < p->n_threads; i++)
        if (p->worker[i].running)
            pthread_join(p->worker[i].tid, NULL);
    mem_free(p);
}

/* A file of one or two numbers; "max" and -1 are no limit. Of a cgroup in cores, 0 = none. */
static bool read_numbers(const char *path, double *a, double *b)
{
    struct err err = {0};
    struct buf text;
    struct str rest, first, second;
    buf_init(&text, 4096);
    bool got = io_read_file(path, &text, &err) == 0;
    rest = str_trim(buf_view(&text));
    got = got && str_split(&rest, ' ', &first) && str_to_f64(first, a);
    if (got && b)
        got = str_split(&rest, ' ', &second) && str_to_f64(second, b);
    buf_done(&text);
    return got;
}

static double quota_of(bool v2, const char *root, const char *group)
{
    char path[800];
    double quota, period;
    if (v2) {
        snprintf(path, sizeof path, "%s%s/cpu.max", root, group);
        if (!read_numbers(path, &quota, &period))
            return 0;
    } else {
        snprintf(path, sizeof path, "%s%s/cpu.cfs_quota_us", root, group);
        if (!read_numbers(path, &quota, NULL))
            return 0;
        snprintf(path, sizeof path, "%s%s/cpu.cfs_period_us", root, group);
        if (!read_numbers(path, &period, NULL))
            return 0;
    }
    return quota > 0 && period > 0 ? quota / period : 0;
}

/* The least of a group's and its parents'; `line` is one of /proc/self/cgroup. */
static double quota_along(struct str line)
{
    struct str id, names, name;
    char root[80], group[512];
    if (!str_split(&line, ':', &id) || !str_split(&line, ':', &names) || line.n >= sizeof group)
        return 0;
    bool v2 = names.n == 0, cpu = v2;
    snprintf(root, sizeof root, "/sys/fs/cgroup%s%.*s", v2 ? "" : "/", (int)names.n, names.p);
    while (str_split(&names, ',', &name))
        cpu = cpu || str_eq(name, STR("cpu"));
    if (!cpu)
        return 0;
    snprintf(group, sizeof group, "%.*s", (int)line.n, line.p);
    double least = 0;
    for (;;) {
        double q = quota_of(v2, root, group);
        least = q > 0 && (least == 0 || q < least) ? q : least;
        char *slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

/* The smallest quota of this process's cgroups and their parents, in cores; 0 = none. */
static double cgroup_quota(void)
{
    struct err err = {0};
    struct buf b;
    buf_init(&b, 65536);
    double least = 0;
    if (io_read_file("/proc/self/cgroup", &b, &err) == 0) {
        struct str rest = buf_view(&b), line;
        while (str_split(&rest, '\n', &line)) {
            double q = quota_along(line);
            least = q > 0 && (least == 0 || q < least) ? q : least;
        }
    }
    buf_done(&b);
    return least;
}

uint32_t pool_cores(void)
{
    long n = cores_in_mask();
    double quota = cgroup_quota();
    if (quota > 0 && quota < (double)n)
        n = (long)(quota + 0.999);
    return n < 1 ? 1 : n > POOL_THREADS_MAX ? POOL_THREADS_MAX : (uint32_t)n;
}
