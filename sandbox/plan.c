/*
 * plan.c - the order in which a cell is built and a run is confined. No system call is made
 * here. The order matters: sources are opened while the host's tree is still in view, mount
 * points are made only on file systems of our own, and what locks comes last.
 */
#include "sandbox/plan.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "sandbox/spec.h"
#include "sandbox/sys.h"

#define NAMESPACES                                                                           \
    (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |              \
     CLONE_NEWCGROUP)

static const struct {
    const char *name;
    enum plan_phase phase;
} words[DO_COUNT] = {
    [DO_WORKSPACE] = {"workspace", PLAN_OUTSIDE}, [DO_GROUPS] = {"groups", PLAN_OUTSIDE},
    [DO_SCRATCH] = {"scratch", PLAN_OUTSIDE},     [DO_REAPER] = {"reaper", PLAN_INSIDE},
    [DO_SOURCES] = {"sources", PLAN_OUTSIDE},     [DO_CLONE] = {"clone", PLAN_OUTSIDE},
    [DO_IDMAP] = {"idmap", PLAN_OUTSIDE},         [DO_BECOME] = {"become", PLAN_INSIDE},
    [DO_PRIVATE] = {"private", PLAN_INSIDE},      [DO_ROOT] = {"root", PLAN_INSIDE},
    [DO_DIR] = {"dir", PLAN_INSIDE},              [DO_LINK] = {"link", PLAN_INSIDE},
    [DO_FILE] = {"file", PLAN_INSIDE},            [DO_BIND] = {"bind", PLAN_INSIDE},
    [DO_TMPFS] = {"tmpfs", PLAN_INSIDE},          [DO_OVERLAY] = {"overlay", PLAN_INSIDE},
    [DO_PROC] = {"proc", PLAN_INSIDE},            [DO_QUOTA] = {"quota", PLAN_INSIDE},
    [DO_SHADOW] = {"shadow", PLAN_INSIDE},        [DO_SOCKETS] = {"sockets", PLAN_INSIDE},
    [DO_READONLY] = {"readonly", PLAN_INSIDE},    [DO_PIVOT] = {"pivot", PLAN_LOCK},
    [DO_HOSTNAME] = {"hostname", PLAN_INSIDE},    [DO_LOOPBACK] = {"loopback", PLAN_INSIDE},
    [DO_LISTEN] = {"listen", PLAN_INSIDE},        [DO_RLIMITS] = {"rlimits", PLAN_INSIDE},
    [DO_SEAL] = {"seal", PLAN_LOCK},
    [DO_LOCK] = {"lock", PLAN_LOCK},              [DO_FILTER] = {"filter", PLAN_LOCK},
    [DO_USER] = {"user", PLAN_RUN},               [DO_LANDLOCK] = {"landlock", PLAN_RUN},
    [DO_EXEC] = {"exec", PLAN_RUN},
};

const char *plan_name(enum plan_do what)
{
    return words[what].name;
}

enum plan_phase plan_phase(enum plan_do what)
{
    return words[what].phase;
}

static const char *keep(struct plan *p, const char *text)
{
    const char *s = text ? arena_strdup(&p->mem, str_c(text)) : "";
    p->failed |= s == NULL;
    return s ? s : "";
}

struct plan_step *plan_add(struct plan *p, enum plan_do what, const char *a, const char *b,
                           unsigned flags)
{
    if (p->n == PLAN_STEPS_MAX) {
        p->failed = true;
        return &p->step[PLAN_STEPS_MAX - 1];
    }
    struct plan_step *s = &p->step[p->n++];
    *s = (struct plan_step){.what = what, .flags = flags};
    s->a = keep(p, a);
    s->b = keep(p, b);
    return s;
}

void plan_rule(struct plan *p, const char *path, unsigned may)
{
    if (p->n_rules == PLAN_RULES_MAX) {
        p->failed = true;
        return;
    }
    p->rule[p->n_rules++] = (struct landlock_rule){keep(p, path), may, 0};
}

