/*
 * speculate.h - whether drafting pays, from what it has cost and brought so far.
 *
 *   plain    one token per step of cost p
 *   drafted  1 + a tokens per draft and two-row step of cost d, a the share of drafts kept
 *
 * Drafting pays while (1 + a) / d > 1 / p. All three are moving averages; whichever way is
 * not taken is tried now and then, so that the choice follows the text and the machine.
 */
#ifndef ENGINE_SPECULATE_H
#define ENGINE_SPECULATE_H

#include <stdbool.h>
#include <stdint.h>

struct pace {
    double plain, pair, kept; /* seconds, seconds, share; 0 before the first */
    uint64_t n_plain, n_pairs, n_kept;
    uint32_t until_trial, trial; /* steps to the next trial; steps left of one */
    bool drafting;               /* the choice outside of trials */
};

/* Which way the next step goes; it is then told what came of it. */
bool pace_drafts(const struct pace *p);
void pace_plain(struct pace *p, double seconds);
void pace_pair(struct pace *p, double seconds, bool kept);

#endif
