/* limits.c - control groups v2 and v1 behind one face, and rlimits. */
#include "sandbox/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/str.h"

static const char *const trees[LIMITS_TREES] = {"memory", "pids", "cpu"};

/* A small kernel file as text; "" when it cannot be read. */
static const char *slurp(const char *path, char *buf, size_t cap)
{
    buf[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return buf;
    size_t n = 0;
    for (ssize_t r; n < cap - 1 && (r = read(fd, buf + n, cap - 1 - n)) > 0;)
        n += (size_t)r;
    buf[n] = '\0';
    close(fd);
    return buf;
}

static int put(const char *dir, const char *file, const char *text)
{
    char path[LIMITS_PATH + 128];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t w = write(fd, text, strlen(text));
    int saved = errno;
    close(fd);
    errno = saved;
    return w < 0 ? -1 : 0;
}

static int put_number(const char *dir, const char *file, uint64_t v)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)v);
    return put(dir, file, text);
}

/* The number after `key` in a "key value" file, or the whole file's when key is "". */
static uint64_t get_number(const char *dir, const char *file, const char *key)
{
    char path[LIMITS_PATH + 128], text[4096];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    struct str rest = str_c(slurp(path, text, sizeof text)), line;
    while (str_split(&rest, '\n', &line)) {
        struct str name = str_c(key);
        if (name.n && !(str_starts(line, name) && line.n > name.n && line.p[name.n] == ' '))
            continue;
        uint64_t v;
        struct str tail = name.n ? str_sub(line, name.n + 1, line.n) : line;
        return str_to_u64(str_trim(tail), &v) ? v : 0;
    }
    return 0;
}

/* Our group in a hierarchy: the line of /proc/self/cgroup that lists `tree` ("" = v2). */
static bool own_group(const char *tree, char *out, size_t cap)
{
    char text[8192];
    struct str rest = str_c(slurp("/proc/self/cgroup", text, sizeof text)), line;
    while (str_split(&rest, '\n', &line)) {
        struct str id, names;
        if (!str_split(&line, ':', &id) || !str_split(&line, ':', &names))
            continue;
        bool hit = names.n == 0 && tree[0] == '\0';
        struct str name;
        while (!hit && str_split(&names, ',', &name))
            hit = name.n && str_is(name, tree);
        if (hit) {
            snprintf(out, cap, "%.*s", STR_ARG(line));
            return true;
        }
    }
    return false;
}

/* Where a hierarchy is mounted, and which of its groups is the mount's root. */
static bool mounted(const char *tree, char *where, char *root, size_t cap)
{
    static char text[65536]; /* mountinfo; single-threaded, called at start */
    struct str rest = str_c(slurp("/proc/self/mountinfo", text, sizeof text)), line;
    while (str_split(&rest, '\n', &line)) {
        size_t dash = str_find(line, STR(" - "), 0);
        if (dash == STR_NONE)
            continue;
        struct str tail = str_sub(line, dash + 3, line.n), type, dev, field[5];
        str_split(&tail, ' ', &type);
        str_split(&tail, ' ', &dev);
        bool hit = tree[0] ? str_is(type, "cgroup") : str_is(type, "cgroup2");
        if (hit && tree[0]) {
            struct str option;
            hit = false;
            while (!hit && str_split(&tail, ',', &option))
                hit = str_is(option, tree);
        }
        if (!hit)
            continue;
        for (unsigned i = 0; i < 5; i++)
            if (!str_split(&line, ' ', &field[i]))
                return false;
        snprintf(root, cap, "%.*s", STR_ARG(field[3]));
        snprintf(where, cap, "%.*s", STR_ARG(field[4]));
        return true;
    }
    return false;
}

static bool own_dir(const char *tree, char *out, size_t cap)
{
    char group[LIMITS_PATH], where[LIMITS_PATH], root[LIMITS_PATH];
    if (!own_group(tree, group, sizeof group) || !mounted(tree, where, root, sizeof where))
        return false;
    const char *below = group;
    if (strcmp(root, "/") != 0 && strncmp(group, root, strlen(root)) == 0)
        below = group + strlen(root);
    if (strncmp(below, "/..", 3) == 0)
        below = "";
    int n = snprintf(out, cap, "%s%s", where, strcmp(below, "/") == 0 ? "" : below);
    return n > 0 && (size_t)n < cap;
}

