/*
 * rpc.c - lines to methods to lines. Order on a connection: the reply is queued after the
 * commit of what it promises and before the events of that commit are sent; that is why a
 * handler only appends, and this file commits.
 */
#include "agentd/rpc.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agentd/log.h"
#include "agentd/loop.h"
#include "agentd/rpc_in.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

struct rpc {
    struct daemon *d;
    bool publishing;
};

static const struct {
    int code;
    const char *kind;
} kinds[] = {
    {RPC_PARSE, "parse_error"},
    {RPC_INVALID, "invalid_request"},
    {RPC_METHOD, "method_not_found"},
    {RPC_PARAMS, "invalid_params"},
    {RPC_INTERNAL, "internal_error"},
    {RPC_CANCELLED, "cancelled"},
    {RPC_OVERLOADED, "overloaded"},
    {RPC_SESSION_NOT_FOUND, "session_not_found"},
    {RPC_TURN_ACTIVE, "turn_active"},
    {RPC_TURN_NOT_FOUND, "turn_not_found"},
    {RPC_APPROVAL_RESOLVED, "approval_resolved"},
    {RPC_POLICY_DENIED, "policy_denied"},
    {RPC_LIMIT_EXCEEDED, "limit_exceeded"},
    {RPC_STALE_CURSOR, "stale_cursor"},
    {RPC_ENGINE_UNAVAILABLE, "engine_unavailable"},
    {RPC_CONTEXT_OVERFLOW, "context_overflow"},
    {RPC_VERSION_MISMATCH, "version_mismatch"},
    {RPC_FORBIDDEN, "forbidden"},
    {RPC_ENCODING_ERROR, "encoding_error"},
    {RPC_DRAINING, "draining"},
    {RPC_STORE_ERROR, "store_error"},
};

static const char *kind_of(int code)
{
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
        if (kinds[i].code == code)
            return kinds[i].kind;
    return "internal_error";
}

int rpc_fail(struct rpc_call *c, enum rpc_error code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->message, sizeof c->message, fmt, ap);
    va_end(ap);
    c->code = code;
    if ((code == RPC_OVERLOADED || code == RPC_STORE_ERROR) && !c->retry_ms)
        c->retry_ms = 500;
    return code;
}

int rpc_fail_err(struct rpc_call *c, const struct err *err, enum rpc_error notfound,
                 enum rpc_error state)
{
    enum rpc_error code = RPC_INTERNAL;
    switch (err->code) {
    case ERR_NOTFOUND:
        code = notfound;
        break;
    case ERR_STATE:
        code = state;
        break;
    case ERR_PARSE:
        code = RPC_PARAMS;
        break;
    case ERR_LIMIT:
        code = RPC_LIMIT_EXCEEDED;
        break;
    case ERR_DENIED:
        code = RPC_POLICY_DENIED;
        break;
    case ERR_CORRUPT:
    case ERR_TIMEOUT:
    case ERR_SYS:
        code = RPC_STORE_ERROR;
        break;
    case ERR_NOMEM:
        code = RPC_OVERLOADED;
        break;
    default:
        break;
    }
    return rpc_fail(c, code, "%s", err->text);
}

/* --- replies ---------------------------------------------------------------------------- */

static void send_json(struct conn *conn, json_t *msg)
{
    struct err err;
    struct buf *out = conn_out(conn);
    size_t before = out->len;
    if (json_write(msg, out, &err) < 0) {
        buf_truncate(out, before);
        LOGE("rpc", "reply lost error=\"%s\"", err.text);
        if (out->failed)
            conn_sent(conn); /* which ends it */
        else
            conn_close(conn); /* whoever waits for the reply must not wait for ever */
    } else {
        conn_sent(conn);
    }
    json_decref(msg);
}

