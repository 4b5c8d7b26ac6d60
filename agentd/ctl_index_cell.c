/* ctl_index_cell.c - one run of agentd-tool index in a cell of its own, with its progress. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/ctl_index.h"
#include "agentd/policy.h"
#include "agentd/spawner.h"
#include "base/io.h"
#include "base/mem.h"

enum { LINE_CAP = 8192 };

struct indexing {
    struct ev *ev;
    struct spawner *spawner;
    struct cell *cell;
    struct ev_fd *watch;
    struct ev_signal *interrupt;
    const char *db;
    int pipe[2], alive[2]; /* alive: the end of ours is closed to make the indexer stop */
    const char *argv[7];
    index_progress tick;
    void *arg;
    struct index_stats *stats;
    struct buf in;
    bool done, told; /* told: a last line came */
    int rc;
    struct err *err;
};

static void end(struct indexing *x)
{
    x->done = true;
    ev_stop(x->ev);
}

/* "P seen total path", "S ...", "E sentence": from inside, so only numbers are believed. */
static void take_line(struct indexing *x, struct str line)
{
    char text[LINE_CAP];
    unsigned long long v[8];
    snprintf(text, sizeof text, "%.*s", STR_ARG(str_sub(line, 0, sizeof text - 1)));
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    if (text[0] == 'P' && sscanf(text, "P %llu %llu", &v[0], &v[1]) == 2) {
        char *path = strchr(text + 2, ' ');
        path = path ? strchr(path + 1, ' ') : NULL;
        (void)x->tick(x->arg, v[0], v[1], path ? path + 1 : "");
    } else if (text[0] == 'S' &&
               sscanf(text, "S %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
                      &v[4], &v[5], &v[6], &v[7]) == 8) {
        *x->stats = (struct index_stats){v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7] != 0};
        x->told = true;
    } else if (text[0] == 'E') {
        static const char inside[] = "search index '" SANDBOX_WORKSPACE "/index.db': ";
        const char *why = text + (text[1] ? 2 : 1);
        if (strncmp(why, inside, sizeof inside - 1) == 0)
            why += sizeof inside - 1;
        x->rc = err_set(x->err, ERR_STATE, "search index '%s': %s", x->db, why);
        x->told = true;
    }
}

static void on_pipe(void *arg, int ready)
{
    struct indexing *x = arg;
    char chunk[8192];
    ssize_t n;
    (void)ready;
    while ((n = read(x->pipe[0], chunk, sizeof chunk)) > 0) {
        buf_add(&x->in, chunk, (size_t)n);
        size_t nl;
        while ((nl = str_find(buf_view(&x->in), STR("\n"), 0)) != STR_NONE) {
            take_line(x, str_sub(buf_view(&x->in), 0, nl));
            buf_consume(&x->in, nl + 1);
        }
        if (x->in.len > LINE_CAP)
            buf_reset(&x->in);
    }
    if (n == 0)
        ev_fd_set(x->watch, 0);
}

static void on_done(void *arg, const struct sandbox_exit *e)
{
    struct indexing *x = arg;
    char limits[80];
    on_pipe(x, EV_READ);
    if (x->rc == 0 && e->failed)
        x->rc = err_set(x->err, ERR_STATE, "agentd-tool could not start in its cell (%s)", e->step);
    else if (x->rc == 0 && e->limits)
        x->rc = err_set(x->err, ERR_LIMIT, "a document brought the indexer to a limit of its cell "
                        "(%s)", sandbox_limits_text(e->limits, limits, sizeof limits));
    else if (x->rc == 0 && (e->code != 0 || !x->told))
        x->rc = err_set(x->err, ERR_STATE, "the indexer ended early (exit code %d, signal %d)",
                        e->code, e->signal);
    end(x);
}

/* Ctrl-C: the indexer keeps what it has read and ends. */
static void on_interrupt(void *arg, int signo)
{
    struct indexing *x = arg;
    (void)signo;
    io_close(&x->alive[1]);
}

static void on_opened(void *arg, const struct cell_info *info)
{
    struct indexing *x = arg;
    (void)info;
    const struct cell_run run = {.argv = x->argv, .fd = {x->alive[0], x->pipe[1], -1, -1},
                                 .done = on_done, .arg = x};
    uint32_t id;
    x->rc = cell_start(x->cell, &run, &id, x->err);
    io_close(&x->pipe[1]);
    io_close(&x->alive[0]);
    if (x->rc < 0)
        end(x);
}

static void on_refused(void *arg, const struct sandbox_refusal *r)
{
    struct indexing *x = arg;
    x->rc = err_set(x->err, ERR_DENIED, "documents are read in a sandbox only: %.150s; %.150s (or "
                    "read them unconfined with --sandbox off)", r->reason, r->remedy);
    end(x);
}

static void on_gone(void *arg, const char *why)
{
    struct indexing *x = arg;
    x->rc = err_set(x->err, ERR_STATE, "the indexer's cell is gone: %.200s", why);
    end(x);
}

