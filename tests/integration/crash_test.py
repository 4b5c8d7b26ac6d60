"""
Kill-anywhere: SIGKILL at every named point of a turn with a side effect, restart, resume.
Prints a table; CRASH_FULL=1 adds the small model, power cuts and kills at random times.

For each row: no committed event is lost or changed, the side effect happened at most once,
every call has a result, and the next token is that of an undisturbed run:

  script  the engine says a hash of every prompt's tokens. What an undisturbed run samples
          when its tools say what these said is computed here, from the first prompt on, and
          the log must hold these token ids, of this turn and of one more after it.
  native  the shipped model, greedy. Where the tools said the same, all token ids are those of
          an undisturbed run; else the resumed step is that of a program which computes the
          prompt from nothing (agentctl model generate).
"""
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

from agent import ANEW, BIN, Daemon, Refused, bash, history, open_session

FULL = os.environ.get("CRASH_FULL", "") not in ("", "0")
MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/agentd-small.gguf")
COMMAND = "echo side >> effect; echo one; sleep 0.1; echo two"
TURNS = [{"match": "work", "steps": [
    {"think": "do it {{hash}}", "calls": [bash(COMMAND)]},
    {"think": "seen {{hash}}", "calls": [bash("cat effect")]},
    {"think": "end {{hash}}", "text": "done {{hash}}"}]},
    {"steps": [{"think": "more {{hash}}", "text": "said {{hash}}"}]}]

# The second result is too long for the context: dropping the first call group is not enough.
OVERFLOW = [{"match": "dropped to make room", "steps": [{"text": "done after 2 steps {{hash}}"}]},
            {"match": "work", "steps": [TURNS[0]["steps"][0],
                                        {"calls": [bash("head -c 1150 /dev/zero | tr '\\0' x")]}]},
            TURNS[1]]

# Points where the daemon of the first life dies; the others need a second life (or more).
FIRST = ["turn-committed", "step-committed", "during-sampling", "after-sample", "after-intent",
         "before-spawn", "during-output", "after-exit", "result-committed", "before-end",
         "during-reset", "during-snapshot"]
SECOND = ["during-replay", "during-recovery"]
LITERALS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
            "｜DSML｜", "<think>", "</think>"]  # the scripted engine's ids from 256 on


def points():
    out = subprocess.run([os.path.join(BIN, "agentd"), "--crash-points"], capture_output=True,
                         text=True, check=True)
    return out.stdout.split()


# --- what an undisturbed run does ----------------------------------------------------------

def ids_of(text):
    """The scripted engine's tokens of a text whose literals are the template's or the model's."""
    ids = []
    for part in re.split("(" + "|".join(map(re.escape, LITERALS)) + ")", text):
        ids += [256 + LITERALS.index(part)] if part in LITERALS else list(part.encode())
    return ids


def hash_of(ids):
    h = 0
    for i in ids:
        h = (h ^ i) * 0x100000001b3 % 2**64
    return "%016x" % h


def message(step, prompt):
    """What the script says to this prompt, as text."""
    say = lambda s: s.replace("{{hash}}", hash_of(ids_of(prompt)))
    out = say(step["think"]) + "</think>" + say(step.get("text", ""))
    if "calls" in step:
        out += "\n\n<｜DSML｜function_calls>\n"
        for call in step["calls"]:
            out += '<｜DSML｜invoke name="%s">\n' % call["name"]
            for k, v in call["arguments"].items():
                out += '<｜DSML｜parameter name="%s" string="true">%s</｜DSML｜parameter>\n' % (k, v)
            out += "</｜DSML｜invoke>\n"
        return out + "</｜DSML｜function_calls>"  # nothing counts behind the block
    return out + "<｜end▁of▁sentence｜>"


