/*
 * spawnd.c - the spawner role: a loop over the daemon's socket and the cells' pid 1s. It
 * forwards runs, keeps deadlines, watches what no control group holds, and cleans up when the
 * daemon is gone. It reads no file of the user, opens no network, holds no secret.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/spawner.h"
#include "agentd/spawnwire.h"
#include "base/io.h"
#include "base/mem.h"
#include "sandbox/spawn.h"
#include "sandbox/sys.h"

#define MS 1000000ll

enum { CELLS_MAX = 512, RUNS_MAX = 64, USAGE_QUICK = 5000, USAGE_MAX = 400000 };

/* What a session may add to a workspace: bytes, and files. */
enum { BYTES, FILES, QUOTAS };
/* A session over its limit must still be able to delete: what is let be before all is counted,
 * once and then each time. */
static const int64_t slack[QUOTAS] = {16 << 20, 256}, grain[QUOTAS] = {1 << 20, 16};

struct quota {
    uint64_t limit, most; /* most: what is let be, the limit or what was there already */
    uint64_t base;        /* in the tree when the session began */
    uint64_t seen;        /* at the last count */
    uint64_t hidden;      /* gone though the tree did not grow: held open without a name */
    uint64_t free;        /* of the file system, when the watch began */
    int64_t left;         /* of the limit; below 0 what went beyond it uncounted */
};

/* What outlives a cell of its session, which would else begin anew by ending it. */
struct past {
    uint64_t session; /* 0 = free */
    bool base_known;
    uint64_t base[QUOTAS];
    int64_t left[QUOTAS];
};

struct srun {
    uint32_t id;           /* 0 = free */
    int64_t began, deadline; /* 0 = none */
    bool timed_out, failed;
    int sys;
    char step[32];
};

struct scell {
    uint32_t number;
    struct sandbox *box; /* owned */
    struct srun run[RUNS_MAX];
    bool active;   /* watched: between begin and end, and after it while a job goes on */
    bool unfrozen; /* the end that was asked for leaves what is kept running */
    bool between;  /* active, but no call is */
    uint32_t hits; /* limits that the watchers saw */
    int64_t next_disk, next_memory, next_scratch, next_sockets;
    int64_t overdue; /* pid 1 should have killed by then */
    struct quota quota[QUOTAS];
    bool base_known;
    uint64_t session, seen_written;
    uint64_t scratch_free[QUOTAS]; /* when the watch began */
};

struct spawnd {
    struct sandbox_host *host;
    struct scell *cell[CELLS_MAX];
    unsigned n;
    struct past past[CELLS_MAX]; /* the oldest is written over */
    unsigned next_past;
    char buf[SPAWN_BLOB_MAX];
    bool over;
};

/* ---- to the daemon ---- */

static void tell(const struct spawn_msg *m, const void *blob, size_t n, const int *fds,
                 unsigned n_fds)
{
    (void)!wire_send_raw(SPAWN_SOCKET, m, sizeof *m, blob, n, fds, n_fds, 0);
}

static void tell_exit(struct scell *c, struct srun *r, struct sandbox_exit *x)
{
    struct spawn_msg m = {.cell = c->number, .w = {.kind = SPAWN_EXITED, .run = r->id}};
    x->wall_ns = io_mono_ns() - r->began;
    tell(&m, x, sizeof *x, NULL, 0);
    r->id = 0;
}

static void lose_runs(struct scell *c)
{
    for (unsigned i = 0; i < RUNS_MAX; i++) {
        struct sandbox_exit x = {.code = -1, .lost = true, .limits = c->hits};
        if (c->run[i].id)
            tell_exit(c, &c->run[i], &x);
    }
}

static void drop_cell(struct spawnd *d, unsigned i);

static void cell_gone(struct spawnd *d, unsigned i, const char *why)
{
    struct scell *c = d->cell[i];
    struct spawn_msg m = {.cell = c->number, .w.kind = SPAWN_GONE};
    c->hits |= limits_hits(&c->box->group);
    lose_runs(c);
    uint32_t number = c->number;
    drop_cell(d, i);
    m.cell = number;
    tell(&m, why, strlen(why) + 1, NULL, 0);
}

/* ---- to pid 1 ---- */

