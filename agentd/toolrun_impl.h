/*
 * toolrun_impl.h - between toolrun.c (the queue), toolset.c (which tools), toolhere.c (in the
 * daemon), toolcell.c (in a cell) and toolnest.c (called by code). Only they include it.
 */
#ifndef AGENTD_TOOLRUN_IMPL_H
#define AGENTD_TOOLRUN_IMPL_H

#include "agentd/toolfinish.h"
#include "agentd/toolnotes.h"
#include "agentd/toolrun.h"
#include "base/mem.h"
#include "tools/toolbox.h"

struct searchlua;

enum call_state { QUEUED, STARTING, RUNNING, ENDING, HOOKED };

struct toolrun_call {
    struct toolrun_call *next;
    struct toolrun *t;
    enum call_state state;
    char *name;          /* owned, as the model wrote it */
    const struct tool *tool; /* NULL when there is no such tool */
    json_t *args;        /* owned; NULL when malformed */
    char misfit[512];    /* why args is NULL */
    bool approved, cancelled, streamed;
    bool again; /* its tool died before it had read the call, which was then sent to a new one */
    struct toolrun_cbs cbs;
    int64_t started_ns;
    struct answer answer;
    bool is_finish;
    /* `open` of a spill: first it is read in the work cell, then shown in the web cell. */
    enum { NO_SPILL, READ_SPILL, HAVE_SPILL } spill;
    struct buf content; /* the spill's text, once read */
    int64_t request;            /* number of its request to the driver */
    struct toolrun_call *outer; /* nested: the call whose code made it; NULL when that ended */
    int64_t question;           /* nested: number of the outer call's question */
    json_t *called; /* owned: what its code has called, see toolnest.c; NULL = nothing */
};

/* One of the two places where tools run. */
struct place {
    struct toolrun *t;
    struct tooldriver *driver; /* NULL until first needed */
    struct netproxy *proxy;    /* owned; of the cell in being, NULL without one */
    bool used;                 /* calls have left state in the cell in being */
    bool lost;                 /* ... in one that is gone: the next call of theirs is told */
    bool told;                 /* the audit knows of the cell in being */
    bool held;                 /* the driver stays at work for the call behind this one */
};

struct toolrun {
    struct toolrun_opts o; /* strings owned by `text` */
    struct arena text;
    const struct tool_profile *profile;
    struct place work, web;
    struct toollua *lua;    /* owned; NULL without Lua tools */
    struct hooks *hooks;    /* owned; NULL without hooks */
    struct searchlua *search_lua; /* owned; NULL without such providers */
    struct toolrun_call *queue, **tail;
    struct toolrun_call *nested; /* a call made by the code of the queue's head, or NULL */
    struct toolrun_call *ending; /* whose callback runs */
    struct ev_timer *kick, *guard;
    json_t *plan;
    int64_t taken_ns; /* see toolrun_layer() */
    struct toolfinish_shown shown;
    struct buf notices;
    unsigned jobs, finish_tries, undos;
    pid_t interp; /* inside: what it started is no job; 0 = none */
    int64_t next_request;
    bool closing;
};

/* The row of a tool that this session has, and the schema it shows; NULL without. */
const struct tool *toolrun_find(const struct toolrun *t, struct str name, const char **schema);
/* A call that is in no queue yet; NULL without memory. */
struct toolrun_call *toolrun_new_call(struct toolrun *t, const char *tool, struct str args,
                                      bool approved, const struct toolrun_cbs *cbs);
/* From arguments and policy on; ends in toolrun_done(), perhaps at once. */
void toolrun_run_call(struct toolrun_call *c);
/* The one end of every call. */
void toolrun_done(struct toolrun_call *c);
/* toolset.c: the arguments as the model wrote them, checked; a key twice counts as its last. */
NODISCARD int toolset_args(const char *tool, const char *schema, struct str args, json_t **out,
                           struct err *err);
/* toolhere.c: a call of the daemon's own; ends in toolrun_done(), or in a hook's hands. */
void toolhere_run(struct toolrun_call *c);
/* toolcell.c: into the cell where the call belongs, which is made if need be. */
void toolcell_start(struct toolrun_call *c);
void toolcell_guard(void *arg); /* of a struct toolrun: the time of its call is over */
/* Whether later calls see what one of this tool left in its process. */
bool toolrun_keeps_state(const struct tool *tool);
const char *toolcell_level(const struct toolrun_call *c); /* in force for the call */
/* Where a call is at the moment. */
struct place *toolrun_place_of(const struct toolrun_call *c);
/* The status of this name; TOOL_UNKNOWN for any other text. */
enum tool_status toolrun_status(const char *name);
void toolrun_audit(void *arg, const char *record);

/* toolnest.c: a running call wants something of us: a tool for its code, a function for its
 * search. The answer goes back over its driver. */
void toolnest_question(struct toolrun_call *c, const json_t *o);
/* What came of a call that was lent: {"ran": question, "status", "us"}. */
void toolnest_ran(struct toolrun_call *c, const json_t *o);
/* The calls of its code as a status line, when there were any. */
void toolnest_summary(struct toolrun_call *c);
/* A nested call that belongs to the outer call's own place is carried out there. */
void toolnest_lend(struct toolrun_call *c);

#endif
