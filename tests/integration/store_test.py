"""The log under bad conditions: full disk, locked or damaged database, newer schema; and what
the daemon says to its service manager and about its configuration."""
import os
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time

from agent import BIN, Client, Daemon, Refused, bash, history, main, open_session, run

SAY = [{"match": "tool", "steps": [{"calls": [bash("echo once >> made")]}, {"text": "done"}]},
       {"match": "slow", "steps": [{"text": "slowly said", "delay_ms": 60}]},
       {"steps": [{"text": "said {{user}}"}]}]


def refused(fn, *args, **kw):
    try:
        fn(*args, **kw)
    except Refused as e:
        return e
    raise AssertionError("not refused")


def test_full_disk():
    root = tempfile.mkdtemp(prefix="agentd-test-")
    state = os.path.join(root, "state")
    os.mkdir(state)
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none",
                                      state], stderr=subprocess.DEVNULL).returncode:
        print("     skipped: a small file system cannot be mounted here")
        return
    try:
        d = Daemon(SAY, profile="chat", root=root)
        c = d.client()
        s = c.call("session.create")["sessionId"]
        c.call("session.subscribe", sessionId=s, after=0)
        assert run(c, s, "a")["message"] == "said a"
        c.call("turn.start", sessionId=s, input="slow")
        filler = os.path.join(state, "filler")
        fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
        try:
            while os.write(fd, b"x" * 4096):
                pass
        except OSError:
            os.close(fd)
        e = None
        for i in range(200):  # until the write-ahead log cannot grow any more
            try:
                c.call("session.create", metadata={"x": "y" * 20000})
            except Refused as e2:
                e = e2
                break
        assert e and e.code == 1014 and e.data["retryable"], e
        assert c.call("daemon.status")["store"]["stuck"] is True
        assert refused(c.call, "turn.start", sessionId=s, input="b").code == 1014
        assert c.call("session.get", sessionId=s)["seq"] > 0  # reading goes on
        os.unlink(filler)
        end = time.monotonic() + 30
        while c.call("daemon.status")["store"]["stuck"]:
            assert time.monotonic() < end
            time.sleep(0.05)
        t = [e for e in history(c, s) if e["type"] == "turn.started"][-1]["turnId"]
        assert c.call("turn.wait", turnId=t)["message"] == "slowly said"
        assert run(c, s, "c")["message"] == "said c"
        events = history(c, s)
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
        while c.event("turn.completed")["data"]["message"] != "said c":
            pass
        d.stop()
        d.start()
        assert history(d.client(), s) == events
        d.stop()
    finally:
        subprocess.run(["umount", "-l", state])


def test_size_cap():
    d = Daemon(SAY, profile="chat", args=["--set", "store.max_bytes=400K"])
    c = d.client()
    e = None
    for i in range(100):
        try:
            c.call("session.create", metadata={"x": "y" * 20000})
        except Refused as e2:
            e = e2
            break
    assert e and e.code == 1014 and "full" in str(e), e
    assert c.call("ping") == {}
    d.close()


