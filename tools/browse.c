/*
 * browse.c - search, open, find, in the shape published with DeepSeek-V3.2's search agent.
 *
 * Every answer has a cursor of its own, and a cursor never changes its document: what a
 * citation names can be shown again. Scrolling gives a new cursor for the same document.
 * These answers carry no status line; a failure is one sentence.
 */
#include "tools/browse.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "tools/html.h"
#include "tools/web.h"

#define GONE UINT32_MAX /* a cursor of an earlier process */
enum { SEARCH_MAX = 50, FIND_LINES = 4, FIND_MAX = 25, PATTERN_MAX = 500 };

int browser_get(struct toolbox *t, struct browser **out, struct err *err)
{
    if (!t->browser)
        t->browser = mem_zalloc(sizeof *t->browser);
    *out = t->browser;
    return t->browser ? 0 : err_nomem(err);
}

void browser_free(struct browser *b)
{
    if (!b)
        return;
    for (uint32_t i = 0; i < b->n_docs; i++)
        page_free(b->doc[i]);
    mem_free(b->doc);
    index_close(b->index);
    mem_free(b->index_path);
    web_free(b->web);
    mem_free(b);
}

void browser_forget(struct browser *b)
{
    if (!b)
        return;
    for (uint32_t i = 0; i < b->n_docs; i++)
        page_free(b->doc[i]);
    b->n_docs = 0;
    b->n_cursors = 0;
}

int browser_add(struct browser *b, struct page *p, uint32_t *doc, struct err *err)
{
    if (b->n_docs == b->cap_docs) {
        uint32_t cap = b->cap_docs ? b->cap_docs * 2 : 16;
        struct page **more = mem_resize(b->doc, cap, sizeof(struct page *));
        if (!more) {
            page_free(p);
            return err_nomem(err);
        }
        b->doc = more;
        b->cap_docs = cap;
    }
    *doc = b->n_docs;
    b->doc[b->n_docs++] = p;
    return 0;
}

int browser_index(struct toolbox *t, struct browser *b, struct index **out, struct err *err)
{
    const char *path = t->opts.index;
    *out = NULL;
    if (!path)
        return 0;
    if (b->index && strcmp(path, b->index_path) == 0) {
        *out = b->index;
        return index_refresh(b->index, path, err);
    }
    index_close(b->index);
    mem_free(b->index_path);
    b->index = NULL;
    b->index_path = mem_strdup(str_c(path));
    if (!b->index_path)
        return err_nomem(err);
    int rc = index_open(&b->index, path, false, err);
    if (rc == 0)
        *out = b->index;
    return rc;
}

static void sentence(struct answer *a, const char *fmt, ...) PRINTF(2, 3);
static void sentence(struct answer *a, const char *fmt, ...)
{
    va_list ap;
    struct buf b;
    buf_init(&b, 0);
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    envelope_clean(&a->text, buf_view(&b));
    a->status = TOOL_FAILED;
    buf_done(&b);
}

/* Cursors that an earlier process of this session gave out are never given again. */
static void skip_cursors(struct browser *b, uint32_t first)
{
    while (b && b->n_cursors < first && b->n_cursors < LIMIT_PAGES)
        b->cursor[b->n_cursors++] = GONE;
}

/* Shows lines of a document under a new cursor. */
static void show(struct browser *b, uint32_t doc, uint32_t first, uint32_t count,
                 struct answer *a)
{
    if (b->n_cursors == LIMIT_PAGES) {
        sentence(a, "%d pages have been opened, the most there can be in one session",
                 LIMIT_PAGES);
        return;
    }
    b->cursor[b->n_cursors] = doc;
    page_show(b->doc[doc], b->n_cursors++, first, count, &a->text);
}

/* --- search ------------------------------------------------------------------------------ */

struct results {
    struct page *page;
    unsigned n;
    bool failed;
};

