/* ctl_tool.c - agentctl tool: what tools there are, and calls without a model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/client.h"
#include "agentd/ctl.h"
#include "agentd/ctl_changes.h"
#include "agentd/ctl_view.h"
#include "agentd/layer.h"
#include "agentd/policy.h"
#include "agentd/spawner.h"
#include "agentd/toollua.h"
#include "agentd/toolrun.h"
#include "base/io.h"
#include "base/limits.h"
#include "tools/tool.h"

static void print_profiles(void)
{
    const struct tool_profile *p;
    printf("profiles:\n");
    for (unsigned i = 0; (p = tool_profile_at(i)); i++) {
        printf("  %-10s %s\n            ", p->name, p->summary);
        for (unsigned j = 0; p->tools[j]; j++)
            printf(" %s", p->tools[j]);
        printf("%s\n", p->tools[0] ? "" : " none");
    }
}

static void print_tools(const struct tool_profile *p, const struct toollua *lua)
{
    static const char *const places[] = {"cell", "web cell", "daemon"};
    const struct tool *t;
    printf("%-20s %-9s %s\n", "TOOL", "RUNS IN", "WHAT IT DOES");
    for (unsigned i = 0; (t = tool_at(i)); i++)
        if (!p || tool_profile_has(p, str_c(t->name)))
            printf("%-20s %-9s %s\n", t->name, places[t->place], t->summary);
    for (unsigned i = 0; (t = toollua_at(lua, i)); i++)
        printf("%-20s %-9s %s\n", t->name, places[t->place], t->summary);
}

static int print_schemas(const struct tool_profile *p, const struct toollua *lua,
                         struct err *err)
{
    struct buf b;
    buf_init(&b, 0);
    tool_profile_json(p, &b);
    buf_truncate(&b, b.len - 1); /* the closing bracket */
    for (unsigned i = 0; i < toollua_count(lua); i++)
        buf_printf(&b, "%s{\"type\": \"function\", \"function\": %s}", b.len > 1 ? ", " : "",
                   toollua_at(lua, i)->schema);
    buf_putc(&b, ']');
    int rc = buf_check(&b, "schemas", err);
    if (rc == 0)
        puts(buf_cstr(&b));
    buf_done(&b);
    return rc;
}

static int tool_list(int argc, char **argv)
{
    const char *profile = NULL, *dir = NULL;
    bool json = false;
    const struct opt opts[] = {
        {"tools", 0, OPT_STR, &dir, "DIR", "Also those declared in Lua files."},
        {"profile", 'p', OPT_STR, &profile, "NAME", "Only this profile's tools, in its order."},
        {"json", 'j', OPT_FLAG, &json, NULL, "The value of a request's \"tools\" member."},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl tool list",
        .summary = "List the tools, or print their schemas as the model sees them.",
        .more = "The JSON is byte-stable from one release to the next within a profile.\n"
                "Exit status: 0; 1 for a Lua file with an error; 2 for an unknown profile.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
    };
    int code;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    const struct tool_profile *p = NULL;
    if (profile || json)
        p = tool_profile_find(str_c(profile ? profile : "general"));
    if (profile && !p) {
        fprintf(stderr, "agentctl: no profile '%s'; 'agentctl tool list' names them\n", profile);
        return EXIT_USAGE;
    }
    struct err err = {0};
    struct toollua *lua = NULL;
    if (dir && toollua_open(&lua, dir, &err) < 0)
        return ctl_fail(&err);
    int rc = json ? print_schemas(p, lua, &err) : 0;
    if (!json)
        print_tools(p, lua);
    if (!json && !p) {
        putchar('\n');
        print_profiles();
    }
    toollua_free(lua);
    return rc < 0 ? ctl_fail(&err) : EXIT_OK;
}

/* --- call ----------------------------------------------------------------------------------- */

struct called {
    struct ev *ev;
    struct toolrun *t; /* of a call alone */
    const char *workspace;
    bool json, apply, copy;
    int exit_code;
};

static int exit_code_of(struct str status)
{
    enum { EXIT_REFUSED = 3 };
    if (str_is(status, "ok") || str_is(status, "running"))
        return EXIT_OK;
    if (str_is(status, "invalid"))
        return EXIT_USAGE;
    return str_is(status, "denied") || str_is(status, "unavailable") ? EXIT_REFUSED : EXIT_FAIL;
}

