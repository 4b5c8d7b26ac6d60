/*
 * lua.c - the limited state. Memory is counted by the allocator, steps by a hook that raises
 * an error; both are caught by the protected call around everything. Conversions to and from
 * JSON are bounded in depth, since the printer of JSON is not.
 */
#include "agentd/lua.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <string.h>
#include <time.h>

#include "agentd/luapattern.h"
#include "base/mem.h"

enum { DEPTH = 32, FUNCTIONS = 32, STRIDE = 100, CPU_S = 2 };

struct luabox {
    lua_State *l;
    size_t used, cap;
    uint64_t steps, left;
    int64_t cpu_end; /* thread time: one step may be a library call over megabytes */
    bool out_of_steps, out_of_memory;
    const struct luabox_function *function[FUNCTIONS];
    unsigned n_functions;
};

static void *alloc(void *arg, void *p, size_t old, size_t size)
{
    struct luabox *b = arg;
    size_t had = p ? old : 0; /* for a new block `old` is its type */
    if (size == 0) {
        b->used -= had;
        mem_free(p);
        return NULL;
    }
    if (b->used - had + size > b->cap) {
        b->out_of_memory = true;
        return NULL;
    }
    void *q = mem_resize(p, size, 1);
    if (q)
        b->used += size - had;
    return q;
}

static struct luabox *box_of(lua_State *l)
{
    void *b = NULL;
    lua_getallocf(l, &b);
    return b;
}

static int64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void on_steps(lua_State *l, lua_Debug *d)
{
    (void)d;
    struct luabox *b = box_of(l);
    if (b->left > STRIDE && cpu_ns() < b->cpu_end) {
        b->left -= STRIDE;
        return;
    }
    b->out_of_steps = true;
    b->left = 0;
    /* From here every single instruction fails, also the first one after a pcall. */
    lua_sethook(l, on_steps, LUA_MASKCOUNT, 1);
    luaL_error(l, "too many steps");
}

/* ---- library functions that no step is counted in ---- */

/* string.find and its kind: a search that could take seconds is refused before it starts. */
static int match_checked(lua_State *l)
{
    enum { COST_MAX = 200000000 };
    struct str text, pattern;
    text.p = luaL_checklstring(l, 1, &text.n);
    pattern.p = luaL_checklstring(l, 2, &pattern.n);
    bool plain = lua_toboolean(l, lua_upvalueindex(2)) && lua_toboolean(l, 4);
    if (!plain && luapattern_cost(text, pattern) > COST_MAX)
        return luaL_error(l, "this pattern could take too long on a text of %d bytes; anchor it "
                          "with ^, use fewer repeats, or shorten the text", (int)text.n);
    lua_pushvalue(l, lua_upvalueindex(1));
    lua_insert(l, 1);
    lua_call(l, lua_gettop(l) - 1, LUA_MULTRET);
    return lua_gettop(l);
}

/* Finalizers run without the hook that counts steps: there are none. */
static int set_metatable(lua_State *l)
{
    if (lua_istable(l, 2)) {
        lua_pushliteral(l, "__gc");
        if (lua_rawget(l, 2) != LUA_TNIL)
            return luaL_error(l, "a metatable may have no __gc here");
        lua_pop(l, 1);
    }
    lua_pushvalue(l, lua_upvalueindex(1));
    lua_insert(l, 1);
    lua_call(l, lua_gettop(l) - 1, 1);
    return 1;
}

static const char *const matchers[] = {"find", "match", "gmatch", "gsub"};

/* ---- values ---- */

static void push(lua_State *l, const json_t *v, int depth)
{
    const char *key;
    json_t *item;
    size_t i;
    luaL_checkstack(l, 4, "value too deep");
    if (depth > DEPTH)
        luaL_error(l, "value too deep");
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_OBJECT:
        lua_newtable(l);
        json_object_foreach((json_t *)(uintptr_t)v, key, item) {
            push(l, item, depth + 1);
            lua_setfield(l, -2, key);
        }
        break;
    case JSON_ARRAY:
        lua_newtable(l);
        json_array_foreach(v, i, item) {
            push(l, item, depth + 1);
            lua_rawseti(l, -2, (lua_Integer)i + 1);
        }
        break;
    case JSON_STRING:
        lua_pushlstring(l, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        lua_pushinteger(l, json_integer_value(v));
        break;
    case JSON_REAL:
        lua_pushnumber(l, json_real_value(v));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        lua_pushboolean(l, json_is_true(v));
        break;
    default:
        lua_pushnil(l);
    }
}

