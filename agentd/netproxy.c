/*
 * netproxy.c - connections of the proxy as state machines.
 *
 *   HEAD --parsed--> RESOLVE --checked--> DIAL --connected--> HELLO (CONNECT) --> COPY --> gone
 *     |                 |                   |                   |
 *     +-- 4xx ----------+-- 403, 502 -------+-- 502             +-- closed: name differs
 *
 * What a client sent but nobody may read yet waits in `up`; what a server sent waits in
 * `down`. Nothing is read while the other side's buffer is full, so memory is bounded.
 */
#include "agentd/netproxy.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agentd/netcheck.h"
#include "agentd/nettls.h"
#include "base/io.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"

enum { PIPE_BYTES = 65536, ADDRS = 8, LISTENERS = 8, LINES_MAX = 100 };
#define SEC 1000000000ll

enum state { HEAD, RESOLVE, DIAL, HELLO, COPY, FETCH, CLOSING };

struct pipe {
    uint8_t data[PIPE_BYTES];
    size_t n;
    bool ended; /* no more will come */
    uint64_t total;
};

struct conn {
    struct conn *next;
    struct netproxy *p;
    enum state state;
    int client, server;
    struct ev_fd *cw, *sw;
    struct ev_timer *timer;
    struct ev_resolve *resolve;
    struct nettls *fetch; /* a request with a secret, on its way over TLS */
    struct pipe up, down;
    struct netcheck_head head;
    struct sockaddr_storage addr[ADDRS];
    unsigned n_addr, at_addr;
    char sni[NETCHECK_HOST_MAX], dialled[64], why[160];
    bool allowed, server_shut;
    int64_t began;
};

struct listener {
    struct netproxy *p;
    int fd;
    struct ev_fd *watch;
};

struct netproxy {
    struct netproxy_opts o;
    struct listener listener[LISTENERS];
    unsigned n_listeners, n_conns;
    struct conn *conns;
    /* Lines that may still be written of refused connections, which cost the code inside nothing:
     * one more each second. The next line says how many were not. */
    unsigned lines;
    int64_t counted;
    uint64_t untold;
};

/* ---- ends ---- */

static bool has_line(struct netproxy *p)
{
    int64_t passed = (io_mono_ns() - p->counted) / SEC;
    p->lines = passed < LINES_MAX - (int64_t)p->lines ? p->lines + (unsigned)passed : LINES_MAX;
    p->counted += passed * SEC;
    if (p->lines == 0)
        return false;
    p->lines--;
    return true;
}

static void audit(const struct conn *c)
{
    if (!c->p->o.audit)
        return;
    if (!c->allowed && !has_line(c->p)) {
        c->p->untold++;
        return;
    }
    struct buf b;
    struct err err = {0};
    json_t *o = json_object();
    buf_init(&b, 0);
    json_object_set_new(o, "event", json_text(STR("connection")));
    json_object_set_new(o, "host", json_text(str_c(c->head.host)));
    json_object_set_new(o, "port", json_integer(c->head.port));
    json_object_set_new(o, "method", json_text(str_c(c->head.connect ? "CONNECT" : "GET")));
    json_object_set_new(o, "allowed", json_boolean(c->allowed));
    json_object_set_new(o, "address", json_text(str_c(c->dialled)));
    json_object_set_new(o, "server_name", json_text(str_c(c->sni)));
    json_object_set_new(o, "why", json_text(str_c(c->why)));
    json_object_set_new(o, "up", json_integer((json_int_t)c->up.total));
    json_object_set_new(o, "down", json_integer((json_int_t)c->down.total));
    json_object_set_new(o, "ms", json_integer((io_mono_ns() - c->began) / 1000000));
    if (c->p->untold)
        json_object_set_new(o, "untold", json_integer((json_int_t)c->p->untold));
    c->p->untold = 0;
    if (json_write(o, &b, &err) == 0)
        c->p->o.audit(c->p->o.arg, buf_cstr(&b));
    json_decref(o);
    buf_done(&b);
}

