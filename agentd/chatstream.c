/* chatstream.c - server-sent events, and the chat completion chunks in them. */
#include "agentd/chatstream.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"
#include "base/mem.h"

enum { MAX_CALLS = LIMIT_CALLS_PER_MESSAGE, PLAIN_MAX = 4 << 20, ID_MAX = 128 };

struct slot { /* one call of the message */
    int64_t index;    /* as the server counts */
    char id[ID_MAX];  /* as it first said; "" = it did not */
    bool named;
};

struct chatstream {
    struct chatstream_cbs cbs;
    enum chatstream_state state;
    struct chatstream_facts facts;
    struct buf line;  /* bytes of an unfinished line */
    struct buf event; /* data lines that are no JSON yet */
    struct buf plain; /* lines that belong to no event */
    uint32_t pieces, max_pieces, events;
    struct slot slot[MAX_CALLS];
    uint32_t n_slots;
    char problem[400];
};

int chatstream_new(struct chatstream **out, const struct chatstream_cbs *cbs,
                   uint32_t max_pieces, struct err *err)
{
    struct chatstream *cs = mem_zalloc(sizeof *cs);
    if (!cs)
        return err_nomem(err);
    cs->cbs = *cbs;
    cs->max_pieces = max_pieces;
    buf_init(&cs->line, LIMIT_LINE_BYTES);
    buf_init(&cs->event, LIMIT_LINE_BYTES);
    buf_init(&cs->plain, PLAIN_MAX);
    *out = cs;
    return 0;
}

void chatstream_free(struct chatstream *cs)
{
    if (!cs)
        return;
    buf_done(&cs->line);
    buf_done(&cs->event);
    buf_done(&cs->plain);
    mem_free(cs);
}

const char *chatstream_problem(const struct chatstream *cs)
{
    return cs->problem;
}

struct chatstream_facts chatstream_facts(const struct chatstream *cs)
{
    struct chatstream_facts f = cs->facts;
    if (!f.has_usage)
        f.completion = cs->pieces; /* a token or more each */
    return f;
}

static void broken(struct chatstream *cs, const char *what, struct str words)
{
    words = str_sub(words, 0, 200);
    words = str_sub(words, 0, utf8_complete(words));
    snprintf(cs->problem, sizeof cs->problem, "%s%s%.*s", what, words.n ? ": " : "",
             STR_ARG(words));
    cs->state = CHATSTREAM_BROKEN;
}

static void piece(struct chatstream *cs)
{
    cs->facts.shown = true;
    cs->pieces++;
    if (cs->max_pieces && cs->pieces > cs->max_pieces) {
        cs->facts.length = true;
        cs->state = CHATSTREAM_DONE;
    }
}

/* The call that a fragment belongs to; -1 when there are too many. */
static int64_t slot_of(struct chatstream *cs, int64_t index, struct str id)
{
    for (uint32_t i = cs->n_slots; i-- > 0;) {
        struct slot *s = &cs->slot[i];
        if (s->index != index)
            continue;
        if (id.n && s->id[0] && !str_is(str_sub(id, 0, ID_MAX - 1), s->id))
            continue; /* another call under the same index */
        if (id.n && !s->id[0])
            snprintf(s->id, sizeof s->id, "%.*s", STR_ARG(str_sub(id, 0, ID_MAX - 1)));
        return i;
    }
    if (cs->n_slots == MAX_CALLS)
        return -1;
    struct slot *s = &cs->slot[cs->n_slots];
    *s = (struct slot){.index = index};
    snprintf(s->id, sizeof s->id, "%.*s", STR_ARG(str_sub(id, 0, ID_MAX - 1)));
    return cs->n_slots++;
}

static void take_calls(struct chatstream *cs, const json_t *calls)
{
    size_t i;
    json_t *c;
    struct buf whole;
    json_array_foreach((json_t *)(uintptr_t)calls, i, c)
    {
        json_t *f = json_object_get(c, "function"), *at = json_object_get(c, "index");
        struct str name = json_view(json_object_get(f, "name"));
        const json_t *args = json_object_get(f, "arguments");
        struct err ignored;
        int64_t n = slot_of(cs, json_is_integer(at) ? json_integer_value(at) : (int64_t)i,
                            json_view(json_object_get(c, "id")));
        if (n < 0) {
            broken(cs, "the message has too many calls", (struct str){0});
            return;
        }
        if (cs->slot[n].named)
            name = (struct str){0}; /* some repeat it with every piece */
        cs->slot[n].named |= name.n > 0;
        buf_init(&whole, LIMIT_ARGUMENTS_BYTES);
        if (json_is_object(args)) /* some send the object itself */
            (void)!json_write(args, &whole, &ignored);
        else
            buf_str(&whole, json_view(args));
        if (cs->cbs.call)
            cs->cbs.call(cs->cbs.arg, (uint32_t)n, name, buf_view(&whole));
        buf_done(&whole);
        piece(cs);
    }
}

static uint32_t count(const json_t *o, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(o, key));
    return v < 0 ? 0 : v > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)v;
}

static void take_usage(struct chatstream *cs, const json_t *u)
{
    const json_t *details = json_object_get(u, "prompt_tokens_details");
    cs->facts.has_usage = true;
    cs->facts.prompt = count(u, "prompt_tokens");
    cs->facts.completion = count(u, "completion_tokens");
    cs->facts.cached = count(u, "prompt_cache_hit_tokens");
    if (!cs->facts.cached)
        cs->facts.cached = count(details, "cached_tokens");
    if (cs->facts.cached > cs->facts.prompt)
        cs->facts.cached = cs->facts.prompt;
    if (!cs->facts.completion)
        cs->facts.completion = cs->pieces;
}

