/* serve.c - the line protocol around a toolbox. */
#include "tools/serve.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"
#include "tools/schema.h"

struct serve {
    const struct serve_opts *o;
    struct toolbox *box;
    struct buf in;
    char *workspace; /* owned: as the last request named it */
    bool failed;     /* the other side is gone */
    int64_t questions; /* asked so far */
};

/* One request's fields. */
struct request {
    int64_t id, timeout_s, hard_s, first_cursor;
    struct str tool, profile, workspace, index, content;
    json_t *ahead;
    bool reset, jobs, stream, has_jobs;
};

static void send_line(struct serve *s, json_t *o)
{
    struct err err = {0};
    struct buf b;
    buf_init(&b, 0);
    if (!o || json_write(o, &b, &err) < 0)
        s->failed = true;
    buf_putc(&b, '\n');
    if (!s->failed && (b.failed || io_write_full(s->o->out, b.data, b.len, &err) < 0))
        s->failed = true;
    buf_done(&b);
    json_decref(o);
}

static void send_error(struct serve *s, int64_t id, const char *text)
{
    send_line(s, json_pack("{s:I, s:o}", "id", (json_int_t)id, "error", json_text(str_c(text))));
}

struct watcher {
    struct serve *s;
    int64_t id;
};

static void on_output(void *arg, int stream, struct str piece)
{
    struct watcher *w = arg;
    struct buf b;
    buf_init(&b, 0);
    envelope_clean(&b, piece);
    send_line(w->s, json_pack("{s:I, s:o, s:i}", "id", (json_int_t)w->id, "out",
                              json_text(buf_view(&b)), "stream", stream));
    buf_done(&b);
}

static void send_answer(struct serve *s, int64_t id, const struct answer *a, int64_t ns)
{
    struct buf notices;
    bool bad = a->status != TOOL_OK && a->status != TOOL_RUNNING;
    json_t *o = json_pack("{s:I, s:o, s:s, s:b}", "id", (json_int_t)id, "text",
                          json_text(buf_view(&a->text)), "status", tool_status_name(a->status),
                          "is_error", bad);
    if (o && a->exit_code >= 0)
        json_object_set_new(o, "exit_code", json_integer(a->exit_code));
    if (o && a->output_bytes)
        json_object_set_new(o, "output_bytes", json_integer((json_int_t)a->output_bytes));
    if (o && a->cut_bytes)
        json_object_set_new(o, "cut_bytes", json_integer((json_int_t)a->cut_bytes));
    if (o && a->spill >= 0)
        json_object_set_new(o, "spill", json_integer(a->spill));
    if (o && a->state_lost)
        json_object_set_new(o, "state_lost", json_true());
    if (o && a->undo)
        json_object_set(o, "undo", a->undo);
    if (o && toolbox_jobs(s->box))
        json_object_set_new(o, "jobs", json_integer(toolbox_jobs(s->box)));
    if (o && toolbox_interp(s->box) > 0)
        json_object_set_new(o, "interp", json_integer(toolbox_interp(s->box)));
    buf_init(&notices, 4096);
    toolbox_notices(s->box, &notices);
    if (o && notices.len)
        json_object_set_new(o, "notices", json_text(buf_view(&notices)));
    buf_done(&notices);
    if (o)
        json_object_set_new(o, "us", json_integer(ns / 1000));
    send_line(s, o);
}

/* Takes the line at the front of `b` if it answers question n: 1; 0 when it is another's. */
static int take_line(struct buf *b, size_t nl, int64_t n, json_t **answer, struct err *err)
{
    json_t *o = NULL;
    int rc = json_read(&o, str_sub(buf_view(b), 0, nl), err);
    buf_consume(b, nl + 1);
    if (rc < 0)
        return rc;
    if (json_object_get(o, "cancel"))
        rc = err_set(err, ERR_CANCELLED, "cancelled");
    else if (json_integer_value(json_object_get(o, "answer")) == n)
        rc = 1;
    if (rc == 1)
        *answer = o;
    else
        json_decref(o);
    return rc;
}

