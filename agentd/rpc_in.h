/* rpc_in.h - between the rpc_*.c files. */
#ifndef AGENTD_RPC_IN_H
#define AGENTD_RPC_IN_H

#include "agentd/rpc.h"

const struct rpc_method *rpc_method_find(struct str name);
/* Takes result / details; id is borrowed. */
void rpc_reply(struct conn *conn, const json_t *id, json_t *result);
void rpc_reply_error(struct conn *conn, const json_t *id, int code, const char *message,
                     json_t *details, int64_t retry_ms);
/* 1: answered from memory (result set); 0: go on, *idem is filled in when a key came;
 * negative: failed. body backs idem->body. */
int rpc_idem_begin(struct rpc_call *c, const char *scope, struct store_idem *idem,
                   struct buf *body);
/* Whose things the caller may touch: its uid's, or everybody's (-1). */
int64_t rpc_whose(const struct rpc_call *c);

/* Fails the call while a turn of the session runs, naming it in details; else 0. */
struct session;
int rpc_turn_active(struct rpc_call *c, const struct session *s);
/* rpc_session_of() for what needs a session without a running turn. */
int rpc_session_at_rest(struct rpc_call *c, struct session **out);

/* A request that is answered later. */
struct rpc_wait {
    struct daemon *d;
    struct rpc_peer *peer;
    json_t *id; /* owned */
    char turn[ID_TEXT]; /* empty = it waits for something else */
    bool own; /* turn.run: cancelling the request interrupts the turn */
    struct ev_timer *timer; /* owned, or NULL */
    /* cache.explain */
    struct infer_job *job;
    char session[ID_TEXT];
    struct tokens have;      /* owned */
    struct rpc_wait *next;
};

/* Registers the request as waiting and deferred; NULL = failed, the call says why. */
struct rpc_wait *rpc_wait_new(struct rpc_call *c);
void rpc_wait_free(struct rpc_wait *w);
void rpc_drop_waits(struct rpc_peer *p);

#endif
