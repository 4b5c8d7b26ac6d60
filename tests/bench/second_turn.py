#!/usr/bin/env python3
"""
Time to the first token of a second turn after a tool turn: with the idle re-prefill, without
it, and with a cold cache.

usage: BIN=build/release/bin tests/bench/second_turn.py MODEL [REQUEST]
Prints one row each: tokens of the prompt, of these from the cache, milliseconds (best of 3).
"""
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../integration"))
from agent import Daemon, history, open_session, run  # noqa: E402

NOTES = "".join("line %d: the river rose by %d cm\n" % (i, i * 7 % 31) for i in range(400))


def rest(c):
    calm, last = 0, None
    while calm < 10:
        st = c.call("engine.status")
        now = (st["steps"], st["promptTokens"], st["waiting"])
        calm = calm + 1 if now == last and not st["waiting"] else 0
        last = now
        time.sleep(0.05)


def second(model, request, idle, cold):
    d = Daemon(engine="native:" + model, args=[
        "--set", "engine.idle_prefill=%s" % ("true" if idle else "false"),
        "--set", "log.level=warn"])
    with open(os.path.join(d.workspace, "notes.txt"), "w") as f:
        f.write(NOTES)
    c = d.client(timeout=600)
    s = open_session(c, d, profile="demo", sampling={"temperature": 0})
    run(c, s, request)
    rest(c)
    if cold:
        d.stop()
        shutil.rmtree(os.path.join(d.root, "state/kv"), ignore_errors=True)
        d.start()
        c = d.client(timeout=600)
        while c.call("engine.status")["state"] == "loading":
            time.sleep(0.05)
    seen = len(history(c, s))
    run(c, s, "And how many lines are there in all?", limits={"maxSteps": 1, "maxTokens": 2})
    after = history(c, s)[seen:]
    step = [e["data"] for e in after if e["type"] == "step.started"][0]
    use = [e["data"] for e in after if e["type"] == "usage"][0]
    d.close()
    return step["promptTokens"], step["cachedTokens"], (use["queuedUs"] + use["prefillUs"]) / 1000


def main():
    model = sys.argv[1]
    request = sys.argv[2] if len(sys.argv) > 2 else "How many lines in notes.txt contain river?"
    print("%-28s %8s %8s %10s" % ("second turn", "prompt", "cached", "first ms"))
    for label, idle, cold in (("after idle re-prefill", True, False),
                              ("re-prefill on demand", False, False), ("cold cache", False, True)):
        rows = [second(model, request, idle, cold) for _ in range(3)]
        print("%-28s %8d %8d %10.1f" % (label, *min(rows, key=lambda r: r[2])))


if __name__ == "__main__":
    main()
