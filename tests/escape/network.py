"""network.py - T20: getting round the proxy, and secrets that it adds. Servers are real ones: on
loopback, where a policy that lists the address itself may reach them and one that lists only
the name may not; and in a network namespace with a name server, public and private addresses."""
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading

from harness import PYTHON, main, threat, wait_for


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
       "    s.sendall(more); s.settimeout(1)\n"
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


def rebuilt(h, change):
    """A hello with its list of extensions changed."""
    body = h[9:]
    p = 34
    p += 1 + body[p]
    p += 2 + int.from_bytes(body[p:p + 2], "big")
    p += 1 + body[p]
    exts, at = [], p + 2
    while at < len(body):
        n = int.from_bytes(body[at + 2:at + 4], "big")
        exts.append((body[at:at + 2], body[at + 4:at + 4 + n]))
        at += 4 + n
    raw = b"".join(t + len(v).to_bytes(2, "big") + v for t, v in change(exts))
    body = body[:p] + len(raw).to_bytes(2, "big") + raw
    return h[:3] + (len(body) + 4).to_bytes(2, "big") + b"\x01" + len(body).to_bytes(3, "big") + body


def odd_hellos():
    """Hellos in which one reader may see the allowed name and another reader a different one."""
    good, other = hello("localhost"), hello("evil.test")
    wrong = b"\0\x0c\0\0\x09evil.test"
    half = 100

    def two_names(exts):
        return [(t, (len(v) + 10).to_bytes(2, "big") + v[2:] + wrong[2:] if t == b"\0\0" else v)
                for t, v in exts]
    return {"two server name extensions": rebuilt(good, lambda e: e + [(b"\0\0", wrong)]),
            "the same, the other one first": rebuilt(good, lambda e: [(b"\0\0", wrong)] + e),
            "two names in one": rebuilt(good, two_names),
            "in two records": other[:3] + half.to_bytes(2, "big") + other[5:5 + half] + other[:3] +
            (len(other) - 5 - half).to_bytes(2, "big") + other[5 + half:],
            "an empty record ahead": b"\x16\x03\x01\0\0" + other,
            "an alert ahead": b"\x15\x03\x01\0\x02\x01\0" + other,
            "NUL in the name": good.replace(b"localhost", b"local\0ost"),
            "of SSL 2": b"\x80\x2e\x01\0\x02" + bytes(60)}


