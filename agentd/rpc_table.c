/* rpc_table.c - the methods of the native protocol, and the table printed as a schema. */
#include <string.h>

#include "agentd/rpc_in.h"
#include "base/limits.h"

#define P(...) ((const struct rpc_param[]){__VA_ARGS__, {NULL, NULL, false, NULL}})
#define SESSION {"sessionId", "string", true, "the session"}
#define TURN {"turnId", "string", true, "the turn"}
#define IDEM                                                                             \
    {                                                                                    \
        "idempotencyKey", "string", false,                                               \
            "the same key gives the first result; another body with it is an error"      \
    }

static const struct rpc_param turn_params[] = {
    SESSION,
    {"input", "any", false, "the user's message: a string, or [{type: \"text\", text}]"},
    {"resume", "string", false, "a turn that a restart cut: goes on with its reasoning kept"},
    {"limits", "object", false, "narrows the session's: maxSteps, maxTokens, maxSeconds, "
                                "maxThinking, reserve"},
    {"onDisconnect", "string", false, "continue (default) or cancel"},
    IDEM,
    {NULL, NULL, false, NULL},
};

static const struct rpc_method methods[] = {
    {"initialize", rpc_initialize,
     P({"protocolVersion", "integer", true, "1"},
       {"client", "object", false, "name and version, for the log"},
       {"capabilities", "object", false, "approvals, deltas: booleans"}),
     "{protocolVersion, server, peer: {uid, pid}, epoch, limits, capabilities}",
     "Opens the conversation; before it only ping is answered.", true, false},
    {"ping", rpc_ping, NULL, "{}", "Answers at once.", true, false},
    {"session.create", rpc_session_create,
     P({"cwd", "string", false, "absolute path of the workspace"},
       {"profile", "string", false, "demo, code, research, ...: see daemon.status"},
       {"thinking", "boolean", false, "reason before answering; default by profile"},
       {"system", "string", false, "system text instead of the profile's"},
       {"tools", "array", false, "names: of the profile's tools only these; and functions "
                                 "{name, description, parameters} that the client carries out"},
       {"mcp", "any", false, "refused unless empty: no tool servers are connected to"},
       {"sandbox", "string", false, "required or off (only where the daemon allows it)"},
       {"copy", "boolean", false, "a layer above the workspace instead of edits in place: see "
                                  "session.changes"},
       {"approvalPolicy", "string", false, "never, on_escalation (default) or always"},
       {"contextStrategy", "string", false, "none, discard-tools, discard-all or summary"},
       {"limits", "object", false, "maxSteps, maxTokens, maxSeconds, maxThinking, reserve"},
       {"sampling", "object", false, "temperature, topP, minP, topK, seed"},
       {"metadata", "object", false, "kept and given back"}, IDEM),
     "{sessionId, seq}", "Makes a session.", false, true},
    {"session.get", rpc_session_get,
     P(SESSION, {"after", "integer", false, "messages to leave out: next of the page before"}),
     "{sessionId, seq, config, state, turnId?, usage?, messages, next?}",
     "A session's configuration and transcript, 8 MiB at a time.", false, false},
    {"session.list", rpc_session_list,
     P({"cursor", "integer", false, "nextCursor of the page before"},
       {"limit", "integer", false, "1 to 500, default 100"},
       {"cwd", "string", false, "only sessions of this folder"},
       {"state", "string", false, "idle, running or closed"}),
     "{sessions: [{sessionId, created, updated, state, profile, cwd, seq}], nextCursor?}",
     "Newest first.", false, false},
    {"session.update", rpc_session_update,
     P(SESSION, {"changes", "object", true, "fields as in session.create, and rules"}),
     "{seq}", "Changes configuration between turns.", false, true},
    {"session.close", rpc_session_close, P(SESSION), "{seq}",
     "No further turns; the log stays.", false, true},
    {"session.delete", rpc_session_delete, P(SESSION), "{}", "Removes it and its log.", false,
     true},
    {"session.fork", rpc_session_fork,
     P(SESSION, {"atMessageId", "string", false, "item id of the last message to keep"}),
     "{sessionId, seq}", "A new session with the history up to a message.", false, true},
    {"session.export", rpc_session_export,
     P(SESSION, {"after", "integer", false, "a seq: next of the page before"}),
     "{events: [...], next?}", "Every event, with the sampled token ids, 8 MiB at a time.",
     false, false},
    {"session.changes", rpc_session_changes,
     P(SESSION, {"action", "string", false, "list (default), apply or drop"},
       {"paths", "array", false, "with apply: only these, as list spells them"},
       {"force", "boolean", false, "with apply: also over what changed below since"}),
     "{changes: [...], cut}, {applied: [path], failed: [{path, why}]} or {}",
     "What was written above a workspace of kind copy.", false, false},
    {"session.subscribe", rpc_session_subscribe,
     P({"sessionId", "string", true, "a session, or * for all"},
       {"after", "any", false, "last seq the client has, or \"now\" (default)"},
       {"epoch", "string", false, "the epoch that seq belongs to"},
       {"types", "array", false, "only these durable event types"},
       {"coalesceMs", "integer", false, "at most one delta an item in so many ms"}),
     "{head, epoch}", "Replays and then follows events.", false, false},
    {"session.unsubscribe", rpc_session_unsubscribe,
     P({"sessionId", "string", true, "a session, or *"}), "{}", "Ends it.", false, false},
    {"turn.start", rpc_turn_start, turn_params, "{turnId, seq}",
     "Starts a turn; returns once it is on disk.", false, true},
    {"turn.run", rpc_turn_run, turn_params, "{turnId, stopReason, message, usage}",
     "Starts a turn and waits for its end.", false, true},
    {"turn.wait", rpc_turn_wait,
     P(TURN, {"timeoutMs", "integer", false, "0 = no limit (default)"}),
     "{turnId, stopReason, message, usage} or {turnId, running: true}",
     "Waits for the end of a turn.", false, false},
    {"turn.get", rpc_turn_get, P(TURN), "{turnId, sessionId, state, ...}", "Where a turn is.",
     false, false},
    {"turn.steer", rpc_turn_steer,
     P(TURN, {"input", "any", true, "text, as in turn.start"},
       {"as", "string", false, "note (default: rides in the next result) or user"}),
     "{seq}", "Tells the model something while it works.", false, true},
    {"turn.interrupt", rpc_turn_interrupt,
     P(TURN, {"mode", "string", false, "soft (default) or hard"}), "{state}",
     "Ends a turn early; repeating it is fine.", false, false},
    {"approval.list", rpc_approval_list, P({"sessionId", "string", false, "only of this one"}),
     "{approvals: [...]}", "Questions that wait for an answer.", false, false},
    {"approval.respond", rpc_approval_respond,
     P({"approvalId", "string", true, "the question"},
       {"optionId", "string", true, "one of its options"},
       {"answers", "object", false, "to the questions of ask_user: from the id of each to a text "
                                    "or, where several fit, a list of texts"},
       {"note", "string", false, "kept in the log; the answer, where one question is asked"}),
     "{outcome}", "Answers; the first answer wins.", false, true},
    {"tool.list", rpc_tool_list, P({"profile", "string", false, "tools of this profile"}),
     "{tools: [...]}", "Schemas as the model sees them.", false, false},
    {"tool.call", rpc_tool_call,
     P(SESSION, {"name", "string", true, "a tool of the session's profile"},
       {"arguments", "any", false, "an object, or its JSON text"}),
     "{text, status, isError, exitCode?, sandbox, us, ...}",
     "Carries out one call in the session's cell, outside its transcript.", false, false},
    {"tool.result", rpc_tool_result,
     P({"callId", "string", true, "of a tool.started with client: true"},
       {"text", "string", true, "what the model gets"},
       {"isError", "boolean", false, "the tool failed"}),
     "{}", "The result of a call of a tool that the client declared; the first one wins.", false,
     true},
    {"mcp.status", rpc_mcp_status, NULL, "{servers: []}", "Servers of outside tools.", false,
     false},
    {"mcp.reload", rpc_mcp_status, NULL, "{servers: []}", "Reads their list again.", false, false},
    {"model.list", rpc_model_list, NULL, "{models: [...]}", "What is loaded.", false, false},
    {"engine.status", rpc_engine_status, NULL, "{state, ...}", "The engine's state and load.",
     false, false},
    {"prompt.render", rpc_prompt_render, P(SESSION), "{prompt, tokens}",
     "The exact text that the model would read.", false, false},
    {"cache.explain", rpc_cache_explain, P(SESSION), "{tokens, cached, first, cause}",
     "How much of the next prompt is computed already, and what differs first.", false, false},
    {"daemon.status", rpc_daemon_status, NULL, "{version, uptimeMs, ...}", "Counters and sizes.",
     false, false},
    {"daemon.drain", rpc_daemon_drain, NULL, "{running}",
     "No new turns; running ones end in peace.", false, false},
    {"$/cancel_request", rpc_cancel_request,
     P({"requestId", "any", true, "id of a waiting request of this connection"}), "nothing",
     "Withdraws a waiting request (a notification).", false, false},
};