void rpc_reply(struct conn *conn, const json_t *id, json_t *result)
{
    send_json(conn, json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id", id, "result", result));
}

void rpc_reply_error(struct conn *conn, const json_t *id, int code, const char *message,
                     json_t *details, int64_t retry_ms)
{
    json_t *data = json_pack("{s:s, s:b}", "kind", kind_of(code), "retryable", retry_ms > 0);
    if (retry_ms > 0)
        json_object_set_new(data, "retryAfterMs", json_integer(retry_ms));
    if (details)
        json_object_set_new(data, "details", details);
    json_t *error = json_pack("{s:i, s:o, s:o}", "code", code, "message",
                              json_text(str_c(message)), "data", data);
    send_json(conn, json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id", id, "error", error));
}

/* JSON-RPC wants "id": null where none could be read. */
static void reply_no_id(struct conn *conn, int code, const char *message)
{
    rpc_reply_error(conn, json_null(), code, message, NULL, 0);
}

/* --- parameters --------------------------------------------------------------------------- */

static bool fits(const json_t *v, const char *type)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return strcmp(type, "string") == 0 || strcmp(type, "any") == 0;
    case JSON_INTEGER:
        return strcmp(type, "integer") == 0 || strcmp(type, "number") == 0 ||
               strcmp(type, "any") == 0;
    case JSON_REAL:
        return strcmp(type, "number") == 0 || strcmp(type, "any") == 0;
    case JSON_TRUE:
    case JSON_FALSE:
        return strcmp(type, "boolean") == 0 || strcmp(type, "any") == 0;
    case JSON_OBJECT:
        return strcmp(type, "object") == 0 || strcmp(type, "any") == 0;
    case JSON_ARRAY:
        return strcmp(type, "array") == 0 || strcmp(type, "any") == 0;
    case JSON_NULL:
        return true;
    }
    return false;
}

static int check_params(struct rpc_call *c, const struct rpc_method *m)
{
    for (const struct rpc_param *p = m->params; p && p->name; p++) {
        json_t *v = json_object_get(c->params, p->name);
        if (p->required && (!v || json_is_null(v)))
            return rpc_fail(c, RPC_PARAMS, "%s: parameter '%s' is missing (%s)", m->name, p->name,
                            p->doc);
        if (v && !fits(v, p->type))
            return rpc_fail(c, RPC_PARAMS, "%s: parameter '%s' must be a JSON %s (%s)", m->name,
                            p->name, p->type, p->doc);
    }
    return 0;
}

/* --- dispatch ----------------------------------------------------------------------------- */

static void answer(struct rpc_call *c)
{
    struct conn *conn = c->peer->conn;
    if (!c->id || c->deferred) {
        json_decref(c->result);
        json_decref(c->details);
        return;
    }
    if (c->code) {
        json_decref(c->result);
        rpc_reply_error(conn, c->id, c->code, c->message, c->details, c->retry_ms);
        return;
    }
    json_decref(c->details);
    rpc_reply(conn, c->id, c->result ? c->result : json_object());
}

static void dispatch(struct rpc *r, struct rpc_call *c, struct str name)
{
    struct daemon *d = r->d;
    struct err err;
    bool owed = d->stuck; /* what waits is others': reading goes on */
    const struct rpc_method *m = rpc_method_find(name);
    if (!m)
        rpc_fail(c, RPC_METHOD, "unknown method '%.*s'", (int)(name.n < 100 ? name.n : 100),
                 name.p);
    else if (!c->peer->ready && !m->early)
        rpc_fail(c, RPC_INVALID, "call initialize first");
    else if (m->writes && d->stuck)
        rpc_fail(c, RPC_STORE_ERROR, "the store cannot be written: %s", d->stuck_why);
    else if (check_params(c, m) == 0)
        m->run(c);
    /* The promise of the reply reaches the disk before the reply leaves. */
    if (store_pending(d->store) && !c->code && !owed) {
        bool held = feed_hold(d->feed, true);
        if (store_commit(d->store, &err) < 0) {
            rpc_fail(c, RPC_STORE_ERROR, "%s; it is tried again, ask turn.get before you repeat",
                     err.text);
            if (c->deferred && c->id)
                rpc_withdraw(d, c->peer, c->id);
            c->deferred = false;
        }
        answer(c);
        feed_hold(d->feed, held);
    } else {
        answer(c);
    }
    feed_pump(d->feed, c->peer->conn);
    daemon_settle(d);
}

