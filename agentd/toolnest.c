/*
 * toolnest.c - what a running call asks of the daemon: another tool for Python code, with the
 * schema, policy and hooks of any call; a Lua function for a search.
 */
#include <string.h>

#include "agentd/searchlua.h"
#include "agentd/tooldriver.h"
#include "agentd/toolrun_impl.h"
#include "base/limits.h"

#define STARTED "started"
enum { CALLED_MAX = 1000, SHOWN_MAX = 8 }; /* calls kept of one call, and shown in its text */

static void send_value(struct toolrun_call *c, int64_t question, json_t *o)
{
    if (o)
        json_object_set_new(o, "answer", json_integer(question));
    if (o && c->state == RUNNING)
        tooldriver_send(toolrun_place_of(c)->driver, o);
    json_decref(o);
}

static void note_nested(struct toolrun_call *c, const char *tool, const char *how)
{
    struct err ignored = {0};
    struct buf b;
    buf_init(&b, 4096);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "event", "tool", "from", "python", "tool",
                          tool, "status", how);
    if (o && json_write(o, &b, &ignored) == 0)
        toolrun_audit(c->t, buf_cstr(&b));
    json_decref(o);
    buf_done(&b);
}

/* Into the outer call's list; what was lent is "started" until its outcome is told. */
static void list_nested(struct toolrun_call *outer, const char *tool, const char *status,
                        int64_t question, int64_t ms)
{
    if (!outer->called)
        outer->called = json_array();
    if (json_array_size(outer->called) < CALLED_MAX)
        json_array_append_new(outer->called,
                              json_pack("{s:s, s:s, s:I, s:I}", "tool", tool, "status", status,
                                        "ms", (json_int_t)ms, "question", (json_int_t)question));
}

void toolnest_ran(struct toolrun_call *c, const json_t *o)
{
    int64_t question = json_integer_value(json_object_get(o, "ran"));
    const char *status = json_string_value(json_object_get(o, "status"));
    int64_t us = json_integer_value(json_object_get(o, "us"));
    size_t i;
    json_t *one;
    json_array_foreach(c->called, i, one)
    {
        if (json_integer_value(json_object_get(one, "question")) != question ||
            strcmp(json_string_value(json_object_get(one, "status")), STARTED) != 0)
            continue;
        status = tool_status_name(toolrun_status(status)); /* one of ours, whatever it said */
        json_object_set_new(one, "status", json_string(status));
        json_object_set_new(one, "ms", json_integer((json_int_t)(us > 0 ? us / 1000 : 0)));
        note_nested(c, json_string_value(json_object_get(one, "tool")), status);
    }
}

void toolnest_summary(struct toolrun_call *c)
{
    struct buf b;
    size_t i, n = json_array_size(c->called);
    json_t *one;
    if (n == 0)
        return;
    buf_init(&b, 0);
    json_array_foreach(c->called, i, one)
    {
        const char *status = json_string_value(json_object_get(one, "status"));
        if (strcmp(status, STARTED) == 0) { /* the outer call ended with it */
            status = tool_status_name(TOOL_UNKNOWN);
            json_object_set_new(one, "status", json_string(status));
        }
        if (i < SHOWN_MAX)
            buf_printf(&b, "%s%s %s %lld ms", i ? ", " : "",
                       json_string_value(json_object_get(one, "tool")), status,
                       (long long)json_integer_value(json_object_get(one, "ms")));
        json_object_del(one, "question");
    }
    if (n > SHOWN_MAX)
        buf_printf(&b, ", and %zu more", n - SHOWN_MAX);
    envelope_status(&c->answer.text, "called: %s", buf_cstr(&b));
    buf_done(&b);
}

static void on_nested_done(void *arg, const struct tool_result *r)
{
    struct toolrun *t = arg;
    struct toolrun_call *c = t->ending;
    note_nested(c, c->name, tool_status_name(r->status));
    if (c->outer)
        list_nested(c->outer, c->name, tool_status_name(r->status), c->question,
                    (r->ended_ns - r->started_ns) / 1000000);
    if (c->outer)
        send_value(c->outer, c->question,
                   json_pack("{s:o, s:b, s:s}", "text", json_text(r->text), "is_error", r->is_error,
                             "status", tool_status_name(r->status)));
}

