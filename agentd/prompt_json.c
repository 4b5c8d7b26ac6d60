/*
 * prompt_json.c - messages in OpenAI's shape, from JSON text, as the renderer wants them. It
 * checks shapes and types; what a message may say where is the renderer's business.
 */
#include <string.h>

#include "agentd/jsontext.h"
#include "agentd/prompt.h"

struct reader {
    struct prompt_request *out;
    uint32_t at; /* the message being read */
    struct err *err;
};

static int bad(struct reader *r, const char *what)
{
    r->out->code = PROMPT_BAD_INPUT;
    return err_set(r->err, ERR_PARSE, "message %u: %s", r->at, what);
}

static bool is_null(struct str v)
{
    return v.n == 0 || jsontext_kind(v) == JSONTEXT_NULL;
}

/* The bytes of a canonical string: borrowed when it has no escapes, else in the arena. */
static int text_of(struct reader *r, struct str v, struct str *out)
{
    struct str inner = str_sub(v, 1, v.n - 2);
    if (!memchr(inner.p, '\\', inner.n)) {
        *out = inner;
        return 0;
    }
    struct buf b;
    buf_init(&b, 0);
    jsontext_unquote(&b, v);
    int rc = buf_check(&b, "text", r->err);
    if (rc == 0) {
        char *copy = arena_strdup(&r->out->arena, buf_view(&b));
        if (copy)
            *out = str_of(copy, b.len);
        else
            rc = err_nomem(r->err);
    }
    buf_done(&b);
    return rc;
}

/* A field that is a string, null or absent. */
static int opt_text(struct reader *r, struct str object, const char *key, struct str *out)
{
    struct str v = jsontext_get(object, key);
    if (is_null(v))
        return 0;
    if (jsontext_kind(v) == JSONTEXT_STRING)
        return text_of(r, v, out);
    r->out->code = PROMPT_BAD_INPUT;
    return err_set(r->err, ERR_PARSE, "message %u: \"%s\" must be a string", r->at, key);
}

/* The text parts of a content array, joined by newlines. */
static int join_parts(struct reader *r, struct str parts, struct str *out)
{
    struct buf b;
    buf_init(&b, 0);
    struct str part;
    int rc = 0;
    bool first = true;
    for (struct jsontext_iter it = jsontext_each(parts);
         rc == 0 && jsontext_next(&it, NULL, &part); first = false) {
        struct str v = part;
        if (jsontext_kind(part) == JSONTEXT_OBJECT)
            v = str_is(jsontext_get(part, "type"), "\"text\"") ? jsontext_get(part, "text")
                                                               : STR("");
        if (jsontext_kind(v) != JSONTEXT_STRING) {
            rc = bad(r, "content parts must be text; images and audio are not supported");
            break;
        }
        if (!first)
            buf_putc(&b, '\n');
        jsontext_unquote(&b, v);
    }
    if (rc == 0)
        rc = buf_check(&b, "content", r->err);
    if (rc == 0) {
        char *copy = arena_strdup(&r->out->arena, buf_view(&b));
        *out = str_of(copy, copy ? b.len : 0);
        rc = copy ? 0 : err_nomem(r->err);
    }
    buf_done(&b);
    return rc;
}

static void *room(struct reader *r, uint32_t n, size_t size)
{
    size_t bytes;
    return mem_mul(n ? n : 1, size, &bytes) ? arena_alloc(&r->out->arena, bytes) : NULL;
}

