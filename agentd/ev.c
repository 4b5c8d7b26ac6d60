/* ev.c - libuv behind ev.h. Each handle is one allocation, freed when libuv has closed it. */
#include "agentd/ev.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "base/mem.h"

struct ev {
    uv_loop_t loop;
};

struct ev_fd {
    uv_poll_t uv; /* first: libuv hands its address back */
    void (*cb)(void *arg, int ready);
    void *arg;
};

struct ev_timer {
    uv_timer_t uv;
    void (*cb)(void *arg);
    void *arg;
};

struct ev_signal {
    uv_signal_t uv;
    void (*cb)(void *arg, int signo);
    void *arg;
};

struct ev_wake {
    uv_async_t uv;
    void (*cb)(void *arg);
    void *arg;
};

static int uv_fail(struct err *err, const char *what, int rc)
{
    return err_set(err, rc == UV_ENOMEM ? ERR_NOMEM : ERR_SYS, "%s: %s", what,
                   uv_strerror(rc));
}

static void release(uv_handle_t *h)
{
    mem_free(h);
}

static void close_handle(void *h)
{
    if (h && !uv_is_closing(h))
        uv_close(h, release);
}

int ev_new(struct ev **out, struct err *err)
{
    struct ev *ev = mem_zalloc(sizeof *ev);
    if (!ev)
        return err_nomem(err);
    int rc = uv_loop_init(&ev->loop);
    if (rc < 0) {
        mem_free(ev);
        return uv_fail(err, "event loop", rc);
    }
    *out = ev;
    return 0;
}

void ev_free(struct ev *ev)
{
    if (!ev)
        return;
    /* Pending closes release their memory; a caught signal may need a second round. */
    for (int i = 0; i < 8 && uv_loop_close(&ev->loop) == UV_EBUSY; i++)
        uv_run(&ev->loop, UV_RUN_NOWAIT);
    mem_free(ev);
}

void ev_run(struct ev *ev)
{
    uv_run(&ev->loop, UV_RUN_DEFAULT);
}

void ev_run_once(struct ev *ev, bool wait)
{
    uv_run(&ev->loop, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

void ev_stop(struct ev *ev)
{
    uv_stop(&ev->loop);
}

int ev_fd_new(struct ev_fd **out, struct ev *ev, int fd, void (*cb)(void *arg, int ready),
              void *arg, struct err *err)
{
    struct ev_fd *w = mem_zalloc(sizeof *w);
    if (!w)
        return err_nomem(err);
    w->cb = cb;
    w->arg = arg;
    int rc = uv_poll_init(&ev->loop, &w->uv, fd);
    if (rc < 0) {
        mem_free(w);
        return uv_fail(err, "watch descriptor", rc);
    }
    *out = w;
    return 0;
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct ev_fd *w = (struct ev_fd *)h;
    int ready = 0;
    if (status < 0 || (events & (UV_READABLE | UV_DISCONNECT)))
        ready |= EV_READ;
    if (status < 0 || (events & UV_WRITABLE))
        ready |= EV_WRITE;
    w->cb(w->arg, ready);
}

void ev_fd_set(struct ev_fd *w, int events)
{
    int uv = 0;
    if (events & EV_READ)
        uv |= UV_READABLE;
    if (events & EV_WRITE)
        uv |= UV_WRITABLE;
    if (uv)
        uv_poll_start(&w->uv, uv, on_poll);
    else
        uv_poll_stop(&w->uv);
}

void ev_fd_free(struct ev_fd *w)
{
    if (w)
        uv_poll_stop(&w->uv);
    close_handle(w);
}

int ev_timer_new(struct ev_timer **out, struct ev *ev, void (*cb)(void *arg), void *arg,
                 struct err *err)
{
    struct ev_timer *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err);
    t->cb = cb;
    t->arg = arg;
    uv_timer_init(&ev->loop, &t->uv);
    *out = t;
    return 0;
}

static void on_timer(uv_timer_t *h)
{
    struct ev_timer *t = (struct ev_timer *)h;
    t->cb(t->arg);
}

/* libuv counts milliseconds; round up so that a timer never fires early. */
static uint64_t to_ms(int64_t ns)
{
    return ns <= 0 ? 0 : ((uint64_t)ns + 999999) / 1000000;
}

void ev_timer_start(struct ev_timer *t, int64_t in_ns, int64_t every_ns)
{
    uv_update_time(t->uv.loop);
    uv_timer_start(&t->uv, on_timer, to_ms(in_ns), to_ms(every_ns));
}

void ev_timer_stop(struct ev_timer *t)
{
    uv_timer_stop(&t->uv);
}

void ev_timer_free(struct ev_timer *t)
{
    close_handle(t);
}

static void on_signal(uv_signal_t *h, int signo)
{
    struct ev_signal *s = (struct ev_signal *)h;
    s->cb(s->arg, signo);
}

int ev_signal_new(struct ev_signal **out, struct ev *ev, int signo,
                  void (*cb)(void *arg, int signo), void *arg, struct err *err)
{
    struct ev_signal *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err);
    s->cb = cb;
    s->arg = arg;
    uv_signal_init(&ev->loop, &s->uv);
    int rc = uv_signal_start(&s->uv, on_signal, signo);
    if (rc < 0) {
        close_handle(s);
        return uv_fail(err, "watch signal", rc);
    }
    *out = s;
    return 0;
}