def predict(prompt, results):
    """Token ids of each message of an undisturbed run whose tools say `results`, from its first
    prompt on; and those of the answer to one more user message."""
    steps, out, kept = TURNS[0]["steps"], [], prompt[:-len("<think>")] + "</think>"
    for n, result in enumerate(results + [None]):
        said = message(steps[min(n, 2)], prompt)
        out.append(ids_of(said))
        whole = said if said.endswith(LITERALS[1]) else said + LITERALS[1]
        told = "" if result is None else \
            "\n\n<function_results>\n<result>%s</result>\n</function_results>\n\n" % result
        prompt += whole + told + ("" if result is None else "<think>")
        kept += whole.split("</think>", 1)[1] + told + ("" if result is None else "</think>")
    out.append(ids_of(message(TURNS[1]["steps"][0],
                              kept + "<｜User｜>and then?<｜Assistant｜><think>")))
    return out


def sampled(events):
    return [e["tokens"] for e in events if e["type"] == "usage" and "tokens" in e]


def results_of(events):
    return [e["data"] for e in events if e["data"].get("kind") == "result"]


# --- lives -----------------------------------------------------------------------------------

def begin(d, c, **more):
    s = open_session(c, d, **more)
    c.call("session.subscribe", sessionId=s, after=0)
    return s


def watch(d, c, request, s, until):
    """What a client sees committed until the daemon dies; and whether the turn ended first."""
    seen, ended = [], False
    try:
        c.call("turn.start", sessionId=s, input=request)
        while not ended or until:
            m = c.read()
            if "method" in m and "seq" in m["params"]:
                seen.append(m["params"])
                ended = ended or m["params"]["type"] in ("turn.completed", "turn.failed")
    except (EOFError, ConnectionError):
        ended = False
    seen += [e for e in c.events if "seq" in e and e not in seen]
    c.close()
    return sorted(seen, key=lambda e: e["seq"]), ended


def resume(d, s):
    """Until the turn has its answer, and one more turn; returns every event."""
    c = d.client()
    last = [e for e in history(c, s) if e["type"].startswith("turn.")][-1]
    prompt = c.call("prompt.render", sessionId=s)["prompt"]
    if last["type"] == "turn.failed":
        r = c.call("turn.run", sessionId=s, resume=last["turnId"])
        assert r["stopReason"] == "end_turn", r
    c.call("turn.run", sessionId=s, input="and then?")
    events = history(c, s)
    c.close()
    return events, prompt, last["type"] == "turn.failed"


def check_log(events, seen):
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1)), "holes"
    for e in seen:  # everything that was shown is still there, byte for byte
        kept = events[e["seq"] - 1]
        assert kept["type"] == e["type"] and kept["data"] == e["data"], (e, kept)
    calls = [e["data"]["callId"] for e in events if e["data"].get("kind") == "call"]
    told = [r["callId"] for r in results_of(events)]
    assert sorted(calls) == sorted(told), "unanswered calls"


def effects(d):
    try:
        with open(os.path.join(d.workspace, "effect")) as f:
            return len(f.readlines())
    except FileNotFoundError:
        return 0


def row(point, life, resumed, effect, tokens, calls):
    return "%-18s %-8s resumed %-3s  effect %s  next token %-22s calls %s" % (
        point, life, "yes" if resumed else "no", effect, tokens, " ".join(calls))


# --- rows of the scripted engine ---------------------------------------------------------------