/* The tool runs in the outer call's own process, which waits for the word. */
void toolnest_lend(struct toolrun_call *c)
{
    if (c->spill) {
        answer_fail(&c->answer, TOOL_FAILED, "code reads a kept output with "
                    "tools.str_replace_editor(command='view', path='spill:...')");
        toolrun_done(c);
        return;
    }
    note_nested(c, c->name, STARTED);
    list_nested(c->outer, c->name, STARTED, c->question, 0);
    send_value(c->outer, c->question,
               json_pack("{s:s, s:O}", "run", c->tool->name, "args", c->args));
    c->cbs.on_done = NULL;
    toolrun_done(c);
}

/* Arguments given by their place get the names that the schema has there; new reference. */
static json_t *name_args(const char *schema, const json_t *o)
{
    struct err ignored = {0};
    json_t *fn = NULL, *props, *args = json_deep_copy(json_object_get(o, "args"));
    const json_t *pos = json_object_get(o, "pos"), *value;
    const char *key;
    size_t i = 0;
    if (!args || !schema || json_read(&fn, str_c(schema), &ignored) < 0)
        return args;
    props = json_object_get(json_object_get(fn, "parameters"), "properties");
    json_object_foreach(props, key, value)
        if (i < json_array_size(pos) && !json_object_get(args, key))
            json_object_set(args, key, json_array_get(pos, i++));
    if (i < json_array_size(pos)) /* one too many, which the schema check will name */
        json_object_set(args, "(positional)", json_array_get(pos, i));
    json_decref(fn);
    return args;
}

static void call_from_code(struct toolrun_call *c, const json_t *o, int64_t question)
{
    static const char *const never[] = {"python", "job", "ask_user", "delegate", "finish"};
    struct toolrun *t = c->t;
    struct err err = {0};
    struct buf text;
    const char *name = json_string_value(json_object_get(o, "name")), *schema = NULL;
    const struct toolrun_cbs cbs = {.on_done = on_nested_done, .arg = t};
    const char *why = !name || t->nested || c->outer ? "one tool at a time" : NULL;
    for (unsigned i = 0; name && i < ARRAY_LEN(never); i++)
        if (strcmp(name, never[i]) == 0)
            why = "this tool cannot be called from code";
    if (!why)
        (void)toolrun_find(t, str_c(name), &schema);
    json_t *args = why ? NULL : name_args(schema, o);
    buf_init(&text, LIMIT_ARGUMENTS_BYTES);
    if (!why && (!args || json_write(args, &text, &err) < 0))
        why = "the arguments are too large";
    if (!why && !(t->nested = toolrun_new_call(t, name, buf_view(&text), false, &cbs)))
        why = "out of memory";
    if (why) {
        send_value(c, question, json_pack("{s:s, s:b}", "text", why, "is_error", 1));
    } else {
        t->nested->outer = c;
        t->nested->question = question;
        toolrun_run_call(t->nested);
    }
    json_decref(args);
    buf_done(&text);
}

/* A running call wants something of us: a tool for its code, a function for its search. */
void toolnest_question(struct toolrun_call *c, const json_t *o)
{
    struct toolrun *t = c->t;
    struct err err = {0};
    json_t *value = NULL;
    int64_t question = json_integer_value(json_object_get(o, "n"));
    struct str ask = json_view(json_object_get(o, "ask"));
    if (str_is(ask, "tool")) {
        call_from_code(c, o, question);
    } else if (searchlua_call(t->search_lua, json_integer_value(json_object_get(o, "provider")),
                              json_view(json_object_get(o, "function")),
                              json_object_get(o, "args"), &value, &err) < 0) {
        send_value(c, question, json_pack("{s:o}", "error", json_text(str_c(err.text))));
    } else {
        send_value(c, question, json_pack("{s:o}", "value", value));
    }
}
