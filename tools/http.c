/* http.c - libcurl's easy interface with everything risky switched off. */
#include "tools/http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { CONNECT_S = 10, SLOW_BYTES = 100, SLOW_S = 15 };

/* First address, bits that count. What is not listed is public. */
static const struct {
    uint32_t net;
    unsigned bits;
} private4[] = {
    {0x00000000, 8},  {0x0a000000, 8},  {0x64400000, 10}, {0x7f000000, 8},  {0xa9fe0000, 16},
    {0xac100000, 12}, {0xc0000000, 24}, {0xc0000200, 24}, {0xc0586300, 24}, {0xc0a80000, 16},
    {0xc6120000, 15}, {0xc6336400, 24}, {0xcb007100, 24}, {0xe0000000, 4},  {0xf0000000, 4},
};

static bool is_private4(uint32_t a)
{
    for (unsigned i = 0; i < ARRAY_LEN(private4); i++)
        if ((a ^ private4[i].net) >> (32 - private4[i].bits) == 0)
            return true;
    return false;
}

static uint32_t word(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool is_private6(const uint8_t a[16])
{
    static const uint8_t zero[16];
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    if (memcmp(a, zero, 10) == 0 && ((a[10] == 0xff && a[11] == 0xff) || !(a[10] | a[11])))
        return memcmp(a, zero, 12) == 0 || is_private4(word(a + 12)); /* ::, ::1, mapped */
    if (memcmp(a, nat64, 12) == 0)
        return is_private4(word(a + 12));
    if (a[0] == 0x20 && a[1] == 0x02) /* 6to4 carries an IPv4 address */
        return is_private4(word(a + 2));
    if (word(a) == 0x20010000 || word(a) == 0x20010db8) /* Teredo, documentation */
        return true;
    return (a[0] & 0xfe) == 0xfc || (a[0] == 0xfe && a[1] >= 0x80) || a[0] == 0xff;
}

bool http_is_private(const struct sockaddr *addr)
{
    if (addr->sa_family == AF_INET)
        return is_private4(
            ntohl(((const struct sockaddr_in *)(const void *)addr)->sin_addr.s_addr));
    if (addr->sa_family == AF_INET6)
        return is_private6(((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr.s6_addr);
    return true;
}

struct transfer {
    const struct http_request *q;
    struct http_reply *r;
    bool proxied, refused, cancelled;
    char address[80];
};

/* Whether "address:port" stands in the list of exceptions. */
static bool is_excepted(const char *list, const char *address)
{
    struct str rest = str_c(list), one;
    while (list && str_split(&rest, ',', &one))
        if (str_is(str_trim(one), address))
            return true;
    return false;
}

static void name_address(const struct curl_sockaddr *a, char out[80])
{
    char host[INET6_ADDRSTRLEN] = "?";
    unsigned port = 0;
    if (a->family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&a->addr;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        port = ntohs(in->sin_port);
    } else if (a->family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)&a->addr;
        inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
        port = ntohs(in->sin6_port);
    }
    snprintf(out, 80, a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", host, port);
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    struct transfer *t = arg;
    (void)purpose;
    name_address(a, t->address);
    bool ours = t->q->private_ok || is_excepted(t->q->private_hosts, t->address);
    if (!t->proxied && http_is_private(&a->addr) && !ours) {
        t->refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    size_t len = size * n, room = t->q->max_bytes - t->r->body.len;
    buf_add(&t->r->body, p, len < room ? len : room);
    if (len > room)
        t->r->cut = true;
    return t->r->cut || t->r->body.failed ? 0 : len; /* 0 ends the transfer */
}

static int on_progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total,
                       curl_off_t up)
{
    struct transfer *t = arg;
    struct pollfd p = {t->q->cancel_fd, POLLIN, 0};
    (void)total, (void)now, (void)up_total, (void)up;
    if (t->q->cancel_fd >= 0 && poll(&p, 1, 0) > 0)
        t->cancelled = true;
    return t->cancelled;
}

static void set_options(CURL *c, struct transfer *t, struct curl_slist *headers)
{
    const struct http_request *q = t->q;
    curl_easy_setopt(c, CURLOPT_URL, q->url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "agentd/" AGENTD_VERSION);
    curl_easy_setopt(c, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)q->timeout_s);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)SLOW_S);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, t);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    if (headers)
        curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    if (q->body)
        curl_easy_setopt(c, CURLOPT_COPYPOSTFIELDS, q->body);
}

