/*
 * toollua.h - tools declared in Lua files, one tool a file:
 *
 *     tool = {
 *         name = "days_between",
 *         description = "Counts the days between two dates (YYYY-MM-DD).",
 *         parameters = {
 *             type = "object",
 *             properties = { from = { type = "string" }, to = { type = "string" } },
 *             required = { "from", "to" },
 *         },
 *     }
 *     function command(args)           -- a shell command, run in the session's cell
 *         return "echo $(( ($(date -d " .. quote(args.to) .. " +%s) - ... ) / 86400 ))"
 *     end
 *
 * or, instead of command, `function run(args)`: it computes in a Lua state without files or
 * network and returns the text, or a value shown as JSON. `quote(text)` makes one word for
 * the shell. Schemas are written with sorted keys, so they are byte-stable.
 */
#ifndef AGENTD_TOOLLUA_H
#define AGENTD_TOOLLUA_H

#include "base/json.h"
#include "tools/tool.h"

enum { TOOLLUA_MAX = 32 };

struct toollua;

/* Every *.lua of a folder, in the order of their names. A file that does not load, a name
 * that is taken or a schema that is none is an error that names the file. */
NODISCARD int toollua_open(struct toollua **out, const char *dir, struct err *err);
void toollua_free(struct toollua *l); /* takes NULL */

unsigned toollua_count(const struct toollua *l);
const struct tool *toollua_at(const struct toollua *l, unsigned i);
const struct tool *toollua_find(const struct toollua *l, struct str name); /* or NULL */

/* For a tool with run(): the text of its answer. */
NODISCARD int toollua_run(struct toollua *l, const struct tool *t, const json_t *args,
                          struct buf *out, struct err *err);
/* For a tool with command(): the command line. Its place is TOOL_IN_CELL. */
NODISCARD int toollua_command(struct toollua *l, const struct tool *t, const json_t *args,
                              struct buf *out, struct err *err);

#endif
