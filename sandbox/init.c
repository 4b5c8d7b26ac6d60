/*
 * init.c - pid 1 of a cell. Builds the tree inside, locks itself down, then waits for
 * requests: fork and confine a run, end a call, report who exited. Single-threaded, not
 * dumpable, every signal blocked; it allocates nothing after the clone.
 *
 *   BUILDING --ready--> RUNNING <--begin-- STOPPED
 *                          |----end, freeze---^        any --control socket closes--> gone
 *
 * At level landlock it is no pid 1 but a subreaper: the processes below it are found by their
 * parents, each is held by a descriptor and looked at before it is signalled, and this is
 * repeated until nobody is left who moves.
 *
 * Ending a call rests on two guarantees of the kernel: kill(-1) is atomic against fork (a
 * signal that arrives in fork makes it start over, or is passed on to the child), and SIGSTOP
 * cannot be caught. So everything is stopped first, then looked at, then killed.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/io.h"
#include "sandbox/build.h"
#include "sandbox/clerk.h"
#include "sandbox/sys.h"
#include "sandbox/tree.h"
#include "sandbox/wire.h"

enum { RUNS_MAX = 64, PROCS_MAX = TREE_MAX, SPENT = 125, SHAKE = 20 /* rounds of a sweep */ };

struct run {
    uint32_t id; /* 0 = free */
    pid_t pid;
    uint32_t keep;
    pid_t leaf; /* of a tree: itself kept, what it started is not; 0 = none */
};

struct proc {
    pid_t pid, parent;
    char state;
    bool kept;
};

struct init {
    struct build *b;
    int signals, ruleset;
    pid_t self;   /* 1, but at level landlock */
    pid_t clerk;  /* ours, never a run; 0 = none */
    bool bare;    /* level landlock: no pid namespace, so everything goes by the tree below us */
    bool stopped;
    struct run run[RUNS_MAX];
    struct proc proc[PROCS_MAX];
    unsigned n_procs;
    char blob[WIRE_BLOB_MAX];
    char *args[WIRE_BLOB_MAX / 16]; /* pointers into blob */
};

/* ---- reports ---- */

static void report(struct init *in, const struct wire *w)
{
    (void)!wire_send(in->b->ctl, w, NULL, NULL, 0);
}

/* `at`: the step of the plan while building, so that the refusal can name its path. */
static _Noreturn void fault_at(int ctl, uint32_t run, const char *step, unsigned at)
{
    struct wire w = {.kind = WIRE_FAULT, .run = run, .a = errno, .b = (int32_t)at};
    size_t n = strlen(step);
    memcpy(w.step, step, n < sizeof w.step ? n : sizeof w.step - 1);
    (void)!wire_send(ctl, &w, NULL, NULL, 0);
    _exit(SPENT);
}

static _Noreturn void fault(int ctl, uint32_t run, const char *step)
{
    fault_at(ctl, run, step, 0);
}

static int64_t ns_of(struct timeval t)
{
    return (int64_t)t.tv_sec * 1000000000 + (int64_t)t.tv_usec * 1000;
}

/* Buries everybody who died; runs are reported, orphans only counted out. A run that code
 * inside stopped goes on: a driver that stands still would hold its call to the deadline. */
static void reap(struct init *in)
{
    int status;
    struct rusage u;
    for (pid_t pid; (pid = wait4(-1, &status, WNOHANG | WUNTRACED, &u)) > 0;) {
        if (WIFSTOPPED(status)) {
            for (unsigned i = 0; !in->stopped && i < RUNS_MAX; i++)
                if (in->run[i].id && in->run[i].pid == pid && in->run[i].keep)
                    kill(pid, SIGCONT);
            continue;
        }
        for (unsigned i = 0; i < RUNS_MAX; i++) {
            struct run *r = &in->run[i];
            if (r->id == 0 || r->pid != pid)
                continue;
            struct wire w = {.kind = WIRE_EXITED, .run = r->id, .a = status};
            w.user_ns = ns_of(u.ru_utime);
            w.system_ns = ns_of(u.ru_stime);
            w.max_rss = (uint64_t)u.ru_maxrss * 1024;
            report(in, &w);
            r->id = 0;
        }
    }
}

