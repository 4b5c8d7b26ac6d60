/*
 * provider.h - search engines on the network, described by data: SearXNG by its address
 * alone, any other JSON endpoint by where its answer keeps what.
 *
 *   [{"type": "searxng", "url": "http://host:8888", "private": true},
 *    {"type": "json", "url": "https://api.example/search?q={query}&count={count}",
 *     "headers": {"Accept": "application/json"}, "body": "{\"q\": {query_json}}",
 *     "results": "web.results", "title": "title", "link": "url",
 *     "snippet": "description", "date": "age"}]
 *
 * {"type": "lua", ...} is a pair of functions of whoever leads the calls (agentd/searchlua.h),
 * asked with {"ask": "lua", "provider": its place in the list, "function", "args"}.
 *
 * {query} is percent-encoded, {query_json} a JSON string, {count} and {source} plain.
 */
#ifndef TOOLS_PROVIDER_H
#define TOOLS_PROVIDER_H

#include "tools/browse.h"
#include "tools/http.h"

/* How a request is carried out (the network, or a cassette). */
typedef int (*provider_fetch)(void *arg, struct http_request *q, struct http_reply *out,
                              struct err *err);
/* How a provider's function is called: takes args; *value is new. */
typedef int (*provider_function)(void *arg, size_t provider, const char *function, json_t *args,
                                 json_t **value, struct err *err);
struct provider_means {
    provider_fetch fetch;
    provider_function function;
    void *arg;
};
/*
 * Asks the providers of the JSON text in turn until one answers; at most n hits. The error
 * is the last one's, with its name.
 */
NODISCARD int provider_search(struct str providers, struct str query, unsigned n,
                              struct str source, const struct provider_means *means,
                              void (*hit)(void *arg, const struct browse_hit *h), void *arg,
                              struct err *err);

#endif