/* What was read is about to take the old index's place: no interrupt comes between any more. */
static void end_interrupts(struct indexing *x)
{
    sigset_t interrupt, before;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &before);
    ev_signal_free(x->interrupt);
    signal(SIGINT, SIG_IGN);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static int run_cell(struct indexing *x, const char *work, const char *folder)
{
    static const struct cell_cb cb = {on_opened, on_refused, on_gone, NULL};
    struct sandbox_spec *spec = mem_zalloc(sizeof *spec);
    if (!spec)
        return err_nomem(x->err);
    spec->require = SANDBOX_NOLIMITS;
    spec->work = SANDBOX_WORK_DIR;
    spec->limits.memory_bytes = 2ull << 30;
    snprintf(spec->workspace, sizeof spec->workspace, "%s", work);
    int rc = policy_bind(spec, folder, "/documents", false, x->err);
    if (rc == 0)
        rc = ev_new(&x->ev, x->err);
    if (rc == 0)
        rc = spawner_attach(x->spawner, x->ev, NULL, NULL, x->err);
    if (rc == 0 && pipe2(x->pipe, O_CLOEXEC | O_NONBLOCK) < 0)
        rc = err_sys(x->err, "pipe");
    if (rc == 0 && pipe2(x->alive, O_CLOEXEC) < 0)
        rc = err_sys(x->err, "pipe");
    if (rc == 0)
        rc = ev_signal_new(&x->interrupt, x->ev, SIGINT, on_interrupt, x, x->err);
    if (rc == 0)
        rc = ev_fd_new(&x->watch, x->ev, x->pipe[0], on_pipe, x, x->err);
    if (rc == 0) {
        ev_fd_set(x->watch, EV_READ);
        rc = cell_open(&x->cell, x->spawner, spec, &cb, x, x->err);
    }
    if (rc == 0)
        ev_run(x->ev);
    if (x->cell)
        cell_close(x->cell, NULL, NULL);
    ev_fd_free(x->watch);
    end_interrupts(x);
    mem_free(spec);
    return rc < 0 ? rc : x->rc;
}

/* A copy of the index in the work folder; none when there is no index yet. */
static int copy_in(const char *db, const char *to, struct err *err)
{
    int in = open(db, O_RDONLY | O_CLOEXEC);
    if (in < 0 && errno == ENOENT)
        return 0;
    if (in < 0)
        return err_sys(err, "open '%s'", db);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc = out < 0 ? err_sys(err, "create '%s'", to) : 0;
    ssize_t n = 1;
    while (rc == 0 && (n = copy_file_range(in, NULL, out, NULL, 1 << 24, 0)) > 0)
        continue;
    if (rc == 0 && n < 0)
        rc = err_sys(err, "copy the index '%s'", db);
    io_close(&in);
    io_close(&out);
    return rc;
}

static int index_in(struct indexing *x, const char *db, const char *work, const char *folder)
{
    char copy[PATH_MAX + 16];
    snprintf(copy, sizeof copy, "%s/index.db", work);
    int rc = copy_in(db, copy, x->err);
    if (rc == 0)
        rc = run_cell(x, work, folder);
    if (rc == 0 && rename(copy, db) < 0)
        rc = err_sys(x->err, "replace '%s'", db);
    if (rc < 0) {
        unlink(copy);
        snprintf(copy, sizeof copy, "%s/index.db-journal", work);
        unlink(copy);
    }
    return rc;
}

int ctl_index_cell(const char *db, const char *folder, const char *name, index_progress tick,
                   void *arg, struct index_stats *stats, struct err *err)
{
    char real[PATH_MAX], work[PATH_MAX];
    struct indexing x = {.pipe = {-1, -1}, .alive = {-1, -1}, .db = db, .tick = tick,
                         .arg = arg, .stats = stats, .err = err};
    int rc = io_real_dir("folder", folder, real, err);
    if (rc < 0)
        return rc;
    const char *slash = strrchr(db, '/');
    size_t dir = slash ? (size_t)(slash - db) : 0;
    if (snprintf(work, sizeof work, "%.*s/.index-XXXXXX", slash ? (int)dir : 1, slash ? db : ".") >=
        (int)sizeof work)
        return err_set(err, ERR_LIMIT, "the path of the index is too long");
    /* The terminal's interrupt is for us; the spawner inherits that it has none. */
    void (*was)(int) = signal(SIGINT, SIG_IGN);
    rc = spawner_start(&x.spawner, &(struct spawner_opts){0}, err);
    signal(SIGINT, was);
    if (rc < 0)
        return rc;
    if (!mkdtemp(work)) {
        spawner_free(x.spawner);
        return err_sys(err, "a work folder beside '%s'", db);
    }
    const char *argv[] = {SANDBOX_TOOL, "index", SANDBOX_WORKSPACE "/index.db", "/documents",
                          name ? name : strrchr(real, '/') + 1, real, NULL};
    memcpy(x.argv, argv, sizeof argv);
    buf_init(&x.in, 1 << 16);
    char *full = realpath(work, NULL);
    rc = full ? index_in(&x, db, full, real) : err_sys(err, "'%s'", work);
    rmdir(work);
    free(full);
    spawner_free(x.spawner);
    ev_free(x.ev);
    io_close(&x.pipe[0]);
    io_close(&x.pipe[1]);
    io_close(&x.alive[0]);
    io_close(&x.alive[1]);
    buf_done(&x.in);
    return rc;
}
