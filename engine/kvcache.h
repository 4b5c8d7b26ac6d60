/*
 * kvcache.h - latents, rotary keys and index keys of all positions, in pages.
 *
 * A page holds KV_PAGE consecutive positions of every layer, so that one reference count
 * covers them: forks share pages, and the first side to write into a shared page copies
 * it. Within a page each layer has its latent rows (latent, then rotary key) and, where
 * it runs an indexer, its index keys: apart from the latents because scoring streams
 * them, and standing (index_head_dim rows of KV_PAGE positions) because scoring wants one
 * position per lane.
 *
 * Storage: f32, f16, bf16, or FP8 rows: e4m3 with one f32 scale per 128 latents, rotary
 * key in bf16, index keys e4m3 with one scale, Hadamard-rotated before rounding. Or f16 or
 * bf16 latents with int8 index keys, one scale each, rotated too, as attn.h's index_i8 takes
 * them.
 */
#ifndef ENGINE_KVCACHE_H
#define ENGINE_KVCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/engine.h"
#include "engine/hparams.h"
#include "engine/kernel/attn.h"

enum { KV_PAGE = 64 };

struct kvcache;

struct kvcache_opts {
    enum engine_cache type; /* AUTO = f16 */
    size_t bytes;           /* all pages together */
    uint32_t n_ctx;
    bool mtp;          /* a further layer for the drafts */
    bool faithful_fp8; /* latents through e4m3 with power-of-two scales first */
};
NODISCARD int kvcache_open(struct kvcache **out, const struct hparams *hp,
                           const struct kvcache_opts *o, struct err *err);
void kvcache_close(struct kvcache *kv);
void kvcache_usage(const struct kvcache *kv, size_t *used, size_t *limit);
enum engine_cache kvcache_type(const struct kvcache *kv);
/* Index keys are stored Hadamard-rotated: queries must be rotated too. */
bool kvcache_rotates(const struct kvcache *kv);
/* Index keys are int8: queries must be, too. */
bool kvcache_index_i8(const struct kvcache *kv);
/* Rows are bf16 throughout: kvseq_next() names what attn.h's dots_b and mix_b take. */
bool kvcache_bf16(const struct kvcache *kv);
/* Bytes of one position in all layers. */
size_t kvcache_row_bytes(const struct kvcache *kv);

/* One timeline. Positions 0..len-1 hold; pages may reach further. */
struct kvseq {
    struct kvcache *kv; /* borrowed */
    uint32_t *page;     /* owned; page ids */
    uint32_t n_pages, len;
};
NODISCARD int kvseq_init(struct kvseq *s, struct kvcache *kv, struct err *err);
void kvseq_done(struct kvseq *s);
/* dst is initialised and empty; shares the pages of positions 0..n-1. */
void kvseq_fork(struct kvseq *dst, const struct kvseq *src, uint32_t n);
/* Gives back every page beyond position n-1. */
void kvseq_truncate(struct kvseq *s, uint32_t n);
/* Makes positions from..to-1 writable: missing pages are taken, shared ones copied.
 * -ERR_LIMIT when no page is left. */
NODISCARD int kvseq_reserve(struct kvseq *s, uint32_t from, uint32_t to, struct err *err);

/* Stores one row: latent then rotary key (kv_lora_rank + qk_rope_head_dim), which the
 * faithful mode rounds in place; an index key (index_head_dim). Rows may go in parallel.
 */
void kvseq_put(struct kvseq *s, uint32_t layer, uint32_t pos, float *row);
void kvseq_put_index(struct kvseq *s, uint32_t layer, uint32_t pos, const float *ik);
/* Rows [latent, rotary key] of n positions: those of `set`, or first..first+n-1. */
void kvseq_get(const struct kvseq *s, uint32_t layer, const uint32_t *set, uint32_t first,
               uint32_t n, float *out);
/* Where those rows lie, for kernels to read, or to ask for in time. At most KV_PAGE. */
void kvseq_next(const struct kvseq *s, uint32_t layer, const uint32_t *set, uint32_t first,
                uint32_t n, struct attn_next *out);
/* Index keys of a page, standing: out (index_head_dim, KV_PAGE). Positions that do not hold
 * yet are in it with whatever was there. */
void kvseq_get_index(const struct kvseq *s, uint32_t layer, uint32_t page, float *out);
/* A page's int8 index keys where they lie, and their scales (KV_PAGE). */
const uint8_t *kvseq_index_i8(const struct kvseq *s, uint32_t layer, uint32_t page,
                              const float **scale);
void kvseq_next_index(const struct kvseq *s, uint32_t layer, uint32_t page,
                      struct attn_next *out);

/* The stored bytes of n rows from a page's start, for snapshots: every layer's latent and
 * index blocks in order. A block is n_runs stretches of n_rows elements, `stride` bytes
 * apart: latents are one stretch of rows, index keys one for each dimension. */
struct kv_block {
    uint8_t *base;
    size_t element, stride;
    uint32_t n_runs, n_rows, layer;
};
typedef int kvseq_block_fn(void *arg, const struct kv_block *b, struct err *err);
NODISCARD int kvseq_each_block(struct kvseq *s, uint32_t page, uint32_t n_rows,
                               kvseq_block_fn *fn, void *arg, struct err *err);

/* In-place Sylvester-Hadamard transform divided by sqrt(n); n a power of two. */
void hadamard(float *x, uint32_t n);

#endif