@threat("T20")
def t20_proxy(w):
    server = Server()
    port = server.port
    listed = w.daemon(w.policy("workspace: temp\nnetwork:\n  mode: proxy\n"
                               f"  ports: [{port}]\n  allow: [localhost, '127.0.0.1', '*.allowed.test']\n"))
    named = w.daemon(w.policy("workspace: temp\nnetwork: {mode: proxy, "
                              f"ports: [{port}], allow: [localhost]}}\n"))
    fetch = ("import os, sys; os.environ.pop('no_proxy', 0); os.environ.pop('NO_PROXY', 0)\n"
             "import urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())")

    def run(d, code, *args):
        """The call's text, and the connections that were recorded for it."""
        before = len(d.records("connection"))
        text = d.bash(shlex.join([PYTHON, "-I", "-c", code] + [str(a) for a in args]))["text"]
        wait_for(lambda: len(d.records("connection")) > before, 5)
        return text, d.records("connection")[before:]

    out, seen = run(listed, fetch, f"http://localhost:{port}/page")
    w.check("T20 an allowed name is reached through the proxy", "hello" in out, out)
    w.check("T20 one audit record a connection", len(seen) == 1 and seen[0]["allowed"] and
            seen[0]["address"] == "127.0.0.1" and seen[0]["host"] == "localhost", str(seen))
    w.check("T20 the server saw a plain request", server.text().startswith(b"GET /page HTTP/1.1\r\n") and
            b"proxy" not in server.text().lower(), str(server.text()))
    server.clear()
    out = w.daemon(off=True).bash(shlex.join([PYTHON, "-I", "-c", fetch, f"http://127.1:{port}/"]))["text"]
    w.check("T20 control: without a cell an odd spelling reaches it", "hello" in out and server.hits, out)

    def tried(case, code, d, needle="403", reach=False):
        server.clear()
        out, seen = run(d, RAW + code)
        reached = wait_for(lambda: server.hits > 0, 0.2 if not reach else 3)
        w.check(f"T20 {case}", needle in out and reached == reach and len(seen) >= 1 and
                (reach or not any(c["allowed"] for c in seen)), f"{out} {seen}")

    tried("an allowed name that resolves to a local address",
          f"talk(b'GET http://localhost:{port}/ HTTP/1.1\\r\\n\\r\\n')", named, "private or local")
    hosts = ["evil.test", "allowed.test", "localhost.evil.test", "127.1", "0x7f000001", "2130706433",
             "0177.0.0.1", "[::ffff:127.0.0.1]", "127.0.0.1.", "LOCALHOST.", "localhost@evil.test",
             "evil.test#localhost", "localhost%00.evil.test", "[::1", "::1", "*.allowed.test",
             "017700000001", "0x7f.0.0.1", "127.0.1", "127.000.000.001", "[::127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]",
             "localhost%2e", "localhost\u3002", "\uff11\uff12\uff17.0.0.1", "0", "[::]", "[fe80::1%25lo]",
             "localhost\t", "localhost:1@127.0.0.1", "\\localhost", "localhost,evil.test", "xn--", "." * 300]
    server.clear()
    many = ("import socket, sys\n"
            "for h in sys.argv[2:]:\n"
            "  s = socket.create_connection(('127.0.0.1', 3128)); s.settimeout(4)\n"
            "  s.sendall(f'CONNECT {h}:{sys.argv[1]} HTTP/1.1\\r\\n\\r\\n'.encode())\n"
            "  print(ascii(s.recv(999).split(b'\\r\\n')[0].decode()))\n")
    out, seen = run(listed, many, port, *hosts)
    lines = out.splitlines()
    for host, line in zip(hosts, lines + [""] * len(hosts)):
        w.check(f"T20 {ascii(host)[:40]} by CONNECT", line.startswith("'HTTP/1.1 40"), f"{line} {out[-300:]}")
    w.check("T20 none of these reached the server", server.hits == 0 and
            not any(c["allowed"] for c in seen), str(seen))
    tried("another port", "talk(b'CONNECT localhost:22 HTTP/1.1\\r\\n\\r\\n')", listed)
    tried("an address by its number when only its name is listed",
          f"talk(b'CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\n\\r\\n')", named)
    tried("a Host header for somebody else",
          f"talk(b'GET http://localhost:{port}/ HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n')", listed)
    for name in ("Host\t", "Transfer-Encoding\t", "Host\v", "Ho st"):
        head = f"GET http://localhost:{port}/ HTTP/1.1\r\n{name}: evil.test\r\n\r\n".encode()
        tried(f"a header whose name only a lenient server reads: {ascii(name)}", f"talk({head!r})", listed, "400")
    tried("an upload", f"talk(b'POST http://localhost:{port}/ HTTP/1.1\\r\\nContent-Length: 3\\r\\n\\r\\nabc')",
          listed)
    tried("a head without end", "talk(b'GET http://localhost/ HTTP/1.1\\r\\nX: ' + b'a' * 9000)", listed, "431")
    server.clear()
    run(listed, RAW + f"talk(b'GET http://localhost:{port}/one HTTP/1.1\\r\\n\\r\\n"
                      f"GET http://evil.test/two HTTP/1.1\\r\\n\\r\\n')")
    wait_for(lambda: server.hits > 0, 3)
    w.check("T20 a second request behind the first", b"/one" in server.text() and b"/two" not in server.text(),
            str(server.text()))

    # Each refusal costs nothing inside, and a line of the log outside.
    flood = ("import socket\n"
             "for _ in range(3000):\n"
             "  s = socket.create_connection(('127.0.0.1', 3128)); s.settimeout(4)\n"
             "  s.sendall(b'CONNECT evil.test:443 HTTP/1.1\\r\\n\\r\\n'); s.recv(999); s.close()\n"
             "print('sent')\n")
    size, other = os.path.getsize(named.log), named.new_session()
    out = named.bash(shlex.join([PYTHON, "-I", "-c", flood]), session=other)["text"]
    grown = os.path.getsize(named.log) - size
    w.check("T20 thousands of refused connections do not fill the log", "sent" in out and 0 < grown < 100000,
            f"{out[-300:]} {grown}")
    named.bash("sleep 1.1; " + shlex.join([PYTHON, "-I", "-c", flood.replace("3000", "1")]), session=other)
    w.check("T20 but they are counted", wait_for(lambda: named.records("connection")[-1].get("untold", 0) > 2500, 5),
            str(named.records("connection")[-1]))
    named.rpc("session.close", sessionId=other)

    good, other = hello("localhost"), hello("evil.test")
    for case, more, reach in (("TLS to the name that was asked for", good, True),
                              ("TLS to another name", other, False),
                              ("something that is not TLS", b"SSH-2.0-x\r\n", False),
                              ("a hello cut short", good[:40], False)):
        server.clear()
        out, seen = run(listed, RAW + f"talk(b'CONNECT localhost:{port} HTTP/1.1\\r\\n\\r\\n', {more!r})")
        got = wait_for(lambda: server.text() != b"", 2 if reach else 0.3)
        w.check(f"T20 {case}", got == reach and (not reach or server.text() == more) and
                seen and seen[0].get("allowed") == reach, f"{server.text()[:60]} {seen} {out}")
    for case, more in odd_hellos().items():
        server.clear()
        run(listed, RAW + f"talk(b'CONNECT localhost:{port} HTTP/1.1\\r\\n\\r\\n', {more!r})")
        w.check(f"T20 a hello with {case}", not wait_for(lambda: server.text() != b"", 0.2), str(server.text()[:60]))
    w.attack("T20 past the proxy",
             "import socket, sys\n"
             "socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)", [port],
             policy=w.policy(f"workspace: temp\nnetwork: {{mode: proxy, ports: [{port}], allow: [localhost]}}\n"),
             seen=lambda: wait_for(lambda: server.hits > 0, 0.2), reset=server.clear)
    r = named.bash(shlex.join([PYTHON, "-I", "-c", "import socket\nsocket.getaddrinfo('example.org', 80)"]))
    w.check("T20 names without the proxy", r["exitCode"] == 1, str(r))
    # A secret is never inside: neither in the environment nor in what the client sent.
    secret = w.start(w.policy(
        "workspace: temp\nnetwork: {mode: proxy, allow: [api.test]}\nsecrets:\n"
        "  - {host: api.test, header: Authorization, prefix: 'Bearer ', from_env: AGENTD_T_CREDENTIAL}\n"),
        env=dict(os.environ, AGENTD_T_CREDENTIAL="canary-secret-9"))
    out = secret.bash("env; cat /proc/*/environ")["text"] + secret.python("import os; dict(os.environ)")["text"]
    w.check("T20 a secret of the policy is not inside", "HOME" in out and "canary" not in out, out)
    secret.close()
    server.sock.close()


