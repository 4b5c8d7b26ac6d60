/* json.c - strict reading, compact writing, typed getters. */
#include "base/json.h"

#include <string.h>

#include "base/limits.h"

int json_read(json_t **out, struct str text, struct err *err)
{
    json_error_t je;
    if (text.n > LIMIT_JSON_BYTES)
        return err_set(err, ERR_LIMIT, "JSON text of %zu bytes exceeds the cap of %zu",
                       text.n, (size_t)LIMIT_JSON_BYTES);
    json_t *v = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (!v && strstr(je.text, "JSON_ALLOW_NUL")) /* the library's word for it helps nobody */
        return err_set(err, ERR_PARSE, "JSON line %d column %d: a string holds the character "
                       "\\u0000, which is not allowed", je.line, je.column);
    if (!v)
        return err_set(err, ERR_PARSE, "JSON line %d column %d: %s", je.line, je.column,
                       je.text);
    *out = v;
    return 0;
}

static int append(const char *data, size_t n, void *b)
{
    buf_add(b, data, n);
    return 0;
}

static int dump(const json_t *v, struct buf *b, size_t flags, struct err *err)
{
    if (json_dump_callback(v, append, b, flags | JSON_ENCODE_ANY) != 0)
        return err_set(err, ERR_STATE, "this value cannot be written as JSON");
    return buf_check(b, "JSON output", err);
}

int json_write(const json_t *v, struct buf *b, struct err *err)
{
    return dump(v, b, JSON_COMPACT, err);
}

int json_write_pretty(const json_t *v, struct buf *b, struct err *err)
{
    return dump(v, b, JSON_INDENT(2), err);
}

/* The member, or NULL when absent or null. */
static json_t *member(const json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

static int wrong(const char *key, const char *want, struct err *err)
{
    return err_set(err, ERR_PARSE, "field '%s' must be %s", key, want);
}

static int absent(const char *key, struct err *err)
{
    return err_set(err, ERR_PARSE, "field '%s' is missing", key);
}

int json_opt_str(const json_t *o, const char *key, struct str *out, struct err *err)
{
    json_t *v = member(o, key);
    if (!v)
        return 0;
    if (!json_is_string(v))
        return wrong(key, "a string", err);
    *out = json_view(v);
    return 0;
}

int json_opt_int(const json_t *o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                 struct err *err)
{
    json_t *v = member(o, key);
    if (!v)
        return 0;
    if (!json_is_integer(v))
        return wrong(key, "an integer", err);
    int64_t n = json_integer_value(v);
    if (n < lo || n > hi)
        return err_set(err, ERR_LIMIT, "field '%s' is %lld, outside %lld to %lld", key,
                       (long long)n, (long long)lo, (long long)hi);
    *out = n;
    return 0;
}

int json_opt_num(const json_t *o, const char *key, double *out, struct err *err)
{
    json_t *v = member(o, key);
    if (!v)
        return 0;
    if (!json_is_number(v))
        return wrong(key, "a number", err);
    *out = json_number_value(v);
    return 0;
}

int json_opt_bool(const json_t *o, const char *key, bool *out, struct err *err)
{
    json_t *v = member(o, key);
    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return wrong(key, "true or false", err);
    *out = json_is_true(v);
    return 0;
}

int json_opt_obj(json_t *o, const char *key, json_t **out, struct err *err)
{
    json_t *v = member(o, key);
    if (!v)
        return 0;
    if (!json_is_object(v))
        return wrong(key, "an object", err);
    *out = v;
    return 0;
}

int json_opt_arr(json_t *o, const char *key, json_t **out, struct err *err)
{
    json_t *v = member(o, key);
    if (!v)
        return 0;
    if (!json_is_array(v))
        return wrong(key, "an array", err);
    *out = v;
    return 0;
}

int json_need_str(const json_t *o, const char *key, struct str *out, struct err *err)
{
    return member(o, key) ? json_opt_str(o, key, out, err) : absent(key, err);
}

int json_need_int(const json_t *o, const char *key, int64_t lo, int64_t hi, int64_t *out,
                  struct err *err)
{
    return member(o, key) ? json_opt_int(o, key, lo, hi, out, err) : absent(key, err);
}

json_t *json_text(struct str s)
{
    bool nul = s.n && memchr(s.p, 0, s.n); /* our own reader would refuse it */
    json_t *v = nul ? NULL : json_stringn(s.p, s.n);
    if (v || (!nul && utf8_valid(s)))
        return v;
    struct buf clean;
    buf_init(&clean, 0);
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t n = utf8_decode(s, i, &cp);
        if (n && cp)
            buf_add(&clean, s.p + i, n);
        else
            buf_puts(&clean, "\xEF\xBF\xBD");
        i += n ? n : 1;
    }
    if (!clean.failed)
        v = json_stringn(buf_cstr(&clean), clean.len);
    buf_done(&clean);
    return v;
}

struct str json_view(const json_t *v)
{
    return str_of(json_string_value(v), json_string_length(v));
}
