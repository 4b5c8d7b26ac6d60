/*
 * engine.c - the face: opening a model, seqs, the step, drafts. Everything is sized here,
 * at open; a step and a draft allocate nothing.
 */
#include "engine/engine.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/engine_impl.h"

/* --- opening
 * ------------------------------------------------------------------------------- */

static void fill_info(struct engine *e, const struct engine_opts *o)
{
    const struct hparams *hp = &e->w->hp;
    e->info = (struct engine_info){
        .arch = hp->arch,
        .name = e->w->name,
        .path = e->w->path,
        .n_vocab = hp->n_vocab,
        .n_ctx = o->n_ctx ? o->n_ctx : hp->n_ctx,
        .n_layers = hp->n_layers,
        .index_topk = hp->index_topk,
        .max_batch = e->max_batch,
        .n_threads = pool_threads(e->pool),
        .has_mtp = hp->n_mtp_layers > 0,
        .bos = hp->bos,
        .eos = hp->eos,
        .end = hp->end,
        .n_ends = hp->n_ends,
        .temperature = hp->temperature,
        .top_p = hp->top_p,
    };
}

/* Cached rows are good for another engine exactly when this is the same. */
static void fingerprint(struct engine *e, const struct engine_opts *o)
{
    struct hash128 weights;
    memcpy(&weights, e->w->fingerprint, sizeof weights);
    uint8_t shape[4] = {(uint8_t)kvcache_type(e->kv), o->faithful_fp8, e->mtp,
                        (uint8_t)o->select};
    e->fingerprint = hash128_more(weights, shape, sizeof shape);
    hash128_hex(weights, e->info.fingerprint);
    hash128_hex(e->fingerprint, e->info.fingerprint + 32);
}

static void tell(const struct engine_opts *o, const char *what, double done)
{
    if (o->progress)
        o->progress(o->progress_arg, what, done);
}

static int open_tokenizer(struct engine *e, uint32_t *n_ids, struct err *err)
{
    *n_ids = e->w->hp.n_vocab;
    int rc = weights_tokenizer(&e->tokenizer, e->w, err);
    if (rc == -ERR_NOTFOUND)
        return 0; /* ids go in and out; text does not */
    if (rc < 0)
        return rc;
    uint32_t n = tokenizer_vocab(e->tokenizer)->n_tokens;
    *n_ids = n < *n_ids ? n : *n_ids;
    return 0;
}

static int open_buffers(struct engine *e, struct err *err)
{
    size_t n = e->max_batch, dim = e->w->hp.dim, logits;
    if (!mem_mul(n * sizeof(float), e->w->hp.n_vocab, &logits))
        return err_nomem(err);
    e->logits = mem_aligned(64, logits);
    e->tok = mem_array(n, sizeof *e->tok);
    e->run = mem_array(n, sizeof *e->run);
    if (e->mtp) {
        e->draft_logits = mem_aligned(64, logits);
        e->mtp_hidden = mem_aligned(64, n * dim * sizeof(float));
    }
    bool ok =
        e->logits && e->tok && e->run && (!e->mtp || (e->draft_logits && e->mtp_hidden));
    return ok ? 0 : err_nomem(err);
}

/* What AUTO means for these weights, as engine.h says. */
static enum engine_cache choose_cache(const struct engine *e, enum engine_cache wanted)
{
    const struct hparams *hp = &e->w->hp;
    const struct kernel_ops *ops = kernel_best();
    const struct tensor *o = &e->w->layer[0].o;
    if (wanted != ENGINE_CACHE_AUTO)
        return wanted;
    if (!ops->pack_bytes(o->type, o->ne[0]))
        return ENGINE_CACHE_F16;
    bool indexed = hp->index_topk && hp->index_head_dim % 4 == 0;
    return indexed ? ENGINE_CACHE_BF16_I8 : ENGINE_CACHE_BF16;
}

