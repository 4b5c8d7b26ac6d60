/*
 * tokenizer.h - byte-level byte-pair encoding, both ways.
 *
 * Text is cut at added tokens (only where the caller says that literals count), split into
 * pieces by the model's pre-tokenizer, and each piece is merged from single bytes by rank.
 * Every byte string, valid UTF-8 or not, encodes and decodes to itself; only where a vocabulary
 * has no token for a byte that UTF-8 never uses does U+FFFD stand in for that byte.
 */
#ifndef ENGINE_TOKENIZER_H
#define ENGINE_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

/* GGUF's token types; the JSON form is mapped to them. */
enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3, /* matched before merging; dropped when showing text */
    TOKEN_USER = 4,    /* matched before merging; its text is shown */
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
};

/*
 * A vocabulary as files give it. Normal tokens are spelled in the byte-level alphabet
 * (space is U+0120), control and user tokens literally. Merges are "A B" in the alphabet,
 * best first. All views are borrowed for the call of tokenizer_new().
 */
struct vocab {
    const struct str *token; /* n_tokens; an empty view marks a hole */
    const uint8_t *type;     /* n_tokens, enum token_type */
    uint32_t n_tokens;
    const struct str *merge;
    uint32_t n_merges;
    struct str pre;    /* pre-tokenizer scheme, see pretok.h */
    int32_t bos, eos;  /* -1 = none */
    bool whole_first;  /* a piece that is a token is that token, however merges would go */
};

struct tokenizer;

/* -ERR_PARSE: a byte has no token, a merge names no token, a spelling leaves the alphabet;
 * -ERR_UNSUPPORTED: unknown pre-tokenizer. */
NODISCARD int tokenizer_new(struct tokenizer **out, const struct vocab *v, struct err *err);
/* From a tokenizer.json (Hugging Face form) of BPE kind. */
NODISCARD int tokenizer_open(struct tokenizer **out, const char *path, struct err *err);
void tokenizer_free(struct tokenizer *t);

/* The vocabulary again, for writing it to another format; owned by the tokenizer. */
const struct vocab *tokenizer_vocab(const struct tokenizer *t);

/* Called with each id, in order. A negative return stops and is passed on. */
typedef int tokenizer_id_fn(void *arg, int32_t id, struct err *err);
/*
 * Encodes `text`. special: literals of control and user tokens become their ids, leftmost
 * first, longest at one place; without it they are ordinary text. O(n log n) for any input.
 * One thread at a time per tokenizer.
 */
NODISCARD int tokenizer_encode(struct tokenizer *t, struct str text, bool special,
                               tokenizer_id_fn *fn, void *arg, struct err *err);

/* The id of an added token or of a whole spelling in bytes; -1 when there is none. */
int32_t tokenizer_find(const struct tokenizer *t, struct str literal);
/* The bytes of one token; empty for an id out of range or a hole. */
struct str tokenizer_bytes(const struct tokenizer *t, int32_t id);
enum token_type tokenizer_type(const struct tokenizer *t, int32_t id);

/*
 * Streaming text: tokens may end inside a character. Push their bytes; whole characters are
 * appended to `out`, up to three bytes wait, bytes that cannot continue become U+FFFD.
 */
struct text_stream {
    char held[4];
    uint8_t n;
};
void text_stream_push(struct text_stream *s, struct str bytes, struct buf *out);
void text_stream_flush(struct text_stream *s, struct buf *out);

#endif
