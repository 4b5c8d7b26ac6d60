/* tooldriver.c - starting, speaking with and ending one agentd-tool. */
#include "agentd/tooldriver.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

extern char **environ;

enum state { DOWN, OPENING, READY, CALLING, ENDING };
enum { ARGS_MAX = 24 };

struct tooldriver {
    struct ev *ev;
    struct spawner *spawner;
    struct sandbox_spec *spec; /* owned */
    char *argv[ARGS_MAX];      /* owned; [0] is the program */
    void (*proxy)(void *arg, int fd);
    const struct tooldriver_cb *cb;
    void *arg;

    enum state state;
    struct cell *cell;
    uint32_t run;
    pid_t pid; /* without a cell */
    int sock;
    struct ev_fd *watch;
    struct buf in, out;
    struct ev_timer *soon; /* calls back what must not be called at once */
    bool due_ready, due_ended, due_down;
    bool closed; /* the socket's end came; how the process ended is still to be told */
    bool told;   /* the other way round: `why` is known, the socket's end is still to come */
    bool unread; /* the socket's end says that the call's one message was not read whole */
    unsigned sent; /* messages of this call */
    enum tooldriver_loss loss;
    char why[640];
    enum sandbox_level level;
    bool level_known;
    char *record; /* owned */
    int layer;    /* owned; of the newest cell, -1 */
};

/* Without a cell nothing but the tool itself ends what it started: its socket is closed and
 * it gets a moment to do so. Only that level waits here. */