const struct rpc_method *rpc_method_find(struct str name)
{
    for (unsigned i = 0; i < ARRAY_LEN(methods); i++)
        if (str_is(name, methods[i].name))
            return &methods[i];
    return NULL;
}

static json_t *params_schema(const struct rpc_param *p)
{
    json_t *properties = json_object(), *required = json_array();
    for (; p && p->name; p++) {
        json_t *one = json_pack("{s:s}", "description", p->doc);
        if (strcmp(p->type, "any") != 0)
            json_object_set_new(one, "type", json_string(p->type));
        json_object_set_new(properties, p->name, one);
        if (p->required)
            json_array_append_new(required, json_string(p->name));
    }
    return json_pack("{s:s, s:o, s:o}", "type", "object", "properties", properties, "required",
                     required);
}

int rpc_dump_schema(struct buf *out, struct err *err)
{
    static const char *const durable[] = {
        "session.created", "session.updated",    "session.closed",    "turn.started",
        "step.started",    "item.completed",     "approval.requested", "approval.resolved",
        "tool.started",    "tool.finished",      "context.reset",      "usage",
        "turn.completed",  "turn.failed",        "warning"};
    static const char *const ephemeral[] = {"item.delta",    "item.snapshot", "tool.output",
                                            "progress",      "event.gap",     "replay.done"};
    json_t *all = json_array(), *d = json_array(), *e = json_array();
    for (unsigned i = 0; i < ARRAY_LEN(methods); i++)
        json_array_append_new(all, json_pack("{s:s, s:s, s:o, s:s}", "name", methods[i].name,
                                             "description", methods[i].doc, "params",
                                             params_schema(methods[i].params), "returns",
                                             methods[i].returns));
    for (unsigned i = 0; i < ARRAY_LEN(durable); i++)
        json_array_append_new(d, json_string(durable[i]));
    for (unsigned i = 0; i < ARRAY_LEN(ephemeral); i++)
        json_array_append_new(e, json_string(ephemeral[i]));
    json_t *doc = json_pack("{s:s, s:i, s:i, s:o, s:{s:o, s:o}}", "protocol", "agentd native",
                            "protocolVersion", 1, "maxLineBytes", LIMIT_LINE_BYTES, "methods", all,
                            "events", "durable", d, "ephemeral", e);
    int rc = doc ? json_write_pretty(doc, out, err) : err_nomem(err);
    buf_putc(out, '\n');
    json_decref(doc);
    return rc < 0 ? rc : buf_check(out, "schema", err);
}
