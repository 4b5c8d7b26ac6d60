/* policylists.c - the lists and maps of a policy: paths, variables, tools, hosts, secrets, ... */
#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "agentd/policy_in.h"
#include "sandbox/seccomp.h"
#include "sandbox/spec.h"

const char *const policylist_decisions[] = {"allow", "ask", "deny", NULL};

const char *policylist_keep(struct policy_ctx *c, struct str s)
{
    return arena_strdup(&c->p->mem, s);
}

int policylist_need_kind(struct policy_ctx *c, const struct yaml_node *n, enum yaml_kind kind)
{
    static const char *const words[] = {"text", "a list", "a map"};
    if (n->kind == kind || (n->kind == YAML_SCALAR && n->text.n == 0 && !n->quoted))
        return 0; /* `key:` with nothing is an empty list or map: it allows nothing */
    return yaml_fail(c->y, n, c->err, "'%.*s' must be %s", STR_ARG(n->key), words[kind]);
}

int policylist_unknown(struct policy_ctx *c, const struct yaml_node *n, const char *where)
{
    return yaml_fail(c->y, n, c->err,
                     "unknown key '%.60s' in %s; 'agentctl sandbox keys' lists what there is",
                     n->key.p, where);
}

static int full(struct policy_ctx *c, const struct yaml_node *n, const char *what, unsigned cap)
{
    return yaml_fail(c->y, n, c->err, "more than %u %s", cap, what);
}

static int copy_path(struct policy_ctx *c, const struct yaml_node *n, char to[SANDBOX_PATH_MAX])
{
    struct str s;
    int rc = yaml_text(c->y, n, &s, c->err);
    if (rc < 0)
        return rc;
    if (s.n >= SANDBOX_PATH_MAX)
        return yaml_fail(c->y, n, c->err, "the path is longer than %d bytes",
                         SANDBOX_PATH_MAX - 1);
    memcpy(to, s.p, s.n + 1);
    if (!spec_plain_path(to))
        return yaml_fail(c->y, n, c->err, "path '%.200s' must be absolute, without . or ..",
                         to);
    return 0;
}

static int read_path(struct policy_ctx *c, const struct yaml_node *n, struct sandbox_bind *b)
{
    if (n->kind != YAML_MAP)
        return copy_path(c, n, b->host);
    const struct yaml_node *path = NULL;
    int rc = 0;
    for (const struct yaml_node *k = n->first; rc == 0 && k; k = k->next) {
        if (str_is(k->key, "path"))
            rc = copy_path(c, path = k, b->host);
        else if (str_is(k->key, "at"))
            rc = copy_path(c, k, b->inside);
        else if (str_is(k->key, "optional"))
            rc = yaml_bool(c->y, k, &b->optional, c->err);
        else
            rc = policylist_unknown(c, k, "a path (path, at, optional)");
    }
    if (rc == 0 && !path)
        rc = yaml_fail(c->y, n, c->err, "a path without 'path'");
    return rc;
}

static int read_paths(struct policy_ctx *c, const struct yaml_node *list, bool write)
{
    struct sandbox_spec *s = &c->p->spec;
    int rc = policylist_need_kind(c, list, YAML_LIST);
    for (const struct yaml_node *n = list->first; rc == 0 && n; n = n->next) {
        if (s->n_binds == SANDBOX_BINDS_MAX)
            return full(c, n, "paths", SANDBOX_BINDS_MAX);
        struct sandbox_bind *b = &s->bind[s->n_binds++];
        b->write = write;
        rc = read_path(c, n, b);
    }
    return rc;
}

int policylist_paths_ro(struct policy_ctx *c, const struct yaml_node *n)
{
    return read_paths(c, n, false);
}

int policylist_paths_rw(struct policy_ctx *c, const struct yaml_node *n)
{
    return read_paths(c, n, true);
}

