/*
 * crash.h - named places where a test may kill the daemon. AGENTD_CRASH_AT=NAME or NAME:N
 * makes the Nth pass of that place a SIGKILL: no handler, no flush, as when the power goes.
 */
#ifndef AGENTD_CRASH_H
#define AGENTD_CRASH_H

#include <stdio.h>

#include "base/err.h"

enum crash_point {
    CRASH_TURN_COMMITTED,    /* turn.started is on disk, nothing was sampled */
    CRASH_STEP_COMMITTED,    /* step.started is on disk */
    CRASH_DURING_SAMPLING,   /* some tokens of a step were streamed */
    CRASH_AFTER_SAMPLE,      /* the completion is known and not yet on disk */
    CRASH_AFTER_INTENT,      /* the calls are on disk, none was launched */
    CRASH_BEFORE_SPAWN,      /* tool.started is on disk, the tool was not asked */
    CRASH_DURING_OUTPUT,     /* the tool is running and has written something */
    CRASH_AFTER_EXIT,        /* the tool has ended, its result is not on disk */
    CRASH_RESULT_COMMITTED,  /* the result is on disk, the next step has not begun */
    CRASH_BEFORE_END,        /* the answer is on disk, turn.completed is not */
    CRASH_DURING_REPLAY,     /* a restarted daemon is reading a session back */
    CRASH_DURING_RECOVERY,   /* a restarted daemon is closing interrupted turns */
    CRASH_DURING_SNAPSHOT,   /* a KV snapshot is half done */
    CRASH_DURING_MIGRATION,  /* the store's schema is half upgraded */
    CRASH_DURING_RESET,      /* the context is being cut down */
    CRASH_N,
};

/* Reads AGENTD_CRASH_AT; an unknown name is -ERR_NOTFOUND with the list. */
NODISCARD int crash_init(struct err *err);
void crash_here(enum crash_point p);
void crash_list(FILE *to); /* one name a line */

#endif
