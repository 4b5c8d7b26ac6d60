/*
 * toolhere.c - the tools that the daemon carries out itself, for they touch no foreign bytes, and
 * what they keep of a session: plan, notes, the lines that were shown.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "agentd/policy.h"
#include "agentd/tooldriver.h"
#include "agentd/toollua.h"
#include "agentd/toolrun_impl.h"
#include "base/limits.h"

enum { FINISH_TRIES = 2 };

static struct toolnotes_dirs notes_dirs(const struct toolrun *t, char session[PATH_MAX])
{
    snprintf(session, PATH_MAX, "%s/notes", t->o.state_dir ? t->o.state_dir : "");
    return (struct toolnotes_dirs){t->o.state_dir ? session : NULL, t->o.notes_dir};
}

static struct toolfinish_where finish_where(const struct toolrun *t)
{
    bool temp = t->o.policy && t->o.policy->spec.work == SANDBOX_WORK_TEMP && !t->o.unconfined;
    return (struct toolfinish_where){temp ? NULL : t->o.workspace,
                                     t->work.driver ? tooldriver_layer(t->work.driver) : -1};
}

void toolhere_run(struct toolrun_call *c)
{
    struct toolrun *t = c->t;
    char session[PATH_MAX];
    struct answer *a = &c->answer;
    struct err err = {0};
    if (toollua_find(t->lua, str_c(c->tool->name)) == c->tool) {
        struct buf text;
        buf_init(&text, LIMIT_LINE_BYTES / 4);
        if (toollua_run(t->lua, c->tool, c->args, &text, &err) < 0)
            answer_fail(a, TOOL_FAILED, "%s", err.text);
        else
            envelope_clean(&a->text, buf_view(&text));
        buf_done(&text);
    } else if (strcmp(c->tool->name, "plan") == 0) {
        toolnotes_plan(&t->plan, c->args, a);
    } else if (strcmp(c->tool->name, "memory") == 0) {
        const struct toolnotes_dirs dirs = notes_dirs(t, session);
        toolnotes_memory(&dirs, c->args, a);
    } else if (strcmp(c->tool->name, "finish") == 0) {
        c->is_finish = true;
        const struct toolfinish_where where = finish_where(t);
        toolfinish(&t->shown, &where, c->args, a);
        if (a->status == TOOL_FAILED && t->finish_tries++ >= FINISH_TRIES) {
            a->status = TOOL_OK; /* accepted with its flaws, which the text names */
            envelope_status(&a->text, "accepted after %d tries", FINISH_TRIES + 1);
        }
    } else if (t->o.hook) {
        c->state = HOOKED;
        t->o.hook(t->o.hook_arg, c, c->tool->name, c->args);
        return;
    } else {
        answer_fail(a, TOOL_UNAVAILABLE, "%s needs a running session; it cannot be used here",
                    c->tool->name);
    }
    toolrun_done(c);
}

void toolrun_note_result(struct toolrun *t, const char *tool, struct str text)
{
    const struct tool *row = tool_find(str_c(tool));
    if (row && row->place == TOOL_IN_WEB_CELL)
        toolfinish_note_page(&t->shown, text);
}

void toolrun_note_ran(struct toolrun *t, const char *tool)
{
    const struct tool *row = tool_find(str_c(tool));
    t->work.lost |= row && toolrun_keeps_state(row);
}

void toolrun_note_plan(struct toolrun *t, struct str args)
{
    struct answer a;
    json_t *v = NULL;
    if (!toolrun_args(t, "plan", args, &v))
        return;
    answer_init(&a);
    toolnotes_plan(&t->plan, v, &a);
    answer_done(&a);
    json_decref(v);
}

void toolrun_remind(const struct toolrun *t, bool bodies, size_t most, struct buf *out)
{
    char session[PATH_MAX];
    const struct toolnotes_dirs dirs = notes_dirs(t, session);
    toolnotes_remind(toolrun_has(t, STR("memory")) ? &dirs : NULL, t->plan, bodies, most, out);
}

const json_t *toolrun_plan(const struct toolrun *t)
{
    return t->plan;
}
