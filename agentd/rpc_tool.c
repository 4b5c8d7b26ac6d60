/*
 * rpc_tool.c - tool.call: one call in a session's own cell, without the model. It goes the
 * way of the model's calls (schema, policy, cell), but is no part of the transcript. What the
 * policy would ask about is taken as approved: a person asked for it.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/loop.h"
#include "agentd/rpc_in.h"
#include "agentd/session.h"
#include "agentd/toolrun.h"
#include "base/io.h"
#include "base/mem.h"

/* A call under way; it ends by itself, the client may be gone by then. */
struct tool_call {
    struct daemon *d;
    char key[ID_TEXT]; /* that of the request that waits for it, if it still does */
    json_t *result;
};

static void reply_waiting(void *arg, struct conn *conn)
{
    struct tool_call *t = arg;
    struct rpc_peer *p = conn_data(conn);
    for (struct rpc_wait *w = p ? p->waits : NULL; w; w = w->next)
        if (strcmp(w->turn, t->key) == 0) {
            rpc_reply(conn, w->id, json_incref(t->result));
            rpc_wait_free(w);
            return;
        }
}

static void on_done(void *arg, const struct tool_result *r)
{
    struct tool_call *t = arg;
    t->result = json_pack("{s:o, s:s, s:b, s:s, s:I, s:I, s:I, s:b}", "text",
                          json_text(r->text), "status", tool_status_name(r->status), "isError",
                          r->is_error, "sandbox", r->level, "us",
                          (json_int_t)((r->ended_ns - r->started_ns) / 1000), "outputBytes",
                          (json_int_t)r->output_bytes, "cutBytes", (json_int_t)r->cut_bytes,
                          "stateLost", r->state_lost);
    if (t->result && r->exit_code >= 0)
        json_object_set_new(t->result, "exitCode", json_integer(r->exit_code));
    if (t->result && r->called)
        json_object_set(t->result, "called", (json_t *)(uintptr_t)r->called);
    if (t->d->sock)
        sock_each(t->d->sock, reply_waiting, t);
    json_decref(t->result);
    mem_free(t);
}

/* The arguments as text, as the model would have written them. */
static int read_args(struct rpc_call *c, struct buf *out)
{
    struct err err;
    json_t *args = json_object_get(c->params, "arguments");
    buf_init(out, 0);
    if (json_is_string(args))
        buf_str(out, json_view(args));
    else if (args && json_write(args, out, &err) < 0)
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_PARAMS);
    return 0;
}

int rpc_tool_call(struct rpc_call *c)
{
    struct session *s;
    struct err err;
    struct buf args;
    const char *name = json_string_value(json_object_get(c->params, "name"));
    if (rpc_session_at_rest(c, &s))
        return c->code;
    if (session_tools(s, &err) < 0)
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_INTERNAL);
    if (!s->tools)
        return rpc_fail(c, RPC_PARAMS, "profile %s has no tools", s->profile->name);
    struct tool_call *t = mem_zalloc(sizeof *t);
    struct rpc_wait *w = t && c->id ? rpc_wait_new(c) : NULL;
    if (!w || read_args(c, &args)) {
        if (w)
            rpc_wait_free(w);
        c->deferred = false;
        mem_free(t);
        return c->code;
    }
    t->d = c->d;
    snprintf(t->key, sizeof t->key, "tool.call %llu", (unsigned long long)io_mono_ns());
    snprintf(w->turn, sizeof w->turn, "%s", t->key);
    const struct toolrun_cbs cbs = {.on_done = on_done, .arg = t};
    if (!toolrun_call(s->tools, t->key, name, buf_view(&args), true, &cbs)) {
        rpc_wait_free(w);
        c->deferred = false;
        mem_free(t);
        rpc_fail(c, RPC_OVERLOADED, "out of memory");
    }
    buf_done(&args);
    return c->code;
}

int rpc_tool_result(struct rpc_call *c)
{
    enum { RESULT_MAX = 1 << 20 };
    struct err err;
    const struct loop_client_result r = {
        .call = json_view(json_object_get(c->params, "callId")),
        .text = json_view(json_object_get(c->params, "text")),
        .is_error = json_is_true(json_object_get(c->params, "isError")),
        .uid = rpc_whose(c),
    };
    if (r.text.n > RESULT_MAX)
        return rpc_fail(c, RPC_LIMIT_EXCEEDED, "a result has at most %d bytes: cut it, and say "
                        "in it how to get the rest", RESULT_MAX);
    if (loop_client_result(c->d, &r, &err) < 0)
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_INTERNAL);
    return 0;
}
