/* loop_gen.c - one step's generation: prompt out, tokens in, items and calls to the log. */
#include <stdio.h>
#include <string.h>

#include "agentd/crash.h"
#include "agentd/log.h"
#include "agentd/loop_in.h"
#include "base/io.h"

static const int64_t SECOND = 1000000000;

void gen_clear(struct turn *t)
{
    dsml_free(t->dsml);
    t->dsml = NULL;
    feed_item_close(t->live_think);
    feed_item_close(t->live_text);
    t->live_think = t->live_text = NULL;
    for (uint32_t i = 0; i < t->n_calls; i++) {
        feed_item_close(t->call[i].live);
        t->call[i].live = NULL;
    }
    buf_reset(&t->think);
    buf_reset(&t->text);
    buf_reset(&t->bytes);
    tokens_reset(&t->ids);
    t->think_bytes = 0;
    t->think_ids = 0;
    t->block_closed = false;
    t->n_calls = 0;
}

/* --- what the model says, as it says it --------------------------------------------------- */

static void grow(struct turn *t, struct buf *b, struct feed_item **live, char item[ID_TEXT],
                 const char *kind, struct str delta)
{
    if (!b->len && !*live) {
        id_new(item);
        *live = feed_item_open(t->s->d->feed, t->s->id, t->id, item, kind);
    }
    buf_str(b, delta);
    feed_item_add(*live, delta);
}

static void on_thinking(void *arg, struct str delta)
{
    struct turn *t = arg;
    grow(t, &t->think, &t->live_think, t->think_item, "reasoning", delta);
}

static void on_text(void *arg, struct str delta)
{
    struct turn *t = arg;
    grow(t, &t->text, &t->live_text, t->text_item, "text", delta);
}

static struct call *call_at(struct turn *t, uint32_t i)
{
    if (i >= LIMIT_CALLS_PER_MESSAGE)
        return NULL;
    while (t->n_calls <= i) {
        struct call *c = &t->call[t->n_calls++];
        c->state = CALL_NEW;
        c->approved = false;
        c->fault[0] = c->approval[0] = '\0';
        c->run = NULL;
        json_decref(c->questions);
        c->questions = NULL;
        buf_reset(&c->name);
        buf_reset(&c->args);
        id_new_call(c->id);
        id_new(c->item);
        id_new(c->result_item);
    }
    return &t->call[i];
}

static void on_call_start(void *arg, uint32_t i, struct str name)
{
    struct turn *t = arg;
    struct call *c = call_at(t, i);
    if (!c)
        return;
    buf_str(&c->name, name);
    c->live = feed_item_open(t->s->d->feed, t->s->id, t->id, c->item, "call");
}

static void on_call_delta(void *arg, uint32_t i, struct str delta)
{
    struct call *c = call_at(arg, i);
    if (c)
        feed_item_add(c->live, delta);
}

static void on_call_end(void *arg, uint32_t i, struct str name, struct str args)
{
    struct call *c = call_at(arg, i);
    if (!c)
        return;
    buf_reset(&c->name);
    buf_str(&c->name, name);
    buf_reset(&c->args);
    buf_str(&c->args, args);
}

static void on_fault(void *arg, int64_t i, enum dsml_code code, const char *sentence)
{
    struct turn *t = arg;
    /* A fault outside any call still needs a result to be told in: it becomes a call. */
    struct call *c = call_at(t, i < 0 ? t->n_calls : (uint32_t)i);
    if (!c)
        return;
    if (!c->name.len)
        buf_puts(&c->name, "unknown");
    snprintf(c->fault, sizeof c->fault, "%s", sentence ? sentence : dsml_code_name(code));
}

static void on_note(void *arg, const char *sentence)
{
    struct turn *t = arg;
    LOGI("loop", "turn=%s step=%lld repaired=\"%s\"", t->id, (long long)t->step, sentence);
}

static const struct dsml_events events = {
    .thinking = on_thinking,
    .text = on_text,
    .call_start = on_call_start,
    .call_delta = on_call_delta,
    .call_end = on_call_end,
    .fault = on_fault,
    .note = on_note,
};

/* --- the engine's callbacks ----------------------------------------------------------------- */

