/* loop.c - a turn's beginning, its arrows and its ends; loop.h draws it. */
#include "agentd/loop.h"

#include <stdio.h>
#include <string.h>

#include "agentd/crash.h"
#include "agentd/log.h"
#include "agentd/loop_in.h"
#include "base/io.h"
#include "base/mem.h"

const char *loop_id(const struct turn *t)
{
    return t->id;
}

enum turn_state loop_state(const struct turn *t)
{
    return t->state;
}

int64_t turn_tokens(const struct turn *t)
{
    return t->completion_tokens + t->child_tokens;
}

json_t *loop_usage(const struct turn *t)
{
    json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "steps", (json_int_t)t->step,
                     "promptTokens", (json_int_t)t->prompt_tokens, "cachedTokens",
                     (json_int_t)t->cached_tokens, "completionTokens",
                     (json_int_t)t->completion_tokens, "toolCalls", (json_int_t)t->tool_calls,
                     "engineMs", (json_int_t)(t->engine_ns / 1000000), "toolMs",
                     (json_int_t)(t->tool_ns / 1000000), "elapsedMs",
                     (json_int_t)((io_mono_ns() - t->started_ns) / 1000000));
    if (o && t->child_tokens)
        json_object_set_new(o, "delegatedTokens", json_integer(t->child_tokens));
    return o;
}

static void turn_free(struct turn *t)
{
    if (!t)
        return;
    if (t->job)
        infer_abandon(t->job);
    t->job = NULL;
    calls_abandon(t);
    gen_clear(t);
    for (uint32_t i = 0; i < LIMIT_CALLS_PER_MESSAGE; i++) {
        feed_item_close(t->call[i].live);
        json_decref(t->call[i].questions);
        buf_done(&t->call[i].name);
        buf_done(&t->call[i].args);
    }
    buf_done(&t->think);
    buf_done(&t->text);
    buf_done(&t->bytes);
    buf_done(&t->answer);
    tokens_done(&t->ids);
    ev_timer_free(t->timer);
    ev_timer_free(t->deadline);
    ev_timer_free(t->expiry);
    if (t->s->turn == t)
        t->s->turn = NULL;
    mem_free(t);
}

void loop_drop(struct turn *t)
{
    turn_free(t);
}

static void on_timer(void *arg)
{
    struct turn *t = arg;
    struct daemon *d = t->s->d;
    if (t->stop)
        calls_cancel(t, true); /* the grace of an interrupt is over */
    else if (t->state == TURN_PREFILL && !t->job && t->next == NEXT_NONE)
        t->next = NEXT_STEP; /* the pause before another try is over */
    daemon_settle(d);
}

/* The budget's seconds are over: running tools end, one short answer is still allowed. */
static void on_deadline(void *arg)
{
    struct turn *t = arg;
    struct daemon *d = t->s->d;
    bool again = t->time_up;
    t->time_up = true;
    t->limit = "time";
    if (t->state == TURN_DECODE || t->state == TURN_PREFILL || again) {
        loop_interrupt(t, true);
    } else {
        calls_cancel(t, true);
        ev_timer_start(t->deadline, (int64_t)60 * 1000000000, 0);
    }
    daemon_settle(d);
}

static void on_expiry(void *arg)
{
    struct turn *t = arg;
    struct daemon *d = t->s->d;
    ask_expire(t);
    daemon_settle(d);
}

int64_t turn_used_ns(const struct turn *t)
{
    return io_mono_ns() - t->started_ns - t->parked_ns;
}

void turn_arm_deadline(struct turn *t)
{
    int64_t left = t->budget.max_seconds * 1000000000 - turn_used_ns(t);
    ev_timer_start(t->deadline, left > 0 ? left : 0, 0);
}

