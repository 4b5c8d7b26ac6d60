/*
 * clerk.c - receives notifications and answers them. A change of mode or times is resolved once
 * to a descriptor, that descriptor's own path is compared with what the cell may write, and the
 * change is made to it: what happens to the name meanwhile does not matter.
 */
#include "sandbox/clerk.h"

#include <errno.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "base/io.h"
#include "sandbox/spec.h"
#include "sandbox/sys.h"
#include "sandbox/wire.h"

enum { CALLS = 512, ROOTS = SANDBOX_BINDS_MAX + 2 };

struct clerk {
    struct build *b;
    int listener;
    const char *root[ROOTS]; /* real paths below which files are the cell's own */
    unsigned n_roots;
    char real[2][PATH_MAX];
    uint64_t seen[CALLS]; /* by number: how often it was refused */
};

bool clerk_wanted(const struct build *b)
{
    return b->plan->level == SANDBOX_LANDLOCK || b->spec->log_calls;
}

/* ---- whose file it is ---- */

static const char *self_path(char out[40], int fd)
{
    snprintf(out, 40, "/proc/self/fd/%d", fd);
    return out;
}

/* Where a descriptor leads, as the kernel spells it now; false when that is too long. */
static bool path_of(int fd, char out[PATH_MAX])
{
    char self[40];
    ssize_t n = readlink(self_path(self, fd), out, PATH_MAX - 1);
    out[n > 0 ? n : 0] = '\0';
    return n > 0 && n < PATH_MAX - 1;
}

static void find_roots(struct clerk *c)
{
    const int fds[] = {c->b->workspace, c->b->scratch};
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0 && path_of(fds[i], c->real[i]))
            c->root[c->n_roots++] = c->real[i];
    for (uint32_t i = 0; i < c->b->spec->n_binds; i++)
        if (c->b->spec->bind[i].write)
            c->root[c->n_roots++] = c->b->spec->bind[i].host;
}

/* Files without a path (memory, pipes) are nobody else's. */
static bool is_own(const struct clerk *c, int fd)
{
    char path[PATH_MAX];
    if (!path_of(fd, path))
        return false;
    if (path[0] != '/' || strncmp(path, "/memfd:", 7) == 0)
        return true;
    for (unsigned i = 0; i < c->n_roots; i++)
        if (spec_below(path, c->root[i]))
            return true;
    return false;
}

/* ---- what the caller means ---- */

static int of_caller(const struct clerk *c, uint32_t pid, const char *what, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "%u/%s", pid, what);
    return openat(c->b->proc, path, flags | O_CLOEXEC);
}

/* Bytes of the caller's memory; how many there are before it ends, or -1. */
static ssize_t peek(const struct clerk *c, uint32_t pid, uint64_t at, void *to, size_t n)
{
    int fd = of_caller(c, pid, "mem", O_RDONLY);
    if (fd < 0)
        return -1;
    ssize_t got = pread(fd, to, n, (off_t)at);
    close(fd);
    return got;
}

static int base_of(const struct clerk *c, uint32_t pid, int dir)
{
    char what[24];
    if (dir == AT_FDCWD)
        return of_caller(c, pid, "cwd", O_PATH);
    snprintf(what, sizeof what, "fd/%d", dir);
    return of_caller(c, pid, what, O_PATH);
}

/* The file that a call names: `at` is a path in its memory, or 0 for the descriptor itself. */
static int resolve(const struct clerk *c, uint32_t pid, int dir, uint64_t at, bool follow,
                   bool empty)
{
    char path[PATH_MAX];
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | (follow ? 0u : (unsigned)O_NOFOLLOW),
                           .resolve = RESOLVE_NO_MAGICLINKS};
    if (at == 0)
        return base_of(c, pid, dir);
    ssize_t n = peek(c, pid, at, path, sizeof path);
    if (n <= 0 || !memchr(path, '\0', (size_t)n)) {
        errno = n == (ssize_t)sizeof path ? ENAMETOOLONG : EFAULT;
        return -1;
    }
    if (path[0] == '/')
        return sys_openat2(AT_FDCWD, path, &how);
    int base = base_of(c, pid, dir);
    if (base < 0 || (path[0] == '\0' && empty))
        return base;
    int fd = sys_openat2(base, path, &how);
    int saved = errno;
    close(base);
    errno = saved;
    return fd;
}

/* ---- the changes ---- */

static int change_mode(const struct clerk *c, int fd, mode_t mode)
{
    char self[40];
    if ((mode & (S_ISUID | S_ISGID)) || !is_own(c, fd)) {
        errno = EPERM;
        return -1;
    }
    return chmod(self_path(self, fd), mode & 07777);
}

static int change_times(const struct clerk *c, uint32_t pid, int fd, uint64_t at)
{
    struct timespec t[2];
    char self[40];
    if (!is_own(c, fd)) {
        errno = EPERM;
        return -1;
    }
    if (at && peek(c, pid, at, t, sizeof t) != sizeof t) {
        errno = EFAULT;
        return -1;
    }
    return utimensat(AT_FDCWD, self_path(self, fd), at ? t : NULL, 0);
}

