/*
 * loop_delegate.c - the tool delegate: a task for other agents, each a session of its own.
 *
 * A child has a fresh context, the parent's workspace, profile and rules, and what is left of
 * the parent's budget, shared between the attempts. It cannot ask: what would need a person
 * is denied, and ask_user is not among its tools. Depth and number are capped. Only what it
 * answered and what that cost comes back:
 *
 *   RUN --all attempts over (first: one is)--> CHOOSE --> answered
 *                                                |  ^
 *                                     verify: one more child that judges
 *
 * A killed daemon forgets it: the call is told as unknown, the children as interrupted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/log.h"
#include "agentd/loop_in.h"
#include "base/mem.h"
#include "tools/schema.h"

enum { ATTEMPTS_MAX = 16, DEPTH_MAX = 2, CHILDREN_MAX = 32, SCHEMA_TRIES = 2 };

struct child {
    struct delegate *d;
    char session[ID_TEXT];
    bool over;
    const char *reason; /* how its turn ended; literal */
    struct buf answer;  /* owned */
    int64_t steps, tokens;
    unsigned tries; /* answers that did not fit the schema */
    uint64_t order; /* which ended first */
};

struct delegate {
    struct session *parent; /* borrowed: it outlives its calls */
    struct toolrun_call *call;
    json_t *args; /* owned */
    struct ev_timer *kick; /* owned: what ends is looked at outside the loop's own round */
    struct child child[ATTEMPTS_MAX + 1]; /* the last is the judge */
    unsigned n;
    uint64_t ended;
    bool judging;
};

static const char *text_arg(const struct delegate *d, const char *key, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(d->args, key));
    return text ? text : otherwise;
}

static int64_t depth_of(const struct session *s)
{
    return json_integer_value(json_object_get(json_object_get(s->config, "parent"), "depth"));
}

static void forget(struct child *c)
{
    struct err ignored;
    struct session *s = NULL;
    if (c->session[0] && session_find(&s, c->d->parent->d, str_c(c->session), &ignored) == 0 &&
        s->watch == c) {
        s->watch = NULL;
        if (s->turn)
            loop_interrupt(s->turn, true);
    }
}

static void delegate_free(struct delegate *d)
{
    for (unsigned i = 0; i <= ATTEMPTS_MAX; i++) {
        forget(&d->child[i]);
        buf_done(&d->child[i].answer);
    }
    d->parent->delegate = NULL;
    ev_timer_free(d->kick);
    json_decref(d->args);
    mem_free(d);
}

static void answer(struct delegate *d, enum tool_status status, struct buf *text)
{
    struct toolrun_call *call = d->call;
    delegate_free(d);
    toolrun_answer(call, status, buf_view(text));
}

/* --- starting ------------------------------------------------------------------------------ */

/* The tools of a child, by name; NULL with *err when the model named one it does not have. */
static json_t *tools_of(const struct delegate *d, struct err *err)
{
    static const char *const never[] = {"ask_user", "delegate"};
    const json_t *wish = json_object_get(d->args, "tools");
    json_t *names = json_array(), *name;
    const char *schema;
    const struct tool *tool;
    size_t k;
    for (unsigned i = 0; (tool = toolrun_tool(d->parent->tools, i, &schema)); i++) {
        bool want = !wish && strcmp(tool->name, never[0]) != 0;
        json_array_foreach((json_t *)(uintptr_t)wish, k, name)
            want |= str_is(json_view(name), tool->name);
        if (strcmp(tool->name, never[1]) == 0 && depth_of(d->parent) + 1 >= DEPTH_MAX)
            want = false;
        if (want)
            json_array_append_new(names, json_string(tool->name));
    }
    json_array_foreach((json_t *)(uintptr_t)wish, k, name)
    {
        struct str n = json_view(name);
        if (str_is(n, never[0]) || !toolrun_has(d->parent->tools, n)) {
            err_set(err, ERR_PARSE, "a sub-agent cannot have the tool '%.*s'",
                    (int)(n.n < 60 ? n.n : 60), n.p);
            json_decref(names);
            return NULL;
        }
    }
    return names;
}

