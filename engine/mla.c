/*
 * mla.c - multi-head latent attention over the cached latents, absorbed and expanded.
 *
 *   absorbed (MQA)  z = scale * ((UK^T q_nope) . c + q_pe . k_pe),  o = UV (sum p c)
 *   expanded (MHA)  z = scale * (q_nope . (UK c) + q_pe . k_pe),    o = sum p (UV c)
 *
 * Equal in exact arithmetic. Absorbed reads one shared row per position and suits
 * decoding; expanded pays for each key once per chunk and then a third per pair. Either
 * walks the selected positions in tiles with a running maximum, so that scratch does not
 * grow with the context; tiles begin at fixed places, so that no chunking moves an
 * addition.
 */
#include <math.h>
#include <string.h>

#include "engine/forward.h"
#include "engine/rope.h"

enum {
    HEADS_MAX = 16,    /* heads that one absorbed task carries */
    ALWAYS_ABSORB = 8, /* runs this short are decode or verification */
};

/* Running softmax of one query: maximum, sum of exponentials, weighted sum of rows. */
struct running {
    float max, sum;
    float *acc;
};

/* --- projections
 * ------------------------------------------------------------------------- */

struct project_job {
    struct forward *f;
    uint32_t layer;
};

/* After the first matrices: norms, rotary key, and into the cache. */
static void norm_and_store(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    (void)thread;
    struct project_job *j = arg;
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    const struct layer_vectors *v = &f->vec[j->layer];
    uint32_t rank = hp->kv_lora_rank, half = hp->qk_rope_head_dim / 2;
    for (uint64_t i = first; i < last; i++) {
        const struct forward_run *run = &f->run[f->row_run[i]];
        const float *cos = f->cos + i * half, *sin = f->sin + i * half;
        if (hp->q_lora_rank) {
            float *cq = f->cq + i * hp->q_lora_rank;
            f->ops->rmsnorm(cq, cq, v->q_a_norm, hp->q_lora_rank, hp->latent_norm_eps);
        }
        float *kv = f->kv + i * (rank + 2 * half);
        f->ops->rmsnorm(kv, kv, v->kv_a_norm, rank, hp->latent_norm_eps);
        rope_pairs(kv + rank, cos, sin, half);
        kvseq_put(run->seq, j->layer, f->row_pos[i], kv);
        if (!hp->index_topk || !hp->index_full[j->layer])
            continue;
        float *ik = f->ik + i * hp->index_head_dim;
        layer_norm(ik, ik, v->index_k_norm, v->index_k_norm_bias, hp->index_head_dim);
        (hp->index_rope_pairs ? rope_pairs : rope_halves)(ik, cos, sin, half);
        if (f->rotate)
            hadamard(ik, hp->index_head_dim);
        kvseq_put_index(run->seq, j->layer, f->row_pos[i], ik);
    }
}

/* After the second matrices: rotary parts of queries and index queries. */
static void rotate_queries(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    (void)thread;
    struct project_job *j = arg;
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    uint32_t half = hp->qk_rope_head_dim / 2, nope = hp->qk_nope_head_dim;
    uint32_t width = nope + 2 * half, idim = hp->index_head_dim;
    bool index = hp->index_topk && hp->index_full[j->layer];
    float scale = index ? 1.0f / sqrtf((float)hp->index_n_heads * (float)idim) : 0;
    for (uint64_t i = first; i < last; i++) {
        const float *cos = f->cos + i * half, *sin = f->sin + i * half;
        for (uint32_t h = 0; h < hp->n_heads; h++)
            rope_pairs(f->q + (i * hp->n_heads + h) * width + nope, cos, sin, half);
        for (uint32_t h = 0; index && h < hp->index_n_heads; h++) {
            float *iq = f->iq + (i * hp->index_n_heads + h) * idim;
            (hp->index_rope_pairs ? rope_pairs : rope_halves)(iq, cos, sin, half);
            if (f->rotate)
                hadamard(iq, idim);
            f->iw[i * hp->index_n_heads + h] *= scale;
        }
    }
}

