/*
 * tooldriver.h - one agentd-tool at work: in a cell of its own, or as a plain process when
 * the caller's configuration said so. Speaks its line protocol; knows no tool.
 *
 * States:  DOWN -> (begin) OPENING -> READY -> (send) CALLING -> (end) ENDING -> READY
 * In a cell everything but the driver is dead when ended() comes, and the driver stopped.
 * Whatever goes wrong is one down() with a sentence; the next begin() starts anew.
 */
#ifndef AGENTD_TOOLDRIVER_H
#define AGENTD_TOOLDRIVER_H

#include "agentd/ev.h"
#include "agentd/spawner.h"
#include "base/json.h"

struct tooldriver;

/* What became of a call when its tool went down. */
enum tooldriver_loss {
    TOOLDRIVER_REFUSED, /* no cell could be had; nothing ran */
    TOOLDRIVER_UNREAD,  /* the tool never had the whole request: nothing ran, ask again */
    TOOLDRIVER_LOST,    /* it may have run, wholly or in part */
};

struct tooldriver_cb {
    void (*ready)(void *arg); /* after begin(): a request may be sent */
    void (*line)(void *arg, const json_t *o); /* a line from the tool */
    /* After end(); e is NULL without a cell. */
    void (*ended)(void *arg, const struct cell_ended *e);
    /* The cell was refused, or the tool died. */
    void (*down)(void *arg, enum tooldriver_loss loss, const char *why);
    /* A system call was refused, where the policy says log_calls; may be NULL. */
    void (*call)(void *arg, const char *name, uint64_t times);
};

struct tooldriver_opts {
    struct ev *ev;           /* borrowed */
    struct spawner *spawner; /* borrowed; NULL = a plain process, level none */
    const struct sandbox_spec *spec; /* copied; NULL without a spawner */
    const char *const *argv; /* copied: arguments of agentd-tool after its name */
    void (*proxy)(void *arg, int fd); /* takes the cell's proxy socket; NULL = closed */
    const struct tooldriver_cb *cb;
    void *arg;
};

NODISCARD int tooldriver_new(struct tooldriver **out, const struct tooldriver_opts *o,
                             struct err *err);
/* Kills the process or closes the cell; no callback comes after. Takes NULL. */
void tooldriver_free(struct tooldriver *d);

/* Makes the tool ready, starting cell and process if need be; ready() or down() follows,
 * never from inside this call. */
void tooldriver_begin(struct tooldriver *d);
/* One request; takes nothing. Only between ready() and end(). */
void tooldriver_send(struct tooldriver *d, const json_t *o);
/* Ends the call; `jobs`: commands go on in the background, keep them running, but nothing
 * that the process `interp` (0 = none) started. */
void tooldriver_end(struct tooldriver *d, bool jobs, pid_t interp);
/* Kills the tool at once (it did not keep its time); down() follows. */
void tooldriver_kill(struct tooldriver *d);

bool tooldriver_is_up(const struct tooldriver *d);
/* "full", ..., "none"; "unknown" before the first cell. */
const char *tooldriver_level(const struct tooldriver *d);
/* What was written above a copy workspace, also when the cell is gone; borrowed, or -1. */
int tooldriver_layer(const struct tooldriver *d);
/* The cell's record as JSON text, or NULL. */
const char *tooldriver_record(const struct tooldriver *d);

#endif
