/*
 * seccomp.c - the tables of system calls and their translation by libseccomp. Arguments are
 * compared under 32-bit masks, because the kernel looks at 32 bits too. Nothing here decides
 * on pointers: what a path may reach is the business of mounts and Landlock.
 */
#include "sandbox/seccomp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "base/mem.h"

#define LOW32 0xffffffffu

/* Calls that are allowed whatever their arguments; a name unknown to an architecture is
 * passed over there. */
static const char *const files[] = {
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev",
    "preadv2", "pwritev2", "close", "close_range", "stat", "fstat", "lstat", "newfstatat",
    "statx", "statfs", "fstatfs", "access", "faccessat", "faccessat2", "lseek", "getdents",
    "getdents64", "mkdir", "mkdirat", "rmdir", "link", "linkat", "symlink", "symlinkat",
    "unlink", "unlinkat", "rename", "renameat", "renameat2", "readlink", "readlinkat",
    "getcwd", "chdir", "fchdir", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr",
    "flistxattr", "truncate", "ftruncate", "flock", "fsync", "fdatasync", "sync", "syncfs",
    "sync_file_range", "copy_file_range", "splice", "tee", "sendfile", "fadvise64",
    "readahead", "dup", "dup2", "dup3", "pipe", "pipe2", "umask", NULL};

/* They act on a path or a file that is only read: Landlock does not look at them, so they are
 * for cells whose tree holds nothing of others'. */
static const char *const by_path[] = {
    "chown", "lchown", "fchownat", "utime", "utimes", "futimesat", "fchown", "inotify_init",
    "inotify_init1", "inotify_add_watch", "inotify_rm_watch", NULL};

/* The same; programs know file systems without attributes and go on. */
static const char *const attributes[] = {"setxattr",    "lsetxattr",    "fsetxattr",
                                         "removexattr", "lremovexattr", "fremovexattr", NULL};

/* Of these only clerk.c can say whether the file is one of the cell's own. */
static const char *const by_clerk[] = {"chmod", "fchmod", "fchmodat", "utimensat", NULL};

static const char *const memory[] = {
    "munmap", "mprotect", "mremap", "brk", "madvise", "msync", "mincore", "mlock",
    "mlock2", "munlock", "mlockall", "munlockall", "pkey_alloc", "pkey_free",
    "pkey_mprotect", "membarrier", NULL};

