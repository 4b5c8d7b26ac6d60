/* netcheck.c - parsers and tables of the proxy; see the header for what each refuses. */
#include "agentd/netcheck.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- names ---- */

static bool lower_host(struct str s, char out[NETCHECK_HOST_MAX])
{
    if (s.n == 0 || s.n >= NETCHECK_HOST_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c + 32);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
              c == ':' || c == '_'))
            return false;
        out[i] = c;
    }
    out[s.n] = '\0';
    return out[0] != '.' && out[s.n - 1] != '.' && !strstr(out, "..");
}

static bool matches(const char *pattern, const char *host)
{
    if (strncmp(pattern, "*.", 2) != 0)
        return strcmp(pattern, host) == 0;
    size_t n = strlen(host), tail = strlen(pattern + 1); /* ".example.org" */
    return n > tail && strcmp(host + n - tail, pattern + 1) == 0;
}

/* Every spelling that some resolver reads as a number: 127.1, 0x7f000001, 2130706433, ::1. */
static bool is_literal(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    bool numeric = host[strspn(host, "0123456789.")] == '\0' ||
                   (host[0] == '0' && (host[1] == 'x' || host[1] == 'X'));
    return numeric || strchr(host, ':') || inet_aton(host, &v4) ||
           inet_pton(AF_INET6, host, &v6) == 1;
}

int netcheck_host(const struct policy *p, const char *host, uint16_t port, bool connect,
                  struct err *err)
{
    bool literal = is_literal(host), port_ok = !connect && port == 80;
    for (unsigned i = 0; i < p->n_deny; i++)
        if (matches(p->deny[i], host))
            return err_set(err, ERR_DENIED, "%s is on the policy's deny list", host);
    for (unsigned i = 0; i < p->n_ports; i++)
        port_ok |= p->port[i] == port;
    if (!port_ok)
        return err_set(err, ERR_DENIED, "port %u is not allowed by the policy", port);
    for (unsigned i = 0; i < p->n_allow; i++)
        if (literal ? strcmp(p->allow[i], host) == 0 : matches(p->allow[i], host))
            return 0;
    return err_set(err, ERR_DENIED, "%s is not on the policy's allow list%s", host,
                   literal ? " (an address must be listed itself)" : "");
}

/* ---- addresses ---- */

struct block {
    uint8_t bytes[16];
    uint8_t bits;
};

/* Special-purpose registries of IANA, and whatever else is not the public internet. */
static const struct block v4_blocks[] = {
    {{0}, 8},           {{10}, 8},          {{100, 64}, 10},     {{127}, 8},
    {{169, 254}, 16},   {{172, 16}, 12},    {{192, 0, 0}, 24},   {{192, 0, 2}, 24},
    {{192, 88, 99}, 24}, {{192, 168}, 16},  {{198, 18}, 15},     {{198, 51, 100}, 24},
    {{203, 0, 113}, 24}, {{224}, 4},        {{240}, 4}};
