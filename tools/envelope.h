/*
 * envelope.h - the text of a tool result as the model sees it, in one place.
 *
 *   payload, ending with a newline unless empty
 *   [status]                   one line in brackets, where there is something to say
 *
 * Long output keeps its head and its tail with a line between them that says how much is
 * missing; nothing is cut without a word on how to get the rest. Pure functions: the same
 * input gives the same bytes in the cell, in the daemon and in training data.
 */
#ifndef TOOLS_ENVELOPE_H
#define TOOLS_ENVELOPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* How a call ended; the names are those of the JSON result. */
enum tool_status {
    TOOL_OK,
    TOOL_FAILED,      /* the tool ran and reports a failure (exit code, exception) */
    TOOL_INVALID,     /* arguments do not fit the schema; nothing ran */
    TOOL_DENIED,      /* policy said no; nothing ran */
    TOOL_TIMED_OUT,   /* ended by its hard limit */
    TOOL_CANCELLED,   /* ended on request */
    TOOL_KILLED,      /* ended by a limit of the cell */
    TOOL_RUNNING,     /* goes on as a job */
    TOOL_UNKNOWN,     /* may or may not have run; never repeated by itself */
    TOOL_UNAVAILABLE, /* this host or this daemon cannot do it */
};
const char *tool_status_name(enum tool_status s);

/*
 * Output being kept: the first `head` bytes, a ring of the last `tail` bytes, and a count
 * of all. Memory is head + tail however long the output is.
 */
struct keep {
    uint8_t *head, *ring; /* owned */
    uint32_t head_max, ring_max, head_len;
    uint64_t total; /* bytes fed */
};
NODISCARD int keep_init(struct keep *k, uint32_t head, uint32_t tail, struct err *err);
void keep_done(struct keep *k);
void keep_reset(struct keep *k);
void keep_feed(struct keep *k, const void *p, size_t n);
/*
 * Appends what was kept as clean UTF-8: invalid bytes become U+FFFD, control characters other
 * than tab and newline their pictures (U+241B for escape; U+FFFD for those above U+007F), and
 * a carriage return before a newline goes. *cut is the number of bytes left
 * out (0 when everything is there). The gap is a line of its own: "... N bytes left out ...".
 */
void keep_text(const struct keep *k, struct buf *out, uint64_t *cut);

/* The same cleaning for text at hand. */
void envelope_clean(struct buf *out, struct str s);
/* Ends the payload with a newline if it has one character or more and does not already. */
void envelope_newline(struct buf *out);
/* A status line: "[" text "]", on a line of its own, without a newline at the end. */
void envelope_status(struct buf *out, const char *fmt, ...) PRINTF(2, 3);
/* "[truncated: kept H+T of N bytes; ...]", naming spill:ID when spill >= 0. */
void envelope_truncated(struct buf *out, const struct keep *k, int64_t spill);

#endif
