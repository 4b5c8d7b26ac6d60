/*
 * ctl_sandbox.c - `agentctl sandbox`: run one command confined, explain a policy, look
 * around inside, list the keys. What people see here is what sessions get.
 */
#include "agentd/ctl_sandbox.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "agentd/ctl_changes.h"
#include "agentd/layer.h"
#include "base/io.h"
#include "base/json.h"
#include "sandbox/spawn.h"
#include "sandbox/spec.h"

/* Exit codes of `sandbox run`, besides the program's own. */
enum { EXIT_REFUSED = 120, EXIT_LIMIT = 124, EXIT_NOT_RUN = 127 };

struct common {
    const char *policy, *workspace;
    bool json, apply, copy;
};

static int load(const struct common *c, struct policy **p, struct sandbox_spec *spec,
                struct err *err)
{
    char real[PATH_MAX];
    const char *named = c->workspace ? c->workspace : ".";
    int rc = policy_load(p, c->policy, NULL, err);
    bool needed = rc == 0 && (c->workspace || (*p)->spec.work != SANDBOX_WORK_TEMP);
    if (needed)
        rc = io_real_dir("workspace", named, real, err);
    if (rc == 0)
        rc = policy_spec(*p, needed ? real : NULL, spec, err);
    if (rc == 0 && c->copy && spec->work == SANDBOX_WORK_DIR)
        spec->work = SANDBOX_WORK_COPY;
    return rc;
}

static json_t *limits_json(uint32_t limits)
{
    char text[64];
    json_t *a = json_array();
    struct str rest = str_c(sandbox_limits_text(limits, text, sizeof text)), word;
    while (rest.n && str_split(&rest, '+', &word))
        json_array_append_new(a, json_text(word));
    return a;
}

static void print_json(json_t *o)
{
    struct buf b;
    struct err err = {0};
    buf_init(&b, 0);
    if (json_write_pretty(o, &b, &err) == 0)
        puts(buf_cstr(&b));
    buf_done(&b);
    json_decref(o);
}

static json_t *record_json(const char *record)
{
    json_t *v = NULL;
    struct err err = {0};
    return json_read(&v, str_c(record), &err) == 0 ? v : json_null();
}

static void print_refusal(const struct sandbox_refusal *r, bool json)
{
    if (json) {
        json_t *o = json_object();
        json_object_set_new(o, "refused", json_true());
        json_object_set_new(o, "reason", json_text(str_c(r->reason)));
        json_object_set_new(o, "remedy", json_text(str_c(r->remedy)));
        json_object_set_new(o, "step", json_text(str_c(r->step)));
        json_object_set_new(o, "offered", json_text(str_c(sandbox_level_name(r->offered))));
        print_json(o);
        return;
    }
    fprintf(stderr, "agentctl: refused: %s\n", r->reason);
    if (r->remedy[0])
        fprintf(stderr, "agentctl: what helps: %s\n", r->remedy);
    fprintf(stderr, "agentctl: this host offers level %s\n", sandbox_level_name(r->offered));
}

static json_t *connections_json(const struct buf *b)
{
    json_t *a = json_array();
    struct str rest = buf_view(b), line;
    while (str_split(&rest, '\n', &line)) {
        json_t *v = NULL;
        struct err err = {0};
        if (line.n && json_read(&v, line, &err) == 0)
            json_array_append_new(a, v);
    }
    return a;
}

