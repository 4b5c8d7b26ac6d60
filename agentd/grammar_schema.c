/*
 * grammar_schema.c - JSON schemas of tools into nodes. It reads the few keywords that decide
 * what can be written; what it does not know allows everything. Narrower than the schema it is
 * only where that costs nothing: an object that names its keys is offered those alone.
 */
#include <stdlib.h>
#include <string.h>

#include "agentd/grammar_in.h"
#include "agentd/jsontext.h"

struct compiler {
    struct grammar *g;
    struct err *err;
    int rc; /* the first failure; later work is skipped */
};

static void fail(struct compiler *c, int rc)
{
    if (c->rc == 0)
        c->rc = rc;
}

static void too_large(struct compiler *c, const char *what)
{
    if (c->rc == 0)
        c->rc = err_set(c->err, ERR_LIMIT, "grammar: %s", what);
}

/* The bytes of a canonical string, in the arena. */
static struct str raw_text(struct compiler *c, struct str quoted)
{
    struct buf b;
    struct str out = STR("");
    buf_init(&b, 0);
    jsontext_unquote(&b, quoted);
    char *copy = arena_strdup(&c->g->arena, buf_view(&b));
    if (!copy || b.failed)
        fail(c, err_nomem(c->err));
    else
        out = str_of(copy, b.len);
    buf_done(&b);
    return out;
}

static int by_text(const void *a, const void *b)
{
    const struct str *x = a, *y = b;
    size_t n = x->n < y->n ? x->n : y->n;
    int d = n ? memcmp(x->p, y->p, n) : 0;
    return d ? d : (x->n > y->n) - (x->n < y->n);
}

/* Takes n texts, sorted and without repetition, into the pool. */
static struct grammar_list add_list(struct compiler *c, struct str *texts, uint32_t n)
{
    struct grammar *g = c->g;
    if (g->n_texts + n > GRAMMAR_STRINGS) {
        too_large(c, "the schemas name too many things");
        return (struct grammar_list){0, 0};
    }
    qsort(texts, n, sizeof(*texts), by_text);
    struct grammar_list list = {(uint16_t)g->n_texts, 0};
    for (uint32_t i = 0; i < n; i++) {
        if (i && str_eq(texts[i], texts[i - 1]))
            continue;
        g->text[g->n_texts++] = texts[i];
        list.n++;
    }
    return list;
}

static uint8_t type_bit(struct str quoted)
{
    static const struct {
        const char *name;
        uint8_t bit;
    } names[] = {
        {"\"string\"", DSML_STRING}, {"\"integer\"", DSML_INTEGER}, {"\"number\"", DSML_NUMBER},
        {"\"boolean\"", DSML_BOOLEAN}, {"\"null\"", DSML_NULL}, {"\"array\"", DSML_ARRAY},
        {"\"object\"", DSML_OBJECT},
    };
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (str_is(quoted, names[i].name))
            return names[i].bit;
    return GRAMMAR_ALL_TYPES;
}

static uint8_t read_types(struct str schema)
{
    struct str type = jsontext_get(schema, "type"), v;
    uint8_t bits = 0;
    if (jsontext_kind(type) == JSONTEXT_STRING)
        return type_bit(type);
    for (struct jsontext_iter it = jsontext_each(type); jsontext_next(&it, NULL, &v);)
        bits |= type_bit(v);
    return bits ? bits : GRAMMAR_ALL_TYPES;
}

static void read_enum(struct compiler *c, struct str schema, struct grammar_node *node)
{
    struct str list = jsontext_get(schema, "enum"), only = jsontext_get(schema, "const"), v;
    uint32_t n = only.n ? 1 : jsontext_count(list), n_strings = 0, i = 0;
    if (n == 0)
        return;
    struct str *values = mem_array(n, sizeof(*values)), *strings = mem_array(n, sizeof(*strings));
    if (!values || !strings) {
        fail(c, err_nomem(c->err));
    } else {
        if (only.n)
            values[i++] = only;
        else
            for (struct jsontext_iter it = jsontext_each(list); jsontext_next(&it, NULL, &v);)
                values[i++] = v;
        for (uint32_t k = 0; k < n; k++)
            if (jsontext_kind(values[k]) == JSONTEXT_STRING)
                strings[n_strings++] = raw_text(c, values[k]);
        /* A value that is no string can only be written with string="false". */
        uint8_t others = (uint8_t)(n_strings == n ? DSML_STRING : node->types);
        node->types = (uint8_t)(n_strings ? others : others & ~DSML_STRING);
        node->strings = add_list(c, strings, n_strings);
        node->values = add_list(c, values, n);
    }
    mem_free(values);
    mem_free(strings);
}

