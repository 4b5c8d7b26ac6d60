/*
 * ctl_tool_bench.c - agentctl tool bench: what a call costs once its cell is warm, and how
 * fast a flood of output is drained.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/ctl.h"
#include "agentd/policy.h"
#include "agentd/spawner.h"
#include "agentd/toolrun.h"
#include "base/io.h"
#include "base/mem.h"

enum { FLOOD_MB = 2000 };

struct bench {
    struct ev *ev;
    struct toolrun *tools;
    double us;
    bool failed;
    uint64_t output;
    char level[16];
};

static void on_done(void *arg, const struct tool_result *r)
{
    struct bench *b = arg;
    b->us = (double)(r->ended_ns - r->started_ns) / 1e3;
    b->output = r->output_bytes;
    b->failed |= r->is_error;
    snprintf(b->level, sizeof b->level, "%s", r->level);
    if (r->is_error)
        fprintf(stderr, "agentctl: %.*s\n", STR_ARG(str_sub(r->text, 0, 300)));
    ev_stop(b->ev);
}

static double once(struct bench *b, const char *tool, const char *args)
{
    const struct toolrun_cbs cbs = {.on_done = on_done, .arg = b};
    if (toolrun_call(b->tools, "bench", tool, str_c(args), true, &cbs))
        ev_run(b->ev);
    else
        b->failed = true;
    return b->us;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure(struct bench *b, unsigned n, struct err *err)
{
    static const struct {
        const char *name, *tool, *args;
    } rows[] = {
        {"bash true", "bash", "{\"command\": \"true\"}"},
        {"bash ls", "bash", "{\"command\": \"ls\"}"},
        {"python 1+1", "python", "{\"code\": \"1+1\"}"},
        {"editor create", "str_replace_editor",
         "{\"command\": \"create\", \"path\": \"bench.txt\", \"file_text\": \"x\"}"},
        {"editor view", "str_replace_editor", "{\"command\": \"view\", \"path\": \"bench.txt\"}"},
        {"search", "search", "{\"query\": \"x\"}"},
    };
    double *us = mem_array(n, sizeof *us);
    if (!us)
        return err_nomem(err);
    for (unsigned i = 0; i < ARRAY_LEN(rows) && !b->failed; i++) {
        double first = once(b, rows[i].tool, rows[i].args);
        for (unsigned k = 0; k < n && !b->failed; k++)
            us[k] = once(b, rows[i].tool, rows[i].args);
        qsort(us, n, sizeof *us, compare);
        printf("{\"call\": \"%s\", \"level\": \"%s\", \"first_us\": %.0f, \"p50_us\": %.0f, "
               "\"p99_us\": %.0f}\n", rows[i].name, b->level, first, us[n / 2], us[n * 99 / 100]);
    }
    char flood[96];
    snprintf(flood, sizeof flood, "{\"command\": \"head -c %d000000 /dev/zero\"}", FLOOD_MB);
    if (!b->failed) {
        double t = once(b, "bash", flood);
        printf("{\"call\": \"flood\", \"mb\": %llu, \"gb_per_s\": %.2f}\n",
               (unsigned long long)(b->output / 1000000), (double)b->output / t / 1e3);
    }
    mem_free(us);
    return 0;
}

int ctl_tool_bench(int argc, char **argv)
{
    const char *sandbox = "on", *name = "coding";
    bool json = false;
    int64_t n = 200;
    const struct opt opts[] = {
        {"policy", 'P', OPT_STR, &name, "NAME", "Policy by name or file (coding)."},
        {"number", 'n', OPT_INT, &n, "N", "Calls of each kind (200)."},
        {"sandbox", 0, OPT_WORD, &sandbox, "on|off", "off runs the tools unconfined."},
        {"json", 'j', OPT_FLAG, &json, NULL, "Accepted; the output is JSON in any case."},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl tool bench",
        .summary = "Measure tool calls in a warm cell; a JSON object a line.",
        .more = "Works in a temporary workspace. Exit status: 0; 1 on an error; 2 usage.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
    };
    int code;
    if (opt_parse(&cmd, argc, argv, false, &code) < 0)
        return code;
    if (n < 1 || n > 100000) {
        fprintf(stderr, "agentctl: --number goes from 1 to 100000\n");
        return EXIT_USAGE;
    }
    struct err err = {0};
    struct bench b = {.us = 0};
    struct policy *policy = NULL;
    struct spawner *spawner = NULL;
    char dir[] = "/tmp/agentd-bench.XXXXXX", file[64];
    bool off = strcmp(sandbox, "off") == 0;
    int rc = mkdtemp(dir) ? 0 : err_sys(&err, "temporary folder");
    if (rc == 0)
        rc = policy_load(&policy, name, NULL, &err);
    if (rc == 0 && !off)
        rc = spawner_start(&spawner, &(struct spawner_opts){0}, &err);
    if (rc == 0)
        rc = ev_new(&b.ev, &err);
    if (rc == 0 && spawner)
        rc = spawner_attach(spawner, b.ev, NULL, NULL, &err);
    const struct toolrun_opts o = {.ev = b.ev, .spawner = spawner, .unconfined = off,
                                   .policy = policy, .profile = "general", .session = "bench",
                                   .workspace = dir};
    if (rc == 0)
        rc = toolrun_open(&b.tools, &o, &err);
    if (rc == 0)
        rc = measure(&b, (unsigned)n, &err);
    toolrun_close(b.tools);
    spawner_free(spawner);
    ev_free(b.ev);
    policy_free(policy);
    snprintf(file, sizeof file, "%s/bench.txt", dir);
    unlink(file);
    rmdir(dir);
    return rc < 0 ? ctl_fail(&err) : b.failed ? EXIT_FAIL : EXIT_OK;
}
