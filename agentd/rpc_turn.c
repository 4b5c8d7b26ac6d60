/* rpc_turn.c - turns: start, wait, steer, interrupt; and the approvals they ask for. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agentd/loop.h"
#include "agentd/rpc_in.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

void rpc_wait_free(struct rpc_wait *w)
{
    if (w->job)
        infer_abandon(w->job);
    for (struct rpc_wait **at = &w->peer->waits; *at; at = &(*at)->next)
        if (*at == w) {
            *at = w->next;
            break;
        }
    w->peer->unanswered--;
    ev_timer_free(w->timer);
    tokens_done(&w->have);
    json_decref(w->id);
    mem_free(w);
}

void rpc_drop_waits(struct rpc_peer *p)
{
    while (p->waits)
        rpc_wait_free(p->waits);
}

static bool grab(void *arg, const struct store_event *e)
{
    struct err err;
    json_t *data = NULL;
    if (json_read(&data, e->data, &err) == 0) {
        json_object_set_new(data, "type", json_text(e->type));
        *(json_t **)arg = data;
    }
    return false;
}

/* What a finished turn answers; NULL while it runs (or its end cannot be read). */
static json_t *outcome(struct daemon *d, const char *turn)
{
    struct store_turn row;
    struct err err;
    json_t *data = NULL;
    if (store_turn(d->store, str_c(turn), &row, &err) < 0 || !row.last ||
        store_read(d->store, str_c(row.session), row.last - 1, false, grab, &data, &err) < 0 ||
        !data)
        return NULL;
    json_t *o = json_pack("{s:s}", "turnId", turn);
    if (str_is(json_view(json_object_get(data, "type")), "turn.failed")) {
        json_object_set_new(o, "stopReason", json_string("error"));
        json_object_set(o, "error", json_object_get(data, "error"));
    }
    json_object_del(data, "type");
    json_object_update_missing(o, data);
    json_decref(data);
    return o;
}

static void on_timeout(void *arg)
{
    struct rpc_wait *w = arg;
    rpc_reply(w->peer->conn, w->id, json_pack("{s:s, s:b}", "turnId", w->turn, "running", 1));
    rpc_wait_free(w);
}

struct rpc_wait *rpc_wait_new(struct rpc_call *c)
{
    struct rpc_wait *w = mem_zalloc(sizeof *w);
    if (!w) {
        rpc_fail(c, RPC_OVERLOADED, "out of memory");
        return NULL;
    }
    w->d = c->d;
    w->peer = c->peer;
    w->id = json_incref(c->id);
    w->next = c->peer->waits;
    c->peer->waits = w;
    c->peer->unanswered++;
    c->deferred = true;
    return w;
}

int rpc_wait_turn(struct rpc_call *c, const char *turn, int64_t timeout_ms, bool own)
{
    struct err err;
    struct rpc_wait *w = c->id ? rpc_wait_new(c) : NULL;
    if (!w)
        return c->code;
    w->own = own;
    snprintf(w->turn, sizeof w->turn, "%s", turn);
    if (timeout_ms > 0) {
        if (ev_timer_new(&w->timer, c->d->ev, on_timeout, w, &err) < 0) {
            rpc_wait_free(w);
            c->deferred = false;
            return rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
        }
        ev_timer_start(w->timer, timeout_ms * 1000000, 0);
    }
    return 0;
}

bool rpc_withdraw(struct daemon *d, struct rpc_peer *p, const json_t *id)
{
    for (struct rpc_wait *w = p->waits; w; w = w->next)
        if (json_equal(w->id, id)) {
            struct store_turn row;
            struct session *s = NULL;
            struct err err;
            if (w->own && store_turn(d->store, str_c(w->turn), &row, &err) == 0 &&
                session_find(&s, d, str_c(row.session), &err) == 0 && s->turn &&
                strcmp(loop_id(s->turn), w->turn) == 0)
                loop_interrupt(s->turn, false);
            rpc_wait_free(w);
            return true;
        }
    return false;
}

