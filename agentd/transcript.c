/*
 * transcript.c - events become messages.
 *
 * session_apply() is the only writer of a transcript, at load and while running, so that a
 * restarted daemon sees exactly what the running one saw. session_cut() lets go of what the
 * prompt holds as tokens already.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/session.h"
#include "base/limits.h"
#include "base/mem.h"

static struct str copy(struct session *s, struct str text)
{
    return str_of(arena_strdup(&s->arena, text), text.n);
}

static struct message *add(struct session *s, enum prompt_role role, struct str turn,
                           struct str item, int64_t step)
{
    if (s->n_msgs == s->cap_msgs) {
        uint32_t cap = s->cap_msgs ? 2 * s->cap_msgs : 32;
        struct message *p = mem_resize(s->msg, cap, sizeof *p);
        if (!p)
            return NULL;
        s->msg = p;
        s->cap_msgs = cap;
    }
    struct message *m = &s->msg[s->n_msgs];
    *m = (struct message){.role = role, .step = step};
    m->id = arena_strdup(&s->arena, item);
    m->turn = arena_strdup(&s->arena, turn);
    if (!m->id || !m->turn)
        return NULL;
    s->n_msgs++;
    return m;
}

uint64_t session_engine(struct str fingerprint)
{
    uint64_t h = fingerprint.n ? 0xcbf29ce484222325u : 0;
    for (size_t i = 0; i < fingerprint.n; i++)
        h = (h ^ (unsigned char)fingerprint.p[i]) * 0x100000001b3u;
    return h;
}

uint32_t session_replies(const struct session *s)
{
    uint32_t n = s->gone_replies;
    for (uint32_t i = 0; i < s->n_msgs; i++)
        n += s->msg[i].role == PROMPT_ASSISTANT;
    return n;
}

struct message *session_last_assistant(struct session *s)
{
    for (uint32_t i = s->n_msgs; i-- > 0;)
        if (s->msg[i].role == PROMPT_ASSISTANT)
            return &s->msg[i];
    return NULL;
}

struct call_record *session_call(struct session *s, const char *call_id)
{
    struct message *m = session_last_assistant(s);
    for (uint32_t i = 0; m && i < m->n_calls; i++)
        if (strcmp(m->calls[i].id, call_id) == 0)
            return &m->calls[i];
    return NULL;
}

unsigned session_unanswered(struct session *s)
{
    struct message *m = session_last_assistant(s);
    unsigned n = 0;
    for (uint32_t i = 0; m && i < m->n_calls; i++)
        n += !m->calls[i].answered;
    return n;
}

/* The assistant message of this step: all its items make one message. */
static struct message *assistant(struct session *s, struct str turn, struct str item,
                                 int64_t step)
{
    struct message *m = s->n_msgs ? &s->msg[s->n_msgs - 1] : NULL;
    if (m && m->role == PROMPT_ASSISTANT && m->step == step && str_is(turn, m->turn))
        return m;
    return add(s, PROMPT_ASSISTANT, turn, item, step);
}

static int add_call(struct session *s, struct message *m, const json_t *data, struct err *err)
{
    if (m->n_calls == LIMIT_CALLS_PER_MESSAGE)
        return err_set(err, ERR_LIMIT, "more than %d calls in one message",
                       LIMIT_CALLS_PER_MESSAGE);
    if ((m->n_calls & (m->n_calls - 1)) == 0) { /* 0 and powers of two: full */
        struct call_record *more =
            arena_alloc(&s->arena, (m->n_calls ? 2 * m->n_calls : 1) * sizeof *more);
        if (!more)
            return err_nomem(err);
        if (m->n_calls)
            memcpy(more, m->calls, m->n_calls * sizeof *more);
        m->calls = more;
    }
    struct call_record *c = &m->calls[m->n_calls];
    struct str fault = json_view(json_object_get(data, "fault"));
    c->id = arena_strdup(&s->arena, json_view(json_object_get(data, "callId")));
    c->name = arena_strdup(&s->arena, json_view(json_object_get(data, "name")));
    c->arguments = arena_strdup(&s->arena, json_view(json_object_get(data, "arguments")));
    c->fault = fault.n ? arena_strdup(&s->arena, fault) : NULL;
    if (!c->id || !c->name || !c->arguments)
        return err_nomem(err);
    m->n_calls++;
    return 0;
}