static json_t *take(lua_State *l, int at, int depth);

/* A table with a first element is a list, any other is an object of its text keys. */
static json_t *take_table(lua_State *l, int at, int depth)
{
    lua_Integer n = (lua_Integer)lua_rawlen(l, at);
    json_t *out = n > 0 ? json_array() : json_object();
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(l, at, i);
        json_array_append_new(out, take(l, lua_gettop(l), depth + 1));
        lua_pop(l, 1);
    }
    if (n > 0)
        return out;
    for (lua_pushnil(l); lua_next(l, at); lua_pop(l, 1)) {
        if (lua_type(l, -2) != LUA_TSTRING)
            continue;
        const char *key = lua_tostring(l, -2);
        if (utf8_valid(str_c(key)))
            json_object_set_new(out, key, take(l, lua_gettop(l), depth + 1));
    }
    return out;
}

static json_t *take(lua_State *l, int at, int depth)
{
    size_t n;
    const char *s;
    json_t *v;
    if (depth > DEPTH || !lua_checkstack(l, 6))
        return json_null();
    switch (lua_type(l, at)) {
    case LUA_TBOOLEAN:
        return json_boolean(lua_toboolean(l, at));
    case LUA_TNUMBER:
        if (lua_isinteger(l, at))
            return json_integer(lua_tointeger(l, at));
        v = json_real(lua_tonumber(l, at)); /* NULL for what JSON cannot say */
        return v ? v : json_null();
    case LUA_TSTRING:
        s = lua_tolstring(l, at, &n);
        return json_text(str_of(s, n));
    case LUA_TTABLE:
        return take_table(l, at, depth);
    default:
        return json_null();
    }
}

/* ---- protected work ---- */

static int fail(struct luabox *b, struct err *err, const char *what)
{
    const char *text = lua_type(b->l, -1) == LUA_TSTRING ? lua_tostring(b->l, -1) : "error";
    int rc;
    if (b->out_of_steps)
        rc = err_set(err, ERR_LIMIT, "%s: more than %llu steps, or %d s", what,
                     (unsigned long long)b->steps, CPU_S);
    else if (b->out_of_memory)
        rc = err_set(err, ERR_LIMIT, "%s: more than %zu bytes of memory", what, b->cap);
    else
        rc = err_set(err, ERR_PARSE, "%s: %.300s", what, text);
    lua_settop(b->l, 0);
    return rc;
}

static void arm(struct luabox *b)
{
    b->left = b->steps;
    b->cpu_end = cpu_ns() + CPU_S * 1000000000LL;
    b->out_of_steps = b->out_of_memory = false;
    lua_sethook(b->l, on_steps, LUA_MASKCOUNT, STRIDE);
}

/* load, loadfile, dofile and the rest would reach files or bytecode. */
static int open_libs(lua_State *l)
{
    static const luaL_Reg libs[] = {{"_G", luaopen_base}, {"string", luaopen_string},
                                    {"table", luaopen_table}, {"math", luaopen_math},
                                    {"utf8", luaopen_utf8}};
    static const char *const gone[] = {"load", "loadfile", "dofile", "loadstring", "print",
                                       "collectgarbage", "warn", "require"};
    for (unsigned i = 0; i < ARRAY_LEN(libs); i++) {
        luaL_requiref(l, libs[i].name, libs[i].func, 1);
        lua_pop(l, 1);
    }
    for (unsigned i = 0; i < ARRAY_LEN(gone); i++) {
        lua_pushnil(l);
        lua_setglobal(l, gone[i]);
    }
    lua_getglobal(l, "string");
    lua_pushnil(l);
    lua_setfield(l, -2, "dump");
    for (unsigned i = 0; i < ARRAY_LEN(matchers); i++) {
        lua_getfield(l, -1, matchers[i]);
        lua_pushboolean(l, strcmp(matchers[i], "find") == 0);
        lua_pushcclosure(l, match_checked, 2);
        lua_setfield(l, -2, matchers[i]);
    }
    lua_getglobal(l, "setmetatable");
    lua_pushcclosure(l, set_metatable, 1);
    lua_setglobal(l, "setmetatable");
    return 0;
}

