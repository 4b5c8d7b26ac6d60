/*
 * dsml_strict.c - the format's definition as a parser: read to the next of a few marks, check
 * what lay before it, go on. It repairs nothing and judges finished texts alone.
 */
#include <string.h>

#include "agentd/dsml.h"
#include "agentd/jsontext.h"
#include "agentd/literal.h"
#include "base/limits.h"

#define OPEN "\n\n<" LIT_TEXT_DSML "function_calls"

static const char *const code_names[DSML_N_CODES] = {
    [DSML_OK] = "ok",
    [DSML_THINKING_UNTERMINATED] = "thinking_unterminated",
    [DSML_ANSWER_UNTERMINATED] = "answer_unterminated",
    [DSML_BLOCK_FORMAT] = "block_format",
    [DSML_BLOCK_UNTERMINATED] = "block_unterminated",
    [DSML_INVOKE_FORMAT] = "invoke_format",
    [DSML_PARAMETER_FORMAT] = "parameter_format",
    [DSML_PARAMETER_DUPLICATE] = "parameter_duplicate",
    [DSML_TEXT_AFTER_CALLS] = "text_after_calls",
    [DSML_TEXT_AFTER_END] = "text_after_end",
    [DSML_SPECIAL_TOKEN_IN_TEXT] = "special_token_in_text",
    [DSML_CALL_TRUNCATED] = "call_truncated",
    [DSML_ARGUMENTS_NOT_JSON] = "arguments_not_json",
    [DSML_TOO_MANY_CALLS] = "too_many_calls",
    [DSML_TOO_LONG] = "too_long",
};

const char *dsml_code_name(enum dsml_code code)
{
    return code < DSML_N_CODES ? code_names[code] : "unknown";
}

struct parser {
    struct str text;
    size_t at;
    struct dsml_message *out;
    uint32_t cap_calls;
    struct err *err;
};

/* Which mark ended the reading. */
enum stop { STOP_NONE, STOP_FIRST, STOP_SECOND };

/* The text up to the earliest of two marks, or the rest; moves past the mark. */
static enum stop read_to(struct parser *p, struct str first, struct str second, struct str *before)
{
    size_t a = str_find(p->text, first, p->at);
    size_t b = second.n ? str_find(p->text, second, p->at) : STR_NONE;
    size_t end = a < b ? a : b;
    if (end == STR_NONE) {
        *before = str_sub(p->text, p->at, SIZE_MAX);
        p->at = p->text.n;
        return STOP_NONE;
    }
    *before = str_sub(p->text, p->at, end - p->at);
    p->at = end + (a < b ? first.n : second.n);
    return a < b ? STOP_FIRST : STOP_SECOND;
}

static int refuse(struct parser *p, enum dsml_code code, const char *why)
{
    p->out->code = code;
    return err_set(p->err, ERR_PARSE, "byte %zu: %s", p->at, why);
}

static bool strip_front(struct str *s, struct str prefix)
{
    if (!str_starts(*s, prefix))
        return false;
    *s = str_sub(*s, prefix.n, SIZE_MAX);
    return true;
}

static bool strip_back(struct str *s, struct str suffix)
{
    if (!str_ends(*s, suffix))
        return false;
    s->n -= suffix.n;
    return true;
}

/* White space as the reference's regular expressions understand it. */
static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0
           || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029
           || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* optional space, name="NAME">, a newline, optionally one more */
static bool read_name(struct str s, struct str *name)
{
    uint32_t c = 0;
    for (size_t n; (n = utf8_decode(s, 0, &c)) > 0 && is_space(c);)
        s = str_sub(s, n, SIZE_MAX);
    if (!strip_front(&s, STR("name=\"")))
        return false;
    *name = s;
    return strip_back(name, STR("\">\n\n")) || strip_back(name, STR("\">\n"));
}

struct parameter {
    struct str key, value;
    bool string;
};

/* ` name="KEY" string="true|false">VALUE<`, a newline tolerated behind it */
static bool read_parameter(struct str s, struct parameter *out)
{
    if (!strip_front(&s, STR(" name=\"")))
        return false;
    size_t yes = str_find(s, STR("\" string=\"true\">"), 0);
    size_t no = str_find(s, STR("\" string=\"false\">"), 0);
    size_t at = yes < no ? yes : no;
    if (at == STR_NONE)
        return false;
    out->string = yes < no;
    out->key = str_sub(s, 0, at);
    out->value = str_sub(s, at + (out->string ? 16 : 17), SIZE_MAX);
    return strip_back(&out->value, STR("<\n")) || strip_back(&out->value, STR("<"));
}

