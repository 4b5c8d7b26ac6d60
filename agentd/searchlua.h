/*
 * searchlua.h - search providers that are Lua functions, by the side of those described as
 * data. They run in the daemon's limited Lua state; what they ask to be fetched is fetched in
 * the web cell, under the policy's network rules.
 *
 *   function request(query, count, source)   -> {url = "...", headers = {...}, body = "..."}
 *                                               or a list of results at once
 *   function results(answer, query, count)   -> list of {title =, url =, snippet =, date =}
 *
 * `answer` is the fetched JSON as a table, or the text when it is no JSON.
 */
#ifndef AGENTD_SEARCHLUA_H
#define AGENTD_SEARCHLUA_H

#include "base/json.h"

struct searchlua;

/* Loads the files that the YAML of providers names; *out is NULL when there are none. */
NODISCARD int searchlua_open(struct searchlua **out, const char *yaml, struct err *err);
void searchlua_free(struct searchlua *s);
/* Calls a function of provider number i (its place in the list); *value is what it gave. */
NODISCARD int searchlua_call(struct searchlua *s, int64_t i, struct str function,
                             const json_t *args, json_t **value, struct err *err);

#endif