/* The result of the program goes to stderr, so that its own output stays clean. */
static void print_result(const struct relay_result *r, json_t *changes)
{
    const struct sandbox_exit *x = &r->exit;
    json_t *o = json_object();
    json_object_set_new(o, "level", json_text(str_c(sandbox_level_name(r->level))));
    json_object_set_new(o, "exit_code", x->code >= 0 ? json_integer(x->code) : json_null());
    json_object_set_new(o, "signal", x->signal ? json_integer(x->signal) : json_null());
    json_object_set_new(o, "limits", limits_json(x->limits | r->ended.limits));
    json_object_set_new(o, "wall_ms", json_real((double)x->wall_ns / 1e6));
    json_object_set_new(o, "cpu_ms", json_real((double)(x->user_ns + x->system_ns) / 1e6));
    json_object_set_new(o, "max_rss_bytes", json_integer((json_int_t)x->max_rss_bytes));
    json_object_set_new(o, "memory_peak_bytes",
                        json_integer((json_int_t)r->ended.memory_peak_bytes));
    json_object_set_new(o, "outlived", json_integer(r->ended.killed));
    json_object_set_new(o, "stdout_bytes", json_integer((json_int_t)r->bytes[0]));
    json_object_set_new(o, "stderr_bytes", json_integer((json_int_t)r->bytes[1]));
    json_object_set_new(o, "open_ms", json_real((double)r->open_ns / 1e6));
    json_object_set_new(o, "cell", record_json(r->record));
    json_object_set_new(o, "connections", connections_json(&r->connections));
    if (json_object_size(r->calls))
        json_object_set(o, "refused_calls", r->calls);
    json_object_update(o, changes);
    if (x->failed) {
        json_object_set_new(o, "failed_step", json_text(str_c(x->step)));
        json_object_set_new(o, "failed_errno", json_integer(x->sys));
    }
    struct buf b;
    struct err err = {0};
    buf_init(&b, 0);
    if (json_write(o, &b, &err) == 0)
        fprintf(stderr, "%s\n", buf_cstr(&b));
    buf_done(&b);
    json_decref(o);
}

/* With log_calls: for whoever writes the policy. */
static void print_calls(json_t *calls)
{
    const char *name;
    json_t *times;
    json_object_foreach(calls, name, times)
        fprintf(stderr, "agentctl: refused system call: %s (%lld times or more)\n", name,
                (long long)json_integer_value(times));
}

static int outcome(const struct relay_result *r, const char *program, bool json, json_t *changes)
{
    const struct sandbox_exit *x = &r->exit;
    char limits[64];
    sandbox_limits_text(x->limits | r->ended.limits, limits, sizeof limits);
    if (json)
        print_result(r, changes);
    else
        print_calls(r->calls);
    if (x->failed) {
        if (!json)
            fprintf(stderr, "agentctl: '%s' was not run: %s: %s\n", program, x->step,
                    strerror(x->sys));
        return EXIT_NOT_RUN;
    }
    if (limits[0] && !json)
        fprintf(stderr, "agentctl: limit reached: %s\n", limits);
    if (x->lost)
        return EXIT_LIMIT;
    if (x->signal)
        return x->limits ? EXIT_LIMIT : 128 + x->signal;
    return x->code;
}

static const char run_more[] =
    "The program sees the workspace at /workspace and nothing else of yours. Its output\n"
    "passes through pipes; input too, unless it is a terminal.\n"
    "Exit status: the program's own; 128+N when signal N ended it; 120 refused by policy or\n"
    "host; 124 a limit was reached; 127 the program could not be started; 2 usage.\n"
    "With --copy (workspace: copy) its changes are listed on stderr and then forgotten,\n"
    "unless --apply takes them over; what could not be makes the status 1.\n"
    "With --json one line about the outcome follows on stderr; a refusal is JSON on stdout.";

/* Of a copy workspace: what the program changed; with --apply taken over, if it went well. */
static json_t *take_changes(const struct common *c, const struct sandbox_spec *spec,
                            const struct relay_result *r, struct err *err)
{
    if (r->layer < 0)
        return NULL;
    json_t *o = layer_list(r->layer, spec->workspace, 0, err);
    if (o && c->apply && r->exit.code == 0) {
        json_t *taken = layer_apply(r->layer, spec->workspace, 0, NULL, false, err);
        if (!taken) {
            json_decref(o);
            return NULL;
        }
        json_object_update(o, taken);
        json_decref(taken);
    }
    return o;
}

static int run_or_shell(const struct common *c, const struct relay_opts *o)
{
    struct err err = {0};
    struct policy *p = NULL;
    struct sandbox_spec *spec = mem_zalloc(sizeof *spec);
    struct relay_result *r = mem_zalloc(sizeof *r);
    int rc = spec && r ? load(c, &p, spec, &err) : err_nomem(&err);
    int code = EXIT_FAIL;
    if (rc == 0) {
        struct relay_opts with = *o;
        with.policy = p;
        rc = relay_run(spec, &with, r, &err);
    }
    json_t *changes = rc == 0 ? take_changes(c, spec, r, &err) : NULL;
    if (rc == 0) {
        code = outcome(r, o->argv[0], c->json, changes);
        if (r->layer >= 0 && !changes)
            code = ctl_fail(&err);
        else if (changes && !c->json)
            changes_print(stderr, changes);
        if (changes && !c->json && c->apply)
            (void)changes_print_taken(stderr, changes);
        if (r->unwritten[0]) {
            fprintf(stderr, "agentctl: write to standard output: %s\n", strerror(r->unwritten[0]));
            code = EXIT_FAIL;
        }
        if (code == EXIT_OK && json_array_size(json_object_get(changes, "failed")))
            code = EXIT_FAIL;
    } else if (rc == -ERR_DENIED && r->refusal.reason[0]) {
        print_refusal(&r->refusal, c->json);
        code = EXIT_REFUSED;
    } else {
        code = ctl_fail(&err);
    }
    policy_free(p);
    json_decref(changes);
    relay_result_done(r);
    mem_free(spec);
    mem_free(r);
    return code;
}

