/*
 * kernel.c - matrices times rows on all threads. The cut is by rows of the weight, never
 * along a sum, so that no element depends on how many threads there are.
 */
#include "engine/kernel/kernel.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum {
    BLOCK = 16,         /* rows of a weight that go together; also the unit of the cut */
    SMALL_MACS = 32768, /* less work than this stays on one thread */
};

struct kernel {
    const struct kernel_ops *ops;
    struct pool *pool;
    uint32_t max_rows, n_threads;
    uint8_t *work; /* n_threads * work_bytes */
    size_t work_bytes;
    float *tile; /* n_threads * tile_floats: a block of outputs of one bucket */
    size_t tile_floats;
    uint8_t
        *packed[2]; /* max rows through any matrix: inputs, and a second type of them */
    size_t packed_bytes;
    float *hidden; /* gated activations: rows of a dense FFN, or assignments of a MoE */
    uint32_t *bucket_row, *bucket_start, *active; /* rows by expert */
    float *bucket_weight;
};

static bool can_run(const struct kernel_ops *o)
{
#if defined(__x86_64__)
    if (o == &kernel_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
    if (o == &kernel_avx2)
        return __builtin_cpu_supports("avx2") &&
               __builtin_cpu_supports("fma"); /* and F16C */
#endif
    return o == &kernel_ref || o == &kernel_exact;
}

const struct kernel_ops *kernel_list(unsigned i)
{
    static const struct kernel_ops *const all[] = {
#if defined(__x86_64__)
        &kernel_avx512,
        &kernel_avx2,
#endif
        &kernel_ref,
        &kernel_exact,
    };
    for (unsigned k = 0; k < ARRAY_LEN(all); k++)
        if (can_run(all[k]) && i-- == 0)
            return all[k];
    return NULL;
}

const struct kernel_ops *kernel_best(void)
{
    const char *want = getenv("AGENTD_KERNEL");
    const struct kernel_ops *o;
    for (unsigned i = 0; want && (o = kernel_list(i)); i++)
        if (strcmp(o->name, want) == 0)
            return o;
    return kernel_list(0);
}

const struct kernel_ops *kernel_ops(const struct kernel *k)
{
    return k->ops;
}

struct pool *kernel_pool(const struct kernel *k)
{
    return k->pool;
}

static uint64_t max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The longest row of any matrix, and the most bytes that n of its packed rows need. */
static uint64_t widest(const struct hparams *hp)
{
    uint64_t w = max64(hp->dim * (hp->n_mtp_layers ? 2u : 1u), hp->q_lora_rank);
    w = max64(w, (uint64_t)hp->n_heads * hp->v_head_dim);
    w = max64(w, max64(hp->kv_lora_rank, hp->qk_nope_head_dim));
    w = max64(w, max64(hp->inter_dim, hp->moe_inter_dim));
    return max64(w, (uint64_t)hp->moe_inter_dim * hp->n_shared_experts);
}

static void *block(size_t n, size_t size, struct err *err, int *rc)
{
    size_t bytes;
    void *p = mem_mul(n ? n : 1, size, &bytes) ? mem_aligned(64, bytes) : NULL;
    if (!p && *rc == 0)
        *rc = err_nomem(err);
    return p;
}

int kernel_open(struct kernel **out, const struct weights *w, struct pool *pool,
                uint32_t max_rows, struct err *err)
{
    const struct hparams *hp = &w->hp;
    struct kernel *k = mem_zalloc(sizeof *k);
    if (!k)
        return err_nomem(err);
    k->ops = kernel_best();
    k->pool = pool;
    k->n_threads = pool_threads(pool);
    k->max_rows = max_rows;
    uint64_t cols = widest(hp);
    uint64_t ffn =
        max64(hp->inter_dim, (uint64_t)hp->moe_inter_dim * hp->n_shared_experts);
    uint64_t spread = (uint64_t)max_rows * hp->n_activated_experts;
    k->work_bytes = KERNEL_WORK(cols);
    /* A packed row is never longer than its floats and a scale per sixteen of them. */
    size_t pack_row = (size_t)cols * 5 + 256;
    k->tile_floats = (size_t)max_rows * BLOCK * 2;
    k->packed_bytes = (size_t)max64(max_rows * pack_row,
                                    spread * (hp->moe_inter_dim * UINT64_C(5) + 256));
    int rc = 0;
    k->work = block(k->n_threads, k->work_bytes, err, &rc);
    k->tile = block(k->n_threads, k->tile_floats * sizeof(float), err, &rc);
    k->packed[0] = block(1, k->packed_bytes, err, &rc);
    k->packed[1] = block(1, k->packed_bytes, err, &rc);
    k->hidden = block((size_t)max64(max_rows * ffn, spread * hp->moe_inter_dim),
                      sizeof(float), err, &rc);
    k->bucket_row = block((size_t)spread, sizeof(uint32_t), err, &rc);
    k->bucket_weight = block((size_t)spread, sizeof(float), err, &rc);
    k->bucket_start = block((size_t)hp->n_routed_experts + 2, sizeof(uint32_t), err, &rc);
    k->active = block((size_t)hp->n_routed_experts + 1, sizeof(uint32_t), err, &rc);
    if (rc < 0) {
        kernel_close(k);
        return rc;
    }
    *out = k;
    return 0;
}

void kernel_close(struct kernel *k)
{
    if (!k)
        return;
    mem_free(k->work);
    mem_free(k->tile);
    mem_free(k->packed[0]);
    mem_free(k->packed[1]);
    mem_free(k->hidden);
    mem_free(k->bucket_row);
    mem_free(k->bucket_weight);
    mem_free(k->bucket_start);
    mem_free(k->active);
    mem_free(k);
}

/* --- packing
 * ---------------------------------------------------------------------------- */

struct pack_job {
    const struct kernel_ops *ops;
    uint32_t type;
    const float *x;
    size_t ldx, ldp;
    uint64_t cols;
    uint8_t *out;
};

static void pack_rows(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    (void)thread;
    struct pack_job *j = arg;
    for (uint64_t i = first; i < last; i++)
        j->ops->pack(j->type, j->x + i * j->ldx, j->cols, j->out + i * j->ldp);
}

/* The rows as weights of `type` want them, in buffer `which`. */
static struct acts packed(struct kernel *k, int which, uint32_t type, const float *x,
                          size_t ldx, uint64_t cols, uint32_t n)
{
    struct acts a = {.x = x, .ldx = ldx};
    a.ldp = (k->ops->pack_bytes(type, cols) + 63) & ~(size_t)63;
    if (a.ldp == 0)
        return a;
    a.packed = k->packed[which];
    struct pack_job j = {k->ops, type, x, ldx, a.ldp, cols, k->packed[which]};
    pool_run(k->pool, pack_rows, &j, n, n > 4 ? 4 : n);
    return a;
}

/* Whether rows packed for type a serve type b too. */
static bool same_pack(const struct kernel *k, uint32_t a, uint32_t b, uint64_t cols)
{
    return k->ops->pack_bytes(a, cols) == k->ops->pack_bytes(b, cols);
}

/* Blocks per task, so that a task is worth a thread's while. */
static uint64_t grain(uint64_t cols, uint32_t n)
{
    uint64_t macs = cols * BLOCK * (n ? n : 1);
    return macs >= SMALL_MACS ? 1 : (SMALL_MACS + macs - 1) / macs;
}

static uint64_t n_blocks(uint64_t rows)
{
    return (rows + BLOCK - 1) / BLOCK;
}

/* --- dense
 * ------------------------------------------------------------------------------ */

struct dense_job {
    struct kernel *k;
    const struct kernel_part *part;
    const struct acts *acts; /* one per part */
    uint64_t first_block[KERNEL_PARTS_MAX + 1];
    uint32_t n_parts, n;
};

static void dense_blocks(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct dense_job *j = arg;
    struct kernel *k = j->k;
    void *work = k->work + thread * k->work_bytes;
    for (uint32_t p = 0; p < j->n_parts; p++) {
        uint64_t from = first > j->first_block[p] ? first : j->first_block[p];
        uint64_t to = last < j->first_block[p + 1] ? last : j->first_block[p + 1];
        if (from >= to)
            continue;
        const struct kernel_part *part = &j->part[p];
        uint64_t rows = tensor_n_rows(part->w);
        uint64_t r0 = (from - j->first_block[p]) * BLOCK;
        uint64_t r1 = (to - j->first_block[p]) * BLOCK;
        r1 = r1 < rows ? r1 : rows;
        k->ops->matmul(part->w, r0, r1, &j->acts[p], j->n, part->y + r0, part->ldy, work);
    }
}

/* The part's rows: floats, or packed in one of two buffers; type[] is what those hold. */
static struct acts part_acts(struct kernel *k, const struct kernel_part *part, const float *x,
                             size_t ldx, uint32_t n, uint32_t type[2], struct acts have[2],
                             int *n_packed)
{
    uint64_t cols = part->w->ne[0];
    if (part->exact || !k->ops->pack_bytes(part->w->type, cols))
        return (struct acts){.x = x, .ldx = ldx};
    for (int b = 0; b < *n_packed; b++)
        if (same_pack(k, type[b], part->w->type, cols))
            return have[b];
    assert(*n_packed < 2);
    int at = (*n_packed)++;
    type[at] = part->w->type;
    return have[at] = packed(k, at, type[at], x, ldx, cols, n);
}

void kernel_matmul_parts(struct kernel *k, const struct kernel_part *part,
                         uint32_t n_parts, const float *x, size_t ldx, uint32_t n)
{
    struct acts acts[KERNEL_PARTS_MAX], have[2];
    uint32_t type[2] = {0, 0};
    int n_packed = 0;
    struct dense_job j = {.k = k, .part = part, .acts = acts, .n_parts = n_parts, .n = n};
    for (uint32_t p = 0; p < n_parts; p++) {
        acts[p] = part_acts(k, &part[p], x, ldx, n, type, have, &n_packed);
        j.first_block[p + 1] = j.first_block[p] + n_blocks(tensor_n_rows(part[p].w));
    }
    pool_run(k->pool, dense_blocks, &j, j.first_block[n_parts], grain(part[0].w->ne[0], n));
}

void kernel_matmul(struct kernel *k, const struct tensor *w, const float *x, size_t ldx,
                   uint32_t n, float *y, size_t ldy)
{
    struct kernel_part part = {w, y, ldy, false};
    kernel_matmul_parts(k, &part, 1, x, ldx, n);
}

void kernel_matmul_exact(struct kernel *k, const struct tensor *w, const float *x,
                         size_t ldx, uint32_t n, float *y, size_t ldy)
{
    struct kernel_part part = {w, y, ldy, true};
    kernel_matmul_parts(k, &part, 1, x, ldx, n);
}

void kernel_matmul_local(struct kernel *k, uint32_t thread, const struct tensor *w,
                         const float *x, size_t ldx, uint32_t n, float *y, size_t ldy)
{
    struct acts a = {.x = x, .ldx = ldx};
    k->ops->matmul(w, 0, tensor_n_rows(w), &a, n, y, ldy, k->work + thread * k->work_bytes);
}

/* --- gated FFN
 * -------------------------------------------------------------------------- */

struct ffn_job {
    struct kernel *k;
    const struct ffn_weights *f;
    struct acts in[2], hidden; /* packed for gate, up, down */
    uint32_t n;
    float *y;
    size_t ldy;
    bool add;
};

/* hidden[i][r0..r1) = silu(gate x) .* up x, for rows that `gate` and `up` describe. */
static void gate_up(struct kernel *k, uint32_t thread, const struct ffn_weights *f,
                    const struct acts *gate, const struct acts *up, uint32_t n,
                    uint64_t r0, uint64_t r1, float *hidden)
{
    uint64_t inter = f->gate.ne[1];
    void *work = k->work + thread * k->work_bytes;
    float *u = k->tile + thread * k->tile_floats;
    for (uint64_t r = r0; r < r1; r += BLOCK) {
        uint64_t to = r + BLOCK < r1 ? r + BLOCK : r1;
        k->ops->matmul(&f->gate, r, to, gate, n, hidden + r, inter, work);
        k->ops->matmul(&f->up, r, to, up, n, u, BLOCK, work);
        for (uint32_t i = 0; i < n; i++)
            k->ops->swiglu(hidden + i * inter + r, u + (size_t)i * BLOCK, to - r);
    }
}

static void ffn_up_blocks(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct ffn_job *j = arg;
    uint64_t inter = j->f->gate.ne[1];
    uint64_t r1 = last * BLOCK < inter ? last * BLOCK : inter;
    gate_up(j->k, thread, j->f, &j->in[0], &j->in[1], j->n, first * BLOCK, r1,
            j->k->hidden);
}

static void ffn_down_blocks(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct ffn_job *j = arg;
    struct kernel *k = j->k;
    uint64_t dim = j->f->down.ne[1];
    void *work = k->work + thread * k->work_bytes;
    float *tile = k->tile + thread * k->tile_floats;
    for (uint64_t b = first; b < last; b++) {
        uint64_t r = b * BLOCK, to = r + BLOCK < dim ? r + BLOCK : dim;
        if (!j->add) {
            k->ops->matmul(&j->f->down, r, to, &j->hidden, j->n, j->y + r, j->ldy, work);
            continue;
        }
        k->ops->matmul(&j->f->down, r, to, &j->hidden, j->n, tile, BLOCK, work);
        for (uint32_t i = 0; i < j->n; i++)
            for (uint64_t c = 0; c < to - r; c++)
                j->y[i * j->ldy + r + c] += tile[(size_t)i * BLOCK + c];
    }
}

void kernel_ffn(struct kernel *k, const struct ffn_weights *f, const float *x, size_t ldx,
                uint32_t n, float *y, size_t ldy, bool add)
{
    uint64_t dim = f->gate.ne[0], inter = f->gate.ne[1];
    struct ffn_job j = {.k = k, .f = f, .n = n, .y = y, .ldy = ldy, .add = add};
    j.in[0] = packed(k, 0, f->gate.type, x, ldx, dim, n);
    j.in[1] = same_pack(k, f->gate.type, f->up.type, dim)
                  ? j.in[0]
                  : packed(k, 1, f->up.type, x, ldx, dim, n);
    pool_run(k->pool, ffn_up_blocks, &j, n_blocks(inter), grain(2 * dim, n));
    j.hidden = packed(k, 0, f->down.type, k->hidden, inter, inter, n);
    pool_run(k->pool, ffn_down_blocks, &j, n_blocks(f->down.ne[1]), grain(inter, n));
}

/* --- experts
 * ---------------------------------------------------------------------------- */

struct moe_job {
    struct kernel *k;
    const struct kernel_moe *m;
    struct acts in[2], hidden;
    uint32_t n_active;
    uint64_t inter, blocks; /* per expert */
    float *y;
    size_t ldy;
};

static void moe_up_blocks(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct moe_job *j = arg;
    struct kernel *k = j->k;
    for (uint64_t t = first; t < last; t++) {
        uint32_t e = k->active[t / j->blocks];
        uint32_t start = k->bucket_start[e], n = k->bucket_start[e + 1] - start;
        struct acts gate = j->in[0], up = j->in[1];
        gate.pick = up.pick = k->bucket_row + start;
        uint64_t r = t % j->blocks * BLOCK;
        uint64_t to = r + BLOCK < j->inter ? r + BLOCK : j->inter;
        gate_up(k, thread, &j->m->experts[e], &gate, &up, n, r, to,
                k->hidden + start * j->inter);
    }
}

static void moe_down_blocks(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct moe_job *j = arg;
    struct kernel *k = j->k;
    void *work = k->work + thread * k->work_bytes;
    float *tile = k->tile + thread * k->tile_floats;
    for (uint64_t b = first; b < last; b++) {
        for (uint32_t a = 0; a < j->n_active; a++) {
            uint32_t e = k->active[a];
            const struct tensor *down = &j->m->experts[e].down;
            uint64_t r = b * BLOCK,
                     to = r + BLOCK < down->ne[1] ? r + BLOCK : down->ne[1];
            uint32_t start = k->bucket_start[e], n = k->bucket_start[e + 1] - start;
            struct acts h = j->hidden;
            h.x += start * j->inter;
            h.packed = h.packed ? h.packed + start * h.ldp : NULL;
            k->ops->matmul(down, r, to, &h, n, tile, BLOCK, work);
            for (uint32_t i = 0; i < n; i++) {
                float *y = j->y + k->bucket_row[start + i] * j->ldy + r;
                float g = k->bucket_weight[start + i];
                k->ops->axpy(y, g, tile + (size_t)i * BLOCK, to - r);
            }
        }
    }
}

/* Sorts the assignments by expert, rows ascending in each. */
static uint32_t fill_buckets(struct kernel *k, const struct kernel_moe *m, uint32_t n)
{
    uint32_t *start = k->bucket_start;
    memset(start, 0, (m->n_experts + 2) * sizeof *start);
    for (size_t a = 0; a < (size_t)n * m->n_used; a++)
        start[m->pick[a] + 2]++;
    uint32_t n_active = 0;
    for (uint32_t e = 0; e < m->n_experts; e++) {
        if (start[e + 2])
            k->active[n_active++] = e;
        start[e + 2] += start[e + 1];
    }
    /* start[e + 1] is where expert e begins; filling moves it to where e ends. */
    for (size_t a = 0; a < (size_t)n * m->n_used; a++) {
        uint32_t at = start[m->pick[a] + 1]++;
        k->bucket_row[at] = (uint32_t)(a / m->n_used);
        k->bucket_weight[at] = m->weight[a];
    }
    return n_active;
}

void kernel_moe(struct kernel *k, const struct kernel_moe *m, const float *x, size_t ldx,
                uint32_t n, float *y, size_t ldy)
{
    const struct ffn_weights *f = &m->experts[0];
    uint64_t dim = f->gate.ne[0], inter = f->gate.ne[1];
    uint32_t spread = n * m->n_used;
    struct moe_job j = {
        .k = k, .m = m, .inter = inter, .blocks = n_blocks(inter), .y = y, .ldy = ldy};
    j.n_active = fill_buckets(k, m, n);
    j.in[0] = packed(k, 0, f->gate.type, x, ldx, dim, n);
    j.in[1] = same_pack(k, f->gate.type, f->up.type, dim)
                  ? j.in[0]
                  : packed(k, 1, f->up.type, x, ldx, dim, n);
    uint32_t each = (spread + j.n_active - 1) / j.n_active;
    pool_run(k->pool, moe_up_blocks, &j, j.n_active * j.blocks, grain(2 * dim, each));
    j.hidden = packed(k, 0, f->down.type, k->hidden, inter, inter, spread);
    pool_run(k->pool, moe_down_blocks, &j, n_blocks(f->down.ne[1]), grain(inter, spread));
}
