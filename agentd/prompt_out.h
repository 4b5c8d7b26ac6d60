/*
 * prompt_out.h - the renderer's inside, shared by prompt.c (the rules), prompt_plan.c (the
 * order of things) and prompt_out.c (bytes to pieces). Nobody else includes it.
 */
#ifndef AGENTD_PROMPT_OUT_H
#define AGENTD_PROMPT_OUT_H

#include "agentd/literal.h"
#include "agentd/prompt.h"
#include "base/limits.h"

struct prompt_item {
    uint32_t msg;
    uint32_t n_folded; /* the system messages right behind it that are written inside it */
    uint32_t caller;   /* tool: 1 + the message before the run of results; 0 = none */
    uint32_t ordinal;  /* tool: place in that run, from 1 */
};

struct render {
    struct prompt *out;
    const struct prompt_msg *msg;
    uint32_t n;
    const struct prompt_opts *o;
    struct prompt_item *item; /* owned */
    uint32_t n_items;
    int64_t last_user; /* L, an item index, or -1 */
    bool failed;       /* no memory for pieces */
    struct err *err;
};

/* Fills items and last_user. */
NODISCARD int prompt_plan(struct render *r);
void prompt_plan_done(struct render *r);

/* Sets out->code; the sentence names the message at out->bad_msg. Returns -ERR_PARSE. */
int prompt_refuse(struct render *r, enum prompt_code code, const char *why);

/* Text of the template: its literals become special pieces. */
void put_template(struct render *r, struct str s);
void put_literal(struct render *r, enum literal which);
/* Text from outside: never special; literals in it are counted as defused. */
void put_outside(struct render *r, struct str s);
/* What the model wrote, with or without its reasoning. */
NODISCARD int put_sampled(struct render *r, const struct prompt_msg *m, bool with_reasoning);
/* A checkpoint here. */
NODISCARD int put_mark(struct render *r);
/* The message out->bad_msg wrote everything since `at`. */
NODISCARD int put_span(struct render *r, size_t at);

#endif