static int sandbox_run(int argc, char **argv)
{
    struct common c = {.policy = "coding"};
    int64_t timeout_ms = 0;
    const struct opt opts[] = {
        {"policy", 'p', OPT_STR, &c.policy, "P", "name or file of the policy (coding)"},
        {"workspace", 'w', OPT_STR, &c.workspace, "DIR", "the directory (the current one)"},
        {"timeout-ms", 't', OPT_INT, &timeout_ms, "MS", "kill everything after this time"},
        {"copy", 0, OPT_FLAG, &c.copy, NULL, "a layer above DIR instead of edits in place"},
        {"apply", 0, OPT_FLAG, &c.apply, NULL,
         "with a copy, take its changes over if it exits with 0"},
        {"json", 'j', OPT_FLAG, &c.json, NULL, "one line about the outcome on stderr"},
    };
    const struct opt_cmd cmd = {"agentctl sandbox run", "-- PROGRAM [ARGUMENTS]",
                                "Run one program in a cell of its own.", run_more, opts,
                                ARRAY_LEN(opts), 1, -1};
    int code, at = opt_parse(&cmd, argc, argv, true, &code);
    if (at < 0)
        return code;
    if (timeout_ms < 0 || timeout_ms > 86400000) {
        fprintf(stderr, "agentctl sandbox run: --timeout-ms must be 0 to 86400000\n");
        return EXIT_USAGE;
    }
    struct relay_opts o = {.argv = (const char *const *)(void *)(argv + at),
                           .wall_ms = (uint32_t)timeout_ms};
    return run_or_shell(&c, &o);
}

static int sandbox_shell(int argc, char **argv)
{
    struct common c = {.policy = "coding"};
    const struct opt opts[] = {
        {"policy", 'p', OPT_STR, &c.policy, "P", "name or file of the policy (coding)"},
        {"workspace", 'w', OPT_STR, &c.workspace, "DIR", "the directory (the current one)"},
    };
    const struct opt_cmd cmd = {"agentctl sandbox shell", "", "Look around inside a cell.",
                                "A terminal of the cell's own is put between yours and the "
                                "shell.\nExit status as for 'agentctl sandbox run'.",
                                opts, ARRAY_LEN(opts), 0, 0};
    int code;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    static const char *const shell[] = {"/bin/bash", "--norc", "--noprofile", "-i", NULL};
    struct relay_opts o = {.argv = shell, .terminal = isatty(0)};
    return run_or_shell(&c, &o);
}

/* What the spawner would find out, were the cell made at level landlock. */
static void see_payload(struct probe *host, const struct sandbox_spec *spec)
{
    struct stat st;
    snprintf(host->scratch, sizeof host->scratch, "/tmp/agentd-tmp-*");
    host->payload_uid = host->payload_gid = host->root ? host->uid_base + 1000 : 0;
    if (spec->work != SANDBOX_WORK_TEMP && stat(spec->workspace, &st) == 0) {
        host->payload_uid = st.st_uid;
        host->payload_gid = st.st_gid;
    }
}