/* A variable of the daemon that looks like a credential belongs under `secrets`. */
static bool looks_secret(struct str name)
{
    static const char *const words[] = {"TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL",
                                        "API_KEY", "APIKEY", "PRIVATE_KEY", "AUTHORIZATION", NULL};
    char upper[128];
    size_t n = name.n < sizeof upper - 1 ? name.n : sizeof upper - 1;
    for (size_t i = 0; i < n; i++)
        upper[i] = (char)(name.p[i] >= 'a' && name.p[i] <= 'z' ? name.p[i] - 32 : name.p[i]);
    upper[n] = '\0';
    for (unsigned i = 0; words[i]; i++)
        if (strstr(upper, words[i]))
            return true;
    return false;
}

/* Of an environment variable. */
static bool variable_name(const char *s)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
    return s[0] && !(s[0] >= '0' && s[0] <= '9') && s[strspn(s, letters)] == '\0';
}

static int read_env_from(struct policy_ctx *c, const struct yaml_node *n, struct policy_env *e)
{
    bool force = false;
    struct str s = {0};
    int rc = 0;
    for (const struct yaml_node *k = n->first; rc == 0 && k; k = k->next) {
        if (str_is(k->key, "from"))
            rc = yaml_text(c->y, k, &s, c->err);
        else if (str_is(k->key, "force"))
            rc = yaml_bool(c->y, k, &force, c->err);
        else
            rc = policylist_unknown(c, k, "a variable (from, force)");
    }
    if (rc == 0 && s.n == 0)
        rc = yaml_fail(c->y, n, c->err, "variable '%s' has neither text nor from", e->name);
    if (rc == 0 && !variable_name(s.p))
        rc = yaml_fail(c->y, n, c->err, "from must be the name of a variable of the daemon");
    if (rc == 0 && !force && (looks_secret(s) || looks_secret(n->key)))
        rc = yaml_fail(c->y, n, c->err,
                       "'%s' looks like a credential, which code inside could read; use "
                       "secrets:, or say force: true", e->name);
    e->from_env = policylist_keep(c, s);
    return rc;
}

int policylist_env(struct policy_ctx *c, const struct yaml_node *map)
{
    int rc = policylist_need_kind(c, map, YAML_MAP);
    for (const struct yaml_node *n = map->first; rc == 0 && n; n = n->next) {
        if (c->p->n_env == SANDBOX_ENV_MAX)
            return full(c, n, "variables", SANDBOX_ENV_MAX);
        struct policy_env *e = &c->p->env[c->p->n_env++];
        struct str s;
        e->name = policylist_keep(c, n->key);
        if (n->kind == YAML_MAP) {
            rc = read_env_from(c, n, e);
            continue;
        }
        rc = yaml_text(c->y, n, &s, c->err);
        if (rc == 0 && looks_secret(n->key))
            rc = yaml_fail(c->y, n, c->err,
                           "'%s' looks like a credential, which code inside could read; use "
                           "secrets:", e->name);
        if (rc == 0)
            e->value = policylist_keep(c, s);
    }
    return rc;
}

static int read_decision(struct policy_ctx *c, const struct yaml_node *n, struct policy_tool *t)
{
    int choice = POLICY_DENY;
    int rc = yaml_choice(c->y, n, policylist_decisions, &choice, c->err);
    t->decision = (enum policy_decision)choice;
    return rc;
}

static int read_tool(struct policy_ctx *c, const struct yaml_node *n, struct policy_tool *t)
{
    if (n->kind != YAML_MAP)
        return read_decision(c, n, t);
    bool decided = false;
    int rc = 0;
    for (const struct yaml_node *k = n->first; rc == 0 && k; k = k->next) {
        if (str_is(k->key, "decision")) {
            rc = read_decision(c, k, t);
            decided = true;
        } else if (str_is(k->key, "max_calls")) {
            rc = yaml_int(c->y, k, 1, 1000000, &t->max_calls, c->err);
        } else if (str_is(k->key, "timeout")) {
            rc = yaml_duration(c->y, k, 100, 86400000, &t->timeout_ms, c->err);
        } else {
            rc = policylist_unknown(c, k, "a tool (decision, max_calls, timeout)");
        }
    }
    if (rc == 0 && !decided)
        rc = yaml_fail(c->y, n, c->err, "tool '%s' has no decision", t->name);
    return rc;
}