static int open_parts(struct engine *e, const struct engine_opts *o, struct err *err)
{
    const struct hparams *hp = &e->w->hp;
    uint32_t n_ids, n_ctx = o->n_ctx ? o->n_ctx : hp->n_ctx;
    if (n_ctx > hp->n_ctx)
        return err_set(
            err, ERR_LIMIT,
            "a context of %u is longer than the model's %u positions; ask for less",
            n_ctx, hp->n_ctx);
    if (o->mtp && !hp->n_mtp_layers)
        return err_set(err, ERR_UNSUPPORTED, "'%s' has no MTP layer to draft with",
                       e->w->path);
    e->mtp = o->mtp;
    e->drafts = o->drafts;
    tell(o, "tokenizer", 0.5);
    int rc = open_tokenizer(e, &n_ids, err);
    if (rc < 0)
        return rc;
    tell(o, "buffers", 0.8);
    struct kvcache_opts kv = {.type = choose_cache(e, o->cache),
                              .bytes = o->cache_bytes,
                              .n_ctx = n_ctx,
                              .mtp = o->mtp,
                              .faithful_fp8 = o->faithful_fp8};
    struct forward_opts fo = {
        .max_rows = e->max_batch, .n_ctx = n_ctx, .form = o->form, .select = o->select};
    rc = residency_open(&e->residency, e->w, o->memory, err);
    fo.residency = rc == 0 && residency_streams(e->residency) ? e->residency : NULL;
    if (rc == 0)
        rc = pool_open(&e->pool, o->n_threads, err);
    if (rc == 0)
        rc = kernel_open(&e->k, e->w, e->pool, e->max_batch, err);
    if (rc == 0)
        rc = kvcache_open(&e->kv, hp, &kv, err);
    if (rc == 0)
        rc = forward_open(&e->f, e->w, e->k, e->kv, &fo, err);
    if (rc == 0)
        rc = sampler_open(&e->sampler, hp->n_vocab, n_ids, err);
    if (rc == 0)
        rc = open_buffers(e, err);
    return rc;
}

/* A weight file that changed meanwhile explains any result, and spoils a good one. */
static int blame_files(const struct engine *e, int rc, struct err *err)
{
    struct err now = {0};
    if (!e->w || weights_check(e->w, &now) == 0)
        return rc;
    *err = now;
    return -now.code;
}

int engine_open(struct engine **out, const struct engine_opts *o, struct err *err)
{
    struct engine *e = mem_zalloc(sizeof *e);
    if (!e)
        return err_nomem(err);
    e->max_batch = o->max_batch ? o->max_batch : 512;
    tell(o, "weights", 0);
    e->tokenizing = mem_alloc(sizeof *e->tokenizing);
    int rc = e->tokenizing ? 0 : err_nomem(err);
    if (rc == 0) {
        pthread_mutex_init(e->tokenizing, NULL);
        rc = weights_open(&e->w, o->path, err);
    }
    if (rc == 0)
        rc = open_parts(e, o, err);
    rc = blame_files(e, rc, err);
    if (rc < 0) {
        engine_close(e);
        return rc;
    }
    fill_info(e, o);
    fingerprint(e, o);
    tell(o, "ready", 1);
    *out = e;
    return 0;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    sampler_close(e->sampler);
    forward_close(e->f);
    kvcache_close(e->kv);
    kernel_close(e->k);
    pool_close(e->pool);
    tokenizer_free(e->tokenizer);
    residency_close(e->residency);
    weights_close(e->w);
    mem_free(e->logits);
    mem_free(e->draft_logits);
    mem_free(e->mtp_hidden);
    mem_free(e->tok);
    mem_free(e->run);
    if (e->tokenizing)
        pthread_mutex_destroy(e->tokenizing);
    mem_free(e->tokenizing);
    mem_free(e);
}

const struct engine_info *engine_info(const struct engine *e)
{
    return &e->info;
}

void engine_cache_usage(const struct engine *e, size_t *used, size_t *limit)
{
    kvcache_usage(e->kv, used, limit);
}

void engine_memory(const struct engine *e, struct engine_memory *out)
{
    residency_figures(e->residency, out);
}

/* --- text
 * ---------------------------------------------------------------------------------- */

void engine_tokens_done(struct engine_tokens *t)
{
    mem_free(t->id);
    *t = (struct engine_tokens){0};
}

static int push_id(void *arg, int32_t id, struct err *err)
{
    struct engine_tokens *t = arg;
    if (t->n == t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 256;
        int32_t *grown = cap > t->cap ? mem_resize(t->id, cap, sizeof *grown) : NULL;
        if (!grown)
            return err_nomem(err);
        t->id = grown;
        t->cap = cap;
    }
    t->id[t->n++] = id;
    return 0;
}

int engine_tokenize(const struct engine *e, struct str text, bool special,
                    struct engine_tokens *out, struct err *err)
{
    if (!e->tokenizer)
        return err_set(err, ERR_STATE, "'%s' holds no tokenizer: it takes token ids only",
                       e->w->path);
    pthread_mutex_lock(e->tokenizing);
    int rc = tokenizer_encode(e->tokenizer, text, special, push_id, out, err);
    pthread_mutex_unlock(e->tokenizing);
    return rc;
}

