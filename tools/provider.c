/* provider.c - templates to requests, JSON answers to hits. */
#include "tools/provider.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "tools/html.h"

enum { HEADERS_MAX = 16, PATH_DEPTH = 8 };

struct ask {
    struct str query, source;
    unsigned n;
};

static void fill(struct str template, const struct ask *a, struct buf *out)
{
    for (size_t i = 0; i < template.n;) {
        struct str rest = str_sub(template, i, template.n);
        if (str_starts(rest, STR("{query}"))) {
            http_escape(out, a->query);
            i += sizeof "{query}" - 1;
        } else if (str_starts(rest, STR("{query_json}"))) {
            struct err ignored = {0};
            json_t *s = json_text(a->query);
            if (!s || json_write(s, out, &ignored) < 0)
                buf_puts(out, "\"\"");
            json_decref(s);
            i += sizeof "{query_json}" - 1;
        } else if (str_starts(rest, STR("{count}"))) {
            buf_printf(out, "%u", a->n);
            i += sizeof "{count}" - 1;
        } else if (str_starts(rest, STR("{source}"))) {
            buf_str(out, a->source.n ? a->source : STR("web"));
            i += sizeof "{source}" - 1;
        } else {
            buf_putc(out, template.p[i++]);
        }
    }
}

/* "web.results" followed through objects; NULL when it leads nowhere. */
static json_t *follow(json_t *v, struct str path)
{
    struct str step;
    for (unsigned i = 0; v && i < PATH_DEPTH && path.n && str_split(&path, '.', &step); i++) {
        char key[100];
        if (step.n >= sizeof key)
            return NULL;
        snprintf(key, sizeof key, "%.*s", STR_ARG(step));
        v = json_object_get(v, key);
    }
    return v;
}

struct fields {
    struct str results, title, link, snippet, date;
};

static unsigned take_list(json_t *list, const struct fields *f, unsigned n,
                          void (*hit)(void *arg, const struct browse_hit *h), void *arg)
{
    unsigned given = 0;
    for (size_t i = 0; i < json_array_size(list) && given < n; i++) {
        json_t *o = json_array_get(list, i);
        const struct browse_hit h = {
            .title = json_view(follow(o, f->title)),
            .url = json_view(follow(o, f->link)),
            .snippet = json_view(follow(o, f->snippet)),
            .date = f->date.n ? json_view(follow(o, f->date)) : (struct str){0},
        };
        if (!str_starts(h.url, STR("http://")) && !str_starts(h.url, STR("https://")))
            continue;
        hit(arg, &h);
        given++;
    }
    return given;
}

static int text_of(const json_t *p, const char *key, const char *other, struct str *out,
                   struct err *err)
{
    *out = str_c(other);
    return json_opt_str(p, key, out, err);
}

static int read_fields(const json_t *p, bool searxng, struct fields *f, struct err *err)
{
    int rc = text_of(p, "results", "results", &f->results, err);
    if (rc == 0)
        rc = text_of(p, "title", "title", &f->title, err);
    if (rc == 0)
        rc = text_of(p, "link", "url", &f->link, err);
    if (rc == 0)
        rc = text_of(p, "snippet", searxng ? "content" : "description", &f->snippet, err);
    return rc == 0 ? text_of(p, "date", searxng ? "publishedDate" : "", &f->date, err) : rc;
}

static void add_headers(json_t *p, struct arena *mem, const char *header[HEADERS_MAX])
{
    const char *name;
    json_t *value;
    unsigned n = 0;
    json_object_foreach(json_object_get(p, "headers"), name, value)
    {
        struct buf b;
        buf_init(&b, 4096);
        buf_printf(&b, "%s: %s", name, json_is_string(value) ? json_string_value(value) : "");
        /* A line break would start another header. */
        if (n + 1 < HEADERS_MAX && !strpbrk(buf_cstr(&b), "\r\n") &&
            (header[n] = arena_strdup(mem, buf_view(&b))))
            n++;
        buf_done(&b);
    }
    header[n] = NULL;
}

/* What request() wants fetched, fetched: JSON as its value, anything else as text. */
static int fetch_for_lua(const json_t *want, const struct provider_means *m, json_t **answer,
                         struct err *err)
{
    struct str url = {0}, body = {0};
    const char *header[HEADERS_MAX] = {NULL};
    struct http_reply r = {.status = 0};
    struct err ignored = {0};
    struct arena mem;
    struct buf text;
    int rc = json_need_str(want, "url", &url, err);
    if (rc == 0)
        rc = json_opt_str(want, "body", &body, err);
    if (rc < 0)
        return err_prefix(err, "request() returned");
    arena_init(&mem, 1 << 16);
    buf_init(&text, 0);
    add_headers((json_t *)(uintptr_t)want, &mem, header);
    struct http_request q = {.url = url.p, .header = header, .body = body.n ? body.p : NULL};
    rc = m->fetch(m->arg, &q, &r, err);
    if (rc == 0 && r.status != 200)
        rc = err_set(err, ERR_STATE, "it answered with status %ld", r.status);
    if (rc == 0 && json_read(answer, buf_view(&r.body), &ignored) < 0) {
        rc = charset_decode(buf_view(&r.body), (struct str){0}, false, &text, err);
        if (rc == 0 && !(*answer = json_text(buf_view(&text))))
            rc = err_nomem(err);
    }
    http_reply_done(&r);
    buf_done(&text);
    arena_done(&mem);
    return rc;
}

