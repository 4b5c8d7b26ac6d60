/*
 * kernel.c - matrices times rows on all threads. The cut is by rows of the weight, never
 * along a sum, so that no element depends on how many threads there are.
 */
#include "engine/kernel/kernel.h"

#include <assert.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/kernel/int8.h"

enum {
    BLOCK = 16,         /* rows of a weight that go together; also the unit of the cut */
    SMALL_MACS = 32768, /* less work than this stays on one thread */
    LONG_RUN = 65536,
    LOCAL_ROWS = 16,    /* at a time in kernel_matmul_local() */
    FEW_ROWS = 8,       /* up to here a product costs the reading of its weights */
};

/* A thread's own room for kernel_matmul_local(). */
struct local {
    uint8_t *packed; /* 2 LOCAL_ROWS rows */
    float *left;     /* one row */
    float *y;        /* 2 LOCAL_ROWS rows of results */
};

struct kernel {
    const struct kernel_ops *ops;
    struct pool *pool;
    uint32_t max_rows, n_threads;
    uint8_t *work; /* n_threads * work_bytes */
    size_t work_bytes;
    struct local local[POOL_THREADS_MAX];
    float *tile; /* n_threads * tile_floats: a block of outputs of one bucket */
    size_t tile_floats;
    uint8_t *packed[2]; /* max rows through any matrix: inputs, a shared expert's hidden */
    size_t packed_bytes;
    float *hidden; /* gated activations: assignments of a MoE, then rows of one FFN */
    uint32_t *bucket_row, *bucket_start, *active; /* rows by expert */
    float *bucket_weight;
};

#if defined(__x86_64__)
/* clang 14's run-time check does not know this one; where AVX2 runs, its registers are saved. */
static bool has_f16c(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) && __builtin_cpu_supports("avx2");
}
#endif

uint32_t kernel_cpu(void)
{
    uint32_t has = 0;
#if defined(__x86_64__)
    /* The compiler's run-time check asks the operating system too. */
    has |= __builtin_cpu_supports("avx2") ? KERNEL_AVX2 : 0u;
    has |= __builtin_cpu_supports("fma") ? KERNEL_FMA : 0u;
    has |= has_f16c() ? KERNEL_F16C : 0u;
    has |= __builtin_cpu_supports("avx512f") ? KERNEL_AVX512F : 0u;
    has |= __builtin_cpu_supports("avx512bw") ? KERNEL_AVX512BW : 0u;
    has |= __builtin_cpu_supports("avx512vl") ? KERNEL_AVX512VL : 0u;
    has |= __builtin_cpu_supports("avx512dq") ? KERNEL_AVX512DQ : 0u;
    has |= __builtin_cpu_supports("avx512vnni") ? KERNEL_AVX512VNNI : 0u;
    has |= __builtin_cpu_supports("avx512bf16") ? KERNEL_AVX512BF16 : 0u;
#elif defined(__aarch64__)
    has |= getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? KERNEL_DOTPROD : 0u;
#endif
    return has;
}

enum {
    NEEDS_AVX512 = KERNEL_AVX2 | KERNEL_FMA | KERNEL_F16C | KERNEL_AVX512F | KERNEL_AVX512BW |
                   KERNEL_AVX512VL | KERNEL_AVX512DQ | KERNEL_AVX512VNNI,
};

/* Best first; `needs` is what engine/CMakeLists.txt lets the compiler use in its file. */
static const struct {
    const struct kernel_ops *ops;
    uint32_t needs;
} tables[] = {
#if defined(__x86_64__)
    {&kernel_avx512bf16, NEEDS_AVX512 | KERNEL_AVX512BF16},
    {&kernel_avx512, NEEDS_AVX512},
    {&kernel_avx2, KERNEL_AVX2 | KERNEL_FMA | KERNEL_F16C},
#elif defined(__aarch64__)
    {&kernel_neon, KERNEL_DOTPROD},
#endif
    {&kernel_ref, 0},
    {&kernel_exact, 0},
};

const struct kernel_ops *kernel_choose(uint32_t cpu, const char *name, unsigned i)
{
    for (unsigned k = 0; k < ARRAY_LEN(tables); k++)
        if ((tables[k].needs & ~cpu) == 0 && (!name || !strcmp(tables[k].ops->name, name)) &&
            i-- == 0)
            return tables[k].ops;
    return NULL;
}

const struct kernel_ops *kernel_list(unsigned i)
{
    return kernel_choose(kernel_cpu(), NULL, i);
}

