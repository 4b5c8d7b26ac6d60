/*
 * ctl_run.c - agentctl run: one request, one turn, watched as it happens.
 *
 * Reasoning is dim, a call stands in a frame with its result, the answer is plain text on
 * standard output; everything else goes to standard error, so that the answer can be piped.
 */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/client.h"
#include "agentd/ctl.h"
#include "base/io.h"

enum { EXIT_LIMIT = 3, EXIT_DENIED = 4, EXIT_ENGINE = 5, EXIT_CANCELLED = 130 };

struct flags {
    const char *engine, *profile, *workspace, *sandbox, *socket, *config, *session, *approve;
    bool private_mode, json, verbose, quiet;
    int64_t max_steps, max_tokens;
};

struct show {
    struct client *c;
    const struct flags *f;
    bool colour;
    char phase;       /* what was printed last: t(hinking), a(nswer), c(all), 0 */
    struct shown {    /* what of the newest reasoning and the newest text is on the screen */
        char item[64];
        size_t n;
    } shown[2];
    int code;
    bool done;
};

static volatile sig_atomic_t interrupted;

static void on_int(int signo)
{
    (void)signo;
    interrupted++;
}

static const char *paint(const struct show *s, const char *code)
{
    return s->colour ? code : "";
}

static struct str field(const json_t *o, const char *key)
{
    return json_view(json_object_get(o, key));
}

/* Bytes from a model or a tool must not steer the terminal. */
static void put(FILE *to, struct str text, const char *after_newline)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7f))
            fputc(c, to);
        if (c == '\n')
            fputs(after_newline, to);
    }
}

static void enter(struct show *s, char phase)
{
    if (s->phase == phase)
        return;
    if (s->phase)
        fputs(s->phase == 't' ? paint(s, "\033[0m") : "", stderr);
    if (s->phase)
        fputc('\n', s->phase == 'a' ? stdout : stderr);
    if (phase == 't')
        fputs(paint(s, "\033[2m"), stderr);
    s->phase = phase;
}

static void streamed(struct show *s, struct str item, struct str kind, struct str text, size_t at)
{
    bool answer = str_is(kind, "text");
    struct shown *seen = &s->shown[answer];
    if (!answer && !str_is(kind, "reasoning"))
        return;
    if (!str_is(item, seen->item)) {
        snprintf(seen->item, sizeof seen->item, "%.*s", STR_ARG(item));
        seen->n = 0;
    }
    if (at + text.n <= seen->n)
        return;
    text = str_sub(text, seen->n > at ? seen->n - at : 0, SIZE_MAX);
    seen->n += text.n;
    enter(s, answer ? 'a' : 't');
    put(answer ? stdout : stderr, text, "");
    if (answer)
        fflush(stdout);
}

/* One line per argument, values cut to what a person reads. */
static void show_call(struct show *s, const json_t *data)
{
    struct err err;
    json_t *args = NULL, *v;
    const char *key;
    enter(s, 'c');
    fprintf(stderr, "%s+- %.*s%s\n", paint(s, "\033[36m"), STR_ARG(field(data, "name")),
            paint(s, "\033[0m"));
    if (json_read(&args, field(data, "arguments"), &err) < 0)
        return;
    json_object_foreach(args, key, v)
    {
        struct buf b;
        buf_init(&b, 0);
        if (json_is_string(v))
            buf_str(&b, json_view(v));
        else
            (void)!json_write(v, &b, &err);
        fprintf(stderr, "%s|%s %s: ", paint(s, "\033[36m"), paint(s, "\033[0m"), key);
        put(stderr, str_sub(str_trim(buf_view(&b)), 0, 2000), "|   ");
        fputc('\n', stderr);
        buf_done(&b);
    }
    json_decref(args);
}

static void show_result(struct show *s, const json_t *data)
{
    bool bad = json_is_true(json_object_get(data, "isError"));
    struct str text = str_trim(field(data, "text"));
    const char *edge = bad ? "\033[31m" : "\033[36m";
    bool cut = text.n > 1500;
    enter(s, 'c');
    fprintf(stderr, "%s|%s ", paint(s, edge), paint(s, "\033[0m"));
    put(stderr, str_sub(text, 0, 1500), "| ");
    fprintf(stderr, "%s\n%s+- %.*s%s", cut ? " ..." : "", paint(s, edge),
            STR_ARG(field(data, "status")), paint(s, "\033[0m"));
}

static void show_item(struct show *s, struct str item, const json_t *data)
{
    struct str kind = field(data, "kind");
    if (str_is(kind, "call"))
        show_call(s, data);
    else if (str_is(kind, "result"))
        show_result(s, data);
    else if (str_is(kind, "reasoning") || str_is(kind, "text"))
        streamed(s, item, kind, field(data, "text"), 0);
    else if (str_is(kind, "notice")) {
        enter(s, 'c');
        put(stderr, field(data, "text"), "");
    }
}

static double ms(const json_t *o, const char *key)
{
    return (double)json_integer_value(json_object_get(o, key)) / 1000.0;
}

