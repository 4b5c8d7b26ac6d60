/*
 * yaml.c - libyaml's events to a tree. Refuses what hides meaning (aliases, tags,
 * duplicate keys) and whatever passes a cap; every error names file and line.
 */
#include "agentd/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "base/buf.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/mem.h"

struct yaml {
    struct arena mem;
    char *name;
    struct yaml_node *root;
};

/* A map or list that is being filled. */
struct level {
    struct yaml_node *node, *last;
    struct str key; /* waiting for its value */
    unsigned key_line;
    bool has_key;
};

struct build {
    struct yaml *y;
    struct level stack[LIMIT_YAML_DEPTH];
    unsigned depth, nodes;
    bool done; /* the root is complete */
};

static int fail_at(const struct yaml *y, unsigned line, struct err *err, const char *fmt,
                   va_list ap)
{
    char text[400];
    vsnprintf(text, sizeof text, fmt, ap);
    return err_set(err, ERR_PARSE, "%s:%u: %s", y->name, line, text);
}

static int PRINTF(4, 5)
    fail_line(const struct yaml *y, unsigned line, struct err *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = fail_at(y, line, err, fmt, ap);
    va_end(ap);
    return rc;
}

int yaml_fail(const struct yaml *y, const struct yaml_node *at, struct err *err,
              const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = fail_at(y, at ? at->line : 1, err, fmt, ap);
    va_end(ap);
    return rc;
}

static unsigned line_of(const yaml_event_t *e)
{
    return (unsigned)e->start_mark.line + 1;
}

static int make(struct build *b, const yaml_event_t *e, enum yaml_kind kind,
                struct yaml_node **out, struct err *err)
{
    if (++b->nodes > LIMIT_YAML_NODES)
        return fail_line(b->y, line_of(e), err, "more than %d values", LIMIT_YAML_NODES);
    struct yaml_node *n = arena_alloc(&b->y->mem, sizeof *n);
    if (!n)
        return err_nomem(err);
    n->kind = kind;
    n->line = line_of(e);
    *out = n;
    return 0;
}

/* Hangs a finished or opened value into the container on top of the stack. */
static int attach(struct build *b, struct yaml_node *n, struct err *err)
{
    if (b->depth == 0) {
        b->y->root = n;
        b->done = n->kind == YAML_SCALAR;
        return 0;
    }
    struct level *top = &b->stack[b->depth - 1];
    if (top->node->kind == YAML_MAP) {
        n->key = top->key;
        n->line = top->key_line;
        top->has_key = false;
    }
    if (top->last)
        top->last->next = n;
    else
        top->node->first = n;
    top->last = n;
    if (++top->node->n > LIMIT_YAML_NODES)
        return fail_line(b->y, n->line, err, "too many entries");
    return 0;
}

static int on_key(struct build *b, const yaml_event_t *e, struct str text,
                  struct err *err)
{
    struct level *top = &b->stack[b->depth - 1];
    const struct yaml_node *twin = yaml_get(top->node, text.p);
    if (twin)
        return fail_line(b->y, line_of(e), err, "'%s' was already given on line %u",
                         text.p, twin->line);
    top->key = text;
    top->key_line = line_of(e);
    top->has_key = true;
    return 0;
}

static int on_scalar(struct build *b, const yaml_event_t *e, struct err *err)
{
    struct str raw = str_of(e->data.scalar.value, e->data.scalar.length);
    if (memchr(raw.p, '\0', raw.n) || !utf8_valid(raw))
        return fail_line(b->y, line_of(e), err, "a value holds NUL or invalid UTF-8");
    struct str text = {arena_strdup(&b->y->mem, raw), raw.n};
    if (!text.p)
        return err_nomem(err);
    struct level *top = b->depth ? &b->stack[b->depth - 1] : NULL;
    if (top && top->node->kind == YAML_MAP && !top->has_key)
        return on_key(b, e, text, err);
    struct yaml_node *n = NULL;
    int rc = make(b, e, YAML_SCALAR, &n, err);
    if (rc < 0)
        return rc;
    n->text = text;
    n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return attach(b, n, err);
}

