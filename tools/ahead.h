/*
 * ahead.h - fetches for calls that wait behind the one at work: each in a process of its own,
 * so that several pages come at the time of the slowest. The calls themselves are carried out
 * one after the other as ever: cursors and texts are the same with and without.
 *
 * A child does what its call would do, robots.txt and redirects included, and sends back every
 * answer of the network; the call then takes these instead of asking again. What is not there
 * is fetched as usual. Inside a cell the children die with the last call at the latest.
 */
#ifndef TOOLS_AHEAD_H
#define TOOLS_AHEAD_H

#include "tools/http.h"
#include "tools/toolbox.h"

enum { AHEAD_MAX = 15 };

struct ahead;

/* list: [{"tool", "args"}, ...]. A child that cannot be made is none. */
void ahead_start(struct toolbox *t, const json_t *list, const struct tool_limits *limits);
/* The call of these arguments begins: its child's answers count from now on; and it ends. */
void ahead_enter(struct toolbox *t, const char *tool, const json_t *args);
void ahead_leave(struct toolbox *t);
void ahead_free(struct ahead *a); /* ends every child; takes NULL */

/* In a child: sends an answer, or how it failed. */
void ahead_record(const struct toolbox *t, struct str key, const struct http_reply *r, int rc,
                  const struct err *err);
/*
 * In the call: whether an answer for this request was fetched, waiting for it while its child
 * is at work. *rc is then what the fetch returned; -ERR_CANCELLED when cancel_fd spoke.
 */
bool ahead_take(struct toolbox *t, struct str key, int cancel_fd, struct http_reply *r, int *rc,
                struct err *err);

#endif