static void check_peer(void *arg, struct conn *conn)
{
    struct daemon *d = arg;
    struct rpc_peer *p = conn_data(conn);
    for (struct rpc_wait *w = p ? p->waits : NULL, *next; w; w = next) {
        next = w->next;
        json_t *o = w->turn[0] ? outcome(d, w->turn) : NULL;
        if (!o)
            continue;
        rpc_reply(conn, w->id, o);
        rpc_wait_free(w);
    }
}

void rpc_check_waits(struct daemon *d)
{
    if (d->sock)
        sock_each(d->sock, check_peer, d);
}

/* --- starting ---------------------------------------------------------------------------- */

/* A string, or an array of text parts joined by newlines. */
static int read_input(struct rpc_call *c, struct buf *out)
{
    json_t *v = json_object_get(c->params, "input"), *part;
    struct err err;
    size_t i;
    if (json_is_string(v))
        buf_str(out, json_view(v));
    else if (!json_is_array(v))
        return rpc_fail(c, RPC_PARAMS, "input is a string or [{\"type\": \"text\", \"text\"}]");
    json_array_foreach(v, i, part)
    {
        json_t *text = json_object_get(part, "text");
        if (!json_is_string(text))
            return rpc_fail(c, RPC_PARAMS, "input[%zu] is not a text part", i);
        if (i)
            buf_putc(out, '\n');
        buf_str(out, json_view(text));
    }
    if (buf_check(out, "input", &err) < 0) /* or the model would read a part for the whole */
        return rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
    return 0;
}

static int may_start(struct rpc_call *c, struct session *s)
{
    if (c->d->draining)
        return rpc_fail(c, RPC_DRAINING, "the daemon is ending; no new turns");
    if (s->closed)
        return rpc_fail(c, RPC_SESSION_NOT_FOUND, "session %s is closed", s->id);
    if (rpc_turn_active(c, s))
        return c->code;
    if (infer_state(c->d->infer) == INFER_DEAD)
        return rpc_fail(c, RPC_ENGINE_UNAVAILABLE, "%s", infer_problem(c->d->infer));
    return 0;
}

static int start(struct rpc_call *c, char id[ID_TEXT])
{
    struct session *s;
    struct store_idem idem;
    struct buf body, input;
    struct err err;
    char result[128];
    if (rpc_session_of(c, &s))
        return -1;
    buf_init(&body, LIMIT_LINE_BYTES);
    buf_init(&input, LIMIT_LINE_BYTES);
    int rc = rpc_idem_begin(c, s->id, &idem, &body);
    if (rc == 1)
        snprintf(id, ID_TEXT, "%.*s",
                 STR_ARG(json_view(json_object_get(c->result, "turnId"))));
    if (rc == 0)
        rc = may_start(c, s) ? -1 : 0;
    struct str resume = json_view(json_object_get(c->params, "resume"));
    struct str gone = json_view(json_object_get(c->params, "onDisconnect"));
    if (rc == 0 && !resume.n)
        rc = read_input(c, &input) ? -1 : 0;
    if (rc == 0 && gone.n && !str_is(gone, "continue") && !str_is(gone, "cancel"))
        rc = rpc_fail(c, RPC_PARAMS, "onDisconnect is continue or cancel") ? -1 : 0;
    if (rc == 0) {
        id_new(id);
        snprintf(result, sizeof result, "{\"turnId\":\"%s\",\"seq\":%lld}", id,
                 (long long)s->head + 1);
        idem.result = str_c(result);
        struct loop_start o = {.input = buf_view(&input), .resume = resume,
                               .limits = json_object_get(c->params, "limits"),
                               .owner = str_is(gone, "cancel") ? c->peer->conn : NULL,
                               .idem = idem.key.n ? &idem : NULL};
        rc = loop_start(s, &o, id, &err);
        if (rc < 0)
            rpc_fail_err(c, &err, RPC_PARAMS, RPC_TURN_ACTIVE);
        else
            rc = json_read(&c->result, str_c(result), &err);
    }
    buf_done(&body);
    buf_done(&input);
    return rc < 0 ? -1 : 0;
}

int rpc_turn_start(struct rpc_call *c)
{
    char id[ID_TEXT];
    start(c, id);
    return c->code;
}

