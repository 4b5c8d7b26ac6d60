/*
 * page.h - a document as the model reads it: numbered lines of at most 80 characters, links
 * by number. A citation 【cursor†L3-L5】 names lines of a page, so the lines of a page never
 * change once it has been shown.
 *
 * Lines are cut after white space or between the letters of a hyphenated word, and white
 * space is kept where it stands: joined again, the lines of a paragraph are its text.
 */
#ifndef TOOLS_PAGE_H
#define TOOLS_PAGE_H

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum { PAGE_WIDTH = 80 };

/* Where a link leads: another document, or a line of an opened one (find results). */
struct page_link {
    char *url;     /* owned */
    int64_t page;  /* index of an opened document, or -1 */
    int64_t line;  /* first line to show there, or -1 */
};

struct page {
    char *title, *url; /* owned */
    struct buf text;   /* clean UTF-8; paragraphs separated by newlines */
    uint32_t *start;   /* owned: offset in text of each line; n_lines + 1 entries */
    uint32_t n_lines;
    struct page_link *link; /* owned */
    uint32_t n_links, cap_links;
};

NODISCARD int page_new(struct page **out, struct str title, struct str url, struct err *err);
void page_free(struct page *p);
/* The number of the link, or -1 without memory. */
int page_add_link(struct page *p, struct str url, int64_t page, int64_t line);
/* Cuts the text into lines; called once, when the text is complete. */
NODISCARD int page_wrap(struct page *p, struct err *err);
struct str page_line(const struct page *p, uint32_t line);
/* The line that holds this offset of the text. */
uint32_t page_line_of(const struct page *p, size_t offset);

/*
 * Appends what the model sees:
 *   [cursor] title (url)
 *   **viewing lines [a - b] of m**
 *   (empty)
 *   La: text ...
 */
void page_show(const struct page *p, int64_t cursor, uint32_t first, uint32_t count,
               struct buf *out);
/* "www.example.org" of a URL, "local" when it has no host. */
struct str page_domain(struct str url);

#endif
