/* page.c - wrapping, numbering, links. */
#include "tools/page.h"

#include <string.h>

#include "base/mem.h"

int page_new(struct page **out, struct str title, struct str url, struct err *err)
{
    struct page *p = mem_zalloc(sizeof *p);
    if (!p)
        return err_nomem(err);
    p->title = mem_strdup(title);
    p->url = mem_strdup(url);
    buf_init(&p->text, 0);
    if (!p->title || !p->url) {
        page_free(p);
        return err_nomem(err);
    }
    *out = p;
    return 0;
}

void page_free(struct page *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; i < p->n_links; i++)
        mem_free(p->link[i].url);
    mem_free(p->link);
    mem_free(p->title);
    mem_free(p->url);
    mem_free(p->start);
    buf_done(&p->text);
    mem_free(p);
}

int page_add_link(struct page *p, struct str url, int64_t page, int64_t line)
{
    if (p->n_links == p->cap_links) {
        uint32_t cap = p->cap_links ? p->cap_links * 2 : 16;
        struct page_link *more = mem_resize(p->link, cap, sizeof *more);
        if (!more)
            return -1;
        p->link = more;
        p->cap_links = cap;
    }
    char *copy = mem_strdup(url);
    if (!copy)
        return -1;
    p->link[p->n_links] = (struct page_link){copy, page, line};
    return (int)p->n_links++;
}

struct wrap {
    struct page *p;
    uint32_t cap;
    bool failed;
};

static void new_line(struct wrap *w, size_t at)
{
    struct page *p = w->p;
    if (p->n_lines + 1 >= w->cap) {
        uint32_t cap = w->cap * 2;
        uint32_t *more = mem_resize(p->start, cap, sizeof *more);
        if (!more) {
            w->failed = true;
            return;
        }
        p->start = more;
        w->cap = cap;
    }
    p->start[p->n_lines++] = (uint32_t)at;
}

static bool is_letter(struct str s, size_t i)
{
    unsigned char c = i < s.n ? (unsigned char)s.p[i] : 0;
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}

/*
 * The next piece that is not broken if it fits: a run of blanks, or a word up to and with a
 * hyphen between letters. Returns its bytes; *chars its characters.
 */
static size_t next_piece(struct str s, size_t at, size_t end, size_t *chars)
{
    size_t i = at;
    bool blank = s.p[at] == ' ';
    *chars = 0;
    /* Beyond a line's width the length no longer matters: it will be cut anyway. */
    while (i < end && (s.p[i] == ' ') == blank && *chars <= PAGE_WIDTH) {
        uint32_t cp;
        size_t n = utf8_decode(s, i, &cp);
        (*chars)++;
        i += n ? n : 1;
        if (!blank && s.p[i - 1] == '-' && i >= at + 3 && is_letter(s, i - 2) &&
            is_letter(s, i) && is_letter(s, i + 1))
            break;
    }
    return i - at;
}

/* Bytes of the first `chars` characters at s[at]. */
static size_t take_chars(struct str s, size_t at, size_t end, size_t chars)
{
    size_t i = at;
    for (; chars && i < end; chars--) {
        uint32_t cp;
        size_t n = utf8_decode(s, i, &cp);
        i += n ? n : 1;
    }
    return i - at;
}

static void wrap_paragraph(struct wrap *w, struct str s, size_t at, size_t end)
{
    size_t used = 0;
    new_line(w, at);
    while (at < end && !w->failed) {
        size_t chars, n = next_piece(s, at, end, &chars);
        if (used + chars <= PAGE_WIDTH) {
            used += chars;
            at += n;
            continue;
        }
        if (chars > PAGE_WIDTH) { /* longer than a line: fill this one, go on in the next */
            at += take_chars(s, at, end, PAGE_WIDTH - used);
            if (at < end)
                new_line(w, at);
            used = 0;
            continue;
        }
        new_line(w, at);
        used = 0;
    }
}

int page_wrap(struct page *p, struct err *err)
{
    struct wrap w = {.p = p, .cap = 64};
    if (buf_check(&p->text, "page", err) < 0)
        return -err->code;
    if (p->text.len >= UINT32_MAX)
        return err_set(err, ERR_LIMIT, "the page is larger than 4 GB");
    p->start = mem_array(w.cap, sizeof *p->start);
    if (!p->start)
        return err_nomem(err);
    struct str s = buf_view(&p->text);
    for (size_t at = 0; at <= s.n && !w.failed;) {
        size_t nl = str_find(s, STR("\n"), at);
        size_t end = nl == STR_NONE ? s.n : nl;
        if (at == s.n && at > 0)
            break; /* the text ended with a newline */
        wrap_paragraph(&w, s, at, end);
        at = end + 1;
    }
    if (w.failed)
        return err_nomem(err);
    p->start[p->n_lines] = (uint32_t)s.n;
    return 0;
}

struct str page_line(const struct page *p, uint32_t line)
{
    if (line >= p->n_lines)
        return (struct str){0};
    struct str s = str_sub(buf_view(&p->text), p->start[line],
                           p->start[line + 1] - p->start[line]);
    if (s.n && s.p[s.n - 1] == '\n')
        s.n--;
    return s;
}

uint32_t page_line_of(const struct page *p, size_t offset)
{
    uint32_t lo = 0, hi = p->n_lines;
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (p->start[mid] <= offset)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

void page_show(const struct page *p, int64_t cursor, uint32_t first, uint32_t count,
               struct buf *out)
{
    uint32_t last = p->n_lines ? p->n_lines - 1 : 0;
    if (first > last)
        first = last;
    uint32_t end = count && count - 1 < last - first ? first + count - 1 : last;
    buf_printf(out, "[%lld] %s (%s)\n**viewing lines [%u - %u] of %u**\n", (long long)cursor,
               p->title, p->url, first, end, last);
    for (uint32_t i = first; i <= end; i++) {
        buf_printf(out, "\nL%u: ", i);
        buf_str(out, page_line(p, i));
    }
}

struct str page_domain(struct str url)
{
    size_t at = str_find(url, STR("://"), 0);
    if (at == STR_NONE)
        return STR("local");
    struct str host = str_sub(url, at + 3, url.n);
    size_t n = 0;
    while (n < host.n && host.p[n] != '/' && host.p[n] != '?' && host.p[n] != '#')
        n++;
    host = str_sub(host, 0, n);
    size_t user = str_find(host, STR("@"), 0);
    if (user != STR_NONE)
        host = str_sub(host, user + 1, host.n);
    size_t port = str_find(host, STR(":"), 0);
    return port == STR_NONE ? host : str_sub(host, 0, port);
}