int rpc_turn_run(struct rpc_call *c)
{
    char id[ID_TEXT];
    if (start(c, id) < 0)
        return c->code;
    json_decref(c->result);
    c->result = outcome(c->d, id); /* a repeated request whose turn is over */
    return c->result ? 0 : rpc_wait_turn(c, id, 0, true);
}

/* --- running ones -------------------------------------------------------------------------- */

/* The turn's row and session; fails the call itself. */
static int turn_of(struct rpc_call *c, struct store_turn *row, struct session **s)
{
    struct err err;
    struct str id = json_view(json_object_get(c->params, "turnId"));
    if (store_turn(c->d->store, id, row, &err) < 0)
        return rpc_fail_err(c, &err, RPC_TURN_NOT_FOUND, RPC_INTERNAL);
    if (session_find(s, c->d, str_c(row->session), &err) < 0)
        return rpc_fail_err(c, &err, RPC_TURN_NOT_FOUND, RPC_INTERNAL);
    uid_t uid = conn_uid(c->peer->conn);
    if ((*s)->uid != uid && uid != 0 && uid != getuid())
        return rpc_fail(c, RPC_FORBIDDEN, "turn %s belongs to uid %lld", row->id,
                        (long long)(*s)->uid);
    return 0;
}

static struct turn *running(const struct session *s, const struct store_turn *row)
{
    return s->turn && strcmp(loop_id(s->turn), row->id) == 0 ? s->turn : NULL;
}

int rpc_turn_wait(struct rpc_call *c)
{
    struct store_turn row;
    struct session *s;
    struct err err;
    int64_t timeout = 0;
    if (turn_of(c, &row, &s))
        return c->code;
    if (json_opt_int(c->params, "timeoutMs", 0, INT64_MAX / 2000000, &timeout, &err) < 0)
        return rpc_fail_err(c, &err, RPC_PARAMS, RPC_INTERNAL);
    c->result = outcome(c->d, row.id);
    return c->result ? 0 : rpc_wait_turn(c, row.id, timeout, false);
}

int rpc_turn_get(struct rpc_call *c)
{
    struct store_turn row;
    struct session *s;
    if (turn_of(c, &row, &s))
        return c->code;
    struct turn *t = running(s, &row);
    c->result = outcome(c->d, row.id);
    if (!c->result)
        c->result = json_pack("{s:s, s:b}", "turnId", row.id, "running", t != NULL);
    json_object_set_new(c->result, "sessionId", json_string(row.session));
    json_object_set_new(c->result, "state",
                        json_string(t          ? turn_state_name(loop_state(t))
                                    : row.last ? "ended"
                                               : "interrupted"));
    if (t)
        json_object_set_new(c->result, "usage", loop_usage(t));
    return 0;
}

int rpc_turn_steer(struct rpc_call *c)
{
    struct store_turn row;
    struct session *s;
    struct err err;
    struct buf input;
    struct str as = json_view(json_object_get(c->params, "as"));
    if (turn_of(c, &row, &s))
        return c->code;
    struct turn *t = running(s, &row);
    if (!t)
        return rpc_fail(c, RPC_TURN_NOT_FOUND, "turn %s is over; start another", row.id);
    if (as.n && !str_is(as, "note") && !str_is(as, "user"))
        return rpc_fail(c, RPC_PARAMS, "as is note or user");
    buf_init(&input, LIMIT_LINE_BYTES);
    if (read_input(c, &input) == 0) {
        if (loop_steer(t, buf_view(&input), str_is(as, "user"), &err) < 0)
            rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
        else
            c->result = json_pack("{s:I}", "seq", (json_int_t)s->head);
    }
    buf_done(&input);
    return c->code;
}

int rpc_turn_interrupt(struct rpc_call *c)
{
    struct store_turn row;
    struct session *s;
    struct str mode = json_view(json_object_get(c->params, "mode"));
    if (turn_of(c, &row, &s))
        return c->code;
    if (mode.n && !str_is(mode, "soft") && !str_is(mode, "hard"))
        return rpc_fail(c, RPC_PARAMS, "mode is soft or hard");
    struct turn *t = running(s, &row);
    if (t)
        loop_interrupt(t, str_is(mode, "hard"));
    c->result = json_pack("{s:s}", "state", t ? turn_state_name(loop_state(t)) : "ended");
    return 0;
}

