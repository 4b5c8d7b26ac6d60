"""
Figures that the project states, measured on the machine at hand: start to READY, the daemon's
own cost per step. Only printed, and checked for being there: no test depends on speed.
"""
import os
import re
import statistics
import sys

from agent import Daemon, bash, history, open_session, run


def percentile(xs, p):
    return sorted(xs)[min(len(xs) - 1, int(len(xs) * p))]


def ready():
    times = []
    for _ in range(10):
        d = Daemon([{"steps": [{"text": "x"}]}], profile="chat")
        times.append(int(re.search(r"ready state=\S+ us=(\d+)", d.read_log()).group(1)) / 1000)
        d.close()
    print("start to READY        ms: median %.1f  max %.1f  (10 starts, new store each)" % (
        statistics.median(times), max(times)))


def step(sandbox, label):
    n = int(os.environ.get("STEPS", "60"))
    steps = [{"think": "again", "calls": [bash("echo {{steps}}")]}] * n + [{"text": "done"}]
    d = Daemon([{"steps": steps}], sandbox=sandbox, args=["--set", "log.level=warn"])
    c = d.client()
    s = open_session(c, d, profile="demo", limits={"maxSteps": n + 3, "maxTokens": 1 << 30,
                                                   "reserve": 0})
    r = run(c, s, "go")
    assert r["stopReason"] == "end_turn", r
    usage = [e["data"] for e in history(c, s) if e["type"] == "usage"]
    over = [u["overheadUs"] / 1000 for u in usage[1:]]
    tool = [e["data"]["ms"] for e in history(c, s) if e["data"].get("kind") == "result"]
    print("own cost of a step    ms: median %.2f  p99 %.2f  (%d steps, %s; its call %.1f ms)" % (
        statistics.median(over), percentile(over, 0.99), len(over), label,
        statistics.median(tool)))
    d.close()


if __name__ == "__main__":
    ready()
    step("off", "unconfined")
    if "--sandbox" in sys.argv:
        step("required", "in a cell")
