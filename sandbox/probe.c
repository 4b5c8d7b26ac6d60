/* probe.c - looks at the host once, and turns errnos of failed steps into advice. */
#include "sandbox/probe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/io.h"
#include "sandbox/build.h"
#include "sandbox/landlock.h"
#include "sandbox/sys.h"

const char *const probe_links[PROBE_LINKS] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};
const char *const probe_shadows[PROBE_SHADOWS] = {
    "/proc/sysrq-trigger", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kallsyms",
    "/proc/irq",           "/proc/bus",   "/proc/fs",   "/proc/scsi",       "/proc/acpi",
    "/proc/sched_debug",   "/proc/key-users", "/proc/pressure"};

/* In a user namespace "root" may own no id but its own; our range must be mapped to be used.
 * *outer: what uid 0 is one namespace further out. */
static bool range_mapped(uint64_t first, uint64_t count, uint64_t *outer)
{
    struct buf b;
    struct err err = {0};
    buf_init(&b, 1 << 16);
    bool hit = false;
    if (io_read_file("/proc/self/uid_map", &b, &err) == 0) {
        struct str rest = buf_view(&b), line;
        while (!hit && str_split(&rest, '\n', &line)) {
            struct str word;
            uint64_t v[3] = {0};
            unsigned n = 0;
            while (n < 3 && str_split(&line, ' ', &word))
                if (word.n && str_to_u64(word, &v[n]))
                    n++;
            hit = n == 3 && v[0] <= first && first + count <= v[0] + v[2];
            if (n == 3 && v[0] == 0)
                *outer = v[1];
        }
    }
    buf_done(&b);
    return hit;
}

/* The line of /etc/passwd with this uid: its name. No name service runs in the spawner. */
static bool user_name(uid_t uid, char *out, size_t cap)
{
    struct buf b;
    struct err err = {0};
    bool hit = false;
    buf_init(&b, 4 << 20);
    struct str rest = {0}, line;
    if (io_read_file("/etc/passwd", &b, &err) == 0)
        rest = buf_view(&b);
    while (!hit && str_split(&rest, '\n', &line)) {
        struct str f[3] = {{0}};
        uint64_t id;
        for (unsigned i = 0; i < 3; i++)
            (void)str_split(&line, ':', &f[i]);
        hit = str_to_u64(f[2], &id) && id == uid && f[0].n < cap;
        if (hit)
            snprintf(out, cap, "%.*s", STR_ARG(f[0]));
    }
    buf_done(&b);
    return hit;
}

/* The last subordinate id of a user, which others use least; 0 = none. */
static uint32_t last_sub(const char *path, const char *name, uid_t uid)
{
    struct buf b;
    struct err err = {0};
    uint64_t last = 0;
    buf_init(&b, 4 << 20);
    struct str rest = {0}, line;
    if (io_read_file(path, &b, &err) == 0)
        rest = buf_view(&b);
    while (!last && str_split(&rest, '\n', &line)) {
        struct str f[3] = {{0}};
        uint64_t id, lo = 0, n = 0;
        for (unsigned i = 0; i < 3; i++)
            (void)str_split(&line, ':', &f[i]);
        bool mine = str_is(f[0], name) || (str_to_u64(f[0], &id) && id == uid);
        if (mine && str_to_u64(f[1], &lo) && str_to_u64(f[2], &n) && n > 0 && lo > 0 &&
            lo < UINT32_MAX && n < UINT32_MAX - lo)
            last = lo + n - 1;
    }
    buf_done(&b);
    return (uint32_t)last;
}

static void find_sub(struct probe *p)
{
    char name[256];
    if (p->uid == 0 || access(NS_NEWUIDMAP, X_OK) < 0 || access(NS_NEWGIDMAP, X_OK) < 0 ||
        !user_name(p->uid, name, sizeof name))
        return;
    p->sub_uid = last_sub("/etc/subuid", name, p->uid);
    p->sub_gid = last_sub("/etc/subgid", name, p->uid);
    if (!p->sub_uid || !p->sub_gid)
        p->sub_uid = p->sub_gid = 0;
}

void probe_host(struct probe *p, const char *tool, const char *state_dir, uint32_t uid_base,
                bool adopt)
{
    memset(p, 0, sizeof *p);
    p->uid = geteuid();
    p->gid = getegid();
    p->landlock = landlock_abi();
    p->uid_base = uid_base ? uid_base : 700000;
    p->uid_count = 2000;
    uint64_t outer = 0;
    p->root = p->uid == 0 && range_mapped(p->uid_base, p->uid_count, &outer);
    p->is_root = p->uid == 0 && !p->root && outer == 0;
    find_sub(p);
    limits_probe(&p->limits, adopt);
    for (unsigned i = 0; i < PROBE_LINKS; i++) {
        char path[16];
        snprintf(path, sizeof path, "/%s", probe_links[i]);
        ssize_t n = readlink(path, p->usr[i], sizeof p->usr[i] - 1);
        struct stat st;
        if (n > 0)
            p->usr[i][n] = '\0';
        else if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
            memcpy(p->usr[i], "/", 2);
    }
    for (unsigned i = 0; i < PROBE_SHADOWS; i++)
        p->shadow[i] = access(probe_shadows[i], F_OK) == 0;
    snprintf(p->tool, sizeof p->tool, "%s", tool ? tool : "");
    snprintf(p->state_dir, sizeof p->state_dir, "%s", state_dir ? state_dir : "");
}