static void add_dir(struct plan *p, const char *path, uint64_t mode, unsigned flags)
{
    plan_add(p, DO_DIR, path, NULL, flags)->n1 = mode;
}

static void add_tmpfs(struct plan *p, const char *path, uint64_t bytes, uint64_t inodes,
                      uint64_t mode, unsigned flags)
{
    struct plan_step *s = plan_add(p, DO_TMPFS, path, NULL, flags);
    s->n1 = bytes;
    s->n2 = inodes;
    s->n3 = mode;
}

/* What the distribution keeps outside /usr, shown as it is where it exists. */
static const char *const etc_shown[] = {
    "/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs", "/etc/ssl/openssl.cnf",
    "/etc/protocols",   "/etc/services",     "/etc/java-17-openjdk",
    "/etc/matplotlibrc", "/etc/fonts", NULL};

static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random",
                                      "/dev/urandom", NULL};

static void plan_system(struct plan *p, const struct probe *h)
{
    plan_add(p, DO_BIND, "/usr", "/usr", PLAN_FOLLOW);
    for (unsigned i = 0; i < PROBE_LINKS; i++) {
        char path[16];
        snprintf(path, sizeof path, "/%s", probe_links[i]);
        if (strcmp(h->usr[i], "/") == 0)
            plan_add(p, DO_BIND, path, path, PLAN_FOLLOW);
        else if (h->usr[i][0])
            plan_add(p, DO_LINK, path, h->usr[i], 0);
    }
    plan_add(p, DO_BIND, "/opt", "/opt", PLAN_FOLLOW | PLAN_OPTIONAL);
}

static void plan_etc(struct plan *p, const struct sandbox_spec *spec)
{
    bool proxy = spec->net == SANDBOX_NET_PROXY, host = spec->net == SANDBOX_NET_HOST;
    add_dir(p, "/etc", 0755, 0);
    plan_add(p, DO_FILE, "/etc/passwd",
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
        "agent:x:1000:1000:agent:" SANDBOX_HOME ":/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n", 0);
    plan_add(p, DO_FILE, "/etc/group", "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n", 0);
    plan_add(p, DO_FILE, "/etc/hosts", "127.0.0.1 localhost cell\n::1 localhost\n", 0);
    plan_add(p, DO_FILE, "/etc/hostname", "cell\n", 0);
    plan_add(p, DO_FILE, "/etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n", 0);
    plan_add(p, DO_FILE, "/etc/gitconfig", "[safe]\n\tdirectory = *\n", 0);
    if (host)
        plan_add(p, DO_BIND, "/etc/resolv.conf", "/etc/resolv.conf", PLAN_FOLLOW | PLAN_OPTIONAL);
    else
        plan_add(p, DO_FILE, "/etc/resolv.conf",
            proxy ? "# names are resolved by the proxy of this cell\n"
                  : "# this cell has no network\n", 0);
    for (unsigned i = 0; etc_shown[i]; i++)
        plan_add(p, DO_BIND, etc_shown[i], etc_shown[i], PLAN_FOLLOW | PLAN_OPTIONAL);
}

/* What the kernel counts against whoever made the user namespace, hence against the daemon's
 * own user and with it against every other session: a cell gets a small share of each. */
static const struct {
    const char *file;
    unsigned most;
} quotas[] = {{"sys/user/max_inotify_instances", 8},
              {"sys/user/max_inotify_watches", 16384}};

