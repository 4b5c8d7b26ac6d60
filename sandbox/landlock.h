/*
 * landlock.h - the second layer under the mounts: which paths of the tree inside a run may
 * read, execute or write, and that it opens no TCP port and signals nobody outside.
 */
#ifndef SANDBOX_LANDLOCK_H
#define SANDBOX_LANDLOCK_H

#include <stdbool.h>

/* ABI of this kernel, 0 when Landlock is missing or off. AGENTD_LANDLOCK_ABI in the
 * environment lowers it (never raises it), to try the fallbacks. */
int landlock_abi(void);

enum landlock_may {
    LANDLOCK_LIST = 1, /* read directories */
    LANDLOCK_READ = 2,
    LANDLOCK_EXEC = 4,
    LANDLOCK_WRITE = 8,  /* create, write, truncate, remove, link */
    LANDLOCK_DEVICE = 16, /* write and ioctl on what is there, create nothing */
    LANDLOCK_PLAIN = 32,  /* no symbolic link on the way: the path is somebody's choice */
    LANDLOCK_MUST = 64    /* an absent path is a failure */
};

struct landlock_rule {
    const char *path; /* absolute; absent paths are passed over */
    unsigned may;     /* enum landlock_may bits */
    int fd;           /* when > 0: what the path meant when it was checked, borrowed */
};

/* A ruleset descriptor (close-on-exec), or -1 with errno. tcp: forbid all TCP ports. scope:
 * no signals and no abstract sockets out of the domain. Rights newer than `abi` are left out. */
int landlock_rules(int abi, bool tcp, bool scope, const struct landlock_rule *rules,
                   unsigned n);
/* Restricts the calling thread, which has no_new_privs. 0, or -1 with errno. */
int landlock_enter(int ruleset);

#endif
