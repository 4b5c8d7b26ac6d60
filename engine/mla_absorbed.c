/*
 * mla_absorbed.c - attention with the queries carried into latent space: one key and value
 * row per position for all heads.
 *
 * A row's positions, selected or all, are cut into parts at places that depend on their
 * number alone. A part is gathered tile by tile; each tile is read once for all heads:
 *
 *   z = Q K^T (heads, 64)     p = softmax so far     acc = acc * shrink + p C (heads, rank)
 *
 * and the parts are joined in order. With few rows every thread takes parts, with many it
 * takes rows; the additions are the same.
 */
#include <math.h>
#include <string.h>

#include "engine/kernel/expf.h"
#include "engine/mla.h"

struct absorbed_job {
    struct forward *f;
    uint32_t layer, first, n; /* rows of the batch */
    uint32_t first_part[SPLIT_ROWS + 1];
};

/* One part's outcome: weighted latents (heads, rank), and per head its softmax. */
struct part {
    float *acc;
    struct softmax *soft;
};

static uint32_t row_width(const struct hparams *hp)
{
    return hp->kv_lora_rank + hp->qk_rope_head_dim;
}

static size_t part_floats(const struct hparams *hp)
{
    size_t soft = (sizeof(struct softmax) / sizeof(float) * hp->n_heads + 15) & ~(size_t)15;
    return (size_t)hp->n_heads * hp->kv_lora_rank + soft;
}

static struct part part_at(const struct hparams *hp, float *p)
{
    return (struct part){p, (void *)(p + (size_t)hp->n_heads * hp->kv_lora_rank)};
}

/* A tile as floats, its scores and those as bf16; then what parts make. */
static size_t tile_floats(const struct hparams *hp)
{
    return (size_t)ATTN_TILE * row_width(hp) + (size_t)hp->n_heads * ATTN_TILE * 3 / 2;
}

size_t mla_absorbed_floats(const struct hparams *hp)
{
    return tile_floats(hp) + 2 * part_floats(hp);
}

size_t mla_parts_floats(const struct hparams *hp)
{
    return (size_t)SPLIT_ROWS * PARTS_MAX * part_floats(hp);
}

/* Positions in each part of n; whole tiles. */
static uint32_t part_size(uint32_t n)
{
    uint32_t size = n / PARTS_MAX + (n % PARTS_MAX != 0);
    size = size < PART_LEAST ? PART_LEAST : size;
    return (size + ATTN_TILE - 1) / ATTN_TILE * ATTN_TILE;
}

/* How many positions a row goes through: tests may ask for all of them and a mask. */
static const uint32_t *walk(const struct forward *f, uint32_t row, uint32_t *n,
                            const uint32_t **mask, uint32_t *n_mask)
{
    const uint32_t *set = mla_row_set(f, row, n);
    *mask = NULL;
    if (!f->o.masked || !set)
        return set;
    *mask = set;
    *n_mask = *n;
    *n = f->row_pos[row] + 1;
    return NULL;
}

static uint32_t n_parts(const struct forward *f, uint32_t row)
{
    const uint32_t *mask;
    uint32_t n, n_mask = 0;
    walk(f, row, &n, &mask, &n_mask);
    return (n + part_size(n) - 1) / part_size(n);
}

/* --- queries
 * ---------------------------------------------------------------------------- */

/* By the rows of UK, where the file has it so. */
static void absorb_rows(struct absorbed_job *j, struct tensor uk, const float *q, size_t ldq,
                        float *qa, size_t lda, float *row)
{
    const struct hparams *hp = j->f->hp;
    uint32_t rank = hp->kv_lora_rank;
    for (uint32_t i = 0; i < j->n; i++)
        memset(qa + i * lda, 0, rank * sizeof *qa);
    for (uint32_t d = 0; d < hp->qk_nope_head_dim; d++) {
        tensor_read_row(&uk, d, row);
        for (uint32_t i = 0; i < j->n; i++)
            j->f->ops->axpy(qa + i * lda, q[i * ldq + d], row, rank);
    }
}

/* f->qa = [UK^T q_nope, q_pe] of each row and head; and as bf16, where the cache is. */
static void absorb_heads(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct absorbed_job *j = arg;
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    const struct layer_weights *w = &f->w->layer[j->layer];
    uint32_t rank = hp->kv_lora_rank, nope = hp->qk_nope_head_dim;
    uint32_t rope = hp->qk_rope_head_dim, width = row_width(hp);
    size_t ldq = (size_t)hp->n_heads * (nope + rope), lda = (size_t)hp->n_heads * width;
    float *row = f->thread + thread * f->thread_floats;
    for (uint64_t h = first; h < last; h++) {
        const float *q = f->q + j->first * ldq + h * (nope + rope);
        float *qa = f->qa + j->first * lda + h * width;
        for (uint32_t i = 0; i < j->n; i++)
            memcpy(qa + i * lda + rank, q + i * ldq + nope, rope * sizeof *q);
        if (tensor_exists(&w->k_b)) {
            struct tensor k = tensor_rows(&w->k_b, h * rank, rank);
            kernel_matmul_local(f->k, thread, &k, q, ldq, j->n, qa, lda);
        } else {
            absorb_rows(j, mla_head_uk(hp, w, (uint32_t)h), q, ldq, qa, lda, row);
        }
        for (uint32_t i = 0; f->bf16 && i < j->n; i++)
            f->attn->narrow(f->qb + (qa - f->qa) + i * lda, qa + i * lda, width);
    }
}

