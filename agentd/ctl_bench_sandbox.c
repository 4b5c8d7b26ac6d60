/*
 * ctl_bench_sandbox.c - `agentctl bench sandbox`: what confinement costs, in one paired run.
 * Every round measures each subject once, so that a busy machine slows all of them alike;
 * medians and ratios are what counts. bwrap, where it is installed, gets a like tree.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "agentd/ctl_sandbox.h"
#include "base/io.h"
#include "base/json.h"
#include "sandbox/spec.h"

extern char **environ;

enum { ROUNDS_MAX = 1000, IDLE_CELLS = 100 };

enum subject { FORK_EXEC, BWRAP, COLD, COLD_CLOSED, WARM, PYTHON, SUBJECTS };

static const char *const subject_names[SUBJECTS] = {
    "fork and exec of true", "bwrap of a like tree, true", "cold cell, true",
    "cold cell, true, and closed", "call in a warm cell, true",
    "call in the kept interpreter, pass"};

struct bench {
    struct ev *ev;
    struct spawner *s;
    struct sandbox_spec *spec;
    struct cell *warm;
    int control; /* of the kept interpreter */
    double *ms[SUBJECTS];
    unsigned n[SUBJECTS];
    unsigned pending;
    bool opened, refused, closed;
    struct sandbox_exit exit;
    struct sandbox_refusal refusal;
    double timeout_ms, flood_gbps, flood_growth_kib, idle_kib, idle_cpu_ms;
};

static double since(int64_t t)
{
    return (double)(io_mono_ns() - t) / 1e6;
}

static void record(struct bench *b, enum subject s, double ms)
{
    if (b->n[s] < ROUNDS_MAX)
        b->ms[s][b->n[s]++] = ms;
}

/* ---- waiting ---- */

static void on_opened(void *arg, const struct cell_info *info)
{
    (void)info;
    ((struct bench *)arg)->opened = true;
}

static void on_refused(void *arg, const struct sandbox_refusal *r)
{
    struct bench *b = arg;
    b->refusal = *r;
    b->refused = true;
}

static void on_gone(void *arg, const char *why)
{
    struct bench *b = arg;
    snprintf(b->refusal.reason, sizeof b->refusal.reason, "%s", why);
    b->refused = true;
}

static const struct cell_cb callbacks = {on_opened, on_refused, on_gone, NULL};

static void on_done(void *arg, const struct sandbox_exit *x)
{
    struct bench *b = arg;
    b->exit = *x;
    b->pending--;
}

static void on_ended(void *arg, const struct cell_ended *e)
{
    (void)e;
    ((struct bench *)arg)->pending--;
}

static void on_closed(void *arg)
{
    ((struct bench *)arg)->closed = true;
}

static int open_cell(struct bench *b, struct cell **cell, struct err *err)
{
    b->opened = b->refused = false;
    int rc = cell_open(cell, b->s, b->spec, &callbacks, b, err);
    while (rc == 0 && !b->opened && !b->refused)
        ev_run_once(b->ev, true);
    if (rc == 0 && b->refused)
        rc = err_set(err, ERR_DENIED, "%s; %s", b->refusal.reason, b->refusal.remedy);
    return rc;
}

static void close_cell(struct bench *b, struct cell *cell)
{
    b->closed = false;
    cell_close(cell, on_closed, b);
    while (!b->closed)
        ev_run_once(b->ev, true);
}

static int run_in(struct bench *b, struct cell *cell, const char *const *argv, int out,
                  uint32_t wall_ms, struct err *err)
{
    struct cell_run run = {.argv = argv, .fd = {-1, out, -1, -1}, .wall_ms = wall_ms,
                           .done = on_done, .arg = b};
    b->pending = 1;
    int rc = cell_start(cell, &run, NULL, err);
    while (rc == 0 && b->pending)
        ev_run_once(b->ev, true);
    return rc;
}

static int end_call(struct bench *b, struct cell *cell, struct err *err)
{
    b->pending = 1;
    int rc = cell_end(cell, true, on_ended, b, err);
    while (rc == 0 && b->pending)
        ev_run_once(b->ev, true);
    return rc;
}

/* ---- subjects ---- */

static const char *const just_true[] = {"/bin/true", NULL};

