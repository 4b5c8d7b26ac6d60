/* child.c - fork, exec, watch, drain, kill. */
#include "tools/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"
#include "tools/toolbox_impl.h"

enum { PIPE_SIZE = 1 << 20, READ_SIZE = 1 << 16, SHOW_MAX = 1 << 16 };

/* Numbers and bits of linux/landlock.h, which the oldest headers lack. */
enum { CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446, PATH_BENEATH = 1 };
enum { MAKE_BLOCK = 1 << 11, REFER = 1 << 13 };

int child_apart(void)
{
    /* A domain must handle something; REFER is denied by every domain that does not allow it. */
    uint64_t handled = MAKE_BLOCK | REFER;
    int ruleset = (int)syscall(CREATE_RULESET, &handled, sizeof handled, 0);
    int root = open("/", O_PATH | O_CLOEXEC);
    struct {
        uint64_t allowed;
        int32_t fd;
    } __attribute__((packed)) rule = {REFER, root};
    if (ruleset >= 0 && (root < 0 || syscall(ADD_RULE, ruleset, PATH_BENEATH, &rule, 0) < 0))
        io_close(&ruleset);
    io_close(&root);
    return ruleset;
}

/*
 * Between vfork and exec, in the parent's memory: system calls and nothing else. A fork
 * would copy the page tables of all our libraries, which costs more than bash's own start.
 */
static NORETURN void become(const struct child_spec *spec, char *const *env, const int fd[3],
                            int control)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL); /* the one we ignore; exec resets the caught ones itself */
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (spec->apart > 0 && syscall(RESTRICT_SELF, spec->apart, 0) < 0)
        _exit(125);
    for (int i = 0; i < 3; i++)
        if (dup2(fd[i], i) < 0)
            _exit(125);
    if (control >= 0 && dup2(control, CHILD_CONTROL_FD) < 0)
        _exit(125);
    close_range(3, CHILD_CONTROL_FD - 1, 0);
    close_range(control >= 0 ? CHILD_CONTROL_FD + 1 : CHILD_CONTROL_FD, ~0u, 0);
    if (spec->cwd && chdir(spec->cwd) < 0 && chdir("/") < 0)
        _exit(125);
    execvpe(spec->argv[0], (char *const *)(uintptr_t)spec->argv, env);
    _exit(127);
}

/* Whether "NAME=..." is replaced by one of the spec's, or belongs to us alone. */
static bool is_dropped(const char *var, const char *const *ours)
{
    size_t n = strcspn(var, "=") + 1;
    if (strncmp(var, "PWD=", n) == 0 || strncmp(var, "OLDPWD=", n) == 0)
        return true; /* ours; a shell would believe it */
    for (unsigned i = 0; ours && ours[i]; i++)
        if (strncmp(var, ours[i], n) == 0)
            return true;
    return false;
}

/* Our environment with the spec's variables; the array is owned, its strings are not. */
static char **make_env(const char *const *more)
{
    size_t n = 0, k = 0;
    while (environ[n])
        n++;
    for (unsigned i = 0; more && more[i]; i++)
        n++;
    char **env = mem_array(n + 1, sizeof *env);
    for (char **e = environ; env && *e; e++)
        if (!is_dropped(*e, more))
            env[k++] = *e;
    for (unsigned i = 0; env && more && more[i]; i++)
        env[k++] = (char *)(uintptr_t)more[i];
    return env;
}

static int make_pipes(const struct child_spec *spec, int ours[3], int theirs[3],
                      struct err *err)
{
    theirs[0] = -1;
    for (int i = spec->pipe_in ? 0 : 1; i < (spec->merge ? 2 : 3); i++) {
        int p[2];
        if (pipe2(p, O_CLOEXEC) < 0)
            return err_sys(err, "pipe");
        ours[i] = p[i == 0];
        theirs[i] = p[i != 0];
        fcntl(ours[i], F_SETFL, O_NONBLOCK);
        if (i)
            fcntl(p[0], F_SETPIPE_SZ, PIPE_SIZE); /* a refusal only costs speed */
    }
    if (spec->merge)
        theirs[2] = theirs[1];
    if (!spec->pipe_in)
        theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return theirs[0] < 0 ? err_sys(err, "open /dev/null") : 0;
}

static int fork_child(struct child *c, const struct child_spec *spec, int theirs[3],
                      struct err *err)
{
    char **env = make_env(spec->env);
    if (!env)
        return err_nomem(err);
    c->pid = vfork();
    if (c->pid == 0)
        become(spec, env, theirs, spec->control);
    mem_free(env);
    if (c->pid < 0)
        return err_sys(err, "start '%s'", spec->argv[0]);
    c->pidfd = io_pidfd_open(c->pid, err);
    return c->pidfd < 0 ? c->pidfd : 0;
}

int child_start(struct child *c, const struct child_spec *spec, struct err *err)
{
    int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1};
    *c = (struct child){.pidfd = -1, .out = {-1, -1}, .in = -1};
    int rc = make_pipes(spec, ours, theirs, err);
    if (rc == 0)
        rc = fork_child(c, spec, theirs, err);
    c->in = ours[0];
    c->out[0] = ours[1];
    c->out[1] = ours[2];
    io_close(&theirs[0]);
    io_close(&theirs[1]);
    if (!spec->merge)
        io_close(&theirs[2]);
    if (rc < 0)
        child_done(c);
    return rc;
}