/* ---- who is there ---- */

static void on_process(void *arg, pid_t pid)
{
    struct init *in = arg;
    char path[32];
    if (pid == in->self || pid == in->clerk || in->n_procs == PROCS_MAX)
        return;
    struct proc *p = &in->proc[in->n_procs];
    tree_path(path, pid, "/stat");
    *p = (struct proc){.pid = pid};
    if (tree_stat(in->b->proc, path, &p->state, &p->parent))
        in->n_procs++;
}

static const struct proc *find_proc(const struct init *in, pid_t pid)
{
    for (unsigned i = 0; i < in->n_procs; i++)
        if (in->proc[i].pid == pid)
            return &in->proc[i];
    return NULL;
}

static bool descends(const struct init *in, const struct proc *p, pid_t from)
{
    for (unsigned depth = 0; p && depth < PROCS_MAX; depth++) {
        if (p->pid == from)
            return true;
        p = p->parent != in->self ? find_proc(in, p->parent) : NULL;
    }
    return false;
}

static bool is_kept(const struct init *in, const struct proc *p)
{
    for (unsigned i = 0; i < RUNS_MAX; i++) {
        const struct run *r = &in->run[i];
        if (r->id == 0 || r->keep == SANDBOX_KEEP_NONE)
            continue;
        if (p->pid == r->pid || (r->keep >= SANDBOX_KEEP_CHILDREN && p->parent == r->pid) ||
            (r->keep == SANDBOX_KEEP_TREE && descends(in, p, r->pid) &&
             !(r->leaf && p->pid != r->leaf && descends(in, p, r->leaf))))
            return true;
    }
    return false;
}

static void look(struct init *in)
{
    in->n_procs = 0;
    if (in->bare) {
        static pid_t below[TREE_MAX];
        unsigned n = tree_below(in->b->proc, in->self, below, TREE_MAX);
        for (unsigned i = 0; i < n; i++)
            on_process(in, below[i]);
    } else {
        tree_each(in->b->proc, on_process, in);
    }
    for (unsigned i = 0; i < RUNS_MAX; i++) {
        /* A run that has not executed its program yet is not dumpable, so with one id for
         * all even pid 1 does not see it. */
        const struct run *r = &in->run[i];
        if (r->id && !find_proc(in, r->pid) && in->n_procs < PROCS_MAX)
            in->proc[in->n_procs++] =
                (struct proc){.pid = r->pid, .parent = in->self, .state = 'T'};
    }
    for (unsigned i = 0; i < in->n_procs; i++)
        in->proc[i].kept = is_kept(in, &in->proc[i]);
}

static bool at_rest(char state)
{
    return state == 'T' || state == 't' || state == 'Z' || state == 'X';
}

struct resting {
    int proc;
    pid_t pid;
    bool all;
};

static void on_thread(void *arg, pid_t tid)
{
    struct resting *r = arg;
    char path[64], state;
    pid_t parent;
    tree_path(tree_path(path, r->pid, "/task/"), tid, "/stat");
    if (tree_stat(r->proc, path, &state, &parent) && !at_rest(state))
        r->all = false;
}

