/*
 * lineedit.h - lines from a person: edited with history on a terminal, plain otherwise.
 * Client only; libedit's header appears in lineedit.c alone.
 */
#ifndef AGENTD_LINEEDIT_H
#define AGENTD_LINEEDIT_H

#include "base/err.h"

struct lineedit;

/* name: for the user's ~/.editrc; file: to keep lines in, or NULL. */
NODISCARD int lineedit_open(struct lineedit **out, const char *name, const char *file,
                            struct err *err);
/*
 * The next line without its newline; *line is borrowed until the next call and NULL at the
 * end of input. A backslash at the end of a line goes on with the next. Ctrl-C empties the
 * line and asks again.
 */
NODISCARD int lineedit_read(struct lineedit *l, const char *prompt, const char **line,
                            struct err *err);
void lineedit_close(struct lineedit *l);

#endif
