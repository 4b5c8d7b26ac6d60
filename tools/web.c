/* web.c - what is fetched from where; stands for the network in the tools. */
#include "tools/web.h"

bool web_can_search(const struct toolbox *t)
{
    return t->opts.providers != NULL;
}

int web_search(struct toolbox *t, struct str query, unsigned n, struct str source, int cancel_fd,
               void (*hit)(void *arg, const struct browse_hit *h), void *arg, struct err *err)
{
    (void)t, (void)query, (void)n, (void)source, (void)cancel_fd, (void)hit, (void)arg;
    return err_set(err, ERR_UNSUPPORTED, "no search provider can be reached from here");
}

int web_fetch(struct toolbox *t, struct str url, bool source, int cancel_fd, struct page **out,
              struct err *err)
{
    (void)t, (void)url, (void)source, (void)cancel_fd, (void)out;
    return err_set(err, ERR_UNSUPPORTED, "there is no such document, and no network here");
}