static int spawn_wait(const char *const *argv, struct err *err)
{
    pid_t pid;
    int status, rc = posix_spawn(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv,
                                 environ);
    if (rc != 0) {
        errno = rc;
        return err_sys(err, "start %s", argv[0]);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0 ? 0 : err_set(err, ERR_SYS, "%s failed", argv[0]);
}

static int try_bwrap(struct bench *b, struct err *err)
{
    const char *const argv[] = {
        "/usr/bin/bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind",
        "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
        "--symlink", "usr/lib64", "/lib64", "--symlink", "usr/sbin", "/sbin", "--ro-bind",
        "/etc/alternatives", "/etc/alternatives", "--ro-bind", "/etc/ld.so.cache",
        "/etc/ld.so.cache", "--ro-bind", "/etc/ssl/certs", "/etc/ssl/certs", "--proc", "/proc",
        "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp", "--bind",
        b->spec->workspace, "/workspace", "--chdir", "/workspace", "/bin/true", NULL};
    if (access(argv[0], X_OK) < 0)
        return 0;
    int64_t t = io_mono_ns();
    int rc = spawn_wait(argv, err);
    if (rc == 0)
        record(b, BWRAP, since(t));
    return rc;
}

static int try_cold(struct bench *b, struct err *err)
{
    struct cell *cell = NULL;
    int64_t t = io_mono_ns();
    int rc = open_cell(b, &cell, err);
    if (rc == 0)
        rc = run_in(b, cell, just_true, -1, 0, err);
    if (rc == 0)
        record(b, COLD, since(t));
    if (cell)
        close_cell(b, cell);
    if (rc == 0)
        record(b, COLD_CLOSED, since(t));
    return rc;
}

static int try_warm(struct bench *b, struct err *err)
{
    int64_t t = io_mono_ns();
    int rc = run_in(b, b->warm, just_true, -1, 0, err);
    if (rc == 0)
        record(b, WARM, since(t));
    return rc < 0 ? rc : end_call(b, b->warm, err);
}

/* Blocking on purpose: the interpreter's answer, not the loop, is what is timed. */
static int try_python(struct bench *b, struct err *err)
{
    char reply[8];
    int64_t t = io_mono_ns();
    int rc = cell_begin(b->warm, err);
    if (rc == 0 && (send(b->control, "pass", 4, 0) < 0 ||
                    recv(b->control, reply, sizeof reply, 0) <= 0))
        rc = err_sys(err, "kept interpreter");
    if (rc == 0)
        record(b, PYTHON, since(t));
    return rc < 0 ? rc : end_call(b, b->warm, err);
}

static const char driver[] =
    "import socket\n"
    "s = socket.socket(fileno=100)\n"
    "g = {}\n"
    "while True:\n"
    "  code = s.recv(65536)\n"
    "  if not code: break\n"
    "  exec(compile(code, '<cell>', 'exec'), g)\n"
    "  s.send(b'ok')\n";

static int start_python(struct bench *b, struct err *err)
{
    static const char *const argv[] = {"/usr/bin/python3", "-I", "-S", "-c", driver, NULL};
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(err, "socket pair");
    struct cell_run run = {.argv = argv, .fd = {-1, -1, -1, pair[1]},
                           .keep = SANDBOX_KEEP_SELF};
    int rc = cell_start(b->warm, &run, NULL, err);
    close(pair[1]);
    b->control = pair[0];
    for (int i = 0; rc == 0 && i < 3; i++) { /* starts, then warms up */
        b->n[PYTHON] = 0;
        rc = try_python(b, err);
    }
    b->n[PYTHON] = 0;
    return rc;
}

/* From the deadline to the end of file of a pipe that every process of the tree holds. */
static int measure_timeout(struct bench *b, struct err *err)
{
    static const char *const argv[] = {
        "/bin/bash", "--norc", "-c",
        "trap '' TERM INT HUP; for i in 1 2 3 4 5 6 7 8; do setsid sleep 1000 & done; "
        "while :; do :; done", NULL};
    int p[2];
    char c;
    enum { WALL = 300 };
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "pipe");
    int64_t t = io_mono_ns();
    int rc = run_in(b, b->warm, argv, p[1], WALL, err);
    close(p[1]);
    while (rc == 0 && read(p[0], &c, 1) > 0)
        ;
    b->timeout_ms = since(t) - WALL;
    close(p[0]);
    return rc < 0 ? rc : end_call(b, b->warm, err);
}

static double rss_kib(void)
{
    struct buf f;
    struct err err = {0};
    double kib = 0;
    buf_init(&f, 65536);
    if (io_read_file("/proc/self/status", &f, &err) == 0) {
        const char *at = strstr(buf_cstr(&f), "VmRSS:");
        kib = at ? strtod(at + 6, NULL) : 0;
    }
    buf_done(&f);
    return kib;
}

