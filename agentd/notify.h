/* notify.h - the service manager's protocol (sd_notify, sockets by activation) without its
 * library. Silent where no manager is. */
#ifndef AGENTD_NOTIFY_H
#define AGENTD_NOTIFY_H

#include "agentd/ev.h"

/* Sends lines such as "READY=1\nSTATUS=..." to $NOTIFY_SOCKET. */
void notify_send(const char *lines);
/* "RELOADING=1" with the clock that Type=notify-reload wants. */
void notify_reloading(void);
/* Pings the watchdog from the loop at half of $WATCHDOG_USEC. *out stays NULL when unset. */
NODISCARD int notify_watchdog(struct ev_timer **out, struct ev *ev, struct err *err);
/* Descriptors passed for us, by name ("native"); -1 when there is none. Checked to be
 * listening Unix stream sockets. Clears the variables. Call once. */
NODISCARD int notify_listener(const char *name, int *fd, struct err *err);

#endif
