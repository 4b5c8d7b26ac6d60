/*
 * rpc.h - the native protocol: JSON-RPC 2.0, one message a line.
 *
 * The method table is the definition: it dispatches, checks parameters, and prints itself
 * as JSON schema (agentd --dump-schema). A handler reads its parameters, does one thing and
 * either sets `result`, fails with rpc_fail(), or defers with rpc_wait_turn().
 */
#ifndef AGENTD_RPC_H
#define AGENTD_RPC_H

#include "agentd/daemon.h"

/* Our own error codes; the names are `kind` on the wire. */
enum rpc_error {
    RPC_OK = 0,
    RPC_PARSE = -32700,
    RPC_INVALID = -32600,
    RPC_METHOD = -32601,
    RPC_PARAMS = -32602,
    RPC_INTERNAL = -32603,
    RPC_CANCELLED = -32800,
    RPC_OVERLOADED = -32001,
    RPC_SESSION_NOT_FOUND = 1001,
    RPC_TURN_ACTIVE,
    RPC_TURN_NOT_FOUND,
    RPC_APPROVAL_RESOLVED,
    RPC_POLICY_DENIED,
    RPC_LIMIT_EXCEEDED,
    RPC_STALE_CURSOR,
    RPC_ENGINE_UNAVAILABLE,
    RPC_CONTEXT_OVERFLOW,
    RPC_VERSION_MISMATCH,
    RPC_FORBIDDEN,
    RPC_ENCODING_ERROR,
    RPC_DRAINING,
    RPC_STORE_ERROR,
};

struct rpc_peer { /* one connection's state */
    struct conn *conn;
    bool ready; /* initialize was answered */
    bool deltas, approvals;
    char client[96]; /* name/version, for the log */
    unsigned unanswered;
    struct rpc_wait *waits; /* owned list */
};

struct rpc_call {
    struct daemon *d;
    struct rpc_peer *peer;
    json_t *id; /* borrowed; NULL for a notification */
    json_t *params;
    json_t *result; /* owned; set by the handler */
    bool deferred;
    int code;       /* enum rpc_error */
    char message[512];
    json_t *details; /* owned, or NULL */
    int64_t retry_ms; /* > 0: worth another try after so long */
};

int rpc_fail(struct rpc_call *c, enum rpc_error code, const char *fmt, ...) PRINTF(3, 4);
/* An error from below: ERR_NOTFOUND and ERR_STATE become these codes, the rest its own. */
int rpc_fail_err(struct rpc_call *c, const struct err *err, enum rpc_error notfound,
                 enum rpc_error state);

struct rpc_param {
    const char *name, *type; /* "string", "integer", "number", "boolean", "object", "array",
                                "any" */
    bool required;
    const char *doc;
};

struct rpc_method {
    const char *name;
    int (*run)(struct rpc_call *c);
    const struct rpc_param *params;
    const char *returns, *doc;
    bool early;  /* answered before initialize */
    bool writes; /* refused while the store cannot be written */
};

NODISCARD int rpc_new(struct rpc **out, struct daemon *d, struct err *err);
void rpc_free(struct rpc *r);
struct sock_cbs rpc_callbacks(struct rpc *r);
/* A turn may have ended: answers those who wait for it. */
void rpc_check_waits(struct daemon *d);
/* The table as one JSON document. */
NODISCARD int rpc_dump_schema(struct buf *out, struct err *err);

/* Answers when the turn ends (or after timeout_ms, 0 = never). own: turn.run, where
 * cancelling the request interrupts the turn too. */
int rpc_wait_turn(struct rpc_call *c, const char *turn, int64_t timeout_ms, bool own);
/* Withdraws a waiting request of this peer; false when there is none. */
bool rpc_withdraw(struct daemon *d, struct rpc_peer *p, const json_t *id);

/* The handlers, by noun. */
int rpc_initialize(struct rpc_call *c);
int rpc_ping(struct rpc_call *c);
int rpc_daemon_status(struct rpc_call *c);
int rpc_daemon_drain(struct rpc_call *c);
int rpc_engine_status(struct rpc_call *c);
int rpc_model_list(struct rpc_call *c);
int rpc_tool_list(struct rpc_call *c);
int rpc_tool_call(struct rpc_call *c);
int rpc_tool_result(struct rpc_call *c);
int rpc_mcp_status(struct rpc_call *c);
int rpc_cancel_request(struct rpc_call *c);
int rpc_session_create(struct rpc_call *c);
int rpc_session_get(struct rpc_call *c);
int rpc_session_list(struct rpc_call *c);
int rpc_session_update(struct rpc_call *c);
int rpc_session_close(struct rpc_call *c);
int rpc_session_delete(struct rpc_call *c);
int rpc_session_fork(struct rpc_call *c);
int rpc_session_changes(struct rpc_call *c);
int rpc_session_export(struct rpc_call *c);
int rpc_session_subscribe(struct rpc_call *c);
int rpc_session_unsubscribe(struct rpc_call *c);
int rpc_prompt_render(struct rpc_call *c);
int rpc_cache_explain(struct rpc_call *c);
int rpc_turn_start(struct rpc_call *c);
int rpc_turn_run(struct rpc_call *c);
int rpc_turn_wait(struct rpc_call *c);
int rpc_turn_get(struct rpc_call *c);
int rpc_turn_steer(struct rpc_call *c);
int rpc_turn_interrupt(struct rpc_call *c);
int rpc_approval_list(struct rpc_call *c);
int rpc_approval_respond(struct rpc_call *c);

/* The session of params.sessionId; fails the call itself. */
struct session;
int rpc_session_of(struct rpc_call *c, struct session **out);

#endif
