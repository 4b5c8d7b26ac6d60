"""network.py - T20: getting round the proxy. The server here is a real one on loopback; a
policy that lists the address itself may reach it, one that lists only its name may not."""
import os
import socket
import ssl
import threading

from harness import PYTHON, main, wait_for


class Server:
    """Counts connections and keeps what it was sent; answers every request with a page."""

    def __init__(self):
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(16)
        self.port = self.sock.getsockname()[1]
        self.got, self.hits = [], 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            self.hits += 1
            threading.Thread(target=self.one, args=(c,), daemon=True).start()

    def one(self, c):
        c.settimeout(3)
        try:
            while True:
                b = c.recv(65536)
                if not b:
                    break
                self.got.append(b)
                if b"\r\n\r\n" in b:
                    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
        except OSError:
            pass
        c.close()

    def clear(self):
        self.got, self.hits = [], 0

    def text(self):
        return b"".join(self.got)


RAW = ("import socket, sys\n"
       "s = socket.create_connection(('127.0.0.1', 3128)); s.settimeout(4)\n"
       "def talk(data, more=b''):\n"
       "  s.sendall(data)\n"
       "  out = s.recv(65536)\n"
       "  if more and b' 200 ' in out.split(b'\\r\\n')[0]:\n"
       "    s.sendall(more)\n"
       "    try: out += s.recv(65536)\n"
       "    except OSError: pass\n"
       "  sys.stdout.write(out.decode('latin-1'))\n")


