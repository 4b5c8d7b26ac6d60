/*
 * forward.c - embedding, the layers in order, the final norm; and the MTP layer, which is
 * one more layer with its own input and norm.
 */
#include "engine/forward.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/rope.h"

/* --- opening
 * ----------------------------------------------------------------------------- */

/* Copies a vector of any float type; NULL for one that does not exist. */
static float *vector(const struct tensor *t, float **at)
{
    if (!tensor_exists(t))
        return NULL;
    float *v = *at;
    tensor_read_row(t, 0, v);
    *at += t->ne[0];
    return v;
}

static size_t vector_floats(const struct hparams *hp)
{
    size_t layer = 2 * (size_t)hp->dim + hp->q_lora_rank + hp->kv_lora_rank +
                   2 * (size_t)hp->index_head_dim + hp->n_routed_experts;
    return (hp->n_layers + hp->n_mtp_layers) * layer + 4 * (size_t)hp->dim +
           hp->qk_rope_head_dim;
}

static int load_vectors(struct forward *f, struct err *err)
{
    const struct weights *w = f->w;
    uint32_t n = f->hp->n_layers + f->hp->n_mtp_layers;
    float *at = f->vectors = mem_array(vector_floats(f->hp), sizeof(float));
    f->vec = mem_array(n, sizeof *f->vec);
    if (!at || !f->vec)
        return err_nomem(err);
    for (uint32_t l = 0; l < n; l++) {
        const struct layer_weights *lw = &w->layer[l];
        f->vec[l] = (struct layer_vectors){
            .attn_norm = vector(&lw->attn_norm, &at),
            .ffn_norm = vector(&lw->ffn_norm, &at),
            .q_a_norm = vector(&lw->q_a_norm, &at),
            .kv_a_norm = vector(&lw->kv_a_norm, &at),
            .index_k_norm = vector(&lw->index_k_norm, &at),
            .index_k_norm_bias = vector(&lw->index_k_norm_bias, &at),
            .router_bias = vector(&lw->router_bias, &at),
        };
    }
    f->norm = vector(&w->norm, &at);
    if (f->hp->n_mtp_layers) {
        f->enorm = vector(&w->mtp.enorm, &at);
        f->hnorm = vector(&w->mtp.hnorm, &at);
        f->mtp_norm = vector(&w->mtp.norm, &at);
    }
    f->freq = at;
    rope_freqs(f->freq, f->hp);
    return 0;
}

/* One array of n rows in the scratch. */
static bool rows(void *out, size_t n, size_t width, size_t size)
{
    size_t bytes;
    void *p =
        mem_mul(n, width, &n) && mem_mul(n, size, &bytes) ? mem_aligned(64, bytes) : NULL;
    memcpy(out, &p, sizeof p);
    return p != NULL;
}