static void on_begin(void *arg, uint32_t prompt, uint32_t cached)
{
    struct turn *t = arg;
    struct err err;
    t->prompt_tokens += prompt;
    t->cached_tokens += cached;
    if (session_log(t->s, t->id, NULL, "step.started",
                    json_pack("{s:I, s:I, s:I}", "step", (json_int_t)t->step, "promptTokens",
                              (json_int_t)prompt, "cachedTokens", (json_int_t)cached),
                    &err) < 0)
        loop_broken(t, &err);
    daemon_settle(t->s->d);
    crash_here(CRASH_STEP_COMMITTED);
}

static void on_prefill(void *arg, uint32_t done, uint32_t total)
{
    struct turn *t = arg;
    char data[96];
    snprintf(data, sizeof data, "{\"what\":\"prefill\",\"done\":%u,\"total\":%u}", done, total);
    feed_notice(t->s->d->feed, t->s->id, t->id, "progress", str_c(data));
}

static void take_token(struct turn *t, int32_t id)
{
    struct err err;
    struct infer *inf = t->s->d->infer;
    struct str bytes = infer_token_bytes(inf, id);
    if (t->block_closed)
        return; /* behind the calls nothing counts */
    tokens_add(&t->ids, &id, 1);
    buf_str(&t->bytes, bytes);
    if (dsml_feed(t->dsml, bytes, infer_token_special(inf, id), &err) < 0) {
        loop_broken(t, &err);
        return;
    }
    if (!t->think_bytes && dsml_think_bytes(t->dsml)) {
        t->think_bytes = dsml_think_bytes(t->dsml);
        t->think_ids = t->ids.n;
    }
    if (dsml_block_closed(t->dsml)) {
        t->block_closed = true;
        if (t->job)
            infer_cancel(t->job);
    }
}

static void on_tokens(void *arg, const int32_t *id, uint32_t n)
{
    struct turn *t = arg;
    loop_to(t, TURN_DECODE);
    for (uint32_t i = 0; i < n && t->dsml && t->state == TURN_DECODE; i++)
        take_token(t, id[i]);
    crash_here(CRASH_DURING_SAMPLING);
}

static void on_remote_call(void *arg, unsigned i, struct str name, struct str args)
{
    struct turn *t = arg;
    struct call *c = call_at(t, i);
    loop_to(t, TURN_DECODE);
    if (!c)
        return;
    if (!c->live)
        c->live = feed_item_open(t->s->d->feed, t->s->id, t->id, c->item, "call");
    buf_str(&c->name, name);
    buf_str(&c->args, args);
    feed_item_add(c->live, args);
}

static void on_remote_thinking(void *arg, struct str delta)
{
    loop_to(arg, TURN_DECODE);
    on_thinking(arg, delta);
}

static void on_remote_text(void *arg, struct str delta)
{
    loop_to(arg, TURN_DECODE);
    on_text(arg, delta);
}

/* --- the end of a generation ---------------------------------------------------------------- */

/* mark: "partial" for what was cut off but stands, "lost" for what the next try does not know. */
static int log_item(struct turn *t, const char *item, const char *kind, struct str text,
                    const char *mark, struct err *err)
{
    json_t *data = json_pack("{s:s, s:I, s:o}", "kind", kind, "step", (json_int_t)t->step, "text",
                             json_text(text));
    if (mark)
        json_object_set_new(data, mark, json_true());
    return session_log(t->s, t->id, item, "item.completed", data, err);
}

static int log_call(struct turn *t, struct call *c, struct err *err)
{
    json_t *data = json_pack("{s:s, s:I, s:s, s:o, s:o}", "kind", "call", "step",
                             (json_int_t)t->step, "callId", c->id, "name",
                             json_text(buf_view(&c->name)), "arguments",
                             json_text(buf_view(&c->args)));
    if (c->fault[0])
        json_object_set_new(data, "fault", json_text(str_c(c->fault)));
    return session_log(t->s, t->id, c->item, "item.completed", data, err);
}

/* What this step cost beyond model and tools: all waiting for threads and commits included. */
static int64_t overhead_us(struct turn *t)
{
    int64_t now = io_mono_ns(), work = t->engine_ns + t->tool_ns;
    int64_t since = t->marked_ns ? t->marked_ns : t->started_ns;
    int64_t over = (now - since) - (work - t->marked_work_ns);
    t->marked_ns = now;
    t->marked_work_ns = work;
    return over > 0 ? over / 1000 : 0;
}

