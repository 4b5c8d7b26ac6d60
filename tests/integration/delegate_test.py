"""delegate: child sessions with their own context and budget; tools that the client declares."""
import os
import shutil
import time

from agent import ANEW, Daemon, Refused, bash, history, main, open_session, run

POLICIES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../policies")


def delegate(task, **more):
    return {"name": "delegate", "arguments": {"task": task, **more}}


def allowing(script, **more):
    """A daemon whose coding policy lets delegate run without asking."""
    d = Daemon(script, profile="general", **more)
    d.stop()
    shutil.copytree(POLICIES, d.root + "/policies")
    path = d.root + "/policies/coding.yaml"
    with open(path) as f:
        text = f.read()
    assert "delegate: ask" in text
    with open(path, "w") as f:
        f.write(text.replace("delegate: ask", "delegate: allow"))
    d.argv += ["--set", "agent.policies=" + d.root + "/policies"]
    d.start()
    return d


def refused(code, call, *args, **kw):
    try:
        call(*args, **kw)
    except Refused as e:
        assert e.code == code, (e.code, str(e))
        return str(e)
    raise AssertionError("was not refused")


def results(c, s):
    return [e["data"] for e in history(c, s) if e["data"].get("kind") == "result"]


def children(c, s):
    all_ = c.call("session.list")["sessions"]
    got = [c.call("session.get", sessionId=x["sessionId"]) for x in all_]
    return [g for g in got if g["config"].get("parent", {}).get("sessionId") == s]


def test_a_task_is_given_away():
    d = allowing([
        {"match": "count", "steps": [{"think": "child", "calls": [bash("wc -l < f; pwd > where")]},
                                     {"text": "there are {{seen:([0-9]+)\n}} lines"}]},
        {"match": "boss", "steps": [
            {"think": "give it away", "calls": [delegate("count the lines", tools=["bash"])]},
            {"text": "{{result}}"}]}])
    with open(d.workspace + "/f", "w") as f:
        f.write("a\nb\nc\n")
    c = d.client()
    s = open_session(c, d)
    r = run(c, s, "boss")
    assert "there are 3 lines\n[delegate: done; 2 steps, " in r["message"], r
    kids = children(c, s)
    assert len(kids) == 1 and kids[0]["config"]["tools"] == ["bash"], kids
    assert kids[0]["config"]["parent"]["depth"] == 1
    assert kids[0]["sessionId"] in r["message"]
    assert r["usage"]["delegatedTokens"] > 0, r
    prompt = c.call("prompt.render", sessionId=kids[0]["sessionId"])["prompt"]
    assert "boss" not in prompt and '"name": "python"' not in prompt  # its own context and tools
    assert os.path.exists(d.workspace + "/where")  # in the parent's workspace
    assert "give it away</think>" in c.call("prompt.render", sessionId=s)["prompt"]
    d.close()


def test_choosing_among_attempts():
    d = allowing([
        {"match": "Several answers", "steps": [{"text": "number 2 it is"}]},
        {"match": "verify", "steps": [{"calls": [delegate("try", n=3, select="verify")]},
                                      {"text": "{{result}}"}]},
        {"match": "vote", "steps": [{"calls": [delegate("try", n=5, select="vote")]},
                                    {"text": "{{result}}"}]},
        {"match": "first", "steps": [{"calls": [delegate("try", n=2)]}, {"text": "{{result}}"}]},
        {"match": "fewest", "steps": [{"calls": [delegate("try", n=2, select="fewest_steps")]},
                                      {"text": "{{result}}"}]},
        {"match": "try", "steps": [{"text": "same"}]}])
    c = d.client()
    s = open_session(c, d)
    assert "same\n[delegate: attempt 2 of 3 by verify; 4 steps" in run(c, s, "verify")["message"]
    assert "attempt 1 of 5 by vote; 5 steps" in run(c, s, "vote")["message"]
    assert " of 2 by first" in run(c, s, "first")["message"]
    assert " of 2 by fewest_steps" in run(c, s, "fewest")["message"]
    assert len(children(c, s)) == 4 + 5 + 2 + 2
    d.close()


