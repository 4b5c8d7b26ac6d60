"""ask_user: a durable question; the turn is parked, also over a kill -9, and goes on."""
import os
import subprocess
import time

from agent import BIN, Daemon, Refused, bash, history, main, open_session, run

COLOUR = {"id": "colour", "question": "Which colour?", "options": ["red", "blue"]}
TOYS = {"id": "toys", "question": "Which toys?", "multi": True}


def ask(*questions):
    return {"name": "ask_user", "arguments": {"questions": list(questions)}}


SCRIPT = [{"match": "go", "steps": [
    {"think": "I must know.", "calls": [bash("echo before"), ask(COLOUR, TOYS),
                                        bash("echo after >> effect")]},
    {"think": "so", "text": "{{seen:colour: ([a-z]+)}}"}]},
    {"match": "one", "steps": [{"calls": [ask(COLOUR)]}, {"text": "{{result}}"}]},
    {"match": "bad", "steps": [{"calls": [ask(COLOUR, COLOUR)]}, {"text": "{{result}}"}]}]


def begin(d, text, **more):
    c = d.client()
    s = open_session(c, d, profile="code", **more)
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input=text)["turnId"]
    return c, s, t, c.event("approval.requested")["data"]


def refused(code, call, *args, **kw):
    try:
        call(*args, **kw)
    except Refused as e:
        assert e.code == code, (e.code, str(e))
        return e
    raise AssertionError("was not refused")


def results(c, s):
    return [e["data"] for e in history(c, s) if e["data"].get("kind") == "result"]


def test_answers_become_the_result():
    d = Daemon(SCRIPT)
    c, s, t, q = begin(d, "go")
    assert q["kind"] == "other" and q["questions"] == [COLOUR, TOYS], q
    assert [o["optionId"] for o in q["options"]] == ["answer", "deny", "deny_and_stop"]
    assert c.call("session.get", sessionId=s)["turnState"] == "ask"
    a = q["approvalId"]
    respond = d.client().call
    refused(-32602, respond, "approval.respond", approvalId=a, optionId="answer")
    refused(-32602, respond, "approval.respond", approvalId=a, optionId="maybe")
    e = refused(-32602, respond, "approval.respond", approvalId=a, optionId="answer",
                answers={"colour": "red"})
    assert "toys" in str(e)
    refused(-32602, respond, "approval.respond", approvalId=a, optionId="answer",
            answers={"colour": ["red"], "toys": "x"})  # takes one answer only
    e = refused(-32602, respond, "approval.respond", approvalId=a, optionId="answer",
                answers={"colour": "red", "toys": [], "size": "big"})
    assert "size" in str(e)
    refused(-32602, respond, "approval.respond", approvalId=a, optionId="answer",
            answers={"colour": "x" * 70000, "toys": []})
    assert not os.path.exists(d.workspace + "/effect")
    assert respond("approval.respond", approvalId=a, optionId="answer",
                   answers={"colour": "blue", "toys": ["ball", "kite\x1b[31m"]})
    resolved = c.event("approval.resolved")["data"]
    assert resolved["outcome"] == "answer" and resolved["by"]["pid"] == os.getpid()
    assert resolved["answers"]["colour"] == "blue"
    assert c.event("turn.completed")["data"]["message"] == "blue"
    refused(1004, c.call, "approval.respond", approvalId=a, optionId="deny")
    got = results(c, s)
    assert [r["status"] for r in got] == ["ok", "ok", "ok"], got
    text = got[1]["text"]
    assert text.startswith("colour: blue\ntoys: ball, kite") and "\x1b" not in text, got
    assert text.endswith("[31m\n[answered by the user]"), got
    assert "I must know.</think>" in c.call("prompt.render", sessionId=s)["prompt"]
    d.close()


def test_waits_over_kill_and_restart():
    d = Daemon(SCRIPT)
    c, s, t, q = begin(d, "go")
    seen = history(c, s)
    for end in (d.kill, d.stop, d.kill):
        end()
        d.start()
        c = d.client()
        assert history(c, s) == seen  # nothing was closed, nothing added
        assert c.call("session.get", sessionId=s)["turnState"] == "ask"
        assert c.call("turn.get", turnId=t)["state"] == "ask"
        assert [a["approvalId"] for a in c.call("approval.list")["approvals"]] == [
            q["approvalId"]]
    refused(1002, c.call, "turn.start", sessionId=s, input="another")
    waiting = c.send("turn.wait", turnId=t)
    d.client().call("approval.respond", approvalId=q["approvalId"], optionId="answer",
                    answers={"colour": "red", "toys": []})
    r = c.reply(waiting)
    assert r["stopReason"] == "end_turn" and r["message"] == "red", r
    assert r["usage"]["steps"] == 2 and r["usage"]["toolCalls"] == 2, r
    with open(d.workspace + "/effect") as f:
        assert f.read() == "after\n"
    assert "I must know.</think>" in c.call("prompt.render", sessionId=s)["prompt"]
    d.kill()
    d.start()
    assert not d.client().call("approval.list")["approvals"]
    d.close()


def test_limits_hold_after_a_restart():
    d = Daemon([{"steps": [{"calls": [ask(COLOUR)]}, {"calls": [bash("true")]}]}])
    c = d.client()
    s = open_session(c, d, profile="code")
    c.call("session.subscribe", sessionId=s)
    t = c.call("turn.start", sessionId=s, input="x", limits={"maxSteps": 2})["turnId"]
    q = c.event("approval.requested")["data"]
    d.kill()
    d.start()
    c = d.client()
    c.call("approval.respond", approvalId=q["approvalId"], optionId="allow_once", note="green")
    assert c.call("turn.wait", turnId=t)["stopReason"] == "max_steps"
    assert "colour: green" in results(c, s)[0]["text"]
    d.close()


