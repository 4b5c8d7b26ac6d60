/*
 * web.h - pages and search results from the network: redirects followed one by one, each
 * address checked, robots.txt heeded, sizes and times bounded; and cassettes, which record
 * what was fetched and replay it without a network.
 */
#ifndef TOOLS_WEB_H
#define TOOLS_WEB_H

#include "tools/browse.h"

struct web; /* what is remembered of sites */
void web_free(struct web *w);

/* Whether a search provider is set up. */
bool web_can_search(const struct toolbox *t);
NODISCARD int web_search(struct toolbox *t, const struct toolbox_request *r, struct str query,
                         unsigned n, void (*hit)(void *arg, const struct browse_hit *h),
                         void *arg, struct err *err);
NODISCARD int web_fetch(struct toolbox *t, struct str url, bool source, int cancel_fd,
                        struct page **out, struct err *err);

#endif