bool child_reap(struct child *c)
{
    int status;
    if (c->exited || c->pid <= 0)
        return true;
    pid_t r = waitpid(c->pid, &status, WNOHANG);
    if (r == 0 || (r < 0 && errno == EINTR))
        return false;
    c->exited = true;
    c->code = -1;
    if (r == c->pid && WIFEXITED(status))
        c->code = WEXITSTATUS(status);
    if (r == c->pid && WIFSIGNALED(status)) {
        c->signal = WTERMSIG(status);
        c->code = 128 + c->signal;
    }
    return true;
}

void child_kill(struct child *c, int signo)
{
    if (c->pid > 0) {
        kill(-c->pid, signo);
        if (!c->exited)
            kill(c->pid, signo);
    }
}

void child_done(struct child *c)
{
    if (c->pid > 0) {
        child_kill(c, SIGKILL);
        for (struct pollfd p = {c->pidfd, POLLIN, 0}; !child_reap(c);)
            poll(&p, c->pidfd >= 0, 100);
    }
    io_close(&c->pidfd);
    io_close(&c->out[0]);
    io_close(&c->out[1]);
    io_close(&c->in);
    c->pid = 0;
}

int capture_init(struct capture *c, struct toolbox *box, const struct tool_limits *limits,
                 struct err *err)
{
    *c = (struct capture){.box = box, .spill_fd = -1, .spill = -1, .ends_line = true,
                          .stream = 1};
    return keep_init(&c->keep, limits->head, limits->tail, err);
}

void capture_done(struct capture *c)
{
    keep_done(&c->keep);
    io_close(&c->spill_fd);
}

/* To the spill file, up to its cap; a full disk ends the spill, not the call. */
static void spill(struct capture *c, struct str s)
{
    struct err ignored = {0};
    s = str_sub(s, 0, (size_t)(LIMIT_SPILL_BYTES - c->spilled));
    if (c->spill_fd < 0 || s.n == 0)
        return;
    if (io_write_full(c->spill_fd, s.p, s.n, &ignored) < 0)
        io_close(&c->spill_fd);
    c->spilled += s.n;
}

/* The first time that output outgrows what is kept, all so far is still at hand. */
static void start_spill(struct capture *c)
{
    struct buf b;
    const struct keep *k = &c->keep;
    c->spill_fd = toolbox_spill(c->box, &c->spill);
    c->box = NULL;
    buf_init(&b, 0);
    buf_add(&b, k->head, k->head_len);
    if (k->total > k->head_len)
        buf_add(&b, k->ring, (size_t)(k->total - k->head_len));
    spill(c, buf_view(&b));
    buf_done(&b);
}

void capture_feed(struct capture *c, const void *p, size_t n)
{
    if (n == 0)
        return;
    if (c->box && c->keep.total + n > c->keep.head_max + c->keep.ring_max)
        start_spill(c);
    if (c->spill_fd >= 0 && c->spilled < LIMIT_SPILL_BYTES)
        spill(c, str_of(p, n));
    if (c->on_output && c->shown < SHOW_MAX) {
        size_t m = n < SHOW_MAX - c->shown ? n : (size_t)(SHOW_MAX - c->shown);
        c->on_output(c->arg, c->stream, str_of(p, m));
        c->shown += m;
    }
    keep_feed(&c->keep, p, n);
    c->ends_line = ((const char *)p)[n - 1] == '\n';
}

bool capture_drain(struct capture *c, int fd, size_t max)
{
    char chunk[READ_SIZE];
    for (size_t got = 0; got < max;) {
        ssize_t r = read(fd, chunk, sizeof chunk);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return errno == EAGAIN;
        if (r == 0)
            return false;
        capture_feed(c, chunk, (size_t)r);
        got += (size_t)r;
    }
    return true;
}

void capture_text(struct capture *c, struct buf *out, uint64_t *cut)
{
    keep_text(&c->keep, out, cut);
    if (*cut)
        envelope_truncated(out, &c->keep, c->spill_fd >= 0 || c->spilled ? c->spill : -1);
}

static bool is_kept(const pid_t *keep, unsigned n, pid_t pid)
{
    for (unsigned i = 0; i < n; i++)
        if (keep[i] == pid)
            return true;
    return false;
}

void child_kill_strays(const pid_t *keep, unsigned n)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    for (unsigned round = 0; round < 1000; round++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        io_close(&fd);
        if (got <= 0)
            return;
        bool any = false;
        struct str rest = str_of(text, (size_t)got), piece;
        while (str_split(&rest, ' ', &piece)) {
            int64_t pid;
            if (str_to_i64(piece, &pid) && pid > 0 && !is_kept(keep, n, (pid_t)pid)) {
                any = true;
                kill((pid_t)pid, SIGKILL);
                waitpid((pid_t)pid, NULL, 0);
            }
        }
        if (!any)
            return;
    }
}
