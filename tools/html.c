/*
 * html.c - HTML to readable text, in two passes over libxml2's tree: find the element that
 * holds the matter (main, article, or the body less its furniture), then print it.
 */
#include "tools/html.h"

#include <libxml/HTMLparser.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/limits.h"
#include "base/mem.h"
#include "tools/envelope.h"

enum { NODES_MAX = 400000, DEPTH_MAX = 200, TEXT_MAX = 4 << 20, LINKS_MAX = 2000 };

enum kind { INLINE, BLOCK, SKIP, HEADING, ITEM, PRE, CELL, ROW, BREAK, LINK, RULE };

static const struct {
    const char *name;
    enum kind kind;
} elements[] = {
    {"a", LINK},        {"address", BLOCK}, {"article", BLOCK},  {"aside", SKIP},
    {"audio", SKIP},    {"blockquote", BLOCK}, {"br", BREAK},    {"button", SKIP},
    {"canvas", SKIP},   {"center", BLOCK},  {"dd", BLOCK},       {"details", BLOCK},
    {"dialog", SKIP},   {"div", BLOCK},     {"dl", BLOCK},       {"dt", BLOCK},
    {"fieldset", BLOCK}, {"figcaption", BLOCK}, {"figure", BLOCK}, {"footer", SKIP},
    {"form", BLOCK},    {"h1", HEADING},    {"h2", HEADING},     {"h3", HEADING},
    {"h4", HEADING},    {"h5", HEADING},    {"h6", HEADING},     {"head", SKIP},
    {"header", BLOCK},  {"hr", RULE},       {"iframe", SKIP},    {"input", SKIP},
    {"li", ITEM},       {"main", BLOCK},    {"nav", SKIP},       {"noscript", SKIP},
    {"object", SKIP},   {"ol", BLOCK},      {"p", BLOCK},        {"pre", PRE},
    {"script", SKIP},   {"section", BLOCK}, {"select", SKIP},    {"style", SKIP},
    {"summary", BLOCK}, {"svg", SKIP},      {"table", BLOCK},    {"tbody", INLINE},
    {"td", CELL},       {"template", SKIP}, {"textarea", SKIP},  {"th", CELL},
    {"tr", ROW},        {"ul", BLOCK},      {"video", SKIP},
};

static enum kind kind_of(const xmlNode *n)
{
    for (unsigned i = 0; i < ARRAY_LEN(elements); i++)
        if (strcasecmp((const char *)n->name, elements[i].name) == 0)
            return elements[i].kind;
    return INLINE;
}

/* Attribute text, borrowed from the tree; "" when absent. */
static const char *attr(const xmlNode *n, const char *name)
{
    for (const xmlAttr *a = n->properties; a; a = a->next)
        if (strcasecmp((const char *)a->name, name) == 0 && a->children &&
            a->children->content)
            return (const char *)a->children->content;
    return "";
}

static bool is_furniture(const xmlNode *n)
{
    static const char *const roles[] = {"navigation", "banner", "contentinfo", "search",
                                        "complementary", "menu", "dialog"};
    const char *role = attr(n, "role");
    for (unsigned i = 0; i < ARRAY_LEN(roles); i++)
        if (strcasecmp(role, roles[i]) == 0)
            return true;
    if (strcasecmp(attr(n, "aria-hidden"), "true") == 0)
        return strcasecmp((const char *)n->name, "body") != 0;
    for (const xmlAttr *a = n->properties; a; a = a->next)
        if (strcasecmp((const char *)a->name, "hidden") == 0)
            return true;
    return false;
}

/* Text below a node and how much of it is link text; furniture is not counted. */
struct weight {
    size_t text, links;
    unsigned nodes;
};

static void weigh(const xmlNode *n, unsigned depth, bool in_link, struct weight *w)
{
    for (; n && w->nodes < NODES_MAX; n = n->next) {
        w->nodes++;
        if (n->type == XML_TEXT_NODE && n->content) {
            size_t len = str_trim(str_c((const char *)n->content)).n;
            w->text += len;
            w->links += in_link ? len : 0;
        } else if (n->type == XML_ELEMENT_NODE && depth < DEPTH_MAX) {
            enum kind k = kind_of(n);
            if (k != SKIP && !is_furniture(n))
                weigh(n->children, depth + 1, in_link || k == LINK, w);
        }
    }
}

/* The best <main>, role=main or <article>: the one with the most text that is not links. */
struct best {
    const xmlNode *node;
    size_t score;
    unsigned nodes;
};