/* What is left of the parent's budget, in `parts`. */
static json_t *limits_of(const struct delegate *d, int64_t parts, struct err *err)
{
    const struct turn *t = d->parent->turn;
    const json_t *wish = json_object_get(d->args, "budget_tokens");
    int64_t tokens = (t->budget.max_tokens - turn_tokens(t) - t->budget.reserve) / parts;
    int64_t seconds = t->budget.max_seconds - turn_used_ns(t) / 1000000000;
    int64_t steps = t->budget.max_steps - t->step;
    if (json_is_integer(wish) && json_integer_value(wish) < tokens)
        tokens = json_integer_value(wish);
    if (tokens < 1 || seconds < 1 || steps < 1) {
        err_set(err, ERR_LIMIT, "nothing is left of this turn's budget to give away");
        return NULL;
    }
    return json_pack("{s:I, s:I, s:I}", "maxTokens", (json_int_t)tokens, "maxSeconds",
                     (json_int_t)seconds, "maxSteps", (json_int_t)steps);
}

static int start_turn(struct child *c, struct session *s, struct str input, struct err *err)
{
    char id[ID_TEXT];
    struct loop_start o = {.input = input};
    id_new(id);
    c->over = false;
    c->reason = NULL;
    buf_reset(&c->answer);
    int rc = loop_start(s, &o, id, err);
    if (rc == 0)
        s->watch = c;
    return rc;
}

static int start_child(struct delegate *d, unsigned i, int64_t parts, struct str input,
                       struct err *err)
{
    struct session *p = d->parent, *s = NULL;
    struct child *c = &d->child[i];
    json_t *tools = tools_of(d, err);
    json_t *limits = tools ? limits_of(d, parts, err) : NULL;
    if (!limits) {
        json_decref(tools);
        return -err->code;
    }
    json_t *params = json_deep_copy(p->config);
    json_object_set_new(params, "tools", tools);
    json_object_set_new(params, "limits", limits);
    json_object_set_new(params, "approvalPolicy", json_string("never"));
    json_t *parent = json_pack("{s:s, s:s, s:I}", "sessionId", p->id, "turnId", p->turn->id,
                               "depth", (json_int_t)depth_of(p) + 1);
    int rc = session_create_child(&s, p, params, parent, err);
    json_decref(params);
    if (rc < 0)
        return rc;
    snprintf(c->session, sizeof c->session, "%s", s->id);
    p->turn->children++;
    return start_turn(c, s, input, err);
}

static void task_text(const struct delegate *d, struct buf *out)
{
    const json_t *schema = json_object_get(d->args, "schema");
    struct err ignored;
    buf_puts(out, text_arg(d, "task", ""));
    if (schema) {
        buf_puts(out, "\n\nAnswer with one JSON object and nothing else. It must fit this JSON "
                      "schema:\n");
        (void)!json_write(schema, out, &ignored);
    }
}

/* --- choosing ------------------------------------------------------------------------------ */

static bool good(const struct child *c)
{
    return c->reason && strcmp(c->reason, "end_turn") == 0 && str_trim(buf_view(&c->answer)).n;
}

static bool same_answer(const struct child *a, const struct child *b)
{
    return str_eq(str_trim(buf_view(&a->answer)), str_trim(buf_view(&b->answer)));
}

static unsigned votes(const struct delegate *d, const struct child *c)
{
    unsigned n = 0;
    for (unsigned i = 0; i < d->n; i++)
        n += good(&d->child[i]) && same_answer(&d->child[i], c);
    return n;
}

/* The number that the judge named, from 1; 0 when none is right, or it did not say. */
static unsigned verdict(const struct delegate *d)
{
    struct str s = buf_view(&d->child[ATTEMPTS_MAX].answer);
    unsigned long n = 0;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] >= '0' && s.p[i] <= '9') {
            n = strtoul(s.p + i, NULL, 10); /* buf_cstr() below ends it */
            break;
        }
    return n <= d->n ? (unsigned)n : 0;
}

