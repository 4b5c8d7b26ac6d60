"""tool.call and agentctl tool call --session: a session's kept shell, interpreter, pages."""
import json
import os
import subprocess
import time

from agent import BIN, Daemon, Refused, bash, main, open_session, run

SCRIPT = [{"steps": [{"calls": [bash("sleep 2")]}, {"text": "done"}]}]


def ctl(d, session, name, args):
    done = subprocess.run([BIN + "/agentctl", "tool", "call", name, json.dumps(args), "--json",
                           "--session", session, "--socket", d.path], capture_output=True)
    return json.loads(done.stdout) if done.stdout else {"error": done.stderr.decode(),
                                                        "rc": done.returncode}


def check_kept_state(sandbox):
    d = Daemon(SCRIPT, profile="general", sandbox=sandbox)
    c = d.client()
    s = open_session(c, d)
    first = ctl(d, s, "bash", {"command": "X=kept; mkdir sub; cd sub"})
    if first.get("status") == "unavailable":
        print("skipped in a cell: " + first["text"])
        d.close()
        return
    got = ctl(d, s, "bash", {"command": "echo $X; basename $PWD"})
    assert got["text"] == "kept\nsub\n[exit code: 0]", got
    assert got["sandbox"] == ("none" if sandbox == "off" else got["sandbox"]), got
    ctl(d, s, "python", {"code": "n = 41"})
    assert ctl(d, s, "python", {"code": "n + 1"})["text"] == "42\n[ok]"
    with open(d.workspace + "/a.md", "w") as f:
        f.write("# Heron\n\nA heron stood in the river.\n")
    assert "[0] heron" in ctl(d, s, "search", {"query": "heron"})["text"]
    assert "L4: A heron stood" in ctl(d, s, "open", {"id": 0})["text"]
    # Files made later are found; a long output opens as a page, in either cell.
    ctl(d, s, "bash", {"command": "echo 'a kingfisher' > ../b.txt; seq 1 9000"})
    assert "【0†a kingfisher;" in ctl(d, s, "search", {"query": "kingfisher"})["text"]
    spilled = ctl(d, s, "bash", {"command": "seq 1 9000"})["text"]
    spill = spilled.split("full output: ")[1].split(",")[0]
    page = ctl(d, s, "open", {"id": spill, "loc": 5000, "num_lines": 1})["text"]
    assert "L5000: 4999" in page, page
    assert "no spill:77" in ctl(d, s, "open", {"id": "spill:77"})["text"]
    # What was shown can be cited, what was not cannot.
    assert ctl(d, s, "finish", {"answer": "stood 【1†L4】"})["text"] == "Finished."
    assert ctl(d, s, "finish", {"answer": "stood 【1†L9】"})["isError"]
    # A job of one call is there in the next.
    job = ctl(d, s, "bash", {"command": "sleep 1; echo late", "background": True})
    assert job["status"] == "running", job
    for _ in range(100):
        out = ctl(d, s, "job", {"action": "wait", "id": 1, "wait_s": 5})
        if out["status"] != "running":
            break
    assert "late" in out["text"] and "exit code: 0" in out["text"], out
    assert ctl(d, s, "memory", {"action": "write", "name": "n", "text": "x"})["status"] == "ok"
    assert os.path.exists("%s/state/sessions/%s/notes/n.md" % (d.root, s))
    # Nothing of this is in the transcript.
    events = c.call("session.export", sessionId=s)["events"]
    assert [e["type"] for e in events] == ["session.created"], events
    d.close()


def test_kept_state_unconfined():
    check_kept_state("off")


def test_kept_state_in_cells():
    check_kept_state("required")


def test_the_log_has_what_code_called():
    d = Daemon([{"steps": [{"calls": [{"name": "python", "arguments": {
        "code": "tools.plan(items=[])\ntry: tools.bash('exit 3')\nexcept tools.Error: pass"}}]},
        {"text": "done"}]}], profile="general")
    c = d.client()
    s = open_session(c, d)
    run(c, s, "go")
    done = [e["data"] for e in c.call("session.export", sessionId=s)["events"]
            if e["type"] == "item.completed" and e["data"].get("kind") == "result"]
    assert done and "[called: plan ok " in json.dumps(done[0]), done
    called = done[0]["called"]
    assert [(x["tool"], x["status"]) for x in called] == [("plan", "ok"), ("bash", "failed")], done
    d.close()