class Script:
    """The first prompt, which all rows share, and what an undisturbed run made of it."""

    def __init__(self):
        d = Daemon(TURNS)
        c = d.client()
        s = open_session(c, d)
        assert c.call("turn.run", sessionId=s, input="work")["stopReason"] == "end_turn"
        whole = c.call("prompt.render", sessionId=s)["prompt"]
        tag = "<｜Assistant｜><think>"
        self.first = whole[:whole.index(tag)] + tag
        c.call("turn.run", sessionId=s, input="and then?")
        events = history(c, s)
        self.results = [r["text"] for r in results_of(events)]
        assert sampled(events) == predict(self.first, self.results), "the prediction is wrong"
        d.close()

    def overflow(self):
        """What the turn that overflows its context samples when nobody disturbs it."""
        d = Daemon(OVERFLOW)
        d.stop()
        d.script(OVERFLOW, n_ctx=4200)
        d.start()
        c = d.client()
        s = begin(d, c)
        assert c.call("turn.run", sessionId=s, input="work")["stopReason"] == "end_turn"
        c.call("turn.run", sessionId=s, input="and then?")
        events = history(c, s)
        assert [e for e in events if e["type"] == "context.reset"], "nothing overflowed"
        d.close()
        return sampled(events)

    def finish(self, d, s, seen, point, life, reset=False):
        events, _, resumed = resume(d, s)
        check_log(events, seen)
        told = results_of(events)
        ran = effects(d)
        assert ran <= 1, "side effect happened %d times" % ran
        for r, undisturbed in zip(told, self.results):
            if r["status"] == "ok" and ran == 1 and not reset:
                assert r["text"] in (undisturbed, ANEW + undisturbed), (r["text"], undisturbed)
        want = self.overflow() if reset else predict(self.first, [r["text"] for r in told])
        have = sampled(events)
        # a step that was cut off by the kill was never seen by the model: it is not there
        assert have == want, (have, want)
        d.close()
        return row(point, life, resumed, ran, "equal, behind a reset" if reset else "equal",
                   [r["status"] for r in told])


def script_row(ref, point, n, env=None, args=(), root=None):
    d = Daemon(TURNS, args=args, root=root)
    d.stop()
    if point == "during-reset":
        d.script(OVERFLOW, n_ctx=4200)
    d.start(env={"AGENTD_CRASH_AT": "%s:%d" % (point, n), **(env or {})})
    c = d.client()
    s = begin(d, c)
    seen, ended = watch(d, c, "work", s, point == "during-snapshot")
    if ended:
        d.close()
        return None  # this pass of the point does not occur
    assert d.wait_dead() == -9
    d.start()
    return ref.finish(d, s, seen, point, "pass %d" % n, point == "during-reset")


def second_row(ref, point):
    """Dies after an intent, dies again while coming back, then comes back."""
    d = Daemon(TURNS, env={})
    d.stop()
    d.start(env={"AGENTD_CRASH_AT": "after-intent:1"})
    c = d.client()
    s = begin(d, c)
    seen, _ = watch(d, c, "work", s, False)
    d.wait_dead()
    d.start(env={"AGENTD_CRASH_AT": point}, wait=False)
    assert d.wait_dead() == -9
    d.start()
    return ref.finish(d, s, seen, point, "2nd life")


def migration_row(ref):
    import sqlite3
    d = Daemon(TURNS)
    d.stop()
    d.start(env={"AGENTD_CRASH_AT": "result-committed:1"})
    c = d.client()
    s = begin(d, c)
    seen, _ = watch(d, c, "work", s, False)
    d.wait_dead()
    db = sqlite3.connect(os.path.join(d.root, "state/agentd.db"))
    db.executescript("DROP TABLE approval; PRAGMA user_version = 1;")  # as an older agentd left it
    db.close()
    d.start(env={"AGENTD_CRASH_AT": "during-migration"}, wait=False)
    assert d.wait_dead() == -9
    d.start()
    return ref.finish(d, s, seen, "during-migration", "2nd life")


def approval_row(ref):
    """Killed while a question waits: it still waits, and its answer goes on with the turn."""
    d = Daemon(TURNS)
    c = d.client()
    s = begin(d, c, approvalPolicy="always")
    c.call("turn.start", sessionId=s, input="work")
    asked = c.event("approval.requested")
    c.close()
    for _ in range(2):
        d.kill()
        d.start()
    c = d.client()
    assert [a["approvalId"] for a in c.call("approval.list")["approvals"]] == \
        [asked["data"]["approvalId"]]
    assert effects(d) == 0 and c.call("session.get", sessionId=s)["state"] == "running"
    c.call("session.subscribe", sessionId=s, after=asked["seq"])
    c.call("approval.respond", approvalId=asked["data"]["approvalId"], optionId="allow_once")
    again = c.event("approval.requested")["data"]
    c.call("approval.respond", approvalId=again["approvalId"], optionId="allow_session")
    c.event("turn.completed")
    c.close()
    return ref.finish(d, s, [asked], "approval-pending", "3rd life")


