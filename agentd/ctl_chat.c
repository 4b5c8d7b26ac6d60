/*
 * ctl_chat.c - agentctl chat: turns of one session, typed line by line.
 *
 * Ctrl-C interrupts the turn and not the program; at the prompt it empties the line. Lines
 * that begin with a slash are for agentctl itself.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "agentd/ctl_open.h"
#include "agentd/ctl_view.h"
#include "agentd/lineedit.h"
#include "base/io.h"
#include "base/mem.h"

struct chat {
    struct ctl_open open;
    const char *approve;
    bool json, quiet;
    char *session; /* owned */
    struct view view;
    bool quit;
};

struct chat_command {
    const char *name;
    int (*run)(struct chat *c, struct err *err);
    const char *summary;
};

static int command_help(struct chat *c, struct err *err);

static int command_quit(struct chat *c, struct err *err)
{
    (void)err;
    c->quit = true;
    return 0;
}

static int command_new(struct chat *c, struct err *err)
{
    char *id = NULL;
    const char *kept = c->open.session;
    c->open.session = NULL;
    int rc = ctl_open_session(&id, c->view.c, &c->open, err);
    c->open.session = kept;
    if (rc < 0)
        return rc;
    mem_free(c->session);
    c->session = id;
    fprintf(stderr, "session %s\n", id);
    return 0;
}

static int command_session(struct chat *c, struct err *err)
{
    (void)err;
    fprintf(stderr, "session %s\n", c->session);
    return 0;
}

/* By age, newest last: what the model sees again in the next turn. */
static int command_history(struct chat *c, struct err *err)
{
    json_t *got = NULL, *m;
    size_t i;
    int rc = client_pages(c->view.c, "session.get", json_pack("{s:s}", "sessionId", c->session),
                          &got, err);
    json_array_foreach(json_object_get(got, "messages"), i, m)
    {
        struct str role = view_field(m, "role");
        fprintf(stderr, "%s%.*s:%s ", view_paint(&c->view, "\033[1m"), STR_ARG(role),
                view_paint(&c->view, "\033[0m"));
        view_put(stderr, view_field(m, "content"), "  ");
        fputc('\n', stderr);
    }
    json_decref(got);
    return rc;
}

static const struct chat_command commands[] = {
    {"/help", command_help, "this list"},
    {"/new", command_new, "begin a new session"},
    {"/session", command_session, "print the session's id, for `agentctl show` and --session"},
    {"/history", command_history, "print what was said"},
    {"/quit", command_quit, "leave; so does Ctrl-D"},
};

static int command_help(struct chat *c, struct err *err)
{
    (void)c;
    (void)err;
    for (unsigned i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(stderr, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("  A backslash at the end of a line goes on with the next one.\n", stderr);
    return 0;
}

static int say(struct chat *c, const char *line, struct err *err)
{
    json_t *turn = NULL;
    int rc = client_call(c->view.c, "turn.start",
                         json_pack("{s:s, s:o, s:s}", "sessionId", c->session, "input",
                                   json_text(str_c(line)), "onDisconnect", "cancel"),
                         &turn, err);
    if (rc == 0)
        rc = view_turn(&c->view, json_string_value(json_object_get(turn, "turnId")), err);
    json_decref(turn);
    return rc;
}

static int obey(struct chat *c, const char *line, struct err *err)
{
    if (*line != '/')
        return say(c, line, err);
    for (unsigned i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(line, commands[i].name) == 0)
            return commands[i].run(c, err);
    fprintf(stderr, "unknown command '%s'; /help lists them\n", line);
    return 0;
}

static int converse(struct chat *c, struct lineedit *in, struct err *err)
{
    bool person = isatty(STDIN_FILENO) != 0;
    while (!c->quit) {
        const char *line = NULL;
        int rc = lineedit_read(in, "> ", &line, err);
        if (rc < 0)
            return rc;
        if (!line) {
            if (person)
                fputc('\n', stderr);
            break;
        }
        if (str_trim(str_c(line)).n == 0)
            continue;
        rc = obey(c, line, err);
        /* A refused request leaves the conversation as it was; a lost daemon ends it. */
        if (rc < 0 && (rc != -ERR_DENIED || !person))
            return rc;
        if (rc < 0)
            ctl_fail(err);
    }
    return 0;
}

/* $XDG_STATE_HOME/agentd/chat_history; NULL when there is no home. */
static char *history_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    struct buf b;
    struct err err;
    buf_init(&b, 0);
    if (state && *state == '/')
        buf_printf(&b, "%s/agentd", state);
    else if (home && *home == '/')
        buf_printf(&b, "%s/.local/state/agentd", home);
    if (!b.len || io_make_dirs(buf_cstr(&b), 0700, &err) < 0) {
        buf_done(&b);
        return NULL;
    }
    buf_puts(&b, "/chat_history");
    /* What one types to an agent is private. */
    int fd = open(buf_cstr(&b), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    io_close(&fd);
    return buf_take(&b);
}

static int parse(struct chat *c, int argc, char **argv, int *code)
{
    struct opt opts[CTL_OPEN_ROWS + 3];
    const struct opt own[] = {
        {"approve", 0, OPT_WORD, &c->approve, "allow_once|allow_session|deny",
         "answer every question so"},
        {"json", 'j', OPT_FLAG, &c->json, NULL, "print the events, one a line"},
        {"quiet", 'q', OPT_FLAG, &c->quiet, NULL, "no figures after a turn"},
    };
    ctl_open_rows(&c->open, opts);
    for (unsigned i = 0; i < ARRAY_LEN(own); i++)
        opts[CTL_OPEN_ROWS + i] = own[i];
    const struct opt_cmd cmd = {
        .name = "agentctl chat",
        .summary = "Talk with the agent, turn by turn, in one session.",
        .more = "Ctrl-C interrupts the turn, not the program; /help lists the commands. Without a\n"
                "terminal, each line of standard input is a request.\n"
                "Exit codes: 0 at the end of input, 1 failed, 2 usage, 5 engine not available.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
    };
    return opt_parse(&cmd, argc, argv, false, code);
}

int ctl_chat(int argc, char **argv)
{
    struct chat c = {0};
    struct err err;
    struct client *client = NULL;
    struct lineedit *in = NULL;
    int code;
    if (parse(&c, argc, argv, &code) < 0)
        return code;
    if (ctl_open_daemon(&client, &c.open, &err) < 0)
        return ctl_open_failed(NULL, &err);
    view_init(&c.view, client);
    c.view.approve = c.approve;
    c.view.json = c.json;
    c.view.quiet = c.quiet;
    view_catch_interrupts();
    char *history = history_path();
    int rc = ctl_open_session(&c.session, client, &c.open, &err);
    if (rc == 0)
        rc = lineedit_open(&in, "agentctl", history, &err);
    if (rc == 0 && isatty(STDIN_FILENO))
        fprintf(stderr, "session %s; /help lists the commands\n", c.session);
    if (rc == 0)
        rc = converse(&c, in, &err);
    code = rc < 0 ? ctl_open_failed(client, &err) : EXIT_OK;
    lineedit_close(in);
    mem_free(history);
    mem_free(c.session);
    client_close(client);
    return code;
}