static void end_plain(struct tooldriver *d)
{
    enum { PATIENCE = 50, STEP_US = 10000 };
    for (unsigned i = 0; i < PATIENCE; i++) {
        if (waitpid(d->pid, NULL, WNOHANG) != 0)
            return;
        usleep(STEP_US);
    }
    kill(d->pid, SIGKILL);
    while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* Everything of the process goes; the state is DOWN. */
static void drop(struct tooldriver *d)
{
    ev_fd_free(d->watch);
    d->watch = NULL;
    io_close(&d->sock);
    if (d->pid > 0)
        end_plain(d);
    d->pid = 0;
    if (d->cell)
        cell_close(d->cell, NULL, NULL);
    d->cell = NULL;
    buf_reset(&d->in);
    buf_reset(&d->out);
    d->state = DOWN;
    d->due_ready = d->due_ended = d->closed = d->told = d->unread = false;
    d->sent = 0;
}

static void fail(struct tooldriver *d, enum tooldriver_loss loss, const char *why)
{
    if (d->state == DOWN)
        return;
    bool expected = d->state == READY && !d->due_ready; /* nobody waits for anything */
    if (why != d->why)
        snprintf(d->why, sizeof d->why, "%s", why);
    d->loss = loss;
    drop(d);
    if (!expected) {
        d->due_down = true;
        ev_timer_start(d->soon, 0, 0);
    }
}

/* It ended: by now all is known, or will never be. */
static void gone(struct tooldriver *d, const char *why)
{
    fail(d, d->unread || d->due_ready ? TOOLDRIVER_UNREAD : TOOLDRIVER_LOST, why);
}

/* What came of the socket's end and the cell's word waits this long for the other. */
static void wait_other(struct tooldriver *d)
{
    enum { PATIENCE_MS = 500 };
    ev_timer_start(d->soon, PATIENCE_MS * 1000000ll, 0);
}

/*
 * The socket's end and the cell's word why (which limit, which signal) come in any order. The
 * kernel says ECONNRESET for an end that left bytes unread: what was never read whole has not
 * run, if it was all that was sent.
 */
static void on_closed(struct tooldriver *d, bool reset)
{
    d->unread = (reset || d->out.len) && d->state == CALLING && d->sent == 1;
    if (!d->cell || d->told) {
        gone(d, d->told ? d->why : "the tool process ended");
        return;
    }
    d->closed = true;
    ev_fd_set(d->watch, 0);
    wait_other(d);
}

/* The cell's word. An answer may still be on its way, and how the socket ends matters. */
static void on_told(struct tooldriver *d, const char *why)
{
    if (d->closed || d->state != CALLING) {
        gone(d, why);
        return;
    }
    snprintf(d->why, sizeof d->why, "%s", why);
    d->told = true;
    wait_other(d);
}

static void on_soon(void *arg)
{
    struct tooldriver *d = arg;
    if (d->closed || d->told) {
        gone(d, d->told ? d->why : "the tool process ended");
    } else if (d->due_down) {
        d->due_down = false;
        d->cb->down(d->arg, d->loss, d->why);
    } else if (d->due_ended) {
        d->due_ended = false;
        d->state = READY;
        d->cb->ended(d->arg, NULL);
    } else if (d->due_ready) {
        d->due_ready = false;
        d->cb->ready(d->arg);
    }
}

static void flush(struct tooldriver *d)
{
    while (d->out.len && !d->closed) {
        ssize_t n = send(d->sock, d->out.data, d->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            on_closed(d, true);
            return;
        }
        if (n < 0)
            break;
        buf_consume(&d->out, (size_t)n);
    }
    if (!d->closed)
        ev_fd_set(d->watch, EV_READ | (d->out.len ? EV_WRITE : 0));
}

/* Hands out whole lines; false when a callback took the driver down. */
static bool hand_out(struct tooldriver *d)
{
    for (;;) {
        struct err err = {0};
        json_t *o = NULL;
        size_t nl = str_find(buf_view(&d->in), STR("\n"), 0);
        if (nl == STR_NONE)
            return true;
        int rc = json_read(&o, str_sub(buf_view(&d->in), 0, nl), &err);
        buf_consume(&d->in, nl + 1);
        if (rc < 0 || !json_is_object(o)) {
            json_decref(o);
            fail(d, TOOLDRIVER_LOST, "the tool process broke its protocol");
            return false;
        }
        if (d->state == CALLING)
            d->cb->line(d->arg, o);
        json_decref(o);
        if (d->state == DOWN)
            return false;
    }
}

static void on_socket(void *arg, int ready)
{
    struct tooldriver *d = arg;
    char chunk[65536];
    if (ready & EV_WRITE)
        flush(d);
    while (d->state != DOWN && !d->closed && (ready & EV_READ)) {
        ssize_t n = recv(d->sock, chunk, sizeof chunk, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            on_closed(d, n < 0 && errno == ECONNRESET);
            return;
        }
        buf_add(&d->in, chunk, (size_t)n);
        if (d->in.failed) {
            fail(d, TOOLDRIVER_LOST, "the tool process sent a line that is too long");
            return;
        }
        if (!hand_out(d))
            return;
    }
}

static int make_socket(struct tooldriver *d, int *theirs, struct err *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(err, "socketpair");
    d->sock = pair[0];
    *theirs = pair[1];
    int rc = ev_fd_new(&d->watch, d->ev, d->sock, on_socket, d, err);
    if (rc < 0) {
        close(*theirs);
        return rc;
    }
    ev_fd_set(d->watch, EV_READ);
    return 0;
}

/* agentd-tool beside the running binary. */
static int tool_path(char out[PATH_MAX], struct err *err)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    if (!slash || snprintf(out, PATH_MAX, "%s/agentd-tool", self) >= PATH_MAX ||
        access(out, X_OK) < 0)
        return err_set(err, ERR_NOTFOUND, "agentd-tool does not lie beside this program");
    return 0;
}

/* posix_spawn: safe beside the engine's threads; all our descriptors are close-on-exec. */
static int start_plain(struct tooldriver *d, struct err *err)
{
    char path[PATH_MAX];
    int theirs;
    int rc = tool_path(path, err);
    if (rc == 0)
        rc = make_socket(d, &theirs, err);
    if (rc < 0)
        return rc;
    posix_spawn_file_actions_t acts;
    posix_spawnattr_t attr;
    sigset_t none;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&acts);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_addopen(&acts, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&acts, 0, 1);
    posix_spawn_file_actions_adddup2(&acts, theirs, SANDBOX_CONTROL_FD);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    int e = posix_spawn(&d->pid, path, &acts, &attr, d->argv, environ);
    posix_spawn_file_actions_destroy(&acts);
    posix_spawnattr_destroy(&attr);
    close(theirs);
    if (e) {
        d->pid = 0;
        errno = e;
        return err_sys(err, "start '%s'", path);
    }
    d->level = SANDBOX_NONE;
    d->level_known = true;
    return 0;
}

