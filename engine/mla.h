/* mla.h - the two forms of latent attention, for mla.c; one file each. */
#ifndef ENGINE_MLA_H
#define ENGINE_MLA_H

#include "engine/forward.h"

enum {
    SPLIT_ROWS = 8,  /* rows whose positions are cut into parts, one thread each */
    PARTS_MAX = 32,  /* of one row */
    PART_LEAST = 256 /* positions in a part */
};

/* f->o_in of rows first..first+n-1, any runs, from f->q and the cache. */
void mla_absorbed(struct forward *f, uint32_t layer, uint32_t first, uint32_t n);
/* f->o_in of one run's rows. */
void mla_expanded(struct forward *f, uint32_t layer, const struct forward_run *run);

/* What the expanded form works on, head by head. */
struct mla_expanded_job {
    struct forward *f;
    uint32_t layer;
    const struct forward_run *run;
    uint32_t n_keys, n_tiles;
};
/* f->o_in of one head, where the cache's rows are bf16. */
void mla_expanded_bf16_head(const struct mla_expanded_job *j, uint32_t thread, uint32_t h);
size_t mla_expanded_bf16_floats(const struct hparams *hp, uint32_t max_rows);

/* Floats of scratch per thread, and in all. */
size_t mla_absorbed_floats(const struct hparams *hp);
size_t mla_expanded_floats(const struct hparams *hp, uint32_t max_rows);

/* The positions that a row reads, ascending: NULL for all of 0..*n-1. */
const uint32_t *mla_row_set(const struct forward *f, uint32_t row, uint32_t *n);
/* Bits of the positions s..s+m-1 (m <= 64) that are in the set, read from *at on. */
uint64_t mla_set_bits(const uint32_t *set, uint32_t n_set, uint32_t *at, uint32_t s,
                      uint32_t m);
/* Head h's rows of UK where the file keeps UK and UV together, and of UV. */
struct tensor mla_head_uk(const struct hparams *hp, const struct layer_weights *w,
                          uint32_t h);
struct tensor mla_head_uv(const struct hparams *hp, const struct layer_weights *w,
                          uint32_t h);

#endif
