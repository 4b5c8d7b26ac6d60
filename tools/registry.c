/* registry.c - the one list of tools. */
#include "tools/tool.h"

const struct tool *tool_find(struct str name)
{
    (void)name;
    return NULL;
}
