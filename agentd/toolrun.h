/*
 * toolrun.h - from a tool call to its result: arguments against the schema, the policy's
 * decision, the cell, the text that the model gets.
 *
 * One struct toolrun per session. Everything is asynchronous on the session's loop; the
 * callbacks run on the loop's thread, never from inside toolrun_call() itself. Calls of one
 * toolrun are carried out one after the other, in the order given.
 * A result is always delivered exactly once, whatever happens: a cell that cannot be made,
 * a driver that dies, a cancelled call each have an honest text of their own.
 */
#ifndef AGENTD_TOOLRUN_H
#define AGENTD_TOOLRUN_H

#include "agentd/ev.h"
#include "base/json.h"
#include "tools/envelope.h"
#include "tools/tool.h"

struct toolrun;
struct toolrun_call;
struct spawner;
struct policy;

/* What a call became. Views are borrowed until the callback returns. */
struct tool_result {
    struct str text;         /* payload and status line, as the model sees it; valid UTF-8 */
    enum tool_status status; /* TOOL_OK, TOOL_FAILED, ... */
    bool is_error;           /* status is neither OK nor RUNNING */
    int exit_code;           /* of a command; -1 when there was none */
    uint64_t output_bytes;   /* produced */
    uint64_t cut_bytes;      /* of these, left out of the text */
    int64_t spill;           /* id for spill:N, -1 when nothing was spilled */
    int64_t started_ns, ended_ns; /* monotonic */
    bool state_lost;         /* the interpreter or shell had to be started anew */
    const char *level;       /* in force: "full", ..., "none"; "daemon" for pure tools */
    const json_t *finish;    /* the arguments of an accepted finish, else NULL: the turn ends */
    const json_t *called;    /* by Python code: [{"tool", "status", "ms"}] in order, or NULL */
    const json_t *undo;      /* {"path", "existed", "content"} of a file before its edit, or NULL */
};

/* Needed by tools that are the loop's business (recall, delegate, ask_user). The hook
 * answers later through toolrun_answer(); without a hook they report "unavailable". */
typedef void (*toolrun_hook)(void *arg, struct toolrun_call *call, const char *tool,
                             const json_t *args);
/* The hook's call ends as cancelled: it must not be answered any more. */
typedef void (*toolrun_unhook)(void *arg, struct toolrun_call *call);

struct toolrun_opts {
    struct ev *ev;             /* borrowed */
    struct spawner *spawner;   /* borrowed; NULL needs `unconfined` */
    bool unconfined;           /* level none: the caller's own configuration said so */
    const struct policy *policy; /* borrowed; NULL = every tool of the profile is allowed */
    const char *profile;       /* "code", ..., "demo" */
    const char *session;       /* id, for names and records */
    const char *workspace;     /* absolute path of a folder, shown inside as /workspace */
    const char *state_dir;     /* the session's own folder: spill, pages, notes, undo */
    const char *notes_dir;     /* notes of scope workspace; NULL = refused */
    const char *index;         /* local search index, or NULL */
    const char *search;        /* YAML file of search providers, or NULL */
    const char *cassette;      /* "record:FILE" or "replay:FILE": what is fetched; or NULL */
    const char *lua_tools;     /* folder of tools declared in Lua (toollua.h), or NULL */
    /* One JSON object for each connection that the proxy carried or refused; may be NULL. */
    void (*audit)(void *arg, const char *record);
    toolrun_hook hook;
    toolrun_unhook unhook;
    void *hook_arg; /* of hook, unhook and audit */
    const json_t *only; /* names of tools: of the profile's only these; NULL = all. Kept. */
};

NODISCARD int toolrun_open(struct toolrun **out, const struct toolrun_opts *o,
                           struct err *err);
/* Ends running calls as cancelled (their callbacks run before this returns), closes cells. */
void toolrun_close(struct toolrun *t);
/* Starts the cell and drivers in the background, to hide their start behind the model. */
void toolrun_warm(struct toolrun *t);