int32_t engine_token_id(const struct engine *e, struct str literal)
{
    return e->tokenizer ? tokenizer_find(e->tokenizer, literal) : -1;
}

struct str engine_token_bytes(const struct engine *e, int32_t id)
{
    return e->tokenizer ? tokenizer_bytes(e->tokenizer, id) : (struct str){"", 0};
}

bool engine_token_is_special(const struct engine *e, int32_t id)
{
    if (!e->tokenizer)
        return false;
    enum token_type type = tokenizer_type(e->tokenizer, id);
    return type == TOKEN_CONTROL || type == TOKEN_USER;
}

/* --- sequences
 * ----------------------------------------------------------------------------- */

int engine_seq_new(struct engine_seq **out, struct engine *e, struct err *err)
{
    struct engine_seq *s = mem_zalloc(sizeof *s);
    if (!s)
        return err_nomem(err);
    s->e = e;
    s->drafted = -1;
    s->tok = mem_alloc(e->info.n_ctx * sizeof *s->tok);
    s->hidden = mem_array((size_t)HIDDEN_KEPT * e->w->hp.dim, sizeof *s->hidden);
    int rc = s->tok && s->hidden ? kvseq_init(&s->kv, e->kv, err) : err_nomem(err);
    if (rc < 0) {
        engine_seq_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void engine_seq_free(struct engine_seq *s)
{
    if (!s)
        return;
    kvseq_done(&s->kv);
    mem_free(s->tok);
    mem_free(s->hidden);
    mem_free(s);
}

/* Forgets what was known about positions from n on; s->kv.len is still the old length. */
static void forget_drafts(struct engine_seq *s, uint32_t n)
{
    uint32_t first = s->kv.len - s->n_hidden; /* position of hidden row 0 */
    s->n_hidden = n > first ? n - first : 0;
    s->mtp_len = n && s->mtp_len > n - 1 ? n - 1 : n ? s->mtp_len : 0;
    s->drafted = -1;
}

int engine_seq_fork(struct engine_seq **out, struct engine_seq *src, uint32_t n,
                    struct err *err)
{
    if (n > src->kv.len)
        return err_set(err, ERR_LIMIT, "cannot fork at %u: the seq has %u positions", n,
                       src->kv.len);
    struct engine_seq *s = NULL;
    int rc = engine_seq_new(&s, src->e, err);
    if (rc < 0)
        return rc;
    memcpy(s->tok, src->tok, n * sizeof *s->tok);
    memcpy(s->hidden, src->hidden,
           (size_t)HIDDEN_KEPT * src->e->w->hp.dim * sizeof *s->hidden);
    s->n_hidden = src->n_hidden;
    s->mtp_len = src->mtp_len;
    s->kv.len = src->kv.len;
    if (n < src->kv.len)
        forget_drafts(s, n);
    else if (s->mtp_len == n && n)
        s->mtp_len = n - 1; /* the draft that ran ahead is the other side's */
    kvseq_fork(&s->kv, &src->kv, n);
    *out = s;
    return 0;
}

void engine_seq_truncate(struct engine_seq *s, uint32_t n)
{
    if (n >= s->kv.len)
        return;
    forget_drafts(s, n);
    kvseq_truncate(&s->kv, n);
}

uint32_t engine_seq_len(const struct engine_seq *s)
{
    return s->kv.len;
}

const int32_t *engine_seq_tokens(const struct engine_seq *s)
{
    return s->tok;
}

/* --- the step
 * ------------------------------------------------------------------------------ */

static int check_work(const struct engine *e, const struct engine_work *w,
                      uint32_t n_work, struct err *err)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < n_work; i++) {
        rows += w[i].n;
        if (w[i].n == 0 || w[i].n_logits > w[i].n)
            return err_set(err, ERR_STATE, "seq %u: a run of %u rows with %u logits", i,
                           w[i].n, w[i].n_logits);
        if (w[i].n > e->info.n_ctx - w[i].seq->kv.len)
            return err_set(err, ERR_LIMIT,
                           "seq %u: %u positions and %u more exceed the context of %u", i,
                           w[i].seq->kv.len, w[i].n, e->info.n_ctx);
        for (uint32_t j = 0; j < w[i].n; j++)
            if (w[i].tok[j] < 0 || (uint32_t)w[i].tok[j] >= e->info.n_vocab)
                return err_set(err, ERR_LIMIT, "seq %u: token id %d is not in 0..%u", i,
                               w[i].tok[j], e->info.n_vocab - 1);
        for (uint32_t j = 0; j < i; j++)
            if (w[j].seq == w[i].seq)
                return err_set(err, ERR_STATE, "seqs %u and %u are the same", j, i);
    }
    if (rows > e->max_batch)
        return err_set(err, ERR_LIMIT, "%llu rows exceed a batch of %u",
                       (unsigned long long)rows, e->max_batch);
    return 0;
}