static void project(struct forward *f, uint32_t layer)
{
    const struct hparams *hp = f->hp;
    const struct layer_weights *w = &f->w->layer[layer];
    struct kernel_part part[KERNEL_PARTS_MAX];
    struct project_job j = {f, layer};
    uint32_t n = 0, n_q = hp->n_heads * (hp->qk_nope_head_dim + hp->qk_rope_head_dim);
    bool index = hp->index_topk && hp->index_full[layer];
    part[n++] =
        (struct kernel_part){.w = &w->kv_a, .y = f->kv,
                             .ldy = hp->kv_lora_rank + hp->qk_rope_head_dim};
    if (hp->q_lora_rank)
        part[n++] = (struct kernel_part){.w = &w->q_a, .y = f->cq, .ldy = hp->q_lora_rank};
    else
        part[n++] = (struct kernel_part){.w = &w->q, .y = f->q, .ldy = n_q};
    if (index) {
        part[n++] = (struct kernel_part){.w = &w->index_k, .y = f->ik,
                                         .ldy = hp->index_head_dim};
        part[n++] = (struct kernel_part){.w = &w->index_proj, .y = f->iw,
                                         .ldy = hp->index_n_heads, .exact = true};
    }
    kernel_matmul_parts(f->k, part, n, f->a, hp->dim, f->n_rows);
    forward_rows(f, norm_and_store, &j);
    n = 0;
    if (hp->q_lora_rank)
        part[n++] = (struct kernel_part){.w = &w->q_b, .y = f->q, .ldy = n_q};
    if (index)
        part[n++] = (struct kernel_part){.w = &w->index_q_b, .y = f->iq,
                                         .ldy = hp->index_n_heads * hp->index_head_dim};
    if (n)
        kernel_matmul_parts(f->k, part, n, f->cq, hp->q_lora_rank, f->n_rows);
    forward_rows(f, rotate_queries, &j);
}

/* --- softmax over tiles
 * ------------------------------------------------------------------ */

/* Adds n rows (stride ldv, width dv) whose scores are z; z is overwritten. */
static void running_add(const struct kernel_ops *ops, struct running *r, float *z,
                        uint32_t n, const float *v, size_t ldv, uint32_t dv)
{
    float max = r->max;
    for (uint32_t i = 0; i < n; i++)
        max = z[i] > max ? z[i] : max;
    if (max == -INFINITY)
        return;
    if (max > r->max && r->max > -INFINITY) {
        float shrink = expf(r->max - max);
        r->sum *= shrink;
        for (uint32_t c = 0; c < dv; c++)
            r->acc[c] *= shrink;
    }
    r->max = max;
    r->sum += ops->exp_sum(z, n, max);
    for (uint32_t i = 0; i < n; i++)
        if (z[i] != 0)
            ops->axpy(r->acc, z[i], v + i * ldv, dv);
}

/* Which positions row `i` reads: its set, or NULL and the count of all so far. */
static const uint32_t *row_set(const struct forward *f, uint64_t i, uint32_t *n)
{
    bool all = !f->hp->index_topk || f->n_set[i] == SET_ALL;
    *n = all ? f->row_pos[i] + 1 : f->n_set[i];
    return all ? NULL : f->set + i * f->hp->index_topk;
}

/* --- absorbed
 * ---------------------------------------------------------------------------- */

struct mla_job {
    struct forward *f;
    uint32_t layer, first, n;      /* rows of the batch */
    uint32_t heads;                /* per task */
    const struct forward_run *run; /* expanded form only */
};

/* Head h's rows of UK (nope) and UV (v), where the file keeps them together. */
static struct tensor joint_uk(const struct hparams *hp, const struct layer_weights *w,
                              uint32_t h)
{
    uint32_t rows = hp->qk_nope_head_dim + hp->v_head_dim;
    return tensor_rows(&w->kv_b, (uint64_t)h * rows, hp->qk_nope_head_dim);
}

static struct tensor head_uv(const struct hparams *hp, const struct layer_weights *w,
                             uint32_t h)
{
    if (tensor_exists(&w->v_b))
        return tensor_rows(&w->v_b, (uint64_t)h * hp->v_head_dim, hp->v_head_dim);
    uint32_t rows = hp->qk_nope_head_dim + hp->v_head_dim;
    return tensor_rows(&w->kv_b, (uint64_t)h * rows + hp->qk_nope_head_dim,
                       hp->v_head_dim);
}