static void unabsorb_heads(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct absorbed_job *j = arg;
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    uint32_t width = row_width(hp);
    size_t lda = (size_t)hp->n_heads * width, ldo = (size_t)hp->n_heads * hp->v_head_dim;
    for (uint64_t h = first; h < last; h++) {
        struct tensor uv = mla_head_uv(hp, &f->w->layer[j->layer], (uint32_t)h);
        kernel_matmul_local(f->k, thread, &uv, f->qa + j->first * lda + h * width, lda,
                            j->n, f->o_in + j->first * ldo + h * hp->v_head_dim, ldo);
    }
}

/* --- parts
 * ------------------------------------------------------------------------------ */

static uint64_t low_bits(uint32_t m)
{
    return m < 64 ? (UINT64_C(1) << m) - 1 : UINT64_MAX;
}

/*
 * Gathers the m positions from the s-th on into `tile`, and scores them for all heads into z.
 * A few rows at a time: what was just widened is still in the first cache. The rows of the
 * tile behind are asked for meanwhile, also across the end of a part: the next one is mostly
 * this thread's.
 */
static void tile_scores(struct absorbed_job *j, const struct kvseq *seq, const uint32_t *set,
                        uint32_t s, uint32_t m, uint32_t n, const float *q, float *tile,
                        float *z)
{
    enum { FEW = 8 };
    const struct hparams *hp = j->f->hp;
    uint32_t width = row_width(hp);
    for (uint32_t k = 0; k < m; k += FEW) {
        struct attn_next next;
        uint32_t few = m - k < FEW ? m - k : FEW, at = s + k, then = at + ATTN_TILE;
        uint32_t left = n > then ? n - then : 0;
        float *to = tile + (size_t)k * width;
        kvseq_get(seq, j->layer, set ? set + at : NULL, at, few, to);
        kvseq_next(seq, j->layer, set ? set + then : NULL, then, left < FEW ? left : FEW,
                   &next);
        j->f->attn->dots(z + k, ATTN_TILE, q, width, hp->n_heads, to, width, few, width,
                         &next);
    }
}

/* The same of bf16 rows, which are read where they lie: `now` names them afterwards. */
static void tile_scores_b(struct absorbed_job *j, const struct kvseq *seq, const uint32_t *set,
                          uint32_t s, uint32_t m, uint32_t n, const uint16_t *q, float *z,
                          struct attn_next *now)
{
    const struct hparams *hp = j->f->hp;
    struct attn_next next;
    uint32_t then = s + ATTN_TILE, left = n > then ? n - then : 0, width = row_width(hp);
    kvseq_next(seq, j->layer, set ? set + s : NULL, s, m, now);
    kvseq_next(seq, j->layer, set ? set + then : NULL, then,
               left < ATTN_TILE ? left : ATTN_TILE, &next);
    j->f->attn->dots_b(z, ATTN_TILE, q, width, hp->n_heads, now->at, m, width, &next);
}

/* Part p of a row's positions, all heads. */
static void attend_part(struct absorbed_job *j, uint32_t thread, uint32_t row, uint32_t p,
                        struct part *out)
{
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    const struct attn_ops *ops = f->attn;
    uint32_t rank = hp->kv_lora_rank, width = row_width(hp), heads = hp->n_heads;
    float *tile = f->thread + thread * f->thread_floats, *z = tile + (size_t)ATTN_TILE * width;
    uint16_t *p_b = (void *)(z + (size_t)heads * ATTN_TILE);
    size_t q = (size_t)row * heads * width;
    const struct kvseq *seq = f->run[f->row_run[row]].seq;
    const uint32_t *mask;
    uint32_t n, n_mask = 0, at = 0;
    const uint32_t *set = walk(f, row, &n, &mask, &n_mask);
    struct attn_next now;
    uint32_t size = part_size(n), from = p * size, to = n - from < size ? n : from + size;
    for (uint32_t h = 0; h < heads; h++)
        out->soft[h] = (struct softmax){-INFINITY, 0};
    for (uint32_t s = from; s < to; s += ATTN_TILE) {
        uint32_t m = to - s < ATTN_TILE ? to - s : ATTN_TILE;
        if (f->bf16)
            tile_scores_b(j, seq, set, s, m, n, f->qb + q, z, &now);
        else
            tile_scores(j, seq, set, s, m, n, f->qa + q, tile, z);
        uint64_t bits = mask ? mla_set_bits(mask, n_mask, &at, s, m) : low_bits(m);
        for (uint32_t h = 0; h < heads; h++) {
            float shrink =
                ops->soften(&out->soft[h], z + h * ATTN_TILE, bits, hp->attn_scale);
            if (s > from && shrink != 1)
                ops->scale(out->acc + (size_t)h * rank, shrink, rank);
        }
        if (!f->bf16) {
            ops->mix(out->acc, rank, z, ATTN_TILE, heads, tile, width, m, rank, s > from);
            continue;
        }
        ops->narrow(p_b, z, (size_t)heads * ATTN_TILE);
        ops->mix_b(out->acc, rank, p_b, ATTN_TILE, heads, now.at, m, rank, s > from);
    }
}

