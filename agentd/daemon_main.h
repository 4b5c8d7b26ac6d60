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

/* The parts of daemon_run(), for tests that have the daemon in their own process. One at a
 * time; o is borrowed until the stop. daemon_adopt() takes a connected socket. */
NODISCARD int daemon_start(const struct daemon_opts *o, struct err *err);
NODISCARD int daemon_adopt(int fd, struct err *err);
void daemon_step(bool wait); /* one round of the event loop */
void daemon_stop(void);
/* Until a signal ends it. The sentence of a failed start is in err. */
NODISCARD int daemon_run(const struct daemon_opts *o, struct err *err);
NODISCARD int daemon_check_config(const struct daemon_opts *o, struct err *err);

#endif