static void end(struct conn *c)
{
    struct netproxy *p = c->p;
    audit(c);
    for (struct conn **at = &p->conns; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    p->n_conns--;
    ev_fd_free(c->cw);
    ev_fd_free(c->sw);
    ev_timer_free(c->timer);
    ev_resolve_cancel(c->resolve);
    nettls_free(c->fetch);
    io_close(&c->client);
    io_close(&c->server);
    mem_free(c);
}

static void watch(struct conn *c);

/* Answers with a sentence and ends; the client reads why. */
static void refuse(struct conn *c, int status, const char *why)
{
    static const struct {
        int status;
        const char *text;
    } names[] = {{400, "Bad Request"}, {403, "Forbidden"}, {431, "Too Large"},
                 {502, "Bad Gateway"}, {504, "Gateway Timeout"}};
    const char *text = "Error";
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (names[i].status == status)
            text = names[i].text;
    snprintf(c->why, sizeof c->why, "%s", why);
    int n = snprintf((char *)c->down.data, sizeof c->down.data,
                     "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
                     "Connection: close\r\nContent-Length: %zu\r\n\r\nagentd proxy: %s\n",
                     status, text, strlen(why) + 15, why);
    c->down.n = n > 0 ? (size_t)n : 0;
    c->down.ended = true;
    c->state = CLOSING;
    ev_fd_free(c->sw);
    c->sw = NULL;
    io_close(&c->server);
    watch(c);
}

static void on_time(void *arg)
{
    struct conn *c = arg;
    if (c->state == DIAL || c->state == RESOLVE) {
        refuse(c, 504, "the server did not answer in time");
        ev_timer_start(c->timer, 10 * SEC, 0);
        return;
    }
    snprintf(c->why, sizeof c->why, "%s", c->state == COPY ? "idle for too long"
                                                           : "nothing came in time");
    end(c);
}

static int64_t patience(enum state s)
{
    return s == HEAD || s == HELLO || s == CLOSING ? 10 * SEC : s == COPY ? 300 * SEC : 20 * SEC;
}

static void enter(struct conn *c, enum state s)
{
    c->state = s;
    ev_timer_start(c->timer, patience(s), 0);
    watch(c);
}

/* ---- copying ---- */

static bool room(const struct pipe *p)
{
    return p->n < PIPE_BYTES && !p->ended;
}

/* Which sides we listen to follows from the state and the buffers alone. */
static void watch(struct conn *c)
{
    bool reading = c->state == HEAD || c->state == HELLO || c->state == COPY;
    int client = (reading && room(&c->up) ? EV_READ : 0) | (c->down.n ? EV_WRITE : 0);
    ev_fd_set(c->cw, client);
    if (!c->sw)
        return;
    int server = c->state == DIAL ? EV_WRITE : 0;
    if (c->state == COPY)
        server = (room(&c->down) ? EV_READ : 0) | (c->up.n ? EV_WRITE : 0);
    ev_fd_set(c->sw, server);
}

/* From a socket into a buffer; false when the connection broke. */
static bool fill(int fd, struct pipe *p)
{
    if (!room(p))
        return true;
    ssize_t n = recv(fd, p->data + p->n, PIPE_BYTES - p->n, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    p->ended = n == 0;
    p->n += (size_t)n;
    p->total += (uint64_t)n;
    return true;
}

static bool drain(int fd, struct pipe *p)
{
    if (p->n == 0)
        return true;
    ssize_t n = send(fd, p->data, p->n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    p->n -= (size_t)n;
    memmove(p->data, p->data + n, p->n);
    return true;
}

static void copy(struct conn *c, bool from_client, int ready)
{
    bool ok = true;
    if (ready & EV_READ)
        ok = from_client ? fill(c->client, &c->up) : fill(c->server, &c->down);
    ok = ok && drain(c->server, &c->up) && drain(c->client, &c->down);
    if (c->up.ended && c->up.n == 0 && !c->server_shut) {
        shutdown(c->server, SHUT_WR);
        c->server_shut = true;
    }
    bool done = c->down.ended && c->down.n == 0;
    if (!ok || done || c->up.total + c->down.total > LIMIT_PROXY_BYTES) {
        if (!ok)
            snprintf(c->why, sizeof c->why, "a side broke off");
        end(c);
        return;
    }
    enter(c, COPY);
}

/* ---- the way there ---- */

static void dial(struct conn *c);

static void on_server(void *arg, int ready)
{
    struct conn *c = arg;
    if (c->state == COPY) {
        copy(c, false, ready);
        return;
    }
    int problem = 0;
    socklen_t n = sizeof problem;
    if (c->state != DIAL)
        return;
    if (getsockopt(c->server, SOL_SOCKET, SO_ERROR, &problem, &n) < 0 || problem != 0) {
        c->at_addr++;
        dial(c);
        return;
    }
    netcheck_text((struct sockaddr *)&c->addr[c->at_addr], c->dialled, sizeof c->dialled);
    if (!c->head.connect) {
        c->allowed = true;
        enter(c, COPY);
        return;
    }
    static const char yes[] = "HTTP/1.1 200 Connection established\r\n\r\n";
    memcpy(c->down.data, yes, sizeof yes - 1);
    c->down.n = sizeof yes - 1;
    enter(c, HELLO);
}

/* Dials the addresses that were checked, in turn; the name is not looked up again. */
static void dial(struct conn *c)
{
    struct err err = {0};
    for (; c->at_addr < c->n_addr; c->at_addr++) {
        const struct sockaddr_storage *a = &c->addr[c->at_addr];
        ev_fd_free(c->sw);
        c->sw = NULL;
        io_close(&c->server);
        c->server = socket(a->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (c->server < 0)
            continue;
        socklen_t size = a->ss_family == AF_INET ? sizeof(struct sockaddr_in)
                                                 : sizeof(struct sockaddr_in6);
        if (connect(c->server, (const struct sockaddr *)a, size) < 0 && errno != EINPROGRESS)
            continue;
        if (ev_fd_new(&c->sw, c->p->o.ev, c->server, on_server, c, &err) < 0)
            continue;
        enter(c, DIAL);
        return;
    }
    refuse(c, 502, "no address of the server accepts connections");
}

static void on_fetched(void *arg, const void *data, size_t n, const char *why)
{
    struct conn *c = arg;
    if (why && why[0]) {
        c->down.n = 0;
        refuse(c, 502, why);
        return;
    }
    if (data && n <= PIPE_BYTES - c->down.n) {
        memcpy(c->down.data + c->down.n, data, n);
        c->down.n += n;
        c->down.total += n;
    }
    if (!data)
        c->down.ended = true;
    c->allowed = true;
    watch(c);
    if (c->down.ended && c->down.n == 0)
        end(c);
}

static const struct policy_secret *secret_for(const struct conn *c)
{
    const struct policy *p = c->p->o.policy;
    for (unsigned i = 0; !c->head.connect && i < p->n_secrets; i++)
        if (strcmp(p->secret[i].host, c->head.host) == 0)
            return &p->secret[i];
    return NULL;
}

static void fetch(struct conn *c, const struct policy_secret *s)
{
    struct err err = {0};
    netcheck_text((struct sockaddr *)&c->addr[0], c->dialled, sizeof c->dialled);
    struct nettls_opts o = {.ev = c->p->o.ev, .host = c->head.host, .address = c->dialled,
                            .target = c->head.target, .headers = c->head.headers,
                            .head = c->head.head, .secret = s, .room = PIPE_BYTES / 2,
                            .cb = on_fetched, .arg = c};
    enter(c, FETCH);
    ev_timer_start(c->timer, 300 * SEC, 0);
    if (nettls_new(&c->fetch, &o, &err) < 0)
        refuse(c, 502, err.text);
}

/* The path of a proxy's request becomes a server's; what was meant for us stays here. */
static bool rewrite(struct conn *c)
{
    struct buf b;
    buf_init(&b, PIPE_BYTES);
    buf_printf(&b, "%s %.*s HTTP/1.1\r\nHost: %s", c->head.head ? "HEAD" : "GET",
               STR_ARG(c->head.target), c->head.host);
    if (c->head.port != 80)
        buf_printf(&b, ":%u", c->head.port);
    buf_puts(&b, "\r\nConnection: close\r\n");
    struct str rest = c->head.headers, line;
    while (str_split(&rest, '\n', &line)) {
        static const char *const ours[] = {"host:", "connection:", "proxy-", "keep-alive:",
                                           "te:", "trailer:", NULL};
        bool drop = false;
        for (unsigned i = 0; ours[i]; i++)
            drop |= line.n >= strlen(ours[i]) && strncasecmp(line.p, ours[i], strlen(ours[i])) == 0;
        if (!drop)
            buf_printf(&b, "%.*s\r\n", STR_ARG(str_trim(line)));
    }
    buf_puts(&b, "\r\n");
    bool ok = !b.failed;
    if (ok) {
        memcpy(c->up.data, b.data, b.len);
        c->up.n = b.len;
        c->up.ended = true; /* one request, and nothing of what may follow it */
    }
    buf_done(&b);
    return ok;
}

static void on_resolved(void *arg, const struct sockaddr_storage *a, unsigned n,
                        const char *why)
{
    struct conn *c = arg;
    c->resolve = NULL;
    char text[160];
    for (unsigned i = 0; i < n && c->n_addr < ADDRS; i++)
        if (netcheck_address(c->p->o.policy, (const struct sockaddr *)&a[i]))
            c->addr[c->n_addr++] = a[i];
    if (n == 0) {
        snprintf(text, sizeof text, "%.80s cannot be resolved: %s", c->head.host, why);
        refuse(c, 502, text);
        return;
    }
    if (c->n_addr == 0) {
        netcheck_text((const struct sockaddr *)&a[0], c->dialled, sizeof c->dialled);
        snprintf(text, sizeof text, "%.50s resolves to %.46s, which is private or local",
                 c->head.host, c->dialled);
        c->dialled[0] = '\0';
        refuse(c, 403, text);
        return;
    }
    const struct policy_secret *s = secret_for(c);
    if (s)
        fetch(c, s);
    else if (!c->head.connect && !rewrite(c))
        refuse(c, 431, "the request is too long");
    else
        dial(c);
}

static void on_head(struct conn *c)
{
    struct err err = {0};
    int rc = netcheck_head(str_of(c->up.data, c->up.n), &c->head, &err);
    if (rc == 1 && !c->up.ended)
        return watch(c);
    if (rc == 1) {
        end(c);
        return;
    }
    if (rc < 0) {
        refuse(c, rc == -ERR_LIMIT ? 431 : rc == -ERR_DENIED ? 403 : 400, err.text);
        return;
    }
    if (netcheck_host(c->p->o.policy, c->head.host, c->head.port, c->head.connect, &err) < 0) {
        refuse(c, 403, err.text);
        return;
    }
    if (c->head.connect) { /* the target and headers are done with; what follows is TLS */
        c->up.n -= c->head.size;
        memmove(c->up.data, c->up.data + c->head.size, c->up.n);
    }
    enter(c, RESOLVE);
    const struct policy_secret *s = secret_for(c);
    if (ev_resolve_new(&c->resolve, c->p->o.ev, c->head.host,
                       s ? (uint16_t)s->port : c->head.port,
                       on_resolved, c, &err) < 0)
        refuse(c, 502, err.text);
}

/* The name that TLS asks for must be the one that was allowed. */
static void on_hello(struct conn *c)
{
    struct err err = {0};
    int rc = netcheck_hello(str_of(c->up.data, c->up.n), c->sni, &err);
    if (rc == 1 && !c->up.ended && c->up.n < PIPE_BYTES)
        return watch(c);
    bool address = c->sni[0] == '\0' && strcmp(c->dialled, c->head.host) == 0;
    if (rc != 0 || (!address && strcmp(c->sni, c->head.host) != 0)) {
        if (rc < 0)
            snprintf(c->why, sizeof c->why, "%.150s", err.text);
        else
            snprintf(c->why, sizeof c->why, "TLS asks for another server name");
        end(c);
        return;
    }
    c->allowed = true;
    enter(c, COPY);
}

static void on_client(void *arg, int ready)
{
    struct conn *c = arg;
    if (c->state == COPY) {
        copy(c, true, ready);
        return;
    }
    bool ok = !(ready & EV_READ) || !room(&c->up) || fill(c->client, &c->up);
    ok = ok && drain(c->client, &c->down);
    if (c->state == FETCH && ok && c->fetch)
        nettls_room(c->fetch, PIPE_BYTES - c->down.n);
    if (!ok || (c->down.ended && c->down.n == 0 && (c->state == CLOSING || c->state == FETCH))) {
        end(c);
        return;
    }
    if (c->state == HEAD && c->up.n)
        on_head(c);
    else if (c->state == HEAD && c->up.ended)
        end(c);
    else if (c->state == HELLO && (c->up.n || c->up.ended))
        on_hello(c);
    else
        watch(c);
}

static void on_accept(void *arg, int ready)
{
    (void)ready;
    struct listener *l = arg;
    struct err err = {0};
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct conn *c = l->p->n_conns < LIMIT_PROXY_CONNECTIONS ? mem_zalloc(sizeof *c) : NULL;
    if (!c) {
        close(fd);
        return;
    }
    c->p = l->p;
    c->client = fd;
    c->server = -1;
    c->began = io_mono_ns();
    c->next = l->p->conns;
    l->p->conns = c;
    l->p->n_conns++;
    if (ev_fd_new(&c->cw, l->p->o.ev, fd, on_client, c, &err) < 0 ||
        ev_timer_new(&c->timer, l->p->o.ev, on_time, c, &err) < 0) {
        end(c);
        return;
    }
    enter(c, HEAD);
}

/* ---- face ---- */

int netproxy_new(struct netproxy **out, const struct netproxy_opts *o, struct err *err)
{
    struct netproxy *p = mem_zalloc(sizeof *p);
    if (!p)
        return err_nomem(err);
    p->o = *o;
    p->lines = LINES_MAX;
    p->counted = io_mono_ns();
    *out = p;
    return 0;
}

int netproxy_add(struct netproxy *p, int listener, struct err *err)
{
    int rc = p->n_listeners == LISTENERS ? err_set(err, ERR_LIMIT, "too many cells on a proxy")
                                         : 0;
    struct listener *l = &p->listener[p->n_listeners];
    if (rc == 0) {
        fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) | O_NONBLOCK);
        l->p = p;
        rc = ev_fd_new(&l->watch, p->o.ev, listener, on_accept, l, err);
    }
    if (rc < 0) {
        close(listener);
        return rc;
    }
    l->fd = listener;
    p->n_listeners++;
    ev_fd_set(l->watch, EV_READ);
    return 0;
}

unsigned netproxy_connections(const struct netproxy *p)
{
    return p->n_conns;
}

void netproxy_free(struct netproxy *p)
{
    if (!p)
        return;
    for (unsigned i = 0; i < p->n_listeners; i++) {
        ev_fd_free(p->listener[i].watch);
        io_close(&p->listener[i].fd);
    }
    while (p->conns) {
        if (!p->conns->why[0] && p->conns->state != COPY)
            snprintf(p->conns->why, sizeof p->conns->why, "the session ended");
        end(p->conns);
    }
    mem_free(p);
}
