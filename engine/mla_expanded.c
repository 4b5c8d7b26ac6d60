/*
 * mla_expanded.c - attention with every head's keys and values made from the latents, for
 * the many queries of a chunk.
 *
 * One task is one head. For each tile of positions it makes the keys, standing, and the
 * values; then all queries that see any of the tile go through it as matrices. Positions
 * outside a query's set are masked: `bits` has one word for each row and tile.
 */
#include <math.h>
#include <string.h>

#include "engine/mla.h"

enum { QUERIES = 64 }; /* that go through a tile together */

/* Scratch of one task, cut from the thread's floats. */
struct expanded {
    float *uk, *uv; /* (nope, rank), (v, rank) */
    float *latent;  /* (ATTN_TILE, rank + rope) */
    float *keys;    /* (nope + rope, ATTN_TILE) */
    float *values;  /* (ATTN_TILE, v) */
    float *z;       /* (QUERIES, ATTN_TILE) */
    float *acc;     /* (rows, v) */
    struct softmax *soft;
};

static size_t cut(struct expanded *x, const struct hparams *hp, uint32_t rows, float *room)
{
    size_t rank = hp->kv_lora_rank, rope = hp->qk_rope_head_dim, v = hp->v_head_dim;
    size_t nope = hp->qk_nope_head_dim, at = 0;
    struct {
        float **to;
        size_t n;
    } part[] = {{&x->uk, nope * rank},
                {&x->uv, v * rank},
                {&x->latent, ATTN_TILE * (rank + rope)},
                {&x->keys, (nope + rope) * ATTN_TILE},
                {&x->values, ATTN_TILE * v},
                {&x->z, QUERIES * ATTN_TILE},
                {&x->acc, rows * v}};
    for (unsigned i = 0; i < ARRAY_LEN(part); i++) {
        *part[i].to = room ? room + at : NULL;
        at += (part[i].n + 15) & ~(size_t)15;
    }
    x->soft = room ? (void *)(room + at) : NULL;
    return at + rows * sizeof(struct softmax) / sizeof(float);
}

size_t mla_expanded_floats(const struct hparams *hp, uint32_t max_rows)
{
    struct expanded x;
    size_t a = cut(&x, hp, max_rows, NULL), b = mla_expanded_bf16_floats(hp, max_rows);
    return a > b ? a : b;
}

/* UK and UV of head h as floats; `row` has room for one row of either. */
static void load_head(const struct forward *f, const struct layer_weights *w, uint32_t h,
                      struct expanded *x, float *row)
{
    const struct hparams *hp = f->hp;
    uint32_t rank = hp->kv_lora_rank, nope = hp->qk_nope_head_dim, v = hp->v_head_dim;
    struct tensor uv = mla_head_uv(hp, w, h);
    for (uint32_t d = 0; d < v; d++)
        tensor_read_row(&uv, d, x->uv + (size_t)d * rank);
    if (!tensor_exists(&w->k_b)) {
        struct tensor uk = mla_head_uk(hp, w, h);
        for (uint32_t d = 0; d < nope; d++)
            tensor_read_row(&uk, d, x->uk + (size_t)d * rank);
        return;
    }
    struct tensor k = tensor_rows(&w->k_b, (uint64_t)h * rank, rank);
    for (uint32_t c = 0; c < rank; c++) {
        tensor_read_row(&k, c, row);
        for (uint32_t d = 0; d < nope; d++)
            x->uk[(size_t)d * rank + c] = row[d];
    }
}

/* Keys and values of the m positions in x->latent. */
static void expand_tile(const struct forward *f, struct expanded *x, uint32_t m)
{
    const struct hparams *hp = f->hp;
    uint32_t rank = hp->kv_lora_rank, nope = hp->qk_nope_head_dim, v = hp->v_head_dim;
    uint32_t rope = hp->qk_rope_head_dim, width = rank + rope;
    if (m < ATTN_TILE)
        memset(x->keys, 0, (size_t)(nope + rope) * ATTN_TILE * sizeof *x->keys);
    f->attn->dots(x->keys, ATTN_TILE, x->uk, rank, nope, x->latent, width, m, rank,
                  NULL);
    for (uint32_t d = 0; d < rope; d++)
        for (uint32_t t = 0; t < m; t++)
            x->keys[(size_t)(nope + d) * ATTN_TILE + t] =
                x->latent[(size_t)t * width + rank + d];
    f->attn->dots(x->values, v, x->latent, width, m, x->uv, rank, v, rank, NULL);
}

