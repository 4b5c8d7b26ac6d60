/*
 * toolnest.c - what a running call asks of the daemon: another tool for Python code, with the
 * schema, policy and hooks of any call; a Lua function for a search.
 */
#include <string.h>

#include "agentd/searchlua.h"
#include "agentd/tooldriver.h"
#include "agentd/toolrun_impl.h"
#include "base/limits.h"

static void send_value(struct toolrun_call *c, int64_t question, json_t *o)
{
    if (o)
        json_object_set_new(o, "answer", json_integer(question));
    if (o && c->state == RUNNING)
        tooldriver_send(toolrun_place_of(c)->driver, o);
    json_decref(o);
}

static void note_nested(struct toolrun_call *c, const char *how)
{
    struct err ignored = {0};
    struct buf b;
    buf_init(&b, 4096);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "event", "tool", "from", "python", "tool",
                          c->name, "status", how);
    if (o && json_write(o, &b, &ignored) == 0)
        toolrun_audit(c->t, buf_cstr(&b));
    json_decref(o);
    buf_done(&b);
}

static void on_nested_done(void *arg, const struct tool_result *r)
{
    struct toolrun *t = arg;
    struct toolrun_call *c = t->ending;
    note_nested(c, tool_status_name(r->status));
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
    note_nested(c, "started");
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
