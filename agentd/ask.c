/*
 * ask.c - approvals: who decides that a call may run, and how the question survives. What
 * ask_user asks goes the same way (question.c): an event, an answer from anywhere, a deadline.
 *
 * The policy's verdict comes from toolrun; the session's approvalPolicy may only narrow it.
 * A question is a durable event that any authorised client may answer; the first answer
 * wins. "allow_session" becomes part of the session's configuration, so it is logged,
 * shown by session.get and revocable by session.update; "allow_always" is a note in the
 * store, valid for every session of the same working folder.
 */
#include <stdio.h>
#include <string.h>

#include "agentd/log.h"
#include "agentd/loop_in.h"
#include "base/io.h"

/* What a rule covers: a plain shell command by its first word, one that is more than that
 * (lists, pipes, substitutions, redirections) as a whole, an edit by its path, else the tool.
 * "bash:git", "bash:git log | head", "str_replace_editor:/workspace/a.c", "search". */
static void rule_of(const struct call *c, struct buf *out)
{
    struct err err;
    json_t *args = NULL;
    buf_str(out, buf_view(&c->name));
    if (json_read(&args, buf_view(&c->args), &err) < 0)
        return;
    struct str command = json_view(json_object_get(args, "command")), word = {0};
    struct str path = json_view(json_object_get(args, "path"));
    command = str_trim(command);
    bool plain = true;
    for (size_t i = 0; i < command.n; i++)
        plain &= !strchr(";|&`$()<>{}\n\\", command.p[i]);
    if (plain)
        str_split(&command, ' ', &word);
    else
        word = command;
    if (path.n)
        buf_printf(out, ":%.*s", STR_ARG(path));
    else if (word.n)
        buf_printf(out, ":%.*s", STR_ARG(word));
    json_decref(args);
}

static bool listed(const json_t *rules, struct str rule)
{
    size_t i;
    json_t *r;
    json_array_foreach(rules, i, r)
        if (str_eq(json_view(r), rule))
            return true;
    return false;
}

static json_t *always_rules(struct session *s)
{
    struct err err;
    struct buf b;
    json_t *all = NULL;
    buf_init(&b, 1 << 20);
    if (store_note_get(s->d->store, "rules", &b, &err) == 0)
        (void)!json_read(&all, buf_view(&b), &err);
    buf_done(&b);
    return all ? all : json_object();
}

static bool remembered(struct session *s, struct str rule)
{
    if (listed(json_object_get(s->config, "rules"), rule))
        return true;
    json_t *all = always_rules(s);
    bool yes = listed(json_object_get(all, s->cwd), rule);
    json_decref(all);
    return yes;
}

static int remember(struct session *s, struct str rule, bool always, struct err *err)
{
    if (!always) {
        json_t *rules = json_deep_copy(json_object_get(s->config, "rules"));
        json_t *change = json_object();
        if (!rules)
            rules = json_array();
        json_array_append_new(rules, json_text(rule));
        json_object_set_new(change, "rules", rules);
        int rc = session_update(s, change, err);
        json_decref(change);
        return rc;
    }
    struct buf b;
    json_t *all = always_rules(s), *here = json_object_get(all, s->cwd);
    if (!here) {
        here = json_array();
        json_object_set_new(all, s->cwd, here);
    }
    if (!listed(here, rule))
        json_array_append_new(here, json_text(rule));
    buf_init(&b, 1 << 20);
    int rc = json_write(all, &b, err);
    if (rc == 0)
        rc = store_note_set(s->d->store, "rules", buf_view(&b), err);
    buf_done(&b);
    json_decref(all);
    return rc;
}

static const struct {
    const char *id, *name;
    bool allow;
} options[] = {
    {"allow_once", "Allow this call", true},
    {"allow_session", "Allow such calls in this session", true},
    {"allow_always", "Allow such calls in this folder from now on", true},
    {"deny", "Deny this call", false},
    {"deny_and_stop", "Deny and end the turn", false},
};

static const char *kind_of(const struct call *c)
{
    struct str name = buf_view(&c->name);
    if (str_is(name, "bash") || str_is(name, "python"))
        return "exec";
    if (str_is(name, "str_replace_editor") || str_is(name, "apply_patch"))
        return "write";
    if (str_is(name, "search") || str_is(name, "open"))
        return "network";
    return "other";
}

