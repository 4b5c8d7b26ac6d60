/*
 * loop_revive.c - a turn that waited for an answer of the user when the daemon ended.
 *
 * It is made again from the log as it stood: its calls, its budget and what of it is used,
 * the open question or approval with its deadline. Tools and engine are not touched before
 * the answer comes. Any other turn that was running is closed by loop_recover().
 */
#include <stdio.h>
#include <string.h>

#include "agentd/log.h"
#include "agentd/loop_in.h"
#include "base/io.h"

struct waiting { /* the open question of the turn */
    const char *turn;
    char approval[ID_TEXT];
    json_t *data; /* owned */
};

static bool find_question(void *arg, struct str id, struct str session, struct str text,
                          struct str outcome)
{
    struct waiting *w = arg;
    struct err ignored;
    json_t *data = NULL;
    (void)session;
    (void)outcome;
    if (json_read(&data, text, &ignored) < 0)
        return true;
    if (!str_is(json_view(json_object_get(data, "turnId")), w->turn)) {
        json_decref(data);
        return true;
    }
    w->data = data;
    snprintf(w->approval, sizeof w->approval, "%.*s", STR_ARG(id));
    return false;
}

struct past { /* what the log says of the turn */
    struct turn *t;
    bool owned; /* its end was tied to a connection */
    int64_t begun, last; /* ms */
    int rc;
    struct err *err;
};

static int64_t number(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static void add_usage(struct turn *t, const json_t *data)
{
    t->prompt_tokens += number(data, "promptTokens");
    t->cached_tokens += number(data, "cachedTokens");
    t->completion_tokens += number(data, "completionTokens");
    t->engine_ns += 1000 * (number(data, "queuedUs") + number(data, "prefillUs") +
                            number(data, "decodeUs"));
}

/* The calls of the newest step, one call record each, in order. */
static void add_call(struct turn *t, struct str item, const json_t *data)
{
    if (number(data, "step") != t->step)
        t->n_calls = 0;
    t->step = number(data, "step");
    if (t->n_calls == LIMIT_CALLS_PER_MESSAGE)
        return;
    struct call *c = &t->call[t->n_calls++];
    struct str fault = json_view(json_object_get(data, "fault"));
    snprintf(c->id, sizeof c->id, "%.*s", STR_ARG(json_view(json_object_get(data, "callId"))));
    snprintf(c->item, sizeof c->item, "%.*s", STR_ARG(item));
    snprintf(c->fault, sizeof c->fault, "%.*s", (int)(fault.n < 255 ? fault.n : 255), fault.p);
    buf_reset(&c->name);
    buf_str(&c->name, json_view(json_object_get(data, "name")));
    buf_reset(&c->args);
    buf_str(&c->args, json_view(json_object_get(data, "arguments")));
    c->state = CALL_NEW;
}

static struct call *call_of(struct turn *t, const json_t *data)
{
    for (uint32_t i = 0; i < t->n_calls; i++)
        if (str_is(json_view(json_object_get(data, "callId")), t->call[i].id))
            return &t->call[i];
    return NULL;
}

static void read_item(struct past *p, const struct store_event *e, const json_t *data)
{
    struct turn *t = p->t;
    struct str kind = json_view(json_object_get(data, "kind"));
    struct call *c = call_of(t, data);
    if (str_is(kind, "call")) {
        add_call(t, e->item, data);
    } else if (str_is(kind, "text")) {
        buf_reset(&t->answer);
        buf_str(&t->answer, json_view(json_object_get(data, "text")));
    } else if (str_is(kind, "result") && c) {
        c->state = CALL_DONE;
        t->tool_calls += json_object_get(data, "ms") != NULL;
        t->tool_ns += number(data, "ms") * 1000000;
    }
}

static bool read_event(void *arg, const struct store_event *e)
{
    struct past *p = arg;
    struct turn *t = p->t;
    json_t *data = NULL;
    if (!str_is(e->turn, t->id))
        return true;
    p->rc = json_read(&data, e->data, p->err);
    if (p->rc < 0)
        return false;
    p->begun = p->begun ? p->begun : e->ts;
    p->last = e->ts;
    if (str_is(e->type, "turn.started")) {
        p->owned = json_object_get(data, "onDisconnect") != NULL;
        p->rc = turn_narrow(&t->budget, json_object_get(data, "limits"), p->err);
    } else if (str_is(e->type, "usage")) {
        add_usage(t, data);
    } else if (str_is(e->type, "tool.started") && call_of(t, data)) {
        t->calls_made++;
        call_of(t, data)->state = CALL_RUNNING; /* it was; nobody knows how it ended */
    } else if (str_is(e->type, "item.completed")) {
        read_item(p, e, data);
    }
    json_decref(data);
    return p->rc == 0;
}

/* What was handed to a tool and has no result may have run: that is all that is known. */
static int answer_lost(struct turn *t, struct err *err)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < t->n_calls; i++) {
        struct call *c = &t->call[i];
        if (c->state != CALL_RUNNING)
            continue;
        c->state = CALL_DONE;
        rc = call_log_result(t->s, t->id, t->step, c->id, buf_cstr(&c->name),
                             STR("[unknown: daemon restarted; the command may have run]"),
                             "unknown", json_pack("{s:b}", "isError", 1), err);
    }
    return rc;
}

static int wait_on(struct turn *t, struct waiting *w, struct err *err)
{
    struct call *c = call_of(t, w->data);
    if (!c || c->state != CALL_NEW)
        return err_set(err, ERR_CORRUPT, "a question without its call");
    c->state = CALL_ASKING;
    c->questions = json_incref(json_object_get(w->data, "questions"));
    c->expires_ms = number(w->data, "expiresAt");
    snprintf(c->approval, sizeof c->approval, "%s", w->approval);
    int rc = answer_lost(t, err);
    if (rc < 0)
        return rc;
    t->s->turn = t;
    loop_to(t, TURN_ASK);
    LOGI("loop", "turn=%s session=%s waits on for the user", t->id, t->s->id);
    return 0;
}

int loop_revive(struct session *s, bool *done, struct err *err)
{
    struct waiting w = {.turn = s->last_turn};
    struct turn *t = NULL;
    *done = false;
    int rc = store_approvals(s->d->store, str_c(s->id), true, find_question, &w, err);
    if (rc < 0 || !w.data)
        return rc;
    rc = turn_new(&t, s, err);
    struct past p = {.t = t, .err = err};
    if (rc == 0) {
        snprintf(t->id, sizeof t->id, "%s", s->last_turn);
        rc = store_read(s->d->store, str_c(s->id), 0, false, read_event, &p, err);
    }
    if (rc == 0)
        rc = p.rc;
    if (rc == 0 && !p.owned) {
        t->started_ns = io_mono_ns() - (p.last - p.begun) * 1000000;
        rc = wait_on(t, &w, err);
        *done = rc == 0;
    }
    if (!*done)
        loop_drop(t);
    json_decref(w.data);
    return rc;
}
