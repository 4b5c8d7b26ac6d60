/* kvcache.c - pages of cached rows: storage formats, sharing, copy on write. */
#include "engine/kvcache.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "engine/kernel/kernel.h"
#include "engine/quant/half.h"
#include "engine/quant/quant.h"

enum { F8_GROUP = 128 };

struct layout {
    size_t latent, index; /* offsets in a page */
    bool has_index;
};

struct kvcache {
    enum engine_cache type;
    bool faithful;
    uint32_t rank, rope, index_dim, n_layers, n_ctx;
    size_t latent_row, index_row; /* bytes */
    struct layout layer[HPARAMS_LAYERS_MAX];
    size_t page_bytes;
    uint8_t *base; /* owned mapping of n_pages pages, touched as they are used */
    uint32_t n_pages, n_fresh; /* pages never used yet start at n_fresh */
    uint32_t *refs, *free_page;
    uint32_t n_free;
    const struct quant_traits *traits; /* of the 16- and 32-bit storages */
    void (*widen)(uint32_t type, float *y, const void *x, size_t n);
    void (*widen_f8)(float *y, const uint8_t *code, const float *scale, uint32_t step,
                     uint32_t n);
};
_Static_assert((int)KV_PAGE == (int)ATTN_TILE, "a page is what the kernels take at a time");

/* Index keys are bytes with a scale each, and lie by fours. */
static bool is_i8(enum engine_cache type)
{
    return type == ENGINE_CACHE_F16_I8 || type == ENGINE_CACHE_BF16_I8;
}

static size_t f8_groups(size_t n)
{
    return (n + F8_GROUP - 1) / F8_GROUP;
}

static void lay_out(struct kvcache *kv, const struct hparams *hp)
{
    size_t at = 0;
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        struct layout *y = &kv->layer[l];
        y->latent = at;
        at += (kv->latent_row * KV_PAGE + 63) & ~(size_t)63;
        y->has_index = hp->index_topk && hp->index_full[l];
        y->index = at;
        if (y->has_index)
            at += (kv->index_row * KV_PAGE + 63) & ~(size_t)63;
    }
    kv->page_bytes = (at + 4095) & ~(size_t)4095;
}

/* 0 when the system does not say. */
static size_t memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (size_t)pages * (size_t)size : 0;
}

/* What was asked for, or a quarter of memory. More than there is would be granted, and then
 * end the process in the middle of a step. */
static int choose_bytes(size_t wanted, size_t *out, struct err *err)
{
    size_t memory = memory_bytes();
    *out = wanted ? wanted : memory ? memory / 4 : (size_t)1 << 30;
    if (!memory || *out <= memory)
        return 0;
    return err_set(err, ERR_LIMIT, "a KV cache of %zu bytes exceeds the memory of this machine, "
                   "%zu bytes", wanted, memory);
}

