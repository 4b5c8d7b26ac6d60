/*
 * berth.h - a process that already stands in a fresh v1 control group, waiting to make one
 * cell. Moving a process between v1 groups waits for the whole machine (10 ms and more when
 * it is busy); a child is born where its parent stands, for nothing. So the move is made
 * ahead of time, by a helper that shares the spawner's memory and descriptors, and the cell is
 * cloned by that helper as the spawner's own child. The namespaces that take long to make are
 * made ahead as well.
 */
#ifndef SANDBOX_BERTH_H
#define SANDBOX_BERTH_H

#include "sandbox/build.h"
#include "sandbox/limits.h"

struct berth;

/* Whether a cell with these clone flags can be born in one: all its namespaces are wanted. */
bool berth_fits(uint64_t flags);
/* Whether this build can have them (sanitizers follow stacks and cannot). */
bool berth_possible(const struct limits_host *h);
/* Makes the group, without limits yet, and starts the helper. NULL when anything fails: the
 * slow way then serves. */
struct berth *berth_new(const struct limits_host *h, const char *name);
/* Clones the cell; the group becomes the caller's. pid as ns_clone; the child goes straight
 * into init_main(). The berth is used up: free it. */
long berth_clone(struct berth *b, struct build *build, uint64_t flags, int *pidfd);
/* The group without its limits; berth_free() leaves it alone once taken. */
void berth_take_group(struct berth *b, struct limits_group *g);
void berth_free(struct berth *b);
/* Whether this is the helper's process. Takes NULL. */
bool berth_is(const struct berth *b, pid_t pid);

#endif
