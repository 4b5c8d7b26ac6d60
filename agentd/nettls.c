/*
 * nettls.c - libcurl's multi interface on ev.h for a single transfer. The value of the secret
 * is read when it is needed and wiped at the end. A server that answers with what it was sent
 * would carry it into the cell: the value is looked for in the answer, head and body, and
 * stars stand in its place. (In another encoding it would pass; only a trusted host gets it.)
 */
#include "agentd/nettls.h"

#include <curl/curl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/io.h"
#include "base/mem.h"

enum { SOCKETS = 4 };

struct nettls {
    struct nettls_opts o;
    CURLM *multi;
    CURL *easy;
    struct curl_slist *headers, *resolve;
    struct ev_timer *timer;
    struct {
        struct nettls *t;
        curl_socket_t fd;
        struct ev_fd *watch;
    } sock[SOCKETS];
    struct buf head; /* response head, rewritten: the body is plain and ends with the line */
    struct buf value; /* the secret itself */
    struct buf held;  /* what may be the beginning of it */
    bool head_sent, paused, over;
    bool *freed;
};

static void check_done(struct nettls *t);

static void act(struct nettls *t, curl_socket_t fd, int events)
{
    int running;
    bool freed = false, *outer = t->freed;
    t->freed = &freed;
    curl_multi_socket_action(t->multi, fd, events, &running);
    if (freed) {
        if (outer)
            *outer = true;
        return;
    }
    t->freed = outer;
    check_done(t);
}

