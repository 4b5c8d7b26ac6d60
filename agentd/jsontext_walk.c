/*
 * jsontext_walk.c - reading canonical text in place. It trusts its input, which only
 * jsontext_rewrite() writes, and still never reads past its end.
 */
#include <stdint.h>
#include <string.h>

#include "agentd/jsontext.h"

enum jsontext_kind jsontext_kind(struct str s)
{
    switch (s.n ? s.p[0] : '\0') {
    case '\0':
        return JSONTEXT_NONE;
    case 'n':
        return JSONTEXT_NULL;
    case 't':
    case 'f':
        return JSONTEXT_BOOL;
    case '"':
        return JSONTEXT_STRING;
    case '[':
        return JSONTEXT_ARRAY;
    case '{':
        return JSONTEXT_OBJECT;
    default:
        return JSONTEXT_NUMBER;
    }
}

/* Bytes of the value at the front of s. */
static size_t value_length(struct str s)
{
    size_t depth = 0, i = 0;
    bool quoted = false;
    for (; i < s.n; i++) {
        char c = s.p[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0)
                return i;
            depth--;
        } else if ((c == ',' || c == ':') && depth == 0) {
            return i;
        }
    }
    return i < s.n ? i : s.n;
}

struct jsontext_iter jsontext_each(struct str s)
{
    struct jsontext_iter it = {{"", 0}, false};
    enum jsontext_kind kind = jsontext_kind(s);
    if (s.n >= 2 && (kind == JSONTEXT_ARRAY || kind == JSONTEXT_OBJECT)) {
        it.rest = str_sub(s, 1, s.n - 2);
        it.object = kind == JSONTEXT_OBJECT;
    }
    return it;
}

static struct str take(struct str *rest, size_t n, size_t separator)
{
    struct str taken = str_sub(*rest, 0, n);
    *rest = str_sub(*rest, n + separator, SIZE_MAX);
    return taken;
}

bool jsontext_next(struct jsontext_iter *it, struct str *key, struct str *value)
{
    if (it->rest.n == 0)
        return false;
    struct str name = STR("");
    if (it->object)
        name = take(&it->rest, value_length(it->rest), 2);
    if (key)
        *key = name;
    *value = take(&it->rest, value_length(it->rest), 2);
    return true;
}

uint32_t jsontext_count(struct str list)
{
    uint32_t n = 0;
    struct str v;
    for (struct jsontext_iter it = jsontext_each(list); jsontext_next(&it, NULL, &v);)
        n++;
    return n;
}

struct str jsontext_get(struct str object, const char *name)
{
    struct str key, value, wanted = str_c(name);
    if (jsontext_kind(object) != JSONTEXT_OBJECT)
        return STR("");
    for (struct jsontext_iter it = jsontext_each(object); jsontext_next(&it, &key, &value);) {
        if (key.n == wanted.n + 2 && !memcmp(key.p + 1, wanted.p, wanted.n))
            return value;
    }
    return STR("");
}

void jsontext_unquote(struct buf *out, struct str s)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    size_t end = s.n ? s.n - 1 : 0; /* the closing quote */
    for (size_t i = 1, plain; i < end; i++) {
        for (plain = i; i < end && s.p[i] != '\\'; i++)
            continue;
        buf_add(out, s.p + plain, i - plain);
        if (i + 1 >= end)
            break;
        char c = s.p[++i];
        const char *named = strchr(from, c);
        if (c == 'u' && end - i > 4) {
            /* Only \u00XX is ever written. */
            unsigned high = (unsigned char)s.p[i + 3], low = (unsigned char)s.p[i + 4];
            low = low > '9' ? low - 'a' + 10 : low - '0';
            buf_putc(out, (char)((high - '0') << 4 | low));
            i += 4;
        } else {
            buf_putc(out, named && c ? to[named - from] : c);
        }
    }
}
