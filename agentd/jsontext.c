/*
 * jsontext.c - the rewriter: one pass over the text, output as it goes.
 *
 * Every open object remembers where its members lie in the output. At its end they are
 * compared; only when a key occurs twice is the object written a second time. So clean text
 * costs one pass, and hostile text n log n per level of a bounded depth.
 */
#include "agentd/jsontext.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"

/* Offsets into the output. */
struct member {
    size_t key, key_len, value, value_len;
    bool dropped;
};

struct rewriter {
    struct str in;
    size_t at;
    struct buf *out;
    struct buf number;     /* owned; a NUL-terminated copy for strtod */
    struct member *member; /* owned; a stack, innermost object on top */
    size_t n_members, cap_members;
    unsigned depth;
    struct err *err;
};

static int value(struct rewriter *r);

static int bad(struct rewriter *r, const char *what)
{
    return err_set(r->err, ERR_PARSE, "JSON: %s at byte %zu", what, r->at);
}

static int peek(struct rewriter *r)
{
    return r->at < r->in.n ? (unsigned char)r->in.p[r->at] : -1;
}

static void skip_space(struct rewriter *r)
{
    int c;
    while ((c = peek(r)) == ' ' || c == '\t' || c == '\n' || c == '\r')
        r->at++;
}

/* --- strings -------------------------------------------------------------------------- */

void jsontext_escape(struct buf *out, struct str raw)
{
    static const char named[] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f',
                                 ['\r'] = 'r', ['"'] = '"',  ['\\'] = '\\'};
    size_t from = 0;
    for (size_t i = 0; i < raw.n; i++) {
        unsigned char c = (unsigned char)raw.p[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_add(out, raw.p + from, i - from);
        from = i + 1;
        if (named[c]) {
            buf_putc(out, '\\');
            buf_putc(out, named[c]);
        } else {
            buf_printf(out, "\\u%04x", c);
        }
    }
    buf_add(out, raw.p + from, raw.n - from);
}

void jsontext_quote(struct buf *out, struct str raw)
{
    buf_putc(out, '"');
    jsontext_escape(out, raw);
    buf_putc(out, '"');
}

