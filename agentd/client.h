/*
 * client.h - the other end of the native protocol, for agentctl: blocking, one thread.
 */
#ifndef AGENTD_CLIENT_H
#define AGENTD_CLIENT_H

#include "base/json.h"

struct client;

struct client_private {
    const char *engine, *profile; /* NULL = what the configuration says */
    const char *sandbox;          /* NULL or "off" */
    const char *config;           /* NULL = none */
    const char *state;            /* NULL = temporary, removed at the end */
    bool verbose;                 /* the daemon's log goes to our stderr; else warnings only */
};

/* NULL = the default place. Sends initialize. */
NODISCARD int client_connect(struct client **out, const char *socket_path, struct err *err);
/* Starts a daemon of our own that ends with this connection, whoever of us dies first. */
NODISCARD int client_private(struct client **out, const struct client_private *o,
                             struct err *err);
/* Sends a request and waits for its reply; events that come meanwhile are kept for
 * client_next(). Takes params. *result is owned and may be NULL for "do not care". An error
 * reply is -ERR_DENIED with the daemon's sentence; client_error() has the object. */
NODISCARD int client_call(struct client *c, const char *method, json_t *params, json_t **result,
                          struct err *err);
/* The same, until no reply names a `next` page: its `after` is that, the lists of all pages
 * stand in one reply. */
NODISCARD int client_pages(struct client *c, const char *method, json_t *params, json_t **result,
                           struct err *err);
/* Sends without waiting; the reply comes through client_next(). */
NODISCARD int client_send(struct client *c, const char *method, json_t *params, int64_t *id,
                          struct err *err);
/* The next message (event or reply), owned; *msg NULL after timeout_ms (-1 = never).
 * -ERR_CANCELLED when a signal came, -ERR_SYS when the daemon is gone. */
NODISCARD int client_next(struct client *c, int timeout_ms, json_t **msg, struct err *err);
/* {code, message, data} of the last error reply, borrowed until the next call; or NULL. */
const json_t *client_error(const struct client *c);
/* What initialize answered. */
const json_t *client_server(const struct client *c);
int client_fd(const struct client *c);
void client_close(struct client *c);

#endif
