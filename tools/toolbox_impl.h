/*
 * toolbox_impl.h - what the files behind toolbox.h share: the box itself and one function
 * per tool. Only tools/ includes it.
 */
#ifndef TOOLS_TOOLBOX_IMPL_H
#define TOOLS_TOOLBOX_IMPL_H

#include <poll.h>
#include <sys/types.h>

#include "base/limits.h"
#include "tools/editor.h"
#include "tools/toolbox.h"
#include "tools/wsfs.h"

struct shell;
struct interp;
struct browser;
struct ahead;

enum { SPILLS_MAX = 200 };

struct toolbox {
    struct toolbox_opts opts; /* its strings are owned */
    struct wsfs fs;
    struct views views;     /* editor: what the model saw of which file */
    struct shell *shell;    /* owned; NULL until first used */
    struct interp *interp;  /* owned; NULL until first used */
    struct browser *browser; /* owned; NULL until first used */
    int64_t spills;         /* id of the newest */
    int64_t oldest;         /* of those that are kept without a name */
    int kept[SPILLS_MAX];   /* spill i is at i % SPILLS_MAX; owned, -1 = none */
    struct ahead *ahead;    /* owned; fetches for calls that wait, or NULL */
    int ahead_out;          /* in such a fetch: where its answers go; else -1 */
    int apart;              /* what programs enter before they run, -1 outside a cell */
};

void tool_bash(struct toolbox *t, const struct toolbox_request *r, struct answer *a);
void tool_job(struct toolbox *t, const struct toolbox_request *r, struct answer *a);
void tool_python(struct toolbox *t, const struct toolbox_request *r, struct answer *a);
void tool_editor(struct toolbox *t, const struct toolbox_request *r, struct answer *a);
void tool_patch(struct toolbox *t, const struct toolbox_request *r, struct answer *a);
void tool_search(struct toolbox *t, const struct toolbox_request *r, struct answer *a);
void tool_open(struct toolbox *t, const struct toolbox_request *r, struct answer *a);
void tool_find_in_page(struct toolbox *t, const struct toolbox_request *r, struct answer *a);

void shell_free(struct shell *s);
void shell_service(struct shell *s); /* drains jobs; for whoever waits outside a call */
unsigned shell_fds(const struct shell *s, struct pollfd *p);  /* at most SHELL_FDS_MAX */
unsigned shell_pids(const struct shell *s, pid_t *pid);       /* of running jobs */
enum { SHELL_FDS_MAX = 2 * LIMIT_JOBS };
pid_t interp_pid(const struct interp *p);
unsigned shell_jobs(const struct shell *s);
void shell_notices(struct shell *s, struct buf *out);
void interp_free(struct interp *p);
void browser_free(struct browser *b);
/* Whether a call of search or open, {"tool", "args"}, would ask the network, as far as can be
 * said before it runs: for so many hits, or 1 for a page. And the asking alone. */
unsigned browser_would_fetch(struct toolbox *t, const json_t *call,
                             const struct tool_limits *limits);
void browser_fetch(struct toolbox *t, const char *tool, const json_t *args, unsigned n);
void browser_forget(struct browser *b); /* pages and cursors; the index stays open */

/* Outside a cell: ends what outlived a call, except jobs and the interpreter. */
void toolbox_kill_strays(struct toolbox *t);
/* A file for a full output; *id is its number. Descriptor, or -1 when it cannot be kept. */
int toolbox_spill(struct toolbox *t, int64_t *id);
/* The text of spill:ID. */
NODISCARD int toolbox_read_spill(struct toolbox *t, struct str ref, struct buf *out,
                                 struct err *err);

#endif
