/*
 * engine.h - text in, text out; the engine's only face. It knows no client, tool or policy.
 *
 * One engine holds one model. A seq is a KV timeline: token ids at positions 0..len-1 and
 * their cache pages, which forks share until one side writes. engine_step() is the one way
 * forward: it takes runs of tokens from any number of seqs, decode rows and prefill chunks
 * mixed, and a row's result does not depend on what else is in the batch.
 *
 * Threads: one caller at a time (the engine thread); tokenising functions and engine_info()
 * may be called from any thread.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct engine;
struct engine_seq;

enum engine_cache { ENGINE_CACHE_AUTO, ENGINE_CACHE_F32, ENGINE_CACHE_F16, ENGINE_CACHE_BF16,
                    ENGINE_CACHE_FP8,
                    ENGINE_CACHE_F16_I8, /* index keys int8, rotated; latents f16 */
                    ENGINE_CACHE_BF16_I8 /* the same with latents bf16 */ };
enum engine_form { ENGINE_FORM_AUTO, ENGINE_FORM_MHA, ENGINE_FORM_MQA };
/* Which positions a query attends to; anything but INDEXER is for measurements. */
enum engine_select { ENGINE_SELECT_INDEXER, ENGINE_SELECT_DENSE, ENGINE_SELECT_RECENT };

/* Who decides whether engine_speak() drafts; AUTO is the engine, by what it measures. */
enum engine_drafts { ENGINE_DRAFTS_AUTO, ENGINE_DRAFTS_ALWAYS, ENGINE_DRAFTS_NEVER };

struct engine_opts {
    const char *path;        /* GGUF file (first part), or a safetensors folder */
    uint32_t n_threads;      /* 0 = cores from affinity mask and cgroup quota */
    uint32_t n_ctx;          /* longest seq; 0 = the model's */
    uint32_t max_batch;      /* rows of one step; 0 = 512 */
    size_t cache_bytes;      /* all KV pages together; 0 = a quarter of memory */
    /* AUTO: f16 for a model in floats; for a quantised one, whose products are made of
     * rounded activations anyway, bf16 with int8 index keys where it has an indexer. Bf16
     * latents are also multiplied as bf16. */
    enum engine_cache cache;
    enum engine_form form;
    enum engine_select select;
    bool faithful_fp8;       /* round latents through e4m3 as the reference does */
    bool mtp;                /* keep the draft layer's cache, for drafts */
    enum engine_drafts drafts;
    uint64_t memory;         /* bytes that weights may count on; 0 = what is available. A
                                model that is larger has its experts read from disk */
    void (*progress)(void *arg, const char *what, double done); /* 0..1, or NULL */
    void *progress_arg;
};

NODISCARD int engine_open(struct engine **out, const struct engine_opts *o, struct err *err);
void engine_close(struct engine *e);

struct engine_info {
    const char *arch, *name, *path;
    uint32_t n_vocab, n_ctx, n_layers, index_topk; /* index_topk 0 = dense model */
    uint32_t max_batch, n_threads;
    bool has_mtp;
    int32_t bos, eos;         /* -1 = none */
    const int32_t *end;       /* n_ends: every id that ends a text, eos first */
    uint32_t n_ends;
    float temperature, top_p; /* from generation_config, else 1 and 1 */
    char fingerprint[65];     /* hex; ties snapshots to the weights and cache settings */
};
const struct engine_info *engine_info(const struct engine *e);

/* --- text ----------------------------------------------------------------------------- */

struct engine_tokens {
    int32_t *id; /* owned */
    uint32_t n, cap;
};
void engine_tokens_done(struct engine_tokens *t);
/* Appends the ids of `text`. special: literals of added tokens become their ids; without
 * it they are ordinary text, which is the only safe way for anything from outside. */
NODISCARD int engine_tokenize(const struct engine *e, struct str text, bool special,
                              struct engine_tokens *out, struct err *err);
/* The id whose literal text is exactly this added token, or -1. */
int32_t engine_token_id(const struct engine *e, struct str literal);
/* The bytes a token stands for, borrowed from the engine; may end inside a character. */
struct str engine_token_bytes(const struct engine *e, int32_t id);
bool engine_token_is_special(const struct engine *e, int32_t id);

/* --- sequences ------------------------------------------------------------------------ */

NODISCARD int engine_seq_new(struct engine_seq **out, struct engine *e, struct err *err);
void engine_seq_free(struct engine_seq *s);
/* A new seq that shares the first n positions; O(pages). */
NODISCARD int engine_seq_fork(struct engine_seq **out, struct engine_seq *src, uint32_t n,
                              struct err *err);
void engine_seq_truncate(struct engine_seq *s, uint32_t n);
uint32_t engine_seq_len(const struct engine_seq *s);
/* The ids at positions 0..len-1, borrowed until the seq changes. */
const int32_t *engine_seq_tokens(const struct engine_seq *s);
/* Snapshot file: versioned, checksummed, refused for another model or a cut file. */
NODISCARD int engine_seq_save(struct engine_seq *s, const char *path, struct err *err);
NODISCARD int engine_seq_load(struct engine_seq **out, struct engine *e, const char *path,
                              struct err *err);
