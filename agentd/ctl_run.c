/* ctl_run.c - agentctl run: one request, one turn, watched as it happens. */
#include <stdio.h>

#include "agentd/ctl.h"
#include "agentd/ctl_open.h"
#include "agentd/ctl_view.h"
#include "base/mem.h"

struct run_flags {
    struct ctl_open open;
    const char *approve;
    bool json, quiet;
};

static int parse(struct run_flags *f, int argc, char **argv, int *code)
{
    struct opt opts[CTL_OPEN_ROWS + 3];
    const struct opt own[] = {
        {"approve", 0, OPT_WORD, &f->approve, "allow_once|allow_session|deny",
         "answer every question so"},
        {"json", 'j', OPT_FLAG, &f->json, NULL, "print the events, one a line"},
        {"quiet", 'q', OPT_FLAG, &f->quiet, NULL, "no figures at the end"},
    };
    ctl_open_rows(&f->open, opts);
    for (unsigned i = 0; i < ARRAY_LEN(own); i++)
        opts[CTL_OPEN_ROWS + i] = own[i];
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

static int run_turn(struct view *v, const struct run_flags *f, const char *request,
                    struct err *err)
{
    json_t *turn = NULL;
    char *session = NULL;
    int rc = ctl_open_session(&session, v->c, &f->open, err);
    if (rc == 0)
        rc = client_call(v->c, "turn.start",
                         json_pack("{s:s, s:o, s:s}", "sessionId", session, "input",
                                   json_text(str_c(request)), "onDisconnect", "cancel"),
                         &turn, err);
    if (rc == 0)
        rc = view_turn(v, json_string_value(json_object_get(turn, "turnId")), err);
    if (rc == 0 && !f->open.private_mode && !f->json && !f->quiet)
        fprintf(stderr, "session %s%s%s\n", session,
                f->open.copy ? "; what it changed: agentctl changes " : "",
                f->open.copy ? session : "");
    mem_free(session);
    json_decref(turn);
    return rc;
}

int ctl_run(int argc, char **argv)
{
    struct run_flags f = {0};
    struct err err;
    struct client *c = NULL;
    struct view v;
    int code;
    int at = parse(&f, argc, argv, &code);
    if (at < 0)
        return code;
    if (!str_trim(str_c(argv[at])).n) {
        fputs("agentctl run: the request is empty\n", stderr);
        return EXIT_USAGE;
    }
    if (ctl_open_daemon(&c, &f.open, &err) < 0)
        return ctl_open_failed(NULL, &err);
    view_init(&v, c);
    v.approve = f.approve;
    v.json = f.json;
    v.quiet = f.quiet;
    view_catch_interrupts();
    code = run_turn(&v, &f, argv[at], &err) < 0 ? ctl_open_failed(c, &err) : v.code;
    client_close(c);
    return code;
}
