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
#include "sandbox/clerk.h"
#include "sandbox/spec.h"
#include "sandbox/sys.h"
#include "sandbox/tree.h"

enum { OWNERS = 8, SLOTS = 500, READY_MS = 30000 };

/* What the filters of a cell are for: the runs, the runs with a clerk beside them, the clerk. */
enum filter_role { FILTER_PLAIN, FILTER_NOTIFY, FILTER_CLERK, FILTER_ROLES };
enum { PROFILES = 3, FILTERS = 2 * 2 * PROFILES * FILTER_ROLES }; /* bare, reported */

struct owner {
    uid_t uid;
    gid_t gid;
    uint32_t base;
    int fd; /* user namespace, -1 */
};

struct sandbox_host {
    struct probe probe;
    struct seccomp_prog filter[FILTERS]; /* compiled once each */
    struct owner owner[OWNERS];
    unsigned next_owner;
    uint32_t serial;
    struct berth *berth; /* for the next cell, owned; or NULL */
    struct sandbox *bare; /* cells without namespaces, linked; borrowed */
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
    if (adopt)
        scratch_sweep();
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
    for (unsigned i = 0; i < FILTERS; i++)
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
    struct seccomp_prog own[FILTER_ROLES]; /* of a policy that adds calls */
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

static const struct seccomp_prog *filter_for(struct attempt *a, enum filter_role role)
{
    bool bare = a->plan.level == SANDBOX_LANDLOCK, added = a->spec.n_calls > 0;
    struct sandbox_host *h = a->s->host;
    unsigned kind = (bare ? 2u : 0u) + (a->spec.log_calls ? 1u : 0u);
    unsigned at = (kind * PROFILES + (unsigned)a->spec.profile) * FILTER_ROLES + (unsigned)role;
    struct seccomp_prog *p = added ? &a->own[role] : &h->filter[at];
    struct seccomp_opts o = {.profile = a->spec.profile, .shared = bare,
                             .unscoped = bare && h->probe.landlock < 6,
                             .clerk = role != FILTER_NOTIFY && bare,
                             .report = role == FILTER_NOTIFY && a->spec.log_calls,
                             .n_calls = a->spec.n_calls, .call = a->spec.call};
    if (role == FILTER_CLERK)
        o.clerk = true;
    return p->code || filter_compile(p, &o, a->err) == 0 ? p : NULL;
}

static int make_filters(struct attempt *a)
{
    struct build *b = &a->b;
    bool clerk = clerk_wanted(b);
    b->filter = filter_for(a, FILTER_PLAIN);
    b->notify_filter = clerk ? filter_for(a, FILTER_NOTIFY) : NULL;
    b->clerk_filter = clerk ? filter_for(a, FILTER_CLERK) : NULL;
    if (!b->filter || (clerk && (!b->notify_filter || !b->clerk_filter)))
        return err_prefix(a->err, "profile %d", a->spec.profile);
    return 0;
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

/* Without namespaces a root daemon's payload is the owner of the workspace: nobody else could
 * write there, and root it must not be. */
static int prepare_bare(struct attempt *a)
{
    struct stat st;
    scratch_name(a->host.scratch, ++a->s->host->serial);
    a->host.payload_uid = a->host.payload_gid = a->host.root ? a->host.uid_base + 1000 : 0;
    if (!a->host.root || a->spec.work == SANDBOX_WORK_TEMP)
        return 0;
    if (lstat(a->spec.workspace, &st) < 0)
        return refuse(a, plan_name(DO_WORKSPACE), errno);
    a->host.payload_uid = st.st_uid;
    a->host.payload_gid = st.st_gid;
    return 0;
}

/* It was looked at by its name, and opened later. */
static bool other_owner(const struct attempt *a)
{
    struct stat st;
    return a->host.root && (fstat(a->b.workspace, &st) < 0 || st.st_uid != a->host.payload_uid ||
                            st.st_gid != a->host.payload_gid);
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
    bool bare = a->host.bare.step[0];
    if (bare && prepare_bare(a) < 0)
        return -a->err->code;
    int rc = plan_build(&a->plan, &a->spec, &a->host, a->r, a->err);
    if (rc < 0)
        return rc;
    rc = make_filters(a);
    if (rc < 0)
        return rc;
    if (find_step(&a->plan, DO_WORKSPACE)) {
        if (mounts_workspace(b) < 0)
            return refuse(a, plan_name(DO_WORKSPACE), errno);
        if (bare && other_owner(a))
            return refuse(a, plan_name(DO_WORKSPACE), ESTALE);
        if (a->host.root && !bare) {
            b->owner_ns = owner_ns(s->host, b->workspace, s->uid_base);
            if (b->owner_ns < 0)
                return refuse(a, plan_name(DO_CLONE), errno);
        }
    }
    if (!bare && (rc = sockets_init(&s->sockets, &a->plan, b->workspace, a->err)) < 0)
        return rc;
    if (!bare && sockets_find(&s->sockets, &b->sockets) < 0)
        return refuse(a, plan_name(DO_SOCKETS), errno);
    if (bare && scratch_make(b) < 0)
        return refuse(a, plan_name(DO_SCRATCH), errno);
    if (bare)
        memcpy(s->scratch, a->host.scratch, sizeof s->scratch);
    rc = make_group(a);
    if (rc < 0)
        return rc;
    if (bare)
        return 0;
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
    bool bare = a->plan.level == SANDBOX_LANDLOCK;
    int group = bare ? -1 : limits_open(&s->group); /* clone3 may be filtered away */
    int proc = bare ? open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    a->b.others = proc >= 0 ? tree_tasks_of(proc, a->plan.uid) : 0;
    io_close(&proc);
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
    if (bare) {
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        s->next_bare = s->host->bare;
        s->host->bare = s;
    }
    struct err why = {0};
    if (!a->berth && s->group.made && (bare || s->group.host->kind == LIMITS_V1) &&
        limits_enter(&s->group, s->pid, &why) < 0)
        return refuse(a, plan_name(DO_GROUPS), why.sys);
    if (!bare && ns_write_maps(s->pid, find_step(&a->plan, DO_IDMAP), a->plan.two_ids,
                               !a->host.root && a->host.sub_uid ? &a->host : NULL) < 0)
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
    int *to[] = {&s->proc, &s->listener, &s->upper, &s->sockets.mounts};
    for (unsigned i = 0; i < ARRAY_LEN(to) && at < n; i++)
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
    bool bare = s->level == SANDBOX_LANDLOCK;
    const struct seccomp_prog *filter = a->b.notify_filter ? a->b.notify_filter : a->b.filter;
    unsigned ids = bare ? a->plan.uid : a->host.root ? s->uid_base : a->host.uid;
    buf_printf(&s->record,
               "{\"level\":\"%s\",\"namespaces\":\"%s%s\","
               "\"landlock_abi\":%d,\"filter\":\"%s-%s\",\"groups\":\"%s\",\"network\":\"%s\","
               "\"workspace\":\"%s\",\"ids\":%u,\"policy\":\"%s\"",
               sandbox_level_name(s->level), bare ? "none" : "user mount pid ipc uts cgroup",
               bare || a->spec.net == SANDBOX_NET_HOST ? "" : " net",
               a->plan.landlock, profiles[a->spec.profile], filter->hash,
               limits_kind_name(s->host->probe.limits.kind), nets[a->spec.net],
               works[a->spec.work], ids, a->spec.policy_hash);
    buf_puts(&s->record, ",\"limits\":{");
    for (const struct spec_limit *row = spec_limits; row->name; row++)
        buf_printf(&s->record, "%s\"%s\":%llu", row == spec_limits ? "" : ",", row->name,
                   (unsigned long long)spec_limit_get(l, row));
    buf_putc(&s->record, '}');
    if (!bare)
        buf_printf(&s->record, ",\"init\":\"%s\"",
                   a->plan.two_ids ? "an id of its own" : "the payload's id");
    if (a->spec.log_calls)
        buf_puts(&s->record, ",\"log_calls\":true");
    for (uint32_t i = 0; i < a->spec.n_calls; i++) /* checked names: letters, digits and _ */
        buf_printf(&s->record, "%s\"%s\"%s", i ? "," : ",\"unsafe_allow\":[", a->spec.call[i],
                   i + 1 == a->spec.n_calls ? "]" : "");
    for (unsigned i = 0; bare && bare_weaker[i]; i++)
        buf_printf(&s->record, "%s\"%s\"", i ? "," : ",\"weaker\":[", bare_weaker[i]);
    if (bare && s->host->probe.landlock < 6)
        buf_puts(&s->record, ",\"signals to other processes of the same user are not held\"");
    buf_printf(&s->record, "%s%s%s}", bare ? "]" : "",
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
    a->s->scratch_fd = a->b.scratch;
    a->b.scratch = -1;
    limits_mark(&a->s->group);
    write_record(a);
    return buf_check(&a->s->record, "record", a->err);
}

/* bare: why there are no namespaces, or NULL to try with them. */
static int open_as(struct sandbox **out, struct sandbox_host *h, const struct sandbox_spec *spec,
                   const struct sandbox_refusal *bare, struct sandbox_refusal *r,
                   struct err *err)
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
    s->scratch_fd = s->sockets.mounts = s->sockets.workspace = -1;
    buf_init(&s->record, 8192);
    a->s = s;
    a->r = r;
    a->err = err;
    a->spec = *spec;
    a->host = h->probe;
    if (bare)
        a->host.bare = *bare;
    a->b = (struct build){.spec = &a->spec, .plan = &a->plan, .host = &a->host};
    a->b.workspace = a->b.owner_ns = a->b.root = a->b.proc = a->b.upper = a->b.listener = -1;
    a->b.scratch = -1;
    for (unsigned i = 0; i < PLAN_STEPS_MAX; i++)
        a->b.tree[i] = -1;
    int rc = spec_check(&a->spec, err);
    if (rc == 0)
        rc = attempt(a);
    mounts_close(&a->b);
    io_close(&a->b.scratch);
    berth_free(a->berth);
    plan_drop(&a->plan);
    for (unsigned i = 0; i < FILTER_ROLES; i++)
        mem_free(a->own[i].code);
    mem_free(a);
    if (rc < 0) {
        sandbox_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

/* newuidmap does not work here (no set-uid bit, no new privileges): one id for both, as without. */
static void forget_sub(struct sandbox_host *h)
{
    h->probe.sub_uid = h->probe.sub_gid = 0;
    for (unsigned i = 0; i < FILTERS; i++) {
        mem_free(h->filter[i].code);
        h->filter[i] = (struct seccomp_prog){0};
    }
}

/* Less is tried only where the policy names it, and only for want of namespaces. */
int sandbox_open(struct sandbox **out, struct sandbox_host *h, const struct sandbox_spec *spec,
                 struct sandbox_refusal *r, struct err *err)
{
    int rc = open_as(out, h, spec, NULL, r, err);
    if (rc == -ERR_DENIED && h->probe.sub_uid && strcmp(r->step, plan_name(DO_IDMAP)) == 0) {
        forget_sub(h);
        rc = open_as(out, h, spec, NULL, r, err);
    }
    if (rc != -ERR_DENIED || !probe_is_bare(r->step, r->sys))
        return rc;
    struct sandbox_refusal why = *r;
    if (spec->require <= SANDBOX_LANDLOCK || probe_has_landlock(&h->probe))
        return open_as(out, h, spec, &why, r, err); /* or the words of a refusal */
    return rc;
}

/* At level landlock the process above all others must do the killing itself; its socket's end
 * is the order. */
void sandbox_kill(struct sandbox *s)
{
    if (s->scratch[0])
        io_close(&s->ctl);
    else if (s->pid > 0 && (s->pidfd < 0 || sys_pidfd_signal(s->pidfd, SIGKILL) < 0))
        kill(s->pid, SIGKILL);
}

int sandbox_cover(struct sandbox *s)
{
    return s->scratch[0] ? 0 : sockets_again(&s->sockets);
}

static bool is_reaper(const struct sandbox *list, pid_t pid)
{
    for (; list; list = list->next_bare)
        if (list->pid == pid)
            return true;
    return false;
}

/* What a dead reaper left has become ours: everybody below us who is below no reaper alive. */
static void end_orphans(struct sandbox_host *h, int proc)
{
    static pid_t below[TREE_MAX];
    for (unsigned round = 0; round < 200; round++) {
        unsigned n = tree_below(proc, getpid(), below, TREE_MAX), ended = 0;
        for (unsigned i = 0; i < n; i++) {
            bool ours = is_reaper(h->bare, below[i]);
            for (const struct sandbox *s = h->bare; !ours && s; s = s->next_bare)
                ours = tree_has(proc, s->pid, below[i]);
            if (ours || berth_is(h->berth, below[i]))
                continue;
            ended += tree_signal(proc, getpid(), below[i], SIGKILL);
            (void)waitpid(below[i], NULL, WNOHANG);
        }
        if (ended == 0)
            return;
        poll(NULL, 0, 1);
    }
}

/* A reaper that does not come to its end in time is ended, and then what was below it. */
static void end_bare(struct sandbox *s)
{
    struct pollfd p = {s->pidfd, POLLIN, 0};
    bool late = s->pidfd >= 0 && poll(&p, 1, 5000) == 0;
    if (late)
        (void)!sys_pidfd_signal(s->pidfd, SIGKILL);
    int status = 0;
    while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR)
        ;
    s->pid = 0;
    for (struct sandbox **at = &s->host->bare; *at; at = &(*at)->next_bare)
        if (*at == s) {
            *at = s->next_bare;
            break;
        }
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (proc >= 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        end_orphans(s->host, proc);
    io_close(&proc);
}

void sandbox_close(struct sandbox *s)
{
    if (!s)
        return;
    if (s->pid > 0) {
        sandbox_kill(s);
        if (s->scratch[0])
            end_bare(s);
        while (s->pid > 0 && waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    io_close(&s->pidfd);
    io_close(&s->ctl);
    io_close(&s->proc);
    io_close(&s->workspace);
    io_close(&s->scratch_fd);
    io_close(&s->listener);
    io_close(&s->upper);
    sockets_done(&s->sockets);
    if (s->group.made)
        limits_remove(&s->group);
    if (s->scratch[0])
        scratch_remove(s->scratch);
    io_close(&s->slot);
    buf_done(&s->record);
    mem_free(s);
}
