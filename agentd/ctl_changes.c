/*
 * ctl_changes.c - `agentctl changes`: what a session wrote above its copy workspace, printed for
 * a person, taken over or dropped. The same printing serves `sandbox run` and `tool call`.
 */
#include "agentd/ctl_changes.h"

#include <stdio.h>
#include <string.h>

#include "agentd/client.h"
#include "agentd/ctl.h"
#include "agentd/ctl_view.h"

static void print_one(FILE *to, const json_t *o)
{
    struct str change = view_field(o, "change"), type = view_field(o, "type");
    bool folder = str_is(type, "folder"), mode_only = json_is_false(json_object_get(o, "content"));
    fprintf(to, "%-8.*s ", STR_ARG(change));
    view_put(to, view_field(o, "path"), "");
    fputs(folder ? "/" : "", to);
    if (str_is(type, "link")) {
        fputs(" -> ", to);
        view_put(to, view_field(o, "to"), "");
    }
    if (json_object_get(o, "size"))
        fprintf(to, " (%lld bytes)", (long long)json_integer_value(json_object_get(o, "size")));
    if (mode_only || (str_is(change, "changed") &&
                      !str_eq(view_field(o, "mode"), view_field(o, "oldMode"))))
        fprintf(to, " (mode %.*s, was %.*s)", STR_ARG(view_field(o, "mode")),
                STR_ARG(view_field(o, "oldMode")));
    if (str_is(type, "other"))
        fputs(" (no file, folder or link: cannot be taken over)", to);
    if (json_is_true(json_object_get(o, "stale")))
        fputs(" (changed below since)", to);
    if (view_field(o, "note").n) {
        fputs(" (", to);
        view_put(to, view_field(o, "note"), "");
        fputs(")", to);
    }
    fputc('\n', to);
}

static void print_diff(FILE *to, const json_t *o)
{
    struct str path = view_field(o, "path"), diff = view_field(o, "diff");
    if (diff.n == 0)
        return;
    bool added = str_is(view_field(o, "change"), "added");
    fprintf(to, "\n--- %s", added ? "/dev/null" : "a/");
    view_put(to, added ? STR("") : path, "");
    fputs("\n+++ b/", to);
    view_put(to, path, "");
    fputc('\n', to);
    view_put(to, diff, "");
}

void changes_print(FILE *to, const json_t *reply)
{
    const json_t *list = json_object_get(reply, "changes");
    size_t i;
    json_t *o;
    if (json_array_size(list) == 0)
        fputs("no changes\n", to);
    json_array_foreach((json_t *)(uintptr_t)list, i, o)
        print_one(to, o);
    json_array_foreach((json_t *)(uintptr_t)list, i, o)
        print_diff(to, o);
    if (json_is_true(json_object_get(reply, "cut")))
        fputs("and more: the list was cut\n", to);
}

int changes_print_taken(FILE *to, const json_t *reply)
{
    const json_t *failed = json_object_get(reply, "failed");
    size_t i;
    json_t *o;
    json_array_foreach(json_object_get(reply, "applied"), i, o)
    {
        fputs("taken    ", to);
        view_put(to, json_view(o), "");
        fputc('\n', to);
    }
    json_array_foreach((json_t *)(uintptr_t)failed, i, o)
    {
        fputs("left     ", to);
        view_put(to, view_field(o, "path"), "");
        fprintf(to, ": %.*s\n", STR_ARG(view_field(o, "why")));
    }
    return json_array_size(failed) ? EXIT_FAIL : EXIT_OK;
}

static int ask(const char *socket, const char *session, const char *action, bool force,
               char **paths, int n_paths, json_t **reply, struct err *err)
{
    struct client *c = NULL;
    json_t *p = json_pack("{s:o, s:s, s:b}", "sessionId", json_text(str_c(session)), "action",
                          action, "force", (int)force);
    json_t *list = n_paths ? json_array() : NULL;
    for (int i = 0; i < n_paths; i++)
        json_array_append_new(list, json_text(str_c(paths[i])));
    if (list)
        json_object_set_new(p, "paths", list);
    int rc = client_connect(&c, socket, err);
    if (rc == 0)
        rc = client_call(c, "session.changes", json_incref(p), reply, err);
    json_decref(p);
    client_close(c);
    return rc;
}

int ctl_changes(int argc, char **argv)
{
    const char *socket = NULL;
    bool json = false, apply = false, drop = false, force = false;
    const struct opt opts[] = {
        {"apply", 0, OPT_FLAG, &apply, NULL, "take them over into the workspace, or only PATHs"},
        {"drop", 0, OPT_FLAG, &drop, NULL, "forget them; shell and interpreter start anew"},
        {"force", 'f', OPT_FLAG, &force, NULL, "with --apply: also over what changed below since"},
        {"socket", 's', OPT_STR, &socket, "PATH", "the daemon's socket"},
        {"json", 'j', OPT_FLAG, &json, NULL, "the daemon's reply as JSON"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl changes",
        .args = "SESSION [PATH...]",
        .summary = "Show what a session changed in its copy; take it over or drop it.",
        .more = "For sessions whose policy says workspace: copy. The layer is in memory and ends\n"
                "with the session's cell, at the latest with the daemon: take over what is to\n"
                "stay. Paths are as they are printed: a backslash is doubled, odd bytes \\ooo.\n"
                "Exit codes: 0 done, 1 failed or something was left, 2 usage.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = 65,
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    if ((apply && drop) || (!apply && (force || argc - at > 1))) {
        const char *why = apply ? "--apply or --drop, not both"
                                : "paths and --force go with --apply";
        fprintf(stderr, "agentctl changes: %s\n", why);
        return EXIT_USAGE;
    }
    struct err err = {0};
    json_t *reply = NULL;
    const char *action = apply ? "apply" : drop ? "drop" : "list";
    int rc = ask(socket, argv[at], action, force, argv + at + 1, argc - at - 1, &reply, &err);
    code = rc < 0 ? ctl_fail(&err) : EXIT_OK;
    if (rc == 0 && json)
        view_json(reply);
    if (rc == 0 && apply)
        code = json ? json_array_size(json_object_get(reply, "failed")) ? EXIT_FAIL : EXIT_OK
                    : changes_print_taken(stdout, reply);
    else if (rc == 0 && !json && !drop)
        changes_print(stdout, reply);
    json_decref(reply);
    return code;
}
