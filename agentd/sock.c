/* sock.c - connections. A connection dies only between callbacks: kill() marks, reap() frees. */
#include "agentd/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "agentd/log.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

enum {
    MAX_LISTENERS = 4,
    MAX_UIDS = 16,
    READ_CHUNK = 65536,
    LINGER_S = 5,
    KEEP_FDS = 128, /* descriptors for the store, tools and the engine */
    STALE_TRIES = 50,
    STALE_PAUSE_NS = 20000000,
};

struct conn {
    struct sock *sock;
    struct conn *next;
    struct ev_fd *watch; /* owned */
    int fd;
    uid_t uid;
    pid_t pid;
    struct buf in, out;
    size_t put;         /* bytes of `out` already written */
    size_t scanned;     /* bytes of `in` known to hold no newline */
    int64_t progress_ns; /* when the kernel last took something, or the queue began to wait */
    bool waiting;        /* the queue is not empty */
    bool over;          /* the queue has passed its cap and not yet fallen under half */
    bool held, closing, dead, busy;
    void *data;
};

struct listener {
    struct sock *sock;
    struct ev_fd *watch; /* owned */
    int fd;
    char path[PATH_MAX]; /* to unlink; empty when adopted */
    int lock;
};

struct sock {
    struct sock_opts o;
    uint32_t uids[MAX_UIDS];
    struct listener listener[MAX_LISTENERS];
    unsigned n_listeners, n_conns, most_conns;
    int spare; /* given up for a moment to tell a client that there are no descriptors */
    bool refusing; /* said so once; until one leaves */
    struct conn *conns; /* owned list */
    struct ev_timer *tick; /* owned; runs while a queue is not empty */
    bool ticking;
};

static void flush(struct conn *c);

static void reap(struct conn *c)
{
    if (!c->dead || c->busy)
        return;
    struct sock *s = c->sock;
    for (struct conn **at = &s->conns; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    s->n_conns--;
    s->refusing = false;
    if (s->o.cbs.close)
        s->o.cbs.close(s->o.cbs.arg, c);
    ev_fd_free(c->watch);
    io_close(&c->fd);
    buf_done(&c->in);
    buf_done(&c->out);
    mem_free(c);
}

static void watch(struct conn *c)
{
    bool full = conn_queued(c) >= LIMIT_OUTPUT_BYTES;
    int want = (c->closing || c->held || full ? 0 : EV_READ) | (conn_queued(c) ? EV_WRITE : 0);
    ev_fd_set(c->watch, want);
}

/* Each complete line goes to the callback; what follows stays for the next read. */
static void deliver(struct conn *c)
{
    size_t from = 0;
    while (!c->dead && !c->closing && !c->held && from < c->in.len) {
        size_t skip = c->scanned > from ? c->scanned : from;
        const uint8_t *nl = memchr(c->in.data + skip, '\n', c->in.len - skip);
        if (!nl) {
            c->scanned = c->in.len;
            break;
        }
        size_t n = (size_t)(nl - c->in.data) - from;
        struct str line = str_of(c->in.data + from, n);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        from += n + 1;
        c->scanned = from;
        if (line.n)
            c->sock->o.cbs.line(c->sock->o.cbs.arg, c, line);
        if (conn_queued(c) >= LIMIT_OUTPUT_BYTES)
            break;
    }
    buf_consume(&c->in, from);
    c->scanned -= from < c->scanned ? from : c->scanned;
}

static void read_some(struct conn *c)
{
    uint8_t chunk[READ_CHUNK];
    ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == 0 && conn_queued(c)) {
        c->closing = true; /* it may have closed only its half: what is queued still goes */
        return;
    }
    if (n <= 0) {
        c->dead = true;
        return;
    }
    buf_add(&c->in, chunk, (size_t)n);
    if (c->in.failed == ERR_NOMEM) {
        c->dead = true;
        return;
    }
    deliver(c);
    if (c->in.failed || c->in.len > LIMIT_LINE_BYTES) {
        buf_reset(&c->in);
        c->sock->o.cbs.oversize(c->sock->o.cbs.arg, c);
        conn_close(c);
    }
}