/* What the call wrote above a copy workspace, which ends with it: listed, or taken over. */
static void take_changes(struct called *c, json_t *result)
{
    struct err err = {0};
    int64_t since;
    int layer = toolrun_layer(c->t, &since);
    if (layer < 0)
        return;
    json_t *o = layer_list(layer, c->workspace, since, &err);
    json_t *taken = o && c->apply && c->exit_code == EXIT_OK
                        ? layer_apply(layer, c->workspace, since, NULL, false, &err)
                        : NULL;
    if (!c->json && o)
        changes_print(stderr, o);
    if (!c->json && taken)
        (void)changes_print_taken(stderr, taken);
    if (err.code)
        (void)ctl_fail(&err);
    if (err.code || json_array_size(json_object_get(taken, "failed")))
        c->exit_code = EXIT_FAIL;
    json_object_update(result, o);
    json_object_update(result, taken);
    json_decref(o);
    json_decref(taken);
}

static void on_done(void *arg, const struct tool_result *r)
{
    struct called *c = arg;
    json_t *o = json_pack("{s:o, s:s, s:b, s:s, s:I, s:I, s:I, s:b}", "text", json_text(r->text),
                          "status", tool_status_name(r->status), "is_error", r->is_error,
                          "level", r->level, "us",
                          (json_int_t)((r->ended_ns - r->started_ns) / 1000),
                          "output_bytes", (json_int_t)r->output_bytes, "cut_bytes",
                          (json_int_t)r->cut_bytes, "state_lost", r->state_lost);
    if (o && r->exit_code >= 0)
        json_object_set_new(o, "exit_code", json_integer(r->exit_code));
    if (o && r->called)
        json_object_set(o, "called", (json_t *)(uintptr_t)r->called);
    c->exit_code = exit_code_of(str_c(tool_status_name(r->status)));
    if (!c->json)
        printf("%.*s\n", STR_ARG(r->text));
    take_changes(c, o);
    if (c->json)
        view_json(o);
    json_decref(o);
    ev_stop(c->ev);
}

/* The arguments as given, or all of stdin for "-". */
static int read_args(const char *given, struct buf *out, struct err *err)
{
    buf_init(out, LIMIT_ARGUMENTS_BYTES);
    int rc = 0;
    if (strcmp(given, "-") == 0)
        rc = io_read_all(0, out, err);
    else
        buf_puts(out, given);
    if (rc == 0)
        rc = buf_check(out, "arguments", err);
    if (rc == 0 && (!utf8_valid(buf_view(out)) || (out->len && memchr(out->data, 0, out->len))))
        rc = err_set(err, ERR_PARSE, "the arguments are no JSON: they hold bytes that are not "
                     "UTF-8, or a NUL");
    return rc;
}

static int run_call(const char *name, struct str args, struct toolrun_opts *o,
                    struct spawner *spawner, struct called *c, struct err *err)
{
    struct toolrun *t = NULL;
    const struct toolrun_cbs cbs = {.on_done = on_done, .arg = c};
    int rc = ev_new(&c->ev, err);
    if (rc == 0 && spawner)
        rc = spawner_attach(spawner, c->ev, NULL, NULL, err);
    o->ev = c->ev;
    o->spawner = spawner;
    if (rc == 0)
        rc = toolrun_open(&t, o, err);
    c->t = t;
    if (rc == 0 && !toolrun_call(t, "1", name, args, true, &cbs))
        rc = err_nomem(err);
    if (rc == 0)
        ev_run(c->ev);
    toolrun_close(t);
    return rc;
}

/* In a cell of its own that ends with the call. */
static int call_alone(const char *name, struct str args, struct toolrun_opts *o,
                      const char *policy_name, const char *workspace, struct called *c,
                      struct err *err)
{
    struct policy *policy = NULL;
    struct spawner *spawner = NULL;
    char real[PATH_MAX];
    o->session = "call";
    o->workspace = c->workspace = real;
    int rc = io_real_dir("workspace", workspace, real, err);
    if (rc == 0)
        rc = policy_load(&policy, policy_name, NULL, err);
    if (rc == 0 && c->copy && policy->spec.work == SANDBOX_WORK_DIR)
        policy->spec.work = SANDBOX_WORK_COPY;
    o->policy = policy;
    if (rc == 0 && !o->unconfined)
        rc = spawner_start(&spawner, &(struct spawner_opts){0}, err);
    if (rc == 0)
        rc = run_call(name, args, o, spawner, c, err);
    spawner_free(spawner);
    ev_free(c->ev);
    policy_free(policy);
    return rc;
}

