/*
 * dsml_in.h - the streaming reader's inside, shared by dsml.c (bytes to characters and marks),
 * dsml_states.c (the states) and dsml_args.c (one call's arguments). Nobody else includes it.
 *
 * The window holds what was read and not yet decided: valid UTF-8, in which every literal of
 * the format is one MARK byte. No UTF-8 text contains bytes that high, so a mark cannot be
 * forged by text, and tags become short: '<' MARK "invoke".
 */
#ifndef AGENTD_DSML_IN_H
#define AGENTD_DSML_IN_H

#include "agentd/dsml.h"
#include "agentd/literal.h"
#include "base/limits.h"

#define MARK_FIRST 0xF8
#define MARK_DSML "\xfc" /* MARK_FIRST + LIT_DSML */
_Static_assert(MARK_FIRST + LIT_DSML == 0xFC, "MARK_DSML spells the mark of LIT_DSML");
_Static_assert(MARK_FIRST + LIT_COUNT <= 0x100, "every literal has a byte");

/*
 *             </think>                <..calls>         <..invoke           <..parameter
 *   THINKING -----------> ANSWER ---------------> BLOCK ----------> HEAD --> INVOKE -------> KEY
 *       |                    |                    ^   |                      ^  |             |
 *       |                    | <..invoke          |   | </..calls>  </..param|  | </..invoke  v
 *       +--------------------+--> HEAD            |   v                      |  |           VALUE
 *         a block or invoke ends reasoning too    | AFTER                    +--|-------------+
 *                                                 +-----------------------------+
 *   EOS leads to DONE from everywhere, anything broken to FAULT; both ignore what follows.
 */
enum dsml_state {
    DSML_STATE_THINKING,
    DSML_STATE_ANSWER,
    DSML_STATE_BLOCK,
    DSML_STATE_HEAD,   /* behind "<..invoke": name="N"> */
    DSML_STATE_INVOKE, /* between parameters */
    DSML_STATE_KEY,    /* behind "<..parameter": name="K" string="B"> */
    DSML_STATE_VALUE,
    DSML_STATE_AFTER, /* behind the block */
    DSML_STATE_DONE,
    DSML_STATE_FAULT,
    DSML_N_STATES,
};

enum { DSML_MAX_NOTES = 32 };

struct dsml {
    struct dsml_opts o;
    struct dsml_events ev;
    void *arg;
    enum dsml_state state;

    struct buf raw;    /* owned; fed, not yet in the window */
    size_t raw_at;     /* bytes that left raw: offset of its front in what was fed */
    size_t mark_at;    /* such an offset: the front of the last DSML literal */
    struct buf window; /* owned */
    size_t at;         /* decided up to here */
    bool final;        /* nothing will be added to the window */

    struct buf delta;     /* owned; text to tell, thinking or answer */
    bool delta_thinking;  /* which of the two */
    char last;            /* last character of the answer; '\n' before the first */
    size_t think_bytes;   /* 0 while reasoning goes on */
    bool think_over;      /* a mark may close it at offset 0 */
    bool ended, closed;   /* EOS read; block closed */
    bool in_block;        /* an outer tag was opened */
    bool dropped;         /* text behind the calls was noted */
    uint32_t block_from;  /* calls that started before the block */
    bool bare;            /* this call's tags come without the DSML token */
    uint32_t n_calls, n_started, n_notes;

    /* The call being read. */
    struct buf name, args; /* owned */
    size_t args_told;      /* of args */
    struct buf keys;       /* owned; seen keys, back to back */
    uint32_t key_end[LIMIT_PARAMS_PER_CALL]; /* end of each in keys */
    uint32_t n_keys;
    struct buf value;  /* owned; a value that is judged when it is complete */
    bool value_string; /* string="true" */
    bool value_streams; /* certain as it comes: goes to args directly */
};

/* One step of the state machine; false when it needs more input. */
bool dsml_step(struct dsml *d);

/* Window text from d->at on, and its consumption. */
struct str dsml_rest(const struct dsml *d);
/* Tells the next n bytes of the window as reasoning or text, marks spelled out. */
void dsml_tell(struct dsml *d, size_t n);
void dsml_flush(struct dsml *d);
void dsml_spell(struct buf *out, struct str window);
void dsml_note(struct dsml *d, const char *sentence);
/* Ends the reading: FAULT. call: whether the call being read is what broke. */
void dsml_fault(struct dsml *d, bool call, enum dsml_code code, const char *sentence);

/* --- dsml_args.c ---------------------------------------------------------------------- */

void dsml_call_begin(struct dsml *d, struct str name);
/* False, with the fault told, when the key was there before or there are too many. */
bool dsml_param_begin(struct dsml *d, struct str key, bool string);
void dsml_param_add(struct dsml *d, struct str window);
bool dsml_param_end(struct dsml *d);
void dsml_call_finish(struct dsml *d);

#endif