/* Four hex digits at `at`, or -1. */
static int32_t hex4(struct str s, size_t at)
{
    if (at > s.n || s.n - at < 4)
        return -1;
    int32_t v = 0;
    for (size_t i = at; i < at + 4; i++) {
        char c = s.p[i];
        int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f'
                    ? (c | 32) - 'a' + 10 : -1;
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* At the backslash; *cp is what the escape stands for. */
static int escape(struct rewriter *r, uint32_t *cp)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = r->at + 1 < r->in.n ? r->in.p[r->at + 1] : '\0';
    const char *named = c ? strchr(from, c) : NULL;
    if (named) {
        *cp = (unsigned char)to[named - from];
        r->at += 2;
        return 0;
    }
    int32_t high = c == 'u' ? hex4(r->in, r->at + 2) : -1;
    if (high < 0)
        return bad(r, "invalid escape");
    if (high < 0xD800 || high > 0xDFFF) {
        *cp = (uint32_t)high;
        r->at += 6;
        return 0;
    }
    bool pair = r->in.n - r->at > 7 && r->in.p[r->at + 6] == '\\' && r->in.p[r->at + 7] == 'u';
    int32_t low = pair ? hex4(r->in, r->at + 8) : -1;
    if (high > 0xDBFF || low < 0xDC00 || low > 0xDFFF)
        return bad(r, "lone surrogate, which has no UTF-8 form,");
    *cp = 0x10000 + ((uint32_t)(high - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
    r->at += 12;
    return 0;
}

static int string(struct rewriter *r)
{
    buf_putc(r->out, '"');
    r->at++;
    for (;;) {
        size_t from = r->at;
        int c;
        while ((c = peek(r)) >= 0x20 && c != '"' && c != '\\') {
            uint32_t cp;
            size_t n = c < 0x80 ? 1 : utf8_decode(r->in, r->at, &cp);
            if (n == 0)
                return bad(r, "invalid UTF-8");
            r->at += n;
        }
        buf_add(r->out, r->in.p + from, r->at - from);
        if (c == '"')
            break;
        if (c != '\\')
            return bad(r, c < 0 ? "string without end" : "control character in a string");
        uint32_t cp = 0;
        int rc = escape(r, &cp);
        if (rc < 0)
            return rc;
        char utf8[4];
        size_t n = utf8_encode(cp, utf8);
        jsontext_escape(r->out, str_of(utf8, n));
    }
    r->at++;
    buf_putc(r->out, '"');
    return 0;
}

/* --- numbers -------------------------------------------------------------------------- */

/* One more in the last digit of d.ddde+XX; false on a carry out of the first digit. */
static bool digits_up(char *text)
{
    char *end = strchr(text, 'e');
    for (char *p = end - 1; p >= text; p--) {
        if (*p == '.' || *p == '-')
            continue;
        if (*p != '9') {
            ++*p;
            return true;
        }
        *p = '0';
    }
    return false;
}

/*
 * The fewest digits that read back as v. printf rounds to the nearest decimal, and the nearest
 * one reads back whenever any of that length does, but for powers of two: their interval is
 * half as wide below, so the one next above may do where the nearest does not.
 */
static void shortest(double v, char text[40])
{
    int exponent;
    bool power_of_two = fabs(frexp(v, &exponent)) == 0.5;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 40, "%.*e", digits - 1, v);
        if (strtod(text, NULL) == v)
            return;
        if (power_of_two && digits_up(text) && strtod(text, NULL) == v)
            return;
    }
}

void jsontext_double(struct buf *out, double v)
{
    char text[40], digit[20];
    shortest(v, text);
    char *e = strchr(text, 'e');
    int exponent = (int)strtol(e + 1, NULL, 10), n = 0;
    for (char *p = text; p < e; p++)
        if (*p >= '0' && *p <= '9')
            digit[n++] = *p;
    while (n > 1 && digit[n - 1] == '0')
        n--;
    if (text[0] == '-')
        buf_putc(out, '-');
    if (exponent < -4 || exponent >= 16) {
        buf_putc(out, digit[0]);
        if (n > 1)
            buf_putc(out, '.');
        buf_add(out, digit + 1, (size_t)n - 1);
        buf_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0)
        buf_puts(out, "0.");
    for (int i = exponent + 1; i < 0; i++)
        buf_putc(out, '0');
    for (int i = 0; i < n || i <= exponent; i++) {
        if (i > 0 && i == exponent + 1)
            buf_putc(out, '.');
        buf_putc(out, i < n ? digit[i] : '0');
    }
    if (n <= exponent + 1)
        buf_puts(out, ".0");
}

static size_t digits(struct rewriter *r)
{
    size_t from = r->at;
    while (peek(r) >= '0' && peek(r) <= '9')
        r->at++;
    return r->at - from;
}

static int number(struct rewriter *r)
{
    size_t from = r->at;
    bool integer = true;
    if (peek(r) == '-')
        r->at++;
    size_t first = r->at, n = digits(r);
    if (n == 0)
        return bad(r, "value expected");
    if (n > 1 && r->in.p[first] == '0')
        return bad(r, "number with a leading zero");
    if (peek(r) == '.') {
        integer = false;
        r->at++;
        if (digits(r) == 0)
            return bad(r, "digit expected");
    }
    if ((peek(r) | 32) == 'e') {
        integer = false;
        r->at++;
        if (peek(r) == '+' || peek(r) == '-')
            r->at++;
        if (digits(r) == 0)
            return bad(r, "digit expected");
    }
    struct str text = str_of(r->in.p + from, r->at - from);
    if (integer) {
        buf_str(r->out, str_is(text, "-0") ? STR("0") : text);
        return 0;
    }
    buf_reset(&r->number);
    buf_str(&r->number, text);
    int rc = buf_check(&r->number, "number", r->err);
    if (rc < 0)
        return rc;
    double v = strtod(buf_cstr(&r->number), NULL);
    if (isinf(v))
        return bad(r, "number beyond the range of a double");
    jsontext_double(r->out, v);
    return 0;
}

/* --- containers ----------------------------------------------------------------------- */

static struct str key_of(const struct rewriter *r, const struct member *m)
{
    return str_of(r->out->data + m->key, m->key_len);
}

static int by_key(const void *a, const void *b, void *arg)
{
    const struct member *x = a, *y = b;
    struct str k = key_of(arg, x), l = key_of(arg, y);
    int c = memcmp(k.p, l.p, k.n < l.n ? k.n : l.n);
    if (c == 0 && k.n != l.n)
        c = k.n < l.n ? -1 : 1;
    return c ? c : (x->key > y->key) - (x->key < y->key);
}

static int by_place(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    return (x->key > y->key) - (x->key < y->key);
}

/* Gives the first of equal keys the last value and drops the others; false when none is equal. */
static bool merge_duplicates(struct rewriter *r, struct member *m, size_t n)
{
    bool any = false;
    qsort_r(m, n, sizeof(*m), by_key, r); /* n is at least 2 */
    for (size_t first = 0, i = 1; i < n; i++) {
        if (!str_eq(key_of(r, &m[first]), key_of(r, &m[i]))) {
            first = i;
            continue;
        }
        m[first].value = m[i].value;
        m[first].value_len = m[i].value_len;
        m[i].dropped = any = true;
    }
    if (any)
        qsort(m, n, sizeof(*m), by_place);
    return any;
}

/* Writes the object that starts at `start` of the output again, from its members. */
static int rewrite_object(struct rewriter *r, size_t start, const struct member *m, size_t n)
{
    struct buf b;
    buf_init(&b, 0);
    for (size_t i = 0; i < n; i++) {
        if (m[i].dropped)
            continue;
        buf_puts(&b, b.len ? ", " : "{");
        buf_str(&b, key_of(r, &m[i]));
        buf_puts(&b, ": ");
        buf_add(&b, r->out->data + m[i].value, m[i].value_len);
    }
    int rc = buf_check(&b, "JSON object", r->err);
    if (rc == 0) {
        buf_truncate(r->out, start);
        buf_str(r->out, buf_view(&b));
    }
    buf_done(&b);
    return rc;
}

static int push_member(struct rewriter *r, struct member m)
{
    if (r->n_members == r->cap_members) {
        size_t cap = r->cap_members ? r->cap_members * 2 : 64;
        struct member *grown = mem_resize(r->member, cap, sizeof(*grown));
        if (!grown)
            return err_nomem(r->err);
        r->member = grown;
        r->cap_members = cap;
    }
    r->member[r->n_members++] = m;
    return 0;
}

static int one_member(struct rewriter *r)
{
    struct member m = {.key = r->out->len};
    int rc = peek(r) == '"' ? string(r) : bad(r, "key expected");
    if (rc < 0)
        return rc;
    m.key_len = r->out->len - m.key;
    skip_space(r);
    if (peek(r) != ':')
        return bad(r, "':' expected");
    r->at++;
    buf_puts(r->out, ": ");
    m.value = r->out->len;
    if ((rc = value(r)) < 0)
        return rc;
    m.value_len = r->out->len - m.value;
    return push_member(r, m);
}

static int container(struct rewriter *r, bool object)
{
    char closer = object ? '}' : ']';
    size_t start = r->out->len, base = r->n_members;
    buf_putc(r->out, object ? '{' : '[');
    r->at++;
    skip_space(r);
    for (bool first = true; peek(r) != closer; first = false) {
        if (!first) {
            if (peek(r) != ',')
                return bad(r, object ? "',' or '}' expected" : "',' or ']' expected");
            r->at++;
            buf_puts(r->out, ", ");
            skip_space(r);
        }
        int rc = object ? one_member(r) : value(r);
        if (rc == 0 && r->out->failed)
            rc = buf_check(r->out, "JSON text", r->err);
        if (rc < 0)
            return rc;
        skip_space(r);
    }
    r->at++;
    size_t n = r->n_members - base;
    if (n > 1 && merge_duplicates(r, r->member + base, n)) {
        int rc = rewrite_object(r, start, r->member + base, n);
        if (rc < 0)
            return rc;
    }
    r->n_members = base;
    buf_putc(r->out, closer);
    return 0;
}

static bool word(struct rewriter *r, struct str w)
{
    if (!str_starts(str_sub(r->in, r->at, w.n), w))
        return false;
    r->at += w.n;
    buf_str(r->out, w);
    return true;
}

static int value(struct rewriter *r)
{
    skip_space(r);
    int c = peek(r);
    if (c == '"')
        return string(r);
    if (c == '{' || c == '[') {
        if (++r->depth > LIMIT_JSON_DEPTH)
            return err_set(r->err, ERR_LIMIT, "JSON: nested deeper than %d at byte %zu",
                           LIMIT_JSON_DEPTH, r->at);
        int rc = container(r, c == '{');
        r->depth--;
        return rc;
    }
    if (word(r, STR("true")) || word(r, STR("false")) || word(r, STR("null")))
        return 0;
    return number(r);
}

int jsontext_rewrite(struct buf *out, struct str text, struct err *err)
{
    if (text.n > LIMIT_JSON_BYTES)
        return err_set(err, ERR_LIMIT, "JSON: %zu bytes, more than the cap of %u", text.n,
                       LIMIT_JSON_BYTES);
    struct rewriter r = {.in = text, .out = out, .err = err};
    size_t before = out->len;
    buf_init(&r.number, 0);
    int rc = value(&r);
    if (rc == 0) {
        skip_space(&r);
        if (r.at < text.n)
            rc = bad(&r, "text after the value");
    }
    if (rc == 0)
        rc = buf_check(out, "JSON text", err);
    if (rc < 0)
        buf_truncate(out, before);
    buf_done(&r.number);
    mem_free(r.member);
    return rc;
}