/* In a session of the daemon: its cell, shell and interpreter are kept between calls. */
static int call_in_session(const char *socket, const char *session, const char *name,
                           struct str args, struct called *c, struct err *err)
{
    struct client *client = NULL;
    json_t *r = NULL;
    int rc = client_connect(&client, socket, err);
    if (rc == 0)
        rc = client_call(client, "tool.call",
                         json_pack("{s:o, s:o, s:o}", "sessionId", json_text(str_c(session)),
                                   "name", json_text(str_c(name)), "arguments", json_text(args)),
                         &r, err);
    if (rc == 0) {
        struct str status = json_view(json_object_get(r, "status"));
        struct str text = json_view(json_object_get(r, "text"));
        if (c->json)
            view_json(r);
        else
            printf("%.*s\n", STR_ARG(text));
        c->exit_code = exit_code_of(status);
    }
    json_decref(r);
    client_close(client);
    return rc;
}

static int tool_call(int argc, char **argv)
{
    struct toolrun_opts o = {.profile = "general"};
    const char *sandbox = "on", *name = "coding", *workspace = ".";
    const char *session = NULL, *socket = NULL;
    struct called c = {.json = false};
    const struct opt opts[] = {
        {"workspace", 'w', OPT_STR, &workspace, "DIR", "The tools' workspace (.)."},
        {"policy", 'P', OPT_STR, &name, "NAME", "Policy by name or file (coding)."},
        {"profile", 'p', OPT_STR, &o.profile, "NAME", "Schemas and sizes (general)."},
        {"index", 'i', OPT_STR, &o.index, "FILE", "Search index; default: the workspace."},
        {"state", 0, OPT_STR, &o.state_dir, "DIR", "Keep spills, pages and notes here."},
        {"tools", 0, OPT_STR, &o.lua_tools, "DIR", "Tools declared in Lua files."},
        {"search", 0, OPT_STR, &o.search, "FILE", "Search engines of the web, as YAML."},
        {"cassette", 0, OPT_STR, &o.cassette, "record:FILE|replay:FILE",
         "Keep what search and open fetch, or answer from it."},
        {"sandbox", 0, OPT_WORD, &sandbox, "on|off", "off runs the tool unconfined."},
        {"copy", 0, OPT_FLAG, &c.copy, NULL, "A layer above DIR instead of edits in place."},
        {"apply", 0, OPT_FLAG, &c.apply, NULL, "With a copy, take its changes over."},
        {"session", 's', OPT_STR, &session, "ID", "In this session of the daemon."},
        {"socket", 0, OPT_STR, &socket, "PATH", "The daemon's socket, with --session."},
        {"json", 'j', OPT_FLAG, &c.json, NULL, "Print the whole result as one JSON object."},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl tool call",
        .args = "NAME JSON|-",
        .summary = "Carry out one tool call, as the agent loop would.",
        .more = "The arguments are a JSON object, or - to read it from stdin. What a policy\n"
                "would ask about counts as approved: you are the one who asks.\n"
                "With --copy (workspace: copy) what it changed is listed on stderr (in --json as\n"
                "changes) and forgotten, unless --apply takes it over.\n"
                "With --session the session's profile, policy and workspace hold, and its\n"
                "shell and interpreter are kept from call to call.\n"
                "Exit status: 0 done; 1 the tool failed; 2 bad arguments; 3 denied, or the\n"
                "sandbox is not available.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 2,
        .max_args = 2,
    };
    int code, at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    struct err err = {0};
    struct buf args;
    o.unconfined = strcmp(sandbox, "off") == 0;
    int rc = read_args(argv[at + 1], &args, &err);
    if (rc < 0) {
        buf_done(&args);
        ctl_fail(&err);
        return EXIT_USAGE;
    }
    if (session)
        rc = call_in_session(socket, session, argv[at], buf_view(&args), &c, &err);
    else
        rc = call_alone(argv[at], buf_view(&args), &o, name, workspace, &c, &err);
    buf_done(&args);
    return rc < 0 ? ctl_fail(&err) : c.exit_code;
}

int ctl_tool(int argc, char **argv)
{
    static const struct ctl_command table[] = {
        {"list", tool_list, "List tools and print their schemas."},
        {"call", tool_call, "Carry out one call."},
        {"bench", ctl_tool_bench, "Measure calls in a warm cell."},
    };
    return ctl_dispatch("agentctl tool", table, ARRAY_LEN(table), argc, argv);
}
