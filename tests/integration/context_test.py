"""The prompt is the same whatever the daemon still has in memory: tokens that were kept, a
transcript read from the log again, a restart. The scripted engine says a hash of every prompt
it sees, so one different token shows in the log for good."""
import os
import random

from agent import ANEW, Daemon, bash, history, main, open_session, run


def view(path):
    """A call that leaves nothing in the cell, which does not outlive a session in memory."""
    return {"name": "str_replace_editor", "arguments": {"command": "view", "path": path}}


TURNS = [{"match": "steered", "steps": [{"think": "s {{hash}}", "text": "{{hash}}"}]},
         {"match": "tools", "steps": [
             {"think": "first {{hash}}", "calls": [view("numbers"), view("no {{hash}}")]},
             {"think": "then {{hash}}", "text": "let me see ", "calls": [view("{{hash}}")]},
             {"think": "end {{hash}}", "text": "done {{hash}} {{turns}}"}]},
         {"match": "broken", "steps": [{"raw": "x {{hash}}</think>\n\n<｜DSML｜function_calls>\n<b"},
                                       {"think": "oh", "text": "gave up {{hash}}"}]},
         {"match": "many", "steps": [{"calls": [view("many")]}] * 8 +
          [{"think": "m", "text": "many {{hash}}"}]},
         {"steps": [{"think": "short {{hash}}", "text": "said {{hash}}"}]}]


def rows(c, s):
    out = []
    for e in history(c, s):
        d = e["data"]
        if e["type"] == "item.completed":
            out.append((d["kind"], d.get("text"), d.get("arguments")))
        elif e["type"] == "context.reset":
            out.append(("reset", d["strategy"], len(d["removed"]), d["before"]))
        elif e["type"] == "step.started":
            out.append(("step", d["promptTokens"]))
    return out


def conversation(restart=None, args=()):
    """The same words to a daemon under these conditions; what its log says in the end."""
    rng = random.Random(5)
    d = Daemon(TURNS, args=args)
    d.stop()
    d.script(TURNS, n_ctx=16000)
    d.start()
    for name, text in ("numbers", "%0400d\n" % 7), ("many", "x" * 700 + "\n"):
        with open(os.path.join(d.workspace, name), "w") as f:
            f.write(text)
    c = d.client()
    s = open_session(c, d)
    other = open_session(c, d)
    out = []
    for turn in range(14):
        word = ["tools", "hello", "broken", "many", "tools steered"][turn % 5]
        run(c, s, "%s %d %s" % (word, turn, "é" * rng.randrange(90)))
        run(c, other, "hello")  # another one is the newest now
        if turn == 4:
            c.call("session.update", sessionId=s, changes={"system": "Another system text."})
        if turn == 7:
            c.call("session.update", sessionId=s, changes={"metadata": {"a": 1}})
        if turn == 9:
            got = c.call("session.get", sessionId=s)["messages"]
            users = [m for m in got if m["role"] == "user"]
            assert len(users) == 10 and users[0]["content"].startswith("tools 0"), users
            out.append(c.call("prompt.render", sessionId=s))
        if turn == 11:
            fork = c.call("session.fork", sessionId=s)["sessionId"]
            out.append(run(c, fork, "tools in the fork")["message"])
        if restart:
            c = restart(d, c)
    out.append(rows(c, s))
    d.close()
    return out


def restart(d, c):
    c.close()
    d.kill()
    d.start()
    return d.client()


def test_same_prompt_from_memory_log_and_restart():
    reference = conversation()
    assert any(r[0] == "reset" for r in reference[-1]), "the context was never cut"
    for how in [dict(args=["--set", "store.transcripts=0"]), dict(restart=restart),
                dict(args=["--set", "engine.idle_prefill=false"])]:
        got = conversation(**how)
        for a, b in zip(reference[-1], got[-1]):
            assert a == b, (how, a, b)
        assert got == reference, how


def test_a_shell_that_is_gone_is_told():
    """What a shell held goes with the cell; the model and the log hear of it once."""
    turns = [{"match": "set", "steps": [{"calls": [bash("x=5")]}, {"text": "set"}]},
             {"match": "plan", "steps": [{"calls": [view("none")]}, {"text": "seen"}]},
             {"steps": [{"calls": [bash("echo x=$x")]}, {"text": "{{result}}"}]}]
    kept, anew = "x=5\n[exit code: 0]", "x=\n[exit code: 0]"
    lost = ANEW + anew

    def get(session, want):
        got = run(c, session, "get")["message"]
        assert got == want, (got, want)

    d = Daemon(turns)
    c = d.client()
    s, fresh = open_session(c, d), open_session(c, d)
    run(c, s, "set")
    get(s, kept)
    fork = c.call("session.fork", sessionId=s)["sessionId"]
    get(fork, lost)
    get(s, kept)  # a fork takes nothing away
    run(c, fresh, "plan")
    c = restart(d, c)
    get(fresh, anew)  # it had no shell to lose
    assert run(c, s, "plan")["message"] == "seen"
    get(s, lost)
    get(s, anew)
    results = [e["data"] for e in history(c, s) if e["data"].get("kind") == "result"]
    assert [r.get("stateLost", False) for r in results] == [False] * 4 + [True, False], results
    d.close()


def test_idle_transcripts_are_given_back():
    long = " ".join("%d" % i for i in range(900))
    d = Daemon([{"steps": [{"text": long}]}], profile="chat",
               args=["--set", "store.transcripts=1M", "--set", "engine.idle_prefill=false",
                     "--set", "engine.cache=1M"])
    c = d.client()
    for n in range(60):
        s = c.call("session.create")["sessionId"]
        for turn in range(3):
            run(c, s, "y" * 4000)
    st = c.call("daemon.status")["transcripts"]
    assert st["loaded"] < 60 and st["bytes"] <= st["limit"] + 100000, st
    first = c.call("session.list", limit=500)["sessions"][-1]["sessionId"]
    assert run(c, first, "still there")["message"] == long
    assert len(c.call("session.get", sessionId=first)["messages"]) == 8
    d.close()


if __name__ == "__main__":
    main(globals())
