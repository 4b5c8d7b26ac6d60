/* index_walk.h - the files of a folder that an index takes in, and their text. */
#ifndef TOOLS_INDEX_WALK_H
#define TOOLS_INDEX_WALK_H

#include "tools/page.h"

struct walk_file {
    char *path; /* owned; below the folder */
    int64_t mtime_ns;
    uint64_t size;
};
struct walk_list {
    struct walk_file *file; /* owned; sorted by path */
    uint32_t n, cap;
    uint64_t bytes;
};
/*
 * Regular files below `folder`, at most LIMIT_INDEX_DOCS; hidden names are left out, links
 * are not followed.
 */
NODISCARD int walk_list_make(struct walk_list *l, const char *folder, struct err *err);
void walk_list_done(struct walk_list *l);

/*
 * A file as a page without header lines. -ERR_UNSUPPORTED for what is not text, -ERR_LIMIT
 * for what is too large; the caller counts these as skipped.
 */
NODISCARD int walk_read(const char *folder, const char *path, struct str url, struct page **out,
                        struct err *err);

#endif