/* The child whose answer is given, or NULL. */
static const struct child *choose(struct delegate *d)
{
    const char *how = text_arg(d, "select", "first");
    const struct child *best = NULL;
    if (d->judging) {
        (void)buf_cstr(&d->child[ATTEMPTS_MAX].answer);
        unsigned n = verdict(d);
        return n && good(&d->child[n - 1]) ? &d->child[n - 1] : NULL;
    }
    for (unsigned i = 0; i < d->n; i++) {
        const struct child *c = &d->child[i];
        if (!good(c))
            continue;
        bool better = !best;
        if (best && strcmp(how, "vote") == 0)
            better = votes(d, c) > votes(d, best);
        else if (best && strcmp(how, "fewest_steps") == 0)
            better = c->steps < best->steps;
        else if (best)
            better = c->order < best->order;
        if (better)
            best = c;
    }
    return best;
}

static void give(struct delegate *d)
{
    const struct child *best = choose(d);
    const char *how = text_arg(d, "select", "first");
    int64_t steps = 0, tokens = 0;
    struct buf text;
    for (unsigned i = 0; i <= ATTEMPTS_MAX; i++) {
        steps += d->child[i].steps;
        tokens += d->child[i].tokens;
    }
    buf_init(&text, LIMIT_LINE_BYTES);
    if (best) {
        envelope_clean(&text, str_trim(buf_view(&best->answer)));
        if (d->n > 1)
            envelope_status(&text, "delegate: attempt %u of %u by %s; %lld steps, %lld tokens in "
                            "all; session %s", (unsigned)(best - d->child) + 1, d->n, how,
                            (long long)steps, (long long)tokens, best->session);
        else
            envelope_status(&text, "delegate: done; %lld steps, %lld tokens; session %s",
                            (long long)steps, (long long)tokens, best->session);
        answer(d, TOOL_OK, &text);
    } else {
        const struct child *c = &d->child[0];
        envelope_clean(&text, str_trim(buf_view(&c->answer))); /* as far as it came */
        envelope_status(&text, "delegate: %s; %lld steps, %lld tokens; session %s",
                        d->judging                          ? "no attempt passed the check"
                        : c->reason && strcmp(c->reason, "end_turn") != 0 ? c->reason
                                                                          : "no answer",
                        (long long)steps, (long long)tokens, c->session);
        answer(d, TOOL_FAILED, &text);
    }
    buf_done(&text);
}

/* The attempts before one more agent, which names the one that is right. */
static int judge(struct delegate *d, struct err *err)
{
    struct buf b;
    buf_init(&b, LIMIT_LINE_BYTES);
    buf_puts(&b, "Several answers to a task were proposed. Check them against the task and say "
                 "which one is right: reply with its number alone, or with 0 when none is.\n\n"
                 "Task:\n");
    task_text(d, &b);
    for (unsigned i = 0; i < d->n; i++)
        if (good(&d->child[i]))
            buf_printf(&b, "\n\nAnswer %u:\n%.*s", i + 1,
                       STR_ARG(str_trim(buf_view(&d->child[i].answer))));
    d->judging = true;
    int rc = buf_check(&b, "the answers to judge", err);
    if (rc == 0)
        rc = start_child(d, ATTEMPTS_MAX, 1, buf_view(&b), err);
    buf_done(&b);
    return rc;
}

/* An answer that must fit a schema and does not is asked for again, in the same session. */
static bool fits(struct child *c)
{
    struct delegate *d = c->d;
    const json_t *schema = json_object_get(d->args, "schema");
    struct str text = str_trim(buf_view(&c->answer));
    struct session *s = NULL;
    struct err err = {0}, ignored;
    json_t *value = NULL;
    struct buf again;
    if (!schema || c == &d->child[ATTEMPTS_MAX] || !good(c))
        return true;
    int rc = json_read(&value, text, &err);
    if (rc == 0)
        rc = schema_check("answer", schema, value, &err);
    json_decref(value);
    if (rc == 0)
        return true;
    if (c->tries++ == SCHEMA_TRIES) {
        c->reason = "the answer does not fit the schema";
        return true;
    }
    buf_init(&again, 4096);
    buf_printf(&again, "That does not fit the schema: %s. Answer again, with the JSON alone.",
               err.text);
    if (session_find(&s, d->parent->d, str_c(c->session), &ignored) < 0 || s->turn ||
        start_turn(c, s, buf_view(&again), &ignored) < 0) {
        c->over = true;
        c->reason = "the answer does not fit the schema";
    }
    buf_done(&again);
    return c->over;
}