static void plan_dev_proc(struct plan *p, const struct sandbox_spec *spec,
                          const struct probe *h)
{
    add_dir(p, "/dev", 0755, 0);
    for (unsigned i = 0; devices[i]; i++)
        /* Read-only concerns the file's times and modes; what a device takes it still takes. */
        plan_add(p, DO_BIND, devices[i], devices[i], PLAN_DEVICE | PLAN_NOEXEC);
    plan_add(p, DO_LINK, "/dev/fd", "/proc/self/fd", 0);
    plan_add(p, DO_LINK, "/dev/stdin", "/proc/self/fd/0", 0);
    plan_add(p, DO_LINK, "/dev/stdout", "/proc/self/fd/1", 0);
    plan_add(p, DO_LINK, "/dev/stderr", "/proc/self/fd/2", 0);
    add_tmpfs(p, "/dev/shm", spec->limits.tmp_bytes, spec->limits.tmp_inodes, 01777, 0);
    plan_add(p, DO_PROC, "/proc", NULL, 0);
    for (unsigned i = 0; i < ARRAY_LEN(quotas); i++)
        plan_add(p, DO_QUOTA, quotas[i].file, NULL, 0)->n1 = quotas[i].most;
    plan_add(p, DO_READONLY, "/proc/sys", NULL, 0);
    add_dir(p, PLAN_EMPTY, 0555, 0);
    for (unsigned i = 0; i < PROBE_SHADOWS; i++)
        if (h->shadow[i])
            plan_add(p, DO_SHADOW, probe_shadows[i], NULL, 0);
}

static void plan_workspace(struct plan *p, const struct sandbox_spec *spec)
{
    const struct sandbox_limits *l = &spec->limits;
    add_tmpfs(p, "/tmp", l->tmp_bytes, l->tmp_inodes, 01777, 0);
    add_dir(p, SANDBOX_HOME, 0700, PLAN_OWNED);
    plan_add(p, DO_LINK, "/var/tmp", "/tmp", 0);
    switch (spec->work) {
    case SANDBOX_WORK_DIR:
        plan_add(p, DO_BIND, SANDBOX_WORKSPACE, spec->workspace,
            PLAN_WRITE | PLAN_IDMAP | PLAN_WORK);
        break;
    case SANDBOX_WORK_COPY: {
        struct plan_step *s = plan_add(p, DO_OVERLAY, SANDBOX_WORKSPACE, spec->workspace,
                                  PLAN_WRITE | PLAN_IDMAP | PLAN_WORK);
        s->n1 = l->tmp_bytes;
        s->n2 = l->tmp_inodes;
        break;
    }
    case SANDBOX_WORK_TEMP:
        add_tmpfs(p, SANDBOX_WORKSPACE, l->tmp_bytes, l->tmp_inodes, 0755, PLAN_OWNED);
        break;
    }
}

static void plan_binds(struct plan *p, const struct sandbox_spec *spec, const struct probe *h)
{
    if (h->tool[0])
        plan_add(p, DO_BIND, SANDBOX_TOOL, h->tool, PLAN_FOLLOW);
    for (uint32_t i = 0; i < spec->n_binds; i++) {
        const struct sandbox_bind *b = &spec->bind[i];
        if (strcmp(b->host, b->inside) == 0 && !b->write &&
            (spec_below(b->host, "/usr") || spec_below(b->host, "/opt")))
            continue; /* in view already */
        plan_add(p, DO_BIND, b->inside, b->host,
            (b->write ? PLAN_WRITE | PLAN_IDMAP : 0u) | (b->owned ? PLAN_IDMAP : 0u) |
                (b->optional ? PLAN_OPTIONAL : 0u));
    }
}

/* The second layer repeats the tree: a hole in the mounts is not yet a hole. */
static void plan_landlock(struct plan *p, const struct sandbox_spec *spec)
{
    const unsigned rx = LANDLOCK_READ | LANDLOCK_EXEC;
    const unsigned all = LANDLOCK_READ | LANDLOCK_EXEC | LANDLOCK_WRITE;
    plan_rule(p, "/", LANDLOCK_LIST);
    plan_rule(p, "/usr", rx);
    for (unsigned i = 0; i < PROBE_LINKS; i++) {
        char path[16];
        snprintf(path, sizeof path, "/%s", probe_links[i]);
        plan_rule(p, path, rx);
    }
    plan_rule(p, "/opt", rx);
    plan_rule(p, SANDBOX_TOOL_DIR, rx);
    plan_rule(p, "/etc", LANDLOCK_READ);
    plan_rule(p, "/proc", LANDLOCK_READ | LANDLOCK_DEVICE);
    plan_rule(p, "/dev", LANDLOCK_READ | LANDLOCK_DEVICE);
    plan_rule(p, "/dev/shm", all);
    plan_rule(p, "/tmp", all);
    plan_rule(p, SANDBOX_WORKSPACE, all);
    for (uint32_t i = 0; i < spec->n_binds; i++)
        plan_rule(p, spec->bind[i].inside, spec->bind[i].write ? all : rx);
}