static const char *const processes[] = {
    "execve", "execveat", "fork", "vfork", "exit", "exit_group", "wait4", "waitid",
    "tkill", "tgkill", "pidfd_open", "pidfd_send_signal", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo",
    "rt_tgsigqueueinfo", "rt_sigsuspend", "sigaltstack", "pause", "alarm", "getitimer",
    "setitimer", "timer_create", "timer_settime", "timer_gettime", "timer_getoverrun",
    "timer_delete", "timerfd_create", "timerfd_settime", "timerfd_gettime", "signalfd",
    "signalfd4", "eventfd", "eventfd2", "epoll_create", "epoll_create1", "epoll_ctl",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6",
    "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time",
    "times", "futex", "futex_waitv", "set_robust_list", "get_robust_list", "rseq",
    "arch_prctl", "set_tid_address", "set_thread_area", "get_thread_area", "restart_syscall",
    "sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler",
    "sched_getattr", "sched_get_priority_max", "sched_get_priority_min",
    "sched_rr_get_interval", "getpriority", "ioprio_get",
    "getcpu", "getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid",
    "getresuid", "getresgid", "getgroups", "getpgid", "getpgrp", "getsid", "setuid", "setgid",
    "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
    "setsid", "setpgid", "capget", "capset", "getrlimit", "getrusage", "sysinfo", "uname",
    "getrandom", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", NULL};

/* Talking over descriptors that one already has. */
static const char *const talk[] = {
    "sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg",
    "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt", NULL};

static const char *const network[] = {"bind", "connect", "listen", "accept", "accept4", NULL};

static const char *const ipc[] = {
    "shmat", "shmdt", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget",
    "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive",
    "mq_notify", "mq_getsetattr", NULL};

/* An error that a program and a person understand. */
static const char *const refused[] = {
    "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "mount", "umount2",
    "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
    "pivot_root", "chroot", "unshare", "setns", "bpf", "perf_event_open", "userfaultfd",
    "add_key", "request_key", "keyctl", "name_to_handle_at", "open_by_handle_at",
    "init_module", "finit_module", "delete_module", "create_module", "kexec_load",
    "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd",
    "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime", "syslog",
    "vhangup", "sethostname", "setdomainname", "ioperm", "iopl", "modify_ldt",
    "fanotify_init", "fanotify_mark", "lookup_dcookie", "vmsplice", "process_madvise",
    "process_mrelease", "mbind", "migrate_pages", "move_pages", "set_mempolicy",
    "set_mempolicy_home_node", "get_mempolicy", "memfd_secret", "remap_file_pages", "uselib",
    "ustat", "sysfs", "_sysctl", "nfsservctl", "afs_syscall", "getpmsg", "putpmsg",
    "security", "tuxcall", "vserver", NULL};

/* Calls with rules on arguments, so that the test of names sees them too. */
static const char *const by_argument[] = {
    "clone", "socket", "ioctl", "prctl", "personality", "seccomp", "prlimit64", "setrlimit",
    "chmod", "fchmod", "fchmodat", "creat", "mknod", "mknodat", "open", "openat",
    "fallocate", "ptrace", "fcntl", "mmap", "memfd_create", "shmget", "kill", "socketpair",
    "sched_setaffinity", "sched_setparam", "sched_setscheduler", "sched_setattr",
    "setpriority", "ioprio_set", "utimensat", NULL};

static const char *const *const all_tables[] = {files, by_path, attributes, memory, processes, talk,
                                                network, ipc, refused, by_argument};

static const uint32_t ioctls[] = {
    0x5401 /* TCGETS */, 0x5402, 0x5403, 0x5404 /* TCSETS* */, 0x5409 /* TCSBRK */,
    0x540a /* TCXONC */, 0x540b /* TCFLSH */, 0x540e /* TIOCSCTTY */, 0x540f /* TIOCGPGRP */,
    0x5410 /* TIOCSPGRP */, 0x5411 /* TIOCOUTQ */, 0x5413 /* TIOCGWINSZ */,
    0x5414 /* TIOCSWINSZ */, 0x541b /* FIONREAD */, 0x5421 /* FIONBIO */,
    0x5422 /* TIOCNOTTY */, 0x5429 /* TIOCGSID */, 0x5450 /* FIONCLEX */,
    0x5451 /* FIOCLEX */, 0x5452 /* FIOASYNC */, 0x5460 /* FIOQSIZE */,
    0x80045430 /* TIOCGPTN */, 0x40045431 /* TIOCSPTLCK */, 0x5441 /* TIOCGPTPEER */,
    0x40049409 /* FICLONE */, 0x4020940d /* FICLONERANGE */, 0x80086601 /* FS_IOC_GETFLAGS */,
    0x8905 /* SIOCATMARK */, 0x8910 /* SIOCGIFNAME */, 0x8912 /* SIOCGIFCONF */,
    0x8913 /* SIOCGIFFLAGS */, 0x8915 /* SIOCGIFADDR */, 0x891b /* SIOCGIFNETMASK */,
    0x8921 /* SIOCGIFMTU */, 0x8933 /* SIOCGIFINDEX */};

/* What the clerk does with its listener: receive, answer, ask whether the caller still waits. */
static const uint32_t notices[] = {SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND,
                                   SECCOMP_IOCTL_NOTIF_ID_VALID};

/* linux/prctl.h by number, because the oldest headers lack the newest names. Left out on
 * purpose: PR_SET_MM (35), PR_SET_PTRACER (0x59616d61), PR_SET_SECUREBITS (28). */
static const uint32_t prctls[] = {
    1 /* SET_PDEATHSIG */, 2, 3 /* GET_DUMPABLE */, 4 /* SET_DUMPABLE */, 7, 8 /* KEEPCAPS */,
    15 /* SET_NAME */, 16 /* GET_NAME */, 19, 20, 21 /* GET_SECCOMP */, 22 /* SET_SECCOMP */,
    23 /* CAPBSET_READ */, 24 /* CAPBSET_DROP */, 25 /* GET_TSC */, 27 /* GET_SECUREBITS */,
    29 /* SET_TIMERSLACK */, 30, 36 /* SET_CHILD_SUBREAPER */, 37, 38 /* SET_NO_NEW_PRIVS */,
    39, 40 /* GET_TID_ADDRESS */, 41 /* SET_THP_DISABLE */, 42, 45 /* SET_FP_MODE */, 46,
    47 /* CAP_AMBIENT */, 50, 51 /* SVE */, 52 /* GET_SPECULATION_CTRL */, 53,
    54 /* PAC_RESET_KEYS */, 55, 56 /* TAGGED_ADDR */, 65 /* SET_MDWE */, 66,
    0x53564d41 /* SET_VMA: names of mappings */};

static const uint32_t set_id[] = {S_ISUID, S_ISGID};

struct builder {
    scmp_filter_ctx ctx;
    bool report; /* refusals become notifications: what is left over */
    uint32_t arch; /* libseccomp's token */
    int rc;        /* first failure, negative errno */
    const char *at;
};

/* Whether the filter's architecture has the call at all. */
static bool known(const struct builder *b, const char *name)
{
    return seccomp_syscall_resolve_name_arch(b->arch, name) >= 0;
}

static void rule(struct builder *b, uint32_t action, const char *name, unsigned n,
                 const struct scmp_arg_cmp *cmp)
{
    if (b->rc < 0 || !known(b, name))
        return;
    if (b->report && action != SCMP_ACT_ALLOW)
        return; /* what no rule allows is a notification already */
    /* Rules take the numbers of the machine that compiles; libseccomp translates them. */
    int nr = seccomp_syscall_resolve_name(name);
    int rc = seccomp_rule_add_array(b->ctx, action, nr, n, cmp);
    if (rc < 0 && rc != -EEXIST) {
        b->rc = rc;
        b->at = name;
    }
}

static void table(struct builder *b, uint32_t action, const char *const *names)
{
    for (; *names; names++)
        rule(b, action, *names, 0, NULL);
}

static struct scmp_arg_cmp masked(unsigned arg, uint64_t mask, uint64_t value)
{
    return SCMP_CMP64(arg, SCMP_CMP_MASKED_EQ, mask, value);
}

/* Allows the call when argument `arg` is exactly `value` in its low 32 bits. */
static void allow_value(struct builder *b, const char *name, unsigned arg, uint32_t value)
{
    struct scmp_arg_cmp c = masked(arg, LOW32, value);
    rule(b, SCMP_ACT_ALLOW, name, 1, &c);
}

/* Allows the call unless one of the bits is set, which is EPERM. */
static void forbid_bits(struct builder *b, const char *name, unsigned arg, uint32_t bits)
{
    struct scmp_arg_cmp none = masked(arg, bits, 0);
    rule(b, SCMP_ACT_ALLOW, name, 1, &none);
    for (unsigned i = 0; i < 32; i++) {
        uint32_t bit = 1u << i;
        struct scmp_arg_cmp has = masked(arg, bit, bit);
        if (bits & bit)
            rule(b, SCMP_ACT_ERRNO(EPERM), name, 1, &has);
    }
}

/* A set-id program made here would belong to a real user of the host. */
static void rule_open(struct builder *b, const char *name, unsigned flags, unsigned mode)
{
    static const uint32_t creates[] = {0100 /* O_CREAT */, 020000000 /* __O_TMPFILE */};
    struct scmp_arg_cmp plain = masked(flags, creates[0] | creates[1], 0);
    struct scmp_arg_cmp modest = masked(mode, S_ISUID | S_ISGID, 0);
    rule(b, SCMP_ACT_ALLOW, name, 1, &plain);
    rule(b, SCMP_ACT_ALLOW, name, 1, &modest);
    for (unsigned i = 0; i < ARRAY_LEN(creates); i++)
        for (unsigned j = 0; j < ARRAY_LEN(set_id); j++) {
            struct scmp_arg_cmp c[2] = {masked(flags, creates[i], creates[i]),
                                        masked(mode, set_id[j], set_id[j])};
            rule(b, SCMP_ACT_ERRNO(EPERM), name, 2, c);
        }
}

static void rule_mknod(struct builder *b, const char *name, unsigned mode)
{
    static const uint32_t kinds[] = {S_IFIFO, S_IFREG, 0};
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        struct scmp_arg_cmp c = masked(mode, S_IFMT | S_ISUID | S_ISGID, kinds[i]);
        rule(b, SCMP_ACT_ALLOW, name, 1, &c);
    }
}