int policylist_tools(struct policy_ctx *c, const struct yaml_node *map)
{
    int rc = policylist_need_kind(c, map, YAML_MAP);
    for (const struct yaml_node *n = map->first; rc == 0 && n; n = n->next) {
        if (c->p->n_tools == POLICY_TOOLS_MAX)
            return full(c, n, "tools", POLICY_TOOLS_MAX);
        struct policy_tool *t = &c->p->tool[c->p->n_tools++];
        *t = (struct policy_tool){.name = policylist_keep(c, n->key), .decision = POLICY_DENY};
        rc = read_tool(c, n, t);
    }
    return rc;
}

/* A label of a host name: lower case, digits, and dashes within. */
static bool host_label(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') ||
              s.p[i] == '_' || (s.p[i] == '-' && i > 0 && i + 1 < s.n)))
            return false;
    return s.n > 0 && s.n < 64;
}

/* An address as its own conversion writes it; other spellings would never match. */
static bool host_address(struct str s)
{
    char text[INET6_ADDRSTRLEN], back[INET6_ADDRSTRLEN];
    unsigned char raw[16];
    int family = str_find(s, STR(":"), 0) == STR_NONE ? AF_INET : AF_INET6;
    if (s.n >= sizeof text)
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(family, text, raw) == 1 && inet_ntop(family, raw, back, sizeof back) &&
           strcmp(text, back) == 0;
}

/* A name, "*." in front of one, or an address in canonical form. */
static bool host_pattern(struct str s)
{
    if (host_address(s))
        return true;
    if (str_starts(s, STR("*.")))
        s = str_sub(s, 2, s.n);
    struct str rest = s, label = {0};
    bool ends = s.n > 0 && s.p[s.n - 1] == '.';
    while (!ends && rest.n && str_split(&rest, '.', &label))
        if (!host_label(label))
            return false;
    /* What ends in a number, resolvers take for an address. */
    return !ends && s.n > 0 && s.n <= 253 && label.n > 0 &&
           !(label.p[0] >= '0' && label.p[0] <= '9');
}

static int read_hosts(struct policy_ctx *c, const struct yaml_node *list, const char **to,
                      unsigned *n_to)
{
    int rc = policylist_need_kind(c, list, YAML_LIST);
    for (const struct yaml_node *n = list->first; rc == 0 && n; n = n->next) {
        struct str s;
        if (*n_to == POLICY_HOSTS_MAX)
            return full(c, n, "hosts", POLICY_HOSTS_MAX);
        rc = yaml_text(c->y, n, &s, c->err);
        if (rc == 0 && !host_pattern(s))
            rc = yaml_fail(c->y, n, c->err, "'%.80s' is no host name in lower case without "
                           "scheme, port and path, such as example.org or *.example.org",
                           s.p);
        if (rc == 0)
            to[(*n_to)++] = policylist_keep(c, s);
    }
    return rc;
}

int policylist_allow(struct policy_ctx *c, const struct yaml_node *n)
{
    return read_hosts(c, n, c->p->allow, &c->p->n_allow);
}

int policylist_deny(struct policy_ctx *c, const struct yaml_node *n)
{
    return read_hosts(c, n, c->p->deny, &c->p->n_deny);
}

int policylist_ports(struct policy_ctx *c, const struct yaml_node *list)
{
    int rc = policylist_need_kind(c, list, YAML_LIST);
    for (const struct yaml_node *n = list->first; rc == 0 && n; n = n->next) {
        int64_t v = 0;
        if (c->p->n_ports == POLICY_PORTS_MAX)
            return full(c, n, "ports", POLICY_PORTS_MAX);
        rc = yaml_int(c->y, n, 1, 65535, &v, c->err);
        c->p->port[c->p->n_ports++] = (uint16_t)v;
    }
    return rc;
}