/* Within a call: sends a question up and waits for its answer. */
static int ask(void *arg, json_t *question, int64_t deadline, json_t **answer, struct err *err)
{
    struct watcher *w = arg;
    struct serve *s = w->s;
    struct buf in;
    int rc = 0;
    int64_t n = ++s->questions;
    if (question)
        json_object_set_new(question, "n", json_integer(n));
    if (question)
        json_object_set_new(question, "id", json_integer((json_int_t)w->id));
    send_line(s, question);
    buf_init(&in, LIMIT_LINE_BYTES);
    while (rc == 0 && !s->failed) {
        char chunk[65536];
        size_t nl = str_find(buf_view(&in), STR("\n"), 0);
        int64_t left = (deadline - io_mono_ns()) / 1000000;
        struct pollfd p = {s->o->in, POLLIN, 0};
        if (nl != STR_NONE) {
            rc = take_line(&in, nl, n, answer, err);
            continue;
        }
        if (left <= 0)
            rc = err_set(err, ERR_TIMEOUT, "the call's time is over");
        else if (poll(&p, 1, left < 60000 ? (int)left + 1 : 60000) <= 0)
            continue;
        ssize_t r = rc == 0 ? read(s->o->in, chunk, sizeof chunk) : 0;
        if (r > 0)
            buf_add(&in, chunk, (size_t)r);
        else if (rc == 0 && !(r < 0 && (errno == EINTR || errno == EAGAIN)))
            s->failed = true;
        if (rc == 0)
            rc = buf_check(&in, "answer", err);
    }
    buf_str(&s->in, buf_view(&in)); /* what came behind the answer is a request's */
    buf_done(&in);
    return rc == 1 ? 0 : s->failed ? err_set(err, ERR_STATE, "nobody answers any more") : rc;
}

static void tell(void *arg, json_t *news)
{
    struct watcher *w = arg;
    if (news)
        json_object_set_new(news, "id", json_integer((json_int_t)w->id));
    send_line(w->s, news);
}

/* Another workspace, or a wish to: all state goes. */
static int enter_workspace(struct serve *s, const struct request *q, struct err *err)
{
    bool other = q->workspace.n && (!s->workspace || !str_is(q->workspace, s->workspace));
    int rc = 0;
    if (!other)
        return q->reset ? toolbox_reset(s->box, NULL, err) : 0;
    char *name = mem_strdup(q->workspace);
    if (!name)
        return err_nomem(err);
    mem_free(s->workspace);
    s->workspace = name;
    if (s->o->as_workspace) {
        rc = toolbox_reset(s->box, "/", err); /* lets go of the old mount */
        if (rc == 0)
            rc = workspace_show(name, err);
    }
    if (rc == 0)
        rc = toolbox_reset(s->box, s->o->as_workspace ? "/workspace" : name, err);
    if (rc < 0) {
        mem_free(s->workspace);
        s->workspace = NULL;
    }
    return rc;
}

/* Ours alone: it is in no profile. */
static const struct tool spill_tool = {
    .name = "spill",
    .schema = "{\"parameters\": {\"type\": \"object\", \"properties\": {\"id\": {\"type\": "
              "\"string\"}}, \"required\": [\"id\"]}}",
    .place = TOOL_IN_CELL,
};

static int check_args(const struct tool *t, const struct tool_profile *p, json_t *o,
                      json_t **args, struct err *err)
{
    struct buf b;
    json_t *given = json_object_get(o, "args");
    if (json_is_string(given))
        return schema_parse_args(t->name, tool_schema(p, t), json_view(given), args, err);
    buf_init(&b, 0);
    int rc = given ? json_write(given, &b, err) : 0;
    if (rc == 0)
        rc = schema_parse_args(t->name, tool_schema(p, t), buf_view(&b), args, err);
    buf_done(&b);
    return rc;
}

static void run_tool(struct serve *s, const struct request *q, json_t *o)
{
    const struct tool *t = str_is(q->tool, spill_tool.name) ? &spill_tool : tool_find(q->tool);
    const struct tool_profile *p = tool_profile_find(q->profile);
    struct err err = {0};
    json_t *args = NULL;
    if (!t || !p) {
        char text[160];
        snprintf(text, sizeof text, "no %s '%.*s'", t ? "profile" : "tool",
                 STR_ARG(str_sub(t ? q->profile : q->tool, 0, 60)));
        send_error(s, q->id, text);
        return;
    }
    struct answer a;
    struct watcher w = {s, q->id};
    int64_t began = io_mono_ns();
    answer_init(&a);
    if (check_args(t, p, o, &args, &err) < 0) {
        envelope_clean(&a.text, str_c(err.text));
        envelope_status(&a.text, "invalid arguments");
        a.status = TOOL_INVALID;
    } else {
        const struct toolbox_request r = {
            .tool = t->name,
            .args = args,
            .limits = &p->limits,
            .timeout_s = (uint32_t)q->timeout_s,
            .hard_s = (uint32_t)q->hard_s,
            .first_cursor = (uint32_t)q->first_cursor,
            .content = q->content,
            .ahead = q->ahead,
            .jobs = q->has_jobs ? q->jobs : tool_profile_has(p, STR("job")),
            .on_output = q->stream ? on_output : NULL,
            .ask = s->o->cancels ? ask : NULL, /* those who can be asked can cancel too */
            .tell = s->o->cancels ? tell : NULL,
            .arg = &w,
            .cancel_fd = s->o->cancels ? s->o->in : -1,
        };
        toolbox_call(s->box, &r, &a);
    }
    send_answer(s, q->id, &a, io_mono_ns() - began);
    answer_done(&a);
    json_decref(args);
}