void ev_signal_free(struct ev_signal *s)
{
    close_handle(s);
}

static void on_wake(uv_async_t *h)
{
    struct ev_wake *w = (struct ev_wake *)h;
    w->cb(w->arg);
}

int ev_wake_new(struct ev_wake **out, struct ev *ev, void (*cb)(void *arg), void *arg,
                struct err *err)
{
    struct ev_wake *w = mem_zalloc(sizeof *w);
    if (!w)
        return err_nomem(err);
    w->cb = cb;
    w->arg = arg;
    int rc = uv_async_init(&ev->loop, &w->uv, on_wake);
    if (rc < 0) {
        mem_free(w);
        return uv_fail(err, "wake-up", rc);
    }
    *out = w;
    return 0;
}

void ev_wake_send(struct ev_wake *w)
{
    uv_async_send(&w->uv);
}

void ev_wake_free(struct ev_wake *w)
{
    close_handle(w);
}

enum { ADDRESSES_MAX = 16 };

struct ev_resolve {
    uv_getaddrinfo_t uv;
    void (*cb)(void *arg, const struct sockaddr_storage *a, unsigned n, const char *why);
    void *arg;
    bool cancelled;
};

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct ev_resolve *r = CONTAINER_OF(req, struct ev_resolve, uv);
    struct sockaddr_storage a[ADDRESSES_MAX];
    unsigned n = 0;
    for (const struct addrinfo *i = list; i && n < ADDRESSES_MAX; i = i->ai_next)
        if (i->ai_addrlen <= sizeof a[0]) {
            memset(&a[n], 0, sizeof a[n]);
            memcpy(&a[n++], i->ai_addr, i->ai_addrlen);
        }
    uv_freeaddrinfo(list);
    if (!r->cancelled)
        r->cb(r->arg, a, n, status < 0 ? uv_strerror(status) : "no address");
    mem_free(r);
}

int ev_resolve_new(struct ev_resolve **out, struct ev *ev, const char *host, uint16_t port,
                   void (*cb)(void *arg, const struct sockaddr_storage *a, unsigned n,
                              const char *why),
                   void *arg, struct err *err)
{
    char service[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct ev_resolve *r = mem_zalloc(sizeof *r);
    if (!r)
        return err_nomem(err);
    r->cb = cb;
    r->arg = arg;
    snprintf(service, sizeof service, "%u", port);
    int rc = uv_getaddrinfo(&ev->loop, &r->uv, on_resolved, host, service, &hints);
    if (rc < 0) {
        mem_free(r);
        return uv_fail(err, "resolve", rc);
    }
    *out = r;
    return 0;
}

void ev_resolve_cancel(struct ev_resolve *r)
{
    if (!r)
        return;
    r->cancelled = true; /* the callback still comes, and frees */
    uv_cancel((uv_req_t *)&r->uv);
}
