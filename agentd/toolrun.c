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
#include "agentd/jsontext.h"
#include "agentd/netproxy.h"
#include "agentd/policy.h"
#include "agentd/searchlua.h"
#include "agentd/tooldriver.h"
#include "agentd/toollua.h"
#include "agentd/toolplace.h"
#include "agentd/toolrun_impl.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"
#include "tools/schema.h"

enum { GRACE_S = 5, WEB_S = 240, FINISH_TRIES = 2, UNDO_MAX = 1000 };
#define NS 1000000000LL

static void run_next(struct toolrun *t);

static bool wanted(const struct toolrun *t, struct str name)
{
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)(uintptr_t)t->o.only, i, one)
        if (str_eq(json_view(one), name))
            return true;
    return !t->o.only;
}

/* A tool that this session has, and the schema it shows; NULL when there is none. */
const struct tool *toolrun_find(const struct toolrun *t, struct str name,
                                    const char **schema)
{
    const struct tool *row = wanted(t, name) ? toollua_find(t->lua, name) : NULL;
    if (!row && wanted(t, name) && tool_profile_has(t->profile, name))
        row = tool_find(name);
    *schema = row ? tool_schema(t->profile, row) : NULL;
    return row;
}

/* What the model wrote: a key twice at any depth counts as its last value. */
static int parse_args(const char *tool, const char *schema, struct str args, json_t **out,
                      struct err *err)
{
    struct buf b;
    buf_init(&b, 2 * LIMIT_ARGUMENTS_BYTES);
    int rc = str_trim(args).n ? jsontext_rewrite(&b, args, err) : 0;
    if (rc < 0)
        rc = err_prefix(err, "%s: the arguments are not valid JSON", tool);
    else
        rc = schema_parse_args(tool, schema, buf_view(&b), out, err);
    buf_done(&b);
    return rc;
}

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

/* Where a call is at the moment. */
struct place *toolrun_place_of(const struct toolrun_call *c)
{
    bool web = c->tool->place == TOOL_IN_WEB_CELL && c->spill != READ_SPILL;
    return web ? &c->t->web : &c->t->work;
}

static const char *level_of(const struct toolrun_call *c)
{
    if (!c->tool || c->tool->place == TOOL_IN_DAEMON || c->state == QUEUED)
        return "daemon"; /* nothing left it */
    const struct place *p = toolrun_place_of(c);
    return p->driver ? tooldriver_level(p->driver) : "unknown";
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
        .level = level_of(c),
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

/* --- the drivers -------------------------------------------------------------------------- */

static struct toolrun_call *running(const struct place *p)
{
    struct toolrun_call *const at[] = {p->t->nested, p->t->queue};
    for (unsigned i = 0; i < ARRAY_LEN(at); i++)
        if (at[i] && at[i]->state != QUEUED && at[i]->state != HOOKED && at[i]->tool &&
            toolrun_place_of(at[i]) == p)
            return at[i];
    return NULL;
}

static void on_guard(void *arg)
{
    struct toolrun *t = arg;
    struct toolrun_call *c = t->nested && !t->nested->outer ? t->nested : t->queue;
    if (!c || c->state == QUEUED || c->state == HOOKED)
        return;
    c->answer.status = TOOL_TIMED_OUT;
    tooldriver_kill(toolrun_place_of(c)->driver);
}

/*
 * Seconds by which the tool itself must have answered: what the call asked for within what
 * the policy lets it have. A tool that does not is stopped, hung or worse.
 */
static int64_t patience(const struct toolrun_call *c, const struct toolplace_times *times)
{
    static const char *const keys[] = {"timeout_s", "wait_s"};
    if (c->tool->place == TOOL_IN_WEB_CELL)
        return WEB_S;
    int64_t s = times->soft_s;
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        const json_t *v = json_object_get(c->args, keys[i]);
        if (json_is_integer(v) && json_integer_value(v) > s)
            s = json_integer_value(v);
    }
    return s < times->hard_s ? s : times->hard_s;
}

void toolrun_audit(void *arg, const char *record)
{
    struct toolrun *t = arg;
    if (t->o.audit && !t->closing)
        t->o.audit(t->o.hook_arg, record);
}