static bool header_name(const char *s)
{
    return s[0] && strlen(s) < 128 &&
           s[strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")] ==
               '\0';
}

static int read_secret(struct policy_ctx *c, const struct yaml_node *n, struct policy_secret *s)
{
    const struct {
        const char *key, **to;
    } fields[] = {{"host", &s->host},         {"header", &s->header},
                  {"prefix", &s->prefix},     {"from_env", &s->from_env},
                  {"from_file", &s->from_file}, {"ca_file", &s->ca_file}};
    s->port = 443;
    int rc = n->kind == YAML_MAP ? 0 : yaml_fail(c->y, n, c->err, "a secret must be a map");
    for (const struct yaml_node *k = n->first; rc == 0 && k; k = k->next) {
        unsigned i = 0;
        struct str text;
        if (str_is(k->key, "port")) {
            rc = yaml_int(c->y, k, 1, 65535, &s->port, c->err);
            continue;
        }
        while (i < ARRAY_LEN(fields) && !str_is(k->key, fields[i].key))
            i++;
        if (i == ARRAY_LEN(fields))
            return policylist_unknown(c, k, "a secret (host, header, prefix, from_env, "
                                      "from_file, port, ca_file)");
        rc = yaml_text(c->y, k, &text, c->err);
        if (rc == 0)
            *fields[i].to = policylist_keep(c, text);
    }
    if (rc == 0 && (!s->host || !s->header || !s->from_env == !s->from_file))
        rc = yaml_fail(c->y, n, c->err,
                       "a secret needs host, header and one of from_env and from_file");
    if (rc == 0 && (!host_pattern(str_c(s->host)) || s->host[0] == '*'))
        rc = yaml_fail(c->y, n, c->err, "a secret goes to one host, named exactly");
    if (rc == 0 && s->from_env && !variable_name(s->from_env))
        rc = yaml_fail(c->y, n, c->err, "from_env must be the name of a variable of the daemon");
    if (rc == 0 && (!header_name(s->header) || (s->prefix && strpbrk(s->prefix, "\r\n"))))
        rc = yaml_fail(c->y, n, c->err, "a secret's header is one name such as Authorization, "
                       "and its prefix one line");
    return rc;
}

int policylist_secrets(struct policy_ctx *c, const struct yaml_node *list)
{
    int rc = policylist_need_kind(c, list, YAML_LIST);
    for (const struct yaml_node *n = list->first; rc == 0 && n; n = n->next) {
        if (c->p->n_secrets == POLICY_SECRETS_MAX)
            return full(c, n, "secrets", POLICY_SECRETS_MAX);
        rc = read_secret(c, n, &c->p->secret[c->p->n_secrets++]);
    }
    return rc;
}

int policylist_hooks(struct policy_ctx *c, const struct yaml_node *list)
{
    int rc = policylist_need_kind(c, list, YAML_LIST);
    for (const struct yaml_node *n = list->first; rc == 0 && n; n = n->next) {
        struct str s;
        char path[PATH_MAX];
        if (c->p->n_hooks == POLICY_HOOKS_MAX)
            return full(c, n, "hooks", POLICY_HOOKS_MAX);
        rc = yaml_text(c->y, n, &s, c->err);
        if (rc < 0)
            break;
        const char *slash = strrchr(c->p->path, '/');
        int len = s.p[0] == '/' || !slash
                      ? snprintf(path, sizeof path, "%s", s.p)
                      : snprintf(path, sizeof path, "%.*s/%s", (int)(slash - c->p->path),
                                 c->p->path, s.p);
        if (len < 0 || (size_t)len >= sizeof path)
            return yaml_fail(c->y, n, c->err, "the path of the hook is too long");
        c->p->hook[c->p->n_hooks++] = policylist_keep(c, str_c(path));
    }
    return rc;
}

int policylist_calls(struct policy_ctx *c, const struct yaml_node *list)
{
    struct sandbox_spec *s = &c->p->spec;
    int rc = policylist_need_kind(c, list, YAML_LIST);
    for (const struct yaml_node *n = list->first; rc == 0 && n; n = n->next) {
        struct str name;
        const char *why = "is longer than any";
        if (s->n_calls == SANDBOX_CALLS_MAX)
            return full(c, n, "system calls", SANDBOX_CALLS_MAX);
        rc = yaml_text(c->y, n, &name, c->err);
        if (rc == 0 && (name.n >= SANDBOX_CALL_BYTES || !filter_may_allow(name.p, &why)))
            rc = yaml_fail(c->y, n, c->err, "system call '%.60s' %s", name.p, why);
        if (rc == 0)
            memcpy(s->call[s->n_calls++], name.p, name.n + 1);
    }
    return rc;
}
