/* daemon_main.h - the daemon as main() sees it. */
#ifndef AGENTD_DAEMON_MAIN_H
#define AGENTD_DAEMON_MAIN_H

#include <stdbool.h>

#include "base/err.h"

struct daemon_opts {
    const char *config_path;  /* or NULL */
    const char *const *sets;  /* "section.key=value", over the file */
    unsigned n_sets;
    bool private_mode;        /* temporary state, ends with its one connection */
    int connect_fd;           /* an inherited connection to serve, or -1 */
};

/* Until a signal ends it. The sentence of a failed start is in err. */
NODISCARD int daemon_run(const struct daemon_opts *o, struct err *err);
NODISCARD int daemon_check_config(const struct daemon_opts *o, struct err *err);

#endif
