/* toolplace.c - where tools run, and whether. */
#include "agentd/toolplace.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agentd/hooks.h"
#include "agentd/policy.h"
#include "agentd/yaml.h"
#include "base/io.h"
#include "base/mem.h"

/* Places inside the web cell. */
#define DOCS_INSIDE "/documents"
#define INDEX_INSIDE "/documents.db"
#define CASSETTE_INSIDE "/cassette"

enum { ARGV_MAX = 24 };

struct toolplace {
    struct sandbox_spec *spec; /* owned; NULL when unconfined */
    const char *argv[ARGV_MAX];
    unsigned n;
    struct arena text;
    bool failed;
};

static void arg(struct toolplace *p, const char *s)
{
    char *copy = arena_strdup(&p->text, str_c(s));
    if (!copy || p->n + 1 >= ARGV_MAX)
        p->failed = true;
    else
        p->argv[p->n++] = copy;
}

static void arg2(struct toolplace *p, const char *name, const char *value)
{
    arg(p, name);
    arg(p, value);
}

static int bind(struct toolplace *p, const char *host, const char *inside, bool write,
                struct err *err)
{
    if (p->spec->n_binds == SANDBOX_BINDS_MAX)
        return err_set(err, ERR_LIMIT, "the policy binds too many paths");
    struct sandbox_bind *b = &p->spec->bind[p->spec->n_binds++];
    if (strlen(host) >= sizeof b->host)
        return err_set(err, ERR_LIMIT, "the path '%.100s...' is too long", host);
    snprintf(b->host, sizeof b->host, "%s", host);
    snprintf(b->inside, sizeof b->inside, "%s", inside);
    b->write = write;
    return 0;
}

/* What search sees: the index that is set up, else the workspace's own files. */
static int add_index(struct toolplace *p, const struct toolrun_opts *o, struct err *err)
{
    struct stat st;
    const char *host = o->index ? o->index : o->workspace;
    if (!host)
        return 0;
    if (stat(host, &st) < 0)
        return err_sys(err, "search index '%s'", host);
    if (!p->spec) {
        arg2(p, "--index", host);
        return 0;
    }
    const char *inside = S_ISDIR(st.st_mode) ? DOCS_INSIDE : INDEX_INSIDE;
    arg2(p, "--index", inside);
    int rc = bind(p, host, inside, false, err);
    if (rc == 0)
        p->spec->bind[p->spec->n_binds - 1].owned = true; /* workspaces are often mode 0700 */
    return rc;
}

/* A folder of the session's state, shown inside under `inside`. */
static int add_state(struct toolplace *p, const struct toolrun_opts *o, const char *name,
                     const char *option, struct err *err)
{
    char dir[PATH_MAX];
    if (!o->state_dir || p->spec)
        return 0; /* inside a cell these live on its own tmpfs */
    if (snprintf(dir, sizeof dir, "%s/%s", o->state_dir, name) >= (int)sizeof dir)
        return err_set(err, ERR_LIMIT, "the state folder's path is too long");
    int rc = io_make_dirs(dir, 0700, err);
    if (rc == 0)
        arg2(p, option, dir);
    return rc;
}

/* Without a policy: the strictest of hosts, no network. */
static int plain_spec(struct sandbox_spec *spec, const struct toolrun_opts *o, struct err *err)
{
    spec->require = SANDBOX_FULL;
    spec->work = o->workspace ? SANDBOX_WORK_DIR : SANDBOX_WORK_TEMP;
    if (o->workspace && strlen(o->workspace) >= sizeof spec->workspace)
        return err_set(err, ERR_LIMIT, "the workspace's path is too long");
    if (o->workspace)
        snprintf(spec->workspace, sizeof spec->workspace, "%s", o->workspace);
    return 0;
}

static int make_spec(struct toolplace *p, const struct toolrun_opts *o, bool web,
                     struct err *err)
{
    if (o->unconfined)
        return 0;
    p->spec = mem_zalloc(sizeof *p->spec);
    if (!p->spec)
        return err_nomem(err);
    int rc = o->policy ? policy_spec(o->policy, o->workspace, p->spec, err)
                       : plain_spec(p->spec, o, err);
    if (rc == 0 && web) { /* pages need no workspace, and get none */
        p->spec->work = SANDBOX_WORK_TEMP;
        p->spec->workspace[0] = '\0';
    }
    return rc;
}

/* --- search providers: YAML for people, JSON for the tool ---------------------------------- */

static json_t *to_json(const struct yaml_node *n)
{
    json_t *v = NULL;
    if (n->kind == YAML_SCALAR && !n->quoted &&
        (str_is(n->text, "true") || str_is(n->text, "false")))
        return json_boolean(str_is(n->text, "true"));
    if (n->kind == YAML_SCALAR)
        return json_text(n->text);
    v = n->kind == YAML_LIST ? json_array() : json_object();
    for (const struct yaml_node *e = n->first; v && e; e = e->next) {
        json_t *one = to_json(e);
        int bad = n->kind == YAML_LIST ? json_array_append_new(v, one)
                                       : json_object_set_new(v, e->key.p, one);
        if (bad) {
            json_decref(v);
            v = NULL;
        }
    }
    return v;
}