static void give_back(struct engine_work *w, uint32_t n_work)
{
    for (uint32_t i = 0; i < n_work; i++)
        kvseq_truncate(&w[i].seq->kv, w[i].seq->kv.len);
}

/* The hidden state at the last position, or zeros where a truncation lost it: drafts may
 * be a little worse there, output is the same. */
static void last_hidden(const struct engine_seq *s, float *out)
{
    size_t dim = s->e->w->hp.dim;
    if (s->n_hidden)
        memcpy(out, s->hidden + (s->n_hidden - 1) * dim, dim * sizeof *out);
    else
        memset(out, 0, dim * sizeof *out);
}

/* Keeps the last hidden states of a run of n rows. */
static void keep_hidden(struct engine_seq *s, const float *rows, uint32_t n)
{
    size_t dim = s->e->w->hp.dim;
    if (n == 1 && s->n_hidden) {
        memmove(s->hidden, s->hidden + (s->n_hidden - 1) * dim, dim * sizeof *s->hidden);
        memcpy(s->hidden + dim, rows, dim * sizeof *rows);
        s->n_hidden = 2;
        return;
    }
    uint32_t m = n < HIDDEN_KEPT ? n : HIDDEN_KEPT;
    memcpy(s->hidden, rows + (n - m) * dim, m * dim * sizeof *rows);
    s->n_hidden = m;
}

/*
 * Fills the draft layer's cache behind a step, before lengths change: entry len-1, which
 * now knows its next token, and entries len..len+n-2. The new hidden states are kept on
 * the way.
 */
static int fill_drafts(struct engine *e, struct engine_work *w, uint32_t n_work,
                       struct err *err)
{
    size_t dim = e->w->hp.dim;
    uint32_t rows = 0, n_runs = 0, row = 0;
    for (uint32_t i = 0; i < n_work; row += w[i].n, i++) {
        struct engine_seq *s = w[i].seq;
        uint32_t len = s->kv.len, first = rows;
        bool ahead = len == 0 || (s->mtp_len == len && s->drafted == w[i].tok[0]);
        if (!ahead) {
            last_hidden(s, e->mtp_hidden + rows * dim);
            e->tok[rows++] = w[i].tok[0];
        }
        for (uint32_t j = 0; j + 1 < w[i].n; j++) {
            memcpy(e->mtp_hidden + rows * dim, e->f->hidden + (row + j) * dim,
                   dim * sizeof(float));
            e->tok[rows++] = w[i].tok[j + 1];
        }
        if (rows > first)
            e->run[n_runs++] =
                (struct forward_run){&s->kv, first, rows - first, ahead ? len : len - 1};
        keep_hidden(s, e->f->hidden + row * dim, w[i].n);
    }
    int rc = rows ? forward_mtp(e->f, e->run, n_runs, e->tok, e->mtp_hidden, err) : 0;
    for (uint32_t i = 0; i < n_work; i++) {
        struct engine_seq *s = w[i].seq;
        s->drafted = -1;
        if (rc == 0) {
            s->mtp_len = s->kv.len + w[i].n - 1;
        } else {
            s->n_hidden = 0;
            s->mtp_len = s->kv.len ? s->kv.len - 1 : 0;
        }
    }
    return rc;
}

/* One product with the head for all rows that want logits. */
static void compute_logits(struct engine *e, struct engine_work *w, uint32_t n_work)
{
    size_t dim = e->w->hp.dim;
    float *gather = e->f->a; /* free between passes */
    uint32_t n = 0;
    for (uint32_t i = 0, row = 0; i < n_work; row += w[i].n, i++) {
        uint32_t m = w[i].n_logits;
        memcpy(gather + n * dim, e->f->hidden + (row + w[i].n - m) * dim,
               m * dim * sizeof *gather);
        w[i].logits = e->logits + (size_t)n * e->info.n_vocab;
        n += m;
    }
    if (n)
        forward_head(e->f, &e->w->head, gather, n, e->logits);
}

