/*
 * infer_core.h - the two queues between the main thread and an engine's thread. The mutex
 * of this file is the only one between them.
 */
#ifndef AGENTD_INFER_CORE_H
#define AGENTD_INFER_CORE_H

#include <pthread.h>

#include "agentd/grammar.h"
#include "agentd/id.h"
#include "agentd/infer_model.h"
#include "agentd/stutter.h"

struct infer_grammar {
    struct grammar *g; /* owned */
    atomic_uint refs;
};

enum infer_note_kind {
    NOTE_BEGIN, NOTE_PREFILL, NOTE_TOKENS, NOTE_THINKING, NOTE_TEXT, NOTE_CALL, NOTE_DONE,
};

/* One message from the engine's thread. */
struct infer_note {
    enum infer_note_kind kind;
    struct infer_job *job;
    uint32_t a, b; /* begin: prompt, cached; prefill: done, total; call: index */
    struct infer_result result; /* done; error points into `error` */
    char error[512];
    struct infer_note *next;
    uint32_t n_ids, n_name, n_text;
    /* then ids, name, text */
    int32_t ids[];
};

struct infer_job {
    struct infer *inf;
    struct infer_cbs cbs; /* main thread */
    bool abandoned, done; /* main thread */
    atomic_bool cancel;
    char session[ID_TEXT];
    struct tokens prompt; /* owned */
    char *body;           /* owned; remote: the request as text, written on the main thread */
    struct infer_sampling sampling;
    uint32_t max_tokens, think_max, repeat_max;
    struct infer_grammar *grammar; /* a reference, or NULL */
    bool thinking;
    bool idle, save, peek;
    int64_t queued_ns;
    struct infer_job *next;
    /* the engine's thread only */
    void *seq, *scratch;
    struct grammar_run *run; /* owned; what may come next */
    uint32_t at, cached, made; /* prompt tokens computed; reused; tokens made */
    uint64_t rng[4];
    int32_t feed[8]; /* sampled, not yet appended */
    uint32_t n_feed;
    bool begun, prefilled, closed_think;
    struct stutter stutter; /* of what was sampled */
    int64_t not_before, begun_ns, first_ns;
    struct infer_result result;
};

struct infer_core {
    const struct infer_model *model; /* NULL = remote */
    void *self;                      /* the model's */
    struct infer_opts o;             /* strings owned */
    char *where;                     /* behind the colon of the spec; owned */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct infer_job *jobs, **jobs_end; /* queue in; under the lock, as all below */
    struct infer_note *notes, **notes_end; /* queue out */
    char (*forget)[ID_TEXT]; /* sessions to forget; owned */
    uint32_t n_forget, cap_forget;
    bool stop, poked; /* poked: a cancel flag changed */
    struct infer_load load;
    /* set by the engine's thread before it says ready or dead */
    struct infer_info info;
    char problem[512];
    _Atomic int state; /* enum infer_state */
    _Atomic double progress;
    struct ev_wake *to_main;
};

/* Engine's thread: takes what is queued (waiting until `until` when there is nothing and
 * wait is set; 0 = for ever). Returns false when it must stop. */
bool core_take(struct infer_core *c, struct infer_job **jobs, bool wait, int64_t until);
bool core_take_forget(struct infer_core *c, char out[ID_TEXT]);
void core_state(struct infer_core *c, enum infer_state state);
void core_post(struct infer_core *c, struct infer_job *j, enum infer_note_kind kind, uint32_t a,
               uint32_t b, const int32_t *ids, uint32_t n_ids, struct str name,
               struct str text);
/* The last message of a job; the engine's thread must not touch it afterwards. */
void core_finish(struct infer_core *c, struct infer_job *j, enum infer_end end,
                 const char *error, bool retryable);
void core_load(struct infer_core *c, const struct infer_load *l);

#endif
