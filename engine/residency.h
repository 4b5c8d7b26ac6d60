/*
 * residency.h - where the weights lie while the model runs: in memory, or, when it is larger
 * than that, its experts on disk and read ahead as soon as the router has chosen.
 *
 * The mapping of the file is the cache: the system keeps what is used and drops what is not.
 * Here is decided, once at open, whether all of it fits; what every token reads is pinned if
 * allowed, so that experts passing through do not push it out.
 */
#ifndef ENGINE_RESIDENCY_H
#define ENGINE_RESIDENCY_H

#include "base/err.h"
#include "engine/engine.h"
#include "engine/weights.h"

struct residency;

/* memory: bytes that weights may count on; 0 = what this machine and its control groups have
 * available. -ERR_LIMIT when not even what one token reads fits, with the numbers. */
NODISCARD int residency_open(struct residency **out, const struct weights *w, uint64_t memory,
                             struct err *err);
void residency_close(struct residency *r);
/* Whether residency_want() has anything to do. */
bool residency_streams(const struct residency *r);
/* The router has spoken: n picks among `experts`, in any order, repeats too. Asks for those
 * that are not in memory, without waiting. One thread at a time. */
void residency_want(struct residency *r, const struct ffn_weights *experts, const uint32_t *pick,
                    size_t n);
void residency_figures(const struct residency *r, struct engine_memory *out);

/* Bytes available to this process: of the machine, and under its control groups' limits. */
uint64_t residency_available(void);

#endif
