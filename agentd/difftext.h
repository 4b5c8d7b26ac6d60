/* difftext.h - two texts as a unified diff, for people. */
#ifndef AGENTD_DIFFTEXT_H
#define AGENTD_DIFFTEXT_H

#include "base/buf.h"

enum { DIFFTEXT_LINES = 4000, DIFFTEXT_EDITS = 600, DIFFTEXT_BYTES = 256 << 10 };

/* Whether both can be shown so: text without NUL, within the limits. */
bool difftext_fits(struct str old, struct str new);
/*
 * Hunks with three lines of context, lines as they are, "\ No newline at end of file" where
 * that is so. The least edit script (Myers) up to DIFFTEXT_EDITS, else everything old goes and
 * everything new comes.
 */
void difftext(struct str old, struct str new, struct buf *out);

#endif
