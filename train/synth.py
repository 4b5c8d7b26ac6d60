"""synth.py - runs oracles against the real tools and writes what they did as records.

usage: synth.py ENV --count N [--first SEED] [--kinds A,B] [--plain PERCENT] [--out DIR]
                [--bin BUILD/bin]

One record per task, one JSON object a line:
  {"env","family","kind","seed","turns":[{"request","steps":[{"think","call":{"name","args"},
   "result"} | {"think","answer"}]}]}
Shards of 500 seeds; a shard that exists is left alone, so the command can be stopped, repeated
and run beside itself on other seeds.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SHARD = 500


class Lines:
    """A child that answers one JSON line with one JSON line."""

    def __init__(self, argv):
        self.name = argv[0]
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **message):
        self.p.stdin.write(json.dumps(message, ensure_ascii=False).encode() + b"\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended while answering {message}")
        return json.loads(line.decode("utf-8", "replace"))

    def close(self):
        self.p.stdin.close()
        self.p.wait()


class Env(Lines):
    def __init__(self, name, plain=0):
        path = os.path.join(HERE, "envs", name, "env.lua")
        super().__init__(["lua5.4", os.path.join(HERE, "envs", "host.lua"), path, str(plain)])
        self.env = name
        self.meta = self.ask(op="meta")

    def ask(self, **message):
        out = super().ask(**message)
        if "error" in out:
            raise RuntimeError(f"{message}: {out['error']}")
        return out


class Tools:
    """The tools' own code outside a cell: `agentd-tool serve`."""

    def __init__(self, bin_dir):
        self.serve = Lines([os.path.join(bin_dir, "agentd-tool"), "serve", "--as-workspace"])

    def close(self):
        self.serve.close()

    def begin(self, dir):
        """A fresh shell, interpreter and page list; the folder is also what search sees."""
        self.dir = dir
        self.serve.ask(reset=True)

    def call(self, name, args):
        return self.serve.ask(
            tool=name, args=dict(args), profile="demo", workspace=self.dir, index=self.dir
        )["text"]


def prepare(env, seed, base):
    """Draws a task and makes its world in a fresh folder. -> (task, folder)"""
    task = env.ask(op="task", seed=seed)
    work = tempfile.mkdtemp(prefix="w", dir=base)
    env.ask(op="setup", dir=work)
    return task, work


def play(env, tools, seed, base):
    """One task: its world made, its oracle run, its verifier asked. -> (record, score, details)"""
    task, work = prepare(env, seed, base)
    tools.begin(work)
    turns, answers = [], []
    step = env.ask(op="solve")
    for request in task["requests"]:
        steps = []
        while True:
            if "answer" in step:
                steps.append({"think": step["think"], "answer": step["answer"]})
                answers.append(step["answer"])
                step = env.ask(op="result", text="")
                break
            call = step["call"]
            result = step.get("given") or tools.call(call["name"], call["args"])
            steps.append({"think": step["think"], "call": call, "result": result})
            step = env.ask(op="result", text=result)
        turns.append({"request": request, "steps": steps})
    if not step.get("done"):
        raise RuntimeError(f"{env.env} {seed}: the oracle goes on after its last answer")
    done = [
        {"turn": i + 1, "name": s["call"]["name"], "result": s["result"]}
        for i, t in enumerate(turns)
        for s in t["steps"]
        if "call" in s
    ]
    verdict = env.ask(op="verify", dir=work, answers=answers, calls=done)
    shutil.rmtree(work)
    record = {
        "env": env.env,
        "family": env.meta["family"],
        "kind": task["kind"],
        "seed": seed,
        "turns": turns,
    }
    return record, verdict["score"], verdict["details"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("env")
    p.add_argument("--count", type=int, default=SHARD)
    p.add_argument("--first", type=int, default=0)
    p.add_argument("--kinds", help="only tasks of these kinds, separated by commas")
    p.add_argument("--plain", type=int, default=0, help="percentage of names from everyday speech")
    p.add_argument("--out", default=os.path.join(HERE, "out", "records"))
    p.add_argument("--bin", default=os.path.join(HERE, "..", "build", "release", "bin"))
    o = p.parse_args()
    os.makedirs(o.out, exist_ok=True)
    env, tools, began, done = Env(o.env, o.plain), Tools(o.bin), time.monotonic(), 0
    with tempfile.TemporaryDirectory() as base:
        for first in range(o.first, o.first + o.count, SHARD):
            path = os.path.join(o.out, f"{o.env}-{first:09d}.jsonl")
            if os.path.exists(path):
                continue
            with open(path + ".part", "w", encoding="utf-8") as f:
                for seed in range(first, min(first + SHARD, o.first + o.count)):
                    if o.kinds and env.ask(op="task", seed=seed)["kind"] not in o.kinds.split(","):
                        continue
                    record, score, why = play(env, tools, seed, base)
                    if score != 1:
                        sys.exit(
                            f"{o.env} seed {seed} ({record['kind']}): the oracle fails: {why}\n"
                            f"{json.dumps(record)}"
                        )
                    f.write(json.dumps(record, ensure_ascii=False) + "\n")
            os.rename(path + ".part", path)
            done += SHARD
            left = max(o.first + o.count - first - SHARD, 0)
            if sys.stderr.isatty() or left == 0 or done % 5000 == 0:
                print(
                    f"{o.env}: {o.count - left} of {o.count} tasks,"
                    f" {(time.monotonic() - began) / done * left:.0f} s left",
                    file=sys.stderr,
                )


if __name__ == "__main__":
    main()
