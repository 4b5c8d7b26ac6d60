/*
 * session.h - a conversation: its configuration, its transcript, and the prompt made of it.
 *
 * The transcript is derived from the log alone: loading a session replays its events. What
 * the model sampled is kept as ids and bytes and never rendered again.
 */
#ifndef AGENTD_SESSION_H
#define AGENTD_SESSION_H

#include "agentd/daemon.h"
#include "agentd/profile.h"

struct turn;
struct child;
struct delegate;
struct toolrun;
struct policy;

struct call_record {
    char *id, *name, *arguments; /* arena */
    char *fault; /* arena; why the call is broken, or NULL */
    bool started;  /* tool.started is in the log */
    bool in_cell;  /* it left the daemon, or may have */
    bool answered; /* its result is in the log */
};

struct message {
    enum prompt_role role;
    char *id, *turn; /* arena; id of its (first) item; turn it belongs to */
    int64_t step;    /* assistant, tool */
    struct str content, reasoning; /* arena */
    struct call_record *calls;     /* arena */
    uint32_t n_calls;
    char *call_id;                 /* arena; tool */
    struct prompt_sampled sampled; /* arena; bytes.p NULL when not sampled by us */
    uint64_t sampled_by; /* session_engine() of then; 0 = not known */
    bool removed;                  /* a context.reset took it out of the prompt */
};

/*
 * The prompt's tokens are the BASE, what stands before the newest user message, and the rest.
 * The base has no reasoning and never changes again, so a new message costs its own turn
 * alone. Counts are of rendered messages: the system text and what the session holds of its
 * transcript, less what was removed.
 */
struct context {
    enum { CONTEXT_NONE, CONTEXT_BASE, CONTEXT_WHOLE } valid;
    uint32_t base_tokens, base_msgs;
    uint32_t msgs; /* in ctx, with the rest */
    struct known { /* texts of the rest and where their tokens stand in ctx */
        uint32_t msg, nth; /* the nth piece of this message */
        size_t len;
        uint32_t at, n;
    } *known; /* owned */
    uint32_t n_known, cap_known;
};

struct session {
    struct daemon *d;
    struct session *next;
    char id[ID_TEXT];
    int64_t uid, head, created, used_ns;
    bool closed;
    json_t *config; /* owned: session.created with every update */
    /* what the configuration says, read once */
    const struct profile *profile;
    char *cwd, *system; /* owned */
    bool thinking, no_sandbox;
    bool copy; /* asked for a copy of the workspace, whatever the policy edits in place */
    enum prompt_keep keep;
    struct infer_sampling sampling;
    struct budget budget;
    enum strategy first, then;
    enum session_approval { APPROVE_NEVER, APPROVE_ESCALATION, APPROVE_ALWAYS } approval;

    /* The transcript from the newest user message on. What stood before it went once it was
     * rendered: it lives on as tokens in ctx, and in the log. An engine that takes messages
     * keeps all of them; an idle session may have none (`loaded` is false then). */
    struct arena arena;
    struct message *msg; /* owned */
    uint32_t n_msgs, cap_msgs;
    uint32_t n_gone, gone_replies; /* messages before msg[0]; assistant ones among them */
    bool loaded;
    struct buf steers;       /* notes not yet delivered, one per line of JSON */
    char last_turn[ID_TEXT]; /* the newest turn.started; empty = none */
    bool last_turn_open;     /* it has no end */
    struct turn *turn;     /* running; owned by the loop */
    struct child *watch;   /* who waits for the end of its turn (loop_delegate.c), or NULL */
    struct delegate *delegate; /* sub-agents at work for its turn, or NULL */
    struct policy *policy; /* owned; with the tools */
    json_t *tool_names;    /* owned: of the profile's tools only these; NULL = all */
    json_t *client_tools;  /* owned: functions that the client declared and carries out */
    struct toolrun *tools; /* owned; opened at the first turn */
    struct str *schema;    /* owned; the function objects as text, once tools are open */
    struct arena schema_text; /* of the client's */
    uint32_t n_schemas;
    struct infer_grammar *grammar; /* owned reference; of the schemas */

    struct context context; /* how far ctx can be relied on */
    struct tokens ctx;      /* owned; the prompt as tokens, so far as it is rendered */
    struct infer_job *warm; /* idle re-prefill under way */
};

/* session.create: params as in the protocol. Appends session.created; not yet committed. */
NODISCARD int session_create(struct session **out, struct daemon *d, uid_t uid,
                             const json_t *params, const struct store_idem *idem,
                             struct err *err);
/* A sub-agent's session: params as they are kept in a configuration; takes parent. */
NODISCARD int session_create_child(struct session **out, struct session *of,
                                   const json_t *params, json_t *parent, struct err *err);
/* The loaded session, or it is loaded now. -ERR_NOTFOUND. */
NODISCARD int session_find(struct session **out, struct daemon *d, struct str id,
                           struct err *err);
