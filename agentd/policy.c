/* policy.c - a policy in use: found by its name, asked about a tool, turned into a cell's spec. */
#include "agentd/policy.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/policy_in.h"
#include "base/io.h"
#include "sandbox/spec.h"

static bool readable(char out[PATH_MAX], const char *dir, const char *sub, const char *name)
{
    int n = snprintf(out, PATH_MAX, "%s%s/%s.yaml", dir, sub, name);
    return n > 0 && n < PATH_MAX && access(out, R_OK) == 0;
}

/* Beside an installed binary, beside a build tree, then the system's. */
static bool find(char out[PATH_MAX], const char *name, const char *dir)
{
    char self[PATH_MAX];
    if (dir && dir[0] && readable(out, dir, "", name))
        return true;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = '\0';
        char *slash = strrchr(self, '/');
        if (slash)
            *slash = '\0';
        if (readable(out, self, "/../share/agentd/policies", name) ||
            readable(out, self, "/../../../policies", name))
            return true;
    }
    return readable(out, "/etc/agentd/policies", "", name);
}

int policy_load(struct policy **out, const char *name, const char *dir, struct err *err)
{
    char path[PATH_MAX];
    bool is_path = strchr(name, '/') != NULL || str_ends(str_c(name), STR(".yaml"));
    if (is_path)
        snprintf(path, sizeof path, "%s", name);
    else if (!find(path, name, dir))
        return err_set(err, ERR_NOTFOUND,
                       "no policy is called '%.80s'; give a path, or put %.80s.yaml into "
                       "/etc/agentd/policies", name, name);
    struct buf b;
    buf_init(&b, 1 << 20);
    int rc = io_read_file(path, &b, err);
    if (rc == 0)
        rc = policy_read(out, path, buf_view(&b), err);
    buf_done(&b);
    return rc;
}

enum policy_decision policy_decide(const struct policy *p, const char *tool,
                                   const struct policy_tool **entry)
{
    const struct policy_tool *star = NULL;
    if (entry)
        *entry = NULL;
    for (unsigned i = 0; i < p->n_tools; i++) {
        const struct policy_tool *t = &p->tool[i];
        if (strcmp(t->name, "*") == 0)
            star = t;
        if (strcmp(t->name, tool) != 0)
            continue;
        star = t;
        break;
    }
    if (entry)
        *entry = star;
    return star ? star->decision : POLICY_DENY;
}

const char *policy_decision_name(enum policy_decision d)
{
    return policylist_decisions[d];
}

static int resolve_env(const struct policy *p, struct sandbox_spec *s, struct err *err)
{
    for (unsigned i = 0; i < p->n_env; i++) {
        const struct policy_env *e = &p->env[i];
        const char *value = e->value ? e->value : getenv(e->from_env);
        if (!value)
            continue;
        if (s->n_env == SANDBOX_ENV_MAX)
            return err_set(err, ERR_LIMIT, "more than %d variables", SANDBOX_ENV_MAX);
        int n = snprintf(s->env[s->n_env], SANDBOX_ENV_BYTES, "%s=%s", e->name, value);
        if (n >= SANDBOX_ENV_BYTES)
            return err_set(err, ERR_LIMIT, "%s: variable %s is longer than %d bytes", p->path,
                           e->name, SANDBOX_ENV_BYTES - 1);
        s->n_env++;
    }
    return 0;
}

int policy_spec(const struct policy *p, const char *workspace, struct sandbox_spec *out,
                struct err *err)
{
    *out = p->spec;
    if (out->work != SANDBOX_WORK_TEMP) {
        char real[PATH_MAX];
        if (!workspace)
            return err_set(err, ERR_PARSE, "policy %s works on a directory: name a workspace",
                           p->path);
        if (!realpath(workspace, real))
            return err_sys(err, "workspace '%.200s'", workspace);
        /* What was named long ago may have become a link by the hand of code inside. */
        if (strcmp(real, workspace) != 0)
            return err_set(err, ERR_DENIED, "workspace '%.200s' is not a real path: it leads to "
                           "'%.200s'; name that, if it is what you mean", workspace, real);
        if (strlen(real) >= sizeof out->workspace)
            return err_set(err, ERR_LIMIT, "the workspace's path is too long");
        memcpy(out->workspace, real, strlen(real) + 1);
    }
    int rc = resolve_env(p, out, err);
    return rc < 0 ? rc : spec_check(out, err);
}

int policy_bind(struct sandbox_spec *spec, const char *host, const char *inside, bool write,
                struct err *err)
{
    if (spec->n_binds == SANDBOX_BINDS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d paths", SANDBOX_BINDS_MAX);
    struct sandbox_bind *b = &spec->bind[spec->n_binds];
    *b = (struct sandbox_bind){.write = write};
    if (strlen(host) >= sizeof b->host || strlen(inside) >= sizeof b->inside)
        return err_set(err, ERR_LIMIT, "path '%.100s' is too long", host);
    memcpy(b->host, host, strlen(host) + 1);
    memcpy(b->inside, inside, strlen(inside) + 1);
    spec->n_binds++;
    return 0;
}
