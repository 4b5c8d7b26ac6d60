/*
 * robots.h - robots.txt as RFC 9309 reads it: the group of our name, else of "*"; the
 * longest matching rule decides, allow before disallow; "*" and "$" in paths.
 */
#ifndef TOOLS_ROBOTS_H
#define TOOLS_ROBOTS_H

#include <stdbool.h>

#include "base/str.h"

enum { ROBOTS_BYTES = 500 << 10 }; /* what has to be read of a file, RFC 9309 2.5 */

/* Whether `agent` may fetch `path` (with its query) under these rules. */
bool robots_allow(struct str rules, struct str agent, struct str path);

#endif
