/* ns.c - namespaces and id maps, host name and loopback of a cell. */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "sandbox/build.h"
#include "sandbox/sys.h"

/* All namespaces in one call, so that the pid namespace belongs to the new user namespace:
 * proc can be mounted only then. clone3 is filtered in many containers; clone is not. */
long ns_clone(uint64_t flags, int cgroup, int *pidfd)
{
    struct clone_args args = {
        .flags = flags | CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
        .pidfd = (uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = cgroup >= 0 ? (uint64_t)(unsigned)cgroup : 0,
    };
    long pid = sys_clone3(&args, sizeof args);
    if (pid >= 0 || errno != ENOSYS || cgroup >= 0)
        return pid;
    unsigned long old = (unsigned long)flags | CLONE_PIDFD | SIGCHLD;
#if defined(__x86_64__) || defined(__aarch64__)
    return syscall(SYS_clone, old, NULL, pidfd, NULL, NULL);
#else
#error "the argument order of clone is not known here"
#endif
}

static int put(pid_t pid, const char *file, const char *text)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    int saved = errno;
    close(fd);
    errno = saved;
    return n < 0 ? -1 : 0;
}

/* newuidmap PID 0 SUB 1 1000 OWN 1. Its words go nowhere: that it failed is enough. */
static int map_sub(const char *program, pid_t pid, uint32_t sub, uint32_t own)
{
    char text[3][16];
    const char *argv[] = {program, text[0], "0", text[1], "1", "1000", text[2], "1", NULL};
    int status;
    snprintf(text[0], sizeof text[0], "%d", (int)pid);
    snprintf(text[1], sizeof text[1], "%u", sub);
    snprintf(text[2], sizeof text[2], "%u", own);
    pid_t child = fork();
    if (child == 0) {
        char *none[] = {NULL};
        execve(program, (char **)(uintptr_t)argv, none);
        _exit(127);
    }
    if (child < 0)
        return -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    errno = EPERM;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

int ns_write_maps(pid_t pid, const struct plan_step *ids, bool two, const struct probe *sub)
{
    if (sub && put(pid, "setgroups", "deny") == 0)
        return map_sub(NS_NEWUIDMAP, pid, sub->sub_uid, sub->uid) < 0
                   ? -1
                   : map_sub(NS_NEWGIDMAP, pid, sub->sub_gid, sub->gid);
    char map[64];
    unsigned inner = two ? 0 : 1000;
    if (put(pid, "setgroups", "deny") < 0)
        return -1;
    snprintf(map, sizeof map, "%u %llu %llu", inner, (unsigned long long)ids->n1,
             (unsigned long long)ids->n2);
    if (put(pid, "uid_map", map) < 0)
        return -1;
    snprintf(map, sizeof map, "%u %llu %llu", inner,
             (unsigned long long)(two ? ids->n1 : getegid()), (unsigned long long)ids->n2);
    return put(pid, "gid_map", map);
}

int ns_owner(uid_t uid, gid_t gid, uid_t to_uid, gid_t to_gid)
{
    char map[64];
    long pid = syscall(SYS_clone, (unsigned long)(CLONE_NEWUSER | SIGCHLD), NULL, NULL, NULL,
                       NULL);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    if (pid < 0)
        return -1;
    snprintf(map, sizeof map, "%u %u 1", uid, to_uid);
    int rc = put((pid_t)pid, "uid_map", map);
    snprintf(map, sizeof map, "%u %u 1", gid, to_gid);
    if (rc == 0)
        rc = put((pid_t)pid, "gid_map", map);
    int fd = -1;
    if (rc == 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%ld/ns/user", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    int saved = errno;
    kill((pid_t)pid, SIGKILL);
    while (waitpid((pid_t)pid, NULL, 0) < 0 && errno == EINTR)
        ;
    errno = saved;
    return fd;
}

int ns_become(bool two)
{
    if (two) {
        if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
            return -1;
    }
    umask(022);
    if (setsid() < 0 && errno != EPERM)
        return -1;
    /* After the change of ids, which clears it. */
    return prctl(PR_SET_PDEATHSIG, SIGKILL);
}

int ns_hostname(const char *name)
{
    return sethostname(name, strlen(name));
}

/* By flags alone: adding an address is what Ubuntu's profile refuses. */
int ns_loopback(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    struct ifreq r = {.ifr_name = "lo"};
    r.ifr_flags = IFF_UP | IFF_RUNNING;
    int rc = ioctl(fd, SIOCSIFFLAGS, &r);
    int saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

int ns_listen(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 64) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}