static void absorb_heads(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct mla_job *j = arg;
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    const struct layer_weights *w = &f->w->layer[j->layer];
    uint32_t rank = hp->kv_lora_rank, nope = hp->qk_nope_head_dim;
    size_t ldq = (size_t)hp->n_heads * (nope + hp->qk_rope_head_dim);
    size_t lda = (size_t)hp->n_heads * rank;
    float *row = f->thread + thread * f->thread_floats;
    for (uint64_t h = first; h < last; h++) {
        const float *q = f->q + j->first * ldq + h * (nope + hp->qk_rope_head_dim);
        float *qa = f->qa + j->first * lda + h * rank;
        if (tensor_exists(&w->k_b)) {
            struct tensor k = tensor_rows(&w->k_b, h * rank, rank);
            kernel_matmul_local(f->k, thread, &k, q, ldq, j->n, qa, lda);
            continue;
        }
        struct tensor uk = joint_uk(hp, w, (uint32_t)h);
        for (uint32_t i = 0; i < j->n; i++)
            memset(qa + i * lda, 0, rank * sizeof *qa);
        for (uint32_t d = 0; d < nope; d++) {
            kernel_row(&uk, d, row);
            for (uint32_t i = 0; i < j->n; i++)
                f->ops->axpy(qa + i * lda, q[i * ldq + d], row, rank);
        }
    }
}

/* Minus infinity for the positions first..first+n-1 that are not in `set`. */
static void mask_tile(float *z, uint32_t first, uint32_t n, const uint32_t *set,
                      uint32_t n_set, uint32_t *at)
{
    for (uint32_t i = 0; i < n; i++) {
        while (*at < n_set && set[*at] < first + i)
            ++*at;
        if (*at == n_set || set[*at] != first + i)
            z[i] = -INFINITY;
    }
}

/* One query row and a few heads: replaces their absorbed queries by weighted latents. */
static void absorbed_task(struct mla_job *j, uint32_t thread, uint32_t row, uint32_t h0,
                          uint32_t n_heads)
{
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    uint32_t rank = hp->kv_lora_rank, rope = hp->qk_rope_head_dim;
    uint32_t width = rank + rope, qk = hp->qk_nope_head_dim + rope;
    float *tile = f->thread + thread * f->thread_floats;
    float *q = tile + (size_t)TILE * width, *acc = q + (size_t)HEADS_MAX * width;
    float z[TILE];
    struct running r[HEADS_MAX];
    float *qa = f->qa + ((size_t)row * hp->n_heads + h0) * rank;
    for (uint32_t h = 0; h < n_heads; h++) {
        r[h] = (struct running){.max = -INFINITY, .acc = acc + (size_t)h * rank};
        memcpy(q + h * width, qa + (size_t)h * rank, rank * sizeof *q);
        memcpy(q + h * width + rank,
               f->q + ((size_t)row * hp->n_heads + h0 + h) * qk + hp->qk_nope_head_dim,
               rope * sizeof *q);
    }
    memset(acc, 0, (size_t)n_heads * rank * sizeof *acc);

    uint32_t n_set, n;
    const uint32_t *set = row_set(f, row, &n_set), *mask = NULL;
    n = n_set;
    if (f->o.masked && set) {
        mask = set;
        set = NULL;
        n = f->row_pos[row] + 1;
    }
    const struct kvseq *seq = f->run[f->row_run[row]].seq;
    for (uint32_t s = 0, at = 0; s < n; s += TILE) {
        uint32_t m = n - s < TILE ? n - s : TILE, start = at;
        kvseq_get(seq, j->layer, set ? set + s : NULL, s, m, tile);
        for (uint32_t h = 0; h < n_heads; h++) {
            for (uint32_t i = 0; i < m; i++)
                z[i] = f->ops->dot(q + h * width, tile + (size_t)i * width, width) *
                       hp->attn_scale;
            at = start;
            if (mask)
                mask_tile(z, s, m, mask, n_set, &at);
            running_add(f->ops, &r[h], z, m, tile, width, rank);
        }
    }
    for (uint32_t h = 0; h < n_heads; h++)
        for (uint32_t c = 0; c < rank; c++)
            qa[(size_t)h * rank + c] = r[h].acc[c] / r[h].sum;
}

static void absorbed_rows(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct mla_job *j = arg;
    uint32_t all = j->f->hp->n_heads, groups = (all + j->heads - 1) / j->heads;
    for (uint64_t t = first; t < last; t++) {
        uint32_t h0 = (uint32_t)(t % groups) * j->heads;
        absorbed_task(j, thread, j->first + (uint32_t)(t / groups), h0,
                      all - h0 < j->heads ? all - h0 : j->heads);
    }
}

static void unabsorb_heads(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct mla_job *j = arg;
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    size_t lda = (size_t)hp->n_heads * hp->kv_lora_rank;
    size_t ldo = (size_t)hp->n_heads * hp->v_head_dim;
    for (uint64_t h = first; h < last; h++) {
        struct tensor uv = head_uv(hp, &f->w->layer[j->layer], (uint32_t)h);
        kernel_matmul_local(f->k, thread, &uv,
                            f->qa + j->first * lda + h * hp->kv_lora_rank, lda, j->n,
                            f->o_in + j->first * ldo + h * hp->v_head_dim, ldo);
    }
}

