/*
 * toolrun.c - the queue of calls of one session, and each call's way to its result.
 *
 * Calls are carried out one at a time, in the order given:
 *
 *   QUEUED -> (arguments, policy) -> STARTING -> RUNNING -> ENDING -> DONE
 *
 * A call that is refused, or that runs in the daemon, goes from QUEUED to DONE. DONE calls
 * on_done once and frees the call. Two drivers exist at most: the work cell (shell, python,
 * files) and the web cell (search, pages), each made when first needed. Calls of the web cell
 * that follow one another are one run of its driver, which fetches for all of them at once.
 *
 * Python code may call another tool while it runs. Such a nested call goes the same way but
 * for the queue: schema, policy and hooks as ever; then it runs in the daemon, in the web cell
 * beside the outer call, or, with leave, inside the outer call's own process (toolnest.c).
 */
#include "agentd/toolrun.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agentd/hooks.h"
#include "agentd/netproxy.h"
#include "agentd/searchlua.h"
#include "agentd/tooldriver.h"
#include "agentd/toollua.h"
#include "agentd/toolplace.h"
#include "agentd/toolrun_impl.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

enum { UNDO_MAX = 1000 };
#define NS 1000000000LL

static void run_next(struct toolrun *t);

/* --- results ------------------------------------------------------------------------------ */

static void save_undo(struct toolrun *t, const json_t *undo)
{
    char dir[PATH_MAX], path[PATH_MAX + 32];
    struct err ignored = {0};
    struct buf b;
    if (!undo || !t->o.state_dir || t->undos >= UNDO_MAX)
        return;
    snprintf(dir, sizeof dir, "%s/undo", t->o.state_dir);
    snprintf(path, sizeof path, "%s/%04u.json", dir, t->undos++);
    buf_init(&b, 0);
    if (json_write(undo, &b, &ignored) == 0 && io_make_dirs(dir, 0700, &ignored) == 0 &&
        io_write_file(path, buf_view(&b), 0600, &ignored) < 0)
        unlink(path);
    buf_done(&b);
}

/* The one end of every call. It is at the head of the queue. */
void toolrun_done(struct toolrun_call *c)
{
    struct toolrun *t = c->t;
    struct answer *a = &c->answer;
    bool finished = c->is_finish && a->status == TOOL_OK;
    toolnest_summary(c);
    const struct tool_result r = {
        .text = buf_view(&a->text),
        .status = a->status,
        .is_error = a->status != TOOL_OK && a->status != TOOL_RUNNING,
        .exit_code = a->exit_code,
        .output_bytes = a->output_bytes,
        .cut_bytes = a->cut_bytes,
        .spill = a->spill,
        .started_ns = c->started_ns,
        .ended_ns = io_mono_ns(),
        .state_lost = a->state_lost,
        .level = toolcell_level(c),
        .finish = finished ? c->args : NULL,
        .called = c->called,
        .undo = a->undo,
    };
    t->ending = c;
    if (c == t->nested) {
        t->nested = NULL;
    } else {
        t->queue = c->next;
        if (!t->queue)
            t->tail = &t->queue;
        ev_timer_stop(t->guard);
    }
    save_undo(t, a->undo);
    if (c->tool && c->tool->place == TOOL_IN_WEB_CELL)
        toolfinish_note_page(&t->shown, r.text);
    if (c->cbs.on_done)
        c->cbs.on_done(c->cbs.arg, &r);
    answer_done(a);
    buf_done(&c->content);
    json_decref(c->called);
    json_decref(c->args);
    mem_free(c->name);
    mem_free(c);
    if (!t->closing && t->nested && t->nested->outer == c) { /* nobody waits for it now */
        t->nested->outer = NULL;
        toolrun_cancel(t->nested);
    }
    if (!t->closing && t->queue)
        ev_timer_start(t->kick, 0, 0);
}

void toolrun_audit(void *arg, const char *record)
{
    struct toolrun *t = arg;
    if (t->o.audit && !t->closing)
        t->o.audit(t->o.hook_arg, record);
}

/* --- one call ----------------------------------------------------------------------------- */

static void deny(struct toolrun_call *c, enum toolrun_verdict v, const char *why)
{
    c->answer.status = TOOL_DENIED;
    if (v == TOOLRUN_ASK)
        envelope_status(&c->answer.text, "denied: %s; nobody approved it", why);
    else
        envelope_status(&c->answer.text, "denied: %s", why);
    toolrun_done(c);
}

