/*
 * daemon.h - what the parts of the running daemon share. Main thread alone.
 */
#ifndef AGENTD_DAEMON_H
#define AGENTD_DAEMON_H

#include "agentd/config.h"
#include "agentd/ev.h"
#include "agentd/feed.h"
#include "agentd/infer.h"
#include "agentd/sock.h"
#include "agentd/store.h"

struct session;
struct spawner;
struct rpc;

struct daemon {
    struct config config; /* owned */
    const char *config_path; /* borrowed from argv, or NULL */
    struct ev *ev;        /* all owned */
    struct spawner *spawner;
    struct store *store;
    struct feed *feed;
    struct infer *infer;
    struct sock *sock;
    struct rpc *rpc;
    struct ev_timer *retry;   /* runs while a commit is owed */
    struct session *sessions; /* owned list of loaded ones, most recently used first */
    unsigned n_sessions;
    bool private_mode; /* ends with its one connection */
    bool draining;     /* no new turns */
    bool trim;         /* a turn ended: idle transcripts may pass their cap */
    bool stuck;        /* the last commit failed; `stuck_why` says how */
    char stuck_why[256];
    int64_t started_ns;
};

/*
 * Commits what is pending, and then lets every turn that waited for it go on. Called at the
 * end of whatever appended events. A failure is not the caller's: the events stay pending,
 * a timer tries again, and new requests get store_error meanwhile.
 */
void daemon_settle(struct daemon *d);
/* The same from the loop, once the caller has returned: for callbacks that may come from deep
 * inside of code that holds a turn, which daemon_settle() may free. */
void daemon_settle_soon(struct daemon *d);

#endif
