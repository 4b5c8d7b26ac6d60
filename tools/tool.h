/*
 * tool.h - what the model may do. A tool is a row: name, schema, and a function that runs
 * only inside a cell. The one list is registry.c.
 */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include "base/json.h"

struct tool {
    const char *name;
    const char *schema; /* the function object as JSON text, byte-stable */
    int (*run)(const json_t *args, struct buf *out, struct err *err);
};

const struct tool *tool_find(struct str name); /* NULL when there is none */

#endif