static void look(struct delegate *d)
{
    struct err err;
    const char *how = text_arg(d, "select", "first");
    unsigned over = 0, usable = 0;
    if (d->judging) {
        if (d->child[ATTEMPTS_MAX].over)
            give(d);
        return;
    }
    for (unsigned i = 0; i < d->n; i++) {
        if (!d->child[i].over || !fits(&d->child[i]))
            continue;
        over++;
        usable += good(&d->child[i]);
    }
    if (strcmp(how, "first") == 0 && usable) {
        give(d);
    } else if (over == d->n) {
        if (strcmp(how, "verify") != 0 || usable == 0 || judge(d, &err) < 0)
            give(d);
    }
}

static void on_kick(void *arg)
{
    struct delegate *d = arg;
    struct daemon *daemon = d->parent->d;
    look(d);
    daemon_settle(daemon);
}

/* --- what the loop and the tools call -------------------------------------------------------- */

void loop_delegate_ended(struct session *s, const struct turn *t)
{
    struct child *c = s->watch;
    struct turn *parent = c->d->parent->turn;
    s->watch = NULL;
    c->over = true;
    c->order = ++c->d->ended;
    if (t) {
        c->reason = t->reason;
        c->steps += t->step;
        c->tokens += turn_tokens(t);
        buf_str(&c->answer, buf_view(&t->answer));
        if (parent)
            parent->child_tokens += turn_tokens(t);
    }
    ev_timer_start(c->d->kick, 0, 0);
}

void loop_delegate_cancel(struct session *s)
{
    if (s->delegate)
        delegate_free(s->delegate);
}

void loop_delegate(struct session *s, struct toolrun_call *call, const json_t *args)
{
    struct err err = {0};
    struct buf text;
    const json_t *wish = json_object_get(args, "n");
    struct delegate *d = mem_zalloc(sizeof *d);
    unsigned n = json_is_integer(wish) ? (unsigned)json_integer_value(wish) : 1;
    int rc = d ? 0 : err_nomem(&err);
    buf_init(&text, LIMIT_LINE_BYTES);
    if (rc == 0 && (!s->turn || s->delegate))
        rc = err_set(&err, ERR_STATE, "delegate works within a turn only");
    else if (rc == 0 && depth_of(s) >= DEPTH_MAX)
        rc = err_set(&err, ERR_LIMIT, "sub-agents cannot be nested deeper");
    else if (rc == 0 && s->turn->children + n > CHILDREN_MAX)
        rc = err_set(&err, ERR_LIMIT, "a turn has at most %d sub-agents", CHILDREN_MAX);
    if (rc < 0) {
        mem_free(d);
        buf_printf(&text, "%s\n[error]", err.text);
        toolrun_answer(call, TOOL_FAILED, buf_view(&text));
        buf_done(&text);
        return;
    }
    d->parent = s;
    d->call = call;
    d->args = json_deep_copy(args);
    d->n = n;
    s->delegate = d;
    for (unsigned i = 0; i <= ATTEMPTS_MAX; i++) {
        d->child[i].d = d;
        buf_init(&d->child[i].answer, LIMIT_LINE_BYTES);
    }
    rc = ev_timer_new(&d->kick, s->d->ev, on_kick, d, &err);
    task_text(d, &text);
    if (rc == 0)
        rc = buf_check(&text, "the task", &err);
    for (unsigned i = 0; rc == 0 && i < n; i++)
        rc = start_child(d, i, n, buf_view(&text), &err);
    if (rc < 0) {
        buf_reset(&text);
        buf_printf(&text, "%s\n[error]", err.text);
        answer(d, TOOL_FAILED, &text);
    }
    buf_done(&text);
    daemon_settle(s->d);
}