static int on_open(struct build *b, const yaml_event_t *e, enum yaml_kind kind,
                   struct err *err)
{
    struct level *top = b->depth ? &b->stack[b->depth - 1] : NULL;
    if (top && top->node->kind == YAML_MAP && !top->has_key)
        return fail_line(b->y, line_of(e), err, "a key must be a plain word");
    if (b->depth == LIMIT_YAML_DEPTH)
        return fail_line(b->y, line_of(e), err, "deeper than %d levels",
                         LIMIT_YAML_DEPTH);
    struct yaml_node *n = NULL;
    int rc = make(b, e, kind, &n, err);
    if (rc == 0)
        rc = attach(b, n, err);
    if (rc == 0)
        b->stack[b->depth++] = (struct level){.node = n};
    return rc;
}

static bool tagged(const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return e->data.scalar.anchor || e->data.scalar.tag;
    case YAML_SEQUENCE_START_EVENT:
        return e->data.sequence_start.anchor || e->data.sequence_start.tag;
    case YAML_MAPPING_START_EVENT:
        return e->data.mapping_start.anchor || e->data.mapping_start.tag;
    default:
        return e->type == YAML_ALIAS_EVENT;
    }
}

static int on_event(struct build *b, const yaml_event_t *e, struct err *err)
{
    if (tagged(e))
        return fail_line(b->y, line_of(e), err,
                         "anchors, aliases and tags are not used here; write it out");
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (b->y->root)
            return fail_line(b->y, line_of(e), err, "a second document in one file");
        return 0;
    case YAML_SCALAR_EVENT:
        return on_scalar(b, e, err);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(b, e, YAML_LIST, err);
    case YAML_MAPPING_START_EVENT:
        return on_open(b, e, YAML_MAP, err);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        b->depth--;
        return 0;
    default:
        return 0;
    }
}

static int parse(struct yaml *y, struct str text, struct err *err)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return err_nomem(err);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, text.n);
    struct build b = {.y = y};
    int rc = 0;
    for (bool end = false; rc == 0 && !end;) {
        yaml_event_t e;
        if (!yaml_parser_parse(&parser, &e)) {
            rc = fail_line(y, (unsigned)parser.problem_mark.line + 1, err, "%s%s%s",
                           parser.problem ? parser.problem : "unreadable",
                           parser.context ? " " : "",
                           parser.context ? parser.context : "");
            break;
        }
        end = e.type == YAML_STREAM_END_EVENT;
        rc = on_event(&b, &e, err);
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&parser);
    return rc;
}

int yaml_read(struct yaml **out, const char *name, struct str text, struct err *err)
{
    struct yaml *y = mem_zalloc(sizeof *y);
    if (!y)
        return err_nomem(err);
    arena_init(&y->mem, 0);
    y->name = arena_strdup(&y->mem, str_c(name));
    int rc = y->name ? 0 : err_nomem(err);
    if (rc == 0 && text.n > LIMIT_YAML_BYTES)
        rc = err_set(err, ERR_LIMIT, "%s: larger than %d bytes", name, LIMIT_YAML_BYTES);
    if (rc == 0)
        rc = parse(y, text, err);
    if (rc == 0 && (!y->root || (y->root->kind == YAML_SCALAR && y->root->text.n == 0))) {
        y->root = arena_alloc(&y->mem, sizeof *y->root);
        if (!y->root)
            rc = err_nomem(err);
        else
            *y->root = (struct yaml_node){.kind = YAML_MAP, .line = 1};
    }
    if (rc < 0) {
        yaml_close(y);
        return rc;
    }
    *out = y;
    return 0;
}

int yaml_load(struct yaml **out, const char *path, struct err *err)
{
    struct buf b;
    buf_init(&b, LIMIT_YAML_BYTES);
    int rc = io_read_file(path, &b, err);
    if (rc == 0)
        rc = yaml_read(out, path, buf_view(&b), err);
    buf_done(&b);
    return rc;
}

void yaml_close(struct yaml *y)
{
    if (!y)
        return;
    arena_done(&y->mem);
    mem_free(y);
}

const struct yaml_node *yaml_root(const struct yaml *y)
{
    return y->root;
}

const char *yaml_name(const struct yaml *y)
{
    return y->name;
}

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key)
{
    if (!map || map->kind != YAML_MAP)
        return NULL;
    for (const struct yaml_node *n = map->first; n; n = n->next)
        if (str_is(n->key, key))
            return n;
    return NULL;
}

/* "'key': " for entries of a map, nothing for entries of a list. */
static int want(const struct yaml *y, const struct yaml_node *n, struct err *err,
                const char *what)
{
    const char *got = n->kind == YAML_SCALAR ? n->text.p
                      : n->kind == YAML_LIST ? "a list"
                                             : "a map";
    bool empty = n->kind == YAML_SCALAR && n->text.n == 0;
    return yaml_fail(y, n, err, "%s%.*s%swanted %s, found '%.60s'", n->key.n ? "'" : "",
                     STR_ARG(n->key), n->key.n ? "': " : "", what,
                     empty ? "nothing" : got);
}

