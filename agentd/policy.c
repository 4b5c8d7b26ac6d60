/*
 * policy.c - the table of keys and the walk over a file. Scalars are rows with an offset;
 * lists and maps have a reader each. A row's default is written as the file would write it
 * and read by the same code, so that what `explain` prints is what happens.
 */
#include "agentd/policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agentd/yaml.h"
#include "base/io.h"
#include "sandbox/seccomp.h"
#include "sandbox/spec.h"

struct ctx {
    struct policy *p;
    const struct yaml *y;
    struct err *err;
};

enum kind { K_CHOICE, K_BOOL, K_INT, K_SIZE, K_DURATION, K_TEXT, K_READER };

struct row {
    const char *key; /* dotted */
    enum kind kind;
    size_t offset;             /* in struct policy */
    int64_t lo, hi;            /* numbers: range */
    const char *const *names;  /* choices */
    const char *preset;        /* as a file would write it; NULL = none */
    int (*read)(struct ctx *c, const struct yaml_node *n);
    const char *doc;
};

static const char *const levels[] = {"none", "landlock", "nolimits", "full", NULL};
static const char *const nets[] = {"none", "proxy", "host", NULL};
static const char *const works[] = {"temp", "dir", "copy", NULL};
static const char *const profiles[] = {"default", "debug", "strict", NULL};
static const char *const landlocks[] = {"use", "required", "off", NULL};
static const char *const decisions[] = {"allow", "ask", "deny", NULL};

static int read_paths_ro(struct ctx *c, const struct yaml_node *n);
static int read_paths_rw(struct ctx *c, const struct yaml_node *n);
static int read_env(struct ctx *c, const struct yaml_node *n);
static int read_tools(struct ctx *c, const struct yaml_node *n);
static int read_allow(struct ctx *c, const struct yaml_node *n);
static int read_deny(struct ctx *c, const struct yaml_node *n);
static int read_ports(struct ctx *c, const struct yaml_node *n);
static int read_secrets(struct ctx *c, const struct yaml_node *n);
static int read_hooks(struct ctx *c, const struct yaml_node *n);
static int read_limit(struct ctx *c, const struct yaml_node *n);
static int read_calls(struct ctx *c, const struct yaml_node *n);

#define AT(field) offsetof(struct policy, field)
#define SPEC(field) offsetof(struct policy, spec.field)

