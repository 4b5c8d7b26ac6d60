/* data.h - token files, packing behind a shared prefix, and synthetic copy drills. */
#ifndef TRAIN_DATA_H
#define TRAIN_DATA_H

#include "model.h"

struct split {
    const uint16_t *ids;
    const uint8_t *msk, *fam;
    const uint32_t *off;
    int n, prefix; /* sequences; tokens all of them share, less one */
    size_t bytes;
    double keep4; /* share of family 4 that is kept */
    double boost[4]; /* shares of draws made from families 1, 2 and 3 alone */
};

/* 0 or -1 when a file is missing or inconsistent (message on stderr) */
int split_open(struct split *s, const char *dir, const char *name);
void split_close(struct split *s);
/* Fills b with sequences until rows would pass target; picks at random, or from *at on in order.
 * strip leaves the shared prefix out (it says little, and costs much). reopen, when not 0, is the
 * id of "</think>": what earlier turns said after it is learnt too. */
void batch_fill(struct batch *b, const struct split *s, int target, int strip, int reopen,
                uint64_t *rng, int *at);
/* Random-token drills: level 0 plain repeats, 1 repeats after filler, 2 also look-ups,
 * 3 half of them lists of numbers. */
void batch_drill(struct batch *b, int vocab, int target, int level, uint64_t *rng);
#endif
