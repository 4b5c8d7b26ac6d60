/*
 * loop.h - the turn: think, call, result, think again, answer.
 *
 *              +------------------------- results complete ------------------------+
 *              v                                                                   |
 *   IDLE --> PREFILL --first token--> DECODE --calls--> ASK --all allowed--> CALL -+
 *              |   ^                    |  |             |                     |
 *              |   +--engine retry------+  |             |                     |
 *              |                           | no calls    | cancelled           | cancelled,
 *              v                           v             v                     v budget
 *            FAILED <--engine error       DONE <---------+---------------------+
 *
 * What holds (loop_check asserts it):
 *   PREFILL  no call is unanswered; at most one job; nothing streamed yet in this step
 *   DECODE   exactly one job
 *   ASK      no job; at least one call waits for an answer and none that may not is running
 *   CALL     no job; every call is done, running or queued behind one that is
 *   DONE, FAILED   no job, no call running; the end is in the log
 *
 * Every arrow is taken behind a commit: a transition appends its events and sets `next`,
 * daemon_settle() commits and then calls loop_go(). So whatever a step shows outside, or
 * does in the world, was promised on disk before.
 */
#ifndef AGENTD_LOOP_H
#define AGENTD_LOOP_H

#include "agentd/session.h"

struct turn;

enum turn_state {
    TURN_IDLE, TURN_PREFILL, TURN_DECODE, TURN_ASK, TURN_CALL, TURN_DONE, TURN_FAILED,
    TURN_N_STATES,
};
const char *turn_state_name(enum turn_state st);

struct loop_start {
    struct str input;    /* the user's text; empty with resume */
    struct str resume;   /* a turn that a restart interrupted, or empty */
    const json_t *limits; /* narrows the session's budget for this turn, or NULL */
    struct conn *owner;  /* cancel when it goes away; NULL = continue */
    const struct store_idem *idem; /* result is filled in by the caller's id; or NULL */
};
/* Appends turn.started and the user's message; the turn runs on its own after the commit.
 * -ERR_STATE: a turn is running (or nothing to resume); -ERR_PARSE: limits. */
NODISCARD int loop_start(struct session *s, const struct loop_start *o, char id[ID_TEXT],
                         struct err *err);
/* After a commit: takes the arrow that waited. The turn may be gone afterwards. */
bool loop_ready(const struct turn *t);
void loop_go(struct turn *t);
/* The engine changed its state: turns that waited for it go on or fail. */
void loop_engine(struct daemon *d);

const char *loop_id(const struct turn *t);
enum turn_state loop_state(const struct turn *t);
/* steps, tokens and tool calls so far, as in `usage` of turn.completed; new reference. */
json_t *loop_usage(const struct turn *t);

NODISCARD int loop_steer(struct turn *t, struct str text, bool as_user, struct err *err);
void loop_interrupt(struct turn *t, bool hard);
/* The connection that owned turns is gone. */
void loop_owner_gone(struct daemon *d, struct conn *c);

/* First answer wins. -ERR_NOTFOUND no such approval waits; -ERR_PARSE no such option. */
NODISCARD int loop_approve(struct daemon *d, struct str approval, struct str option,
                           const json_t *who, struct err *err);

/* Closes a turn that has no end in the log and is not running: every unanswered call gets
 * an honest result, then turn.failed (or turn.completed, when the answer was there). */
NODISCARD int loop_recover(struct session *s, struct err *err);
/* The same for every open turn, at start. */
NODISCARD int loop_recover_all(struct daemon *d, struct err *err);

/* Ends a turn without a word to the log: the daemon is ending. Takes NULL. */
void loop_drop(struct turn *t);

/* Idle work after an answer: the KV of the history without reasoning. */
void loop_warm(struct session *s);

#endif