static void on_ready(void *arg, int ready)
{
    struct nettls *t = *(struct nettls **)arg;
    curl_socket_t fd = CURL_SOCKET_BAD;
    for (unsigned i = 0; i < SOCKETS; i++)
        if ((void *)&t->sock[i] == arg)
            fd = t->sock[i].fd;
    act(t, fd, (ready & EV_READ ? CURL_CSELECT_IN : 0) | (ready & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static void on_time(void *arg)
{
    act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
    (void)multi;
    struct nettls *t = arg;
    if (ms < 0)
        ev_timer_stop(t->timer);
    else
        ev_timer_start(t->timer, ms * 1000000ll, 0);
    return 0;
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *mark)
{
    (void)easy;
    (void)mark;
    struct nettls *t = arg;
    struct err err = {0};
    unsigned i = 0;
    while (i < SOCKETS && t->sock[i].watch && t->sock[i].fd != fd)
        i++;
    if (i == SOCKETS)
        return -1;
    if (what == CURL_POLL_REMOVE) {
        ev_fd_free(t->sock[i].watch);
        t->sock[i].watch = NULL;
        return 0;
    }
    t->sock[i].t = t;
    t->sock[i].fd = fd;
    if (!t->sock[i].watch &&
        ev_fd_new(&t->sock[i].watch, t->o.ev, (int)fd, on_ready, &t->sock[i], &err) < 0)
        return -1;
    ev_fd_set(t->sock[i].watch, (what & CURL_POLL_IN ? EV_READ : 0) |
                                    (what & CURL_POLL_OUT ? EV_WRITE : 0));
    return 0;
}

/* Head lines as they came, but for what described a transfer that ends here. */
static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
    struct nettls *t = arg;
    struct str line = str_trim(str_of(data, size * n));
    static const char *const drop[] = {"transfer-encoding:", "connection:", "keep-alive:", NULL};
    if (str_starts(line, STR("HTTP/"))) {
        long status = 0;
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        buf_reset(&t->head); /* a 100 may have stood before it */
        buf_printf(&t->head, "HTTP/1.1 %ld Relayed\r\nConnection: close\r\n", status);
        return size * n;
    }
    for (unsigned i = 0; drop[i]; i++)
        if (line.n >= strlen(drop[i]) && strncasecmp(line.p, drop[i], strlen(drop[i])) == 0)
            return size * n;
    if (line.n)
        buf_printf(&t->head, "%.*s\r\n", STR_ARG(line));
    return t->head.failed ? 0 : size * n;
}

/* Length of the longest end of `held` that begins the secret without completing it. */
static size_t begun(const struct nettls *t)
{
    size_t most = t->value.len ? t->value.len - 1 : 0;
    for (size_t n = most < t->held.len ? most : t->held.len; n > 0; n--)
        if (memcmp(t->held.data + t->held.len - n, t->value.data, n) == 0)
            return n;
    return 0;
}

/* Passes bytes on with the secret masked; `last`: nothing follows that could complete it. */
static void pass(struct nettls *t, const void *data, size_t n, bool last)
{
    enum { SHORTEST = 6 }; /* a shorter value would be found everywhere */
    struct buf *h = &t->held;
    buf_add(h, data, n);
    bool masks = t->value.len >= SHORTEST;
    for (size_t at = 0; masks && (at = str_find(buf_view(h), buf_view(&t->value), at)) != STR_NONE;)
        memset(h->data + at, '*', t->value.len);
    size_t keep = masks && !last ? begun(t) : 0, out = h->len - keep;
    t->o.room -= out < t->o.room ? out : t->o.room;
    if (out)
        t->o.cb(t->o.arg, h->data, out, NULL);
    buf_consume(h, out);
}

static void send_head(struct nettls *t)
{
    if (t->head_sent)
        return;
    t->head_sent = true;
    buf_puts(&t->head, "\r\n");
    pass(t, t->head.data, t->head.len, true);
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct nettls *t = arg;
    size_t head = t->head_sent ? 0 : t->head.len + 2;
    if (size * n + head + t->held.len > t->o.room) {
        t->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    send_head(t);
    pass(t, data, size * n, false);
    return t->held.failed ? 0 : size * n;
}

static void check_done(struct nettls *t)
{
    int left;
    CURLMsg *m = curl_multi_info_read(t->multi, &left);
    if (!m || m->msg != CURLMSG_DONE || t->over)
        return;
    t->over = true;
    if (m->data.result != CURLE_OK && !t->head_sent) {
        t->o.cb(t->o.arg, NULL, 0, curl_easy_strerror(m->data.result));
        return;
    }
    send_head(t);
    pass(t, "", 0, true);
    t->o.cb(t->o.arg, NULL, 0, NULL);
}

void nettls_room(struct nettls *t, size_t room)
{
    t->o.room = room;
    if (!t->paused || room < 32768)
        return;
    t->paused = false;
    curl_easy_pause(t->easy, CURLPAUSE_CONT);
}

static void wipe(struct buf *b)
{
    if (b->data)
        sodium_memzero(b->data, b->len);
    buf_done(b);
}

static int read_value(struct nettls *t, struct err *err)
{
    const struct policy_secret *s = t->o.secret;
    const char *value = s->from_env ? getenv(s->from_env) : NULL;
    struct buf *b = &t->value;
    int rc = 0;
    if (value)
        buf_puts(b, value);
    else if (s->from_file)
        rc = io_read_file(s->from_file, b, err);
    else
        rc = err_set(err, ERR_NOTFOUND, "variable %s, which holds the secret for %s, is not set",
                     s->from_env, s->host);
    while (rc == 0 && b->len && (b->data[b->len - 1] == '\n' || b->data[b->len - 1] == '\r'))
        buf_truncate(b, b->len - 1);
    if (rc == 0 && (b->failed || b->len == 0 || memchr(b->data, '\n', b->len) ||
                    memchr(b->data, '\r', b->len) || memchr(b->data, '\0', b->len)))
        rc = err_set(err, ERR_PARSE, "the secret for %s is not one line of text", s->host);
    return rc;
}

/* "Header: prefix value" into libcurl's list; the copy here is wiped. */
static int add_secret(struct nettls *t, struct err *err)
{
    const struct policy_secret *s = t->o.secret;
    struct buf b;
    int rc = read_value(t, err);
    if (rc < 0)
        return rc;
    buf_init(&b, 32768);
    buf_printf(&b, "%s: %s", s->header, s->prefix ? s->prefix : "");
    buf_str(&b, buf_view(&t->value));
    struct curl_slist *more = b.failed ? NULL : curl_slist_append(t->headers, buf_cstr(&b));
    wipe(&b);
    if (!more)
        return err_nomem(err);
    t->headers = more;
    return 0;
}

/* The client's own headers, but for those about the hop and the one that we set. */
static int add_headers(struct nettls *t, struct err *err)
{
    struct str rest = t->o.headers, line;
    const char *ours[] = {"host", "connection", "proxy-", "keep-alive", "te:", "accept-encoding",
                          t->o.secret->header, NULL};
    while (str_split(&rest, '\n', &line)) {
        bool drop = false;
        line = str_trim(line);
        for (unsigned i = 0; ours[i]; i++)
            drop |= line.n >= strlen(ours[i]) && strncasecmp(line.p, ours[i], strlen(ours[i])) == 0;
        char *text = drop || line.n == 0 ? NULL : mem_strdup(line);
        struct curl_slist *more = text ? curl_slist_append(t->headers, text) : t->headers;
        mem_free(text);
        if (text && !more)
            return err_nomem(err);
        t->headers = more;
    }
    return add_secret(t, err);
}

static int set_up(struct nettls *t, struct err *err)
{
    char url[9216], pin[512];
    const char *bracket = strchr(t->o.address, ':') ? "[" : "";
    int port = (int)t->o.secret->port;
    snprintf(url, sizeof url, "https://%s:%d%.*s", t->o.host, port, STR_ARG(t->o.target));
    snprintf(pin, sizeof pin, "%s:%d:%s%s%s", t->o.host, port, bracket, t->o.address,
             bracket[0] ? "]" : "");
    t->multi = curl_multi_init();
    t->easy = curl_easy_init();
    t->resolve = curl_slist_append(NULL, pin);
    if (!t->multi || !t->easy || !t->resolve)
        return err_nomem(err);
    int rc = add_headers(t, err);
    if (rc < 0)
        return rc;
    curl_multi_setopt(t->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    curl_multi_setopt(t->multi, CURLMOPT_SOCKETDATA, t);
    curl_multi_setopt(t->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(t->multi, CURLMOPT_TIMERDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_URL, url);
    curl_easy_setopt(t->easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "https");
    curl_easy_setopt(t->easy, CURLOPT_RESOLVE, t->resolve);
    curl_easy_setopt(t->easy, CURLOPT_PROXY, "");
    if (t->o.secret->ca_file)
        curl_easy_setopt(t->easy, CURLOPT_CAINFO, t->o.secret->ca_file);
    curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(t->easy, CURLOPT_NOBODY, t->o.head ? 1L : 0L);
    curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT, 20L);
    curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    return curl_multi_add_handle(t->multi, t->easy) == CURLM_OK ? 0 : err_nomem(err);
}

int nettls_new(struct nettls **out, const struct nettls_opts *o, struct err *err)
{
    struct nettls *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err);
    t->o = *o;
    buf_init(&t->head, 32768);
    buf_init(&t->value, 16384);
    buf_init(&t->held, 0);
    int rc = ev_timer_new(&t->timer, o->ev, on_time, t, err);
    if (rc == 0)
        rc = set_up(t, err);
    if (rc < 0) {
        nettls_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void nettls_free(struct nettls *t)
{
    if (!t)
        return;
    if (t->multi && t->easy)
        curl_multi_remove_handle(t->multi, t->easy);
    if (t->easy)
        curl_easy_cleanup(t->easy);
    if (t->multi)
        curl_multi_cleanup(t->multi);
    for (unsigned i = 0; i < SOCKETS; i++)
        ev_fd_free(t->sock[i].watch);
    curl_slist_free_all(t->headers);
    curl_slist_free_all(t->resolve);
    ev_timer_free(t->timer);
    buf_done(&t->head);
    buf_done(&t->held);
    wipe(&t->value);
    if (t->freed)
        *t->freed = true;
    mem_free(t);
}