/* Adds a paragraph to a text of the transcript. */
static int join(struct session *s, struct str *text, struct str more, struct err *err)
{
    size_t n = text->n + 2 + more.n;
    char *p = arena_alloc(&s->arena, n + 1);
    if (!p)
        return err_nomem(err);
    memcpy(p, text->p, text->n);
    memcpy(p + text->n, "\n\n", 2);
    memcpy(p + text->n + 2, more.p, more.n);
    *text = str_of(p, n);
    return 0;
}

/* A notice rides at the end of the newest result (or, without one, of the user's text). */
static int add_notice(struct session *s, struct str text, struct err *err)
{
    struct message *m = NULL;
    for (uint32_t i = s->n_msgs; !m && i-- > 0;)
        if (s->msg[i].role == PROMPT_TOOL || s->msg[i].role == PROMPT_USER)
            m = &s->msg[i];
    if (!m)
        return err_set(err, ERR_CORRUPT, "a notice without a message to ride in");
    return join(s, &m->content, text, err);
}

/* Calls side by side end in any order; what the model reads has the order of the calls. */
static void sort_result(struct session *s, const struct call_record *mine)
{
    for (uint32_t i = s->n_msgs - 1; i > 0 && s->msg[i - 1].role == PROMPT_TOOL; i--) {
        if (session_call(s, s->msg[i - 1].call_id) < mine)
            break;
        struct message m = s->msg[i];
        s->msg[i] = s->msg[i - 1];
        s->msg[i - 1] = m;
    }
}

/* By its result; an unknown one comes from a daemon that is no more. */
static bool ran_in_cell(const json_t *result)
{
    struct str level = json_view(json_object_get(result, "sandbox"));
    return str_is(json_view(json_object_get(result, "status")), "unknown") ||
           (level.n && !str_is(level, "daemon"));
}

static int apply_item(struct session *s, struct str turn, struct str item, const json_t *data,
                      struct err *err)
{
    struct str kind = json_view(json_object_get(data, "kind"));
    struct str text = json_view(json_object_get(data, "text"));
    int64_t step = json_integer_value(json_object_get(data, "step"));
    struct message *m;
    if (json_is_true(json_object_get(data, "lost")))
        return 0; /* shown before its step failed; whoever tries again begins anew */
    if (str_is(kind, "notice")) {
        buf_reset(&s->steers);
        return add_notice(s, text, err);
    }
    if (str_is(kind, "steer")) {
        int rc = json_write(data, &s->steers, err);
        buf_putc(&s->steers, '\n');
        return rc;
    }
    if (str_is(kind, "user") || str_is(kind, "result"))
        m = add(s, str_is(kind, "user") ? PROMPT_USER : PROMPT_TOOL, turn, item, step);
    else
        m = assistant(s, turn, item, step);
    if (!m)
        return err_nomem(err);
    if (str_is(kind, "call"))
        return add_call(s, m, data, err);
    text = copy(s, text);
    if (!text.p)
        return err_nomem(err);
    if (str_is(kind, "reasoning"))
        m->reasoning = text;
    else
        m->content = text;
    if (str_is(kind, "user"))
        buf_reset(&s->steers);
    if (!str_is(kind, "result"))
        return 0;
    m->call_id = arena_strdup(&s->arena, json_view(json_object_get(data, "callId")));
    struct call_record *c = m->call_id ? session_call(s, m->call_id) : NULL;
    if (!c)
        return err_set(err, ERR_CORRUPT, "a result without its call");
    c->answered = true;
    c->in_cell = ran_in_cell(data);
    sort_result(s, c);
    return 0;
}

static int apply_sample(struct session *s, struct str turn, const json_t *data,
                        const struct tokens *ids, struct str bytes, struct err *err)
{
    if (!ids->n)
        return 0;
    struct message *m = assistant(s, turn, (struct str){"", 0},
                                  json_integer_value(json_object_get(data, "step")));
    int32_t *own = m ? arena_alloc(&s->arena, ids->n * sizeof *own) : NULL;
    struct str text = copy(s, bytes);
    if (!own || !text.p)
        return err_nomem(err);
    memcpy(own, ids->id, ids->n * sizeof *own);
    m->sampled = (struct prompt_sampled){
        .bytes = text,
        .ids = own,
        .n_ids = ids->n,
        .think_bytes = (size_t)json_integer_value(json_object_get(data, "thinkBytes")),
        .think_ids = (uint32_t)json_integer_value(json_object_get(data, "thinkTokens")),
        .think_open = json_is_true(json_object_get(data, "thinkOpen")),
    };
    m->sampled_by = session_engine(json_view(json_object_get(data, "model")));
    if (m->sampled.think_bytes > text.n || m->sampled.think_ids > ids->n)
        return err_set(err, ERR_CORRUPT, "a sample with more reasoning than bytes");
    return 0;
}

