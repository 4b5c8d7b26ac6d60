/*
 * spawner.c - the daemon's end: starts the process, turns calls into datagrams and datagrams
 * into callbacks. Sending never blocks; what the socket does not take waits in a queue.
 */
#include "agentd/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/place.h"
#include "agentd/spawnwire.h"
#include "base/io.h"
#include "base/mem.h"

enum { ARGS_MAX = 96 * 1024, QUEUE_MAX = 4096 };

struct out { /* a datagram that waits for the socket */
    struct out *next;
    struct spawn_msg m;
    int fds[WIRE_FDS_MAX]; /* owned */
    unsigned n_fds;
    size_t n;
    char blob[];
};

struct run {
    struct run *next;
    uint32_t id;
    void (*done)(void *arg, const struct sandbox_exit *x);
    void *arg;
};

struct ending {
    struct ending *next;
    void (*ended)(void *arg, const struct cell_ended *e);
    void *arg;
};

enum cell_state { CELL_ASKED, CELL_OPEN, CELL_DEAD, CELL_CLOSING };

struct cell {
    struct cell *next;
    struct spawner *s;
    uint32_t number;
    enum cell_state state;
    struct cell_cb cb;
    void *arg;
    struct run *runs;
    struct ending *endings, **endings_tail;
    char **env; /* owned; of the spec, NULL-terminated */
    char env_text[SANDBOX_ENV_MAX][SANDBOX_ENV_BYTES];
    uint32_t n_env;
    enum sandbox_net net;
    void (*closed)(void *arg);
    void *closed_arg;
};

struct spawner {
    pid_t pid;
    int fd;
    bool dead, dying; /* dying: its cells are being told */
    char exe[SANDBOX_PATH_MAX];
    struct spawn_hello hello;
    struct ev *ev;
    struct ev_fd *watch;
    void (*on_death)(void *arg);
    void *death_arg;
    struct cell *cells;
    uint32_t next_cell, next_run;
    struct out *queue, **queue_tail;
    unsigned queued;
    bool *freed; /* set when spawner_free() is called from a callback */
    char buf[SPAWN_BLOB_MAX];
};

/* ---- sending ---- */

static void drop_out(struct out *o)
{
    wire_drop(o->fds, &o->n_fds);
    mem_free(o);
}

static void flush(struct spawner *s)
{
    while (s->queue) {
        struct out *o = s->queue;
        if (wire_send_raw(s->fd, &o->m, sizeof o->m, o->blob, o->n, o->fds, o->n_fds,
                          MSG_DONTWAIT) < 0 &&
            errno == EAGAIN)
            break;
        s->queue = o->next;
        s->queued--;
        drop_out(o);
    }
    if (!s->queue)
        s->queue_tail = &s->queue;
    if (s->watch)
        ev_fd_set(s->watch, EV_READ | (s->queue ? EV_WRITE : 0));
}

static int enqueue(struct spawner *s, const struct spawn_msg *m, const void *blob, size_t n,
                   const int *fds, unsigned n_fds, struct err *err)
{
    if (s->queued == QUEUE_MAX)
        return err_set(err, ERR_LIMIT, "the spawner does not keep up");
    struct out *o = mem_zalloc(sizeof *o + n);
    if (!o)
        return err_nomem(err);
    o->m = *m;
    o->n = n;
    if (n)
        memcpy(o->blob, blob, n);
    for (; o->n_fds < n_fds; o->n_fds++) {
        o->fds[o->n_fds] = fcntl(fds[o->n_fds], F_DUPFD_CLOEXEC, 3);
        if (o->fds[o->n_fds] < 0) {
            int rc = err_sys(err, "descriptor for the spawner");
            drop_out(o);
            return rc;
        }
    }
    *s->queue_tail = o;
    s->queue_tail = &o->next;
    s->queued++;
    return 0;
}