const struct kernel_ops *kernel_best(void)
{
    const char *want = getenv("AGENTD_KERNEL");
    const struct kernel_ops *o = want ? kernel_choose(kernel_cpu(), want, 0) : NULL;
    return o ? o : kernel_list(0);
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
    size_t pack_row = ((size_t)cols * 5 + 256 + 63) & ~(size_t)63;
    k->tile_floats = (size_t)max_rows * BLOCK * 2;
    k->packed_bytes = (size_t)max64(max_rows * pack_row,
                                    spread * (hp->moe_inter_dim * UINT64_C(5) + 256));
    int rc = 0;
    k->work = block(k->n_threads, k->work_bytes, err, &rc);
    uint64_t wide = max64(hp->kv_lora_rank, max64(hp->v_head_dim, hp->qk_nope_head_dim));
    for (uint32_t t = 0; t < k->n_threads; t++) {
        k->local[t].packed = block(2 * LOCAL_ROWS, pack_row, err, &rc);
        k->local[t].left = block((size_t)cols, sizeof(float), err, &rc);
        k->local[t].y = block(2 * LOCAL_ROWS, (size_t)wide * sizeof(float), err, &rc);
    }
    k->tile = block(k->n_threads, k->tile_floats * sizeof(float), err, &rc);
    k->packed[0] = block(1, k->packed_bytes, err, &rc);
    k->packed[1] = block(1, k->packed_bytes, err, &rc);
    k->hidden = block((size_t)(max_rows * ffn + spread * hp->moe_inter_dim), sizeof(float),
                      err, &rc);
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
    for (uint32_t t = 0; t < k->n_threads; t++) {
        mem_free(k->local[t].packed);
        mem_free(k->local[t].left);
        mem_free(k->local[t].y);
    }
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

/* n rows for a weight of `type`, in buffer `which` where it wants them packed. */
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

/* The type that wants packed rows among some, or any; a weight that wants none ignores them. */
static uint32_t packing(const struct kernel *k, const struct tensor *const *w, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (k->ops->pack_bytes(w[i]->type, w[i]->ne[0]))
            return w[i]->type;
    return w[0]->type;
}

static uint64_t n_blocks(uint64_t rows)
{
    return (rows + BLOCK - 1) / BLOCK;
}

/*
 * Runs blocks of `cols` inputs for n rows each: single ones, or as many as are worth a
 * thread's while. With few rows the reading of weights is all there is, and memory is read
 * faster in long runs: of one matrix with `one` inputs, LONG_RUN weights where that leaves
 * each thread two of them.
 */
static void run_blocks(struct kernel *k, pool_fn *fn, void *job, uint64_t blocks,
                       uint64_t cols, uint64_t one, uint32_t n)
{
    uint64_t macs = cols * BLOCK * (n ? n : 1);
    uint64_t least = macs >= SMALL_MACS ? 1 : (SMALL_MACS + macs - 1) / macs;
    if (n > FEW_ROWS) {
        pool_run(k->pool, fn, job, blocks, least);
        return;
    }
    uint64_t run = LONG_RUN / (one * BLOCK), share = blocks / (2 * (uint64_t)k->n_threads);
    run = run < share ? run : share;
    pool_share(k->pool, fn, job, blocks, run > least ? run : least);
}

/* --- dense
 * ------------------------------------------------------------------------------ */

struct dense_job {
    struct kernel *k;
    const struct kernel_part *part;
    struct acts acts;
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
        struct acts a = j->acts;
        a.packed = part->exact ? NULL : a.packed;
        a.next = p + 1 < j->n_parts ? j->part[p + 1].w->data : NULL;
        uint64_t rows = tensor_n_rows(part->w);
        uint64_t r0 = (from - j->first_block[p]) * BLOCK;
        uint64_t r1 = (to - j->first_block[p]) * BLOCK;
        r1 = r1 < rows ? r1 : rows;
        k->ops->matmul(part->w, r0, r1, &a, j->n, part->y + r0, part->ldy, work);
    }
}