static const struct row rows[] = {
    {"version", K_INT, 0, 1, 1, NULL, NULL, NULL, "format of this file"},
    {"summary", K_TEXT, AT(summary), 0, 0, NULL, "''", NULL, "one line for people"},
    {"require", K_CHOICE, SPEC(require), 0, 0, levels, "full", NULL,
     "least protection accepted: full; nolimits where no control group is delegated; landlock "
     "where user namespaces are not allowed"},
    {"profile", K_CHOICE, SPEC(profile), 0, 0, profiles, "default", NULL,
     "system calls: strict = computation without sockets, debug = ptrace inside"},
    {"log_calls", K_BOOL, SPEC(log_calls), 0, 0, NULL, "false", NULL,
     "refused system calls are reported by name, to write policies; they stay refused"},
    {"unsafe_allow", K_READER, 0, 0, 0, NULL, NULL, read_calls,
     "system calls allowed besides those of the profile, whatever their arguments; recorded"},
    {"landlock", K_CHOICE, SPEC(landlock), 0, 0, landlocks, "use", NULL,
     "second layer: required = refuse without it"},
    {"workspace", K_CHOICE, SPEC(work), 0, 0, works, "dir", NULL,
     "dir = edited in place, copy = a layer above it, temp = empty and gone afterwards"},
    {"background", K_BOOL, AT(background), 0, 0, NULL, "false", NULL,
     "commands may go on as jobs after their call, until the session ends"},
    {"read", K_READER, 0, 0, 0, NULL, NULL, read_paths_ro,
     "paths of the host shown read-only; {path, at, optional} to show one elsewhere"},
    {"write", K_READER, 0, 0, 0, NULL, NULL, read_paths_rw,
     "paths of the host shown read-write besides the workspace"},
    {"env", K_READER, 0, 0, 0, NULL, NULL, read_env,
     "variables by name: text, or {from: NAME} for one of the daemon's own"},
    {"network.mode", K_CHOICE, SPEC(net), 0, 0, nets, "none", NULL,
     "none = own loopback only, proxy = the names below, host = no protection"},
    {"network.i_know", K_BOOL, SPEC(net_host_known), 0, 0, NULL, "false", NULL,
     "must be true with mode host"},
    {"network.allow", K_READER, 0, 0, 0, NULL, NULL, read_allow,
     "host names, *.names (not the bare name), or IP addresses in canonical form"},
    {"network.deny", K_READER, 0, 0, 0, NULL, NULL, read_deny, "asked before allow"},
    {"network.ports", K_READER, 0, 0, 0, NULL, "[443]", read_ports, "ports of CONNECT"},
    {"secrets", K_READER, 0, 0, 0, NULL, NULL, read_secrets,
     "{host, header, prefix, from_env | from_file, port, ca_file}: the proxy makes a plain "
     "request to this host one over TLS, with the header; it is never inside"},
    {"limits.*", K_READER, 0, 0, 0, NULL, NULL, read_limit, "see the rows that follow"},
    {"limits.wall", K_DURATION, AT(wall_ms), 100, 86400000, NULL, "120s", NULL,
     "time of one call unless it asks for another"},
    {"limits.wall_max", K_DURATION, AT(wall_max_ms), 100, 86400000, NULL, "600s", NULL,
     "the most a call may ask for"},
    {"limits.output", K_SIZE, AT(output_bytes), 1024, 1 << 30, NULL, "64K", NULL,
     "kept of one stream of one call; the rest is counted"},
    {"max_calls", K_INT, AT(max_calls), 1, 1000000, NULL, "200", NULL, "tool calls of a turn"},
    {"repeat.nudge", K_INT, AT(repeat_nudge), 2, 1000, NULL, "3", NULL,
     "the same call so often: a remark in the result"},
    {"repeat.insist", K_INT, AT(repeat_insist), 2, 1000, NULL, "5", NULL, "a stronger one"},
    {"repeat.pause", K_INT, AT(repeat_pause), 2, 1000, NULL, "8", NULL, "the turn pauses"},
    {"tools", K_READER, 0, 0, 0, NULL, NULL, read_tools,
     "NAME: allow | ask | deny, or {decision, max_calls, timeout}; '*' for the rest; a tool "
     "that is not named is denied"},
    {"hooks", K_READER, 0, 0, 0, NULL, NULL, read_hooks,
     "Lua files asked after this table; they may narrow a decision, never widen it"},
};

static const char *keep(struct ctx *c, struct str s)
{
    return arena_strdup(&c->p->mem, s);
}

static int need_kind(struct ctx *c, const struct yaml_node *n, enum yaml_kind kind)
{
    static const char *const words[] = {"text", "a list", "a map"};
    if (n->kind == kind || (n->kind == YAML_SCALAR && n->text.n == 0 && !n->quoted))
        return 0; /* `key:` with nothing is an empty list or map: it allows nothing */
    return yaml_fail(c->y, n, c->err, "'%.*s' must be %s", STR_ARG(n->key), words[kind]);
}

static int unknown(struct ctx *c, const struct yaml_node *n, const char *where)
{
    return yaml_fail(c->y, n, c->err,
                     "unknown key '%.60s' in %s; 'agentctl sandbox keys' lists what there is",
                     n->key.p, where);
}

/* Letters to change, add, leave out or swap to make one word the other; up to 32 letters. */
static unsigned distance(struct str a, struct str b)
{
    enum { LONG = 32 };
    unsigned d[3][LONG + 1];
    if (a.n > LONG || b.n > LONG)
        return LONG;
    for (size_t k = 0; k <= b.n; k++)
        d[0][k] = (unsigned)k;
    for (size_t i = 1; i <= a.n; i++) {
        unsigned *now = d[i % 3], *last = d[(i - 1) % 3], *before = d[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t k = 1; k <= b.n; k++) {
            bool same = a.p[i - 1] == b.p[k - 1];
            unsigned best = last[k - 1] + !same;
            best = last[k] + 1 < best ? last[k] + 1 : best;
            best = now[k - 1] + 1 < best ? now[k - 1] + 1 : best;
            if (i > 1 && k > 1 && a.p[i - 1] == b.p[k - 2] && a.p[i - 2] == b.p[k - 1] &&
                before[k - 2] + 1 < best)
                best = before[k - 2] + 1;
            now[k] = best;
        }
    }
    return d[a.n % 3][b.n];
}

