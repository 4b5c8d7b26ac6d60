/*
 * loop_budget.c - what a turn may spend, and what is told to the model in time.
 *
 * Before each step: steps, tokens and time against the budget. The last step that fits is
 * announced inside the newest result, with tokens kept in reserve for it, so that a turn
 * ends with an answer and not in the middle of a thought. Notices (steering, ended jobs,
 * budget, repeats) ride in results: a message of their own would end the thinking context.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/loop_in.h"
#include "agentd/policy.h"
#include "base/io.h"

/* How often the same block of calls may come: told, told harder, the end of the turn. */
struct patience {
    int64_t nudge, insist, pause;
};

static struct patience patience(const struct turn *t)
{
    const struct policy *p = t->s->policy;
    if (!p)
        return (struct patience){3, 5, 8};
    return (struct patience){p->repeat_nudge, p->repeat_insist, p->repeat_pause};
}

static uint64_t hash_calls(const struct turn *t)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < t->n_calls; i++) {
        const struct buf *part[2] = {&t->call[i].name, &t->call[i].args};
        for (int k = 0; k < 2; k++)
            for (size_t at = 0; at <= part[k]->len; at++)
                h = (h ^ (at < part[k]->len ? part[k]->data[at] : 0)) * 0x100000001b3u;
    }
    return h;
}

/* Counts identical blocks in a row; `plan` alone never counts as going in circles. */
static void count_repeats(struct turn *t)
{
    if (!t->n_calls || (t->n_calls == 1 && str_is(buf_view(&t->call[0].name), "plan")))
        return;
    uint64_t h = hash_calls(t);
    t->repeats = h == t->last_calls ? t->repeats + 1 : 1;
    t->last_calls = h;
}

static void steer_notes(struct turn *t, struct buf *out)
{
    struct str rest = buf_view(&t->s->steers), line;
    struct err err;
    while (str_split(&rest, '\n', &line)) {
        json_t *one = NULL;
        if (line.n && json_read(&one, line, &err) == 0)
            buf_printf(out, "The user adds: %.*s\n",
                       STR_ARG(json_view(json_object_get(one, "text"))));
        json_decref(one);
    }
}

/* Steering that asked to be a user message: it drops the reasoning, as the caller knows. */
static bool steer_as_user(const struct session *s)
{
    return str_find(buf_view(&s->steers), STR("\"as\":\"user\""), 0) != STR_NONE;
}

static int deliver_as_user(struct turn *t, struct err *err)
{
    char item[ID_TEXT];
    struct buf text;
    struct str rest = buf_view(&t->s->steers), line;
    buf_init(&text, LIMIT_LINE_BYTES);
    while (str_split(&rest, '\n', &line)) {
        json_t *one = NULL;
        if (line.n && json_read(&one, line, err) == 0)
            buf_printf(&text, "%s%.*s", text.len ? "\n" : "",
                       STR_ARG(json_view(json_object_get(one, "text"))));
        json_decref(one);
    }
    id_new(item);
    int rc = session_log(t->s, t->id, item, "item.completed",
                         json_pack("{s:s, s:o}", "kind", "user", "text",
                                   json_text(buf_view(&text))),
                         err);
    buf_done(&text);
    return rc;
}

static void budget_notes(struct turn *t, struct buf *out)
{
    const struct budget *b = &t->budget;
    if (t->final)
        return; /* said before */
    int64_t left = b->max_tokens - turn_tokens(t);
    int64_t seconds = turn_used_ns(t) / 1000000000;
    if (t->step + 1 >= b->max_steps)
        t->end = "max_steps", t->limit = "steps";
    else if (left <= 2 * b->reserve && b->reserve)
        t->end = "max_tokens", t->limit = "tokens";
    else if (t->time_up || seconds >= b->max_seconds)
        t->end = "max_tokens", t->limit = "time";
    else
        return;
    t->final = true;
    buf_puts(out, "This is the last step: answer now with what you know, without calling "
                  "tools.\n");
}

static void repeat_notes(struct turn *t, struct buf *out)
{
    const struct patience p = patience(t);
    if (t->repeats >= p.insist)
        buf_printf(out, "The same call again, %d times now. The turn ends after %lld. Answer with "
                        "what you know.\n",
                   t->repeats, (long long)p.pause);
    else if (t->repeats == p.nudge)
        buf_printf(out, "You have made this same call %d times in a row. Its result will not "
                        "change: do something else or answer.\n",
                   t->repeats);
}

static int log_notice(struct turn *t, struct str lines, struct err *err)
{
    struct buf b;
    char item[ID_TEXT];
    buf_init(&b, LIMIT_LINE_BYTES);
    buf_puts(&b, "<system-reminder>\n");
    buf_str(&b, lines);
    buf_puts(&b, "</system-reminder>");
    id_new(item);
    int rc = buf_check(&b, "notice", err);
    if (rc == 0)
        rc = session_log(t->s, t->id, item, "item.completed",
                         json_pack("{s:s, s:I, s:o}", "kind", "notice", "step",
                                   (json_int_t)t->step, "text", json_text(buf_view(&b))),
                         err);
    buf_done(&b);
    return rc;
}

bool budget_allows(struct turn *t)
{
    struct err err;
    struct buf notes;
    struct session *s = t->s;
    bool results = s->n_msgs && s->msg[s->n_msgs - 1].role == PROMPT_TOOL;
    if (t->retries)
        return true; /* the same step again: everything was said */
    if (t->step >= t->budget.max_steps || turn_tokens(t) >= t->budget.max_tokens) {
        loop_end(t, t->step >= t->budget.max_steps ? "max_steps" : "max_tokens",
                 t->step >= t->budget.max_steps ? "steps" : "tokens");
        return false;
    }
    if (!results)
        return true; /* nothing for a notice to ride in */
    count_repeats(t);
    if (t->repeats >= patience(t).pause) {
        loop_end(t, "max_steps", "repeats");
        return false;
    }
    int rc = 0;
    buf_init(&notes, LIMIT_LINE_BYTES);
    if (steer_as_user(s))
        rc = deliver_as_user(t, &err);
    else
        steer_notes(t, &notes);
    if (rc == 0 && s->tools)
        toolrun_job_notices(s->tools, &notes);
    budget_notes(t, &notes);
    repeat_notes(t, &notes);
    if (rc == 0 && notes.len && s->msg[s->n_msgs - 1].role == PROMPT_TOOL)
        rc = log_notice(t, buf_view(&notes), &err);
    buf_done(&notes);
    if (rc < 0)
        loop_broken(t, &err);
    return rc == 0;
}