/* What is in force, once for every cell that is made. */
static void tell_cell(struct place *p)
{
    struct buf b;
    const char *record = tooldriver_record(p->driver);
    if (p->told || !record)
        return;
    p->told = true;
    buf_init(&b, 0);
    buf_printf(&b, "{\"event\":\"cell\",\"cell\":%s}", record);
    toolrun_audit(p->t, buf_cstr(&b));
    buf_done(&b);
}

/*
 * Whether a waiting call is one of the web's that will run as it stands: the driver then goes
 * on to it without an end between, and fetches for it while earlier ones are at work. Hooks
 * are asked once, when its turn comes, so where there are any nothing is taken for granted.
 */
static bool will_browse(const struct toolrun_call *c)
{
    const struct toolrun *t = c->t;
    struct buf ignored;
    if (c->state != QUEUED || c->cancelled || !c->args || !c->tool || t->hooks ||
        c->tool->place != TOOL_IN_WEB_CELL ||
        str_starts(json_view(json_object_get(c->args, "id")), STR("spill:")))
        return false;
    buf_init(&ignored, 0);
    enum toolrun_verdict v = toolplace_decide(t->o.policy, NULL, c->tool->name, c->args, &ignored);
    buf_done(&ignored);
    return v == TOOLRUN_ALLOW || (v == TOOLRUN_ASK && c->approved);
}

static json_t *calls_ahead(const struct toolrun_call *c)
{
    enum { MOST = 15 };
    json_t *list = json_array();
    const struct toolrun_call *n = c->next;
    for (; n && will_browse(n) && json_array_size(list) < MOST; n = n->next)
        json_array_append_new(list, json_pack("{s:s, s:O}", "tool", n->tool->name, "args",
                                              n->args));
    return list;
}

/* The driver is ready for the call at the head, or still at work from the one before. */
static void send_request(struct place *p, bool first)
{
    struct toolrun_call *c = running(p);
    struct toolrun *t = p->t;
    if (!c || c->state != STARTING)
        return;
    if (c->cancelled) {
        c->answer.status = TOOL_CANCELLED;
        envelope_status(&c->answer.text, "cancelled before it started");
        c->state = ENDING;
        tooldriver_end(p->driver, t->jobs > 0, t->interp);
        return;
    }
    const struct toolplace_times times = toolplace_times(t->o.policy, c->tool->name,
                                                         t->profile->limits.timeout_s);
    c->state = RUNNING;
    p->used = true;
    c->request = ++t->next_request;
    json_t *o = json_pack("{s:I, s:s, s:O, s:s, s:i, s:i, s:b, s:b, s:i}", "id",
                          (json_int_t)c->request, "tool", c->tool->name, "args", c->args,
                          "profile", t->profile->name, "timeout_s", (int)times.soft_s, "hard_s",
                          (int)times.hard_s, "jobs",
                          times.jobs && toolrun_has(t, STR("job")), "stream",
                          c->streamed, "first_cursor", (int)t->shown.n);
    if (o && c->spill == READ_SPILL) {
        json_object_set_new(o, "tool", json_string("spill"));
        json_object_set_new(o, "args", json_pack("{s:O}", "id", json_object_get(c->args, "id")));
    }
    if (o && c->spill == HAVE_SPILL)
        json_object_set_new(o, "content", json_text(buf_view(&c->content)));
    if (o && first && p == &t->web)
        json_object_set_new(o, "ahead", calls_ahead(c));
    if (!c->outer) /* the outer call has a limit, which holds for both */
        ev_timer_start(t->guard, (patience(c, &times) + GRACE_S) * NS, 0);
    tooldriver_send(p->driver, o);
    json_decref(o);
}

static void on_ready(void *arg)
{
    struct place *p = arg;
    tell_cell(p);
    send_request(p, true);
}

enum tool_status toolrun_status(const char *name)
{
    for (int s = TOOL_OK; s <= TOOL_UNAVAILABLE; s++)
        if (name && strcmp(tool_status_name((enum tool_status)s), name) == 0)
            return (enum tool_status)s;
    return TOOL_UNKNOWN;
}