static void find_matter(const xmlNode *n, unsigned depth, struct best *b)
{
    for (; n && b->nodes < NODES_MAX; n = n->next) {
        b->nodes++;
        if (n->type != XML_ELEMENT_NODE || depth >= DEPTH_MAX)
            continue;
        const char *name = (const char *)n->name;
        if (strcasecmp(name, "main") == 0 || strcasecmp(name, "article") == 0 ||
            strcasecmp(attr(n, "role"), "main") == 0) {
            struct weight w = {0};
            weigh(n->children, depth + 1, false, &w);
            size_t score = w.text - w.links / 2;
            if (score > b->score) {
                b->node = n;
                b->score = score;
            }
        }
        find_matter(n->children, depth + 1, b);
    }
}

struct printer {
    struct page *page; /* NULL: text alone */
    struct buf *out;
    struct str host;   /* of the page, to leave it out of link marks */
    struct str base;   /* URL of the page */
    unsigned nodes, blanks; /* newlines at the end of out */
    bool space;        /* a blank is due before the next word */
    bool fresh;        /* at the start of a line */
    unsigned list_depth;
};

static void newline(struct printer *p, unsigned n)
{
    while (p->out->len && p->out->data[p->out->len - 1] == ' ')
        buf_truncate(p->out, p->out->len - 1);
    if (p->out->len == 0)
        p->blanks = 2;
    for (; p->blanks < n; p->blanks++)
        buf_putc(p->out, '\n');
    p->space = false;
    p->fresh = true;
}

static void put(struct printer *p, const void *s, size_t n)
{
    if (n == 0 || p->out->len > TEXT_MAX)
        return;
    buf_add(p->out, s, n);
    p->blanks = 0;
    p->fresh = false;
}

/* White space runs become one blank; none at the start of a line. */
static void put_text(struct printer *p, struct str s)
{
    size_t i = 0;
    while (i < s.n) {
        size_t start = i;
        while (i < s.n && ((s.p[i] >= '\t' && s.p[i] <= '\r') || s.p[i] == ' '))
            i++;
        if (i > start)
            p->space = !p->fresh;
        start = i;
        while (i < s.n && !((s.p[i] >= '\t' && s.p[i] <= '\r') || s.p[i] == ' '))
            i++;
        if (i == start)
            continue;
        if (p->space)
            put(p, " ", 1);
        p->space = false;
        put(p, s.p + start, i - start);
    }
}

static void put_pre(struct printer *p, struct str s)
{
    struct str rest = s, line;
    bool first = true;
    while (str_split(&rest, '\n', &line)) {
        if (!first) {
            buf_putc(p->out, '\n');
            p->blanks++;
        }
        first = false;
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        put(p, line.p, line.n);
    }
    p->space = false;
}

static void print_nodes(struct printer *p, const xmlNode *n, unsigned depth, bool pre);

enum { SEGMENTS_MAX = 64 };