static void become_ready(struct tooldriver *d)
{
    d->state = READY;
    d->due_ready = true;
    ev_timer_start(d->soon, 0, 0);
}

static void on_run_done(void *arg, const struct sandbox_exit *x)
{
    struct tooldriver *d = arg;
    char why[160], limits[64];
    if (x->lost && !x->limits)
        return; /* the cell's own word follows */
    if (x->failed)
        snprintf(why, sizeof why, "the tool process could not start (%s: %s)", x->step,
                 strerror(x->sys));
    else if (x->limits)
        snprintf(why, sizeof why, "the tool process was ended by a limit of the cell: %s",
                 sandbox_limits_text(x->limits, limits, sizeof limits));
    else if (x->signal)
        snprintf(why, sizeof why, "the tool process was killed by signal %d", x->signal);
    else
        snprintf(why, sizeof why, "the tool process ended");
    if (x->failed)
        fail(d, TOOLDRIVER_REFUSED, why);
    else
        on_told(d, why);
}

/* The driver runs as long as the cell does; the tools' own children are kept by its tree. */
static int start_in_cell(struct tooldriver *d, struct err *err)
{
    int theirs;
    int rc = make_socket(d, &theirs, err);
    if (rc < 0)
        return rc;
    const struct cell_run run = {
        .argv = (const char *const *)(uintptr_t)d->argv,
        .fd = {-1, -1, -1, theirs},
        .keep = SANDBOX_KEEP_CHILDREN,
        .done = on_run_done,
        .arg = d,
    };
    rc = cell_start(d->cell, &run, &d->run, err);
    close(theirs);
    return rc;
}

static void on_opened(void *arg, const struct cell_info *info)
{
    struct tooldriver *d = arg;
    struct err err = {0};
    d->level = info->level;
    d->level_known = true;
    mem_free(d->record);
    d->record = mem_strdup(str_c(info->record));
    io_close(&d->layer);
    if (info->layer_fd >= 0)
        d->layer = fcntl(info->layer_fd, F_DUPFD_CLOEXEC, 3);
    if (info->proxy_fd >= 0) {
        if (d->proxy)
            d->proxy(d->arg, info->proxy_fd);
        else
            close(info->proxy_fd);
    }
    if (start_in_cell(d, &err) < 0)
        fail(d, TOOLDRIVER_REFUSED, err.text);
    else
        become_ready(d);
}

static void on_refused(void *arg, const struct sandbox_refusal *r)
{
    struct tooldriver *d = arg;
    char why[sizeof d->why];
    snprintf(why, sizeof why, "%.300s%s%.300s", r->reason, r->remedy[0] ? "; " : "", r->remedy);
    fail(d, TOOLDRIVER_REFUSED, why);
}

static void on_gone(void *arg, const char *why)
{
    on_told(arg, why);
}

static void on_call(void *arg, const char *name, uint64_t times)
{
    struct tooldriver *d = arg;
    if (d->cb->call)
        d->cb->call(d->arg, name, times);
}

static const struct cell_cb cell_callbacks = {on_opened, on_refused, on_gone, on_call};

void tooldriver_begin(struct tooldriver *d)
{
    struct err err = {0};
    int rc;
    d->sent = 0;
    if (d->closed || d->told)
        fail(d, TOOLDRIVER_LOST, "the tool process ended between calls");
    if (d->state == READY) {
        rc = d->cell ? cell_begin(d->cell, &err) : 0;
        if (rc == 0) {
            become_ready(d);
            return;
        }
        d->state = CALLING;
        fail(d, TOOLDRIVER_UNREAD, err.text);
        return;
    }
    if (d->state != DOWN || d->due_down)
        return;
    d->state = OPENING;
    if (d->spawner) {
        rc = cell_open(&d->cell, d->spawner, d->spec, &cell_callbacks, d, &err);
    } else {
        rc = start_plain(d, &err);
        if (rc == 0)
            become_ready(d);
    }
    if (rc < 0)
        fail(d, TOOLDRIVER_REFUSED, err.text);
}

