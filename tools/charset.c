/* charset.c - any charset to UTF-8, by glibc's iconv; errors become replacement characters. */
#include <errno.h>
#include <iconv.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "tools/html.h"

enum { META_BYTES = 1024, NAME_MAX = 40 };

/* A charset name: letters, digits and a few marks; anything else is no name. */
static bool take_name(struct str s, char out[NAME_MAX])
{
    size_t n = 0;
    s = str_trim(s);
    if (s.n && (s.p[0] == '"' || s.p[0] == '\''))
        s = str_sub(s, 1, s.n);
    while (n < s.n && n < NAME_MAX - 1 &&
           ((s.p[n] >= '0' && s.p[n] <= '9') || (s.p[n] >= 'A' && s.p[n] <= 'Z') ||
            (s.p[n] >= 'a' && s.p[n] <= 'z') || strchr("-_.:", s.p[n])))
        n++;
    if (n)
        memcpy(out, s.p, n);
    out[n] = '\0';
    return n > 1;
}

static bool from_meta(struct str data, char out[NAME_MAX])
{
    char head[META_BYTES + 1];
    size_t n = data.n < META_BYTES ? data.n : META_BYTES;
    for (size_t i = 0; i < n; i++)
        head[i] = data.p[i] >= 'A' && data.p[i] <= 'Z' ? (char)(data.p[i] + 32) : data.p[i];
    struct str s = {head, n};
    for (size_t at = 0; (at = str_find(s, STR("<meta"), at)) != STR_NONE; at++) {
        size_t end = str_find(s, STR(">"), at), p = str_find(s, STR("charset="), at);
        if (p != STR_NONE && (end == STR_NONE || p < end))
            return take_name(str_sub(s, p + 8, NAME_MAX), out);
    }
    return false;
}

static bool from_mark(struct str *data, char out[NAME_MAX])
{
    static const struct {
        const char *mark;
        size_t n;
        const char *name;
    } marks[] = {{"\xEF\xBB\xBF", 3, "UTF-8"}, {"\xFF\xFE", 2, "UTF-16LE"},
                 {"\xFE\xFF", 2, "UTF-16BE"}};
    for (unsigned i = 0; i < ARRAY_LEN(marks); i++)
        if (str_starts(*data, str_of(marks[i].mark, marks[i].n))) {
            snprintf(out, NAME_MAX, "%s", marks[i].name);
            *data = str_sub(*data, marks[i].n, data->n);
            return true;
        }
    return false;
}

/* NUL and invalid bytes become U+FFFD. */
static void clean_utf8(struct str s, struct buf *out)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t n = utf8_decode(s, i, &cp);
        if (n == 0 || cp == 0)
            buf_puts(out, "\xEF\xBF\xBD");
        else
            buf_add(out, s.p + i, n);
        i += n ? n : 1;
    }
}

static void convert(iconv_t cd, struct str s, struct buf *out)
{
    char *in = (char *)(uintptr_t)s.p;
    size_t left = s.n;
    while (left && !out->failed) {
        char chunk[8192], *to = chunk;
        size_t room = sizeof chunk;
        size_t r = iconv(cd, &in, &left, &to, &room);
        buf_add(out, chunk, sizeof chunk - room);
        if (r != (size_t)-1 || errno == E2BIG)
            continue;
        buf_puts(out, "\xEF\xBF\xBD");
        if (errno == EINVAL)
            break; /* cut off within a character */
        in++;
        left--;
        iconv(cd, NULL, NULL, NULL, NULL);
    }
}

int charset_decode(struct str data, struct str charset, bool html, struct buf *out,
                   struct err *err)
{
    char name[NAME_MAX];
    bool known = from_mark(&data, name) || take_name(charset, name) ||
                 (html && from_meta(data, name));
    if (!known)
        snprintf(name, sizeof name, "%s", utf8_valid(data) ? "UTF-8" : "WINDOWS-1252");
    /* What the web calls Latin-1 is windows-1252. */
    if (strcasecmp(name, "iso-8859-1") == 0 || strcasecmp(name, "us-ascii") == 0)
        snprintf(name, sizeof name, "WINDOWS-1252");
    iconv_t cd = (iconv_t)-1;
    if (strcasecmp(name, "utf-8") != 0 && strcasecmp(name, "utf8") != 0)
        cd = iconv_open("UTF-8", name);
    if (cd == (iconv_t)-1) {
        clean_utf8(data, out);
    } else {
        struct buf raw;
        buf_init(&raw, out->max);
        convert(cd, data, &raw);
        iconv_close(cd);
        clean_utf8(buf_view(&raw), out);
        if (raw.failed)
            out->failed = raw.failed;
        buf_done(&raw);
    }
    return buf_check(out, "decoded text", err);
}