static void add_hit(struct results *r, const struct browse_hit *h)
{
    struct buf *t = &r->page->text;
    int id = page_add_link(r->page, h->url, -1, -1);
    if (id < 0) {
        r->failed = true;
        return;
    }
    buf_printf(t, "%s  * 【%d†", r->n++ ? "\n" : "", id);
    envelope_clean(t, h->title);
    buf_puts(t, "; publish_date: ");
    if (h->date.n)
        envelope_clean(t, h->date);
    else
        buf_puts(t, "none");
    buf_puts(t, "†");
    envelope_clean(t, page_domain(h->url));
    buf_puts(t, "】 ");
    envelope_clean(t, h->snippet);
}

static void add_index_hit(void *arg, const struct index_hit *h)
{
    const struct browse_hit hit = {h->title, h->url, h->snippet, {0}};
    add_hit(arg, &hit);
}

static void add_web_hit(void *arg, const struct browse_hit *h)
{
    add_hit(arg, h);
}

static int collect(struct toolbox *t, struct browser *b, const struct toolbox_request *r,
                   struct str query, unsigned topn, struct results *res, struct err *err)
{
    struct index *x = NULL;
    int rc = browser_index(t, b, &x, err);
    if (rc == 0 && x)
        rc = index_search(x, query, topn, add_index_hit, res, err);
    if (rc == 0 && !x && !web_can_search(t))
        return err_set(err, ERR_UNSUPPORTED, "there is nothing to search: no local index and no "
                       "search provider is set up");
    if (rc == 0 && res->n < topn && web_can_search(t))
        rc = web_search(t, r, query, topn - res->n, add_web_hit, res, err);
    if (rc < 0 && rc != -ERR_CANCELLED && x && res->n)
        rc = 0; /* what the index has is an answer */
    return rc;
}

static unsigned hits_wanted(const json_t *args, const struct tool_limits *limits)
{
    const json_t *n = json_object_get(args, "topn");
    json_int_t topn = json_is_integer(n) ? json_integer_value(n) : limits->topn;
    return (unsigned)(topn < 1 ? 1 : topn > SEARCH_MAX ? SEARCH_MAX : topn);
}

static struct str query_of(const json_t *args)
{
    struct str query = str_trim(json_view(json_object_get(args, "query")));
    return str_sub(query, 0, utf8_complete(str_sub(query, 0, 1000)));
}

void tool_search(struct toolbox *t, const struct toolbox_request *r, struct answer *a)
{
    struct str query = query_of(r->args);
    unsigned topn = hits_wanted(r->args, r->limits);
    struct results res = {0};
    struct browser *b;
    struct err err = {0};
    struct buf title, url;
    uint32_t doc;
    if (query.n == 0) {
        sentence(a, "the query is empty");
        return;
    }
    buf_init(&title, 0);
    buf_init(&url, 0);
    envelope_clean(&title, query);
    for (size_t i = 0; i < title.len; i++)
        if (title.data[i] == '\n' || title.data[i] == '\t')
            title.data[i] = ' ';
    buf_printf(&url, "Search_Results/%s", buf_cstr(&title));
    int rc = browser_get(t, &b, &err);
    if (rc == 0)
        skip_cursors(b, r->first_cursor);
    if (rc == 0)
        rc = page_new(&res.page, buf_view(&title), buf_view(&url), &err);
    if (rc == 0) {
        buf_printf(&res.page->text, "\nURL: %s\n# Search Results\n\n", res.page->url);
        rc = collect(t, b, r, query, topn, &res, &err);
    }
    if (rc == 0 && res.n == 0)
        buf_truncate(&res.page->text, res.page->text.len - 2);
    if (rc == 0)
        rc = page_wrap(res.page, &err);
    if (rc == 0) {
        rc = browser_add(b, res.page, &doc, &err);
        res.page = NULL;
    }
    if (rc == 0)
        show(b, doc, 0, 0, a);
    else
        sentence(a, "Error searching for `%.*s`: %s", STR_ARG(query), err.text);
    page_free(res.page);
    buf_done(&title);
    buf_done(&url);
}

