/*
 * profile.h - what kind of agent a session is, in one table: system prompt, tools, policy,
 * thinking, sampling, budgets. The texts are byte-stable: KV prefixes and training data
 * depend on them.
 */
#ifndef AGENTD_PROFILE_H
#define AGENTD_PROFILE_H

#include "agentd/infer.h"
#include "agentd/prompt.h"

/* How a context that passes its threshold is cut down; see context.h. */
enum strategy {
    STRATEGY_NONE,          /* stop with context_exhausted */
    STRATEGY_DISCARD_TOOLS, /* drop the oldest three quarters of the turn's call groups */
    STRATEGY_DISCARD_ALL,   /* drop every call group of the turn */
    STRATEGY_SUMMARY,       /* replace them by a summary the model writes */
    STRATEGY_N,
};
const char *strategy_name(enum strategy s);
bool strategy_parse(struct str name, enum strategy *out);

struct budget {
    int64_t max_steps;   /* generations of one turn */
    int64_t max_tokens;  /* sampled in one turn, reasoning included */
    int64_t max_seconds; /* of one turn */
    int64_t think_max;   /* tokens of reasoning in one step before it is closed; 0 = no cap */
    int64_t reserve;     /* tokens kept for a final answer */
};

struct profile {
    const char *name, *summary;
    const char *system;
    const char *tools;  /* a profile of toolrun; NULL = no tools */
    const char *policy; /* name of a policy file without folder and .yaml */
    bool thinking;
    enum prompt_keep keep;
    struct infer_sampling sampling; /* negative = the model's own */
    struct budget budget;
    enum strategy first, then; /* context: the first strategy, and what follows if it is
                                  not enough */
};

const struct profile *profile_find(struct str name); /* NULL when there is none */
const struct profile *profile_at(unsigned i);        /* NULL past the end */

#endif
