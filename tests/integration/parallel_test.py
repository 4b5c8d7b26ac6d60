"""Calls that only read, several in a block: side by side, their results in the calls' order."""
import http.server
import json
import os
import threading
import time
import urllib.parse

from agent import Daemon, bash, history, main, open_session, run


class Engine(http.server.ThreadingHTTPServer):
    """A search engine that takes its time, and knows how many asked at once. With `crowd` it
    answers nobody before that many wait."""
    daemon_threads = True

    def __init__(self, seconds):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seconds, self.asked, self.now, self.most = seconds, [], 0, 0
        self.lock, self.gate, self.crowd = threading.Condition(), None, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        srv = self.server
        q = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("q", ["?"])[0]
        with srv.lock:
            srv.asked.append(q)
            srv.now += 1
            srv.most = max(srv.most, srv.now)
            srv.lock.notify_all()
            srv.lock.wait_for(lambda: srv.most >= srv.crowd, 60)
        if srv.gate and q != "one":
            srv.gate.wait(60)
        else:
            time.sleep(srv.seconds)
        with srv.lock:
            srv.now -= 1
        body = json.dumps({"query": q, "results": [
            {"title": "about " + q, "url": "http://example.org/" + q, "content": q}]}).encode()
        if q == "broken":
            body = b"<html>no JSON</html>"
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            pass


def search(q):
    return {"name": "search", "arguments": {"query": q}}


def start(script, seconds=0.0, sandbox="off"):
    engine = Engine(seconds)
    d = Daemon(script, profile="research", sandbox=sandbox)
    d.stop()
    path = d.root + "/search.yaml"
    with open(path, "w") as f:
        f.write("providers:\n  - type: searxng\n    url: http://127.0.0.1:%d\n    private: true\n"
                % engine.server_address[1])
    index = d.root + "/empty"
    os.mkdir(index)
    d.argv += ["--set", "agent.search=" + path]
    d.start()
    return engine, d, d.client()


def results(c, s):
    calls = [e["data"]["callId"] for e in history(c, s) if e["data"].get("kind") == "call"]
    got = [e["data"] for e in history(c, s) if e["data"].get("kind") == "result"]
    return sorted(got, key=lambda r: calls.index(r["callId"]))


WORDS = ["one", "two", "three", "four", "five", "six"]


def test_pages_come_side_by_side():
    engine, d, c = start([{"steps": [{"calls": [search(w) for w in WORDS]}, {"text": "ok"}]}])
    engine.crowd = 4
    s = open_session(c, d)
    assert run(c, s, "go")["stopReason"] == "end_turn"
    got = results(c, s)
    assert [r["status"] for r in got] == ["ok"] * 6, got
    for n, (r, w) in enumerate(zip(got, WORDS)):  # cursors as if one came after the other
        assert r["text"].startswith("[%d] %s " % (n, w)) and "about " + w in r["text"], r
    assert sorted(engine.asked) == sorted(WORDS), engine.asked  # each once
    assert engine.most >= 4, engine.most
    times = {}
    for e in history(c, s):
        if e["type"] in ("tool.started", "tool.finished"):
            times[e["type"], e["data"]["callId"]] = e["ts"]
    started = [t for (k, _), t in times.items() if k == "tool.started"]
    ended = [t for (k, _), t in times.items() if k == "tool.finished"]
    assert max(started) <= min(ended), times
    prompt = c.call("prompt.render", sessionId=s)["prompt"]
    at = [prompt.index("about " + w) for w in WORDS]
    assert at == sorted(at)
    d.close()


def test_one_that_fails_does_not_harm_the_others():
    engine, d, c = start([{"steps": [{"calls": [
        search("one"), search("broken"), {"name": "search", "arguments": {}}, search("two"),
        {"name": "find", "arguments": {"pattern": "two"}}, search("three")]}, {"text": "ok"}]}])
    s = open_session(c, d)
    assert run(c, s, "go")["stopReason"] == "end_turn"
    got = results(c, s)
    assert [r["status"] for r in got] == ["ok", "failed", "invalid", "ok", "ok", "ok"], got
    assert "about three" in got[5]["text"] and "Error searching" in got[1]["text"], got
    assert sorted(engine.asked) == ["broken", "one", "three", "two"], engine.asked
    d.close()


def test_what_writes_waits_and_is_waited_for():
    engine, d, c = start([{"steps": [{"calls": [search("one"), {"name": "python", "arguments": {
        "code": "open('f', 'w').write('x')"}}, search("two"), search("three")]}, {"text": "ok"}]}])
    s = open_session(c, d)
    assert run(c, s, "go")["stopReason"] == "end_turn"
    order = [(e["type"], e["data"]["name"]) for e in history(c, s) if e["type"] == "tool.started"]
    assert [n for _, n in order] == ["search", "python", "search", "search"], order
    assert engine.asked[0] == "one" and sorted(engine.asked[1:]) == ["three", "two"]
    d.close()


def test_interrupt_in_the_middle():
    engine, d, c = start([{"steps": [{"calls": [search(w) for w in WORDS]}, {"text": "ok"}]}])
    engine.gate = threading.Event()  # only the first is answered
    s = open_session(c, d)
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="go")["turnId"]
    c.event("tool.finished")
    c.call("turn.interrupt", turnId=t, mode="hard")
    assert c.event("turn.completed")["data"]["stopReason"] == "cancelled"
    engine.gate.set()
    got = results(c, s)
    assert [r["status"] for r in got] == ["ok"] + ["cancelled"] * 5, got
    assert "about one" in got[0]["text"]
    engine.gate = None
    r = run(c, s, "again")  # and the place where they ran is whole
    assert [x["status"] for x in results(c, s)[6:]] == ["ok"] * 6, r
    d.close()


def test_kill_in_the_middle():
    engine, d, c = start([{"match": "go", "steps": [{"calls": [search(w) for w in WORDS]},
                                                   {"text": "{{result}}"}]}])
    engine.gate = threading.Event()
    s = open_session(c, d)
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="go")["turnId"]
    e = c.event("item.completed", kind="result")
    seen = history(c, s)[:e["seq"]]
    d.kill()
    engine.gate.set()
    engine.gate = None
    d.start()
    c = d.client()
    assert history(c, s)[:e["seq"]] == seen
    got = results(c, s)
    assert [r["status"] for r in got] == ["ok"] + ["unknown"] * 5, got
    prompt = c.call("prompt.render", sessionId=s)["prompt"]
    assert prompt.count("<result>") == 6, prompt[-3000:]
    assert run(c, s, "", resume=t)["message"].startswith("[unknown")
    # nobody is left who fetches
    d.close()


def test_in_cells():
    engine, d, c = start([{"steps": [{"calls": [search(w) for w in WORDS]}, {"text": "ok"}]}], 0.5,
                         sandbox="required")
    s = open_session(c, d)
    run(c, s, "go")
    got = results(c, s)
    if got and got[0]["status"] == "unavailable":
        print("     skipped: " + got[0]["text"])
        d.close()
        return
    # the policy's proxy may refuse loopback: what matters is that each has its own answer
    assert len(got) == 6 and len({r["callId"] for r in got}) == 6
    for r, w in zip(got, WORDS):
        assert w in r["text"], r
    run(c, s, "again")
    assert len(results(c, s)) == 12
    d.close()


if __name__ == "__main__":
    main(globals())
