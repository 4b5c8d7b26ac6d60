/*
 * limits.h - control groups in their three kinds (v2, v1, none) and rlimits. A group of ours
 * is called agentd-<spawner pid>-<slot> and lives below the group that we are in.
 */
#ifndef SANDBOX_LIMITS_H
#define SANDBOX_LIMITS_H

#include <sys/types.h>

#include "sandbox/sandbox.h"

enum limits_kind { LIMITS_NONE, LIMITS_V1, LIMITS_V2 };
enum { LIMITS_MEMORY, LIMITS_PIDS, LIMITS_CPU, LIMITS_TREES };
enum { LIMITS_PATH = 512, LIMITS_NAME = 64 };

struct limits_host {
    enum limits_kind kind;
    char dir[LIMITS_TREES][LIMITS_PATH]; /* v1: our own group in each tree; "" = absent.
                                            v2: dir[0] is where cells are made */
    char why[200]; /* why there is none, or where it is */
};

/* Finds what we may use. With `adopt` it may move this process and its parent to a leaf of a
 * delegated v2 group, as controllers demand; otherwise it only looks. */
void limits_probe(struct limits_host *h, bool adopt);
const char *limits_kind_name(enum limits_kind kind);

struct limits_group {
    const struct limits_host *host; /* borrowed */
    char name[LIMITS_NAME];
    bool made;
    uint64_t oom_seen, pids_seen, cpu_seen; /* counters at the last limits_mark() */
};

/* "agentd-<kind>-<pid namespace>-<pid>-<serial>": whose a group is, for limits_sweep(). */
void limits_name(char out[LIMITS_NAME], const char *kind, unsigned serial);
NODISCARD int limits_make(struct limits_group *g, const struct limits_host *h,
                          const char *name, const struct sandbox_limits *l, struct err *err);
/* For a group made with l NULL. */
NODISCARD int limits_write(const struct limits_group *g, const struct sandbox_limits *l,
                           struct err *err);
/* Descriptor for CLONE_INTO_CGROUP (v2), or -1. Owned by the caller. */
int limits_open(const struct limits_group *g);
/* Moves a process in (v1). */
NODISCARD int limits_enter(const struct limits_group *g, pid_t pid, struct err *err);
void limits_mark(struct limits_group *g);           /* starts a call */
uint32_t limits_hits(const struct limits_group *g); /* SANDBOX_LIMIT_* since the mark */
uint64_t limits_cpu_ns(const struct limits_group *g); /* since the mark */
uint64_t limits_peak(const struct limits_group *g);
/* Kills what is left in it, waits, removes. Takes a group never made. */
void limits_remove(struct limits_group *g);
/* Whether limits_name() made this name in a process that is no more. */
bool limits_stale(const char *name);
/* Removes groups whose spawner is dead. */
void limits_sweep(const struct limits_host *h);

/* rlimits of pid 1, inherited by every run. others: tasks of the same user that are not the
 * cell's. as: also RLIMIT_AS (no group holds memory). */
NODISCARD int limits_rlimits(const struct sandbox_limits *l, unsigned others, bool as);

#endif
