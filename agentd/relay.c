/*
 * relay.c - carries bytes between the person and one program in one cell. Reads always, so
 * that a flood cannot stall the cell; never waits for end of file once the call has ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "agentd/ctl_sandbox.h"
#include "agentd/ev.h"
#include "agentd/netproxy.h"
#include "base/io.h"

enum { CHUNK = 65536 };

struct flow { /* from the cell to the person */
    struct ev_fd *watch;
    int from, to;
    uint64_t *count;
    int *failed;         /* errno of the write that the person's side did not take */
    struct buf *capture; /* instead of `to`, borrowed */
};

/* From the person to the cell. The program may never read, so nothing here blocks: one
 * buffer, filled when empty and emptied when the pipe takes it. */
struct input {
    struct ev_fd *rd, *wr; /* rd is NULL for a plain file, which is always ready */
    int from, to;
    size_t n, at;
    char buf[CHUNK];
};

struct relay {
    struct ev *ev;
    struct spawner *s;
    struct cell *cell;
    struct netproxy *proxy;
    const struct relay_opts *o;
    struct relay_result *out;
    struct err *err;
    int rc;
    int inside[3]; /* ends that go into the cell */
    struct input in;
    struct flow flow[2]; /* stdout, stderr */
    int64_t asked_ns;
    bool closed;
    struct termios saved;
    bool raw;
};

static void stop_flow(struct flow *f)
{
    ev_fd_free(f->watch);
    f->watch = NULL;
    io_close(&f->from);
}

static void stop_input(struct relay *r)
{
    ev_fd_free(r->in.rd);
    ev_fd_free(r->in.wr);
    r->in.rd = r->in.wr = NULL;
    io_close(&r->in.to);
}

/* Arms the side that can do something. */
static void arm_input(struct input *in)
{
    bool empty = in->at == in->n;
    if (in->rd)
        ev_fd_set(in->rd, empty ? EV_READ : 0);
    ev_fd_set(in->wr, empty && in->rd ? 0 : EV_WRITE);
}

static bool fill_input(struct input *in)
{
    ssize_t n = read(in->from, in->buf, sizeof in->buf);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    in->at = 0;
    in->n = n > 0 ? (size_t)n : 0;
    return n > 0;
}

static bool empty_input(struct input *in)
{
    ssize_t n = write(in->to, in->buf + in->at, in->n - in->at);
    if (n > 0)
        in->at += (size_t)n;
    return n >= 0 || errno == EAGAIN || errno == EINTR;
}

static void on_input(void *arg, int ready)
{
    (void)ready;
    struct relay *r = arg;
    bool more = r->in.at < r->in.n || fill_input(&r->in);
    if (!more || !empty_input(&r->in))
        stop_input(r);
    else
        arm_input(&r->in);
}

/* To the person's side, blocking: they asked for it and the cell's pipe holds the rest. */
static bool put_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EAGAIN) {
            struct pollfd wait = {fd, POLLOUT, 0};
            (void)!poll(&wait, 1, -1);
            continue;
        }
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

static bool move_once(struct flow *f)
{
    char buf[CHUNK];
    ssize_t n = read(f->from, buf, sizeof buf);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    *f->count += (uint64_t)n;
    if (f->capture) {
        buf_add(f->capture, buf, (size_t)n);
        return true;
    }
    if (put_all(f->to, buf, (size_t)n))
        return true;
    *f->failed = errno;
    return false;
}

static void on_output(void *arg, int ready)
{
    (void)ready;
    struct flow *f = arg;
    if (!move_once(f))
        stop_flow(f);
}

/* What is in the pipes when everything is dead; never more than they hold. */
static void drain(struct relay *r)
{
    for (unsigned i = 0; i < 2; i++) {
        struct flow *f = &r->flow[i];
        if (!f->watch)
            continue;
        struct pollfd p = {f->from, POLLIN, 0};
        while (poll(&p, 1, 0) > 0 && move_once(f))
            ;
        stop_flow(f);
    }
}

