"""One turn in all its ends: the answer, interrupts, steering, budgets, broken calls."""
import os
import time

from agent import Daemon, Refused, bash, history, main, open_session, run

COUNT = [{"match": "river", "steps": [
    {"think": "I count.", "calls": [bash("grep -c river notes.txt")]},
    {"think": "It said {{result}}", "text": "There are {{seen:([0-9]+)}} lines."}]}]


def kinds(events):
    return [e["type"] + (":" + e["data"]["kind"] if e["type"] == "item.completed" else "")
            for e in events]


def results(events):
    return [e["data"] for e in events
            if e["type"] == "item.completed" and e["data"]["kind"] == "result"]


def test_whole_turn():
    d = Daemon(COUNT)
    with open(d.workspace + "/notes.txt", "w") as f:
        f.write("river\nmill\nriver river\n")
    c = d.client()
    s = open_session(c, d)
    r = run(c, s, "how many river lines?")
    assert r["stopReason"] == "end_turn", r
    events = history(c, s)
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert kinds(events) == [
        "session.created", "turn.started", "item.completed:user", "step.started",
        "item.completed:reasoning", "item.completed:call", "usage", "tool.started",
        "tool.finished", "item.completed:result", "step.started", "item.completed:reasoning",
        "item.completed:text", "usage", "turn.completed"], kinds(events)
    assert results(events)[0]["text"].startswith("2\n"), results(events)
    # within a turn nothing is computed twice: what is new is what the result added
    first, second = [e["data"] for e in events if e["type"] == "step.started"]
    sampled = [e for e in events if e["type"] == "usage"][0]
    assert second["cachedTokens"] >= first["promptTokens"] + sampled["data"]["completionTokens"] - 8
    assert len(sampled["tokens"]) == sampled["data"]["completionTokens"]
    prompt = c.call("prompt.render", sessionId=s)["prompt"]
    assert "I count.</think>" in prompt
    d.close()


def test_next_turn_drops_reasoning():
    d = Daemon(COUNT)
    open(d.workspace + "/notes.txt", "w").write("river\n")
    c = d.client()
    s = open_session(c, d)
    run(c, s, "river?")
    c.call("session.get", sessionId=s)
    run(c, s, "river again?")
    prompt = c.call("prompt.render", sessionId=s)["prompt"]
    assert prompt.count("I count.") == 1, prompt
    d.close()


def test_interrupt_while_sampling():
    d = Daemon([{"steps": [{"think": "x" * 4000, "delay_ms": 20, "chunk": 4}]}])
    c = d.client()
    s = open_session(c, d)
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="go")["turnId"]
    c.event("item.delta")
    c.call("turn.interrupt", turnId=t)
    end = c.event("turn.completed")
    assert end["data"]["stopReason"] == "cancelled"
    part = [e for e in history(c, s) if e["data"].get("kind") == "reasoning"][0]
    assert part["data"]["partial"] and part["data"]["text"].startswith("xxx")
    assert c.call("turn.interrupt", turnId=t)["state"] == "ended"  # repeating is fine
    assert run(c, s, "go on", limits={"maxTokens": 20})["stopReason"] == "max_tokens"
    d.close()


def test_interrupt_while_calling():
    d = Daemon([{"steps": [{"calls": [bash("sleep 50"), bash("touch never")]},
                           {"text": "not reached"}]}], args=["--set", "agent.grace=100ms"])
    c = d.client()
    s = open_session(c, d)
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="go")["turnId"]
    c.event("tool.started")
    began = time.monotonic()
    c.call("turn.interrupt", turnId=t, mode="soft")
    assert c.event("turn.completed")["data"]["stopReason"] == "cancelled"
    assert time.monotonic() - began < 15
    got = results(history(c, s))
    assert len(got) == 2, got
    assert sorted(r["status"] for r in got) == ["cancelled", "cancelled"], got
    assert not os.path.exists(d.workspace + "/never")
    d.close()


def test_steer_rides_in_the_result():
    d = Daemon([{"match": "go", "steps": [
        {"think": "first", "calls": [bash("sleep 0.5; echo done")]},
        {"text": "{{result}}"}]}])
    c = d.client()
    s = open_session(c, d)
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="go")["turnId"]
    c.event("tool.started")
    c.call("turn.steer", turnId=t, input="prefer short answers")
    answer = c.event("turn.completed")["data"]["message"]
    assert "prefer short answers" in answer and "<system-reminder>" in answer
    assert "first</think>" in c.call("prompt.render", sessionId=s)["prompt"]  # reasoning kept
    d.close()


def test_steer_without_a_result_becomes_a_message():
    d = Daemon([{"match": "more", "steps": [{"text": "both"}]},
                {"steps": [{"text": "slow answer", "first_ms": 700}]}])
    c = d.client()
    s = open_session(c, d)
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="go")["turnId"]
    c.event("step.started")
    c.call("turn.steer", turnId=t, input="more")
    assert c.event("turn.completed")["data"]["message"] == "both"
    d.close()


