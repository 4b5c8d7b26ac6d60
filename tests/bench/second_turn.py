#!/usr/bin/env python3
"""
Time to the first token of a second turn behind a long tool turn: with the idle re-prefill,
without it, and with a cold cache.

usage: BIN=build/release/bin tests/bench/second_turn.py MODEL [TOKENS ...]

The first turn's calls and their results are real; a scripted engine writes the calls, so that
the turn can have any length. MODEL then reads all of it, answers, and gets a second message.
Prints a row each: tokens of the prompt, of these from the cache, milliseconds (best of 3).
"""
import os
import shutil
import struct
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../integration"))
from agent import Daemon, bash, history, run  # noqa: E402

LINES = 24
THOUGHT = "I have read these lines and look at the next ones, since none of them is the last. " * 2
POSITIONS = 16384
CONTEXT = ["--set", "engine.context=%d" % POSITIONS, "--set", "log.level=warn", "--set",
           "engine.constrain=false"]


def longer(model):
    """A copy of the file that says POSITIONS."""
    with open(model, "rb") as f:
        data = bytearray(f.read())
    at = data.index(b".context_length") + len(b".context_length")
    assert struct.unpack_from("<I", data, at)[0] == 4, "context_length is not a u32"
    struct.pack_into("<I", data, at + 4, POSITIONS)
    path = os.path.join(tempfile.mkdtemp(prefix="agentd-model-"), "model.gguf")
    with open(path, "wb") as f:
        f.write(data)
    return path


def rest(c):
    calm, last = 0, None
    while calm < 10:
        st = c.call("engine.status")
        now = (st["steps"], st["promptTokens"], st["waiting"])
        calm = calm + 1 if now == last and not st["waiting"] else 0
        last = now
        time.sleep(0.05)


def ready(d):
    c = d.client(timeout=600)
    while c.call("engine.status")["state"] == "loading":
        time.sleep(0.02)
    return c


def tool_turn(model, steps, idle):
    """A daemon with this model, about to go on with a turn of so many calls."""
    calls = [{"think": THOUGHT, "calls": [bash("sed -n %d,%dp notes.txt" % (
        1 + n * LINES, (n + 1) * LINES))]} for n in range(steps)]
    d = Daemon([{"steps": calls + [{"text": "x", "fault": "dead"}]}])
    with open(os.path.join(d.workspace, "notes.txt"), "w") as f:
        f.writelines("line %d: the river rose by %d cm\n" % (i, i * 7 % 31)
                     for i in range(LINES * steps))
    c = d.client()
    s = c.call("session.create", cwd=d.workspace, profile="demo", sampling={"temperature": 0},
               limits={"maxSteps": steps + 4, "maxTokens": 1 << 20})["sessionId"]
    turn = c.call("turn.start", sessionId=s, input="Read notes.txt to its end.")["turnId"]
    assert c.call("turn.wait", turnId=turn)["stopReason"] == "error"
    d.stop()
    d.argv[d.argv.index("--engine") + 1] = "native:" + model
    d.argv += [*CONTEXT, "--set", "engine.idle_prefill=%s" % ("true" if idle else "false")]
    d.start()
    return d, ready(d), s, turn


def second(model, steps, idle, cold):
    d, c, s, turn = tool_turn(model, steps, idle)
    run(c, s, None, resume=turn, limits={"maxTokens": 8})
    rest(c)
    if cold:
        d.stop()
        shutil.rmtree(os.path.join(d.root, "state/kv"), ignore_errors=True)
        d.start()
        c = ready(d)
    seen = len(history(c, s))
    run(c, s, "And how many lines are there in all?", limits={"maxTokens": 2})
    after = history(c, s)[seen:]
    step = [e["data"] for e in after if e["type"] == "step.started"][0]
    use = [e["data"] for e in after if e["type"] == "usage"][0]
    d.close()
    return step["promptTokens"], step["cachedTokens"], (use["queuedUs"] + use["prefillUs"]) / 1000


def main():
    model = longer(sys.argv[1])
    print("%-28s %8s %8s %10s" % ("second turn", "prompt", "cached", "first ms"))
    for steps in [int(a) // 500 or 1 for a in sys.argv[2:]] or [2, 4, 8, 16]:
        for label, idle, cold in (("after idle re-prefill", True, False),
                                  ("re-prefill on demand", False, False),
                                  ("cold cache", False, True)):
            rows = [second(model, steps, idle, cold) for _ in range(3)]
            print("%-28s %8d %8d %10.1f" % (label, *min(rows, key=lambda r: r[2])), flush=True)
    shutil.rmtree(os.path.dirname(model))


if __name__ == "__main__":
    main()
