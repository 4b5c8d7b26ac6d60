/*
 * spawn.c - makes and ends cells. The order outside: check, open, make the group, clone, map
 * the ids, let go; then wait until pid 1 says ready or names the step that failed.
 */
#include "sandbox/spawn.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/io.h"
#include "sandbox/berth.h"
#include "sandbox/build.h"
#include "sandbox/spec.h"
#include "sandbox/sys.h"

enum { OWNERS = 8, SLOTS = 500, READY_MS = 30000, PROFILES = 3 };

struct owner {
    uid_t uid;
    gid_t gid;
    uint32_t base;
    int fd; /* user namespace, -1 */
};

struct sandbox_host {
    struct probe probe;
    struct seccomp_prog filter[PROFILES]; /* compiled once each */
    struct owner owner[OWNERS];
    unsigned next_owner;
    uint32_t serial;
    struct berth *berth; /* for the next cell, owned; or NULL */
};

int sandbox_host_open(struct sandbox_host **out, const char *tool, const char *state_dir,
                      uint32_t uid_base, bool adopt, struct err *err)
{
    struct sandbox_host *h = mem_zalloc(sizeof *h);
    if (!h)
        return err_nomem(err);
    for (unsigned i = 0; i < OWNERS; i++)
        h->owner[i].fd = -1;
    probe_host(&h->probe, tool, state_dir, uid_base, adopt);
    limits_sweep(&h->probe.limits);
    *out = h;
    return 0;
}

void sandbox_host_prepare(struct sandbox_host *h)
{
    char name[LIMITS_NAME];
    if (h->berth || !berth_possible(&h->probe.limits))
        return;
    limits_name(name, "cell", ++h->serial);
    h->berth = berth_new(&h->probe.limits, name);
}

void sandbox_host_close(struct sandbox_host *h)
{
    if (!h)
        return;
    berth_free(h->berth);
    for (unsigned i = 0; i < PROFILES; i++)
        mem_free(h->filter[i].code);
    for (unsigned i = 0; i < OWNERS; i++)
        io_close(&h->owner[i].fd);
    mem_free(h);
}

const struct probe *sandbox_host_probe(const struct sandbox_host *h)
{
    return &h->probe;
}

/* ---- ranges of ids ---- */

/* True when a line "name:first:count" or a passwd line's id falls into the range. */
static bool overlaps(const char *path, bool passwd, uint64_t first, uint64_t count)
{
    struct buf b;
    struct err err = {0};
    buf_init(&b, 4 << 20);
    bool hit = false;
    if (io_read_file(path, &b, &err) == 0) {
        struct str rest = buf_view(&b), line;
        while (!hit && str_split(&rest, '\n', &line)) {
            struct str f[3] = {{0}};
            uint64_t lo, n = 1;
            for (unsigned i = 0; i < 3; i++)
                (void)str_split(&line, ':', &f[i]);
            if (!str_to_u64(f[passwd ? 2 : 1], &lo) || (!passwd && !str_to_u64(f[2], &n)))
                continue;
            hit = lo < first + count && first < lo + n;
        }
    }
    buf_done(&b);
    return hit;
}

static bool real_ids(uint64_t first, uint64_t count)
{
    return overlaps("/etc/passwd", true, first, count) ||
           overlaps("/etc/group", true, first, count) ||
           overlaps("/etc/subuid", false, first, count) ||
           overlaps("/etc/subgid", false, first, count);
}

/* A range of its own per live cell on the whole machine: the holder of an abstract socket's
 * name owns the range, and the name goes when its holder does. */
static int take_slot(const struct probe *p, uint32_t *base)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint32_t first = p->uid_base + i * p->uid_count;
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "agentd-ids-%u", first);
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return -1;
        socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
        if (bind(fd, (struct sockaddr *)&a, len) == 0 && !real_ids(first, p->uid_count)) {
            *base = first;
            return fd;
        }
        close(fd);
    }
    errno = EUSERS;
    return -1;
}

