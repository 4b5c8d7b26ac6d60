/*
 * transcript.c - events become messages, messages become prompts.
 *
 * session_apply() is the only writer of a transcript, at load and while running, so that a
 * restarted daemon sees exactly what the running one saw.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/session.h"
#include "agentd/toolrun.h"
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
    if (!m->calls)
        m->calls = arena_alloc(&s->arena, LIMIT_CALLS_PER_MESSAGE * sizeof *m->calls);
    if (!m->calls)
        return err_nomem(err);
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

/* A notice rides at the end of the newest result (or, without one, of the user's text). */
static int add_notice(struct session *s, struct str text, struct err *err)
{
    struct message *m = NULL;
    for (uint32_t i = s->n_msgs; !m && i-- > 0;)
        if (s->msg[i].role == PROMPT_TOOL || s->msg[i].role == PROMPT_USER)
            m = &s->msg[i];
    if (!m)
        return err_set(err, ERR_CORRUPT, "a notice without a message to ride in");
    char *p = arena_alloc(&s->arena, m->content.n + text.n + 3);
    if (!p)
        return err_nomem(err);
    int n = snprintf(p, m->content.n + text.n + 3, "%.*s\n\n%.*s", STR_ARG(m->content),
                     STR_ARG(text));
    m->content = str_of(p, (size_t)n);
    return 0;
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

static int apply_item(struct session *s, struct str turn, struct str item, const json_t *data,
                      struct err *err)
{
    struct str kind = json_view(json_object_get(data, "kind"));
    struct str text = json_view(json_object_get(data, "text"));
    int64_t step = json_integer_value(json_object_get(data, "step"));
    struct message *m;
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
    s->ctx_valid = false;
    struct str note = json_view(json_object_get(data, "note"));
    if (!note.n)
        return 0;
    for (uint32_t k = s->n_msgs; k-- > 0;)
        if (s->msg[k].role == PROMPT_USER) {
            struct buf b;
            buf_init(&b, LIMIT_LINE_BYTES);
            buf_str(&b, s->msg[k].content);
            buf_puts(&b, "\n\n");
            buf_str(&b, note);
            s->msg[k].content = copy(s, buf_view(&b));
            int rc = s->msg[k].content.p ? buf_check(&b, "note", err) : err_nomem(err);
            buf_done(&b);
            return rc;
        }
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
            c->started = true;
    } else if (str_is(type, "turn.started")) {
        s->last_turn = arena_strdup(&s->arena, turn);
        s->last_turn_open = true;
        return s->last_turn ? 0 : err_nomem(err);
    } else if (str_is(type, "turn.completed") || str_is(type, "turn.failed")) {
        s->last_turn_open = false;
    } else if (str_is(type, "session.closed")) {
        s->closed = true;
    }
    return 0;
}

/* --- prompts ---------------------------------------------------------------------------- */

struct view {
    struct prompt_msg *msg; /* owned */
    struct prompt_call *calls;
    uint32_t n;
};

static void view_done(struct view *v)
{
    mem_free(v->msg);
    mem_free(v->calls);
}

/* The transcript as the encoder wants it: system first, what was removed left out. */
static int view_of(struct view *v, struct session *s, uint32_t extra, struct err *err)
{
    uint32_t n_calls = 0;
    memset(v, 0, sizeof *v);
    for (uint32_t i = 0; i < s->n_msgs; i++)
        n_calls += s->msg[i].n_calls;
    v->msg = mem_array(s->n_msgs + 1 + extra, sizeof *v->msg);
    v->calls = mem_array(n_calls + 1, sizeof *v->calls);
    if (!v->msg || !v->calls)
        return err_nomem(err);
    if (*s->system || s->n_schemas)
        v->msg[v->n++] = (struct prompt_msg){.role = PROMPT_SYSTEM,
                                             .content = str_c(s->system),
                                             .tools = s->schema,
                                             .n_tools = s->n_schemas};
    n_calls = 0;
    for (uint32_t i = 0; i < s->n_msgs; i++) {
        const struct message *m = &s->msg[i];
        if (m->removed)
            continue;
        struct prompt_msg *p = &v->msg[v->n++];
        *p = (struct prompt_msg){.role = m->role, .content = m->content,
                                 .reasoning = m->reasoning, .sampled = m->sampled,
                                 .calls = &v->calls[n_calls], .n_calls = m->n_calls,
                                 .call_id = str_c(m->call_id)};
        for (uint32_t k = 0; k < m->n_calls; k++)
            v->calls[n_calls++] = (struct prompt_call){
                str_c(m->calls[k].id), str_c(m->calls[k].name),
                str_c(m->calls[k].fault ? "{}" : m->calls[k].arguments)};
    }
    return 0;
}

static struct prompt_opts opts_of(const struct session *s, uint32_t n_context)
{
    return (struct prompt_opts){.mode = s->thinking ? PROMPT_THINKING : PROMPT_CHAT,
                                .keep = s->keep,
                                .n_context = n_context,
                                .pair_by_id = true};
}

/* Appends the tokens of pieces [0, upto). */
static int tokenise(struct session *s, const struct prompt *p, uint32_t upto,
                    struct tokens *out, struct err *err)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < upto; i++) {
        const struct prompt_piece *piece = &p->piece[i];
        if (piece->ids)
            tokens_add(out, piece->ids, piece->n_ids);
        else
            rc = infer_tokenize(s->d->infer, str_sub(buf_view(&p->text), piece->at, piece->len),
                                piece->special, out, err);
    }
    return rc == 0 && out->failed ? err_nomem(err) : rc;
}