static int send_msg(struct spawner *s, const struct spawn_msg *m, const void *blob, size_t n,
                    const int *fds, unsigned n_fds, struct err *err)
{
    if (s->dead)
        return err_set(err, ERR_STATE, "the spawner is gone");
    if (!s->queue && wire_send_raw(s->fd, m, sizeof *m, blob, n, fds, n_fds, MSG_DONTWAIT) == 0)
        return 0;
    if (!s->queue && (errno == EPIPE || errno == ECONNRESET))
        return err_set(err, ERR_STATE, "the spawner ended at once; its binary must be "
                       "executable, and /proc mounted");
    if (!s->queue && errno != EAGAIN)
        return err_sys(err, "send to the spawner");
    int rc = enqueue(s, m, blob, n, fds, n_fds, err);
    flush(s);
    return rc;
}

/* ---- start and end ---- */

/* A program beside the binary that is running, or beside the one that is named. */
static void beside(char out[SANDBOX_PATH_MAX], const char *exe, const char *name)
{
    char self[SANDBOX_PATH_MAX];
    ssize_t n = 0;
    if (exe)
        snprintf(self, sizeof self, "%s", exe);
    else if ((n = readlink("/proc/self/exe", self, sizeof self - 1)) > 0)
        self[n] = '\0';
    else
        self[0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    if (!slash || snprintf(out, SANDBOX_PATH_MAX, "%s/%s", self, name) >= SANDBOX_PATH_MAX ||
        access(out, X_OK) < 0)
        out[0] = '\0';
}

static _Noreturn void exec_spawner(const char *exe, int fd)
{
    if (fd != SPAWN_SOCKET)
        dup2(fd, SPAWN_SOCKET);
    else
        fcntl(fd, F_SETFD, 0);
    char *const argv[] = {(char *)(uintptr_t)exe, (char *)(uintptr_t)"--role",
                          (char *)(uintptr_t)"spawner", NULL};
    execv(exe, argv);
    _exit(127);
}

/* What the spawner needs to know, once and for every later start. */
static int prepare(struct spawner *s, const struct spawner_opts *o, struct err *err)
{
    char small[SANDBOX_PATH_MAX], usual[PATH_MAX], real[PATH_MAX];
    struct err ignored = {0};
    struct spawn_hello *h = &s->hello;
    const char *state = o->state_dir;
    beside(small, NULL, "agentd-spawner");
    snprintf(s->exe, sizeof s->exe, "%s", o->exe ? o->exe : small[0] ? small : "/proc/self/exe");
    h->uid_base = o->uid_base;
    if (o->tool)
        snprintf(h->tool, sizeof h->tool, "%s", o->tool);
    else
        beside(h->tool, o->exe, "agentd-tool");
    if (!state && place_state(usual, sizeof usual, &ignored) == 0)
        state = realpath(usual, real);
    if (state && strlen(state) >= sizeof h->state_dir)
        return err_set(err, ERR_LIMIT, "the path of the state folder is too long");
    snprintf(h->state_dir, sizeof h->state_dir, "%s", state ? state : "");
    return 0;
}

static int launch(struct spawner *s, struct err *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(err, "spawner: socket pair");
    s->pid = fork();
    if (s->pid == 0)
        exec_spawner(s->exe, pair[1]);
    close(pair[1]);
    s->fd = pair[0];
    s->dead = false;
    struct spawn_msg m = {.w.kind = SPAWN_HELLO};
    return s->pid < 0 ? err_sys(err, "spawner: fork")
                      : send_msg(s, &m, &s->hello, sizeof s->hello, NULL, 0, err);
}

int spawner_start(struct spawner **out, const struct spawner_opts *o, struct err *err)
{
    struct spawner *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err);
    s->fd = -1;
    s->queue_tail = &s->queue;
    int rc = prepare(s, o, err);
    if (rc == 0)
        rc = launch(s, err);
    if (rc < 0) {
        spawner_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

static void bury(struct spawner *s)
{
    struct pollfd p = {io_pidfd_open(s->pid, &(struct err){0}), POLLIN, 0};
    if (p.fd >= 0 && poll(&p, 1, 3000) == 0)
        kill(s->pid, SIGKILL);
    while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (p.fd >= 0)
        close(p.fd);
}

static void free_cell(struct cell *c)
{
    while (c->runs) {
        struct run *r = c->runs;
        c->runs = r->next;
        mem_free(r);
    }
    while (c->endings) {
        struct ending *e = c->endings;
        c->endings = e->next;
        mem_free(e);
    }
    mem_free(c);
}

void spawner_detach(struct spawner *s)
{
    ev_fd_free(s->watch);
    s->watch = NULL;
}

/* Ends the process and forgets what was still to be sent to it. */
static void end_process(struct spawner *s)
{
    spawner_detach(s);
    io_close(&s->fd); /* end of file is the order to clean up */
    if (s->pid > 0)
        bury(s);
    s->pid = 0;
    while (s->queue) {
        struct out *o = s->queue;
        s->queue = o->next;
        drop_out(o);
    }
    s->queue_tail = &s->queue;
    s->queued = 0;
}

void spawner_free(struct spawner *s)
{
    if (!s)
        return;
    end_process(s);
    while (s->cells) {
        struct cell *c = s->cells;
        s->cells = c->next;
        free_cell(c);
    }
    if (s->freed)
        *s->freed = true;
    mem_free(s);
}

/* ---- receiving ---- */

static struct cell *find_cell(struct spawner *s, uint32_t number)
{
    for (struct cell *c = s->cells; c; c = c->next)
        if (c->number == number)
            return c;
    return NULL;
}

static void unlink_cell(struct cell *c)
{
    for (struct cell **at = &c->s->cells; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            return;
        }
}

static void on_exited(struct cell *c, uint32_t id, const struct sandbox_exit *x)
{
    for (struct run **at = &c->runs; *at; at = &(*at)->next) {
        struct run *r = *at;
        if (r->id != id)
            continue;
        *at = r->next;
        void (*done)(void *, const struct sandbox_exit *) = r->done;
        void *arg = r->arg;
        mem_free(r);
        if (done)
            done(arg, x);
        return;
    }
}

static void on_ended(struct cell *c, const struct spawn_ended *e)
{
    struct ending *first = c->endings;
    if (!first)
        return;
    c->endings = first->next;
    if (!c->endings)
        c->endings_tail = &c->endings;
    struct cell_ended out = {e->killed, e->kept, e->limits, e->memory_peak_bytes, e->cpu_ns};
    void (*ended)(void *, const struct cell_ended *) = first->ended;
    void *arg = first->arg;
    mem_free(first);
    if (ended)
        ended(arg, &out);
}

static void on_closed(struct cell *c)
{
    void (*closed)(void *) = c->closed;
    void *arg = c->closed_arg;
    unlink_cell(c);
    free_cell(c);
    if (closed)
        closed(arg);
}

/* The cell died: its runs are lost and its endings are over, in the order they were asked.
 * Each callback may close the cell, so it is looked up again. */
static void on_gone(struct spawner *s, uint32_t number, const char *why)
{
    bool freed = false;
    bool *outer = s->freed;
    s->freed = &freed;
    struct sandbox_exit lost = {.code = -1, .lost = true};
    struct spawn_ended over = {0};
    struct cell *c;
    for (; (c = find_cell(s, number)) && c->runs && c->state != CELL_CLOSING;) {
        on_exited(c, c->runs->id, &lost);
        if (freed)
            goto out;
    }
    for (; (c = find_cell(s, number)) && c->endings && c->state != CELL_CLOSING;) {
        on_ended(c, &over);
        if (freed)
            goto out;
    }
    if (c && c->state == CELL_CLOSING) {
        on_closed(c);
    } else if (c && c->state != CELL_DEAD) {
        c->state = CELL_DEAD;
        c->cb.gone(c->arg, why);
    }
out:
    if (!freed)
        s->freed = outer;
    else if (outer)
        *outer = true;
}

static void on_refused(struct cell *c, const char *blob, size_t n)
{
    struct sandbox_refusal r = {0};
    if (n == sizeof r)
        memcpy(&r, blob, sizeof r);
    c->state = CELL_DEAD;
    c->cb.refused(c->arg, &r);
}

static void on_opened(struct cell *c, const struct spawn_msg *m, char *record, int *fds)
{
    bool proxy = m->w.fds & SPAWN_FD_LISTENER, layer = m->w.fds & SPAWN_FD_LAYER;
    struct cell_info info = {.level = (enum sandbox_level)m->w.a, .record = record,
                             .proxy_fd = proxy ? fds[0] : -1,
                             .layer_fd = layer ? fds[proxy] : -1};
    c->state = CELL_OPEN;
    if (proxy)
        fds[0] = -1; /* given */
    c->cb.opened(c->arg, &info);
}

static void dispatch(struct spawner *s, const struct spawn_msg *m, size_t n, int *fds)
{
    struct cell *c = find_cell(s, m->cell);
    struct sandbox_exit x;
    struct spawn_ended e;
    if (!c)
        return;
    bool closing = c->state == CELL_CLOSING;
    switch (m->w.kind) {
    case SPAWN_OPENED:
        if (!closing)
            on_opened(c, m, s->buf, fds);
        break;
    case SPAWN_REFUSED:
        if (closing)
            on_closed(c);
        else
            on_refused(c, s->buf, n);
        break;
    case SPAWN_EXITED:
        memcpy(&x, s->buf, sizeof x);
        if (n == sizeof x && !closing)
            on_exited(c, m->w.run, &x);
        break;
    case SPAWN_ENDED:
        memcpy(&e, s->buf, sizeof e);
        if (n == sizeof e && !closing)
            on_ended(c, &e);
        break;
    case SPAWN_CALL:
        if (!closing && c->cb.call)
            c->cb.call(c->arg, s->buf, m->w.max_rss);
        break;
    case SPAWN_GONE:
        on_gone(s, m->cell, s->buf);
        break;
    case SPAWN_CLOSED:
        if (closing)
            on_closed(c);
        break;
    default:
        break;
    }
}

/* False when a callback freed the spawner. */
static bool on_death(struct spawner *s)
{
    bool freed = false;
    bool *outer = s->freed;
    s->dead = s->dying = true;
    s->freed = &freed;
    ev_fd_set(s->watch, 0);
    for (;;) {
        struct cell *c = s->cells;
        while (c && c->state == CELL_DEAD)
            c = c->next;
        if (!c)
            break;
        on_gone(s, c->number, "the spawner died");
        if (freed)
            break;
    }
    if (!freed) {
        s->dying = false;
        if (s->on_death)
            s->on_death(s->death_arg);
    }
    if (!freed)
        s->freed = outer;
    else if (outer)
        *outer = true;
    return !freed;
}

static void on_ready(void *arg, int ready)
{
    struct spawner *s = arg;
    bool freed = false;
    s->freed = &freed;
    if (ready & EV_WRITE)
        flush(s);
    for (int i = 0; i < 64; i++) { /* bounded, so that others get their turn */
        struct spawn_msg m;
        int fds[WIRE_FDS_MAX];
        unsigned n_fds;
        size_t n = 0;
        int rc = wire_recv_raw(s->fd, &m, sizeof m, s->buf, sizeof s->buf - 1, &n, fds, &n_fds,
                               MSG_DONTWAIT);
        if (rc < 0 && (errno == EAGAIN || errno == EPROTO))
            break;
        if (rc <= 0) {
            s->freed = NULL;
            (void)on_death(s);
            return;
        }
        s->buf[n] = '\0';
        dispatch(s, &m, n, fds);
        for (unsigned k = 0; k < n_fds; k++)
            io_close(&fds[k]);
        if (freed)
            return;
    }
    s->freed = NULL;
}

int spawner_attach(struct spawner *s, struct ev *ev, void (*death)(void *arg), void *arg,
                   struct err *err)
{
    if (s->watch)
        return err_set(err, ERR_STATE, "the spawner is on a loop already");
    int rc = ev_fd_new(&s->watch, ev, s->fd, on_ready, s, err);
    if (rc < 0)
        return rc;
    s->ev = ev;
    s->on_death = death;
    s->death_arg = arg;
    flush(s);
    return 0;
}

/* A spawner that was killed took its cells along; the next cell gets a new one, also when the
 * loop has not come round to the end of the socket yet. */
static int revive(struct spawner *s, struct err *err)
{
    struct pollfd p = {s->fd, 0, 0};
    if (!s->dead && s->watch && poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) && !on_death(s))
        return err_set(err, ERR_STATE, "the spawner has been given up");
    if (!s->dead || s->dying || !s->ev)
        return 0;
    end_process(s);
    int rc = launch(s, err);
    if (rc == 0)
        rc = ev_fd_new(&s->watch, s->ev, s->fd, on_ready, s, err);
    if (rc == 0)
        flush(s);
    else
        s->dead = true;
    return rc;
}

/* ---- cells ---- */

int cell_open(struct cell **out, struct spawner *s, const struct sandbox_spec *spec,
              const struct cell_cb *cb, void *arg, struct err *err)
{
    int rc = revive(s, err);
    struct cell *c = rc == 0 ? mem_zalloc(sizeof *c) : NULL;
    if (!c)
        return rc < 0 ? rc : err_nomem(err);
    c->s = s;
    c->number = ++s->next_cell;
    c->cb = *cb;
    c->arg = arg;
    c->endings_tail = &c->endings;
    c->n_env = spec->n_env <= SANDBOX_ENV_MAX ? spec->n_env : 0;
    memcpy(c->env_text, spec->env, sizeof c->env_text);
    c->net = spec->net;
    struct spawn_msg m = {.cell = c->number, .w.kind = SPAWN_OPEN};
    rc = send_msg(s, &m, spec, sizeof *spec, NULL, 0, err);
    if (rc < 0) {
        mem_free(c);
        return rc;
    }
    c->next = s->cells;
    s->cells = c;
    *out = c;
    return 0;
}

static void add(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text) + 1);
}

