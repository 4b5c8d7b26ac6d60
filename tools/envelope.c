/* envelope.c - results as text: cleaning, cutting, the status line. */
#include "tools/envelope.h"

#include <stdarg.h>
#include <string.h>

#include "base/mem.h"

const char *tool_status_name(enum tool_status s)
{
    static const char *const names[] = {
        [TOOL_OK] = "ok",           [TOOL_FAILED] = "failed",
        [TOOL_INVALID] = "invalid", [TOOL_DENIED] = "denied",
        [TOOL_TIMED_OUT] = "timed_out", [TOOL_CANCELLED] = "cancelled",
        [TOOL_KILLED] = "killed",   [TOOL_RUNNING] = "running",
        [TOOL_UNKNOWN] = "unknown", [TOOL_UNAVAILABLE] = "unavailable",
    };
    return (unsigned)s < ARRAY_LEN(names) ? names[s] : "unknown";
}

int keep_init(struct keep *k, uint32_t head, uint32_t tail, struct err *err)
{
    *k = (struct keep){.head_max = head, .ring_max = tail};
    k->head = mem_alloc(head);
    k->ring = mem_alloc(tail);
    if (!k->head || !k->ring) {
        keep_done(k);
        return err_nomem(err);
    }
    return 0;
}

void keep_done(struct keep *k)
{
    mem_free(k->head);
    mem_free(k->ring);
    *k = (struct keep){0};
}

void keep_reset(struct keep *k)
{
    k->head_len = 0;
    k->total = 0;
}

void keep_feed(struct keep *k, const void *p, size_t n)
{
    const uint8_t *s = p;
    size_t room = k->head_max - k->head_len;
    size_t first = n < room ? n : room;
    memcpy(k->head + k->head_len, s, first);
    k->head_len += (uint32_t)first;
    k->total += n;
    s += first;
    n -= first;
    if (n == 0 || k->ring_max == 0)
        return;
    /* Only the last ring_max bytes of this piece can survive. */
    if (n > k->ring_max) {
        s += n - k->ring_max;
        n = k->ring_max;
    }
    size_t at = (size_t)((k->total - k->head_len - n) % k->ring_max);
    size_t to_end = k->ring_max - at;
    memcpy(k->ring + at, s, n < to_end ? n : to_end);
    if (n > to_end)
        memcpy(k->ring, s + to_end, n - to_end);
}

/* What stands for a control character: its picture, U+2400 and on, or U+FFFD where Unicode
 * has none. */
static void put_control(struct buf *out, uint32_t cp)
{
    if (cp >= 0x80) {
        buf_puts(out, "\xEF\xBF\xBD");
        return;
    }
    buf_puts(out, "\xE2\x90");
    buf_putc(out, (char)(0x80 + (cp == 0x7f ? 0x21 : cp)));
}

void envelope_clean(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t cp = 0;
        size_t n = utf8_decode(s, i, &cp);
        bool ends_line = cp == '\r' && i + 1 < s.n && s.p[i + 1] == '\n';
        if (n == 0)
            buf_puts(out, "\xEF\xBF\xBD");
        else if ((cp >= 0x20 && cp < 0x7f) || cp >= 0xa0 || cp == '\n' || cp == '\t')
            buf_add(out, s.p + i, n);
        else if (!ends_line)
            put_control(out, cp);
        i += n ? n : 1;
    }
}

/* Both kept pieces are cut back to whole characters at the gap. */
static struct str cut_end(struct str s)
{
    return str_sub(s, 0, utf8_complete(s));
}

static struct str cut_start(struct str s)
{
    size_t i = 0;
    while (i < s.n && i < 3 && ((unsigned char)s.p[i] & 0xc0) == 0x80)
        i++;
    return str_sub(s, i, s.n);
}

void keep_text(const struct keep *k, struct buf *out, uint64_t *cut)
{
    uint64_t rest = k->total - k->head_len;
    struct str head = str_of(k->head, k->head_len);
    *cut = 0;
    if (rest == 0) {
        envelope_clean(out, head);
        return;
    }
    struct buf tail;
    buf_init(&tail, 0);
    size_t kept = rest < k->ring_max ? (size_t)rest : k->ring_max;
    size_t at = k->ring_max ? (size_t)((rest - kept) % k->ring_max) : 0;
    size_t to_end = k->ring_max - at;
    buf_add(&tail, k->ring + at, kept < to_end ? kept : to_end);
    if (kept > to_end)
        buf_add(&tail, k->ring, kept - to_end);
    if (rest == kept) { /* nothing lost between the two: one text */
        struct buf all;
        buf_init(&all, 0);
        buf_str(&all, head);
        buf_str(&all, buf_view(&tail));
        envelope_clean(out, buf_view(&all));
        buf_done(&all);
    } else {
        struct str t = cut_start(buf_view(&tail));
        head = cut_end(head);
        *cut = k->total - head.n - t.n;
        envelope_clean(out, head);
        envelope_newline(out);
        buf_printf(out, "... %llu bytes left out ...\n", (unsigned long long)*cut);
        envelope_clean(out, t);
    }
    buf_done(&tail);
}

void envelope_newline(struct buf *out)
{
    if (out->len && out->data[out->len - 1] != '\n')
        buf_putc(out, '\n');
}

void envelope_status(struct buf *out, const char *fmt, ...)
{
    va_list ap;
    envelope_newline(out);
    buf_putc(out, '[');
    va_start(ap, fmt);
    buf_vprintf(out, fmt, ap);
    va_end(ap);
    buf_putc(out, ']');
}

void envelope_truncated(struct buf *out, const struct keep *k, int64_t spill)
{
    envelope_newline(out);
    buf_printf(out, "[truncated: kept %u+%u of %llu bytes; ", k->head_max, k->ring_max,
               (unsigned long long)k->total);
    if (spill >= 0)
        buf_printf(out, "full output: spill:%lld, read with open or str_replace_editor view]",
                   (long long)spill);
    else
        buf_puts(out, "repeat the command into a file to see the rest]");
}