static void flush(struct conn *c)
{
    while (conn_queued(c)) {
        ssize_t n = send(c->fd, c->out.data + c->put, c->out.len - c->put,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            LOGD("sock", "send pid=%d errno=%d", (int)c->pid, errno);
            c->dead = true;
        }
        if (n < 0)
            break;
        c->put += (size_t)n;
        c->progress_ns = io_mono_ns();
    }
    if (c->put == c->out.len) {
        buf_reset(&c->out);
        c->put = 0;
        c->waiting = false;
        if (c->closing)
            c->dead = true;
    } else if (c->put > LIMIT_OUTPUT_BYTES) {
        buf_consume(&c->out, c->put);
        c->put = 0;
    }
}

static void on_ready(void *arg, int ready)
{
    struct conn *c = arg;
    c->busy = true;
    if (ready & EV_WRITE)
        flush(c);
    if (!c->dead && c->over && conn_roomy(c)) {
        c->over = false;
        if (c->sock->o.cbs.drain)
            c->sock->o.cbs.drain(c->sock->o.cbs.arg, c);
    }
    if (!c->dead && !c->closing && !c->held) {
        if (c->in.len && conn_queued(c) < LIMIT_OUTPUT_BYTES)
            deliver(c); /* lines that waited for room */
        if (!c->dead && (ready & EV_READ) && !c->held)
            read_some(c);
    } else if (!c->dead && (ready & EV_READ) && (ready & EV_WRITE)) {
        char probe; /* hang-up of a held or closing peer */
        if (recv(c->fd, &probe, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
            c->dead = true;
    }
    if (!c->dead)
        watch(c);
    c->busy = false;
    reap(c);
}

static void on_tick(void *arg)
{
    struct sock *s = arg;
    int64_t now = io_mono_ns();
    bool waiting = false;
    for (struct conn *c = s->conns, *next; c; c = next) {
        next = c->next;
        if (!conn_queued(c) || c->dead)
            continue;
        waiting = true;
        int64_t stalled = now - c->progress_ns;
        if (c->closing ? stalled > (int64_t)LINGER_S * 1000000000 : stalled > s->o.stall_ns) {
            c->busy = true;
            if (!c->closing && s->o.cbs.stall)
                s->o.cbs.stall(s->o.cbs.arg, c);
            flush(c);
            c->dead = true;
            c->busy = false;
            reap(c);
        }
    }
    if (!waiting)
        ev_timer_stop(s->tick);
    s->ticking = waiting;
}

static bool allowed(const struct sock *s, uid_t uid)
{
    if (uid == getuid() || uid == 0)
        return true;
    for (unsigned i = 0; i < s->o.n_uids; i++)
        if (s->uids[i] == uid)
            return true;
    return false;
}

/* Takes fd, also on failure. */
static int add_conn(struct sock *s, int fd, struct err *err)
{
    struct ucred cred = {0};
    socklen_t len = sizeof cred;
    int rc = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        rc = err_sys(err, "peer credentials");
    else if (!allowed(s, cred.uid))
        rc = err_set(err, ERR_DENIED, "uid %u may not connect", (unsigned)cred.uid);
    else if (s->n_conns >= s->most_conns)
        rc = err_set(err, ERR_LIMIT, "more than %u connections", s->most_conns);
    struct conn *c = rc < 0 ? NULL : mem_zalloc(sizeof *c);
    if (rc == 0 && !c)
        rc = err_nomem(err);
    if (rc == 0)
        rc = ev_fd_new(&c->watch, s->o.ev, fd, on_ready, c, err);
    if (rc < 0) {
        close(fd);
        mem_free(c);
        return rc;
    }
    (void)!fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    c->sock = s;
    c->fd = fd;
    c->uid = cred.uid;
    c->pid = cred.pid;
    c->progress_ns = io_mono_ns();
    buf_init(&c->in, (size_t)LIMIT_LINE_BYTES + READ_CHUNK);
    buf_init(&c->out, 0);
    c->next = s->conns;
    s->conns = c;
    s->n_conns++;
    if (s->o.cbs.open)
        s->o.cbs.open(s->o.cbs.arg, c);
    watch(c);
    return 0;
}

/* A client that cannot be taken is told so, as far as its socket takes it at once. Takes fd. */
static void refuse(struct sock *s, int fd, const char *why)
{
    char line[512];
    int n = snprintf(line, sizeof line,
                     "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32001,\"message\":"
                     "\"%s\",\"data\":{\"kind\":\"overloaded\",\"retryable\":true,"
                     "\"retryAfterMs\":1000}}}\n", why);
    if (!s->refusing)
        LOGW("sock", "refused error=\"%s\"; more of these are not logged until one leaves", why);
    s->refusing = true;
    (void)!send(fd, line, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
}

static void on_accept(void *arg, int ready)
{
    struct listener *l = arg;
    struct sock *s = l->sock;
    struct err err;
    (void)ready;
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
        io_close(&s->spare);
        fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0)
            refuse(s, fd, "no descriptors are left for another connection");
        s->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    } else if (fd >= 0 && s->n_conns >= s->most_conns) {
        refuse(s, fd, "all connections are in use");
    } else if (fd >= 0 && add_conn(s, fd, &err) < 0) {
        LOGW("sock", "refused error=\"%s\"", err.text);
    }
}

/* What the process may open, less what the rest of the daemon needs. */
static unsigned most_connections(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur >= LIMIT_CONNECTIONS + KEEP_FDS)
        return LIMIT_CONNECTIONS;
    return r.rlim_cur >= 2 * KEEP_FDS ? (unsigned)r.rlim_cur - KEEP_FDS
                                      : (unsigned)r.rlim_cur / 2;
}

