/*
 * ctl_follow.c - agentctl attach and tail: the events of a session from any point on, drawn
 * for people or printed for programs. A lost connection is taken up where it broke.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "agentd/ctl_view.h"

struct follow {
    const char *socket, *session;
    int64_t after;     /* last seq seen; -1 = from now on */
    char epoch[64];    /* of the store that `after` counts in; "" = not known yet */
    bool json, once, attach;
    const char *approve;
};

static int subscribe(struct follow *f, struct client *c, struct err *err)
{
    json_t *reply = NULL;
    json_t *after = f->after < 0 ? json_string("now") : json_integer(f->after);
    json_t *p = json_pack("{s:o, s:o}", "sessionId", json_text(str_c(f->session)), "after", after);
    if (f->epoch[0])
        json_object_set_new(p, "epoch", json_string(f->epoch));
    int rc = client_call(c, "session.subscribe", p, &reply, err);
    struct str epoch = view_field(reply, "epoch");
    if (rc == 0)
        snprintf(f->epoch, sizeof f->epoch, "%.*s", STR_ARG(epoch));
    /* From here on nothing of one session may be missed, even over a reconnect; the events of
     * "all" have no common count. */
    if (rc == 0 && f->after < 0 && strcmp(f->session, "*") != 0)
        f->after = json_integer_value(json_object_get(reply, "head"));
    json_decref(reply);
    return rc;
}

/* Follows until the connection breaks (-ERR_SYS), an interrupt, or with --once a turn's end. */
static int follow(struct follow *f, struct view *v, struct err *err)
{
    while (!(f->once && v->done)) {
        json_t *msg = NULL;
        /* The time limit catches an interrupt that came just before the wait. */
        int rc = client_next(v->c, 500, &msg, err);
        if (view_interrupts()) {
            json_decref(msg);
            return 0;
        }
        if (rc < 0 && rc != -ERR_CANCELLED)
            return rc;
        json_t *p = json_object_get(msg, "params"), *seq = json_object_get(p, "seq");
        if (json_is_integer(seq) && f->after >= 0 && !str_is(view_field(p, "type"), "replay.done"))
            f->after = json_integer_value(seq);
        if (msg)
            view_message(v, msg);
        json_decref(msg);
        if (ferror(stdout))
            return err_set(err, ERR_STATE, "the events could not be written to standard output");
    }
    return 0;
}

static int stay(struct follow *f, int *code, struct err *err)
{
    enum { TRIES = 20 };
    int tries = 0, rc;
    do {
        struct client *c = NULL;
        struct view v;
        rc = client_connect(&c, f->socket, err);
        if (rc == 0)
            rc = subscribe(f, c, err);
        if (rc < 0 && (tries == 0 || rc != -ERR_SYS)) {
            client_close(c);
            return rc;
        }
        if (rc == 0) {
            tries = 0;
            view_init(&v, c);
            v.json = f->json;
            v.watch_only = !f->attach;
            v.approve = f->approve;
            rc = follow(f, &v, err);
            *code = f->once ? v.code : EXIT_OK;
        }
        client_close(c);
        if (rc == -ERR_SYS) {
            fprintf(stderr, "agentctl: %s; trying again\n", err->text);
            nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
        }
    } while (rc == -ERR_SYS && ++tries < TRIES && !view_interrupts());
    return rc;
}

int ctl_follow(int argc, char **argv)
{
    bool attach = strcmp(argv[0], "attach") == 0;
    struct follow f = {.after = attach ? 0 : -1, .attach = attach};
    struct err err;
    int code;
    const struct opt opts[] = {
        {"socket", 0, OPT_STR, &f.socket, "PATH", "where the daemon listens"},
        {"after", 'a', OPT_INT, &f.after, "SEQ",
         attach ? "only events behind this one; default 0, all of them"
                : "events behind this one; default: from now on"},
        {"once", '1', OPT_FLAG, &f.once, NULL, "end with the first turn that ends"},
        {"json", 'j', OPT_FLAG, &f.json, NULL, "print the events, one a line"},
        {"approve", 0, OPT_WORD, &f.approve, "allow_once|allow_session|deny",
         "answer every question so"},
    };
    const struct opt_cmd cmd = {
        .name = attach ? "agentctl attach" : "agentctl tail",
        .args = attach ? "SESSION" : "[SESSION]",
        .summary = attach ? "Replay a session and stay with it; questions are answered here."
                          : "Watch the events of a session, or of all, as they come.",
        .more = "A lost connection is taken up where it broke. Ctrl-C leaves; the turn goes on.\n"
                "Exit codes: 0 left, 1 failed, 2 usage; with --once those of `agentctl run`.",
        .opts = opts,
        .n_opts = attach ? 5 : 4,
        .min_args = attach ? 1 : 0,
        .max_args = 1,
    };
    int at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    if (f.after < 0 && !(f.after == -1 && !attach)) {
        fprintf(stderr, "%s: --after cannot be below 0\n", cmd.name);
        return EXIT_USAGE;
    }
    f.session = at < argc ? argv[at] : "*";
    view_catch_interrupts();
    code = EXIT_OK;
    return stay(&f, &code, &err) < 0 ? ctl_fail(&err) : code;
}
