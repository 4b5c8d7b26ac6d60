/*
 * web.c - pages and searches: cassette or network, robots.txt, redirects hop by hop, PDF
 * and HTML to pages.
 */
#include "tools/web.h"

#include <stdio.h>
#include <string.h>

#include "base/io.h"
#include "base/mem.h"
#include "tools/ahead.h"
#include "tools/cassette.h"
#include "tools/html.h"
#include "tools/http.h"
#include "tools/pdf.h"
#include "tools/provider.h"
#include "tools/robots.h"

enum { HOPS_MAX = 5, PAGE_S = 30, SEARCH_S = 15, ROBOTS_S = 10, ORIGIN_MAX = 300 };
#define ROBOTS_NS (24LL * 3600 * 1000000000)

/* Rules of one host, for a day. */
struct rules {
    char origin[ORIGIN_MAX]; /* "https://host:port" */
    struct buf text;
    bool closed; /* the server failed: nothing may be fetched (RFC 9309 2.3.1.4) */
    int64_t read_ns;
};

struct web {
    struct rules rules[32];
    unsigned next;
};

void web_free(struct web *w)
{
    for (unsigned i = 0; w && i < ARRAY_LEN(w->rules); i++)
        buf_done(&w->rules[i].text);
    mem_free(w);
}

bool web_can_search(const struct toolbox *t)
{
    return t->opts.providers != NULL;
}

/* One request, from the cassette or the network; recorded when asked to. */
static int fetch_once(struct toolbox *t, struct http_request *q, struct http_reply *r,
                      struct err *err)
{
    struct buf key;
    buf_init(&key, 1 << 17);
    buf_printf(&key, "%s %s", q->body ? "POST" : "GET", q->url);
    if (q->body)
        buf_printf(&key, " %s", q->body);
    int rc = buf_check(&key, "request", err);
    if (rc < 0) {
        *r = (struct http_reply){.status = 0};
    } else if (t->opts.cassette && !t->opts.record) {
        *r = (struct http_reply){.status = 0};
        rc = cassette_get(t->opts.cassette, buf_view(&key), r, err);
    } else if (!t->opts.web) {
        *r = (struct http_reply){.status = 0};
        rc = err_set(err, ERR_UNSUPPORTED, "there is no such document, and no network here");
    } else {
        q->private_hosts = t->opts.private_hosts;
        if (!ahead_take(t, buf_view(&key), q->cancel_fd, r, &rc, err))
            rc = http_get(q, r, err);
        if (t->ahead_out >= 0)
            ahead_record(t, buf_view(&key), r, rc, err);
        if (rc == 0 && t->opts.cassette)
            rc = cassette_put(t->opts.cassette, buf_view(&key), r, err);
    }
    buf_done(&key);
    return rc;
}

/* "https://host:port" of a URL; false when it is none of ours. */
static bool origin_of(const char *url, char out[ORIGIN_MAX])
{
    struct str s = str_c(url);
    size_t scheme = str_find(s, STR("://"), 0);
    if (!str_starts(s, STR("http://")) && !str_starts(s, STR("https://")))
        return false;
    size_t end = scheme + 3;
    while (end < s.n && !strchr("/?#", s.p[end]))
        end++;
    if (end >= ORIGIN_MAX || end == scheme + 3)
        return false;
    memcpy(out, url, end);
    out[end] = '\0';
    return true;
}

static int read_rules(struct toolbox *t, struct rules *r, int cancel_fd, struct err *err)
{
    char url[ORIGIN_MAX + 16];
    struct http_reply reply;
    struct err ignored = {0};
    snprintf(url, sizeof url, "%s/robots.txt", r->origin);
    for (unsigned hop = 0; hop < HOPS_MAX; hop++) {
        struct http_request q = {.url = url, .timeout_s = ROBOTS_S, .max_bytes = ROBOTS_BYTES,
                                 .cancel_fd = cancel_fd};
        int rc = fetch_once(t, &q, &reply, &ignored);
        if (rc == -ERR_CANCELLED || rc == -ERR_NOMEM || rc == -ERR_DENIED) {
            *err = ignored;
            return rc;
        }
        if (rc < 0)
            return 0; /* not to be had: the page's own request will say why */
        bool moved = reply.status / 100 == 3 && reply.redirect[0];
        r->closed = reply.status >= 500;
        if (reply.status == 200) {
            buf_done(&r->text);
            r->text = reply.body;
        } else {
            http_reply_done(&reply);
        }
        if (!moved || strlen(reply.redirect) >= sizeof url)
            return 0;
        snprintf(url, sizeof url, "%s", reply.redirect);
    }
    return 0;
}

static int check_robots(struct toolbox *t, struct browser *b, const char *url, int cancel_fd,
                        struct err *err)
{
    char origin[ORIGIN_MAX];
    struct rules *r = NULL;
    if (!origin_of(url, origin))
        return err_set(err, ERR_UNSUPPORTED, "only http and https addresses can be opened");
    if (!b->web && !(b->web = mem_zalloc(sizeof *b->web)))
        return err_nomem(err);
    for (unsigned i = 0; i < ARRAY_LEN(b->web->rules); i++)
        if (strcmp(b->web->rules[i].origin, origin) == 0 &&
            io_mono_ns() - b->web->rules[i].read_ns < ROBOTS_NS)
            r = &b->web->rules[i];
    if (!r) {
        r = &b->web->rules[b->web->next++ % ARRAY_LEN(b->web->rules)];
        buf_done(&r->text);
        *r = (struct rules){.read_ns = io_mono_ns()};
        snprintf(r->origin, sizeof r->origin, "%s", origin);
        int rc = read_rules(t, r, cancel_fd, err);
        if (rc < 0) {
            r->origin[0] = '\0';
            return rc;
        }
    }
    struct str path = str_c(url + strlen(origin));
    if (r->closed || !robots_allow(buf_view(&r->text), STR("agentd"), path.n ? path : STR("/")))
        return err_set(err, ERR_DENIED, "the site's robots.txt does not allow it");
    return 0;
}