static const struct block v6_blocks[] = {
    {{0}, 96} /* unspecified, loopback, compatible */, {{0x01}, 64} /* discard */,
    {{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48} /* local NAT64 */,
    {{0x20, 0x01, 0x00}, 23} /* Teredo and other protocols */,
    {{0x20, 0x01, 0x0d, 0xb8}, 32} /* documentation */, {{0x3f, 0xff}, 20},
    {{0x5f, 0x00}, 16} /* segment routing */, {{0xfc}, 7} /* unique local */,
    {{0xfe, 0x80}, 10} /* link local */, {{0xfe, 0xc0}, 10} /* site local */,
    {{0xff}, 8} /* multicast */};

static bool inside(const uint8_t *a, const struct block *b)
{
    unsigned whole = b->bits / 8, rest = b->bits % 8;
    if (memcmp(a, b->bytes, whole) != 0)
        return false;
    uint8_t mask = (uint8_t)(0xff << (8 - rest));
    return rest == 0 || (a[whole] & mask) == (b->bytes[whole] & mask);
}

static bool public_v4(const uint8_t a[4])
{
    for (unsigned i = 0; i < ARRAY_LEN(v4_blocks); i++)
        if (inside(a, &v4_blocks[i]))
            return false;
    return true;
}

/* Addresses of the old protocol hide in several forms of the new one. */
static bool public_v6(const uint8_t a[16])
{
    static const struct block mapped = {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96};
    static const struct block nat64 = {{0x00, 0x64, 0xff, 0x9b}, 96};
    static const struct block six_to_four = {{0x20, 0x02}, 16};
    if (inside(a, &mapped) || inside(a, &nat64))
        return public_v4(a + 12);
    if (inside(a, &six_to_four))
        return public_v4(a + 2);
    for (unsigned i = 0; i < ARRAY_LEN(v6_blocks); i++)
        if (inside(a, &v6_blocks[i]))
            return false;
    return true;
}

void netcheck_text(const struct sockaddr *a, char *buf, size_t cap)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    buf[0] = '\0';
    if (a->sa_family == AF_INET) {
        memcpy(&v4, a, sizeof v4);
        (void)!inet_ntop(AF_INET, &v4.sin_addr, buf, (socklen_t)cap);
    } else if (a->sa_family == AF_INET6) {
        memcpy(&v6, a, sizeof v6);
        (void)!inet_ntop(AF_INET6, &v6.sin6_addr, buf, (socklen_t)cap);
    }
}

/* An address of this machine's own interfaces, which may well be public. Unknown means yes. */
static bool own(const struct sockaddr *a)
{
    char text[INET6_ADDRSTRLEN], mine[INET6_ADDRSTRLEN];
    struct ifaddrs *all = NULL;
    netcheck_text(a, text, sizeof text);
    const char *plain = strncmp(text, "::ffff:", 7) == 0 ? text + 7 : text;
    if (getifaddrs(&all) < 0)
        return true;
    bool hit = false;
    for (const struct ifaddrs *i = all; i && !hit; i = i->ifa_next) {
        if (!i->ifa_addr)
            continue;
        netcheck_text(i->ifa_addr, mine, sizeof mine);
        hit = mine[0] && strcmp(mine, plain) == 0;
    }
    freeifaddrs(all);
    return hit;
}

bool netcheck_address(const struct policy *p, const struct sockaddr *a)
{
    char text[INET6_ADDRSTRLEN];
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    netcheck_text(a, text, sizeof text);
    for (unsigned i = 0; text[0] && i < p->n_allow; i++)
        if (strcmp(p->allow[i], text) == 0)
            return true;
    if (a->sa_family == AF_INET) {
        memcpy(&v4, a, sizeof v4);
        return public_v4((const uint8_t *)&v4.sin_addr) && !own(a);
    }
    if (a->sa_family == AF_INET6) {
        memcpy(&v6, a, sizeof v6);
        return public_v6(v6.sin6_addr.s6_addr) && !own(a);
    }
    return false;
}

/* ---- heads ---- */

static int split_authority(struct str s, uint16_t preset, struct netcheck_head *out,
                           struct err *err)
{
    struct str host = s, port = {0};
    uint64_t v = preset;
    if (s.n && s.p[0] == '[') {
        size_t end = str_find(s, STR("]"), 0);
        if (end == STR_NONE)
            return err_set(err, ERR_PARSE, "a bracket is not closed");
        host = str_sub(s, 1, end - 1);
        if (end + 1 < s.n && s.p[end + 1] != ':')
            return err_set(err, ERR_PARSE, "no port after the bracket");
        port = str_sub(s, end + 2, s.n);
    } else {
        size_t colon = str_find(s, STR(":"), 0);
        if (colon != STR_NONE) {
            host = str_sub(s, 0, colon);
            port = str_sub(s, colon + 1, s.n);
        }
        if (str_find(host, STR(":"), 0) != STR_NONE)
            return err_set(err, ERR_PARSE, "an IPv6 address stands in brackets");
    }
    if (!lower_host(host, out->host))
        return err_set(err, ERR_PARSE, "the host name is malformed");
    if (port.n && (!str_to_u64(port, &v) || v == 0 || v > 65535))
        return err_set(err, ERR_PARSE, "the port is no number from 1 to 65535");
    if (v == 0)
        return err_set(err, ERR_PARSE, "CONNECT needs a port");
    out->port = (uint16_t)v;
    return 0;
}