int kvcache_open(struct kvcache **out, const struct hparams *hp,
                 const struct kvcache_opts *o, struct err *err)
{
    struct kvcache *kv = mem_zalloc(sizeof *kv);
    if (!kv)
        return err_nomem(err);
    kv->type = o->type == ENGINE_CACHE_AUTO ? ENGINE_CACHE_F16 : o->type;
    kv->faithful = o->faithful_fp8;
    kv->rank = hp->kv_lora_rank;
    kv->rope = hp->qk_rope_head_dim;
    kv->index_dim = hp->index_head_dim;
    kv->n_layers = hp->n_layers + (o->mtp ? hp->n_mtp_layers : 0);
    kv->n_ctx = o->n_ctx;
    size_t n = (size_t)kv->rank + kv->rope, size = kv->type == ENGINE_CACHE_F32 ? 4 : 2;
    kv->latent_row = n * size;
    kv->index_row = kv->index_dim * size;
    if (kv->type == ENGINE_CACHE_FP8) {
        kv->latent_row = kv->rank + f8_groups(kv->rank) * sizeof(float) + kv->rope * 2;
        kv->index_row = kv->index_dim + sizeof(float);
    }
    if (is_i8(kv->type))
        kv->index_row = kv->index_dim + sizeof(float);
    bool f16 = kv->type == ENGINE_CACHE_F16 || kv->type == ENGINE_CACHE_F16_I8;
    kv->traits = quant_traits(kv->type == ENGINE_CACHE_F32 ? QUANT_F32
                              : f16                        ? QUANT_F16
                                                           : QUANT_BF16);
    kv->widen = kernel_best()->widen;
    kv->widen_f8 = attn_ops(kernel_best()->name)->widen_f8;
    lay_out(kv, hp);
    size_t bytes;
    int rc = choose_bytes(o->bytes, &bytes, err);
    size_t most = bytes / kv->page_bytes;
    kv->n_pages = most < UINT32_MAX ? (uint32_t)most : UINT32_MAX;
    if (rc < 0)
        goto fail;
    if (is_i8(kv->type) && kv->index_dim % 4) {
        rc = err_set(err, ERR_UNSUPPORTED,
                     "int8 index keys go by fours; this model's index_head_dim is %u",
                     kv->index_dim);
        goto fail;
    }
    if (kv->n_pages == 0) {
        rc = err_set(
            err, ERR_LIMIT,
            "a KV cache of %zu bytes holds no page: one page of %d positions takes "
            "%zu bytes in this model",
            bytes, KV_PAGE, kv->page_bytes);
        goto fail;
    }
    kv->refs = mem_array(kv->n_pages, sizeof *kv->refs);
    kv->free_page = mem_array(kv->n_pages, sizeof *kv->free_page);
    if (!kv->refs || !kv->free_page) {
        rc = err_nomem(err);
        goto fail;
    }
    void *base = mmap(NULL, kv->n_pages * kv->page_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        rc = err_sys(err, "reserve %zu bytes of KV cache", kv->n_pages * kv->page_bytes);
        goto fail;
    }
    kv->base = base;
    /* Gathering touches rows all over: with small pages it would wait for addresses. */
    (void)madvise(base, kv->n_pages * kv->page_bytes, MADV_HUGEPAGE);
    *out = kv;
    return 0;
fail:
    kvcache_close(kv);
    return rc;
}

void kvcache_close(struct kvcache *kv)
{
    if (!kv)
        return;
    if (kv->base)
        munmap(kv->base, kv->n_pages * kv->page_bytes);
    mem_free(kv->refs);
    mem_free(kv->free_page);
    mem_free(kv);
}

void kvcache_usage(const struct kvcache *kv, size_t *used, size_t *limit)
{
    *used = (size_t)(kv->n_fresh - kv->n_free) * kv->page_bytes;
    *limit = (size_t)kv->n_pages * kv->page_bytes;
}

enum engine_cache kvcache_type(const struct kvcache *kv)
{
    return kv->type;
}

bool kvcache_rotates(const struct kvcache *kv)
{
    return kv->type == ENGINE_CACHE_FP8 || is_i8(kv->type);
}

bool kvcache_index_i8(const struct kvcache *kv)
{
    return is_i8(kv->type);
}

bool kvcache_bf16(const struct kvcache *kv)
{
    return kv->type == ENGINE_CACHE_BF16 || kv->type == ENGINE_CACHE_BF16_I8;
}

size_t kvcache_row_bytes(const struct kvcache *kv)
{
    size_t sum = 0;
    for (uint32_t l = 0; l < kv->n_layers; l++)
        sum += kv->latent_row + (kv->layer[l].has_index ? kv->index_row : 0);
    return sum;
}

/* --- pages
 * ------------------------------------------------------------------------------ */

static uint8_t *page_at(const struct kvcache *kv, uint32_t page)
{
    return kv->base + (size_t)page * kv->page_bytes;
}