/* Lua's empty table could be either. */
static bool is_list(const json_t *v)
{
    return json_is_array(v) || (json_is_object(v) && json_object_size(v) == 0);
}

static int ask_lua(size_t number, const struct ask *a, const struct provider_means *m,
                   void (*hit)(void *arg, const struct browse_hit *h), void *arg, struct err *err)
{
    const struct fields f = {.title = STR("title"), .link = STR("url"), .snippet = STR("snippet"),
                             .date = STR("date")};
    json_t *want = NULL, *answer = NULL, *list = NULL;
    int rc = m->function(m->arg, number, "request",
                         json_pack("[o, i, o]", json_text(a->query), (int)a->n,
                                   json_text(a->source.n ? a->source : STR("web"))), &want, err);
    if (rc == 0 && is_list(want)) {
        list = json_incref(want);
    } else if (rc == 0 && !json_is_object(want)) {
        rc = err_set(err, ERR_PARSE, "request() must return a table with url, or a list of "
                     "results");
    } else if (rc == 0) {
        rc = fetch_for_lua(want, m, &answer, err);
        if (rc == 0)
            rc = m->function(m->arg, number, "results",
                             json_pack("[O, o, i]", answer, json_text(a->query), (int)a->n), &list,
                             err);
        if (rc == 0 && !is_list(list))
            rc = err_set(err, ERR_PARSE, "results() must return a list of results");
    }
    if (rc == 0)
        take_list(list, &f, a->n, hit, arg);
    json_decref(want);
    json_decref(answer);
    json_decref(list);
    return rc;
}

static int ask_one(json_t *p, size_t number, const struct ask *a, const struct provider_means *m,
                   void (*hit)(void *arg, const struct browse_hit *h), void *arg,
                   struct err *err)
{
    struct str type = {0}, url = {0}, body = {0};
    struct fields f;
    struct buf full, post;
    const char *header[HEADERS_MAX] = {NULL};
    struct arena mem;
    struct http_reply r = {.status = 0};
    json_t *answer = NULL;
    int rc = json_need_str(p, "type", &type, err);
    if (rc == 0 && str_is(type, "lua"))
        return ask_lua(number, a, m, hit, arg, err);
    if (rc == 0 && !str_is(type, "searxng") && !str_is(type, "json"))
        rc = err_set(err, ERR_PARSE, "type '%.*s' is none of searxng, json, lua",
                     STR_ARG(str_sub(type, 0, 40)));
    if (rc == 0)
        rc = json_need_str(p, "url", &url, err);
    if (rc == 0)
        rc = json_opt_str(p, "body", &body, err);
    bool searxng = str_is(type, "searxng");
    if (rc == 0)
        rc = read_fields(p, searxng, &f, err);
    if (rc < 0)
        return rc;
    arena_init(&mem, 1 << 16);
    buf_init(&full, 16384);
    buf_init(&post, 1 << 16);
    add_headers(p, &mem, header);
    while (searxng && url.n && url.p[url.n - 1] == '/')
        url.n--;
    fill(url, a, &full);
    if (searxng) {
        fill(STR("/search?format=json&q={query}&categories="), a, &full);
        buf_puts(&full, str_is(a->source, "news") ? "news" : "general");
    }
    fill(body, a, &post);
    struct http_request q = {.url = buf_cstr(&full), .header = header,
                             .body = body.n ? buf_cstr(&post) : NULL,
                             .private_ok = json_is_true(json_object_get(p, "private"))};
    rc = m->fetch(m->arg, &q, &r, err);
    if (rc == 0 && r.status != 200)
        rc = err_set(err, ERR_STATE, "it answered with status %ld", r.status);
    else if (rc == 0)
        rc = json_read(&answer, buf_view(&r.body), err);
    if (rc == 0)
        take_list(follow(answer, f.results), &f, a->n, hit, arg);
    http_reply_done(&r);
    json_decref(answer);
    buf_done(&full);
    buf_done(&post);
    arena_done(&mem);
    return rc;
}

int provider_search(struct str providers, struct str query, unsigned n, struct str source,
                    const struct provider_means *means,
                    void (*hit)(void *arg, const struct browse_hit *h), void *arg,
                    struct err *err)
{
    const struct ask a = {query, source, n};
    json_t *list = NULL;
    int rc = json_read(&list, providers, err);
    if (rc == 0 && json_array_size(list) == 0)
        rc = err_set(err, ERR_UNSUPPORTED, "no search provider is set up");
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        json_t *p = json_array_get(list, i);
        struct str name = json_view(json_object_get(p, "name"));
        rc = ask_one(p, i, &a, means, hit, arg, err);
        if (rc == 0)
            break;
        if (name.n)
            rc = err_prefix(err, "search provider '%.*s'", STR_ARG(str_sub(name, 0, 60)));
        else
            rc = err_prefix(err, "search provider %zu", i + 1);
        if (i + 1 < json_array_size(list) && rc != -ERR_CANCELLED)
            rc = 0; /* the next one may answer */
    }
    json_decref(list);
    return rc;
}