def test_budgets_end_with_an_answer():
    loop = [{"steps": [{"calls": [bash("echo {{steps}}")]}, {"calls": [bash("echo {{steps}}")]},
                       {"text": "{{result}}"}]}]
    d = Daemon(loop)
    c = d.client()
    s = open_session(c, d)
    r = run(c, s, "go", limits={"maxSteps": 3})
    assert r["stopReason"] == "max_steps" and r["limit"] == "steps", r
    assert "last step" in r["message"], r
    d.script([{"steps": [{"calls": [bash("echo {{steps}}")]}]}])
    d.stop()
    d.start()
    c = d.client()
    r = run(c, s, "go", limits={"maxSteps": 2})
    assert r["stopReason"] == "max_steps" and r["usage"]["toolCalls"] == 1, r
    assert results(history(c, s))[-1]["text"].startswith("[not run")
    d.close()


def test_thinking_is_closed_in_time():
    d = Daemon([{"steps": [{"think": "hm " * 3000, "text": "never"}]}])
    c = d.client()
    s = open_session(c, d, limits={"maxThinking": 100})
    r = run(c, s, "go", limits={"maxTokens": 400})
    usage = [e["data"] for e in history(c, s) if e["type"] == "usage"][0]
    assert usage["thinkTokens"] == 100, usage
    assert r["stopReason"] == "max_tokens", r
    d.close()


def test_going_round_in_circles():
    d = Daemon([{"match": "letter", "steps": [{"think": "so: ", "text": "x" * 9000}]},
                {"match": "thought", "steps": [{"think": "Wait, let me look. " * 400,
                                                "text": "never"}]},
                {"match": "call", "steps": [{"calls": [bash("touch made; echo " + "ab" * 4000)]}]},
                {"match": "table", "steps": [{"text": "".join(
                    "| %4d | 0.00 | 0.00 |\n%s" % (i, "|------|------|------|\n" * (i % 9 == 0))
                    for i in range(400))}]},
                {"match": "ruler", "steps": [{"text": "".join(
                    "/" + "-" * 900 + " %d\n" % i for i in range(5))}]},
                {"steps": [{"text": "fine"}]}])
    c = d.client()
    s = open_session(c, d, limits={"maxTokens": 50000, "maxThinking": 50000})
    for text, before, block in ("letter", 12, 1), ("thought", 0, 19), ("call", None, 2):
        at = len(history(c, s))
        r = run(c, s, text)
        assert (r["stopReason"], r["limit"]) == ("max_tokens", "repetition"), r
        events = history(c, s)[at:]
        usage = [e["data"] for e in events if e["type"] == "usage"][0]
        assert usage["stop"] == "repetition", usage
        if before is not None:
            assert usage["completionTokens"] <= before + 1024, usage
        warning = [e["data"] for e in events if e["type"] == "warning"]
        assert len(warning) == 1 and warning[0]["block"] == block, warning
        assert "same %d token" % block in warning[0]["message"], warning
        partial = [e["data"]["kind"] for e in events if e["data"].get("partial")]
        assert partial or text == "call", events
    assert results(events)[0]["text"].startswith("["), results(events)  # whoever reads it knows
    assert not os.path.exists(d.workspace + "/made")
    assert "repetition=" in d.read_log()
    d.kill()
    d.start()  # what was cut off is history like any other
    c = d.client()
    assert run(c, s, "hello")["message"] == "fine"
    for text in "table", "ruler":
        r = run(c, s, text)
        assert r["stopReason"] == "end_turn" and len(r["message"]) > 4000, r
    d.stop()
    d.argv += ["--set", "engine.repeat=0"]
    d.start()
    c = d.client()
    assert run(c, s, "letter")["message"] == "x" * 9000
    d.close()


def test_time_budget():
    d = Daemon([{"steps": [{"calls": [bash("sleep 60")]}, {"text": "in time: {{result}}"}]}])
    c = d.client()
    s = open_session(c, d)
    r = run(c, s, "go", limits={"maxSeconds": 1})
    assert r["limit"] == "time" and "in time" in r["message"], r
    d.close()


def test_repeats_are_told_and_end():
    d = Daemon([{"steps": [{"calls": [bash("true")]}]}])
    c = d.client()
    s = open_session(c, d)
    r = run(c, s, "go")
    assert r["limit"] == "repeats", r
    notes = [e["data"]["text"] for e in history(c, s) if e["data"].get("kind") == "notice"]
    assert "3 times in a row" in notes[0], notes
    assert r["usage"]["toolCalls"] == 8, r
    d.close()


