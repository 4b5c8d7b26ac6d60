/* provider.c - templates to requests, JSON answers to hits. */
#include "tools/provider.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

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

static unsigned take_hits(json_t *answer, const struct fields *f, unsigned n,
                          void (*hit)(void *arg, const struct browse_hit *h), void *arg)
{
    json_t *list = follow(answer, f->results);
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

static int ask_one(json_t *p, const struct ask *a, provider_fetch fetch, void *fetch_arg,
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
    rc = fetch(fetch_arg, &q, &r, err);
    if (rc == 0 && r.status != 200)
        rc = err_set(err, ERR_STATE, "it answered with status %ld", r.status);
    else if (rc == 0)
        rc = json_read(&answer, buf_view(&r.body), err);
    if (rc == 0)
        take_hits(answer, &f, a->n, hit, arg);
    http_reply_done(&r);
    json_decref(answer);
    buf_done(&full);
    buf_done(&post);
    arena_done(&mem);
    return rc;
}

int provider_search(struct str providers, struct str query, unsigned n, struct str source,
                    provider_fetch fetch, void *fetch_arg,
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
        rc = ask_one(p, &a, fetch, fetch_arg, hit, arg, err);
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
