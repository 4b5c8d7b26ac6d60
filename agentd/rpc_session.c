/* rpc_session.c - sessions: create, look at, follow, fork, remove. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agentd/loop.h"
#include "agentd/place.h"
#include "agentd/rpc_in.h"
#include "base/io.h"
#include "base/limits.h"

int rpc_session_of(struct rpc_call *c, struct session **out)
{
    struct err err;
    struct str id = json_view(json_object_get(c->params, "sessionId"));
    if (session_find(out, c->d, id, &err) < 0)
        return rpc_fail_err(c, &err, RPC_SESSION_NOT_FOUND, RPC_INTERNAL);
    if ((*out)->uid != conn_uid(c->peer->conn) && conn_uid(c->peer->conn) != 0 &&
        conn_uid(c->peer->conn) != getuid())
        return rpc_fail(c, RPC_FORBIDDEN, "session %s belongs to uid %lld", (*out)->id,
                        (long long)(*out)->uid);
    if (loop_recover(*out, &err) < 0)
        return rpc_fail_err(c, &err, RPC_SESSION_NOT_FOUND, RPC_INTERNAL);
    return 0;
}

int rpc_turn_active(struct rpc_call *c, const struct session *s)
{
    if (!s->turn)
        return 0;
    c->details = json_pack("{s:s}", "turnId", loop_id(s->turn));
    return rpc_fail(c, RPC_TURN_ACTIVE, "turn %s is running; wait for its end", loop_id(s->turn));
}

int rpc_session_at_rest(struct rpc_call *c, struct session **out)
{
    return rpc_session_of(c, out) ? c->code : rpc_turn_active(c, *out);
}

int rpc_idem_begin(struct rpc_call *c, const char *scope, struct store_idem *idem,
                   struct buf *body)
{
    struct err err;
    struct buf result;
    json_t *copy = json_copy(c->params);
    struct str key = json_view(json_object_get(c->params, "idempotencyKey"));
    *idem = (struct store_idem){.uid = (int64_t)conn_uid(c->peer->conn), .scope = str_c(scope),
                                .key = key};
    int rc = 0;
    buf_init(&result, LIMIT_LINE_BYTES);
    if (key.n) {
        json_object_del(copy, "idempotencyKey");
        rc = json_write(copy, body, &err);
        idem->body = buf_view(body);
        if (rc == 0)
            rc = store_idem(c->d->store, idem, &result, &err);
        if (rc == 1)
            rc = json_read(&c->result, buf_view(&result), &err) == 0 ? 1 : -1;
        if (rc < 0)
            rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
    }
    json_decref(copy);
    buf_done(&result);
    return rc;
}

int rpc_session_create(struct rpc_call *c)
{
    struct err err;
    struct store_idem idem;
    struct buf body;
    struct session *s = NULL;
    buf_init(&body, LIMIT_LINE_BYTES);
    int rc = rpc_idem_begin(c, "session.create", &idem, &body);
    if (rc == 0) {
        rc = session_create(&s, c->d, conn_uid(c->peer->conn), c->params,
                            idem.key.n ? &idem : NULL, &err);
        if (rc < 0)
            rpc_fail_err(c, &err, RPC_PARAMS, RPC_INTERNAL);
        else
            c->result = json_pack("{s:s, s:I}", "sessionId", s->id, "seq", (json_int_t)s->head);
    }
    buf_done(&body);
    return rc;
}

static const char *state_of(const struct session *s)
{
    return s->closed ? "closed" : s->turn ? "running" : "idle";
}

/* A reply ends with the message or event that passes this and says where the next page begins;
 * escaped it may grow, so it stays well below what a client takes for one line. */
enum { PAGE_BYTES = LIMIT_LINE_BYTES / 2, ROW_BYTES = 256 };

static int page_from(struct rpc_call *c, int64_t *after)
{
    struct err err;
    *after = 0;
    if (json_opt_int(c->params, "after", 0, INT64_MAX, after, &err) < 0)
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_INTERNAL);
    return 0;
}