int yaml_text(const struct yaml *y, const struct yaml_node *n, struct str *out,
              struct err *err)
{
    if (n->kind != YAML_SCALAR || (n->text.n == 0 && !n->quoted))
        return want(y, n, err, "text");
    *out = n->text;
    return 0;
}

int yaml_bool(const struct yaml *y, const struct yaml_node *n, bool *out, struct err *err)
{
    bool yes = n->kind == YAML_SCALAR && !n->quoted && str_is(n->text, "true");
    bool no = n->kind == YAML_SCALAR && !n->quoted && str_is(n->text, "false");
    if (!yes && !no)
        return want(y, n, err, "true or false");
    *out = yes;
    return 0;
}

int yaml_int(const struct yaml *y, const struct yaml_node *n, int64_t lo, int64_t hi,
             int64_t *out, struct err *err)
{
    char what[96];
    snprintf(what, sizeof what, "a whole number from %lld to %lld", (long long)lo,
             (long long)hi);
    int64_t v;
    if (n->kind != YAML_SCALAR || n->quoted || !str_to_i64(n->text, &v) || v < lo ||
        v > hi)
        return want(y, n, err, what);
    *out = v;
    return 0;
}

int yaml_num(const struct yaml *y, const struct yaml_node *n, double lo, double hi,
             double *out, struct err *err)
{
    char what[96];
    snprintf(what, sizeof what, "a number from %g to %g", lo, hi);
    double v;
    if (n->kind != YAML_SCALAR || n->quoted || !str_to_f64(n->text, &v) || !(v >= lo) ||
        !(v <= hi))
        return want(y, n, err, what);
    *out = v;
    return 0;
}

struct unit {
    const char *suffix;
    uint64_t factor;
};

/* A number with one of the suffixes; longer suffixes stand first in the table. */
static bool with_unit(struct str text, const struct unit *units, uint64_t *out)
{
    for (; units->suffix; units++) {
        struct str suffix = str_c(units->suffix);
        if (!str_ends(text, suffix))
            continue;
        uint64_t v;
        if (!str_to_u64(str_sub(text, 0, text.n - suffix.n), &v) ||
            v > UINT64_MAX / units->factor)
            return false;
        *out = v * units->factor;
        return true;
    }
    return false;
}

int yaml_size(const struct yaml *y, const struct yaml_node *n, uint64_t lo, uint64_t hi,
              uint64_t *out, struct err *err)
{
    static const struct unit units[] = {
        {"K", 1u << 10}, {"M", 1u << 20}, {"G", 1u << 30}, {"", 1}, {NULL, 0}};
    char what[96];
    snprintf(what, sizeof what, "a size such as 64M, from %llu to %llu bytes",
             (unsigned long long)lo, (unsigned long long)hi);
    uint64_t v;
    if (n->kind != YAML_SCALAR || n->quoted || !with_unit(n->text, units, &v) || v < lo ||
        v > hi)
        return want(y, n, err, what);
    *out = v;
    return 0;
}

int yaml_duration(const struct yaml *y, const struct yaml_node *n, int64_t lo_ms,
                  int64_t hi_ms, int64_t *out_ms, struct err *err)
{
    static const struct unit units[] = {
        {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};
    char what[96];
    snprintf(what, sizeof what, "a duration such as 90s, from %lld to %lld ms",
             (long long)lo_ms, (long long)hi_ms);
    uint64_t v;
    if (n->kind != YAML_SCALAR || n->quoted || !with_unit(n->text, units, &v) ||
        v > INT64_MAX || (int64_t)v < lo_ms || (int64_t)v > hi_ms)
        return want(y, n, err, what);
    *out_ms = (int64_t)v;
    return 0;
}

int yaml_choice(const struct yaml *y, const struct yaml_node *n, const char *const *names,
                int *out, struct err *err)
{
    char what[160] = "one of";
    for (int i = 0; names[i]; i++) {
        if (n->kind == YAML_SCALAR && str_is(n->text, names[i])) {
            *out = i;
            return 0;
        }
        size_t used = strlen(what);
        snprintf(what + used, sizeof what - used, "%s %s", i ? "," : "", names[i]);
    }
    return want(y, n, err, what);
}
