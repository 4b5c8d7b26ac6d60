/*
 * bare.c - the plan of level landlock, for hosts without namespaces. There is no tree of its
 * own: code inside sees the names of the host's files and may open those below a few paths.
 * What needs a mount or a network namespace is refused in words, never done by halves.
 */
#include <stdio.h>
#include <string.h>

#include "sandbox/plan.h"
#include "sandbox/spec.h"

const char *const bare_weaker[] = {
    "processes of the host are listed, with their command lines; their memory, environment and "
    "files are closed",
    "whether a path outside exists, its size and times can be asked; nothing there is opened",
    "/tmp inside is a folder of its own, watched but not limited exactly",
    "memory, tasks and processors as in level nolimits, unless there is a control group",
    "no socket of any kind, no shared memory but memfd, no System V IPC",
    "if daemon, spawner and reaper are all killed at one moment, the next start ends what ran",
    NULL};

/* Read as they are: what programs stumble over when it is there and cannot be opened. */
static const char *const etc_read[] = {
    "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/alternatives", "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf", "/etc/protocols", "/etc/services", "/etc/nsswitch.conf",
    "/etc/localtime", "/etc/mime.types", "/etc/gitconfig", "/etc/os-release", "/etc/perl",
    "/etc/python3", "/etc/python3.9", "/etc/python3.10", "/etc/python3.11", "/etc/python3.12",
    "/etc/python3.13", "/etc/java-17-openjdk", "/etc/java-21-openjdk", "/etc/matplotlibrc",
    "/etc/fonts", NULL};

static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random",
                                      "/dev/urandom", NULL};

static void add_place(struct plan *p, const char *inside, const char *host)
{
    if (p->n_places == PLAN_PLACES_MAX) {
        p->failed = true;
        return;
    }
    struct plan_place *at = &p->place[p->n_places++];
    at->inside = arena_strdup(&p->mem, str_c(inside));
    at->host = arena_strdup(&p->mem, str_c(host));
    p->failed |= !at->inside || !at->host;
}

const char *bare_place(const struct plan *p, const char *path, char *buf, size_t cap)
{
    for (unsigned i = 0; i < p->n_places; i++) {
        size_t n = strlen(p->place[i].inside);
        if (!spec_below(path, p->place[i].inside))
            continue;
        int len = snprintf(buf, cap, "%s%s", p->place[i].host, path + n);
        return len > 0 && (size_t)len < cap ? buf : path;
    }
    return path;
}

static void plan_files(struct plan *p, const struct sandbox_spec *spec, const struct probe *h)
{
    const unsigned rx = LANDLOCK_READ | LANDLOCK_EXEC, all = rx | LANDLOCK_WRITE;
    char path[SANDBOX_PATH_MAX + 8];
    plan_rule(p, "/usr", rx);
    for (unsigned i = 0; i < PROBE_LINKS; i++) {
        snprintf(path, sizeof path, "/%s", probe_links[i]);
        plan_rule(p, path, rx);
    }
    plan_rule(p, "/opt", rx);
    for (unsigned i = 0; etc_read[i]; i++)
        plan_rule(p, etc_read[i], LANDLOCK_READ);
    for (unsigned i = 0; devices[i]; i++)
        plan_rule(p, devices[i], LANDLOCK_READ | LANDLOCK_DEVICE);
    plan_rule(p, "/proc", LANDLOCK_READ);
    if (h->tool[0]) {
        plan_rule(p, h->tool, rx);
        add_place(p, SANDBOX_TOOL, h->tool);
    }
    snprintf(path, sizeof path, "%s/work", h->scratch);
    plan_rule(p, h->scratch, all | LANDLOCK_MUST);
    add_place(p, "/tmp", h->scratch);
    add_place(p, SANDBOX_WORKSPACE, spec->work == SANDBOX_WORK_TEMP ? path : spec->workspace);
    if (spec->work != SANDBOX_WORK_TEMP)
        plan_rule(p, spec->workspace, all | LANDLOCK_MUST);
    for (uint32_t i = 0; i < spec->n_binds; i++) {
        const struct sandbox_bind *b = &spec->bind[i];
        plan_rule(p, b->host, (b->write ? all : rx) | LANDLOCK_PLAIN |
                                  (b->optional ? 0u : (unsigned)LANDLOCK_MUST));
        if (strcmp(b->host, b->inside) != 0)
            add_place(p, b->inside, b->host);
    }
}

static int no(struct sandbox_refusal *r, struct err *err, const char *what, const char *remedy)
{
    memset(r, 0, sizeof *r);
    r->offered = SANDBOX_LANDLOCK;
    snprintf(r->step, sizeof r->step, "clone");
    snprintf(r->reason, sizeof r->reason, "without namespaces this host gives level landlock, "
             "which has no %s", what);
    snprintf(r->remedy, sizeof r->remedy, "%s, or run agentd on a host that allows user namespaces",
             remedy);
    return err_set(err, ERR_DENIED, "%s; %s", r->reason, r->remedy);
}

static int weigh(const struct sandbox_spec *spec, const struct probe *h,
                 struct sandbox_refusal *r, struct err *err)
{
    if (spec->work == SANDBOX_WORK_COPY)
        return no(r, err, "layer above a workspace", "set workspace: dir or temp in the policy");
    if (spec->net != SANDBOX_NET_NONE)
        return no(r, err, "network of a cell's own, so no socket at all",
                  "set network: {mode: none} in the policy");
    if (spec->profile == SANDBOX_PROFILE_DEBUG)
        return no(r, err, "process namespace, so no profile debug", "set profile: default");
    if (spec->landlock == SANDBOX_LANDLOCK_OFF)
        return no(r, err, "other layer than Landlock", "take landlock: off out of the policy");
    if (h->is_root || (h->root && h->payload_uid == 0))
        return plan_refuse(h, DO_USER, 0, r, err);
    return 0;
}

int bare_plan(struct plan *p, const struct sandbox_spec *spec, const struct probe *h,
              struct sandbox_refusal *r, struct err *err)
{
    int rc = weigh(spec, h, r, err);
    if (rc < 0)
        return rc;
    p->landlock = h->landlock;
    p->tcp_forbidden = true;
    p->two_ids = false;
    p->uid = h->root ? h->payload_uid : h->uid;
    p->gid = h->root ? h->payload_gid : h->gid;
    if (spec->work != SANDBOX_WORK_TEMP)
        plan_add(p, DO_WORKSPACE, spec->workspace, NULL, 0);
    plan_add(p, DO_SCRATCH, h->scratch, NULL, 0);
    if (h->limits.kind != LIMITS_NONE)
        plan_add(p, DO_GROUPS, limits_kind_name(h->limits.kind), NULL, 0);
    plan_add(p, DO_CLONE, NULL, NULL, 0);
    plan_add(p, DO_REAPER, NULL, NULL, 0);
    plan_add(p, DO_RLIMITS, NULL, NULL, 0)->n1 = h->limits.kind == LIMITS_NONE;
    plan_add(p, DO_LOCK, NULL, NULL, 0);
    plan_add(p, DO_FILTER, NULL, NULL, 0);
    plan_add(p, DO_USER, NULL, NULL, 0)->n1 = p->uid;
    plan_add(p, DO_LANDLOCK, NULL, NULL, 0)->n1 = (uint64_t)p->landlock;
    plan_add(p, DO_EXEC, NULL, NULL, 0);
    plan_files(p, spec, h);
    return 0;
}
