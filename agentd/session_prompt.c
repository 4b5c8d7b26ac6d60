/*
 * session_prompt.c - messages become prompts.
 *
 *   ctx:  | system, tools | turns that are over, no reasoning | newest user message, its turn |
 *         '---------------------- base ----------------------''------------ rest ------------'
 *
 * While a turn runs the rest only grows. With the next user message the rest loses its
 * reasoning, which is rendered once more (the texts in it keep their tokens), and all of it
 * becomes base. So a step costs what is new in it, a user message what the last turn holds;
 * nothing costs the length of the history but copying tokens to the engine.
 */
#include <string.h>

#include "agentd/session.h"
#include "agentd/toolrun.h"
#include "base/limits.h"
#include "base/mem.h"

enum { KNOWN_MIN = 48 }; /* bytes; a shorter text is tokenised sooner than it is found */

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

/* Ids that another model sampled mean nothing to this one: then the bytes are all there is. */
static struct prompt_sampled own_sample(const struct message *m, uint64_t engine)
{
    struct prompt_sampled w = m->sampled;
    if (m->sampled_by && engine && m->sampled_by != engine) {
        w.ids = NULL;
        w.n_ids = w.think_ids = 0;
    }
    return w;
}

/* The transcript as the encoder wants it: system first, what was removed left out. */
static int view_of(struct view *v, struct session *s, uint32_t extra, struct err *err)
{
    uint32_t n_calls = 0;
    uint64_t engine = infer_state(s->d->infer) == INFER_READY
                          ? session_engine(str_c(infer_info(s->d->infer)->fingerprint))
                          : 0;
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
                                 .reasoning = m->reasoning,
                                 .sampled = own_sample(m, engine),
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

/* --- the running context ------------------------------------------------------------------ */

/* The tail of a prompt while it is rendered: what is to stand behind the first `keep` tokens
 * of ctx. */
struct tail {
    struct tokens t;      /* owned */
    uint32_t keep, from;  /* tokens that stay; rendered messages that they hold */
    struct known *known;  /* owned; texts of the tail, `at` counted from its beginning */
    uint32_t n_known, cap_known;
    uint32_t user, user_at; /* the newest user message, and where it begins in the tail */
};

static const struct known *known_find(const struct context *c, uint32_t msg, uint32_t nth,
                                      size_t len)
{
    for (uint32_t i = 0; i < c->n_known; i++)
        if (c->known[i].msg == msg && c->known[i].nth == nth && c->known[i].len == len)
            return &c->known[i];
    return NULL;
}

/* Without memory the text is simply tokenised again when it is next needed. */
static void know(struct tail *l, uint32_t msg, uint32_t nth, size_t len, uint32_t at)
{
    if (l->n_known == l->cap_known) {
        uint32_t cap = l->cap_known ? 2 * l->cap_known : 16;
        struct known *p = mem_resize(l->known, cap, sizeof *p);
        if (!p)
            return;
        l->known = p;
        l->cap_known = cap;
    }
    l->known[l->n_known++] = (struct known){msg, nth, len, at, l->t.n - at};
}

/*
 * Tokens of pieces [0, upto): those the model wrote; those that this text of this message has
 * in ctx (messages only grow, so the same length is the same text); or new ones.
 */
static int tail_add(struct session *s, struct tail *l, const struct prompt *p, uint32_t upto,
                    struct err *err)
{
    int rc = 0;
    uint32_t nth = 0;
    for (uint32_t i = 0; rc == 0 && i < upto; i++) {
        const struct prompt_piece *piece = &p->piece[i];
        const struct known *k = NULL;
        uint32_t at = l->t.n;
        nth = i && p->piece[i - 1].msg == piece->msg ? nth + 1 : 0;
        if (piece->msg == l->user && l->user_at == UINT32_MAX)
            l->user_at = at;
        if (s->context.valid == CONTEXT_WHOLE && !piece->ids && piece->len >= KNOWN_MIN)
            k = known_find(&s->context, piece->msg, nth, piece->len);
        if (piece->ids)
            tokens_add(&l->t, piece->ids, piece->n_ids);
        else if (k)
            tokens_add(&l->t, s->ctx.id + k->at, k->n);
        else
            rc = infer_tokenize(s->d->infer, str_sub(buf_view(&p->text), piece->at, piece->len),
                                piece->special, &l->t, err);
        if (!piece->ids && piece->len >= KNOWN_MIN && !l->t.failed)
            know(l, piece->msg, nth, piece->len, at);
    }
    return rc == 0 && l->t.failed ? err_nomem(err) : rc;
}

static void tail_done(struct tail *l)
{
    tokens_done(&l->t);
    mem_free(l->known);
}

static uint32_t has_system(const struct session *s)
{
    return *s->system || s->n_schemas ? 1 : 0;
}

/* The tail becomes part of ctx. */
static int tail_take(struct session *s, struct tail *l, uint32_t n_msgs, struct err *err)
{
    struct context *c = &s->context;
    s->ctx.n = l->keep;
    tokens_add(&s->ctx, l->t.id, l->t.n);
    if (s->ctx.failed) {
        s->ctx.failed = false;
        c->valid = CONTEXT_NONE;
        return err_nomem(err);
    }
    if (l->user_at != UINT32_MAX) { /* a new base: what was known stands before it */
        c->base_tokens = l->keep + l->user_at;
        c->base_msgs = l->user;
        c->n_known = 0;
    } else if (c->valid != CONTEXT_WHOLE) {
        c->n_known = 0;
    }
    for (uint32_t i = 0; i < l->n_known; i++)
        l->known[i].at += l->keep;
    if (!c->n_known) {
        struct known *old = c->known;
        c->known = l->known;
        c->n_known = l->n_known;
        c->cap_known = l->cap_known;
        l->known = old;
    } else if (l->n_known) {
        uint32_t n = c->n_known + l->n_known;
        struct known *p = n > c->cap_known ? mem_resize(c->known, 2 * n, sizeof *p) : c->known;
        if (p) {
            c->cap_known = n > c->cap_known ? 2 * n : c->cap_known;
            c->known = p;
            memcpy(p + c->n_known, l->known, l->n_known * sizeof *p);
            c->n_known = n;
        }
    }
    c->msgs = n_msgs;
    c->valid = CONTEXT_WHOLE;
    return 0;
}

/* The messages before the newest user message are in ctx for good: they may go. */
static void cut(struct session *s)
{
    struct context *c = &s->context;
    uint32_t system = has_system(s), gone = 0, n_known = 0;
    if (c->base_msgs <= system)
        return;
    uint32_t shown = c->base_msgs - system; /* of the transcript, without what was removed */
    while (gone < s->n_msgs && (shown || s->msg[gone].removed))
        shown -= !s->msg[gone++].removed;
    uint32_t before = s->n_gone;
    session_cut(s, gone);
    if (s->n_gone == before)
        return;
    uint32_t shift = c->base_msgs - system;
    for (uint32_t i = 0; i < c->n_known; i++) {
        if (c->known[i].msg < c->base_msgs)
            continue;
        c->known[n_known] = c->known[i];
        c->known[n_known++].msg -= shift;
    }
    c->n_known = n_known;
    c->msgs -= shift;
    c->base_msgs = system;
}

static uint32_t newest_user(const struct view *v)
{
    uint32_t i = v->n;
    while (i > 0 && v->msg[i - 1].role != PROMPT_USER)
        i--;
    return i ? i - 1 : UINT32_MAX;
}

/* Behind what is rendered stand only replies and results: nothing before them changes. */
static bool only_grew(const struct session *s, const struct view *v)
{
    bool grew = s->context.valid == CONTEXT_WHOLE && s->context.msgs <= v->n;
    for (uint32_t i = s->context.msgs; grew && i < v->n; i++)
        grew = v->msg[i].role == PROMPT_ASSISTANT || v->msg[i].role == PROMPT_TOOL;
    return grew;
}

int session_render(struct session *s, struct err *err)
{
    struct view v = {0};
    struct prompt p = {0};
    struct tail l = {.user_at = UINT32_MAX};
    int rc = s->context.valid == CONTEXT_NONE && s->n_gone ? session_reload(s, err) : 0;
    if (rc == 0)
        rc = view_of(&v, s, 0, err);
    bool grew = rc == 0 && only_grew(s, &v);
    if (grew && s->context.msgs == v.n) {
        view_done(&v);
        return 0;
    }
    if (grew) {
        l.keep = s->ctx.n;
        l.from = s->context.msgs;
    } else if (s->context.valid != CONTEXT_NONE) {
        l.keep = s->context.base_tokens;
        l.from = s->context.base_msgs;
    }
    l.user = newest_user(&v);
    if (rc == 0) {
        struct prompt_opts o = opts_of(s, l.from);
        rc = prompt_render(&p, v.msg, v.n, &o, err);
    }
    if (rc == 0)
        rc = tail_add(s, &l, &p, p.n_pieces, err);
    if (rc == 0)
        rc = tail_take(s, &l, v.n, err);
    if (rc == 0)
        cut(s);
    tail_done(&l);
    prompt_done(&p);
    view_done(&v);
    return rc;
}

int session_render_kept(struct session *s, struct tokens *out, struct err *err)
{
    struct view v = {0};
    struct prompt p = {0};
    struct tail l = {.user = UINT32_MAX, .user_at = UINT32_MAX};
    int rc = s->context.valid == CONTEXT_NONE && s->n_gone ? session_reload(s, err) : 0;
    if (rc == 0)
        rc = view_of(&v, s, 1, err);
    if (rc == 0 && s->context.valid != CONTEXT_NONE) {
        l.keep = s->context.base_tokens;
        l.from = s->context.base_msgs;
    }
    if (rc == 0) {
        struct prompt_opts o = opts_of(s, l.from);
        v.msg[v.n] = (struct prompt_msg){.role = PROMPT_USER, .content = STR("next")};
        rc = prompt_render(&p, v.msg, v.n + 1, &o, err);
        uint32_t upto = 0;
        while (rc == 0 && upto < p.n_pieces && p.piece[upto].msg != v.n)
            upto++;
        if (rc == 0)
            rc = tail_add(s, &l, &p, upto, err);
    }
    tokens_add(out, s->ctx.id, l.keep);
    tokens_add(out, l.t.id, l.t.n);
    tail_done(&l);
    prompt_done(&p);
    view_done(&v);
    return rc == 0 && out->failed ? err_nomem(err) : rc;
}

/* --- prompts beside the context ----------------------------------------------------------- */

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
            *message = (int64_t)p.piece[i].msg - has_system(s);
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