static void attend_absorbed(struct forward *f, uint32_t layer, uint32_t first, uint32_t n)
{
    uint32_t all = f->hp->n_heads, threads = pool_threads(f->pool);
    struct mla_job j = {.f = f, .layer = layer, .first = first, .n = n};
    /* Many heads share a tile; but every thread should have some. */
    j.heads = (uint32_t)(((uint64_t)all * n + threads - 1) / threads);
    j.heads = j.heads < all ? j.heads : all;
    j.heads = j.heads < HEADS_MAX ? j.heads : HEADS_MAX;
    uint32_t groups = (all + j.heads - 1) / j.heads;
    pool_run(f->pool, absorb_heads, &j, all, 0);
    pool_run(f->pool, absorbed_rows, &j, (uint64_t)n * groups, 1);
    pool_run(f->pool, unabsorb_heads, &j, all, 0);
}

/* --- expanded
 * ---------------------------------------------------------------------------- */

/* UK and UV of head h as floats, (nope + v, rank) row by row. */
static void load_head(const struct forward *f, const struct layer_weights *w, uint32_t h,
                      float *m, float *row)
{
    const struct hparams *hp = f->hp;
    uint32_t rank = hp->kv_lora_rank, nope = hp->qk_nope_head_dim, v = hp->v_head_dim;
    struct tensor uv = head_uv(hp, w, h);
    for (uint32_t d = 0; d < v; d++)
        kernel_row(&uv, d, m + (size_t)(nope + d) * rank);
    if (!tensor_exists(&w->k_b)) {
        struct tensor uk = joint_uk(hp, w, h);
        for (uint32_t d = 0; d < nope; d++)
            kernel_row(&uk, d, m + (size_t)d * rank);
        return;
    }
    struct tensor k = tensor_rows(&w->k_b, (uint64_t)h * rank, rank);
    for (uint32_t c = 0; c < rank; c++) {
        kernel_row(&k, c, row);
        for (uint32_t d = 0; d < nope; d++)
            m[(size_t)d * rank + c] = row[d];
    }
}

/* Floats that one thread needs for either form. */
size_t mla_thread_floats(const struct hparams *hp, uint32_t max_rows)
{
    size_t rank = hp->kv_lora_rank, rope = hp->qk_rope_head_dim, v = hp->v_head_dim;
    size_t nope = hp->qk_nope_head_dim, width = rank + rope;
    size_t absorbed = (TILE + HEADS_MAX) * width + HEADS_MAX * rank;
    size_t expanded = max_rows * (v + 1 + sizeof(struct running) / sizeof(float)) +
                      (nope + v) * rank + TILE * (width + nope + rope + v);
    return absorbed > expanded ? absorbed : expanded;
}

/* Scratch of one expanded task, cut from the thread's floats. */
struct expanded {
    float *head, *latent, *key, *value, *acc;
    struct running *r;
    uint32_t *at; /* how far each query's set has been read */
};

/* Query i of the run against the tile of positions s..s+m-1. */
static void expanded_query(struct mla_job *j, struct expanded *x, uint32_t i, uint32_t h,
                           uint32_t s, uint32_t m)
{
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    uint32_t qk = hp->qk_nope_head_dim + hp->qk_rope_head_dim, v = hp->v_head_dim;
    uint32_t row = j->first + i, seen = f->row_pos[row] + 1, n_set;
    const uint32_t *set = row_set(f, row, &n_set);
    if (seen <= s)
        return;
    m = seen - s < m ? seen - s : m;
    const float *q = f->q + ((size_t)row * hp->n_heads + h) * qk;
    float z[TILE];
    for (uint32_t t = 0; t < m; t++)
        z[t] = -INFINITY;
    if (!set || f->o.masked) {
        for (uint32_t t = 0; t < m; t++)
            z[t] = f->ops->dot(q, x->key + (size_t)t * qk, qk) * hp->attn_scale;
        if (set)
            mask_tile(z, s, m, set, n_set, &x->at[i]);
    } else {
        for (; x->at[i] < n_set && set[x->at[i]] < s + m; x->at[i]++) {
            uint32_t t = set[x->at[i]] - s;
            z[t] = f->ops->dot(q, x->key + (size_t)t * qk, qk) * hp->attn_scale;
        }
    }
    running_add(f->ops, &x->r[i], z, m, x->value, v, v);
}