def test_an_answer_must_fit_its_schema():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    d = allowing([
        {"match": "does not fit", "steps": [{"text": "{\"n\": {{turns}}}"}]},
        {"match": "boss", "steps": [{"calls": [delegate("num", schema=schema)]},
                                    {"text": "{{result}}"}]},
        {"match": "never", "steps": [{"calls": [delegate("stubborn", schema=schema, tools=[])]},
                                     {"text": "{{result}}"}]},
        {"match": "num", "steps": [{"text": "three"}]}])
    c = d.client()
    s = open_session(c, d)
    assert "{\"n\": 2}\n[delegate: done; 2 steps" in run(c, s, "boss")["message"]
    d.script([{"match": "never", "steps": [{"calls": [delegate("stubborn", schema=schema)]},
                                           {"text": "{{result}}"}]},
              {"steps": [{"text": "no"}]}])
    d.stop()
    d.start()
    c = d.client()
    r = run(c, s, "never")
    assert "[delegate: the answer does not fit the schema; 3 steps" in r["message"], r
    assert results(c, s)[-1]["isError"]
    d.close()


def test_depth_number_and_tools_are_capped():
    d = allowing([
        {"match": "level0", "steps": [{"calls": [delegate("level1")]}, {"text": "{{result}}"}]},
        {"match": "level1", "steps": [{"calls": [delegate("level2")]}, {"text": "{{result}}"}]},
        {"match": "level2", "steps": [{"calls": [delegate("level3")]}, {"text": "{{result}}"}]},
        {"match": "many", "steps": [{"calls": [delegate("x", n=16)] * 3}, {"text": "ok"}]},
        {"match": "foreign", "steps": [{"calls": [delegate("x", tools=["ask_user"]),
                                                  delegate("x", tools=["rm"])]}, {"text": "ok"}]},
        {"steps": [{"text": "leaf"}]}])
    c = d.client()
    s = open_session(c, d)
    r = run(c, s, "level0")
    assert "there is no tool 'delegate'" in r["message"], r
    run(c, s, "many")
    assert ["at most 32" in x["text"] for x in results(c, s)[-3:]] == [False, False, True]
    run(c, s, "foreign")
    assert "cannot have the tool 'ask_user'" in results(c, s)[-2]["text"]
    assert "cannot have the tool 'rm'" in results(c, s)[-1]["text"]
    # a child cannot ask anybody: what would need a person is denied
    s = open_session(c, d, approvalPolicy="always")
    d.close()


def test_budget_is_carved_from_the_parent():
    long = "word " * 400
    d = allowing([
        {"match": "boss", "steps": [{"calls": [delegate("talk")]}, {"text": "{{result}}"}]},
        {"match": "small", "steps": [{"calls": [delegate("talk", budget_tokens=50)]},
                                     {"text": "{{result}}"}]},
        {"steps": [{"text": long}]}])
    c = d.client()
    s = open_session(c, d)
    r = run(c, s, "small")
    assert "[delegate: max_tokens; 1 steps, 50 tokens" in r["message"], r
    r = run(c, s, "boss", limits={"maxTokens": 1500, "reserve": 300})
    assert "[delegate: max_tokens" in results(c, s)[-1]["text"], r
    assert r["usage"]["delegatedTokens"] + r["usage"]["completionTokens"] <= 1500, r
    d.close()


def test_interrupt_and_kill_reach_the_children():
    d = allowing([
        {"match": "boss", "steps": [{"calls": [delegate("sleep", n=2)]}, {"text": "{{result}}"}]},
        {"match": "sleep", "steps": [{"calls": [bash("sleep 60")]}, {"text": "woke"}]}])
    c = d.client()
    s = open_session(c, d)
    c.call("session.subscribe", sessionId="*")
    t = c.call("turn.start", sessionId=s, input="boss")["turnId"]
    for _ in range(3):  # the delegate call and a shell in each child
        c.event("tool.started")
    c.call("turn.interrupt", turnId=t, mode="hard")
    ends = [c.event("turn.completed") for _ in range(3)]
    assert [e["data"]["stopReason"] for e in ends] == ["cancelled"] * 3
    assert results(c, s)[0]["status"] == "cancelled"
    for e in history(c, s):
        assert e["type"] != "warning", e
    t = c.call("turn.start", sessionId=s, input="boss")["turnId"]
    for _ in range(3):
        c.event("tool.started")
    d.kill()
    d.start()
    c = d.client()
    assert results(c, s)[-1]["status"] == "unknown"
    assert c.call("turn.get", turnId=t)["error"]["kind"] == "interrupted_by_restart"
    for kid in children(c, s):
        assert kid["state"] == "idle", kid
    assert run(c, s, "", resume=t)["stopReason"] == "end_turn"
    # the daemon ends in peace while sub-agents are at work
    c.call("session.subscribe", sessionId="*")
    c.call("turn.start", sessionId=s, input="boss")
    for _ in range(3):
        c.event("tool.started")
    assert d.stop() == 0
    d.start()
    assert d.close() == 0


