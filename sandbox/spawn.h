/*
 * spawn.h - the spawner's view: a host that makes cells, and the cells it made. Blocking,
 * single-threaded; a cell opens in a few milliseconds. Only the spawner role uses it.
 */
#ifndef SANDBOX_SPAWN_H
#define SANDBOX_SPAWN_H

#include "base/buf.h"
#include "sandbox/plan.h"
#include "sandbox/sockets.h"
#include "sandbox/wire.h"

struct sandbox_host;

/* Probes, sweeps what dead spawners left. `adopt`: see limits_probe(). */
NODISCARD int sandbox_host_open(struct sandbox_host **out, const char *tool,
                                const char *state_dir, uint32_t uid_base, bool adopt,
                                struct err *err);
void sandbox_host_close(struct sandbox_host *h);
const struct probe *sandbox_host_probe(const struct sandbox_host *h);

/* Work ahead for the next cell, when nobody waits; cheap to call when nothing is to be done. */
void sandbox_host_prepare(struct sandbox_host *h);

struct sandbox {
    struct sandbox_host *host; /* borrowed */
    pid_t pid;                 /* of pid 1, outside */
    int pidfd, ctl;            /* ctl: wire.h datagrams, readable when pid 1 says something */
    int proc;                  /* the cell's own /proc: lists its processes alone */
    int workspace;             /* O_PATH of a dir workspace, -1 */
    int listener, upper;       /* proxy's listener, copy's upper directory; -1 */
    int scratch_fd;                 /* -1 */
    struct sandbox *next_bare;      /* in the host's list */
    int slot;                  /* holds the range of ids, -1 */
    char scratch[SANDBOX_PATH_MAX]; /* level landlock: in place of /tmp; "" = none */
    uint32_t uid_base;
    enum sandbox_level level;
    struct limits_group group;
    struct sandbox_limits limits;
    struct sockets sockets; /* of services outside, covered inside */
    struct buf record; /* JSON object */
};

/*
 * Makes a cell. -ERR_DENIED with *r when the host cannot keep the spec, other errors for
 * specs that are wrong. Nothing is left behind on failure, and nothing is tried with less.
 */
NODISCARD int sandbox_open(struct sandbox **out, struct sandbox_host *h,
                           const struct sandbox_spec *spec, struct sandbox_refusal *r,
                           struct err *err);
/* Kills everything in it, waits, removes its control groups. Takes NULL. */
void sandbox_close(struct sandbox *s);

/* Covers sockets that services outside bound since it was made; -1 when that failed. */
NODISCARD int sandbox_cover(struct sandbox *s);

/* Everything in it is to die now; sandbox_close() then waits for less. */
void sandbox_kill(struct sandbox *s);

/* Memory of all processes inside: their share of what is mapped, and anonymous files that they
 * hold open; and how many there are, or more when it took long to look. Never blocks on the
 * cell. */
uint64_t sandbox_memory(const struct sandbox *s, uint32_t *processes);

/* Bytes that everything inside has written to disks since the cell was made. */
uint64_t sandbox_written(const struct sandbox *s);

/* Level landlock: bytes of the files on this device that processes hold open without a name. */
uint64_t sandbox_nameless(const struct sandbox *s, dev_t dev, uint64_t *files);

/* Files that the processes inside hold open or mapped without a name, at most. */
uint64_t sandbox_held(const struct sandbox *s);

/* Blocks and entries below a directory, without following links or crossing devices; at most
 * `max` entries and 256 levels, else false. */
bool sandbox_usage(int dir, uint32_t max, uint64_t *bytes, uint64_t *entries);

#endif