def test_the_policy_counts():
    d = Daemon([{"match": "many", "steps": [{"calls": [bash("echo %d" % i) for i in range(5)]},
                                            {"text": "{{result}}"}]},
                {"match": "tool", "steps": [{"calls": [{"name": "python", "arguments": {
                    "code": str(i)}} for i in range(3)]}, {"text": "{{result}}"}]},
                {"steps": [{"calls": [bash("true")]}]}])
    d.stop()
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../policies")
    os.mkdir(d.root + "/policies")
    with open(folder + "/coding.yaml") as f:
        text = f.read()
    lines = [x for x in text.split("\n") if not x.startswith(("max_calls:", "repeat:"))
             and not (x.startswith("  ") and x.split(":")[0].strip() in ("nudge", "insist",
                                                                           "pause"))]
    text = "\n".join(lines).replace("  python: allow",
                                    "  python: {decision: allow, max_calls: 2}")
    with open(d.root + "/policies/coding.yaml", "w") as f:
        f.write(text + "\nmax_calls: 4\nrepeat: {nudge: 2, insist: 3, pause: 4}\n")
    d.argv += ["--set", "agent.policies=" + d.root + "/policies"]
    d.start()
    c = d.client()
    s = open_session(c, d)
    r = run(c, s, "many")
    assert "denied: this turn has made its 4 calls" in r["message"], r
    assert r["usage"]["toolCalls"] == 4, r
    r = run(c, s, "tool")
    assert "has called python 2 times" in r["message"], r
    r = run(c, s, "x")
    assert r["limit"] == "repeats" and r["usage"]["toolCalls"] == 4, r
    notes = [e["data"]["text"] for e in history(c, s) if e["data"].get("kind") == "notice"]
    assert "2 times in a row" in notes[-2] and "ends after 4" in notes[-1], notes
    d.close()


def test_broken_call_is_told():
    dsml = "<\uff5cDSML\uff5cfunction_calls>\n<\uff5cDSML\uff5cinvoke name=\"bash\">\n"
    broken = "thought</think>\n\n" + dsml + "<\uff5cDSML\uff5cparameter name=\"command\">ls"
    d = Daemon([{"steps": [{"raw": broken}, {"text": "told: {{result}}"}]}])
    c = d.client()
    s = open_session(c, d)
    r = run(c, s, "go")
    assert r["stopReason"] == "end_turn" and "[invalid call" in r["message"], r
    assert r["usage"]["toolCalls"] == 0
    d.script([{"steps": [{"raw": broken}]}])
    d.stop()
    d.start()
    c = d.client()
    r = run(c, s, "go")
    assert r["stopReason"] == "error" and r["error"]["kind"] == "encoding_error", r
    d.close()


def test_engine_faults():
    d = Daemon([{"match": "busy", "steps": [{"text": "a", "fault": "busy"}]},
                {"match": "error", "steps": [{"text": "a long answer", "fault": "error",
                                               "fault_at": 8}]},
                {"match": "dead", "steps": [{"text": "a", "fault": "dead"}]},
                {"steps": [{"text": "fine"}]}], args=["--set", "engine.retries=1"])
    c = d.client()
    s = open_session(c, d, profile="chat")
    r = run(c, s, "busy")
    assert r["error"]["kind"] == "engine_unavailable" and r["error"]["retryable"], r
    assert [e for e in history(c, s) if e["type"] == "warning"]
    r = run(c, s, "error")
    assert not r["error"]["retryable"], r
    assert run(c, s, "fine")["message"] == "fine"
    assert run(c, s, "dead")["error"]["kind"] == "engine_unavailable"
    try:
        run(c, s, "fine")
        raise AssertionError("a dead engine took a turn")
    except Refused as e:
        assert e.code == 1008, e.code
    assert c.call("engine.status")["state"] == "dead"
    d.close()


def test_fork():
    d = Daemon([{"steps": [{"think": "t{{turns}}", "text": "answer {{turns}}"}]}])
    c = d.client()
    s = open_session(c, d)
    run(c, s, "one")
    run(c, s, "two")
    first = [e for e in history(c, s) if e["data"].get("kind") == "text"][0]
    f = c.call("session.fork", sessionId=s, atMessageId=first["itemId"])["sessionId"]
    assert run(c, f, "three")["message"] == "answer 2"
    f = c.call("session.fork", sessionId=s)["sessionId"]
    assert run(c, f, "three")["message"] == "answer 3"
    d.close()