static int read_request(const struct serve *s, json_t *o, struct request *q,
                        struct err *err)
{
    enum { DAY_S = 86400 };
    *q = (struct request){.profile = str_c(s->o->profile)};
    q->has_jobs = json_object_get(o, "jobs") != NULL;
    int rc = json_opt_int(o, "id", 0, INT64_MAX, &q->id, err);
    if (rc == 0)
        rc = json_opt_str(o, "tool", &q->tool, err);
    if (rc == 0)
        rc = json_opt_str(o, "profile", &q->profile, err);
    if (rc == 0)
        rc = json_opt_str(o, "workspace", &q->workspace, err);
    if (rc == 0)
        rc = json_opt_str(o, "index", &q->index, err);
    if (rc == 0)
        rc = json_opt_str(o, "content", &q->content, err);
    if (rc == 0)
        rc = json_opt_int(o, "timeout_s", 0, DAY_S, &q->timeout_s, err);
    if (rc == 0)
        rc = json_opt_int(o, "hard_s", 0, DAY_S, &q->hard_s, err);
    if (rc == 0)
        rc = json_opt_int(o, "first_cursor", 0, LIMIT_PAGES, &q->first_cursor, err);
    if (rc == 0)
        rc = json_opt_arr(o, "ahead", &q->ahead, err);
    if (rc == 0)
        rc = json_opt_bool(o, "reset", &q->reset, err);
    if (rc == 0)
        rc = json_opt_bool(o, "jobs", &q->jobs, err);
    return rc == 0 ? json_opt_bool(o, "stream", &q->stream, err) : rc;
}

/* `more`: another line lies behind this one already. */
static void handle(struct serve *s, struct str line, bool more)
{
    struct err err = {0};
    struct request q = {0};
    json_t *o = NULL;
    if (json_read(&o, line, &err) < 0 || !json_is_object(o)) {
        send_error(s, 0, o ? "a request is a JSON object" : err.text);
        json_decref(o);
        return;
    }
    /* Came too late: the call has ended. */
    if (json_object_get(o, "cancel") || json_object_get(o, "answer")) {
        json_decref(o);
        return;
    }
    int rc = read_request(s, o, &q, &err);
    if (rc == 0)
        rc = enter_workspace(s, &q, &err);
    if (rc == 0 && q.index.n)
        rc = toolbox_set_index(s->box, q.index.p, &err);
    if (rc < 0)
        send_error(s, q.id, err.text);
    else if (q.tool.n && more && s->o->cancels)
        send_line(s, json_pack("{s:I, s:s, s:s, s:b}", "id", (json_int_t)q.id, "text",
                               "[cancelled before it started]", "status", "cancelled",
                               "is_error", true));
    else if (q.tool.n)
        run_tool(s, &q, o);
    else
        send_line(s, json_pack("{s:I, s:b}", "id", (json_int_t)q.id, "reset", q.reset));
    json_decref(o);
}

/* The next line is at the front of s->in; its length, or STR_NONE at the end of input. */
static size_t next_line(struct serve *s, struct err *err)
{
    size_t seen = 0;
    for (;;) {
        size_t nl = str_find(buf_view(&s->in), STR("\n"), seen);
        char chunk[65536];
        if (nl != STR_NONE)
            return nl;
        seen = s->in.len;
        toolbox_wait(s->box, s->o->in);
        ssize_t r = read(s->o->in, chunk, sizeof chunk);
        if (r < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (r <= 0)
            return STR_NONE;
        buf_add(&s->in, chunk, (size_t)r);
        if (buf_check(&s->in, "request line", err) < 0)
            return STR_NONE;
    }
}

int serve_run(const struct serve_opts *o, struct err *err)
{
    struct serve s = {.o = o};
    int rc = o->as_workspace ? workspace_enter(err) : 0;
    /* What runs beside us must not read our memory through /proc. Not before: without privilege
     * the maps of a new namespace can be written only while /proc/self is our own. */
    prctl(PR_SET_DUMPABLE, 0);
    if (rc == 0)
        rc = toolbox_new(&s.box, &o->box, err);
    if (rc < 0)
        return rc;
    buf_init(&s.in, LIMIT_LINE_BYTES);
    *err = (struct err){0};
    for (size_t n; !s.failed && (n = next_line(&s, err)) != STR_NONE; buf_consume(&s.in, n + 1))
        if (str_trim(str_sub(buf_view(&s.in), 0, n)).n)
            handle(&s, str_sub(buf_view(&s.in), 0, n), s.in.len > n + 1);
    toolbox_free(s.box);
    buf_done(&s.in);
    mem_free(s.workspace);
    return err->code ? -err->code : 0;
}