static void ask(struct scell *c, enum wire_kind kind, uint32_t run, int32_t a, int32_t b)
{
    struct wire w = {.kind = kind, .run = run, .a = a, .b = b};
    (void)!wire_send(c->box->ctl, &w, NULL, NULL, 0);
}

/* ---- watchers ---- */

static bool watches_disk(const struct scell *c)
{
    return c->box->workspace >= 0;
}

static bool watches_memory(const struct scell *c)
{
    return !c->box->group.made;
}

static bool space(int dir, uint64_t left[QUOTAS])
{
    struct statvfs v;
    if (fstatvfs(dir, &v) < 0)
        return false;
    left[BYTES] = (uint64_t)v.f_bfree * v.f_frsize;
    left[FILES] = v.f_ffree;
    return true;
}

static uint64_t less(uint64_t before, uint64_t now)
{
    return before > now ? before - now : 0;
}

/* How much may go before everything is counted. */
static uint64_t allowed_now(const struct scell *c, unsigned i)
{
    int64_t left = c->quota[i].left, over = left < 0 ? -left : 0;
    if (left > slack[i])
        return (uint64_t)left;
    return (uint64_t)(slack[i] - over > grain[i] ? slack[i] - over : grain[i]);
}

static void set_left(struct quota *q, uint64_t grown, int64_t slack_of)
{
    q->left = grown <= q->limit ? (int64_t)(q->limit - grown) : -(int64_t)(grown - q->limit);
    if (q->left < -slack_of)
        q->left = -slack_of;
}

/* Free space fell by more than the session may use. Others write there too, so everything is
 * stopped and the workspace counted before anybody is killed. What is gone, was written or is held
 * inside, and is not in the tree belongs to files without a name. */
static void judge_disk(struct scell *c, const uint64_t left[QUOTAS])
{
    uint64_t now[QUOTAS], own[QUOTAS];
    ask(c, WIRE_STOP, 0, 0, 0);
    bool fits = sandbox_usage(c->box->workspace, USAGE_MAX, &now[BYTES], &now[FILES]) &&
                c->base_known;
    uint64_t written = sandbox_written(c->box);
    own[BYTES] = less(written, c->seen_written);
    own[FILES] = less(c->quota[FILES].free, left[FILES]) ? sandbox_held(c->box) : 0;
    c->seen_written = written;
    for (unsigned i = 0; i < QUOTAS; i++) {
        struct quota *q = &c->quota[i];
        uint64_t lost = less(q->free, left[i]);
        q->hidden += less(lost < own[i] ? lost : own[i], less(now[i], q->seen));
        if (i == FILES && q->hidden > own[i])
            q->hidden = own[i];
        q->seen = now[i];
        q->free = left[i];
        uint64_t grown = less(now[i], q->base) + q->hidden;
        fits = fits && grown <= q->most;
        set_left(q, grown, slack[i]);
    }
    if (fits) {
        ask(c, WIRE_BEGIN, 0, 0, 0);
        return;
    }
    c->hits |= SANDBOX_LIMIT_DISK;
    ask(c, WIRE_KILL, 0, 0, 0);
    for (unsigned i = 0; i < QUOTAS; i++)
        c->quota[i].hidden = 0;
}

static void watch_disk(struct scell *c, int64_t now)
{
    uint64_t left[QUOTAS];
    bool much = false, over = false;
    bool known = space(c->box->workspace, left);
    for (unsigned i = 0; known && i < QUOTAS; i++) {
        much |= less(c->quota[i].free, left[i]) > allowed_now(c, i);
        over |= c->quota[i].left <= 0;
    }
    c->next_disk = now + (over ? 1 : 10) * MS; /* what is over already goes little further */
    if (much)
        judge_disk(c, left);
}

/* At level landlock /tmp and a temp workspace are folders of the host. */
static bool watches_scratch(const struct scell *c)
{
    return c->box->scratch_fd >= 0;
}

/* What is held there without a name; a workspace on the same device has a watch of its own. */
static void add_nameless(const struct scell *c, const uint64_t gone[QUOTAS], uint64_t *bytes,
                         uint64_t *entries)
{
    const struct sandbox_limits *l = &c->box->limits;
    struct stat scratch, work;
    uint64_t files;
    if ((gone[BYTES] <= l->tmp_bytes && gone[FILES] <= l->tmp_inodes) ||
        fstat(c->box->scratch_fd, &scratch) < 0 ||
        (watches_disk(c) && fstat(c->box->workspace, &work) == 0 &&
         work.st_dev == scratch.st_dev))
        return;
    *bytes += sandbox_nameless(c->box, scratch.st_dev, &files);
    *entries += files;
}