def test_recall_and_cursors_after_a_restart():
    d = Daemon([{"steps": [
        {"think": "secret thought about zebras", "calls": [
            bash("echo the heron stood in the river; seq 1 3000"),
            {"name": "search", "arguments": {"query": "heron"}}]},
        {"text": "It was a heron."}]}], profile="general")
    with open(d.workspace + "/a.md", "w") as f:
        f.write("# Heron\n\nA heron stood in the river.\n")
    c = d.client()
    s = open_session(c, d)
    c.call("turn.run", sessionId=s, input="which bird?")
    got = ctl(d, s, "recall", {"query": "HERON river"})
    assert "result of bash: the heron stood in the river" in got["text"], got
    assert "call of bash" in got["text"] and got["text"].endswith(
        "recall with seq reads one whole]"), got
    seq = int(got["text"].split("[")[1].split("]")[0])
    assert "heron" in ctl(d, s, "recall", {"seq": seq})["text"]
    assert ctl(d, s, "recall", {"query": "zebras"})["text"].startswith("Nothing in this session")
    assert ctl(d, s, "recall", {"query": "bird", "limit": 1})["text"].count("\n") == 1
    assert ctl(d, s, "recall", {"query": ""})["status"] == "invalid"
    assert ctl(d, s, "recall", {"seq": 1})["isError"]
    assert ctl(d, s, "ask_user", {"questions": [{"id": "a", "question": "b"}]})["isError"]
    c.close()
    d.kill()
    d.start()
    # The page of before can still be cited; its number is not given out again.
    assert ctl(d, s, "finish", {"answer": "so 【0†L4】"})["text"] == "Finished."
    assert ctl(d, s, "search", {"query": "heron"})["text"].startswith("[1] heron")
    assert "no longer open" in ctl(d, s, "open", {"cursor": 0})["text"]
    d.close()


def test_recall_of_earlier_sessions():
    d = Daemon([{"match": "heron", "steps": [{"calls": [bash("echo heron nest at mile 7")]},
                                             {"text": "A heron at mile 7."}]},
                {"steps": [{"text": "ok"}]}], profile="general")
    other_folder = d.root + "/other"
    os.mkdir(other_folder)
    c = d.client()
    old = open_session(c, d)
    run(c, old, "where is the heron?")
    foreign = c.call("session.create", cwd=other_folder)["sessionId"]
    run(c, foreign, "a heron elsewhere")
    s = open_session(c, d)
    run(c, s, "hello")
    got = ctl(d, s, "recall", {"query": "heron mile"})["text"]
    assert "session %s, answer: A heron at mile 7." % old in got and foreign not in got, got
    assert got.endswith("[3 of 3; recall with seq reads one whole]"), got
    number = int(got.split("[")[1].split("]")[0])
    whole = ctl(d, s, "recall", {"seq": number})["text"]
    assert whole.startswith("[%d] call of bash\n" % number) and "echo heron nest" in whole, whole
    # its own come first, and nothing of another folder can be read by its number
    run(c, s, "my heron")
    assert "[5] user" not in got
    assert ctl(d, s, "recall", {"query": "heron", "limit": 1})["text"].count("session ") == 0
    numbers = [n for n in range(1000000001, 1000000060)
               if not ctl_quiet(c, s, n)["isError"]]
    texts = [ctl_quiet(c, s, n)["text"] for n in numbers]
    assert texts and not any("elsewhere" in t for t in texts), texts
    assert any("elsewhere" in ctl_quiet(c, foreign, n)["text"]
               for n in range(1000000001, 1000000060))
    c.close()
    d.argv += ["--set", "agent.recall=session"]
    d.stop()
    d.start()
    c = d.client()
    assert ctl_quiet(c, s, number)["isError"]
    assert old not in ctl(d, s, "recall", {"query": "heron"})["text"]
    d.close()


def ctl_quiet(c, s, number):
    return c.call("tool.call", sessionId=s, name="recall", arguments={"seq": number})


def test_refusals():
    d = Daemon(SCRIPT, profile="code")
    c = d.client()
    s = open_session(c, d)
    assert c.call("tool.call", sessionId=s, name="nope", arguments={})["status"] == "invalid"
    assert c.call("tool.call", sessionId=s, name="bash", arguments="{")["status"] == "invalid"
    assert "rc" in ctl(d, "00000000-0000-0000-0000-000000000000", "bash", {"command": "x"})
    turn = c.call("turn.start", sessionId=s, input="go")["turnId"]
    try:
        c.call("tool.call", sessionId=s, name="bash", arguments={"command": "true"})
        assert False, "a call beside a running turn"
    except Refused as e:
        assert e.data["kind"] == "turn_active", e.data
    c.call("turn.wait", turnId=turn)
    assert c.call("tool.call", sessionId=s, name="bash",
                  arguments={"command": "true"})["status"] == "ok"
    d.close()


def test_client_leaves_while_a_call_runs():
    d = Daemon(SCRIPT, profile="code")
    c = d.client()
    s = open_session(c, d)
    gone = d.client()
    gone.send("tool.call", sessionId=s, name="bash", arguments={"command": "sleep 1; touch f"})
    gone.close()
    end = time.monotonic() + 30
    while not os.path.exists(d.workspace + "/f") and time.monotonic() < end:
        time.sleep(0.05)
    assert os.path.exists(d.workspace + "/f")
    assert c.call("tool.call", sessionId=s, name="bash",
                  arguments={"command": "echo ok"})["text"] == "ok\n[exit code: 0]"
    c.call("session.close", sessionId=s)
    d.close()


def test_session_closed_while_a_call_runs():
    d = Daemon(SCRIPT, profile="code")
    c = d.client()
    s = open_session(c, d)
    n = c.send("tool.call", sessionId=s, name="bash", arguments={"command": "sleep 50"})
    time.sleep(0.5)
    other = d.client()
    other.call("session.delete", sessionId=s)
    assert c.reply(n)["status"] in ("cancelled", "unknown"), "the waiting client is answered"
    d.close()


if __name__ == "__main__":
    main(globals())
