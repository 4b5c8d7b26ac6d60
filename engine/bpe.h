/*
 * bpe.h - byte-pair merging of one piece: a table from (left id, right id) to (rank, merged
 * id), and the procedure that always merges the lowest rank, leftmost first.
 */
#ifndef ENGINE_BPE_H
#define ENGINE_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct bpe_merge {
    int32_t left, right, merged;
    uint32_t rank;
};

struct bpe {
    struct bpe_merge *slot; /* owned; open addressing, left < 0 is empty */
    uint32_t mask;          /* slots - 1 */
    struct bpe_link *link;  /* owned scratch, one per symbol of the piece */
    struct bpe_cand *heap;  /* owned scratch */
    size_t cap_link, cap_heap;
};

NODISCARD int bpe_init(struct bpe *b, uint32_t n_merges, struct err *err);
void bpe_done(struct bpe *b);
/* The first rank given to a pair wins. There must be at most n_merges pairs. */
void bpe_add(struct bpe *b, struct bpe_merge m);

/*
 * Merges id[0..n) in place and sets *n_out. O(n log n): a linked list of symbols and a heap
 * of candidate pairs, stale ones recognised when they surface.
 */
NODISCARD int bpe_apply(struct bpe *b, int32_t *id, size_t n, size_t *n_out, struct err *err);

#endif
