/*
 * hooks.h - Lua asked about a tool call after the policy's table. A hook file may define
 *
 *     function before_call(call)   -- call.tool, call.args, call.decision ("allow" | "ask")
 *         if call.args.command and call.args.command:find("rm %-rf") then
 *             return "ask", "this deletes a tree"
 *         end
 *     end
 *
 * and return nothing, "allow", "ask" or "deny" and a reason. The stricter of the table and
 * every hook holds: a hook can narrow, never widen. A hook that fails, runs too long or
 * answers something else denies, and says so.
 */
#ifndef AGENTD_HOOKS_H
#define AGENTD_HOOKS_H

#include "agentd/policy.h"
#include "base/json.h"

struct hooks;

/* Loads the files of the policy; without any, *out is NULL and everything below accepts that.
 * A file that does not load is an error: it was meant to protect. */
NODISCARD int hooks_open(struct hooks **out, const struct policy *p, struct err *err);
void hooks_free(struct hooks *h);

/* The decision after the hooks; a sentence into `reason` (may be empty) when it changed. */
enum policy_decision hooks_decide(struct hooks *h, enum policy_decision table, const char *tool,
                                  const json_t *args, struct buf *reason);

#endif
