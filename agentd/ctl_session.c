/*
 * ctl_session.c - commands that ask a running daemon one thing and print the reply:
 * sessions, show, export, render, fork, approve, cancel, status. One table: a row is a
 * command, its method, how its arguments become parameters, and how its reply reads.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agentd/ctl.h"
#include "agentd/ctl_view.h"

struct asked { /* what the command line said */
    const char *socket, *cwd, *state, *option, *note, *at, *mode;
    bool json;
    const char *arg; /* the positional, or NULL */
    char **more;     /* further positionals */
    int n_more;
};

struct ask {
    const char *name, *args, *summary, *more;
    int min_args;
    const char *method;
    /* Adds to `p`; may call the daemon for what it needs. NULL = sessionId is the argument. */
    int (*params)(const struct asked *a, struct client *c, json_t *p, struct err *err);
    void (*print)(const json_t *reply);
};

static void set(json_t *o, const char *key, const char *value)
{
    if (value)
        json_object_set_new(o, key, json_text(str_c(value)));
}

static long long number(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static void print_time(long long ms)
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    char text[32] = "";
    if (localtime_r(&t, &tm))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    printf("%-19s", text);
}

static int params_sessions(const struct asked *a, struct client *c, json_t *p, struct err *err)
{
    (void)c;
    (void)err;
    set(p, "cwd", a->cwd);
    set(p, "state", a->state);
    json_object_set_new(p, "limit", json_integer(500));
    return 0;
}

static void print_sessions(const json_t *reply)
{
    size_t i;
    json_t *s, *all = json_object_get(reply, "sessions");
    if (json_array_size(all) == 0)
        puts("no sessions");
    json_array_foreach(all, i, s)
    {
        printf("%.*s  ", STR_ARG(view_field(s, "sessionId")));
        print_time(number(s, "updated"));
        printf("  %-8.*s %-10.*s %6lld events  ", STR_ARG(view_field(s, "state")),
               STR_ARG(view_field(s, "profile")), number(s, "seq"));
        view_put(stdout, view_field(s, "cwd"), "");
        putchar('\n');
    }
}

static void print_calls(const json_t *calls)
{
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call)
    {
        fputs("  call ", stdout);
        view_put(stdout, view_field(call, "name"), "  ");
        putchar(' ');
        view_put(stdout, view_field(call, "arguments"), "  ");
        putchar('\n');
    }
}

static void print_show(const json_t *reply)
{
    size_t i;
    json_t *m, *config = json_object_get(reply, "config");
    printf("session %.*s  %.*s  profile %.*s  ", STR_ARG(view_field(reply, "sessionId")),
           STR_ARG(view_field(reply, "state")), STR_ARG(view_field(config, "profile")));
    view_put(stdout, view_field(config, "cwd"), "");
    putchar('\n');
    json_array_foreach(json_object_get(reply, "messages"), i, m)
    {
        printf("\n%.*s  [%.*s]\n", STR_ARG(view_field(m, "role")), STR_ARG(view_field(m, "id")));
        if (view_field(m, "reasoning").n) {
            fputs("  (thought) ", stdout);
            view_put(stdout, view_field(m, "reasoning"), "  ");
            putchar('\n');
        }
        if (view_field(m, "content").n) {
            fputs("  ", stdout);
            view_put(stdout, view_field(m, "content"), "  ");
            putchar('\n');
        }
        print_calls(json_object_get(m, "calls"));
    }
}

/* Events one a line, the first line says what they belong to: readable by any tool. */
static void print_export(const json_t *reply)
{
    size_t i;
    json_t *e, *head = json_copy((json_t *)(uintptr_t)reply);
    json_object_del(head, "events");
    view_json(head);
    json_decref(head);
    json_array_foreach(json_object_get(reply, "events"), i, e)
        view_json(e);
}

/* Exact bytes: what the model reads, nothing added. */
static void print_render(const json_t *reply)
{
    struct str prompt = view_field(reply, "prompt");
    fwrite(prompt.p, 1, prompt.n, stdout);
}

static int params_fork(const struct asked *a, struct client *c, json_t *p, struct err *err)
{
    (void)c;
    (void)err;
    set(p, "sessionId", a->arg);
    set(p, "atMessageId", a->at);
    return 0;
}

static void print_id(const json_t *reply)
{
    printf("%.*s\n", STR_ARG(view_field(reply, "sessionId")));
}

