"""
Many sessions, many clients, one engine: random turns, cancels and reconnects for a while.
No event out of order, bounded memory, descriptors and write-ahead log; prints the latency of
events. SOAK_SECONDS=600 SOAK_SESSIONS=64 is the long form. A conversation that fills its
window is left behind and another one begun, so the long form also makes old sessions.
"""
import os
import random
import sys
import threading
import time

from agent import SANITIZED, Client, Daemon, Refused, bash

SECONDS = float(os.environ.get("SOAK_SECONDS", "6"))
SESSIONS = int(os.environ.get("SOAK_SESSIONS", "64"))
TURNS = [{"match": "tool", "steps": [{"think": "look " * 5, "calls": [bash("echo {{user}}")],
                                      "delay_ms": 2},
                                     {"text": "saw {{result}}", "delay_ms": 2}]},
         {"match": "long", "steps": [{"think": "on and on " * 60, "text": "end", "delay_ms": 4}]},
         {"steps": [{"think": "short", "text": "said {{user}}"}]}]
FULL = {"context_exhausted", "max_tokens", "max_steps"}  # the window, in the end
STOPS = {"end_turn", "cancelled"} | FULL
WINDOW = 65536  # tokens of a conversation, which are bytes here


class Worker(threading.Thread):
    def __init__(self, d, n):
        super().__init__()
        self.d, self.rng, self.n = d, random.Random(n), n
        self.late, self.turns, self.sessions, self.error = [], 0, 0, None

    def run(self):
        try:
            self.work()
        except Exception as e:  # reported by the main thread
            self.error = repr(e)

    def open(self, c, profile):
        self.sessions += 1
        session = c.call("session.create", cwd=self.d.workspace, profile=profile,
                         thinking=True)["sessionId"]
        c.call("session.subscribe", sessionId=session, after=0)
        return session

    def work(self):
        c = self.d.client()
        profile = "demo" if self.n % 8 == 0 else "chat"
        session, seq = self.open(c, profile), 0
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            kind = self.rng.choice(["tool", "long", "hi", "hi"] if profile == "demo" else
                                   ["long", "hi", "hi"])
            turn = c.call("turn.start", sessionId=session, input=kind)["turnId"]
            cancel_after = self.rng.choice([0, 0, self.rng.randint(1, 60)])
            while True:
                cancel_after -= 1
                if cancel_after == 0:
                    c.call("turn.interrupt", turnId=turn, mode=self.rng.choice(["soft", "hard"]))
                if self.rng.random() < 0.004:  # come back on a new connection
                    c.close()
                    c = self.d.client()
                    c.call("session.subscribe", sessionId=session, after=seq)
                e = c.events.pop(0) if c.events else c.read()
                e = e.get("params", e)
                if "seq" in e:
                    if e["seq"] != seq + 1:
                        raise AssertionError("after %d came %d" % (seq, e["seq"]))
                    seq += 1
                    self.late.append(time.time() * 1000 - e["ts"])
                    if e["type"] in ("turn.completed", "turn.failed") and e["turnId"] == turn:
                        if e["data"].get("stopReason") not in STOPS:
                            raise AssertionError(e)
                        break
            self.turns += 1
            if e["data"]["stopReason"] in FULL:
                c.call("session.unsubscribe", sessionId=session)
                c.events.clear()
                session, seq = self.open(c, profile), 0
        c.close()


def descriptors(d):
    return len(os.listdir("/proc/%d/fd" % d.proc.pid))


def main():
    d = Daemon(TURNS, args=["--set", "log.level=warn", "--set",
                            "engine.context=%d" % WINDOW])
    c = d.client()
    workers = [Worker(d, n) for n in range(SESSIONS)]
    for w in workers:
        w.start()
    samples = []
    while any(w.is_alive() for w in workers):
        time.sleep(min(1.0, SECONDS / 6))
        st = c.call("daemon.status")
        samples.append((st["residentBytes"], st["store"]["walBytes"], descriptors(d),
                        st["transcripts"]["bytes"]))
    for w in workers:
        w.join()
    errors = [w.error for w in workers if w.error]
    late = sorted(x for w in workers for x in w.late)
    turns = sum(w.turns for w in workers)
    events = c.call("daemon.status")["store"]["events"]
    rss, wal, fds, text = zip(*samples)
    at = lambda p: late[min(len(late) - 1, int(len(late) * p))]
    print("%d sessions, %.0f s: %d turns, %d events" % (SESSIONS, SECONDS, turns, events))
    print("event latency ms: p50 %d  p99 %d  max %d" % (at(0.5), at(0.99), late[-1]))
    tenth = max(1, len(rss) // 10)
    print("sessions made: %d" % sum(w.sessions for w in workers))
    print("resident MB by tenths:", " ".join("%d" % (x >> 20) for x in rss[::tenth]),
          " max %d" % (max(rss) >> 20))
    print("transcripts MB: last %.1f  max %.1f" % (text[-1] / 2**20, max(text) / 2**20))
    print("write-ahead log MB: max %.1f;  descriptors: max %d" % (max(wal) / 2**20, max(fds)))
    for e in errors[:5]:
        print("FAIL", e)
    ok = not errors and max(wal) < 64 << 20 and max(fds) < 64 + 4 * SESSIONS
    # a sanitizer keeps what was freed for a while (256 MB of it) and pads what was not
    ok = d.close() == 0 and ok and max(rss) < (2000 if SANITIZED else 200) << 20
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
