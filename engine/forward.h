/*
 * forward.h - the layers in order, for rows of any number of seqs at once.
 *
 * A batch is a list of runs; a run's rows are consecutive positions of one seq. All state
 * of a pass is the one scratch struct below, sized at open, so that a pass allocates
 * nothing. A row's numbers depend on its seq and, where prefill and decode may differ in
 * the order of additions, on the length of its own run; never on other runs or on
 * threads.
 */
#ifndef ENGINE_FORWARD_H
#define ENGINE_FORWARD_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/kernel/attn.h"
#include "engine/kernel/kernel.h"
#include "engine/kvcache.h"
#include "engine/model.h"
#include "engine/weights.h"

enum {
    SCORE_ROWS = 16, /* queries whose index scores are kept at one time */
};

/* A run: rows first..first+n-1 of the batch are positions pos..pos+n-1 of seq. */
struct forward_run {
    struct kvseq *seq;
    uint32_t first, n, pos;
};

struct forward_opts {
    uint32_t max_rows, n_ctx;
    enum engine_form form;
    enum engine_select select;
    struct residency *residency; /* borrowed; NULL when all weights fit */
    bool masked; /* tests: score every position and mask, instead of gathering */
};

/* A layer's vectors as floats; the matrices stay in the file. */
struct layer_vectors {
    float *attn_norm, *ffn_norm, *q_a_norm, *kv_a_norm;
    float *index_k_norm, *index_k_norm_bias, *router_bias;
};

struct forward {
    const struct weights *w; /* borrowed */
    const struct hparams *hp;
    struct kernel *k; /* borrowed */
    const struct kernel_ops *ops;
    const struct attn_ops *attn;
    struct pool *pool;
    struct forward_opts o;
    struct layer_vectors *vec;
    float *norm, *enorm, *hnorm, *mtp_norm, *freq;
    void *vectors; /* owned: all of the above */

    model_selected_fn *watch;
    void *watch_arg;
    bool rotate;   /* the cache's index keys are Hadamard-rotated */
    bool index_i8; /* and int8 */
    bool bf16;     /* the cache's rows are bf16, and so are the products with them */

    /* The batch. */
    const struct forward_run *run;
    uint32_t n_runs, n_rows;
    uint32_t *row_run, *row_pos; /* (rows) */
    float *cos, *sin;            /* (rows, rope/2) */

    /* Activations, one row each. */
    float *x;    /* (dim) residual stream */
    float *a;    /* (dim) normed input of a block */
    float *y;    /* (dim) output of a block */
    float *cq;   /* (q_lora_rank) then its norm, qr */
    float *q;    /* (n_heads, nope + rope) */
    float *qa;   /* (n_heads, kv_lora_rank + rope) absorbed queries, then in the first
                    kv_lora_rank of each the weighted latents */
    uint16_t *qb; /* (n_heads, kv_lora_rank + rope) queries as bf16, where the cache is */
    float *kv;   /* (kv_lora_rank + rope) */
    float *o_in; /* (n_heads, v) */
    float *iq, *ik,
        *iw; /* (index_n_heads, index_head_dim), (index_head_dim), (index_n_heads) */
    int8_t *iq8; /* (index_n_heads, index_head_dim), where the cache wants them */
    uint32_t *set,
        *n_set;     /* (index_topk) selected positions; SET_ALL = every one so far */
    float *scores;  /* (SCORE_ROWS, score_ld) */
    size_t score_ld; /* n_ctx in whole pages */
    uint64_t *bits; /* (one word per page of n_ctx) which positions a row reads */
    float *parts;   /* attention of single rows, part by part */
    float *router;  /* (n_routed_experts) */
    uint32_t *pick; /* (n_activated_experts) */
    float *weight;
    float *hidden; /* (dim) after the final norm */
    float *pair;   /* (2 dim) embedding and hidden state, the draft layer's input */

    /* Per thread. */
    float *thread; /* n_threads * thread_floats */
    size_t thread_floats;
};
#define SET_ALL UINT32_MAX

NODISCARD int forward_open(struct forward **out, const struct weights *w,
                           struct kernel *k, const struct kvcache *kv,
                           const struct forward_opts *o, struct err *err);
void forward_close(struct forward *f);

/*
 * Runs all layers over the rows and leaves the final norm's output in f->hidden. Pages
 * are reserved; tok has one id per row, below n_vocab. -ERR_CORRUPT when a row is not
 * finite.
 */
NODISCARD int forward_main(struct forward *f, const struct forward_run *run,
                           uint32_t n_runs, const int32_t *tok, struct err *err);
/*
 * The MTP layer over rows: row i reads `hidden` (rows of dim, the final norm's output at
 * its position) and tok[i], the token one further. Output, after shared_head.norm, in
 * f->hidden; `hidden` may be f->hidden itself.
 */
NODISCARD int forward_mtp(struct forward *f, const struct forward_run *run,
                          uint32_t n_runs, const int32_t *tok, const float *hidden,
                          struct err *err);
/* logits (n, n_vocab) of n rows of hidden state. */
void forward_head(struct forward *f, const struct tensor *head, const float *hidden,
                  uint32_t n, float *logits);

/* --- the parts, one file each
 * ------------------------------------------------------------ */

/* f->y = attention of f->a; stores the rows in the cache. */
void mla_layer(struct forward *f, uint32_t layer);
/* Floats of scratch that mla_layer() needs per thread. */
size_t mla_thread_floats(const struct hparams *hp, uint32_t max_rows);
/* Floats of f->parts. */
size_t mla_parts_floats(const struct hparams *hp);
/* f->set, f->n_set of every row, from f->iq, f->iw and the cached index keys. */
void indexer_select(struct forward *f, uint32_t layer);
/* An index query in whole numbers; returns what they must be multiplied by. */
float indexer_round(int8_t *out, const float *q, uint32_t n);
/* Whether this row's scores are made at all. */
bool indexer_scores_row(const struct forward *f, uint32_t row);
/* Positions of the k largest of scores[0..n-1], ascending; ties to the lower position.
 * n > k > 0. Returns nothing: exactly k are written. */
void indexer_topk(const float *scores, uint32_t n, uint32_t k, uint32_t *out);
/* The same by vector kernels; work has room for INDEXER_WORK floats. */
enum { INDEXER_WORK = 8192 };
void indexer_pick(const struct attn_ops *ops, const float *scores, uint32_t n, uint32_t k,
                  uint32_t *out, float *work);
/* f->y = the layer's FFN of f->a. */
void moe_layer(struct forward *f, uint32_t layer);
/* One row: experts ascending and their weights, from router logits. */
void moe_route(const struct hparams *hp, const float *logits, const float *bias,
               uint32_t *pick, float *weight);
/* out = (x - mean) / sqrt(var + 1e-6) * w + b */
void layer_norm(float *out, const float *x, const float *w, const float *b, uint32_t n);

/* Runs fn over the rows of the batch on all threads. */
void forward_rows(struct forward *f, pool_fn *fn, void *arg);

#endif