/* Errno of the call, 0 when it was done. */
static int carry_out(const struct clerk *c, const struct seccomp_notif *n)
{
    const __u64 *a = n->data.args;
    int rc, fd = -1;
    bool mode = true, follow = true;
    uint64_t times = 0;
    mode_t bits = 0;
    switch (n->data.nr) {
#ifdef SYS_chmod
    case SYS_chmod:
        fd = resolve(c, n->pid, AT_FDCWD, a[0], true, false);
        bits = (mode_t)a[1];
        break;
#endif
    case SYS_fchmod:
        fd = resolve(c, n->pid, (int)a[0], 0, true, false);
        bits = (mode_t)a[1];
        break;
    case SYS_fchmodat:
        fd = resolve(c, n->pid, (int)a[0], a[1] ? a[1] : 1, true, false);
        bits = (mode_t)a[2];
        break;
    default: /* utimensat */
        follow = !((int)a[3] & AT_SYMLINK_NOFOLLOW);
        fd = resolve(c, n->pid, (int)a[0], a[1], follow, ((int)a[3] & AT_EMPTY_PATH) != 0);
        times = a[2];
        mode = false;
    }
    if (fd < 0)
        return errno;
    /* What was read belongs to this call only if its caller still waits for it. */
    if (ioctl(c->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &n->id) < 0) {
        close(fd);
        return EINTR;
    }
    rc = mode ? change_mode(c, fd, bits) : change_times(c, n->pid, fd, times);
    int saved = rc < 0 ? errno : 0;
    close(fd);
    return saved;
}

static bool is_ours(const struct clerk *c, int nr)
{
    if (c->b->plan->level != SANDBOX_LANDLOCK)
        return false;
#ifdef SYS_chmod
    if (nr == SYS_chmod)
        return true;
#endif
    return nr == SYS_fchmod || nr == SYS_fchmodat || nr == SYS_utimensat;
}

/* ---- refused calls ---- */

/* Told when it happens first, and then ever more rarely: a flood of calls is no flood of words. */
static void report(struct clerk *c, int nr)
{
    uint64_t *seen = &c->seen[nr >= 0 && nr < CALLS - 1 ? nr : CALLS - 1];
    ++*seen;
    if (!c->b->spec->log_calls || (*seen & (*seen - 1)))
        return;
    struct wire w = {.kind = WIRE_REFUSED, .a = nr, .max_rss = *seen};
    (void)filter_call_name(nr, w.step, sizeof w.step);
    (void)!wire_send(c->b->ctl, &w, NULL, NULL, 0);
}

/* What the filter would have said, had it been left to itself. */
static int errno_of(const struct clerk *c, const struct seccomp_notif *n)
{
    uint32_t says = filter_ask(c->b->filter, &n->data);
    int code = (int)(says & SECCOMP_RET_DATA);
    return (says & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO && code ? code : ENOSYS;
}

static _Noreturn void serve(struct clerk *c)
{
    for (;;) {
        struct seccomp_notif n = {0};
        struct seccomp_notif_resp answer = {0};
        if (ioctl(c->listener, SECCOMP_IOCTL_NOTIF_RECV, &n) < 0) {
            if (errno == EINTR || errno == ENOENT)
                continue;
            _exit(0);
        }
        int code;
        if (is_ours(c, n.data.nr)) {
            code = carry_out(c, &n);
            if (code == EPERM)
                report(c, n.data.nr);
        } else {
            code = errno_of(c, &n);
            report(c, n.data.nr);
        }
        answer.id = n.id;
        answer.error = -code;
        (void)!ioctl(c->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

/* ---- life ---- */

static _Noreturn void clerk_main(struct build *b, int from)
{
    static struct clerk c;
    struct wire w;
    int fds[WIRE_FDS_MAX];
    unsigned n = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (caps_none() < 0 || filter_load(b->clerk_filter) < 0 ||
        wire_recv(from, &w, NULL, 0, fds, &n) != 1 || n != 1)
        _exit(1);
    close(from);
    c.b = b;
    c.listener = fds[0];
    if (b->plan->level == SANDBOX_LANDLOCK)
        find_roots(&c);
    serve(&c);
}

int clerk_start(struct build *b)
{
    int pair[2];
    struct wire w = {.kind = WIRE_GO};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        close(pair[0]);
        clerk_main(b, pair[1]);
    }
    close(pair[1]);
    int listener = pid < 0 ? -1 : filter_load_listener(b->notify_filter);
    int rc = listener < 0 ? -1 : wire_send(pair[0], &w, NULL, &listener, 1);
    int saved = errno;
    io_close(&listener);
    close(pair[0]);
    errno = saved;
    return rc < 0 ? -1 : pid;
}