static int request_line(struct str line, struct netcheck_head *out, struct err *err)
{
    struct str method, target, version;
    if (!str_split(&line, ' ', &method) || !str_split(&line, ' ', &target) ||
        !str_split(&line, ' ', &version) || line.n)
        return err_set(err, ERR_PARSE, "the request line is malformed");
    if (!str_is(version, "HTTP/1.1") && !str_is(version, "HTTP/1.0"))
        return err_set(err, ERR_PARSE, "only HTTP/1.1 is spoken here");
    for (size_t i = 0; i < target.n; i++)
        if ((unsigned char)target.p[i] <= 0x20 || (unsigned char)target.p[i] >= 0x7f)
            return err_set(err, ERR_PARSE, "the target holds a control character");
    out->connect = str_is(method, "CONNECT");
    out->head = str_is(method, "HEAD");
    if (out->connect)
        return split_authority(target, 0, out, err);
    if (!str_is(method, "GET") && !out->head)
        return err_set(err, ERR_DENIED, "only CONNECT, and GET and HEAD of http:// addresses, "
                       "pass this proxy");
    if (!str_starts(target, STR("http://")))
        return err_set(err, ERR_PARSE, "the target is no http:// address");
    struct str rest = str_sub(target, 7, target.n);
    size_t slash = str_find(rest, STR("/"), 0);
    struct str authority = str_sub(rest, 0, slash == STR_NONE ? rest.n : slash);
    out->target = slash == STR_NONE ? STR("/") : str_sub(rest, slash, rest.n);
    if (str_find(authority, STR("@"), 0) != STR_NONE ||
        str_find(authority, STR("?"), 0) != STR_NONE ||
        str_find(target, STR("#"), 0) != STR_NONE)
        return err_set(err, ERR_PARSE, "the target holds a user, a query without path or a "
                       "fragment");
    return split_authority(authority, 80, out, err);
}

static bool name_is(struct str line, const char *name, struct str *value)
{
    size_t n = strlen(name);
    if (line.n <= n || line.p[n] != ':' || strncasecmp(line.p, name, n) != 0)
        return false;
    *value = str_trim(str_sub(line, n + 1, line.n));
    return true;
}

/* RFC 9110 section 5.6.2. "Host\t: b" would be a second Host to a server that is lenient. */
static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              (c && strchr("!#$%&'*+-.^_`|~", c))))
            return false;
    }
    return s.n > 0;
}

/* A second reading of the target by another program must come to the same end. */
static int header_lines(struct netcheck_head *out, struct err *err)
{
    struct str rest = out->headers, line, value;
    bool host_seen = false;
    while (str_split(&rest, '\n', &line)) {
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (line.n == 0 || line.p[0] == ' ' || line.p[0] == '\t' ||
            memchr(line.p, '\r', line.n) || memchr(line.p, '\0', line.n))
            return err_set(err, ERR_PARSE, "a header line is malformed");
        size_t colon = str_find(line, STR(":"), 0);
        if (colon == STR_NONE || !is_token(str_sub(line, 0, colon)))
            return err_set(err, ERR_PARSE, "a header has no name");
        if (name_is(line, "Transfer-Encoding", &value) ||
            (name_is(line, "Content-Length", &value) && !str_is(value, "0")) ||
            name_is(line, "Upgrade", &value))
            return err_set(err, ERR_DENIED, "requests with a body or an upgrade do not pass");
        if (!name_is(line, "Host", &value))
            continue;
        struct netcheck_head other = {0};
        if (host_seen || split_authority(value, out->connect ? out->port : 80, &other, err) < 0 ||
            strcmp(other.host, out->host) != 0 || other.port != out->port)
            return err_set(err, ERR_DENIED, "the Host header is not the target's host");
        host_seen = true;
    }
    return 0;
}

