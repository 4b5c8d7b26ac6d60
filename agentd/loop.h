/*
 * loop.h - the turn: think, call, result, think again, answer.
 *
 *              +------------------ results complete ------------------+
 *              v                                                      |
 *   IDLE --> PREFILL --first token--> DECODE ------- calls -------> CALL ---+
 *    |         |  ^                    | |                          |  ^    |
 *    |         |  +-- engine retry, ---+ |   a person is waited for v  |    | cancelled,
 *    |         |      steered answer     |                          ASK     | budget, finish
 *    |         v                         | no calls                  ^      |
 *    |       DONE <----------------------+---------------------------)------+
 *    +-- a question of the daemon before ----------------------------+
 *   FAILED   from any state: the engine or the store failed
 *
 * loop_state.c has the arrows as a table and asserts each that is taken, and what holds:
 *   PREFILL  no call is unanswered; at most one job; nothing streamed yet in this step
 *   DECODE   exactly one job
 *   ASK      no job; a call waits for a person; the clock of the budget stands still
 *   CALL     no job; no call waits; each is done, running or queued behind one that is
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
/* Whether an arrow leads from one to the other, or they are the same. */
bool turn_state_may(enum turn_state from, enum turn_state to);

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

struct loop_answer {
    struct str approval, option, note;
    const json_t *answers; /* to the questions of ask_user, by id; or NULL */
    const json_t *who;     /* for the log */
    int64_t uid;           /* only of sessions of this user; -1 = of any */
};
/* First answer wins. -ERR_NOTFOUND no such approval waits; -ERR_PARSE no such option, or the
 * answers do not fit the questions. */
NODISCARD int loop_approve(struct daemon *d, const struct loop_answer *a, struct err *err);

struct loop_client_result {
    struct str call, text;
    bool is_error;
    int64_t uid; /* as above */
};
/* What a client made of a call of a tool that it declared. -ERR_NOTFOUND: none waits. */
NODISCARD int loop_client_result(struct daemon *d, const struct loop_client_result *r,
                                 struct err *err);

/* Waits for an answer of the user and for nothing else: such a turn costs nothing and goes
 * on waiting in the next daemon. */
bool loop_parked(const struct turn *t);

/* Closes a turn that has no end in the log and is not running: every unanswered call gets
 * an honest result, then turn.failed (or turn.completed, when the answer was there). */
NODISCARD int loop_recover(struct session *s, struct err *err);
/* The same for every open turn, at start. */
NODISCARD int loop_recover_all(struct daemon *d, struct err *err);

/* Ends a turn without a word to the log: the daemon is ending. Takes NULL. */
void loop_drop(struct turn *t);

/* The tool delegate: answers the call when its sub-agents are done (loop_delegate.c). */
struct toolrun_call;
void loop_delegate(struct session *s, struct toolrun_call *call, const json_t *args);
/* The call under way is over without them. */
void loop_delegate_cancel(struct session *s);
/* A watched session's turn is over; t NULL: the session goes. */
void loop_delegate_ended(struct session *s, const struct turn *t);

/* Idle work after an answer: the KV of the history without reasoning. */
void loop_warm(struct session *s);

#endif
