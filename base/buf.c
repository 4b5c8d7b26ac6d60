/* buf.c - growable bytes; growth doubles, and stops at the cap. */
#include "base/buf.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_done(struct buf *b)
{
    mem_free(b->data);
    *b = (struct buf){.max = b->max};
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->failed = 0;
    if (b->data)
        b->data[0] = '\0';
}

uint8_t *buf_room(struct buf *b, size_t n)
{
    size_t need;
    if (b->failed)
        return NULL;
    if (!mem_add(b->len, n, &need) || need == SIZE_MAX || (b->max && need > b->max)) {
        b->failed = ERR_LIMIT;
        return NULL;
    }
    if (need + 1 > b->cap) {
        size_t cap = b->cap ? b->cap : 64;
        while (cap < need + 1)
            cap = cap > SIZE_MAX / 2 ? need + 1 : cap * 2;
        uint8_t *p = mem_resize(b->data, cap, 1);
        if (!p) {
            b->failed = ERR_NOMEM;
            return NULL;
        }
        b->data = p;
        b->cap = cap;
    }
    return b->data + b->len;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    uint8_t *at = buf_room(b, n);
    if (!at)
        return;
    if (n)
        memcpy(at, p, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void buf_str(struct buf *b, struct str s)
{
    buf_add(b, s.p, s.n);
}

void buf_puts(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_putc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    uint8_t *at = n >= 0 ? buf_room(b, (size_t)n) : NULL;
    if (at) {
        vsnprintf((char *)at, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

void buf_consume(struct buf *b, size_t n)
{
    if (n > b->len)
        n = b->len;
    if (n == 0)
        return;
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
    b->data[b->len] = '\0';
}

void buf_truncate(struct buf *b, size_t n)
{
    if (n >= b->len)
        return;
    b->len = n;
    b->data[n] = '\0';
}

struct str buf_view(const struct buf *b)
{
    return str_of(b->data, b->len);
}

const char *buf_cstr(const struct buf *b)
{
    return b->data && b->len ? (const char *)b->data : "";
}

char *buf_take(struct buf *b)
{
    if (b->failed || !buf_room(b, 0))
        return NULL;
    b->data[b->len] = '\0';
    char *p = (char *)b->data;
    *b = (struct buf){.max = b->max};
    return p;
}

int buf_check(const struct buf *b, const char *what, struct err *err)
{
    if (!b->failed)
        return 0;
    if (b->failed == ERR_LIMIT)
        return err_set(err, ERR_LIMIT, "%s is larger than its cap of %zu bytes", what,
                       b->max);
    return err_nomem(err);
}