def test_locked_database():
    d = Daemon(SAY, profile="demo")
    c = d.client()
    s = open_session(c, d)
    db = sqlite3.connect(os.path.join(d.root, "state/agentd.db"), isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    e = refused(c.call, "turn.start", sessionId=s, input="tool")
    assert e.code == 1014 and "locked" in str(e), e
    time.sleep(0.3)
    assert not os.path.exists(d.workspace + "/made")  # no effect before its intent is on disk
    db.execute("ROLLBACK")
    end = time.monotonic() + 30
    while c.call("session.get", sessionId=s)["state"] != "idle" or \
            c.call("daemon.status")["store"]["stuck"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    t = [e for e in history(c, s) if e["type"] == "turn.started"]
    assert len(t) == 1 and c.call("turn.get", turnId=t[0]["turnId"])["message"] == "done"
    assert open(d.workspace + "/made").read() == "once\n"
    d.close()


def test_damaged_database():
    d = Daemon(SAY, profile="chat")
    c = d.client()
    kept = c.call("session.create")["sessionId"]
    run(c, kept, "keep me")
    epoch = c.server["epoch"]
    for i in range(40):
        run(c, c.call("session.create")["sessionId"], "x" * 3000)
    d.stop()
    path = os.path.join(d.root, "state/agentd.db")
    size = os.path.getsize(path)
    with open(path, "r+b") as f:  # a page in the middle is gone
        f.seek(size // 2 // 4096 * 4096)
        f.write(b"\xa5" * 4096)
    d.start()
    c = d.client()
    status = c.call("daemon.status")["store"]
    assert "quarantine" in status["damage"], status
    assert c.server["epoch"] != epoch
    assert os.listdir(os.path.join(d.root, "state/quarantine"))
    e = refused(c.call, "session.subscribe", sessionId=kept, after=1, epoch=epoch)
    assert e.code in (1007, 1001), e
    assert run(c, c.call("session.create")["sessionId"], "new")["message"] == "said new"
    left = c.call("session.list", limit=500)["sessions"]
    for row in left:  # what was saved is whole
        events = history(c, row["sessionId"])
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    print("     %d of 41 sessions were saved" % (len(left) - 1))
    d.stop()
    with open(path, "wb") as f:
        f.write(b"this is no database at all" * 1000)
    d.start()
    assert "quarantine" in d.client().call("daemon.status")["store"]["damage"]
    d.close()


def blobs(d):
    return sorted(f for _, _, files in os.walk(os.path.join(d.root, "state/blobs")) for f in files)


def test_deleted_sessions_leave_nothing():
    d = Daemon([{"match": "two", "steps": [{"calls": [bash("echo 1"), bash("echo 2")] * 20},
                                           {"text": "t"}]}, *SAY])
    c = d.client()
    a, b = open_session(c, d), open_session(c, d)
    shared, own = "s" * 70000, "o" * 70000
    run(c, a, shared)
    run(c, b, shared)
    both = blobs(d)
    run(c, a, own)
    run(c, a, "tool")
    assert len(blobs(d)) > len(both) and os.path.exists(d.root + "/state/sessions/" + a)
    c.call("session.delete", sessionId=a)
    assert blobs(d) == both, "what another session holds stays, the rest goes"
    assert not os.path.exists(d.root + "/state/sessions/" + a)
    assert history(c, b)[2]["data"]["text"] == shared
    c.call("session.delete", sessionId=b)
    assert blobs(d) == []
    # a fork that fails is no session; one in the middle of a block answers the other calls
    s = open_session(c, d)
    run(c, s, "two")
    n = len(c.call("session.list")["sessions"])
    assert refused(c.call, "session.fork", sessionId=s, atMessageId="nobody").code == -32602
    assert len(c.call("session.list")["sessions"]) == n
    first = [e for e in history(c, s) if e["data"].get("kind") == "result"][0]["itemId"]
    fork = c.call("session.fork", sessionId=s, atMessageId=first)["sessionId"]
    results = [e for e in history(c, fork) if e["data"].get("kind") == "result"]
    assert len(results) == 40 and run(c, fork, "on")["message"] == "said on"
    d.close()


def test_deleted_sessions_leave_no_snapshot():
    d = Daemon(SAY, profile="chat")
    kv = d.root + "/state/kv"
    c = d.client()
    kept = open_session(c, d)
    run(c, kept, "k" * 1000)
    gone = []
    for i in range(30):  # at all moments of the work behind an answer
        gone.append(open_session(c, d))
        run(c, gone[-1], "g" * 1000)
        time.sleep(0.0005 * (i % 10))
        c.call("session.delete", sessionId=gone[-1])
    d.stop()  # writes what is due
    left = os.listdir(kv)
    assert kept + ".kv" in left and not [f for f in left if f[:-3] in gone], left
    d.close()


def test_newer_schema():
    d = Daemon(SAY, profile="chat")
    d.stop()
    db = sqlite3.connect(os.path.join(d.root, "state/agentd.db"))
    db.execute("PRAGMA user_version = 99")
    db.close()
    d.start(wait=False)
    assert d.wait_dead() == 1
    assert "newer agentd" in d.read_log()
    d.close()


def check_config(text):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
        f.write(text)
        f.flush()
        r = subprocess.run([os.path.join(BIN, "agentd"), "--check-config", "--config", f.name],
                           capture_output=True, text=True)
        return r.returncode, r.stdout + r.stderr


def test_config():
    explain = subprocess.run([os.path.join(BIN, "agentd"), "--explain-config"],
                             capture_output=True, text=True, check=True).stdout
    assert check_config(explain)[0] == 0, check_config(explain)
    assert check_config("")[0] == 0
    here = os.path.join(os.path.dirname(__file__), "../../configs/agentd.yaml")
    with open(here) as f:
        shipped = f.read()
    assert explain in shipped, "configs/agentd.yaml differs from agentd --explain-config"
    for text, words in [("store:\n  synk: full\n", (":2:", "store.synk")),
                        ("storage:\n  sync: full\n", (":1:", "storage")),
                        ("store:\n  sync: maybe\n", (":2:", "sync", "normal")),
                        ("engine:\n  threads: 99999\n", (":2:", "threads")),
                        ("engine:\n  threads: many\n", (":2:", "threads")),
                        ("log:\n  level: loud\n", ("loud", "debug")),
                        ("agent:\n  profile: nobody\n", ("nobody",)),
                        ("- a\n- b\n", (":1:",)), ("a: [\n", (":",))]:
        code, said = check_config(text)
        assert code == 1 and all(w in said for w in words), (text, code, said)
    r = subprocess.run([os.path.join(BIN, "agentd"), "--set", "nope=1", "--check-config"],
                       capture_output=True, text=True)
    assert r.returncode == 1 and "nope" in r.stderr


def test_reload_keeps_the_last_good():
    root = tempfile.mkdtemp(prefix="agentd-test-")
    path = os.path.join(root, "agentd.yaml")
    with open(path, "w") as f:
        f.write("log:\n  level: info\n")
    d = Daemon(SAY, profile="chat", root=root, args=["--config", path])
    for text, said in [("log:\n  level: noise\n", "kept the old one"), ("log:\n", "reloaded")]:
        with open(path, "w") as f:
            f.write(text)
        d.proc.send_signal(signal.SIGHUP)
        end = time.monotonic() + 20
        while said not in d.read_log():
            assert time.monotonic() < end, d.read_log()
            time.sleep(0.02)
        c = d.client()
        assert run(c, c.call("session.create")["sessionId"], "x")["message"] == "said x"
    d.close()


def test_service_manager():
    root = tempfile.mkdtemp(prefix="agentd-test-")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(os.path.join(root, "notify"))
    notify.settimeout(60)
    listener = socket.socket(socket.AF_UNIX)
    path = os.path.join(root, "given")
    listener.bind(path)
    listener.listen(8)

    def before_exec():
        os.dup2(listener.fileno(), 3)
        os.environ["LISTEN_PID"] = str(os.getpid())

    script = os.path.join(root, "script.json")
    with open(script, "w") as f:
        f.write('{"turns":[{"steps":[{"text":"hello"}]}]}')
    env = {**os.environ, "NOTIFY_SOCKET": os.path.join(root, "notify"), "WATCHDOG_USEC": "200000",
           "LISTEN_FDS": "1", "LISTEN_FDNAMES": "native"}
    # the pid must be the daemon's own: sh sets it and becomes the daemon
    p = subprocess.Popen(["sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh",
                          os.path.join(BIN, "agentd"), "--engine", "script:" + script, "--state",
                          os.path.join(root, "state"), "--profile", "chat", "--sandbox", "off"],
                         env=env, preexec_fn=lambda: os.dup2(listener.fileno(), 3), close_fds=False,
                         stderr=subprocess.DEVNULL)
    said = b""
    while b"WATCHDOG=1" not in said or b"READY=1" not in said:
        said += notify.recv(4096) + b"\n"
    c = Client(path)
    assert run(c, c.call("session.create")["sessionId"], "x")["message"] == "hello"
    p.send_signal(signal.SIGHUP)
    while b"RELOADING=1" not in said:
        said += notify.recv(4096) + b"\n"
    p.terminate()
    while b"STOPPING=1" not in said:
        said += notify.recv(4096) + b"\n"
    assert p.wait(timeout=60) == 0
    assert os.path.exists(path)  # a socket that was given is not ours to remove


def test_schema_is_printed():
    import json
    out = subprocess.run([os.path.join(BIN, "agentd"), "--dump-schema"], capture_output=True,
                         text=True, check=True).stdout
    doc = json.loads(out)
    names = {m["name"] for m in doc["methods"]}
    want = """initialize ping session.create session.get session.list session.update session.close
        session.delete session.fork session.export session.changes
        session.subscribe session.unsubscribe turn.start
        turn.run turn.wait turn.get turn.steer turn.interrupt approval.list approval.respond tool.list
        mcp.status mcp.reload model.list engine.status prompt.render daemon.status daemon.drain
        $/cancel_request""".split()
    assert set(want) <= names, set(want) - names
    assert all(m["params"]["type"] == "object" and m["description"] for m in doc["methods"])


if __name__ == "__main__":
    main(globals())