/* The daemon's proxy says why it refused; its words are worth more than a status. */
static int proxy_refusal(const struct transfer *t, const char *detail, struct err *err)
{
    const struct str mark = STR("agentd proxy: ");
    struct str body = buf_view(&t->r->body);
    if (t->r->status >= 400 && str_starts(body, mark)) {
        struct str why = str_trim(str_sub(body, mark.n, 300));
        return err_set(err, ERR_DENIED, "%.*s", STR_ARG(str_sub(why, 0, utf8_complete(why))));
    }
    if (strstr(detail, "CONNECT tunnel failed, response 403"))
        return err_set(err, ERR_DENIED, "the policy does not allow connections to this host");
    return 0;
}

static int outcome(CURL *c, CURLcode code, const char *detail, struct transfer *t,
                   struct err *err)
{
    char *s = NULL;
    if (t->refused)
        return err_set(err, ERR_DENIED, "%s is a private address", t->address);
    if (t->cancelled)
        return err_set(err, ERR_CANCELLED, "cancelled");
    if (code == CURLE_OPERATION_TIMEDOUT && strstr(detail, "too slow"))
        return err_set(err, ERR_TIMEOUT, "the server is too slow: less than %d bytes a second "
                       "for %d s", SLOW_BYTES, SLOW_S);
    if (code == CURLE_OPERATION_TIMEDOUT)
        return err_set(err, ERR_TIMEOUT, "no complete answer within %u s", t->q->timeout_s);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &t->r->status);
    if (t->proxied && proxy_refusal(t, detail, err) < 0)
        return -err->code;
    if (code != CURLE_OK && !(code == CURLE_WRITE_ERROR && t->r->cut))
        return err_set(err, ERR_STATE, "%.200s", detail[0] ? detail : curl_easy_strerror(code));
    if (curl_easy_getinfo(c, CURLINFO_CONTENT_TYPE, &s) == CURLE_OK && s)
        snprintf(t->r->type, sizeof t->r->type, "%s", s);
    for (char *p = t->r->type; *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p + 32);
    if (curl_easy_getinfo(c, CURLINFO_REDIRECT_URL, &s) == CURLE_OK && s)
        snprintf(t->r->redirect, sizeof t->r->redirect, "%s", s);
    return buf_check(&t->r->body, "page", err);
}

int http_get(const struct http_request *q, struct http_reply *out, struct err *err)
{
    struct transfer t = {.q = q, .r = out};
    struct curl_slist *headers = NULL;
    char detail[CURL_ERROR_SIZE] = "";
    *out = (struct http_reply){.status = 0};
    buf_init(&out->body, 0);
    CURL *c = curl_easy_init();
    if (!c)
        return err_nomem(err);
    for (unsigned i = 0; q->header && q->header[i]; i++) {
        struct curl_slist *more = curl_slist_append(headers, q->header[i]);
        if (more)
            headers = more;
    }
    bool tls = strncasecmp(q->url, "https:", 6) == 0;
    const char *proxy = getenv(tls ? "https_proxy" : "http_proxy");
    t.proxied = proxy && proxy[0];
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, detail);
    set_options(c, &t, headers);
    CURLcode code = curl_easy_perform(c);
    int rc = outcome(c, code, detail, &t, err);
    curl_easy_cleanup(c);
    curl_slist_free_all(headers);
    if (rc < 0)
        http_reply_done(out);
    return rc;
}

void http_reply_done(struct http_reply *r)
{
    buf_done(&r->body);
}

void http_escape(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char ch = (unsigned char)s.p[i];
        if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
            ch == '-' || ch == '.' || ch == '_' || ch == '~')
            buf_putc(out, (char)ch);
        else
            buf_printf(out, "%%%02X", ch);
    }
}