/* `path` without its dot segments (RFC 3986, 5.2.4), each part after a slash. */
static void add_path(struct str path, struct buf *out, bool rooted)
{
    struct str seg[SEGMENTS_MAX], rest = path, piece;
    unsigned n = 0;
    bool folder = false;
    while (str_split(&rest, '/', &piece)) {
        folder = piece.n == 0 || str_is(piece, ".") || str_is(piece, "..");
        if (str_is(piece, "..")) {
            n -= n > 0;
        } else if (!folder && n < SEGMENTS_MAX) {
            seg[n++] = piece;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (rooted || i)
            buf_putc(out, '/');
        buf_str(out, seg[i]);
    }
    if (folder && (n || rooted))
        buf_putc(out, '/');
}

/* Where the path of a URL begins: after the host, or at once when there is none. */
static size_t path_start(struct str url)
{
    size_t scheme = str_find(url, STR("://"), 0);
    if (scheme == STR_NONE)
        return 0;
    size_t slash = str_find(url, STR("/"), scheme + 3);
    return slash == STR_NONE ? url.n : slash;
}

/* A link against the page's own URL; nothing when it leads nowhere that can be opened. */
static void resolve(struct str base, const char *href, struct buf *out)
{
    struct str h = str_trim(str_c(href));
    size_t hash = str_find(h, STR("#"), 0);
    h = str_sub(h, 0, hash == STR_NONE ? h.n : hash);
    size_t colon = str_find(h, STR(":"), 0), slash = str_find(h, STR("/"), 0);
    if (h.n == 0 || h.n > 2000)
        return;
    if (str_starts(h, STR("http://")) || str_starts(h, STR("https://"))) {
        buf_str(out, h);
        return;
    }
    if (colon != STR_NONE && (slash == STR_NONE || colon < slash))
        return; /* mailto:, javascript: and other schemes */
    size_t scheme = str_find(base, STR("://"), 0), start = path_start(base);
    if (str_starts(h, STR("//"))) {
        if (scheme != STR_NONE) {
            buf_str(out, str_sub(base, 0, scheme + 1));
            buf_str(out, h);
        }
        return;
    }
    struct buf path;
    size_t query = str_find(h, STR("?"), 0), end = start;
    buf_init(&path, 0);
    for (size_t i = start; i < base.n && base.p[i] != '?'; i++)
        if (base.p[i] == '/')
            end = i + 1;
    if (h.p[0] != '/')
        buf_str(&path, str_sub(base, start, end - start));
    buf_str(&path, str_sub(h, 0, query));
    buf_str(out, str_sub(base, 0, start));
    add_path(buf_view(&path), out, scheme != STR_NONE);
    if (query != STR_NONE)
        buf_str(out, str_sub(h, query, h.n));
    buf_done(&path);
}

/* 【n†text】, or 【n†text†host】 when it leads to another host. */
static void print_link(struct printer *p, const xmlNode *n, unsigned depth)
{
    struct buf url, text;
    buf_init(&url, 4096);
    buf_init(&text, 1 << 16);
    resolve(p->base, attr(n, "href"), &url);
    struct printer inner = *p;
    inner.out = &text;
    inner.page = NULL;
    inner.fresh = true;
    inner.space = false;
    print_nodes(&inner, n->children, depth + 1, false);
    p->nodes = inner.nodes;
    struct str t = str_trim(buf_view(&text));
    if (attr(n, "href")[0] == '#' && t.n <= sizeof "¶" - 1) {
        t.n = 0; /* the mark behind a heading that links to itself */
        n = NULL;
    }
    bool plain = t.n == 0 || str_find(t, STR("\n"), 0) != STR_NONE || url.len == 0 ||
                 url.failed || !p->page || p->page->n_links >= LINKS_MAX;
    int id = plain ? -1 : page_add_link(p->page, buf_view(&url), -1, -1);
    if (id < 0) {
        if (n)
            print_nodes(p, n->children, depth + 1, false);
    } else {
        struct str host = page_domain(buf_view(&url));
        char mark[32];
        if (p->space)
            put(p, " ", 1);
        p->space = false;
        put(p, mark, (size_t)snprintf(mark, sizeof mark, "【%d†", id));
        put(p, t.p, t.n);
        if (!str_eq(host, p->host)) {
            put(p, "†", sizeof "†" - 1);
            put(p, host.p, host.n);
        }
        put(p, "】", sizeof "】" - 1);
    }
    buf_done(&url);
    buf_done(&text);
}

static void print_element(struct printer *p, const xmlNode *n, unsigned depth, bool pre)
{
    static const char hashes[] = "###### ";
    enum kind k = kind_of(n);
    if (k == SKIP || is_furniture(n))
        return;
    switch (k) {
    case BREAK:
        newline(p, 1);
        return;
    case RULE:
        newline(p, 2);
        return;
    case LINK:
        print_link(p, n, depth);
        return;
    case HEADING:
        newline(p, 2);
        put(p, hashes + 6 - (n->name[1] - '0'), (size_t)(n->name[1] - '0') + 1);
        p->fresh = true;
        print_nodes(p, n->children, depth + 1, false);
        newline(p, 2);
        return;
    case ITEM:
        newline(p, 1);
        for (unsigned i = 1; i < p->list_depth && i < 8; i++)
            put(p, "  ", 2);
        put(p, "- ", 2);
        p->fresh = true;
        print_nodes(p, n->children, depth + 1, pre);
        newline(p, 1);
        return;
    case PRE:
        newline(p, 2);
        print_nodes(p, n->children, depth + 1, true);
        newline(p, 2);
        return;
    case CELL:
        if (!p->fresh)
            put(p, " | ", 3);
        p->space = false;
        p->fresh = true;
        print_nodes(p, n->children, depth + 1, pre);
        p->fresh = false;
        return;
    case ROW:
        newline(p, 1);
        print_nodes(p, n->children, depth + 1, pre);
        newline(p, 1);
        return;
    case BLOCK: {
        bool list = strcasecmp((const char *)n->name, "ul") == 0 ||
                    strcasecmp((const char *)n->name, "ol") == 0;
        unsigned gap = (list && p->list_depth) || !strcasecmp((const char *)n->name, "dd") ? 1 : 2;
        if (!(p->fresh && p->blanks == 0)) /* a paragraph right after "- " stays there */
            newline(p, gap);
        p->list_depth += list;
        print_nodes(p, n->children, depth + 1, pre);
        p->list_depth -= list;
        newline(p, gap);
        return;
    }
    default:
        print_nodes(p, n->children, depth + 1, pre);
    }
}

static void print_nodes(struct printer *p, const xmlNode *n, unsigned depth, bool pre)
{
    for (; n && p->nodes < NODES_MAX && p->out->len <= TEXT_MAX; n = n->next) {
        p->nodes++;
        if ((n->type == XML_TEXT_NODE || n->type == XML_CDATA_SECTION_NODE) && n->content) {
            struct str s = str_c((const char *)n->content);
            if (pre)
                put_pre(p, s);
            else
                put_text(p, s);
        } else if (n->type == XML_ELEMENT_NODE && depth < DEPTH_MAX) {
            print_element(p, n, depth, pre);
        }
    }
}

static const xmlNode *find_element(const xmlNode *n, const char *name, unsigned depth,
                                   unsigned *nodes)
{
    for (; n && *nodes < NODES_MAX; n = n->next) {
        ++*nodes;
        if (n->type != XML_ELEMENT_NODE)
            continue;
        if (strcasecmp((const char *)n->name, name) == 0)
            return n;
        const xmlNode *hit =
            depth < DEPTH_MAX ? find_element(n->children, name, depth + 1, nodes) : NULL;
        if (hit)
            return hit;
    }
    return NULL;
}

static void plain_text(const xmlNode *n, struct buf *out)
{
    struct printer p = {.out = out, .fresh = true};
    print_nodes(&p, n ? n->children : NULL, 1, false);
}

/* Title from <title>, else from the first <h1>. */
static void find_title(const xmlNode *root, struct buf *title)
{
    unsigned nodes = 0;
    const xmlNode *n = find_element(root, "title", 0, &nodes);
    if (n)
        plain_text(n, title);
    nodes = 0;
    if (title->len == 0 && (n = find_element(root, "h1", 0, &nodes)))
        plain_text(n, title);
    buf_truncate(title, utf8_complete(str_sub(buf_view(title), 0, 300)));
}

/* What the parser reads from. It compares each attribute with all before it in its tag, so the text
 * ends at a tag with more of them than any page has. */
enum { ATTRIBUTES_MAX = 350 };
struct source {
    struct str rest;
    htmlParserCtxtPtr parser;
};

static int on_read(void *arg, char *to, int room)
{
    struct source *s = arg;
    size_t n = s->parser->maxatts > 2 * ATTRIBUTES_MAX + 4 ? 0 : (size_t)room;
    n = n < s->rest.n ? n : s->rest.n;
    if (n)
        memcpy(to, s->rest.p, n);
    s->rest = str_sub(s->rest, n, s->rest.n);
    return (int)n;
}

static htmlDocPtr read_html(struct str utf8)
{
    struct source s = {utf8, htmlNewParserCtxt()};
    if (!s.parser)
        return NULL;
    htmlDocPtr doc = htmlCtxtReadIO(s.parser, on_read, NULL, &s, NULL, "UTF-8",
                                    HTML_PARSE_RECOVER | HTML_PARSE_NONET | HTML_PARSE_NOERROR |
                                        HTML_PARSE_NOWARNING | HTML_PARSE_COMPACT);
    htmlFreeParserCtxt(s.parser);
    return doc;
}

static int parse_html(struct str url, struct str utf8, struct page *page, struct buf *title,
                      struct buf *text, struct err *err)
{
    htmlDocPtr doc = read_html(utf8);
    const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
    if (!root) {
        if (doc)
            xmlFreeDoc(doc);
        return utf8.n ? err_set(err, ERR_PARSE, "the page holds no HTML that can be read") : 0;
    }
    struct best best = {0};
    struct weight all = {0};
    find_title(root, title);
    weigh(root->children, 0, false, &all);
    find_matter(root, 0, &best);
    bool enough = best.node && best.score * 5 >= (all.text - all.links / 2) * 2;
    struct printer p = {.page = page, .out = text, .fresh = text->len == 0, .base = url,
                        .host = page_domain(url), .blanks = 2};
    if (enough)
        print_nodes(&p, best.node->children, 1, false);
    else
        print_nodes(&p, root->children, 1, false);
    xmlFreeDoc(doc);
    while (text->len && (text->data[text->len - 1] == '\n' || text->data[text->len - 1] == ' '))
        buf_truncate(text, text->len - 1);
    return 0;
}

static bool looks_like_html(struct str url, struct str type, struct str data)
{
    if (type.n)
        return str_find(type, STR("html"), 0) != STR_NONE;
    if (str_ends(url, STR(".html")) || str_ends(url, STR(".htm")) || str_ends(url, STR(".xhtml")))
        return true;
    struct str head = str_trim(str_sub(data, 0, 512));
    static const char *const starts[] = {"<!doctype html", "<html"};
    for (unsigned i = 0; i < ARRAY_LEN(starts); i++)
        if (head.n > strlen(starts[i]) && strncasecmp(head.p, starts[i], strlen(starts[i])) == 0)
            return true;
    return false;
}

/* The charset parameter of a media type. */
static struct str charset_of(struct str type)
{
    size_t at = str_find(type, STR("charset="), 0);
    return at == STR_NONE ? (struct str){0} : str_sub(type, at + 8, 60);
}

/* Title of a plain text: its first heading or line that is not empty. */
static void text_title(struct str text, struct buf *title)
{
    struct str rest = text, line;
    while (str_split(&rest, '\n', &line)) {
        line = str_trim(line);
        while (line.n && line.p[0] == '#')
            line = str_trim(str_sub(line, 1, line.n));
        if (line.n) {
            buf_str(title, str_sub(line, 0, utf8_complete(str_sub(line, 0, 100))));
            return;
        }
    }
}

static int decode(struct str url, struct str type, struct str data, bool html, struct buf *out,
                  struct err *err)
{
    bool wide = str_starts(data, STR("\xFF\xFE")) || str_starts(data, STR("\xFE\xFF"));
    buf_init(out, (size_t)LIMIT_PAGE_BYTES * 4);
    if (!html && !wide && !charset_of(type).n &&
        memchr(data.p, '\0', data.n < 4096 ? data.n : 4096))
        return err_set(err, ERR_UNSUPPORTED, "'%.*s' is not text",
                       STR_ARG(str_sub(url, 0, 200)));
    return charset_decode(data, charset_of(type), html, out, err);
}

/* Plain text and source: tabs become blanks, control characters go. */
static void print_plain(struct str s, struct buf *out)
{
    struct buf clean;
    buf_init(&clean, 0);
    envelope_clean(&clean, str_sub(s, 0, utf8_complete(str_sub(s, 0, TEXT_MAX))));
    for (size_t i = 0; i < clean.len; i++)
        if (clean.data[i] == '\t')
            buf_puts(out, "    ");
        else
            buf_putc(out, (char)clean.data[i]);
    buf_done(&clean);
}

static int convert(struct str url, struct str type, struct str data, bool source,
                   struct page *page, struct buf *title, struct buf *text, struct err *err)
{
    struct buf utf8;
    bool html = looks_like_html(url, type, data);
    int rc = decode(url, type, data, html, &utf8, err);
    if (rc == 0 && html && !source)
        rc = parse_html(url, buf_view(&utf8), page, title, text, err);
    else if (rc == 0) {
        text_title(buf_view(&utf8), title);
        print_plain(buf_view(&utf8), text);
    }
    buf_done(&utf8);
    return rc;
}

int html_page(struct page **out, struct str url, struct str type, struct str data, bool source,
              bool header, struct err *err)
{
    struct page *p;
    struct buf title;
    int rc = page_new(&p, STR(""), url, err);
    if (rc < 0)
        return rc;
    buf_init(&title, 0);
    if (header)
        buf_printf(&p->text, "\nURL: %s\n", p->url);
    struct buf body;
    buf_init(&body, 0);
    rc = convert(url, type, data, source, p, &title, &body, err);
    envelope_clean(&p->text, buf_view(&body));
    buf_done(&body);
    if (rc == 0) {
        mem_free(p->title);
        struct buf clean;
        buf_init(&clean, 0);
        envelope_clean(&clean, str_trim(buf_view(&title)));
        p->title = mem_strdup(buf_view(&clean));
        buf_done(&clean);
        rc = p->title ? page_wrap(p, err) : err_nomem(err);
    }
    buf_done(&title);
    if (rc < 0) {
        page_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

int html_text(struct str url, struct str type, struct str data, struct buf *title,
              struct buf *text, struct err *err)
{
    return convert(url, type, data, false, NULL, title, text, err);
}
