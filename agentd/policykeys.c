/*
 * policykeys.c - the table of a policy's keys, and the walk over a file. Scalars are rows with an
 * offset; lists and maps have a reader each (policylists.c). A row's default is written as the file
 * would write it and read by the same code, so that what `explain` prints is what happens.
 */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "agentd/policy_in.h"
#include "sandbox/spec.h"

enum kind { K_CHOICE, K_BOOL, K_INT, K_SIZE, K_DURATION, K_TEXT, K_READER };

struct row {
    const char *key; /* dotted */
    enum kind kind;
    size_t offset;             /* in struct policy */
    int64_t lo, hi;            /* numbers: range */
    const char *const *names;  /* choices */
    const char *preset;        /* as a file would write it; NULL = none */
    int (*read)(struct policy_ctx *c, const struct yaml_node *n);
    const char *doc;
};

static const char *const levels[] = {"none", "landlock", "nolimits", "full", NULL};
static const char *const nets[] = {"none", "proxy", "host", NULL};
static const char *const works[] = {"temp", "dir", "copy", NULL};
static const char *const profiles[] = {"default", "debug", "strict", NULL};
static const char *const landlocks[] = {"use", "required", "off", NULL};

static int read_limit(struct policy_ctx *c, const struct yaml_node *n);

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
    {"unsafe_allow", K_READER, 0, 0, 0, NULL, NULL, policylist_calls,
     "system calls allowed besides those of the profile, whatever their arguments; recorded"},
    {"landlock", K_CHOICE, SPEC(landlock), 0, 0, landlocks, "use", NULL,
     "second layer: required = refuse without it"},
    {"workspace", K_CHOICE, SPEC(work), 0, 0, works, "dir", NULL,
     "dir = edited in place, copy = a layer above it, temp = empty and gone afterwards"},
    {"background", K_BOOL, AT(background), 0, 0, NULL, "false", NULL,
     "commands may go on as jobs after their call, until the session ends"},
    {"read", K_READER, 0, 0, 0, NULL, NULL, policylist_paths_ro,
     "paths of the host shown read-only; {path, at, optional} to show one elsewhere"},
    {"write", K_READER, 0, 0, 0, NULL, NULL, policylist_paths_rw,
     "paths of the host shown read-write besides the workspace"},
    {"env", K_READER, 0, 0, 0, NULL, NULL, policylist_env,
     "variables by name: text, or {from: NAME} for one of the daemon's own"},
    {"network.mode", K_CHOICE, SPEC(net), 0, 0, nets, "none", NULL,
     "none = own loopback only, proxy = the names below, host = no protection"},
    {"network.i_know", K_BOOL, SPEC(net_host_known), 0, 0, NULL, "false", NULL,
     "must be true with mode host"},
    {"network.allow", K_READER, 0, 0, 0, NULL, NULL, policylist_allow,
     "host names, *.names (not the bare name), or IP addresses in canonical form"},
    {"network.deny", K_READER, 0, 0, 0, NULL, NULL, policylist_deny, "asked before allow"},
    {"network.ports", K_READER, 0, 0, 0, NULL, "[443]", policylist_ports, "ports of CONNECT"},
    {"secrets", K_READER, 0, 0, 0, NULL, NULL, policylist_secrets,
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
    {"tools", K_READER, 0, 0, 0, NULL, NULL, policylist_tools,
     "NAME: allow | ask | deny, or {decision, max_calls, timeout}; '*' for the rest; a tool "
     "that is not named is denied"},
    {"hooks", K_READER, 0, 0, 0, NULL, NULL, policylist_hooks,
     "Lua files asked after this table; they may narrow a decision, never widen it"},
};

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
static int unknown_key(struct policy_ctx *c, const struct yaml_node *n, const char *section)
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
        return policylist_unknown(c, n, where);
    return yaml_fail(c->y, n, c->err, "unknown key '%.60s' in %s; did you mean '%.*s'? 'agentctl "
                     "sandbox keys' lists what there is", n->key.p, where, STR_ARG(best));
}

/* limits.<name> for every row of the sandbox's own table. */
static int read_limit(struct policy_ctx *c, const struct yaml_node *n)
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

static int read_scalar(struct policy_ctx *c, const struct row *row, const struct yaml_node *n)
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
        const char *text = rc == 0 ? policylist_keep(c, s) : NULL;
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

static int walk(struct policy_ctx *c, const struct yaml_node *map, const char *section)
{
    int rc = policylist_need_kind(c, map, YAML_MAP);
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
        struct policy_ctx c = {p, y, err};
        rc = read_scalar(&c, &rows[i], yaml_root(y)->first);
        yaml_close(y);
    }
    return rc;
}

/* Rules that need more than one key. */
static int check(struct policy_ctx *c)
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
        struct policy_ctx c = {p, y, err};
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

int policy_each_key(policy_key_cb one, void *arg)
{
    struct buf range, preset;
    int rc = 0;
    buf_init(&range, 0);
    buf_init(&preset, 0);
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        const struct spec_limit *l = spec_limits;
        bool limits = strcmp(rows[i].key, "limits.*") == 0; /* stands for a row each */
        do {
            char name[64];
            buf_reset(&range);
            buf_reset(&preset);
            if (limits) {
                snprintf(name, sizeof name, "limits.%s", l->name);
                buf_printf(&range, "%llu..%llu", (unsigned long long)l->min,
                           (unsigned long long)l->max);
                buf_printf(&preset, "%llu", (unsigned long long)l->preset);
            } else {
                explain_range(&rows[i], &range);
                buf_puts(&preset, rows[i].preset ? rows[i].preset : "");
            }
            if (range.failed || preset.failed)
                rc = -ERR_NOMEM;
            else
                one(arg, limits ? name : rows[i].key, buf_cstr(&range),
                    limits || rows[i].preset ? buf_cstr(&preset) : NULL,
                    limits ? l->doc : rows[i].doc);
        } while (rc == 0 && limits && (++l)->name);
    }
    buf_done(&range);
    buf_done(&preset);
    return rc;
}

static void explain_key(void *arg, const char *key, const char *values, const char *preset,
                        const char *doc)
{
    struct buf *out = arg;
    buf_printf(out, "%-19s %s", key, values);
    if (preset)
        buf_printf(out, " (default %s)", preset);
    buf_printf(out, "\n    %s\n", doc);
}

void policy_explain(struct buf *out)
{
    (void)!policy_each_key(explain_key, out);
}