/* The inode of our pid namespace: what a process id means. */
static int64_t pid_namespace(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 ? (int64_t)st.st_ino : 0;
}

void limits_name(char out[LIMITS_NAME], const char *kind, unsigned serial)
{
    snprintf(out, LIMITS_NAME, "agentd-%s-%lld-%d-%u", kind, (long long)pid_namespace(),
             (int)getpid(), serial);
}

/* Makes and removes a group: the only honest test of whether we may. */
static bool may_make(const char *dir)
{
    char path[LIMITS_PATH + 80], name[LIMITS_NAME];
    limits_name(name, "probe", 0);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (mkdir(path, 0755) < 0)
        return false;
    rmdir(path);
    return true;
}

static bool lists(const char *dir, const char *file, const char *name)
{
    char path[LIMITS_PATH + 64], text[512];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    struct str rest = str_trim(str_c(slurp(path, text, sizeof text))), word;
    while (str_split(&rest, ' ', &word))
        if (str_is(word, name))
            return true;
    return false;
}

static bool controllers_on(const char *dir)
{
    return lists(dir, "cgroup.subtree_control", "memory") &&
           lists(dir, "cgroup.subtree_control", "pids");
}

/* v2 lets a group have processes or children with controllers, not both: move those that
 * stand in `dir`, if they are only we and our parent, to a leaf, and switch controllers on. */
static bool adopt_group(const char *dir)
{
    char path[LIMITS_PATH + 64], text[4096], leaf[LIMITS_PATH + 80];
    snprintf(path, sizeof path, "%s/cgroup.procs", dir);
    struct str rest = str_c(slurp(path, text, sizeof text)), line;
    while (str_split(&rest, '\n', &line)) {
        int64_t pid;
        if (line.n && str_to_i64(line, &pid) && pid != getpid() && pid != getppid())
            return false;
    }
    char name[LIMITS_NAME];
    limits_name(name, "daemon", 0);
    snprintf(leaf, sizeof leaf, "%s/%s", dir, name);
    if (mkdir(leaf, 0755) < 0)
        return false;
    if (put_number(leaf, "cgroup.procs", (uint64_t)getppid()) == 0 &&
        put_number(leaf, "cgroup.procs", (uint64_t)getpid()) == 0 &&
        put(dir, "cgroup.subtree_control", "+memory +pids") == 0) {
        if (put(dir, "cgroup.subtree_control", "+cpu") < 0)
            return true; /* the share of processors then rests on nice alone */
        return true;
    }
    rmdir(leaf);
    return false;
}

static bool offers(const char *dir)
{
    return lists(dir, "cgroup.controllers", "memory") && lists(dir, "cgroup.controllers", "pids");
}

/* The group above ours, when it was given to us as well: a service whose processes were put
 * into a leaf (DelegateSubgroup), or root in a login's scope. Cells then stand beside it. */
static bool probe_above(char dir[LIMITS_PATH], const char *own, const char *top, bool adopt)
{
    char above[LIMITS_PATH];
    snprintf(above, sizeof above, "%s", own);
    char *slash = strrchr(above, '/');
    if (!slash || (size_t)(slash - above) <= strlen(top))
        return false;
    *slash = '\0';
    if (!offers(above) || !may_make(above) ||
        !(controllers_on(above) || !adopt ||
          (put(above, "cgroup.subtree_control", "+memory +pids") == 0)))
        return false;
    if (adopt && !lists(above, "cgroup.subtree_control", "cpu"))
        (void)!put(above, "cgroup.subtree_control", "+cpu");
    memcpy(dir, above, sizeof above);
    return true;
}

static bool probe_v2(struct limits_host *h, bool adopt)
{
    char own[LIMITS_PATH], root[LIMITS_PATH];
    char *dir = h->dir[0];
    if (!own_dir("", own, sizeof own) || !mounted("", dir, root, sizeof root))
        return false;
    if (offers(own) && may_make(own) && (controllers_on(own) || !adopt || adopt_group(own))) {
        snprintf(dir, LIMITS_PATH, "%s", own);
        return true;
    }
    char top[LIMITS_PATH];
    memcpy(top, dir, sizeof top);
    if (probe_above(dir, own, top, adopt))
        return true;
    /* root anywhere else: the hierarchy's top may hold both. */
    return geteuid() == 0 && controllers_on(dir) && may_make(dir);
}