# ---- a network of its own: names, public and private addresses, TLS ------------------------

PUBLIC, PORT = "93.184.216.34", 8080
NAMES = {  # what the name server says, in turn
    "allowed.test": [["93.184.216.34"]], "own.test": [["93.184.216.1"]], "api.test": [["93.184.216.34"]],
    "rebind.test": [["93.184.216.34"], ["127.0.0.1"]], "both.test": [["127.0.0.1", "93.184.216.34"]],
    "local.test": [["127.0.0.1"]], "meta.test": [["169.254.169.254"]], "private.test": [["10.0.0.1"]],
    "mapped.test": [["::ffff:127.0.0.1"]], "six.test": [["::1"]], "nat.test": [["64:ff9b::7f00:1"]],
    "zero.test": [["0.0.0.0"]], "cgnat.test": [["100.64.0.1"]], "multi.test": [["224.0.0.1"]],
    "6to4.test": [["2002:7f00:1::"]], "broad.test": [["255.255.255.255"]]}


class Resolver(threading.Thread):
    """A name server for A and AAAA; counts what it is asked."""

    def __init__(self):
        super().__init__(daemon=True)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 53))
        self.asked = {}

    def run(self):
        while True:
            q, peer = self.sock.recvfrom(2048)
            at, labels = 12, []
            while q[at]:
                labels.append(q[at + 1:at + 1 + q[at]].decode().lower())
                at += 1 + q[at]
            kind, end = q[at + 1:at + 3], at + 5
            name, answers = ".".join(labels), b""
            turn = NAMES.get(name, [])
            n = self.asked.get(name, 0)
            found = [a for a in (turn[n // 2 % len(turn)] if turn else []) if (":" in a) == (kind == b"\0\x1c")]
            self.asked[name] = n + 1  # two questions, A and AAAA, are one look-up
            for a in found:
                raw = socket.inet_pton(socket.AF_INET6 if ":" in a else socket.AF_INET, a)
                answers += b"\xc0\x0c" + kind + b"\0\1\0\0\0\0" + len(raw).to_bytes(2, "big") + raw
            flags = b"\x81\x80" if turn else b"\x81\x83"
            self.sock.sendto(q[:2] + flags + b"\0\1" + len(found).to_bytes(2, "big") + b"\0\0\0\0" +
                             q[12:end] + answers, peer)


class Web(threading.Thread):
    """Notes every request in a file; answers with what it was sent."""

    def __init__(self, note, address, port, tls=None):
        super().__init__(daemon=True)
        self.sock = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else
                                         socket.AF_INET)
        self.tls, self.note = tls, note

    def run(self):
        while True:
            c, _ = self.sock.accept()
            threading.Thread(target=self.one, args=(c,), daemon=True).start()

    def one(self, c):
        try:
            c.settimeout(5)
            if self.tls:
                c = self.tls.wrap_socket(c, server_side=True)
            data = b""
            while b"\r\n\r\n" not in data:
                more = c.recv(65536)
                if not more:
                    return
                data += more
            with open(self.note, "ab") as f:
                f.write(data.hex().encode() + b"\n")
            if data.startswith(b"GET /go"):
                c.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:8080/\r\nContent-Length: 0\r\n\r\n")
            elif data.startswith(b"GET /slow"):
                body = b"echo: " + data
                c.sendall(b"HTTP/1.1 200 OK\r\nX-Echo: " + data.split(b"Bearer ")[-1].split(b"\r\n")[0] +
                          b"\r\nTransfer-Encoding: chunked\r\n\r\n" +
                          b"".join(b"1\r\n" + body[i:i + 1] + b"\r\n" for i in range(len(body))) + b"0\r\n\r\n")
            else:
                body = b"reached " + data
                c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except OSError:
            pass
        finally:
            c.close()


class Notes:
    """What servers that share a file were sent."""

    def __init__(self, root, name):
        self.path = os.path.join(root, name)
        self.clear()

    def clear(self):
        open(self.path, "w").close()

    @property
    def got(self):
        with open(self.path) as f:
            return [bytes.fromhex(line) for line in f]


def far(root):
    """The other end of the wire: the public servers, in a process of their own."""
    import time
    for what in (("link", "set", "lo", "up"), ("addr", "add", PUBLIC + "/24", "dev", "far"),
                 ("link", "set", "far", "up")):
        subprocess.run(["ip", *what], check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(root, "api.pem"), os.path.join(root, "api.key"))
    Web(os.path.join(root, "public"), PUBLIC, PORT).start()
    Web(os.path.join(root, "secure"), PUBLIC, 443, context).start()
    print("up", flush=True)
    time.sleep(600)


def certificates(root):
    """An authority of our own and its word for api.test."""
    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, cwd=root, capture_output=True)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "9",
            "-subj", "/CN=test authority")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "api.key", "-out", "api.csr", "-subj", "/CN=api.test")
    with open(os.path.join(root, "ext"), "w") as f:
        f.write("subjectAltName=DNS:api.test,DNS:allowed.test\n")
    openssl("x509", "-req", "-in", "api.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out",
            "api.pem", "-days", "9", "-extfile", "ext")


