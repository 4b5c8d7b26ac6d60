/*
 * ev.h - the event loop of the main thread: descriptors, timers, signals, and a wake-up
 * that other threads may call. A thin face over libuv, whose header appears in ev.c alone.
 * Callbacks run on the loop's thread and never block. Handles are owned by whoever made
 * them; ev_*_free takes NULL and may be called from the handle's own callback.
 */
#ifndef AGENTD_EV_H
#define AGENTD_EV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct ev;
struct ev_fd;
struct ev_timer;
struct ev_signal;
struct ev_wake;

NODISCARD int ev_new(struct ev **out, struct err *err);
void ev_free(struct ev *ev); /* all handles must have been freed before */
void ev_run(struct ev *ev);  /* until ev_stop() or until no handle is left */
void ev_run_once(struct ev *ev, bool wait);
void ev_stop(struct ev *ev);

enum { EV_READ = 1, EV_WRITE = 2 };

/* Watches a descriptor (borrowed: close it after ev_fd_free). `ready` is EV_READ|EV_WRITE;
 * errors and hang-ups report both, the next read or write says what happened. */
NODISCARD int ev_fd_new(struct ev_fd **out, struct ev *ev, int fd,
                        void (*cb)(void *arg, int ready), void *arg, struct err *err);
void ev_fd_set(struct ev_fd *w, int events); /* 0 pauses */
void ev_fd_free(struct ev_fd *w);

NODISCARD int ev_timer_new(struct ev_timer **out, struct ev *ev, void (*cb)(void *arg),
                           void *arg, struct err *err);
void ev_timer_start(struct ev_timer *t, int64_t in_ns, int64_t every_ns); /* 0 = once */
void ev_timer_stop(struct ev_timer *t);
void ev_timer_free(struct ev_timer *t);

NODISCARD int ev_signal_new(struct ev_signal **out, struct ev *ev, int signo,
                            void (*cb)(void *arg, int signo), void *arg, struct err *err);
void ev_signal_free(struct ev_signal *s);

/* ev_wake_send() may be called from any thread; calls may merge into one callback. */
NODISCARD int ev_wake_new(struct ev_wake **out, struct ev *ev, void (*cb)(void *arg),
                          void *arg, struct err *err);
void ev_wake_send(struct ev_wake *w);
void ev_wake_free(struct ev_wake *w);

/*
 * Looks a name up without blocking (libuv's own threads call the resolver). The callback gets
 * up to `n` addresses, or n = 0 and a sentence. One callback exactly; ev_resolve_cancel()
 * before it means none.
 */
struct sockaddr_storage;
struct ev_resolve;
NODISCARD int ev_resolve_new(struct ev_resolve **out, struct ev *ev, const char *host,
                             uint16_t port,
                             void (*cb)(void *arg, const struct sockaddr_storage *a,
                                        unsigned n, const char *why),
                             void *arg, struct err *err);
void ev_resolve_cancel(struct ev_resolve *r);

#endif
