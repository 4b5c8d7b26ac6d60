/*
 * mapfile.c - open, fstat, mmap, close; and the handler that survives a file which shrinks
 * under its mapping.
 *
 * The handler must find the mapping by address, from any thread, without locks or memory: a
 * table of slots, and the handler before ours, are this file's writable globals. A slot is
 * taken by writing `first` last and given back by clearing it first. A fault outside all
 * mappings goes to whoever handled SIGBUS before us, by default the end of the process.
 */
#include "engine/mapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

struct mapguard {
    _Atomic bool taken;
    _Atomic uintptr_t first, last; /* addresses; 0, 0 = nothing */
    _Atomic bool lost;
};

static struct mapguard guards[LIMIT_MAPPED_FILES];
static struct sigaction before;
static pthread_mutex_t installing = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t page_size;

static struct mapguard *find_guard(uintptr_t at)
{
    for (size_t i = 0; i < ARRAY_LEN(guards); i++)
        if (at >= atomic_load(&guards[i].first) && at < atomic_load(&guards[i].last))
            return &guards[i];
    return NULL;
}

/* Zeros from the faulting page to the end: what follows it in a shortened file is gone too. */
static bool patch(uintptr_t at)
{
    struct mapguard *g = find_guard(at);
    if (!g)
        return false;
    uintptr_t page = at & ~(page_size - 1);
    atomic_store(&g->lost, true);
    return mmap((void *)page, atomic_load(&g->last) - page, PROT_READ,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

static void on_bus(int sig, siginfo_t *info, void *context)
{
    int saved = errno;
    if (info->si_code <= 0 || !patch((uintptr_t)info->si_addr)) {
        if (before.sa_flags & SA_SIGINFO)
            before.sa_sigaction(sig, info, context);
        else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
            before.sa_handler(sig);
        else
            sigaction(sig, &before, NULL); /* the access faults again and ends the process */
    }
    errno = saved;
}

/* At each open, since a library may have put its own handler in between. */
static void install(void)
{
    struct sigaction now, ours = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigemptyset(&ours.sa_mask);
    pthread_mutex_lock(&installing);
    if (!page_size)
        page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (sigaction(SIGBUS, NULL, &now) == 0 &&
        !((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus)) {
        before = now;
        sigaction(SIGBUS, &ours, NULL);
    }
    pthread_mutex_unlock(&installing);
}

static int take_guard(struct mapfile *m, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(guards); i++) {
        bool taken = false;
        struct mapguard *g = &guards[i];
        if (!atomic_compare_exchange_strong(&g->taken, &taken, true))
            continue;
        uintptr_t p = (uintptr_t)m->p;
        atomic_store(&g->lost, false);
        atomic_store(&g->last, (p + m->n + page_size - 1) & ~(page_size - 1));
        atomic_store(&g->first, p);
        m->guard = g;
        return 0;
    }
    return err_set(err, ERR_LIMIT, "more than %u files are mapped at once",
                   LIMIT_MAPPED_FILES);
}

static void give_guard(struct mapguard *g)
{
    if (!g)
        return;
    atomic_store(&g->first, 0);
    atomic_store(&g->last, 0);
    atomic_store(&g->taken, false);
}

static int map(struct mapfile *m, struct err *err)
{
    struct stat st;
    if (fstat(m->fd, &st) < 0)
        return err_sys(err, "stat '%s'", m->path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_UNSUPPORTED, "'%s' is not a regular file", m->path);
    m->n = (uint64_t)st.st_size;
    m->time = st.st_mtim;
    if (m->n == 0)
        return 0;
    void *p = mmap(NULL, (size_t)m->n, PROT_READ, MAP_SHARED, m->fd, 0);
    if (p == MAP_FAILED)
        return err_sys(err, "map '%s'", m->path);
    m->p = p;
    return take_guard(m, err);
}

int mapfile_open(struct mapfile *m, const char *path, struct err *err)
{
    install();
    *m = (struct mapfile){.path = mem_strdup(str_c(path)), .fd = -1};
    if (!m->path)
        return err_nomem(err);
    /* Non-blocking, because a FIFO under this name must be refused, not waited for. */
    m->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = m->fd < 0 ? err_sys(err, "open '%s'", path) : map(m, err);
    if (rc < 0)
        mapfile_close(m);
    return rc;
}

void mapfile_close(struct mapfile *m)
{
    give_guard(m->guard);
    if (m->p)
        munmap((void *)(uintptr_t)m->p, (size_t)m->n);
    if (m->path)
        io_close(&m->fd);
    mem_free(m->path);
    *m = (struct mapfile){.fd = -1};
}

bool mapfile_is(const struct mapfile *m, const struct stat *st)
{
    struct stat own;
    return fstat(m->fd, &own) == 0 && own.st_dev == st->st_dev && own.st_ino == st->st_ino;
}

int mapfile_check(const struct mapfile *m, struct err *err)
{
    struct stat st;
    if (fstat(m->fd, &st) < 0)
        return err_sys(err, "stat '%s'", m->path);
    if ((uint64_t)st.st_size != m->n)
        return err_set(err, ERR_CORRUPT, "'%s' changed size while in use: expected %llu bytes, "
                       "found %llu; put the whole file back and restart", m->path,
                       (unsigned long long)m->n, (unsigned long long)st.st_size);
    if (st.st_mtim.tv_sec != m->time.tv_sec || st.st_mtim.tv_nsec != m->time.tv_nsec)
        return err_set(err, ERR_CORRUPT, "'%s' was rewritten while in use; replace model files "
                       "by rename, and restart", m->path);
    if (m->guard && atomic_load(&m->guard->lost))
        return err_set(err, ERR_CORRUPT, "a part of '%s' could not be read: the file was cut "
                       "for a while, or its disk fails; restart", m->path);
    return 0;
}
