/*
 * grammar_in.h - the grammar's inside, shared by grammar_schema.c (schemas to nodes), grammar.c
 * (tags and text), grammar_json.c (values) and grammar_mask.c (bytes to tokens). Nobody else
 * includes it.
 */
#ifndef AGENTD_GRAMMAR_IN_H
#define AGENTD_GRAMMAR_IN_H

#include "agentd/dsml.h"
#include "agentd/grammar.h"
#include "agentd/literal.h"
#include "base/limits.h"
#include "base/mem.h"

enum {
    GRAMMAR_KEYS = 64,    /* of one object: they are bits of a word */
    GRAMMAR_DEPTH = 12,   /* of a JSON value; deeper is not offered */
    GRAMMAR_NODES = 4096, /* of all schemas together */
    GRAMMAR_STRINGS = 16384,
    GRAMMAR_NUMBER = 40,  /* characters of a number */
    GRAMMAR_DIGITS = 18,  /* of an integer: every reader takes those */
    GRAMMAR_ITEMS = 65535, /* stands for "any number" */
    GRAMMAR_ANY = 0,      /* the node that allows everything */
    GRAMMAR_ALL_TYPES = 127,
};

/* Consecutive, sorted entries of grammar.text. */
struct grammar_list {
    uint16_t first, n;
};

struct grammar_node {
    uint8_t types;            /* enum dsml_types */
    bool closed;              /* no keys but these */
    uint16_t items;           /* node of array elements */
    uint16_t min_items, max_items;
    bool bounded;             /* lo and hi hold: of integers, both included */
    int64_t lo, hi;
    struct grammar_list keys; /* of an object; grammar.child holds their nodes */
    uint64_t required;        /* bit i = key i */
    struct grammar_list strings; /* enum: the strings, raw; n 0 = not restricted */
    struct grammar_list values;  /* enum: all values, canonical JSON */
};

struct grammar {
    struct arena arena; /* owned: everything below */
    struct grammar_node *node;
    struct str *text;
    uint16_t *child; /* parallel to text */
    uint32_t n_nodes, n_texts;
    struct grammar_list tools; /* names; child = node of the parameters */
    uint64_t id; /* hash of all it was made from: what cached masks go by, since the address
                    of a freed grammar may come back */
};

/* Where the automaton is. */
enum grammar_place {
    AT_THINKING,
    AT_ANSWER, /* tail: how much of "\n\n<" was just written */
    AT_FIXED,  /* inside a fixed text: seq, pos */
    AT_TOOL,   /* inside the name of a tool: lo, hi, len */
    AT_PARAMS, /* at a line between parameters */
    AT_PARAMS_TAG,
    AT_KEY,    /* inside the name of a parameter */
    AT_FLAG,   /* at the value of string="..." */
    AT_STRING, /* inside a string value; tail: how much of "</" was just written */
    AT_ENUM,   /* inside a string value that is one of a list */
    AT_JSON,
    AT_BLOCK, /* at a line between calls */
    AT_BLOCK_TAG,
    AT_END,   /* behind the block: nothing but EOS */
    AT_ENDED, /* behind EOS */
};

/* Inside a JSON value. */
enum grammar_json {
    JSON_VALUE,
    JSON_FIRST,   /* behind '[' or '{' */
    JSON_STRING,  /* sub: 0 text, 1 behind '\', 2-5 hex digits, 6 the digit behind \ud */
    JSON_KEY,     /* the same, in a key that may be any */
    JSON_CHOICE,  /* one of an object's keys: lo, hi, len */
    JSON_WORD,    /* true, false, null: sub = which, len = place */
    JSON_NUMBER,  /* sub: see grammar_json.c */
    JSON_ENUM,    /* one of a list of values: lo, hi, len */
    JSON_COLON,
    JSON_NEXT,    /* behind an element: ',' or the closer */
    JSON_COMMA,   /* behind ',': a space, the quote of a key, or a value */
    JSON_DONE,
};

/* Plain data without padding surprises: always zeroed whole, compared and hashed as bytes. */
struct grammar_state {
    uint64_t used; /* parameters given in this call */
    uint64_t value; /* of a bounded integer, so far, without its sign */
    struct grammar_frame {
        uint64_t used; /* keys given */
        uint16_t node;
        uint16_t object;
        uint32_t items; /* of an array whose number of elements matters */
    } stack[GRAMMAR_DEPTH];
    uint16_t tool, param; /* entries of grammar.text */
    uint16_t lo, hi, len; /* candidates that share what was written */
    uint16_t node;        /* of the JSON value being written */
    uint16_t n_calls;
    uint8_t place, tail, seq, pos;
    uint8_t json, sub, depth, number;
    uint16_t negative; /* the bounded integer is */
};

enum { SYMBOL_LITERAL = 256 }; /* SYMBOL_LITERAL + enum literal; below are bytes */

/* Mixes bytes and their number into a hash (FNV-1a). */
uint64_t grammar_hash(uint64_t h, const void *p, size_t n);

/* Moves by one byte or literal; false when that cannot come here, *s then undefined. */
bool grammar_step(const struct grammar *g, struct grammar_state *s, int symbol);
/* Any ordinary byte may come: reasoning, answer, free strings. */
bool grammar_is_free(const struct grammar_state *s);

/* The JSON part of it: s->node and s->json are set; JSON_DONE when the value is complete. */
void json_begin(struct grammar_state *s, uint16_t node);
bool json_step(const struct grammar *g, struct grammar_state *s, int byte);
/* A value may end here without a further byte (a number has no closer). */
bool json_complete(const struct grammar *g, const struct grammar_state *s);

/* Narrows the candidates [lo, hi) by one more byte; `skip` bits (from first) do not count. */
bool grammar_narrow(const struct grammar *g, struct grammar_state *s, uint16_t first,
                    uint64_t skip, int byte);
/* The candidate that is written completely, or -1. */
int grammar_whole(const struct grammar *g, const struct grammar_state *s, uint16_t first,
                  uint64_t skip);

#endif
