/*
 * prompt.c - the rules of the message format, role by role.
 *
 * First prompt_plan() turns messages into ITEMS: system text behind a user message or a result
 * is folded into it, results go into call order. Then every item is written in turn; how the
 * bytes become pieces is prompt_out.c's business. L is the last user or developer item: the
 * reasoning of everything behind it is shown, of everything else not.
 */
#include "agentd/prompt.h"

#include <string.h>

#include "agentd/jsontext.h"
#include "agentd/prompt_out.h"
#include "agentd/prompt_text.h"

static const char *const code_names[PROMPT_N_CODES] = {
    [PROMPT_OK] = "ok",
    [PROMPT_BAD_THINKING_MODE] = "bad_thinking_mode",
    [PROMPT_UNKNOWN_ROLE] = "unknown_role",
    [PROMPT_DEVELOPER_EMPTY_CONTENT] = "developer_empty_content",
    [PROMPT_ASSISTANT_NEEDS_REASONING] = "assistant_needs_reasoning",
    [PROMPT_TOOL_BAD_POSITION] = "tool_bad_position",
    [PROMPT_TOOL_WITHOUT_CALL] = "tool_without_call",
    [PROMPT_ARGUMENTS_NOT_JSON] = "arguments_not_json",
    [PROMPT_ARGUMENTS_NOT_OBJECT] = "arguments_not_object",
    [PROMPT_BAD_INPUT] = "bad_input",
    [PROMPT_VALUE_UNREPRESENTABLE] = "value_unrepresentable",
    [PROMPT_SYSTEM_AFTER_CONTEXT] = "system_after_context",
    [PROMPT_RESULT_UNKNOWN_ID] = "result_unknown_id",
};

const char *prompt_code_name(enum prompt_code code)
{
    return code < PROMPT_N_CODES ? code_names[code] : "unknown";
}

const char *prompt_role_name(enum prompt_role role)
{
    static const char *const names[] = {"system", "user", "developer", "assistant", "tool"};
    return role < ARRAY_LEN(names) ? names[role] : "other";
}

/* --- parts ---------------------------------------------------------------------------- */

/* Appends canonical JSON from outside. */
static int put_json(struct render *r, struct str text, const char *what)
{
    struct buf b;
    buf_init(&b, LIMIT_PROMPT_BYTES);
    int rc = jsontext_rewrite(&b, text, r->err);
    if (rc < 0) {
        if (rc == -ERR_PARSE)
            r->out->code = PROMPT_BAD_INPUT;
        rc = err_prefix(r->err, "message %u: %s", r->out->bad_msg, what);
    } else {
        put_outside(r, buf_view(&b));
    }
    buf_done(&b);
    return rc;
}

static int put_tools_and_format(struct render *r, const struct prompt_msg *m)
{
    int rc = 0;
    if (m->n_tools) {
        put_template(r, STR("\n\n" PROMPT_TOOLS_HEAD));
        for (uint32_t i = 0; i < m->n_tools && rc == 0; i++) {
            if (i)
                put_template(r, STR("\n"));
            rc = put_json(r, m->tools[i], "tool");
        }
        put_template(r, STR(PROMPT_TOOLS_TAIL));
    }
    if (rc == 0 && m->response_format.n) {
        put_template(r, STR("\n\n" PROMPT_FORMAT_HEAD));
        rc = put_json(r, m->response_format, "response_format");
    }
    return rc;
}

static int put_system(struct render *r, const struct prompt_msg *m)
{
    put_outside(r, m->content);
    return put_tools_and_format(r, m);
}

/* The system messages that stood behind this one. */
static int put_folded(struct render *r, const struct prompt_item *it)
{
    int rc = 0;
    for (uint32_t i = it->msg + 1; i <= it->msg + it->n_folded && rc == 0; i++) {
        const struct prompt_msg *m = &r->msg[i];
        if (m->content.n || m->n_tools || m->response_format.n)
            put_template(r, STR("\n\n"));
        rc = put_system(r, m);
    }
    return rc;
}

