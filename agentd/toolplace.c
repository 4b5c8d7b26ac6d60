/* toolplace.c - where tools run, and whether. */
#include "agentd/toolplace.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/mem.h"

/* Places inside the web cell. */
#define DOCS_INSIDE "/documents"
#define INDEX_INSIDE "/documents.db"

enum { ARGV_MAX = 20 };

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

static int make_spec(struct toolplace *p, const struct toolrun_opts *o, bool web,
                     struct err *err)
{
    if (o->unconfined)
        return 0;
    p->spec = mem_zalloc(sizeof *p->spec);
    if (!p->spec)
        return err_nomem(err);
    p->spec->require = SANDBOX_FULL;
    if (web || !o->workspace) {
        p->spec->work = SANDBOX_WORK_TEMP;
        return 0;
    }
    p->spec->work = SANDBOX_WORK_DIR;
    if (strlen(o->workspace) >= sizeof p->spec->workspace)
        return err_set(err, ERR_LIMIT, "the workspace's path is too long");
    snprintf(p->spec->workspace, sizeof p->spec->workspace, "%s", o->workspace);
    return 0;
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
    if (rc == 0)
        rc = add_state(p, o, "spill", "--spill-dir", err);
    if (rc == 0 && web)
        rc = add_state(p, o, "pages", "--pages-dir", err);
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

enum toolrun_verdict toolplace_decide(const struct policy *policy, const char *tool,
                                      const json_t *args, struct buf *why)
{
    (void)policy, (void)tool, (void)args, (void)why;
    return TOOLRUN_ALLOW;
}

uint32_t toolplace_hard_s(const struct policy *policy, uint32_t soft)
{
    (void)policy;
    return soft * 5;
}