static int page_take(struct kvcache *kv, uint32_t *page, struct err *err)
{
    if (kv->n_free)
        *page = kv->free_page[--kv->n_free];
    else if (kv->n_fresh < kv->n_pages)
        *page = kv->n_fresh++;
    else
        return err_set(err, ERR_LIMIT,
                       "the KV cache is full: all %u pages (%zu bytes) are in use",
                       kv->n_pages, (size_t)kv->n_pages * kv->page_bytes);
    kv->refs[*page] = 1;
    return 0;
}

static void page_drop(struct kvcache *kv, uint32_t page)
{
    if (--kv->refs[page] == 0)
        kv->free_page[kv->n_free++] = page;
}

static uint32_t pages_for(uint32_t n)
{
    return n / KV_PAGE + (n % KV_PAGE != 0);
}

int kvseq_init(struct kvseq *s, struct kvcache *kv, struct err *err)
{
    *s = (struct kvseq){.kv = kv};
    s->page = mem_array(pages_for(kv->n_ctx), sizeof *s->page);
    return s->page ? 0 : err_nomem(err);
}

void kvseq_done(struct kvseq *s)
{
    if (s->page)
        kvseq_truncate(s, 0);
    mem_free(s->page);
    *s = (struct kvseq){0};
}

void kvseq_fork(struct kvseq *dst, const struct kvseq *src, uint32_t n)
{
    uint32_t pages = pages_for(n);
    for (uint32_t i = 0; i < pages; i++) {
        dst->page[i] = src->page[i];
        dst->kv->refs[src->page[i]]++;
    }
    dst->n_pages = pages;
    dst->len = n;
}

void kvseq_truncate(struct kvseq *s, uint32_t n)
{
    uint32_t keep = pages_for(n);
    while (s->n_pages > keep)
        page_drop(s->kv, s->page[--s->n_pages]);
    if (s->len > n)
        s->len = n;
}

int kvseq_reserve(struct kvseq *s, uint32_t from, uint32_t to, struct err *err)
{
    struct kvcache *kv = s->kv;
    for (uint32_t i = from / KV_PAGE; i < pages_for(to); i++) {
        uint32_t page = 0;
        if (i < s->n_pages && kv->refs[s->page[i]] == 1)
            continue;
        int rc = page_take(kv, &page, err);
        if (rc < 0)
            return rc;
        if (i < s->n_pages) {
            memcpy(page_at(kv, page), page_at(kv, s->page[i]), kv->page_bytes);
            page_drop(kv, s->page[i]);
        } else {
            s->n_pages = i + 1;
        }
        s->page[i] = page;
    }
    return 0;
}

/* --- rows
 * ------------------------------------------------------------------------------- */

static uint8_t *latent_at(const struct kvseq *s, uint32_t layer, uint32_t pos)
{
    const struct kvcache *kv = s->kv;
    return page_at(kv, s->page[pos / KV_PAGE]) + kv->layer[layer].latent +
           pos % KV_PAGE * kv->latent_row;
}

/* The index block of a page: keys standing, then for FP8 one scale per position. */
static uint8_t *index_at(const struct kvseq *s, uint32_t layer, uint32_t page)
{
    const struct kvcache *kv = s->kv;
    return page_at(kv, s->page[page]) + kv->layer[layer].index;
}

/* Bytes that lie together for one position of an index block, and how often they do. */
static size_t index_size(const struct kvcache *kv)
{
    bool four = kv->type == ENGINE_CACHE_F32 || is_i8(kv->type);
    return four ? 4 : kv->type == ENGINE_CACHE_FP8 ? 1 : 2;
}

static uint32_t index_runs(const struct kvcache *kv)
{
    return is_i8(kv->type) ? kv->index_dim / 4 : kv->index_dim;
}

static float abs_max(const float *x, size_t n)
{
    float m = 0;
    for (size_t i = 0; i < n; i++)
        m = fmaxf(m, fabsf(x[i]));
    return m;
}