static json_t *usage_of(struct turn *t, const struct infer_result *r, const char *stop)
{
    bool open = t->thinking && t->ids.n && !t->think_bytes;
    int64_t written = t->dsml ? (int64_t)t->ids.n : (int64_t)r->completion;
    return json_pack("{s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:b, s:s, s:I, s:I, s:I, s:I}", "step",
                     (json_int_t)t->step, "promptTokens", (json_int_t)r->prompt, "cachedTokens",
                     (json_int_t)r->cached, "completionTokens", (json_int_t)written, "stop",
                     stop, "thinkBytes", (json_int_t)(open ? t->bytes.len : t->think_bytes),
                     "thinkTokens", (json_int_t)(open ? t->ids.n : t->think_ids), "thinkOpen",
                     (int)open, "model", infer_info(t->s->d->infer)->fingerprint, "queuedUs",
                     (json_int_t)(r->queued_ns / 1000), "prefillUs",
                     (json_int_t)(r->prefill_ns / 1000), "decodeUs",
                     (json_int_t)(r->decode_ns / 1000), "overheadUs",
                     (json_int_t)overhead_us(t));
}

/* A reply that went round in circles is no answer: whoever reads the log sees why it ends. */
static int log_repetition(struct turn *t, uint32_t block, struct err *err)
{
    char text[160];
    int64_t most = t->s->d->config.engine_repeat;
    snprintf(text, sizeof text,
             "the model wrote the same %u token%s %lld times in a row; the reply ends here "
             "(engine.repeat = %lld)",
             block, block == 1 ? "" : "s", (long long)(most / block), (long long)most);
    LOGW("loop", "turn=%s step=%lld repetition=\"%s\"", t->id, (long long)t->step, text);
    return session_log(t->s, t->id, NULL, "warning",
                       json_pack("{s:s, s:s, s:I, s:i}", "kind", "repetition", "message", text,
                                 "step", (json_int_t)t->step, "block", (int)block),
                       err);
}

static int log_words(struct turn *t, const char *mark, struct err *err)
{
    int rc = 0;
    feed_item_close(t->live_think);
    feed_item_close(t->live_text);
    t->live_think = t->live_text = NULL;
    if (t->think.len)
        rc = log_item(t, t->think_item, "reasoning", buf_view(&t->think), mark, err);
    if (rc == 0 && t->text.len)
        rc = log_item(t, t->text_item, "text", buf_view(&t->text), mark, err);
    return rc;
}

static int log_step(struct turn *t, const struct infer_result *r, bool partial, struct err *err)
{
    static const char *const stops[] = {"stop", "length", "context", "cancelled", "error",
                                        "repetition"};
    int rc = log_words(t, partial ? "partial" : NULL, err);
    for (uint32_t i = 0; rc == 0 && i < t->n_calls; i++) {
        feed_item_close(t->call[i].live);
        t->call[i].live = NULL;
        rc = log_call(t, &t->call[i], err);
    }
    if (rc == 0)
        rc = session_log_sample(t->s, t->id, usage_of(t, r, stops[r->end]), &t->ids,
                                buf_view(&t->bytes), err);
    if (rc == 0 && partial && r->end == INFER_END_REPEAT)
        rc = log_repetition(t, r->block, err);
    return rc;
}

/* The calls of a message that must not run get this as their result. */
static void end_unrun(struct turn *t, const char *text, const char *reason, const char *limit)
{
    struct err err;
    if (calls_answer_rest(t, text, &err) < 0)
        loop_broken(t, &err);
    else
        loop_end(t, reason, limit);
}

/* A message came without calls: the answer, unless somebody steered meanwhile. */
static void answered(struct turn *t)
{
    struct err err;
    char item[ID_TEXT];
    struct str rest = buf_view(&t->s->steers), line;
    struct buf text;
    if (!rest.n || t->final) {
        loop_end(t, "end_turn", t->limit);
        return;
    }
    buf_init(&text, LIMIT_LINE_BYTES);
    while (str_split(&rest, '\n', &line)) {
        json_t *one = NULL;
        if (line.n && json_read(&one, line, &err) == 0)
            buf_printf(&text, "%s%.*s", text.len ? "\n" : "",
                       STR_ARG(json_view(json_object_get(one, "text"))));
        json_decref(one);
    }
    id_new(item);
    if (session_log(t->s, t->id, item, "item.completed",
                    json_pack("{s:s, s:o}", "kind", "user", "text", json_text(buf_view(&text))),
                    &err) < 0) {
        loop_broken(t, &err);
    } else {
        loop_to(t, TURN_PREFILL);
        t->next = NEXT_STEP;
    }
    buf_done(&text);
}