static bool probe_v1(struct limits_host *h)
{
    for (unsigned i = 0; i < LIMITS_TREES; i++)
        if (!own_dir(trees[i], h->dir[i], LIMITS_PATH) || !may_make(h->dir[i]))
            h->dir[i][0] = '\0';
    return h->dir[LIMITS_MEMORY][0] && h->dir[LIMITS_PIDS][0];
}

void limits_probe(struct limits_host *h, bool adopt)
{
    memset(h, 0, sizeof *h);
    if (probe_v2(h, adopt)) {
        h->kind = LIMITS_V2;
        snprintf(h->why, sizeof h->why, "v2 at %.150s", h->dir[0]);
        return;
    }
    memset(h->dir, 0, sizeof h->dir);
    if (probe_v1(h)) {
        h->kind = LIMITS_V1;
        snprintf(h->why, sizeof h->why, "v1 at %.150s", h->dir[LIMITS_MEMORY]);
        return;
    }
    memset(h->dir, 0, sizeof h->dir);
    snprintf(h->why, sizeof h->why,
             geteuid() == 0 ? "no memory and pids controllers that we may use"
                            : "no control group is delegated to user %d",
             (int)geteuid());
}

const char *limits_kind_name(enum limits_kind kind)
{
    static const char *const names[] = {"none", "v1", "v2"};
    return names[kind];
}

static unsigned n_trees(const struct limits_group *g)
{
    return g->host->kind == LIMITS_V2 ? 1 : LIMITS_TREES;
}

/* The group's folder in tree i; false when that tree is not used. */
static bool folder(const struct limits_group *g, unsigned i, char out[LIMITS_PATH + 80])
{
    if (!g->host || g->host->kind == LIMITS_NONE || i >= n_trees(g) || !g->host->dir[i][0])
        return false;
    snprintf(out, LIMITS_PATH + 80, "%s/%s", g->host->dir[i], g->name);
    return true;
}

/* In v2 one folder serves every controller. */
static bool folder_of(const struct limits_group *g, unsigned tree,
                      char out[LIMITS_PATH + 80])
{
    bool v2 = g->host && g->host->kind == LIMITS_V2;
    return g->made && folder(g, v2 ? 0 : tree, out);
}

enum { CPU_PERIOD_US = 50000 };

static int write_limits(const struct limits_group *g, const struct sandbox_limits *l)
{
    char dir[LIMITS_PATH + 80], text[64];
    uint64_t quota = (uint64_t)l->cpu_percent * CPU_PERIOD_US / 100;
    if (g->host->kind == LIMITS_V2) {
        if (!folder(g, 0, dir) || put_number(dir, "memory.max", l->memory_bytes) < 0 ||
            put_number(dir, "pids.max", l->tasks) < 0)
            return -1;
        (void)!put(dir, "memory.swap.max", "0"); /* absent without swap accounting */
        snprintf(text, sizeof text, "%llu %d", (unsigned long long)quota, CPU_PERIOD_US);
        return put(dir, "cpu.max", text) < 0 && errno != ENOENT ? -1 : 0;
    }
    if (!folder(g, LIMITS_MEMORY, dir) ||
        put_number(dir, "memory.limit_in_bytes", l->memory_bytes) < 0)
        return -1;
    (void)!put_number(dir, "memory.memsw.limit_in_bytes", l->memory_bytes);
    /* What sockets of the internet families hold is counted apart here, and only once there is
     * a limit; the files are absent on kernels without that count. */
    (void)!put_number(dir, "memory.kmem.tcp.limit_in_bytes", l->memory_bytes / 8);
    if (!folder(g, LIMITS_PIDS, dir) || put_number(dir, "pids.max", l->tasks) < 0)
        return -1;
    if (folder(g, LIMITS_CPU, dir))
        return put_number(dir, "cpu.cfs_period_us", CPU_PERIOD_US) < 0 ||
                       put_number(dir, "cpu.cfs_quota_us", quota) < 0
                   ? -1
                   : 0;
    return 0;
}