#define PROXY_URL "http://127.0.0.1:3128"

/* Built from nothing: no variable of the daemon's own passes. A later name wins. */
static uint32_t add_env(struct buf *b, const struct cell *c, const struct cell_run *run)
{
    static const char *const base[] = {
        "PATH=" SANDBOX_PATH_VAR, "HOME=" SANDBOX_HOME, "USER=agent", "LOGNAME=agent",
        "LANG=C.UTF-8", "TZ=UTC", "TMPDIR=/tmp", "TERM=dumb", "SHELL=/bin/bash",
        "PYTHONDONTWRITEBYTECODE=1"};
    static const char *const proxy[] = {
        "http_proxy=" PROXY_URL, "https_proxy=" PROXY_URL, "HTTP_PROXY=" PROXY_URL,
        "HTTPS_PROXY=" PROXY_URL, "no_proxy=localhost,127.0.0.1",
        "NO_PROXY=localhost,127.0.0.1", "npm_config_proxy=" PROXY_URL,
        "npm_config_https_proxy=" PROXY_URL};
    const char *all[160];
    uint32_t n = 0, kept = 0;
    for (unsigned i = 0; i < ARRAY_LEN(base); i++)
        all[n++] = base[i];
    for (unsigned i = 0; c->net == SANDBOX_NET_PROXY && i < ARRAY_LEN(proxy); i++)
        all[n++] = proxy[i];
    for (uint32_t i = 0; i < c->n_env; i++)
        all[n++] = c->env_text[i];
    for (const char *const *e = run->env; e && *e && n < ARRAY_LEN(all); e++)
        all[n++] = *e;
    for (uint32_t i = 0; i < n; i++) {
        size_t name = strcspn(all[i], "=") + 1;
        bool later = false;
        for (uint32_t k = i + 1; !later && k < n; k++)
            later = strncmp(all[i], all[k], name) == 0;
        if (later)
            continue;
        add(b, all[i]);
        kept++;
    }
    return kept;
}