/* {"error": {"message"}}, {"error": "..."} or {"error": anything}. */
static void take_error(struct chatstream *cs, const json_t *error)
{
    struct str words = json_view(json_is_string(error) ? error
                                                       : json_object_get(error, "message"));
    broken(cs, "the server reports an error", words);
}

static void take_delta(struct chatstream *cs, const json_t *delta)
{
    struct str thought = json_view(json_object_get(delta, "reasoning_content"));
    struct str text = json_view(json_object_get(delta, "content"));
    if (!thought.n)
        thought = json_view(json_object_get(delta, "reasoning"));
    if (thought.n) {
        if (cs->cbs.thinking)
            cs->cbs.thinking(cs->cbs.arg, thought);
        piece(cs);
    }
    if (text.n) {
        if (cs->cbs.text)
            cs->cbs.text(cs->cbs.arg, text);
        piece(cs);
    }
    take_calls(cs, json_object_get(delta, "tool_calls"));
}

static void take_chunk(struct chatstream *cs, const json_t *v)
{
    const json_t *error = json_object_get(v, "error"), *usage = json_object_get(v, "usage");
    const json_t *choice = json_array_get(json_object_get(v, "choices"), 0);
    const json_t *delta = json_object_get(choice, "delta");
    struct str finish = json_view(json_object_get(choice, "finish_reason"));
    if (error && !json_is_null(error)) {
        take_error(cs, error);
        return;
    }
    if (json_is_object(usage))
        take_usage(cs, usage);
    if (cs->state == CHATSTREAM_OPEN) /* behind its end a message does not grow */
        take_delta(cs, delta ? delta : json_object_get(choice, "message"));
    if (finish.n && cs->state == CHATSTREAM_OPEN) {
        cs->facts.length = str_is(finish, "length");
        cs->state = CHATSTREAM_ENDED;
    }
}

/* One data line. A JSON text that does not end on it goes on with the next. */
static void take_data(struct chatstream *cs, struct str data)
{
    struct err err;
    json_t *v = NULL;
    cs->events++;
    if (str_is(data, "[DONE]") && !cs->event.len) {
        cs->state = CHATSTREAM_DONE;
        return;
    }
    if (cs->event.len) {
        buf_putc(&cs->event, '\n');
        buf_str(&cs->event, data);
        data = buf_view(&cs->event);
    }
    if (json_read(&v, data, &err) == 0) {
        if (json_is_object(v))
            take_chunk(cs, v);
        json_decref(v);
        buf_reset(&cs->event);
    } else if (!cs->event.len) {
        buf_str(&cs->event, data);
    } else if (cs->event.failed) {
        broken(cs, "an event is too long", (struct str){0});
    }
}

static void take_line(struct chatstream *cs, struct str line)
{
    static const char *const others[] = {":", "event:", "id:", "retry:"};
    if (line.n && line.p[line.n - 1] == '\r')
        line.n--;
    if (str_starts(line, STR("data:"))) {
        line = str_sub(line, 5, SIZE_MAX);
        take_data(cs, str_trim(line));
        return;
    }
    if (str_trim(line).n == 0) { /* the end of an event */
        if (cs->event.len)
            broken(cs, "unreadable event", buf_view(&cs->event));
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(others); i++)
        if (str_starts(line, str_c(others[i])))
            return;
    buf_str(&cs->plain, line);
    buf_putc(&cs->plain, '\n');
}

enum chatstream_state chatstream_feed(struct chatstream *cs, struct str bytes)
{
    while (bytes.n && cs->state < CHATSTREAM_DONE) {
        const char *nl = memchr(bytes.p, '\n', bytes.n);
        size_t n = nl ? (size_t)(nl - bytes.p) : bytes.n;
        buf_add(&cs->line, bytes.p, n);
        if (cs->line.failed) {
            broken(cs, "a line is too long", (struct str){0});
            break;
        }
        bytes = str_sub(bytes, nl ? n + 1 : n, SIZE_MAX);
        if (!nl)
            break;
        take_line(cs, buf_view(&cs->line));
        buf_reset(&cs->line);
    }
    return cs->state;
}

/* No event came: a completion in one piece, an error, or something else altogether. */
static void take_plain(struct chatstream *cs, const char *type)
{
    struct err err;
    json_t *v = NULL;
    char what[160];
    struct str text = str_trim(buf_view(&cs->plain));
    if (!cs->plain.failed && json_read(&v, text, &err) == 0 && json_is_object(v))
        take_chunk(cs, v);
    json_decref(v);
    if (cs->state != CHATSTREAM_OPEN)
        return;
    snprintf(what, sizeof what, "no event stream came but %.100s",
             type && *type ? type : "something else");
    broken(cs, what, text);
}

enum chatstream_state chatstream_finish(struct chatstream *cs, const char *type)
{
    if (cs->state < CHATSTREAM_DONE && cs->line.len) {
        take_line(cs, buf_view(&cs->line));
        buf_reset(&cs->line);
    }
    if (cs->state == CHATSTREAM_OPEN && !cs->events && str_trim(buf_view(&cs->plain)).n)
        take_plain(cs, type);
    if (cs->state == CHATSTREAM_OPEN ||
        (cs->state == CHATSTREAM_DONE && !cs->facts.shown && !cs->facts.has_usage))
        broken(cs, "the stream ended before its end mark", (struct str){0});
    else if (cs->state == CHATSTREAM_ENDED)
        cs->state = CHATSTREAM_DONE;
    return cs->state;
}
