/*
 * toolplace.h - from a session's options and policy to the place where its tools run: the
 * spec of the cell, the arguments of agentd-tool, the decision about a call.
 */
#ifndef AGENTD_TOOLPLACE_H
#define AGENTD_TOOLPLACE_H

#include "agentd/toolrun.h"
#include "sandbox/sandbox.h"

struct toolplace;

/* `web`: the cell of search and pages, which does not see the workspace as such. */
NODISCARD int toolplace_make(struct toolplace **out, const struct toolrun_opts *o, bool web,
                             struct err *err);
void toolplace_free(struct toolplace *p);
const struct sandbox_spec *toolplace_spec(const struct toolplace *p); /* NULL when unconfined */
const char *const *toolplace_argv(const struct toolplace *p);

/* Allow, ask or deny, with a reason unless allowed. Without a policy all is allowed. */
struct hooks;
enum toolrun_verdict toolplace_decide(const struct policy *policy, struct hooks *hooks,
                                      const char *tool, const json_t *args, struct buf *why);

/* How long a call may take: at soft_s a command becomes a job (or is ended), at hard_s it is
 * ended whatever it is. `soft` is the profile's limit; the policy can only shorten it. */
struct toolplace_times {
    uint32_t soft_s, hard_s;
    bool jobs; /* commands may go on in the background */
};
struct toolplace_times toolplace_times(const struct policy *policy, const char *tool,
                                       uint32_t soft);

#endif
