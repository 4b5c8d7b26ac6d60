"""A disk that fails under a running daemon, and power that goes: what was promised is kept, the
connection stays, the daemon goes on when the disk does."""
import os
import sqlite3
import subprocess
import sys
import tempfile
import time

import crash_test
from agent import BIN, Daemon, Refused, bash, history, main, open_session, run

FULL = crash_test.FULL
SHIM = os.path.join(os.environ.get("BUILD") or os.path.join(BIN, ".."), "tests/libfaults.so")
TURNS = [{"match": "slow", "steps": [{"text": "slowly said", "delay_ms": 40}]},
         {"match": "tool", "steps": [{"calls": [bash("echo once >> made")]}, {"text": "done"}]},
         {"steps": [{"text": "said {{user}}"}]}]


def sanitized():
    with open(os.path.join(BIN, "agentd"), "rb") as f:
        return b"__asan_init" in f.read()


def shim(root, **env):
    return {"LD_PRELOAD": SHIM, "FAULT_DIR": os.path.join(root, "state"),
            "FAULT_FLAG": os.path.join(root, "flag"), **env}


def fault(d, text):
    path = os.path.join(d.root, "flag")
    if text:
        with open(path + ".new", "w") as f:
            f.write(text)
        os.rename(path + ".new", path)
    else:
        os.unlink(path)


def stuck(c):
    return c.call("daemon.status")["store"]["stuck"]


def refused(call, *args, **kw):
    try:
        call(*args, **kw)
    except Refused as e:
        return e
    raise AssertionError("was not refused")


def test_failing_writes_and_syncs():
    root = tempfile.mkdtemp(prefix="agentd-test-")
    d = Daemon(TURNS, root=root, env=shim(root), args=["--set", "store.sync=full"])
    c = d.client()
    s = open_session(c, d)
    c.call("session.subscribe", sessionId=s, after=0)
    n = 0
    for text in ("write ENOSPC", "write EIO", "sync EIO"):
        c.call("turn.start", sessionId=s, input="slow")
        fault(d, text)
        e = refused(c.call, "session.create", metadata={"x": "y" * 9000})
        assert e.code == 1014 and e.data["retryable"], e
        assert stuck(c)
        assert refused(d.client().call, "session.create").code == 1014
        assert c.call("session.get", sessionId=s)["seq"] > 0  # reading goes on
        time.sleep(0.5)  # the turn comes to its end meanwhile, and waits for the disk
        fault(d, None)
        while c.event("turn.completed")["data"]["message"] != "slowly said":
            pass
        while stuck(c):
            time.sleep(0.02)
        assert run(c, s, "tool")["message"] == "done"
        n += 1
        with open(os.path.join(d.workspace, "made")) as f:
            assert f.read() == "once\n" * n
    events = history(c, s)
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    d.kill()
    d.start()
    assert history(d.client(), s) == events
    assert d.close() == 0


def test_power_cut():
    """Every commit is synced: what a client saw is there, whatever else was lost."""
    ref = crash_test.Script()
    points = crash_test.FIRST if FULL else ["after-intent", "during-output", "result-committed"]
    for point in points:
        for seed in range(1, 5 if FULL else 2):
            if point == "during-snapshot":
                continue
            root = tempfile.mkdtemp(prefix="agentd-test-")
            line = crash_test.script_row(ref, point, 1, root=root,
                                         env=shim(root, FAULT_POWER=str(seed)),
                                         args=["--set", "store.sync=full"])
            if line:
                print("     power " + line, flush=True)


def test_power_cut_without_syncs():
    """store.sync: normal may lose the newest events, and nothing but these."""
    for seed in range(1, 9 if FULL else 3):
        root = tempfile.mkdtemp(prefix="agentd-test-")
        d = Daemon(TURNS, root=root, profile="chat",
                   env=shim(root, FAULT_POWER=str(seed), AGENTD_CRASH_AT="turn-committed:9"))
        c = d.client()
        s = c.call("session.create")["sessionId"]
        try:
            for n in range(9):
                run(c, s, "x" * 900 * n)
                before = history(c, s)
        except (EOFError, ConnectionError):
            pass
        assert d.wait_dead() == -9
        d.env = {}
        d.start()
        c = d.client()
        assert "damage" not in c.call("daemon.status")["store"]
        left = c.call("session.list")["sessions"]
        after = history(c, s) if left else []
        same = [e for e in after if e["type"] != "turn.failed"]
        assert same == before[:len(same)] or after[:len(before)] == before, (before, after)
        if left:
            assert run(c, s, "again")["message"] == "said again"
        d.close()


def test_network_file_system():
    root = tempfile.mkdtemp(prefix="agentd-test-")
    d = Daemon(TURNS, root=root, profile="chat")
    d.stop()
    for kind, word in (("0x6969", "NFS"), ("0xff534d42", "CIFS")):
        d.start(env=shim(root, FAULT_FS=kind), wait=False)
        assert d.wait_dead() == 1
        said = d.read_log()
        assert word in said and "store.allow_network_fs" in said, said
    d.argv += ["--set", "store.allow_network_fs=true"]
    d.start(env=shim(root, FAULT_FS="0x6969"))
    assert d.close() == 0


def test_damaged_store_says_what_to_do():
    d = Daemon(TURNS, profile="chat")
    c = d.client()
    s = c.call("session.create")["sessionId"]
    run(c, s, "z" * 20000)
    d.stop()
    path = os.path.join(d.root, "state/agentd.db")
    db = sqlite3.connect(path)
    page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'event'").fetchone()[0]
    db.close()
    with open(path, "r+b") as f:
        f.seek((page - 1) * 4096)
        f.write(b"\0" * 4096)
    d.start()
    c = d.client()
    damage = c.call("daemon.status")["store"]["damage"]
    for words in ("quarantine/", "damaged", "sqlite3", ".recover"):
        assert words in damage, damage
        assert words in d.read_log()
    assert run(c, c.call("session.create")["sessionId"], "on")["message"] == "said on"
    d.close()


if __name__ == "__main__":
    if sanitized():
        print("skipped: a preloaded library and ASan do not go together")
        sys.exit(77)
    main(globals())
