/*
 * toolcell.c - the two cells in which calls run: each is made when first needed, its driver gets
 * requests and sends lines, and whatever it does ends a call exactly once.
 *
 *   STARTING -(ready)-> RUNNING -(answer)-> ENDING -(ended)-> done
 *   from any of them -(down)-> done
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agentd/netproxy.h"
#include "agentd/tooldriver.h"
#include "agentd/toollua.h"
#include "agentd/toolplace.h"
#include "agentd/toolrun_impl.h"
#include "base/io.h"
#include "base/limits.h"

enum { GRACE_S = 10, WEB_S = 240 };
#define NS 1000000000LL

/* Where a call is at the moment. */
struct place *toolrun_place_of(const struct toolrun_call *c)
{
    bool web = c->tool->place == TOOL_IN_WEB_CELL && c->spill != READ_SPILL;
    return web ? &c->t->web : &c->t->work;
}

const char *toolcell_level(const struct toolrun_call *c)
{
    if (!c->tool || c->tool->place == TOOL_IN_DAEMON || c->state == QUEUED)
        return "daemon"; /* nothing left it */
    const struct place *p = toolrun_place_of(c);
    return p->driver ? tooldriver_level(p->driver) : "unknown";
}

bool toolrun_keeps_state(const struct tool *tool)
{
    static const char *const names[] = {"bash", "python", "job"};
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(tool->name, names[i]) == 0)
            return true;
    return false;
}

static struct toolrun_call *running(const struct place *p)
{
    struct toolrun_call *const at[] = {p->t->nested, p->t->queue};
    for (unsigned i = 0; i < ARRAY_LEN(at); i++)
        if (at[i] && at[i]->state != QUEUED && at[i]->state != HOOKED && at[i]->tool &&
            toolrun_place_of(at[i]) == p)
            return at[i];
    return NULL;
}

void toolcell_guard(void *arg)
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
        int64_t asked = json_integer_value(json_object_get(c->args, keys[i]));
        if (asked > 0)
            s = asked;
    }
    return s < times->hard_s ? s : times->hard_s;
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
    if (toolrun_keeps_state(c->tool)) {
        c->answer.state_lost |= p->lost;
        p->lost = false;
        p->used = true;
    }
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
    if (a->state_lost) /* before this call, and the model may count on it */
        buf_puts(&a->text, "[shell and interpreter were started anew: what earlier calls set in "
                           "them is gone]\n");
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
        toolcell_start(c);
        return;
    }
    toolrun_done(c);
}

static void cell_is_gone(struct place *p)
{
    p->told = false;
    p->held = false;
    p->lost |= p->used;
    p->used = false;
    if (p == &p->t->work)
        p->t->jobs = 0;
}

/* Makes the driver ready; a cell that ended between calls did so without a word. */
static void begin(struct place *p)
{
    if (!tooldriver_is_up(p->driver))
        cell_is_gone(p);
    tooldriver_begin(p->driver);
}

static void on_down(void *arg, enum tooldriver_loss loss, const char *why)
{
    struct place *p = arg;
    struct toolrun_call *c = running(p);
    cell_is_gone(p);
    if (!c)
        return;
    struct answer *a = &c->answer;
    if (c->state == ENDING) { /* the answer is there; only what came after it is lost */
        a->state_lost = true;
    } else if (loss == TOOLDRIVER_REFUSED) {
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
    } else if (loss == TOOLDRIVER_UNREAD && !c->again) { /* its cell was dead already */
        c->again = true;
        ev_timer_stop(p->t->guard);
        toolcell_start(c);
        return;
    } else if (loss == TOOLDRIVER_UNREAD) {
        a->status = TOOL_UNAVAILABLE;
        envelope_status(&a->text, "unavailable: %s, twice before it had read the call; "
                        "nothing ran", why);
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

void toolcell_start(struct toolrun_call *c)
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
    c->state = STARTING;
    if (p->held) {
        p->held = false;
        send_request(p, false);
    } else {
        begin(p);
    }
}

void toolrun_warm(struct toolrun *t)
{
    struct err ignored = {0};
    bool works = false;
    for (unsigned i = 0; t->profile->tools[i]; i++)
        works |= tool_find(str_c(t->profile->tools[i]))->place == TOOL_IN_CELL;
    if (works && !t->queue && need_driver(&t->work, false, &ignored) == 0 &&
        !tooldriver_is_up(t->work.driver))
        begin(&t->work);
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
    t->work.driver = NULL;
    t->work.proxy = NULL;
    cell_is_gone(&t->work);
    t->taken_ns = 0;
}
