/*
 * toolbox.h - the tools' side inside a cell: one toolbox per driver process, holding what
 * lives from call to call (shell state, interpreter, jobs, opened pages, views of files).
 *
 * toolbox_call() checks nothing about policy: who may call was decided outside. It never
 * fails: what goes wrong is the answer's text, for the model to act on.
 */
#ifndef TOOLS_TOOLBOX_H
#define TOOLS_TOOLBOX_H

#include "tools/envelope.h"
#include "tools/tool.h"

struct toolbox;

struct toolbox_opts {
    const char *workspace; /* absolute; the only place the editor touches */
    const char *spill_dir; /* where full outputs go; NULL = a temporary folder of our own */
    const char *index;     /* database of the local search index, or NULL */
    const char *providers; /* JSON text of search providers (from the caller's YAML), or NULL */
    const char *private_hosts; /* "address:port,..." that may be fetched though private */
    const char *cassette;  /* file of recorded fetches, or NULL */
    bool record;           /* append to the cassette; else replay only */
    bool web;              /* may fetch from the network */
    bool strays; /* no cell around us: end processes that outlive a call ourselves */
};

/* One call's answer; owned buffers. */
struct answer {
    struct buf text;
    enum tool_status status;
    int exit_code; /* -1 = none */
    uint64_t output_bytes, cut_bytes;
    int64_t spill; /* -1 = none */
    bool state_lost;
    json_t *undo;  /* owned; NULL = nothing was overwritten */
};
void answer_init(struct answer *a);
void answer_done(struct answer *a);
/* Ends the text as a failure of this kind: one sentence and "[error]" or the like. */
void answer_fail(struct answer *a, enum tool_status status, const char *fmt, ...) PRINTF(3, 4);

NODISCARD int toolbox_new(struct toolbox **out, const struct toolbox_opts *o, struct err *err);
void toolbox_free(struct toolbox *t); /* ends every process it started */
/* Forgets shell, interpreter, jobs, pages and views; another workspace may follow. */
NODISCARD int toolbox_reset(struct toolbox *t, const char *workspace, struct err *err);
NODISCARD int toolbox_set_index(struct toolbox *t, const char *index, struct err *err);

/* Output as it comes, for people who watch. */
typedef void (*toolbox_output)(void *arg, int stream, struct str piece);

/*
 * A question to whoever leads the calls, answered while the call waits: another tool for
 * Python code, a function of a search provider. Takes the question; *answer is new. -ERR_*
 * when the deadline (monotonic ns) passes or the call is cancelled.
 */
typedef int (*toolbox_ask)(void *arg, json_t *question, int64_t deadline, json_t **answer,
                           struct err *err);

/* Something to know, with no answer to wait for. Takes it. */
typedef void (*toolbox_tell)(void *arg, json_t *news);

struct toolbox_request {
    const char *tool;
    const json_t *args; /* already checked against the schema */
    const struct tool_limits *limits;
    uint32_t timeout_s; /* soft limit; 0 = limits->timeout_s */
    uint32_t hard_s;    /* the command is ended after this; 0 = the soft limit */
    bool jobs;          /* at the soft limit a command may go on as a job */
    uint32_t first_cursor; /* new pages get this number at least: those below were shown by an
                              earlier process of the same session */
    struct str content; /* of a spill that `open` is to show, kept by another process */
    const json_t *ahead; /* [{"tool", "args"}]: calls that follow, fetched for meanwhile; or NULL */
    toolbox_output on_output; /* may be NULL */
    toolbox_ask ask;          /* NULL = there is nobody to ask */
    toolbox_tell tell;        /* NULL = nor anybody to tell */
    void *arg;                /* of all three */
    int cancel_fd; /* readable = stop the call; -1 = none */
};
void toolbox_call(struct toolbox *t, const struct toolbox_request *r, struct answer *a);
/* Waits until fd is readable, draining jobs meanwhile. */
void toolbox_wait(struct toolbox *t, int fd);
/* Jobs still running. */
unsigned toolbox_jobs(const struct toolbox *t);
/* The kept interpreter's process; 0 without. */
pid_t toolbox_interp(const struct toolbox *t);
/* One line per job that ended since last asked; for the next result. */
void toolbox_notices(struct toolbox *t, struct buf *out);

#endif