int cell_start(struct cell *c, const struct cell_run *run, uint32_t *run_id, struct err *err)
{
    if (c->state != CELL_OPEN)
        return err_set(err, ERR_STATE, "the cell is not open");
    if (!run->argv || !run->argv[0])
        return err_set(err, ERR_PARSE, "no program was named");
    struct buf b;
    buf_init(&b, ARGS_MAX);
    struct spawn_msg m = {.cell = c->number};
    m.w = (struct wire){.kind = SPAWN_RUN, .keep = (uint32_t)run->keep,
                        .a = run->wall_ms > INT32_MAX ? INT32_MAX : (int32_t)run->wall_ms};
    add(&b, run->cwd ? run->cwd : SANDBOX_WORKSPACE);
    for (const char *const *a = run->argv; *a; a++, m.w.n_argv++)
        add(&b, *a);
    m.w.n_env = add_env(&b, c, run);
    int fds[WIRE_FDS_MAX];
    unsigned n_fds = 0;
    for (unsigned i = 0; i < CELL_FDS; i++) {
        if (run->fd[i] < 0)
            continue;
        m.w.fds |= 1u << i;
        fds[n_fds++] = run->fd[i];
    }
    int rc = buf_check(&b, "arguments and environment", err);
    struct run *r = rc == 0 ? mem_zalloc(sizeof *r) : NULL;
    if (rc == 0 && !r)
        rc = err_nomem(err);
    if (rc == 0) {
        m.w.run = r->id = ++c->s->next_run;
        m.w.blob = (uint32_t)b.len;
        rc = send_msg(c->s, &m, b.data, b.len, fds, n_fds, err);
    }
    buf_done(&b);
    if (rc < 0) {
        mem_free(r);
        return rc;
    }
    r->done = run->done;
    r->arg = run->arg;
    r->next = c->runs;
    c->runs = r;
    if (run_id)
        *run_id = r->id;
    return 0;
}

