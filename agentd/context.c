/*
 * context.c - what happens when the context passes its threshold.
 *
 * A call group is an assistant message with calls and all its results; groups go whole, so
 * pairing stays. Nothing is deleted from the log: context.reset says which message ids left
 * the prompt. Only groups of the running turn go; system text, user messages and earlier
 * answers stay. A reset must shrink the prompt or the turn ends with context_exhausted.
 * A summary is one completion beside the conversation: chat mode, no tools; what it says
 * becomes a note at the end of the user's message. When it fails, the runtime's own ledger
 * of calls takes its place.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/crash.h"
#include "agentd/loop_in.h"

enum { THRESHOLD_PERCENT = 80, MAX_RESETS = 8 };

/* First message of the running turn that may go: behind its newest user message. */
static uint32_t turn_begin(const struct session *s)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->n_msgs; i++)
        if (s->msg[i].role == PROMPT_USER)
            at = i + 1;
    return at;
}

static uint32_t groups(const struct session *s, uint32_t from)
{
    uint32_t n = 0;
    for (uint32_t i = from; i < s->n_msgs; i++)
        n += s->msg[i].role == PROMPT_ASSISTANT && !s->msg[i].removed;
    return n;
}

static int reset(struct turn *t, const char *strategy, uint32_t drop, struct str note,
                 struct err *err)
{
    struct session *s = t->s;
    uint32_t from = turn_begin(s), seen = 0;
    uint32_t before = s->ctx.n;
    json_t *removed = json_array();
    for (uint32_t i = from; i < s->n_msgs; i++) {
        if (s->msg[i].removed)
            continue;
        seen += s->msg[i].role == PROMPT_ASSISTANT;
        if (seen > drop)
            break;
        json_array_append_new(removed, json_string(s->msg[i].id));
    }
    json_t *data = json_pack("{s:s, s:o, s:I}", "strategy", strategy, "removed", removed,
                             "before", (json_int_t)before);
    if (note.n)
        json_object_set_new(data, "note", json_text(note));
    t->resets++;
    int rc = session_log(s, t->id, NULL, "context.reset", data, err);
    crash_here(CRASH_DURING_RESET);
    if (rc == 0)
        rc = session_render(s, err);
    if (rc == 0 && s->ctx.n >= before)
        rc = err_set(err, ERR_LIMIT, "dropping %u call groups did not shrink the context", drop);
    return rc;
}

enum { LEDGER_MAX = 16384, NOTES_MAX = 8192 };

/* How a call ended: the status line of its result, where it has one. */
static struct str ending(const struct session *s, uint32_t from, const char *call_id)
{
    for (uint32_t i = from; i < s->n_msgs; i++) {
        const struct message *m = &s->msg[i];
        if (m->role != PROMPT_TOOL || strcmp(m->call_id, call_id) != 0)
            continue;
        struct str rest = m->content, line, last = {0};
        while (str_split(&rest, '\n', &line))
            if (line.n > 2 && line.n < 200 && line.p[0] == '[' && line.p[line.n - 1] == ']')
                last = line;
        return last;
    }
    return (struct str){0};
}

/* The plan and the notes that the model keeps outlive the context: they are shown again. */
static void remind(const struct turn *t, bool bodies, struct buf *out)
{
    if (t->s->tools)
        toolrun_remind(t->s->tools, bodies, NOTES_MAX, out);
}

/* What the runtime itself knows of the dropped part: the calls and how they ended. */
static void ledger(const struct turn *t, uint32_t from, struct buf *out)
{
    const struct session *s = t->s;
    unsigned more = 0;
    buf_puts(out, "<system-reminder>\nEarlier steps of this task were dropped to make room. "
                  "Calls made so far:\n");
    for (uint32_t i = from; i < s->n_msgs; i++) {
        const struct message *m = &s->msg[i];
        for (uint32_t k = 0; k < m->n_calls; k++) {
            struct str args = str_c(m->calls[k].arguments);
            struct str end = ending(s, i + 1, m->calls[k].id);
            args.n = args.n > 160 ? utf8_complete(str_sub(args, 0, 160)) : args.n;
            if (out->len > LEDGER_MAX)
                more++;
            else
                buf_printf(out, "- %s %.*s %.*s\n", m->calls[k].name, STR_ARG(args),
                           STR_ARG(end));
        }
    }
    if (more)
        buf_printf(out, "- and %u more\n", more);
    remind(t, true, out);
    buf_puts(out, "</system-reminder>");
}

static int apply(struct turn *t, enum strategy how, struct err *err)
{
    struct session *s = t->s;
    uint32_t from = turn_begin(s), n = groups(s, from);
    bool all = how != STRATEGY_DISCARD_TOOLS || n == 1;
    struct buf note, kept;
    if (n == 0)
        return err_set(err, ERR_LIMIT, "nothing is left to drop");
    buf_init(&note, LIMIT_LINE_BYTES);
    buf_init(&kept, LIMIT_LINE_BYTES);
    if (all)
        ledger(t, from, &note);
    else
        remind(t, false, &kept);
    if (kept.len)
        buf_printf(&note, "<system-reminder>\nOlder tool results of this task were dropped to "
                          "make room.\n%s</system-reminder>", buf_cstr(&kept));
    int rc = reset(t, strategy_name(all ? STRATEGY_DISCARD_ALL : how),
                   all ? n : n * 3 / 4 ? n * 3 / 4 : 1, buf_view(&note), err);
    buf_done(&note);
    buf_done(&kept);
    return rc;
}

/* --- the summary ------------------------------------------------------------------------- */