static void decide(struct turn *t, const struct infer_result *r)
{
    bool whole = r->end == INFER_END_STOP || t->block_closed;
    if (t->stop)
        end_unrun(t, "[cancelled: the turn was interrupted before this call ran]",
                  t->time_up ? "max_tokens" : "cancelled", t->limit);
    else if (t->n_calls && t->final)
        end_unrun(t, "[not run: the budget of this turn is used up]", t->end, t->limit);
    else if (t->n_calls && t->step >= t->budget.max_steps) /* no step is left to read results */
        end_unrun(t, "[not run: the budget of this turn is used up]", "max_steps", "steps");
    else if (!whole)
        end_unrun(t, "[not run: the message was cut off]",
                  r->end == INFER_END_CONTEXT ? "context_exhausted" : "max_tokens",
                  r->end == INFER_END_CONTEXT  ? "context"
                  : r->end == INFER_END_REPEAT ? "repetition"
                                               : "tokens");
    else if (t->n_calls) {
        loop_to(t, TURN_CALL);
        t->next = NEXT_CALLS;
    } else if (t->end)
        loop_end(t, t->end, t->limit);
    else
        answered(t);
}

static void engine_failed(struct turn *t, const struct infer_result *r)
{
    struct err err;
    struct daemon *d = t->s->d;
    bool again = r->retryable && t->retries < d->config.engine_retries;
    int rc = again ? 0 : log_words(t, "lost", &err); /* clients have seen it: so has the log */
    gen_clear(t);
    loop_to(t, TURN_PREFILL);
    if (rc < 0)
        loop_broken(t, &err);
    else if (!again)
        loop_fail(t, "engine_unavailable", r->retryable, r->error);
    if (rc < 0 || !again)
        return;
    int64_t pause = (SECOND / 4) << (t->retries < 6 ? t->retries : 6);
    if (r->retry_ns > pause)
        pause = r->retry_ns;
    t->retries++;
    if (session_log(t->s, t->id, NULL, "warning",
                    json_pack("{s:s, s:o, s:i, s:I}", "kind", "engine_retry", "message",
                              json_text(str_c(r->error)), "attempt", t->retries, "pauseMs",
                              (json_int_t)(pause / 1000000)),
                    &err) < 0)
        loop_broken(t, &err);
    else
        ev_timer_start(t->timer, pause, 0);
}

static void check_remote_calls(struct turn *t)
{
    struct err err;
    for (uint32_t i = 0; i < t->n_calls; i++) {
        struct call *c = &t->call[i];
        json_t *args = NULL;
        if (!c->args.len)
            buf_puts(&c->args, "{}");
        if (!c->name.len) {
            buf_puts(&c->name, "unknown");
            snprintf(c->fault, sizeof c->fault, "the call names no tool");
        }
        if (json_read(&args, buf_view(&c->args), &err) < 0 || !json_is_object(args))
            snprintf(c->fault, sizeof c->fault, "the arguments are not a JSON object");
        json_decref(args);
    }
}

static void finish_step(struct turn *t, const struct infer_result *r)
{
    struct err err;
    bool partial = r->end != INFER_END_STOP && !t->block_closed;
    loop_to(t, TURN_DECODE); /* also where nothing came */
    if (t->bytes.failed || t->think.failed || t->text.failed || t->ids.failed) {
        err_nomem(&err); /* a text that is cut may not pass for what was said */
        loop_broken(t, &err);
        return;
    }
    if (t->dsml && dsml_finish(t->dsml, &err) < 0) {
        loop_broken(t, &err);
        return;
    }
    if (!t->dsml)
        check_remote_calls(t);
    t->completion_tokens += t->dsml ? t->ids.n : r->completion;
    t->engine_ns += r->queued_ns + r->prefill_ns + r->decode_ns;
    t->retries = 0;
    crash_here(CRASH_AFTER_SAMPLE);
    if (t->text.len) {
        buf_reset(&t->answer);
        buf_str(&t->answer, buf_view(&t->text));
    }
    if (log_step(t, r, partial, &err) < 0) {
        loop_broken(t, &err);
        return;
    }
    dsml_free(t->dsml);
    t->dsml = NULL;
    decide(t, r);
}

