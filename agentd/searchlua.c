/* searchlua.c - one Lua state for each provider of type lua. */
#include "agentd/searchlua.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "agentd/lua.h"
#include "agentd/yaml.h"
#include "base/io.h"
#include "base/mem.h"

enum { PROVIDERS_MAX = 16, FILE_BYTES = 256 << 10 };

struct searchlua {
    struct luabox *box[PROVIDERS_MAX]; /* NULL where a provider is no Lua */
};

/* A path as the YAML gives it: relative to the YAML's own folder. */
static int full_path(const char *yaml, struct str file, char out[PATH_MAX], struct err *err)
{
    const char *slash = strrchr(yaml, '/');
    int dir = slash && file.n && file.p[0] != '/' ? (int)(slash - yaml) + 1 : 0;
    if (snprintf(out, PATH_MAX, "%.*s%.*s", dir, yaml, STR_ARG(file)) >= PATH_MAX)
        return err_set(err, ERR_LIMIT, "the path '%.100s' is too long", file.p);
    return 0;
}

static int load(struct luabox **out, const char *path, struct err *err)
{
    /* An answer of a few megabytes becomes tables of many times its size. */
    const struct luabox_limits limits = {.memory = 128u << 20, .steps = 50000000};
    struct buf text;
    buf_init(&text, FILE_BYTES);
    int rc = io_read_file(path, &text, err);
    if (rc == 0)
        rc = luabox_new(out, &limits, err);
    if (rc == 0)
        rc = luabox_load(*out, path, buf_view(&text), err);
    if (rc == 0 && !luabox_has(*out, "request"))
        rc = err_set(err, ERR_PARSE, "'%s' defines no function request(query, count, source)",
                     path);
    buf_done(&text);
    return rc;
}

static int load_one(struct searchlua *s, unsigned i, const struct yaml *y, const char *yaml,
                    const struct yaml_node *p, struct err *err)
{
    char path[PATH_MAX];
    struct str type = {0}, file = {0};
    const struct yaml_node *n = yaml_get(p, "type"), *f = yaml_get(p, "file");
    int rc = n ? yaml_text(y, n, &type, err) : 0;
    if (rc < 0 || !str_is(type, "lua"))
        return rc;
    if (i >= PROVIDERS_MAX)
        return yaml_fail(y, p, err, "there may be at most %d providers", PROVIDERS_MAX);
    if (!f)
        return yaml_fail(y, p, err, "a provider of type lua needs 'file', its Lua file");
    rc = yaml_text(y, f, &file, err);
    if (rc == 0)
        rc = full_path(yaml, file, path, err);
    if (rc == 0 && load(&s->box[i], path, err) < 0)
        rc = yaml_fail(y, f, err, "%.300s", err->text);
    return rc;
}

int searchlua_open(struct searchlua **out, const char *yaml, struct err *err)
{
    struct yaml *y = NULL;
    struct searchlua *s = mem_zalloc(sizeof *s);
    bool any = false;
    unsigned i = 0;
    int rc = s ? yaml_load(&y, yaml, err) : err_nomem(err);
    const struct yaml_node *list = rc == 0 ? yaml_get(yaml_root(y), "providers") : NULL;
    for (const struct yaml_node *p = list ? list->first : NULL; rc == 0 && p; p = p->next, i++) {
        rc = load_one(s, i, y, yaml, p, err);
        any |= i < PROVIDERS_MAX && s->box[i];
    }
    yaml_close(y);
    if (rc < 0 || !any) {
        searchlua_free(s);
        s = NULL;
    }
    if (rc == 0)
        *out = s;
    return rc;
}

void searchlua_free(struct searchlua *s)
{
    for (unsigned i = 0; s && i < PROVIDERS_MAX; i++)
        luabox_free(s->box[i]);
    mem_free(s);
}

int searchlua_call(struct searchlua *s, int64_t i, struct str function, const json_t *args,
                   json_t **value, struct err *err)
{
    json_t *results = NULL;
    const char *name = str_is(function, "results") ? "results" : "request";
    if (!s || i < 0 || i >= PROVIDERS_MAX || !s->box[i])
        return err_set(err, ERR_NOTFOUND, "there is no Lua provider %lld", (long long)i);
    if (!luabox_has(s->box[i], name))
        return err_set(err, ERR_NOTFOUND, "the file defines no function %s(...)", name);
    int rc = luabox_call(s->box[i], name, args, &results, err);
    if (rc == 0)
        *value = json_incref(json_array_get(results, 0));
    if (rc == 0 && !*value)
        rc = err_set(err, ERR_PARSE, "%s() returned nothing", name);
    json_decref(results);
    return rc;
}