/* A gigabyte of output through a pipe that is read always and kept to its cap. */
static int measure_flood(struct bench *b, struct err *err)
{
    static const char *const argv[] = {"/usr/bin/head", "-c", "1G", "/dev/zero", NULL};
    static char chunk[1 << 18];
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "pipe");
    (void)!fcntl(p[0], F_SETPIPE_SZ, 1 << 20);
    double before = rss_kib(), bytes = 0;
    struct cell_run run = {.argv = argv, .fd = {-1, p[1], -1, -1}, .done = on_done, .arg = b};
    b->pending = 1;
    int64_t t = io_mono_ns();
    int rc = cell_start(b->warm, &run, NULL, err);
    close(p[1]);
    for (ssize_t n; rc == 0 && (n = read(p[0], chunk, sizeof chunk)) > 0;)
        bytes += (double)n;
    b->flood_gbps = bytes / 1e6 / since(t);
    b->flood_growth_kib = rss_kib() - before;
    close(p[0]);
    while (rc == 0 && b->pending)
        ev_run_once(b->ev, true);
    return rc < 0 ? rc : end_call(b, b->warm, err);
}

static double cpu_ms(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

static int measure_idle(struct bench *b, struct err *err)
{
    static struct cell *cells[IDLE_CELLS];
    double before = rss_kib();
    unsigned n = 0;
    int rc = 0;
    for (; rc == 0 && n < IDLE_CELLS; n++) {
        rc = open_cell(b, &cells[n], err);
        if (rc == 0)
            rc = run_in(b, cells[n], just_true, -1, 0, err);
        if (rc == 0)
            rc = end_call(b, cells[n], err);
    }
    b->idle_kib = (rss_kib() - before) / IDLE_CELLS;
    double cpu = cpu_ms();
    usleep(500000);
    ev_run_once(b->ev, false);
    b->idle_cpu_ms = cpu_ms() - cpu;
    for (unsigned i = 0; i < n; i++)
        close_cell(b, cells[i]);
    return rc;
}

/* ---- the run ---- */

static int measure(struct bench *b, unsigned rounds, struct err *err)
{
    int rc = open_cell(b, &b->warm, err);
    if (rc == 0)
        rc = start_python(b, err);
    for (unsigned i = 0; rc == 0 && i < rounds; i++) {
        int64_t t = io_mono_ns();
        rc = spawn_wait(just_true, err);
        if (rc == 0)
            record(b, FORK_EXEC, since(t));
        if (rc == 0)
            rc = try_bwrap(b, err);
        if (rc == 0)
            rc = try_cold(b, err);
        if (rc == 0)
            rc = try_warm(b, err);
        if (rc == 0)
            rc = try_python(b, err);
    }
    if (rc == 0)
        rc = measure_timeout(b, err);
    if (rc == 0)
        rc = measure_flood(b, err);
    if (rc == 0)
        rc = measure_idle(b, err);
    return rc;
}

static int by_value(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static double at(const struct bench *b, enum subject s, double share)
{
    return b->n[s] ? b->ms[s][(unsigned)((b->n[s] - 1) * share)] : 0;
}

static void print_text(const struct bench *b)
{
    printf("%-40s %8s %8s %8s %6s\n", "milliseconds", "median", "least", "p95", "runs");
    for (int s = 0; s < SUBJECTS; s++)
        if (b->n[s])
            printf("%-40s %8.3f %8.3f %8.3f %6u\n", subject_names[s], at(b, s, 0.5),
                   at(b, s, 0), at(b, s, 0.95), b->n[s]);
    puts("");
    if (b->n[BWRAP])
        printf("%-40s %8.2f   (bar 0.75)\n", "cold cell / bwrap",
               at(b, COLD, 0.5) / at(b, BWRAP, 0.5));
    printf("%-40s %8.3f   (bar 3)\n", "cold cell - fork and exec, ms",
           at(b, COLD, 0.5) - at(b, FORK_EXEC, 0.5));
    printf("%-40s %8.3f   (bar 0.5)\n", "warm call - fork and exec, ms",
           at(b, WARM, 0.5) - at(b, FORK_EXEC, 0.5));
    printf("%-40s %8.3f   (bar 0.5)\n", "kept interpreter, ms", at(b, PYTHON, 0.5));
    printf("%-40s %8.1f   (bar 50)\n", "deadline to last process dead, ms", b->timeout_ms);
    printf("%-40s %8.2f   (bar 1)\n", "output flood, GB/s", b->flood_gbps);
    printf("%-40s %8.0f   (flat)\n", "memory growth meanwhile, KiB", b->flood_growth_kib);
    printf("%-40s %8.1f   (bar 300)\n", "idle cell, KiB of this process", b->idle_kib);
    printf("%-40s %8.1f   (bar 0)\n", "processor time of 100 idle cells, ms", b->idle_cpu_ms);
}

static void print_json(const struct bench *b)
{
    json_t *o = json_object();
    static const char *const keys[SUBJECTS] = {"fork_exec", "bwrap", "cold", "cold_closed",
                                               "warm", "python"};
    for (int s = 0; s < SUBJECTS; s++) {
        json_t *e = json_object();
        json_object_set_new(e, "median_ms", json_real(at(b, s, 0.5)));
        json_object_set_new(e, "least_ms", json_real(at(b, s, 0)));
        json_object_set_new(e, "p95_ms", json_real(at(b, s, 0.95)));
        json_object_set_new(e, "runs", json_integer(b->n[s]));
        json_object_set_new(o, keys[s], b->n[s] ? json_incref(e) : json_null());
        json_decref(e);
    }
    json_object_set_new(o, "cold_to_bwrap", b->n[BWRAP]
                            ? json_real(at(b, COLD, 0.5) / at(b, BWRAP, 0.5)) : json_null());
    json_object_set_new(o, "timeout_to_dead_ms", json_real(b->timeout_ms));
    json_object_set_new(o, "flood_gb_per_s", json_real(b->flood_gbps));
    json_object_set_new(o, "flood_growth_kib", json_real(b->flood_growth_kib));
    json_object_set_new(o, "idle_cell_kib", json_real(b->idle_kib));
    json_object_set_new(o, "idle_cpu_ms", json_real(b->idle_cpu_ms));
    struct buf out;
    struct err err = {0};
    buf_init(&out, 0);
    if (json_write_pretty(o, &out, &err) == 0)
        puts(buf_cstr(&out));
    buf_done(&out);
    json_decref(o);
}

static int set_up(struct bench *b, char *workspace, struct err *err)
{
    struct spawner_opts so = {0};
    int rc = spawner_start(&b->s, &so, err);
    b->spec = mem_zalloc(sizeof *b->spec);
    if (rc == 0 && !b->spec)
        rc = err_nomem(err);
    for (int s = 0; s < SUBJECTS; s++) {
        b->ms[s] = mem_array(ROUNDS_MAX, sizeof *b->ms[s]);
        if (rc == 0 && !b->ms[s])
            rc = err_nomem(err);
    }
    if (rc == 0 && !mkdtemp(workspace))
        rc = err_sys(err, "make a workspace in /tmp");
    if (rc == 0)
        rc = ev_new(&b->ev, err);
    if (rc == 0)
        rc = spawner_attach(b->s, b->ev, NULL, NULL, err);
    if (rc < 0)
        return rc;
    b->spec->require = SANDBOX_NOLIMITS;
    b->spec->work = SANDBOX_WORK_DIR;
    snprintf(b->spec->workspace, sizeof b->spec->workspace, "%s", workspace);
    return spec_check(b->spec, err);
}

int ctl_bench_sandbox(int argc, char **argv)
{
    bool json = false;
    int64_t rounds = 50;
    const struct opt opts[] = {
        {"rounds", 'n', OPT_INT, &rounds, "N", "rounds of the paired part (50)"},
        {"json", 'j', OPT_FLAG, &json, NULL, "the figures as JSON"},
    };
    const struct opt_cmd cmd = {
        "agentctl bench sandbox", "", "Measure what confinement costs, beside fork+exec and bwrap.",
        "Exit status: 0 measured, 1 failed. The bars are printed beside the figures, not\n"
        "judged: a busy machine proves nothing.",
        opts, ARRAY_LEN(opts), 0, 0};
    int code;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    if (rounds < 3 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "agentctl bench sandbox: --rounds must be 3 to %d\n", ROUNDS_MAX);
        return EXIT_USAGE;
    }
    static struct bench b = {.control = -1};
    struct err err = {0};
    char workspace[] = "/tmp/agentd-bench-XXXXXX";
    int rc = set_up(&b, workspace, &err);
    if (rc == 0)
        rc = measure(&b, (unsigned)rounds, &err);
    for (int s = 0; s < SUBJECTS; s++)
        if (b.ms[s])
            qsort(b.ms[s], b.n[s], sizeof *b.ms[s], by_value);
    if (rc == 0 && json)
        print_json(&b);
    else if (rc == 0)
        print_text(&b);
    if (b.warm)
        close_cell(&b, b.warm);
    io_close(&b.control);
    spawner_free(b.s);
    ev_free(b.ev);
    rmdir(workspace);
    for (int s = 0; s < SUBJECTS; s++)
        mem_free(b.ms[s]);
    mem_free(b.spec);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}