int plan_refuse(const struct probe *h, enum plan_do what, int sys, struct sandbox_refusal *r,
                struct err *err)
{
    probe_explain(h, plan_name(what), sys, r);
    return err_set(err, ERR_DENIED, "%s; %s", r->reason, r->remedy);
}

/* Namespaces were tried in vain. */
static int bare_weigh(const struct sandbox_spec *spec, const struct probe *h,
                      struct sandbox_refusal *r, struct err *err)
{
    if (spec->require <= SANDBOX_LANDLOCK && probe_has_landlock(h))
        return 0;
    *r = h->bare;
    r->offered = probe_level(h);
    if (spec->require <= SANDBOX_LANDLOCK)
        snprintf(r->remedy, sizeof r->remedy, "%.160s; level landlock, which the policy accepts, "
                 "needs Landlock ABI 3 (Linux 6.2), and here it is %d", h->bare.remedy,
                 h->landlock);
    else if (probe_has_landlock(h))
        snprintf(r->remedy, sizeof r->remedy, "%.240s; or accept less with require: landlock in "
                 "the policy", h->bare.remedy);
    return err_set(err, ERR_DENIED, "%s; %s", r->reason, r->remedy);
}

/* What the host cannot keep is known before anything is made. */
static int weigh(struct plan *p, const struct sandbox_spec *spec, const struct probe *h,
                 struct sandbox_refusal *r, struct err *err)
{
    p->level = h->bare.step[0]                  ? SANDBOX_LANDLOCK
               : h->limits.kind == LIMITS_NONE ? SANDBOX_NOLIMITS
                                                : SANDBOX_FULL;
    p->landlock = spec->landlock == SANDBOX_LANDLOCK_OFF ? 0 : h->landlock;
    if (spec->landlock == SANDBOX_LANDLOCK_NEED && h->landlock < 1)
        return plan_refuse(h, DO_LANDLOCK, 0, r, err);
    for (uint32_t i = 0; i < spec->n_binds; i++)
        if (h->state_dir[0] && spec_below(h->state_dir, spec->bind[i].host)) {
            memset(r, 0, sizeof *r);
            r->offered = p->level;
            snprintf(r->step, sizeof r->step, "binds");
            snprintf(r->reason, sizeof r->reason,
                     "the policy shows %.150s, which holds the daemon's own state",
                     spec->bind[i].host);
            snprintf(r->remedy, sizeof r->remedy, "show the folders below it that are meant");
            return err_set(err, ERR_DENIED, "%s; %s", r->reason, r->remedy);
        }
    if (h->bare.step[0])
        return bare_weigh(spec, h, r, err);
    if (spec->require > p->level) {
        memset(r, 0, sizeof *r);
        r->offered = p->level;
        snprintf(r->step, sizeof r->step, "groups");
        snprintf(r->reason, sizeof r->reason,
                 "the policy requires level full, but memory and tasks cannot be held by a "
                 "control group: %s", h->limits.why);
        snprintf(r->remedy, sizeof r->remedy,
                 "start it as: systemd-run --%s -p Delegate=yes ..., or name the "
                 "weaker level in the policy: require: nolimits (rlimits and a watcher)",
                 h->root ? "scope" : "user --scope");
        return err_set(err, ERR_DENIED, "%s; %s", r->reason, r->remedy);
    }
    return 0;
}