json_t *ask_request(struct turn *t, struct call *c, const char *kind, struct str title,
                    struct str why, json_t *choices)
{
    id_new(c->approval);
    c->expires_ms = io_wall_ms() + t->s->d->config.approval_ms;
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:{s:o, s:o, s:s}, s:o, s:o, s:I}", "approvalId",
                     c->approval, "turnId", t->id, "callId", c->id, "kind", kind, "title",
                     json_text(title), "detail", "tool", json_text(buf_view(&c->name)),
                     "arguments", json_text(buf_view(&c->args)), "cwd", t->s->cwd, "reason",
                     json_text(why), "options", choices, "expiresAt",
                     (json_int_t)c->expires_ms);
}

static int request(struct turn *t, struct call *c, struct str rule, struct str why,
                   struct err *err)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < ARRAY_LEN(options); i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "optionId", options[i].id,
                                              "kind", options[i].id, "name", options[i].name));
    return session_log(t->s, t->id, c->item, "approval.requested",
                       ask_request(t, c, kind_of(c), rule, why, list), err);
}

/* The configuration's word for a question that nobody is there to see. */
static bool nobody_there(struct turn *t)
{
    struct daemon *d = t->s->d;
    if (d->config.unattended == CONFIG_WAIT || feed_watched(d->feed, str_c(t->s->id)))
        return false;
    if (d->config.unattended == CONFIG_FAIL) {
        t->end = "refusal";
        t->limit = "approval";
    }
    return true;
}

static enum ask_verdict ask_question(struct turn *t, struct call *c, struct buf *result,
                                     const char **status, struct err *err)
{
    if (!nobody_there(t))
        return question_request(t, c, err) < 0 ? ASK_BROKEN : ASK_WAIT;
    json_decref(c->questions);
    c->questions = NULL;
    *status = "unavailable";
    envelope_status(result, "no answer: nobody is there to ask; decide yourself and say what "
                            "you assumed");
    return ASK_DENY;
}

enum ask_verdict ask_about(struct turn *t, struct call *c, struct buf *result,
                           const char **status, struct err *err)
{
    struct session *s = t->s;
    struct buf why, rule;
    enum ask_verdict verdict = ASK_GO;
    if (c->approved || !s->tools)
        return ASK_GO;
    buf_init(&why, 4096);
    buf_init(&rule, 8192);
    enum toolrun_verdict v = toolrun_check(s->tools, buf_cstr(&c->name), buf_cstr(&c->args), &why);
    const struct tool *tool = tool_find(buf_view(&c->name));
    bool ask = v == TOOLRUN_ASK ||
               (s->approval == APPROVE_ALWAYS && tool && !tool->reads_only && v != TOOLRUN_DENY);
    rule_of(c, &rule);
    if (v != TOOLRUN_DENY && question_of(t, c)) {
        verdict = ask_question(t, c, result, status, err);
    } else if (!ask) {
        verdict = ASK_GO; /* denied calls go on too: toolrun says why in their result */
    } else if (remembered(s, buf_view(&rule))) {
        c->approved = true;
    } else if (s->approval == APPROVE_NEVER || nobody_there(t)) {
        envelope_status(result, "denied: this call was not approved; do without it or ask for "
                                "something else");
        verdict = ASK_DENY;
    } else {
        bool asked = request(t, c, buf_view(&rule), buf_view(&why), err) == 0;
        verdict = asked ? ASK_WAIT : ASK_BROKEN;
    }
    buf_done(&why);
    buf_done(&rule);
    return verdict;
}

/* The question is over; the call is to be decided about anew, or answered. */
static int resolve(struct turn *t, struct call *c, const char *outcome,
                   const struct loop_answer *a, struct err *err)
{
    json_t *data = json_pack("{s:s, s:s, s:s}", "approvalId", c->approval, "callId", c->id,
                             "outcome", outcome);
    if (a && a->who)
        json_object_set(data, "by", (json_t *)(uintptr_t)a->who);
    if (a && a->answers && c->questions)
        json_object_set(data, "answers", (json_t *)(uintptr_t)a->answers);
    c->state = CALL_NEW;
    return session_log(t->s, t->id, c->item, "approval.resolved", data, err);
}

void ask_cancel(struct turn *t, const char *outcome)
{
    struct err err;
    for (uint32_t i = 0; i < t->n_calls; i++)
        if (t->call[i].state == CALL_ASKING && resolve(t, &t->call[i], outcome, NULL, &err) < 0)
            LOGE("ask", "turn=%s error=\"%s\"", t->id, err.text);
    if (t->state == TURN_ASK)
        loop_to(t, TURN_CALL);
}

