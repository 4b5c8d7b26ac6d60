/*
 * err.h - a failure is a value with a sentence.
 *
 * A fallible function returns 0 or -ERR_*, takes `struct err *` last (never NULL), and on
 * failure leaves there the code, the errno if the kernel spoke, and one sentence that says
 * what happened and, where it can, what to do. Callers add context with err_prefix().
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include "base/compiler.h"

/* A code exists only because some caller branches on it. */
enum err_code {
    ERR_NOMEM = 1,   /* an allocation failed */
    ERR_SYS,         /* the kernel said no; err->sys holds errno */
    ERR_PARSE,       /* input is malformed */
    ERR_LIMIT,       /* input or use exceeds a cap */
    ERR_DENIED,      /* policy or credentials forbid it */
    ERR_NOTFOUND,    /* no such thing */
    ERR_STATE,       /* not now, or not twice */
    ERR_TIMEOUT,     /* a deadline passed */
    ERR_CANCELLED,   /* somebody asked us to stop */
    ERR_CORRUPT,     /* stored data contradicts itself */
    ERR_UNSUPPORTED, /* well-formed, but not ours to do */
};

struct err {
    int code;       /* enum err_code, 0 when unset */
    int sys;        /* errno, 0 when the kernel was not involved */
    char text[512]; /* one sentence, no trailing newline */
};

/* Each sets *err and returns -code, so that `return err_set(...)` is one line. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...) PRINTF(3, 4);
int err_sys(struct err *err, const char *fmt, ...) PRINTF(2, 3); /* appends strerror(errno) */
int err_nomem(struct err *err);

/* Puts "context: " before the sentence already in *err and returns its -code. */
int err_prefix(struct err *err, const char *fmt, ...) PRINTF(2, 3);

/* "notfound", "limit", ...: stable lower-case names for logs and JSON. */
const char *err_name(int code);

#endif