static long long count(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static void show_usage(struct show *s, const json_t *usage)
{
    if (!usage || s->f->quiet)
        return;
    double seconds = ms(usage, "elapsedMs"), engine = ms(usage, "engineMs");
    long long out = count(usage, "completionTokens");
    fprintf(stderr, "%s%.1f s: %lld steps, %lld tool calls (%.1f s), %lld tokens read (%lld from "
                    "cache), %lld written%s\n",
            paint(s, "\033[2m"), seconds, count(usage, "steps"), count(usage, "toolCalls"),
            ms(usage, "toolMs"), count(usage, "promptTokens"), count(usage, "cachedTokens"), out,
            paint(s, "\033[0m"));
    if (engine > 0)
        fprintf(stderr, "%sengine %.1f s, %.1f tokens a second%s\n", paint(s, "\033[2m"), engine,
                (double)out / engine, paint(s, "\033[0m"));
}

static int code_of(struct str reason, const json_t *data)
{
    if (str_is(reason, "end_turn"))
        return EXIT_OK;
    if (str_is(reason, "cancelled"))
        return EXIT_CANCELLED;
    if (str_is(reason, "refusal"))
        return EXIT_DENIED;
    if (str_is(reason, "error"))
        return str_is(field(json_object_get(data, "error"), "kind"), "engine_unavailable")
                   ? EXIT_ENGINE
                   : EXIT_FAIL;
    return EXIT_LIMIT;
}

static void finish(struct show *s, bool failed, const json_t *data)
{
    struct str reason = failed ? STR("error") : field(data, "stopReason");
    enter(s, 0);
    s->done = true;
    s->code = code_of(reason, data);
    if (s->f->json)
        return;
    if (failed)
        fprintf(stderr, "agentctl: %.*s\n", STR_ARG(field(json_object_get(data, "error"),
                                                          "message")));
    else if (!str_is(reason, "end_turn"))
        fprintf(stderr, "agentctl: the turn ended early: %.*s%s%.*s\n", STR_ARG(reason),
                field(data, "limit").n ? ", limit " : "", STR_ARG(field(data, "limit")));
    show_usage(s, json_object_get(data, "usage"));
}

/* Asks on the terminal; without one the answer is the safe one. */
static void ask(struct show *s, const json_t *data)
{
    struct err err;
    char line[16] = "";
    const char *option = s->f->approve ? s->f->approve : "deny";
    enter(s, 'c');
    fprintf(stderr, "? %.*s wants to run: %.*s\n", STR_ARG(field(data, "title")),
            STR_ARG(field(data, "reason")));
    if (!s->f->approve && isatty(STDIN_FILENO)) {
        fputs("  allow? [y]es, for this [s]ession, [n]o: ", stderr);
        if (fgets(line, sizeof line, stdin))
            option = *line == 'y' ? "allow_once" : *line == 's' ? "allow_session" : "deny";
    }
    if (client_send(s->c, "approval.respond",
                    json_pack("{s:o, s:s}", "approvalId", json_text(field(data, "approvalId")),
                              "optionId", option),
                    NULL, &err) < 0)
        fprintf(stderr, "agentctl: %s\n", err.text);
}

static void on_event(struct show *s, json_t *msg)
{
    json_t *p = json_object_get(msg, "params"), *data = json_object_get(p, "data");
    struct str type = field(p, "type");
    bool end = str_is(type, "turn.completed") || str_is(type, "turn.failed");
    if (s->f->json) {
        struct buf b;
        struct err err;
        buf_init(&b, 0);
        if (p && json_write(p, &b, &err) == 0)
            printf("%s\n", buf_cstr(&b));
        fflush(stdout);
        buf_done(&b);
    } else if (str_is(type, "item.delta") || str_is(type, "item.snapshot")) {
        streamed(s, field(p, "itemId"), field(data, "kind"), field(data, "text"),
                 (size_t)json_integer_value(json_object_get(data, "offset")));
    } else if (str_is(type, "item.completed")) {
        show_item(s, field(p, "itemId"), data);
    } else if (str_is(type, "warning")) {
        enter(s, 'c');
        fprintf(stderr, "! %.*s", STR_ARG(field(data, "message")));
    }
    if (str_is(type, "approval.requested"))
        ask(s, data);
    if (end)
        finish(s, str_is(type, "turn.failed"), data);
}

static int watch(struct show *s, const char *turn, struct err *err)
{
    int sent = 0;
    while (!s->done) {
        json_t *msg = NULL;
        int rc = client_next(s->c, -1, &msg, err);
        if (rc == -ERR_CANCELLED && interrupted > sent) {
            sent = interrupted;
            fprintf(stderr, "\n(interrupting%s)\n", sent > 1 ? " at once" : "; again = at once");
            rc = client_send(s->c, "turn.interrupt",
                             json_pack("{s:s, s:s}", "turnId", turn, "mode",
                                       sent > 1 ? "hard" : "soft"),
                             NULL, err);
        } else if (rc == -ERR_CANCELLED) {
            rc = 0;
        }
        if (rc < 0)
            return rc;
        if (msg && json_object_get(msg, "method"))
            on_event(s, msg);
        json_decref(msg);
    }
    return 0;
}

static int open_session(struct show *s, const char *workspace, json_t **session, struct err *err)
{
    const struct flags *f = s->f;
    char cwd[PATH_MAX];
    if (f->session) {
        *session = json_pack("{s:s}", "sessionId", f->session);
        return 0;
    }
    if (!realpath(workspace, cwd))
        return err_sys(err, "workspace '%s'", workspace);
    json_t *params = json_pack("{s:s}", "cwd", cwd);
    json_t *limits = json_object();
    if (f->profile)
        json_object_set_new(params, "profile", json_string(f->profile));
    if (f->max_steps)
        json_object_set_new(limits, "maxSteps", json_integer(f->max_steps));
    if (f->max_tokens)
        json_object_set_new(limits, "maxTokens", json_integer(f->max_tokens));
    json_object_set_new(params, "limits", limits);
    return client_call(s->c, "session.create", params, session, err);
}

static int run_turn(struct show *s, const char *request, struct err *err)
{
    json_t *session = NULL, *turn = NULL;
    int rc = open_session(s, s->f->workspace ? s->f->workspace : ".", &session, err);
    const char *id = json_string_value(json_object_get(session, "sessionId"));
    if (rc == 0)
        rc = client_call(s->c, "session.subscribe",
                         json_pack("{s:s, s:s}", "sessionId", id, "after", "now"), NULL, err);
    if (rc == 0)
        rc = client_call(s->c, "turn.start",
                         json_pack("{s:s, s:s, s:s}", "sessionId", id, "input", request,
                                   "onDisconnect", "cancel"),
                         &turn, err);
    if (rc == 0)
        rc = watch(s, json_string_value(json_object_get(turn, "turnId")), err);
    if (rc == 0 && !s->f->private_mode && !s->f->json && !s->f->quiet)
        fprintf(stderr, "session %s\n", id);
    json_decref(session);
    json_decref(turn);
    return rc;
}

static int parse(struct flags *f, int argc, char **argv, int *code)
{
    const struct opt opts[] = {
        {"private", 0, OPT_FLAG, &f->private_mode, NULL, "start a daemon just for this turn"},
        {"engine", 'e', OPT_STR, &f->engine, "SPEC",
         "with --private: native:PATH, script:FILE or remote:URL"},
        {"config", 'c', OPT_STR, &f->config, "FILE", "with --private: the daemon's configuration"},
        {"sandbox", 0, OPT_STR, &f->sandbox, "WORD", "with --private: required (default) or off"},
        {"profile", 'p', OPT_STR, &f->profile, "NAME", "demo, code, research, math, ..."},
        {"workspace", 'w', OPT_STR, &f->workspace, "DIR", "folder to work in; default: this one"},
        {"session", 's', OPT_STR, &f->session, "ID", "go on in this session"},
        {"socket", 0, OPT_STR, &f->socket, "PATH", "where the daemon listens"},
        {"approve", 0, OPT_STR, &f->approve, "OPTION",
         "answer every question so: allow_once, allow_session, deny"},
        {"max-steps", 0, OPT_INT, &f->max_steps, "N", "generations of this turn"},
        {"max-tokens", 0, OPT_INT, &f->max_tokens, "N", "tokens sampled in this turn"},
        {"json", 'j', OPT_FLAG, &f->json, NULL, "print the events, one a line"},
        {"quiet", 'q', OPT_FLAG, &f->quiet, NULL, "no timing"},
        {"verbose", 'v', OPT_FLAG, &f->verbose, NULL, "with --private: show the daemon's log"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl run",
        .args = "REQUEST",
        .summary = "Run one turn and show it.",
        .more = "The answer goes to standard output, all else to standard error. Ctrl-C\n"
                "interrupts the turn, a second one at once.\n"
                "Exit codes: 0 answered, 1 failed, 2 usage, 3 a limit ended the turn, 4 denied,\n"
                "5 engine not available, 130 interrupted.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = 1,
    };
    return opt_parse(&cmd, argc, argv, false, code);
}

int ctl_run(int argc, char **argv)
{
    struct flags f = {0};
    struct err err;
    struct client *c = NULL;
    int code;
    int at = parse(&f, argc, argv, &code);
    if (at < 0)
        return code;
    struct client_private po = {.engine = f.engine, .profile = f.profile, .sandbox = f.sandbox,
                                .config = f.config, .verbose = f.verbose};
    int rc = f.private_mode ? client_private(&c, &po, &err) : client_connect(&c, f.socket, &err);
    if (rc < 0)
        return ctl_fail(&err);
    struct show s = {.c = c, .f = &f, .colour = isatty(STDERR_FILENO) != 0};
    struct sigaction sa = {.sa_handler = on_int};
    sigaction(SIGINT, &sa, NULL);
    rc = run_turn(&s, argv[at], &err);
    if (rc < 0) {
        json_t *data = json_object_get(client_error(c), "data");
        bool engine = str_is(field(data, "kind"), "engine_unavailable");
        client_close(c);
        ctl_fail(&err);
        return engine ? EXIT_ENGINE : EXIT_FAIL;
    }
    client_close(c);
    return s.code;
}
