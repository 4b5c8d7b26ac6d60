/*
 * mla_expanded_bf16.c - one head of mla_expanded.c where the cache's rows are bf16: all its
 * products are of bf16 with sums in f32, and latents are read where they lie.
 */
#include <math.h>
#include <string.h>

#include "engine/mla.h"

enum { QUERIES = 32 }; /* that go through a tile together */

/* Scratch of one task, cut from the thread's floats. */
struct scratch {
    uint16_t *uk;            /* (nope, rank) */
    uint16_t *rows;          /* (v, rank) UV as it comes */
    const uint8_t **row;     /* (v) where those are */
    uint16_t *uv;            /* and standing: (rank / 2, v, 2) */
    uint16_t *latent;        /* standing: ((rank + rope) / 2, ATTN_TILE, 2) */
    uint16_t *q;             /* (rows, qk) of this head */
    float *made;             /* (qk, ATTN_TILE) keys, then (ATTN_TILE, v) values */
    uint16_t *keys, *values; /* pairs: (qk / 2, ATTN_TILE, 2), (ATTN_TILE / 2, v, 2) */
    float *z;                /* (QUERIES, ATTN_TILE) */
    uint16_t *p;             /* the same as bf16 */
    float *acc;              /* (rows, v) */
    struct softmax *soft;    /* (rows) */
};

static size_t cut(struct scratch *x, const struct hparams *hp, uint32_t rows, float *room)
{
    size_t rank = hp->kv_lora_rank, v = hp->v_head_dim, nope = hp->qk_nope_head_dim;
    size_t rope = hp->qk_rope_head_dim, qk = nope + rope, at = 0;
    size_t made = ATTN_TILE * (qk > v ? qk : v);
    made = made > rank ? made : rank; /* rows of weights pass through it too */
    const struct {
        void *to;
        size_t n, size;
    } part[] = {{&x->uk, nope * rank, 2},
                {&x->rows, v * rank, 2},
                {&x->row, v, sizeof *x->row},
                {&x->uv, v * rank, 2},
                {&x->latent, (rank + rope) * ATTN_TILE, 2},
                {&x->q, rows * qk, 2},
                {&x->made, made, 4},
                {&x->keys, qk * ATTN_TILE, 2},
                {&x->values, ATTN_TILE * v, 2},
                {&x->z, QUERIES * ATTN_TILE, 4},
                {&x->p, QUERIES * ATTN_TILE, 2},
                {&x->acc, rows * v, 4},
                {&x->soft, rows, sizeof(struct softmax)}};
    for (unsigned i = 0; i < ARRAY_LEN(part); i++) {
        void *p = room ? (uint8_t *)room + at : NULL;
        memcpy(part[i].to, &p, sizeof p);
        at += (part[i].n * part[i].size + 63) & ~(size_t)63;
    }
    return at / sizeof(float);
}

size_t mla_expanded_bf16_floats(const struct hparams *hp, uint32_t max_rows)
{
    struct scratch x;
    return cut(&x, hp, max_rows, NULL);
}

/* n rows of a weight, each through x->made. */
static void load_rows(const struct forward *f, const struct tensor *w, uint32_t n,
                      struct scratch *x, uint16_t *out)
{
    size_t cols = (size_t)w->ne[0];
    for (uint32_t d = 0; d < n; d++) {
        tensor_read_row(w, d, x->made);
        f->attn->narrow(out + d * cols, x->made, cols);
    }
}

static void load_head(const struct forward *f, const struct layer_weights *w, uint32_t h,
                      struct scratch *x)
{
    const struct hparams *hp = f->hp;
    uint32_t rank = hp->kv_lora_rank, nope = hp->qk_nope_head_dim;
    struct tensor uv = mla_head_uv(hp, w, h);
    load_rows(f, &uv, hp->v_head_dim, x, x->rows);
    for (uint32_t d = 0; d < hp->v_head_dim; d++)
        x->row[d] = (const void *)(x->rows + (size_t)d * rank);
    f->attn->stand(x->uv, x->row, hp->v_head_dim, rank);
    if (!tensor_exists(&w->k_b)) {
        struct tensor uk = mla_head_uk(hp, w, h);
        load_rows(f, &uk, nope, x, x->uk);
        return;
    }
    struct tensor k = tensor_rows(&w->k_b, (uint64_t)h * rank, rank);
    /* LINE columns of UK at a time: a cache line of each of its rows. */
    enum { LINE = 32 };
    uint16_t *columns = x->keys; /* free as yet */
    for (uint32_t from = 0; from < rank; from += LINE) {
        uint32_t n = rank - from < LINE ? rank - from : LINE;
        for (uint32_t c = 0; c < n; c++) {
            tensor_read_row(&k, from + c, x->made);
            f->attn->narrow(columns + (size_t)c * nope, x->made, nope);
        }
        for (uint32_t d = 0; d < nope; d++)
            for (uint32_t c = 0; c < n; c++)
                x->uk[(size_t)d * rank + from + c] = columns[(size_t)c * nope + d];
    }
}

