/*
 * berth.c - the helper has its own stack but the spawner's memory, thread pointer included;
 * so it touches no libc, not even errno: system calls are made by hand, and it sleeps in one
 * whenever the spawner may run.
 */
#include "sandbox/berth.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/io.h"
#include "sandbox/sys.h"

enum { STACK = 256 * 1024 };

/* Namespaces made ahead: the costly ones. Mounts are copied when the cell is asked for, so that
 * a waiting berth holds no file system of the host; the pid namespace begins with its pid 1. */
#define EARLY (CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

struct berth {
    struct limits_group group;
    int procs[LIMITS_TREES]; /* cgroup.procs of each tree, -1 */
    int ask, answer;         /* eventfds */
    pid_t pid, spawner;
    char *stack;
    struct build *build; /* of the cell to make */
    struct clone_args args;
    int pidfd;
    long result; /* pid or negative errno */
    bool taken;
};

#if defined(__x86_64__)
static long raw(long n, long a, long b, long c)
{
    long r;
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(n), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return r;
}
#elif defined(__aarch64__)
static long raw(long n, long a, long b, long c)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
#endif

bool berth_fits(uint64_t flags)
{
    return (flags & EARLY) == EARLY;
}

bool berth_possible(const struct limits_host *h)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return h == NULL;
#else
    return h->kind == LIMITS_V1;
#endif
}

/* Runs in the helper. "0" written to cgroup.procs means the writer. */
static int helper(void *arg)
{
    struct berth *b = arg;
    uint64_t word = 0;
    raw(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0);
    if (raw(SYS_getppid, 0, 0, 0) != b->spawner) /* it died before that: nobody would tell us */
        raw(SYS_exit, 0, 0, 0);
    for (unsigned i = 0; i < LIMITS_TREES; i++)
        if (b->procs[i] >= 0 && raw(SYS_write, b->procs[i], (long)"0", 1) < 0)
            b->result = -EPERM; /* told when asked */
    if (b->result == 0)
        b->result = raw(SYS_unshare, EARLY, 0, 0);
    while (raw(SYS_read, b->ask, (long)&word, sizeof word) == -EINTR)
        ;
    if (b->result == 0) {
        b->result = raw(SYS_clone3, (long)&b->args, sizeof b->args, 0);
        if (b->result == 0)
            init_main(b->build); /* on a copy of everything, as after fork */
    }
    word = 1;
    raw(SYS_write, b->answer, (long)&word, sizeof word);
    raw(SYS_exit, 0, 0, 0);
    __builtin_unreachable();
}

static bool open_procs(struct berth *b, const struct limits_host *h)
{
    char path[LIMITS_PATH + 96];
    for (unsigned i = 0; i < LIMITS_TREES; i++) {
        if (!h->dir[i][0])
            continue;
        snprintf(path, sizeof path, "%s/%s/cgroup.procs", h->dir[i], b->group.name);
        b->procs[i] = open(path, O_WRONLY | O_CLOEXEC);
        if (b->procs[i] < 0)
            return false;
    }
    return true;
}

struct berth *berth_new(const struct limits_host *h, const char *name)
{
    struct err err = {0};
    struct berth *b = mem_zalloc(sizeof *b);
    if (!b)
        return NULL;
    for (unsigned i = 0; i < LIMITS_TREES; i++)
        b->procs[i] = -1;
    b->pidfd = -1;
    b->spawner = getpid();
    b->ask = eventfd(0, EFD_CLOEXEC);
    b->answer = eventfd(0, EFD_CLOEXEC);
    b->stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK,
                    -1, 0);
    if (b->stack == MAP_FAILED)
        b->stack = NULL;
    if (b->ask < 0 || b->answer < 0 || !b->stack ||
        limits_make(&b->group, h, name, NULL, &err) < 0 || !open_procs(b, h)) {
        berth_free(b);
        return NULL;
    }
    b->pid = clone(helper, b->stack + STACK, CLONE_VM | CLONE_FILES | SIGCHLD, b);
    if (b->pid < 0) {
        berth_free(b);
        return NULL;
    }
    return b;
}

long berth_clone(struct berth *b, struct build *build, uint64_t flags, int *pidfd)
{
    uint64_t word = 1;
    b->build = build;
    /* The spawner's child, not the helper's; its death signal is then the helper's own. */
    b->args = (struct clone_args){.flags = (flags & ~(uint64_t)EARLY) | CLONE_PIDFD | CLONE_PARENT,
                                  .pidfd = (uintptr_t)&b->pidfd};
    if (write(b->ask, &word, sizeof word) != sizeof word)
        return -1;
    while (read(b->answer, &word, sizeof word) < 0 && errno == EINTR)
        ;
    if (b->result < 0) {
        errno = (int)-b->result;
        return -1;
    }
    *pidfd = b->pidfd;
    return b->result;
}

bool berth_is(const struct berth *b, pid_t pid)
{
    return b && b->pid == pid;
}

void berth_take_group(struct berth *b, struct limits_group *g)
{
    *g = b->group;
    b->taken = true;
}

void berth_free(struct berth *b)
{
    if (!b)
        return;
    if (b->pid > 0) {
        kill(b->pid, SIGKILL); /* it has exited, or waits for nothing any more */
        while (waitpid(b->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    for (unsigned i = 0; i < LIMITS_TREES; i++)
        io_close(&b->procs[i]);
    io_close(&b->ask);
    io_close(&b->answer);
    if (b->stack)
        munmap(b->stack, STACK);
    if (!b->taken && b->group.made)
        limits_remove(&b->group);
    mem_free(b);
}