/* The parameters behind an invoke opener, as JSON text into `json`. */
static int parse_parameters(struct parser *p, enum stop stop, struct buf *json)
{
    struct str keys[LIMIT_PARAMS_PER_CALL], before;
    uint32_t n = 0;
    while (stop == STOP_FIRST) {
        struct parameter x;
        read_to(p, STR("/" LIT_TEXT_DSML "parameter"), STR(""), &before);
        if (!read_parameter(before, &x))
            return refuse(p, DSML_PARAMETER_FORMAT, "malformed parameter");
        for (uint32_t i = 0; i < n; i++)
            if (str_eq(keys[i], x.key))
                return refuse(p, DSML_PARAMETER_DUPLICATE, "the parameter was given before");
        if (n == LIMIT_PARAMS_PER_CALL)
            return err_set(p->err, ERR_LIMIT, "more than %d parameters in one call", (int)n);
        keys[n++] = x.key;
        buf_puts(json, n > 1 ? ", " : "");
        jsontext_quote(json, x.key);
        buf_puts(json, ": ");
        if (x.string)
            jsontext_quote(json, x.value);
        else
            buf_str(json, x.value);
        stop = read_to(p, STR(DSML_PARAM), STR("</" LIT_TEXT_DSML "invoke"), &before);
        if (!str_is(before, ">\n"))
            return refuse(p, DSML_PARAMETER_FORMAT, "text behind a parameter");
    }
    return 0;
}

static int push_call(struct parser *p, struct str name, const struct buf *json)
{
    struct dsml_message *m = p->out;
    int rc = buf_check(json, "arguments", p->err);
    if (rc < 0)
        return rc;
    if (m->n_calls == p->cap_calls) {
        uint32_t cap = p->cap_calls ? p->cap_calls * 2 : 8;
        struct dsml_call *more = arena_alloc(&m->arena, cap * sizeof(*more));
        if (!more)
            return err_nomem(p->err);
        if (m->n_calls)
            memcpy(more, m->calls, m->n_calls * sizeof(*more));
        m->calls = more;
        p->cap_calls = cap;
    }
    char *copy = arena_strdup(&m->arena, buf_view(json));
    if (!copy)
        return err_nomem(p->err);
    m->calls[m->n_calls++] =
        (struct dsml_call){.name = name, .arguments = str_of(copy, json->len)};
    return 0;
}

static int parse_invoke(struct parser *p)
{
    struct str before, name;
    enum stop stop = read_to(p, STR(DSML_PARAM), STR("</" LIT_TEXT_DSML "invoke"), &before);
    if (!read_name(before, &name))
        return refuse(p, DSML_INVOKE_FORMAT, "malformed invoke tag");
    struct buf json;
    buf_init(&json, 0);
    buf_putc(&json, '{');
    int rc = parse_parameters(p, stop, &json);
    buf_putc(&json, '}');
    if (rc == 0)
        rc = push_call(p, name, &json);
    buf_done(&json);
    return rc;
}

static int parse_block(struct parser *p)
{
    while (p->at < p->text.n) {
        struct str before;
        enum stop stop = read_to(p, STR(DSML_INVOKE), STR(DSML_END_BLOCK), &before);
        if (!str_is(before, ">\n"))
            return refuse(p, DSML_BLOCK_FORMAT, "text between the calls of a block");
        if (stop == STOP_SECOND)
            break;
        if (stop == STOP_NONE)
            return refuse(p, DSML_BLOCK_UNTERMINATED, "the block has no end");
        int rc = parse_invoke(p);
        if (rc < 0)
            return rc;
    }
    struct str before;
    read_to(p, STR(LIT_TEXT_EOS), STR(""), &before);
    return before.n ? refuse(p, DSML_TEXT_AFTER_CALLS, "text behind the block of calls") : 0;
}

static bool has_marker(struct str s)
{
    static const enum literal never[] = {LIT_BOS, LIT_EOS, LIT_THINK, LIT_ENDTHINK, LIT_DSML};
    for (unsigned i = 0; i < ARRAY_LEN(never); i++)
        if (str_find(s, literal_text(never[i]), 0) != STR_NONE)
            return true;
    return false;
}

static int parse(struct parser *p, bool thinking)
{
    struct dsml_message *m = p->out;
    if (thinking && read_to(p, STR(LIT_TEXT_ENDTHINK), STR(OPEN), &m->reasoning) != STOP_FIRST)
        return refuse(p, DSML_THINKING_UNTERMINATED, "the reasoning has no end");
    enum stop stop = read_to(p, STR(LIT_TEXT_EOS), STR(OPEN), &m->content);
    if (stop == STOP_NONE)
        return refuse(p, DSML_ANSWER_UNTERMINATED, "the answer has no end");
    int rc = stop == STOP_SECOND ? parse_block(p) : 0;
    if (rc < 0)
        return rc;
    if (p->at < p->text.n)
        return refuse(p, DSML_TEXT_AFTER_END, "text behind the end");
    if (has_marker(m->content) || has_marker(m->reasoning))
        return refuse(p, DSML_SPECIAL_TOKEN_IN_TEXT, "a marker inside reasoning or answer");
    return 0;
}

int dsml_parse(struct dsml_message *m, struct str text, bool thinking, struct err *err)
{
    memset(m, 0, sizeof(*m));
    arena_init(&m->arena, 0);
    struct parser p = {.text = text, .out = m, .err = err};
    return parse(&p, thinking);
}

void dsml_message_done(struct dsml_message *m)
{
    arena_done(&m->arena);
    memset(m, 0, sizeof(*m));
}