/* e4m3 codes and one scale per group, amax / 448. */
static void f8_store(uint8_t *code, uint8_t *scales, const float *x, size_t n)
{
    for (size_t g = 0; g * F8_GROUP < n; g++) {
        size_t m = n - g * F8_GROUP < F8_GROUP ? n - g * F8_GROUP : F8_GROUP;
        float scale = fmaxf(abs_max(x + g * F8_GROUP, m), 1e-10f) / 448.0f;
        memcpy(scales + g * sizeof scale, &scale, sizeof scale);
        for (size_t i = 0; i < m; i++)
            code[g * F8_GROUP + i] = quant_f8_encode(x[g * F8_GROUP + i] / scale);
    }
}

static void f8_load(const struct kvcache *kv, float *x, const uint8_t *code,
                    const uint8_t *scales, size_t n)
{
    for (size_t g = 0; g * F8_GROUP < n; g++) {
        size_t m = n - g * F8_GROUP < F8_GROUP ? n - g * F8_GROUP : F8_GROUP;
        float scale;
        memcpy(&scale, scales + g * sizeof scale, sizeof scale);
        kv->widen_f8(x + g * F8_GROUP, code + g * F8_GROUP, &scale, 0, (uint32_t)m);
    }
}

/* Rounds through e4m3 with scale 2^ceil(log2(amax / 448)), as DeepSeek's code does. */
static void round_ue8m0(float *x, size_t n)
{
    for (size_t g = 0; g < n; g += F8_GROUP) {
        size_t m = n - g < F8_GROUP ? n - g : F8_GROUP;
        float amax = fmaxf(abs_max(x + g, m), 1e-4f);
        uint32_t bits = float_bits(amax / 448.0f);
        bits = (bits >> 23) + ((bits & 0x7fffff) != 0);
        float scale = bits_float(bits << 23);
        for (size_t i = 0; i < m; i++)
            x[g + i] = quant_f8_decode(quant_f8_encode(x[g + i] / scale)) * scale;
    }
}

void kvseq_put(struct kvseq *s, uint32_t layer, uint32_t pos, float *row)
{
    struct kvcache *kv = s->kv;
    uint8_t *to = latent_at(s, layer, pos);
    if (kv->faithful)
        round_ue8m0(row, kv->rank);
    if (kv->type != ENGINE_CACHE_FP8) {
        kv->traits->quantize(to, row, kv->rank + kv->rope);
        return;
    }
    size_t scales = f8_groups(kv->rank) * sizeof(float);
    f8_store(to, to + kv->rank, row, kv->rank);
    kv->traits->quantize(to + kv->rank + scales, row + kv->rank, kv->rope);
}

void kvseq_put_index(struct kvseq *s, uint32_t layer, uint32_t pos, const float *ik)
{
    struct kvcache *kv = s->kv;
    uint32_t n = kv->index_dim, at = pos % KV_PAGE;
    size_t size = index_size(kv);
    uint8_t *to = index_at(s, layer, pos / KV_PAGE) + at * size;
    if (!kvcache_rotates(kv)) {
        for (uint32_t i = 0; i < n; i++, to += KV_PAGE * size)
            kv->traits->quantize(to, ik + i, 1);
        return;
    }
    /* One scale for the whole head, however wide. */
    bool i8 = is_i8(kv->type);
    float scale = fmaxf(abs_max(ik, n), 1e-10f) / (i8 ? 127.0f : 448.0f);
    for (uint32_t i = 0; i < n; i++) {
        if (i8)
            to[(size_t)(i / 4) * KV_PAGE * 4 + i % 4] =
                (uint8_t)(round_to(ik[i] / scale, -127, 127) + 128);
        else
            to[(size_t)i * KV_PAGE] = quant_f8_encode(ik[i] / scale);
    }
    uint8_t *scales = to - at * size + (size_t)n * KV_PAGE;
    memcpy(scales + at * sizeof scale, &scale, sizeof scale);
}

