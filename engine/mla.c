/*
 * mla.c - multi-head latent attention: the projections around it, what its two forms share,
 * and the choice between them.
 *
 *   absorbed (MQA)  z = scale * ((UK^T q_nope) . c + q_pe . k_pe),  o = UV (sum p c)
 *   expanded (MHA)  z = scale * (q_nope . (UK c) + q_pe . k_pe),    o = sum p (UV c)
 *
 * Equal in exact arithmetic. Absorbed (mla_absorbed.c) reads one shared row per position,
 * only those selected, and suits decoding and long contexts; expanded (mla_expanded.c) pays
 * for every key once per chunk and then less than a third per pair, selected or not.
 */
#include <math.h>
#include <string.h>

#include "engine/mla.h"
#include "engine/rope.h"

enum { ALWAYS_ABSORB = 8 }; /* runs this short are decode or verification */
#define GATHER_COST 1.4     /* measured at 4k and 8k positions */

/* --- projections
 * ------------------------------------------------------------------------- */

struct project_job {
    struct forward *f;
    uint32_t layer;
    bool queries; /* of the indexer */
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
    bool index = j->queries;
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
            if (f->index_i8)
                f->iw[i * hp->index_n_heads + h] *= indexer_round(
                    f->iq8 + (i * hp->index_n_heads + h) * idim, iq, idim);
        }
    }
}

/* The indexer's queries are made only where some row has more positions than it keeps. */
static bool wants_index_queries(const struct forward *f, uint32_t layer)
{
    if (!f->hp->index_topk || !f->hp->index_full[layer])
        return false;
    for (uint32_t i = 0; i < f->n_rows; i++)
        if (indexer_scores_row(f, i))
            return true;
    return false;
}

static void project(struct forward *f, uint32_t layer)
{
    const struct hparams *hp = f->hp;
    const struct layer_weights *w = &f->w->layer[layer];
    struct kernel_part part[KERNEL_PARTS_MAX];
    struct project_job j = {f, layer, wants_index_queries(f, layer)};
    uint32_t n = 0, n_q = hp->n_heads * (hp->qk_nope_head_dim + hp->qk_rope_head_dim);
    bool index = hp->index_topk && hp->index_full[layer];
    part[n++] =
        (struct kernel_part){.w = &w->kv_a, .y = f->kv,
                             .ldy = hp->kv_lora_rank + hp->qk_rope_head_dim};
    if (hp->q_lora_rank)
        part[n++] = (struct kernel_part){.w = &w->q_a, .y = f->cq, .ldy = hp->q_lora_rank};
    else
        part[n++] = (struct kernel_part){.w = &w->q, .y = f->q, .ldy = n_q};
    if (index)
        part[n++] = (struct kernel_part){.w = &w->index_k, .y = f->ik,
                                         .ldy = hp->index_head_dim};
    if (j.queries)
        part[n++] = (struct kernel_part){.w = &w->index_proj, .y = f->iw,
                                         .ldy = hp->index_n_heads, .exact = true};
    kernel_matmul_parts(f->k, part, n, f->a, hp->dim, f->n_rows);
    forward_rows(f, norm_and_store, &j);
    n = 0;
    if (hp->q_lora_rank)
        part[n++] = (struct kernel_part){.w = &w->q_b, .y = f->q, .ldy = n_q};
    if (j.queries)
        part[n++] = (struct kernel_part){.w = &w->index_q_b, .y = f->iq,
                                         .ldy = hp->index_n_heads * hp->index_head_dim};
    if (n)
        kernel_matmul_parts(f->k, part, n, f->cq, hp->q_lora_rank, f->n_rows);
    forward_rows(f, rotate_queries, &j);
}

/* --- what both forms need
 * ---------------------------------------------------------------- */

const uint32_t *mla_row_set(const struct forward *f, uint32_t row, uint32_t *n)
{
    bool all = !f->hp->index_topk || f->n_set[row] == SET_ALL;
    *n = all ? f->row_pos[row] + 1 : f->n_set[row];
    return all ? NULL : f->set + (size_t)row * f->hp->index_topk;
}

struct tensor mla_head_uk(const struct hparams *hp, const struct layer_weights *w, uint32_t h)
{
    uint32_t rows = hp->qk_nope_head_dim + hp->v_head_dim;
    return tensor_rows(&w->kv_b, (uint64_t)h * rows, hp->qk_nope_head_dim);
}

struct tensor mla_head_uv(const struct hparams *hp, const struct layer_weights *w, uint32_t h)
{
    if (tensor_exists(&w->v_b))
        return tensor_rows(&w->v_b, (uint64_t)h * hp->v_head_dim, hp->v_head_dim);
    uint32_t rows = hp->qk_nope_head_dim + hp->v_head_dim;
    return tensor_rows(&w->kv_b, (uint64_t)h * rows + hp->qk_nope_head_dim,
                       hp->v_head_dim);
}

/* Bits s..s+m-1 of the positions in a set, which is read from *at on. */
uint64_t mla_set_bits(const uint32_t *set, uint32_t n_set, uint32_t *at, uint32_t s, uint32_t m)
{
    uint64_t bits = 0;
    while (*at < n_set && set[*at] < s)
        ++*at;
    for (; *at < n_set && set[*at] - s < m; ++*at)
        bits |= UINT64_C(1) << (set[*at] - s);
    return bits;
}

size_t mla_thread_floats(const struct hparams *hp, uint32_t max_rows)
{
    size_t a = mla_absorbed_floats(hp), b = mla_expanded_floats(hp, max_rows);
    return a > b ? a : b;
}

/* --- choice
 * ------------------------------------------------------------------------------ */

/*
 * Multiply-adds of each form for one run, from its own numbers alone. Absorbed gathers what
 * is selected; expanded goes over every key, and masks. In bf16 those on gathered rows take
 * longer each: they wait for the rows, and fold sums that the others keep in lanes.
 */
static bool run_absorbs(const struct forward *f, const struct forward_run *run)
{
    const struct hparams *hp = f->hp;
    if (f->o.form != ENGINE_FORM_AUTO)
        return f->o.form == ENGINE_FORM_MQA;
    if (run->n <= ALWAYS_ABSORB)
        return true;
    double keys = (double)run->pos + run->n, mean = run->pos + run->n / 2.0, seen = mean;
    if (hp->index_topk && seen > hp->index_topk && f->o.select != ENGINE_SELECT_DENSE)
        seen = hp->index_topk;
    double up = (double)(hp->qk_nope_head_dim + hp->v_head_dim) * hp->kv_lora_rank;
    double mqa = run->n * (seen * (2.0 * hp->kv_lora_rank + hp->qk_rope_head_dim) + up);
    double mha =
        run->n * mean * (hp->qk_nope_head_dim + hp->qk_rope_head_dim + hp->v_head_dim) +
        keys * up;
    return mqa * (f->bf16 ? GATHER_COST : 1) <= mha;
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
            mla_expanded(f, layer, run);
            r++;
            continue;
        }
        /* Neighbours in the absorbed form go together. */
        uint32_t n = 0;
        for (; r < f->n_runs && run_absorbs(f, &f->run[r]); r++)
            n += f->run[r].n;
        mla_absorbed(f, layer, run->first, n);
    }
    kernel_matmul(f->k, &f->w->layer[layer].o, f->o_in,
                  (size_t)hp->n_heads * hp->v_head_dim, f->n_rows, f->y, hp->dim);
}