static void plan_cell(struct plan *p, const struct sandbox_spec *spec, const struct probe *h)
{
    if (spec->work != SANDBOX_WORK_TEMP)
        plan_add(p, DO_WORKSPACE, spec->workspace, NULL, 0);
    if (h->limits.kind != LIMITS_NONE)
        plan_add(p, DO_GROUPS, limits_kind_name(h->limits.kind), NULL, 0);
    plan_add(p, DO_SOURCES, NULL, NULL, 0);
    plan_add(p, DO_CLONE, NULL, NULL, 0)->n1 =
        NAMESPACES | (spec->net == SANDBOX_NET_HOST ? 0u : (unsigned)CLONE_NEWNET);
    struct plan_step *ids = plan_add(p, DO_IDMAP, NULL, NULL, 0);
    ids->n1 = h->root ? h->uid_base : h->sub_uid ? h->sub_uid : h->uid;
    ids->n2 = h->root ? h->uid_count : 1;
    ids->n3 = !h->root && h->sub_uid ? h->uid : 0;
    plan_add(p, DO_BECOME, NULL, NULL, 0);
    plan_add(p, DO_PRIVATE, NULL, NULL, 0);
    struct plan_step *root = plan_add(p, DO_ROOT, NULL, NULL, 0);
    root->n1 = 1 << 20;
    root->n2 = 400;
    plan_system(p, h);
    plan_etc(p, spec);
    plan_dev_proc(p, spec, h);
    plan_workspace(p, spec);
    plan_binds(p, spec, h);
    plan_add(p, DO_SOCKETS, "/", NULL, 0);
    plan_add(p, DO_HOSTNAME, "cell", NULL, 0);
    if (spec->net != SANDBOX_NET_HOST)
        plan_add(p, DO_LOOPBACK, NULL, NULL, 0);
    if (spec->net == SANDBOX_NET_PROXY)
        plan_add(p, DO_LISTEN, NULL, NULL, 0)->n1 = SANDBOX_PROXY_PORT;
    plan_add(p, DO_RLIMITS, NULL, NULL, 0)->n1 = h->limits.kind == LIMITS_NONE;
    plan_add(p, DO_PIVOT, NULL, NULL, 0);
    plan_add(p, DO_SEAL, "/", NULL, 0);
    plan_add(p, DO_LOCK, NULL, NULL, 0);
    plan_add(p, DO_FILTER, NULL, NULL, 0);
    plan_add(p, DO_USER, NULL, NULL, 0)->n1 = p->uid;
    if (p->landlock)
        plan_add(p, DO_LANDLOCK, NULL, NULL, 0)->n1 = (uint64_t)p->landlock;
    plan_add(p, DO_EXEC, NULL, NULL, 0);
}

int plan_build(struct plan *p, const struct sandbox_spec *spec, const struct probe *h,
              struct sandbox_refusal *r, struct err *err)
{
    memset(p, 0, sizeof *p);
    arena_init(&p->mem, 0);
    p->two_ids = h->root || h->sub_uid;
    p->uid = p->gid = 1000;
    p->tcp_forbidden = spec->profile == SANDBOX_PROFILE_STRICT;
    p->scoped = true;
    int rc = weigh(p, spec, h, r, err);
    if (rc == 0 && p->level == SANDBOX_LANDLOCK) {
        rc = bare_plan(p, spec, h, r, err);
    } else if (rc == 0) {
        plan_cell(p, spec, h);
        plan_landlock(p, spec);
    }
    if (rc == 0 && p->failed)
        rc = err_set(err, ERR_LIMIT, "the plan has no room for so many paths");
    if (rc < 0)
        plan_drop(p);
    return rc;
}

void plan_drop(struct plan *p)
{
    arena_done(&p->mem);
    p->n = 0;
}

static void print_flags(unsigned flags, struct buf *out)
{
    static const char *const names[] = {"read-write", "if present", "devices", "noexec",
                                        "ids mapped", "", "owned", ""};
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if ((flags & (1u << i)) && names[i][0])
            buf_printf(out, ", %s", names[i]);
}