void kvseq_get(const struct kvseq *s, uint32_t layer, const uint32_t *set, uint32_t first,
               uint32_t n, float *out)
{
    const struct kvcache *kv = s->kv;
    size_t width = (size_t)kv->rank + kv->rope;
    size_t scales = f8_groups(kv->rank) * sizeof(float);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *from = latent_at(s, layer, set ? set[i] : first + i);
        float *to = out + i * width;
        if (kv->type != ENGINE_CACHE_FP8) {
            kv->widen(kv->traits->type, to, from, width);
            continue;
        }
        f8_load(kv, to, from, from + kv->rank, kv->rank);
        kv->widen(kv->traits->type, to + kv->rank, from + kv->rank + scales, kv->rope);
    }
}

void kvseq_next(const struct kvseq *s, uint32_t layer, const uint32_t *set, uint32_t first,
                uint32_t n, struct attn_next *out)
{
    out->n = n;
    out->bytes = s->kv->latent_row;
    for (uint32_t i = 0; i < n; i++)
        out->at[i] = latent_at(s, layer, set ? set[i] : first + i);
}

void kvseq_get_index(const struct kvseq *s, uint32_t layer, uint32_t page, float *out)
{
    const struct kvcache *kv = s->kv;
    const uint8_t *from = index_at(s, layer, page);
    if (kv->type != ENGINE_CACHE_FP8) {
        kv->widen(kv->traits->type, out, from, (size_t)kv->index_dim * KV_PAGE);
        return;
    }
    float scale[KV_PAGE];
    memcpy(scale, from + (size_t)kv->index_dim * KV_PAGE, sizeof scale);
    for (uint32_t i = 0; i < kv->index_dim; i++)
        kv->widen_f8(out + (size_t)i * KV_PAGE, from + (size_t)i * KV_PAGE, scale, 1,
                     KV_PAGE);
}

const uint8_t *kvseq_index_i8(const struct kvseq *s, uint32_t layer, uint32_t page,
                              const float **scale)
{
    const uint8_t *at = index_at(s, layer, page);
    *scale = (const float *)(const void *)(at + (size_t)s->kv->index_dim * KV_PAGE);
    return at;
}

void kvseq_next_index(const struct kvseq *s, uint32_t layer, uint32_t page,
                      struct attn_next *out)
{
    out->n = 1;
    out->bytes = s->kv->index_row * KV_PAGE;
    out->at[0] = index_at(s, layer, page);
}

int kvseq_each_block(struct kvseq *s, uint32_t page, uint32_t n_rows, kvseq_block_fn *fn,
                     void *arg, struct err *err)
{
    const struct kvcache *kv = s->kv;
    uint8_t *base = page_at(kv, s->page[page]);
    size_t size = index_size(kv);
    int rc = 0;
    for (uint32_t l = 0; rc == 0 && l < kv->n_layers; l++) {
        const struct layout *y = &kv->layer[l];
        struct kv_block b = {.base = base + y->latent, .element = kv->latent_row,
                             .n_runs = 1, .n_rows = n_rows, .layer = l};
        rc = fn(arg, &b, err);
        if (rc < 0 || !y->has_index)
            continue;
        b.base = base + y->index;
        b.element = size;
        b.stride = KV_PAGE * size;
        b.n_runs = index_runs(kv);
        rc = fn(arg, &b, err);
        if (rc < 0 || !kvcache_rotates(kv))
            continue;
        b.base += (size_t)kv->index_dim * KV_PAGE;
        b.element = sizeof(float);
        b.n_runs = 1;
        rc = fn(arg, &b, err);
    }
    return rc;
}

void hadamard(float *x, uint32_t n)
{
    for (uint32_t h = 1; h < n; h *= 2)
        for (uint32_t i = 0; i < n; i += 2 * h)
            for (uint32_t j = i; j < i + h; j++) {
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
    float scale = 1.0f / sqrtf((float)n);
    for (uint32_t i = 0; i < n; i++)
        x[i] *= scale;
}