/* ---- caches ---- */

static const struct seccomp_prog *filter_for(struct sandbox_host *h,
                                             enum sandbox_profile profile, struct err *err)
{
    struct seccomp_prog *p = &h->filter[profile];
    struct seccomp_opts o = {.profile = profile, .one_id = !h->probe.root};
    if (!p->code && filter_compile(p, &o, err) < 0)
        return NULL;
    return p;
}

/* Making a user namespace costs a process; sessions of one owner share it. */
static int owner_ns(struct sandbox_host *h, int workspace, uint32_t base)
{
    struct stat st;
    if (fstat(workspace, &st) < 0)
        return -1;
    for (unsigned i = 0; i < OWNERS; i++) {
        const struct owner *o = &h->owner[i];
        if (o->fd >= 0 && o->uid == st.st_uid && o->gid == st.st_gid && o->base == base)
            return o->fd;
    }
    int fd = ns_owner(st.st_uid, st.st_gid, base + 1000, base + 1000);
    if (fd < 0)
        return -1;
    struct owner *o = &h->owner[h->next_owner++ % OWNERS];
    io_close(&o->fd);
    *o = (struct owner){st.st_uid, st.st_gid, base, fd};
    return fd;
}

/* ---- opening ---- */

struct attempt {
    struct sandbox *s;
    struct build b;
    struct plan plan;
    struct probe host; /* with this cell's range */
    struct sandbox_spec spec;
    struct berth *berth; /* where the cell is born, or NULL */
    struct sandbox_refusal *r;
    struct err *err;
};

static int refuse(struct attempt *a, const char *step, int sys)
{
    memset(a->r, 0, sizeof *a->r);
    probe_explain(&a->host, step, sys, a->r);
    return err_set(a->err, ERR_DENIED, "%s; %s", a->r->reason, a->r->remedy);
}

/* The same, naming the path that the step was about. */
static int refuse_at(struct attempt *a, const char *step, int sys, unsigned at)
{
    const struct plan_step *s = at < a->plan.n ? &a->plan.step[at] : NULL;
    (void)!refuse(a, step, sys);
    if (s && (s->what == DO_BIND || s->what == DO_OVERLAY)) {
        char reason[sizeof a->r->reason];
        memcpy(reason, a->r->reason, sizeof reason);
        snprintf(a->r->reason, sizeof a->r->reason, "%.100s: %.200s", s->b, reason);
    }
    return err_set(a->err, ERR_DENIED, "%s; %s", a->r->reason, a->r->remedy);
}

static const struct plan_step *find_step(const struct plan *p, enum plan_do what)
{
    for (unsigned i = 0; i < p->n; i++)
        if (p->step[i].what == what)
            return &p->step[i];
    return NULL;
}

static int make_group(struct attempt *a)
{
    char name[LIMITS_NAME];
    struct sandbox_host *h = a->s->host;
    struct err why = {0};
    int rc;
    if (berth_fits(find_step(&a->plan, DO_CLONE)->n1)) {
        sandbox_host_prepare(h);
        a->berth = h->berth;
        h->berth = NULL;
    }
    if (a->berth) {
        berth_take_group(a->berth, &a->s->group);
        rc = limits_write(&a->s->group, &a->spec.limits, &why);
    } else {
        limits_name(name, "cell", ++h->serial);
        rc = limits_make(&a->s->group, &h->probe.limits, name, &a->spec.limits, &why);
    }
    return rc < 0 ? refuse(a, plan_name(DO_GROUPS), why.sys) : 0;
}

