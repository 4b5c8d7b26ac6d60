/*
 * dsml.h - what the model wrote, back to a message.
 *
 * Two readers of the same format. dsml_parse() is strict: it judges a finished text against
 * the format's definition. struct dsml is tolerant and streams: it takes bytes as they are
 * sampled and reports reasoning, text and calls as soon as they are certain. Both agree on
 * every well-formed text; on a broken one the streaming reader ends in a call that is whole or
 * in a visible fault, never in markup shown as text or in a call whose arguments were lost.
 */
#ifndef AGENTD_DSML_H
#define AGENTD_DSML_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

/* --- strict --------------------------------------------------------------------------- */

enum dsml_code {
    DSML_OK,
    DSML_THINKING_UNTERMINATED,
    DSML_ANSWER_UNTERMINATED,
    DSML_BLOCK_FORMAT,
    DSML_BLOCK_UNTERMINATED,
    DSML_INVOKE_FORMAT,
    DSML_PARAMETER_FORMAT,
    DSML_PARAMETER_DUPLICATE,
    DSML_TEXT_AFTER_CALLS,
    DSML_TEXT_AFTER_END,
    DSML_SPECIAL_TOKEN_IN_TEXT,
    /* The streaming reader alone: */
    DSML_CALL_TRUNCATED,     /* the text ended inside a call */
    DSML_ARGUMENTS_NOT_JSON, /* a string="false" value is not JSON */
    DSML_TOO_MANY_CALLS,
    DSML_TOO_LONG, /* a name, or the arguments of one call, pass their cap */
    DSML_N_CODES,
};
const char *dsml_code_name(enum dsml_code code); /* "block_format" */

struct dsml_call {
    struct str name;
    struct str arguments; /* JSON text; unchecked by the strict reader, as defined */
};

struct dsml_message {
    struct arena arena; /* owned: everything below lives here, or is borrowed from the text */
    struct str reasoning, content;
    struct dsml_call *calls;
    uint32_t n_calls;
    enum dsml_code code; /* after a failure */
};

/*
 * dsml_parse - reads a whole completion: the text behind the prompt, EOS included.
 *
 * Errors: -ERR_PARSE with m->code; -ERR_NOMEM. dsml_message_done() in either case.
 */
NODISCARD int dsml_parse(struct dsml_message *m, struct str text, bool thinking,
                         struct err *err);
void dsml_message_done(struct dsml_message *m);

/* --- streaming ------------------------------------------------------------------------ */

/* JSON types that a parameter's schema allows, as bits; 0 = unknown, nothing is coerced. */
enum dsml_types {
    DSML_STRING = 1,
    DSML_INTEGER = 2,
    DSML_NUMBER = 4,
    DSML_BOOLEAN = 8,
    DSML_NULL = 16,
    DSML_ARRAY = 32,
    DSML_OBJECT = 64,
};

struct dsml_opts {
    bool thinking; /* the prompt ended in <think> */
    bool tools;    /* tools were declared: tags without the DSML token count at line start */
    bool tokens;   /* the caller says which bytes were special tokens; spelled ones are text */
    /* What the schema of tool `name` allows for parameter `key`; NULL = unknown. */
    unsigned (*types)(void *arg, struct str name, struct str key);
};

/*
 * Everything that is told, in order. Deltas are whole UTF-8 characters (invalid bytes become
 * U+FFFD). Any callback may be NULL. Views are borrowed for the call.
 */
struct dsml_events {
    void (*thinking)(void *arg, struct str delta);
    void (*text)(void *arg, struct str delta);
    void (*call_start)(void *arg, uint32_t call, struct str name);
    /* The next part of the arguments' JSON text; provisional until call_end. */
    void (*call_delta)(void *arg, uint32_t call, struct str delta);
    void (*call_end)(void *arg, uint32_t call, struct str name, struct str arguments);
    /* Something is broken; call is -1 outside a call. A call that started ends in exactly one
     * of call_end and fault. Nothing but notes follows a fault. The sentence is for the model. */
    void (*fault)(void *arg, int64_t call, enum dsml_code code, const char *sentence);
    /* A repair or an anomaly, for the log. */
    void (*note)(void *arg, const char *sentence);
};

struct dsml;
NODISCARD int dsml_new(struct dsml **out, const struct dsml_opts *o,
                       const struct dsml_events *ev, void *arg, struct err *err);
void dsml_free(struct dsml *d);
/*
 * The next bytes, cut anywhere. special: they are exactly one special token (only looked at
 * with opts.tokens). Errors: -ERR_NOMEM alone; what the model wrote is never an error here.
 */
NODISCARD int dsml_feed(struct dsml *d, struct str bytes, bool special, struct err *err);
/* No more bytes will come. */
NODISCARD int dsml_finish(struct dsml *d, struct err *err);

/* True once EOS, or another token that ends a completion, was read. */
bool dsml_ended(const struct dsml *d);
/* True behind </...function_calls>: sampling may stop here. */
bool dsml_block_closed(const struct dsml *d);
/* Bytes fed up to where the reasoning ended (behind </think>); 0 while it has not. */
size_t dsml_think_bytes(const struct dsml *d);
/* Calls that ended well. */
uint32_t dsml_n_calls(const struct dsml *d);
bool dsml_faulted(const struct dsml *d);

#endif