static void on_closed(void *arg)
{
    ((struct relay *)arg)->closed = true;
}

static void finish(struct relay *r)
{
    stop_input(r);
    drain(r);
    cell_close(r->cell, on_closed, r);
    r->cell = NULL;
}

static void on_ended(void *arg, const struct cell_ended *e)
{
    struct relay *r = arg;
    r->out->ended = *e;
    finish(r);
}

static void on_done(void *arg, const struct sandbox_exit *x)
{
    struct relay *r = arg;
    r->out->exit = *x;
    if (x->lost || cell_end(r->cell, true, on_ended, r, r->err) < 0)
        finish(r);
}

static void on_refused(void *arg, const struct sandbox_refusal *x)
{
    struct relay *r = arg;
    r->out->refusal = *x;
    r->rc = err_set(r->err, ERR_DENIED, "%s%s%s", x->reason, x->remedy[0] ? "; " : "",
                    x->remedy);
    finish(r);
}

static void on_gone(void *arg, const char *why)
{
    struct relay *r = arg;
    if (r->cell && !r->out->exit.lost) {
        r->rc = err_set(r->err, ERR_SYS, "%s", why);
        finish(r);
    }
}

static void on_connection(void *arg, const char *record)
{
    struct relay *r = arg;
    buf_printf(&r->out->connections, "%s\n", record);
}

static int open_proxy(struct relay *r, int listener)
{
    struct netproxy_opts o = {.ev = r->ev, .policy = r->o->policy, .audit = on_connection,
                              .arg = r};
    if (!o.policy) {
        close(listener);
        return err_set(r->err, ERR_STATE, "a proxy needs a policy");
    }
    int rc = netproxy_new(&r->proxy, &o, r->err);
    if (rc < 0) {
        close(listener);
        return rc;
    }
    return netproxy_add(r->proxy, listener, r->err);
}

static void on_opened(void *arg, const struct cell_info *info)
{
    struct relay *r = arg;
    r->out->open_ns = io_mono_ns() - r->asked_ns;
    r->out->level = info->level;
    if (info->layer_fd >= 0)
        r->out->layer = fcntl(info->layer_fd, F_DUPFD_CLOEXEC, 3);
    strncpy(r->out->record, info->record, sizeof r->out->record - 1);
    if (info->proxy_fd >= 0 && open_proxy(r, info->proxy_fd) < 0) {
        r->rc = -r->err->code;
        finish(r);
        return;
    }
    struct cell_run run = {.argv = r->o->argv, .wall_ms = r->o->wall_ms, .done = on_done,
                           .arg = r};
    for (unsigned i = 0; i < 3; i++)
        run.fd[i] = r->inside[i];
    run.fd[CELL_CONTROL] = -1;
    r->rc = cell_start(r->cell, &run, NULL, r->err);
    for (unsigned i = 0; i < 3; i++)
        io_close(&r->inside[i]);
    if (r->rc < 0)
        finish(r);
}

static void on_call(void *arg, const char *name, uint64_t times)
{
    struct relay *r = arg;
    if (json_object_size(r->out->calls) < RELAY_CALLS_MAX || json_object_get(r->out->calls, name))
        json_object_set_new(r->out->calls, name, json_integer((json_int_t)times));
}

static int open_pipes(struct relay *r)
{
    int p[2];
    for (unsigned i = r->o->no_input ? 1 : 0; i < 3; i++) {
        if (pipe2(p, O_CLOEXEC) < 0)
            return err_sys(r->err, "pipe");
        r->inside[i] = i == 0 ? p[0] : p[1];
        if (i == 0)
            r->in.to = p[1];
        else
            r->flow[i - 1] = (struct flow){.from = p[0], .to = (int)i};
    }
    return 0;
}