def random_row(ref, n):
    d = Daemon(TURNS)
    c = d.client()
    s = begin(d, c)
    c.call("turn.start", sessionId=s, input="work")
    time.sleep(random.Random(n).random() * 0.4)
    d.kill()
    d.start()
    return ref.finish(d, s, [e for e in c.events if "seq" in e], "any time", "seed %d" % n)


# --- rows of the shipped model -------------------------------------------------------------------

REQUEST = "How many lines in notes.txt contain river?"
GREEDY = {"sampling": {"temperature": 0}}


class Native:
    def __init__(self):
        d = self.daemon()
        c = d.client()
        s = open_session(c, d, **GREEDY)
        c.call("turn.run", sessionId=s, input=REQUEST)
        c.call("turn.run", sessionId=s, input="and then?")
        events = history(c, s)
        self.results = [r["text"] for r in results_of(events)]
        self.tokens = sampled(events)
        d.close()

    @staticmethod
    def daemon():
        d = Daemon(engine="native:" + MODEL, args=["--set", "engine.constrain=false"])
        with open(os.path.join(d.workspace, "notes.txt"), "w") as f:
            f.write("the river rose\nbread and cheese\na heron in the river\n")
        return d

    @staticmethod
    def from_nothing(prompt, n):
        """Greedy tokens behind a prompt, by a program without a daemon."""
        with tempfile.NamedTemporaryFile("w") as f:
            f.write(prompt)
            f.flush()
            out = subprocess.run([os.path.join(BIN, "agentctl"), "model", "generate", "--special",
                                  "--past-eos", "--json", "-n", str(n), "-f", f.name, MODEL],
                                 capture_output=True, text=True, check=True).stdout
        return json.loads(out[out.index('{"'):] if not out.startswith("{") else out)

    def row(self, point, n):
        d = self.daemon()
        d.stop()
        d.start(env={"AGENTD_CRASH_AT": "%s:%d" % (point, n)})
        c = d.client()
        s = begin(d, c, **GREEDY)
        seen, ended = watch(d, c, REQUEST, s, point == "during-snapshot")
        if ended:
            d.close()
            return None
        assert d.wait_dead() == -9
        d.start()
        events, prompt, resumed = resume(d, s)
        check_log(events, seen)
        told = results_of(events)
        same = [r["text"] for r in told] == self.results
        if same:
            have = sampled(events)
            assert have[-len(self.tokens):] == self.tokens, "not the undisturbed run's tokens"
        else:
            failed = [e["seq"] for e in events if e["type"] == "turn.failed"][0]
            have = sampled([e for e in events if e["seq"] > failed])[0]
            want = self.from_nothing(prompt, len(have))["tokens"]
            assert have == want[:len(have)], (have, want)
        d.close()
        return row(point, "model %d" % n, resumed, "-", "equal" if same else "equal to a cold one",
                   [r["status"] for r in told])


def jobs():
    ref = Script()
    for p in FIRST:
        for n in (1, 2):
            if (p, n) != ("during-snapshot", 2):
                yield p, lambda p=p, n=n: script_row(ref, p, n)
    for p in SECOND:
        yield p, lambda p=p: second_row(ref, p)
    yield "during-migration", lambda: migration_row(ref)
    yield "approval-pending", lambda: approval_row(ref)
    if not FULL:
        return
    for n in range(12):
        yield "any time", lambda n=n: random_row(ref, n)
    native = Native()
    for p in FIRST:
        if p != "during-reset":
            yield p, lambda p=p: native.row(p, 1)


def main():
    bad = 0
    missing = set(points()) - set(FIRST) - set(SECOND) - {"during-migration"}
    if missing:
        print("points without a row:", missing)
        bad += 1
    for point, job in jobs():
        if len(sys.argv) > 1 and point not in sys.argv[1:]:
            continue
        try:
            line = job()
            if line:
                print("ok   " + line, flush=True)
        except (AssertionError, Refused, OSError, RuntimeError, LookupError, ValueError) as e:
            bad += 1
            print("FAIL %-18s %.1500r" % (point, e), flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
