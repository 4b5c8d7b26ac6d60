/* test_netcheck.c - the proxy's decisions: heads, names, addresses, TLS hellos. */
#include "test.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "agentd/netcheck.h"

static struct policy *rules(void)
{
    struct err err = {0};
    struct policy *p = NULL;
    ASSERT_OK(policy_read(&p, "t.yaml",
                          STR("version: 1\nnetwork:\n  mode: proxy\n  ports: [443, 8443]\n"
                              "  allow: [example.org, '*.wiki.org', 93.184.216.34, '::1']\n"
                              "  deny: [bad.wiki.org]\n"),
                          &err), &err);
    return p;
}

static void refused(const char *head, const char *needle)
{
    struct netcheck_head h;
    struct err err = {0};
    int rc = netcheck_head(str_c(head), &h, &err);
    if (rc >= 0)
        fail_msg("accepted (%d): %s", rc, head);
    if (!strstr(err.text, needle))
        fail_msg("'%s' does not mention '%s' for %s", err.text, needle, head);
}

static void heads(void **state)
{
    (void)state;
    struct netcheck_head h;
    struct err err = {0};
    ASSERT_OK(netcheck_head(STR("CONNECT Example.ORG:443 HTTP/1.1\r\nHost: example.org:443\r\n"
                                "\r\nrest"), &h, &err), &err);
    assert_true(h.connect);
    assert_string_equal(h.host, "example.org");
    assert_int_equal(h.port, 443);
    assert_int_equal(h.size, 59);
    ASSERT_OK(netcheck_head(STR("GET http://example.org/a?b HTTP/1.1\r\nHost: example.org\r\n"
                                "Accept: */*\r\n\r\n"), &h, &err), &err);
    assert_true(str_is(h.target, "/a?b"));
    assert_int_equal(h.port, 80);
    ASSERT_OK(netcheck_head(STR("CONNECT [::1]:443 HTTP/1.1\r\n\r\n"), &h, &err), &err);
    assert_string_equal(h.host, "::1");
    assert_int_equal(netcheck_head(STR("GET http://exam"), &h, &err), 1);
    refused("POST http://example.org/ HTTP/1.1\r\n\r\n", "only CONNECT");
    refused("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "http://");
    refused("GET https://example.org/ HTTP/1.1\r\n\r\n", "http://");
    refused("GET http://u:p@example.org/ HTTP/1.1\r\n\r\n", "user");
    refused("CONNECT example.org.:443 HTTP/1.1\r\n\r\n", "host name");
    refused("CONNECT example.org HTTP/1.1\r\n\r\n", "port");
    refused("CONNECT example.org:0 HTTP/1.1\r\n\r\n", "port");
    refused("CONNECT example.org:99999 HTTP/1.1\r\n\r\n", "port");
    refused("CONNECT exa%6dple.org:443 HTTP/1.1\r\n\r\n", "host name");
    refused("GET http://a.org/ HTTP/1.1\r\nHost: b.org\r\n\r\n", "Host header");
    refused("GET http://a.org/ HTTP/1.1\r\nHost: a.org\r\nHost: a.org\r\n\r\n", "Host header");
    refused("GET http://a.org/ HTTP/1.1\r\nHost: a.org\r\n folded\r\n\r\n", "malformed");
    refused("GET http://a.org/ HTTP/1.1\r\nHost : b.org\r\n\r\n", "no name");
    refused("GET http://a.org/ HTTP/1.1\r\nHost\t: b.org\r\n\r\n", "no name");
    refused("GET http://a.org/ HTTP/1.1\r\nTransfer-Encoding\v: chunked\r\n\r\n", "no name");
    refused("GET http://a.org/ HTTP/1.1\r\nHo st: b.org\r\n\r\n", "no name");
    refused("GET http://a.org/ HTTP/1.1\r\nHost\xc2\xa0: b.org\r\n\r\n", "no name");
    refused("GET http://a.org/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "body");
    refused("GET http://a.org/ HTTP/1.1\r\nX: a\rHost: b.org\r\n\r\n", "malformed");
    refused("GET  http://a.org/ HTTP/1.1\r\n\r\n", "malformed");
    refused("GET http://a.org/ HTTP/2\r\n\r\n", "HTTP/1.1");
}

static void names(void **state)
{
    (void)state;
    struct policy *p = rules();
    struct err err = {0};
    ASSERT_OK(netcheck_host(p, "example.org", 443, true, &err), &err);
    ASSERT_OK(netcheck_host(p, "en.wiki.org", 8443, true, &err), &err);
    ASSERT_OK(netcheck_host(p, "93.184.216.34", 443, true, &err), &err);
    ASSERT_OK(netcheck_host(p, "example.org", 80, false, &err), &err);
    static const char *const no[] = {
        "wiki.org", "evilwiki.org", "bad.wiki.org", "www.example.org", "example.org.evil.net",
        "127.0.0.1", "0x7f.1", "2130706433", "127.1", "0177.0.0.1", "::ffff:127.0.0.1",
        "093.184.216.34", "93.184.55330", "0x5db8d822", "localhost"};
    for (unsigned i = 0; i < ARRAY_LEN(no); i++)
        ASSERT_ERR(netcheck_host(p, no[i], 443, true, &err), ERR_DENIED, &err, no[i]);
    ASSERT_ERR(netcheck_host(p, "example.org", 22, true, &err), ERR_DENIED, &err, "port 22");
    ASSERT_ERR(netcheck_host(p, "example.org", 80, true, &err), ERR_DENIED, &err, "port 80");
    policy_free(p);
}

static bool dial(const struct policy *p, const char *text)
{
    struct sockaddr_storage a = {0};
    struct sockaddr_in *v4 = (void *)&a;
    struct sockaddr_in6 *v6 = (void *)&a;
    if (strchr(text, ':')) {
        v6->sin6_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
    } else {
        v4->sin_family = AF_INET;
        assert_int_equal(inet_pton(AF_INET, text, &v4->sin_addr), 1);
    }
    return netcheck_address(p, (struct sockaddr *)&a);
}

static void addresses(void **state)
{
    (void)state;
    struct policy *p = rules();
    static const char *const yes[] = {"93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::1",
                                      "2002:0808:0808::1", "64:ff9b::808:808", "172.32.0.1"};
    static const char *const no[] = {
        "127.0.0.1", "127.255.0.9", "10.1.2.3", "192.168.0.1", "172.16.0.1", "172.31.255.255",
        "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
        "198.18.0.1", "::", "::2", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
        "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2002:7f00:1::1", "2002:a00:1::",
        "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:db8::1", "2001::1", "fec0::1"};
    for (unsigned i = 0; i < ARRAY_LEN(yes); i++)
        if (!dial(p, yes[i]))
            fail_msg("%s is public or listed", yes[i]);
    for (unsigned i = 0; i < ARRAY_LEN(no); i++)
        if (dial(p, no[i]))
            fail_msg("%s must not be dialled", no[i]);
    policy_free(p);
}

/* A hello with the given extension bytes; sizes filled in. */
static size_t hello(uint8_t *out, const char *name)
{
    size_t n = name ? strlen(name) : 0, ext = name ? 9 + n : 0, body = 2 + 32 + 1 + 4 + 2 + 2 + ext;
    uint8_t head[] = {22, 3, 1, (uint8_t)((body + 4) >> 8), (uint8_t)(body + 4), 1, 0,
                      (uint8_t)(body >> 8), (uint8_t)body, 3, 3};
    size_t at = 0;
    memcpy(out, head, sizeof head);
    at = sizeof head;
    memset(out + at, 7, 32);
    at += 32;
    uint8_t mid[] = {0, 0, 2, 0x13, 1, 1, 0, (uint8_t)(ext >> 8), (uint8_t)ext};
    memcpy(out + at, mid, sizeof mid);
    at += sizeof mid;
    if (name) {
        uint8_t sni[] = {0, 0, 0, (uint8_t)(n + 5), 0, (uint8_t)(n + 3), 0, 0, (uint8_t)n};
        memcpy(out + at, sni, sizeof sni);
        at += sizeof sni;
        memcpy(out + at, name, n);
        at += n;
    }
    return at;
}

static void hellos(void **state)
{
    (void)state;
    uint8_t h[512];
    char name[NETCHECK_HOST_MAX];
    struct err err = {0};
    size_t n = hello(h, "Example.org");
    ASSERT_OK(netcheck_hello(str_of(h, n), name, &err), &err);
    assert_string_equal(name, "example.org");
    for (size_t i = 1; i < n; i++)
        assert_int_equal(netcheck_hello(str_of(h, i), name, &err), 1);
    n = hello(h, NULL);
    ASSERT_OK(netcheck_hello(str_of(h, n), name, &err), &err);
    assert_string_equal(name, "");
    ASSERT_ERR(netcheck_hello(STR("GET / HTTP/1.1\r\n"), name, &err), ERR_DENIED, &err,
               "not TLS");
    n = hello(h, "bad name");
    ASSERT_ERR(netcheck_hello(str_of(h, n), name, &err), ERR_PARSE, &err, "malformed");
    n = hello(h, "example.org"); /* its server name becomes an encrypted hello: type 0xfe0d */
    h[n - strlen("example.org") - 9] = 0xfe;
    h[n - strlen("example.org") - 8] = 0x0d;
    ASSERT_ERR(netcheck_hello(str_of(h, n), name, &err), ERR_DENIED, &err, "encrypted");
    n = hello(h, "example.org");
    h[43] = 200; /* session id longer than what is there */
    assert_true(netcheck_hello(str_of(h, n), name, &err) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads),
        cmocka_unit_test(names),
        cmocka_unit_test(addresses),
        cmocka_unit_test(hellos),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
