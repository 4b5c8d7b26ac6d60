/* toollua.c - Lua files as rows of the tool table. */
#include "agentd/toollua.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd/lua.h"
#include "base/io.h"
#include "base/mem.h"

enum { FILE_BYTES = 256 << 10, NAME_CHARS = 64, TEXT_CHARS = 1024 };

struct entry {
    struct tool row; /* name and schema are owned */
    struct luabox *box;
};

struct toollua {
    struct entry at[TOOLLUA_MAX];
    unsigned n;
};

/* quote(text): one word for the shell, whatever the text holds. */
static int quote(void *arg, const json_t *args, json_t **result, struct err *err)
{
    struct buf b;
    struct str s = json_view(json_array_get(args, 0));
    (void)arg;
    if (!json_is_string(json_array_get(args, 0)))
        return err_set(err, ERR_PARSE, "quote() takes a string");
    buf_init(&b, 0);
    buf_putc(&b, '\'');
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '\'')
            buf_puts(&b, "'\\''");
        else
            buf_putc(&b, s.p[i]);
    buf_putc(&b, '\'');
    *result = json_text(buf_view(&b));
    buf_done(&b);
    return *result ? 0 : err_nomem(err);
}

static const struct luabox_function quote_function = {"quote", quote, NULL};

static bool good_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || s.p[i] == '_' ||
              (i && s.p[i] >= '0' && s.p[i] <= '9')))
            return false;
    return s.n > 0 && s.n <= NAME_CHARS;
}

/* Lua has one kind of empty table; in a schema these are objects. */
static void fix_empty(json_t *o)
{
    static const char *const objects[] = {"properties"};
    for (unsigned i = 0; i < ARRAY_LEN(objects); i++) {
        json_t *v = json_object_get(o, objects[i]);
        if (json_is_array(v) && json_array_size(v) == 0)
            json_object_set_new(o, objects[i], json_object());
    }
}

/* A type that JSON does not have would fit no argument, ever. */
static int check_types(json_t *params, struct err *err)
{
    static const char *const kinds[] = {"object", "array", "string", "integer",
                                        "number", "boolean", "null"};
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(params, "properties"), key, value)
    {
        const char *type = json_string_value(json_object_get(value, "type"));
        bool known = !type;
        for (unsigned i = 0; type && i < ARRAY_LEN(kinds); i++)
            known |= strcmp(type, kinds[i]) == 0;
        if (!json_is_object(value) || !known)
            return err_set(err, ERR_PARSE, "tool.parameters.properties.%.60s: type must be one of "
                           "object, array, string, integer, number, boolean, null", key);
    }
    return 0;
}

static int write_schema(struct entry *e, json_t *def, struct err *err)
{
    struct str name = {0}, text = {0};
    json_t *params = NULL;
    int rc = json_need_str(def, "name", &name, err);
    if (rc == 0)
        rc = json_need_str(def, "description", &text, err);
    if (rc == 0)
        rc = json_opt_obj(def, "parameters", &params, err);
    if (rc < 0)
        return err_prefix(err, "tool");
    if (!good_name(name))
        return err_set(err, ERR_PARSE, "tool.name must be 1 to %d of a-z, 0-9 and _", NAME_CHARS);
    if (text.n == 0 || text.n > TEXT_CHARS)
        return err_set(err, ERR_PARSE, "tool.description must have 1 to %d bytes", TEXT_CHARS);
    if (!params || !str_is(json_view(json_object_get(params, "type")), "object"))
        return err_set(err, ERR_PARSE, "tool.parameters must be a table with type = \"object\"");
    fix_empty(params);
    if (check_types(params, err) < 0)
        return -err->code;
    json_t *quoted = json_text(text);
    char *p = json_dumps(params, JSON_SORT_KEYS);
    char *d = quoted ? json_dumps(quoted, JSON_ENCODE_ANY) : NULL;
    struct buf b;
    buf_init(&b, 0);
    if (p && d)
        buf_printf(&b, "{\"name\": \"%.*s\", \"description\": %s, \"parameters\": %s}",
                   STR_ARG(name), d, p);
    e->row.name = mem_strdup(name);
    e->row.schema = p && d ? buf_take(&b) : NULL;
    e->row.summary = e->row.schema ? "Declared in a Lua file." : NULL;
    free(p);
    free(d);
    json_decref(quoted);
    buf_done(&b);
    return e->row.name && e->row.schema ? 0 : err_nomem(err);
}