/* The tool's answer; its fields are believed only within their types and caps. */
static void take_answer(struct toolrun *t, struct toolrun_call *c, const json_t *o)
{
    struct answer *a = &c->answer;
    struct str notices = json_view(json_object_get(o, "notices"));
    const json_t *code = json_object_get(o, "exit_code"), *jobs = json_object_get(o, "jobs");
    const json_t *spill = json_object_get(o, "spill");
    envelope_clean(&a->text, json_view(json_object_get(o, "text")));
    a->status = toolrun_status(json_string_value(json_object_get(o, "status")));
    if (json_is_integer(code))
        a->exit_code = (int)(json_integer_value(code) & 0xff);
    if (json_is_integer(spill))
        a->spill = json_integer_value(spill);
    a->output_bytes = (uint64_t)json_integer_value(json_object_get(o, "output_bytes"));
    a->cut_bytes = (uint64_t)json_integer_value(json_object_get(o, "cut_bytes"));
    a->state_lost |= json_is_true(json_object_get(o, "state_lost"));
    a->undo = json_incref(json_object_get(o, "undo"));
    t->jobs = json_integer_value(jobs) > 0 ? (unsigned)(json_integer_value(jobs) & 0xff) : 0;
    t->interp = (pid_t)(json_integer_value(json_object_get(o, "interp")) & 0x7fffffff);
    if (t->notices.len < 8192)
        envelope_clean(&t->notices, notices);
}

static void on_line(void *arg, const json_t *o)
{
    struct place *p = arg;
    struct toolrun_call *c = running(p);
    struct toolrun *t = p->t;
    const json_t *id = json_object_get(o, "id");
    if (!c || c->state != RUNNING || json_integer_value(id) != c->request)
        return;
    if (json_object_get(o, "ask")) {
        toolnest_question(c, o);
        return;
    }
    if (json_object_get(o, "ran")) {
        toolnest_ran(c, o);
        return;
    }
    const json_t *out = json_object_get(o, "out");
    if (json_is_string(out)) {
        bool second = json_integer_value(json_object_get(o, "stream")) == 2;
        if (c->cbs.on_output)
            c->cbs.on_output(c->cbs.arg, second ? 2 : 1, json_view(out));
        return;
    }
    const json_t *error = json_object_get(o, "error");
    if (json_is_string(error))
        answer_fail(&c->answer, TOOL_UNAVAILABLE, "%s", json_string_value(error));
    else if (c->spill == READ_SPILL &&
             str_is(json_view(json_object_get(o, "status")), "ok"))
        buf_str(&c->content, json_view(json_object_get(o, "text")));
    else
        take_answer(t, c, o);
    if (p == &t->web && c->cancelled && c->answer.status == TOOL_FAILED)
        c->answer.status = TOOL_CANCELLED; /* the page's words for it are in the text */
    if (p == &t->web && c->spill == NO_SPILL && !c->cancelled && c->next && will_browse(c->next)) {
        p->held = true;
        toolrun_done(c);
        return;
    }
    c->state = ENDING;
    tooldriver_end(p->driver, p == &t->work && t->jobs > 0, t->interp);
}

static void start_in_place(struct toolrun_call *c);

static void on_ended(void *arg, const struct cell_ended *e)
{
    struct place *p = arg;
    struct toolrun_call *c = running(p);
    char limits[96];
    if (c && c->state == STARTING) /* it came while the driver was ending */
        tooldriver_begin(p->driver);
    if (!c || c->state != ENDING)
        return;
    if (e && e->limits) {
        /* Which of the cell's limits was met; the exit code alone would not tell. */
        if (c->answer.status == TOOL_OK || c->answer.status == TOOL_FAILED)
            c->answer.status = TOOL_KILLED;
        envelope_status(&c->answer.text, "limit of the cell reached: %s",
                        sandbox_limits_text(e->limits, limits, sizeof limits));
    }
    if (c->spill == READ_SPILL && c->content.len) {
        c->spill = HAVE_SPILL;
        start_in_place(c);
        return;
    }
    toolrun_done(c);
}

