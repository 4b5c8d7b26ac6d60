/*
 * infer_model.h - what a token engine must offer to the scheduler of infer_sched.c. The
 * native engine and the scripted one are two rows of this table. All but the text
 * functions are called on the engine's thread alone.
 */
#ifndef AGENTD_INFER_MODEL_H
#define AGENTD_INFER_MODEL_H

#include "agentd/grammar.h"
#include "agentd/infer.h"

struct infer_row { /* one session's part of a step */
    void *seq;
    const int32_t *tok; /* to append */
    uint32_t n;
    bool sample;      /* these tokens complete the prompt or continue the reply: sample */
    uint32_t n_prompt; /* tokens of the job's prompt */
    uint64_t rng[4];   /* sampler state of the job */
    const struct infer_sampling *sampling;
    struct grammar_run *run; /* holds the sampler to the format, or NULL */
    void **scratch;    /* the model's own state of this job; freed by job_done */
    /* out */
    int32_t id[8];
    uint32_t n_id;      /* 0 = nothing yet, see not_before */
    int64_t not_before; /* monotonic ns: ask again then (tokens were appended) */
    char error[192];    /* this row alone failed; empty = it did not */
    bool retryable;
};

struct infer_model {
    const char *kind;
    bool held; /* sampling can be held to a grammar */
    int (*open)(void **self, const char *where, const struct infer_opts *o,
                _Atomic double *progress, struct err *err);
    void (*close)(void *self);
    void (*info)(void *self, struct infer_info *out);
    int (*tokenize)(void *self, struct str text, bool special, struct tokens *out,
                    struct err *err);
    struct str (*bytes)(void *self, int32_t id);
    bool (*special)(void *self, int32_t id);
    int32_t (*id_of)(void *self, struct str literal); /* -1 = none */
    int (*seq_new)(void *self, void **seq, struct err *err);
    void (*seq_free)(void *seq);
    int (*seq_fork)(void *seq, uint32_t n, void **out, struct err *err);
    void (*seq_truncate)(void *seq, uint32_t n);
    uint32_t (*seq_len)(void *seq);
    const int32_t *(*seq_tokens)(void *seq);
    int (*seq_save)(void *seq, const char *path, struct err *err);
    int (*seq_load)(void *self, void **seq, const char *path, struct err *err);
    void (*cache)(void *self, size_t *used, size_t *limit);
    void (*weights)(void *self, struct infer_weights *out); /* NULL: it has none */
    /* Appends every row's tokens and samples where asked. On failure no seq has grown;
     * -ERR_LIMIT when pages or the window are exhausted, -ERR_CORRUPT when the engine can
     * do no more at all. */
    int (*step)(void *self, struct infer_row *row, uint32_t n, struct err *err);
    void (*seed)(uint64_t rng[4], uint64_t seed);
    void (*job_done)(void *scratch);
};

extern const struct infer_model infer_native, infer_script;

/* What the threads share; defined in infer.c. */
struct infer_core;
/* The scheduler's thread and the remote engine's thread. */
void infer_sched_run(struct infer_core *core);
void infer_remote_run(struct infer_core *core);
int infer_remote_check(const char *url, struct err *err);
/* Main thread: the request's JSON text, so that the engine's thread touches no json_t.
 * *body is owned (mem_free). */
int infer_remote_body(const struct infer_opts *o, const struct infer_request *r, char **body,
                      struct err *err);

#endif