int netcheck_head(struct str in, struct netcheck_head *out, struct err *err)
{
    size_t end = str_find(in, STR("\r\n\r\n"), 0);
    memset(out, 0, sizeof *out);
    if (end == STR_NONE && in.n < NETCHECK_HEAD_MAX)
        return 1;
    if (end == STR_NONE || end + 4 > NETCHECK_HEAD_MAX)
        return err_set(err, ERR_LIMIT, "the request head is longer than %d bytes",
                       NETCHECK_HEAD_MAX);
    size_t first = str_find(in, STR("\r\n"), 0);
    out->size = end + 4;
    out->headers = first == end ? (struct str){NULL, 0} : str_sub(in, first + 2, end - first - 2);
    int rc = request_line(str_sub(in, 0, first), out, err);
    return rc < 0 ? rc : header_lines(out, err);
}

/* ---- ClientHello, RFC 8446 section 4.1.2 and RFC 6066 section 3 ---- */

struct reader {
    const uint8_t *p;
    size_t n;
    bool bad;
};

static uint32_t take(struct reader *r, unsigned bytes)
{
    uint32_t v = 0;
    if (r->n < bytes) {
        r->bad = true;
        r->n = 0;
        return 0;
    }
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | r->p[i];
    r->p += bytes;
    r->n -= bytes;
    return v;
}

static struct reader sub(struct reader *r, size_t n)
{
    struct reader s = {r->p, n, false};
    if (r->n < n) {
        r->bad = true;
        s.n = 0;
        s.bad = true;
        r->n = 0;
        return s;
    }
    r->p += n;
    r->n -= n;
    return s;
}

static int server_name(struct reader ext, char name[NETCHECK_HOST_MAX], struct err *err)
{
    struct reader list = sub(&ext, take(&ext, 2));
    unsigned type = take(&list, 1);
    struct reader host = sub(&list, take(&list, 2));
    if (list.bad || ext.n || list.n || type != 0 ||
        !lower_host(str_of(host.p, host.n), name))
        return err_set(err, ERR_PARSE, "the server name of the TLS hello is malformed");
    return 0;
}

static int hello_body(struct reader r, char name[NETCHECK_HOST_MAX], struct err *err)
{
    (void)sub(&r, 2 + 32);                   /* version, random */
    (void)sub(&r, take(&r, 1));              /* session id */
    (void)sub(&r, take(&r, 2));              /* cipher suites */
    (void)sub(&r, take(&r, 1));              /* compression */
    if (r.n == 0 && !r.bad)
        return 0; /* no extensions */
    struct reader all = sub(&r, take(&r, 2));
    bool seen = false, twice = false;
    while (all.n && !all.bad && !twice) {
        unsigned type = take(&all, 2);
        struct reader ext = sub(&all, take(&all, 2));
        twice = type == 0 && seen; /* a server might take the other one */
        if (ext.bad || twice)
            break;
        if (type == 0xfe0d || type == 0xffce) /* the name in clear would be a pretext */
            return err_set(err, ERR_DENIED, "an encrypted TLS hello hides whom it asks for and "
                           "does not pass; switch ECH off");
        if (type != 0)
            continue;
        seen = true;
        int rc = server_name(ext, name, err);
        if (rc < 0)
            return rc;
    }
    return all.bad || r.bad || twice ? err_set(err, ERR_PARSE, "the TLS hello is malformed") : 0;
}

int netcheck_hello(struct str in, char name[NETCHECK_HOST_MAX], struct err *err)
{
    struct reader r = {(const uint8_t *)in.p, in.n, false};
    name[0] = '\0';
    if (in.n && r.p[0] != 22)
        return err_set(err, ERR_DENIED, "what follows CONNECT is not TLS");
    if (in.n < 9)
        return 1;
    (void)take(&r, 3); /* type, version */
    uint32_t record = take(&r, 2);
    if (record < 4 || record > NETCHECK_HELLO_MAX - 5)
        return err_set(err, ERR_PARSE, "the TLS record has an impossible size");
    if (r.n < record)
        return 1;
    struct reader body = sub(&r, record);
    unsigned type = take(&body, 1);
    uint32_t size = take(&body, 3);
    if (type != 1)
        return err_set(err, ERR_DENIED, "the TLS connection does not begin with a hello");
    if (size > body.n) /* a hello over several records is legal and never seen */
        return err_set(err, ERR_DENIED, "a TLS hello in pieces does not pass");
    return hello_body(sub(&body, size), name, err);
}