/* "unknown key" with the key of this section that was probably meant. */
static int unknown_key(struct ctx *c, const struct yaml_node *n, const char *section)
{
    struct str best = {0};
    unsigned least = 4, d;
    char where[40];
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct str key = str_c(rows[i].key), word;
        if (!str_starts(key, str_c(section)))
            continue;
        key = str_sub(key, strlen(section), key.n);
        if (str_split(&key, '.', &word) && (d = distance(n->key, word)) < least) {
            least = d;
            best = word;
        }
    }
    for (const struct spec_limit *l = spec_limits; strcmp(section, "limits.") == 0 && l->name; l++)
        if ((d = distance(n->key, str_c(l->name))) < least) {
            least = d;
            best = str_c(l->name);
        }
    snprintf(where, sizeof where, "%s", section[0] ? section : "the policy.");
    where[strlen(where) - 1] = '\0';
    if (best.n == 0)
        return unknown(c, n, where);
    return yaml_fail(c->y, n, c->err, "unknown key '%.60s' in %s; did you mean '%.*s'? 'agentctl "
                     "sandbox keys' lists what there is", n->key.p, where, STR_ARG(best));
}

static int full(struct ctx *c, const struct yaml_node *n, const char *what, unsigned cap)
{
    return yaml_fail(c->y, n, c->err, "more than %u %s", cap, what);
}

/* ---- readers of lists and maps ---- */

static int copy_path(struct ctx *c, const struct yaml_node *n, char to[SANDBOX_PATH_MAX])
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

static int read_path(struct ctx *c, const struct yaml_node *n, struct sandbox_bind *b)
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
            rc = unknown(c, k, "a path (path, at, optional)");
    }
    if (rc == 0 && !path)
        rc = yaml_fail(c->y, n, c->err, "a path without 'path'");
    return rc;
}

static int read_paths(struct ctx *c, const struct yaml_node *list, bool write)
{
    struct sandbox_spec *s = &c->p->spec;
    int rc = need_kind(c, list, YAML_LIST);
    for (const struct yaml_node *n = list->first; rc == 0 && n; n = n->next) {
        if (s->n_binds == SANDBOX_BINDS_MAX)
            return full(c, n, "paths", SANDBOX_BINDS_MAX);
        struct sandbox_bind *b = &s->bind[s->n_binds++];
        b->write = write;
        rc = read_path(c, n, b);
    }
    return rc;
}

static int read_paths_ro(struct ctx *c, const struct yaml_node *n)
{
    return read_paths(c, n, false);
}

static int read_paths_rw(struct ctx *c, const struct yaml_node *n)
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

static int read_env_from(struct ctx *c, const struct yaml_node *n, struct policy_env *e)
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
            rc = unknown(c, k, "a variable (from, force)");
    }
    if (rc == 0 && s.n == 0)
        rc = yaml_fail(c->y, n, c->err, "variable '%s' has neither text nor from", e->name);
    if (rc == 0 && !variable_name(s.p))
        rc = yaml_fail(c->y, n, c->err, "from must be the name of a variable of the daemon");
    if (rc == 0 && !force && (looks_secret(s) || looks_secret(n->key)))
        rc = yaml_fail(c->y, n, c->err,
                       "'%s' looks like a credential, which code inside could read; use "
                       "secrets:, or say force: true", e->name);
    e->from_env = keep(c, s);
    return rc;
}

static int read_env(struct ctx *c, const struct yaml_node *map)
{
    int rc = need_kind(c, map, YAML_MAP);
    for (const struct yaml_node *n = map->first; rc == 0 && n; n = n->next) {
        if (c->p->n_env == SANDBOX_ENV_MAX)
            return full(c, n, "variables", SANDBOX_ENV_MAX);
        struct policy_env *e = &c->p->env[c->p->n_env++];
        struct str s;
        e->name = keep(c, n->key);
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
            e->value = keep(c, s);
    }
    return rc;
}