/* A bound of integers; beyond what GRAMMAR_DIGITS can write it is none. */
static bool bound(struct str schema, const char *key, bool lower, bool exclusive, int64_t *out)
{
    static const int64_t most = 1000000000000000000; /* 10^GRAMMAR_DIGITS */
    struct str text = jsontext_get(schema, key);
    double v;
    int64_t n;
    if (jsontext_kind(text) != JSONTEXT_NUMBER)
        return false;
    if (str_to_i64(text, &n)) {
        n = n > most ? most : n < -most ? -most : n;
    } else if (str_to_f64(text, &v) && v > -1e18 && v < 1e18) {
        n = (int64_t)v; /* towards zero: the next integer inside the bound, or one too far */
        exclusive = false;
        if (lower && (double)n < v)
            n++;
        else if (!lower && (double)n > v)
            n--;
    } else {
        return false;
    }
    n += exclusive ? (lower ? 1 : -1) : 0;
    *out = lower ? (n > *out ? n : *out) : (n < *out ? n : *out);
    return true;
}

/* Integers alone: a fraction's digits do not say early enough where they lead. */
static void read_bounds(struct str schema, struct grammar_node *node)
{
    struct grammar_node b = {.lo = -1000000000000000000, .hi = 1000000000000000000};
    bool any = bound(schema, "minimum", true, false, &b.lo);
    any |= bound(schema, "exclusiveMinimum", true, true, &b.lo);
    any |= bound(schema, "maximum", false, false, &b.hi);
    any |= bound(schema, "exclusiveMaximum", false, true, &b.hi);
    if (!any || !(node->types & DSML_INTEGER) || node->types & DSML_NUMBER || b.lo > b.hi)
        return;
    node->bounded = true;
    node->lo = b.lo;
    node->hi = b.hi;
}

static void read_items(struct str schema, struct grammar_node *node)
{
    int64_t lo = 0, hi = GRAMMAR_ITEMS;
    (void)bound(schema, "minItems", true, false, &lo);
    (void)bound(schema, "maxItems", false, false, &hi);
    bool sane = lo >= 0 && lo <= hi && lo < GRAMMAR_ITEMS;
    node->min_items = (uint16_t)(sane ? lo : 0);
    node->max_items = (uint16_t)(sane ? hi : GRAMMAR_ITEMS);
}

static uint16_t compile(struct compiler *c, struct str schema, unsigned depth);

/* It must fit between quotes as it is. */
static bool is_writable(struct str name)
{
    bool ok = name.n && name.n <= LIMIT_NAME_BYTES;
    for (size_t i = 0; i < name.n && ok; i++)
        ok = (unsigned char)name.p[i] >= 0x20 && !strchr("\"\\<", name.p[i]);
    return ok;
}

static void read_required(struct compiler *c, struct str schema, struct grammar_node *node)
{
    struct str v;
    struct jsontext_iter it = jsontext_each(jsontext_get(schema, "required"));
    while (jsontext_next(&it, NULL, &v) && c->rc == 0) {
        struct str name = raw_text(c, v);
        for (uint16_t i = 0; i < node->keys.n; i++)
            if (is_writable(name) && str_eq(c->g->text[node->keys.first + i], name))
                node->required |= (uint64_t)1 << i;
    }
}