static void expanded_head(struct mla_job *j, uint32_t thread, uint32_t h)
{
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    uint32_t rank = hp->kv_lora_rank, rope = hp->qk_rope_head_dim, v = hp->v_head_dim;
    uint32_t nope = hp->qk_nope_head_dim, width = rank + rope, qk = nope + rope;
    struct expanded x;
    x.r = (void *)(f->thread + thread * f->thread_floats);
    x.at = (void *)(x.r + f->o.max_rows);
    x.head = (float *)(void *)(x.at + f->o.max_rows);
    x.latent = x.head + (size_t)(nope + v) * rank;
    x.key = x.latent + (size_t)TILE * width;
    x.value = x.key + (size_t)TILE * qk;
    x.acc = x.value + (size_t)TILE * v;
    load_head(f, &f->w->layer[j->layer], h, x.head, x.latent);
    memset(x.acc, 0, (size_t)j->n * v * sizeof *x.acc);
    for (uint32_t i = 0; i < j->n; i++) {
        x.r[i] = (struct running){.max = -INFINITY, .acc = x.acc + (size_t)i * v};
        x.at[i] = 0;
    }
    uint32_t n = j->run->pos + (j->first - j->run->first) + j->n;
    for (uint32_t s = 0; s < n; s += TILE) {
        uint32_t m = n - s < TILE ? n - s : TILE;
        kvseq_get(j->run->seq, j->layer, NULL, s, m, x.latent);
        for (uint32_t t = 0; t < m; t++) {
            const float *c = x.latent + (size_t)t * width;
            for (uint32_t d = 0; d < nope; d++)
                x.key[(size_t)t * qk + d] =
                    f->ops->dot(x.head + (size_t)d * rank, c, rank);
            memcpy(x.key + (size_t)t * qk + nope, c + rank, rope * sizeof *c);
            for (uint32_t d = 0; d < v; d++)
                x.value[(size_t)t * v + d] =
                    f->ops->dot(x.head + (size_t)(nope + d) * rank, c, rank);
        }
        for (uint32_t i = 0; i < j->n; i++)
            expanded_query(j, &x, i, h, s, m);
    }
    for (uint32_t i = 0; i < j->n; i++)
        for (uint32_t d = 0; d < v; d++)
            f->o_in[((size_t)(j->first + i) * hp->n_heads + h) * v + d] =
                x.r[i].acc[d] / x.r[i].sum;
}

static void expanded_heads(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    for (uint64_t h = first; h < last; h++)
        expanded_head(arg, thread, (uint32_t)h);
}

/* --- choice
 * ------------------------------------------------------------------------------ */

/* Multiply-adds of each form for one run, from its own numbers alone. */
static bool run_absorbs(const struct forward *f, const struct forward_run *run)
{
    const struct hparams *hp = f->hp;
    if (f->o.form != ENGINE_FORM_AUTO)
        return f->o.form == ENGINE_FORM_MQA;
    if (run->n <= ALWAYS_ABSORB)
        return true;
    double keys = (double)run->pos + run->n, seen = keys;
    if (hp->index_topk && seen > hp->index_topk)
        seen = hp->index_topk;
    double up = (double)(hp->qk_nope_head_dim + hp->v_head_dim) * hp->kv_lora_rank;
    double mqa = run->n * (seen * (2.0 * hp->kv_lora_rank + hp->qk_rope_head_dim) + up);
    double mha =
        run->n * seen * (hp->qk_nope_head_dim + hp->qk_rope_head_dim + hp->v_head_dim) +
        keys * up;
    return mqa <= mha;
}

void mla_layer(struct forward *f, uint32_t layer)
{
    const struct hparams *hp = f->hp;
    project(f, layer);
    if (hp->index_topk && hp->index_full[layer])
        indexer_select(f, layer);
    for (uint32_t r = 0; r < f->n_runs;) {
        const struct forward_run *run = &f->run[r];
        if (!run_absorbs(f, run)) {
            struct mla_job j = {
                .f = f, .layer = layer, .first = run->first, .n = run->n, .run = run};
            pool_run(f->pool, expanded_heads, &j, hp->n_heads, 1);
            r++;
            continue;
        }
        /* Neighbours in the absorbed form go together. */
        uint32_t n = 0;
        for (; r < f->n_runs && run_absorbs(f, &f->run[r]); r++)
            n += f->run[r].n;
        attend_absorbed(f, layer, run->first, n);
    }
    kernel_matmul(f->k, &f->w->layer[layer].o, f->o_in,
                  (size_t)hp->n_heads * hp->v_head_dim, f->n_rows, f->y, hp->dim);
}
