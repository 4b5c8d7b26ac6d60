/* schema.c - the checker walks schema and value together and stops at the first misfit. */
#include "tools/schema.h"

#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 32, PATH_CAP = 160, SHOWN = 60 };

struct walk {
    const char *tool;
    char path[PATH_CAP]; /* "view_range[1]" */
    struct err *err;
};

static const char *kind_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "object";
    case JSON_ARRAY:
        return "array";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
        return "integer";
    case JSON_REAL:
        return "number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "boolean";
    default:
        return "null";
    }
}

static bool is_kind(const json_t *v, const char *kind)
{
    if (strcmp(kind, "number") == 0)
        return json_is_number(v);
    return strcmp(kind_of(v), kind) == 0;
}

static const char *with_article(const char *kind)
{
    static const char *const names[] = {"an object", "an array", "a string", "an integer",
                                        "a number", "a boolean (true or false)", "null"};
    static const char *const kinds[] = {"object", "array", "string", "integer",
                                        "number", "boolean", "null"};
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(kind, kinds[i]) == 0)
            return names[i];
    return kind;
}

/* A value as the model may recognise it: its JSON, cut. */
static void shown(const json_t *v, char out[SHOWN + 24])
{
    struct err ignored = {0};
    struct buf b;
    buf_init(&b, 0);
    if (json_is_object(v) || json_is_array(v) || json_is_null(v) ||
        json_write(v, &b, &ignored) < 0) {
        snprintf(out, SHOWN + 24, "%s", with_article(kind_of(v)));
    } else {
        size_t n = utf8_complete(str_sub(buf_view(&b), 0, SHOWN));
        snprintf(out, SHOWN + 24, "the %s %.*s%s", kind_of(v), (int)n, buf_cstr(&b),
                 n < b.len ? "..." : "");
    }
    buf_done(&b);
}

static int misfit(struct walk *w, const char *what, const json_t *v)
{
    char text[SHOWN + 24];
    shown(v, text);
    return err_set(w->err, ERR_PARSE, "%s: argument '%s' must be %s, got %s", w->tool, w->path,
                   what, text);
}

static int check_type(struct walk *w, const json_t *type, const json_t *v)
{
    if (json_is_string(type))
        return is_kind(v, json_string_value(type))
                   ? 0
                   : misfit(w, with_article(json_string_value(type)), v);
    char want[120] = "";
    size_t at = 0;
    for (size_t i = 0; i < json_array_size(type); i++) {
        const char *kind = json_string_value(json_array_get(type, i));
        if (kind && is_kind(v, kind))
            return 0;
        if (kind && at < sizeof want - 1)
            at += (size_t)snprintf(want + at, sizeof want - at, "%s%s", i ? " or " : "",
                                   with_article(kind));
    }
    return misfit(w, want, v);
}

static int check_enum(struct walk *w, const json_t *list, const json_t *v)
{
    struct buf b;
    struct err ignored = {0};
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++)
        if (json_equal(json_array_get(list, i), v))
            return 0;
    buf_init(&b, 300);
    buf_puts(&b, "one of ");
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_puts(&b, ", ");
        if (json_write(json_array_get(list, i), &b, &ignored) < 0)
            break;
    }
    int rc = misfit(w, buf_cstr(&b), v);
    buf_done(&b);
    return rc;
}

static int check_bounds(struct walk *w, const json_t *schema, const json_t *v)
{
    char what[80];
    const json_t *lo = json_object_get(schema, "minimum");
    const json_t *hi = json_object_get(schema, "maximum");
    double x = json_number_value(v);
    if (json_is_number(lo) && x < json_number_value(lo)) {
        snprintf(what, sizeof what, "at least %.15g", json_number_value(lo));
        return misfit(w, what, v);
    }
    if (json_is_number(hi) && x > json_number_value(hi)) {
        snprintf(what, sizeof what, "at most %.15g", json_number_value(hi));
        return misfit(w, what, v);
    }
    return 0;
}

static int check(struct walk *w, const json_t *schema, const json_t *v, unsigned depth);

/* Appends to the path, runs the check, takes it off again. */
static int check_at(struct walk *w, const char *step, const json_t *schema, const json_t *v,
                    unsigned depth)
{
    size_t len = strlen(w->path);
    snprintf(w->path + len, sizeof w->path - len, "%s", step);
    int rc = check(w, schema, v, depth);
    if (rc == 0)
        w->path[len] = '\0';
    return rc;
}

