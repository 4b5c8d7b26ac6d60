/*
 * buf.h - growable bytes with a cap and sticky failure.
 *
 * Append freely; when memory or the cap is exhausted the buffer remembers and every later
 * append is a no-op. Check once, with buf_check(), where the bytes leave. The data is kept
 * NUL-terminated (the NUL is not counted), so buf_cstr() is free.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

struct buf {
    uint8_t *data; /* owned */
    size_t len, cap, max;
    int failed; /* 0, ERR_NOMEM or ERR_LIMIT */
};

void buf_init(struct buf *b, size_t max); /* max 0 = no cap but memory */
void buf_done(struct buf *b);
void buf_reset(struct buf *b); /* empties, keeps the memory, forgets failure */

void buf_add(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, struct str s);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) PRINTF(2, 0);
/* Room for n more bytes at the returned pointer, or NULL; commit with b->len += n. */
uint8_t *buf_room(struct buf *b, size_t n);
void buf_consume(struct buf *b, size_t n);  /* drops n bytes from the front */
void buf_truncate(struct buf *b, size_t n); /* keeps the first n bytes */

struct str buf_view(const struct buf *b);
const char *buf_cstr(const struct buf *b);
/* Gives the bytes (NUL-terminated, mem_free() them) and empties the buffer. */
NODISCARD char *buf_take(struct buf *b);
/* 0, or -ERR_NOMEM/-ERR_LIMIT with a sentence that names `what`. */
NODISCARD int buf_check(const struct buf *b, const char *what, struct err *err);

#endif