/* A lease would let code inside hold up whoever opens its file outside: F_SETLEASE is the one
 * command that is left out of those with its bit. */
static void rule_fcntl(struct builder *b)
{
    enum { SETLEASE = 1024 };
    static const uint32_t others[] = {
        1025 /* GETLEASE */, 1026 /* NOTIFY */, 1027 /* DUPFD_QUERY */, 1028,
        1029 /* CANCELLK */, 1030 /* DUPFD_CLOEXEC */, 1031 /* PIPE_SZ */, 1032, 1033 /* SEALS */,
        1034, 1035 /* write hints */, 1036, 1037, 1038};
    struct scmp_arg_cmp without = masked(1, SETLEASE, 0);
    struct scmp_arg_cmp lease = masked(1, LOW32, SETLEASE);
    rule(b, SCMP_ACT_ALLOW, "fcntl", 1, &without);
    rule(b, SCMP_ACT_ERRNO(EPERM), "fcntl", 1, &lease);
    for (unsigned i = 0; i < ARRAY_LEN(others); i++)
        allow_value(b, "fcntl", 1, others[i]);
}

/* Huge pages come from a pool of the whole machine that no limit of the cell counts; without
 * the flag programs fall back to ordinary ones. */
static void rule_huge(struct builder *b, const char *name, unsigned arg, uint32_t flag)
{
    struct scmp_arg_cmp plain = masked(arg, flag, 0), huge = masked(arg, flag, flag);
    rule(b, SCMP_ACT_ALLOW, name, 1, &plain);
    rule(b, SCMP_ACT_ERRNO(ENOMEM), name, 1, &huge);
}

