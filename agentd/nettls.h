/*
 * nettls.h - one GET over TLS with a secret header, for netproxy. libcurl does TLS and HTTP;
 * the address is the one that was checked, redirects are not followed.
 */
#ifndef AGENTD_NETTLS_H
#define AGENTD_NETTLS_H

#include <stddef.h>

#include "agentd/ev.h"
#include "agentd/policy.h"

struct nettls;

struct nettls_opts {
    struct ev *ev;
    const char *host, *address; /* address: text of the checked one */
    struct str target, headers; /* borrowed for the call */
    bool head;                  /* HEAD instead of GET */
    const struct policy_secret *secret; /* borrowed, until nettls_free */
    size_t room;                /* bytes that cb can take now */
    /* Bytes of an HTTP/1.1 response; data NULL = the end; why not empty = it failed. */
    void (*cb)(void *arg, const void *data, size_t n, const char *why);
    void *arg;
};

NODISCARD int nettls_new(struct nettls **out, const struct nettls_opts *o, struct err *err);
void nettls_room(struct nettls *t, size_t room); /* the receiver has taken some */
void nettls_free(struct nettls *t);

#endif
