"""
The remote engine against a real HTTP server on loopback that speaks chat completions: a
whole tool loop, reasoning given back, cuts, refusals, retries, a server that is down.
"""
import http.server
import json
import os
import threading
import time

from agent import Daemon, Refused, bash, history, main, open_session, run


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, play):
        super().__init__(("127.0.0.1", 0), Handler)
        self.play, self.seen, self.keys = play, [], []
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d/v1" % self.server_address[1]


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        self.server.play(self, len(self.server.seen), body)

    def refuse(self, status, message, **headers):
        data = json.dumps({"error": {"message": message}}).encode()
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *deltas, finish="stop", done=True):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for d in deltas:
            self.event({"choices": [{"index": 0, "delta": d}]})
        if finish:
            self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        if done:
            self.event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7,
                                                 "prompt_cache_hit_tokens": 5}})
            self.wfile.write(b"data: [DONE]\n\n")

    def event(self, o):
        self.wfile.write(b"data: " + json.dumps(o).encode() + b"\n\n")
        self.wfile.flush()


def call(i, name=None, args="", id=None):
    f = {"arguments": args}
    if name:
        f["name"] = name
    return {"tool_calls": [{"index": i, "id": id, "type": "function", "function": f}]}


def start(play, **kw):
    srv = Server(play)
    d = Daemon(engine="remote:" + srv.url, **kw)
    return srv, d, d.client()


def test_tool_loop():
    def play(h, n, body):
        if n == 1:
            h.stream({"reasoning_content": "I "}, {"reasoning_content": "list."},
                     call(0, "bash", "", "x1"), call(0, None, '{"command": "ec'),
                     call(0, None, 'ho 42"}'), finish="tool_calls")
        else:
            h.stream({"content": "It is "}, {"content": body["messages"][-1]["content"][:2]})

    srv, d, c = start(play)
    s = open_session(c, d)
    r = run(c, s, "go")
    assert r["message"] == "It is 42" and r["usage"]["cachedTokens"] == 0 or r, r
    first, second = srv.seen
    assert first["stream"] and [t["function"]["name"] for t in first["tools"]][0] == "bash"
    assert [m["role"] for m in first["messages"]] == ["system", "user"]
    assistant, tool = second["messages"][2:]
    assert assistant["reasoning_content"] == "I list."
    assert assistant["tool_calls"][0]["function"] == {"name": "bash",
                                                      "arguments": '{"command": "echo 42"}'}
    assert tool["tool_call_id"] == assistant["tool_calls"][0]["id"]
    usage = [e["data"] for e in history(c, s) if e["type"] == "usage"]
    assert usage[0]["promptTokens"] == 11 and usage[0]["cachedTokens"] == 5
    run(c, s, "next")  # a new user message: reasoning goes, calls and results stay
    old = srv.seen[-1]["messages"][2]
    assert old["reasoning_content"] == "" and old["tool_calls"]
    d.close()


def test_broken_arguments_are_told():
    def play(h, n, body):
        if n == 1:
            h.stream(call(0, "bash", '{"command": '), finish="tool_calls")
        else:
            h.stream({"content": body["messages"][-1]["content"]})

    srv, d, c = start(play)
    s = open_session(c, d)
    r = run(c, s, "go")
    assert "[invalid call" in r["message"] and r["usage"]["toolCalls"] == 0, r
    d.close()


def test_retries_and_refusals():
    def play(h, n, body):
        if n == 1:
            h.refuse(429, "slow down", Retry_After="1")
        elif n == 2:
            h.refuse(503, "warming up")
        elif n == 3:
            h.stream({"content": "at last"})
        else:
            h.refuse(401, "bad key")

    srv, d, c = start(play, profile="chat")
    s = open_session(c, d)
    began = time.monotonic()
    assert run(c, s, "go")["message"] == "at last"
    assert time.monotonic() - began >= 1.0  # what Retry-After said
    r = run(c, s, "go")
    assert r["stopReason"] == "error" and not r["error"]["retryable"], r
    assert "401" in r["error"]["message"] and "bad key" in r["error"]["message"], r
    assert len(srv.seen) == 4
    d.close()