static void on_down(void *arg, bool refused, const char *why)
{
    struct place *p = arg;
    struct toolrun_call *c = running(p);
    p->told = false;
    p->held = false;
    if (p == &p->t->work)
        p->t->jobs = 0;
    if (!c)
        return;
    struct answer *a = &c->answer;
    if (c->state == ENDING) { /* the answer is there; only what came after it is lost */
        a->state_lost = true;
    } else if (refused) {
        a->status = TOOL_UNAVAILABLE;
        envelope_clean(&a->text, str_c(why));
        envelope_status(&a->text, "refused: the sandbox could not be set up, nothing ran");
    } else if (a->status == TOOL_TIMED_OUT) {
        a->state_lost = true;
        envelope_status(&a->text, "timed out: %s; shell and interpreter start anew", why);
    } else if (c->cancelled) {
        a->status = TOOL_CANCELLED;
        a->state_lost = true;
        envelope_status(&a->text, "cancelled");
    } else {
        a->status = TOOL_UNKNOWN;
        a->state_lost = true;
        envelope_status(&a->text, "unknown: %s; the call may have had effects; shell and "
                        "interpreter start anew", why);
    }
    toolrun_done(c);
}

/* The cell's way out: without a proxy behind it nothing gets through. */
static void on_proxy(void *arg, int fd)
{
    struct place *p = arg;
    struct toolrun *t = p->t;
    struct err ignored = {0};
    const struct netproxy_opts o = {t->o.ev, t->o.policy, toolrun_audit, t};
    netproxy_free(p->proxy); /* of a cell that is gone */
    p->proxy = NULL;
    if (!t->o.policy || netproxy_new(&p->proxy, &o, &ignored) < 0) {
        close(fd);
        return;
    }
    if (netproxy_add(p->proxy, fd, &ignored) < 0)
        toolrun_audit(t, "{\"event\": \"proxy\", \"error\": \"the listener could not be served\"}");
}

/* The name is one of libseccomp's: letters, digits and _. */
static void on_call(void *arg, const char *name, uint64_t times)
{
    struct place *p = arg;
    char line[128];
    snprintf(line, sizeof line, "{\"event\":\"refused\",\"call\":\"%.31s\",\"times\":%llu}", name,
             (unsigned long long)times);
    toolrun_audit(p->t, line);
}

static const struct tooldriver_cb driver_callbacks = {on_ready, on_line, on_ended, on_down,
                                                      on_call};

static int need_driver(struct place *p, bool web, struct err *err)
{
    struct toolrun *t = p->t;
    struct toolplace *where = NULL;
    if (p->driver)
        return 0;
    int rc = toolplace_make(&where, &t->o, web, err);
    if (rc == 0) {
        const struct tooldriver_opts o = {
            .ev = t->o.ev,
            .spawner = t->o.unconfined ? NULL : t->o.spawner,
            .spec = toolplace_spec(where),
            .argv = toolplace_argv(where),
            .proxy = on_proxy,
            .cb = &driver_callbacks,
            .arg = p,
        };
        rc = tooldriver_new(&p->driver, &o, err);
    }
    toolplace_free(where);
    return rc;
}

/* A Lua tool that names a command becomes a call of bash, in a shell of its own inside. */
static int become_command(struct toolrun_call *c, struct err *err)
{
    struct buf b;
    buf_init(&b, LIMIT_ARGUMENTS_BYTES);
    int rc = toollua_command(c->t->lua, c->tool, c->args, &b, err);
    if (rc == 0) {
        struct buf all;
        buf_init(&all, 0);
        buf_printf(&all, "(\n%s\n)", buf_cstr(&b));
        json_t *args = json_pack("{s:o}", "command", json_text(buf_view(&all)));
        buf_done(&all);
        if (args) {
            json_decref(c->args);
            c->args = args;
            c->tool = tool_find(STR("bash"));
        } else {
            rc = err_nomem(err);
        }
    }
    buf_done(&b);
    return rc;
}

static void start_in_place(struct toolrun_call *c)
{
    struct toolrun *t = c->t;
    struct err err = {0};
    if (toollua_find(t->lua, str_c(c->tool->name)) == c->tool && become_command(c, &err) < 0) {
        answer_fail(&c->answer, TOOL_FAILED, "%s", err.text);
        toolrun_done(c);
        return;
    }
    if (c->spill == NO_SPILL && strcmp(c->tool->name, "open") == 0 &&
        str_starts(json_view(json_object_get(c->args, "id")), STR("spill:")))
        c->spill = READ_SPILL;
    struct place *p = toolrun_place_of(c);
    if (c->outer && p == &t->work) {
        toolnest_lend(c);
        return;
    }
    if (need_driver(p, p == &t->web, &err) < 0) {
        answer_fail(&c->answer, TOOL_UNAVAILABLE, "%s", err.text);
        toolrun_done(c);
        return;
    }
    if (p->used && !tooldriver_is_up(p->driver))
        c->answer.state_lost = true;
    c->state = STARTING;
    if (p->held) {
        p->held = false;
        send_request(p, false);
    } else {
        tooldriver_begin(p->driver);
    }
}

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