void session_free(struct session *s); /* unlinks; the log is not touched */
void session_free_all(struct daemon *d);
/* Keeps memory bounded: transcripts of idle sessions go, those unused for longest first,
 * until all take less than store.transcripts and fewer than LIMIT_SESSIONS_LOADED are open.
 * `but` is in use (or NULL). Everything in the log must be committed. */
void session_trim(struct daemon *d, const struct session *but);
/* Bytes that transcripts and prompts take. */
size_t session_bytes(const struct session *s);
/* The transcript from its beginning: s itself or, where part of it went, a copy read from the
 * log as far as it is on disk, to be given back with session_whole_done(). */
NODISCARD int session_whole(struct session **out, struct session *s, struct err *err);
void session_whole_done(struct session *whole, struct session *s);
/* Reads the log into s again, from its beginning. */
NODISCARD int session_reload(struct session *s, struct err *err);
/* `limits` into a budget; -ERR_PARSE and -ERR_LIMIT name the key. */
NODISCARD int session_read_budget(struct budget *b, const json_t *limits, struct err *err);
/* Applies changed configuration (an object of create's fields) and logs it. */
NODISCARD int session_update(struct session *s, const json_t *changes, struct err *err);

/* Appends one event; takes data. ids and bytes may be empty. */
NODISCARD int session_log(struct session *s, const char *turn, const char *item,
                          const char *type, json_t *data, struct err *err);
NODISCARD int session_log_sample(struct session *s, const char *turn, json_t *data,
                                 const struct tokens *ids, struct str bytes, struct err *err);
NODISCARD int session_log_idem(struct session *s, const char *turn, const char *type,
                               json_t *data, const struct store_idem *idem, struct err *err);

/*
 * Applies an event to the transcript: the one place where the log becomes messages, used at
 * load and, right after session_log(), while running.
 */
NODISCARD int session_apply(struct session *s, struct str type, struct str turn,
                            struct str item, const json_t *data, const struct tokens *ids,
                            struct str bytes, struct err *err);

/* Lets go of the messages before msg[n]. Without memory they stay. */
void session_cut(struct session *s, uint32_t n);
/* Lets go of all of them and of their tokens: the log has them. */
void session_empty(struct session *s);

/* What token ids mean: a number made of an engine's fingerprint. */
uint64_t session_engine(struct str fingerprint);

/* Assistant messages since the session began. */
uint32_t session_replies(const struct session *s);
/* The last assistant message and its call; NULL when there is none. */
struct message *session_last_assistant(struct session *s);
struct call_record *session_call(struct session *s, const char *call_id);
/* Calls of the last assistant message without a result. */
unsigned session_unanswered(struct session *s);

/* session_toolset.c: `tools` of the configuration into tool_names and client_tools. */
enum { TOOLSET_MAX = 128 };
NODISCARD int session_toolset(struct session *s, struct err *err);
bool session_client_tool(const struct session *s, struct str name);
/* Fills schema: the tools' own texts and the client's. */
NODISCARD int session_schemas(struct session *s, struct err *err);
/* The same as OpenAI writes it; new reference. */
json_t *session_schemas_json(const struct session *s);
/* The arguments of a client's tool against its declaration; -ERR_PARSE with a sentence. */
NODISCARD int session_client_args(const struct session *s, const char *name, struct str args,
                                  struct err *err);

/* Tools and their schemas; idempotent. */
NODISCARD int session_tools(struct session *s, struct err *err);
void session_tools_close(struct session *s);

/* Answers the tools that need the session itself: recall, delegate. A toolrun_hook and its
 * end. */
struct toolrun_call;
void session_hook(void *arg, struct toolrun_call *call, const char *tool, const json_t *args);
void session_unhook(void *arg, struct toolrun_call *call);

/* Brings ctx up to date with the transcript: token engines. */
NODISCARD int session_render(struct session *s, struct err *err);
/* The tokens that stay when the next user message comes (reasoning dropped). */
NODISCARD int session_render_kept(struct session *s, struct tokens *out, struct err *err);
/* Which message of a whole transcript wrote the token at this position of its prompt: an
 * index into msg, or -1 for the system text and tools. */
NODISCARD int session_locate(struct session *s, uint32_t token, int64_t *message,
                             struct err *err);
/* Any list of messages as tokens, for work beside the conversation; chat mode. */
NODISCARD int session_render_list(struct session *s, const struct prompt_msg *msg, uint32_t n,
                                  struct tokens *out, struct err *err);
/* The exact text of a whole transcript's prompt, for prompt.render. */
NODISCARD int session_render_text(struct session *s, struct buf *out, struct err *err);
/* Messages for a remote engine, in OpenAI's shape; new reference. */
json_t *session_messages(struct session *s);

#endif