static void unknown_tool(struct toolrun_call *c)
{
    struct buf names;
    buf_init(&names, 0);
    const struct tool *row;
    const char *schema;
    for (unsigned i = 0; (row = toolrun_tool(c->t, i, &schema)); i++)
        buf_printf(&names, "%s%s", i ? ", " : "", row->name);
    answer_fail(&c->answer, TOOL_INVALID, "there is no tool '%.60s'; %s%s", c->name,
                names.len ? "the tools are " : "there are none", buf_cstr(&names));
    buf_done(&names);
    toolrun_done(c);
}

void toolrun_run_call(struct toolrun_call *c)
{
    struct buf why;
    c->started_ns = io_mono_ns();
    if (!c->tool) {
        unknown_tool(c);
        return;
    }
    if (!c->args) {
        c->answer.status = TOOL_INVALID;
        envelope_clean(&c->answer.text, str_c(c->misfit));
        envelope_status(&c->answer.text, "invalid arguments");
        toolrun_done(c);
        return;
    }
    if (c->cancelled) {
        c->answer.status = TOOL_CANCELLED;
        envelope_status(&c->answer.text, "cancelled before it started");
        toolrun_done(c);
        return;
    }
    buf_init(&why, 0);
    enum toolrun_verdict v = toolplace_decide(c->t->o.policy, c->t->hooks,
                                              c->tool->name, c->args, &why);
    if (v == TOOLRUN_DENY || (v == TOOLRUN_ASK && !c->approved))
        deny(c, v, buf_cstr(&why));
    else if (c->tool->place == TOOL_IN_DAEMON)
        toolhere_run(c);
    else
        toolcell_start(c);
    buf_done(&why);
}

static void run_next(struct toolrun *t)
{
    if (t->queue && t->queue->state == QUEUED && !t->closing && !t->nested)
        toolrun_run_call(t->queue);
}

static void on_kick(void *arg)
{
    struct toolrun *t = arg;
    run_next(t);
    if (t->web.held) { /* the call that it was held for did not come to it */
        t->web.held = false;
        tooldriver_end(t->web.driver, false, 0);
    }
}

struct toolrun_call *toolrun_new_call(struct toolrun *t, const char *tool, struct str args,
                                     bool approved, const struct toolrun_cbs *cbs)
{
    struct err err = {0};
    const char *schema;
    struct toolrun_call *c = mem_zalloc(sizeof *c);
    if (!c)
        return NULL;
    c->t = t;
    c->name = mem_strdup(str_c(tool));
    c->approved = approved;
    c->streamed = cbs->on_output != NULL;
    c->cbs = *cbs;
    answer_init(&c->answer);
    buf_init(&c->content, LIMIT_LINE_BYTES / 4);
    if (!c->name) {
        mem_free(c);
        return NULL;
    }
    c->tool = toolrun_find(t, str_c(tool), &schema);
    if (c->tool && toolset_args(tool, schema, args, &c->args, &err) < 0)
        snprintf(c->misfit, sizeof c->misfit, "%s", err.text);
    return c;
}

struct toolrun_call *toolrun_call(struct toolrun *t, const char *id, const char *tool,
                                  struct str args, bool approved,
                                  const struct toolrun_cbs *cbs)
{
    struct toolrun_call *c = toolrun_new_call(t, tool, args, approved, cbs);
    (void)id;
    if (!c)
        return NULL;
    *t->tail = c;
    t->tail = &c->next;
    ev_timer_start(t->kick, 0, 0);
    return c;
}

void toolrun_cancel(struct toolrun_call *c)
{
    struct toolrun *t = c->t;
    if (c->cancelled)
        return; /* asking again must not put off the guard */
    c->cancelled = true;
    if (c->state == HOOKED) {
        if (t->o.unhook)
            t->o.unhook(t->o.hook_arg, c);
        toolrun_answer(c, TOOL_CANCELLED, STR("[cancelled]"));
    } else if (c->state == RUNNING) {
        json_t *o = json_pack("{s:I}", "cancel", (json_int_t)c->request);
        tooldriver_send(toolrun_place_of(c)->driver, o);
        json_decref(o);
        ev_timer_start(t->guard, 5 * NS, 0);
    }
}

