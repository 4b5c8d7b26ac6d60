/*
 * jsontext.h - JSON text to JSON text, as the model was trained to see it: the layout of
 * Python's json with ASCII escaping off. No tree is built, because a tree loses what must
 * survive: integers of any size, NUL, the place of a duplicate key.
 *
 * CANONICAL text, which jsontext_rewrite() writes and the walking functions below expect:
 *   ", " between elements, ": " after keys, no other white space; keys in order of arrival;
 *   a duplicate key keeps its first place and takes its last value, at every depth;
 *   strings escape the quote, the backslash and what lies below U+0020, nothing else;
 *   integers keep all digits (-0 becomes 0); other numbers are the shortest decimal that
 *   reads back as the same double, fixed for 1e-4 <= |x| < 1e16, else d.ddde+XX.
 * Refused: lone surrogates, NaN, Infinity, numbers beyond a double, invalid UTF-8, nesting
 * deeper than LIMIT_JSON_DEPTH, text longer than LIMIT_JSON_BYTES.
 */
#ifndef AGENTD_JSONTEXT_H
#define AGENTD_JSONTEXT_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

/*
 * Appends the canonical form of the one value in `text` (white space around it allowed).
 * On failure `out` is as long as before. Errors: -ERR_PARSE with the byte, -ERR_LIMIT,
 * -ERR_NOMEM.
 */
NODISCARD int jsontext_rewrite(struct buf *out, struct str text, struct err *err);
/* Appends `raw` as a canonical string, quotes included; raw must be UTF-8. */
void jsontext_quote(struct buf *out, struct str raw);
/* The same without the quotes: pieces of a character-aligned stream may be escaped one by one. */
void jsontext_escape(struct buf *out, struct str raw);
/* Appends a finite double in the layout above. */
void jsontext_double(struct buf *out, double v);

/* --- walking canonical text ----------------------------------------------------------- */

/* What the first byte of canonical text says. */
enum jsontext_kind {
    JSONTEXT_NONE, /* empty text */
    JSONTEXT_NULL,
    JSONTEXT_BOOL,
    JSONTEXT_NUMBER,
    JSONTEXT_STRING,
    JSONTEXT_ARRAY,
    JSONTEXT_OBJECT,
};
enum jsontext_kind jsontext_kind(struct str canonical);

struct jsontext_iter {
    struct str rest; /* borrowed */
    bool object;
};
/* Starts at an array or object; any other kind has no elements. */
struct jsontext_iter jsontext_each(struct str canonical);
/* The next member; views are borrowed, *key (may be NULL) is a quoted string, empty in arrays. */
bool jsontext_next(struct jsontext_iter *it, struct str *key, struct str *value);
uint32_t jsontext_count(struct str list); /* members of an array or object */
/* The value of a member whose key needs no escapes; an empty view when there is none. */
struct str jsontext_get(struct str object, const char *key);
/* Appends the bytes that a canonical string stands for. */
void jsontext_unquote(struct buf *out, struct str canonical);

#endif
