/*
 * ask.c - approvals: who decides that a call may run, and how the question survives.
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

/* What a rule covers: a shell command by its first word, an edit by its path, else the
 * tool. "bash:git", "str_replace_editor:/workspace/a.c", "search". */
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
    str_split(&command, ' ', &word);
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

static int request(struct turn *t, struct call *c, struct str why, struct err *err)
{
    struct daemon *d = t->s->d;
    struct buf rule;
    json_t *list = json_array();
    for (unsigned i = 0; i < ARRAY_LEN(options); i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "optionId", options[i].id,
                                              "kind", options[i].id, "name", options[i].name));
    id_new(c->approval);
    buf_init(&rule, 8192);
    rule_of(c, &rule);
    json_t *data = json_pack(
        "{s:s, s:s, s:s, s:s, s:o, s:{s:o, s:o, s:s}, s:o, s:o, s:I}", "approvalId", c->approval,
        "turnId", t->id, "callId", c->id, "kind", kind_of(c), "title", json_text(buf_view(&rule)),
        "detail", "tool", json_text(buf_view(&c->name)), "arguments",
        json_text(buf_view(&c->args)), "cwd", t->s->cwd, "reason", json_text(why), "options",
        list, "expiresAt", (json_int_t)(io_wall_ms() + d->config.approval_ms));
    buf_done(&rule);
    return session_log(t->s, t->id, c->item, "approval.requested", data, err);
}

enum ask_verdict ask_about(struct turn *t, struct call *c)
{
    struct session *s = t->s;
    struct daemon *d = s->d;
    struct buf why, rule;
    struct err err;
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
    if (!ask) {
        verdict = ASK_GO; /* denied calls go on too: toolrun says why in their result */
    } else if (remembered(s, buf_view(&rule))) {
        c->approved = true;
    } else if (s->approval == APPROVE_NEVER) {
        verdict = ASK_DENY;
    } else if (d->config.unattended == CONFIG_DENY && !feed_watched(d->feed, str_c(s->id))) {
        verdict = ASK_DENY;
    } else if (d->config.unattended == CONFIG_FAIL && !feed_watched(d->feed, str_c(s->id))) {
        t->end = "refusal";
        t->limit = "approval";
        verdict = ASK_DENY;
    } else if (request(t, c, buf_view(&why), &err) < 0) {
        loop_broken(t, &err);
        verdict = ASK_DENY;
    } else {
        verdict = ASK_WAIT;
    }
    buf_done(&why);
    buf_done(&rule);
    return verdict;
}

static int resolve(struct turn *t, struct call *c, const char *outcome, const json_t *who,
                   struct err *err)
{
    json_t *data = json_pack("{s:s, s:s, s:s}", "approvalId", c->approval, "callId", c->id,
                             "outcome", outcome);
    if (who)
        json_object_set(data, "by", (json_t *)(uintptr_t)who);
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
        t->state = TURN_CALL;
}

static struct call *find(struct daemon *d, struct str approval)
{
    for (struct session *s = d->sessions; s; s = s->next)
        for (uint32_t i = 0; s->turn && i < s->turn->n_calls; i++)
            if (s->turn->call[i].state == CALL_ASKING &&
                str_is(approval, s->turn->call[i].approval))
                return &s->turn->call[i];
    return NULL;
}

int loop_approve(struct daemon *d, struct str approval, struct str option, const json_t *who,
                 struct err *err)
{
    struct call *c = find(d, approval);
    unsigned i = 0;
    if (!c)
        return err_set(err, ERR_NOTFOUND, "no approval '%.*s' waits for an answer",
                       STR_ARG(approval));
    while (i < ARRAY_LEN(options) && !str_is(option, options[i].id))
        i++;
    if (i == ARRAY_LEN(options))
        return err_set(err, ERR_PARSE,
                       "optionId is allow_once, allow_session, allow_always, deny or "
                       "deny_and_stop");
    struct turn *t = c->turn;
    struct buf rule;
    int rc = resolve(t, c, options[i].id, who, err);
    buf_init(&rule, 8192);
    rule_of(c, &rule);
    if (rc == 0 && (str_is(option, "allow_session") || str_is(option, "allow_always")))
        rc = remember(t->s, buf_view(&rule), str_is(option, "allow_always"), err);
    buf_done(&rule);
    if (rc < 0)
        return rc;
    t->state = TURN_CALL;
    if (options[i].allow) {
        c->approved = true;
    } else {
        rc = call_log_result(t->s, t->id, t->step, c->id, buf_cstr(&c->name),
                             STR("[denied: the user refused this call]"), "denied",
                             json_pack("{s:b}", "isError", 1), err);
        c->state = CALL_DONE;
        if (rc == 0 && str_is(option, "deny_and_stop"))
            loop_interrupt(t, false);
    }
    calls_pump(t);
    return rc;
}
