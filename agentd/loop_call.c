/*
 * loop_call.c - the calls of one block: intent is in the log before this file is entered,
 * tool.started before the tool is asked, the result before the next step.
 *
 * Calls that only read run side by side; any other waits for all before it and holds all
 * behind it. The only file of the loop that speaks to toolrun.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/crash.h"
#include "agentd/loop_in.h"
#include "agentd/policy.h"
#include "base/io.h"

int call_log_result(struct session *s, const char *turn, int64_t step, const char *call_id,
                    const char *name, struct str text, const char *status, json_t *more,
                    struct err *err)
{
    char item[ID_TEXT];
    json_t *data = json_pack("{s:s, s:I, s:s, s:s, s:s, s:o}", "kind", "result", "step",
                             (json_int_t)step, "callId", call_id, "name", name, "status", status,
                             "text", json_text(text));
    if (more)
        json_object_update(data, more);
    json_decref(more);
    id_new(item);
    return session_log(s, turn, item, "item.completed", data, err);
}

static bool read_only(const struct call *c)
{
    const struct tool *tool = tool_find(buf_view(&c->name));
    return tool && tool->reads_only;
}

/* A result without a tool behind it: broken calls, denials, what was never started. */
static int answer(struct call *c, const char *text, const char *status, struct err *err)
{
    struct turn *t = c->turn;
    c->state = CALL_DONE;
    feed_item_close(c->live);
    c->live = NULL;
    return call_log_result(t->s, t->id, t->step, c->id, buf_cstr(&c->name), str_c(text), status,
                           json_pack("{s:b}", "isError", 1), err);
}

int calls_answer_rest(struct turn *t, const char *text, struct err *err)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < t->n_calls; i++)
        if (t->call[i].state != CALL_DONE)
            rc = answer(&t->call[i], text, "not_run", err);
    return rc;
}

static void on_output(void *arg, int stream, struct str piece)
{
    struct call *c = arg;
    (void)stream;
    feed_item_add(c->live, piece);
    crash_here(CRASH_DURING_OUTPUT);
}

static json_t *result_facts(const struct tool_result *r)
{
    json_t *o = json_pack("{s:b, s:i, s:I, s:I, s:I, s:s}", "isError", (int)r->is_error,
                          "exitCode", r->exit_code, "outputBytes", (json_int_t)r->output_bytes,
                          "cutBytes", (json_int_t)r->cut_bytes, "ms",
                          (json_int_t)((r->ended_ns - r->started_ns) / 1000000), "sandbox",
                          r->level ? r->level : "");
    if (o && r->spill >= 0)
        json_object_set_new(o, "spill", json_integer(r->spill));
    if (o && r->state_lost)
        json_object_set_new(o, "stateLost", json_true());
    if (o && r->called)
        json_object_set(o, "called", (json_t *)(uintptr_t)r->called);
    if (o && r->undo)
        json_object_set(o, "undo", (json_t *)(uintptr_t)r->undo);
    return o;
}

/* A call has its result: into the log with it, and on to the next. */
static void ended(struct call *c, const struct tool_result *r)
{
    struct turn *t = c->turn;
    struct err err;
    const char *status = tool_status_name(r->status);
    c->state = CALL_DONE;
    feed_item_close(c->live);
    c->live = NULL;
    t->tool_calls++;
    t->tool_ns += r->ended_ns - r->started_ns;
    if (r->finish) {
        struct str said = json_view(json_object_get(r->finish, "answer"));
        buf_reset(&t->answer);
        buf_str(&t->answer, said);
        t->end = "end_turn";
    }
    int rc = session_log(t->s, t->id, c->item, "tool.finished",
                         json_pack("{s:s, s:s, s:i}", "callId", c->id, "status", status,
                                   "exitCode", r->exit_code),
                         &err);
    if (rc == 0)
        rc = call_log_result(t->s, t->id, t->step, c->id, buf_cstr(&c->name), r->text, status,
                             result_facts(r), &err);
    if (rc < 0)
        loop_broken(t, &err);
}

static void on_done(void *arg, const struct tool_result *r)
{
    struct call *c = arg;
    struct daemon *d = c->turn->s->d;
    crash_here(CRASH_AFTER_EXIT);
    c->run = NULL;
    ended(c, r);
    calls_pump(c->turn);
    daemon_settle_soon(d); /* a cancelled call ends while its turn's calls are walked */
}

/* --- calls that the client carries out ------------------------------------------------------ */

/* tool.started goes out with the arguments; the answer comes by tool.result. */
static json_t *started(const struct call *c)
{
    json_t *o = json_pack("{s:s, s:s}", "callId", c->id, "name", buf_cstr(&c->name));
    if (o && c->client) {
        json_object_set_new(o, "client", json_true());
        json_object_set_new(o, "arguments", json_text(buf_view(&c->args)));
    }
    return o;
}