static bool open_scratch(struct forward *f)
{
    const struct hparams *hp = f->hp;
    size_t n = f->o.max_rows, half = hp->qk_rope_head_dim / 2, heads = hp->n_heads;
    size_t topk = hp->index_topk ? hp->index_topk : 1;
    size_t per_thread = mla_thread_floats(hp, f->o.max_rows);
    size_t keys = (size_t)KV_PAGE * hp->index_head_dim;
    size_t pages = (f->o.n_ctx + (size_t)KV_PAGE - 1) / KV_PAGE;
    f->score_ld = pages * KV_PAGE;
    keys = keys > INDEXER_WORK ? keys : INDEXER_WORK;
    f->thread_floats = ((per_thread > keys ? per_thread : keys) + 15) & ~(size_t)15;
    return rows(&f->row_run, n, 1, sizeof(uint32_t)) &&
           rows(&f->row_pos, n, 1, sizeof(uint32_t)) && rows(&f->cos, n, half, 4) &&
           rows(&f->sin, n, half, 4) && rows(&f->x, n, hp->dim, 4) &&
           rows(&f->a, n, hp->dim, 4) && rows(&f->y, n, hp->dim, 4) &&
           rows(&f->hidden, n, hp->dim, 4) &&
           rows(&f->pair, hp->n_mtp_layers ? n : 1, 2 * (size_t)hp->dim, 4) &&
           rows(&f->cq, n, hp->q_lora_rank, 4) &&
           rows(&f->q, n, heads * (hp->qk_nope_head_dim + 2 * half), 4) &&
           rows(&f->qa, n, heads * (hp->kv_lora_rank + 2 * half), 4) &&
           rows(&f->qb, f->bf16 ? n : 1, heads * (hp->kv_lora_rank + 2 * half), 2) &&
           rows(&f->parts, 1, mla_parts_floats(hp), 4) &&
           rows(&f->bits, n, pages, sizeof(uint64_t)) &&
           rows(&f->kv, n, hp->kv_lora_rank + 2 * half, 4) &&
           rows(&f->o_in, n, heads * hp->v_head_dim, 4) &&
           rows(&f->iq, n, (size_t)hp->index_n_heads * hp->index_head_dim, 4) &&
           rows(&f->iq8, f->index_i8 ? n : 1,
                (size_t)hp->index_n_heads * hp->index_head_dim, 1) &&
           rows(&f->ik, n, hp->index_head_dim, 4) &&
           rows(&f->iw, n, hp->index_n_heads, 4) &&
           rows(&f->set, n, topk, sizeof(uint32_t)) && rows(&f->n_set, n, 1, 4) &&
           rows(&f->scores, hp->index_topk ? SCORE_ROWS : 1, f->score_ld, 4) &&
           rows(&f->router, n, hp->n_routed_experts, 4) &&
           rows(&f->pick, n, hp->n_activated_experts, sizeof(uint32_t)) &&
           rows(&f->weight, n, hp->n_activated_experts, 4) &&
           rows(&f->thread, pool_threads(f->pool), f->thread_floats, 4);
}

int forward_open(struct forward **out, const struct weights *w, struct kernel *k,
                 const struct kvcache *kv, const struct forward_opts *o, struct err *err)
{
    struct forward *f = mem_zalloc(sizeof *f);
    if (!f)
        return err_nomem(err);
    f->w = w;
    f->hp = &w->hp;
    f->k = k;
    f->ops = kernel_ops(k);
    f->attn = attn_ops(f->ops->name);
    f->pool = kernel_pool(k);
    f->o = *o;
    f->rotate = kvcache_rotates(kv);
    f->index_i8 = kvcache_index_i8(kv);
    /* Two elements go together. */
    f->bf16 = kvcache_bf16(kv) && f->hp->kv_lora_rank % 2 == 0 &&
              f->hp->qk_nope_head_dim % 2 == 0;
    int rc = load_vectors(f, err);
    if (rc == 0 && !open_scratch(f))
        rc = err_nomem(err);
    if (rc < 0) {
        forward_close(f);
        return rc;
    }
    *out = f;
    return 0;
}

void forward_close(struct forward *f)
{
    if (!f)
        return;
    void *owned[] = {f->vectors, f->vec,   f->row_run, f->row_pos, f->cos,    f->sin,
                     f->x,       f->a,     f->y,       f->hidden,  f->pair,   f->cq,
                     f->q,       f->qa,    f->kv,      f->o_in,    f->iq,     f->ik,
                     f->iw,      f->set,   f->n_set,   f->scores,  f->router, f->pick,
                     f->weight,  f->thread, f->bits, f->parts,
                     f->iq8,     f->qb};
    for (unsigned i = 0; i < ARRAY_LEN(owned); i++)
        mem_free(owned[i]);
    mem_free(f);
}

/* --- rows
 * --------------------------------------------------------------------------------- */

void forward_rows(struct forward *f, pool_fn *fn, void *arg)
{
    pool_run(f->pool, fn, arg, f->n_rows, 8);
}

struct norm_job {
    const struct forward *f;
    float *out;
    const float *x, *w;
};

static void norm_rows(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    (void)thread;
    struct norm_job *j = arg;
    uint32_t dim = j->f->hp->dim;
    for (uint64_t i = first; i < last; i++)
        j->f->ops->rmsnorm(j->out + i * dim, j->x + i * dim, j->w, dim,
                           j->f->hp->rms_eps);
}