static int apply_reset(struct session *s, const json_t *data, struct err *err)
{
    size_t i;
    json_t *id;
    json_array_foreach(json_object_get(data, "removed"), i, id)
        for (uint32_t k = 0; k < s->n_msgs; k++)
            if (str_is(json_view(id), s->msg[k].id))
                s->msg[k].removed = true;
    if (s->context.valid == CONTEXT_WHOLE) /* what goes stood behind the newest user message */
        s->context.valid = CONTEXT_BASE;
    struct str note = json_view(json_object_get(data, "note"));
    for (uint32_t k = s->n_msgs; note.n && k-- > 0;)
        if (s->msg[k].role == PROMPT_USER)
            return join(s, &s->msg[k].content, note, err);
    return 0;
}

int session_apply(struct session *s, struct str type, struct str turn, struct str item,
                  const json_t *data, const struct tokens *ids, struct str bytes,
                  struct err *err)
{
    if (str_is(type, "item.completed"))
        return apply_item(s, turn, item, data, err);
    if (str_is(type, "usage"))
        return apply_sample(s, turn, data, ids, bytes, err);
    if (str_is(type, "context.reset"))
        return apply_reset(s, data, err);
    if (str_is(type, "tool.started")) {
        struct call_record *c =
            session_call(s, json_string_value(json_object_get(data, "callId")));
        if (c)
            c->started = c->in_cell = true;
    } else if (str_is(type, "turn.started")) {
        snprintf(s->last_turn, sizeof s->last_turn, "%.*s", STR_ARG(turn));
        s->last_turn_open = true;
    } else if (str_is(type, "turn.completed") || str_is(type, "turn.failed")) {
        s->last_turn_open = false;
    } else if (str_is(type, "session.closed")) {
        s->closed = true;
    }
    return 0;
}

/* --- letting go --------------------------------------------------------------------------- */

/* Copies a text, or a text that ends in NUL, to another arena; an absent one stays absent. */
static bool move(struct arena *to, struct str *text)
{
    const char *p = text->p ? arena_strdup(to, *text) : NULL;
    bool done = p || !text->p;
    text->p = p;
    return done;
}

static bool move_name(struct arena *to, char **name)
{
    char *p = *name ? arena_strdup(to, str_c(*name)) : NULL;
    bool done = p || !*name;
    *name = p;
    return done;
}

static bool move_message(struct arena *to, struct message *m)
{
    struct prompt_sampled *w = &m->sampled;
    bool done = move_name(to, &m->id) && move_name(to, &m->turn) && move_name(to, &m->call_id) &&
                move(to, &m->content) && move(to, &m->reasoning) && move(to, &w->bytes);
    if (done && w->ids) {
        struct str ids = str_of(w->ids, w->n_ids * sizeof *w->ids);
        done = move(to, &ids);
        w->ids = (const int32_t *)(const void *)ids.p;
    }
    if (!done || !m->calls)
        return done;
    /* room for the next power of two, as add_call() expects */
    struct call_record *calls = arena_alloc(to, 2 * m->n_calls * sizeof *calls);
    if (!calls)
        return false;
    memcpy(calls, m->calls, m->n_calls * sizeof *calls);
    m->calls = calls;
    for (uint32_t i = 0; done && i < m->n_calls; i++)
        done = move_name(to, &calls[i].id) && move_name(to, &calls[i].name) &&
               move_name(to, &calls[i].arguments) && move_name(to, &calls[i].fault);
    return done;
}

void session_cut(struct session *s, uint32_t n)
{
    struct arena fresh;
    uint32_t left = s->n_msgs - n;
    struct message *msg = n ? mem_array(left + 8, sizeof *msg) : NULL;
    bool done = msg != NULL;
    arena_init(&fresh, 0);
    for (uint32_t i = 0; done && i < left; i++) {
        msg[i] = s->msg[n + i];
        done = move_message(&fresh, &msg[i]);
    }
    if (!done) {
        arena_done(&fresh);
        mem_free(msg);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        s->gone_replies += s->msg[i].role == PROMPT_ASSISTANT;
    s->n_gone += n;
    arena_done(&s->arena);
    mem_free(s->msg);
    s->arena = fresh;
    s->msg = msg;
    s->n_msgs = left;
    s->cap_msgs = left + 8;
}
