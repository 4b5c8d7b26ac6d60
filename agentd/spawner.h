/*
 * spawner.h - the daemon's end of the spawner: a small process started before any thread
 * or secret exists, alone in making cells. Everything here is asynchronous over ev.h and
 * runs on the loop's thread.
 *
 * Life of a cell:  cell_open -> opened | refused
 *                  (cell_begin; cell_start...; cell_end -> ended) any number of times
 *                  cell_close -> closed
 *
 * Between cell_end and cell_begin (or cell_start, which begins by itself) every process
 * of the cell is stopped: kept drivers burn nothing and do not read their control
 * sockets. A kept driver must take EINTR from a blocking call as "go on": stop and
 * continue cause it.
 *
 * When the spawner dies every cell is gone: each run's done() comes first (lost = true),
 * then the cell's gone(), then on_death(), after which the owner may start a new spawner.
 * When the daemon dies the spawner kills all cells, removes their control groups, and
 * ends.
 */
#ifndef AGENTD_SPAWNER_H
#define AGENTD_SPAWNER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agentd/ev.h"
#include "base/err.h"
#include "sandbox/sandbox.h"

struct spawner;
struct cell;

struct spawner_opts {
    const char *exe;  /* takes --role spawner; NULL = agentd-spawner beside us, or we */
    const char *tool;      /* agentd-tool, shown at SANDBOX_TOOL; NULL = beside exe */
    const char *state_dir; /* real path; never visible inside, never a workspace; NULL = the
                            * usual one of place_state(), if there is one */
    uint32_t uid_base;     /* as root: first id of our range; 0 = 700000 */
};

/*
 * Starts the process: first thing in main(), before threads, secrets and the loop. Both
 * agentd and agentctl accept the hidden `--role spawner` (see spawner_role). Blocking,
 * fast.
 */
NODISCARD int spawner_start(struct spawner **out, const struct spawner_opts *o,
                            struct err *err);
/* Joins the loop. on_death may be NULL. */
NODISCARD int spawner_attach(struct spawner *s, struct ev *ev,
                             void (*on_death)(void *arg), void *arg, struct err *err);
/* Leaves the loop; takes one that has not joined. */
void spawner_detach(struct spawner *s);
/* Ends the spawner and with it every cell; no callback comes after. Takes NULL. Waits for
 * the process to have cleaned up (bounded: 3 s, then it is killed). */
void spawner_free(struct spawner *s);

/* True when argv says `--role spawner`: main() then returns spawner_main(). */
bool spawner_role(int argc, char **argv);
int spawner_main(void);

struct cell_info {
    enum sandbox_level level; /* in force */
    const char
        *record;  /* one JSON object for the session's record; borrowed for the call */
    int proxy_fd; /* mode proxy: a listening TCP socket on the cell's loopback, given to
                     the callee (netproxy_add takes it); else -1 */
    int layer_fd; /* workspace copy: the folder of what was written; borrowed for the call. It
                     outlives the cell as long as somebody holds it; else -1 */
};

struct cell_cb {
    void (*opened)(void *arg, const struct cell_info *info);
    /* The cell was not made. The handle is still to be closed with cell_close(c, NULL).
     */
    void (*refused)(void *arg, const struct sandbox_refusal *r);
    /* The cell died by itself (or the spawner did). Close the handle likewise. */
    void (*gone)(void *arg, const char *why);
    /* A system call was refused for the times-th time, with log_calls; told at 1, 2, 4, ...
     * May be NULL. */
    void (*call)(void *arg, const char *name, uint64_t times);
};

/* Asks for a cell; *out is valid at once, runs may start after opened(). */
NODISCARD int cell_open(struct cell **out, struct spawner *s,
                        const struct sandbox_spec *spec, const struct cell_cb *cb,
                        void *arg, struct err *err);

enum { CELL_STDIN, CELL_STDOUT, CELL_STDERR, CELL_CONTROL, CELL_FDS };

struct cell_run {
    const char *const *argv; /* NULL-terminated; argv[0] is a path, or a name for PATH */
    const char *const *env;  /* NULL-terminated NAME=value added to the spec's; or NULL */
    const char *cwd;         /* inside; NULL = SANDBOX_WORKSPACE */
    int fd[CELL_FDS]; /* borrowed (closable at return); -1 = /dev/null, no control */
    enum sandbox_keep keep;
    uint32_t wall_ms; /* 0 = none; when it passes, the run and all not kept are killed */
    void (*done)(void *arg, const struct sandbox_exit *x); /* always, exactly once */
    void *arg;
};

/* Starts a program; argv, env and cwd together at most 96 KiB (-ERR_LIMIT). */
NODISCARD int cell_start(struct cell *c, const struct cell_run *run, uint32_t *run_id,
                         struct err *err);
/* Wakes kept drivers and starts the call's watchers. Requests keep their order. */
NODISCARD int cell_begin(struct cell *c, struct err *err);
/* Changes what stays of a run at the end of a call (a command that turned into a job). Of a
 * tree, what the process `leaf` started goes nevertheless (a number inside; 0 = none). */
NODISCARD int cell_keep(struct cell *c, uint32_t run_id, enum sandbox_keep keep, pid_t leaf,
                        struct err *err);
/* Signals the run's own process, or with `tree` also its descendants. */
NODISCARD int cell_signal(struct cell *c, uint32_t run_id, int signo, bool tree,
                          struct err *err);

struct cell_ended {
    uint32_t killed;            /* processes that had outlived the call */
    uint32_t kept;              /* processes that stay */
    uint32_t limits;            /* enum sandbox_limit bits hit since cell_begin */
    uint64_t memory_peak_bytes; /* of the cell since it was made; 0 = not known */
    uint64_t cpu_ns;            /* used by the cell since cell_begin; 0 = not known */
};
/*
 * Ends a call: kills everything but pid 1 and what is kept; stops what is kept when
 * `freeze` (leave it false while a job runs). ended() comes when the last of them is
 * dead.
 */
NODISCARD int cell_end(struct cell *c, bool freeze,
                       void (*ended)(void *arg, const struct cell_ended *e), void *arg,
                       struct err *err);

/* Ends the cell and frees the handle; closed (may be NULL) comes when nothing is left.
 * Runs under way report lost. No other callback of this cell comes after the call
 * returns. */
void cell_close(struct cell *c, void (*closed)(void *arg), void *arg);

/*
 * One program, one cell, waited for: the command line's convenience. Opens, runs, ends,
 * closes. Returns 0 with *x, or -ERR_DENIED with the refusal in *r, or another error.
 */
NODISCARD int spawner_once(struct spawner *s, const struct sandbox_spec *spec,
                           const struct cell_run *run, struct sandbox_exit *x,
                           struct sandbox_refusal *r, struct err *err);

#endif