static void read_properties(struct compiler *c, struct str schema, struct grammar_node *node,
                            unsigned depth)
{
    struct str properties = jsontext_get(schema, "properties"), key, v, name[GRAMMAR_KEYS];
    uint32_t n = 0;
    for (struct jsontext_iter it = jsontext_each(properties); jsontext_next(&it, &key, &v);) {
        if (n == GRAMMAR_KEYS) {
            too_large(c, "an object has more than 64 properties");
            return;
        }
        name[n++] = raw_text(c, key);
    }
    if (c->rc)
        return;
    node->keys = add_list(c, name, n);
    for (struct jsontext_iter it = jsontext_each(properties);
         c->rc == 0 && jsontext_next(&it, &key, &v);) {
        struct str raw = raw_text(c, key);
        for (uint16_t i = 0; i < node->keys.n; i++) {
            uint16_t at = (uint16_t)(node->keys.first + i);
            if (str_eq(c->g->text[at], raw))
                c->g->child[at] = compile(c, v, depth + 1);
        }
    }
    node->closed = str_is(jsontext_get(schema, "additionalProperties"), "false");
    read_required(c, schema, node);
}

/* anyOf and oneOf: the types of all branches, nothing finer. */
static uint8_t union_types(struct str schema)
{
    static const char *const words[] = {"anyOf", "oneOf"};
    uint8_t bits = 0;
    struct str v;
    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        struct jsontext_iter it = jsontext_each(jsontext_get(schema, words[i]));
        while (jsontext_next(&it, NULL, &v))
            bits |= read_types(v);
    }
    return bits;
}

/* The node of a schema; depth keeps hostile nesting off the stack. */
static uint16_t compile(struct compiler *c, struct str schema, unsigned depth)
{
    if (c->rc || depth > GRAMMAR_DEPTH || jsontext_kind(schema) != JSONTEXT_OBJECT)
        return GRAMMAR_ANY;
    if (c->g->n_nodes == GRAMMAR_NODES) {
        too_large(c, "the schemas are too large");
        return GRAMMAR_ANY;
    }
    uint16_t at = (uint16_t)c->g->n_nodes++;
    struct grammar_node node = {.types = read_types(schema), .items = GRAMMAR_ANY,
                                .max_items = GRAMMAR_ITEMS};
    uint8_t bits = union_types(schema);
    if (bits)
        node.types &= bits;
    if (!node.types || jsontext_get(schema, "$ref").n || jsontext_get(schema, "allOf").n)
        node.types = GRAMMAR_ALL_TYPES;
    read_bounds(schema, &node);
    read_items(schema, &node);
    read_enum(c, schema, &node);
    read_properties(c, schema, &node, depth);
    node.items = compile(c, jsontext_get(schema, "items"), depth + 1);
    c->g->node[at] = node;
    return at;
}

uint64_t grammar_hash(uint64_t h, const void *p, size_t n)
{
    const unsigned char *b = p;
    h ^= n;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001B3u;
    return h;
}

static int compile_tools(struct compiler *c, const struct str *tools, uint32_t n)
{
    struct grammar *g = c->g;
    struct buf *canonical = mem_array(n, sizeof(*canonical));
    struct str *names = mem_array(n, sizeof(*names));
    if (!canonical || !names)
        fail(c, err_nomem(c->err));
    for (uint32_t i = 0; i < n && c->rc == 0; i++) {
        buf_init(&canonical[i], 0);
        fail(c, jsontext_rewrite(&canonical[i], tools[i], c->err));
        struct str name = jsontext_get(buf_view(&canonical[i]), "name");
        if (c->rc == 0 && jsontext_kind(name) == JSONTEXT_STRING)
            names[i] = raw_text(c, name);
        if (c->rc == 0 && !is_writable(names[i]))
            c->rc = err_set(c->err, ERR_PARSE, "tool %u has no usable \"name\"", i);
        /* Nodes keep views of enum values: their text has to stay. */
        char *copy = arena_strdup(&g->arena, buf_view(&canonical[i]));
        if (!copy)
            fail(c, err_nomem(c->err));
        size_t length = canonical[i].len;
        g->id = grammar_hash(g->id, canonical[i].data, length);
        buf_done(&canonical[i]);
        canonical[i] = (struct buf){.data = (uint8_t *)copy, .len = length};
    }
    struct str *sorted = mem_array(n, sizeof(*sorted));
    if (!sorted)
        fail(c, err_nomem(c->err));
    if (c->rc == 0) {
        if (n)
            memcpy(sorted, names, n * sizeof(*names));
        g->tools = add_list(c, sorted, n);
    }
    for (uint32_t i = 0; i < n && c->rc == 0; i++) {
        uint16_t node = compile(c, jsontext_get(buf_view(&canonical[i]), "parameters"), 0);
        for (uint16_t k = 0; k < g->tools.n; k++)
            if (str_eq(g->text[g->tools.first + k], names[i]))
                g->child[g->tools.first + k] = node;
    }
    mem_free(sorted);
    mem_free(names);
    mem_free(canonical);
    return c->rc;
}