/* Every thread stopped means that none is half way through a fork. */
static bool threads_rest(struct init *in, pid_t pid)
{
    char path[32];
    tree_path(path, pid, "/task");
    int dir = openat(in->b->proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct resting r = {in->b->proc, pid, true};
    if (dir < 0)
        return true;
    tree_each(dir, on_thread, &r);
    close(dir);
    return r.all;
}

static void nap(long us)
{
    nanosleep(&(struct timespec){0, us * 1000}, NULL);
}

/* ---- requests ---- */

/* In a pid namespace to all but us, at once; without one to each that is found below us. */
static void signal_all(struct init *in, int signo)
{
    if (!in->bare) {
        kill(-1, signo);
        return;
    }
    look(in);
    for (unsigned i = 0; i < in->n_procs; i++)
        (void)tree_signal(in->b->proc, in->self, in->proc[i].pid, signo);
}

static bool signal_one(struct init *in, pid_t pid, int signo)
{
    return in->bare ? tree_signal(in->b->proc, in->self, pid, signo) : kill(pid, signo) == 0;
}

static void begin(struct init *in)
{
    if (in->stopped)
        signal_all(in, SIGCONT);
    in->stopped = false;
}

/* One round: kills who must go; true when only the kept are left and at rest. */
static bool sweep(struct init *in, uint32_t *killed, uint32_t *kept)
{
    bool clean = true;
    look(in);
    *kept = 0;
    for (unsigned i = 0; i < in->n_procs; i++) {
        const struct proc *p = &in->proc[i];
        if (p->state == 'Z' || p->state == 'X')
            continue;
        if (p->kept) {
            bool rests = threads_rest(in, p->pid);
            ++*kept;
            if (in->bare && !rests) /* born since all were stopped */
                (void)signal_one(in, p->pid, SIGSTOP);
            clean &= rests;
            continue;
        }
        if (signal_one(in, p->pid, SIGKILL))
            ++*killed;
        clean = false;
    }
    reap(in);
    return clean;
}

/* A parent in vfork() comes to rest only after its child, which was stopped before it could
 * exec: the kept are let go for a moment, a longer one each time. */
static void shake(struct init *in, long us)
{
    for (unsigned i = 0; i < in->n_procs; i++)
        if (in->proc[i].kept)
            (void)signal_one(in, in->proc[i].pid, SIGCONT);
    nap(us);
    for (unsigned i = 0; i < in->n_procs; i++)
        if (in->proc[i].kept)
            (void)signal_one(in, in->proc[i].pid, SIGSTOP);
    if (!in->bare)
        kill(-1, SIGSTOP); /* also who was born meanwhile; at level landlock sweep() does it */
}

/* Kills all but the kept; the count is of processes, so rounds after the first that meet the
 * dying again are not added. */
static void end_call(struct init *in, uint32_t only_run, bool freeze)
{
    for (unsigned i = 0; only_run && i < RUNS_MAX; i++)
        if (in->run[i].id == only_run)
            in->run[i].keep = SANDBOX_KEEP_NONE;
    in->stopped = true; /* ours: nobody is sent on meanwhile */
    signal_all(in, SIGSTOP);
    struct wire w = {.kind = WIRE_ENDED, .run = only_run};
    uint32_t killed = 0, kept = 0, again = 0;
    bool clean = sweep(in, &killed, &kept);
    for (int tries = 0; !clean && tries < 2000; tries++) {
        if (tries % SHAKE == SHAKE - 1)
            shake(in, 50L * tries);
        nap(tries < 20 ? 50 : 1000);
        clean = sweep(in, &again, &kept);
    }
    if (!clean) /* something will not come to rest: nothing is worth that */
        signal_all(in, SIGKILL);
    if (!freeze)
        begin(in);
    w.a = (int32_t)killed;
    w.b = (int32_t)kept;
    report(in, &w);
}

static void stop_all(struct init *in)
{
    in->stopped = true;
    signal_all(in, SIGSTOP);
}

static void kill_listed(struct init *in)
{
    look(in);
    for (unsigned i = 0; i < in->n_procs; i++)
        (void)signal_one(in, in->proc[i].pid, SIGKILL);
}

static void kill_all(struct init *in)
{
    bool one_by_one = in->bare || in->clerk; /* the clerk stays */
    if (!one_by_one)
        kill(-1, SIGKILL);
    else
        kill_listed(in);
    for (int tries = 0; one_by_one && in->n_procs > 0 && tries < 2000; tries++) {
        reap(in);
        nap(tries < 20 ? 50 : 1000);
        kill_listed(in); /* until nobody is left, however fast they fork */
    }
    in->stopped = false;
    reap(in);
}

static void signal_run(struct init *in, const struct wire *w)
{
    for (unsigned i = 0; i < RUNS_MAX; i++) {
        const struct run *r = &in->run[i];
        if (r->id == 0 || r->id != w->run || w->a <= 0 || w->a >= NSIG)
            continue;
        if (w->b)
            look(in);
        for (unsigned k = 0; w->b && k < in->n_procs; k++)
            if (in->proc[k].pid != r->pid && descends(in, &in->proc[k], r->pid))
                (void)signal_one(in, in->proc[k].pid, w->a);
        kill(r->pid, w->a);
    }
}

/* ---- a run ---- */

static int place_fds(const struct wire *w, const int *fds)
{
    static const int at[WIRE_FDS_MAX] = {0, 1, 2, SANDBOX_CONTROL_FD};
    if (syscall(SYS_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */) < 0)
        return -1;
    unsigned next = 0;
    for (unsigned i = 0; i < WIRE_FDS_MAX; i++) {
        if (!(w->fds & (1u << i)))
            continue; /* pid 1's own 0, 1, 2 are /dev/null */
        if (dup2(fds[next++], at[i]) < 0)
            return -1;
    }
    return 0;
}

static int become_user(const struct plan *p)
{
    if (p->two_ids && (syscall(SYS_setresgid, p->gid, p->gid, p->gid) < 0 ||
                       syscall(SYS_setresuid, p->uid, p->uid, p->uid) < 0))
        return -1;
    return caps_none();
}

static int limit_cpu(const struct wire *w)
{
    struct rlimit l = {w->cpu_seconds, w->cpu_seconds + 5};
    return w->cpu_seconds && w->keep == SANDBOX_KEEP_NONE ? setrlimit(RLIMIT_CPU, &l) : 0;
}

static void exec_path(char **argv, char **envp)
{
    if (strchr(argv[0], '/'))
        execve(argv[0], argv, envp);
    else
        execvpe(argv[0], argv, envp);
}

static _Noreturn void run_child(struct init *in, const struct wire *w, const int *fds,
                                const char *cwd, char **argv, char **envp)
{
    int ctl = in->b->ctl;
    sigset_t none;
    sigemptyset(&none);
    if (setpgid(0, 0) < 0)
        fault(ctl, w->run, "group");
    if (place_fds(w, fds) < 0)
        fault(ctl, w->run, "descriptors");
    if (limit_cpu(w) < 0)
        fault(ctl, w->run, "rlimits");
    if (become_user(in->b->plan) < 0)
        fault(ctl, w->run, "user");
    if (in->ruleset >= 0 && landlock_enter(in->ruleset) < 0)
        fault(ctl, w->run, "landlock");
    /* A workspace that an earlier session closed to its owner is no reason not to start. */
    if (chdir(cwd) < 0 && (errno != EACCES || chdir("/") < 0))
        fault(ctl, w->run, "cwd");
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* execvpe looks up PATH here */
    environ = envp;
    exec_path(argv, envp);
    fault(ctl, w->run, "exec");
}

/* Splits the blob into cwd, argv and env; false when it is not what it says. */
static bool unpack(struct init *in, const struct wire *w, char **cwd, char ***argv,
                   char ***envp)
{
    const size_t room = ARRAY_LEN(in->args);
    size_t words = (size_t)w->n_argv + w->n_env + 2, at = 0;
    if (w->n_argv == 0 || words > room || w->blob == 0 || in->blob[w->blob - 1] != '\0')
        return false;
    char *s = in->blob, *end = in->blob + w->blob;
    *cwd = s;
    s += strlen(s) + 1;
    for (size_t i = 0; i < (size_t)w->n_argv + w->n_env; i++) {
        if (s >= end)
            return false;
        if (i == w->n_argv)
            in->args[at++] = NULL;
        in->args[at++] = s;
        s += strlen(s) + 1;
    }
    if (w->n_env == 0)
        in->args[at++] = NULL;
    in->args[at] = NULL;
    *argv = in->args;
    *envp = in->args + w->n_argv + 1;
    return s == end;
}

/* At level landlock a place of the tree inside is a path of the host: the folder to stand in,
 * the tool, what the tool is told, and where home and temporary files are. The words stay where
 * they are when there is no room, and then name nothing. */
static void relocate(struct init *in, char **cwd, char **argv, char **envp)
{
    static const char *const folders[] = {"HOME=", "TMPDIR="};
    static char room[WIRE_BLOB_MAX];
    const struct plan *p = in->b->plan;
    size_t at = 0;
    bool tool = strcmp(argv[0], SANDBOX_TOOL) == 0;
    char **words[] = {cwd, argv};
    for (unsigned k = 0; k < ARRAY_LEN(words); k++)
        for (char **w = words[k]; *w && at < sizeof room; w++) {
            const char *to = bare_place(p, *w, room + at, sizeof room - at);
            if (to != *w) {
                *w = room + at;
                at += strlen(to) + 1;
            }
            if (k == 0 || !tool) /* of other programs only the name is ours to move */
                break;
        }
    for (; *envp; envp++)
        for (unsigned i = 0; i < ARRAY_LEN(folders); i++) {
            size_t n = strlen(folders[i]);
            if (strncmp(*envp, folders[i], n) != 0 || at + n + 1 >= sizeof room)
                continue;
            const char *to = bare_place(p, *envp + n, room + at + n, sizeof room - at - n);
            if (to == *envp + n)
                continue;
            memcpy(room + at, folders[i], n);
            *envp = room + at;
            at += n + strlen(to) + 1;
        }
}

static void refuse_run(struct init *in, const struct wire *w, int sys, const char *step)
{
    struct wire f = {.kind = WIRE_FAULT, .run = w->run, .a = sys};
    memcpy(f.step, step, strlen(step));
    report(in, &f);
    struct wire gone = {.kind = WIRE_EXITED, .run = w->run, .a = SPENT << 8};
    report(in, &gone);
}

static void start_run(struct init *in, const struct wire *w, const int *fds)
{
    char *cwd, **argv, **envp;
    struct run *slot = NULL;
    for (unsigned i = 0; !slot && i < RUNS_MAX; i++)
        slot = in->run[i].id == 0 ? &in->run[i] : NULL;
    if (!slot || !unpack(in, w, &cwd, &argv, &envp)) {
        refuse_run(in, w, slot ? EINVAL : EAGAIN, "request");
        return;
    }
    if (in->bare)
        relocate(in, &cwd, argv, envp);
    begin(in);
    pid_t pid = fork();
    if (pid == 0)
        run_child(in, w, fds, cwd, argv, envp);
    if (pid < 0) {
        refuse_run(in, w, errno, "fork");
        return;
    }
    (void)setpgid(pid, pid); /* both sides, so that neither races */
    *slot = (struct run){w->run, pid, w->keep, 0};
}

static void handle(struct init *in, const struct wire *w, const int *fds)
{
    switch (w->kind) {
    case WIRE_RUN:
        start_run(in, w, fds);
        break;
    case WIRE_BEGIN:
        begin(in);
        break;
    case WIRE_END:
        end_call(in, w->run, w->a != 0);
        break;
    case WIRE_KEEP:
        for (unsigned i = 0; i < RUNS_MAX; i++)
            if (in->run[i].id == w->run && w->run)
                in->run[i].keep = (uint32_t)w->a, in->run[i].leaf = w->b;
        break;
    case WIRE_SIGNAL:
        signal_run(in, w);
        break;
    case WIRE_STOP:
        stop_all(in);
        break;
    case WIRE_KILL:
        kill_all(in);
        break;
    default:
        break;
    }
}

static _Noreturn void leave(struct init *in)
{
    if (in->bare) {
        kill_all(in);
        if (in->clerk) /* who would change modes for us must not be us */
            kill(in->clerk, SIGKILL);
        scratch_remove(in->b->host->scratch);
    }
    _exit(0);
}

static _Noreturn void serve(struct init *in)
{
    struct pollfd p[2] = {{in->b->ctl, POLLIN, 0}, {in->signals, POLLIN, 0}};
    for (;;) {
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            _exit(SPENT);
        if (p[1].revents) {
            struct signalfd_siginfo s;
            (void)!read(in->signals, &s, sizeof s);
            reap(in);
        }
        if (!p[0].revents)
            continue;
        struct wire w;
        int fds[WIRE_FDS_MAX];
        unsigned n;
        int rc = wire_recv(in->b->ctl, &w, in->blob, sizeof in->blob, fds, &n);
        if (rc == 0 || (rc < 0 && errno != EPROTO))
            leave(in); /* the spawner is gone: the namespace goes with us */
        if (rc > 0)
            handle(in, &w, fds);
        for (unsigned i = 0; i < n; i++)
            close(fds[i]);
    }
}

/* ---- building ---- */

/* Only ours and the three standard ones survive; what the daemon was started with does not. */
static int close_rest(struct build *b, bool trees)
{
    int keep[PLAN_STEPS_MAX + 6];
    unsigned n = 0;
    bool bare = b->plan->level == SANDBOX_LANDLOCK;
    keep[n++] = bare ? b->workspace : -1;
    keep[n++] = bare ? b->scratch : -1;
    keep[n++] = b->ctl;
    keep[n++] = b->proc;
    keep[n++] = b->upper;
    keep[n++] = b->listener;
    for (unsigned i = 0; trees && i < PLAN_STEPS_MAX; i++)
        keep[n++] = b->tree[i];
    for (unsigned i = 1; i < n; i++) /* insertion sort: short, no library */
        for (unsigned k = i; k > 0 && keep[k] < keep[k - 1]; k--) {
            int t = keep[k];
            keep[k] = keep[k - 1];
            keep[k - 1] = t;
        }
    unsigned from = 3;
    for (unsigned i = 0; i < n; i++) {
        if (keep[i] < 3 || (unsigned)keep[i] < from)
            continue;
        if ((unsigned)keep[i] > from && sys_close_range(from, (unsigned)keep[i] - 1) < 0)
            return -1;
        from = (unsigned)keep[i] + 1;
    }
    return sys_close_range(from, ~0u);
}

static int null_stdio(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -1;
    for (int i = 0; i < 3; i++)
        if (dup2(fd, i) < 0)
            return -1;
    if (fd > 2)
        close(fd);
    return 0;
}

static int lock(struct init *in)
{
    struct build *b = in->b;
    const struct plan *p = b->plan;
    sigset_t all, child;
    sigfillset(&all);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    io_close(&b->root);
    if (null_stdio() < 0 || close_rest(b, false) < 0 ||
        sigprocmask(SIG_SETMASK, &all, NULL) < 0)
        return -1;
    in->signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (in->signals < 0)
        return -1;
    in->ruleset = -1;
    if (p->landlock) {
        struct landlock_rule rule[PLAN_RULES_MAX];
        memcpy(rule, p->rule, sizeof rule);
        for (unsigned i = 0; in->bare && i < p->n_rules; i++) { /* as they were checked */
            if (strcmp(rule[i].path, b->spec->workspace) == 0)
                rule[i].fd = b->workspace;
            else if (strcmp(rule[i].path, b->host->scratch) == 0)
                rule[i].fd = b->scratch;
        }
        in->ruleset = landlock_rules(p->landlock, p->tcp_forbidden, p->scoped, rule, p->n_rules);
        if (in->ruleset < 0)
            return -1;
    }
    /* Without a user namespace of its own nothing here is anybody but the payload. */
    if (in->bare && b->host->root &&
        (caps_bounding() < 0 || syscall(SYS_setresgid, p->gid, p->gid, p->gid) < 0 ||
         syscall(SYS_setresuid, p->uid, p->uid, p->uid) < 0))
        return -1;
    return caps_lock(p);
}

static int load_filter(struct init *in)
{
    struct build *b = in->b;
    int rc = clerk_wanted(b) ? clerk_start(b) : filter_load(b->filter);
    if (clerk_wanted(b) && rc > 0)
        in->clerk = rc;
    io_close(&b->workspace);
    io_close(&b->scratch);
    return rc < 0 ? -1 : 0;
}

/* Without a pid namespace: whoever is left below us becomes our child, so that we find it. No
 * signal at the spawner's death, which would leave them; its socket's end tells us. */
static int reaper(struct init *in)
{
    umask(022);
    if (setsid() < 0 && errno != EPERM)
        return -1;
    in->b->proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return in->b->proc < 0 ? -1 : prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

static int inside_step(struct init *in, unsigned i)
{
    struct build *b = in->b;
    const struct plan_step *s = &b->plan->step[i];
    switch (s->what) {
    case DO_REAPER:
        return reaper(in);
    case DO_BECOME:
        return ns_become(b->plan->two_ids);
    case DO_HOSTNAME:
        return ns_hostname(s->a);
    case DO_LOOPBACK:
        return ns_loopback();
    case DO_LISTEN:
        b->listener = ns_listen((uint16_t)s->n1);
        return b->listener < 0 ? -1 : 0;
    case DO_RLIMITS:
        if (in->bare)
            mark_set(b->host->scratch);
        return limits_rlimits(&b->spec->limits, b->others, s->n1 != 0);
    case DO_LOCK:
        return lock(in);
    case DO_FILTER:
        return load_filter(in);
    default:
        return mounts_step(b, i);
    }
}

/* The steps of one phase, in order; the first that fails ends the cell and names itself. */
static void carry_out(struct init *in, enum plan_phase phase)
{
    const struct plan *p = in->b->plan;
    for (unsigned i = 0; i < p->n; i++)
        if (plan_phase(p->step[i].what) == phase && inside_step(in, i) < 0)
            fault_at(in->b->ctl, 0, plan_name(p->step[i].what), i);
}

static void say_ready(struct build *b)
{
    struct wire ready = {.kind = WIRE_READY};
    int give[4];
    unsigned n_give = 0;
    int mounts = b->plan->level == SANDBOX_LANDLOCK
                     ? -1 : openat(b->proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC);
    const int have[4] = {b->proc, b->listener, b->upper, mounts};
    for (unsigned i = 0; i < ARRAY_LEN(have); i++) {
        if (have[i] < 0)
            continue;
        ready.fds |= 1u << i;
        give[n_give++] = have[i];
    }
    if (wire_send(b->ctl, &ready, NULL, give, n_give) < 0)
        _exit(SPENT);
    io_close(&mounts);
    io_close(&b->listener);
    io_close(&b->upper);
}

/* Ready is said before the last phase, so that the first request travels meanwhile; it is read
 * only when everything is locked. */
_Noreturn void init_main(struct build *b)
{
    static struct init in; /* half a megabyte: not on the stack */
    in.b = b;
    in.self = getpid();
    in.bare = b->plan->level == SANDBOX_LANDLOCK;
    io_close(&b->ctl_outside); /* so that the spawner's death is the end of file */
    struct wire go;
    int fds[WIRE_FDS_MAX];
    unsigned n;
    if (wire_recv(b->ctl, &go, NULL, 0, fds, &n) != 1 || go.kind != WIRE_GO)
        _exit(SPENT);
    if (!b->host->root && !in.bare && mounts_sources(b) < 0)
        fault_at(b->ctl, 0, plan_name(DO_SOURCES), b->at);
    carry_out(&in, PLAN_INSIDE);
    say_ready(b);
    carry_out(&in, PLAN_LOCK);
    serve(&in);
}
