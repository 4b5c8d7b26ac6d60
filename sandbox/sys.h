/* sys.h - kernel calls and constants that libc 2.36 lacks or may lack; numbers are ABI. */
#ifndef SANDBOX_SYS_H
#define SANDBOX_SYS_H

#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MOUNT_ATTR_IDMAP
#define MOUNT_ATTR_IDMAP 0x00100000
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

static inline long sys_clone3(struct clone_args *a, size_t n)
{
    return syscall(SYS_clone3, a, n);
}

static inline int sys_openat2(int dir, const char *path, struct open_how *how)
{
    return (int)syscall(SYS_openat2, dir, path, how, sizeof *how);
}

static inline int sys_pidfd_signal(int pidfd, int signo)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0);
}

static inline int sys_close_range(unsigned first, unsigned last)
{
    return (int)syscall(SYS_close_range, first, last, 0);
}

#endif