static void rules_memory(struct builder *b, const struct seccomp_opts *o)
{
    rule_huge(b, "mmap", 3, 0x40000 /* MAP_HUGETLB */);
    rule_huge(b, "memfd_create", 1, 4 /* MFD_HUGETLB */);
    if (o->profile == SANDBOX_PROFILE_STRICT || o->shared)
        rule(b, SCMP_ACT_ERRNO(EPERM), "shmget", 0, NULL);
    else
        rule_huge(b, "shmget", 2, 04000 /* SHM_HUGETLB */);
}

static void rules_files(struct builder *b, const struct seccomp_opts *o)
{
    rule_fcntl(b);
    rule_open(b, "open", 1, 2);
    rule_open(b, "openat", 2, 3);
    if (o->shared && !o->clerk) {
        table(b, SCMP_ACT_NOTIFY, by_clerk);
    } else {
        forbid_bits(b, "chmod", 1, S_ISUID | S_ISGID);
        forbid_bits(b, "fchmod", 1, S_ISUID | S_ISGID);
        forbid_bits(b, "fchmodat", 2, S_ISUID | S_ISGID);
        rule(b, SCMP_ACT_ALLOW, "utimensat", 0, NULL);
    }
    forbid_bits(b, "creat", 1, S_ISUID | S_ISGID);
    rule_mknod(b, "mknod", 1);
    rule_mknod(b, "mknodat", 2);
    /* It reserves 400 MiB in a millisecond, faster than a watcher looks; libc then writes
     * zeros itself. */
    rule(b, SCMP_ACT_ERRNO(EOPNOTSUPP), "fallocate", 0, NULL);
    for (unsigned i = 0; i < ARRAY_LEN(ioctls); i++)
        allow_value(b, "ioctl", 1, ioctls[i]);
    if (o->clerk) /* to resolve a path without being led through /proc */
        rule(b, SCMP_ACT_ALLOW, "openat2", 0, NULL);
    for (unsigned i = 0; o->clerk && i < ARRAY_LEN(notices); i++)
        allow_value(b, "ioctl", 1, notices[i]);
}

/* Of the caller alone: the tool that is kept has the same user, and with less than it needs it
 * could not serve another call. Without a pid namespace one limit is the cell's mark (mark.c). */
static void rules_limits(struct builder *b, const struct seccomp_opts *o)
{
    if (!o->shared) {
        rule(b, SCMP_ACT_ALLOW, "setrlimit", 0, NULL);
        allow_value(b, "prlimit64", 0, 0);
        return;
    }
    for (uint32_t what = 0; what < RLIM_NLIMITS; what++) {
        struct scmp_arg_cmp own[2] = {masked(0, LOW32, 0), masked(1, LOW32, what)};
        if (what == RLIMIT_RTTIME)
            continue;
        allow_value(b, "setrlimit", 0, what);
        rule(b, SCMP_ACT_ALLOW, "prlimit64", 2, own);
    }
    struct scmp_arg_cmp mark = masked(0, LOW32, RLIMIT_RTTIME);
    struct scmp_arg_cmp read[3] = {masked(0, LOW32, 0), masked(1, LOW32, RLIMIT_RTTIME),
                                   SCMP_CMP64(2, SCMP_CMP_EQ, 0)};
    struct scmp_arg_cmp write[3] = {read[0], read[1], SCMP_CMP64(2, SCMP_CMP_NE, 0)};
    rule(b, SCMP_ACT_ERRNO(EPERM), "setrlimit", 1, &mark);
    rule(b, SCMP_ACT_ALLOW, "prlimit64", 3, read);
    rule(b, SCMP_ACT_ERRNO(EPERM), "prlimit64", 3, write);
}