static int simple(struct cell *c, enum spawn_kind kind, uint32_t run, int32_t a, int32_t b,
                  struct err *err)
{
    if (c->state != CELL_OPEN)
        return err_set(err, ERR_STATE, "the cell is not open");
    struct spawn_msg m = {.cell = c->number};
    m.w = (struct wire){.kind = kind, .run = run, .a = a, .b = b};
    return send_msg(c->s, &m, NULL, 0, NULL, 0, err);
}

int cell_begin(struct cell *c, struct err *err)
{
    return simple(c, SPAWN_BEGIN, 0, 0, 0, err);
}

int cell_keep(struct cell *c, uint32_t run_id, enum sandbox_keep keep, pid_t leaf,
              struct err *err)
{
    return simple(c, SPAWN_KEEP, run_id, (int32_t)keep, leaf, err);
}

int cell_signal(struct cell *c, uint32_t run_id, int signo, bool tree, struct err *err)
{
    return simple(c, SPAWN_SIGNAL, run_id, signo, tree, err);
}

int cell_end(struct cell *c, bool freeze,
             void (*ended)(void *arg, const struct cell_ended *e), void *arg, struct err *err)
{
    struct ending *e = mem_zalloc(sizeof *e);
    if (!e)
        return err_nomem(err);
    int rc = simple(c, SPAWN_END, 0, freeze, 0, err);
    if (rc < 0) {
        mem_free(e);
        return rc;
    }
    e->ended = ended;
    e->arg = arg;
    *c->endings_tail = e;
    c->endings_tail = &e->next;
    return 0;
}

void cell_close(struct cell *c, void (*closed)(void *arg), void *arg)
{
    if (!c)
        return;
    struct err err = {0};
    struct spawn_msg m = {.cell = c->number, .w.kind = SPAWN_CLOSE};
    bool waits = c->state != CELL_DEAD && !c->s->dead &&
                 send_msg(c->s, &m, NULL, 0, NULL, 0, &err) == 0;
    c->state = CELL_CLOSING;
    c->closed = closed;
    c->closed_arg = arg;
    if (!waits)
        on_closed(c);
}