/* The person's terminal goes raw; inside is another one, whose other end is ours. */
static int open_terminal(struct relay *r)
{
    char name[64];
    struct winsize size;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 ||
        ptsname_r(master, name, sizeof name) != 0)
        return err_sys(r->err, "open a terminal for the cell");
    r->in.to = master;
    int slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return err_sys(r->err, "open %s", name);
    if (ioctl(0, TIOCGWINSZ, &size) == 0)
        (void)!ioctl(slave, TIOCSWINSZ, &size);
    for (unsigned i = 0; i < 3; i++)
        r->inside[i] = i == 0 ? slave : fcntl(slave, F_DUPFD_CLOEXEC, 3);
    r->flow[0] = (struct flow){.from = fcntl(master, F_DUPFD_CLOEXEC, 3), .to = 1};
    struct termios t;
    if (tcgetattr(0, &t) == 0) {
        r->saved = t;
        r->raw = true;
        cfmakeraw(&t);
        tcsetattr(0, TCSANOW, &t);
    }
    return 0;
}

static int watch_input(struct relay *r)
{
    struct err plain = {0};
    if (r->o->no_input)
        return 0;
    fcntl(r->in.to, F_SETFL, fcntl(r->in.to, F_GETFL) | O_NONBLOCK);
    int rc = ev_fd_new(&r->in.wr, r->ev, r->in.to, on_input, r, r->err);
    if (rc < 0)
        return rc;
    if (ev_fd_new(&r->in.rd, r->ev, r->in.from, on_input, r, &plain) < 0)
        r->in.rd = NULL;
    arm_input(&r->in);
    return 0;
}

static int watch_flows(struct relay *r)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < 2; i++) {
        struct flow *f = &r->flow[i];
        f->count = &r->out->bytes[i];
        f->failed = &r->out->unwritten[i];
        f->capture = i == 0 ? r->o->capture : NULL;
        if (f->from < 0)
            continue;
        rc = ev_fd_new(&f->watch, r->ev, f->from, on_output, f, r->err);
        if (rc == 0)
            ev_fd_set(f->watch, EV_READ);
    }
    return rc < 0 ? rc : watch_input(r);
}

void relay_result_done(struct relay_result *r)
{
    if (!r)
        return;
    buf_done(&r->connections);
    if (r->layer > 0) /* 0 is a result never used */
        io_close(&r->layer);
    json_decref(r->calls);
    r->calls = NULL;
}

int relay_run(const struct sandbox_spec *spec, const struct relay_opts *o,
              struct relay_result *out, struct err *err)
{
    static const struct cell_cb cb = {on_opened, on_refused, on_gone, on_call};
    struct relay r = {.o = o, .out = out, .err = err, .inside = {-1, -1, -1}};
    struct spawner_opts so = {0};
    r.flow[0].from = r.flow[1].from = r.in.to = -1;
    memset(out, 0, sizeof *out);
    buf_init(&out->connections, 1 << 20);
    out->calls = json_object();
    out->layer = -1;
    int rc = spawner_start(&r.s, &so, err);
    if (rc == 0)
        rc = ev_new(&r.ev, err);
    if (rc == 0)
        rc = spawner_attach(r.s, r.ev, NULL, NULL, err);
    if (rc == 0)
        rc = o->terminal ? open_terminal(&r) : open_pipes(&r);
    if (rc == 0)
        rc = watch_flows(&r);
    r.asked_ns = io_mono_ns();
    if (rc == 0)
        rc = cell_open(&r.cell, r.s, spec, &cb, &r, err);
    while (rc == 0 && !r.closed)
        ev_run_once(r.ev, true);
    if (r.raw)
        tcsetattr(0, TCSANOW, &r.saved);
    if (r.ev)
        drain(&r);
    stop_input(&r);
    for (unsigned i = 0; i < 3; i++)
        io_close(&r.inside[i]);
    netproxy_free(r.proxy);
    spawner_free(r.s);
    ev_free(r.ev);
    return rc < 0 ? rc : r.rc;
}