static int add_providers(struct toolplace *p, const struct toolrun_opts *o, struct err *err)
{
    struct yaml *y = NULL;
    struct buf text;
    if (!o->search)
        return 0;
    int rc = yaml_load(&y, o->search, err);
    if (rc < 0)
        return rc;
    const struct yaml_node *list = yaml_get(yaml_root(y), "providers");
    json_t *v = NULL;
    buf_init(&text, 32768);
    if (!list || list->kind != YAML_LIST)
        rc = yaml_fail(y, yaml_root(y), err, "'providers' must be a list of search engines");
    else if (!(v = to_json(list)))
        rc = err_nomem(err);
    else
        rc = json_write(v, &text, err);
    if (rc == 0)
        arg2(p, "--providers", buf_cstr(&text));
    json_decref(v);
    buf_done(&text);
    yaml_close(y);
    return rc;
}

/* Fetches recorded to a file, or answered from one: of all files outside, the cell sees it. */
static int add_cassette(struct toolplace *p, const struct toolrun_opts *o, struct err *err)
{
    char real[PATH_MAX];
    if (!o->cassette)
        return 0;
    bool record = str_starts(str_c(o->cassette), STR("record:"));
    if (!record && !str_starts(str_c(o->cassette), STR("replay:")))
        return err_set(err, ERR_PARSE, "a cassette is record:FILE or replay:FILE, not '%.100s'",
                       o->cassette);
    const char *path = o->cassette + sizeof "record:" - 1;
    int fd = open(path, record ? O_WRONLY | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(err, "cassette '%s'", path);
    close(fd);
    if (record)
        arg(p, "--record");
    if (!p->spec) {
        arg2(p, "--cassette", path);
        return 0;
    }
    if (!realpath(path, real))
        return err_sys(err, "cassette '%s'", path);
    arg2(p, "--cassette", CASSETTE_INSIDE);
    int rc = bind(p, real, CASSETTE_INSIDE, record, err);
    if (rc == 0)
        p->spec->bind[p->spec->n_binds - 1].owned = true;
    return rc;
}

int toolplace_make(struct toolplace **out, const struct toolrun_opts *o, bool web,
                   struct err *err)
{
    struct toolplace *p = mem_zalloc(sizeof *p);
    if (!p)
        return err_nomem(err);
    arena_init(&p->text, 0);
    arg(p, "serve");
    arg(p, "--control");
    if (o->unconfined)
        arg(p, "--strays");
    int rc = make_spec(p, o, web, err);
    if (rc == 0 && !web)
        arg2(p, "--workspace", p->spec ? SANDBOX_WORKSPACE : o->workspace ? o->workspace : "/tmp");
    if (rc == 0 && web)
        rc = add_index(p, o, err);
    if (rc == 0 && web)
        rc = add_providers(p, o, err);
    if (rc == 0 && web)
        rc = add_cassette(p, o, err);
    /* Unconfined, the addresses are still checked by the tool itself. */
    if (rc == 0 && web && (!p->spec || p->spec->net != SANDBOX_NET_NONE))
        arg(p, "--web");
    if (rc == 0)
        rc = add_state(p, o, "spill", "--spill-dir", err);
    if (rc == 0 && p->failed)
        rc = err_nomem(err);
    if (rc < 0) {
        toolplace_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void toolplace_free(struct toolplace *p)
{
    if (!p)
        return;
    mem_free(p->spec);
    arena_done(&p->text);
    mem_free(p);
}

const struct sandbox_spec *toolplace_spec(const struct toolplace *p)
{
    return p->spec;
}

const char *const *toolplace_argv(const struct toolplace *p)
{
    return p->argv;
}

enum toolrun_verdict toolplace_decide(const struct policy *policy, struct hooks *hooks,
                                      const char *tool, const json_t *args, struct buf *why)
{
    const struct policy_tool *entry = NULL;
    if (!policy)
        return TOOLRUN_ALLOW;
    enum policy_decision table = policy_decide(policy, tool, &entry);
    enum policy_decision d = hooks_decide(hooks, table, tool, args, why);
    if (d == POLICY_ALLOW)
        return TOOLRUN_ALLOW;
    if (d != table) { /* a hook narrowed it, and has said why */
        if (why->len == 0)
            buf_printf(why, "a hook of the policy refuses this call of %s", tool);
        return d == POLICY_ASK ? TOOLRUN_ASK : TOOLRUN_DENY;
    }
    const char *file = strrchr(policy->path, '/');
    file = file ? file + 1 : policy->path;
    if (d == POLICY_ASK) {
        buf_printf(why, "%s needs approval by policy %s", tool, file);
        return TOOLRUN_ASK;
    }
    if (entry)
        buf_printf(why, "%s is denied by policy %s", tool, file);
    else
        buf_printf(why, "%s is not in policy %s", tool, file);
    return TOOLRUN_DENY;
}

struct toolplace_times toolplace_times(const struct policy *policy, const char *tool,
                                       uint32_t soft)
{
    struct toolplace_times t = {.soft_s = soft, .hard_s = soft * 5, .jobs = true};
    const struct policy_tool *entry = NULL;
    if (!policy)
        return t;
    (void)policy_decide(policy, tool, &entry);
    int64_t most = policy->wall_max_ms;
    if (entry && entry->timeout_ms)
        most = entry->timeout_ms;
    if (most > 0)
        t.hard_s = (uint32_t)((most + 999) / 1000);
    if (t.soft_s > t.hard_s)
        t.soft_s = t.hard_s;
    t.jobs = policy->background;
    return t;
}
