/*
 * tool.h - what the model may do, as tables.
 *
 * A tool is a row: its name, the JSON schema the model is shown, where it runs and whether
 * it only reads. A profile is an ordered choice of tools with the sizes of their results.
 * Schemas are byte-stable: no date, path or host fact, one order, one spacing (", " and
 * ": "), so that a prompt prefix stays valid from one start to the next.
 */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"

/* Where a call is carried out. Code from outside runs in a cell, never in the daemon. */
enum tool_place {
    TOOL_IN_CELL,     /* bash, python, editor: the cell that holds the workspace */
    TOOL_IN_WEB_CELL, /* search, open, find: a cell of their own, without the workspace */
    TOOL_IN_DAEMON,   /* plan, memory, finish: pure state, or a request to the loop */
};

struct tool {
    const char *name;
    const char *schema; /* {"name", "description", "parameters"}, as the model sees it */
    const char *brief;  /* the same with fewer words and parameters, or NULL */
    enum tool_place place;
    bool reads_only; /* calls of one block may run side by side */
    const char *summary; /* one line for people */
};

/* Sizes of results. Characters are bytes here; cuts fall on character boundaries. */
struct tool_limits {
    uint32_t head, tail;  /* kept of a long output */
    uint32_t view_lines;  /* lines that `open` shows when not told */
    uint32_t topn;        /* results of a search when not told */
    uint32_t timeout_s;   /* soft: the command becomes a job, the code is interrupted */
};

enum { TOOL_PROFILE_MAX = 16 };

struct tool_profile {
    const char *name, *summary;
    bool brief; /* show the short schemas */
    struct tool_limits limits;
    const char *tools[TOOL_PROFILE_MAX]; /* in the order of the prompt, ends with NULL */
};

const struct tool *tool_find(struct str name);           /* NULL when there is none */
const struct tool *tool_at(unsigned i);                  /* all of them; NULL past the end */
const struct tool_profile *tool_profile_find(struct str name);
const struct tool_profile *tool_profile_at(unsigned i);
bool tool_profile_has(const struct tool_profile *p, struct str name);
/* The schema text that this profile shows for a tool. */
const char *tool_schema(const struct tool_profile *p, const struct tool *t);

/*
 * The tools of a profile as the value of a request's "tools" member:
 * [{"type": "function", "function": {...}}, ...], bytes appended to `out`.
 */
void tool_profile_json(const struct tool_profile *p, struct buf *out);

#endif