int turn_new(struct turn **out, struct session *s, struct err *err)
{
    struct turn *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err);
    t->s = s;
    t->started_ns = io_mono_ns();
    t->budget = s->budget;
    buf_init(&t->think, LIMIT_LINE_BYTES);
    buf_init(&t->text, LIMIT_LINE_BYTES);
    buf_init(&t->bytes, LIMIT_LINE_BYTES);
    buf_init(&t->answer, LIMIT_LINE_BYTES);
    for (uint32_t i = 0; i < LIMIT_CALLS_PER_MESSAGE; i++) {
        t->call[i].turn = t;
        buf_init(&t->call[i].name, 4096);
        buf_init(&t->call[i].args, LIMIT_LINE_BYTES);
    }
    int rc = ev_timer_new(&t->timer, s->d->ev, on_timer, t, err);
    if (rc == 0)
        rc = ev_timer_new(&t->deadline, s->d->ev, on_deadline, t, err);
    if (rc == 0)
        rc = ev_timer_new(&t->expiry, s->d->ev, on_expiry, t, err);
    if (rc < 0) {
        turn_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int turn_narrow(struct budget *b, const json_t *limits, struct err *err)
{
    struct budget w = *b;
    int rc = session_read_budget(&w, limits, err);
    if (rc < 0)
        return rc;
    b->max_steps = least(b->max_steps, w.max_steps);
    b->max_tokens = least(b->max_tokens, w.max_tokens);
    b->max_seconds = least(b->max_seconds, w.max_seconds);
    if (w.think_max && (!b->think_max || w.think_max < b->think_max))
        b->think_max = w.think_max;
    b->reserve = least(w.reserve, b->max_tokens / 2);
    return 0;
}

/* A turn can go on from where it was cut when a result or the user spoke last. */
static int check_resume(struct session *s, struct str id, struct err *err)
{
    if (!*s->last_turn || !str_is(id, s->last_turn))
        return err_set(err, ERR_STATE, "turn '%.*s' is not the session's last one", STR_ARG(id));
    enum prompt_role last = s->n_msgs ? s->msg[s->n_msgs - 1].role : PROMPT_SYSTEM;
    if (last != PROMPT_USER && last != PROMPT_TOOL)
        return err_set(err, ERR_STATE, "turn '%.*s' has its answer: there is nothing to resume",
                       STR_ARG(id));
    return 0;
}

int loop_start(struct session *s, const struct loop_start *o, char id[ID_TEXT], struct err *err)
{
    struct turn *t = NULL;
    char item[ID_TEXT];
    if (s->turn)
        return err_set(err, ERR_STATE, "turn %s is running", s->turn->id);
    int rc = o->resume.n ? check_resume(s, o->resume, err) : 0;
    if (rc == 0)
        rc = session_tools(s, err);
    if (rc == 0)
        rc = turn_new(&t, s, err);
    if (rc < 0)
        return rc;
    rc = turn_narrow(&t->budget, o->limits, err);
    snprintf(t->id, sizeof t->id, "%s", id);
    t->owner = o->owner;
    if (s->warm)
        infer_abandon(s->warm); /* what it has computed so far is kept */
    s->warm = NULL;
    json_t *data = json_object();
    if (o->resume.n)
        json_object_set_new(data, "resume", json_text(o->resume));
    if (o->limits && !json_is_null(o->limits))
        json_object_set(data, "limits", (json_t *)(uintptr_t)o->limits);
    if (o->owner)
        json_object_set_new(data, "onDisconnect", json_string("cancel"));
    if (rc == 0)
        rc = session_log_idem(s, t->id, "turn.started", data, o->idem, err);
    else
        json_decref(data);
    id_new(item);
    if (rc == 0 && !o->resume.n)
        rc = session_log(s, t->id, item, "item.completed",
                         json_pack("{s:s, s:o}", "kind", "user", "text", json_text(o->input)),
                         err);
    if (rc < 0) {
        turn_free(t);
        return rc;
    }
    s->turn = t;
    loop_to(t, TURN_PREFILL);
    t->next = NEXT_STEP;
    turn_arm_deadline(t);
    return 0;
}

static int recover(struct session *s, const char *kind, const char *why, struct err *err);
static const char lost_here[] = "something the turn needed could not be had; the log says more";

/* --- arrows ----------------------------------------------------------------------------- */

bool loop_ready(const struct turn *t)
{
    return t->next != NEXT_NONE;
}

/* A turn that went without an end (no memory, say) gets one at once, from what the log says:
 * somebody may wait for it. If that fails too, whoever uses the session next tries again. */
static void close_broken(struct session *s)
{
    struct err err;
    if (!s->last_turn_open)
        return;
    if (session_reload(s, &err) < 0 || recover(s, "internal_error", lost_here, &err) < 0)
        LOGE("loop", "session=%s has no end for its turn error=\"%s\"", s->id, err.text);
}

void loop_go(struct turn *t)
{
    enum turn_next next = t->next;
    struct session *s = t->s;
    t->next = NEXT_NONE;
    loop_check(t);
    switch (next) {
    case NEXT_STEP:
        if (t->step == 0)
            crash_here(CRASH_TURN_COMMITTED);
        else if (t->n_calls)
            crash_here(CRASH_RESULT_COMMITTED);
        gen_step(t);
        break;
    case NEXT_CALLS:
        crash_here(CRASH_AFTER_INTENT);
        calls_begin(t);
        break;
    case NEXT_LAUNCH:
        crash_here(CRASH_BEFORE_SPAWN);
        calls_launch(t);
        break;
    case NEXT_END:
        if (s->watch)
            loop_delegate_ended(s, t);
        turn_free(t);
        close_broken(s);
        loop_warm(s);
        s->d->trim = true;
        break;
    case NEXT_NONE:
        break;
    }
}

void loop_engine(struct daemon *d)
{
    for (struct session *s = d->sessions; s; s = s->next) {
        struct turn *t = s->turn;
        if (t && t->state == TURN_PREFILL && !t->job && t->next == NEXT_NONE)
            t->next = NEXT_STEP;
    }
    daemon_settle(d);
}

/* --- ends ------------------------------------------------------------------------------- */

void loop_end(struct turn *t, const char *reason, const char *limit)
{
    struct err err;
    struct session *s = t->s;
    json_t *data = json_pack("{s:s, s:o, s:o}", "stopReason", reason, "usage", loop_usage(t),
                             "message", json_text(buf_view(&t->answer)));
    if (limit)
        json_object_set_new(data, "limit", json_string(limit));
    crash_here(CRASH_BEFORE_END);
    if (session_log(s, t->id, NULL, "turn.completed", data, &err) < 0) {
        loop_broken(t, &err);
        return;
    }
    LOGI("loop", "turn=%s session=%s stop=%s steps=%lld tokens=%lld", t->id, s->id, reason,
         (long long)t->step, (long long)t->completion_tokens);
    t->reason = reason;
    loop_to(t, TURN_DONE);
    t->next = NEXT_END;
}

void loop_fail(struct turn *t, const char *kind, bool retryable, const char *sentence)
{
    struct err err;
    json_t *error = json_pack("{s:s, s:o, s:b}", "kind", kind, "message",
                              json_text(str_c(sentence)), "retryable", (int)retryable);
    LOGW("loop", "turn=%s session=%s failed kind=%s error=\"%s\"", t->id, t->s->id, kind,
         sentence);
    if (session_log(t->s, t->id, NULL, "turn.failed",
                    json_pack("{s:o, s:b, s:o}", "error", error, "resumable", 1, "usage",
                              loop_usage(t)),
                    &err) < 0) {
        loop_broken(t, &err);
        return;
    }
    t->reason = "error";
    loop_to(t, TURN_FAILED);
    t->next = NEXT_END;
}

void loop_broken(struct turn *t, const struct err *err)
{
    LOGE("loop", "turn=%s session=%s dropped error=\"%s\"", t->id, t->s->id, err->text);
    if (t->job)
        infer_abandon(t->job);
    t->job = NULL;
    calls_abandon(t);
    /* The log has no end for it: loop_recover() writes one when the session is used next. */
    loop_to(t, TURN_FAILED);
    t->next = NEXT_END;
}

/* --- from outside ------------------------------------------------------------------------ */

int loop_steer(struct turn *t, struct str text, bool as_user, struct err *err)
{
    char item[ID_TEXT];
    id_new(item);
    return session_log(t->s, t->id, item, "item.completed",
                       json_pack("{s:s, s:s, s:o}", "kind", "steer", "as",
                                 as_user ? "user" : "note", "text", json_text(text)),
                       err);
}

void loop_interrupt(struct turn *t, bool hard)
{
    struct daemon *d = t->s->d;
    if (t->state == TURN_DONE || t->state == TURN_FAILED || t->stop == STOP_HARD)
        return;
    t->stop = hard ? STOP_HARD : t->stop ? t->stop : STOP_SOFT;
    if (t->job) {
        infer_cancel(t->job); /* its done() commits what there is */
        return;
    }
    ask_cancel(t, "cancelled");
    if (t->state == TURN_CALL || t->state == TURN_ASK) {
        calls_cancel(t, hard); /* calls that run go on until the grace is over */
        if (!hard)
            ev_timer_start(t->timer, d->config.grace_ms * 1000000, 0);
        calls_pump(t);
    } else if (t->next == NEXT_NONE || t->next == NEXT_STEP) {
        t->next = NEXT_STEP; /* gen_step() sees the stop first */
    }
}

bool loop_parked(const struct turn *t)
{
    bool question = false;
    if (t->state != TURN_ASK || t->next != NEXT_NONE || t->owner)
        return false;
    for (uint32_t i = 0; i < t->n_calls; i++) {
        if (t->call[i].state == CALL_RUNNING || t->call[i].state == CALL_STARTING)
            return false;
        question |= t->call[i].questions != NULL;
    }
    return question;
}

void loop_owner_gone(struct daemon *d, struct conn *c)
{
    for (struct session *s = d->sessions; s; s = s->next)
        if (s->turn && s->turn->owner == c) {
            s->turn->owner = NULL;
            loop_interrupt(s->turn, true);
        }
    daemon_settle(d);
}

/* --- after a crash ------------------------------------------------------------------------ */

static int answer_lost(struct session *s, const char *turn, struct err *err)
{
    struct message *m = session_last_assistant(s);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && m && i < m->n_calls; i++) {
        struct call_record *c = &m->calls[i];
        if (c->answered)
            continue;
        const char *text =
            c->started ? "[unknown: daemon restarted; the command may have run]"
                       : "[not started: daemon restarted before this call ran]";
        rc = call_log_result(s, turn, m->step, c->id, c->name, str_c(text),
                             c->started ? "unknown" : "not_started", NULL, err);
        m = session_last_assistant(s); /* the log may have moved the messages */
    }
    return rc;
}

