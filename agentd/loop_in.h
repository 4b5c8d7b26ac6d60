/* loop_in.h - the turn's own state, shared by the loop_*.c files alone. */
#ifndef AGENTD_LOOP_IN_H
#define AGENTD_LOOP_IN_H

#include "agentd/dsml.h"
#include "agentd/loop.h"
#include "agentd/toolrun.h"
#include "base/limits.h"

enum { TURN_TOOLS = 64 }; /* tools whose calls are counted one by one */

enum call_state { CALL_NEW, CALL_ASKING, CALL_READY, CALL_STARTING, CALL_RUNNING, CALL_DONE };

struct call {
    struct turn *turn;
    enum call_state state;
    char id[ID_TEXT], item[ID_TEXT], result_item[ID_TEXT], approval[ID_TEXT];
    struct buf name, args; /* owned */
    char fault[256];       /* why the call is broken; empty = it is whole */
    bool approved;
    json_t *questions;  /* owned; of ask_user, while ASKING; else NULL */
    int64_t expires_ms; /* wall clock; while ASKING */
    struct toolrun_call *run; /* while RUNNING */
    bool client;              /* the client carries it out: RUNNING without `run` */
    int64_t started_ns;       /* of the client's */
    struct feed_item *live;   /* its arguments while written, its output while running */
};

/* The arrow to take after the next commit. */
enum turn_next { NEXT_NONE, NEXT_STEP, NEXT_CALLS, NEXT_LAUNCH, NEXT_END };
enum turn_stop { STOP_NONE, STOP_SOFT, STOP_HARD };

struct turn {
    struct session *s;
    char id[ID_TEXT];
    enum turn_state state;
    enum turn_next next;
    struct budget budget;
    struct conn *owner; /* borrowed; cleared when it goes */
    int64_t step, started_ns;
    enum turn_stop stop;
    bool final;          /* the last step: calls are not run any more */
    const char *end;     /* stop reason once decided; literals */
    const char *limit;   /* which budget ended it, or NULL */
    struct ev_timer *timer;    /* owned; retry pauses and the grace of an interrupt */
    struct ev_timer *deadline; /* owned; max_seconds; stands still while ASK waits */
    struct ev_timer *expiry;   /* owned; of the question that ASK waits for */
    int64_t parked_ns, parked; /* time in ASK so far; when it was entered */
    bool time_up;
    int retries, bad_calls, resets;
    uint64_t last_calls; /* hash of the last block of calls */
    int repeats;
    /* sums over the turn */
    int64_t prompt_tokens, cached_tokens, completion_tokens, tool_calls;
    int64_t engine_ns, tool_ns;
    int64_t child_tokens; /* sampled by sub-agents: they count in max_tokens */
    unsigned children;    /* sub-agents so far */
    int64_t calls_made;   /* started so far; what the policy counts */
    struct made {
        char name[64];
        int64_t n;
    } made[TURN_TOOLS]; /* the same by tool */
    const char *reason;   /* stop reason, once in the log; literal */
    int64_t marked_ns, marked_work_ns; /* when the step before was logged, and work until then */
    /* this step's generation */
    struct infer_job *job;
    struct dsml *dsml; /* owned; token engines */
    struct feed_item *live_think, *live_text;
    char think_item[ID_TEXT], text_item[ID_TEXT];
    struct buf think, text, bytes; /* owned */
    struct tokens ids;             /* owned */
    size_t think_bytes;
    uint32_t think_ids;
    bool thinking, block_closed, summary;
    struct call call[LIMIT_CALLS_PER_MESSAGE];
    uint32_t n_calls;
    struct buf answer; /* owned: the last text, or what `finish` said */
};

/* loop.c */
int turn_new(struct turn **out, struct session *s, struct err *err);
int turn_narrow(struct budget *b, const json_t *limits, struct err *err);
/* Tokens of the budget that were used. */
int64_t turn_tokens(const struct turn *t);
/* Nanoseconds of the budget that were used: the wait for a person does not count. */
int64_t turn_used_ns(const struct turn *t);
void turn_arm_deadline(struct turn *t);
void loop_end(struct turn *t, const char *reason, const char *limit);
void loop_fail(struct turn *t, const char *kind, bool retryable, const char *sentence);
/* An event could not be appended: the turn stops here, the log says what is true. */
void loop_broken(struct turn *t, const struct err *err);

/* loop_state.c: takes an arrow, which must be in the table; what holds in a state. */
void loop_to(struct turn *t, enum turn_state to);
void loop_check(const struct turn *t);

/* loop_gen.c */
void gen_step(struct turn *t); /* begins the next step */
void gen_clear(struct turn *t);
/* loop_budget.c: false when the turn was ended instead. Notices ride in the last result. */
bool budget_allows(struct turn *t);
bool budget_repeats(struct turn *t);
/* context.c: cuts the context down when it passes its threshold; false: the turn ended or
 * another step (a summary) goes first. */
bool context_fits(struct turn *t);

/* loop_call.c */
void calls_begin(struct turn *t);
void calls_pump(struct turn *t);
void calls_launch(struct turn *t);
void calls_cancel(struct turn *t, bool running_too);
/* Nobody waits for what still runs. */
void calls_abandon(struct turn *t);
/* Every call that has no result gets this text as one. */
int calls_answer_rest(struct turn *t, const char *text, struct err *err);
/* The same for those that were not handed to a tool yet, as cancelled. */
int calls_answer_rest_unstarted(struct turn *t, struct err *err);
int call_log_result(struct session *s, const char *turn, int64_t step, const char *call_id,
                    const char *name, struct str text, const char *status, json_t *more,
                    struct err *err);
/* ask.c: whether a call may run; with ASK_DENY `result` gets the text of its result and
 * *status its status. */
enum ask_verdict { ASK_GO, ASK_WAIT, ASK_DENY, ASK_BROKEN /* err says why */ };
enum ask_verdict ask_about(struct turn *t, struct call *c, struct buf *result,
                           const char **status, struct err *err);
void ask_cancel(struct turn *t, const char *outcome);
/* What waited too long counts as refused. */
void ask_expire(struct turn *t);
/* The beginning of an approval.requested, for whoever asks. */
json_t *ask_request(struct turn *t, struct call *c, const char *kind, struct str title,
                    struct str why, json_t *options);

/* question.c: ask_user */
bool question_of(struct turn *t, struct call *c); /* sets c->questions */
int question_request(struct turn *t, struct call *c, struct err *err);
/* The text of the result. -ERR_PARSE: an answer is missing, strange or too long. */
int question_answer(const struct call *c, const struct loop_answer *a, struct buf *out,
                    struct err *err);

/* loop_revive.c: a turn that waited for an answer of the user when the daemon ended waits on.
 * *done tells whether it does. */
int loop_revive(struct session *s, bool *done, struct err *err);

#endif