static int load_file(struct toollua *l, const char *path, struct err *err)
{
    struct buf text;
    json_t *def = NULL;
    struct entry *e = &l->at[l->n++];
    buf_init(&text, FILE_BYTES);
    int rc = io_read_file(path, &text, err);
    if (rc == 0)
        rc = luabox_new(&e->box, NULL, err);
    if (rc == 0)
        rc = luabox_add(e->box, &quote_function, err);
    if (rc == 0)
        rc = luabox_load(e->box, path, buf_view(&text), err);
    if (rc == 0 && luabox_get(e->box, "tool", &def, err) < 0)
        rc = err_set(err, ERR_PARSE, "the file defines no table `tool`");
    if (rc == 0)
        rc = write_schema(e, def, err);
    if (rc == 0 && luabox_has(e->box, "command") == luabox_has(e->box, "run"))
        rc = err_set(err, ERR_PARSE, "the file must define either run(args) or command(args)");
    if (rc == 0) {
        struct str name = str_c(e->row.name);
        e->row.place = luabox_has(e->box, "run") ? TOOL_IN_DAEMON : TOOL_IN_CELL;
        l->n--; /* not to be found as its own twin */
        bool taken = tool_find(name) || toollua_find(l, name);
        l->n++;
        if (taken)
            rc = err_set(err, ERR_STATE, "there is a tool named '%s' already", e->row.name);
    }
    json_decref(def);
    buf_done(&text);
    return rc < 0 ? err_prefix(err, "Lua tool '%s'", path) : 0;
}

static int is_lua(const struct dirent *e)
{
    return e->d_name[0] != '.' && str_ends(str_c(e->d_name), STR(".lua"));
}

int toollua_open(struct toollua **out, const char *dir, struct err *err)
{
    struct dirent **names = NULL;
    int n = scandir(dir, &names, is_lua, alphasort);
    if (n < 0)
        return err_sys(err, "folder of Lua tools '%s'", dir);
    struct toollua *l = mem_zalloc(sizeof *l);
    int rc = l ? 0 : err_nomem(err);
    if (rc == 0 && n > TOOLLUA_MAX)
        rc = err_set(err, ERR_LIMIT, "'%s' holds %d Lua tools, more than %d", dir, n, TOOLLUA_MAX);
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        if (rc == 0 && snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name) >=
                           (int)sizeof path)
            rc = err_set(err, ERR_LIMIT, "the path of '%.100s' is too long", names[i]->d_name);
        if (rc == 0)
            rc = load_file(l, path, err);
        free(names[i]);
    }
    free(names);
    if (rc < 0) {
        toollua_free(l);
        return rc;
    }
    *out = l;
    return 0;
}

void toollua_free(struct toollua *l)
{
    for (unsigned i = 0; l && i < l->n; i++) {
        luabox_free(l->at[i].box);
        mem_free((void *)(uintptr_t)l->at[i].row.name);
        mem_free((void *)(uintptr_t)l->at[i].row.schema);
    }
    mem_free(l);
}

unsigned toollua_count(const struct toollua *l)
{
    return l ? l->n : 0;
}

const struct tool *toollua_at(const struct toollua *l, unsigned i)
{
    return i < toollua_count(l) ? &l->at[i].row : NULL;
}

const struct tool *toollua_find(const struct toollua *l, struct str name)
{
    for (unsigned i = 0; i < toollua_count(l); i++)
        if (str_is(name, l->at[i].row.name))
            return &l->at[i].row;
    return NULL;
}

static int call(struct toollua *l, const struct tool *t, const char *function,
                const json_t *args, json_t **results, struct err *err)
{
    for (unsigned i = 0; i < l->n; i++)
        if (&l->at[i].row == t) {
            json_t *list = json_pack("[O]", args);
            int rc = list ? luabox_call(l->at[i].box, function, list, results, err)
                          : err_nomem(err);
            json_decref(list);
            return rc;
        }
    return err_set(err, ERR_NOTFOUND, "%s is no Lua tool", t->name);
}

int toollua_run(struct toollua *l, const struct tool *t, const json_t *args, struct buf *out,
                struct err *err)
{
    json_t *results = NULL;
    int rc = call(l, t, "run", args, &results, err);
    const json_t *v = json_array_get(results, 0);
    if (rc == 0 && json_is_string(v))
        buf_str(out, json_view(v));
    else if (rc == 0 && v && !json_is_null(v))
        rc = json_write(v, out, err);
    json_decref(results);
    return rc;
}

int toollua_command(struct toollua *l, const struct tool *t, const json_t *args,
                    struct buf *out, struct err *err)
{
    json_t *results = NULL;
    int rc = call(l, t, "command", args, &results, err);
    const json_t *v = json_array_get(results, 0);
    if (rc == 0 && json_is_string(v))
        buf_str(out, json_view(v));
    else if (rc == 0)
        rc = err_set(err, ERR_PARSE, "command(args) of %s returned no string", t->name);
    json_decref(results);
    return rc;
}