static void on_message(struct rpc *r, struct rpc_peer *p, json_t *msg)
{
    json_t *id = json_object_get(msg, "id"), *method = json_object_get(msg, "method");
    json_t *params = json_object_get(msg, "params");
    if (!json_is_object(msg) || !json_is_string(method) ||
        !str_is(json_view(json_object_get(msg, "jsonrpc")), "2.0") ||
        (id && !json_is_string(id) && !json_is_integer(id))) {
        bool usable = json_is_string(id) || json_is_integer(id);
        if (usable)
            rpc_reply_error(p->conn, id, RPC_INVALID, "a request is {\"jsonrpc\":\"2.0\", "
                            "\"id\", \"method\", \"params\"}", NULL, 0);
        else
            reply_no_id(p->conn, RPC_INVALID, "a request is one object {\"jsonrpc\":\"2.0\", "
                        "\"id\", \"method\", \"params\"}; batches are not spoken here");
        return;
    }
    struct rpc_call c = {.d = r->d, .peer = p, .id = id};
    json_t *empty = json_object();
    c.params = params && !json_is_null(params) ? params : empty;
    if (id && p->unanswered >= LIMIT_REQUESTS) {
        rpc_fail(&c, RPC_OVERLOADED, "%u requests wait for an answer", p->unanswered);
        answer(&c);
    } else if (!json_is_object(c.params)) {
        rpc_fail(&c, RPC_PARAMS, "params must be an object");
        answer(&c);
    } else {
        dispatch(r, &c, json_view(method));
    }
    json_decref(empty);
}

static void on_line(void *arg, struct conn *conn, struct str line)
{
    struct rpc *r = arg;
    struct rpc_peer *p = conn_data(conn);
    struct err err;
    json_t *msg = NULL;
    if (!p)
        return;
    if (json_read(&msg, line, &err) < 0) {
        reply_no_id(conn, RPC_PARSE, err.text);
        return;
    }
    on_message(r, p, msg);
    json_decref(msg);
}

static void on_oversize(void *arg, struct conn *conn)
{
    char text[96];
    (void)arg;
    snprintf(text, sizeof text, "a line is longer than %u bytes", LIMIT_LINE_BYTES);
    reply_no_id(conn, RPC_INVALID, text);
}

static void on_stall(void *arg, struct conn *conn)
{
    (void)arg;
    LOGW("sock", "slow_consumer pid=%d queued=%zu", (int)conn_pid(conn), conn_queued(conn));
}

static void on_open(void *arg, struct conn *conn)
{
    struct rpc_peer *p = mem_zalloc(sizeof *p);
    (void)arg;
    if (!p) {
        conn_close(conn);
        return;
    }
    p->conn = conn;
    conn_set_data(conn, p);
}

static void on_drain(void *arg, struct conn *conn)
{
    struct rpc *r = arg;
    feed_pump(r->d->feed, conn);
}

static void on_close(void *arg, struct conn *conn)
{
    struct rpc *r = arg;
    struct rpc_peer *p = conn_data(conn);
    feed_drop(r->d->feed, conn);
    if (p)
        rpc_drop_waits(p);
    mem_free(p);
    conn_set_data(conn, NULL);
    if (r->d->private_mode)
        ev_stop(r->d->ev);
    else
        loop_owner_gone(r->d, conn);
}

int rpc_new(struct rpc **out, struct daemon *d, struct err *err)
{
    struct rpc *r = mem_zalloc(sizeof *r);
    if (!r)
        return err_nomem(err);
    r->d = d;
    *out = r;
    return 0;
}

void rpc_free(struct rpc *r)
{
    mem_free(r);
}

struct sock_cbs rpc_callbacks(struct rpc *r)
{
    return (struct sock_cbs){.open = on_open,
                             .line = on_line,
                             .oversize = on_oversize,
                             .drain = on_drain,
                             .stall = on_stall,
                             .close = on_close,
                             .arg = r};
}