static int prepare(struct attempt *a)
{
    struct sandbox *s = a->s;
    struct build *b = &a->b;
    if (a->host.root) {
        s->slot = take_slot(&s->host->probe, &a->host.uid_base);
        if (s->slot < 0)
            return refuse(a, "ids", errno);
        s->uid_base = a->host.uid_base;
    }
    int rc = plan_build(&a->plan, &a->spec, &a->host, a->r, a->err);
    if (rc < 0)
        return rc;
    b->filter = filter_for(s->host, a->spec.profile, a->err);
    if (!b->filter)
        return err_prefix(a->err, "profile %d", a->spec.profile);
    if (find_step(&a->plan, DO_WORKSPACE)) {
        if (mounts_workspace(b) < 0)
            return refuse(a, plan_name(DO_WORKSPACE), errno);
        if (sockets_find(b) < 0)
            return refuse(a, plan_name(DO_SOCKETS), errno);
        if (a->host.root) {
            b->owner_ns = owner_ns(s->host, b->workspace, s->uid_base);
            if (b->owner_ns < 0)
                return refuse(a, plan_name(DO_CLONE), errno);
        }
    }
    rc = make_group(a);
    if (rc < 0)
        return rc;
    if (a->host.root && mounts_sources(b) < 0)
        return refuse_at(a, errno == EINVAL ? "idmount" : plan_name(DO_SOURCES), errno, a->b.at);
    return 0;
}

/* The clone that becomes pid 1 goes straight into init_main() and never returns. */
static int start(struct attempt *a)
{
    struct sandbox *s = a->s;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(a->err, "socket pair");
    const struct plan_step *clone_step = find_step(&a->plan, DO_CLONE);
    int group = limits_open(&s->group);
    a->b.ctl = pair[1];
    a->b.ctl_outside = s->ctl = pair[0];
    long pid = a->berth ? berth_clone(a->berth, &a->b, clone_step->n1, &s->pidfd)
                        : ns_clone(clone_step->n1, group, &s->pidfd);
    int saved = errno;
    if (pid == 0)
        init_main(&a->b);
    io_close(&group);
    close(pair[1]);
    if (pid < 0)
        return refuse(a, plan_name(DO_CLONE), saved);
    s->pid = (pid_t)pid;
    struct err why = {0};
    if (!a->berth && s->group.made && s->group.host->kind == LIMITS_V1 &&
        limits_enter(&s->group, s->pid, &why) < 0)
        return refuse(a, plan_name(DO_GROUPS), why.sys);
    if (ns_write_maps(s->pid, find_step(&a->plan, DO_IDMAP), a->plan.two_ids) < 0)
        return refuse(a, plan_name(DO_IDMAP), errno);
    struct wire go = {.kind = WIRE_GO};
    return wire_send(s->ctl, &go, NULL, NULL, 0) < 0 ? refuse(a, "init", errno) : 0;
}

static int await_ready(struct attempt *a)
{
    struct sandbox *s = a->s;
    struct pollfd p = {s->ctl, POLLIN, 0};
    int rc;
    do {
        rc = poll(&p, 1, READY_MS);
    } while (rc < 0 && errno == EINTR);
    if (rc <= 0)
        return refuse(a, "init", ETIMEDOUT);
    struct wire w;
    int fds[WIRE_FDS_MAX];
    unsigned n = 0, at = 0;
    if (wire_recv(s->ctl, &w, NULL, 0, fds, &n) != 1)
        return refuse(a, "init", EPIPE);
    if (w.kind == WIRE_FAULT) {
        w.step[sizeof w.step - 1] = '\0';
        return refuse_at(a, w.step, w.a, (unsigned)w.b);
    }
    if (w.kind != WIRE_READY || n == 0)
        return refuse(a, "init", EPROTO);
    int *to[3] = {&s->proc, &s->listener, &s->upper};
    for (unsigned i = 0; i < 3 && at < n; i++)
        if (w.fds & (1u << i))
            *to[i] = fds[at++];
    return 0;
}