static int read_calls(struct reader *r, struct str list, struct prompt_msg *m)
{
    if (is_null(list))
        return 0;
    if (jsontext_kind(list) != JSONTEXT_ARRAY)
        return bad(r, "\"tool_calls\" must be a list");
    struct prompt_call *calls = room(r, jsontext_count(list), sizeof(*calls));
    if (!calls)
        return err_nomem(r->err);
    m->calls = calls;
    struct str v;
    for (struct jsontext_iter it = jsontext_each(list); jsontext_next(&it, NULL, &v);) {
        struct prompt_call *c = &calls[m->n_calls++];
        struct str function = jsontext_get(v, "function");
        struct str arguments = jsontext_get(function, "arguments");
        if (jsontext_kind(jsontext_get(function, "name")) != JSONTEXT_STRING)
            return bad(r, "a call needs \"function\": {\"name\": ..., \"arguments\": ...}");
        int rc = opt_text(r, function, "name", &c->name);
        if (rc == 0)
            rc = opt_text(r, v, "id", &c->id);
        /* A decoded object is welcome too; what is neither fails when it is rendered. */
        if (rc == 0 && jsontext_kind(arguments) == JSONTEXT_STRING)
            rc = text_of(r, arguments, &c->arguments);
        else if (!is_null(arguments))
            c->arguments = arguments;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_tools(struct reader *r, struct str list, struct prompt_msg *m)
{
    if (is_null(list))
        return 0;
    if (jsontext_kind(list) != JSONTEXT_ARRAY)
        return bad(r, "\"tools\" must be a list");
    struct str *tools = room(r, jsontext_count(list), sizeof(*tools));
    if (!tools)
        return err_nomem(r->err);
    m->tools = tools;
    struct str v;
    for (struct jsontext_iter it = jsontext_each(list); jsontext_next(&it, NULL, &v);) {
        struct str function = jsontext_get(v, "function");
        if (jsontext_kind(function) != JSONTEXT_OBJECT)
            return bad(r, "a tool must be {\"type\": \"function\", \"function\": {...}}");
        tools[m->n_tools++] = function;
    }
    return 0;
}

static enum prompt_role role_of(struct str quoted)
{
    for (int i = PROMPT_SYSTEM; i < PROMPT_OTHER; i++) {
        struct str name = str_c(prompt_role_name((enum prompt_role)i));
        if (quoted.n == name.n + 2 && !memcmp(quoted.p + 1, name.p, name.n))
            return (enum prompt_role)i;
    }
    return PROMPT_OTHER;
}

/* Null, {}, [], "" and false all stand for no response format. */
static bool is_empty(struct str v)
{
    return is_null(v) || v.n == 2 || str_is(v, "false");
}

static int read_message(struct reader *r, struct str v, struct prompt_msg *m)
{
    if (jsontext_kind(v) != JSONTEXT_OBJECT)
        return bad(r, "a message must be an object");
    m->role = role_of(jsontext_get(v, "role"));
    if (m->role == PROMPT_OTHER)
        return 0;
    struct str content = jsontext_get(v, "content");
    int rc = jsontext_kind(content) == JSONTEXT_ARRAY ? join_parts(r, content, &m->content)
                                                      : opt_text(r, v, "content", &m->content);
    if (rc == 0 && m->role == PROMPT_ASSISTANT) {
        rc = opt_text(r, v, "reasoning_content", &m->reasoning);
        if (rc == 0)
            rc = read_calls(r, jsontext_get(v, "tool_calls"), m);
    }
    if (rc == 0 && m->role == PROMPT_TOOL)
        rc = opt_text(r, v, "tool_call_id", &m->call_id);
    if (rc == 0 && (m->role == PROMPT_SYSTEM || m->role == PROMPT_DEVELOPER)) {
        struct str format = jsontext_get(v, "response_format");
        m->response_format = is_empty(format) ? STR("") : format;
        rc = read_tools(r, jsontext_get(v, "tools"), m);
    }
    return rc;
}

static int read_messages(struct reader *r, struct str list)
{
    struct str v;
    for (struct jsontext_iter it = jsontext_each(list); jsontext_next(&it, NULL, &v);) {
        r->at = r->out->n;
        int rc = read_message(r, v, &r->out->msg[r->out->n]);
        if (rc < 0)
            return rc;
        r->out->n++;
    }
    return 0;
}

static int read_flag(struct reader *r, struct str options, const char *key, bool *out)
{
    struct str v = jsontext_get(options, key);
    if (is_null(v))
        return 0;
    if (jsontext_kind(v) != JSONTEXT_BOOL) {
        r->out->code = PROMPT_BAD_INPUT;
        return err_set(r->err, ERR_PARSE, "options: \"%s\" must be true or false", key);
    }
    *out = str_is(v, "true");
    return 0;
}

static int read_options(struct reader *r, struct str options)
{
    static const char *const keeps[] = {
        [PROMPT_KEEP_V32] = "\"v32\"",
        [PROMPT_KEEP_ALL] = "\"keep_all\"",
        [PROMPT_KEEP_NONE] = "\"none\"",
    };
    struct prompt_opts *o = &r->out->opts;
    o->mode = PROMPT_THINKING;
    if (is_null(options))
        return 0;
    struct str mode = jsontext_get(options, "thinking_mode");
    if (str_is(mode, "\"chat\"")) {
        o->mode = PROMPT_CHAT;
    } else if (mode.n && !str_is(mode, "\"thinking\"")) {
        r->out->code = PROMPT_BAD_THINKING_MODE;
        return err_set(r->err, ERR_PARSE, "thinking_mode must be \"thinking\" or \"chat\"");
    }
    struct str keep = jsontext_get(options, "keep");
    bool known = keep.n == 0;
    for (unsigned i = 0; i < ARRAY_LEN(keeps); i++) {
        if (str_is(keep, keeps[i])) {
            o->keep = (enum prompt_keep)i;
            known = true;
        }
    }
    if (!known) {
        r->out->code = PROMPT_BAD_INPUT;
        return err_set(r->err, ERR_PARSE, "keep must be \"v32\", \"keep_all\" or \"none\"");
    }
    /* drop_thinking changes no byte in this format; only its type is checked. */
    bool bos = true, drop = true;
    int rc = read_flag(r, options, "add_default_bos_token", &bos);
    if (rc == 0)
        rc = read_flag(r, options, "add_bos", &bos);
    if (rc == 0)
        rc = read_flag(r, options, "drop_thinking", &drop);
    o->no_bos = !bos;
    return rc;
}

int prompt_read(struct prompt_request *out, struct str json, struct err *err)
{
    memset(out, 0, sizeof(*out));
    arena_init(&out->arena, 0);
    buf_init(&out->text, 0);
    struct reader r = {.out = out, .err = err};
    int rc = jsontext_rewrite(&out->text, json, err);
    if (rc < 0) {
        out->code = rc == -ERR_PARSE ? PROMPT_BAD_INPUT : PROMPT_OK;
        return rc;
    }
    struct str root = buf_view(&out->text);
    struct str context = jsontext_get(root, "context");
    struct str messages = jsontext_get(root, "messages");
    bool lists = jsontext_kind(messages) == JSONTEXT_ARRAY
                 && (is_null(context) || jsontext_kind(context) == JSONTEXT_ARRAY);
    if (!lists) {
        out->code = PROMPT_BAD_INPUT;
        return err_set(err, ERR_PARSE, "expected an object with the list \"messages\", and "
                                       "\"context\", if given, a list too");
    }
    rc = read_options(&r, jsontext_get(root, "options"));
    if (rc < 0)
        return rc;
    out->msg = room(&r, jsontext_count(context) + jsontext_count(messages), sizeof(*out->msg));
    if (!out->msg)
        return err_nomem(err);
    rc = read_messages(&r, context);
    out->opts.n_context = out->n;
    return rc < 0 ? rc : read_messages(&r, messages);
}

void prompt_request_done(struct prompt_request *r)
{
    arena_done(&r->arena);
    buf_done(&r->text);
    memset(r, 0, sizeof(*r));
}