static void print_approvals(const json_t *reply)
{
    size_t i, k, n = 0;
    json_t *a, *option, *question, *all = json_object_get(reply, "approvals");
    if (!all) {
        printf("%.*s\n", STR_ARG(view_field(reply, "outcome")));
        return;
    }
    if (json_array_size(all) == 0)
        puts("nothing waits for an answer");
    json_array_foreach(all, i, a)
    {
        printf("%.*s  ", STR_ARG(view_field(a, "approvalId")));
        view_put(stdout, view_field(a, "title"), "  ");
        fputs("\n  ", stdout);
        view_put(stdout, view_field(a, "reason"), "  ");
        json_array_foreach(json_object_get(a, "questions"), k, question)
        {
            fputs("\n  question ", stdout);
            view_put(stdout, view_field(question, "id"), "    ");
            fputs(": ", stdout);
            view_put(stdout, view_field(question, "question"), "    ");
            json_array_foreach(json_object_get(question, "options"), n, option)
            {
                fputs(n ? " | " : "  (", stdout);
                view_put(stdout, json_view(option), "    ");
            }
            fputs(n ? ")" : "", stdout);
            n = 0;
        }
        fputs("\n  options:", stdout);
        json_array_foreach(json_object_get(a, "options"), k, option)
            printf(" %.*s", STR_ARG(view_field(option, "optionId")));
        putchar('\n');
    }
}

/* ID=TEXT answers the question with this id, twice the same id gives both; a plain TEXT
 * answers the only one. */
static int params_approve(const struct asked *a, struct client *c, json_t *p, struct err *err)
{
    json_t *answers = NULL;
    (void)c;
    set(p, "approvalId", a->arg);
    set(p, "optionId", a->option ? a->option : a->n_more ? "answer" : "allow_once");
    set(p, "note", a->note);
    for (int i = 0; i < a->n_more; i++) {
        const char *eq = strchr(a->more[i], '=');
        if (!eq && a->n_more == 1) {
            set(p, "note", a->more[i]);
            return 0;
        }
        if (!eq)
            return err_set(err, ERR_PARSE, "'%s' is not ID=TEXT", a->more[i]);
        if (!answers)
            json_object_set_new(p, "answers", answers = json_object());
        char id[256];
        snprintf(id, sizeof id, "%.*s", (int)(eq - a->more[i]), a->more[i]);
        json_t *before = json_object_get(answers, id), *text = json_text(str_c(eq + 1));
        if (json_is_array(before))
            json_array_append_new(before, text);
        else if (before)
            json_object_set_new(answers, id, json_pack("[O, o]", before, text));
        else
            json_object_set_new(answers, id, text);
    }
    return 0;
}

/* A turn's id as it is; a session's stands for the turn it plays now. */
static int params_cancel(const struct asked *a, struct client *c, json_t *p, struct err *err)
{
    json_t *s = NULL;
    struct err ignored;
    set(p, "turnId", a->arg);
    set(p, "mode", a->mode);
    int rc = client_call(c, "session.get", json_pack("{s:s}", "sessionId", a->arg), &s, &ignored);
    if (rc == 0 && !json_object_get(s, "turnId"))
        rc = err_set(err, ERR_NOTFOUND, "session %s plays no turn", a->arg);
    else if (rc == 0)
        json_object_set(p, "turnId", json_object_get(s, "turnId"));
    else
        rc = 0; /* no session of that name: a turn, or the daemon will say */
    json_decref(s);
    return rc;
}

static void print_state(const json_t *reply)
{
    printf("%.*s\n", STR_ARG(view_field(reply, "state")));
}

static int params_none(const struct asked *a, struct client *c, json_t *p, struct err *err)
{
    (void)a;
    (void)c;
    (void)p;
    (void)err;
    return 0;
}

static void print_status(const json_t *r)
{
    const json_t *store = json_object_get(r, "store");
    printf("agentd %.*s, pid %lld, up %lld s, engine %.*s%s\n", STR_ARG(view_field(r, "version")),
           number(r, "pid"), number(r, "uptimeMs") / 1000, STR_ARG(view_field(r, "engine")),
           json_is_true(json_object_get(r, "draining")) ? ", draining" : "");
    printf("%lld connections, %lld turns running, %lld MB resident\n", number(r, "connections"),
           number(r, "turnsRunning"), number(r, "residentBytes") >> 20);
    printf("store %.*s: %lld events, %lld KB, log %lld KB\n", STR_ARG(view_field(store, "dir")),
           number(store, "events"), number(store, "databaseBytes") >> 10,
           number(store, "walBytes") >> 10);
}