static int read_decision(struct ctx *c, const struct yaml_node *n, struct policy_tool *t)
{
    int choice = POLICY_DENY;
    int rc = yaml_choice(c->y, n, decisions, &choice, c->err);
    t->decision = (enum policy_decision)choice;
    return rc;
}

static int read_tool(struct ctx *c, const struct yaml_node *n, struct policy_tool *t)
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
            rc = unknown(c, k, "a tool (decision, max_calls, timeout)");
        }
    }
    if (rc == 0 && !decided)
        rc = yaml_fail(c->y, n, c->err, "tool '%s' has no decision", t->name);
    return rc;
}

static int read_tools(struct ctx *c, const struct yaml_node *map)
{
    int rc = need_kind(c, map, YAML_MAP);
    for (const struct yaml_node *n = map->first; rc == 0 && n; n = n->next) {
        if (c->p->n_tools == POLICY_TOOLS_MAX)
            return full(c, n, "tools", POLICY_TOOLS_MAX);
        struct policy_tool *t = &c->p->tool[c->p->n_tools++];
        *t = (struct policy_tool){.name = keep(c, n->key), .decision = POLICY_DENY};
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

static int read_hosts(struct ctx *c, const struct yaml_node *list, const char **to, unsigned *n_to)
{
    int rc = need_kind(c, list, YAML_LIST);
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
            to[(*n_to)++] = keep(c, s);
    }
    return rc;
}

static int read_allow(struct ctx *c, const struct yaml_node *n)
{
    return read_hosts(c, n, c->p->allow, &c->p->n_allow);
}

static int read_deny(struct ctx *c, const struct yaml_node *n)
{
    return read_hosts(c, n, c->p->deny, &c->p->n_deny);
}

static int read_ports(struct ctx *c, const struct yaml_node *list)
{
    int rc = need_kind(c, list, YAML_LIST);
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

static int read_secret(struct ctx *c, const struct yaml_node *n, struct policy_secret *s)
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
            return unknown(c, k, "a secret (host, header, prefix, from_env, from_file, port, "
                           "ca_file)");
        rc = yaml_text(c->y, k, &text, c->err);
        if (rc == 0)
            *fields[i].to = keep(c, text);
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

static int read_secrets(struct ctx *c, const struct yaml_node *list)
{
    int rc = need_kind(c, list, YAML_LIST);
    for (const struct yaml_node *n = list->first; rc == 0 && n; n = n->next) {
        if (c->p->n_secrets == POLICY_SECRETS_MAX)
            return full(c, n, "secrets", POLICY_SECRETS_MAX);
        rc = read_secret(c, n, &c->p->secret[c->p->n_secrets++]);
    }
    return rc;
}

static int read_hooks(struct ctx *c, const struct yaml_node *list)
{
    int rc = need_kind(c, list, YAML_LIST);
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
        c->p->hook[c->p->n_hooks++] = keep(c, str_c(path));
    }
    return rc;
}

static int read_calls(struct ctx *c, const struct yaml_node *list)
{
    struct sandbox_spec *s = &c->p->spec;
    int rc = need_kind(c, list, YAML_LIST);
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

/* limits.<name> for every row of the sandbox's own table. */
static int read_limit(struct ctx *c, const struct yaml_node *n)
{
    for (const struct spec_limit *row = spec_limits; row->name; row++) {
        uint64_t v = 0;
        if (!str_is(n->key, row->name))
            continue;
        int rc = yaml_size(c->y, n, row->min, row->max, &v, c->err);
        if (rc == 0)
            spec_limit_set(&c->p->spec.limits, row, v);
        return rc;
    }
    return unknown_key(c, n, "limits.");
}

/* ---- the walk ---- */

static int read_scalar(struct ctx *c, const struct row *row, const struct yaml_node *n)
{
    char *to = (char *)c->p + row->offset;
    int choice = 0;
    int64_t i = 0;
    uint64_t u = 0;
    struct str s;
    int rc;
    switch (row->kind) {
    case K_CHOICE:
        rc = yaml_choice(c->y, n, row->names, &choice, c->err);
        if (rc == 0)
            memcpy(to, &choice, sizeof choice);
        return rc;
    case K_BOOL:
        return yaml_bool(c->y, n, (bool *)to, c->err);
    case K_INT:
        rc = yaml_int(c->y, n, row->lo, row->hi, &i, c->err);
        if (rc == 0 && row->offset)
            memcpy(to, &i, sizeof i);
        return rc;
    case K_DURATION:
        rc = yaml_duration(c->y, n, row->lo, row->hi, &i, c->err);
        if (rc == 0)
            memcpy(to, &i, sizeof i);
        return rc;
    case K_SIZE:
        rc = yaml_size(c->y, n, (uint64_t)row->lo, (uint64_t)row->hi, &u, c->err);
        i = (int64_t)u;
        if (rc == 0)
            memcpy(to, &i, sizeof i);
        return rc;
    case K_TEXT: {
        rc = yaml_text(c->y, n, &s, c->err);
        const char *text = rc == 0 ? keep(c, s) : NULL;
        if (text)
            memcpy(to, &text, sizeof text);
        return rc;
    }
    case K_READER:
        return row->read(c, n);
    }
    return 0;
}

static const struct row *find_row(const char *section, struct str key)
{
    size_t n = strlen(section);
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        const char *k = rows[i].key;
        if (strncmp(k, section, n) != 0)
            continue;
        if (str_is(key, k + n))
            return &rows[i];
    }
    return NULL;
}

static bool is_section(struct str key, char out[32])
{
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        const char *dot = strchr(rows[i].key, '.');
        if (dot && (size_t)(dot - rows[i].key) == key.n &&
            strncmp(rows[i].key, key.p, key.n) == 0) {
            snprintf(out, 32, "%.*s.", STR_ARG(key));
            return true;
        }
    }
    return false;
}