static void watch_scratch(struct scell *c, int64_t now)
{
    const struct sandbox_limits *l = &c->box->limits;
    uint64_t used, entries, most = 2 * l->tmp_inodes + 16, left[QUOTAS], gone[QUOTAS] = {0};
    bool whole = sandbox_usage(c->box->scratch_fd, most < USAGE_MAX ? (uint32_t)most : USAGE_MAX,
                               &used, &entries);
    bool known = space(c->box->scratch_fd, left);
    for (unsigned i = 0; known && i < QUOTAS; i++)
        gone[i] = less(c->scratch_free[i], left[i]);
    add_nameless(c, gone, &used, &entries);
    if (!whole || used > 2 * l->tmp_bytes || entries > most) {
        c->hits |= SANDBOX_LIMIT_DISK;
        ask(c, WIRE_KILL, 0, 0, 0);
    }
    c->next_scratch = now + (20 + (int64_t)entries / 200) * MS;
}

static void watch_memory(struct scell *c, int64_t now)
{
    uint32_t processes;
    uint64_t used = sandbox_memory(c->box, &processes);
    if (used > c->box->limits.memory_bytes) {
        c->hits |= SANDBOX_LIMIT_MEMORY;
        ask(c, WIRE_KILL, 0, 0, 0);
    }
    /* Looking costs in proportion to the processes there are. */
    c->next_memory = now + (30 + (int64_t)processes / 2) * MS;
}

/* ---- calls ---- */

/* A service outside bound a socket where the cell sees it: it is covered, or nobody runs on. */
static void watch_sockets(struct scell *c, int64_t now)
{
    c->next_sockets = now + 20 * MS;
    if (sandbox_cover(c->box) < 0)
        ask(c, WIRE_KILL, 0, 0, 0);
}

static void start_watch(struct scell *c)
{
    uint64_t left[QUOTAS] = {0};
    c->active = true;
    watch_sockets(c, io_mono_ns());
    if (watches_disk(c))
        (void)!space(c->box->workspace, left);
    if (watches_scratch(c) && !space(c->box->scratch_fd, c->scratch_free))
        c->scratch_free[BYTES] = c->scratch_free[FILES] = 0;
    for (unsigned i = 0; i < QUOTAS; i++)
        c->quota[i].free = left[i];
    c->next_disk = c->next_memory = c->next_scratch = io_mono_ns() + 10 * MS;
}

/* What was written since the watch began is no longer to be had. */
static void stop_watch(struct scell *c)
{
    uint64_t left[QUOTAS];
    bool known = c->active && watches_disk(c) && space(c->box->workspace, left);
    for (unsigned i = 0; known && i < QUOTAS; i++) {
        struct quota *q = &c->quota[i];
        q->left += (int64_t)left[i] - (int64_t)q->free;
        if (q->left > (int64_t)q->limit)
            q->left = (int64_t)q->limit;
        if (q->left < -slack[i])
            q->left = -slack[i];
    }
    c->active = false;
}

/* The quotas of a new cell: those that its session began with, less what it has used since. */
static void open_quotas(struct spawnd *d, struct scell *c)
{
    const struct sandbox_limits *l = &c->box->limits;
    const uint64_t limit[QUOTAS] = {l->disk_bytes, l->disk_inodes};
    const struct past *past = NULL;
    uint64_t now[QUOTAS];
    for (unsigned i = 0; c->session && i < CELLS_MAX; i++)
        if (d->past[i].session == c->session)
            past = &d->past[i];
    bool whole = sandbox_usage(c->box->workspace, past ? USAGE_MAX : USAGE_QUICK, &now[BYTES],
                               &now[FILES]);
    c->base_known = whole;
    for (unsigned i = 0; i < QUOTAS; i++) {
        struct quota *q = &c->quota[i];
        *q = (struct quota){.limit = limit[i], .most = limit[i], .base = now[i], .seen = now[i],
                            .left = (int64_t)limit[i]};
        if (past && past->base_known)
            q->base = past->base[i];
        else if (past) /* it was too large to count at once */
            q->base = less(now[i], (uint64_t)((int64_t)limit[i] - past->left[i]));
        uint64_t grown = less(now[i], q->base);
        q->most = grown > limit[i] ? grown : limit[i];
        set_left(q, grown, slack[i]);
        if (past && !whole && past->left[i] < q->left)
            q->left = past->left[i];
    }
}