def test_cut_stream():
    def play(h, n, body):
        if n == 1:
            h.stream(finish=None, done=False)  # nothing shown: tried again
        elif n == 2:
            h.stream({"reasoning_content": "hm"}, {"content": "half of"}, finish=None,
                     done=False)
        elif n == 3:
            h.stream({"content": "half again"}, finish=None, done=False)
        else:
            h.stream({"content": "whole"})

    srv, d, c = start(play, profile="chat")
    s = open_session(c, d)
    r = run(c, s, "go")
    assert r["stopReason"] == "error" and "end mark" in r["error"]["message"], r
    assert len(srv.seen) == 2  # shown text is never taken back by a silent retry
    lost = [(e["data"]["kind"], e["data"]["text"]) for e in history(c, s)
            if e["data"].get("lost")]
    assert lost == [("reasoning", "hm"), ("text", "half of")], lost  # what was shown is kept
    run(c, s, "go")
    roles = [m["role"] for m in c.call("session.get", sessionId=s)["messages"]]
    d.kill()
    d.start()
    c = d.client()
    assert [m["role"] for m in c.call("session.get", sessionId=s)["messages"]] == roles
    assert "assistant" not in roles, roles  # and what the engine is told begins anew
    assert run(c, s, "go")["message"] == "whole"
    assert "half" not in json.dumps(srv.seen[-1])
    d.close()


def test_garbage_stream():
    def play(h, n, body):
        h.send_response(200)
        h.end_headers()
        h.wfile.write(b"data: {not json\n\n")

    srv, d, c = start(play, profile="chat", args=["--set", "engine.retries=1"])
    s = open_session(c, d)
    r = run(c, s, "go")
    assert "unreadable" in r["error"]["message"], r
    d.close()


def test_interrupt():
    def play(h, n, body):
        h.stream({"content": "begin"}, finish=None, done=False)
        time.sleep(600)

    srv, d, c = start(play, profile="chat")
    s = open_session(c, d)
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="go")["turnId"]
    c.event("item.delta")
    c.call("turn.interrupt", turnId=t)
    end = c.event("turn.completed")["data"]
    assert end["stopReason"] == "cancelled" and end["message"] == "begin", end
    d.close()


def test_stall():
    def play(h, n, body):
        time.sleep(5)

    srv, d, c = start(play, profile="chat",
                      args=["--set", "engine.stall=200ms", "--set", "engine.retries=0"])
    s = open_session(c, d)
    r = run(c, s, "go")
    assert "no byte" in r["error"]["message"] and r["error"]["retryable"], r
    d.close()


def test_down_and_key():
    key = os.path.join("/tmp", "agentd-test-key-%d" % os.getpid())
    with open(key, "w") as f:
        f.write("secret\n")
    os.chmod(key, 0o600)
    srv, d, c = start(lambda h, n, b: h.stream({"content": "hi"}), profile="chat",
                      args=["--set", "engine.key_file=" + key, "--set", "engine.retries=1",
                            "--set", "engine.model=mine"])
    s = open_session(c, d)
    assert run(c, s, "go")["message"] == "hi"
    assert srv.keys == ["Bearer secret"] and srv.seen[0]["model"] == "mine"
    srv.shutdown()
    srv.server_close()
    r = run(c, s, "go")
    assert r["error"]["kind"] == "engine_unavailable" and srv.url in r["error"]["message"], r
    assert "secret" not in d.read_log()
    d.stop()
    os.chmod(key, 0o644)
    d.start()
    c = d.client()
    while c.call("engine.status")["state"] == "loading":
        time.sleep(0.01)
    st = c.call("engine.status")
    assert st["state"] == "dead" and "chmod 600" in st["problem"], st
    os.unlink(key)
    d.close()


def raw(h, data, type="text/event-stream", length=None):
    """A reply in bytes, exactly these."""
    h.send_response(200)
    if type:
        h.send_header("Content-Type", type)
    h.send_header("Connection", "close")
    if length:
        h.send_header("Content-Length", str(length))
    h.end_headers()
    h.wfile.write(data)
    h.wfile.flush()
    h.close_connection = True


def chunk(delta=None, finish=None, **more):
    o = {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}
    return json.dumps(o)


SHAPES = {  # what servers in the field send: every one is the answer "one two"
    "crlf": "data: %s\r\n\r\ndata: %s\r\n\r\ndata: [DONE]\r\n\r\n" % (
        chunk({"content": "one "}), chunk({"content": "two"}, "stop")),
    "comments": ": ping\n\n: OPENROUTER PROCESSING\n\nevent: message\nid: 3\nretry: 10\n"
                "data: %s\n\n:\n\ndata: %s\n\n" % (chunk({"content": "one "}),
                                                     chunk({"content": "two"}, "stop")),
    "no blank lines": "data: %s\ndata: %s\ndata: [DONE]\n" % (
        chunk({"content": "one "}), chunk({"content": "two"}, "stop")),
    "no space, no last newline": "data:%s\n\ndata:%s\n\ndata:[DONE]" % (
        chunk({"content": "one "}), chunk({"content": "two"}, "stop")),
    "several lines": "data: {\"choices\":\ndata: [{\"delta\": {\"content\":\n"
                     "data: \"one two\"},\ndata: \"finish_reason\": \"stop\"}]}\n\n",
    "empty deltas": "".join("data: %s\n\n" % chunk(x, f) for x, f in [
        ({"role": "assistant", "content": ""}, None), ({}, None), ({"content": None}, None),
        ({"content": "one "}, None), ({"tool_calls": []}, None), ({"tool_calls": None}, None),
        ({"content": "two"}, None), ({}, "stop")]),
    "odd chunks": "data: {\"choices\": []}\n\ndata: {}\n\ndata: []\n\ndata: null\n\n"
                  "data: {\"choices\": [null]}\n\ndata: %s\n\ndata: [DONE]\n\n"
                  "data: %s\n\n" % (chunk({"content": "one two"}, "stop"),
                                    chunk({"content": " three"})),
    "behind the end": "data: %s\n\ndata: %s\n\n" % (
        chunk({"content": "one two"}, "stop"), chunk({"content": " three"})),
    "a whole completion": json.dumps({"choices": [{"message": {
        "role": "assistant", "content": "one two"}, "finish_reason": "stop"}]}, indent=1),
    "null error": "data: %s\n\n" % chunk({"content": "one two"}, "stop", error=None),
}