struct gone {
    struct session *s;
    const char *turn;
    int rc;
    struct err *err;
};

static bool resolve_one(void *arg, struct str id, struct str session, struct str data,
                        struct str outcome)
{
    struct gone *g = arg;
    (void)session;
    (void)data;
    (void)outcome;
    g->rc = session_log(g->s, g->turn, NULL, "approval.resolved",
                        json_pack("{s:o, s:s}", "approvalId", json_text(id), "outcome",
                                  "cancelled"),
                        g->err);
    return g->rc == 0;
}

static int recover(struct session *s, const char *kind, const char *why, struct err *err)
{
    if (!s->last_turn_open || s->turn || !*s->last_turn)
        return 0;
    const char *turn = s->last_turn;
    struct gone g = {s, turn, 0, err};
    bool waits = false;
    int rc = loop_revive(s, &waits, err);
    if (rc < 0 || waits)
        return rc;
    rc = answer_lost(s, turn, err);
    if (rc == 0)
        rc = store_approvals(s->d->store, str_c(s->id), true, resolve_one, &g, err);
    if (rc == 0)
        rc = g.rc;
    crash_here(CRASH_DURING_RECOVERY);
    if (rc < 0)
        return rc;
    struct message *last = s->n_msgs ? &s->msg[s->n_msgs - 1] : NULL;
    if (last && last->role == PROMPT_ASSISTANT && !last->n_calls && !last->sampled.think_open)
        return session_log(s, turn, NULL, "turn.completed",
                           json_pack("{s:s, s:b, s:o}", "stopReason", "end_turn", "recovered", 1,
                                     "message", json_text(last->content)),
                           err);
    return session_log(s, turn, NULL, "turn.failed",
                       json_pack("{s:{s:s, s:s, s:b}, s:b}", "error", "kind", kind, "message", why,
                                 "retryable", 1, "resumable", 1),
                       err);
}