int sock_new(struct sock **out, const struct sock_opts *o, struct err *err)
{
    struct sock *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err);
    s->o = *o;
    s->most_conns = most_connections();
    s->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (o->n_uids > MAX_UIDS)
        s->o.n_uids = MAX_UIDS;
    if (s->o.n_uids)
        memcpy(s->uids, o->uids, s->o.n_uids * sizeof *s->uids);
    if (!s->o.stall_ns)
        s->o.stall_ns = (int64_t)30 * 1000000000;
    int rc = ev_timer_new(&s->tick, o->ev, on_tick, s, err);
    if (rc < 0) {
        io_close(&s->spare);
        mem_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

int sock_adopt_listener(struct sock *s, int fd, struct err *err)
{
    if (s->n_listeners == MAX_LISTENERS) {
        close(fd);
        return err_set(err, ERR_LIMIT, "more than %d listening sockets", MAX_LISTENERS);
    }
    struct listener *l = &s->listener[s->n_listeners];
    *l = (struct listener){.sock = s, .fd = fd, .lock = -1};
    (void)!fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)!fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    int rc = ev_fd_new(&l->watch, s->o.ev, fd, on_accept, l, err);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    ev_fd_set(l->watch, EV_READ);
    s->n_listeners++;
    return 0;
}

int sock_adopt(struct sock *s, int fd, struct err *err)
{
    (void)!fcntl(fd, F_SETFD, FD_CLOEXEC);
    return add_conn(s, fd, err);
}

/*
 * Under the lock: a socket file that nobody answers is removed, one that answers is not. The
 * kernel may keep the listener of a killed daemon for some milliseconds after its lock is gone.
 */
static int clear_stale(const char *path, const struct sockaddr_un *a, struct err *err)
{
    const struct timespec pause = {.tv_nsec = STALE_PAUSE_NS};
    for (int i = 0; i < STALE_TRIES; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            return err_sys(err, "socket");
        int rc = connect(fd, (const struct sockaddr *)a, sizeof *a);
        int why = errno;
        close(fd);
        if (rc < 0 && why != EAGAIN) { /* EAGAIN: somebody listens and is busy */
            if (why == ECONNREFUSED)
                unlink(path);
            return 0;
        }
        nanosleep(&pause, NULL);
    }
    return err_set(err, ERR_STATE, "another agentd answers at '%s'", path);
}

