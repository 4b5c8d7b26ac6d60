/*
 * index.h - the embedded search engine: SQLite's FTS5 over the text of local documents,
 * ranked by BM25. A database file holds titles and text, so that searching and reading need
 * nothing but that file; a folder can also be indexed in memory, for small collections.
 *
 * Documents are text, Markdown, HTML, and PDF through pdftotext where it is installed.
 * Names are relative to the folder they came from, under the folder's own name.
 */
#ifndef TOOLS_INDEX_H
#define TOOLS_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "tools/page.h"

struct index;

/*
 * Opens a database, or a folder: then its documents are read into memory (at most
 * LIMIT_INDEX_MEMORY_BYTES). With `write` a missing database is created.
 */
NODISCARD int index_open(struct index **out, const char *path, bool write, struct err *err);
void index_close(struct index *x);
/* A folder in memory is brought up to date with its files; a database is left alone. */
NODISCARD int index_refresh(struct index *x, const char *path, struct err *err);

struct index_stats {
    uint64_t added, updated, unchanged, removed, skipped; /* documents */
    uint64_t bytes; /* of text indexed */
    uint64_t total; /* documents in the index afterwards */
    bool stopped;   /* by `tick`: what was read is kept, what is missing was not removed */
};
/* False: stop here. */
typedef bool (*index_progress)(void *arg, uint64_t seen, uint64_t total, const char *path);
/*
 * Adds a folder or brings its documents up to date: changed files (time or size) are read
 * again, missing ones removed. On an error nothing is changed. `name` is the prefix of its
 * documents' names; NULL = the folder's last component; -ERR_STATE when another folder has
 * it. `shown` is recorded as the folder's path, NULL = the real one. `tick` is called before
 * each file, may be NULL.
 */
NODISCARD int index_add(struct index *x, const char *folder, const char *name,
                        const char *shown, index_progress tick, void *arg,
                        struct index_stats *stats, struct err *err);
NODISCARD int index_remove(struct index *x, const char *name, uint64_t *removed,
                           struct err *err);

struct index_hit {
    struct str url, title, snippet; /* valid during the callback */
    double score;
};
/* Best first, at most `n`. Words are and-ed, then or-ed; "quoted words" stay together. */
NODISCARD int index_search(struct index *x, struct str query, unsigned n,
                           void (*hit)(void *arg, const struct index_hit *h), void *arg,
                           struct err *err);
/* A document as a page, links numbered; -ERR_NOTFOUND when there is none of this name. */
NODISCARD int index_page(struct index *x, struct str url, struct page **out, struct err *err);
/* One row per added folder. */
NODISCARD int index_list(struct index *x,
                         void (*row)(void *arg, const char *name, const char *folder,
                                     uint64_t docs, uint64_t bytes),
                         void *arg, struct err *err);

#endif