/* --- open -------------------------------------------------------------------------------- */

static int64_t int_arg(const json_t *args, const char *key)
{
    const json_t *v = json_object_get(args, key);
    return json_is_integer(v) ? json_integer_value(v) : -1;
}

/* The page under the cursor, or the last one shown; NULL with a sentence. */
static struct page *current(struct browser *b, int64_t cursor, uint32_t *doc, struct answer *a)
{
    if (b->n_cursors == 0) {
        sentence(a, "no page is open yet; search first");
        return NULL;
    }
    if (cursor < 0)
        cursor = b->n_cursors - 1;
    if (cursor >= b->n_cursors) {
        sentence(a, "there is no page with cursor %lld; cursors go from 0 to %u",
                 (long long)cursor, b->n_cursors - 1);
        return NULL;
    }
    *doc = b->cursor[cursor];
    if (*doc == GONE) {
        sentence(a, "page %lld is no longer open; open it again by its URL, or search again",
                 (long long)cursor);
        return NULL;
    }
    return b->doc[*doc];
}

static int load_spill(struct toolbox *t, const struct toolbox_request *r, struct str url,
                      struct page **out, struct err *err)
{
    struct buf data;
    buf_init(&data, 0);
    int rc = r->content.n ? 0 : toolbox_read_spill(t, url, &data, err);
    if (rc == 0)
        rc = html_page(out, url, STR("text/plain; charset=utf-8"),
                       r->content.n ? r->content : buf_view(&data), false, true, err);
    buf_done(&data);
    return rc;
}

/* From the local index, a kept output, or the web. */
static int load(struct toolbox *t, struct browser *b, const struct toolbox_request *r,
                struct str url, bool source, struct page **out, struct err *err)
{
    struct index *x = NULL;
    if (str_starts(url, STR("spill:")))
        return load_spill(t, r, url, out, err);
    int rc = browser_index(t, b, &x, err);
    if (rc < 0)
        return rc;
    if (x) {
        rc = index_page(x, url, out, err);
        if (rc != -ERR_NOTFOUND)
            return rc;
    }
    return web_fetch(t, url, source, r->cancel_fd, out, err);
}

/* A document already loaded under this URL is shown again, byte for byte. */
static bool loaded(const struct browser *b, struct str url, uint32_t *doc)
{
    for (uint32_t i = 0; i < b->n_docs; i++)
        if (str_is(url, b->doc[i]->url)) {
            *doc = i;
            return true;
        }
    return false;
}

static void open_url(struct toolbox *t, struct browser *b, const struct toolbox_request *r,
                     struct str url, struct answer *a)
{
    struct err err = {0};
    struct page *p = NULL;
    uint32_t doc;
    bool source = json_is_true(json_object_get(r->args, "view_source"));
    int64_t loc = int_arg(r->args, "loc"), n = int_arg(r->args, "num_lines");
    int rc = 0;
    if (source || !loaded(b, url, &doc)) {
        rc = load(t, b, r, url, source, &p, &err);
        if (rc == 0)
            rc = browser_add(b, p, &doc, &err);
    }
    if (rc < 0)
        sentence(a, "Error fetching URL `%.*s`: %s", STR_ARG(str_sub(url, 0, 300)), err.text);
    else
        show(b, doc, loc > 0 ? (uint32_t)(loc < UINT32_MAX ? loc : UINT32_MAX) : 0,
             n > 0 ? (uint32_t)(n < 2000 ? n : 2000) : r->limits->view_lines, a);
}