static const struct ask asks[] = {
    {"sessions", "", "List the sessions, newest first.", "", 0, "session.list", params_sessions,
     print_sessions},
    {"show", "SESSION", "Print what was said, thought, called and answered.", "", 1, "session.get",
     NULL, print_show},
    {"export", "SESSION", "Print every event with the sampled token ids, one JSON a line.", "", 1,
     "session.export", NULL, print_export},
    {"render", "SESSION", "Print the exact bytes of the session's next prompt.", "", 1,
     "prompt.render", NULL, print_render},
    {"fork", "SESSION", "Make a session with the same history, or a part of it.",
     "Prints the new session's id.\n", 1, "session.fork", params_fork, print_id},
    {"approve", "[APPROVAL [ANSWER...]]",
     "Answer a question of an agent; without one, list them.",
     "What ask_user asks is answered with ID=TEXT for each question, or one plain TEXT where\n"
     "there is one question.\n",
     0,
     "approval.list", params_none, print_approvals},
    {"cancel", "TURN|SESSION", "Interrupt a turn.", "", 1, "turn.interrupt", params_cancel,
     print_state},
    {"status", "", "Say how the daemon is.", "", 0, "daemon.status", params_none, print_status},
};
static const struct ask answer = {"approve", "[APPROVAL [ANSWER...]]", "", "", 1,
                                  "approval.respond", params_approve, print_approvals};

static int ask_daemon(const struct ask *k, const struct asked *a, struct err *err)
{
    struct client *c = NULL;
    json_t *reply = NULL, *params = json_object();
    int rc = client_connect(&c, a->socket, err);
    if (rc == 0 && k->params)
        rc = k->params(a, c, params, err);
    else if (rc == 0)
        set(params, "sessionId", a->arg);
    if (rc == 0)
        rc = client_pages(c, k->method, json_incref(params), &reply, err);
    if (rc == 0 && a->json)
        view_json(reply);
    else if (rc == 0)
        k->print(reply);
    json_decref(params);
    json_decref(reply);
    client_close(c);
    return rc;
}

int ctl_ask(int argc, char **argv)
{
    const struct ask *k = asks;
    struct asked a = {0};
    struct err err;
    int code;
    while (strcmp(k->name, argv[0]) != 0)
        k++;
    const struct opt opts[] = {
        {"socket", 0, OPT_STR, &a.socket, "PATH", "where the daemon listens"},
        {"json", 'j', OPT_FLAG, &a.json, NULL, "print the reply as it came"},
        {"cwd", 0, OPT_STR, &a.cwd, "DIR", "only sessions of this folder"},
        {"state", 0, OPT_WORD, &a.state, "idle|running|closed", "only those"},
        {"at", 0, OPT_STR, &a.at, "MESSAGE", "the last message to keep, an id of `show`"},
        {"option", 'o', OPT_WORD, &a.option,
         "allow_once|allow_session|allow_always|deny|deny_and_stop", "allow_once is the default"},
        {"note", 0, OPT_STR, &a.note, "TEXT", "kept in the log beside the answer"},
        {"mode", 0, OPT_WORD, &a.mode, "soft|hard", "soft is the default"},
    };
    /* The rows that a command has besides --socket and --json. */
    static const struct {
        const char *name;
        unsigned from, n;
    } own[] = {{"sessions", 2, 2}, {"fork", 4, 1}, {"approve", 5, 2}, {"cancel", 7, 1}};
    struct opt mine[ARRAY_LEN(opts)] = {opts[0], opts[1]};
    unsigned n = 2;
    for (unsigned i = 0; i < ARRAY_LEN(own); i++)
        for (unsigned r = 0; strcmp(own[i].name, k->name) == 0 && r < own[i].n; r++)
            mine[n++] = opts[own[i].from + r];
    char name[32], more[200];
    snprintf(name, sizeof name, "agentctl %s", k->name);
    snprintf(more, sizeof more, "%sExit codes: 0 done, 1 failed, 2 usage.", k->more);
    const struct opt_cmd cmd = {.name = name, .args = k->args, .summary = k->summary,
                                .more = more, .opts = mine, .n_opts = n,
                                .min_args = k->min_args,
                                .max_args = strchr(k->args, ' ') ? 65 : *k->args ? 1 : 0};
    int at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    a.arg = at < argc ? argv[at] : NULL;
    a.more = argv + at + 1;
    a.n_more = at + 1 < argc ? argc - at - 1 : 0;
    if (strcmp(k->name, "approve") == 0 && a.arg)
        k = &answer;
    return ask_daemon(k, &a, &err) < 0 ? ctl_fail(&err) : EXIT_OK;
}