static void norm(struct forward *f, float *out, const float *x, const float *w)
{
    struct norm_job j = {f, out, x, w};
    forward_rows(f, norm_rows, &j);
}

static void add_rows(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    (void)thread;
    struct forward *f = arg;
    uint32_t dim = f->hp->dim;
    for (uint64_t i = first; i < last; i++)
        for (uint32_t c = 0; c < dim; c++)
            f->x[i * dim + c] += f->y[i * dim + c];
}

static void layer(struct forward *f, uint32_t l)
{
    norm(f, f->a, f->x, f->vec[l].attn_norm);
    mla_layer(f, l);
    forward_rows(f, add_rows, f);
    norm(f, f->a, f->x, f->vec[l].ffn_norm);
    moe_layer(f, l);
    forward_rows(f, add_rows, f);
}

static void begin(struct forward *f, const struct forward_run *run, uint32_t n_runs)
{
    uint32_t half = f->hp->qk_rope_head_dim / 2;
    f->run = run;
    f->n_runs = n_runs;
    f->n_rows = 0;
    for (uint32_t r = 0; r < n_runs; r++)
        for (uint32_t i = 0; i < run[r].n; i++) {
            uint32_t row = f->n_rows++;
            f->row_run[row] = r;
            f->row_pos[row] = run[r].pos + i;
            rope_angles(f->cos + row * half, f->sin + row * half, f->freq, half,
                        run[r].pos + i, f->hp->rope_mul);
        }
}

/* The final norm into f->hidden; a row that is not finite is named. */
static int finish(struct forward *f, const float *w, struct err *err)
{
    norm(f, f->hidden, f->x, w);
    uint32_t dim = f->hp->dim;
    for (uint32_t i = 0; i < f->n_rows; i++) {
        float sum = 0;
        for (uint32_t c = 0; c < dim; c++)
            sum += fabsf(f->hidden[(size_t)i * dim + c]);
        if (!isfinite(sum))
            return err_set(
                err, ERR_CORRUPT,
                "the model '%s' computed a number that is not finite at position %u: its "
                "weights hold NaN or infinity, or overflow; 'agentctl model info --check' "
                "names the tensor",
                f->w->path, f->row_pos[i]);
    }
    return 0;
}

int forward_main(struct forward *f, const struct forward_run *run, uint32_t n_runs,
                 const int32_t *tok, struct err *err)
{
    begin(f, run, n_runs);
    for (uint32_t i = 0; i < f->n_rows; i++)
        tensor_read_row(&f->w->embed, (uint64_t)tok[i], f->x + (size_t)i * f->hp->dim);
    for (uint32_t l = 0; l < f->hp->n_layers; l++)
        layer(f, l);
    return finish(f, f->norm, err);
}

int forward_mtp(struct forward *f, const struct forward_run *run, uint32_t n_runs,
                const int32_t *tok, const float *hidden, struct err *err)
{
    size_t dim = f->hp->dim;
    begin(f, run, n_runs);
    for (uint32_t i = 0; i < f->n_rows; i++) {
        float *pair = f->pair + i * 2 * dim;
        tensor_read_row(&f->w->mtp.embed, (uint64_t)tok[i], pair);
        f->ops->rmsnorm(pair, pair, f->enorm, dim, f->hp->rms_eps);
        f->ops->rmsnorm(pair + dim, hidden + i * dim, f->hnorm, dim, f->hp->rms_eps);
    }
    kernel_matmul(f->k, &f->w->mtp.eh_proj, f->pair, 2 * dim, f->n_rows, f->x, dim);
    layer(f, f->hp->n_layers);
    return finish(f, f->mtp_norm, err);
}

void forward_head(struct forward *f, const struct tensor *head, const float *hidden,
                  uint32_t n, float *logits)
{
    kernel_matmul(f->k, head, hidden, f->hp->dim, n, logits, f->hp->n_vocab);
}