static size_t bytes_of(const struct message *m)
{
    size_t n = ROW_BYTES + m->content.n + m->reasoning.n;
    for (uint32_t i = 0; i < m->n_calls; i++)
        n += ROW_BYTES + strlen(m->calls[i].arguments);
    return n;
}

static json_t *message_of(const struct message *m)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:o}", "id", m->id, "turnId", m->turn, "role",
                          prompt_role_name(m->role), "content",
                          json_text(m->content.p ? m->content : STR("")));
    if (m->reasoning.n)
        json_object_set_new(o, "reasoning", json_text(m->reasoning));
    if (m->call_id)
        json_object_set_new(o, "callId", json_string(m->call_id));
    json_t *calls = m->n_calls ? json_array() : NULL;
    for (uint32_t i = 0; i < m->n_calls; i++)
        json_array_append_new(calls, json_pack("{s:s, s:s, s:s}", "callId", m->calls[i].id, "name",
                                               m->calls[i].name, "arguments",
                                               m->calls[i].arguments));
    if (calls)
        json_object_set_new(o, "calls", calls);
    if (m->removed)
        json_object_set_new(o, "removed", json_true());
    return o;
}

int rpc_session_get(struct rpc_call *c)
{
    struct session *s, *whole;
    struct err err;
    int64_t at;
    size_t bytes = 0;
    if (rpc_session_of(c, &s) || page_from(c, &at))
        return c->code;
    if (session_whole(&whole, s, &err) < 0)
        return rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
    json_t *messages = json_array();
    for (; at < whole->n_msgs && bytes < PAGE_BYTES; at++) {
        bytes += bytes_of(&whole->msg[at]);
        json_array_append_new(messages, message_of(&whole->msg[at]));
    }
    bool more = at < whole->n_msgs;
    session_whole_done(whole, s);
    c->result = json_pack("{s:s, s:I, s:I, s:s, s:O, s:o}", "sessionId", s->id, "seq",
                          (json_int_t)s->head, "created", (json_int_t)s->created, "state",
                          state_of(s), "config", s->config, "messages", messages);
    if (more)
        json_object_set_new(c->result, "next", json_integer((json_int_t)at));
    if (*s->last_turn)
        json_object_set_new(c->result, "turnId", json_string(s->last_turn));
    if (s->turn) {
        json_object_set_new(c->result, "turnState",
                            json_string(turn_state_name(loop_state(s->turn))));
        json_object_set_new(c->result, "usage", loop_usage(s->turn));
    }
    return 0;
}

struct listing {
    json_t *rows;
    struct str cwd, state;
    int64_t last, uid;
    int limit;
};

static bool list_one(void *arg, const struct store_session *row)
{
    struct listing *l = arg;
    struct err err;
    json_t *config = NULL;
    const char *state = row->closed ? "closed" : row->running ? "running" : "idle";
    if (json_read(&config, row->config, &err) < 0)
        return true;
    json_t *cwd = json_object_get(config, "cwd");
    bool mine = l->uid < 0 || l->uid == row->uid;
    if (mine && (!l->state.n || str_is(l->state, state)) &&
        (!l->cwd.n || str_eq(json_view(cwd), l->cwd)))
        json_array_append_new(
            l->rows, json_pack("{s:s, s:I, s:I, s:s, s:I, s:O?, s:O?, s:O?}", "sessionId", row->id,
                               "created", (json_int_t)row->created, "updated",
                               (json_int_t)row->updated, "state", state, "seq",
                               (json_int_t)row->head, "profile",
                               json_object_get(config, "profile"), "cwd", cwd, "metadata",
                               json_object_get(config, "metadata")));
    l->last = row->updated;
    json_decref(config);
    return (int)json_array_size(l->rows) < l->limit;
}