static int walk(struct ctx *c, const struct yaml_node *map, const char *section)
{
    int rc = need_kind(c, map, YAML_MAP);
    for (const struct yaml_node *n = map->first; rc == 0 && n; n = n->next) {
        char deeper[32];
        const struct row *row = find_row(section, n->key);
        if (row)
            rc = read_scalar(c, row, n);
        else if (section[0] == '\0' && is_section(n->key, deeper))
            rc = walk(c, n, deeper);
        else if (strcmp(section, "limits.") == 0)
            rc = read_limit(c, n);
        else
            rc = unknown_key(c, n, section);
    }
    return rc;
}

/* Defaults pass through the same readers as a file does. */
static int presets(struct policy *p, struct err *err)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < ARRAY_LEN(rows); i++) {
        char text[128];
        struct yaml *y = NULL;
        if (!rows[i].preset)
            continue;
        int n = snprintf(text, sizeof text, "x: %s\n", rows[i].preset);
        rc = yaml_read(&y, "defaults", str_of(text, (size_t)n), err);
        if (rc < 0)
            break;
        struct ctx c = {p, y, err};
        rc = read_scalar(&c, &rows[i], yaml_root(y)->first);
        yaml_close(y);
    }
    return rc;
}

/* Rules that need more than one key. */
static int check(struct ctx *c)
{
    struct policy *p = c->p;
    const struct yaml_node *root = yaml_root(c->y);
    const struct yaml_node *net = yaml_get(root, "network");
    if (!yaml_get(root, "version"))
        return yaml_fail(c->y, root, c->err, "the file must begin with version: 1");
    if (p->spec.require == SANDBOX_NONE)
        return yaml_fail(c->y, yaml_get(root, "require"), c->err,
                         "a policy cannot switch the sandbox off; only sandbox: off in the "
                         "daemon's own configuration can");
    if (p->spec.net == SANDBOX_NET_HOST && !p->spec.net_host_known)
        return yaml_fail(c->y, net, c->err, "network mode host gives code inside this machine's "
                         "network; a policy that means it also says i_know: true");
    if (p->spec.net != SANDBOX_NET_PROXY && (p->n_allow || p->n_secrets))
        return yaml_fail(c->y, net ? net : root, c->err,
                         "allowed hosts and secrets work with network mode proxy alone");
    if (p->wall_ms > p->wall_max_ms)
        return yaml_fail(c->y, yaml_get(root, "limits"), c->err,
                         "limits.wall is longer than limits.wall_max");
    struct sandbox_spec *copy = mem_alloc(sizeof *copy);
    if (!copy)
        return err_nomem(c->err);
    *copy = p->spec;
    copy->work = SANDBOX_WORK_TEMP; /* the workspace comes later, and the values too */
    for (unsigned i = 0; i < p->n_env; i++)
        snprintf(copy->env[copy->n_env++], SANDBOX_ENV_BYTES, "%s=", p->env[i].name);
    int rc = spec_check(copy, c->err);
    mem_free(copy);
    return rc < 0 ? err_prefix(c->err, "%s", p->path) : 0;
}

