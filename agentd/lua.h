/*
 * lua.h - Lua with limits: a state that has only string, table, math, utf8 and the harmless
 * base functions, a cap on memory and on steps, and JSON values in and out. Whatever a script
 * does, a call comes back.
 */
#ifndef AGENTD_LUA_H
#define AGENTD_LUA_H

#include "base/json.h"

struct luabox;

struct luabox_limits {
    size_t memory;  /* bytes of the whole state; 0 = 16 MiB */
    uint64_t steps; /* virtual machine instructions of one load or call; 0 = 10 million */
};

/* Functions of ours that scripts may call: one JSON array of arguments in, one value out. */
struct luabox_function {
    const char *name;
    int (*call)(void *arg, const json_t *args, json_t **result, struct err *err);
    void *arg;
};

NODISCARD int luabox_new(struct luabox **out, const struct luabox_limits *limits,
                         struct err *err);
void luabox_free(struct luabox *b);
/* The struct is borrowed until luabox_free(). */
NODISCARD int luabox_add(struct luabox *b, const struct luabox_function *f, struct err *err);
/* Runs a chunk (text, never precompiled); name appears in errors as "name:line:". */
NODISCARD int luabox_load(struct luabox *b, const char *name, struct str text, struct err *err);
/* Whether a global function of this name exists. */
bool luabox_has(struct luabox *b, const char *function);
/*
 * Calls a global function with the elements of an array as arguments. *results is a new array
 * of what it returned. -ERR_LIMIT when a cap was hit, -ERR_PARSE when the script failed.
 */
NODISCARD int luabox_call(struct luabox *b, const char *function, const json_t *args,
                          json_t **results, struct err *err);
/* The value of a global, as JSON (functions become null); -ERR_NOTFOUND when nil. */
NODISCARD int luabox_get(struct luabox *b, const char *global, json_t **out, struct err *err);

#endif