def test_parallel_reads():
    d = Daemon([{"steps": [{"calls": [
        {"name": "search", "arguments": {"query": "a"}},
        {"name": "search", "arguments": {"query": "b"}}, bash("echo x > made"),
        {"name": "search", "arguments": {"query": "c"}}]}, {"text": "ok"}]}])
    c = d.client()
    s = open_session(c, d)
    assert run(c, s, "go")["stopReason"] == "end_turn"
    order = [(e["type"], e["data"].get("callId")) for e in history(c, s)
             if e["type"] in ("tool.started", "tool.finished")]
    calls = [e["data"]["callId"] for e in history(c, s) if e["data"].get("kind") == "call"]
    at = {(t, calls.index(i)): n for n, (t, i) in enumerate(order)}
    assert at["tool.started", 1] < at["tool.finished", 0]  # side by side
    assert at["tool.started", 2] > max(at["tool.finished", 0], at["tool.finished", 1])
    assert at["tool.started", 3] > at["tool.finished", 2]
    d.close()


def overflow(strategy):
    """A turn whose results pass the context's threshold; returns its resets and its answer."""
    fill = "head -c 1150 /dev/zero | tr '\\0' x; echo {{steps}}"
    d = Daemon([{"match": "Work so far", "steps": [{"text": "one file was made"}]},
                {"match": "What they came to", "steps": [{"text": "{{user}}"}]},
                {"match": "dropped to make room", "steps": [{"text": "{{user}}"}]},
                {"match": "go", "steps": [{"think": "t", "calls": [bash(fill)]}] * 2 +
                 [{"text": "kept"}]}], args=["--set", "engine.context=5200"])
    c = d.client()
    s = open_session(c, d, contextStrategy=strategy)
    r = run(c, s, "go")
    resets = [e["data"] for e in history(c, s) if e["type"] == "context.reset"]
    n = len(history(c, s))
    d.kill()
    d.start()  # what left the prompt stays out of it after a restart
    c = d.client()
    prompt = c.call("prompt.render", sessionId=s)["prompt"]
    assert len(history(c, s)) == n
    d.close()
    return r, resets, prompt


def test_context_strategies():
    r, resets, prompt = overflow("none")
    assert r["stopReason"] == "context_exhausted" and not resets, r
    r, resets, prompt = overflow("discard-tools")
    assert resets[0]["strategy"] == "discard-tools" and len(resets[0]["removed"]) == 2, (r, resets)
    r, resets, prompt = overflow("discard-all")
    assert resets[0]["strategy"] == "discard-all" and "- bash" in r["message"], (r, resets)
    assert "xxxx" not in prompt
    r, resets, prompt = overflow("summary")
    assert resets[0]["strategy"] == "summary" and "one file was made" in r["message"], (r, resets)
    assert "xxxx" not in prompt and "one file was made" in prompt


def test_plan_and_notes_outlive_the_context():
    fill = "head -c 1150 /dev/zero | tr '\\0' x; echo {{steps}}"
    plan = {"name": "plan", "arguments": {"items": [{"content": "find it", "status": "done"},
                                                    {"content": "fix it", "status": "pending"}]}}

    def note(name, text, scope):
        return {"name": "memory", "arguments": {"action": "write", "name": name, "text": text,
                                                "scope": scope}}
    for strategy, whole in ("discard-all", True), ("discard-tools", False), ("summary", False):
        d = Daemon([{"match": "Work so far", "steps": [{"text": "one file was made"}]},
                    {"match": "dropped to make room", "steps": [{"text": "{{user}}"}]},
                    {"match": "begin", "steps": [{"calls": [
                        plan, note("facts", "the key is 42", "session"),
                        note("house", "tabs not spaces", "workspace")]}, {"text": "kept"}]},
                    {"match": "go", "steps": [{"think": "t", "calls": [bash(fill)]}] * 4 + [
                        {"text": "kept"}]}], args=["--set", "engine.context=16000"])
        c = d.client()
        s = open_session(c, d, contextStrategy=strategy, profile="code",
                         tools=["bash", "plan", "memory"], limits={"reserve": 100})
        assert run(c, s, "begin")["stopReason"] == "end_turn"
        d.kill()
        d.start()  # the plan is read back from the log
        c = d.client()
        fill_up = 0
        while not [e for e in history(c, s) if e["type"] == "context.reset"] and fill_up < 8:
            r = run(c, s, "go")
            fill_up += 1
        user = [e["data"] for e in history(c, s) if e["type"] == "context.reset"][0]["note"]
        assert "- [done] find it\n- [pending] fix it" in user, user
        assert "- facts (13 bytes)" in user and "- house (15 bytes)" in user, user
        assert ("the key is 42" in user) == whole, user
        if whole:
            assert "- bash " in user and "[exit code: 0]" in user, user
        # another session of the folder sees the workspace's notes alone
        other = open_session(c, d, profile="code")
        listed = c.call("tool.call", sessionId=other, name="memory",
                        arguments={"action": "list", "scope": "workspace"})["text"]
        assert listed.strip() == "house (15 bytes)", listed
        assert c.call("tool.call", sessionId=other, name="memory",
                      arguments={"action": "list"})["text"] == "There are no notes."
        d.close()


if __name__ == "__main__":
    main(globals())