static void remember_quotas(struct spawnd *d, const struct scell *c)
{
    struct past *past = &d->past[d->next_past];
    for (unsigned i = 0; i < CELLS_MAX; i++)
        if (d->past[i].session == c->session)
            past = &d->past[i];
    if (past == &d->past[d->next_past])
        d->next_past = (d->next_past + 1) % CELLS_MAX;
    *past = (struct past){.session = c->session, .base_known = c->base_known};
    for (unsigned i = 0; i < QUOTAS; i++) {
        past->base[i] = c->quota[i].base;
        past->left[i] = c->quota[i].left;
    }
}

static void drop_cell(struct spawnd *d, unsigned i)
{
    struct scell *c = d->cell[i];
    stop_watch(c);
    if (c->session && watches_disk(c))
        remember_quotas(d, c);
    sandbox_close(c->box);
    mem_free(c);
    d->cell[i] = d->cell[--d->n];
}

/* A workspace too large to be counted when its cell was made, now that nothing may be added to
 * it: what went so far is taken for the session's own, and others' writing no longer is. */
static void settle_base(struct scell *c)
{
    uint64_t now[QUOTAS];
    if (!sandbox_usage(c->box->workspace, USAGE_MAX, &now[BYTES], &now[FILES]))
        return;
    for (unsigned i = 0; i < QUOTAS; i++) {
        struct quota *q = &c->quota[i];
        uint64_t grown = (uint64_t)((int64_t)q->limit - q->left);
        q->base = less(now[i], grown);
        q->most = grown > q->limit ? grown : q->limit;
        q->seen = now[i];
    }
    c->base_known = true;
}

static void begin(struct scell *c)
{
    if (c->active && !c->between)
        return;
    stop_watch(c);
    c->between = false;
    c->hits = 0;
    if (watches_disk(c) && !c->base_known &&
        (c->quota[BYTES].left <= 0 || c->quota[FILES].left <= 0))
        settle_base(c);
    start_watch(c);
}

static void end(struct scell *c)
{
    stop_watch(c);
    c->between = c->unfrozen;
    if (c->between)
        start_watch(c);
}

static struct srun *find_run(struct scell *c, uint32_t id)
{
    for (unsigned i = 0; i < RUNS_MAX; i++)
        if (c->run[i].id == id)
            return &c->run[i];
    return NULL;
}

static void on_exited(struct scell *c, const struct wire *w)
{
    struct srun *r = w->run ? find_run(c, w->run) : NULL;
    if (!r)
        return;
    struct sandbox_exit x = {.code = -1, .user_ns = w->user_ns, .system_ns = w->system_ns,
                             .max_rss_bytes = w->max_rss, .failed = r->failed, .sys = r->sys};
    memcpy(x.step, r->step, sizeof x.step);
    if (WIFEXITED(w->a) && !r->failed)
        x.code = WEXITSTATUS(w->a);
    if (WIFSIGNALED(w->a))
        x.signal = WTERMSIG(w->a);
    x.limits = c->hits;
    if (x.code != 0) /* a clean end asks no control group, which would cost as much as a fork */
        x.limits |= limits_hits(&c->box->group);
    if (r->timed_out)
        x.limits |= SANDBOX_LIMIT_WALL;
    if (x.signal == SIGXCPU)
        x.limits |= SANDBOX_LIMIT_CPU;
    tell_exit(c, r, &x);
}

static void on_ended(struct scell *c, const struct wire *w)
{
    c->overdue = 0;
    if (w->run != 0)
        return; /* a deadline's own */
    struct spawn_msg m = {.cell = c->number, .w.kind = SPAWN_ENDED};
    struct spawn_ended e = {.killed = (uint32_t)w->a, .kept = (uint32_t)w->b};
    e.limits = limits_hits(&c->box->group) | c->hits;
    e.memory_peak_bytes = limits_peak(&c->box->group);
    e.cpu_ns = limits_cpu_ns(&c->box->group);
    end(c);
    tell(&m, &e, sizeof e, NULL, 0);
    limits_mark(&c->box->group); /* after the answer: the next call finds it done */
}