int policy_read(struct policy **out, const char *path, struct str text, struct err *err)
{
    struct policy *p = mem_zalloc(sizeof *p);
    struct yaml *y = NULL;
    if (!p)
        return err_nomem(err);
    arena_init(&p->mem, 0);
    p->path = arena_strdup(&p->mem, str_c(path));
    unsigned char digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(digest, (const unsigned char *)text.p, text.n);
    int at = snprintf(p->hash, sizeof p->hash, "%s", ""); /* hex alone: checked as such */
    for (unsigned i = 0; i < sizeof digest; i++)
        at += snprintf(p->hash + at, sizeof p->hash - (size_t)at, "%02x", digest[i]);
    int rc = p->path ? presets(p, err) : err_nomem(err);
    p->n_ports = 0;
    if (rc == 0)
        rc = yaml_read(&y, path, text, err);
    if (rc == 0) {
        struct ctx c = {p, y, err};
        rc = walk(&c, yaml_root(y), "");
        if (rc == 0 && p->n_ports == 0 && p->spec.net == SANDBOX_NET_PROXY &&
            !yaml_get(yaml_get(yaml_root(y), "network"), "ports"))
            p->port[p->n_ports++] = 443;
        if (rc == 0)
            rc = check(&c);
        memcpy(p->spec.policy_hash, p->hash, sizeof p->hash);
    }
    yaml_close(y);
    if (rc < 0) {
        policy_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void policy_free(struct policy *p)
{
    if (!p)
        return;
    arena_done(&p->mem);
    mem_free(p);
}

/* ---- finding ---- */

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

/* ---- use ---- */

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
    return decisions[d];
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

/* ---- explaining ---- */

static void explain_range(const struct row *r, struct buf *out)
{
    switch (r->kind) {
    case K_CHOICE:
        for (unsigned i = 0; r->names[i]; i++)
            buf_printf(out, "%s%s", i ? " | " : "", r->names[i]);
        break;
    case K_BOOL:
        buf_puts(out, "true | false");
        break;
    case K_INT:
        buf_printf(out, "%lld..%lld", (long long)r->lo, (long long)r->hi);
        break;
    case K_SIZE:
        buf_printf(out, "size, %lld..%lld bytes", (long long)r->lo, (long long)r->hi);
        break;
    case K_DURATION:
        buf_printf(out, "duration, %lld..%lld ms", (long long)r->lo, (long long)r->hi);
        break;
    case K_TEXT:
        buf_puts(out, "text");
        break;
    case K_READER:
        buf_puts(out, "list or map");
        break;
    }
}

void policy_explain(struct buf *out)
{
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].key, "limits.*") == 0) {
            for (const struct spec_limit *l = spec_limits; l->name; l++)
                buf_printf(out, "limits.%-12s %llu..%llu (default %llu)\n    %s\n", l->name,
                           (unsigned long long)l->min, (unsigned long long)l->max,
                           (unsigned long long)l->preset, l->doc);
            continue;
        }
        buf_printf(out, "%-19s ", rows[i].key);
        explain_range(&rows[i], out);
        if (rows[i].preset)
            buf_printf(out, " (default %s)", rows[i].preset);
        buf_printf(out, "\n    %s\n", rows[i].doc);
    }
}
