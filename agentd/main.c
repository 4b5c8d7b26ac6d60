/* main.c - the daemon's flags and roles. */
#include <stdio.h>
#include <string.h>

#include "agentd/config.h"
#include "agentd/crash.h"
#include "agentd/daemon_main.h"
#include "agentd/opt.h"
#include "agentd/policy.h"
#include "agentd/rpc.h"
#include "agentd/spawner.h"
#include "base/io.h"

struct flags {
    const char *config, *engine, *socket, *state, *profile, *sandbox;
    struct opt_list sets;
    bool private_mode, check, explain, policy, schema, points, version;
    int64_t connect_fd;
};

static int parse(struct flags *f, int argc, char **argv)
{
    const struct opt opts[] = {
        {"config", 'c', OPT_STR, &f->config, "FILE", "configuration (see --explain-config)"},
        {"engine", 'e', OPT_STR, &f->engine, "SPEC", "native:PATH, script:FILE or remote:URL"},
        {"socket", 's', OPT_STR, &f->socket, "PATH", "where clients connect"},
        {"state", 0, OPT_STR, &f->state, "DIR", "database, blobs and KV snapshots"},
        {"profile", 'p', OPT_STR, &f->profile, "NAME", "profile of sessions that name none"},
        {"sandbox", 0, OPT_STR, &f->sandbox, "WORD", "required or off"},
        {"set", 0, OPT_LIST, &f->sets, "KEY=VALUE", "any configuration key; may be repeated"},
        {"private", 0, OPT_FLAG, &f->private_mode, NULL,
         "temporary state, ends with its one connection"},
        {"connect-fd", 0, OPT_INT, &f->connect_fd, "N", "serve this inherited connection"},
        {"check-config", 0, OPT_FLAG, &f->check, NULL, "read the configuration and end"},
        {"explain-config", 0, OPT_FLAG, &f->explain, NULL, "print every key with its meaning"},
        {"explain-policy", 0, OPT_FLAG, &f->policy, NULL, "print every key of a policy"},
        {"dump-schema", 0, OPT_FLAG, &f->schema, NULL, "print the native protocol's methods"},
        {"crash-points", 0, OPT_FLAG, &f->points, NULL, "print where AGENTD_CRASH_AT may kill"},
        {"version", 0, OPT_FLAG, &f->version, NULL, "print the version"},
    };
    const struct opt_cmd cmd = {
        .name = "agentd",
        .summary = "Host a sparse-attention model and the agent loop around it.",
        .more = "Exit codes: 0 ended on request, 1 failed (a sentence says why), 2 usage.\n"
                "Signals: TERM and INT end it in peace, HUP reads the configuration again.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
    };
    int code;
    return opt_parse(&cmd, argc, argv, false, &code) < 0 ? code : -1;
}

static int print_schema(void)
{
    struct err err;
    struct buf b;
    buf_init(&b, 1 << 20);
    int rc = rpc_dump_schema(&b, &err);
    if (rc == 0)
        fwrite(b.data, 1, b.len, stdout);
    else
        fprintf(stderr, "agentd: %s\n", err.text);
    buf_done(&b);
    return rc == 0 ? EXIT_OK : EXIT_FAIL;
}

/* The short flags are other names for configuration keys. */
static unsigned settings(const struct flags *f, char text[][512], const char **sets)
{
    const struct {
        const char *key, *value;
    } named[] = {{"engine.spec", f->engine},    {"socket.path", f->socket},
                 {"store.dir", f->state},       {"agent.profile", f->profile},
                 {"agent.sandbox", f->sandbox}};
    unsigned n = 0;
    for (unsigned i = 0; i < ARRAY_LEN(named); i++)
        if (named[i].value) {
            snprintf(text[n], 512, "%s=%s", named[i].key, named[i].value);
            sets[n] = text[n];
            n++;
        }
    for (unsigned i = 0; i < f->sets.n; i++)
        sets[n++] = f->sets.item[i];
    return n;
}

static int serve_or_print(int argc, char **argv)
{
    struct flags f = {.connect_fd = -1};
    char text[8][512];
    const char *sets[8 + OPT_LIST_MAX];
    struct err err;
    int code = parse(&f, argc, argv);
    if (code >= 0)
        return code;
    if (f.version)
        return puts("agentd " AGENTD_VERSION) < 0 ? EXIT_FAIL : EXIT_OK;
    if (f.schema)
        return print_schema();
    if (f.policy) {
        struct buf b;
        buf_init(&b, 0);
        policy_explain(&b);
        fputs(buf_cstr(&b), stdout);
        buf_done(&b);
        return EXIT_OK;
    }
    if (f.explain || f.points) {
        if (f.explain)
            config_explain(stdout);
        else
            crash_list(stdout);
        return EXIT_OK;
    }
    struct daemon_opts o = {.config_path = f.config, .sets = sets,
                            .n_sets = settings(&f, text, sets), .private_mode = f.private_mode,
                            .connect_fd = (int)f.connect_fd};
    int rc = f.check ? daemon_check_config(&o, &err) : daemon_run(&o, &err);
    if (rc < 0)
        fprintf(stderr, "agentd: %s\n", err.text);
    else if (f.check)
        puts("the configuration is fine");
    return rc < 0 ? EXIT_FAIL : EXIT_OK;
}

int main(int argc, char **argv)
{
    if (spawner_role(argc, argv))
        return spawner_main();
    io_hold_standard();
    return opt_end("agentd", serve_or_print(argc, argv));
}