static void from_cell(struct spawnd *d, unsigned i)
{
    struct scell *c = d->cell[i];
    struct wire w;
    int fds[WIRE_FDS_MAX];
    unsigned n;
    int rc = wire_recv(c->box->ctl, &w, NULL, 0, fds, &n);
    wire_drop(fds, &n);
    if (rc <= 0) {
        cell_gone(d, i, "pid 1 of the cell ended");
        return;
    }
    struct srun *r;
    switch (w.kind) {
    case WIRE_EXITED:
        on_exited(c, &w);
        break;
    case WIRE_ENDED:
        on_ended(c, &w);
        break;
    case WIRE_REFUSED:
        w.step[sizeof w.step - 1] = '\0';
        w.kind = SPAWN_CALL;
        tell(&(struct spawn_msg){.cell = c->number, .w = w}, w.step, strlen(w.step) + 1, NULL, 0);
        break;
    case WIRE_FAULT:
        if (w.run == 0) {
            char why[160];
            w.step[sizeof w.step - 1] = '\0';
            snprintf(why, sizeof why, "the cell could not be locked (%s: %s), so nothing ran",
                     w.step, strerror(w.a));
            cell_gone(d, i, why);
            return;
        }
        r = find_run(c, w.run);
        if (r) {
            r->failed = true;
            r->sys = w.a;
            memcpy(r->step, w.step, sizeof r->step);
            r->step[sizeof r->step - 1] = '\0';
        }
        break;
    default:
        break;
    }
}

/* ---- from the daemon ---- */

static void refuse(uint32_t number, const struct sandbox_refusal *r)
{
    struct spawn_msg m = {.cell = number, .w.kind = SPAWN_REFUSED};
    tell(&m, r, sizeof *r, NULL, 0);
}

static void on_open(struct spawnd *d, uint32_t number, size_t n_blob)
{
    struct sandbox_refusal r = {0};
    struct err err = {0};
    struct sandbox_spec *spec = mem_zalloc(sizeof *spec);
    struct scell *c = mem_zalloc(sizeof *c);
    int rc = 0;
    if (!spec || !c)
        rc = err_nomem(&err);
    else if (n_blob != sizeof *spec)
        rc = err_set(&err, ERR_PARSE, "the request is not a spec");
    else if (d->n == CELLS_MAX)
        rc = err_set(&err, ERR_LIMIT, "%d cells are open already; close some", CELLS_MAX);
    if (rc == 0) {
        memcpy(spec, d->buf, sizeof *spec);
        rc = sandbox_open(&c->box, d->host, spec, &r, &err);
    }
    if (rc < 0) {
        if (!r.reason[0])
            memcpy(r.reason, err.text, sizeof r.reason - 1);
        refuse(number, &r);
        mem_free(c);
        mem_free(spec);
        return;
    }
    uint64_t session = spec->session;
    mem_free(spec);
    c->number = number;
    c->session = session;
    if (watches_disk(c))
        open_quotas(d, c);
    d->cell[d->n++] = c;
    struct spawn_msg m = {.cell = number, .w = {.kind = SPAWN_OPENED,
                                                .a = (int32_t)c->box->level}};
    struct str record = buf_view(&c->box->record);
    int give[2];
    unsigned n_give = 0;
    if (c->box->listener >= 0) {
        m.w.fds |= SPAWN_FD_LISTENER;
        give[n_give++] = c->box->listener;
    }
    if (c->box->upper >= 0) {
        m.w.fds |= SPAWN_FD_LAYER;
        give[n_give++] = c->box->upper;
    }
    tell(&m, record.p, record.n, give, n_give);
    io_close(&c->box->listener);
    io_close(&c->box->upper);
}

