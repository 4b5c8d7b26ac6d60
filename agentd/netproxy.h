/*
 * netproxy.h - the only way out of a cell in network mode proxy. It accepts on the cell's own
 * loopback (the listening socket was made inside and handed out), reads one CONNECT, GET or
 * HEAD, asks the policy, resolves the name once, checks every address, dials the checked one,
 * compares the TLS server name with the name that was asked for, and then copies bytes.
 *
 * Secrets are added here, to plain requests for the one host they are meant for, and travel
 * on over TLS; they are never inside. One audit record per connection.
 */
#ifndef AGENTD_NETPROXY_H
#define AGENTD_NETPROXY_H

#include "agentd/ev.h"
#include "agentd/policy.h"

struct netproxy;

struct netproxy_opts {
    struct ev *ev;              /* borrowed */
    const struct policy *policy; /* borrowed, until netproxy_free */
    /* One JSON object per connection when it ends; may be NULL. */
    void (*audit)(void *arg, const char *record);
    void *arg;
};

NODISCARD int netproxy_new(struct netproxy **out, const struct netproxy_opts *o,
                           struct err *err);
/* Serves a listening socket, which it takes, also on failure. */
NODISCARD int netproxy_add(struct netproxy *p, int listener, struct err *err);
/* Ends every connection (their records come first). Takes NULL. */
void netproxy_free(struct netproxy *p);
unsigned netproxy_connections(const struct netproxy *p);

#endif