int engine_step(struct engine *e, struct engine_work *w, uint32_t n_work, struct err *err)
{
    int rc = check_work(e, w, n_work, err);
    if (rc < 0 || n_work == 0)
        return rc;
    uint32_t rows = 0;
    for (uint32_t i = 0; i < n_work; i++) {
        struct kvseq *kv = &w[i].seq->kv;
        /* The draft layer's entry before the first new position is written too. */
        uint32_t from = kv->len - (e->mtp && kv->len ? 1 : 0);
        rc = kvseq_reserve(kv, from, kv->len + w[i].n, err);
        if (rc < 0) {
            give_back(w, n_work);
            return err_prefix(err, "seq %u", i);
        }
        memcpy(e->tok + rows, w[i].tok, w[i].n * sizeof *e->tok);
        memcpy(w[i].seq->tok + kv->len, w[i].tok, w[i].n * sizeof *e->tok);
        e->run[i] = (struct forward_run){kv, rows, w[i].n, kv->len};
        rows += w[i].n;
    }
    rc = forward_main(e->f, e->run, n_work, e->tok, err);
    if (rc == 0) {
        compute_logits(e, w, n_work);
        if (e->mtp)
            rc = fill_drafts(e, w, n_work, err);
    }
    rc = blame_files(e, rc, err);
    if (rc < 0) {
        give_back(w, n_work);
        return rc;
    }
    for (uint32_t i = 0; i < n_work; i++)
        w[i].seq->kv.len += w[i].n;
    return 0;
}

int engine_draft(struct engine *e, struct engine_draft *d, uint32_t n, struct err *err)
{
    if (!e->mtp)
        return err_set(err, ERR_STATE, "drafts need engine_opts.mtp at open");
    if (n > e->max_batch)
        return err_set(err, ERR_LIMIT, "%u drafts exceed a batch of %u", n, e->max_batch);
    size_t dim = e->w->hp.dim;
    for (uint32_t i = 0; i < n; i++) {
        struct engine_seq *s = d[i].seq;
        if (s->kv.len == 0 || d[i].next < 0 || (uint32_t)d[i].next >= e->info.n_vocab)
            return err_set(err, ERR_LIMIT,
                           "seq %u: no draft for token %d after %u positions", i,
                           d[i].next, s->kv.len);
        int rc = kvseq_reserve(&s->kv, s->kv.len - 1, s->kv.len, err);
        if (rc < 0)
            return err_prefix(err, "seq %u", i);
        last_hidden(s, e->mtp_hidden + i * dim);
        e->tok[i] = d[i].next;
        e->run[i] = (struct forward_run){&s->kv, i, 1, s->kv.len - 1};
    }
    if (n == 0)
        return 0;
    int rc = forward_mtp(e->f, e->run, n, e->tok, e->mtp_hidden, err);
    if (rc < 0)
        return rc;
    forward_head(e->f, &e->w->mtp.head, e->f->hidden, n, e->draft_logits);
    rc = blame_files(e, 0, err);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < n; i++) {
        d[i].logits = e->draft_logits + (size_t)i * e->info.n_vocab;
        d[i].seq->mtp_len = d[i].seq->kv.len;
        d[i].seq->drafted = d[i].next;
    }
    return 0;
}

/* --- sampling
 * ------------------------------------------------------------------------------ */

int engine_sample(struct engine *e, const float *logits, const struct sample_opts *o,
                  struct sample_rng *rng, struct sample_result *out, struct err *err)
{
    return sampler_pick(e->sampler, logits, o, rng, out, err);
}

int engine_sample_verify(struct engine *e, const float *p, const float *q, int32_t draft,
                         const struct sample_opts *o, struct sample_rng *rng, bool *kept,
                         struct sample_result *out, struct err *err)
{
    return sampler_verify(e->sampler, p, q, draft, o, rng, kept, out, err);
}

/* --- looking at a pass
 * --------------------------------------------------------------------- */

void model_watch_selection(struct engine *e, model_selected_fn *fn, void *arg)
{
    e->f->watch = fn;
    e->f->watch_arg = arg;
}

int model_mtp_logits(struct engine *e, const int32_t *tok, uint32_t n,
                     model_logits_fn *fn, void *arg, struct err *err)
{
    struct engine_seq *s = NULL;
    int rc = engine_seq_new(&s, e, err);
    for (uint32_t i = 0; rc == 0 && i + 1 < n; i++) {
        struct engine_work w = {.seq = s, .tok = tok + i, .n = 1};
        struct engine_draft d = {.seq = s, .next = tok[i + 1]};
        rc = engine_step(e, &w, 1, err);
        if (rc == 0)
            rc = engine_draft(e, &d, 1, err);
        if (rc == 0)
            rc = fn(arg, i, d.logits, err);
    }
    engine_seq_free(s);
    return rc;
}
