"""The native protocol: handshake, errors, replay, backpressure, approvals, hostile input."""
import json
import os
import random
import socket
import subprocess
import time

from agent import Client, Daemon, Refused, bash, history, main, open_session, run

SAY = [{"match": "long", "steps": [{"text": "{{user}} ", "repeat": 400, "delay_ms": 3}]},
       {"steps": [{"text": "said {{user}}"}]}]


def refused(code, fn, *args, **kw):
    try:
        fn(*args, **kw)
    except Refused as e:
        assert e.code == code, (e.code, str(e))
        assert e.data["kind"], e.data
        return e
    raise AssertionError("not refused")


def test_handshake():
    d = Daemon(SAY, profile="chat")
    c = d.client(init=False)
    assert c.call("ping") == {}
    refused(-32600, c.call, "session.list")
    refused(1010, c.call, "initialize", protocolVersion=2)
    refused(-32602, c.call, "initialize", protocolVersion="1")
    r = c.call("initialize", protocolVersion=1, client={"name": "t"}, future={"x": 1})
    assert r["peer"]["pid"] == os.getpid() and r["epoch"] and r["limits"]["lineBytes"] == 16 << 20
    refused(-32601, c.call, "no.such")
    refused(-32602, c.call, "session.get")
    refused(1001, c.call, "session.get", sessionId="x")
    refused(1003, c.call, "turn.wait", turnId="x")
    refused(-32602, c.call, "session.create", cwd="relative")
    refused(-32602, c.call, "session.create", profile=5)
    refused(-32602, c.call, "session.list", state="lost")
    for wrong in {"temperature": -1}, {"temperature": 6}, {"topP": -0.1}, {"minP": 1.5}:
        refused(1006, c.call, "session.create", sampling=wrong)
    refused(-32602, c.call, "session.list", cwd=5)
    refused(1005, Daemon_without_off_is_refused)
    d.close()


def Daemon_without_off_is_refused():
    d = Daemon(SAY, profile="chat", sandbox="required")
    try:
        d.client().call("session.create", sandbox="off")
    finally:
        d.close()