static int check_array(struct walk *w, const json_t *schema, const json_t *v, unsigned depth)
{
    const json_t *items = json_object_get(schema, "items");
    const json_t *lo = json_object_get(schema, "minItems");
    const json_t *hi = json_object_get(schema, "maxItems");
    size_t n = json_array_size(v);
    if (json_is_integer(lo) && (json_int_t)n < json_integer_value(lo))
        return err_set(w->err, ERR_PARSE, "%s: argument '%s' needs at least %lld items, got %zu",
                       w->tool, w->path, (long long)json_integer_value(lo), n);
    if (json_is_integer(hi) && (json_int_t)n > json_integer_value(hi))
        return err_set(w->err, ERR_PARSE, "%s: argument '%s' takes at most %lld items, got %zu",
                       w->tool, w->path, (long long)json_integer_value(hi), n);
    for (size_t i = 0; items && i < n; i++) {
        char step[24];
        snprintf(step, sizeof step, "[%zu]", i);
        int rc = check_at(w, step, items, json_array_get(v, i), depth + 1);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int unknown_key(struct walk *w, const json_t *known, const char *key)
{
    struct buf b;
    const char *name;
    const json_t *ignored;
    buf_init(&b, 300);
    json_object_foreach((json_t *)(uintptr_t)known, name, ignored)
    {
        if (b.len)
            buf_puts(&b, ", ");
        buf_puts(&b, name);
    }
    int rc = err_set(w->err, ERR_PARSE, "%s: there is no argument '%s%s%.60s'; it takes %s",
                     w->tool, w->path, w->path[0] ? "." : "", key,
                     b.len ? buf_cstr(&b) : "none");
    buf_done(&b);
    return rc;
}

/* What was given under another name is the likely cause, and is named too. */
static int missing_key(struct walk *w, const json_t *known, const json_t *v, const char *name)
{
    const char *key, *other = NULL;
    const json_t *ignored;
    json_object_foreach((json_t *)(uintptr_t)v, key, ignored)
        if (!other && json_is_object(known) && !json_object_get(known, key))
            other = key;
    const char *dot = w->path[0] ? "." : "";
    if (other)
        return err_set(w->err, ERR_PARSE, "%s: argument '%s%s%s' is required; there is no "
                       "argument '%s%s%.60s'", w->tool, w->path, dot, name, w->path, dot, other);
    return err_set(w->err, ERR_PARSE, "%s: argument '%s%s%s' is required", w->tool, w->path, dot,
                   name);
}

static int check_object(struct walk *w, const json_t *schema, const json_t *v, unsigned depth)
{
    const json_t *props = json_object_get(schema, "properties");
    const json_t *required = json_object_get(schema, "required");
    const char *dot = w->path[0] ? "." : "";
    const char *key;
    const json_t *value;
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (name && !json_object_get(v, name))
            return missing_key(w, props, v, name);
    }
    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        const json_t *sub = json_object_get(props, key);
        char step[96];
        if (!sub) {
            /* A schema that names its properties means them, said or not. */
            if (json_is_object(props))
                return unknown_key(w, props, key);
            continue;
        }
        snprintf(step, sizeof step, "%s%s", dot, key);
        int rc = check_at(w, step, sub, value, depth + 1);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check(struct walk *w, const json_t *schema, const json_t *v, unsigned depth)
{
    if (depth > DEPTH_MAX)
        return err_set(w->err, ERR_LIMIT, "%s: arguments are nested deeper than %d", w->tool,
                       DEPTH_MAX);
    const json_t *any = json_object_get(schema, "anyOf");
    const json_t *type = json_object_get(schema, "type");
    const json_t *list = json_object_get(schema, "enum");
    if (json_is_array(any)) {
        char want[120] = "";
        size_t at = 0;
        for (size_t i = 0; i < json_array_size(any); i++) {
            struct err ignored = {0};
            struct walk probe = {.tool = w->tool, .err = &ignored};
            const json_t *one = json_array_get(any, i);
            const char *kind = json_string_value(json_object_get(one, "type"));
            if (check(&probe, one, v, depth + 1) == 0)
                return 0;
            if (at < sizeof want - 1)
                at += (size_t)snprintf(want + at, sizeof want - at, "%s%s", i ? " or " : "",
                                       kind ? with_article(kind) : "another form");
        }
        return misfit(w, want, v);
    }
    int rc = 0;
    if (type)
        rc = check_type(w, type, v);
    if (rc == 0 && json_is_array(list))
        rc = check_enum(w, list, v);
    if (rc == 0 && json_is_number(v))
        rc = check_bounds(w, schema, v);
    if (rc == 0 && json_is_array(v))
        rc = check_array(w, schema, v, depth);
    if (rc == 0 && json_is_object(v))
        rc = check_object(w, schema, v, depth);
    return rc;
}

int schema_check(const char *tool, const json_t *schema, const json_t *args, struct err *err)
{
    struct walk w = {.tool = tool, .err = err};
    if (!json_is_object(args))
        return err_set(err, ERR_PARSE, "%s: the arguments must be a JSON object, got %s", tool,
                       with_article(kind_of(args)));
    return check(&w, schema, args, 0);
}

int schema_parse_args(const char *tool, const char *schema, struct str args, json_t **out,
                      struct err *err)
{
    json_t *fn = NULL, *v = NULL;
    int rc = json_read(&fn, str_c(schema), err);
    if (rc < 0)
        return err_prefix(err, "schema of %s", tool);
    rc = json_read(&v, str_trim(args).n ? args : STR("{}"), err);
    if (rc < 0)
        rc = err_prefix(err, "%s: the arguments are not valid JSON", tool);
    else
        rc = schema_check(tool, json_object_get(fn, "parameters"), v, err);
    json_decref(fn);
    if (rc < 0) {
        json_decref(v);
        return rc;
    }
    *out = v;
    return 0;
}