/* One parameter line; key and value are canonical. */
static int put_parameter(struct render *r, struct str key, struct str value)
{
    bool string = jsontext_kind(value) == JSONTEXT_STRING;
    struct buf k, v;
    buf_init(&k, 0);
    buf_init(&v, 0);
    jsontext_unquote(&k, key);
    if (string)
        jsontext_unquote(&v, value);
    else
        buf_str(&v, value);
    int rc = buf_check(&k, "argument name", r->err);
    if (rc == 0)
        rc = buf_check(&v, "argument", r->err);
    if (rc == 0 && str_find(buf_view(&v), STR("/" LIT_TEXT_DSML "parameter"), 0) != STR_NONE)
        rc = prompt_refuse(r, PROMPT_VALUE_UNREPRESENTABLE,
                           "an argument contains the closing tag of arguments");
    if (rc == 0) {
        put_template(r, STR(DSML_PARAM " name=\""));
        put_outside(r, buf_view(&k));
        put_template(r, string ? STR("\" string=\"true\">") : STR("\" string=\"false\">"));
        put_outside(r, buf_view(&v));
        put_template(r, STR(DSML_END_PARAM));
    }
    buf_done(&k);
    buf_done(&v);
    return rc;
}

static int put_arguments(struct render *r, struct str arguments)
{
    struct buf b;
    buf_init(&b, LIMIT_PROMPT_BYTES);
    struct err why = {0};
    int rc = jsontext_rewrite(&b, arguments, &why);
    if (rc == -ERR_PARSE)
        rc = prompt_refuse(r, PROMPT_ARGUMENTS_NOT_JSON, why.text);
    else if (rc < 0)
        *r->err = why;
    else if (jsontext_kind(buf_view(&b)) != JSONTEXT_OBJECT)
        rc = prompt_refuse(r, PROMPT_ARGUMENTS_NOT_OBJECT,
                           "the arguments of a call must be a JSON object");
    struct jsontext_iter it = jsontext_each(buf_view(&b));
    struct str key, value;
    for (bool first = true; rc == 0 && jsontext_next(&it, &key, &value); first = false) {
        if (!first)
            put_template(r, STR("\n"));
        rc = put_parameter(r, key, value);
    }
    buf_done(&b);
    return rc;
}

static int put_calls(struct render *r, const struct prompt_msg *m)
{
    put_template(r, STR("\n\n" DSML_BLOCK "\n"));
    for (uint32_t i = 0; i < m->n_calls; i++) {
        put_template(r, STR(DSML_INVOKE " name=\""));
        put_outside(r, m->calls[i].name);
        put_template(r, STR("\">\n"));
        int rc = put_arguments(r, m->calls[i].arguments);
        if (rc < 0)
            return rc;
        put_template(r, STR("\n" DSML_END_INVOKE "\n"));
    }
    put_template(r, STR(DSML_END_BLOCK));
    return 0;
}

/* --- roles ---------------------------------------------------------------------------- */

/* Whether the tag behind item i opens a thought. */
static bool tag_opens(const struct render *r, uint32_t i)
{
    if (r->o->mode != PROMPT_THINKING)
        return false;
    switch (r->o->keep) {
    case PROMPT_KEEP_ALL:
        return true;
    case PROMPT_KEEP_NONE:
        return i == r->n_items - 1; /* the thought that is about to begin */
    case PROMPT_KEEP_V32:
        break;
    }
    return (int64_t)i >= r->last_user;
}

/* Whether the reasoning of the assistant item i is shown. */
static bool shows_reasoning(const struct render *r, uint32_t i)
{
    if (r->o->mode != PROMPT_THINKING || r->o->keep == PROMPT_KEEP_NONE)
        return false;
    return r->o->keep == PROMPT_KEEP_ALL || (int64_t)i > r->last_user;
}

static void put_tag(struct render *r, uint32_t i)
{
    r->out->thinking = tag_opens(r, i);
    put_literal(r, r->out->thinking ? LIT_THINK : LIT_ENDTHINK);
    r->out->ready = true;
}

static int put_user(struct render *r, uint32_t i, bool developer)
{
    const struct prompt_item *it = &r->item[i];
    const struct prompt_msg *m = &r->msg[it->msg];
    put_literal(r, LIT_USER);
    if (developer) {
        if (!m->content.n)
            return prompt_refuse(r, PROMPT_DEVELOPER_EMPTY_CONTENT,
                                 "a developer message needs content");
        int rc = put_tools_and_format(r, m);
        if (rc < 0)
            return rc;
        put_template(r, STR("\n\n# The user's message is: "));
    }
    put_outside(r, m->content);
    int rc = put_folded(r, it);
    if (rc < 0)
        return rc;
    put_literal(r, LIT_ASSISTANT);
    rc = put_mark(r);
    if (rc == 0)
        put_tag(r, i);
    return rc;
}