static void write_record(struct attempt *a)
{
    struct sandbox *s = a->s;
    static const char *const nets[] = {"none", "proxy", "host"};
    static const char *const works[] = {"temp", "dir", "copy"};
    static const char *const profiles[] = {"default", "debug", "strict"};
    const struct sandbox_limits *l = &a->spec.limits;
    buf_printf(&s->record,
               "{\"level\":\"%s\",\"namespaces\":\"user mount pid ipc uts cgroup%s\","
               "\"landlock_abi\":%d,\"filter\":\"%s-%s\",\"groups\":\"%s\",\"network\":\"%s\","
               "\"workspace\":\"%s\",\"ids\":%u,\"policy\":\"%s\"",
               sandbox_level_name(s->level), a->spec.net == SANDBOX_NET_HOST ? "" : " net",
               a->plan.landlock, profiles[a->spec.profile], a->b.filter->hash,
               limits_kind_name(s->host->probe.limits.kind), nets[a->spec.net],
               works[a->spec.work], a->plan.two_ids ? s->uid_base : (unsigned)a->host.uid,
               a->spec.policy_hash);
    buf_puts(&s->record, ",\"limits\":{");
    for (const struct spec_limit *row = spec_limits; row->name; row++)
        buf_printf(&s->record, "%s\"%s\":%llu", row == spec_limits ? "" : ",", row->name,
                   (unsigned long long)spec_limit_get(l, row));
    buf_printf(&s->record, "}%s%s}",
               a->spec.net == SANDBOX_NET_HOST ? ",\"weakened\":\"host network\"" : "",
               a->spec.work == SANDBOX_WORK_DIR ? ",\"disk_limit\":\"approximate\"" : "");
}

static int attempt(struct attempt *a)
{
    int rc = prepare(a);
    if (rc == 0)
        rc = start(a);
    if (rc == 0)
        rc = await_ready(a);
    if (rc < 0)
        return rc;
    a->s->level = a->plan.level;
    a->s->limits = a->spec.limits;
    a->s->workspace = a->b.workspace;
    a->b.workspace = -1;
    limits_mark(&a->s->group);
    write_record(a);
    return buf_check(&a->s->record, "record", a->err);
}

int sandbox_open(struct sandbox **out, struct sandbox_host *h, const struct sandbox_spec *spec,
                 struct sandbox_refusal *r, struct err *err)
{
    struct attempt *a = mem_zalloc(sizeof *a);
    struct sandbox *s = mem_zalloc(sizeof *s);
    if (!a || !s) {
        mem_free(a);
        mem_free(s);
        return err_nomem(err);
    }
    memset(r, 0, sizeof *r);
    s->host = h;
    s->pidfd = s->ctl = s->proc = s->workspace = s->listener = s->upper = s->slot = -1;
    buf_init(&s->record, 8192);
    a->s = s;
    a->r = r;
    a->err = err;
    a->spec = *spec;
    a->host = h->probe;
    a->b = (struct build){.spec = &a->spec, .plan = &a->plan, .host = &a->host};
    a->b.workspace = a->b.owner_ns = a->b.root = a->b.proc = a->b.upper = a->b.listener = -1;
    for (unsigned i = 0; i < PLAN_STEPS_MAX; i++)
        a->b.tree[i] = -1;
    int rc = spec_check(&a->spec, err);
    if (rc == 0)
        rc = attempt(a);
    mounts_close(&a->b);
    berth_free(a->berth);
    plan_drop(&a->plan);
    mem_free(a);
    if (rc < 0) {
        sandbox_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void sandbox_close(struct sandbox *s)
{
    if (!s)
        return;
    if (s->pid > 0) {
        if (s->pidfd < 0 || sys_pidfd_signal(s->pidfd, SIGKILL) < 0)
            kill(s->pid, SIGKILL);
        while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    io_close(&s->pidfd);
    io_close(&s->ctl);
    io_close(&s->proc);
    io_close(&s->workspace);
    io_close(&s->listener);
    io_close(&s->upper);
    if (s->group.made)
        limits_remove(&s->group);
    io_close(&s->slot);
    buf_done(&s->record);
    mem_free(s);
}