static void on_run(struct scell *c, struct spawn_msg *m, size_t n_blob, const char *blob,
                   const int *fds, unsigned n_fds)
{
    struct srun *r = find_run(c, 0);
    struct wire w = m->w;
    if (!r || w.run == 0 || find_run(c, w.run)) {
        struct srun none = {.id = w.run, .began = io_mono_ns()};
        struct sandbox_exit x = {.code = -1, .failed = true, .sys = EAGAIN};
        memcpy(x.step, "request", 8);
        tell_exit(c, &none, &x);
        return;
    }
    begin(c);
    *r = (struct srun){.id = w.run, .began = io_mono_ns()};
    if (w.a > 0)
        r->deadline = r->began + w.a * MS;
    w.kind = WIRE_RUN;
    w.a = 0;
    w.blob = (uint32_t)n_blob;
    w.cpu_seconds = c->box->limits.cpu_seconds;
    if (wire_send(c->box->ctl, &w, blob, fds, n_fds) < 0) {
        struct sandbox_exit x = {.code = -1, .failed = true, .sys = errno};
        memcpy(x.step, "request", 8);
        tell_exit(c, r, &x);
    }
}

static void on_close(struct spawnd *d, unsigned i)
{
    struct spawn_msg m = {.cell = d->cell[i]->number, .w.kind = SPAWN_CLOSED};
    drop_cell(d, i);
    tell(&m, NULL, 0, NULL, 0);
}

static void to_cell(struct spawnd *d, unsigned i, struct spawn_msg *m, size_t n_blob,
                    const int *fds, unsigned n_fds)
{
    struct scell *c = d->cell[i];
    switch (m->w.kind) {
    case SPAWN_RUN:
        on_run(c, m, n_blob, d->buf, fds, n_fds);
        break;
    case SPAWN_BEGIN:
        begin(c);
        ask(c, WIRE_BEGIN, 0, 0, 0);
        break;
    case SPAWN_END:
        c->unfrozen = m->w.a == 0;
        ask(c, WIRE_END, 0, m->w.a, 0);
        c->overdue = io_mono_ns() + 15000 * MS;
        break;
    case SPAWN_KEEP:
        ask(c, WIRE_KEEP, m->w.run, m->w.a, m->w.b);
        break;
    case SPAWN_SIGNAL:
        ask(c, WIRE_SIGNAL, m->w.run, m->w.a, m->w.b);
        break;
    case SPAWN_CLOSE:
        on_close(d, i);
        break;
    default:
        break;
    }
}

static void on_hello(struct spawnd *d, size_t n_blob)
{
    struct spawn_hello h;
    struct err err = {0};
    if (d->host || n_blob != sizeof h) {
        d->over = true;
        return;
    }
    memcpy(&h, d->buf, sizeof h);
    h.tool[sizeof h.tool - 1] = h.state_dir[sizeof h.state_dir - 1] = '\0';
    d->over = sandbox_host_open(&d->host, h.tool, h.state_dir, h.uid_base, true, &err) < 0;
}

static void from_daemon(struct spawnd *d)
{
    struct spawn_msg m;
    int fds[WIRE_FDS_MAX];
    unsigned n_fds;
    size_t n_blob = 0;
    int rc = wire_recv_raw(SPAWN_SOCKET, &m, sizeof m, d->buf, sizeof d->buf, &n_blob, fds,
                           &n_fds, 0);
    if (rc <= 0) {
        d->over = rc == 0 || errno != EPROTO;
        return;
    }
    if (m.w.kind == SPAWN_HELLO)
        on_hello(d, n_blob);
    else if (m.w.kind == SPAWN_OPEN && d->host)
        on_open(d, m.cell, n_blob);
    else
        for (unsigned i = 0; i < d->n; i++)
            if (d->cell[i]->number == m.cell) {
                to_cell(d, i, &m, n_blob, fds, n_fds);
                break;
            }
    wire_drop(fds, &n_fds);
}

/* ---- time ---- */

static void sooner(int64_t *next, int64_t at)
{
    if (at && (*next == 0 || at < *next))
        *next = at;
}

static int64_t next_event(const struct spawnd *d)
{
    int64_t next = 0;
    for (unsigned i = 0; i < d->n; i++) {
        const struct scell *c = d->cell[i];
        sooner(&next, c->overdue);
        if (c->active)
            sooner(&next, c->next_sockets);
        if (c->active && watches_disk(c))
            sooner(&next, c->next_disk);
        if (c->active && watches_memory(c))
            sooner(&next, c->next_memory);
        if (c->active && watches_scratch(c))
            sooner(&next, c->next_scratch);
        for (unsigned k = 0; k < RUNS_MAX; k++)
            if (c->run[k].id && !c->run[k].timed_out)
                sooner(&next, c->run[k].deadline);
    }
    return next;
}

