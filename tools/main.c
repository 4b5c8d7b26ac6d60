/* main.c - agentd-tool: the tools' side inside a cell, and the same code for tests and data. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include "base/io.h"
#include "tools/child.h"
#include "tools/index.h"
#include "tools/serve.h"

#ifdef __SANITIZE_ADDRESS__
/* The leak check attaches with ptrace, which a cell's filter refuses, and then ends a program
 * that did its work with exit code 1. Outside a cell it stays on. */
int __lsan_is_turned_off(void)
{
    return prctl(PR_GET_SECCOMP) != 0;
}
#endif

static const char help[] =
    "usage: agentd-tool serve [options]\n"
    "Carries out tool calls that arrive as lines of JSON; see tools/serve.h.\n"
    "  --control          talk on descriptor 100 (inside a cell), not on stdin and stdout\n"
    "  --strays           with --control but no cell: end what outlives a call\n"
    "  --workspace DIR    first workspace\n"
    "  --as-workspace     show the workspace at /workspace, in a mount namespace of our own\n"
    "  --profile NAME     used when a request names none (general)\n"
    "  --index FILE       local search index\n"
    "  --spill-dir DIR    where long outputs are kept whole\n"
    "  --cassette FILE    replay fetches from FILE; with --record, add to it\n"
    "  --record           see --cassette\n"
    "  --providers JSON   search engines on the network; see tools/provider.h\n"
    "  --private-hosts L  address:port,... that may be fetched though private\n"
    "  --web              allow fetching from the network\n"
    "It is not a sandbox: outside a cell, commands run with your own rights.\n";

struct text_opt {
    const char *name;
    const char **to;
};

static int usage(const char *arg)
{
    fprintf(stderr, "agentd-tool: unknown argument '%s'; try --help\n", arg);
    return 2;
}

/* What commands see outside a cell: the variables that they would see inside one. */
static int plain_environment(void)
{
    static const char *const vars[] = {
        "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "HOME=/tmp/home", "USER=agent", "LOGNAME=agent", "LANG=C.UTF-8", "TZ=UTC",
        "TMPDIR=/tmp", "TERM=dumb", "SHELL=/bin/bash"};
    int rc = clearenv();
    for (unsigned i = 0; i < ARRAY_LEN(vars); i++)
        rc |= putenv((char *)(uintptr_t)vars[i]);
    return rc;
}

static int serve(int argc, char **argv)
{
    struct serve_opts o = {.in = 0, .out = 1, .profile = "general", .box = {.strays = true}};
    struct err err = {0};
    const struct text_opt texts[] = {
        {"--workspace", &o.box.workspace}, {"--profile", &o.profile},
        {"--index", &o.box.index},         {"--spill-dir", &o.box.spill_dir},
        {"--cassette", &o.box.cassette},
        {"--providers", &o.box.providers}, {"--private-hosts", &o.box.private_hosts},
    };
    for (int i = 0; i < argc; i++) {
        bool known = true;
        if (strcmp(argv[i], "--control") == 0) {
            o.in = o.out = CHILD_CONTROL_FD;
            o.cancels = true;
            o.box.strays = false; /* the cell's init does it, and better */
        } else if (strcmp(argv[i], "--strays") == 0) {
            o.box.strays = true;
        } else if (strcmp(argv[i], "--as-workspace") == 0) {
            o.as_workspace = true;
        } else if (strcmp(argv[i], "--web") == 0) {
            o.box.web = true;
        } else if (strcmp(argv[i], "--record") == 0) {
            o.box.record = true;
        } else {
            known = false;
        }
        for (unsigned j = 0; !known && i + 1 < argc && j < ARRAY_LEN(texts); j++)
            if (strcmp(argv[i], texts[j].name) == 0) {
                *texts[j].to = argv[++i];
                known = true;
            }
        if (!known)
            return usage(argv[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    if (o.box.strays && plain_environment() != 0) /* a cell has made its own */
        return 1;
    if (serve_run(&o, &err) < 0) {
        fprintf(stderr, "agentd-tool: %s\n", err.text);
        return 1;
    }
    return 0;
}

/* Stdin at its end says to stop: whoever started us was interrupted. */
static bool tick(void *arg, uint64_t seen, uint64_t total, const char *path)
{
    int64_t *last = arg, now = io_mono_ns();
    struct pollfd p = {0, POLLHUP, 0};
    if (now - *last < 100000000 && seen != total)
        return true;
    *last = now;
    printf("P %llu %llu %s\n", (unsigned long long)seen, (unsigned long long)total, path);
    fflush(stdout);
    return poll(&p, 1, 0) <= 0 || !(p.revents & POLLHUP);
}

/* index DB FOLDER NAME SHOWN: for agentctl index add, which runs this in a cell. */
static int index_folder(char **argv)
{
    struct err err = {0};
    struct index *x = NULL;
    struct index_stats s;
    int64_t last = 0;
    typedef unsigned long long u;
    int rc = index_open(&x, argv[0], true, &err);
    if (rc == 0)
        rc = index_add(x, argv[1], argv[2], argv[3], tick, &last, &s, &err);
    index_close(x);
    if (rc < 0) {
        printf("E %s\n", err.text);
        return 1;
    }
    printf("S %llu %llu %llu %llu %llu %llu %llu %d\n", (u)s.added, (u)s.updated,
           (u)s.unchanged, (u)s.removed, (u)s.skipped, (u)s.bytes, (u)s.total, s.stopped);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "index") == 0)
        return index_folder(argv + 2);
    if (argc >= 2 && strcmp(argv[1], "serve") == 0)
        return serve(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        puts("agentd-tool " AGENTD_VERSION);
        return 0;
    }
    fputs(help, argc >= 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
    return argc >= 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
}
