/*
 * clerk.h - a process of ours beside pid 1 that answers for the filter where a program of BPF
 * cannot: it reports refused calls by name, and at level landlock it changes modes and times
 * of files, once it has seen that they are the cell's own. It never lets a call go on by itself
 * (the memory it has read may have changed by then), so a clerk that dies refuses.
 */
#ifndef SANDBOX_CLERK_H
#define SANDBOX_CLERK_H

#include "sandbox/build.h"

/* Whether this cell needs one. */
bool clerk_wanted(const struct build *b);
/*
 * By pid 1, locked but without filter: starts the clerk and loads the filter for itself and all
 * that it will start. The clerk's pid, or -1 with errno.
 */
NODISCARD int clerk_start(struct build *b);

#endif