int rpc_session_list(struct rpc_call *c)
{
    struct err err;
    int64_t cursor = 0, limit = 100;
    uid_t uid = conn_uid(c->peer->conn);
    bool everyone = uid == 0 || uid == getuid();
    struct listing l = {.rows = json_array(), .uid = everyone ? -1 : (int64_t)uid};
    int rc = json_opt_str(c->params, "cwd", &l.cwd, &err);
    if (rc == 0)
        rc = json_opt_str(c->params, "state", &l.state, &err);
    if (rc == 0 && l.state.n && !str_is(l.state, "idle") && !str_is(l.state, "running") &&
        !str_is(l.state, "closed"))
        rc = err_set(&err, ERR_PARSE, "state is idle, running or closed");
    if (rc == 0)
        rc = json_opt_int(c->params, "cursor", 0, INT64_MAX, &cursor, &err);
    if (rc == 0)
        rc = json_opt_int(c->params, "limit", 1, 500, &limit, &err);
    l.limit = (int)limit;
    if (rc == 0)
        rc = store_sessions(c->d->store, cursor, 100000, list_one, &l, &err);
    if (rc < 0) {
        json_decref(l.rows);
        return rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
    }
    bool more = (int)json_array_size(l.rows) >= l.limit;
    c->result = json_pack("{s:o}", "sessions", l.rows);
    if (more)
        json_object_set_new(c->result, "nextCursor", json_integer(l.last));
    return 0;
}

int rpc_session_update(struct rpc_call *c)
{
    struct session *s;
    struct err err;
    if (rpc_session_at_rest(c, &s))
        return c->code;
    if (session_update(s, json_object_get(c->params, "changes"), &err) < 0)
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_INTERNAL);
    c->result = json_pack("{s:I}", "seq", (json_int_t)s->head);
    return 0;
}

int rpc_session_close(struct rpc_call *c)
{
    struct session *s;
    struct err err;
    if (rpc_session_at_rest(c, &s))
        return c->code;
    if (!s->closed && session_log(s, NULL, NULL, "session.closed", json_object(), &err) < 0)
        return rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
    session_tools_close(s); /* its cells, with all that runs in them */
    if (infer_state(c->d->infer) == INFER_READY)
        infer_forget(c->d->infer, s->id);
    c->result = json_pack("{s:I}", "seq", (json_int_t)s->head);
    return 0;
}

int rpc_session_delete(struct rpc_call *c)
{
    struct session *s;
    struct err err;
    if (rpc_session_at_rest(c, &s))
        return c->code;
    if (store_session_delete(c->d->store, str_c(s->id), &err) < 0)
        return rpc_fail_err(c, &err, RPC_SESSION_NOT_FOUND, RPC_INTERNAL);
    if (infer_state(c->d->infer) == INFER_READY)
        infer_forget(c->d->infer, s->id);
    char files[4096];
    snprintf(files, sizeof files, "%s/sessions/%s", store_dir(c->d->store), s->id);
    session_free(s);
    place_remove(files);
    return 0;
}

struct forking {
    struct session *to;
    struct str upto;
    bool stop;
    int rc;
    struct err *err;
};

/* Copies what makes the transcript; the copy's turns are over by construction. */
static bool fork_one(void *arg, const struct store_event *e)
{
    struct forking *f = arg;
    json_t *data = NULL;
    bool item = str_is(e->type, "item.completed"), sample = str_is(e->type, "usage");
    char turn[ID_TEXT], id[ID_TEXT];
    if (f->stop && !sample)
        return false;
    if (!item && !sample && !str_is(e->type, "context.reset"))
        return true;
    f->rc = json_read(&data, e->data, f->err);
    if (f->rc < 0)
        return false;
    snprintf(turn, sizeof turn, "%.*s", STR_ARG(e->turn));
    snprintf(id, sizeof id, "%.*s", STR_ARG(e->item));
    struct tokens ids = {0};
    tokens_add(&ids, (const int32_t *)(const void *)e->ids.p, (uint32_t)(e->ids.n / 4));
    f->rc = sample ? session_log_sample(f->to, turn, data, &ids, e->bytes, f->err)
                   : session_log(f->to, turn, id, item ? "item.completed" : "context.reset",
                                 data, f->err);
    tokens_done(&ids);
    if (item && f->upto.n && str_eq(e->item, f->upto))
        f->stop = true;
    return f->rc == 0 && !(f->stop && sample);
}

