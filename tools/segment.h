/*
 * segment.h - words of scripts that are written without blanks between them.
 *
 * FTS5's unicode61 takes a run of letters for one word, which for Chinese, Japanese, Korean
 * and Thai is a whole sentence. Here every such character becomes a word of its own, in
 * documents and in queries alike; a phrase of them then finds exactly their sequence.
 */
#ifndef TOOLS_SEGMENT_H
#define TOOLS_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* Whether a code point belongs to a script that is cut into single characters. */
bool segment_is_single(uint32_t cp);
/* Appends the text with blanks around each such character. */
void segment_text(struct str s, struct buf *out);
/* Whether such a character starts at s[at]. */
bool segment_at(struct str s, size_t at);

#endif