static void print_namespaces(uint64_t flags, struct buf *out)
{
    static const struct {
        unsigned flag;
        const char *name;
    } all[] = {{CLONE_NEWUSER, "user"}, {CLONE_NEWNS, "mount"},  {CLONE_NEWPID, "pid"},
               {CLONE_NEWIPC, "ipc"},   {CLONE_NEWUTS, "uts"},   {CLONE_NEWCGROUP, "cgroup"},
               {CLONE_NEWNET, "net"}};
    for (unsigned i = 0; i < ARRAY_LEN(all); i++)
        if (flags & all[i].flag)
            buf_printf(out, " %s", all[i].name);
}

static void print_step(const struct plan *p, const struct plan_step *s, struct buf *out)
{
    static const char *const phases[] = {"outside", "inside", "lock", "run"};
    buf_printf(out, "%-8s %-10s", phases[plan_phase(s->what)], plan_name(s->what));
    switch (s->what) {
    case DO_CLONE:
        if (s->n1 == 0)
            buf_puts(out, " without namespaces");
        print_namespaces(s->n1, out);
        break;
    case DO_SCRATCH:
        buf_printf(out, " %s stands for /tmp", s->a);
        break;
    case DO_REAPER:
        buf_puts(out, " adopts what its children leave, to end it");
        break;
    case DO_IDMAP:
        if (s->n3) {
            buf_printf(out, " 0 inside is %llu outside, 1000 is %llu, by newuidmap",
                       (unsigned long long)s->n1, (unsigned long long)s->n3);
            break;
        }
        buf_printf(out, p->two_ids ? " 0-%llu inside are %llu-%llu outside" : " 1000 inside is",
                   (unsigned long long)(s->n2 - 1), (unsigned long long)s->n1,
                   (unsigned long long)(s->n1 + s->n2 - 1));
        if (!p->two_ids)
            buf_printf(out, " %llu outside", (unsigned long long)s->n1);
        break;
    case DO_BIND:
    case DO_OVERLAY:
        buf_printf(out, " %s from %s", s->a, s->b);
        print_flags(s->flags, out);
        break;
    case DO_TMPFS:
        buf_printf(out, " %s %llu bytes, %llu files", s->a, (unsigned long long)s->n1,
                   (unsigned long long)s->n2);
        break;
    case DO_LINK:
        buf_printf(out, " %s -> %s", s->a, s->b);
        break;
    case DO_LANDLOCK:
        buf_printf(out, " ABI %d%s%s", p->landlock, p->tcp_forbidden ? ", no TCP" : "",
                   p->landlock >= 6 ? ", no signals or abstract sockets outside" : "");
        break;
    case DO_SOCKETS:
        buf_printf(out, " of services outside, covered in %s", s->a);
        break;
    case DO_QUOTA:
        buf_printf(out, " /proc/%s %llu", s->a, (unsigned long long)s->n1);
        break;
    case DO_LISTEN:
        buf_printf(out, " 127.0.0.1:%llu", (unsigned long long)s->n1);
        break;
    case DO_USER:
        buf_printf(out, " %llu, no capability, no new privileges", (unsigned long long)s->n1);
        break;
    default:
        buf_printf(out, " %s", s->a);
    }
    buf_putc(out, '\n');
}

void plan_print(const struct plan *p, struct buf *out)
{
    buf_printf(out, "level    %s\n", sandbox_level_name(p->level));
    for (unsigned i = 0; p->level == SANDBOX_LANDLOCK && bare_weaker[i]; i++)
        buf_printf(out, "weaker   %s\n", bare_weaker[i]);
    for (unsigned i = 0; i < p->n; i++)
        print_step(p, &p->step[i], out);
    for (unsigned i = 0; p->landlock && i < p->n_rules; i++) {
        unsigned may = p->rule[i].may;
        buf_printf(out, "landlock %-12s%s%s%s%s%s\n", p->rule[i].path,
                   may & LANDLOCK_LIST ? " list" : "", may & LANDLOCK_READ ? " read" : "",
                   may & LANDLOCK_EXEC ? " execute" : "", may & LANDLOCK_WRITE ? " write" : "",
                   may & LANDLOCK_DEVICE ? " use devices" : "");
    }
}
