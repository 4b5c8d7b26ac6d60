/* tree.h - which processes descend from one of ours, where no pid namespace tells. */
#ifndef SANDBOX_TREE_H
#define SANDBOX_TREE_H

#include <stdbool.h>
#include <sys/types.h>

enum { TREE_MAX = 4096 };

/*
 * Pids below `root`, itself not counted, by the parents that /proc (an open folder) names; at
 * most `cap`. Whoever is born meanwhile may be missed: ask again until nothing is new. Not
 * thread-safe: each user has a process of its own.
 */
unsigned tree_below(int proc, pid_t root, pid_t *out, unsigned cap);

/* Writes the number and what follows it below /proc; returns the end. No libc but memory. */
char *tree_path(char *to, pid_t pid, const char *rest);

/* State and parent of a stat file below /proc; false when it cannot be read. */
bool tree_stat(int proc, const char *path, char *state, pid_t *parent);

/* Calls back for every numeric name in an open folder. */
void tree_each(int dir, void (*cb)(void *arg, pid_t n), void *arg);

/* Signals a process if it is still one of those below `root`: its number may be another's by
 * now, so it is held first and looked at then. */
bool tree_signal(int proc, pid_t root, pid_t pid, int signo);

/* Whether a process is below `root` now. */
bool tree_has(int proc, pid_t root, pid_t pid);

/* Tasks of a user on the whole host, which RLIMIT_NPROC counts together. */
unsigned tree_tasks_of(int proc, uid_t uid);

#endif
