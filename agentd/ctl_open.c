/* ctl_open.c - finds or starts the daemon, makes or takes the session, follows its events. */
#include "agentd/ctl_open.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/ctl.h"
#include "agentd/ctl_view.h"
#include "base/io.h"
#include "base/mem.h"

void ctl_open_rows(struct ctl_open *o, struct opt rows[CTL_OPEN_ROWS])
{
    const struct opt all[CTL_OPEN_ROWS] = {
        {"private", 0, OPT_FLAG, &o->private_mode, NULL, "start a daemon just for this command"},
        {"engine", 'e', OPT_STR, &o->engine, "SPEC",
         "with --private: native:PATH, script:FILE or remote:URL"},
        {"config", 'c', OPT_STR, &o->config, "FILE", "with --private: the daemon's configuration"},
        {"sandbox", 0, OPT_STR, &o->sandbox, "WORD", "with --private: required (default) or off"},
        {"verbose", 'v', OPT_FLAG, &o->verbose, NULL, "with --private: show the daemon's log"},
        {"socket", 0, OPT_STR, &o->socket, "PATH", "where the daemon listens"},
        {"profile", 'p', OPT_STR, &o->profile, "NAME", "demo, code, research, math, ..."},
        {"workspace", 'w', OPT_STR, &o->workspace, "DIR", "folder to work in; default: this one"},
        {"session", 's', OPT_STR, &o->session, "ID", "go on in this session"},
        {"copy", 0, OPT_FLAG, &o->copy, NULL, "edits go to a copy: see agentctl changes"},
        {"max-steps", 0, OPT_INT, &o->max_steps, "N", "generations of a turn"},
        {"max-tokens", 0, OPT_INT, &o->max_tokens, "N", "tokens sampled in a turn"},
    };
    memcpy(rows, all, sizeof all);
    o->max_steps = o->max_tokens = CTL_OPEN_UNSET; /* 0 is refused in words, not taken for none */
}

int ctl_open_daemon(struct client **out, const struct ctl_open *o, struct err *err)
{
    struct client_private po = {.engine = o->engine, .profile = o->profile,
                                .sandbox = o->sandbox, .config = o->config,
                                .verbose = o->verbose};
    if (o->private_mode && o->copy)
        return err_set(err, ERR_STATE, "--copy: the copy would end with the private daemon; start "
                       "agentd, and see agentctl changes");
    if (!o->private_mode && (o->engine || o->config || o->sandbox))
        return err_set(err, ERR_STATE, "--engine, --config and --sandbox belong to --private: "
                                       "a running daemon has its own");
    return o->private_mode ? client_private(out, &po, err) : client_connect(out, o->socket, err);
}

static json_t *session_params(const struct ctl_open *o, const char *cwd)
{
    json_t *params = json_pack("{s:o, s:{}}", "cwd", json_text(str_c(cwd)), "limits");
    json_t *limits = json_object_get(params, "limits");
    if (o->copy)
        json_object_set_new(params, "copy", json_true());
    if (o->profile)
        json_object_set_new(params, "profile", json_text(str_c(o->profile)));
    if (o->max_steps != CTL_OPEN_UNSET)
        json_object_set_new(limits, "maxSteps", json_integer(o->max_steps));
    if (o->max_tokens != CTL_OPEN_UNSET)
        json_object_set_new(limits, "maxTokens", json_integer(o->max_tokens));
    return params;
}

int ctl_open_session(char **id, struct client *c, const struct ctl_open *o, struct err *err)
{
    char cwd[PATH_MAX];
    json_t *session = NULL;
    int rc = 0;
    if (o->session)
        session = json_pack("{s:o}", "sessionId", json_text(str_c(o->session)));
    else
        rc = io_real_dir("workspace", o->workspace ? o->workspace : ".", cwd, err);
    if (rc == 0 && !o->session && !utf8_valid(str_c(cwd)))
        rc = err_set(err, ERR_UNSUPPORTED,
                     "workspace '%.200s': the path must be UTF-8; rename the folder", cwd);
    if (rc == 0 && !o->session)
        rc = client_call(c, "session.create", session_params(o, cwd), &session, err);
    struct str name = view_field(session, "sessionId");
    if (rc == 0)
        rc = client_call(c, "session.subscribe",
                         json_pack("{s:o, s:s}", "sessionId", json_text(name), "after", "now"),
                         NULL, err);
    if (rc == 0 && !(*id = mem_strdup(name)))
        rc = err_nomem(err);
    json_decref(session);
    return rc;
}

int ctl_open_failed(const struct client *c, const struct err *err)
{
    json_t *data = c ? json_object_get(client_error(c), "data") : NULL;
    bool engine = str_is(view_field(data, "kind"), "engine_unavailable");
    ctl_fail(err);
    return engine ? EXIT_ENGINE : EXIT_FAIL;
}