FAULTS = {  # what is no answer, and what the report must say
    "cut in an event": ("data: %s\n\ndata: {\"choi" % chunk({"content": "one"}), "end mark"),
    "error in the stream": ("data: %s\n\n" % json.dumps({"error": {"message": "GPU on fire"}}),
                            "GPU on fire"),
    "error as a text": ("data: {\"error\": \"overloaded\"}\n\n", "overloaded"),
    "error without words": ("data: {\"error\": {\"code\": 7}}\n\n", "reports an error"),
    "error instead of a stream": (json.dumps({"error": {"message": "no such model"}}),
                                  "no such model"),
    "a web page": ("<html><body>nginx welcomes you</body></html>", "nginx welcomes you"),
    "empty": ("", "end mark"),
    "done at once": ("data: [DONE]\n\n", "end mark"),
    "no JSON": ("data: {broken\n\n", "unreadable"),
    "a line without end": ("data: " + "x" * (17 << 20), "too long"),
}


def test_shapes_of_streams():
    names = list(SHAPES)
    srv, d, c = start(lambda h, n, b: raw(h, SHAPES[names[n - 1]].encode()), profile="chat",
                      args=["--set", "engine.retries=0"])
    s = open_session(c, d)
    for name in names:
        r = run(c, s, name)
        assert r["stopReason"] == "end_turn" and r["message"] == "one two", (name, r)
        assert r["usage"]["completionTokens"] > 0, (name, r)  # budgets count without a usage too
    d.close()


def test_faults_in_streams():
    names = list(FAULTS)
    types = {"a web page": "text/html"}
    srv, d, c = start(lambda h, n, b: raw(h, FAULTS[names[n - 1]][0].encode(),
                                          types.get(names[n - 1], "text/event-stream")),
                      profile="chat", args=["--set", "engine.retries=0"])
    s = open_session(c, d)
    for name in names:
        r = run(c, s, name)
        assert r["stopReason"] == "error" and FAULTS[name][1] in r["error"]["message"], (name, r)
        assert r["error"]["kind"] == "engine_unavailable" and srv.url in r["error"]["message"]
        assert r["error"]["retryable"] == (name != "cut in an event"), (name, r)
    assert "text/html" in run_html(c, s, d, srv, names)
    d.close()


def run_html(c, s, d, srv, names):
    srv.play = lambda h, n, b: raw(h, b"<html>hi</html>", "text/html")
    return run(c, s, "x")["error"]["message"]


