/*
 * ctl_view.c - draws the events of a turn: streamed text once, however often it is repeated,
 * calls and results in frames, questions on the terminal.
 */
#include "agentd/ctl_view.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

static volatile sig_atomic_t interrupted;

static void on_int(int signo)
{
    (void)signo;
    interrupted++;
}

const char *view_paint(const struct view *v, const char *code)
{
    return v->colour ? code : "";
}

struct str view_field(const json_t *o, const char *key)
{
    return json_view(json_object_get(o, key));
}

/* Also U+0080..U+009F, which some terminals take for controls. */
void view_put(FILE *to, struct str text, const char *after_newline)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        unsigned char next = i + 1 < text.n ? (unsigned char)text.p[i + 1] : 0;
        if (c == 0xc2 && next >= 0x80 && next < 0xa0) {
            i++;
            continue;
        }
        if (c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7f))
            fputc(c, to);
        if (c == '\n')
            fputs(after_newline, to);
    }
}

void view_json(const json_t *value)
{
    struct buf b;
    struct err err;
    buf_init(&b, 0);
    if (value && json_write(value, &b, &err) == 0)
        printf("%s\n", buf_cstr(&b));
    fflush(stdout);
    buf_done(&b);
}

static void enter(struct view *v, char phase)
{
    if (v->phase == phase)
        return;
    if (v->phase)
        fputs(v->phase == 't' ? view_paint(v, "\033[0m") : "", stderr);
    if (v->phase)
        fputc('\n', v->phase == 'a' ? stdout : stderr);
    fflush(stdout); /* the two streams share a terminal: keep their order */
    if (phase == 't')
        fputs(view_paint(v, "\033[2m"), stderr);
    v->phase = phase;
}

static void streamed(struct view *v, struct str item, struct str kind, struct str text, size_t at)
{
    bool answer = str_is(kind, "text");
    struct view_shown *seen = &v->shown[answer];
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
    enter(v, answer ? 'a' : 't');
    view_put(answer ? stdout : stderr, text, "");
    if (answer)
        fflush(stdout);
}

/* One line per argument, values cut to what a person reads. */
static void show_call(struct view *v, const json_t *data)
{
    struct err err;
    json_t *args = NULL, *value;
    const char *key;
    enter(v, 'c');
    fprintf(stderr, "%s+- ", view_paint(v, "\033[36m"));
    view_put(stderr, view_field(data, "name"), "|   "); /* names too are what the model wrote */
    fprintf(stderr, "%s\n", view_paint(v, "\033[0m"));
    if (json_read(&args, view_field(data, "arguments"), &err) < 0)
        return;
    json_object_foreach(args, key, value)
    {
        struct buf b;
        buf_init(&b, 0);
        if (json_is_string(value))
            buf_str(&b, json_view(value));
        else
            (void)!json_write(value, &b, &err);
        fprintf(stderr, "%s|%s ", view_paint(v, "\033[36m"), view_paint(v, "\033[0m"));
        view_put(stderr, str_c(key), "|   ");
        fputs(": ", stderr);
        view_put(stderr, str_sub(str_trim(buf_view(&b)), 0, 2000), "|   ");
        fputc('\n', stderr);
        buf_done(&b);
    }
    json_decref(args);
}

static void show_result(struct view *v, const json_t *data)
{
    bool bad = json_is_true(json_object_get(data, "isError"));
    struct str text = str_trim(view_field(data, "text"));
    const char *edge = bad ? "\033[31m" : "\033[36m";
    bool cut = text.n > 1500;
    enter(v, 'c');
    fprintf(stderr, "%s|%s ", view_paint(v, edge), view_paint(v, "\033[0m"));
    view_put(stderr, str_sub(text, 0, 1500), "| ");
    fprintf(stderr, "%s\n%s+- %.*s%s", cut ? " ..." : "", view_paint(v, edge),
            STR_ARG(view_field(data, "status")), view_paint(v, "\033[0m"));
}