/* Bytes of KV pages in use and allowed. */
void engine_cache_usage(const struct engine *e, size_t *used, size_t *limit);

/* Where the weights are. Counters are bytes of experts since open; any thread may ask. */
struct engine_memory {
    bool streaming; /* larger than memory: experts come from disk */
    uint64_t weight_bytes, core_bytes, expert_bytes; /* all; what every token reads; the rest */
    uint64_t available, pinned_bytes;
    uint64_t wanted_bytes, present_bytes; /* chosen by the router; of these in memory then */
};
void engine_memory(const struct engine *e, struct engine_memory *out);

/* --- the step ------------------------------------------------------------------------- */

struct engine_work {
    struct engine_seq *seq; /* each seq at most once per step */
    const int32_t *tok;     /* appended at positions len..len+n-1 */
    uint32_t n;
    uint32_t n_logits;   /* how many of the last rows want logits, 0..n */
    const float *logits; /* out: (n_logits, n_vocab), valid until the next step */
};
/* Appends every run and computes. On failure no seq has grown. The sum of n is at most
 * max_batch. -ERR_LIMIT: context or cache pages exhausted, with the seq named by index. */
NODISCARD int engine_step(struct engine *e, struct engine_work *w, uint32_t n_work,
                          struct err *err);

/*
 * Speculation with the model's MTP layer (engine_opts.mtp, info.has_mtp). A draft reads the
 * last row of each seq and `next`, the token chosen to follow it, and guesses the one after:
 *
 *   engine_draft(e, {seq, next}, 1)       -> q, pick d from it
 *   engine_step(seq, [next, d], logits 2) -> p1, p2
 *   engine_sample_verify(p1, q, d)        -> kept: d stands, sample on from p2
 *                                            not:  its result stands instead of d, and
 *                                                  engine_seq_truncate(len - 1)
 *
 * Output is distributed exactly as without drafts; greedy output is the same bytes.
 */
struct engine_draft {
    struct engine_seq *seq; /* each at most once; at least one position long */
    int32_t next;
    const float *logits; /* out: (n_vocab), valid until the next draft */
};
NODISCARD int engine_draft(struct engine *e, struct engine_draft *d, uint32_t n,
                           struct err *err);

/* --- sampling ------------------------------------------------------------------------- */

struct sample_opts {
    float temperature;    /* 0 = greedy, ties to the lowest id */
    float top_p, min_p;   /* 0 = off; top_p 1 = off */
    uint32_t top_k;       /* 0 = off */
    const uint8_t *allow; /* n_vocab bits, bit id%8 of byte id/8; NULL = all */
    uint32_t n_top;       /* alternatives to report, at most SAMPLE_TOP_MAX */
};
enum { SAMPLE_TOP_MAX = 20 };
struct sample_rng {
    uint64_t s[4];
};
struct sample_result {
    int32_t id;
    float logprob; /* under temperature 1, before truncation */
    uint32_t n_top;
    int32_t top_id[SAMPLE_TOP_MAX];
    float top_logprob[SAMPLE_TOP_MAX];
};
void sample_seed(struct sample_rng *rng, uint64_t seed);
NODISCARD int engine_sample(struct engine *e, const float *logits, const struct sample_opts *o,
                            struct sample_rng *rng, struct sample_result *out,
                            struct err *err);
/*
 * Keeps the drafted id with probability min(1, p(id) / q(id)), otherwise samples from
 * max(p - q, 0): together exactly p. q is what the draft was sampled from with the same
 * options (NULL = it was picked greedily). *kept says which; out describes the id under p.
 */
NODISCARD int engine_sample_verify(struct engine *e, const float *p, const float *q,
                                   int32_t draft, const struct sample_opts *o,
                                   struct sample_rng *rng, bool *kept,
                                   struct sample_result *out, struct err *err);

/* --- one timeline, one or two tokens at a time ---------------------------------------- */

/*
 * Appends `last`, chosen but not yet in the seq, and draws what follows: one token, or two
 * where a draft of the MTP layer stood (out[n - 1] is then the next `last`). Every token is
 * drawn from the model's own logits with `rng`, in order: with drafts and without, the same
 * seed gives the same text. Drafting needs engine_opts.mtp and stops at `stop` (-1: none).
 */
struct engine_speech {
    struct engine_seq *seq;
    const struct sample_opts *opts;
    struct sample_rng *rng;
    int32_t last, stop;
    struct sample_result out[2]; /* out */
    uint32_t n;                  /* out: 1 or 2 */
};
NODISCARD int engine_speak(struct engine *e, struct engine_speech *p, struct err *err);

/* What drafting costs and brings here: moving averages over engine_speak()'s steps. */
struct engine_pace {
    double plain_seconds, pair_seconds; /* of a step; a draft and its two-row step */
    double kept_share;
    uint64_t n_plain, n_pairs, n_kept;
    bool drafting; /* the next step would */
};
void engine_pace(const struct engine *e, struct engine_pace *out);

#endif
