/*
 * netcheck.h - what the proxy decides, as pure functions: the head of a request, whether a
 * name is allowed, whether an address may be dialled, which server a TLS client asks for.
 * All input is hostile; nothing here allocates or touches the network.
 */
#ifndef AGENTD_NETCHECK_H
#define AGENTD_NETCHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "agentd/policy.h"
#include "base/str.h"

enum { NETCHECK_HEAD_MAX = 8192, NETCHECK_HELLO_MAX = 16389, NETCHECK_HOST_MAX = 254 };

struct netcheck_head {
    bool connect;       /* CONNECT host:port, else GET or HEAD of http://host[:port]/... */
    bool head;          /* HEAD */
    char host[NETCHECK_HOST_MAX]; /* lower case; without brackets */
    uint16_t port;
    struct str target;  /* origin form of the path, borrowed from the input; "/" at least */
    struct str headers; /* the header lines, borrowed, without the empty line */
    size_t size;        /* bytes of the head, the empty line included */
};

/*
 * Reads one request head. 0 = complete; 1 = more bytes are needed; negative = refused, with a
 * sentence for the reply. Strict: CRLF, one Host at most and equal to the target, no user
 * part, no fragment, no folding, no transfer coding, no body.
 */
NODISCARD int netcheck_head(struct str in, struct netcheck_head *out, struct err *err);

/* Whether the policy lets this host and port be asked for at all; a sentence when not. A
 * literal address must be listed in canonical form. */
NODISCARD int netcheck_host(const struct policy *p, const char *host, uint16_t port,
                            bool connect, struct err *err);

/* Whether an address may be dialled: public and not of this machine, or listed itself. */
bool netcheck_address(const struct policy *p, const struct sockaddr *a);
/* Its text, canonical. */
void netcheck_text(const struct sockaddr *a, char *buf, size_t cap);

/*
 * The server name in a TLS ClientHello. 0 = complete, *name may be empty when there is none;
 * 1 = more bytes are needed; negative = not a ClientHello.
 */
NODISCARD int netcheck_hello(struct str in, char name[NETCHECK_HOST_MAX], struct err *err);

#endif