def test_policy_asks_before_it_starts():
    d = Daemon([{"match": "boss", "steps": [{"calls": [delegate("x")]}, {"text": "{{result}}"}]},
                {"steps": [{"text": "leaf"}]}], profile="general")
    c = d.client()
    s = open_session(c, d)
    c.call("session.subscribe", sessionId=s)
    c.call("turn.start", sessionId=s, input="boss")
    q = c.event("approval.requested")["data"]
    c.call("approval.respond", approvalId=q["approvalId"], optionId="allow_once")
    assert "leaf" in c.event("turn.completed")["data"]["message"]
    r = c.call("tool.call", sessionId=s, name="delegate", arguments={"task": "x"})
    assert "within a turn" in r["text"], r
    d.close()


# --- what a session is made of ------------------------------------------------------------------

WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "Tells the weather.", "parameters": {
        "type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}}}


def weather(**arguments):
    return {"name": "weather", "arguments": arguments}


def test_client_tools():
    d = Daemon([
        {"match": "two", "steps": [{"calls": [weather(town="Rome"), bash("echo b"),
                                              weather(town="Oslo"), weather(city="x")]},
                                   {"text": "{{seen:It is (\\w+)}}"}]},
        {"steps": [{"calls": [weather(town="Rome")]}, {"text": "{{result}}"}]}])
    c = d.client()
    s = open_session(c, d, profile="code", tools=[WEATHER])
    c.call("session.subscribe", sessionId=s)
    c.call("turn.start", sessionId=s, input="two")
    for town, text in ("Rome", "It is warm"), ("Oslo", "It is cold\x07"):
        e = c.event("tool.started", name="weather")["data"]
        assert e["client"] and town in e["arguments"], e
        d.client().call("tool.result", callId=e["callId"], text=text)
        refused(-32602, c.call, "tool.result", callId=e["callId"], text=text)
    assert c.event("turn.completed")["data"]["message"] == "cold"
    got = results(c, s)
    assert [x["status"] for x in sorted(got, key=lambda x: x["text"])] == [
        "ok", "ok", "ok", "invalid"], got
    assert any("argument 'town' is required" in x["text"] for x in got), got
    prompt = c.call("prompt.render", sessionId=s)["prompt"]
    assert prompt.index('"name": "finish"') < prompt.index('"name": "weather"')
    at = [prompt.rindex(x) for x in ("It is warm", "b\n[exit", "It is cold", "'town' is requ")]
    assert at == sorted(at)

    t = c.call("turn.start", sessionId=s, input="x")["turnId"]
    e = c.event("tool.started")["data"]
    refused(1006, c.call, "tool.result", callId=e["callId"], text="x" * (1 << 20) + "y")
    c.call("tool.result", callId=e["callId"], text="no such town", isError=True)
    assert c.event("turn.completed")["data"]["message"] == "no such town"
    t = c.call("turn.start", sessionId=s, input="x")["turnId"]
    c.event("tool.started")
    c.call("turn.interrupt", turnId=t, mode="hard")
    assert c.event("turn.completed")["data"]["stopReason"] == "cancelled"
    r = run(c, s, "x", limits={"maxSeconds": 1})
    assert r["limit"] == "time" and "did not come in time" in r["message"], r
    c.events.clear()
    t = c.call("turn.start", sessionId=s, input="x")["turnId"]
    c.event("tool.started")
    d.kill()
    d.start()
    c = d.client()
    assert results(c, s)[-1]["status"] == "unknown"
    d.close()


def test_client_tools_without_others():
    d = Daemon([{"match": "shell", "steps": [{"calls": [bash("echo no")]}, {"text": "{{result}}"}]},
                {"steps": [{"calls": [weather(town="Rome")]}, {"text": "{{result}}"}]}])
    c = d.client()
    s = c.call("session.create", profile="chat", tools=[WEATHER["function"]])["sessionId"]
    c.call("session.subscribe", sessionId=s)
    c.call("turn.start", sessionId=s, input="x", limits={"maxSteps": 1})
    assert c.event("turn.completed")["data"]["stopReason"] == "max_steps"
    c.call("session.update", sessionId=s, changes={"limits": {"maxSteps": 5}})
    c.call("turn.start", sessionId=s, input="x")
    e = c.event("tool.started")["data"]
    c.call("tool.result", callId=e["callId"], text="sun")
    assert c.event("turn.completed")["data"]["message"] == "sun"
    assert "there is no tool 'bash'" in run(c, s, "shell")["message"]
    # a profile without tools and a model that calls one all the same
    s = c.call("session.create", profile="chat", limits={"maxSteps": 3})["sessionId"]
    assert run(c, s, "shell")["stopReason"] in ("end_turn", "max_steps", "error")
    d.close()


def test_a_choice_of_tools():
    d = Daemon([{"match": "py", "steps": [{"calls": [{"name": "python", "arguments": {
                    "code": "1"}}]}, {"text": "{{result}}"}]},
                {"steps": [{"calls": [bash("echo hi")]}, {"text": "{{result}}"}]}])
    c = d.client()
    s = open_session(c, d, profile="general", tools=["bash", "finish"])
    prompt = c.call("prompt.render", sessionId=s)["prompt"]
    assert '"name": "bash"' in prompt and '"name": "finish"' in prompt
    assert '"name": "python"' not in prompt
    assert run(c, s, "x")["message"].startswith("hi")
    assert "the tools are bash, finish" in run(c, s, "py")["message"]
    c.call("session.update", sessionId=s, changes={"tools": ["python"]})
    assert "there is no tool 'bash'" in run(c, s, "x")["message"]
    assert run(c, s, "py")["message"] == ANEW + "1\n[ok]"  # another choice, another cell
    none = open_session(c, d, profile="general", tools=[])
    assert "function_calls" not in c.call("prompt.render", sessionId=none)["prompt"]
    d.kill()
    d.start()
    c = d.client()
    assert c.call("session.get", sessionId=s)["config"]["tools"] == ["python"]
    assert run(c, s, "py")["message"] == ANEW + "1\n[ok]"  # another choice, another cell
    d.close()


def test_nothing_is_ignored_in_silence():
    d = Daemon([{"steps": [{"text": "ok"}]}])
    c = d.client()
    create = c.call
    w = d.workspace

    def no(words, code=-32602, **params):
        said = refused(code, create, "session.create", cwd=w, **params)
        assert words in said, said
    no("does not connect", mcp=[{"url": "http://x"}])
    no("no tool 'nope'", tools=["nope"])
    no("no tool 'search'", profile="code", tools=["search"])
    no("neither", tools=[3])
    no("letters", tools=[{"name": "a b"}])
    no("is taken", tools=[{"name": "bash"}])
    no("is taken", tools=[{"name": "x"}, {"name": "x"}])
    no("schema", tools=[{"name": "x", "parameters": {"type": "array"}}])
    no("array", tools="bash")
    no("at most", tools=["bash"] * 200)
    no("limits has no 'maxStep'", limits={"maxStep": 1})
    for key in ("maxSteps", "maxTokens", "maxSeconds"):
        no(key + " is 0; it must be 1 to", limits={key: 0})
        no("unlimited", limits={key: -1})
    no("maxThinking is -1", limits={"maxThinking": -1})
    no("maxSteps is 1000001", limits={"maxSteps": 1000001})
    no("maxSteps", limits={"maxSteps": "3"})
    no("sampling has no 'top_p'", sampling={"top_p": 0.5})
    no("approvalPolicy", approvalPolicy="sometimes")
    no("contextStrategy", contextStrategy="magic")
    no("sandbox", sandbox="maybe")
    no("thinking", thinking="yes")
    no("metadata", metadata=[1])
    s = create("session.create", cwd=w, mcp=[], tools=None, somethingElse=1)["sessionId"]
    for changes in {"uid": 0}, {"parent": {}}, {"colour": 1}, {"mcp": ["x"]}, {"tools": ["no"]}:
        refused(-32602, c.call, "session.update", sessionId=s, changes=changes)
    refused(-32602, c.call, "turn.start", sessionId=s, input="x", limits={"steps": 2})
    before = c.call("session.get", sessionId=s)["config"]
    c.call("session.update", sessionId=s, changes={"limits": {"maxSteps": 3}})
    c.call("session.update", sessionId=s, changes={"limits": {"maxTokens": 300}})
    merged = c.call("session.get", sessionId=s)["config"]["limits"]
    assert merged == {"maxSteps": 3, "maxTokens": 300}, merged
    d.kill()
    d.start()
    after = d.client().call("session.get", sessionId=s)["config"]
    assert after["limits"] == merged and {**before, "limits": merged} == after, after
    d.close()


if __name__ == "__main__":
    main(globals())
