/*
 * http.h - one HTTP request, bounded in bytes and time; the only file that speaks libcurl.
 *
 * Redirects are not followed here, so that every hop can be checked. Only http and https.
 * An address that is private, loopback, link-local or otherwise not the public internet is
 * refused at the moment of connecting, whatever name led there, unless its host:port is in
 * `private_hosts` or a proxy does the connecting (then the proxy decides).
 */
#ifndef TOOLS_HTTP_H
#define TOOLS_HTTP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/err.h"

struct http_request {
    const char *url;
    const char *body;          /* POST when not NULL */
    const char *const *header; /* "Name: value", NULL-terminated, or NULL */
    const char *private_hosts; /* "127.0.0.1:8080,..." or NULL */
    bool private_ok;  /* the address was set up by hand: it may be private */
    uint32_t timeout_s;
    size_t max_bytes; /* the rest is not read; `cut` says so */
    int cancel_fd;    /* readable = stop; -1 = none */
};

struct http_reply {
    long status;
    struct buf body;     /* owned */
    bool cut;
    char type[160];      /* Content-Type, "" when absent */
    char redirect[2048]; /* where a 3xx leads, absolute; "" otherwise */
};

NODISCARD int http_get(const struct http_request *q, struct http_reply *out, struct err *err);
void http_reply_done(struct http_reply *r);

/* Whether an address is no business of a fetched page. */
bool http_is_private(const struct sockaddr *addr);
/* "%20" for a blank, and so on; everything but unreserved characters. */
void http_escape(struct buf *out, struct str s);

#endif
