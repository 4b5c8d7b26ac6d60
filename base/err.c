/* err.c - builds error sentences; allocates nothing, so it works when memory is gone. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    err->code = (int)code;
    err->sys = 0;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    return -(int)code;
}

int err_sys(struct err *err, const char *fmt, ...)
{
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    err->code = ERR_SYS;
    err->sys = saved;
    if (n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", strerror(saved));
    return -ERR_SYS;
}

int err_nomem(struct err *err)
{
    return err_set(err, ERR_NOMEM, "out of memory");
}

int err_prefix(struct err *err, const char *fmt, ...)
{
    char old[sizeof err->text];
    va_list ap;
    memcpy(old, err->text, sizeof old);
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    return -err->code;
}

const char *err_name(int code)
{
    static const char *const names[] = {
        [0] = "ok",
        [ERR_NOMEM] = "nomem",
        [ERR_SYS] = "sys",
        [ERR_PARSE] = "parse",
        [ERR_LIMIT] = "limit",
        [ERR_DENIED] = "denied",
        [ERR_NOTFOUND] = "notfound",
        [ERR_STATE] = "state",
        [ERR_TIMEOUT] = "timeout",
        [ERR_CANCELLED] = "cancelled",
        [ERR_CORRUPT] = "corrupt",
        [ERR_UNSUPPORTED] = "unsupported",
    };
    if (code < 0)
        code = -code;
    return (size_t)code < ARRAY_LEN(names) ? names[code] : "unknown";
}
