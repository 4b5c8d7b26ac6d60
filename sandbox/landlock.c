/*
 * landlock.c - rules per ABI. The constants are our own because distribution headers lag
 * kernels; the struct is passed with the size of the ABI in force, since an older kernel
 * answers E2BIG to a longer one.
 */
#include "sandbox/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/str.h"
#include "sandbox/sys.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

/* include/uapi/linux/landlock.h, by ABI in which each appeared. */
enum {
    FS_EXECUTE = 1 << 0, FS_WRITE_FILE = 1 << 1, FS_READ_FILE = 1 << 2, FS_READ_DIR = 1 << 3,
    FS_REMOVE_DIR = 1 << 4, FS_REMOVE_FILE = 1 << 5, FS_MAKE_CHAR = 1 << 6,
    FS_MAKE_DIR = 1 << 7, FS_MAKE_REG = 1 << 8, FS_MAKE_SOCK = 1 << 9, FS_MAKE_FIFO = 1 << 10,
    FS_MAKE_BLOCK = 1 << 11, FS_MAKE_SYM = 1 << 12, /* 1 */
    FS_REFER = 1 << 13,     /* 2 */
    FS_TRUNCATE = 1 << 14,  /* 3 */
    FS_IOCTL_DEV = 1 << 15, /* 5 */
};
enum { NET_BIND = 1, NET_CONNECT = 2 };     /* 4 */
enum { SCOPE_ABSTRACT = 1, SCOPE_SIGNAL = 2 }; /* 6 */
enum { RULE_PATH = 1, VERSION_FLAG = 1 };

struct ruleset_attr {
    uint64_t fs, net, scoped;
};
struct path_attr {
    uint64_t allowed;
    int32_t fd;
} __attribute__((packed));

static uint64_t known(int abi)
{
    uint64_t fs = (1u << 13) - 1;
    if (abi >= 2)
        fs |= FS_REFER;
    if (abi >= 3)
        fs |= FS_TRUNCATE;
    if (abi >= 5)
        fs |= FS_IOCTL_DEV;
    return fs;
}

static uint64_t rights(unsigned may)
{
    uint64_t fs = 0;
    if (may & LANDLOCK_LIST)
        fs |= FS_READ_DIR;
    if (may & LANDLOCK_READ)
        fs |= FS_READ_DIR | FS_READ_FILE;
    if (may & LANDLOCK_EXEC)
        fs |= FS_EXECUTE;
    if (may & LANDLOCK_WRITE)
        fs |= FS_WRITE_FILE | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_DIR | FS_MAKE_REG |
              FS_MAKE_SOCK | FS_MAKE_FIFO | FS_MAKE_SYM | FS_REFER | FS_TRUNCATE;
    if (may & LANDLOCK_DEVICE)
        fs |= FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV;
    return fs;
}

int landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, VERSION_FLAG);
    if (abi < 0)
        return 0;
    int64_t cap;
    const char *lower = getenv("AGENTD_LANDLOCK_ABI");
    if (lower && str_to_i64(str_c(lower), &cap) && cap >= 0 && cap < abi)
        abi = cap;
    return (int)abi;
}

static int open_path(const struct landlock_rule *r)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC};
    if (r->fd > 0)
        return dup(r->fd);
    if (r->may & LANDLOCK_PLAIN)
        how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    return (r->may & LANDLOCK_PLAIN) ? sys_openat2(AT_FDCWD, r->path, &how)
                                     : open(r->path, O_PATH | O_CLOEXEC);
}

static int add(int ruleset, uint64_t handled, const struct landlock_rule *r)
{
    int fd = open_path(r);
    if (fd < 0)
        return errno == ENOENT && !(r->may & LANDLOCK_MUST) ? 0 : -1;
    struct stat st;
    uint64_t allowed = rights(r->may) & handled;
    int rc = fstat(fd, &st);
    if (rc == 0 && !S_ISDIR(st.st_mode)) /* a file takes the rights of files alone */
        allowed &= FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV;
    struct path_attr attr = {allowed, fd};
    if (rc == 0 && allowed)
        rc = (int)syscall(SYS_landlock_add_rule, ruleset, RULE_PATH, &attr, 0);
    int saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

int landlock_rules(int abi, bool tcp, bool scope, const struct landlock_rule *rules,
                   unsigned n)
{
    struct ruleset_attr attr = {.fs = known(abi)};
    size_t size = sizeof attr.fs;
    if (abi >= 4) {
        attr.net = tcp ? NET_BIND | NET_CONNECT : 0;
        size += sizeof attr.net;
    }
    if (abi >= 6) {
        attr.scoped = scope ? SCOPE_ABSTRACT | SCOPE_SIGNAL : 0;
        size += sizeof attr.scoped;
    }
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (fd < 0)
        return -1;
    for (unsigned i = 0; i < n; i++)
        if (add(fd, attr.fs, &rules[i]) < 0) {
            int saved = errno;
            close(fd);
            errno = saved;
            return -1;
        }
    return fd;
}

int landlock_enter(int ruleset)
{
    return (int)syscall(SYS_landlock_restrict_self, ruleset, 0);
}
