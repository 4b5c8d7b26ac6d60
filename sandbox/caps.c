/*
 * caps.c - what pid 1 keeps and what a run has, which is nothing.
 *
 * Pid 1 with an id of its own keeps three capabilities, all of them only over its own user
 * namespace: KILL (to end what runs under the other id), SETUID and SETGID (to become it).
 * With one id for both it keeps SYS_PTRACE alone, to see processes that hide from /proc, and
 * without a namespace of its own nothing. The bounding set is emptied first, so none of them
 * can be passed on by exec; a plain user may not, and has none to pass on.
 */
#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/build.h"

static int set(uint64_t mask)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2] = {0};
    for (unsigned i = 0; i < 2; i++)
        d[i].effective = d[i].permitted = (uint32_t)(mask >> (32 * i));
    return (int)syscall(SYS_capset, &h, d);
}

int caps_bounding(void)
{
    for (unsigned long cap = 0; cap < 64; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return errno == EINVAL && cap > 36 ? 0 : -1; /* past the kernel's last one */
    return 0;
}

int caps_lock(const struct plan *p)
{
    bool own = p->level != SANDBOX_LANDLOCK; /* a user namespace where it had them all */
    uint64_t keep = p->two_ids ? 1ull << CAP_KILL | 1ull << CAP_SETUID | 1ull << CAP_SETGID
                    : own      ? 1ull << CAP_SYS_PTRACE
                               : 0;
    if (caps_bounding() < 0 && (own || errno != EPERM))
        return -1;
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (set(keep) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -1;
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

int caps_none(void)
{
    return set(0);
}
