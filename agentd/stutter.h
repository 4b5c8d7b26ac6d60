/*
 * stutter.h - a reply that has fallen into a loop: its tail is one short block of tokens, again
 * and again. Exact, in constant memory and time a token; it judges sampled tokens only.
 */
#ifndef AGENTD_STUTTER_H
#define AGENTD_STUTTER_H

#include <stdint.h>

enum {
    STUTTER_BLOCK = 64,  /* the longest block that is looked for */
    STUTTER_TIMES = 16,  /* a block must come so often at least */
};

struct stutter { /* all 0 = nothing seen yet */
    int32_t last[STUTTER_BLOCK]; /* ring of the newest tokens */
    uint32_t same[STUTTER_BLOCK]; /* [p - 1]: tokens in a row equal to the one p before */
    uint32_t n;
};

/*
 * stutter_add - one more token; returns the length p of the block once the last `most` tokens
 * are x[i] = x[i - p] throughout, else 0 (always with most 0).
 *
 * p runs from 1 to min(STUTTER_BLOCK, most / STUTTER_TIMES), so a block of p tokens comes at
 * least most / p times. That is the threshold for each period: short blocks, which honest text
 * has in rulers, tables and dumps of zeros, must come far more often than long ones.
 */
uint32_t stutter_add(struct stutter *s, int32_t id, uint32_t most);

#endif
