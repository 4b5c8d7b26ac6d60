/*
 * snippet.h - queries as words and phrases, and the passage of a document that shows best
 * why it was found. Pure text; no database.
 */
#ifndef TOOLS_SNIPPET_H
#define TOOLS_SNIPPET_H

#include "base/buf.h"

enum { SNIPPET_TERMS = 24, SNIPPET_BYTES = 240 };

struct snippet_query {
    struct str term[SNIPPET_TERMS]; /* views into the query; a phrase holds blanks */
    unsigned n;
};
/* Words and "phrases"; words that say nothing are dropped unless they are all there is. */
void snippet_parse(struct snippet_query *q, struct str query);
/* FTS5 syntax: every term quoted, joined by `op`. */
void snippet_match(const struct snippet_query *q, const char *op, struct buf *out);
/* Body text without link marks: 【3†text†host】 becomes text. */
void snippet_plain(struct str body, struct buf *out);
/* One line of about SNIPPET_BYTES around the best passage, with "..." where it was cut. */
void snippet_make(const struct snippet_query *q, struct str body, struct buf *out);

#endif