static void client_ended(struct call *c, struct str text, enum tool_status status)
{
    struct buf clean;
    buf_init(&clean, 0);
    envelope_clean(&clean, text);
    const struct tool_result r = {.text = buf_view(&clean), .status = status,
                                  .is_error = status != TOOL_OK, .exit_code = -1, .spill = -1,
                                  .output_bytes = text.n, .started_ns = c->started_ns,
                                  .ended_ns = io_mono_ns(), .level = "client"};
    ended(c, &r);
    buf_done(&clean);
}

int loop_client_result(struct daemon *d, const struct loop_client_result *r, struct err *err)
{
    for (struct session *s = d->sessions; s; s = s->next)
        for (uint32_t i = 0; s->turn && i < s->turn->n_calls; i++) {
            struct call *c = &s->turn->call[i];
            if (!c->client || c->state != CALL_RUNNING || !str_is(r->call, c->id) ||
                (r->uid >= 0 && r->uid != s->uid))
                continue;
            client_ended(c, r->text, r->is_error ? TOOL_FAILED : TOOL_OK);
            calls_pump(s->turn);
            return 0;
        }
    return err_set(err, ERR_NOTFOUND, "no call '%.*s' waits for a client's result",
                   (int)(r->call.n < 64 ? r->call.n : 64), r->call.p);
}

void calls_begin(struct turn *t)
{
    struct err err;
    unsigned broken = 0;
    for (uint32_t i = 0; i < t->n_calls; i++) {
        struct call *c = &t->call[i];
        char text[400];
        c->state = CALL_NEW;
        if (!c->fault[0])
            continue;
        broken++;
        snprintf(text, sizeof text, "%s\n[invalid call: nothing was run; write it again]",
                 c->fault);
        if (answer(c, text, "invalid", &err) < 0) {
            loop_broken(t, &err);
            return;
        }
    }
    t->bad_calls = broken ? t->bad_calls + 1 : 0;
    loop_to(t, TURN_CALL);
    calls_pump(t);
}

/* The counter of a tool, or NULL when too many different ones were called. */
static int64_t *made(struct turn *t, const char *name)
{
    for (unsigned i = 0; i < TURN_TOOLS; i++) {
        if (!t->made[i].name[0])
            snprintf(t->made[i].name, sizeof t->made[i].name, "%.63s", name);
        if (strncmp(t->made[i].name, name, sizeof t->made[i].name - 1) == 0)
            return &t->made[i].n;
    }
    return NULL;
}

/* The policy's numbers: of all calls of a turn, and of one tool's. */
static enum ask_verdict check_count(struct turn *t, struct call *c, struct buf *result)
{
    const struct policy *p = t->s->policy;
    const struct policy_tool *entry = NULL;
    const char *name = buf_cstr(&c->name);
    int64_t *n = made(t, name);
    if (!p)
        return ASK_GO;
    (void)policy_decide(p, name, &entry);
    if (t->calls_made >= p->max_calls) {
        envelope_status(result, "denied: this turn has made its %lld calls, the most its policy "
                                "allows; answer with what you know", (long long)p->max_calls);
        return ASK_DENY;
    }
    if (entry && entry->max_calls && n && *n >= entry->max_calls) {
        envelope_status(result, "denied: this turn has called %s %lld times, the most its policy "
                                "allows", name, (long long)*n);
        return ASK_DENY;
    }
    return ASK_GO;
}

/* A client's tool is held to its declaration here; toolrun does it for its own. */
static enum ask_verdict check_tool(struct turn *t, struct call *c, struct buf *result,
                                   const char **status)
{
    struct err err = {0};
    int rc = 0;
    c->client = session_client_tool(t->s, buf_view(&c->name));
    if (c->client)
        rc = session_client_args(t->s, buf_cstr(&c->name), buf_view(&c->args), &err);
    else if (!t->s->tools)
        rc = err_set(&err, ERR_NOTFOUND, "there is no tool '%.60s'", buf_cstr(&c->name));
    if (rc == 0)
        return ASK_GO;
    *status = "invalid";
    envelope_clean(result, str_c(err.text));
    envelope_status(result, "invalid arguments");
    return ASK_DENY;
}

/* Decides about a call once nothing before it holds it back. */
static bool decide(struct turn *t, struct call *c, bool *asking, struct err *err)
{
    struct buf result;
    const char *status = "denied";
    int rc = 0;
    buf_init(&result, 4096);
    enum ask_verdict v = check_tool(t, c, &result, &status);
    if (v == ASK_GO)
        v = check_count(t, c, &result);
    if (v == ASK_GO)
        v = ask_about(t, c, &result, &status, err);
    if (v == ASK_WAIT) {
        c->state = CALL_ASKING;
        *asking = true;
    } else if (v == ASK_GO) {
        c->state = CALL_READY;
    } else if (v == ASK_DENY) {
        rc = answer(c, buf_cstr(&result), status, err);
    }
    buf_done(&result);
    return rc == 0 && v != ASK_BROKEN;
}