static void tick(struct spawnd *d, int64_t now)
{
    for (unsigned i = 0; i < d->n; i++) {
        struct scell *c = d->cell[i];
        for (unsigned k = 0; k < RUNS_MAX; k++) {
            struct srun *r = &c->run[k];
            if (!r->id || !r->deadline || r->timed_out || now < r->deadline)
                continue;
            r->timed_out = true;
            ask(c, WIRE_END, r->id, 0, 0);
            c->overdue = now + 15000 * MS;
        }
        if (c->active && now >= c->next_sockets)
            watch_sockets(c, now);
        if (c->active && watches_disk(c) && now >= c->next_disk)
            watch_disk(c, now);
        if (c->active && watches_memory(c) && now >= c->next_memory)
            watch_memory(c, now);
        if (c->active && watches_scratch(c) && now >= c->next_scratch)
            watch_scratch(c, now);
        if (c->overdue && now >= c->overdue)
            cell_gone(d, i--, "pid 1 of the cell did not end its processes in time");
    }
}

static void serve(struct spawnd *d, int signals)
{
    static struct pollfd p[CELLS_MAX + 2];
    while (!d->over) {
        unsigned n = d->n;
        p[0] = (struct pollfd){SPAWN_SOCKET, POLLIN, 0};
        p[1] = (struct pollfd){signals, POLLIN, 0};
        for (unsigned i = 0; i < n; i++)
            p[i + 2] = (struct pollfd){d->cell[i]->box->ctl, POLLIN, 0};
        int64_t next = next_event(d), now = io_mono_ns();
        int wait = next == 0 ? -1 : next <= now ? 0 : (int)((next - now) / MS) + 1;
        if (poll(p, n + 2, wait) < 0 && errno != EINTR)
            return;
        if (p[1].revents)
            return;
        for (unsigned i = n; i-- > 0;) /* downwards: a gone cell is replaced by the last */
            if (p[i + 2].revents)
                from_cell(d, i);
        if (p[0].revents)
            from_daemon(d);
        tick(d, io_mono_ns());
        if (d->host)
            sandbox_host_prepare(d->host);
    }
}

/* Whatever the daemon was started with ends here: descriptors, environment, terminal. */
static int settle(void)
{
    static const char *const kept[] = {"AGENTD_LANDLOCK_ABI", NULL};
    char *value[1] = {getenv(kept[0])};
    struct rlimit no_core = {0, 0};
    sigset_t set;
    prctl(PR_SET_NAME, "agentd-spawner");
    sys_close_range(SPAWN_SOCKET + 1, ~0u);
    if (value[0])
        value[0] = mem_strdup(str_c(value[0]));
    clearenv();
    if (value[0])
        setenv(kept[0], value[0], 1);
    setsid();
    umask(022);
    setrlimit(RLIMIT_CORE, &no_core);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; null >= 0 && i < 3; i++)
        dup2(null, i);
    if (geteuid() == 0) /* refused in a user namespace, where it does not matter */
        (void)!setgroups(0, NULL);
    /* A daemon in a real-time class must not hand it to code inside. */
    (void)!sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0});
    sigemptyset(&set);
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_SETMASK, &set, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    fcntl(SPAWN_SOCKET, F_SETFD, FD_CLOEXEC);
    return chdir("/") < 0 ? -1 : signalfd(-1, &set, SFD_CLOEXEC);
}

bool spawner_role(int argc, char **argv)
{
    return argc == 3 && strcmp(argv[1], "--role") == 0 && strcmp(argv[2], "spawner") == 0;
}

int spawner_main(void)
{
    struct stat st;
    if (fstat(SPAWN_SOCKET, &st) < 0 || !S_ISSOCK(st.st_mode))
        return 2; /* started by hand: there is nobody to serve */
    int signals = settle();
    struct spawnd *d = mem_zalloc(sizeof *d);
    if (signals < 0 || !d)
        return 1;
    serve(d, signals);
    for (unsigned i = 0; i < d->n; i++) /* all at once, then one by one */
        sandbox_kill(d->cell[i]->box);
    while (d->n)
        drop_cell(d, d->n - 1);
    sandbox_host_close(d->host);
    mem_free(d);
    return 0;
}
