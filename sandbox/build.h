/*
 * build.h - the executors' shared view of a cell under construction. The spawner fills it,
 * the clone that becomes pid 1 works on its own copy. Executors return 0, or -1 with errno;
 * the caller knows the step's name.
 */
#ifndef SANDBOX_BUILD_H
#define SANDBOX_BUILD_H

#include "sandbox/plan.h"
#include "sandbox/seccomp.h"
#include "sandbox/sockets.h"

struct build {
    const struct sandbox_spec *spec;
    const struct plan *plan;
    const struct probe *host;
    const struct seccomp_prog *filter; /* what it says alone; the clerk answers from it */
    const struct seccomp_prog *notify_filter, *clerk_filter; /* with a clerk; else NULL */
    int tree[PLAN_STEPS_MAX]; /* detached mounts by step, -1 */
    int workspace;            /* O_PATH, opened once and checked */
    int scratch;              /* level landlock: the folder in place of /tmp, -1 */
    unsigned others;          /* level landlock: tasks that the payload's user has already */
    uint64_t work_dev, work_ino;
    int owner_ns; /* user namespace of the id-mapped workspace, -1 */
    int ctl, ctl_outside; /* pid 1's end, and the spawner's, which pid 1 closes */
    int root;     /* the new root while it is being filled */
    const char *root_at; /* where it stands in the old tree */
    int proc, upper, listener;
    struct sockets_found sockets; /* to be covered */
    unsigned at; /* the step under way, for the refusal */
};

/* ns.c */
long ns_clone(uint64_t flags, int cgroup, int *pidfd); /* pid, 0 in the child, -1 */
/* `sub`: pid 1 gets a subordinate id, which setuid programs of the distribution map; or NULL. */
#define NS_NEWUIDMAP "/usr/bin/newuidmap"
#define NS_NEWGIDMAP "/usr/bin/newgidmap"
NODISCARD int ns_write_maps(pid_t pid, const struct plan_step *ids, bool two,
                            const struct probe *sub);
/* A user namespace that maps one owner on disk to one id of ours; -1 with errno. */
int ns_owner(uid_t uid, gid_t gid, uid_t to_uid, gid_t to_gid);
NODISCARD int ns_become(bool two);
NODISCARD int ns_hostname(const char *name);
NODISCARD int ns_loopback(void);
int ns_listen(uint16_t port); /* descriptor or -1 */

/* mounts.c */
NODISCARD int mounts_workspace(struct build *b); /* opens and checks it */
NODISCARD int mounts_sources(struct build *b);
void mounts_close(struct build *b);
NODISCARD int mounts_step(struct build *b, unsigned i); /* DO_PRIVATE ... DO_PIVOT */

/* scratch.c */
#define SCRATCH_ROOT "/tmp"
void scratch_name(char out[SANDBOX_PATH_MAX], unsigned serial);
NODISCARD int scratch_make(struct build *b); /* at b->host->scratch, the payload's own */
void scratch_remove(const char *path);       /* with all that is in it */
void scratch_sweep(void);                    /* what dead spawners left */

/* mark.c: level landlock, where no namespace holds the processes together. */
void mark_set(const char *name);  /* on us, and on whoever descends from us */
void mark_kill(const char *name); /* whoever has it, wherever he stands */

/* caps.c */
NODISCARD int caps_lock(const struct plan *p); /* pid 1: what it keeps is named in caps.c */
NODISCARD int caps_none(void);
int caps_bounding(void); /* empties the bounding set; 0, or -1 with errno */

/* init.c: pid 1 from the clone on; never returns. */
_Noreturn void init_main(struct build *b);

#endif