/* The plan needs a look at the host, not its privileges. */
static int explain(const struct common *c, struct buf *plan_out, struct buf *spec_out,
                   struct plan *plan, struct sandbox_refusal *r, struct err *err)
{
    struct policy *p = NULL;
    struct sandbox_host *h = NULL;
    struct sandbox_spec *spec = mem_zalloc(sizeof *spec);
    int rc = spec ? load(c, &p, spec, err) : err_nomem(err);
    if (rc == 0)
        rc = sandbox_host_open(&h, "", NULL, 0, false, err);
    if (rc == 0) {
        struct probe host = *sandbox_host_probe(h);
        probe_namespaces(&host);
        see_payload(&host, spec);
        policy_text(p, spec_out);
        spec_text(spec, spec_out);
        rc = plan_build(plan, spec, &host, r, err);
    }
    if (rc == 0)
        plan_print(plan, plan_out);
    sandbox_host_close(h);
    policy_free(p);
    mem_free(spec);
    return rc;
}

static json_t *lines_json(const struct buf *b)
{
    json_t *a = json_array();
    struct str rest = buf_view(b), line;
    while (str_split(&rest, '\n', &line))
        if (line.n)
            json_array_append_new(a, json_text(line));
    return a;
}

static int sandbox_explain(int argc, char **argv)
{
    struct common c = {.policy = "coding"};
    const struct opt opts[] = {
        {"policy", 'p', OPT_STR, &c.policy, "P", "name or file of the policy (coding)"},
        {"workspace", 'w', OPT_STR, &c.workspace, "DIR", "the directory (the current one)"},
        {"json", 'j', OPT_FLAG, &c.json, NULL, "the same as JSON"},
    };
    const struct opt_cmd cmd = {
        "agentctl sandbox explain", "", "Print what a policy allows and the steps that enforce it.",
        "Nothing is run and no privilege is needed. Exit status: 0, or 120 when this host\n"
        "cannot keep the policy (reason and remedy are printed), 1 for other errors.",
        opts, ARRAY_LEN(opts), 0, 0};
    int code;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    struct buf steps, spec;
    struct err err = {0};
    struct sandbox_refusal r = {0};
    struct plan *plan = mem_zalloc(sizeof *plan);
    buf_init(&steps, 0);
    buf_init(&spec, 0);
    int rc = plan ? explain(&c, &steps, &spec, plan, &r, &err) : err_nomem(&err);
    if (rc == -ERR_DENIED && r.reason[0]) {
        print_refusal(&r, c.json);
        code = EXIT_REFUSED;
    } else if (rc < 0) {
        code = ctl_fail(&err);
    } else if (c.json) {
        json_t *o = json_object();
        json_object_set_new(o, "level", json_text(str_c(sandbox_level_name(plan->level))));
        json_object_set_new(o, "spec", lines_json(&spec));
        json_object_set_new(o, "plan", lines_json(&steps));
        print_json(o);
        code = EXIT_OK;
    } else {
        printf("What is allowed\n\n%s\nHow it is kept\n\n%s", buf_cstr(&spec),
               buf_cstr(&steps));
        code = EXIT_OK;
    }
    if (plan)
        plan_drop(plan);
    mem_free(plan);
    buf_done(&steps);
    buf_done(&spec);
    return code;
}

static void key_json(void *arg, const char *key, const char *values, const char *preset,
                     const char *doc)
{
    json_array_append_new(arg, json_pack("{s:s, s:s, s:s?, s:s}", "key", key, "values", values,
                                         "default", preset, "doc", doc));
}

static int sandbox_keys(int argc, char **argv)
{
    bool json = false;
    const struct opt opts[] = {{"json", 'j', OPT_FLAG, &json, NULL, "a JSON array"}};
    const struct opt_cmd cmd = {"agentctl sandbox keys", "",
                                "List every key that a policy may have.", "Exit status: 0.", opts,
                                ARRAY_LEN(opts), 0, 0};
    int code, rc = 0;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    struct buf b;
    buf_init(&b, 0);
    if (json) {
        json_t *list = json_array();
        rc = policy_each_key(key_json, list);
        print_json(list);
    } else {
        policy_explain(&b);
        fputs(buf_cstr(&b), stdout);
    }
    buf_done(&b);
    return rc < 0 ? EXIT_FAIL : EXIT_OK;
}

static const struct ctl_command commands[] = {
    {"run", sandbox_run, "Run one program in a cell of its own."},
    {"shell", sandbox_shell, "Look around inside a cell."},
    {"explain", sandbox_explain, "Print what a policy allows and how it is kept."},
    {"keys", sandbox_keys, "List every key that a policy may have."},
};

int ctl_sandbox(int argc, char **argv)
{
    return ctl_dispatch("agentctl sandbox", commands, ARRAY_LEN(commands), argc, argv);
}