/* Calls whose results lie behind the place of the fork. */
static int answer_forked(struct session *to, struct err *err)
{
    struct message *m = session_last_assistant(to);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && m && i < m->n_calls; i++) {
        if (m->calls[i].answered)
            continue;
        rc = session_log(to, m->turn, "fork", "item.completed",
                         json_pack("{s:s, s:I, s:s, s:s, s:s}", "kind", "result", "step",
                                   (json_int_t)m->step, "callId", m->calls[i].id, "name",
                                   m->calls[i].name, "text",
                                   "[not run: the session was forked before this result]"),
                         err);
        m = session_last_assistant(to); /* the log may have moved the messages */
    }
    return rc;
}

int rpc_session_fork(struct rpc_call *c)
{
    struct session *s, *to = NULL;
    struct err err;
    if (rpc_session_at_rest(c, &s))
        return c->code;
    int rc = session_create(&to, c->d, conn_uid(c->peer->conn), s->config, NULL, &err);
    struct forking f = {.to = to, .err = &err,
                        .upto = json_view(json_object_get(c->params, "atMessageId"))};
    if (rc == 0)
        rc = store_read(c->d->store, str_c(s->id), 0, true, fork_one, &f, &err);
    if (rc == 0)
        rc = f.rc;
    if (rc == 0 && f.upto.n && !f.stop)
        rc = err_set(&err, ERR_NOTFOUND, "session %s has no message '%.*s'", s->id,
                     STR_ARG(f.upto));
    if (rc == 0)
        rc = answer_forked(to, &err);
    if (rc < 0) {
        struct err ignored;
        if (to && store_session_delete(c->d->store, str_c(to->id), &ignored) == 0)
            session_free(to); /* else it stays, with what it has: the store cannot be written */
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_INTERNAL);
    }
    c->result = json_pack("{s:s, s:I}", "sessionId", to->id, "seq", (json_int_t)to->head);
    return 0;
}

struct exporting {
    json_t *events;
    size_t bytes;
    int64_t last; /* seq of the last one */
    bool more;
};

static bool export_one(void *arg, const struct store_event *e)
{
    struct exporting *x = arg;
    struct err err;
    if (x->bytes >= PAGE_BYTES) {
        x->more = true;
        return false;
    }
    x->bytes += ROW_BYTES + e->data.n + 2 * e->ids.n;
    x->last = e->seq;
    json_t *data = NULL, *ids = NULL;
    if (json_read(&data, e->data, &err) < 0)
        return true;
    json_t *o = json_pack("{s:I, s:I, s:o, s:o}", "seq", (json_int_t)e->seq, "ts",
                          (json_int_t)e->ts, "type", json_text(e->type), "data", data);
    if (e->turn.n)
        json_object_set_new(o, "turnId", json_text(e->turn));
    if (e->item.n)
        json_object_set_new(o, "itemId", json_text(e->item));
    for (size_t i = 0; i + 4 <= e->ids.n; i += 4) {
        int32_t id;
        memcpy(&id, e->ids.p + i, sizeof id);
        if (!ids)
            ids = json_array();
        json_array_append_new(ids, json_integer(id));
    }
    if (ids)
        json_object_set_new(o, "tokens", ids);
    json_array_append_new(x->events, o);
    return true;
}

int rpc_session_export(struct rpc_call *c)
{
    struct session *s;
    struct err err;
    int64_t after;
    if (rpc_session_of(c, &s) || page_from(c, &after))
        return c->code;
    struct exporting x = {.events = json_array()};
    if (store_read(c->d->store, str_c(s->id), after, true, export_one, &x, &err) < 0) {
        json_decref(x.events);
        return rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
    }
    c->result = json_pack("{s:s, s:s, s:O, s:o}", "epoch", store_epoch(c->d->store), "sessionId",
                          s->id, "config", s->config, "events", x.events);
    if (x.more)
        json_object_set_new(c->result, "next", json_integer((json_int_t)x.last));
    return 0;
}

