/*
 * prompt.h - messages to the bytes that the model reads (DeepSeek-V3.2 message format).
 *
 * The result is one text and its cut into PIECES: every literal that the template wrote is a
 * special piece of its own, everything between two of them is one ordinary piece. Tokenise the
 * special ones with special-token matching and the ordinary ones without, one after the other:
 * for clean text that is the token sequence of the whole string, and text from outside that
 * spells a marker stays text. An assistant message may carry the exact bytes, or token ids,
 * that the model wrote; they are replayed and never rendered again.
 *
 * The renderer owns no transcript and keeps nothing between calls: same messages and options,
 * same bytes. It knows neither SQLite nor the engine.
 */
#ifndef AGENTD_PROMPT_H
#define AGENTD_PROMPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"

enum prompt_role {
    PROMPT_SYSTEM,
    PROMPT_USER,
    PROMPT_DEVELOPER, /* DeepSeek's search-agent role; an API's "developer" is PROMPT_SYSTEM */
    PROMPT_ASSISTANT,
    PROMPT_TOOL,
    PROMPT_OTHER, /* anything else: an error where it would be rendered */
};

enum prompt_mode { PROMPT_CHAT, PROMPT_THINKING };

/* Which reasoning the model sees again; a property of the model profile. */
enum prompt_keep {
    PROMPT_KEEP_V32,  /* behind the last user message; a new one drops it */
    PROMPT_KEEP_ALL,  /* of every turn */
    PROMPT_KEEP_NONE, /* none, not even of the running turn */
};

struct prompt_call {
    struct str id;        /* pairs results when opts.pair_by_id; may be empty */
    struct str name;
    struct str arguments; /* JSON text of an object */
};

/* Exactly what the model wrote, EOS included or not (it is added when missing). */
struct prompt_sampled {
    struct str bytes;
    const int32_t *ids; /* n_ids tokens that spell `bytes`, or NULL */
    uint32_t n_ids;
    size_t think_bytes; /* how much of it is reasoning and its </think>: what goes when  */
    uint32_t think_ids; /* reasoning is dropped. 0 when sampled behind </think>          */
    bool think_open;    /* reasoning never closed (stopped in mid-thought): closed here  */
};

/* One message; every view is borrowed until the prompt is freed. */
struct prompt_msg {
    enum prompt_role role;
    struct str content;
    struct str reasoning; /* assistant */
    const struct prompt_call *calls; /* assistant; needed with `sampled` too: n pairs results */
    uint32_t n_calls;
    struct prompt_sampled sampled; /* assistant; used when bytes.p is not NULL */
    struct str call_id;            /* tool: the call it answers */
    const struct str *tools;       /* system, developer: JSON texts of function objects */
    uint32_t n_tools;
    struct str response_format;    /* system, developer: JSON text, or empty */
};

struct prompt_opts {
    enum prompt_mode mode;
    enum prompt_keep keep;
    bool no_bos;
    uint32_t n_context; /* the first n messages were rendered earlier: they count, silently */
    bool pair_by_id;    /* put results into call order by call_id; an unknown id is an error */
    bool lenient;       /* an answer without reasoning gets an empty thought, not an error */
};

struct prompt_piece {
    size_t at, len;     /* in prompt.text */
    uint32_t msg;       /* the message that wrote its first byte */
    bool special;       /* exactly one literal of literal.h, from the template */
    const int32_t *ids; /* the sampled tokens of this piece (borrowed from the message), */
    uint32_t n_ids;     /* or NULL: tokenise the bytes */
};

/* The end of a <|Assistant|> behind a user message: everything before is stable when the
 * next user message arrives, so a KV checkpoint belongs here. */
struct prompt_mark {
    size_t at;      /* bytes of text before the tag */
    uint32_t piece; /* pieces before the tag */
    uint32_t msg;
};

struct prompt_span {
    size_t at, len; /* in prompt.text; what this message wrote */
    uint32_t msg;
};

/* Why a list of messages cannot be rendered: the codes that clients see. */
enum prompt_code {
    PROMPT_OK,
    PROMPT_BAD_THINKING_MODE,
    PROMPT_UNKNOWN_ROLE,
    PROMPT_DEVELOPER_EMPTY_CONTENT,
    PROMPT_ASSISTANT_NEEDS_REASONING,
    PROMPT_TOOL_BAD_POSITION,
    PROMPT_TOOL_WITHOUT_CALL,
    PROMPT_ARGUMENTS_NOT_JSON,
    PROMPT_ARGUMENTS_NOT_OBJECT,
    PROMPT_BAD_INPUT,             /* not the documented shape: JSON, types, content parts */
    PROMPT_VALUE_UNREPRESENTABLE, /* an argument holds the closer of its own tag */
    PROMPT_SYSTEM_AFTER_CONTEXT,  /* would change text that was rendered earlier */
    PROMPT_RESULT_UNKNOWN_ID,     /* pair_by_id: no such call, or answered twice */
    PROMPT_N_CODES,
};
const char *prompt_code_name(enum prompt_code code); /* "unknown_role" */

struct prompt {
    struct buf text;           /* owned */
    struct prompt_piece *piece; /* owned */
    struct prompt_mark *mark;   /* owned */
    struct prompt_span *span;   /* owned; one per rendered message */
    uint32_t n_pieces, n_marks, n_spans;
    uint32_t cap_pieces, cap_marks, cap_spans;
    uint32_t n_defused; /* literals in outside text that stayed text: audit when not 0 */
    bool ready;         /* ends in a tag: a completion may be sampled */
    bool thinking;      /* ready, and that tag opens a thought */
    enum prompt_code code; /* after a failure */
    uint32_t bad_msg;      /* after a failure: which message */
};

/*
 * prompt_render - messages to text, pieces, checkpoints.
 *
 * out  written by this call alone; prompt_done() it in either case
 * Errors: -ERR_PARSE with out->code and a sentence that names the message; -ERR_NOMEM,
 * -ERR_LIMIT (the text passes LIMIT_PROMPT_BYTES) with out->code PROMPT_OK.
 */
NODISCARD int prompt_render(struct prompt *out, const struct prompt_msg *msg, uint32_t n,
                            const struct prompt_opts *o, struct err *err);
void prompt_done(struct prompt *p);
struct str prompt_piece_text(const struct prompt *p, uint32_t i);

/* A request as JSON text: {"messages": [...], "context": [...], "options": {...}}. */
struct prompt_request {
    struct arena arena; /* owned: what the messages point to lives here, */
    struct buf text;    /* owned: or here, the canonical form of the input */
    struct prompt_msg *msg; /* context first */
    uint32_t n;
    struct prompt_opts opts;
    enum prompt_code code; /* after a failure */
};
/*
 * prompt_read - reads such an object; other keys are ignored.
 *
 * The text goes through jsontext, so integers of any size, duplicate keys and NUL survive.
 * Errors: -ERR_PARSE with r->code; -ERR_NOMEM; -ERR_LIMIT. prompt_request_done() in any case.
 */
NODISCARD int prompt_read(struct prompt_request *r, struct str json, struct err *err);
void prompt_request_done(struct prompt_request *r);
/* "system", "user", ... */
const char *prompt_role_name(enum prompt_role role);

#endif