static void show_item(struct view *v, struct str item, const json_t *data)
{
    struct str kind = view_field(data, "kind");
    if (str_is(kind, "call"))
        show_call(v, data);
    else if (str_is(kind, "result"))
        show_result(v, data);
    else if (str_is(kind, "reasoning") || str_is(kind, "text"))
        streamed(v, item, kind, view_field(data, "text"), 0);
    else if (str_is(kind, "notice")) {
        enter(v, 'c');
        view_put(stderr, view_field(data, "text"), "");
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

static void show_usage(struct view *v, const json_t *usage)
{
    if (!usage || v->quiet)
        return;
    double seconds = ms(usage, "elapsedMs"), engine = ms(usage, "engineMs");
    long long out = count(usage, "completionTokens");
    fprintf(stderr, "%s%.1f s: %lld steps, %lld tool calls (%.1f s), %lld tokens read (%lld from "
                    "cache), %lld written%s\n",
            view_paint(v, "\033[2m"), seconds, count(usage, "steps"), count(usage, "toolCalls"),
            ms(usage, "toolMs"), count(usage, "promptTokens"), count(usage, "cachedTokens"), out,
            view_paint(v, "\033[0m"));
    if (engine > 0)
        fprintf(stderr, "%sengine %.1f s, %.1f tokens a second%s\n", view_paint(v, "\033[2m"),
                engine, (double)out / engine, view_paint(v, "\033[0m"));
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
        return str_is(view_field(json_object_get(data, "error"), "kind"), "engine_unavailable")
                   ? EXIT_ENGINE
                   : EXIT_FAIL;
    return EXIT_LIMIT;
}

static void finish(struct view *v, bool failed, const json_t *data)
{
    struct str reason = failed ? STR("error") : view_field(data, "stopReason");
    enter(v, 0);
    v->done = true;
    v->code = code_of(reason, data);
    if (v->json)
        return;
    if (failed) {
        fputs("agentctl: ", stderr);
        view_put(stderr, view_field(json_object_get(data, "error"), "message"), "  ");
        fputc('\n', stderr);
    } else if (!str_is(reason, "end_turn")) {
        fprintf(stderr, "agentctl: the turn ended early: %.*s%s%.*s\n", STR_ARG(reason),
                view_field(data, "limit").n ? ", limit " : "", STR_ARG(view_field(data, "limit")));
    }
    show_usage(v, json_object_get(data, "usage"));
}

static void respond(struct view *v, const json_t *data, const char *option, json_t *answers)
{
    struct err err;
    if (client_send(v->c, "approval.respond",
                    json_pack("{s:o, s:s, s:o*}", "approvalId",
                              json_text(view_field(data, "approvalId")), "optionId", option,
                              "answers", answers),
                    NULL, &err) < 0)
        fprintf(stderr, "agentctl: %s\n", err.text);
}

/* A typed line: the number of an option stands for it, anything else for itself. */
static json_t *read_answer(const json_t *options, bool multi, const char *line)
{
    struct str rest = str_trim(str_c(line)), word;
    json_t *list = json_array(), *only;
    bool numbers = true;
    for (struct str all = rest; numbers && str_split(&all, multi ? ',' : '\n', &word);) {
        char text[16], *end;
        snprintf(text, sizeof text, "%.*s", STR_ARG(str_sub(str_trim(word), 0, 15)));
        unsigned long n = strtoul(text, &end, 10);
        json_t *option = json_array_get(options, n - 1);
        numbers = end != text && !*end && n > 0 && option;
        if (numbers)
            json_array_append(list, option);
    }
    if (!numbers || json_array_size(list) == 0) {
        json_decref(list);
        return json_text(rest);
    }
    if (multi)
        return list;
    only = json_incref(json_array_get(list, 0));
    json_decref(list);
    return only;
}

/* ask_user: each question on the terminal; without one, or at its end, they are declined. */
static void ask_questions(struct view *v, const json_t *data, const json_t *questions)
{
    size_t i, k;
    json_t *q, *option, *answers = json_object();
    bool person = isatty(STDIN_FILENO) != 0;
    json_array_foreach((json_t *)(uintptr_t)questions, i, q)
    {
        char line[4096];
        bool multi = json_is_true(json_object_get(q, "multi"));
        fputs("? ", stderr);
        view_put(stderr, view_field(q, "question"), "  ");
        fputc('\n', stderr);
        json_array_foreach(json_object_get(q, "options"), k, option)
        {
            fprintf(stderr, "  %zu ", k + 1);
            view_put(stderr, json_view(option), "    ");
            fputc('\n', stderr);
        }
        if (person)
            fputs(multi ? "  answers, with commas between: " : "  answer: ", stderr);
        if (!person || !fgets(line, sizeof line, stdin)) {
            json_decref(answers);
            respond(v, data, "deny", NULL);
            return;
        }
        json_object_set_new(answers, json_string_value(json_object_get(q, "id")),
                            read_answer(json_object_get(q, "options"), multi, line));
    }
    respond(v, data, "answer", answers);
}

/* Asks on the terminal; without one the answer is the safe one. */
static void ask(struct view *v, const json_t *data)
{
    char line[16] = "";
    const char *option = v->approve ? v->approve : "deny";
    const json_t *questions = json_object_get(data, "questions");
    enter(v, 'c');
    if (questions) {
        ask_questions(v, data, questions);
        return;
    }
    fputs("? ", stderr);
    view_put(stderr, view_field(data, "title"), "  ");
    fputs(" wants to run: ", stderr);
    view_put(stderr, view_field(data, "reason"), "  ");
    fputc('\n', stderr);
    if (!v->approve && isatty(STDIN_FILENO)) {
        fputs("  allow? [y]es, for this [s]ession, [n]o: ", stderr);
        if (fgets(line, sizeof line, stdin))
            option = *line == 'y' ? "allow_once" : *line == 's' ? "allow_session" : "deny";
    }
    respond(v, data, option, NULL);
}

void view_message(struct view *v, json_t *msg)
{
    json_t *p = json_object_get(msg, "params"), *data = json_object_get(p, "data");
    struct str type = view_field(p, "type");
    if (!json_object_get(msg, "method"))
        return;
    if (v->json)
        view_json(p);
    else if (str_is(type, "item.delta") || str_is(type, "item.snapshot"))
        streamed(v, view_field(p, "itemId"), view_field(data, "kind"), view_field(data, "text"),
                 (size_t)json_integer_value(json_object_get(data, "offset")));
    else if (str_is(type, "item.completed"))
        show_item(v, view_field(p, "itemId"), data);
    else if (str_is(type, "warning")) {
        enter(v, 'c');
        fputs("! ", stderr);
        view_put(stderr, view_field(data, "message"), "");
        fputc('\n', stderr);
    }
    if (str_is(type, "approval.requested") && !v->watch_only)
        ask(v, data);
    if (str_is(type, "turn.completed") || str_is(type, "turn.failed"))
        finish(v, str_is(type, "turn.failed"), data);
}

void view_init(struct view *v, struct client *c)
{
    const char *term = getenv("TERM");
    *v = (struct view){.c = c};
    v->colour = isatty(STDERR_FILENO) && !getenv("NO_COLOR") && term && strcmp(term, "dumb") != 0;
}

void view_catch_interrupts(void)
{
    struct sigaction sa = {.sa_handler = on_int};
    sigaction(SIGINT, &sa, NULL);
}

int view_interrupts(void)
{
    return interrupted;
}

int view_turn(struct view *v, const char *turn_id, struct err *err)
{
    int before = interrupted, sent = 0;
    v->done = false;
    while (!v->done) {
        json_t *msg = NULL;
        /* The time limit catches an interrupt that came just before the wait. */
        int rc = client_next(v->c, 500, &msg, err);
        if ((rc == 0 || rc == -ERR_CANCELLED) && interrupted - before > sent) {
            sent = interrupted - before;
            fprintf(stderr, "\n(interrupting%s)\n", sent > 1 ? " at once" : "; again = at once");
            rc = client_send(v->c, "turn.interrupt",
                             json_pack("{s:s, s:s}", "turnId", turn_id, "mode",
                                       sent > 1 ? "hard" : "soft"),
                             NULL, err);
        } else if (rc == -ERR_CANCELLED) {
            rc = 0;
        }
        if (rc < 0)
            return rc;
        if (msg)
            view_message(v, msg);
        json_decref(msg);
    }
    return 0;
}