int limits_make(struct limits_group *g, const struct limits_host *h, const char *name,
                const struct sandbox_limits *l, struct err *err)
{
    *g = (struct limits_group){.host = h};
    if (h->kind == LIMITS_NONE)
        return 0;
    snprintf(g->name, sizeof g->name, "%s", name);
    char dir[LIMITS_PATH + 80];
    g->made = true;
    for (unsigned i = 0; i < n_trees(g); i++)
        if (folder(g, i, dir) && mkdir(dir, 0755) < 0 && errno != EEXIST) {
            int rc = err_sys(err, "make control group %s", dir);
            limits_remove(g);
            return rc;
        }
    int rc = l ? limits_write(g, l, err) : 0;
    if (rc < 0)
        limits_remove(g);
    return rc;
}

int limits_write(const struct limits_group *g, const struct sandbox_limits *l, struct err *err)
{
    if (g->made && write_limits(g, l) < 0)
        return err_sys(err, "write the limits of control group %s", g->name);
    return 0;
}

int limits_open(const struct limits_group *g)
{
    char dir[LIMITS_PATH + 80];
    if (!g->made || g->host->kind != LIMITS_V2 || !folder(g, 0, dir))
        return -1;
    return open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int limits_enter(const struct limits_group *g, pid_t pid, struct err *err)
{
    char dir[LIMITS_PATH + 80];
    for (unsigned i = 0; g->made && i < n_trees(g); i++)
        if (folder(g, i, dir) && put_number(dir, "cgroup.procs", (uint64_t)pid) < 0)
            return err_sys(err, "enter control group %s", dir);
    return 0;
}

static uint64_t oom_kills(const struct limits_group *g)
{
    char dir[LIMITS_PATH + 80];
    if (!folder_of(g, LIMITS_MEMORY, dir))
        return 0;
    return g->host->kind == LIMITS_V2 ? get_number(dir, "memory.events", "oom_kill")
                                      : get_number(dir, "memory.oom_control", "oom_kill");
}

static uint64_t pids_denied(const struct limits_group *g)
{
    char dir[LIMITS_PATH + 80];
    return folder_of(g, LIMITS_PIDS, dir) ? get_number(dir, "pids.events", "max") : 0;
}

static uint64_t cpu_used(const struct limits_group *g)
{
    char dir[LIMITS_PATH + 80];
    if (!folder_of(g, LIMITS_CPU, dir))
        return 0;
    return g->host->kind == LIMITS_V2 ? get_number(dir, "cpu.stat", "usage_usec") * 1000
                                      : get_number(dir, "cpuacct.usage", "");
}

void limits_mark(struct limits_group *g)
{
    g->oom_seen = oom_kills(g);
    g->pids_seen = pids_denied(g);
    g->cpu_seen = cpu_used(g);
}

uint32_t limits_hits(const struct limits_group *g)
{
    return (oom_kills(g) > g->oom_seen ? (uint32_t)SANDBOX_LIMIT_MEMORY : 0) |
           (pids_denied(g) > g->pids_seen ? (uint32_t)SANDBOX_LIMIT_TASKS : 0);
}

uint64_t limits_cpu_ns(const struct limits_group *g)
{
    uint64_t now = cpu_used(g);
    return now > g->cpu_seen ? now - g->cpu_seen : 0;
}

uint64_t limits_peak(const struct limits_group *g)
{
    char dir[LIMITS_PATH + 80];
    if (!folder_of(g, LIMITS_MEMORY, dir))
        return 0;
    return g->host->kind == LIMITS_V2 ? get_number(dir, "memory.peak", "")
                                      : get_number(dir, "memory.max_usage_in_bytes", "");
}

static void kill_members(const char *dir)
{
    char path[LIMITS_PATH + 128], text[16384];
    if (put(dir, "cgroup.kill", "1") == 0)
        return;
    snprintf(path, sizeof path, "%s/cgroup.procs", dir);
    struct str rest = str_c(slurp(path, text, sizeof text)), line;
    while (str_split(&rest, '\n', &line)) {
        int64_t pid;
        if (line.n && str_to_i64(line, &pid) && pid > 1)
            kill((pid_t)pid, SIGKILL);
    }
}

/* The last task may still be on its way out: its group is busy for a moment. */
static void remove_dir(const char *dir)
{
    for (int tries = 0; tries < 500; tries++) {
        if (rmdir(dir) == 0 || errno == ENOENT)
            return;
        if (errno != EBUSY)
            return;
        if (tries > 2)
            kill_members(dir);
        nanosleep(&(struct timespec){0, tries < 20 ? 200000 : 4000000}, NULL);
    }
}

void limits_remove(struct limits_group *g)
{
    char dir[LIMITS_PATH + 80];
    for (unsigned i = 0; g->made && i < n_trees(g); i++)
        if (folder(g, i, dir))
            remove_dir(dir);
    g->made = false;
}

/* Whether nobody runs under this number; one who is dead and not buried does not either. */
static bool ended(pid_t pid)
{
    char path[32], text[512];
    if (kill(pid, 0) < 0 && errno == ESRCH)
        return true;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    const char *name_end = strrchr(slurp(path, text, sizeof text), ')');
    return name_end && (name_end[1] == ' ') && (name_end[2] == 'Z' || name_end[2] == 'X');
}

/* One of ours whose maker is no more. A process id says nothing in another pid namespace, and
 * containers may share the tree: only names made in our own namespace count. */
bool limits_stale(const char *name)
{
    struct str s = str_c(name), word;
    int64_t ns, pid;
    return str_split(&s, '-', &word) && str_is(word, "agentd") && str_split(&s, '-', &word) &&
           str_split(&s, '-', &word) && str_to_i64(word, &ns) && ns == pid_namespace() &&
           str_split(&s, '-', &word) && str_to_i64(word, &pid) && pid > 1 &&
           ended((pid_t)pid);
}

void limits_sweep(const struct limits_host *h)
{
    for (unsigned i = 0; i < LIMITS_TREES; i++) {
        DIR *d = h->dir[i][0] ? opendir(h->dir[i]) : NULL;
        if (!d)
            continue;
        for (struct dirent *e; (e = readdir(d));) {
            char path[LIMITS_PATH + 300];
            snprintf(path, sizeof path, "%s/%s", h->dir[i], e->d_name);
            if (e->d_type == DT_DIR && limits_stale(e->d_name)) {
                kill_members(path);
                remove_dir(path);
            }
        }
        closedir(d);
    }
}

/* Never above what the daemon's own hard limit allows: raising needs a capability. */
static int lower(__rlimit_resource_t what, uint64_t soft, uint64_t hard)
{
    struct rlimit now, want = {soft, hard};
    if (getrlimit(what, &now) < 0)
        return -1;
    if (want.rlim_max > now.rlim_max)
        want.rlim_max = now.rlim_max;
    if (want.rlim_cur > want.rlim_max)
        want.rlim_cur = want.rlim_max;
    return setrlimit(what, &want);
}

#ifdef __SANITIZE_ADDRESS__
static const bool space_is_bounded = false; /* the shadow alone takes terabytes of it */
#else
static const bool space_is_bounded = true;
#endif

int limits_rlimits(const struct sandbox_limits *l, unsigned others, bool as)
{
    const struct {
        __rlimit_resource_t what;
        uint64_t soft, hard;
    } rows[] = {
        {RLIMIT_NOFILE, l->open_files, l->open_files},
        {RLIMIT_FSIZE, l->file_bytes, l->file_bytes},
        {RLIMIT_NPROC, l->tasks + others, l->tasks + others},
        {RLIMIT_CORE, 1, 1}, /* 0 does not stop a core_pattern that is a program; 1 does */
        {RLIMIT_MEMLOCK, 64 << 10, 64 << 10},
        {RLIMIT_MSGQUEUE, 128 << 10, 128 << 10}, /* counts against the daemon's user as well */
        {RLIMIT_SIGPENDING, 1024, 1024},
        {RLIMIT_RTPRIO, 0, 0},
        {RLIMIT_NICE, 0, 0},
        {RLIMIT_STACK, 8 << 20, 64 << 20},
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
        if (lower(rows[i].what, rows[i].soft, rows[i].hard) < 0)
            return -1;
    /* Address space is a poor measure of memory, hence four times the limit; a watcher
     * compares what is really used. */
    uint64_t space = l->memory_bytes * 4;
    if (as) /* no group shares out the processors either */
        (void)!setpriority(PRIO_PROCESS, 0, 5);
    return as && space_is_bounded ? lower(RLIMIT_AS, space, space) : 0;
}