/* A page that shows nothing says why: no bytes, or none that are text. */
static int say_if_empty(struct page **p, struct str url, const struct http_reply *r,
                        struct err *err)
{
    enum { HEADER_LINES = 2 };
    for (uint32_t i = HEADER_LINES; i < (*p)->n_lines; i++)
        if (str_trim(page_line(*p, i)).n)
            return 0;
    page_free(*p);
    *p = NULL;
    return html_page(p, url, STR("text/plain; charset=utf-8"),
                     r->body.len ? STR("[the page has no readable text]")
                                 : STR("[the server sent an empty page]"), false, true, err);
}

static int to_page(struct str url, struct http_reply *r, bool source, struct page **out,
                   struct err *err)
{
    struct str type = str_c(r->type);
    struct buf text;
    int rc = 0;
    buf_init(&text, LIMIT_PAGE_BYTES);
    if (str_starts(buf_view(&r->body), STR("%PDF-"))) {
        rc = pdf_text(buf_view(&r->body), &text, err);
        type = STR("text/plain; charset=utf-8");
    } else {
        buf_str(&text, buf_view(&r->body));
    }
    if (rc == 0 && r->cut && str_find(type, STR("html"), 0) != STR_NONE)
        buf_printf(&text, "<p>[the page is longer than %u MB; the rest was not read]</p>",
                   LIMIT_PAGE_BYTES >> 20);
    if (rc == 0)
        rc = html_page(out, url, type, buf_view(&text), source, true, err);
    buf_done(&text);
    return rc == 0 ? say_if_empty(out, url, r, err) : rc;
}

int web_fetch(struct toolbox *t, struct str url, bool source, int cancel_fd, struct page **out,
              struct err *err)
{
    char at[2048];
    struct browser *b;
    int rc = browser_get(t, &b, err);
    if (rc == 0 && snprintf(at, sizeof at, "%.*s", STR_ARG(url)) >= (int)sizeof at)
        rc = err_set(err, ERR_LIMIT, "the address is too long");
    for (unsigned hop = 0; rc == 0; hop++) {
        struct http_reply r;
        struct http_request q = {.url = at, .timeout_s = PAGE_S, .cancel_fd = cancel_fd,
                                 .max_bytes = LIMIT_PAGE_BYTES - 200}; /* room for a note */
        if (hop > HOPS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d redirects", HOPS_MAX);
        if (t->opts.web || t->opts.cassette)
            rc = check_robots(t, b, at, cancel_fd, err);
        if (rc == 0)
            rc = fetch_once(t, &q, &r, err);
        if (rc < 0)
            return hop ? err_prefix(err, "redirected to %.200s", at) : rc;
        if (r.status / 100 == 3 && r.redirect[0]) {
            snprintf(at, sizeof at, "%s", r.redirect);
            http_reply_done(&r);
            continue;
        }
        if (r.status / 100 != 2)
            rc = err_set(err, ERR_STATE, "status %ld", r.status);
        else
            rc = to_page(str_c(at), &r, source, out, err);
        http_reply_done(&r);
        return rc;
    }
    return rc;
}

struct searching {
    struct toolbox *t;
    const struct toolbox_request *r;
    int64_t deadline;
};

static int fetch_for_search(void *arg, struct http_request *q, struct http_reply *out,
                            struct err *err)
{
    struct searching *s = arg;
    *out = (struct http_reply){.status = 0};
    if (!s->t->opts.web && !s->t->opts.cassette)
        return err_set(err, ERR_DENIED, "the policy gives search and open no network");
    q->timeout_s = SEARCH_S;
    q->max_bytes = LIMIT_PAGE_BYTES;
    q->cancel_fd = s->r->cancel_fd;
    return fetch_once(s->t, q, out, err);
}

static int function_for_search(void *arg, size_t provider, const char *function, json_t *args,
                               json_t **value, struct err *err)
{
    struct searching *s = arg;
    json_t *o = NULL, *q = args ? json_pack("{s:s, s:I, s:s, s:o}", "ask", "lua", "provider",
                                            (json_int_t)provider, "function", function, "args",
                                            args) : NULL;
    if (!q)
        return err_nomem(err);
    if (!s->r->ask) {
        json_decref(q);
        return err_set(err, ERR_UNSUPPORTED, "a provider of type lua works in the daemon only");
    }
    int rc = s->r->ask(s->r->arg, q, s->deadline, &o, err);
    const json_t *v = json_object_get(o, "value"), *e = json_object_get(o, "error");
    if (rc == 0 && json_is_string(e))
        rc = err_set(err, ERR_PARSE, "%.300s", json_string_value(e));
    else if (rc == 0 && !v)
        rc = err_set(err, ERR_PARSE, "the provider's function gave nothing");
    else if (rc == 0)
        *value = json_incref((json_t *)(uintptr_t)v);
    json_decref(o);
    return rc;
}

int web_search(struct toolbox *t, const struct toolbox_request *r, struct str query, unsigned n,
               void (*hit)(void *arg, const struct browse_hit *h), void *arg, struct err *err)
{
    struct searching s = {t, r, io_mono_ns() + 2 * SEARCH_S * 1000000000LL};
    const struct provider_means means = {fetch_for_search, function_for_search, &s};
    return provider_search(str_c(t->opts.providers), query, n,
                           json_view(json_object_get(r->args, "source")), &means, hit, arg, err);
}