static void on_done(void *arg, const struct infer_result *r)
{
    struct turn *t = arg;
    struct daemon *d = t->s->d;
    t->job = NULL;
    if (t->state != TURN_PREFILL && t->state != TURN_DECODE)
        return; /* broken meanwhile */
    if (r->end == INFER_END_ERROR && !t->stop)
        engine_failed(t, r);
    else if (r->end == INFER_END_CONTEXT && !t->ids.n)
        loop_end(t, "context_exhausted", "context");
    else
        finish_step(t, r);
    daemon_settle(d);
}

/* --- the beginning ---------------------------------------------------------------------------- */

/* The same step of the same session always draws the same numbers, also after a restart. */
static uint64_t seed_of(const struct session *s)
{
    uint64_t h = s->sampling.seed ^ 0x9e3779b97f4a7c15u;
    for (const char *p = s->sampling.seed ? "" : s->id; *p; p++)
        h = (h ^ (unsigned char)*p) * 0x100000001b3u;
    return h + session_replies(s) * 0xbf58476d1ce4e5b9u;
}

static unsigned types_of(void *arg, struct str tool, struct str key)
{
    return infer_grammar_types(((struct turn *)arg)->s->grammar, tool, key);
}

static int open_parser(struct turn *t, struct err *err)
{
    struct dsml_opts o = {.thinking = t->thinking, .tools = t->s->n_schemas > 0, .tokens = true,
                          .types = types_of};
    return dsml_new(&t->dsml, &o, &events, t, err);
}

static int start_job(struct turn *t, struct err *err)
{
    struct session *s = t->s;
    struct infer *inf = s->d->infer;
    bool tokens = infer_info(inf)->tokens;
    int64_t left = t->budget.max_tokens - turn_tokens(t);
    struct infer_request r = {.session = s->id, .sampling = s->sampling,
                              .max_tokens = (uint32_t)(left < INT32_MAX ? left : INT32_MAX),
                            .repeat_max = (uint32_t)s->d->config.engine_repeat};
    struct infer_cbs cbs = {.begin = on_begin, .prefill = on_prefill, .tokens = on_tokens,
                            .thinking = on_remote_thinking, .text = on_remote_text,
                            .call = on_remote_call, .done = on_done, .arg = t};
    json_t *messages = NULL, *tools = NULL;
    int rc = 0;
    r.sampling.seed = seed_of(s);
    t->thinking = s->thinking;
    if (t->thinking && tokens) {
        int64_t think = t->budget.think_max ? t->budget.think_max : left;
        int64_t most = left - t->budget.reserve;
        r.think_max = (uint32_t)(most < 1 ? 1 : think < most ? think : most);
    }
    if (tokens) {
        rc = open_parser(t, err);
        r.grammar = s->d->config.constrain ? s->grammar : NULL;
        r.thinking = t->thinking;
        r.ids = s->ctx.id;
        r.n_ids = s->ctx.n;
    } else {
        r.messages = messages = session_messages(s);
        r.tools = tools = s->n_schemas ? session_schemas_json(s) : NULL;
    }
    if (rc == 0)
        rc = infer_start(&t->job, inf, &r, &cbs, err);
    json_decref(messages);
    json_decref(tools);
    return rc;
}

void gen_step(struct turn *t)
{
    struct err err;
    struct session *s = t->s;
    struct infer *inf = s->d->infer;
    if (t->stop) {
        loop_end(t, t->time_up ? "max_tokens" : "cancelled", t->limit);
        return;
    }
    if (infer_state(inf) == INFER_DEAD) {
        loop_fail(t, "engine_unavailable", false, infer_problem(inf));
        return;
    }
    if (infer_state(inf) == INFER_LOADING)
        return; /* loop_engine() comes back */
    if (!budget_allows(t))
        return;
    gen_clear(t);
    loop_to(t, TURN_PREFILL);
    if (infer_info(inf)->tokens) {
        int rc = session_render(s, &err);
        if (rc < 0) {
            loop_fail(t, "encoding_error", false, err.text);
            return;
        }
        if (!context_fits(t))
            return;
    }
    if (t->retries == 0)
        t->step++;
    int rc = start_job(t, &err);
    if (rc == -ERR_LIMIT) {
        struct infer_result busy = {.error = err.text, .retryable = true};
        engine_failed(t, &busy);
    } else if (rc < 0) {
        loop_fail(t, "engine_unavailable", true, err.text);
    }
}