void tooldriver_send(struct tooldriver *d, const json_t *o)
{
    struct err err = {0};
    if (d->state != READY && d->state != CALLING)
        return;
    d->state = CALLING;
    d->sent++;
    if (json_write(o, &d->out, &err) < 0) {
        fail(d, TOOLDRIVER_REFUSED, err.text);
        return;
    }
    buf_putc(&d->out, '\n');
    flush(d);
}

static void on_ended(void *arg, const struct cell_ended *e)
{
    struct tooldriver *d = arg;
    if (d->state != ENDING)
        return;
    d->state = READY;
    d->cb->ended(d->arg, e);
}

void tooldriver_end(struct tooldriver *d, bool jobs, pid_t interp)
{
    struct err err = {0};
    if (d->state != CALLING && d->state != READY)
        return;
    d->state = ENDING;
    if (!d->cell) {
        d->due_ended = true;
        ev_timer_start(d->soon, 0, 0);
        return;
    }
    int rc = cell_keep(d->cell, d->run, jobs ? SANDBOX_KEEP_TREE : SANDBOX_KEEP_CHILDREN, interp,
                       &err);
    if (rc == 0)
        rc = cell_end(d->cell, !jobs, on_ended, d, &err);
    if (rc < 0)
        fail(d, TOOLDRIVER_LOST, err.text);
}

void tooldriver_kill(struct tooldriver *d)
{
    fail(d, TOOLDRIVER_LOST, "the tool process did not keep its time limit and was killed");
}

int tooldriver_new(struct tooldriver **out, const struct tooldriver_opts *o, struct err *err)
{
    struct tooldriver *d = mem_zalloc(sizeof *d);
    if (!d)
        return err_nomem(err);
    d->ev = o->ev;
    d->spawner = o->spawner;
    d->proxy = o->proxy;
    d->cb = o->cb;
    d->arg = o->arg;
    d->sock = d->layer = -1;
    buf_init(&d->in, LIMIT_LINE_BYTES);
    buf_init(&d->out, LIMIT_LINE_BYTES);
    int rc = ev_timer_new(&d->soon, o->ev, on_soon, d, err);
    if (rc == 0 && o->spawner) {
        static uint64_t sessions;
        d->spec = mem_alloc(sizeof *d->spec);
        if (d->spec) {
            *d->spec = *o->spec;
            d->spec->session = ++sessions;
        } else {
            rc = err_nomem(err);
        }
    }
    d->argv[0] = mem_strdup(str_c(o->spawner ? SANDBOX_TOOL : "agentd-tool"));
    for (unsigned i = 0; rc == 0 && o->argv[i]; i++) {
        assert(i + 2 < ARGS_MAX);
        d->argv[i + 1] = mem_strdup(str_c(o->argv[i]));
        if (!d->argv[i + 1])
            rc = err_nomem(err);
    }
    if (rc == 0 && !d->argv[0])
        rc = err_nomem(err);
    if (rc < 0) {
        tooldriver_free(d);
        return rc;
    }
    *out = d;
    return 0;
}

void tooldriver_free(struct tooldriver *d)
{
    if (!d)
        return;
    drop(d);
    ev_timer_free(d->soon);
    for (unsigned i = 0; i < ARGS_MAX; i++)
        mem_free(d->argv[i]);
    buf_done(&d->in);
    buf_done(&d->out);
    mem_free(d->spec);
    mem_free(d->record);
    io_close(&d->layer);
    mem_free(d);
}

bool tooldriver_is_up(const struct tooldriver *d)
{
    return d->state != DOWN && !d->closed && !d->told;
}

int tooldriver_layer(const struct tooldriver *d)
{
    return d->layer;
}

const char *tooldriver_level(const struct tooldriver *d)
{
    return d->level_known ? sandbox_level_name(d->level) : "unknown";
}

const char *tooldriver_record(const struct tooldriver *d)
{
    return d->record;
}