/* Queries i..i+n-1 of the run against tile t, which has m positions. */
static void attend_queries(const struct mla_expanded_job *j, struct expanded *x, uint32_t h,
                           uint32_t i, uint32_t n, uint32_t t, uint32_t m)
{
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    uint32_t qk = hp->qk_nope_head_dim + hp->qk_rope_head_dim, v = hp->v_head_dim;
    size_t ldq = (size_t)hp->n_heads * qk;
    const float *q = f->q + (j->run->first + i) * ldq + (size_t)h * qk;
    f->attn->mix(x->z, ATTN_TILE, q, ldq, n, x->keys, ATTN_TILE, qk, ATTN_TILE, false);
    for (uint32_t k = 0; k < n; k++) {
        uint64_t bits = f->bits[(size_t)(i + k) * j->n_tiles + t];
        float shrink = f->attn->soften(&x->soft[i + k], x->z + (size_t)k * ATTN_TILE, bits,
                                       hp->attn_scale);
        if (shrink != 1)
            f->attn->scale(x->acc + (size_t)(i + k) * v, shrink, v);
    }
    f->attn->mix(x->acc + (size_t)i * v, v, x->z, ATTN_TILE, n, x->values, v, m, v, true);
}

static void expanded_head(const struct mla_expanded_job *j, uint32_t thread, uint32_t h)
{
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    uint32_t v = hp->v_head_dim, n = j->run->n;
    struct expanded x;
    cut(&x, hp, f->o.max_rows, f->thread + thread * f->thread_floats);
    load_head(f, &f->w->layer[j->layer], h, &x, x.latent);
    memset(x.acc, 0, (size_t)n * v * sizeof *x.acc);
    for (uint32_t i = 0; i < n; i++)
        x.soft[i] = (struct softmax){-INFINITY, 0};
    for (uint32_t t = 0; t < j->n_tiles; t++) {
        uint32_t s = t * ATTN_TILE;
        uint32_t m = j->n_keys - s < ATTN_TILE ? j->n_keys - s : ATTN_TILE;
        kvseq_get(j->run->seq, j->layer, NULL, s, m, x.latent);
        expand_tile(f, &x, m);
        uint32_t i = s > j->run->pos ? s - j->run->pos : 0; /* the first that sees it */
        for (; i < n; i += QUERIES)
            attend_queries(j, &x, h, i, n - i < QUERIES ? n - i : QUERIES, t, m);
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t d = 0; d < v; d++)
            f->o_in[((size_t)(j->run->first + i) * hp->n_heads + h) * v + d] =
                x.acc[(size_t)i * v + d] / x.soft[i].sum;
}

static void expanded_heads(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct mla_expanded_job *j = arg;
    for (uint64_t h = first; h < last; h++)
        (j->f->bf16 ? mla_expanded_bf16_head : expanded_head)(j, thread, (uint32_t)h);
}

/* Which positions each row reads, as bits; shared by all heads. */
static void fill_bits(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    (void)thread;
    struct mla_expanded_job *j = arg;
    struct forward *f = j->f;
    for (uint64_t i = first; i < last; i++) {
        uint32_t row = j->run->first + (uint32_t)i, seen = f->row_pos[row] + 1, n, at = 0;
        const uint32_t *set = mla_row_set(f, row, &n);
        uint64_t *bits = f->bits + i * j->n_tiles;
        for (uint32_t t = 0; t < j->n_tiles; t++) {
            uint32_t s = t * ATTN_TILE;
            if (set)
                bits[t] = mla_set_bits(set, n, &at, s, ATTN_TILE);
            else if (seen >= s + ATTN_TILE)
                bits[t] = UINT64_MAX;
            else
                bits[t] = seen > s ? (UINT64_C(1) << (seen - s)) - 1 : 0;
        }
    }
}

void mla_expanded(struct forward *f, uint32_t layer, const struct forward_run *run)
{
    struct mla_expanded_job j = {.f = f, .layer = layer, .run = run};
    j.n_keys = run->pos + run->n;
    j.n_tiles = (j.n_keys + ATTN_TILE - 1) / ATTN_TILE;
    pool_run(f->pool, fill_bits, &j, run->n, 8);
    pool_run(f->pool, expanded_heads, &j, f->hp->n_heads, 1);
}