static int put_assistant(struct render *r, uint32_t i)
{
    const struct prompt_msg *m = &r->msg[r->item[i].msg];
    bool shown = shows_reasoning(r, i);
    if (m->sampled.bytes.p)
        return put_sampled(r, m, shown);
    bool strict = !r->o->lenient && (int64_t)i > r->last_user;
    if (shown && strict && !m->reasoning.n && !m->n_calls)
        return prompt_refuse(r, PROMPT_ASSISTANT_NEEDS_REASONING,
                             "an answer in thinking mode needs reasoning_content");
    if (shown) {
        put_outside(r, m->reasoning);
        put_literal(r, LIT_ENDTHINK);
    }
    put_outside(r, m->content);
    int rc = m->n_calls ? put_calls(r, m) : 0;
    put_literal(r, LIT_EOS);
    return rc;
}

static int put_tool(struct render *r, uint32_t i)
{
    const struct prompt_item *it = &r->item[i];
    if (!it->caller || r->msg[it->caller - 1].role != PROMPT_ASSISTANT)
        return prompt_refuse(r, PROMPT_TOOL_BAD_POSITION,
                             "a tool result must follow the message that made the call");
    uint32_t n = r->msg[it->caller - 1].n_calls;
    if (it->ordinal > n)
        return prompt_refuse(r, PROMPT_TOOL_WITHOUT_CALL,
                             "more tool results than calls before them");
    if (it->ordinal == 1)
        put_template(r, STR("\n\n<function_results>"));
    put_template(r, STR("\n<result>"));
    put_outside(r, r->msg[it->msg].content);
    int rc = put_folded(r, it);
    put_template(r, STR("</result>"));
    if (rc == 0 && it->ordinal == n) {
        put_template(r, STR("\n</function_results>\n\n"));
        put_tag(r, i);
    }
    return rc;
}

static int put_item(struct render *r, uint32_t i)
{
    const struct prompt_msg *m = &r->msg[r->item[i].msg];
    r->out->ready = r->out->thinking = false;
    switch (m->role) {
    case PROMPT_SYSTEM:
        return put_system(r, m);
    case PROMPT_USER:
        return put_user(r, i, false);
    case PROMPT_DEVELOPER:
        return put_user(r, i, true);
    case PROMPT_ASSISTANT:
        return put_assistant(r, i);
    case PROMPT_TOOL:
        return put_tool(r, i);
    case PROMPT_OTHER:
        break;
    }
    return prompt_refuse(r, PROMPT_UNKNOWN_ROLE,
                         "the role must be system, user, developer, assistant or tool");
}

int prompt_render(struct prompt *out, const struct prompt_msg *msg, uint32_t n,
                  const struct prompt_opts *o, struct err *err)
{
    memset(out, 0, sizeof(*out));
    buf_init(&out->text, LIMIT_PROMPT_BYTES);
    struct render r = {.out = out, .msg = msg, .n = n, .o = o, .err = err};
    int rc = prompt_plan(&r);
    if (rc == 0 && !o->no_bos && o->n_context == 0)
        put_literal(&r, LIT_BOS);
    for (uint32_t i = 0; i < r.n_items && rc == 0; i++) {
        if (r.item[i].msg < o->n_context)
            continue;
        out->bad_msg = r.item[i].msg;
        size_t at = out->text.len;
        rc = put_item(&r, i);
        if (rc == 0)
            rc = put_span(&r, at);
    }
    if (rc == 0 && r.failed)
        rc = err_nomem(err);
    if (rc == 0)
        rc = buf_check(&out->text, "prompt", err);
    if (rc == 0)
        out->bad_msg = 0;
    prompt_plan_done(&r);
    return rc;
}

void prompt_done(struct prompt *p)
{
    buf_done(&p->text);
    mem_free(p->piece);
    mem_free(p->mark);
    mem_free(p->span);
    memset(p, 0, sizeof(*p));
}

struct str prompt_piece_text(const struct prompt *p, uint32_t i)
{
    return str_sub(buf_view(&p->text), p->piece[i].at, p->piece[i].len);
}