int sock_listen(struct sock *s, const char *path, struct err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char name[PATH_MAX], *slash;
    if (strlen(path) >= sizeof a.sun_path)
        return err_set(err, ERR_LIMIT, "socket path '%s' is longer than %zu bytes", path,
                       sizeof a.sun_path - 1);
    memcpy(a.sun_path, path, strlen(path) + 1);
    snprintf(name, sizeof name, "%s", path);
    slash = strrchr(name, '/');
    int rc = 0;
    if (slash && slash != name) {
        *slash = '\0';
        rc = io_make_dirs(name, 0700, err);
        if (rc < 0)
            return rc;
    }
    snprintf(name, sizeof name, "%s.lock", path);
    int lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0)
        return err_sys(err, "open '%s'", name);
    if (flock(lock, LOCK_EX | LOCK_NB) < 0)
        rc = err_set(err, ERR_STATE, "another agentd holds '%s'", name);
    if (rc == 0)
        rc = clear_stale(path, &a, err);
    int fd = rc < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (rc == 0) {
        mode_t old = umask(0177);
        if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 128) < 0)
            rc = err_sys(err, "listen at '%s'", path);
        umask(old);
    }
    if (rc < 0) {
        io_close(&fd);
        close(lock);
        return rc;
    }
    rc = sock_adopt_listener(s, fd, err);
    if (rc < 0) {
        close(lock);
        return rc;
    }
    struct listener *l = &s->listener[s->n_listeners - 1];
    snprintf(l->path, sizeof l->path, "%s", path);
    l->lock = lock;
    return 0;
}

void sock_stop_listening(struct sock *s)
{
    for (unsigned i = 0; i < s->n_listeners; i++) {
        struct listener *l = &s->listener[i];
        ev_fd_free(l->watch);
        io_close(&l->fd);
        if (l->path[0])
            unlink(l->path);
        io_close(&l->lock);
    }
    s->n_listeners = 0;
}

void sock_free(struct sock *s)
{
    if (!s)
        return;
    sock_stop_listening(s);
    while (s->conns) {
        struct conn *c = s->conns;
        flush(c);
        c->dead = true;
        c->busy = false;
        reap(c);
    }
    ev_timer_free(s->tick);
    io_close(&s->spare);
    mem_free(s);
}

unsigned sock_count(const struct sock *s)
{
    return s->n_conns;
}

void sock_each(struct sock *s, void (*fn)(void *arg, struct conn *c), void *arg)
{
    for (struct conn *c = s->conns, *next; c; c = next) {
        next = c->next;
        fn(arg, c);
    }
}

struct buf *conn_out(struct conn *c)
{
    return &c->out;
}

void conn_sent(struct conn *c)
{
    buf_putc(&c->out, '\n');
    if (c->out.failed) {
        c->dead = true; /* no memory for its output: this client, not the daemon, goes */
        ev_fd_set(c->watch, EV_WRITE);
        return;
    }
    if (!c->waiting) {
        c->waiting = true; /* what came before an idle hour is no stall */
        c->progress_ns = io_mono_ns();
    }
    if (!c->busy)
        flush(c);
    if (conn_queued(c) >= LIMIT_OUTPUT_BYTES / 2)
        c->over = true;
    if (conn_queued(c) && !c->sock->ticking) { /* never restarted: others' traffic must not
                                                  put off a stalled client's end */
        ev_timer_start(c->sock->tick, 1000000000, 1000000000);
        c->sock->ticking = true;
    }
    if (c->dead) {
        ev_fd_set(c->watch, EV_READ | EV_WRITE); /* reaped when the loop comes by */
        return;
    }
    watch(c);
}

void conn_send(struct conn *c, struct str line)
{
    buf_str(&c->out, line);
    conn_sent(c);
}

size_t conn_queued(const struct conn *c)
{
    return c->out.len - c->put;
}

bool conn_room(const struct conn *c)
{
    return !c->dead && !c->closing && conn_queued(c) < LIMIT_OUTPUT_BYTES;
}

bool conn_roomy(const struct conn *c)
{
    return !c->dead && !c->closing && conn_queued(c) < LIMIT_OUTPUT_BYTES / 2;
}

void conn_hold(struct conn *c, bool hold)
{
    c->held = hold;
    if (!c->dead)
        watch(c);
    if (!hold && c->in.len)
        ev_fd_set(c->watch, EV_READ | EV_WRITE); /* a writable socket wakes deliver() */
}

void conn_close(struct conn *c)
{
    c->closing = true;
    if (!conn_queued(c))
        c->dead = true;
    if (!c->busy)
        ev_fd_set(c->watch, EV_WRITE);
}

uid_t conn_uid(const struct conn *c)
{
    return c->uid;
}

pid_t conn_pid(const struct conn *c)
{
    return c->pid;
}

void conn_set_data(struct conn *c, void *data)
{
    c->data = data;
}

void *conn_data(const struct conn *c)
{
    return c->data;
}