static void open_link(struct toolbox *t, struct browser *b, const struct toolbox_request *r,
                      int64_t id, struct answer *a)
{
    uint32_t doc;
    int64_t cursor = int_arg(r->args, "cursor"), loc = int_arg(r->args, "loc");
    struct page *p = current(b, cursor, &doc, a);
    if (!p)
        return;
    if (id >= p->n_links) {
        if (p->n_links)
            sentence(a, "this page has no link %lld; its links go from 0 to %u", (long long)id,
                     p->n_links - 1);
        else
            sentence(a, "this page has no links; give another cursor, or leave out id to scroll");
        return;
    }
    const struct page_link *l = &p->link[id];
    if (l->page >= 0) {
        int64_t n = int_arg(r->args, "num_lines");
        show(b, (uint32_t)l->page, (uint32_t)(loc >= 0 ? loc : l->line),
             n > 0 ? (uint32_t)(n < 2000 ? n : 2000) : r->limits->view_lines, a);
        return;
    }
    open_url(t, b, r, str_c(l->url), a);
}

void tool_open(struct toolbox *t, const struct toolbox_request *r, struct answer *a)
{
    const json_t *id = json_object_get(r->args, "id");
    struct browser *b;
    struct err err = {0};
    uint32_t doc;
    if (browser_get(t, &b, &err) < 0) {
        sentence(a, "%s", err.text);
        return;
    }
    skip_cursors(b, r->first_cursor);
    if (json_is_string(id)) {
        open_url(t, b, r, str_trim(json_view(id)), a);
    } else if (json_is_integer(id) && json_integer_value(id) >= 0) {
        open_link(t, b, r, json_integer_value(id), a);
    } else if (current(b, int_arg(r->args, "cursor"), &doc, a)) {
        int64_t loc = int_arg(r->args, "loc"), n = int_arg(r->args, "num_lines");
        show(b, doc, loc > 0 ? (uint32_t)(loc < UINT32_MAX ? loc : UINT32_MAX) : 0,
             n > 0 ? (uint32_t)(n < 2000 ? n : 2000) : r->limits->view_lines, a);
    }
}

/* --- find -------------------------------------------------------------------------------- */

/* Case is ignored for ASCII letters; offsets stay those of the text. */
static size_t find_text(struct str s, struct str pattern, size_t from)
{
    for (size_t i = from; pattern.n && i + pattern.n <= s.n; i++)
        if (strncasecmp(s.p + i, pattern.p, pattern.n) == 0)
            return i;
    return STR_NONE;
}

/* Adds each match with the lines that follow it to a page of results. */
static unsigned find_all(const struct page *p, uint32_t doc, struct str pattern, unsigned most,
                         struct page *out)
{
    unsigned n = 0;
    uint32_t shown_to = 0; /* first line not shown yet */
    struct str text = buf_view(&p->text);
    for (size_t at = 0; n < most && (at = find_text(text, pattern, at)) != STR_NONE;
         at += pattern.n) {
        uint32_t line = page_line_of(p, at);
        if (n && line < shown_to)
            continue;
        int id = page_add_link(out, str_c(p->url), doc, line);
        if (id < 0)
            break;
        buf_printf(&out->text, "%s# 【%d†match at L%u】\n", n++ ? "\n\n" : "", id, line);
        for (uint32_t i = line; i < line + FIND_LINES && i < p->n_lines; i++) {
            /* Lines of one paragraph stay joined, so that they are cut as they were. */
            size_t from = p->start[i], to = p->start[i + 1];
            bool last = i + 1 == line + FIND_LINES || i + 1 == p->n_lines;
            struct str piece = last ? page_line(p, i) : str_sub(text, from, to - from);
            buf_str(&out->text, piece);
        }
        shown_to = line + FIND_LINES;
    }
    return n;
}

