"""The prompt is the same whatever the daemon still has in memory: tokens that were kept, a
transcript read from the log again, a restart. The scripted engine says a hash of every prompt
it sees, so one different token shows in the log for good."""
import os
import random

from agent import Daemon, bash, history, main, open_session, run

TURNS = [{"match": "steered", "steps": [{"think": "s {{hash}}", "text": "{{hash}}"}]},
         {"match": "tools", "steps": [
             {"think": "first {{hash}}", "calls": [bash("printf 'out {{hash}} %0400d' 7"),
                                                   bash("echo two; false")]},
             {"think": "then {{hash}}", "text": "let me see ", "calls": [bash("echo {{hash}}")]},
             {"think": "end {{hash}}", "text": "done {{hash}} {{turns}}"}]},
         {"match": "broken", "steps": [{"raw": "x {{hash}}</think>\n\n<｜DSML｜function_calls>\n<b"},
                                       {"think": "oh", "text": "gave up {{hash}}"}]},
         {"match": "many", "steps": [{"calls": [bash("head -c 700 /dev/zero | tr '\\0' x")]}] * 8 +
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
