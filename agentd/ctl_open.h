/*
 * ctl_open.h - where a command finds its daemon and its session: one set of options for all
 * commands that play turns.
 */
#ifndef AGENTD_CTL_OPEN_H
#define AGENTD_CTL_OPEN_H

#include "agentd/client.h"
#include "agentd/opt.h"

#define CTL_OPEN_UNSET INT64_MIN

struct ctl_open {
    bool private_mode; /* a daemon just for us */
    const char *engine, *config, *sandbox, *profile, *workspace, *session, *socket;
    int64_t max_steps, max_tokens; /* CTL_OPEN_UNSET = not given */
    bool verbose, copy;
};

/* The rows of these options; they stand first in the command's own table. */
enum { CTL_OPEN_ROWS = 12 };
void ctl_open_rows(struct ctl_open *o, struct opt rows[CTL_OPEN_ROWS]);
NODISCARD int ctl_open_daemon(struct client **out, const struct ctl_open *o, struct err *err);
/* Makes the session, or takes the one named; *id is owned (mem_free) and subscribed to. */
NODISCARD int ctl_open_session(char **id, struct client *c, const struct ctl_open *o,
                               struct err *err);
/* Exit code for what the daemon answered last, after ctl_fail() has said it. */
int ctl_open_failed(const struct client *c, const struct err *err);

#endif