int luabox_new(struct luabox **out, const struct luabox_limits *limits, struct err *err)
{
    struct luabox *b = mem_zalloc(sizeof *b);
    if (!b)
        return err_nomem(err);
    b->cap = limits && limits->memory ? limits->memory : 16u << 20;
    b->steps = limits && limits->steps ? limits->steps : 10000000;
    b->l = lua_newstate(alloc, b);
    if (!b->l) {
        mem_free(b);
        return err_nomem(err);
    }
    lua_pushcfunction(b->l, open_libs);
    if (lua_pcall(b->l, 0, 0, 0) != LUA_OK) {
        luabox_free(b);
        return err_nomem(err);
    }
    *out = b;
    return 0;
}

void luabox_free(struct luabox *b)
{
    if (!b)
        return;
    lua_sethook(b->l, NULL, 0, 0);
    lua_close(b->l);
    mem_free(b);
}

static int bridge(lua_State *l)
{
    const struct luabox_function *f = lua_touserdata(l, lua_upvalueindex(1));
    struct err err = {0};
    json_t *args = json_array(), *result = NULL;
    int n = lua_gettop(l);
    for (int i = 1; i <= n; i++)
        json_array_append_new(args, take(l, i, 0));
    int rc = f->call(f->arg, args, &result, &err);
    json_decref(args);
    if (rc < 0) {
        json_decref(result);
        return luaL_error(l, "%s: %s", f->name, err.text);
    }
    push(l, result, 0);
    json_decref(result);
    return 1;
}

int luabox_add(struct luabox *b, const struct luabox_function *f, struct err *err)
{
    if (b->n_functions == FUNCTIONS)
        return err_set(err, ERR_LIMIT, "more than %d functions", FUNCTIONS);
    b->function[b->n_functions++] = f;
    lua_pushlightuserdata(b->l, (void *)(uintptr_t)f);
    lua_pushcclosure(b->l, bridge, 1);
    lua_setglobal(b->l, f->name);
    return 0;
}

int luabox_load(struct luabox *b, const char *name, struct str text, struct err *err)
{
    char chunk[256];
    size_t n = strlen(name) < sizeof chunk - 2 ? strlen(name) : sizeof chunk - 2;
    chunk[0] = '@'; /* the name is a file's */
    memcpy(chunk + 1, name, n);
    chunk[n + 1] = '\0';
    arm(b);
    if (luaL_loadbufferx(b->l, text.p, text.n, chunk, "t") != LUA_OK ||
        lua_pcall(b->l, 0, 0, 0) != LUA_OK)
        return fail(b, err, "script");
    lua_settop(b->l, 0);
    return 0;
}

bool luabox_has(struct luabox *b, const char *function)
{
    bool has = lua_getglobal(b->l, function) == LUA_TFUNCTION;
    lua_settop(b->l, 0);
    return has;
}

struct call {
    const char *function;
    const json_t *args;
};

/* Inside the protected call, so that building the arguments may fail too. */
static int do_call(lua_State *l)
{
    const struct call *c = lua_touserdata(l, 1);
    size_t n = json_array_size(c->args);
    lua_settop(l, 0);
    luaL_checkstack(l, (int)n + 8, "too many arguments");
    lua_getglobal(l, c->function);
    for (size_t i = 0; i < n; i++)
        push(l, json_array_get(c->args, i), 0);
    lua_call(l, (int)n, LUA_MULTRET);
    return lua_gettop(l);
}

int luabox_call(struct luabox *b, const char *function, const json_t *args, json_t **results,
                struct err *err)
{
    struct call c = {function, args};
    if (json_array_size(args) > 64)
        return err_set(err, ERR_LIMIT, "more than 64 arguments");
    arm(b);
    lua_pushcfunction(b->l, do_call);
    lua_pushlightuserdata(b->l, &c);
    if (lua_pcall(b->l, 1, LUA_MULTRET, 0) != LUA_OK)
        return fail(b, err, function);
    json_t *out = json_array();
    int n = lua_gettop(b->l);
    for (int i = 1; i <= n && i <= 16; i++)
        json_array_append_new(out, take(b->l, i, 0));
    lua_settop(b->l, 0);
    if (!out)
        return err_nomem(err);
    *results = out;
    return 0;
}

int luabox_get(struct luabox *b, const char *global, json_t **out, struct err *err)
{
    arm(b);
    if (lua_getglobal(b->l, global) == LUA_TNIL) {
        lua_settop(b->l, 0);
        return err_set(err, ERR_NOTFOUND, "the script defines no '%s'", global);
    }
    *out = take(b->l, lua_gettop(b->l), 0);
    lua_settop(b->l, 0);
    return *out ? 0 : err_nomem(err);
}