/* head < 0: all sessions. */
static int read_cursor(struct rpc_call *c, int64_t head, int64_t *after)
{
    json_t *v = json_object_get(c->params, "after");
    struct str epoch = json_view(json_object_get(c->params, "epoch"));
    *after = head;
    if (json_is_integer(v))
        *after = json_integer_value(v);
    else if (v && !json_is_null(v) && !str_is(json_view(v), "now"))
        return rpc_fail(c, RPC_PARAMS, "after is a seq or \"now\"");
    bool stale = json_is_integer(v) && (*after < 0 || (head >= 0 && *after > head));
    if (stale || (epoch.n && !str_is(epoch, store_epoch(c->d->store)))) {
        c->details = json_pack("{s:s, s:I}", "epoch", store_epoch(c->d->store), "head",
                               (json_int_t)head);
        return rpc_fail(c, RPC_STALE_CURSOR, "this cursor is not of this log: start from 0");
    }
    return 0;
}

int rpc_session_subscribe(struct rpc_call *c)
{
    struct session *s = NULL;
    struct err err;
    struct feed_sub_opts o = {.deltas = c->peer->deltas};
    int64_t coalesce = 0;
    bool all = str_is(json_view(json_object_get(c->params, "sessionId")), "*");
    if (!all && rpc_session_of(c, &s))
        return c->code;
    if (json_opt_int(c->params, "coalesceMs", 0, 60000, &coalesce, &err) < 0)
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_INTERNAL);
    if (store_commit(c->d->store, &err) < 0) /* the head given must be on disk */
        return rpc_fail_err(c, &err, RPC_STORE_ERROR, RPC_STORE_ERROR);
    o.types = json_object_get(c->params, "types");
    for (size_t i = 0; i < json_array_size(o.types); i++)
        if (!json_is_string(json_array_get(o.types, i)))
            return rpc_fail(c, RPC_PARAMS, "types[%zu] is not the name of an event type", i);
    int64_t head = all ? store_last_gid(c->d->store) : s->head;
    if (read_cursor(c, head, &o.after))
        return c->code;
    o.session = all ? (struct str){0} : str_c(s->id);
    o.coalesce_ns = coalesce * 1000000;
    if (feed_subscribe(c->d->feed, c->peer->conn, &o, &err) < 0)
        return rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
    c->result = json_pack("{s:I, s:s}", "head", (json_int_t)head, "epoch",
                          store_epoch(c->d->store));
    return 0;
}

int rpc_session_unsubscribe(struct rpc_call *c)
{
    struct str id = json_view(json_object_get(c->params, "sessionId"));
    if (!feed_unsubscribe(c->d->feed, c->peer->conn, str_is(id, "*") ? (struct str){0} : id))
        return rpc_fail(c, RPC_SESSION_NOT_FOUND, "not subscribed to '%.*s'",
                        (int)(id.n < 64 ? id.n : 64), id.p);
    return 0;
}

int rpc_prompt_render(struct rpc_call *c)
{
    struct session *s, *whole = NULL;
    struct err err;
    struct buf text;
    if (rpc_session_of(c, &s))
        return c->code;
    buf_init(&text, LIMIT_LINE_BYTES);
    int rc = session_tools(s, &err);
    if (rc == 0)
        rc = session_whole(&whole, s, &err);
    if (rc == 0)
        rc = session_render_text(whole, &text, &err);
    session_whole_done(whole, s);
    if (rc == 0)
        rc = buf_check(&text, "prompt", &err);
    if (rc < 0)
        rpc_fail(c, RPC_ENCODING_ERROR, "%s", err.text);
    else
        c->result = json_pack("{s:o}", "prompt", json_text(buf_view(&text)));
    if (rc == 0 && infer_state(c->d->infer) == INFER_READY && infer_info(c->d->infer)->tokens &&
        session_render(s, &err) == 0)
        json_object_set_new(c->result, "tokens", json_integer(s->ctx.n));
    buf_done(&text);
    return rc;
}