int grammar_new(struct grammar **out, const struct str *tools, uint32_t n, struct err *err)
{
    struct grammar *g = mem_zalloc(sizeof(*g));
    if (!g)
        return err_nomem(err);
    arena_init(&g->arena, 0);
    g->node = mem_array(GRAMMAR_NODES, sizeof(*g->node));
    g->text = mem_array(GRAMMAR_STRINGS, sizeof(*g->text));
    g->child = mem_array(GRAMMAR_STRINGS, sizeof(*g->child));
    int rc = g->node && g->text && g->child ? 0 : err_nomem(err);
    if (rc == 0) {
        g->node[GRAMMAR_ANY] = (struct grammar_node){.types = GRAMMAR_ALL_TYPES,
                                                      .max_items = GRAMMAR_ITEMS};
        g->n_nodes = 1;
        g->id = 0xCBF29CE484222325u;
        struct compiler c = {.g = g, .err = err};
        rc = compile_tools(&c, tools, n);
    }
    if (rc < 0) {
        grammar_free(g);
        return rc;
    }
    *out = g;
    return 0;
}

void grammar_free(struct grammar *g)
{
    if (!g)
        return;
    arena_done(&g->arena);
    mem_free(g->node);
    mem_free(g->text);
    mem_free(g->child);
    mem_free(g);
}

/* The place of `name` in a list, or -1. */
static int find(const struct grammar *g, struct grammar_list list, struct str name)
{
    for (int i = 0; i < list.n; i++)
        if (str_eq(g->text[list.first + i], name))
            return list.first + i;
    return -1;
}

static int find_param(const struct grammar *g, struct str tool, struct str key)
{
    int at = find(g, g->tools, tool);
    return at < 0 ? -1 : find(g, g->node[g->child[at]].keys, key);
}

unsigned grammar_types(const struct grammar *g, struct str tool, struct str key)
{
    int at = find_param(g, tool, key);
    unsigned types = at < 0 ? 0 : g->node[g->child[at]].types;
    return types == GRAMMAR_ALL_TYPES ? 0 : types;
}

int grammar_live(struct grammar *g, struct str tool, struct str key, const struct str *values,
                 uint32_t n, struct err *err)
{
    int at = find_param(g, tool, key);
    struct grammar_node *node = at < 0 ? NULL : &g->node[g->child[at]];
    if (!node || !(node->types & DSML_STRING))
        return err_set(err, ERR_NOTFOUND, "tool '%.*s' has no string parameter '%.*s'",
                       STR_ARG(tool), STR_ARG(key));
    struct compiler c = {.g = g, .err = err};
    struct str *copies = mem_array(n, sizeof(*copies));
    if (!copies)
        return err_nomem(err);
    for (uint32_t i = 0; i < n && c.rc == 0; i++) {
        char *copy = arena_strdup(&g->arena, values[i]);
        copies[i] = str_of(copy, values[i].n);
        if (!copy)
            fail(&c, err_nomem(err));
    }
    if (c.rc == 0)
        node->strings = add_list(&c, copies, n);
    g->id = grammar_hash(grammar_hash(g->id, tool.p, tool.n), key.p, key.n);
    for (uint32_t i = 0; i < n; i++)
        g->id = grammar_hash(g->id, values[i].p, values[i].n);
    mem_free(copies);
    return c.rc;
}