def test_parallel_calls_in_fragments():
    plays = [
        [call(0, "bash", "", "a"), call(1, "bash", "", "b"), call(1, None, '{"command": "ec'),
         call(0, None, '{"command": "echo o'), call(1, None, 'ho two"}'), call(0, None, 'ne"}')],
        # indexes with a gap, the name with every piece
        [call(3, "bash", '{"command"', "a"), call(3, "bash", ': "echo one"}'),
         call(7, "bash", '{"command": "echo two"}', "b")],
        # one index for all, told apart by id; arguments as an object
        [{"tool_calls": [{"index": 0, "id": "a", "function": {
            "name": "bash", "arguments": {"command": "echo one"}}}]},
         {"tool_calls": [{"index": 0, "id": "b", "function": {
             "name": "bash", "arguments": "{\"command\": \"echo two\"}"}}]}],
        # no index at all
        [{"tool_calls": [{"id": "a", "function": {"name": "bash", "arguments":
                                                  "{\"command\": \"echo one\"}"}},
                         {"id": "b", "function": {"name": "bash", "arguments":
                                                  "{\"command\": \"echo two\"}"}}]}]]

    def play(h, n, body):
        if body["messages"][-1]["role"] == "user":
            h.stream({"reasoning": "r"}, *plays[(n - 1) // 2], finish="tool_calls")
        else:
            h.stream({"content": " ".join(m["content"].split()[0] for m in body["messages"][-2:])})

    srv, d, c = start(play)
    s = open_session(c, d)
    for i in range(len(plays)):
        r = run(c, s, "go")
        assert r["message"] == "one two" and r["usage"]["toolCalls"] == 2, (i, r)
    d.close()


def test_calls_without_sense():
    def play(h, n, body):
        if n == 1:
            h.stream(call(0, None, "{}"), call(1, "nope", "[1]"), {"tool_calls": [7, None, {}]},
                     call(-5, "bash", '{"command": "echo fine"}'), finish="tool_calls")
        elif n == 2:
            h.stream({"content": "on"})
        else:
            h.stream(*[call(i, "bash", "{}") for i in range(70)], finish="tool_calls")

    srv, d, c = start(play, args=["--set", "engine.retries=0"])
    s = open_session(c, d)
    r = run(c, s, "go")
    assert r["message"] == "on", r
    texts = [e["data"]["text"] for e in history(c, s) if e["data"].get("kind") == "result"]
    assert any("names no tool" in t for t in texts), texts
    assert any(t.startswith("fine") for t in texts), texts
    r = run(c, s, "go")
    assert "too many calls" in r["error"]["message"], r
    d.close()


def test_servers_that_do_not_end():
    def play(h, n, body):
        if n == 1:  # all is said, the connection stays open
            h.stream({"content": "said"}, finish="stop", done=True)
            time.sleep(60)
        elif n == 2:  # no end mark but a finish_reason, and then nothing
            h.stream({"content": "said"}, finish="stop", done=False)
            time.sleep(60)
        else:
            h.stream(finish=None, done=False)
            try:
                while True:
                    h.event({"choices": [{"delta": {"content": "on and on "}}]})
            except OSError:
                pass

    srv, d, c = start(play, profile="chat")
    s = open_session(c, d)
    assert run(c, s, "go")["message"] == "said"
    assert run(c, s, "go")["message"] == "said"
    r = run(c, s, "go", limits={"maxTokens": 500})
    assert r["stopReason"] == "max_tokens" and len(r["message"]) < 20000, r
    r = run(c, s, "go", limits={"maxSeconds": 1, "maxTokens": 1 << 24})
    assert r["stopReason"] == "max_tokens", r
    d.close()


def test_back_off_is_told_and_ends():
    def play(h, n, body):
        if n <= 2:
            h.refuse(500, "oops")
        elif n == 3:
            h.refuse(429, "in an hour", Retry_After="3600")
        else:
            h.refuse(503, "come back", Retry_After="60")

    srv, d, c = start(play, profile="chat", args=["--set", "engine.retries=2"])
    s = open_session(c, d)
    r = run(c, s, "go")
    assert not r["error"]["retryable"] and "3600 s of patience" in r["error"]["message"], r
    assert len(srv.seen) == 3
    told = [e["data"] for e in history(c, s) if e["type"] == "warning"]
    assert [w["attempt"] for w in told] == [1, 2] and "HTTP 500: oops" in told[0]["message"]
    assert told[1]["pauseMs"] == 2 * told[0]["pauseMs"], told
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="x")["turnId"]
    assert c.event("warning")["data"]["pauseMs"] == 60000
    asked = len(srv.seen)
    c.call("turn.interrupt", turnId=t)  # also in the middle of a pause
    assert c.event("turn.completed")["data"]["stopReason"] == "cancelled"
    assert len(srv.seen) == asked
    d.close()


def test_tls_and_addresses():
    import socket
    srv = Server(lambda h, n, b: h.stream({"content": "x"}))
    port = srv.server_address[1]
    spare = socket.socket()
    spare.bind(("127.0.0.1", 0))  # bound, not listening: refused
    for url, words in (("https://127.0.0.1:%d/v1" % port, ("SSL", "TLS", "wrong version")),
                       ("http://127.0.0.1:%d/v1" % spare.getsockname()[1], ("onnect",)),
                       ("http://no-such-host.invalid/v1", ("resolve",))):
        d = Daemon(engine="remote:" + url, profile="chat", args=["--set", "engine.retries=1"])
        c = d.client()
        s = open_session(c, d)
        r = run(c, s, "go")
        said = r["error"]["message"]
        assert url in said and any(w in said for w in words), said
        assert r["error"]["retryable"] and r["error"]["kind"] == "engine_unavailable"
        assert run(c, s, "", resume=r["turnId"])["stopReason"] == "error"  # and it can be resumed
        d.close()
    spare.close()


if __name__ == "__main__":
    main(globals())
