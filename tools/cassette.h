/*
 * cassette.h - recorded answers of the network, one JSON object a line:
 *   {"key": "GET http://...", "status": 200, "type": "...", "redirect": "", "body": base64}
 * Replaying needs no network; a request that was not recorded is an error, so a run is the
 * same every time or fails.
 */
#ifndef TOOLS_CASSETTE_H
#define TOOLS_CASSETTE_H

#include "tools/http.h"

/* The recorded answer for a key; -ERR_NOTFOUND when there is none. */
NODISCARD int cassette_get(const char *path, struct str key, struct http_reply *out,
                           struct err *err);
NODISCARD int cassette_put(const char *path, struct str key, const struct http_reply *r,
                           struct err *err);

#endif