int loop_recover(struct session *s, struct err *err)
{
    return recover(s, "interrupted_by_restart", "the daemon ended during this turn", err);
}

static bool note_session(void *arg, const struct store_turn *t)
{
    buf_add(arg, t->session, ID_TEXT);
    return true;
}

int loop_recover_all(struct daemon *d, struct err *err)
{
    struct buf open; /* ids of sessions, ID_TEXT bytes each */
    unsigned waiting = 0;
    buf_init(&open, 0);
    int rc = store_open_turns(d->store, note_session, &open, err);
    if (rc == 0)
        rc = buf_check(&open, "the list of open turns", err);
    for (size_t at = 0; rc == 0 && at < open.len; at += ID_TEXT) {
        struct session *s = NULL;
        const char *id = (const char *)open.data + at;
        rc = session_find(&s, d, str_c(id), err);
        if (rc == 0)
            rc = loop_recover(s, err);
        if (rc == 0)
            rc = store_commit(d->store, err);
        waiting += rc == 0 && s->turn;
        if (rc < 0) {
            LOGE("loop", "session=%s cannot be recovered error=\"%s\"", id, err->text);
            rc = 0;
            if (s)
                s->last_turn_open = false;
        }
    }
    LOGI("loop", "recovered turns=%zu waiting=%u", open.len / ID_TEXT, waiting);
    buf_done(&open);
    return rc;
}

/* --- idle work ---------------------------------------------------------------------------- */

static void warm_done(void *arg, const struct infer_result *r)
{
    struct session *s = arg;
    LOGD("loop", "warm session=%s prompt=%u cached=%u", s->id, r->prompt, r->cached);
    s->warm = NULL;
}

void loop_warm(struct session *s)
{
    struct err err;
    struct tokens kept = {0};
    struct infer *inf = s->d->infer;
    if (!s->d->config.idle_prefill || s->d->draining || s->warm)
        return;
    if (infer_state(inf) != INFER_READY || !infer_info(inf)->tokens)
        return;
    struct infer_cbs cbs = {.done = warm_done, .arg = s};
    int rc = session_render_kept(s, &kept, &err);
    struct infer_request r = {.session = s->id, .ids = kept.id, .n_ids = kept.n, .idle = true,
                              .save = true};
    if (rc == 0 && kept.n)
        rc = infer_start(&s->warm, inf, &r, &cbs, &err);
    if (rc < 0)
        LOGD("loop", "no warm-up session=%s error=\"%s\"", s->id, err.text);
    tokens_done(&kept);
}
