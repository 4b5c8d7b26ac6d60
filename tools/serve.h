/*
 * serve.h - agentd-tool serve: calls as lines of JSON, one at a time, in order.
 *
 *   -> {"id": 1, "tool": "bash", "args": {"command": "ls"}, "profile": "demo",
 *       "workspace": "/dir", "index": "/dir/index.db", "timeout_s": 20, "hard_s": 40,
 *       "jobs": true, "stream": true, "first_cursor": 3, "content": "...",
 *       "ahead": [{"tool": "open", "args": {...}}]}
 *   <- {"id": 1, "out": "a\n", "stream": 1}                      while it runs, if asked for
 *   <- {"id": 1, "text": "...", "status": "ok", "is_error": false, "exit_code": 0, ...}
 *   -> {"id": 2, "reset": true}                                  forget all state
 *   -> {"cancel": 1}                                             only on a control socket
 *
 * All but "tool" may be absent. `args` is an object or its JSON text. A workspace other than
 * the last one resets by itself. A line that is no request is answered with {"error": ...}.
 * The tool "spill" {"id": "spill:7"} answers with a kept output, which "content" then hands
 * to an `open` of that id in another process. "ahead" names calls that will follow: what they
 * need of the network is fetched meanwhile.
 */
#ifndef TOOLS_SERVE_H
#define TOOLS_SERVE_H

#include "tools/toolbox.h"

struct serve_opts {
    int in, out;         /* may be the same socket */
    bool cancels;        /* what arrives during a call is a wish to end it */
    bool as_workspace;   /* show each workspace at /workspace, in a mount namespace of ours */
    const char *profile; /* used when a request names none */
    struct toolbox_opts box;
};
/* Until end of input. */
NODISCARD int serve_run(const struct serve_opts *o, struct err *err);

/* A private mount namespace in which /workspace exists; then any folder can be put there. */
NODISCARD int workspace_enter(struct err *err);
NODISCARD int workspace_show(const char *folder, struct err *err);

#endif