void kernel_matmul_parts(struct kernel *k, const struct kernel_part *part,
                         uint32_t n_parts, const float *x, size_t ldx, uint32_t n)
{
    const struct tensor *w[KERNEL_PARTS_MAX];
    struct dense_job j = {.k = k, .part = part, .n_parts = n_parts, .n = n};
    uint32_t n_w = 0;
    for (uint32_t p = 0; p < n_parts; p++) {
        j.first_block[p + 1] = j.first_block[p] + n_blocks(tensor_n_rows(part[p].w));
        if (!part[p].exact)
            w[n_w++] = part[p].w;
    }
    j.acts = (struct acts){.x = x, .ldx = ldx};
    if (n_w)
        j.acts = packed(k, 0, packing(k, w, n_w), x, ldx, w[0]->ne[0], n);
    uint64_t cols = part[0].w->ne[0];
    run_blocks(k, dense_blocks, &j, j.first_block[n_parts], cols, cols, n);
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

/* Two packed rows in place of one: x, and what its rounding left over. */
static void pack_twice(const struct kernel *k, uint32_t type, const float *x, uint64_t cols,
                       uint8_t *out, size_t ldp, float *left)
{
    k->ops->pack(type, x, cols, out);
    struct int8_row r = int8_view(out, cols);
    for (uint64_t i = 0; i < cols; i++)
        left[i] = x[i] - r.d[i / INT8_BLOCK] * (float)r.q[i];
    k->ops->pack(type, left, cols, out + ldp);
}

void kernel_matmul_local(struct kernel *k, uint32_t thread, const struct tensor *w,
                         const float *x, size_t ldx, uint32_t n, float *y, size_t ldy)
{
    uint64_t rows = tensor_n_rows(w), cols = w->ne[0];
    size_t ldp = (k->ops->pack_bytes(w->type, cols) + 63) & ~(size_t)63;
    void *work = k->work + thread * k->work_bytes;
    if (ldp == 0) {
        struct acts a = {.x = x, .ldx = ldx};
        k->ops->matmul(w, 0, rows, &a, n, y, ldy, work);
        return;
    }
    struct local *l = &k->local[thread];
    for (uint32_t i = 0; i < n; i += LOCAL_ROWS) {
        struct acts a = {.packed = l->packed, .ldp = ldp};
        uint32_t m = n - i < LOCAL_ROWS ? n - i : LOCAL_ROWS;
        for (uint32_t r = 0; r < m; r++)
            pack_twice(k, w->type, x + (i + r) * ldx, cols, l->packed + 2 * r * ldp, ldp,
                       l->left);
        k->ops->matmul(w, 0, rows, &a, 2 * m, l->y, rows, work);
        for (uint32_t r = 0; r < m; r++)
            for (uint64_t c = 0; c < rows; c++)
                y[(i + r) * ldy + c] = l->y[2 * r * rows + c] + l->y[(2 * r + 1) * rows + c];
    }
}

/* --- gated FFN
 * -------------------------------------------------------------------------- */

/* Rows of a weight whose products with n rows fit a thread's tile. */
static uint64_t tile_rows(const struct kernel *k, uint32_t n)
{
    return k->tile_floats / (n ? n : 1) / BLOCK * BLOCK;
}

/* hidden[i][r0..r1) = silu(gate x) .* up x, for the n rows of x. */
static void gate_up(struct kernel *k, uint32_t thread, const struct ffn_weights *f,
                    const struct acts *x, uint32_t n, uint64_t r0, uint64_t r1,
                    float *hidden)
{
    struct acts gate = *x;
    uint64_t inter = f->gate.ne[1], step = tile_rows(k, n);
    void *work = k->work + thread * k->work_bytes;
    float *u = k->tile + thread * k->tile_floats;
    for (uint64_t r = r0; r < r1; r += step) {
        uint64_t to = r + step < r1 ? r + step : r1, m = to - r;
        gate.next = tensor_row(&f->up, r);
        k->ops->matmul(&f->gate, r, to, &gate, n, hidden + r, inter, work);
        k->ops->matmul(&f->up, r, to, x, n, u, m, work);
        for (uint32_t i = 0; i < n; i++)
            k->ops->swiglu(hidden + i * inter + r, u + i * m, m);
    }
}

/* y[i][r0..r1) += weight[i] * (down h)[i], through the thread's tile; y_row as acts.pick. */
static void down_add(struct kernel *k, uint32_t thread, const struct tensor *down,
                     const struct acts *h, uint32_t n, uint64_t r0, uint64_t r1,
                     const uint32_t *y_row, const float *weight, float *y, size_t ldy)
{
    void *work = k->work + thread * k->work_bytes;
    float *tile = k->tile + thread * k->tile_floats;
    uint64_t step = tile_rows(k, n);
    for (uint64_t r = r0; r < r1; r += step) {
        uint64_t to = r + step < r1 ? r + step : r1, m = to - r;
        k->ops->matmul(down, r, to, h, n, tile, m, work);
        for (uint32_t i = 0; i < n; i++)
            k->ops->axpy(y + (y_row ? y_row[i] : i) * ldy + r, weight ? weight[i] : 1,
                         tile + i * m, m);
    }
}

/*
 * One job for all forms: experts by bucket, and beside them one FFN that every row goes
 * through, which is the shared expert of a MoE layer or all there is of a dense one.
 */
struct ffn_job {
    struct kernel *k;
    const struct ffn_weights *experts;
    uint32_t n_active; /* experts that have rows: k->active */
    uint64_t inter, blocks;
    struct acts in, hidden; /* hidden: rows in the buckets' order */
    const struct ffn_weights *all;
    uint64_t all_inter, all_blocks;
    struct acts all_hidden;
    float *all_out; /* gated activations of `all` */
    uint32_t n;
    float *y;
    size_t ldy;
};

static void all_up(struct ffn_job *j, uint32_t thread, uint64_t first, uint64_t last)
{
    uint64_t to = last * BLOCK < j->all_inter ? last * BLOCK : j->all_inter;
    gate_up(j->k, thread, j->all, &j->in, j->n, first * BLOCK, to, j->all_out);
}

/* Items: blocks of `all`, which have most rows, then those of expert after expert. */
static void up_blocks(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct ffn_job *j = arg;
    struct kernel *k = j->k;
    if (first < j->all_blocks)
        all_up(j, thread, first, last < j->all_blocks ? last : j->all_blocks);
    first = first < j->all_blocks ? 0 : first - j->all_blocks;
    last = last < j->all_blocks ? 0 : last - j->all_blocks;
    for (uint64_t t = first, next; t < last; t = next) {
        uint64_t a = t / j->blocks;
        next = (a + 1) * j->blocks; /* where this expert ends */
        struct acts x = j->in;
        x.next = next < last ? j->experts[k->active[a + 1]].gate.data : NULL;
        next = next < last ? next : last;
        uint32_t e = k->active[a];
        uint32_t start = k->bucket_start[e], n = k->bucket_start[e + 1] - start;
        x.pick = k->bucket_row + start;
        uint64_t r = t % j->blocks * BLOCK, to = r + (next - t) * BLOCK;
        gate_up(k, thread, &j->experts[e], &x, n, r, to < j->inter ? to : j->inter,
                k->hidden + start * j->inter);
    }
}

static void down_blocks(void *arg, uint32_t thread, uint64_t first, uint64_t last)
{
    struct ffn_job *j = arg;
    struct kernel *k = j->k;
    uint64_t dim = (j->all ? j->all : j->experts)->down.ne[1], r0 = first * BLOCK;
    uint64_t r1 = last * BLOCK < dim ? last * BLOCK : dim;
    for (uint32_t i = 0; i < j->n; i++)
        memset(j->y + i * j->ldy + r0, 0, (r1 - r0) * sizeof *j->y);
    for (uint32_t a = 0; a < j->n_active; a++) {
        uint32_t e = k->active[a];
        uint32_t start = k->bucket_start[e], n = k->bucket_start[e + 1] - start;
        struct acts h = j->hidden;
        h.x += start * j->inter;
        h.packed = h.packed ? h.packed + start * h.ldp : NULL;
        const struct tensor *next =
            a + 1 < j->n_active ? &j->experts[k->active[a + 1]].down
            : j->all            ? &j->all->down
                                : NULL;
        h.next = next ? tensor_row(next, r0) : NULL;
        down_add(k, thread, &j->experts[e].down, &h, n, r0, r1, k->bucket_row + start,
                 k->bucket_weight + start, j->y, j->ldy);
    }
    if (j->all)
        down_add(k, thread, &j->all->down, &j->all_hidden, j->n, r0, r1, NULL, NULL, j->y,
                 j->ldy);
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
    struct ffn_job j = {.k = k, .experts = m->experts, .all = m->all, .n = n, .y = y, .ldy = ldy};
    const struct tensor *w[4];
    uint32_t n_w = 0, spread = 0, each = m->all ? n : 0;
    if (m->n_used) {
        j.n_active = fill_buckets(k, m, n);
        j.inter = m->experts[0].gate.ne[1];
        j.blocks = n_blocks(j.inter);
        spread = n * m->n_used;
        each = (spread + j.n_active - 1) / j.n_active;
        w[n_w++] = &m->experts[0].gate;
        w[n_w++] = &m->experts[0].up;
    }
    j.all_out = k->hidden + spread * j.inter;
    if (m->all) {
        j.all_inter = m->all->gate.ne[1];
        j.all_blocks = n_blocks(j.all_inter);
        w[n_w++] = &m->all->gate;
        w[n_w++] = &m->all->up;
    }
    uint64_t dim = w[0]->ne[0];
    j.in = packed(k, 0, packing(k, w, n_w), x, ldx, dim, n);
    run_blocks(k, up_blocks, &j, j.all_blocks + j.n_active * j.blocks, 2 * dim, dim,
               each);
    if (m->n_used)
        j.hidden = packed(k, 0, m->experts[0].down.type, k->hidden, j.inter, j.inter, spread);
    if (m->all)
        j.all_hidden = packed(k, 1, m->all->down.type, j.all_out, j.all_inter, j.all_inter, n);
    run_blocks(k, down_blocks, &j, n_blocks(dim), j.inter * m->n_used + j.all_inter,
               j.inter ? j.inter : j.all_inter, each);
}
