"""A real agentd on a temporary socket and state folder, and clients for it."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

BIN = os.environ.get("BIN") or os.path.join(os.path.dirname(__file__), "../../build/ci/bin")
PATIENCE = 240.0  # seconds; nothing here waits that long unless something is broken


with open(os.path.join(BIN, "agentd"), "rb") as program:
    _program = program.read()  # a sanitizer needs memory of its own
    SANITIZED = b"__asan_init" in _program or b"__tsan_init" in _program


class Refused(Exception):
    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]
        self.data = error.get("data", {})


class Client:
    """One connection; replies by id, events in order of arrival."""

    def __init__(self, path, init=True, timeout=PATIENCE):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        self.data = b""
        self.next_id = 0
        self.events = []
        self.replies = {}
        self.server = self.call("initialize", protocolVersion=1,
                                client={"name": "test"}) if init else None

    def send_raw(self, data):
        self.sock.sendall(data)

    def send(self, method, **params):
        self.next_id += 1
        self.send_raw(json.dumps({"jsonrpc": "2.0", "id": self.next_id, "method": method,
                                  "params": params}).encode() + b"\n")
        return self.next_id

    def read(self):
        while b"\n" not in self.data:
            more = self.sock.recv(1 << 16)
            if not more:
                raise EOFError("the daemon closed the connection")
            self.data += more
        line, self.data = self.data.split(b"\n", 1)
        return json.loads(line)

    def reply(self, want):
        while want not in self.replies:
            m = self.read()
            if "method" in m:
                self.events.append(m["params"])
            else:
                self.replies[m["id"]] = m
        m = self.replies.pop(want)
        if "error" in m:
            raise Refused(m["error"])
        return m["result"]

    def call(self, method, **params):
        return self.reply(self.send(method, **params))

    def event(self, *types, **where):
        """The next event of one of these types whose data has these values."""
        while True:
            if self.events:
                e = self.events.pop(0)
            else:
                m = self.read()
                if "method" not in m:
                    self.replies[m["id"]] = m
                    continue
                e = m["params"]
            data = e.get("data", {})
            if e["type"] in types and all(data.get(k) == v for k, v in where.items()):
                return e

    def close(self):
        self.sock.close()


class Daemon:
    def __init__(self, script=None, engine=None, profile="demo", sandbox="off", args=(), env=None,
                 root=None):
        self.root = root or tempfile.mkdtemp(prefix="agentd-test-")
        self.path = os.path.join(self.root, "s")
        self.workspace = os.path.join(self.root, "w")
        os.makedirs(self.workspace, exist_ok=True)
        if script is not None:
            engine = "script:" + os.path.join(self.root, "script.json")
            self.script(script)
        # AGENTD_UNDER="valgrind ..." puts a tool in front of every daemon
        self.argv = os.environ.get("AGENTD_UNDER", "").split() + [
                     os.path.join(BIN, "agentd"), "--engine", engine, "--socket", self.path,
                     "--state", os.path.join(self.root, "state"), "--profile", profile,
                     "--sandbox", sandbox, *args]
        self.env = env or {}
        self.proc = None
        self.log = open(os.path.join(self.root, "log"), "ab")
        self.start()

    def script(self, turns, **more):
        with open(os.path.join(self.root, "script.json"), "w") as f:
            json.dump({"turns": turns, **more}, f)

    def start(self, env=None, wait=True):
        full = {**os.environ, **self.env, **(env or {})}
        self.proc = subprocess.Popen(self.argv, stdout=self.log, stderr=self.log, env=full)
        if wait:
            self.wait_up()

    def wait_up(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                socket.socket(socket.AF_UNIX).connect(self.path)
                return
            except OSError:
                if self.proc.poll() is not None:
                    raise RuntimeError("agentd ended: " + self.read_log()[-2000:])
                time.sleep(0.005)
        raise RuntimeError("agentd does not answer")

    def kill(self):
        """SIGKILL; returns when nobody listens any more, which may be a little after the end."""
        self.proc.send_signal(signal.SIGKILL)
        code = self.proc.wait()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                socket.socket(socket.AF_UNIX).connect(self.path)
            except OSError:
                return code
            time.sleep(0.001)
        raise RuntimeError("a killed agentd still listens")

    def wait_dead(self):
        return self.proc.wait(timeout=PATIENCE)

    def stop(self):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
        return self.proc.wait(timeout=PATIENCE)

    def client(self, **kw):
        return Client(self.path, **kw)

    def read_log(self):
        self.log.flush()
        with open(os.path.join(self.root, "log"), errors="replace") as f:
            return f.read()

    def close(self):
        code = self.stop()
        self.log.close()
        shutil.rmtree(self.root, ignore_errors=True)
        return code


# The first words of the next result when a cell and what calls had set in it are gone.
ANEW = "[shell and interpreter were started anew: what earlier calls set in them is gone]\n"


def bash(command):
    return {"name": "bash", "arguments": {"command": command}}


def open_session(c, d, **more):
    return c.call("session.create", cwd=d.workspace, **more)["sessionId"]


def run(c, session, text, **more):
    return c.call("turn.run", sessionId=session, input=text, **more)


def history(c, session):
    """Every durable event, from the log itself."""
    events, page = [], {"next": 0}
    while "next" in page:
        page = c.call("session.export", sessionId=session, after=page["next"])
        events += page["events"]
    return events


def main(tests):
    """Runs every function of a test file whose name starts with test_."""
    names = [n for n in tests if n.startswith("test_")]
    only = sys.argv[1:]
    failed = 0
    for name in names:
        if only and name not in only:
            continue
        began = time.monotonic()
        try:
            tests[name]()
            print("ok   %-44s %6.2f s" % (name, time.monotonic() - began), flush=True)
        except Exception:  # a test may fail in any way
            import traceback
            traceback.print_exc()
            print("FAIL %s" % name, flush=True)
            failed += 1
    sys.exit(1 if failed else 0)
