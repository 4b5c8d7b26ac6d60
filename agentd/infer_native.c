/* infer_native.c - the engine of engine/ as a row of infer_model.h: nothing but glue. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agentd/infer_model.h"
#include "base/mem.h"
#include "engine/engine.h"

enum { STEP_ROWS = 256 };

static void progress(void *arg, const char *what, double done)
{
    (void)what;
    atomic_store((_Atomic double *)arg, done);
}

static int native_open(void **self, const char *where, const struct infer_opts *o,
                       _Atomic double *done, struct err *err)
{
    struct engine *e = NULL;
    struct engine_opts eo = {
        .path = where,
        .n_threads = o->n_threads,
        .n_ctx = o->n_ctx,
        .max_batch = o->max_batch,
        .cache_bytes = o->cache_bytes,
        .progress = progress,
        .progress_arg = done,
    };
    int rc = engine_open(&e, &eo, err);
    if (rc == 0)
        *self = e;
    return rc;
}

static void native_close(void *self)
{
    engine_close(self);
}

static void native_info(void *self, struct infer_info *out)
{
    const struct engine_info *i = engine_info(self);
    snprintf(out->kind, sizeof out->kind, "native");
    snprintf(out->name, sizeof out->name, "%s", i->name && *i->name ? i->name : i->arch);
    snprintf(out->fingerprint, sizeof out->fingerprint, "%s", i->fingerprint);
    out->n_ctx = i->n_ctx;
    out->max_batch = i->max_batch;
    out->n_threads = i->n_threads;
    out->n_vocab = i->n_vocab;
    out->tokens = true;
    out->temperature = i->temperature;
    out->top_p = i->top_p;
    for (uint32_t k = 0; k < i->n_ends && out->n_ends < ARRAY_LEN(out->end); k++)
        out->end[out->n_ends++] = i->end[k];
}

static int native_tokenize(void *self, struct str text, bool special, struct tokens *out,
                           struct err *err)
{
    struct engine_tokens t = {0};
    int rc = engine_tokenize(self, text, special, &t, err);
    if (rc == 0)
        tokens_add(out, t.id, t.n);
    engine_tokens_done(&t);
    return rc;
}

static struct str native_bytes(void *self, int32_t id)
{
    return engine_token_bytes(self, id);
}

static bool native_special(void *self, int32_t id)
{
    return engine_token_is_special(self, id);
}

static int32_t native_id_of(void *self, struct str literal)
{
    return engine_token_id(self, literal);
}

static int native_seq_new(void *self, void **seq, struct err *err)
{
    struct engine_seq *s = NULL;
    int rc = engine_seq_new(&s, self, err);
    *seq = s;
    return rc;
}

static void native_seq_free(void *seq)
{
    engine_seq_free(seq);
}

static int native_seq_fork(void *seq, uint32_t n, void **out, struct err *err)
{
    struct engine_seq *s = NULL;
    int rc = engine_seq_fork(&s, seq, n, err);
    *out = s;
    return rc;
}

static void native_seq_truncate(void *seq, uint32_t n)
{
    engine_seq_truncate(seq, n);
}

static uint32_t native_seq_len(void *seq)
{
    return engine_seq_len(seq);
}

static const int32_t *native_seq_tokens(void *seq)
{
    return engine_seq_tokens(seq);
}

static int native_seq_save(void *seq, const char *path, struct err *err)
{
    return engine_seq_save(seq, path, err);
}

static int native_seq_load(void *self, void **seq, const char *path, struct err *err)
{
    struct engine_seq *s = NULL;
    int rc = engine_seq_load(&s, self, path, err);
    *seq = s;
    return rc;
}

static void native_cache(void *self, size_t *used, size_t *limit)
{
    engine_cache_usage(self, used, limit);
}

static void native_weights(void *self, struct infer_weights *out)
{
    struct engine_memory m;
    engine_memory(self, &m);
    *out = (struct infer_weights){.streaming = m.streaming, .bytes = m.weight_bytes,
                                  .pinned = m.pinned_bytes, .wanted = m.wanted_bytes,
                                  .present = m.present_bytes};
}

/* Negative = the model's own setting. */
static struct sample_opts sampling_of(const struct engine *e, const struct infer_sampling *s)
{
    const struct engine_info *i = engine_info(e);
    struct sample_opts o = {
        .temperature = s->temperature < 0 ? i->temperature : (float)s->temperature,
        .top_p = s->top_p < 0 ? i->top_p : (float)s->top_p,
        .min_p = s->min_p < 0 ? 0 : (float)s->min_p,
        .top_k = s->top_k < 0 ? 0 : (uint32_t)s->top_k,
    };
    return o;
}

static int sample_row(struct engine *e, struct infer_row *r, const float *logits,
                      struct err *err)
{
    struct sample_opts o = sampling_of(e, r->sampling);
    struct sample_result out;
    struct sample_rng rng;
    static_assert(sizeof rng.s == sizeof r->rng, "one sampler state");
    memcpy(rng.s, r->rng, sizeof rng.s);
    if (r->run) {
        o.allow = grammar_run_mask(r->run);
        if (grammar_run_in_syntax(r->run))
            o.temperature = 0; /* tags and names are no matter of style */
    }
    int rc = engine_sample(e, logits, &o, &rng, &out, err);
    if (rc < 0)
        return rc;
    memcpy(r->rng, rng.s, sizeof rng.s);
    r->id[0] = out.id;
    r->n_id = 1;
    return 0;
}

static int native_step(void *self, struct infer_row *row, uint32_t n, struct err *err)
{
    struct engine_work work[STEP_ROWS];
    if (n > STEP_ROWS)
        return err_set(err, ERR_STATE, "a step of %u rows", n);
    for (uint32_t i = 0; i < n; i++)
        work[i] = (struct engine_work){.seq = row[i].seq, .tok = row[i].tok, .n = row[i].n,
                                       .n_logits = row[i].sample ? 1 : 0};
    int rc = engine_step(self, work, n, err);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        if (row[i].sample)
            rc = sample_row(self, &row[i], work[i].logits, err);
    return rc;
}

static void native_seed(uint64_t rng[4], uint64_t seed)
{
    struct sample_rng r;
    sample_seed(&r, seed);
    memcpy(rng, r.s, sizeof r.s);
}

const struct infer_model infer_native = {
    .kind = "native",
    .held = true,
    .open = native_open,
    .close = native_close,
    .info = native_info,
    .tokenize = native_tokenize,
    .bytes = native_bytes,
    .special = native_special,
    .id_of = native_id_of,
    .seq_new = native_seq_new,
    .seq_free = native_seq_free,
    .seq_fork = native_seq_fork,
    .seq_truncate = native_seq_truncate,
    .seq_len = native_seq_len,
    .seq_tokens = native_seq_tokens,
    .seq_save = native_seq_save,
    .seq_load = native_seq_load,
    .cache = native_cache,
    .weights = native_weights,
    .step = native_step,
    .seed = native_seed,
};