void toolrun_abandon(struct toolrun_call *c)
{
    c->cbs = (struct toolrun_cbs){0};
    toolrun_cancel(c);
}

void toolrun_answer(struct toolrun_call *c, enum tool_status status, struct str text)
{
    if (c->state != HOOKED)
        return;
    c->state = ENDING;
    c->answer.status = status;
    envelope_clean(&c->answer.text, text);
    toolrun_done(c);
}

/* --- life --------------------------------------------------------------------------------- */

static int own_text(struct toolrun *t, const char **s, struct err *err)
{
    if (*s && !(*s = arena_strdup(&t->text, str_c(*s))))
        return err_nomem(err);
    return 0;
}

static int copy_opts(struct toolrun *t, const struct toolrun_opts *o, struct err *err)
{
    const char **texts[] = {&t->o.profile,   &t->o.session, &t->o.workspace, &t->o.state_dir,
                            &t->o.notes_dir, &t->o.index,   &t->o.search,
                            &t->o.cassette,
                            &t->o.lua_tools};
    t->o = *o;
    json_incref((json_t *)(uintptr_t)t->o.only);
    for (unsigned i = 0; i < ARRAY_LEN(texts); i++)
        if (own_text(t, texts[i], err) < 0)
            return -err->code;
    return 0;
}

int toolrun_open(struct toolrun **out, const struct toolrun_opts *o, struct err *err)
{
    struct toolrun *t = mem_zalloc(sizeof *t);
    if (!t)
        return err_nomem(err);
    t->tail = &t->queue;
    t->work.t = t->web.t = t;
    arena_init(&t->text, 0);
    buf_init(&t->notices, 16384);
    int rc = copy_opts(t, o, err);
    t->profile = tool_profile_find(str_c(o->profile));
    if (rc == 0 && !t->profile)
        rc = err_set(err, ERR_NOTFOUND, "there is no tool profile '%s'; 'agentctl tool list' "
                     "names them", o->profile ? o->profile : "");
    if (rc == 0 && !o->spawner && !o->unconfined)
        rc = err_set(err, ERR_DENIED, "tools need the sandbox, and none was started; only "
                     "the daemon's own configuration can switch it off");
    if (rc == 0 && o->lua_tools)
        rc = toollua_open(&t->lua, o->lua_tools, err);
    if (rc == 0 && o->search)
        rc = searchlua_open(&t->search_lua, o->search, err);
    if (rc == 0 && o->policy)
        rc = hooks_open(&t->hooks, o->policy, err);
    if (rc == 0)
        rc = ev_timer_new(&t->kick, o->ev, on_kick, t, err);
    if (rc == 0)
        rc = ev_timer_new(&t->guard, o->ev, toolcell_guard, t, err);
    if (rc < 0) {
        toolrun_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void toolrun_close(struct toolrun *t)
{
    if (!t)
        return;
    t->closing = true;
    if (t->nested) {
        t->nested->outer = NULL;
        toolrun_done(t->nested);
    }
    while (t->queue) {
        struct toolrun_call *c = t->queue;
        bool ran = c->state == RUNNING || c->state == ENDING;
        if (c->state == HOOKED && t->o.unhook)
            t->o.unhook(t->o.hook_arg, c);
        c->answer.status = TOOL_CANCELLED;
        envelope_status(&c->answer.text, ran ? "cancelled: the session was closed while it ran"
                                             : "cancelled before it started");
        toolrun_done(c);
    }
    tooldriver_free(t->work.driver);
    tooldriver_free(t->web.driver);
    netproxy_free(t->work.proxy);
    netproxy_free(t->web.proxy);
    toollua_free(t->lua);
    searchlua_free(t->search_lua);
    hooks_free(t->hooks);
    ev_timer_free(t->kick);
    ev_timer_free(t->guard);
    json_decref(t->plan);
    json_decref((json_t *)(uintptr_t)t->o.only);
    toolfinish_shown_done(&t->shown);
    buf_done(&t->notices);
    arena_done(&t->text);
    mem_free(t);
}

unsigned toolrun_jobs(const struct toolrun *t)
{
    return t->jobs;
}

void toolrun_job_notices(struct toolrun *t, struct buf *out)
{
    buf_str(out, buf_view(&t->notices));
    buf_reset(&t->notices);
}

bool toolrun_busy(const struct toolrun *t)
{
    return t->queue || t->nested;
}