bool probe_has_landlock(const struct probe *p)
{
    return p->landlock >= 3;
}

bool probe_is_bare(const char *step, int sys)
{
    static const char *const inside[] = {"become", "private", "root", "tmpfs", "bind", "proc",
                                         "hostname", "loopback"};
    if (strcmp(step, "clone") == 0 || strcmp(step, "idmap") == 0)
        return true;
    if (strcmp(step, "sources") == 0) /* other errors are about the path */
        return sys == EPERM || sys == ENOSYS;
    for (unsigned i = 0; i < ARRAY_LEN(inside); i++)
        if (strcmp(step, inside[i]) == 0)
            return sys == EPERM || sys == EACCES || sys == ENOSYS || sys == EINVAL;
    return false;
}

/* In the child: what a cell needs first of its namespaces. */
static _Noreturn void try_namespaces(int go)
{
    char c;
    if (read(go, &c, 1) != 1)
        _exit(0);
    errno = 0;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        _exit(errno & 127);
    int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ||
        fsmount(fs, FSMOUNT_CLOEXEC, 0) < 0 || sethostname("cell", 4) < 0)
        _exit(errno & 127);
    _exit(0);
}

void probe_namespaces(struct probe *p)
{
    static const char step[][8] = {"clone", "idmap", "private"};
    const struct plan_step ids = {.n1 = p->root ? p->uid_base : p->uid,
                                  .n2 = p->root ? p->uid_count : 1};
    int go[2], pidfd = -1, status = 0, failed = 0;
    if (pipe2(go, O_CLOEXEC) < 0)
        return;
    long pid = ns_clone(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
                            CLONE_NEWCGROUP | CLONE_NEWNET, -1, &pidfd);
    if (pid == 0) {
        close(go[1]);
        try_namespaces(go[0]);
    }
    failed = pid < 0 ? errno : 0;
    unsigned at = 0;
    if (pid > 0 && ns_write_maps((pid_t)pid, &ids, p->root, NULL) < 0) {
        failed = errno;
        at = 1;
    }
    (void)!write(go[1], "x", failed == 0);
    close(go[0]);
    close(go[1]);
    io_close(&pidfd);
    while (pid > 0 && waitpid((pid_t)pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!failed && WIFEXITED(status) && WEXITSTATUS(status)) {
        failed = WEXITSTATUS(status);
        at = 2;
    }
    if (failed)
        probe_explain(p, step[at], failed, &p->bare);
}

enum sandbox_level probe_level(const struct probe *p)
{
    if (p->bare.step[0])
        return probe_has_landlock(p) ? SANDBOX_LANDLOCK : SANDBOX_NONE;
    return p->limits.kind == LIMITS_NONE ? SANDBOX_NOLIMITS : SANDBOX_FULL;
}

struct advice {
    const char *step;
    int sys; /* 0 = any */
    const char *reason, *remedy;
};

#define NO_NS "this host does not let us make user namespaces"
#define WEAKER "or run agentd on a host or in a virtual machine that allows them"

/* First match wins. */
static const struct advice advices[] = {
    {"clone", ENOSPC, NO_NS ": user.max_user_namespaces is 0 or used up",
     "sysctl user.max_user_namespaces=10000, " WEAKER},
    {"clone", EPERM, NO_NS ": a container profile or a sysctl forbids clone with namespaces",
     "in a container: run it with a seccomp profile that allows clone, unshare and mount; "
     "on the host: sysctl kernel.unprivileged_userns_clone=1; " WEAKER},
    {"clone", ENOSYS, "clone3 and clone with namespaces are filtered away",
     "run the container with a seccomp profile that allows them, " WEAKER},
    {"clone", EINVAL, "this kernel lacks one of the namespaces",
     "use a kernel with user, mount, pid, net, ipc, uts and cgroup namespaces, " WEAKER},
    {"clone", EUSERS, NO_NS ": they are nested too deep", "run the daemon less nested"},
    {"idmap", EPERM, "the new user namespace may not be given its ids",
     "on Ubuntu 24.04 and later load the AppArmor profile docs/apparmor-agentd (userns,), "
     "or sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
    {"idmap", EACCES, "the new user namespace may not be given its ids",
     "on Ubuntu 24.04 and later load the AppArmor profile docs/apparmor-agentd (userns,)"},
    {"idmount", EINVAL, "the workspace's file system cannot map owners, which the sandbox "
     "needs when the daemon runs as root",
     "put the workspace on ext4, xfs, btrfs or tmpfs, or run the daemon as a plain user"},
    {"idmount", 0, "the workspace cannot be mounted with mapped owners",
     "put it on ext4, xfs or btrfs, or run the daemon as a plain user"},
    {"proc", EPERM, "a new /proc may not be mounted: the one here is partly covered",
     "run outside of a container, or with its /proc unmasked"},
    {"private", EPERM, "the namespace was made but mounting in it is refused (AppArmor)",
     "load the AppArmor profile docs/apparmor-agentd, or sysctl "
     "kernel.apparmor_restrict_unprivileged_userns=0"},
    {"private", EACCES, "the namespace was made but mounting in it is refused (AppArmor)",
     "load the AppArmor profile docs/apparmor-agentd, or sysctl "
     "kernel.apparmor_restrict_unprivileged_userns=0"},
    {"sources", EPERM, "the mount calls are refused in the new namespace",
     "in a container allow open_tree, move_mount, fsopen and mount_setattr; on Ubuntu load "
     "the AppArmor profile docs/apparmor-agentd"},
    {"sources", ENOSYS, "this kernel lacks open_tree and mount_setattr",
     "use Linux 5.12 or later"},
    {"sources", ELOOP, "this path, which the policy shows, goes through a symbolic link",
     "name its real path (realpath): a link may be changed by code inside"},
    {"sources", ENOENT, "this path, which the policy shows, does not exist",
     "make it, take it out of the policy, or mark it optional: true"},
    {"sources", EACCES, "the daemon may not open this path, which the policy shows",
     "check its permissions, or take it out of the policy"},
    {"root", EPERM, "mounting in the new namespace is refused",
     "in a container allow the mount calls; on Ubuntu load the AppArmor profile "
     "docs/apparmor-agentd"},
    {"groups", 0, "the control group of the cell could not be made or filled",
     "systemd-run --scope -p Delegate=yes agentd, or require: nolimits in the policy"},
    {"landlock", 0, "Landlock is not enforced by this kernel",
     "boot with lsm=landlock,... or set landlock: use in the policy"},
    {"ids", 0, "the range of user ids meant for cells is taken",
     "set uid_base in the daemon's configuration to a range that /etc/passwd and "
     "/etc/subuid leave free"},
    {"workspace", ENOENT, "the workspace does not exist", "make the directory first"},
    {"workspace", ELOOP, "the path of the workspace goes through a symbolic link",
     "name the directory by its real path (realpath)"},
    {"workspace", ENOTDIR, "the workspace is no directory", "name a directory"},
    {"workspace", EACCES, "the daemon may not open the workspace", "check its permissions"},
    {"workspace", EINVAL, "this directory must not become a workspace: it is /, a home "
     "directory itself, a system directory, or holds the daemon's state",
     "name a project directory below it"},
    {"sockets", ENOBUFS, "the workspace and the folders shown hold the sockets of more than 32 "
     "services, which code inside could speak to", "name a folder without them"},
    {"sockets", 0, "the sockets of services in what is shown cannot be covered",
     "end these services, or name a folder without them"},
    {"user", 0, "without user namespaces what runs inside would be root, because the workspace "
     "belongs to root", "give the workspace to a plain user (chown -R), or run the daemon as one"},
    {"scratch", 0, "the folder that stands for /tmp inside could not be made",
     "make /tmp writable for the daemon"},
    {"filter", 0, "the system call filter could not be loaded",
     "use a kernel with CONFIG_SECCOMP_FILTER"},
};

void probe_explain(const struct probe *p, const char *step, int sys,
                   struct sandbox_refusal *r)
{
    r->sys = sys;
    r->offered = SANDBOX_NONE;
    snprintf(r->step, sizeof r->step, "%s", step);
    for (unsigned i = 0; i < ARRAY_LEN(advices); i++) {
        const struct advice *a = &advices[i];
        if (strcmp(a->step, step) != 0 || (a->sys != 0 && a->sys != sys))
            continue;
        snprintf(r->reason, sizeof r->reason, "%s%s%s%s", a->reason, sys ? " (" : "",
                 sys ? strerror(sys) : "", sys ? ")" : "");
        snprintf(r->remedy, sizeof r->remedy, "%s", a->remedy);
        break;
    }
    if (!r->reason[0]) {
        snprintf(r->reason, sizeof r->reason, "step '%s' failed: %s", step, strerror(sys));
        snprintf(r->remedy, sizeof r->remedy, "agentctl doctor shows what this host offers");
    }
    bool namespaces = strcmp(step, "workspace") != 0 && strcmp(step, "groups") != 0;
    if (!namespaces)
        r->offered = probe_level(p);
    else if (probe_is_bare(step, sys) && probe_has_landlock(p))
        r->offered = SANDBOX_LANDLOCK;
}