int rpc_cancel_request(struct rpc_call *c)
{
    const json_t *id = json_object_get(c->params, "requestId");
    json_t *copy = json_deep_copy(id);
    if (rpc_withdraw(c->d, c->peer, id))
        rpc_reply_error(c->peer->conn, copy, RPC_CANCELLED, "withdrawn by the client", NULL, 0);
    json_decref(copy);
    return 0;
}

/* --- approvals ----------------------------------------------------------------------------- */

static bool list_one(void *arg, struct str id, struct str session, struct str data,
                     struct str outcome_text)
{
    struct err err;
    json_t *o = NULL;
    (void)id;
    (void)outcome_text;
    if (json_read(&o, data, &err) == 0) {
        json_object_set_new(o, "sessionId", json_text(session));
        json_array_append_new(arg, o);
    }
    return true;
}

int64_t rpc_whose(const struct rpc_call *c)
{
    uid_t uid = conn_uid(c->peer->conn);
    return uid == 0 || uid == getuid() ? -1 : (int64_t)uid;
}

/* Leaves only what belongs to this uid. */
static void keep_own(struct daemon *d, json_t *rows, int64_t uid)
{
    for (size_t i = json_array_size(rows); uid >= 0 && i-- > 0;) {
        struct store_session row;
        struct err ignored;
        struct buf config;
        struct str id = json_view(json_object_get(json_array_get(rows, i), "sessionId"));
        buf_init(&config, LIMIT_JSON_BYTES);
        if (store_session(d->store, id, &row, &config, &ignored) < 0 || row.uid != uid)
            json_array_remove(rows, i);
        buf_done(&config);
    }
}

int rpc_approval_list(struct rpc_call *c)
{
    struct err err;
    json_t *rows = json_array();
    if (store_approvals(c->d->store, json_view(json_object_get(c->params, "sessionId")), true,
                        list_one, rows, &err) < 0) {
        json_decref(rows);
        return rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
    }
    keep_own(c->d, rows, rpc_whose(c));
    c->result = json_pack("{s:o}", "approvals", rows);
    return 0;
}

struct answered {
    struct str id;
    json_t *outcome; /* owned */
    bool found;
};

static bool find_answer(void *arg, struct str id, struct str session, struct str data,
                        struct str outcome_text)
{
    struct answered *a = arg;
    struct err err;
    (void)session;
    (void)data;
    if (!str_eq(id, a->id))
        return true;
    a->found = true;
    if (outcome_text.n)
        (void)!json_read(&a->outcome, outcome_text, &err);
    return false;
}

int rpc_approval_respond(struct rpc_call *c)
{
    struct err err, ignored;
    struct answered a = {.id = json_view(json_object_get(c->params, "approvalId"))};
    struct str option = json_view(json_object_get(c->params, "optionId"));
    json_t *note = json_object_get(c->params, "note");
    json_t *who = json_pack("{s:I, s:I, s:s, s:O?}", "uid", (json_int_t)conn_uid(c->peer->conn),
                            "pid", (json_int_t)conn_pid(c->peer->conn), "client",
                            c->peer->client, "note", note);
    const struct loop_answer answer = {.approval = a.id, .option = option,
                                       .note = json_view(note), .who = who, .uid = rpc_whose(c),
                                       .answers = json_object_get(c->params, "answers")};
    int rc = loop_approve(c->d, &answer, &err);
    json_decref(who);
    if (rc == 0) {
        c->result = json_pack("{s:o}", "outcome", json_text(option));
        return 0;
    }
    if (rc != -ERR_NOTFOUND)
        return rpc_fail_err(c, &err, RPC_INTERNAL, RPC_INTERNAL);
    (void)!store_approvals(c->d->store, (struct str){0}, false, find_answer, &a, &ignored);
    c->details = a.outcome;
    if (a.found)
        return rpc_fail(c, RPC_APPROVAL_RESOLVED, "approval '%.*s' was answered before",
                        STR_ARG(a.id));
    return rpc_fail(c, RPC_PARAMS, "%s", err.text);
}
