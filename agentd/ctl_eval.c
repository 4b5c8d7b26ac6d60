/*
 * ctl_eval.c - agentctl eval: plays held-out tasks with a model through a daemon of its own and
 * prints pass rates. The tasks, their verifiers and the table are train/eval.py's; this command
 * finds that harness and the daemon that belongs to this program, and says what is missing.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/ctl.h"

enum { EVAL_ARGS = 32, UNSET = -1000000000 };

struct eval {
    char bin[PATH_MAX];     /* the folder of this program, and of agentd and agentd-tool */
    char harness[PATH_MAX]; /* eval.py */
    char number[3][24];
    const char *argv[EVAL_ARGS];
    unsigned n;
};

static void add(struct eval *e, const char *word)
{
    if (e->n < EVAL_ARGS - 1)
        e->argv[e->n++] = word;
}

static void add_pair(struct eval *e, const char *name, const char *value)
{
    if (value) {
        add(e, name);
        add(e, value);
    }
}

static int join(char *out, const char *dir, const char *name, struct err *err)
{
    if ((size_t)snprintf(out, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
        return err_set(err, ERR_LIMIT, "%s/%s: the path is too long", dir, name);
    return 0;
}

static int find_bin(struct eval *e, struct err *err)
{
    ssize_t n = readlink("/proc/self/exe", e->bin, sizeof e->bin - 1);
    if (n < 0)
        return err_sys(err, "find the folder of this program (/proc/self/exe)");
    e->bin[n] = '\0';
    char *slash = strrchr(e->bin, '/');
    if (slash)
        *slash = '\0';
    return 0;
}

/* Where a clone has it (build/PRESET/bin is three folders down), or a package would put it. */
static int find_harness(struct eval *e, const char *given, struct err *err)
{
    static const char *const places[] = {"../../../train", "../share/agentd/train", "train"};
    char dir[PATH_MAX];
    if (given) {
        int rc = join(e->harness, given, "eval.py", err);
        if (rc || access(e->harness, R_OK) == 0)
            return rc;
        return err_set(err, ERR_NOTFOUND, "there is no eval.py in --harness %s", given);
    }
    for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
        int rc = join(dir, e->bin, places[i], err);
        if (rc == 0)
            rc = join(e->harness, dir, "eval.py", err);
        if (rc)
            return rc;
        if (access(e->harness, R_OK) == 0)
            return 0;
    }
    return err_set(err, ERR_NOTFOUND,
                   "the tasks are not here: no train/eval.py beside %s; give the folder "
                   "train of a source tree with --harness", e->bin);
}

/* Is a program of that name in a folder of PATH? */
static bool in_path(const char *name)
{
    const char *path = getenv("PATH");
    char file[PATH_MAX];
    for (const char *p = path ? path : ""; *p;) {
        size_t n = strcspn(p, ":");
        if ((size_t)snprintf(file, sizeof file, "%.*s/%s", (int)n, p, name) < sizeof file &&
            access(file, X_OK) == 0)
            return true;
        p += n + (p[n] == ':');
    }
    return false;
}

static int look_around(const struct eval *e, const char *model, struct err *err)
{
    static const char *const schemes[] = {"native:", "script:", "remote:"};
    static const char *const ours[] = {"agentd", "agentd-tool"};
    char file[PATH_MAX];
    bool named = false;
    for (unsigned i = 0; i < ARRAY_LEN(schemes); i++)
        named = named || strncmp(model, schemes[i], strlen(schemes[i])) == 0;
    if (!named && access(model, R_OK) != 0)
        return err_set(err, ERR_NOTFOUND, "cannot read the model %s: %s", model, strerror(errno));
    for (unsigned i = 0; i < ARRAY_LEN(ours); i++) {
        int rc = join(file, e->bin, ours[i], err);
        if (rc)
            return rc;
        if (access(file, X_OK) != 0)
            return err_set(err, ERR_NOTFOUND, "there is no program %s; build or install it",
                           file);
    }
    if (!in_path("lua5.4"))
        return err_set(err, ERR_NOTFOUND, "the tasks are drawn by Lua; please install the "
                                          "package lua5.4");
    return 0;
}

/* Only comes back when there is no Python. */
static int become(struct eval *e, struct err *err)
{
    e->argv[e->n] = NULL;
    e->argv[0] = "python3";
    setenv("PYTHONDONTWRITEBYTECODE", "1", 1); /* leave no files in the tree */
    char *const *argv = (char *const *)(uintptr_t)e->argv;
    execv("/usr/bin/python3", argv);
    execvp("python3", argv);
    return err_set(err, ERR_NOTFOUND, "cannot run python3: %s; please install the package python3",
                   strerror(errno));
}

static const char *decimal(char *to, int64_t value)
{
    if (value == UNSET)
        return NULL;
    snprintf(to, 24, "%lld", (long long)value);
    return to;
}

int ctl_eval(int argc, char **argv)
{
    const char *family = NULL, *backend = NULL, *select = NULL, *harness = NULL, *log = NULL;
    const char *results = NULL;
    int64_t tasks = UNSET, seed = UNSET, show = UNSET;
    double require = UNSET;
    bool json = false, unconfined = false;
    const struct opt opts[] = {
        {"family", 'f', OPT_STR, &family, "F", "only 1 python, 2 files, 3 documents or 4 session"},
        {"tasks", 'n', OPT_INT, &tasks, "N", "tasks of each family (50)"},
        {"seed", 's', OPT_INT, &seed, "N", "which tasks; one seed is one set of tasks (0)"},
        {"require", 0, OPT_NUM, &require, "PERCENT", "end with 3 when a family passes less"},
        {"show", 0, OPT_INT, &show, "N", "failures to print in full (3)"},
        {"backend", 0, OPT_STR, &backend, "B", "daemon, or engine: no daemon and no sandbox"},
        {"select", 0, OPT_STR, &select, "S", "engine: indexer, dense or recent positions"},
        {"no-sandbox", 0, OPT_FLAG, &unconfined, NULL, "daemon: run tools unconfined"},
        {"log", 0, OPT_STR, &log, "FILE", "append the daemon's log to a file"},
        {"out", 'o', OPT_STR, &results, "FILE", "write every result, a JSON object a line"},
        {"harness", 0, OPT_STR, &harness, "DIR", "the folder train of a source tree"},
        {"json", 'j', OPT_FLAG, &json, NULL, "print rates, malformed calls and failures as JSON"},
    };
    const struct opt_cmd cmd = {
        .name = "agentctl eval",
        .args = "MODEL",
        .summary = "Play held-out tasks with a model and print the pass rate of each family.",
        .more = "MODEL is a weight file or folder, or an engine as agentd --engine takes it.\n"
                "Every task runs in a private daemon with real tools in the sandbox; decoding is\n"
                "greedy and free, and a verifier looks at what became of the world.\n"
                "Exit codes: 0 played, 1 could not play, 2 usage, 3 below --require.",
        .opts = opts,
        .n_opts = ARRAY_LEN(opts),
        .min_args = 1,
        .max_args = 1,
    };
    static struct eval e;
    struct err err;
    char percent[32];
    int code;
    int at = opt_parse(&cmd, argc, argv, false, &code);
    if (at < 0)
        return code;
    if ((seed < 0 && seed != UNSET) || (show < 0 && show != UNSET) ||
        (require < 0 && require != UNSET)) {
        fputs("agentctl eval: --seed, --show and --require go from 0\n", stderr);
        return EXIT_USAGE;
    }
    int rc = find_bin(&e, &err);
    if (rc == 0)
        rc = find_harness(&e, harness, &err);
    if (rc == 0)
        rc = look_around(&e, argv[at], &err);
    if (rc)
        return ctl_fail(&err);
    e.n = 1;
    add(&e, e.harness);
    add_pair(&e, "--bin", e.bin);
    add_pair(&e, "--family", family);
    add_pair(&e, "--tasks", decimal(e.number[0], tasks));
    add_pair(&e, "--seed", decimal(e.number[1], seed));
    add_pair(&e, "--show", decimal(e.number[2], show));
    add_pair(&e, "--backend", backend);
    add_pair(&e, "--select", select);
    add_pair(&e, "--log", log);
    add_pair(&e, "--out", results);
    snprintf(percent, sizeof percent, "%g", require);
    add_pair(&e, "--require", require != UNSET ? percent : NULL);
    if (unconfined)
        add(&e, "--no-sandbox");
    if (json)
        add(&e, "--json");
    add(&e, "--");
    add(&e, argv[at]);
    become(&e, &err);
    return ctl_fail(&err);
}
