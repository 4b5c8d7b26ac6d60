"""search and open over the network: a real server on the loopback, honest and hostile."""
import gzip
import http.server
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve_client import Serve  # noqa: E402


class Site(http.server.ThreadingHTTPServer):
    """Pages by path; every request is noted."""
    daemon_threads = True

    def handle_error(self, request, address):
        pass  # clients that hang up are what some tests are about

    def __init__(self):
        self.log = []
        self.pages = {}
        super().__init__(("127.0.0.1", 0), Handler)
        self.host = "127.0.0.1:%d" % self.server_port
        self.url = "http://" + self.host
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def page(self, path, body, status=200, **headers):
        self.pages[path] = (status, headers, body if isinstance(body, bytes) else body.encode())


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        self.server.body = self.rfile.read(length).decode()
        self.do_GET()

    def do_GET(self):
        self.server.log.append(self.path)
        self.server.headers = dict(self.headers)
        path = urllib.parse.urlsplit(self.path).path
        special = getattr(self, "special_" + path.strip("/").replace(".", "_"), None)
        if special:
            special()
            return
        status, headers, body = self.server.pages.get(path, (404, {}, b"no"))
        self.send_response(status)
        if "Content_Type" not in headers:
            self.send_header("Content-Type", "text/html")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def special_endless(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(1 << 30))
        self.end_headers()
        try:
            self.wfile.write(b"<p>first words</p>")
            while True:
                self.wfile.write(b"<p>" + b"word " * 20000 + b"</p>")
        except OSError:
            self.server.log.append("cut off")

    def special_silent(self):
        time.sleep(40)

    def special_search(self):
        q = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        body = json.dumps({"query": q.get("q"), "results": [
            {"title": "Result %d" % i, "url": "%s/page%d" % (self.server.url, i),
             "content": "About %s \u3010x\u3011." % q["q"][0], "publishedDate": None}
            for i in range(20)] + [{"title": "bad", "url": "file:///etc/passwd"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Case(unittest.TestCase):
    def setUp(self):
        self.site = Site()
        self.dir = tempfile.mkdtemp(prefix="agentd-test-")
        self.serves = []

    def tearDown(self):
        for s in self.serves:
            self.assertEqual(s.close(), 0)
        self.site.shutdown()
        self.site.server_close()
        shutil.rmtree(self.dir)

    def serve(self, *options, providers=None, web=True, private=True):
        args = ["--profile", "research"] + (["--web"] if web else []) + list(options)
        if private:
            args += ["--private-hosts", self.site.host]
        if providers is not None:
            args += ["--providers", json.dumps(providers)]
        self.serves.append(Serve(*args))
        return self.serves[-1]

    def open(self, serve, path):
        return serve.text("open", {"id": self.site.url + path})


class Fetching(Case):
    def test_page_links_and_redirect(self):
        self.site.page("/a", "<title>T</title><p>Hello <a href='b?x=1#f'>next</a></p>")
        self.site.page("/b", "<title>B</title><p>Second</p>")
        self.site.page("/old", "", status=302, Location="/a")
        serve = self.serve()
        got = self.open(serve, "/old")
        self.assertEqual(got, "[0] T (%s/a)\n**viewing lines [0 - 2] of 2**\n\nL0: \n"
                         "L1: URL: %s/a\nL2: Hello 【0†next】" % (self.site.url, self.site.url))
        self.assertIn("[1] B (%s/b?x=1)" % self.site.url, serve.text("open", {"id": 0}))
        self.assertIn("/b?x=1", self.site.log)

    def test_private_addresses_are_refused(self):
        other = Site()
        other.page("/secret", "TOPSECRET")
        self.site.page("/go", "", status=302, Location=other.url + "/secret")
        self.site.page("/meta", "", status=302, Location="http://169.254.169.254/latest/meta-data")
        self.site.page("/name", "", status=302, Location="http://localhost:%d/secret"
                       % other.server_port)
        serve = self.serve()
        for path in ("/go", "/name", "/meta"):
            got = self.open(serve, path)
            self.assertIn("Error fetching URL", got)
            self.assertIn("is a private address", got)
            self.assertNotIn("TOPSECRET", got)
        for url in (other.url + "/secret", "http://[::1]:%d/secret" % other.server_port,
                    "http://0.0.0.0:%d/secret" % other.server_port,
                    "http://[::ffff:127.0.0.1]:%d/secret" % other.server_port,
                    "http://2130706433:%d/secret" % other.server_port,
                    "http://0x7f.1:%d/secret" % other.server_port):
            self.assertIn("is a private address", serve.text("open", {"id": url}), url)
        self.assertEqual(other.log, [])
        # The control: once excepted, the same page is read.
        self.serves.append(Serve("--profile", "research", "--web", "--private-hosts",
                                 self.site.host + "," + other.host))
        self.assertIn("TOPSECRET", self.open(self.serves[-1], "/go"))
        other.shutdown()
        other.server_close()

    def test_other_schemes(self):
        serve = self.serve()
        self.site.page("/f", "", status=302, Location="file:///etc/hostname")
        for url in ("file:///etc/hostname", "ftp://127.0.0.1/x", "gopher://127.0.0.1:70/x",
                    "javascript:alert(1)", "dict://127.0.0.1", self.site.url + "/f", "/etc/passwd"):
            got = serve.call("open", {"id": url})
            self.assertTrue(got["is_error"], url)
            self.assertIn("Error fetching URL", got["text"])

    def test_robots(self):
        self.site.page("/robots.txt", "User-agent: *\nDisallow: /private\nAllow: /private/ok$\n"
                       "\nUser-agent: other\nDisallow: /\n", Content_Type="text/plain")
        for path in ("/private/x", "/private/ok", "/open"):
            self.site.page(path, "<p>body</p>")
        serve = self.serve()
        self.assertIn("robots.txt does not allow it", self.open(serve, "/private/x"))
        self.assertIn("body", self.open(serve, "/private/ok"))
        self.assertIn("body", self.open(serve, "/open"))
        self.assertEqual(self.site.log.count("/robots.txt"), 1)
        self.assertNotIn("/private/x", self.site.log)

    def test_a_page_of_a_gigabyte(self):
        serve = self.serve()
        began = time.time()
        got = self.open(serve, "/endless")
        self.assertIn("first words", got)
        with open("/proc/%d/status" % serve.proc.pid) as f:
            peak = [int(l.split()[1]) for l in f if l.startswith("VmHWM")][0]
        self.assertLess(peak, 300 * 1024)
        self.assertLess(time.time() - began, 60)
        last = serve.text("open", {"loc": 10 ** 7})
        self.assertIn("the page is longer than 8 MB" if "longer" in last else "word", last)

    def test_gzip_bomb(self):
        self.site.page("/bomb", gzip.compress(b"<p>" + b"x" * 200000000), Content_Encoding="gzip")
        got = self.open(self.serve(), "/bomb")
        self.assertTrue(got.startswith("[0]"), got[:100])

    def test_statuses_and_dead_servers(self):
        serve = self.serve()
        self.assertIn("status 404", self.open(serve, "/missing"))
        self.site.page("/loop", "", status=301, Location="/loop")
        self.assertIn("more than 5 redirects", self.open(serve, "/loop"))
        dead = Site()
        dead.shutdown()
        dead.server_close()
        self.serves.append(Serve("--profile", "research", "--web", "--private-hosts", dead.host))
        got = self.serves[-1].text("open", {"id": dead.url + "/"})
        self.assertIn("Error fetching URL", got)

    def test_hostile_bytes(self):
        self.site.page("/nul", b"<p>a\0b\xff\xfe c</p>\x1b[2J", Content_Type="text/html; charset=utf-8")
        self.site.page("/bin", b"\x7fELF\0\0\0\0", Content_Type="application/octet-stream")
        self.site.page("/koi", "<p>\u043c\u043e\u0441\u0442</p>".encode("koi8-r"),
                       Content_Type="text/html; charset=koi8-r")
        serve = self.serve()
        got = self.open(serve, "/nul")
        self.assertNotIn("\0", got)
        self.assertNotIn("\x1b", got)
        self.assertIn("is not text", self.open(serve, "/bin"))
        self.assertIn("\u043c\u043e\u0441\u0442", self.open(serve, "/koi"))

    def test_charsets(self):
        for declared, data, want in (
                ("charset=iso-8859-1", "caf\u00e9 \u20ac".encode("cp1252"), "caf\u00e9 \u20ac"),
                ("charset=Shift_JIS", "\u6771\u4eac".encode("shift_jis"), "\u6771\u4eac"),
                ("", b"<meta charset=shift_jis>" + "\u6771\u4eac".encode("shift_jis"),
                 "\u6771\u4eac"),
                ("charset=klingon", "na\u00efve".encode(), "na\u00efve"),
                ("charset=utf-8", "caf\u00e9!".encode("latin-1"), "caf\ufffd!"),
                ("", "\ufeff<p>sixteen".encode("utf-16-le"), "sixteen"),
                ("charset=gb2312", "\u5317\u4eac".encode("gb2312"), "\u5317\u4eac")):
            self.site.page("/c", data, Content_Type="text/html; " + declared)
            self.assertIn("L2: " + want, self.open(self.serve(), "/c"), declared)

    def test_servers_that_break_the_protocol(self):
        """Whatever comes over the wire: one sentence, soon."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
        answers = {
            b"SSH-2.0-x\r\n": "Error", b"": "Empty reply",
            head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx": "chunked",
            head + b"Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n<p>x": "closed",
            head + b"Content-Length: 1000\r\n\r\n<p>short": "bytes remaining",
            head + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\nno gzip": "encoding",
            head + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 900) for i in range(500)): "headers",
            b"HTTP/1.1 302 F\r\nLocation: \0://\r\nContent-Length: 0\r\n\r\n": "header",
            b"HTTP/1.1 302 F\r\nContent-Length: 0\r\n\r\n": "status 302",
            head + b"Content-Length: 0\r\n\r\n": "L2: [the server sent an empty page]",
            head + b"Connection: close\r\n\r\n" + b"<div>" * 100000 + b"x":
                "[the page has no readable text]",
            head + b"Connection: close\r\n\r\n%PDF-1.4 no": "pdf"}
        box = {}

        def serve_raw(listener):
            while True:
                try:
                    c, _ = listener.accept()
                except OSError:
                    return
                with c:
                    try:
                        asked = c.recv(65536)
                        c.sendall(b"HTTP/1.1 404 N\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                                  if b"robots" in asked else box["answer"])
                    except OSError:
                        pass

        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=serve_raw, args=(listener,), daemon=True).start()
            host = "127.0.0.1:%d" % listener.getsockname()[1]
            for box["answer"], want in answers.items():
                self.serves.append(Serve("--profile", "research", "--web", "--private-hosts", host))
                got = self.serves[-1].text("open", {"id": "http://%s/p" % host})
                self.assertIn(want, got, box["answer"][:80])
                self.assertIn("still", self.serves[-1].text("bash", {"command": "echo still"}))

    def test_view_source(self):
        self.site.page("/a", "<p>Hello</p>")
        got = self.serve().text("open", {"id": self.site.url + "/a", "view_source": True})
        self.assertIn("L2: <p>Hello</p>", got)

    def test_without_network(self):
        serve = self.serve(web=False)
        self.assertIn("no network here", self.open(serve, "/a"))
        self.assertEqual(self.site.log, [])


class Searching(Case):
    def searxng(self):
        return [{"name": "sx", "type": "searxng", "url": self.site.url + "/"}]

    def test_searxng(self):
        self.site.page("/page1", "<title>One</title>text")
        serve = self.serve(providers=self.searxng())
        got = serve.text("search", {"query": "r\u00edver & sea", "topn": 3})
        self.assertIn("/search?format=json&q=r%C3%ADver%20%26%20sea&categories=general",
                      self.site.log)
        self.assertIn("  * 【0†Result 0; publish_date: none†127.0.0.1】 About r\u00edver & sea", got)
        self.assertIn("Result 2", got)
        self.assertNotIn("Result 3", got)
        self.assertIn("[1] One", serve.text("open", {"id": 1}))

    def test_json_endpoint(self):
        self.site.page("/api", json.dumps({"web": {"hits": [
            {"name": "N", "link": "https://example.org/x", "about": "words", "age": "2024"}]}}))
        provider = [{"type": "json", "url": self.site.url + "/api?n={count}",
                     "headers": {"X-Token": "t", "Bad": "a\r\nInjected: 1"},
                     "body": "{\"q\": {query_json}}", "results": "web.hits", "title": "name",
                     "link": "link", "snippet": "about", "date": "age"}]
        got = self.serve(providers=provider).text("search", {"query": 'a "b"'})
        self.assertIn("【0†N; publish_date: 2024†example.org】 words", got.replace("\n", " "))
        self.assertEqual(json.loads(self.site.body), {"q": 'a "b"'})
        self.assertEqual(self.site.headers.get("X-Token"), "t")
        self.assertNotIn("Injected", self.site.headers)

    def test_dead_then_next(self):
        dead = [{"name": "gone", "type": "searxng", "url": self.site.url + "/nothing"}]
        got = self.serve(providers=dead).text("search", {"query": "x"})
        self.assertIn("Error searching for `x`: search provider 'gone': it answered with status "
                      "404", got)
        got = self.serve(providers=dead + self.searxng()).text("search", {"query": "x"})
        self.assertIn("Result 0", got)

    def test_garbage_answers(self):
        for body in ("not json", "[]", "{}", '{"results": 5}', '{"results": [1, {"url": 3}]}'):
            self.site.page("/api", body)
            provider = [{"type": "json", "url": self.site.url + "/api"}]
            got = self.serve(providers=provider).call("search", {"query": "x"})
            self.assertIn("x", got["text"])

    def test_cassette(self):
        tape = self.dir + "/tape"
        self.site.page("/page0", "<title>Zero</title>taped words")
        serve = self.serve("--cassette", tape, "--record", providers=self.searxng())
        first = serve.text("search", {"query": "q"})
        page = serve.text("open", {"id": 0})
        n = len(self.site.log)
        replay = self.serve("--cassette", tape, providers=self.searxng(), web=False)
        self.assertEqual(replay.text("search", {"query": "q"}), first)
        self.assertEqual(replay.text("open", {"id": 0}), page)
        self.assertIn("it was not recorded", replay.text("search", {"query": "other"}))
        self.assertEqual(len(self.site.log), n)


if __name__ == "__main__":
    unittest.main(verbosity=1)
