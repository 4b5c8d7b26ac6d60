/*
 * infer.h - engines behind one face, seen from the main thread.
 *
 * A job is one generation for one session. Jobs go through a queue to the engine's own
 * thread, what they produce comes back through another and is delivered on the loop's
 * thread; a cancel flag is the third thing that crosses. Token engines (native, script)
 * share the scheduler of infer_sched.c: continuous batching, fair by session, one KV
 * timeline per session that is reused as far as its tokens agree with the prompt. The
 * remote engine (infer_remote.c) sends messages and gets back what it already parsed.
 */
#ifndef AGENTD_INFER_H
#define AGENTD_INFER_H

#include <stdatomic.h>

#include "agentd/ev.h"
#include "base/buf.h"
#include "base/json.h"

struct infer;
struct infer_job;

struct tokens { /* growable ids; failure is sticky as in buf.h */
    int32_t *id; /* owned */
    uint32_t n, cap;
    bool failed;
};
void tokens_add(struct tokens *t, const int32_t *id, uint32_t n);
void tokens_reset(struct tokens *t);
void tokens_done(struct tokens *t);

struct infer_opts {
    const char *spec;      /* native:PATH, script:FILE, remote:URL */
    const char *kv_dir;    /* KV snapshots; NULL = none */
    uint32_t n_threads, n_ctx, max_batch; /* 0 = the engine's choice */
    size_t cache_bytes;
    /* remote only */
    const char *model, *key_file; /* key_file: the bearer token, mode 0600 */
    int64_t timeout_ns, stall_ns; /* whole request; between two bytes */
};

struct infer_info {
    char kind[16], name[128], fingerprint[80];
    uint32_t n_ctx, max_batch, n_threads, n_vocab;
    bool tokens;  /* prompts are token ids; else messages */
    float temperature, top_p;
    int32_t end[8]; /* ids besides the format's own that end a text */
    uint32_t n_ends;
};

enum infer_state { INFER_LOADING, INFER_READY, INFER_DEAD };

/* Starts loading in the background; fails at once only for a spec it cannot read. */
NODISCARD int infer_open(struct infer **out, struct ev *ev, const struct infer_opts *o,
                         void (*on_state)(void *arg), void *arg, struct err *err);
void infer_close(struct infer *inf); /* every job ends as cancelled first */
enum infer_state infer_state(const struct infer *inf);
const char *infer_problem(const struct infer *inf); /* why it is dead, else "" */
double infer_progress(const struct infer *inf);     /* of loading, 0..1 */
/* Valid once READY. */
const struct infer_info *infer_info(const struct infer *inf);

/* Any thread once READY. */
NODISCARD int infer_tokenize(struct infer *inf, struct str text, bool special,
                             struct tokens *out, struct err *err);
struct str infer_token_bytes(struct infer *inf, int32_t id);
bool infer_token_special(struct infer *inf, int32_t id);

struct infer_sampling {
    double temperature, top_p, min_p; /* negative = the model's own */
    int64_t top_k;
    uint64_t seed;
};

enum infer_end {
    INFER_END_STOP,      /* the model ended its message */
    INFER_END_LENGTH,    /* max_tokens reached */
    INFER_END_CONTEXT,   /* the model's window is full */
    INFER_END_CANCELLED,
    INFER_END_ERROR,     /* sentence in result.error */
    INFER_END_REPEAT,    /* the reply went round in circles: result.block */
};

struct infer_result {
    enum infer_end end;
    const char *error; /* borrowed until the callback returns */
    bool retryable;    /* the same job may succeed later */
    int64_t retry_ns;  /* with it: how much later, where the engine said so; else 0 */
    uint32_t prompt, cached, completion; /* tokens */
    uint32_t block; /* with REPEAT: tokens that came again and again */
    int64_t queued_ns, prefill_ns, decode_ns;
};

/* Called on the loop's thread; any may be NULL. */
struct infer_cbs {
    /* The prompt is about to be computed: `cached` of its tokens already are. */
    void (*begin)(void *arg, uint32_t prompt, uint32_t cached);
    void (*prefill)(void *arg, uint32_t done, uint32_t total);
    /* Token engines: ids and their bytes, the stop token included. */
    void (*tokens)(void *arg, const int32_t *id, uint32_t n);
    /* Remote: parsed pieces. call: index, and what is new of its name and arguments. */
    void (*thinking)(void *arg, struct str delta);
    void (*text)(void *arg, struct str delta);
    void (*call)(void *arg, unsigned index, struct str name, struct str args_delta);
    void (*done)(void *arg, const struct infer_result *r); /* exactly once, last */
    void *arg;
};

/*
 * Calls held to their schemas while they are sampled (native engine). Compiled once for a
 * list of tools, shared by jobs, freed with its last user. NULL where it cannot be done.
 */
struct infer_grammar;
struct infer_grammar *infer_grammar_new(const struct str *tools, uint32_t n);
void infer_grammar_unref(struct infer_grammar *g);
/* What the schema allows for a parameter: bits of enum dsml_types; 0 = unknown. */
unsigned infer_grammar_types(const struct infer_grammar *g, struct str tool, struct str key);

struct infer_request {
    const char *session; /* fairness and KV timelines go by it */
    const int32_t *ids;  /* token engines: the prompt; copied */
    uint32_t n_ids;
    const json_t *messages, *tools; /* remote; read during the call */
    struct infer_sampling sampling;
    uint32_t max_tokens;
    uint32_t think_max;  /* after so many tokens without </think> it is forced; 0 = never */
    uint32_t repeat_max; /* ends as REPEAT when so many are one short block; 0 = never */
    struct infer_grammar *grammar; /* or NULL; the job takes a reference of its own */
    bool thinking; /* the prompt opens a thought */
    bool idle;   /* prefill only, when nothing else runs; preempted by any other job */
    bool peek;   /* compute nothing: tokens() gets the session's best timeline, and the result's
                    `cached` says how much of it agrees with the prompt */
    bool save;   /* with idle: write a KV snapshot afterwards */
};
/* -ERR_LIMIT: the queue is full. -ERR_STATE: the engine is not ready. */
NODISCARD int infer_start(struct infer_job **out, struct infer *inf,
                          const struct infer_request *r, const struct infer_cbs *cbs,
                          struct err *err);
/* The job ends as cancelled at the next token; done() still comes. */
void infer_cancel(struct infer_job *job);
/* No callback comes any more; the caller forgets the job. */
void infer_abandon(struct infer_job *job);

/* The session is gone: its KV timelines and snapshots too. */
void infer_forget(struct infer *inf, const char *session);

struct infer_load {
    unsigned waiting, running; /* jobs */
    uint64_t prompt_tokens, cached_tokens, completion_tokens, steps;
    size_t kv_used, kv_limit;
    unsigned kv_seqs;
    struct infer_weights {
        bool streaming; /* larger than memory: experts come from disk */
        uint64_t bytes, pinned;
        uint64_t wanted, present; /* bytes of experts chosen; of these in memory then */
    } weights; /* all 0 where the engine has none */
};
void infer_load(struct infer *inf, struct infer_load *out);

#endif
