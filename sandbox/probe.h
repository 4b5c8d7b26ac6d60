/* probe.h - what this host offers, found by looking and, where looking lies, by doing. */
#ifndef SANDBOX_PROBE_H
#define SANDBOX_PROBE_H

#include <sys/types.h>

#include "base/buf.h"
#include "sandbox/limits.h"
#include "sandbox/sandbox.h"

enum { PROBE_LINKS = 6, PROBE_SHADOWS = 13 };

/* Facts that a plan depends on; plain data, so that tests can invent a host. */
struct probe {
    bool root;          /* uid 0 with our range of ids mapped: id maps and mapped mounts are ours */
    uid_t uid;          /* of the daemon */
    gid_t gid;
    int landlock;       /* ABI, 0 = none */
    struct limits_host limits;
    uint32_t uid_base, uid_count; /* as root: our range of ids on the host */
    uint32_t sub_uid, sub_gid; /* as a plain user: a subordinate id for pid 1, by newuidmap; 0 =
                                  none, pid 1 and payload then share one */
    char usr[PROBE_LINKS][64]; /* of bin sbin lib lib32 lib64 libx32: "" absent, "/" a
                                  directory, else the target of the link */
    bool shadow[PROBE_SHADOWS];   /* which of plan's /proc entries exist */
    char tool[SANDBOX_PATH_MAX];  /* agentd-tool on the host; "" = none to show */
    char state_dir[SANDBOX_PATH_MAX]; /* the daemon's; "" = none */
    /* Level landlock, once a cell with namespaces was tried in vain. */
    struct sandbox_refusal bare; /* why: step "" = not tried, or it works */
    bool is_root;                /* uid 0 with no other id to give away */
    uid_t payload_uid;           /* as root: who runs inside, never 0 */
    gid_t payload_gid;
    char scratch[SANDBOX_PATH_MAX]; /* the cell's own folder in place of /tmp */
};

extern const char *const probe_links[PROBE_LINKS];
extern const char *const probe_shadows[PROBE_SHADOWS]; /* ends early with NULL */

/* `adopt`: see limits_probe(). uid_base 0 = 700000. */
void probe_host(struct probe *p, const char *tool, const char *state_dir, uint32_t uid_base,
                bool adopt);

/*
 * Words for a failed step: the same errno means different things in different places, and a
 * person wants to know which switch to turn. Fills reason and remedy of *r from step and sys.
 */
void probe_explain(const struct probe *p, const char *step, int sys,
                   struct sandbox_refusal *r);

/* Whether namespaces work, by making them all and one mount; the answer goes into p->bare. */
void probe_namespaces(struct probe *p);
/* Whether a failed step means that this host has no namespaces for us. */
bool probe_is_bare(const char *step, int sys);
/* Whether level landlock can be given: Landlock 3 at least. */
bool probe_has_landlock(const struct probe *p);

/* Highest level that the probe does not already exclude; a real cell must still prove it. */
enum sandbox_level probe_level(const struct probe *p);

#endif