/* --- one call ----------------------------------------------------------------------------- */

static void run_in_daemon(struct toolrun_call *c)
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
        run_in_daemon(c);
    else
        start_in_place(c);
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
    if (c->tool && parse_args(tool, schema, args, &c->args, &err) < 0)
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
        rc = ev_timer_new(&t->guard, o->ev, on_guard, t, err);
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

void toolrun_warm(struct toolrun *t)
{
    struct err ignored = {0};
    bool works = false;
    for (unsigned i = 0; t->profile->tools[i]; i++)
        works |= tool_find(str_c(t->profile->tools[i]))->place == TOOL_IN_CELL;
    if (works && !t->queue && need_driver(&t->work, false, &ignored) == 0 &&
        !tooldriver_is_up(t->work.driver))
        tooldriver_begin(t->work.driver);
}

const struct tool_profile *toolrun_profile(const struct toolrun *t)
{
    return t->profile;
}

const struct tool *toolrun_tool(const struct toolrun *t, unsigned i, const char **schema)
{
    unsigned n = 0, seen = 0;
    while (t->profile->tools[n])
        n++;
    for (unsigned k = 0;; k++) {
        const struct tool *row =
            k < n ? tool_find(str_c(t->profile->tools[k])) : toollua_at(t->lua, k - n);
        if (row && (!wanted(t, str_c(row->name)) || seen++ < i))
            continue;
        *schema = row ? tool_schema(t->profile, row) : NULL;
        return row;
    }
}

bool toolrun_has(const struct toolrun *t, struct str name)
{
    const char *schema;
    return toolrun_find(t, name, &schema) != NULL;
}

json_t *toolrun_schemas(const struct toolrun *t)
{
    struct err ignored = {0};
    const char *schema;
    json_t *v = NULL;
    struct buf b;
    buf_init(&b, 0);
    buf_putc(&b, '[');
    for (unsigned i = 0; toolrun_tool(t, i, &schema); i++)
        buf_printf(&b, "%s{\"type\": \"function\", \"function\": %s}", i ? ", " : "", schema);
    buf_putc(&b, ']');
    if (b.failed || json_read(&v, buf_view(&b), &ignored) < 0)
        v = NULL;
    buf_done(&b);
    return v;
}

bool toolrun_args(const struct toolrun *t, const char *tool, struct str args, json_t **out)
{
    struct err ignored = {0};
    const char *schema;
    return toolrun_find(t, str_c(tool), &schema) &&
           parse_args(tool, schema, args, out, &ignored) == 0;
}

enum toolrun_verdict toolrun_check(struct toolrun *t, const char *tool, const char *args,
                                   struct buf *why)
{
    json_t *v = NULL;
    if (!toolrun_args(t, tool, str_c(args), &v))
        return TOOLRUN_ALLOW;
    enum toolrun_verdict verdict = toolplace_decide(t->o.policy, t->hooks, tool, v, why);
    json_decref(v);
    return verdict;
}

void toolrun_note_result(struct toolrun *t, const char *tool, struct str text)
{
    const struct tool *row = tool_find(str_c(tool));
    if (row && row->place == TOOL_IN_WEB_CELL)
        toolfinish_note_page(&t->shown, text);
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

int toolrun_layer(const struct toolrun *t, int64_t *since)
{
    *since = t->taken_ns;
    return t->work.driver ? tooldriver_layer(t->work.driver) : -1;
}

void toolrun_layer_taken(struct toolrun *t)
{
    t->taken_ns = (io_wall_ms() + 1) * 1000000; /* the file system's clock lags, not leads */
}

void toolrun_drop_layer(struct toolrun *t)
{
    tooldriver_free(t->work.driver);
    netproxy_free(t->work.proxy);
    t->work = (struct place){.t = t, .used = t->work.used};
    t->jobs = 0;
    t->taken_ns = 0;
}
