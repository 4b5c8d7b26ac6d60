/*
 * str.h - a borrowed view of bytes (pointer and length, not NUL-terminated) and the UTF-8
 * helpers that every boundary needs. A view owns nothing.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(lit) ((struct str){(lit), sizeof(lit) - 1}) /* string literals only */
/* For printf("%.*s"). */
#define STR_ARG(s) ((int)(s).n), (s).p

struct str str_c(const char *cstr);              /* NULL is the empty view */
struct str str_of(const void *p, size_t n);
struct str str_sub(struct str s, size_t from, size_t n); /* clamped */
bool str_eq(struct str a, struct str b);
bool str_is(struct str a, const char *b);
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
#define STR_NONE SIZE_MAX
size_t str_find(struct str s, struct str needle, size_t from); /* offset or STR_NONE */
struct str str_trim(struct str s);               /* ASCII white space off both ends */

/* The next piece up to `sep`; advances *rest. False when nothing is left. */
bool str_split(struct str *rest, char sep, struct str *piece);

/* Whole-string conversions without locale: false unless all of `s` is one number in range. */
bool str_to_i64(struct str s, int64_t *out);
bool str_to_u64(struct str s, uint64_t *out);
bool str_to_f64(struct str s, double *out);

/*
 * UTF-8 (RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF).
 * utf8_decode: length 1-4 of the character at s[at] and its code point; 0 when the bytes
 * there are not a complete character. utf8_encode: bytes written to out[4].
 */
size_t utf8_decode(struct str s, size_t at, uint32_t *cp);
size_t utf8_encode(uint32_t cp, char out[4]);
bool utf8_valid(struct str s);
/* Length of the longest prefix that ends on a character boundary (for streaming cuts). */
size_t utf8_complete(struct str s);

#endif
