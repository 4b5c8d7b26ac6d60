/*
 * sock.h - Unix-socket connections: listening, peers, lines in, bounded output.
 *
 * A line is one message; a longer one than LIMIT_LINE_BYTES ends the connection after a
 * last word. Output never blocks: what the kernel does not take is queued. The queue has a
 * soft cap (conn_room): whoever sends events asks first and goes on when `drain` is called;
 * replies are always queued, but while the queue is over the cap no further request is
 * read, so it stays bounded. A queue that makes no progress for `stall_ns` ends the
 * connection. One thread.
 */
#ifndef AGENTD_SOCK_H
#define AGENTD_SOCK_H

#include <stdbool.h>
#include <sys/types.h>

#include "agentd/ev.h"
#include "base/buf.h"

struct sock;
struct conn;

struct sock_cbs {
    void (*open)(void *arg, struct conn *c);
    void (*line)(void *arg, struct conn *c, struct str line); /* without its end */
    void (*oversize)(void *arg, struct conn *c);              /* send a last word */
    void (*drain)(void *arg, struct conn *c); /* the queue fell under half its cap */
    void (*stall)(void *arg, struct conn *c); /* slow consumer: send a last word */
    void (*close)(void *arg, struct conn *c); /* conn_data() is still there */
    void *arg;
};

struct sock_opts {
    struct ev *ev;          /* borrowed */
    struct sock_cbs cbs;
    const uint32_t *uids;   /* allowed peers besides our own uid and root; copied */
    unsigned n_uids;
    int64_t stall_ns;       /* 0 = 30 s */
};

NODISCARD int sock_new(struct sock **out, const struct sock_opts *o, struct err *err);
/* Listens at `path`: folder made 0700 when missing, stale sockets removed under a lock,
 * socket 0600. -ERR_STATE: a daemon answers there. */
NODISCARD int sock_listen(struct sock *s, const char *path, struct err *err);
/* Takes a listening descriptor (socket activation); it is not unlinked at the end. */
NODISCARD int sock_adopt_listener(struct sock *s, int fd, struct err *err);
/* Takes a connected descriptor (a private daemon). */
NODISCARD int sock_adopt(struct sock *s, int fd, struct err *err);
void sock_stop_listening(struct sock *s);
void sock_free(struct sock *s); /* closes everything; close() is called for each */
unsigned sock_count(const struct sock *s);
void sock_each(struct sock *s, void (*fn)(void *arg, struct conn *c), void *arg);

void conn_send(struct conn *c, struct str line); /* a newline is added */
/* For messages built in parts: append to this buffer, then conn_sent(). */
struct buf *conn_out(struct conn *c);
void conn_sent(struct conn *c);
size_t conn_queued(const struct conn *c);
bool conn_room(const struct conn *c);      /* under the cap: durable events may be queued */
bool conn_roomy(const struct conn *c);     /* under half: ephemeral ones too */
void conn_hold(struct conn *c, bool hold); /* stop and go on reading requests */
void conn_close(struct conn *c);           /* after what is queued has left */
uid_t conn_uid(const struct conn *c);
pid_t conn_pid(const struct conn *c);
void conn_set_data(struct conn *c, void *data);
void *conn_data(const struct conn *c);

#endif
