/*
 * plan.h - a spec and a host become an ordered list of steps. Making the list is a pure
 * function, so it can be printed for a reviewer and tested without privilege; the executors
 * in ns.c, mounts.c, caps.c and init.c do one step each and name it when it fails.
 */
#ifndef SANDBOX_PLAN_H
#define SANDBOX_PLAN_H

#include "base/buf.h"
#include "base/mem.h"
#include "sandbox/landlock.h"
#include "sandbox/probe.h"

enum plan_phase {
    PLAN_OUTSIDE, /* by the spawner */
    PLAN_INSIDE,  /* by pid 1 before it says that the cell is ready */
    PLAN_LOCK,    /* by pid 1 after that, before it reads a request: nothing ran before */
    PLAN_RUN,     /* by pid 1's fork, before it executes the program */
};

enum plan_do {
    /* outside */
    DO_WORKSPACE, DO_SCRATCH, DO_GROUPS, DO_SOURCES, DO_CLONE, DO_IDMAP,
    /* inside */
    DO_REAPER, DO_BECOME, DO_PRIVATE, DO_ROOT, DO_DIR, DO_LINK, DO_FILE, DO_BIND, DO_TMPFS,
    DO_OVERLAY,
    DO_PROC, DO_QUOTA, DO_SOCKETS, DO_SHADOW, DO_READONLY, DO_HOSTNAME, DO_LOOPBACK,
    DO_LISTEN, DO_RLIMITS,
    /* lock */
    DO_PIVOT, DO_SEAL, DO_LOCK, DO_FILTER,
    /* run */
    DO_USER, DO_LANDLOCK, DO_EXEC,
    DO_COUNT
};

enum {
    PLAN_WRITE = 1,    /* bind read-write; default read-only */
    PLAN_OPTIONAL = 2, /* pass over when the source is absent */
    PLAN_DEVICE = 4,   /* device files work below it */
    PLAN_NOEXEC = 8,
    PLAN_IDMAP = 16,   /* owner on disk <-> the payload */
    PLAN_FOLLOW = 32,  /* links in the source's path are the distribution's own */
    PLAN_OWNED = 64,   /* belongs to the payload */
    PLAN_WORK = 128,   /* the workspace: opened and checked before anything else */
};

struct plan_step {
    enum plan_do what;
    unsigned flags;
    uint64_t n1, n2, n3; /* bytes, inodes, mode, flags of clone: see each executor */
    const char *a, *b;   /* place inside and source, or text; in the plan's arena */
};

#define PLAN_EMPTY "/var/empty" /* shadows the folders below /proc that nobody shall see */

enum { PLAN_STEPS_MAX = 160, PLAN_RULES_MAX = 72, PLAN_PLACES_MAX = 32 };

/* Level landlock has no tree of its own: where a place of the tree inside is to be found. */
struct plan_place {
    const char *inside, *host;
};

struct plan {
    struct arena mem;
    struct plan_step step[PLAN_STEPS_MAX];
    unsigned n;
    struct landlock_rule rule[PLAN_RULES_MAX];
    unsigned n_rules;
    struct plan_place place[PLAN_PLACES_MAX]; /* level landlock alone */
    unsigned n_places;
    enum sandbox_level level; /* what this plan gives once it has worked */
    bool two_ids;             /* pid 1 and payload have different uids */
    uint32_t uid, gid;        /* of the payload, inside */
    int landlock;             /* ABI used, 0 = none */
    bool tcp_forbidden, scoped;
    bool failed;              /* out of memory or room */
};

/* The spec has passed spec_check(). -ERR_DENIED with *r when this host cannot keep it. */
NODISCARD int plan_build(struct plan *p, const struct sandbox_spec *spec,
                        const struct probe *host, struct sandbox_refusal *r, struct err *err);
void plan_drop(struct plan *p);

/* For the two builders, plan.c and bare.c; text is copied. */
struct plan_step *plan_add(struct plan *p, enum plan_do what, const char *a, const char *b,
                           unsigned flags);
void plan_rule(struct plan *p, const char *path, unsigned may);
int plan_refuse(const struct probe *h, enum plan_do what, int sys, struct sandbox_refusal *r,
                struct err *err);
/* bare.c: the plan of level landlock. */
NODISCARD int bare_plan(struct plan *p, const struct sandbox_spec *spec, const struct probe *h,
                        struct sandbox_refusal *r, struct err *err);
/* What level landlock does not keep, a line each; ends with NULL. */
extern const char *const bare_weaker[];
/* Where this path of the tree inside is at level landlock: into buf, or the path itself. */
const char *bare_place(const struct plan *p, const char *path, char *buf, size_t cap);

const char *plan_name(enum plan_do what); /* "bind", "clone": as in refusals */
enum plan_phase plan_phase(enum plan_do what);
void plan_print(const struct plan *p, struct buf *out);

#endif
