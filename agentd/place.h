/* place.h - where the socket and the state live when nobody says otherwise; the daemon and
 * its clients agree because both ask here. */
#ifndef AGENTD_PLACE_H
#define AGENTD_PLACE_H

#include <stddef.h>

#include "base/err.h"

/* $STATE_DIRECTORY (systemd), $XDG_STATE_HOME/agentd, or ~/.local/state/agentd. */
NODISCARD int place_state(char *out, size_t size, struct err *err);
/* $RUNTIME_DIRECTORY/agentd.sock (systemd), $XDG_RUNTIME_DIR/agentd/agentd.sock, or
 * agentd.sock in the state folder, which must then be ours with mode 0700. */
NODISCARD int place_socket(char *out, size_t size, struct err *err);
/* mkdtemp() under $XDG_RUNTIME_DIR or $TMPDIR or /tmp: mode 0700, a name nobody guesses. */
NODISCARD int place_private(char *out, size_t size, struct err *err);
/* Removes a folder made by place_private() and all in it; symlinks are not followed. */
void place_remove(const char *dir);

#endif