static void load_queries(const struct mla_expanded_job *j, uint32_t h, struct scratch *x)
{
    const struct hparams *hp = j->f->hp;
    size_t qk = hp->qk_nope_head_dim + hp->qk_rope_head_dim;
    for (uint32_t i = 0; i < j->run->n; i++) {
        size_t row = (size_t)(j->run->first + i) * hp->n_heads + h;
        j->f->attn->narrow(x->q + i * qk, j->f->q + row * qk, qk);
    }
}

/* Keys and values of the m positions of a page. */
static void expand_tile(const struct forward *f, struct scratch *x, struct attn_next *latent,
                        uint32_t m)
{
    const struct hparams *hp = f->hp;
    uint32_t rank = hp->kv_lora_rank, nope = hp->qk_nope_head_dim, v = hp->v_head_dim;
    uint32_t rope = hp->qk_rope_head_dim;
    const uint16_t *rows = (const void *)latent->at[0]; /* one after the other in a page */
    for (uint32_t s = m; s < ATTN_TILE; s++)
        latent->at[s] = latent->at[0]; /* keys that nobody looks at */
    f->attn->stand(x->latent, latent->at, ATTN_TILE, rank + rope);
    f->attn->mix_pairs(x->made, ATTN_TILE, x->uk, rank, nope, x->latent, rank, ATTN_TILE,
                       false);
    f->attn->pair(x->keys, x->made, ATTN_TILE, nope, ATTN_TILE);
    memcpy(x->keys + (size_t)nope * ATTN_TILE, x->latent + (size_t)rank * ATTN_TILE,
           (size_t)rope * ATTN_TILE * sizeof *x->keys);
    f->attn->mix_pairs(x->made, v, rows, rank + rope, m, x->uv, rank, v, false);
    f->attn->pair(x->values, x->made, v, m, v);
}

/* Queries i..i+n-1 of the run against tile t, which has m positions. */
static void attend_queries(const struct mla_expanded_job *j, struct scratch *x, uint32_t i,
                           uint32_t n, uint32_t t, uint32_t m)
{
    const struct hparams *hp = j->f->hp;
    const struct attn_ops *ops = j->f->attn;
    uint32_t qk = hp->qk_nope_head_dim + hp->qk_rope_head_dim, v = hp->v_head_dim;
    ops->mix_pairs(x->z, ATTN_TILE, x->q + (size_t)i * qk, qk, n, x->keys, qk, ATTN_TILE, false);
    for (uint32_t k = 0; k < n; k++) {
        uint64_t bits = j->f->bits[(size_t)(i + k) * j->n_tiles + t];
        float shrink = ops->soften(&x->soft[i + k], x->z + (size_t)k * ATTN_TILE, bits,
                                   hp->attn_scale);
        if (shrink != 1)
            ops->scale(x->acc + (size_t)(i + k) * v, shrink, v);
    }
    ops->narrow(x->p, x->z, (size_t)n * ATTN_TILE);
    ops->mix_pairs(x->acc + (size_t)i * v, v, x->p, ATTN_TILE, n, x->values, m, v, true);
}

void mla_expanded_bf16_head(const struct mla_expanded_job *j, uint32_t thread, uint32_t h)
{
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    uint32_t v = hp->v_head_dim, n = j->run->n;
    struct scratch x;
    cut(&x, hp, f->o.max_rows, f->thread + thread * f->thread_floats);
    load_head(f, &f->w->layer[j->layer], h, &x);
    load_queries(j, h, &x);
    memset(x.acc, 0, (size_t)n * v * sizeof *x.acc);
    for (uint32_t i = 0; i < n; i++)
        x.soft[i] = (struct softmax){-INFINITY, 0};
    for (uint32_t t = 0; t < j->n_tiles; t++) {
        struct attn_next latent;
        uint32_t s = t * ATTN_TILE;
        uint32_t m = j->n_keys - s < ATTN_TILE ? j->n_keys - s : ATTN_TILE;
        kvseq_next(j->run->seq, j->layer, NULL, s, m, &latent);
        expand_tile(f, &x, &latent, m);
        uint32_t i = s > j->run->pos ? s - j->run->pos : 0; /* the first that sees it */
        for (; i < n; i += QUERIES)
            attend_queries(j, &x, i, n - i < QUERIES ? n - i : QUERIES, t, m);
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t d = 0; d < v; d++)
            f->o_in[((size_t)(j->run->first + i) * hp->n_heads + h) * v + d] =
                x.acc[(size_t)i * v + d] / x.soft[i].sum;
}