static const char ask_summary[] =
    "You are given the beginning of an agent's work on a task. Write what is needed to go on "
    "without it: what was found, what was done, what failed, what is left. Facts, numbers, "
    "names and paths exactly. No advice, at most 200 words.";

/* The steps that are about to go, each cut to what a summary can use, `most` bytes in all. */
static void tell_steps(const struct session *s, uint32_t from, size_t most, struct buf *out)
{
    for (uint32_t i = from; i < s->n_msgs && out->len < most; i++) {
        const struct message *m = &s->msg[i];
        if (m->removed)
            continue;
        struct str text = m->role == PROMPT_ASSISTANT && m->reasoning.n ? m->reasoning : m->content;
        text = str_sub(text, 0, 1200);
        text.n = utf8_complete(text);
        buf_printf(out, "\n[%s]\n%.*s\n", m->role == PROMPT_TOOL ? "result" : "agent",
                   STR_ARG(text));
        for (uint32_t k = 0; k < m->n_calls; k++)
            buf_printf(out, "(calls %s %.200s)\n", m->calls[k].name, m->calls[k].arguments);
    }
}

static void summary_tokens(void *arg, const int32_t *id, uint32_t n)
{
    struct turn *t = arg;
    struct infer *inf = t->s->d->infer;
    for (uint32_t i = 0; i < n; i++)
        if (!infer_token_special(inf, id[i]))
            buf_str(&t->text, infer_token_bytes(inf, id[i]));
}

static void summary_done(void *arg, const struct infer_result *r)
{
    struct turn *t = arg;
    struct session *s = t->s;
    struct err err;
    struct buf note;
    uint32_t n = groups(s, turn_begin(s));
    t->job = NULL;
    t->completion_tokens += r->completion;
    t->engine_ns += r->queued_ns + r->prefill_ns + r->decode_ns;
    buf_init(&note, LIMIT_LINE_BYTES);
    struct str said = str_trim(buf_view(&t->text));
    bool usable = said.n > 0 && (r->end == INFER_END_STOP || r->end == INFER_END_LENGTH);
    if (usable) {
        buf_printf(&note, "<system-reminder>\nEarlier steps of this task were dropped to make "
                          "room. What they came to:\n%.*s\n", STR_ARG(said));
        remind(t, false, &note);
        buf_puts(&note, "</system-reminder>");
    } else {
        ledger(t, turn_begin(s), &note);
    }
    int rc = t->stop ? 0
                     : reset(t, strategy_name(usable ? STRATEGY_SUMMARY : STRATEGY_DISCARD_ALL),
                             n, buf_view(&note), &err);
    buf_done(&note);
    buf_reset(&t->text);
    if (rc == -ERR_LIMIT)
        loop_end(t, "context_exhausted", "context");
    else if (rc < 0)
        loop_broken(t, &err);
    else
        t->next = NEXT_STEP;
    daemon_settle(s->d);
}

static int summary_start(struct turn *t, struct err *err)
{
    struct session *s = t->s;
    struct infer *inf = s->d->infer;
    uint32_t from = turn_begin(s), n_ctx = infer_info(inf)->n_ctx;
    struct tokens ids = {0};
    struct buf task;
    if (groups(s, from) == 0)
        return err_set(err, ERR_LIMIT, "nothing is left to drop");
    buf_init(&task, LIMIT_LINE_BYTES);
    buf_puts(&task, "Task:\n");
    if (from)
        buf_str(&task, str_sub(s->msg[from - 1].content, 0, n_ctx / 4));
    buf_puts(&task, "\n\nWork so far:\n");
    tell_steps(s, from, n_ctx / 2, &task); /* fits even where every byte is a token */
    struct prompt_msg msg[2] = {{.role = PROMPT_SYSTEM, .content = STR(ask_summary)},
                                {.role = PROMPT_USER, .content = buf_view(&task)}};
    int rc = buf_check(&task, "summary", err);
    if (rc == 0)
        rc = session_render_list(s, msg, 2, &ids, err);
    struct infer_request r = {.session = s->id, .ids = ids.id, .n_ids = ids.n,
                              .sampling = s->sampling, .max_tokens = n_ctx / 16,
                              .repeat_max = (uint32_t)s->d->config.engine_repeat};
    struct infer_cbs cbs = {.tokens = summary_tokens, .done = summary_done, .arg = t};
    if (rc == 0)
        rc = infer_start(&t->job, inf, &r, &cbs, err);
    tokens_done(&ids);
    buf_done(&task);
    return rc;
}

bool context_fits(struct turn *t)
{
    struct session *s = t->s;
    struct err err;
    uint32_t n_ctx = infer_info(s->d->infer)->n_ctx;
    int64_t reserve = t->budget.reserve < n_ctx / 4 ? t->budget.reserve : n_ctx / 4;
    int64_t most = (int64_t)n_ctx * THRESHOLD_PERCENT / 100;
    most = most < n_ctx - reserve ? most : n_ctx - reserve;
    enum strategy how = s->first;
    while (s->ctx.n > most) {
        if (how == STRATEGY_SUMMARY && t->resets < MAX_RESETS && summary_start(t, &err) == 0)
            return false; /* its end comes back here */
        if (how == STRATEGY_NONE || t->resets >= MAX_RESETS || apply(t, how, &err) < 0) {
            if (s->ctx.n + reserve < n_ctx)
                return true; /* over the threshold, but the step still fits */
            loop_end(t, "context_exhausted", "context");
            return false;
        }
        how = s->then;
    }
    return true;
}