/* The call ends with this text instead of running. */
static int give(struct turn *t, struct call *c, const char *text, const char *status,
                struct err *err)
{
    bool error = strcmp(status, "ok") != 0;
    c->state = CALL_DONE;
    json_decref(c->questions);
    c->questions = NULL;
    return call_log_result(t->s, t->id, t->step, c->id, buf_cstr(&c->name), str_c(text), status,
                           json_pack("{s:b}", "isError", (int)error), err);
}

void ask_expire(struct turn *t)
{
    struct err err;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < t->n_calls; i++) {
        struct call *c = &t->call[i];
        if (c->state != CALL_ASKING)
            continue;
        bool question = c->questions != NULL;
        rc = resolve(t, c, "expired", NULL, &err);
        if (rc == 0 && question)
            rc = give(t, c, "[no answer: the user did not answer in time; decide yourself and "
                            "say what you assumed]", "timed_out", &err);
        else if (rc == 0)
            rc = give(t, c, "[denied: nobody answered in time]", "denied", &err);
    }
    loop_to(t, TURN_CALL);
    if (rc == 0 && !t->s->tools)
        rc = session_tools(t->s, &err);
    if (rc < 0)
        loop_broken(t, &err);
    else
        calls_pump(t);
}

static struct call *find(struct daemon *d, struct str approval, int64_t uid)
{
    for (struct session *s = d->sessions; s; s = s->next)
        for (uint32_t i = 0; s->turn && i < s->turn->n_calls; i++)
            if (s->turn->call[i].state == CALL_ASKING && (uid < 0 || uid == s->uid) &&
                str_is(approval, s->turn->call[i].approval))
                return &s->turn->call[i];
    return NULL;
}

/* A question: answered or declined; the result says it. */
static int answer_question(struct turn *t, struct call *c, const struct loop_answer *a,
                           struct err *err)
{
    bool stop = str_is(a->option, "deny_and_stop"), no = stop || str_is(a->option, "deny");
    char outcome[32];
    struct buf text;
    if (!no && !str_is(a->option, "answer") && !str_is(a->option, "allow_once"))
        return err_set(err, ERR_PARSE, "optionId is answer, deny or deny_and_stop");
    buf_init(&text, LIMIT_LINE_BYTES);
    snprintf(outcome, sizeof outcome, "%s", no ? (stop ? "deny_and_stop" : "deny") : "answer");
    int rc = 0;
    if (no)
        buf_puts(&text, "[no answer: the user declined to answer]");
    else
        rc = question_answer(c, a, &text, err);
    if (rc == 0)
        rc = resolve(t, c, outcome, a, err);
    if (rc == 0)
        rc = give(t, c, buf_cstr(&text), no ? "denied" : "ok", err);
    if (rc == 0 && stop)
        loop_interrupt(t, false);
    buf_done(&text);
    return rc;
}

static int answer_approval(struct turn *t, struct call *c, const struct loop_answer *a,
                           struct err *err)
{
    unsigned i = 0;
    while (i < ARRAY_LEN(options) && !str_is(a->option, options[i].id))
        i++;
    if (i == ARRAY_LEN(options))
        return err_set(err, ERR_PARSE,
                       "optionId is allow_once, allow_session, allow_always, deny or "
                       "deny_and_stop");
    struct buf rule;
    int rc = resolve(t, c, options[i].id, a, err);
    buf_init(&rule, 8192);
    rule_of(c, &rule);
    if (rc == 0 && (str_is(a->option, "allow_session") || str_is(a->option, "allow_always")))
        rc = remember(t->s, buf_view(&rule), str_is(a->option, "allow_always"), err);
    buf_done(&rule);
    if (rc < 0)
        return rc;
    c->approved = options[i].allow;
    if (!c->approved)
        rc = give(t, c, "[denied: the user refused this call]", "denied", err);
    if (rc == 0 && str_is(a->option, "deny_and_stop"))
        loop_interrupt(t, false);
    return rc;
}

int loop_approve(struct daemon *d, const struct loop_answer *a, struct err *err)
{
    struct call *c = find(d, a->approval, a->uid);
    if (!c)
        return err_set(err, ERR_NOTFOUND, "no approval '%.*s' waits for an answer",
                       STR_ARG(a->approval));
    struct turn *t = c->turn;
    int rc = session_tools(t->s, err); /* a turn that waited since another daemon has none */
    if (rc == 0)
        rc = c->questions ? answer_question(t, c, a, err) : answer_approval(t, c, a, err);
    if (rc < 0)
        return rc;
    if (t->state == TURN_ASK)
        loop_to(t, TURN_CALL);
    calls_pump(t);
    return rc;
}