int session_render(struct session *s, struct err *err)
{
    struct view v;
    struct prompt p;
    int rc = view_of(&v, s, 0, err);
    if (rc < 0) {
        view_done(&v);
        return rc;
    }
    /* Only growth behind the last user message leaves the earlier text as it is. */
    bool grow = s->ctx_valid && s->ctx_msgs <= v.n;
    for (uint32_t i = s->ctx_msgs; grow && i < v.n; i++)
        grow = v.msg[i].role == PROMPT_ASSISTANT || v.msg[i].role == PROMPT_TOOL;
    if (!grow) {
        tokens_reset(&s->ctx);
        s->ctx_msgs = 0;
    }
    if (grow && s->ctx_msgs == v.n) {
        view_done(&v);
        return 0;
    }
    struct prompt_opts o = opts_of(s, s->ctx_msgs);
    rc = prompt_render(&p, v.msg, v.n, &o, err);
    if (rc == 0)
        rc = tokenise(s, &p, p.n_pieces, &s->ctx, err);
    s->ctx_valid = rc == 0;
    s->ctx_msgs = v.n;
    prompt_done(&p);
    view_done(&v);
    return rc;
}

int session_render_kept(struct session *s, struct tokens *out, struct err *err)
{
    struct view v;
    struct prompt p;
    int rc = view_of(&v, s, 1, err);
    if (rc == 0) {
        struct prompt_opts o = opts_of(s, 0);
        v.msg[v.n] = (struct prompt_msg){.role = PROMPT_USER, .content = STR("next")};
        rc = prompt_render(&p, v.msg, v.n + 1, &o, err);
        uint32_t upto = 0;
        while (rc == 0 && upto < p.n_pieces && p.piece[upto].msg != v.n)
            upto++;
        if (rc == 0)
            rc = tokenise(s, &p, upto, out, err);
        prompt_done(&p);
    }
    view_done(&v);
    return rc;
}

int session_render_list(struct session *s, const struct prompt_msg *msg, uint32_t n,
                        struct tokens *out, struct err *err)
{
    struct prompt p;
    struct prompt_opts o = {.mode = PROMPT_CHAT};
    int rc = prompt_render(&p, msg, n, &o, err);
    if (rc == 0)
        rc = tokenise(s, &p, p.n_pieces, out, err);
    prompt_done(&p);
    return rc;
}

int session_locate(struct session *s, uint32_t token, int64_t *message, struct err *err)
{
    struct view v;
    struct prompt p;
    struct tokens seen = {0};
    int rc = view_of(&v, s, 0, err);
    struct prompt_opts o = opts_of(s, 0);
    *message = -1;
    if (rc == 0) {
        rc = prompt_render(&p, v.msg, v.n, &o, err);
        for (uint32_t i = 0; rc == 0 && i < p.n_pieces && seen.n <= token; i++) {
            struct prompt one = p;
            one.piece = &p.piece[i];
            rc = tokenise(s, &one, 1, &seen, err);
            *message = (int64_t)p.piece[i].msg - (*s->system || s->n_schemas ? 1 : 0);
        }
        prompt_done(&p);
    }
    /* The view leaves removed messages out: count past them. */
    for (uint32_t i = 0; i < s->n_msgs && (int64_t)i <= *message; i++)
        *message += s->msg[i].removed;
    tokens_done(&seen);
    view_done(&v);
    return rc;
}

int session_render_text(struct session *s, struct buf *out, struct err *err)
{
    struct view v;
    struct prompt p;
    int rc = view_of(&v, s, 0, err);
    if (rc == 0) {
        struct prompt_opts o = opts_of(s, 0);
        rc = prompt_render(&p, v.msg, v.n, &o, err);
        if (rc == 0)
            buf_str(out, buf_view(&p.text));
        prompt_done(&p);
    }
    view_done(&v);
    return rc;
}

static json_t *message_json(const struct message *m, bool with_reasoning)
{
    json_t *o = json_object();
    json_object_set_new(o, "role", json_string(prompt_role_name(m->role)));
    json_object_set_new(o, "content", json_text(m->content.p ? m->content : STR("")));
    if (m->role == PROMPT_TOOL)
        json_object_set_new(o, "tool_call_id", json_string(m->call_id));
    if (m->role != PROMPT_ASSISTANT)
        return o;
    if (with_reasoning || m->n_calls)
        json_object_set_new(o, "reasoning_content",
                            json_text(with_reasoning && m->reasoning.p ? m->reasoning : STR("")));
    json_t *calls = m->n_calls ? json_array() : NULL;
    for (uint32_t i = 0; i < m->n_calls; i++)
        json_array_append_new(
            calls, json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", m->calls[i].id, "type", "function",
                             "function", "name", m->calls[i].name, "arguments",
                             m->calls[i].fault ? "{}" : m->calls[i].arguments));
    if (calls)
        json_object_set_new(o, "tool_calls", calls);
    return o;
}

json_t *session_messages(struct session *s)
{
    json_t *list = json_array();
    uint32_t last_user = 0;
    for (uint32_t i = 0; i < s->n_msgs; i++)
        if (s->msg[i].role == PROMPT_USER && !s->msg[i].removed)
            last_user = i;
    if (*s->system)
        json_array_append_new(list, json_pack("{s:s, s:s}", "role", "system", "content",
                                              s->system));
    for (uint32_t i = 0; i < s->n_msgs; i++) {
        bool keep = s->keep == PROMPT_KEEP_ALL || (s->keep == PROMPT_KEEP_V32 && i > last_user);
        if (!s->msg[i].removed)
            json_array_append_new(list, message_json(&s->msg[i], keep));
    }
    return list;
}