/* Who shares the host's processes changes nobody's class or place in line but its own. */
static void rules_others(struct builder *b, const struct seccomp_opts *o)
{
    static const char *const own[] = {"sched_setaffinity", "sched_setparam"};
    static const char *const by_kind[] = {"setpriority", "ioprio_set"};
    enum { OTHER, FIFO, RR };
    for (unsigned i = 0; i < ARRAY_LEN(own); i++) {
        if (!o->shared)
            rule(b, SCMP_ACT_ALLOW, own[i], 0, NULL);
        else
            allow_value(b, own[i], 0, 0);
    }
    /* The classes behind all others only for itself: the tool that keeps the time of a call has
     * the same user, and would never run again. Threads are named by number. */
    allow_value(b, "sched_setattr", 0, 0);
    allow_value(b, "sched_setscheduler", 0, 0);
    for (uint32_t class = OTHER; !o->shared && class <= RR; class ++)
        allow_value(b, "sched_setscheduler", 1, class);
    for (unsigned i = 0; i < ARRAY_LEN(by_kind); i++) {
        /* kind "process" is 0 for the one and 1 for the other */
        struct scmp_arg_cmp self[2] = {masked(0, LOW32, i), masked(1, LOW32, 0)};
        rule(b, SCMP_ACT_ALLOW, by_kind[i], 2, self);
    }
    if (o->unscoped) { /* the signals that would reach many at once: -1 and groups */
        struct scmp_arg_cmp one = masked(0, 0x80000000u, 0);
        struct scmp_arg_cmp many = masked(0, 0x80000000u, 0x80000000u);
        rule(b, SCMP_ACT_ERRNO(EPERM), "kill", 1, &many);
        rule(b, SCMP_ACT_ALLOW, "kill", 1, &one);
    } else {
        rule(b, SCMP_ACT_ALLOW, "kill", 0, NULL);
    }
}

static void rules_processes(struct builder *b, const struct seccomp_opts *o)
{
    rules_others(b, o);
    /* NEWTIME NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET; and PARENT, which would make
     * a child of the tool's that outlives its call as the interpreter does */
    forbid_bits(b, "clone", 0, 0x7e020080 | 0x8000);
    for (unsigned i = 0; i < ARRAY_LEN(prctls); i++)
        allow_value(b, "prctl", 0, prctls[i]);
    allow_value(b, "personality", 0, 0);
    allow_value(b, "personality", 0, LOW32);
    /* Filters can only take away; a listener could answer in our place. */
    struct scmp_arg_cmp own[2] = {masked(0, LOW32, SECCOMP_SET_MODE_FILTER),
                                  masked(1, 8 /* NEW_LISTENER */, 0)};
    rule(b, SCMP_ACT_ALLOW, "seccomp", 2, own);
    allow_value(b, "seccomp", 0, SECCOMP_SET_MODE_STRICT);
    allow_value(b, "seccomp", 0, SECCOMP_GET_ACTION_AVAIL);
    rules_limits(b, o);
    if (o->profile == SANDBOX_PROFILE_DEBUG) {
        rule(b, SCMP_ACT_ALLOW, "ptrace", 0, NULL);
        allow_value(b, "personality", 0, 0x0040000 /* ADDR_NO_RANDOMIZE */);
    } else {
        rule(b, SCMP_ACT_ERRNO(EPERM), "ptrace", 0, NULL);
    }
}

/* A pair of datagram sockets can send to any other by name, so without a network namespace
 * pairs are streams alone. */
