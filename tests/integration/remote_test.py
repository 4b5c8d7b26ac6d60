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
            h.stream({"content": "half of"}, finish=None, done=False)
        else:
            h.stream({"content": "whole"})

    srv, d, c = start(play, profile="chat")
    s = open_session(c, d)
    r = run(c, s, "go")
    assert r["stopReason"] == "error" and "end mark" in r["error"]["message"], r
    assert len(srv.seen) == 2  # shown text is never taken back by a silent retry
    assert run(c, s, "go")["message"] == "whole"
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
        time.sleep(30)

    srv, d, c = start(play, profile="chat")
    s = open_session(c, d)
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="go")["turnId"]
    c.event("item.delta")
    began = time.monotonic()
    c.call("turn.interrupt", turnId=t)
    end = c.event("turn.completed")["data"]
    assert end["stopReason"] == "cancelled" and end["message"] == "begin", end
    assert time.monotonic() - began < 15
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


if __name__ == "__main__":
    main(globals())
