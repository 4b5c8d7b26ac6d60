/*
 * grammar.h - which tokens may come next, so that a completion cannot contain a malformed call.
 *
 * A grammar is compiled from the declared tools: their names, parameters, required ones, enums
 * and types. A run follows one completion token by token through an automaton over bytes (and
 * the literals of the format, which only their own tokens can write) and gives the sampler a
 * bit mask over the vocabulary. Reasoning, answer and string values stay free, except that
 * special tokens are reachable only where the format has a place for them; tags, names and
 * JSON values are held to the syntax and the schema. Optional: the reader in dsml.h needs none
 * of this, and evaluation runs without it.
 *
 * Threads: grammar and vocabulary are read-only once made; a run belongs to one thread, and so
 * does the cache of the vocabulary it uses.
 */
#ifndef AGENTD_GRAMMAR_H
#define AGENTD_GRAMMAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct grammar;
/*
 * grammar_new - compiles the tools, given as JSON texts of function objects ({"name", ...,
 * "parameters": SCHEMA}). What a schema says beyond type, enum, const, properties, required,
 * items, minItems, maxItems, additionalProperties and the bounds of integers is not enforced
 * here. Errors: -ERR_PARSE, -ERR_NOMEM;
 * -ERR_LIMIT when a tool has more than 64 parameters or the schemas are too large together:
 * run without a grammar then.
 */
NODISCARD int grammar_new(struct grammar **out, const struct str *tools, uint32_t n,
                          struct err *err);
void grammar_free(struct grammar *g);
/* What the schema allows for a parameter, as bits of enum dsml_types; 0 = unknown. */
unsigned grammar_types(const struct grammar *g, struct str tool, struct str key);
/*
 * Holds a string parameter to these values from now on (job ids, open files); n 0 lifts it.
 * The texts are copied. No run may be going on. -ERR_NOTFOUND: no such string parameter.
 */
NODISCARD int grammar_live(struct grammar *g, struct str tool, struct str key,
                           const struct str *values, uint32_t n, struct err *err);

/* The tokens, asked for once; the bytes must live as long as the vocabulary. */
struct grammar_tokens {
    uint32_t n_vocab;
    struct str (*bytes)(const void *arg, int32_t id);
    bool (*special)(const void *arg, int32_t id);
    const void *arg;
    const int32_t *ends; /* ids that may come wherever the format's end may */
    uint32_t n_ends;
};
struct grammar_vocab;
/* -ERR_NOTFOUND: a literal of the format is no special token here; the sentence names it. */
NODISCARD int grammar_vocab_new(struct grammar_vocab **out, const struct grammar_tokens *t,
                                struct err *err);
void grammar_vocab_free(struct grammar_vocab *v);

struct grammar_run;
/* thinking: the prompt ended in <think>. g and v are borrowed. */
NODISCARD int grammar_run_new(struct grammar_run **out, const struct grammar *g,
                              struct grammar_vocab *v, bool thinking, struct err *err);
void grammar_run_free(struct grammar_run *r);
/*
 * The mask for the next token: bit id % 8 of byte id / 8, n_vocab bits, as sample_opts.allow
 * wants it; valid until the next call on this vocabulary. At least one bit is set until the
 * run has ended.
 */
const uint8_t *grammar_run_mask(struct grammar_run *r);
/* The token that was sampled; false, and the run unchanged, when the mask excludes it. */
NODISCARD bool grammar_run_accept(struct grammar_run *r, int32_t id);
/* Inside tags and names, where the choice is not the model's style: sample greedily. */
bool grammar_run_in_syntax(const struct grammar_run *r);
bool grammar_run_ended(const struct grammar_run *r);

#endif