static void rules_pairs(struct builder *b, const struct seccomp_opts *o)
{
    static const uint32_t kinds[] = {1 /* SOCK_STREAM */, 5 /* SOCK_SEQPACKET */};
    if (!o->shared)
        rule(b, SCMP_ACT_ALLOW, "socketpair", 0, NULL);
    for (unsigned i = 0; o->shared && i < ARRAY_LEN(kinds); i++) {
        struct scmp_arg_cmp c[2] = {masked(0, LOW32, 1 /* AF_UNIX */), masked(1, 15, kinds[i])};
        rule(b, SCMP_ACT_ALLOW, "socketpair", 2, c);
    }
}

static void rules_network(struct builder *b, const struct seccomp_opts *o)
{
    rules_pairs(b, o);
    if (o->profile == SANDBOX_PROFILE_STRICT || o->shared) {
        rule(b, SCMP_ACT_ERRNO(EPERM), "socket", 0, NULL);
        table(b, SCMP_ACT_ERRNO(EPERM), network);
        return;
    }
    table(b, SCMP_ACT_ALLOW, network);
    allow_value(b, "socket", 0, 1);  /* AF_UNIX */
    allow_value(b, "socket", 0, 2);  /* AF_INET */
    allow_value(b, "socket", 0, 10); /* AF_INET6 */
    struct scmp_arg_cmp route[2] = {masked(0, LOW32, 16 /* AF_NETLINK */),
                                    masked(2, LOW32, 0 /* NETLINK_ROUTE */)};
    rule(b, SCMP_ACT_ALLOW, "socket", 2, route);
}

static void build(struct builder *b, const struct seccomp_opts *o)
{
    for (uint32_t i = 0; i < o->n_calls; i++) /* first: a later rule for the same call is void */
        rule(b, SCMP_ACT_ALLOW, o->call[i], 0, NULL);
    table(b, SCMP_ACT_ALLOW, files);
    table(b, o->shared ? SCMP_ACT_ERRNO(EPERM) : SCMP_ACT_ALLOW, by_path);
    table(b, o->shared ? SCMP_ACT_ERRNO(EOPNOTSUPP) : SCMP_ACT_ALLOW, attributes);
    table(b, SCMP_ACT_ALLOW, memory);
    table(b, SCMP_ACT_ALLOW, processes);
    table(b, SCMP_ACT_ALLOW, talk);
    if (o->profile == SANDBOX_PROFILE_STRICT || o->shared)
        table(b, SCMP_ACT_ERRNO(EPERM), ipc);
    else
        table(b, SCMP_ACT_ALLOW, ipc);
    table(b, SCMP_ACT_ERRNO(EPERM), refused);
    rules_files(b, o);
    rules_memory(b, o);
    rules_processes(b, o);
    rules_network(b, o);
}

static uint32_t token(enum seccomp_arch arch)
{
    switch (arch) {
    case SECCOMP_X86_64:
        return SCMP_ARCH_X86_64;
    case SECCOMP_AARCH64:
        return SCMP_ARCH_AARCH64;
    default:
        return seccomp_arch_native();
    }
}

/* FNV-1a: tells filters apart in records; nothing trusts it. */
static void fingerprint(struct seccomp_prog *p)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < (size_t)p->n * sizeof(struct sock_filter); i++)
        h = (h ^ p->code[i]) * 1099511628211u;
    snprintf(p->hash, sizeof p->hash, "%016llx", (unsigned long long)h);
}

/* libseccomp 2.5 writes programs to descriptors only. */
static int export_bpf(struct seccomp_prog *out, scmp_filter_ctx ctx, struct err *err)
{
    int fd = memfd_create("filter", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "filter: memfd");
    int rc = seccomp_export_bpf(ctx, fd);
    if (rc < 0) {
        close(fd);
        errno = -rc;
        return err_sys(err, "filter: export");
    }
    off_t size = lseek(fd, 0, SEEK_END);
    size_t n = size > 0 ? (size_t)size : 0;
    if (n == 0 || n % sizeof(struct sock_filter) || n / sizeof(struct sock_filter) > 4096) {
        close(fd);
        return err_set(err, ERR_LIMIT, "filter: %zu bytes is no program for the kernel", n);
    }
    out->code = mem_alloc(n);
    rc = out->code ? 0 : err_nomem(err);
    if (rc == 0 && lseek(fd, 0, SEEK_SET) == 0)
        rc = io_read_full(fd, out->code, n, err);
    close(fd);
    if (rc < 0) {
        mem_free(out->code);
        out->code = NULL;
        return rc;
    }
    out->n = (uint16_t)(n / sizeof(struct sock_filter));
    fingerprint(out);
    return 0;
}