@threat("T20")
def inside_names(w):
    """Runs in a network namespace of its own, see t20_names."""
    resolver = Resolver()
    resolver.start()
    certificates(w.root)
    public, secure, near = Notes(w.root, "public"), Notes(w.root, "secure"), Notes(w.root, "near")
    wire = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo ready; read x; exec \"$@\"", "sh", PYTHON,
                             os.path.abspath(__file__), "--far", w.root], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
    wire.stdout.readline()
    for what in (("link", "add", "near", "type", "veth", "peer", "name", "far"),
                 ("link", "set", "far", "netns", str(wire.pid)), ("addr", "add", "93.184.216.1/24", "dev", "near"),
                 ("link", "set", "near", "up")):
        subprocess.run(["ip", *what], check=True)
    wire.stdin.write(b"\n")
    wire.stdin.flush()
    w.check("the other end of the wire is up", b"up" in wire.stdout.readline(), "it is not")
    for a in ("127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "100.64.0.1", "93.184.216.1"):
        Web(near.path, a, PORT).start()
    try:
        names_and_secrets(w, resolver, public, secure, near)
    finally:
        wire.kill()
        wire.wait()


def names_and_secrets(w, resolver, public, secure, near):
    names = ", ".join(n for n in NAMES if n != "api.test")
    policy = w.policy(f"workspace: temp\nnetwork:\n  mode: proxy\n  ports: [443, {PORT}]\n"
                      f"  allow: [{names}, api.test]\nsecrets:\n"
                      f"  - {{host: api.test, header: Authorization, prefix: 'Bearer ', from_env: T_CREDENTIAL, "
                      f"ca_file: {w.root}/ca.pem}}\n")
    secret = "canary-secret-0123456789"
    env = dict(os.environ, T_CREDENTIAL=secret)
    d, off = w.start(policy, env=env), w.daemon(off=True)
    w.daemons["names"] = d

    def hits():
        return len(near.got)

    def curl(where, url, *more):
        return where.bash(shlex.join(["curl", "-sS", "-m", "8", *more, url]) + " 2>&1; true")["text"]

    got = curl(d, f"http://allowed.test:{PORT}/page")
    w.check("T20 an allowed name is reached by a command", "reached GET /page" in got and len(public.got) == 1, got)
    got = curl(d, f"https://allowed.test/", "-k")
    w.check("T20 and over TLS", "reached" in got, got)
    for name in NAMES:
        if name in ("allowed.test", "api.test", "both.test", "rebind.test"):
            continue
        got = curl(d, f"http://{name}:{PORT}/")
        w.check(f"T20 {name}, allowed, with an address that is not", "reached" not in got and hits() == 0, got)
    got = curl(off, f"http://local.test:{PORT}/")
    w.check("T20 control: without a cell it is reached", "reached" in got and hits() == 1, got)
    near.clear()
    for _ in range(6):
        got = curl(d, f"http://both.test:{PORT}/"), curl(d, f"http://rebind.test:{PORT}/")
    w.check("T20 a name that changes its mind: the checked address is the one dialled", hits() == 0 and
            "reached" in got[0], str(got))
    lookups = sum(n for name, n in resolver.asked.items() if name == "rebind.test")
    w.check("T20 one look-up a connection", lookups <= 12, str(lookups))
    got = curl(d, f"http://allowed.test:{PORT}/go", "-L")
    w.check("T20 a redirect to an address", "reached" not in got and hits() == 0, got)
    raw = ("import socket, sys\n"
           "for line in LINES:\n"
           "  s = socket.create_connection(('127.0.0.1', 3128)); s.settimeout(6)\n"
           "  s.sendall(line.decode('unicode_escape').encode('latin-1'))\n"
           "  out = b''\n"
           "  try:\n"
           "    while True:\n"
           "      b = s.recv(65536)\n"
           "      if not b: break\n"
           "      out += b\n"
           "  except OSError: pass\n"
           "  print(ascii(line[:60]), ascii(out[:60]))\n")
    good = f"allowed.test:{PORT}"
    bad = [f"GET http://{good}/ HTTP/1.1\\r\\nHost: local.test\\r\\n\\r\\n",
           f"GET http://{good}/ HTTP/1.1\\r\\nHost: {good}\\r\\nHost: local.test\\r\\n\\r\\n",
           f"GET http://{good}/ HTTP/1.1\\r\\nX: a\\n\\nGET http://local.test/ HTTP/1.1\\r\\n\\r\\n",
           f"GET http://{good}/ HTTP/1.1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\nGET / HTTP/1.1\\r\\n\\r\\n",
           f"GET http://{good}/ HTTP/1.1\\r\\nContent-Length: 5\\r\\n\\r\\nabcde",
           f"GET http://{good}/ HTTP/1.1\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n",
           f"GET http://{good}/ HTTP/1.1\\r\\n folded: x\\r\\n\\r\\n", f"GET  http://{good}/ HTTP/1.1\\r\\n\\r\\n",
           f"GET http://{good}@local.test/ HTTP/1.1\\r\\n\\r\\n", f"GET http://local.test#@{good}/ HTTP/1.1\\r\\n\\r\\n",
           "GET http://127.1:8080/ HTTP/1.1\\r\\n\\r\\n", "GET http://[::ffff:7f00:1]:8080/ HTTP/1.1\\r\\n\\r\\n",
           "GET http://0x7f.1:8080/ HTTP/1.1\\r\\n\\r\\n", "GET / HTTP/1.1\\r\\nHost: local.test\\r\\n\\r\\n",
           "CONNECT 127.0.0.1:8080 HTTP/1.1\\r\\n\\r\\n", "CONNECT [::1]:8080 HTTP/1.1\\r\\n\\r\\n",
           "CONNECT allowed.test.:443 HTTP/1.1\\r\\n\\r\\n", "CONNECT allowed.test:22 HTTP/1.1\\r\\n\\r\\n",
           "CONNECT allowed.test HTTP/1.1\\r\\n\\r\\n", "CONNECT allowed.test:443:8080 HTTP/1.1\\r\\n\\r\\n",
           "CONNECT allowed.test:443 HTTP/1.1\\r\\nHost: local.test:443\\r\\n\\r\\n",
           "CONNECT allowed\\x2etest%00:443 HTTP/1.1\\r\\n\\r\\n", "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n",
           "POST http://allowed.test:8080/ HTTP/1.1\\r\\nContent-Length: 1\\r\\n\\r\\nx",
           "OPTIONS * HTTP/1.1\\r\\n\\r\\n", "get http://allowed.test:8080/ HTTP/1.1\\r\\n\\r\\n",
           "GET ftp://allowed.test/ HTTP/1.1\\r\\n\\r\\n", "GET file:///etc/passwd HTTP/1.1\\r\\n\\r\\n"]
    n = len(public.got) + len(secure.got)
    sent = [line.encode() for line in bad]
    r = d.bash(f"{PYTHON} -I -c {shlex.quote(raw.replace('LINES', repr(sent)))}")
    said = [x for x in r["text"].splitlines() if x.startswith("b")]
    for line, x in zip(bad, said + [""] * len(bad)):
        answer = x.rsplit(" b", 1)[-1]
        w.check(f"T20 refused: {line[:70]}", "HTTP/1.1 4" in answer, x)
    w.check("T20 none of these reached anybody", hits() == 0 and len(public.got) + len(secure.got) == n,
            f"{hits()} {public.got[n:]}")

    # The secret: it arrives at the one host, over TLS, and the cell never sees it.
    secure.clear()
    got = curl(d, "http://api.test/v1")
    w.check("secret: the host gets it over TLS", len(secure.got) == 1 and
            b"Authorization: Bearer " + secret.encode() in secure.got[0], str(secure.got))
    w.check("secret: an answer that repeats it is masked", "reached GET /v1" in got and "canary" not in got and
            "*" * len(secret) in got, got)
    got = curl(d, "http://api.test/slow", "-i")
    w.check("secret: also byte by byte and in a header", "echo: GET /slow" in got and "canary" not in got and
            got.count("*" * len(secret)) == 2, got)
    got = curl(d, "http://api.test/v1", "-H", "Authorization: mine", "-H", "X: y")
    w.check("secret: the client's own header of that name is dropped", b"mine" not in secure.got[-1] and
            b"X: y" in secure.got[-1], str(secure.got[-1]))
    n = len(secure.got)
    curl(d, f"http://allowed.test:{PORT}/"), curl(d, "https://api.test/", "-k")
    w.check("secret: no other host and no tunnel gets it", secret.encode() not in b"".join(public.got + secure.got[n:]),
            str(secure.got[n:]))
    r = d.bash("env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; grep -rs canary /tmp /workspace /etc; true")
    w.check("secret: it is nowhere inside", "canary" not in r["text"], r["text"][-300:])
    w.check("secret: it is not in the log, the connections are", "canary" not in d.read_log() and
            '"host":"api.test"' in d.read_log() and '"host":"local.test"' in d.read_log(), d.read_log()[-600:])
    # A server that cannot prove who it is gets nothing.
    wrong = w.policy(open(policy).read().replace(f"ca_file: {w.root}/ca.pem", "port: 443").replace(
        "version: 1\nrequire: nolimits\n", ""))
    d2 = w.start(wrong, env=env)
    n = len(secure.got)
    got = curl(d2, "http://api.test/v1")
    w.check("secret: not to a server whose certificate is not vouched for", len(secure.got) == n and
            "certificate" in got, got)
    d2.close()


def t20_names(w):
    if not (w.is_root and shutil.which("ip") and shutil.which("unshare") and shutil.which("curl") and
            shutil.which("openssl")):
        return w.skip("T20 names and addresses", "needs root, iproute2, curl and openssl", True)
    setup = ("ip link set lo up && for a in 169.254.169.254 10.0.0.1 100.64.0.1; do "
             "ip addr add $a/32 dev lo || exit 77; done; f=$(mktemp); echo nameserver 127.0.0.1 >$f; "
             "mount --bind $f /etc/resolv.conf || exit 77; rm $f; exec \"$@\"")
    r = subprocess.run(["unshare", "-mn", "sh", "-c", setup, "sh", PYTHON, os.path.abspath(__file__), "--as-is"],
                       env=dict(os.environ, ESCAPE_ONLY="inside_names", ESCAPE_NAMES="1"))
    if r.returncode == 77:
        return w.skip("T20 names and addresses", "no network namespace with addresses here", True)
    w.check("T20 names and addresses", r.returncode == 0, f"exit {r.returncode}, see above")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--far"]:
        sys.exit(far(sys.argv[2]))
    main([inside_names] if os.environ.get("ESCAPE_NAMES") else [t20_proxy, t20_names],
         plain="" if os.environ.get("AGENTD_LONG") else "^never$")