const struct tool_profile *toolrun_profile(const struct toolrun *t);
/* The tools in the prompt's order, the profile's and then those in Lua; NULL past the end.
 * *schema is the text that the model sees, valid as long as t. */
const struct tool *toolrun_tool(const struct toolrun *t, unsigned i, const char **schema);
/* New reference: [{"type": "function", "function": {...}}, ...] in the prompt's order. */
json_t *toolrun_schemas(const struct toolrun *t);

bool toolrun_has(const struct toolrun *t, struct str name);
/* Whether the session has this tool and the arguments fit it; *out (owned) gets them then. */
bool toolrun_args(const struct toolrun *t, const char *tool, struct str args, json_t **out);

enum toolrun_verdict { TOOLRUN_ALLOW, TOOLRUN_ASK, TOOLRUN_DENY };
/* Whether the call would be well-formed and allowed, without running anything; `why` gets a
 * sentence unless the verdict is allow. Malformed arguments are TOOLRUN_ALLOW: running them
 * is harmless and yields the message for the model. */
enum toolrun_verdict toolrun_check(struct toolrun *t, const char *tool, const char *args,
                                   struct buf *why);

struct toolrun_cbs {
    /* Output as it is produced (clean UTF-8), for people; optional. stream 1 or 2. */
    void (*on_output)(void *arg, int stream, struct str piece);
    void (*on_done)(void *arg, const struct tool_result *result);
    void *arg;
};
/*
 * Starts a call. `args` is the JSON text that the model wrote. `approved` says that an
 * "ask" was answered with yes; without it an "ask" ends as denied. What goes wrong becomes
 * the result; NULL only without memory. The handle lives until on_done returns.
 */
struct toolrun_call *toolrun_call(struct toolrun *t, const char *id, const char *tool,
                                  struct str args, bool approved,
                                  const struct toolrun_cbs *cbs);
void toolrun_cancel(struct toolrun_call *call);
/* Cancels; no callback comes any more. The caller forgets the call. */
void toolrun_abandon(struct toolrun_call *call);
/* For hooks: ends a call with this text; takes nothing. */
void toolrun_answer(struct toolrun_call *call, enum tool_status status, struct str text);

/* Tells of a result from the session's log, at load: pages shown before a restart can be
 * cited after it, and their cursors are not given out again. */
void toolrun_note_result(struct toolrun *t, const char *tool, struct str text);
/* Tells of a call that was in a cell, at load: the next one of a shell or an interpreter then
 * says that what earlier ones set in them is gone. */
void toolrun_note_ran(struct toolrun *t, const char *tool);

/* Tells of a call of `plan` from the log, at load. */
void toolrun_note_plan(struct toolrun *t, struct str args);
/* What outlives the context, for the model to see again: the plan, and the notes of the
 * session by name or, with bodies, in full; at most `most` bytes. Nothing when there is none. */
void toolrun_remind(const struct toolrun *t, bool bodies, size_t most, struct buf *out);

/* The steps that the model last set with `plan`: an array, borrowed; NULL when there is none. */
const json_t *toolrun_plan(const struct toolrun *t);

/* Whether a call is under way or waits. */
bool toolrun_busy(const struct toolrun *t);
/* What was written above a copy workspace: a folder's descriptor, borrowed; -1 before the first
 * call and for other workspaces. *since: when something of it was last taken over, in ns since
 * 1970, 0 = never. */
int toolrun_layer(const struct toolrun *t, int64_t *since);
void toolrun_layer_taken(struct toolrun *t); /* now */
/* Ends the work cell, and with it the layer; the next call gets a new one. Not while busy. */
void toolrun_drop_layer(struct toolrun *t);

/* Jobs: commands that went on in the background. */
unsigned toolrun_jobs(const struct toolrun *t);
/* Appends one line per job that ended since last asked, for the next tool result. */
void toolrun_job_notices(struct toolrun *t, struct buf *out);

#endif
