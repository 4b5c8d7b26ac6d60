/* str.c - views of bytes and UTF-8. */
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct str str_c(const char *cstr)
{
    return (struct str){cstr ? cstr : "", cstr ? strlen(cstr) : 0};
}

struct str str_of(const void *p, size_t n)
{
    return (struct str){p ? p : "", p ? n : 0};
}

struct str str_sub(struct str s, size_t from, size_t n)
{
    if (from > s.n)
        from = s.n;
    if (n > s.n - from)
        n = s.n - from;
    return (struct str){from ? s.p + from : s.p, n}; /* an empty view may be NULL */
}

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_is(struct str a, const char *b)
{
    return str_eq(a, str_c(b));
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq(str_sub(s, 0, prefix.n), prefix);
}

bool str_ends(struct str s, struct str suffix)
{
    return s.n >= suffix.n && str_eq(str_sub(s, s.n - suffix.n, suffix.n), suffix);
}

size_t str_find(struct str s, struct str needle, size_t from)
{
    if (from > s.n)
        return STR_NONE;
    if (needle.n == 0)
        return from;
    if (needle.n > s.n - from)
        return STR_NONE; /* also keeps the NULL of an empty view from memmem */
    const char *hit = memmem(s.p + from, s.n - from, needle.p, needle.n);
    return hit ? (size_t)(hit - s.p) : STR_NONE;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s)
{
    while (s.n && is_space(s.p[0]))
        s = str_sub(s, 1, s.n);
    while (s.n && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool str_split(struct str *rest, char sep, struct str *piece)
{
    if (!rest->p)
        return false;
    const char *hit = rest->n ? memchr(rest->p, sep, rest->n) : NULL;
    size_t n = hit ? (size_t)(hit - rest->p) : rest->n;
    *piece = str_sub(*rest, 0, n);
    *rest = hit ? str_sub(*rest, n + 1, rest->n) : (struct str){0};
    return true;
}

/* A NUL-terminated copy for the C library, which knows no lengths. */
static bool number_text(struct str s, char out[64])
{
    if (s.n == 0 || s.n >= 64 || is_space(s.p[0]) || memchr(s.p, '\0', s.n))
        return false;
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
    return true;
}

bool str_to_i64(struct str s, int64_t *out)
{
    char text[64], *end;
    if (!number_text(s, text))
        return false;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || *end)
        return false;
    *out = v;
    return true;
}

bool str_to_u64(struct str s, uint64_t *out)
{
    char text[64], *end;
    if (!number_text(s, text) || text[0] == '-')
        return false;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *end)
        return false;
    *out = v;
    return true;
}

bool str_to_f64(struct str s, double *out)
{
    char text[64], *end;
    if (!number_text(s, text))
        return false;
    errno = 0;
    double v = strtod(text, &end);
    if (errno || *end)
        return false;
    *out = v;
    return true;
}

static bool is_tail(unsigned char c)
{
    return (c & 0xC0) == 0x80;
}

/* Bytes that a lead byte announces; 0 for what cannot lead. */
static size_t utf8_length(unsigned char lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 2;
    if (lead >= 0xE0 && lead <= 0xEF)
        return 3;
    return lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
}

size_t utf8_decode(struct str s, size_t at, uint32_t *cp)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (at >= s.n)
        return 0;
    const unsigned char *b = (const unsigned char *)s.p + at;
    size_t n = utf8_length(b[0]);
    if (n == 0 || n > s.n - at)
        return 0;
    uint32_t c = n == 1 ? b[0] : b[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        if (!is_tail(b[i]))
            return 0;
        c = c << 6 | (b[i] & 0x3Fu);
    }
    if (n > 1 && (c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)))
        return 0;
    *cp = c;
    return n;
}

size_t utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3F));
    out[0] = (char)((0xF00u >> n) | cp);
    return n;
}

bool utf8_valid(struct str s)
{
    uint32_t cp;
    for (size_t i = 0, n; i < s.n; i += n)
        if ((n = utf8_decode(s, i, &cp)) == 0)
            return false;
    return true;
}

size_t utf8_complete(struct str s)
{
    /* Only the last three bytes can be the start of a longer character. */
    for (size_t back = 1; back <= 3 && back <= s.n; back++) {
        unsigned char c = (unsigned char)s.p[s.n - back];
        if (is_tail(c))
            continue;
        return utf8_length(c) > back ? s.n - back : s.n;
    }
    return s.n;
}