def test_declined_interrupted_and_given_up():
    d = Daemon(SCRIPT)
    c, s, t, q = begin(d, "one")
    c.call("approval.respond", approvalId=q["approvalId"], optionId="deny")
    assert "declined" in c.event("turn.completed")["data"]["message"]
    c, s, t, q = begin(d, "one")
    c.call("approval.respond", approvalId=q["approvalId"], optionId="deny_and_stop")
    assert c.event("turn.completed")["data"]["stopReason"] == "cancelled"
    c, s, t, q = begin(d, "one")
    c.call("turn.interrupt", turnId=t)
    assert c.event("approval.resolved")["data"]["outcome"] == "cancelled"
    assert c.event("turn.completed")["data"]["stopReason"] == "cancelled"
    assert results(c, s)[0]["status"] == "cancelled"
    # a turn tied to its client's connection does not outlive it
    other = d.client()
    s = open_session(other, d, profile="code")
    other.call("session.subscribe", sessionId=s)
    other.call("turn.start", sessionId=s, input="one", onDisconnect="cancel")
    other.event("approval.requested")
    d.kill()
    d.start()
    c = d.client()
    last = history(c, s)[-1]
    assert last["type"] == "turn.failed" and last["data"]["resumable"], last
    assert not c.call("approval.list")["approvals"]
    d.close()


def test_nobody_answers():
    d = Daemon(SCRIPT, args=["--set", "agent.approval=1s"])
    c, s, t, q = begin(d, "one")
    assert c.event("approval.resolved")["data"]["outcome"] == "expired"
    assert "did not answer in time" in c.event("turn.completed")["data"]["message"]
    # an approval that expires is a denial; the deadline also runs on over a restart
    s = open_session(c, d, profile="code", approvalPolicy="always")
    d.script([{"steps": [{"calls": [bash("touch made")]}, {"text": "{{result}}"}]}])
    c.close()
    d.stop()
    d.start()
    c = d.client()
    assert "nobody answered in time" in run(c, s, "x")["message"]
    assert not os.path.exists(d.workspace + "/made")
    d.close()
    d = Daemon(SCRIPT, args=["--set", "agent.approval=2s"])
    c, s, t, q = begin(d, "one")
    d.kill()
    time.sleep(2.1)
    d.start()
    assert "in time" in d.client().call("turn.wait", turnId=t)["message"]
    d.close()


def test_the_wait_costs_no_time():
    d = Daemon(SCRIPT)
    c = d.client()
    s = open_session(c, d, profile="code")
    c.call("session.subscribe", sessionId=s)
    c.call("turn.start", sessionId=s, input="one", limits={"maxSeconds": 1})
    q = c.event("approval.requested")["data"]
    time.sleep(1.3)
    c.call("approval.respond", approvalId=q["approvalId"], optionId="answer",
           answers={"colour": "red"})
    end = c.event("turn.completed")["data"]
    assert end["stopReason"] == "end_turn" and "limit" not in end, end
    d.close()


def test_unattended():
    d = Daemon(SCRIPT, args=["--set", "agent.unattended=deny"])
    c = d.client()
    s = open_session(c, d, profile="code")
    assert "nobody is there to ask" in run(c, s, "one")["message"]
    d.close()
    d = Daemon(SCRIPT, args=["--set", "agent.unattended=fail"])
    c = d.client()
    s = open_session(c, d, profile="code")
    r = run(c, s, "one")
    assert r["stopReason"] == "refusal", r
    d.close()


def test_odd_questions_are_told_to_the_model():
    d = Daemon(SCRIPT)
    c = d.client()
    s = open_session(c, d, profile="code")
    r = run(c, s, "bad")
    assert "ids that differ" in r["message"] and r["stopReason"] == "end_turn", r
    # a profile without the tool
    s = open_session(c, d, profile="bench-min")
    assert "there is no tool 'ask_user'" in run(c, s, "one")["message"]
    d.close()


def ctl(d, *args):
    return subprocess.run([BIN + "/agentctl", *args, "--socket", d.path], capture_output=True,
                          text=True, stdin=subprocess.DEVNULL)


def test_answered_from_the_shell():
    d = Daemon(SCRIPT)
    c, s, t, q = begin(d, "go")
    listed = ctl(d, "approve").stdout
    assert q["approvalId"] in listed and "question colour: Which colour?  (red | blue)" in listed
    bad = ctl(d, "approve", q["approvalId"], "red")
    assert bad.returncode == 1 and "answers" in bad.stderr, bad
    done = ctl(d, "approve", q["approvalId"], "colour=red", "toys=kite", "toys=ball=big")
    assert done.returncode == 0 and done.stdout == "answer\n", done
    assert c.event("turn.completed")["data"]["message"] == "red"
    assert "toys: kite, ball=big" in results(c, s)[1]["text"]
    c, s, t, q = begin(d, "one")
    assert ctl(d, "approve", q["approvalId"], "mauve").returncode == 0
    assert "colour: mauve" in c.event("turn.completed")["data"]["message"]
    # where nobody can be asked the questions are declined, and the turn goes on
    r = ctl(d, "run", "-p", "code", "-w", d.workspace, "one")
    assert r.returncode == 0 and "declined" in r.stdout and "Which colour?" in r.stderr, r
    d.close()


if __name__ == "__main__":
    main(globals())