int filter_compile(struct seccomp_prog *out, const struct seccomp_opts *o, struct err *err)
{
    uint32_t rest = o->report ? SCMP_ACT_NOTIFY : SCMP_ACT_ERRNO(ENOSYS);
    struct builder b = {.ctx = seccomp_init(rest), .report = o->report, .arch = token(o->arch)};
    if (!b.ctx)
        return err_nomem(err);
    uint32_t native = seccomp_arch_native();
    if (b.arch != native) {
        b.rc = seccomp_arch_add(b.ctx, b.arch);
        if (b.rc == 0)
            b.rc = seccomp_arch_remove(b.ctx, native);
    }
    if (b.rc == 0)
        b.rc = seccomp_attr_set(b.ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (b.rc == 0)
        b.rc = seccomp_attr_set(b.ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (b.rc == 0)
        build(&b, o);
    int rc = 0;
    if (b.rc < 0) {
        errno = -b.rc;
        rc = err_sys(err, "filter: rule for %s", b.at ? b.at : "the architecture");
    } else {
        rc = export_bpf(out, b.ctx, err);
    }
    seccomp_release(b.ctx);
    return rc;
}

int filter_load(const struct seccomp_prog *prog)
{
    struct sock_fprog p = {.len = prog->n,
                           .filter = (struct sock_filter *)(void *)prog->code};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p);
}

int filter_load_listener(const struct seccomp_prog *prog)
{
    enum { LISTENER = 8 };
    struct sock_fprog p = {.len = prog->n,
                           .filter = (struct sock_filter *)(void *)prog->code};
    /* Waiting ends with any signal, so that whoever waits can be stopped between calls. */
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, LISTENER, &p);
}

/* The instructions that libseccomp makes; anything else refuses. */
uint32_t filter_ask(const struct seccomp_prog *prog, const struct seccomp_data *call)
{
    const struct sock_filter *code = (const struct sock_filter *)(const void *)prog->code;
    uint32_t a = 0;
    for (size_t pc = 0; pc < prog->n; pc++) {
        struct sock_filter i;
        memcpy(&i, code + pc, sizeof i);
        bool jump = false;
        switch (i.code) {
        case BPF_LD | BPF_W | BPF_ABS:
            if (i.k > sizeof *call - sizeof a)
                return SECCOMP_RET_ERRNO | ENOSYS;
            memcpy(&a, (const char *)call + i.k, sizeof a);
            continue;
        case BPF_ALU | BPF_AND | BPF_K:
            a &= i.k;
            continue;
        case BPF_JMP | BPF_JA:
            pc += i.k;
            continue;
        case BPF_RET | BPF_K:
            return i.k;
        case BPF_JMP | BPF_JEQ | BPF_K:
            jump = a == i.k;
            break;
        case BPF_JMP | BPF_JGT | BPF_K:
            jump = a > i.k;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            jump = a >= i.k;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            jump = (a & i.k) != 0;
            break;
        default:
            return SECCOMP_RET_ERRNO | ENOSYS;
        }
        pc += jump ? i.jt : i.jf;
    }
    return SECCOMP_RET_ERRNO | ENOSYS;
}

bool filter_may_allow(const char *name, const char **why)
{
    int nr = seccomp_syscall_resolve_name(name);
    *why = "is no system call that libseccomp knows";
    if (nr == __NR_SCMP_ERROR)
        return false;
    *why = "has rules on its arguments and cannot be allowed as a whole";
    for (const char *const *n = by_argument; *n; n++)
        if (strcmp(*n, name) == 0)
            return false;
    *why = "would let code inside answer for the filter or leave it";
    return strcmp(name, "clone3") != 0 && strcmp(name, "io_uring_enter") != 0 &&
           strcmp(name, "io_uring_setup") != 0 && strcmp(name, "io_uring_register") != 0;
}

const char *filter_call_name(int nr, char *buf, size_t cap)
{
    char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);
    if (name)
        snprintf(buf, cap, "%s", name);
    else
        snprintf(buf, cap, "call %d", nr);
    free(name);
    return buf;
}

const char *filter_name_at(unsigned i)
{
    for (unsigned t = 0; t < ARRAY_LEN(all_tables); t++)
        for (const char *const *name = all_tables[t]; *name; name++)
            if (i-- == 0)
                return *name;
    return NULL;
}
