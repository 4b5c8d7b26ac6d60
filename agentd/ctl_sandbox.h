/* ctl_sandbox.h - what the commands around the sandbox share: one cell, and a relay. */
#ifndef AGENTD_CTL_SANDBOX_H
#define AGENTD_CTL_SANDBOX_H

#include "agentd/policy.h"
#include "agentd/spawner.h"
#include "base/json.h"

/* One command in one cell, its output carried through pipes, so that no descriptor of the
 * caller's is ever inside. */
struct relay_opts {
    const char *const *argv;
    struct buf *capture; /* takes the output instead of descriptor 1; NULL = pass through */
    bool no_input;       /* /dev/null inside */
    bool terminal;      /* a terminal of the cell's own between the person and the program */
    uint32_t wall_ms;   /* 0 = none */
    const struct policy *policy; /* for the network proxy; may be NULL */
};

struct relay_result {
    struct sandbox_exit exit;
    struct sandbox_refusal refusal; /* when the return value is -ERR_DENIED */
    struct cell_ended ended;
    enum sandbox_level level;
    uint64_t bytes[2]; /* of output and errors */
    int unwritten[2];  /* errno when ours could not be written; the program then got SIGPIPE */
    int64_t open_ns;   /* from the request to the open cell */
    char record[4096];
    struct buf connections; /* of the proxy, a JSON object a line; owned */
    int layer;              /* of a copy workspace: what was written; owned, -1 without */
    json_t *calls;          /* refused system calls by name, with log_calls: how often; owned */
};
enum { RELAY_CALLS_MAX = 256 };

void relay_result_done(struct relay_result *r); /* takes NULL */

NODISCARD int relay_run(const struct sandbox_spec *spec, const struct relay_opts *o,
                        struct relay_result *out, struct err *err);

#endif
