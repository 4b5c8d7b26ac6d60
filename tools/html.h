/*
 * html.h - bytes from outside to readable text: charsets, HTML, plain text, Markdown.
 *
 * HTML is parsed by libxml2 (never its network or huge modes), navigation, scripts and
 * footers are left out, headings, lists, tables and preformatted text are kept, links are
 * numbered 【3†text†host】. Hostile input is bounded: bytes before, nodes, depth and output
 * after parsing.
 */
#ifndef TOOLS_HTML_H
#define TOOLS_HTML_H

#include "tools/page.h"

/*
 * A page from a document. `type` is its media type ("text/html; charset=..."), or empty:
 * then it is guessed from the content and the end of the URL. `header` puts the two lines
 * that every opened page begins with (empty, "URL: ..."). With source the text is shown as
 * it is. -ERR_UNSUPPORTED for data that is not text.
 */
NODISCARD int html_page(struct page **out, struct str url, struct str type, struct str data,
                        bool source, bool header, struct err *err);
/* The same without a page: title and text, for the index. Links are not numbered. */
NODISCARD int html_text(struct str url, struct str type, struct str data, struct buf *title,
                        struct buf *text, struct err *err);

/*
 * Bytes of any charset to UTF-8. Order: `charset` (of the HTTP header, may be empty), byte
 * order mark, <meta> in the first 1024 bytes (when html), UTF-8 if valid, windows-1252.
 * What cannot be converted becomes U+FFFD.
 */
NODISCARD int charset_decode(struct str data, struct str charset, bool html, struct buf *out,
                             struct err *err);

#endif
