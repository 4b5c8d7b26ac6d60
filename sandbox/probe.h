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
    char usr[PROBE_LINKS][64]; /* of bin sbin lib lib32 lib64 libx32: "" absent, "/" a
                                  directory, else the target of the link */
    bool shadow[PROBE_SHADOWS];   /* which of plan's /proc entries exist */
    char tool[SANDBOX_PATH_MAX];  /* agentd-tool on the host; "" = none to show */
    char state_dir[SANDBOX_PATH_MAX]; /* the daemon's; "" = none */
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

/* Highest level that the probe does not already exclude; a real cell must still prove it. */
enum sandbox_level probe_level(const struct probe *p);

#endif