def hello(name):
    context = ssl.create_default_context()
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    s = context.wrap_bio(into, out, server_hostname=name)
    try:
        s.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def t20_proxy(w):
    server = Server()
    port = server.port
    listed = w.policy("workspace: temp\nnetwork:\n  mode: proxy\n"
                      f"  ports: [{port}]\n  allow: [localhost, '127.0.0.1', '*.allowed.test']\n")
    named = w.policy(f"workspace: temp\nnetwork: {{mode: proxy, ports: [{port}], allow: [localhost]}}\n")
    fetch = ("import os, sys; os.environ.pop('no_proxy'); os.environ.pop('NO_PROXY')\n"
             "import urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())")

    rc, out, err, record = w.inside([PYTHON, "-I", "-c", fetch, f"http://localhost:{port}/page"], listed)
    w.check("T20 an allowed name is reached through the proxy", rc == 0 and "hello" in out, out + err)
    seen = record.get("connections", [])
    w.check("T20 one audit record a connection", len(seen) == 1 and seen[0]["allowed"] and
            seen[0]["address"] == "127.0.0.1" and seen[0]["host"] == "localhost", str(seen))
    w.check("T20 the server saw a plain request", server.text().startswith(b"GET /page HTTP/1.1\r\n") and
            b"proxy" not in server.text().lower(), str(server.text()))

    def tried(case, code, policy, needle="403", reach=False):
        server.clear()
        rc, out, err, record = w.inside([PYTHON, "-I", "-c", RAW + code], policy)
        reached = wait_for(lambda: server.hits > 0, 0.2 if not reach else 3)
        seen = record.get("connections", [])
        w.check(f"T20 {case}", needle in out and reached == reach and len(seen) >= 1 and
                (reach or not any(c["allowed"] for c in seen)), f"{out} {err[-200:]} {seen}")
        return seen

    seen = tried("an allowed name that resolves to a local address",
                 f"talk(b'GET http://localhost:{port}/ HTTP/1.1\\r\\n\\r\\n')", named, "private or local")
    hosts = ["evil.test", "allowed.test", "localhost.evil.test", "127.1", "0x7f000001", "2130706433",
             "0177.0.0.1", "[::ffff:127.0.0.1]", "127.0.0.1.", "LOCALHOST.", "localhost@evil.test",
             "evil.test#localhost", "localhost%00.evil.test", "[::1", "::1", "*.allowed.test"]
    server.clear()
    many = ("import socket, sys\n"
            "for h in sys.argv[2:]:\n"
            "  s = socket.create_connection(('127.0.0.1', 3128)); s.settimeout(4)\n"
            "  s.sendall(f'CONNECT {h}:{sys.argv[1]} HTTP/1.1\\r\\n\\r\\n'.encode())\n"
            "  print(h, s.recv(999).split(b'\\r\\n')[0].decode())\n")
    rc, out, err, record = w.inside([PYTHON, "-I", "-c", many, str(port)] + hosts, listed)
    lines = out.splitlines()
    for host, line in zip(hosts, lines + [""] * len(hosts)):
        w.check(f"T20 {host} by CONNECT", line.startswith(host + " HTTP/1.1 40"), line + err[-200:])
    w.check("T20 none of these reached the server", server.hits == 0 and
            not any(c["allowed"] for c in record.get("connections", [])), str(record.get("connections")))
    tried("another port", "talk(b'CONNECT localhost:22 HTTP/1.1\\r\\n\\r\\n')", listed)
    tried("an address by its number when only its name is listed",
          f"talk(b'CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\n\\r\\n')", named)
    tried("a Host header for somebody else",
          f"talk(b'GET http://localhost:{port}/ HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n')", listed)
    tried("an upload", f"talk(b'POST http://localhost:{port}/ HTTP/1.1\\r\\nContent-Length: 3\\r\\n\\r\\nabc')",
          listed)
    tried("a head without end", "talk(b'GET http://localhost/ HTTP/1.1\\r\\nX: ' + b'a' * 9000)", listed, "431")
    server.clear()
    rc, out, err, _ = w.inside([PYTHON, "-I", "-c", RAW +
                                f"talk(b'GET http://localhost:{port}/one HTTP/1.1\\r\\n\\r\\n"
                                f"GET http://evil.test/two HTTP/1.1\\r\\n\\r\\n')"], listed)
    wait_for(lambda: server.hits > 0, 3)
    w.check("T20 a second request behind the first", b"/one" in server.text() and b"/two" not in server.text(),
            str(server.text()))

    good, other = hello("localhost"), hello("evil.test")
    for case, more, reach in (("TLS to the name that was asked for", good, True),
                              ("TLS to another name", other, False),
                              ("something that is not TLS", b"SSH-2.0-x\r\n", False),
                              ("a hello cut short", good[:40], False)):
        server.clear()
        rc, out, err, record = w.inside(
            [PYTHON, "-I", "-c", RAW + f"talk(b'CONNECT localhost:{port} HTTP/1.1\\r\\n\\r\\n', {more!r})"],
            listed)
        got = wait_for(lambda: server.text() != b"", 2 if reach else 0.3)
        seen = record.get("connections", [{}])
        w.check(f"T20 {case}", got == reach and (not reach or server.text() == more) and
                seen and seen[0].get("allowed") == reach, f"{server.text()[:60]} {seen} {err[-200:]}")
    w.attack("T20 past the proxy",
             "import socket, sys\n"
             "socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)", [port], policy=listed,
             seen=lambda: wait_for(lambda: server.hits > 0, 0.2), reset=server.clear)
    w.attack("T20 names without the proxy", "import socket\nsocket.getaddrinfo('example.org', 80)",
             policy=listed, control="needs the internet")
    # A secret is never inside: neither in the environment nor in what the client sent.
    secret = w.policy("workspace: temp\nnetwork: {mode: proxy, allow: [api.test]}\nsecrets:\n"
                      "  - {host: api.test, header: Authorization, prefix: 'Bearer ', from_env: AGENTD_T_CREDENTIAL}\n")
    rc, out, err, record = w.inside([PYTHON, "-I", "-c", "import os; print(dict(os.environ))"], secret,
                                    env=dict(os.environ, AGENTD_T_CREDENTIAL="canary-secret-9"))
    w.check("T20 a secret of the policy is not inside", rc == 0 and "canary" not in out + err + str(record), out)
    server.sock.close()


if __name__ == "__main__":
    main([t20_proxy], plain="" if os.environ.get("AGENTD_LONG") else "^never$")
