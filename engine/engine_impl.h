/* engine_impl.h - what stands behind engine.h's handles; for engine.c and kvfile.c alone.
 */
#ifndef ENGINE_ENGINE_IMPL_H
#define ENGINE_ENGINE_IMPL_H

#include <pthread.h>

#include "engine/engine.h"
#include "engine/forward.h"
#include "engine/hash.h"
#include "engine/residency.h"
#include "engine/sampler.h"
#include "engine/speculate.h"
#include "engine/tokenizer.h"

enum {
    HIDDEN_KEPT = 2
}; /* a verified draft may fall, and then the row before it counts */

struct engine {
    struct weights *w;
    struct tokenizer *tokenizer; /* NULL for a model without one */
    pthread_mutex_t *tokenizing; /* owned; the tokenizer serves one thread at a time */
    struct residency *residency;
    struct pool *pool;
    struct kernel *k;
    struct kvcache *kv;
    struct forward *f;
    struct sampler *sampler;
    struct engine_info info;
    struct hash128
        fingerprint; /* of the weights and everything that shapes cached rows */
    bool mtp;
    enum engine_drafts drafts;
    struct pace pace;
    uint32_t max_batch;
    float *logits, *draft_logits; /* (max_batch, n_vocab) */
    float *mtp_hidden;            /* (max_batch, dim) */
    int32_t *tok;                 /* (max_batch) */
    struct forward_run *run;      /* (max_batch) */
};

/*
 * A timeline. With MTP on, its draft layer's cache holds entries 0..mtp_len-1, where
 * entry i was made of the hidden state at i and token i+1; mtp_len is len-1, or len when
 * a draft has run ahead with `drafted` as the token to come.
 */
struct engine_seq {
    struct engine *e; /* borrowed */
    struct kvseq kv;
    int32_t *tok;  /* owned; n_ctx */
    float *hidden; /* owned; final hidden states of the last n_hidden positions */
    uint32_t n_hidden, mtp_len;
    int32_t drafted;
};

#endif
