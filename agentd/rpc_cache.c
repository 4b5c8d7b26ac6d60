/* rpc_cache.c - cache.explain: which token of the next prompt is computed no more, and why. */
#include <stdio.h>

#include "agentd/loop.h"
#include "agentd/rpc_in.h"
#include "base/limits.h"

static void on_tokens(void *arg, const int32_t *id, uint32_t n)
{
    struct rpc_wait *w = arg;
    tokens_add(&w->have, id, n);
}

static void text_of(struct infer *inf, const int32_t *id, uint32_t n, struct buf *out)
{
    buf_init(out, 4096);
    for (uint32_t i = 0; i < n && i < 8; i++)
        buf_str(out, infer_token_bytes(inf, id[i]));
}

/* In words: who wrote the first token that is not (or no longer) in the cache. */
static const char *cause(const struct session *s, int64_t message, bool differs)
{
    if (message < 0)
        return differs ? "the system text or the tools are not those of the cache"
                       : "nothing of this session is in the cache";
    const struct message *m = &s->msg[message < s->n_msgs ? message : s->n_msgs - 1];
    if (!differs)
        return "the rest of the prompt is new";
    if (m->role == PROMPT_ASSISTANT || m->role == PROMPT_TOOL)
        return "the reasoning of an earlier turn left the prompt when a user message came";
    return m->removed ? "a context reset took messages out" : "this message is not what was cached";
}

static void on_done(void *arg, const struct infer_result *r)
{
    struct rpc_wait *w = arg;
    struct session *s = NULL, *whole = NULL;
    struct infer *inf = w->d->infer;
    struct err err;
    struct buf want, have;
    int64_t message = -1;
    uint32_t at = r->cached;
    w->job = NULL;
    int rc = session_find(&s, w->d, str_c(w->session), &err);
    if (rc == 0)
        rc = session_render(s, &err); /* idle memory may have been given back meanwhile */
    if (rc == 0)
        rc = session_whole(&whole, s, &err);
    if (rc < 0) {
        rpc_reply_error(w->peer->conn, w->id, RPC_SESSION_NOT_FOUND, err.text, NULL, 0);
        rpc_wait_free(w);
        return;
    }
    bool differs = at < w->have.n && at < s->ctx.n;
    if (at < s->ctx.n && session_locate(whole, at, &message, &err) < 0)
        message = -1;
    text_of(inf, s->ctx.id + at, s->ctx.n - at, &want);
    text_of(inf, w->have.id + at, w->have.n > at ? w->have.n - at : 0, &have);
    json_t *o = json_pack("{s:i, s:i, s:i}", "tokens", (int)s->ctx.n, "cached", (int)at,
                          "timeline", (int)w->have.n);
    if (at < s->ctx.n) {
        const struct message *m =
            message >= 0 && message < whole->n_msgs ? &whole->msg[message] : NULL;
        json_object_set_new(o, "first",
                            json_pack("{s:i, s:o, s:o, s:s, s:s}", "position", (int)at, "prompt",
                                      json_text(buf_view(&want)), "cache",
                                      json_text(buf_view(&have)), "role",
                                      m ? prompt_role_name(m->role) : "system", "itemId",
                                      m ? m->id : ""));
        json_object_set_new(o, "cause", json_string(cause(whole, message, differs)));
    } else {
        json_object_set_new(o, "cause", json_string("the whole prompt is in the cache"));
    }
    buf_done(&want);
    buf_done(&have);
    session_whole_done(whole, s);
    rpc_reply(w->peer->conn, w->id, o);
    rpc_wait_free(w);
}

int rpc_cache_explain(struct rpc_call *c)
{
    struct session *s;
    struct err err;
    struct infer *inf = c->d->infer;
    if (rpc_session_at_rest(c, &s))
        return c->code;
    if (infer_state(inf) != INFER_READY || !infer_info(inf)->tokens)
        return rpc_fail(c, RPC_ENGINE_UNAVAILABLE, "this engine has no cache to look at");
    int rc = session_tools(s, &err);
    if (rc == 0)
        rc = session_render(s, &err);
    if (rc < 0)
        return rpc_fail(c, RPC_ENCODING_ERROR, "%s", err.text);
    struct rpc_wait *w = c->id ? rpc_wait_new(c) : NULL;
    if (!w)
        return c->code;
    snprintf(w->session, sizeof w->session, "%s", s->id);
    struct infer_request r = {.session = s->id, .ids = s->ctx.id, .n_ids = s->ctx.n, .peek = true};
    struct infer_cbs cbs = {.tokens = on_tokens, .done = on_done, .arg = w};
    if (infer_start(&w->job, inf, &r, &cbs, &err) < 0) {
        rpc_wait_free(w);
        c->deferred = false;
        return rpc_fail(c, RPC_OVERLOADED, "%s", err.text);
    }
    return 0;
}