static bool all_done(const struct turn *t)
{
    for (uint32_t i = 0; i < t->n_calls; i++)
        if (t->call[i].state != CALL_DONE)
            return false;
    return true;
}

static void after_calls(struct turn *t)
{
    loop_to(t, TURN_CALL);
    if (t->stop)
        loop_end(t, t->time_up ? "max_tokens" : "cancelled", t->limit);
    else if (t->end)
        loop_end(t, t->end, t->limit);
    else if (t->bad_calls > 3)
        loop_fail(t, "encoding_error", true,
                  "the model wrote four unreadable blocks of calls in a row");
    else {
        loop_to(t, TURN_PREFILL);
        t->next = NEXT_STEP;
    }
}

/* Whether call i may run beside what is not done before it. */
static bool may_start(const struct turn *t, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (t->call[k].state != CALL_DONE &&
            !(read_only(&t->call[k]) && read_only(&t->call[i]) &&
              t->call[k].state >= CALL_STARTING))
            return false;
    return true;
}

void calls_pump(struct turn *t)
{
    struct err err;
    bool asking = false, starting = false;
    if (t->state == TURN_DONE || t->state == TURN_FAILED || t->next != NEXT_NONE)
        return;
    if (t->stop && calls_answer_rest_unstarted(t, &err) < 0) {
        loop_broken(t, &err);
        return;
    }
    for (uint32_t i = 0; i < t->n_calls && !asking; i++) {
        struct call *c = &t->call[i];
        asking = c->state == CALL_ASKING;
        if (c->state != CALL_NEW || !may_start(t, i))
            continue;
        if (!decide(t, c, &asking, &err)) {
            loop_broken(t, &err);
            return;
        }
        if (c->state != CALL_READY)
            continue;
        c->state = CALL_STARTING;
        starting = true;
        t->calls_made++;
        int64_t *n = made(t, buf_cstr(&c->name));
        if (n)
            ++*n;
        if (session_log(t->s, t->id, c->item, "tool.started", started(c), &err) < 0) {
            loop_broken(t, &err);
            return;
        }
    }
    loop_to(t, asking ? TURN_ASK : TURN_CALL);
    if (starting)
        t->next = NEXT_LAUNCH;
    else if (all_done(t))
        after_calls(t);
}

int calls_answer_rest_unstarted(struct turn *t, struct err *err)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < t->n_calls; i++)
        if (t->call[i].state < CALL_STARTING)
            rc = answer(&t->call[i], "[cancelled: the turn was interrupted before this call ran]",
                        "cancelled", err);
    return rc;
}

void calls_launch(struct turn *t)
{
    static const struct toolrun_cbs proto = {.on_output = on_output, .on_done = on_done};
    for (uint32_t i = 0; i < t->n_calls; i++) {
        struct call *c = &t->call[i];
        if (c->state != CALL_STARTING)
            continue;
        struct toolrun_cbs cbs = proto;
        cbs.arg = c;
        c->state = CALL_RUNNING;
        if (c->client) {
            c->started_ns = io_mono_ns();
            if (t->stop == STOP_HARD)
                client_ended(c, STR("[cancelled]"), TOOL_CANCELLED);
            continue;
        }
        c->live = feed_item_open(t->s->d->feed, t->s->id, t->id, c->item, "output");
        c->run = toolrun_call(t->s->tools, c->id, buf_cstr(&c->name), buf_view(&c->args),
                              c->approved, &cbs);
        if (t->stop == STOP_HARD)
            toolrun_cancel(c->run);
    }
    calls_pump(t);
}

void calls_cancel(struct turn *t, bool running_too)
{
    bool any = false;
    for (uint32_t i = 0; running_too && i < t->n_calls; i++) {
        struct call *c = &t->call[i];
        if (c->state != CALL_RUNNING)
            continue;
        if (c->run)
            toolrun_cancel(c->run);
        else if (c->client)
            client_ended(c, STR("[cancelled: the client's result did not come in time]"),
                         TOOL_CANCELLED);
        any |= c->client;
    }
    if (any)
        calls_pump(t);
}

void calls_abandon(struct turn *t)
{
    for (uint32_t i = 0; i < t->n_calls; i++) {
        struct call *c = &t->call[i];
        struct toolrun_call *run = c->run;
        c->run = NULL;
        if (c->state == CALL_RUNNING)
            c->state = CALL_DONE;
        if (run)
            toolrun_abandon(run);
    }
}