/* Adds a later part of head h to what the earlier ones made. */
static void join(struct forward *f, struct part *all, const struct part *next, uint32_t h)
{
    uint32_t rank = f->hp->kv_lora_rank;
    struct softmax *a = &all->soft[h], *b = &next->soft[h];
    float *acc = all->acc + (size_t)h * rank;
    if (b->max == -INFINITY)
        return;
    float max = b->max > a->max ? b->max : a->max;
    float old = a->max == -INFINITY ? 0 : exp_fast(a->max - max);
    float new = exp_fast(b->max - max);
    if (old != 1)
        f->attn->scale(acc, old, rank);
    f->ops->axpy(acc, new, next->acc + (size_t)h * rank, rank);
    *a = (struct softmax){max, a->sum * old + b->sum * new};
}

/* The weighted latents of head h, in place of its query. */
static void put_head(struct forward *f, uint32_t row, uint32_t h, const struct part *all)
{
    const struct hparams *hp = f->hp;
    uint32_t rank = hp->kv_lora_rank;
    float *out = f->qa + ((size_t)row * hp->n_heads + h) * row_width(hp);
    const float *acc = all->acc + (size_t)h * rank;
    for (uint32_t c = 0; c < rank; c++)
        out[c] = acc[c] / all->soft[h].sum;
}

/* Items are rows. */
static void whole_rows(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct absorbed_job *j = arg;
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    float *room = f->thread + thread * f->thread_floats + tile_floats(hp);
    struct part all = part_at(hp, room), next = part_at(hp, room + part_floats(hp));
    for (uint64_t i = first; i < last; i++) {
        uint32_t row = j->first + (uint32_t)i, parts = n_parts(f, row);
        attend_part(j, thread, row, 0, &all);
        for (uint32_t p = 1; p < parts; p++) {
            attend_part(j, thread, row, p, &next);
            for (uint32_t h = 0; h < hp->n_heads; h++)
                join(f, &all, &next, h);
        }
        for (uint32_t h = 0; h < hp->n_heads; h++)
            put_head(f, row, h, &all);
    }
}

/* Items are parts, of all rows one after the other. */
static void split_parts(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct absorbed_job *j = arg;
    const struct hparams *hp = j->f->hp;
    for (uint64_t t = first; t < last; t++) {
        uint32_t i = 0;
        while (t >= j->first_part[i + 1])
            i++;
        struct part out = part_at(hp, j->f->parts + t * part_floats(hp));
        attend_part(j, thread, j->first + i, (uint32_t)t - j->first_part[i], &out);
    }
}

/* Items are heads of rows. */
static void join_heads(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    (void)thread;
    struct absorbed_job *j = arg;
    struct forward *f = j->f;
    const struct hparams *hp = f->hp;
    for (uint64_t t = first; t < last; t++) {
        uint32_t i = (uint32_t)(t / hp->n_heads), h = (uint32_t)(t % hp->n_heads);
        struct part all = part_at(hp, f->parts + j->first_part[i] * part_floats(hp));
        for (uint32_t p = j->first_part[i] + 1; p < j->first_part[i + 1]; p++) {
            struct part next = part_at(hp, f->parts + p * part_floats(hp));
            join(f, &all, &next, h);
        }
        put_head(f, j->first + i, h, &all);
    }
}

void mla_absorbed(struct forward *f, uint32_t layer, uint32_t first, uint32_t n)
{
    uint32_t heads = f->hp->n_heads, threads = pool_threads(f->pool);
    struct absorbed_job j = {.f = f, .layer = layer, .first = first, .n = n};
    pool_run(f->pool, absorb_heads, &j, heads, 0);
    if (n >= 4 * threads) {
        pool_run(f->pool, whole_rows, &j, n, 1);
    } else {
        for (uint32_t i = 0; i < n; i += SPLIT_ROWS) {
            struct absorbed_job part = {.f = f, .layer = layer, .first = first + i};
            part.n = n - i < SPLIT_ROWS ? n - i : SPLIT_ROWS;
            for (uint32_t r = 0; r < part.n; r++)
                part.first_part[r + 1] = part.first_part[r] + n_parts(f, part.first + r);
            pool_run(f->pool, split_parts, &part, part.first_part[part.n], 0);
            pool_run(f->pool, join_heads, &part, (uint64_t)part.n * heads, 0);
        }
    }
    pool_run(f->pool, unabsorb_heads, &j, heads, 0);
}