void tool_find_in_page(struct toolbox *t, const struct toolbox_request *r, struct answer *a)
{
    struct str pattern = json_view(json_object_get(r->args, "pattern"));
    struct browser *b;
    struct err err = {0};
    struct page *out = NULL;
    struct buf low, title, url;
    uint32_t doc;
    if (browser_get(t, &b, &err) < 0 || pattern.n == 0 || pattern.n > PATTERN_MAX) {
        sentence(a, "%s", err.code ? err.text : "the pattern must have 1 to 500 bytes");
        return;
    }
    skip_cursors(b, r->first_cursor);
    const struct page *p = current(b, int_arg(r->args, "cursor"), &doc, a);
    if (!p)
        return;
    buf_init(&low, 0);
    buf_init(&title, 0);
    buf_init(&url, 0);
    for (size_t i = 0; i < pattern.n; i++)
        buf_putc(&low, (char)tolower((unsigned char)pattern.p[i]));
    const char *name = p->title[0] ? p->title : p->url;
    buf_printf(&title, "Find results for text: `%s` in `%s`", buf_cstr(&low), name);
    buf_printf(&url, "%s/find?pattern=%s", p->url, buf_cstr(&low));
    int rc = page_new(&out, buf_view(&title), buf_view(&url), &err);
    unsigned most = r->limits->view_lines / 4;
    if (rc == 0 && find_all(p, doc, pattern, most < FIND_MAX ? most : FIND_MAX, out) == 0) {
        page_free(out);
        sentence(a, "No matches for `%s` in `%s`.", buf_cstr(&low), name);
        a->status = TOOL_OK;
    } else {
        if (rc == 0)
            rc = page_wrap(out, &err);
        if (rc == 0)
            rc = browser_add(b, out, &doc, &err);
        if (rc == 0)
            show(b, doc, 0, 0, a);
        else
            sentence(a, "%s", err.text);
    }
    buf_done(&low);
    buf_done(&title);
    buf_done(&url);
}

/* --- ahead of their turn ----------------------------------------------------------------- */

static void count_hit(void *arg, const struct index_hit *h)
{
    (void)h;
    ++*(unsigned *)arg;
}

/* How many hits of a search the local index leaves to the web. */
static unsigned left_to_the_web(struct toolbox *t, const json_t *args,
                                const struct tool_limits *limits)
{
    struct browser *b;
    struct index *x = NULL;
    struct err ignored;
    unsigned wanted = hits_wanted(args, limits), have = 0;
    struct str query = query_of(args);
    if (query.n == 0 || !web_can_search(t) || browser_get(t, &b, &ignored) < 0 ||
        browser_index(t, b, &x, &ignored) < 0 ||
        (x && index_search(x, query, wanted, count_hit, &have, &ignored) < 0))
        return 0;
    return have < wanted ? wanted - have : 0;
}

/* A link by its number alone depends on the page shown last, which is not there yet. */
unsigned browser_would_fetch(struct toolbox *t, const json_t *call,
                             const struct tool_limits *limits)
{
    struct str tool = json_view(json_object_get(call, "tool"));
    const json_t *args = json_object_get(call, "args");
    struct str url = str_trim(json_view(json_object_get(args, "id")));
    uint32_t doc;
    if (str_is(tool, "search"))
        return left_to_the_web(t, args, limits);
    bool web = str_starts(url, STR("http://")) || str_starts(url, STR("https://"));
    return str_is(tool, "open") && web && !(t->browser && loaded(t->browser, url, &doc));
}

static void ignore_hit(void *arg, const struct browse_hit *h)
{
    (void)arg;
    (void)h;
}

void browser_fetch(struct toolbox *t, const char *tool, const json_t *args, unsigned n)
{
    struct err ignored;
    struct page *p = NULL;
    int rc;
    if (strcmp(tool, "search") == 0)
        rc = web_search(t, &(struct toolbox_request){.args = args, .cancel_fd = -1},
                        query_of(args), n, ignore_hit, NULL, &ignored);
    else
        rc = web_fetch(t, str_trim(json_view(json_object_get(args, "id"))),
                       json_is_true(json_object_get(args, "view_source")), -1, &p, &ignored);
    (void)rc; /* what came of it was recorded on the way */
    page_free(p);
}
