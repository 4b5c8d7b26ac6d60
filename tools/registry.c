/*
 * registry.c - the one list of tools and the profiles made of them.
 *
 * SCHEMA() turns JSON written as C tokens into its text: every run of white space becomes
 * one blank, so lines are broken only after a comma. tests/tools/test_registry.c holds the
 * bytes to what Python's json.dumps writes. search, open and find are the shapes published
 * with DeepSeek-V3.2's search agent; str_replace_editor has the published one too.
 */
#include "tools/tool.h"

#include <string.h>

#define SCHEMA(...) #__VA_ARGS__

/* clang-format off */
static const struct tool tools[] = {
{"bash", SCHEMA(
{"name": "bash",
"description": "Runs a command in the session's bash shell. The working directory, variables and functions are kept between calls. A command that runs past timeout_s goes on as a background job. Long output is cut in the middle and kept in a file that the result names.",
"parameters": {"type": "object",
"properties": {"command": {"type": "string", "description": "The command line or script to run"},
"timeout_s": {"type": "integer", "description": "Seconds before the command becomes a job", "minimum": 1},
"background": {"type": "boolean", "description": "Start as a job at once", "default": false}},
"required": ["command"], "additionalProperties": false}}),
SCHEMA(
{"name": "bash",
"description": "Run a shell command.",
"parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}}),
TOOL_IN_CELL, false, "Run a command in a persistent shell."},

{"job", SCHEMA(
{"name": "job",
"description": "Lists background jobs, reads their new output, waits for one, writes to its input or ends it.",
"parameters": {"type": "object",
"properties": {"action": {"type": "string", "enum": ["list", "output", "wait", "send", "kill"]},
"id": {"type": "integer", "description": "Job number; not needed for list"},
"wait_s": {"type": "integer", "description": "Longest wait in seconds", "minimum": 0, "default": 10},
"input": {"type": "string", "description": "Text for send, passed as it is"}},
"required": ["action"], "additionalProperties": false}}), NULL,
TOOL_IN_CELL, false, "Follow, feed or end background commands."},

{"python", SCHEMA(
{"name": "python",
"description": "Runs code in the session's Python interpreter. Variables and imports are kept between calls, the value of a last expression is shown, figures are saved as files. No network.",
"parameters": {"type": "object",
"properties": {"code": {"type": "string", "description": "Python source"},
"timeout_s": {"type": "integer", "description": "Seconds before the code is interrupted", "minimum": 1},
"reset": {"type": "boolean", "description": "Start with a fresh interpreter", "default": false}},
"required": ["code"], "additionalProperties": false}}),
SCHEMA(
{"name": "python",
"description": "Run Python code.",
"parameters": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}}),
TOOL_IN_CELL, false, "Run code in a persistent Python interpreter."},

{"search", SCHEMA(
{"name": "search",
"description": "Searches for information related to query and displays topn results.",
"parameters": {"type": "object",
"properties": {"query": {"type": "string", "description": "The search query string"},
"topn": {"type": "integer", "description": "Number of top results to display", "default": 10},
"source": {"type": "string", "description": "Source to search within", "enum": ["web", "news"], "default": "web"}},
"required": ["query"], "additionalProperties": false, "$schema": "http://json-schema.org/draft-07/schema#"}}),
SCHEMA(
{"name": "search",
"description": "Search documents.",
"parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}}),
TOOL_IN_WEB_CELL, true, "Search the local index or the web."},

{"open", SCHEMA(
{"name": "open",
"description": "Opens the link id from the page indicated by cursor starting at line number loc, showing num_lines lines. Valid link ids are displayed with the formatting: 【{id}†.*】. If cursor is not provided, the most recent page is implied. If id is a string, it is treated as a fully qualified URL associated with source. If loc is not provided, the viewport will be positioned at the beginning of the document or centered on the most relevant passage, if available. Use this function without id to scroll to a new location of an opened page.",
"parameters": {"type": "object",
"properties": {"id": {"description": "Link ID (number) or fully qualified URL (string)", "anyOf": [{"type": "integer"}, {"type": "string"}], "default": -1},
"cursor": {"type": "integer", "description": "Page cursor indicator", "default": -1},
"loc": {"type": "integer", "description": "Starting line number", "default": -1},
"num_lines": {"type": "integer", "description": "Number of lines to show", "default": -1},
"view_source": {"type": "boolean", "description": "Whether to view source", "default": false},
"source": {"type": "string", "description": "Source associated with the URL", "enum": ["web", "news"], "default": "web"}},
"additionalProperties": false, "$schema": "http://json-schema.org/draft-07/schema#"}}),
SCHEMA(
{"name": "open",
"description": "Open link id of page cursor, or scroll to line loc.",
"parameters": {"type": "object", "properties": {"id": {"type": "integer"}, "cursor": {"type": "integer"}, "loc": {"type": "integer"}}}}),
TOOL_IN_WEB_CELL, true, "Open a search result, a URL or a spilled output."},

{"find", SCHEMA(
{"name": "find",
"description": "Finds exact matches of pattern in the current page, or the page given by cursor.",
"parameters": {"type": "object",
"properties": {"pattern": {"type": "string", "description": "The exact pattern to search for"},
"cursor": {"type": "integer", "description": "Page cursor to search in", "default": -1}},
"required": ["pattern"], "additionalProperties": false, "$schema": "http://json-schema.org/draft-07/schema#"}}),
SCHEMA(
{"name": "find",
"description": "Find text in a page.",
"parameters": {"type": "object", "properties": {"pattern": {"type": "string"}, "cursor": {"type": "integer"}}, "required": ["pattern"]}}),
TOOL_IN_WEB_CELL, true, "Find text in an opened page."},

{"str_replace_editor", SCHEMA(
{"name": "str_replace_editor",
"description": "Views, creates and edits files. view prints a file with line numbers, or a directory two levels deep. create writes a new file. str_replace replaces old_str, which must occur exactly once, by new_str. insert adds new_str after line insert_line (0 is the top). A file that changed since it was last viewed must be viewed again before it is edited.",
"parameters": {"type": "object",
"properties": {"command": {"type": "string", "enum": ["view", "create", "str_replace", "insert"]},
"path": {"type": "string", "description": "Absolute, or relative to the workspace"},
"file_text": {"type": "string", "description": "Content for create"},
"old_str": {"type": "string", "description": "Text to replace, with enough context to be unique"},
"new_str": {"type": "string", "description": "Replacement for str_replace, new lines for insert"},
"insert_line": {"type": "integer", "description": "Line after which insert puts new_str", "minimum": 0},
"view_range": {"type": "array", "description": "First and last line to view; -1 is the end", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}},
"required": ["command", "path"], "additionalProperties": false}}),
SCHEMA(
{"name": "str_replace_editor",
"description": "View or edit a file.",
"parameters": {"type": "object", "properties": {"command": {"enum": ["view", "create", "str_replace", "insert"]}, "path": {"type": "string"}, "file_text": {"type": "string"}, "old_str": {"type": "string"}, "new_str": {"type": "string"}, "insert_line": {"type": "integer"}}, "required": ["command", "path"]}}),
TOOL_IN_CELL, false, "View, create and edit files."},

{"apply_patch", SCHEMA(
{"name": "apply_patch",
"description": "Applies a patch to several files at once: all of it or nothing. The text starts with *** Begin Patch and ends with *** End Patch; between them stand *** Add File:, *** Update File: (with *** Move to: if wanted) and *** Delete File: sections; hunks start with @@ and their lines with a blank, + or -.",
"parameters": {"type": "object",
"properties": {"patch": {"type": "string", "description": "The whole patch"}},
"required": ["patch"], "additionalProperties": false}}), NULL,
TOOL_IN_CELL, false, "Apply a multi-file patch, all or nothing."},

{"plan", SCHEMA(
{"name": "plan",
"description": "Replaces the plan of this task, a list of steps with their state. Send the whole list each time.",
"parameters": {"type": "object",
"properties": {"items": {"type": "array", "items": {"type": "object",
"properties": {"content": {"type": "string"},
"status": {"type": "string", "enum": ["pending", "in_progress", "done"]}},
"required": ["content", "status"], "additionalProperties": false}, "maxItems": 100}},
"required": ["items"], "additionalProperties": false}}), NULL,
TOOL_IN_DAEMON, false, "Keep the list of steps."},

{"memory", SCHEMA(
{"name": "memory",
"description": "Keeps Markdown notes that outlive the context: read, write, append, delete, list or search them. Session notes are shown again after a context reset, workspace notes belong to all sessions of this workspace.",
"parameters": {"type": "object",
"properties": {"action": {"type": "string", "enum": ["read", "write", "append", "delete", "list", "search"]},
"name": {"type": "string", "description": "Name of the note: letters, digits, - and _"},
"text": {"type": "string", "description": "Text to write or append, or what to search for"},
"scope": {"type": "string", "enum": ["session", "workspace"], "default": "session"}},
"required": ["action"], "additionalProperties": false}}), NULL,
TOOL_IN_DAEMON, false, "Keep notes that outlive the context."},

{"recall", SCHEMA(
{"name": "recall",
"description": "Searches what has left the context of this session, and earlier sessions of this workspace where allowed, or reads one event by its number.",
"parameters": {"type": "object",
"properties": {"query": {"type": "string", "description": "Words to search for"},
"seq": {"type": "integer", "description": "Number of the event to read"},
"limit": {"type": "integer", "description": "Most results to show", "minimum": 1, "maximum": 50, "default": 10}},
"additionalProperties": false}}), NULL,
TOOL_IN_DAEMON, true, "Search this session's own past."},

{"delegate", SCHEMA(
{"name": "delegate",
"description": "Gives a task to a sub-agent with a fresh context and returns its final answer only.",
"parameters": {"type": "object",
"properties": {"task": {"type": "string", "description": "Everything the sub-agent must know"},
"tools": {"type": "array", "items": {"type": "string"}, "description": "Names of the tools it may use"},
"budget_tokens": {"type": "integer", "minimum": 1},
"n": {"type": "integer", "description": "Attempts", "minimum": 1, "maximum": 16, "default": 1},
"select": {"type": "string", "enum": ["vote", "verify", "fewest_steps", "first"], "default": "first"},
"schema": {"type": "object", "description": "JSON schema of the answer"}},
"required": ["task"], "additionalProperties": false}}), NULL,
TOOL_IN_DAEMON, false, "Give a task to a sub-agent."},

{"ask_user", SCHEMA(
{"name": "ask_user",
"description": "Asks the user and waits for the answers.",
"parameters": {"type": "object",
"properties": {"questions": {"type": "array", "items": {"type": "object",
"properties": {"id": {"type": "string"},
"question": {"type": "string"},
"options": {"type": "array", "items": {"type": "string"}, "maxItems": 20},
"multi": {"type": "boolean", "default": false}},
"required": ["id", "question"], "additionalProperties": false}, "minItems": 1, "maxItems": 10}},
"required": ["questions"], "additionalProperties": false}}), NULL,
TOOL_IN_DAEMON, false, "Ask the user and wait."},

{"finish", SCHEMA(
{"name": "finish",
"description": "Ends the task with its answer. Citations 【cursor†Lx-Ly】 are checked against the pages shown.",
"parameters": {"type": "object",
"properties": {"answer": {"type": "string"},
"status": {"type": "string", "enum": ["done", "partial", "failed"], "default": "done"},
"artifacts": {"type": "array", "items": {"type": "string"}, "description": "Files that belong to the answer"}},
"required": ["answer"], "additionalProperties": false}}), NULL,
TOOL_IN_DAEMON, false, "End the turn with its answer."},
};

#define SIZES_FULL {4096, 1024, 100, 10, 120}
#define SIZES_DEMO {1200, 400, 20, 5, 20}
#define SIZES_BENCH {12000, 4000, 100, 10, 300}

static const struct tool_profile profiles[] = {
{"code", "Work on the files of a workspace.", false, SIZES_FULL,
 {"bash", "job", "str_replace_editor", "plan", "memory", "ask_user", "finish"}},
{"research", "Search, read and cite.", false, SIZES_FULL,
 {"search", "open", "find", "python", "plan", "memory", "recall", "finish"}},
{"math", "Compute inside the thinking.", false, SIZES_FULL, {"python", "finish"}},
{"general", "All tools.", false, SIZES_FULL,
 {"bash", "job", "python", "search", "open", "find", "str_replace_editor", "apply_patch",
  "plan", "memory", "recall", "delegate", "ask_user", "finish"}},
{"speciale", "Long reasoning without tools.", false, SIZES_FULL, {NULL}},
{"bench-min", "Shell and editor, as in published benchmark runs.", false, SIZES_BENCH,
 {"bash", "str_replace_editor"}},
{"demo", "What the small shipped model was trained with.", true, SIZES_DEMO,
 {"bash", "python", "str_replace_editor", "search", "open", "find"}},
};
/* clang-format on */

const struct tool *tool_find(struct str name)
{
    for (unsigned i = 0; i < ARRAY_LEN(tools); i++)
        if (str_is(name, tools[i].name))
            return &tools[i];
    return NULL;
}

const struct tool *tool_at(unsigned i)
{
    return i < ARRAY_LEN(tools) ? &tools[i] : NULL;
}

const struct tool_profile *tool_profile_find(struct str name)
{
    for (unsigned i = 0; i < ARRAY_LEN(profiles); i++)
        if (str_is(name, profiles[i].name))
            return &profiles[i];
    return NULL;
}

const struct tool_profile *tool_profile_at(unsigned i)
{
    return i < ARRAY_LEN(profiles) ? &profiles[i] : NULL;
}

bool tool_profile_has(const struct tool_profile *p, struct str name)
{
    for (unsigned i = 0; p->tools[i]; i++)
        if (str_is(name, p->tools[i]))
            return true;
    return false;
}

const char *tool_schema(const struct tool_profile *p, const struct tool *t)
{
    return p && p->brief && t->brief ? t->brief : t->schema;
}

void tool_profile_json(const struct tool_profile *p, struct buf *out)
{
    buf_putc(out, '[');
    for (unsigned i = 0; p->tools[i]; i++)
        buf_printf(out, "%s{\"type\": \"function\", \"function\": %s}", i ? ", " : "",
                   tool_schema(p, tool_find(str_c(p->tools[i]))));
    buf_putc(out, ']');
}
