/* browse.h - opened pages and their cursors; search, open and find work on them. */
#ifndef TOOLS_BROWSE_H
#define TOOLS_BROWSE_H

#include "tools/index.h"
#include "tools/toolbox_impl.h"

/* A search result on its way into a results page. */
struct browse_hit {
    struct str title, url, snippet, date; /* date may be empty */
};

struct web;

struct browser {
    struct page **doc; /* owned */
    uint32_t n_docs, cap_docs;
    uint32_t cursor[LIMIT_PAGES]; /* document shown under each cursor */
    uint32_t n_cursors;
    struct index *index; /* owned; NULL = not opened */
    char *index_path;    /* owned: what `index` was opened from */
    struct web *web;     /* owned; NULL = nothing fetched yet */
};

NODISCARD int browser_get(struct toolbox *t, struct browser **out, struct err *err);
/* Takes the page; its number. */
NODISCARD int browser_add(struct browser *b, struct page *p, uint32_t *doc, struct err *err);
/* Opens the index that the toolbox names; *out is NULL when it names none. */
NODISCARD int browser_index(struct toolbox *t, struct browser *b, struct index **out,
                            struct err *err);

#endif