def test_hostile_lines():
    d = Daemon(SAY, profile="chat")
    c = d.client(init=False)
    for line, code in [(b"{", -32700), (b"[]", -32600), (b'"x"', -32600), (b"GET / HTTP/1.1", -32700),
                       (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
                       (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
                       (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32602),
                       (b'{"a":1,"a":2}', -32700), (b'{"x":"\\u0000"}', -32700),
                       (b'{"x":"\\ud800"}', -32700), (b'\xff\xfe{}', -32700),
                       (b'[' * 100000, -32700), (b'{"jsonrpc":"2.0"}', -32600)]:
        c.send_raw(line + b"\r\n\n")
        m = c.read()
        assert m["error"]["code"] == code, (line[:40], m)
    assert c.call("ping") == {}  # the connection is still there
    c.send_raw(b'{"jsonrpc":"2.0","method":"ping"}\n')  # a notification gets no answer
    assert c.call("ping") == {}
    big = d.client(init=False)
    try:
        big.send_raw(b"x" * (20 << 20))
    except OSError:
        pass
    m = big.read()
    assert m["error"]["code"] == -32600, m
    try:
        big.read()
        raise AssertionError("still open")
    except (EOFError, OSError):
        pass
    assert d.client().call("daemon.status")["connections"] >= 1
    d.close()


def test_more_connections_than_descriptors():
    d = Daemon(SAY, profile="chat")
    subprocess.run(["prlimit", "--pid", str(d.proc.pid), "--nofile=60:60"], check=True)
    c, many, told = d.client(), [], 0
    for _ in range(150):
        k = socket.socket(socket.AF_UNIX)
        k.settimeout(20)
        k.connect(d.path)
        many.append(k)
        if c.call("ping") != {}:
            raise AssertionError("the first client lost its connection")
    for k in many:
        k.setblocking(False)
        try:
            told += b"-32001" in k.recv(4096)
        except BlockingIOError:
            pass
        k.close()
    assert told > 50, told
    s = c.call("session.create")["sessionId"]
    assert c.call("session.get", sessionId=s)["state"] == "idle"
    assert d.client().call("ping") == {}
    d.close()


def test_garbage():
    d = Daemon(SAY, profile="chat")
    rng = random.Random(1)
    words = [b'"jsonrpc"', b'"2.0"', b'"id"', b'"method"', b'"session.create"', b'"params"', b"{", b"}",
             b":", b",", b"1", b"null", b'"sessionId"', b'"turn.start"', b"\n", b"[", b"]"]
    for _ in range(60):
        s = socket.socket(socket.AF_UNIX)
        s.connect(d.path)
        s.sendall(b"".join(rng.choice(words) for _ in range(200)) + rng.randbytes(50) + b"\n")
        s.close()
    assert d.client().call("ping") == {}
    d.close()


def test_idempotency():
    d = Daemon(SAY, profile="chat")
    c = d.client()
    a = c.call("session.create", idempotencyKey="k", metadata={"a": 1})
    assert c.call("session.create", idempotencyKey="k", metadata={"a": 1}) == a
    refused(-32602, c.call, "session.create", idempotencyKey="k", metadata={"a": 2})
    s = a["sessionId"]
    t = c.call("turn.start", sessionId=s, input="one", idempotencyKey="t")
    assert c.call("turn.start", sessionId=s, input="one", idempotencyKey="t") == t
    assert c.call("turn.wait", turnId=t["turnId"])["message"] == "said one"
    assert run(c, s, "one", idempotencyKey="t")["message"] == "said one"
    d.kill()
    d.start()
    c = d.client()
    assert c.call("session.create", idempotencyKey="k", metadata={"a": 1}) == a
    assert len([e for e in history(c, s) if e["type"] == "turn.started"]) == 1
    d.close()


def test_one_turn_at_a_time():
    d = Daemon(SAY, profile="chat")
    c = d.client()
    s = c.call("session.create")["sessionId"]
    t = c.call("turn.start", sessionId=s, input="long")
    refused(1002, c.call, "turn.start", sessionId=s, input="x")
    refused(1002, c.call, "session.delete", sessionId=s)
    w = c.send("turn.run", sessionId=s, input="x")
    refused(1002, c.reply, w)
    r = c.call("turn.wait", turnId=t["turnId"], timeoutMs=30)
    assert r["running"] is True
    w = c.send("turn.wait", turnId=t["turnId"])
    c.send_raw(b'{"jsonrpc":"2.0","method":"$/cancel_request","params":{"requestId":%d}}\n' % w)
    refused(-32800, c.reply, w)
    c.call("turn.interrupt", turnId=t["turnId"], mode="hard")
    assert c.call("turn.wait", turnId=t["turnId"])["stopReason"] == "cancelled"
    w = c.send("turn.run", sessionId=s, input="long")
    time.sleep(0.1)
    c.send_raw(b'{"jsonrpc":"2.0","method":"$/cancel_request","params":{"requestId":%d}}\n' % w)
    refused(-32800, c.reply, w)
    t = c.call("session.get", sessionId=s)["turnId"]
    assert c.call("turn.wait", turnId=t)["stopReason"] == "cancelled"  # it may take a moment
    assert run(c, s, "after")["message"] == "said after"
    c.call("session.close", sessionId=s)
    refused(1001, c.call, "turn.start", sessionId=s, input="x")
    c.call("session.delete", sessionId=s)
    refused(1001, c.call, "session.get", sessionId=s)
    d.close()


def test_replies_come_before_their_events():
    d = Daemon(SAY, profile="chat")
    c = d.client()
    s = c.call("session.create")["sessionId"]
    c.call("session.subscribe", sessionId=s, after=0)
    for _ in range(50):
        want = c.send("turn.start", sessionId=s, input="x")
        c.events.clear()
        turn = c.reply(want)["turnId"]
        assert not [e for e in c.events if e.get("turnId") == turn], c.events
        while c.event("turn.completed")["turnId"] != turn:
            pass
    d.close()


def test_cursor():
    d = Daemon(SAY, profile="chat")
    c = d.client()
    s = c.call("session.create")["sessionId"]
    e = refused(1007, c.call, "session.subscribe", sessionId=s, after=99)
    assert e.data["details"]["head"] == 1
    refused(1007, c.call, "session.subscribe", sessionId=s, after=0, epoch="other")
    run(c, s, "x")
    c.call("session.subscribe", sessionId=s, after=2, types=["turn.completed"])
    e = c.event("turn.completed", "item.completed")
    assert e["type"] == "turn.completed"
    c.event("replay.done")
    c.call("session.subscribe", sessionId="*")
    run(c, s, "y")
    assert c.event("turn.started")["sessionId"] == s
    refused(1001, c.call, "session.unsubscribe", sessionId="zz")
    d.close()


class Follower:
    """Rebuilds the event list over any number of connections."""

    def __init__(self, path, session):
        self.path, self.session = path, session
        self.log, self.text = [], {}

    def follow(self, lines):
        """Reads this many messages (or to the end of the turn) on one new connection."""
        c = Client(self.path)
        c.call("session.subscribe", sessionId=self.session, after=len(self.log))
        done = False
        while lines and not done:
            lines -= 1
            e = c.events.pop(0) if c.events else c.read()["params"]
            done = self.take(e)
        c.close()
        return done

    def take(self, e):
        data = e["data"]
        if "seq" in e:
            assert e["seq"] == len(self.log) + 1, (e["seq"], len(self.log))
            self.log.append((e["seq"], e["type"], json.dumps(data, sort_keys=True)))
            if e["type"] == "item.completed" and e["itemId"] in self.text:
                full = data.get("text", data.get("arguments"))
                assert full.startswith(self.text.pop(e["itemId"]))
        elif e["type"] in ("item.delta", "item.snapshot"):
            have = self.text.get(e["itemId"], "") if e["type"] == "item.delta" else ""
            if e["type"] == "item.delta" and e["itemId"] in self.text:
                assert len(have.encode()) == data["offset"], (len(have), data["offset"])
            self.text[e["itemId"]] = have + data["text"]
        return e["type"] == "turn.completed"


def disconnects(n):
    d = Daemon([{"match": "long", "steps": [{"calls": [bash("echo step {{steps}}")],
                                             "think": "thinking about it " * 6, "delay_ms": 1}]}],
               args=["--set", "log.level=warn"])
    c = d.client()
    s = open_session(c, d)
    # each step calls something else, so the turn is as long as its step budget
    steps = max(6, n // 12)
    stayed, left = Follower(d.path, s), Follower(d.path, s)
    t = c.call("turn.start", sessionId=s, input="long", limits={"maxSteps": steps})["turnId"]
    rng = random.Random(7)
    times = 0
    while not left.follow(rng.randint(1, 40)) or times < n:
        times += 1
        if left.log and left.log[-1][1] == "turn.completed":
            left = Follower(d.path, s)  # start over from 0 as often as it takes
        if times >= n and c.call("turn.get", turnId=t).get("stopReason"):
            break
    while not (left.log and left.log[-1][1] == "turn.completed") and not left.follow(10**9):
        pass
    stayed.follow(10**9)
    assert left.log == stayed.log
    assert len(history(c, s)) == len(stayed.log)
    d.close()
    return times


def test_disconnects():
    n = int(os.environ.get("DISCONNECTS", "120"))
    print("     %d disconnects, same events" % disconnects(n))


def test_slow_client():
    d = Daemon(SAY, profile="chat")
    c = d.client()
    slow = d.client()
    slow.call("session.subscribe", sessionId="*", after=0)
    made = []
    for i in range(48):  # 12 MB of durable events: three times what may be queued
        made.append(c.call("session.create", metadata={"n": i, "x": "ab" * 125000})["sessionId"])
    before = c.call("daemon.status")["residentBytes"]
    assert before < 400 << 20, before
    got = []
    while len(got) < len(made):
        e = slow.event("session.created")
        assert e["data"]["metadata"]["x"] == "ab" * 125000
        got.append(e["sessionId"])
    assert got == made
    d.close()


def test_stalled_client_is_dropped():
    d = Daemon(SAY, profile="chat", args=["--set", "socket.stall=300ms"])
    c = d.client()
    slow = d.client()
    slow.call("session.subscribe", sessionId="*", after=0)
    time.sleep(0.5)  # the other client has been idle for longer than a stall
    for i in range(24):
        c.call("session.create", metadata={"x": "ab" * 125000})
    end = time.monotonic() + 60
    while "slow_consumer" not in d.read_log():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert c.call("ping") == {}
    d.close()


def test_too_many_requests():
    d = Daemon(SAY, profile="chat")
    c = d.client()
    s = c.call("session.create")["sessionId"]
    t = c.call("turn.start", sessionId=s, input="long")["turnId"]
    ids = [c.send("turn.wait", turnId=t) for _ in range(65)]
    e = refused(-32001, c.reply, ids[64])
    assert e.data["retryAfterMs"] > 0
    c2 = d.client()
    c2.call("turn.interrupt", turnId=t)
    for i in ids[:64]:
        assert c.reply(i)["stopReason"] == "cancelled"
    d.close()


def test_owner_gone():
    d = Daemon(SAY, profile="chat")
    c = d.client()
    s = c.call("session.create")["sessionId"]
    own = d.client()
    t = own.call("turn.start", sessionId=s, input="long", onDisconnect="cancel")["turnId"]
    own.close()
    assert c.call("turn.wait", turnId=t)["stopReason"] == "cancelled"
    own = d.client()
    t = own.call("turn.start", sessionId=s, input="go", onDisconnect="continue")["turnId"]
    own.close()
    assert c.call("turn.wait", turnId=t)["stopReason"] == "end_turn"
    d.close()


def test_approvals():
    steps = [{"steps": [{"calls": [bash("echo yes >> made")]}, {"text": "{{result}}"}]}]
    d = Daemon(steps)
    c = d.client()
    s = open_session(c, d, approvalPolicy="always")
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="go")["turnId"]
    ask = c.event("approval.requested")["data"]
    assert ask["kind"] == "exec" and "echo yes" in ask["detail"]["arguments"]
    listed = d.client().call("approval.list", sessionId=s)["approvals"]
    assert [a["approvalId"] for a in listed] == [ask["approvalId"]]
    assert c.call("turn.get", turnId=t)["state"] == "ask"
    refused(-32602, c.call, "approval.respond", approvalId=ask["approvalId"], optionId="maybe")
    d.client().call("approval.respond", approvalId=ask["approvalId"], optionId="allow_session")
    assert c.event("approval.resolved")["data"]["by"]["pid"] == os.getpid()
    e = refused(1004, c.call, "approval.respond", approvalId=ask["approvalId"], optionId="deny")
    assert e.data["details"]["outcome"] == "allow_session"
    assert "exit code: 0" in c.event("turn.completed")["data"]["message"]
    assert run(c, s, "again")["usage"]["toolCalls"] == 1  # remembered: not asked again
    assert c.call("session.get", sessionId=s)["config"]["rules"] == [
        "bash:echo yes >> made"]

    # a plain command is remembered by its first word, and does not cover a list of commands
    d.script([{"match": "plain", "steps": [{"calls": [bash("echo a")]}, {"text": "ok"}]},
              {"match": "list", "steps": [{"calls": [bash("echo a; touch bad")]}, {"text": "ok"}]},
              *steps])
    d.stop()
    d.start()
    c = d.client()
    s = open_session(c, d, approvalPolicy="always")
    c.call("session.subscribe", sessionId=s)
    c.call("turn.start", sessionId=s, input="plain")
    ask = c.event("approval.requested")["data"]
    c.call("approval.respond", approvalId=ask["approvalId"], optionId="allow_session")
    c.event("turn.completed")
    assert c.call("session.get", sessionId=s)["config"]["rules"] == ["bash:echo"]
    assert run(c, s, "plain")["stopReason"] == "end_turn"
    c.call("turn.start", sessionId=s, input="list")
    ask = c.event("approval.requested")["data"]
    c.call("approval.respond", approvalId=ask["approvalId"], optionId="deny")
    c.event("turn.completed")
    assert not os.path.exists(d.workspace + "/bad")

    other = open_session(c, d, approvalPolicy="always")
    c.call("session.subscribe", sessionId=other)
    c.call("turn.start", sessionId=other, input="go")
    ask = c.event("approval.requested")["data"]
    c.call("approval.respond", approvalId=ask["approvalId"], optionId="deny")
    assert "[denied" in c.event("turn.completed")["data"]["message"]
    never = open_session(c, d, approvalPolicy="never")
    assert run(c, never, "go")["stopReason"] == "end_turn"

    t = c.call("turn.start", sessionId=other, input="go")["turnId"]
    c.event("approval.requested")
    c.call("turn.interrupt", turnId=t)
    assert c.event("approval.resolved")["data"]["outcome"] == "cancelled"
    assert c.event("turn.completed")["data"]["stopReason"] == "cancelled"

    t = c.call("turn.start", sessionId=other, input="go")["turnId"]
    ask = c.event("approval.requested")["data"]
    d.kill()
    d.start()
    c = d.client()
    c.call("approval.respond", approvalId=ask["approvalId"], optionId="deny")  # it still waits
    assert c.call("turn.wait", turnId=t)["stopReason"] == "end_turn"
    refused(1004, c.call, "approval.respond", approvalId=ask["approvalId"], optionId="deny")
    assert open(d.workspace + "/made").read() == "yes\n" * 3  # session rule x2, never x1
    d.close()


def test_unattended():
    steps = [{"steps": [{"calls": [bash("touch made")]}, {"text": "{{result}}"}]}]
    d = Daemon(steps, args=["--set", "agent.unattended=deny"])
    c = d.client()
    s = open_session(c, d, approvalPolicy="always")
    assert "[denied" in run(c, s, "go")["message"]
    assert not os.path.exists(d.workspace + "/made")
    d.close()


def test_foreign_uid():
    if os.getuid() != 0:
        return
    d = Daemon(SAY, profile="chat")
    os.chmod(d.root, 0o755)
    os.chmod(d.path, 0o777)
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        try:
            Client(d.path)
            os._exit(1)
        except (EOFError, OSError):
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    d.close()


def test_stop_and_drain():
    d = Daemon(SAY, profile="chat")
    c = d.client()
    s = c.call("session.create")["sessionId"]
    t = c.call("turn.start", sessionId=s, input="long")["turnId"]
    c.call("daemon.drain")
    refused(1013, c.call, "turn.start", sessionId=s, input="x")
    w = c.send("turn.wait", turnId=t)
    d.proc.terminate()
    assert c.reply(w)["stopReason"] == "cancelled"
    assert d.wait_dead() == 0
    d.start()
    assert d.client().call("turn.get", turnId=t)["stopReason"] == "cancelled"
    second = Daemon.__new__(Daemon)
    second.__dict__.update(d.__dict__)
    second.start(wait=False)
    assert second.proc.wait(timeout=60) == 1  # another daemon holds the store
    d.close()


if __name__ == "__main__":
    main(globals())
