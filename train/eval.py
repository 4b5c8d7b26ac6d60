"""eval.py - plays held-out tasks with a model and lets the environments' verifiers judge.

usage: eval.py MODEL [--tasks N] [--seed S] [--family F] [--backend daemon|engine]
               [--select indexer|dense|recent] [--bin DIR] [--json] [--show N] [--out FILE]
               [--require PERCENT]          (agentctl eval is the same command)

  daemon   (default) through agentd, its sandbox and its real tools, as a user would
  engine   the engine on a pipe and the tools outside a cell: quicker, for measuring while
           training and for --select, which replaces the indexer's choice of positions

Seeds start at 1,000,000,000, where no training seed ever is. Decoding is greedy and free: no
grammar holds the model's calls together, so the share of malformed ones is its own.
Exit codes: 0 played, 1 could not play, 2 usage, 3 a family passed less than --require.
"""
import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import render
import synth

FAMILIES = {1: "python", 2: "files", 3: "documents", 4: "session"}
FIRST_SEED = 1_000_000_000
MAX_STEPS = 12
SILENCE = 300  # seconds without a word from the daemon: it hangs
MAX_NEW = 400

OPEN = f"\n\n<{render.DSML}function_calls>\n"
CLOSE = f"</{render.DSML}function_calls>"
INVOKE = re.compile(f'<{render.DSML}invoke name="([^"\n]*)">\n(.*?)</{render.DSML}invoke>\n', re.S)
PARAMETER = re.compile(
    f'<{render.DSML}parameter name="([^"\n]*)" string="(true|false)">(.*?)'
    f"</{render.DSML}parameter>\n",
    re.S,
)


class Malformed(Exception):
    pass


class Broken(Exception):
    """The harness cannot go on; a sentence for the user."""


def parse(text):
    """A completion without EOS -> (thought, answer, [(name, {args})]); strict."""
    thought, tag, rest = text.partition(render.ENDTHINK)
    if not tag:
        raise Malformed("the thought does not end")
    answer, opened, block = rest.partition(OPEN)
    if not opened:
        if render.DSML in rest:
            raise Malformed("markup in the answer")
        return thought, answer, []
    if not block.endswith(CLOSE):
        raise Malformed("the block does not end")
    block, calls, at = block[: -len(CLOSE)], [], 0
    while at < len(block):
        m = INVOKE.match(block, at)
        if not m:
            raise Malformed("not an invoke: " + block[at : at + 60])
        args, inner = {}, 0
        while inner < len(m[2].rstrip("\n")):
            p = PARAMETER.match(m[2], inner)
            if not p:
                raise Malformed("not a parameter: " + m[2][inner : inner + 60])
            try:
                args[p[1]] = p[3] if p[2] == "true" else json.loads(p[3])
            except ValueError:
                raise Malformed("not JSON: " + p[3][:60]) from None
            inner = p.end()
        calls.append((m[1], args))
        at = m.end()
    return thought, answer, calls


class EngineRunner:
    """The model by train-generate, the tools by agentd-tool serve."""

    def __init__(self, o):
        self.tools_json = render.load_tools()
        self.model = synth.Lines(
            [os.path.join(o.bin, "train-generate"), o.model, o.select, str(o.threads)]
        )
        self.eos = self.model.ask(pieces=[{"text": render.EOS, "special": True}])["ids"][0]
        self.tools = synth.Tools(o.bin)
        self.parameters = {
            t["function"]["name"]: t["function"]["parameters"] for t in self.tools_json
        }

    def ids(self, g):
        g.flush()
        return self.model.ask(pieces=[{"text": t, "special": lit} for t, lit, _ in g.out])["ids"]

    def fits(self, name, args):
        p = self.parameters.get(name)
        return (
            p
            and all(k in args for k in p.get("required", []))
            and all(k in p["properties"] for k in args)
        )

    def begin(self, work):
        self.tools.begin(work)
        self.history = []  # (request, [completion without its thought, results...])

    def turn(self, request):
        g = render.Segments()
        render.preamble(g, self.tools_json)
        for old, parts in self.history:
            g.literal(render.USER)
            g.text(old)
            g.literal(render.ASST)
            g.literal(render.ENDTHINK)
            for said, results in parts:
                g.template(said)
                g.literal(render.EOS)
                if results:
                    self.results(g, results)
                    g.literal(render.ENDTHINK)
        g.literal(render.USER)
        g.text(request)
        g.literal(render.ASST)
        g.literal(render.THINK)
        ids, parts, out = (
            self.ids(g),
            [],
            {"calls": [], "answer": "", "malformed": 0, "longest": 0, "steps": []},
        )
        for _ in range(MAX_STEPS):
            got = self.model.ask(ids=ids, max=MAX_NEW)
            if "error" in got:
                out["stop"] = got["error"]
                break
            text, got = got["text"], got["ids"]
            ids += got
            out["longest"] = max(out["longest"], len(ids))
            ended = got and got[-1] == self.eos
            out["steps"].append(text)
            try:
                if not ended:
                    raise Malformed("no end within the limit")
                _, answer, calls = parse(text)
            except Malformed as e:
                out["malformed"] += 1
                out["stop"] = str(e)
                break
            said, results = text.partition(render.ENDTHINK)[2], []
            for name, args in calls:
                if not self.fits(name, args):
                    out["malformed"] += 1
                results.append(self.tools.call(name, args))
                out["calls"].append({"name": name, "args": args, "result": results[-1]})
            parts.append((said, results))
            if not calls:
                out["answer"], out["stop"] = answer, "end_turn"
                break
            g = render.Segments()
            self.results(g, results)
            g.literal(render.THINK)
            ids += self.ids(g)
        else:
            out["stop"] = "max_steps"
        self.history.append((request, parts))
        return out

    @staticmethod
    def results(g, results):
        g.text("\n\n<function_results>")
        for r in results:
            g.text("\n<result>" + r + "</result>")
        g.text("\n</function_results>\n\n")


def engine_of(model):
    """A file or folder of weights, or any engine of the daemon: script:FILE, remote:URL."""
    return (
        model if re.match("(native|script|remote):", model) else "native:" + os.path.abspath(model)
    )


class DaemonRunner:
    """A private daemon on a socket pair: the real loop, sandbox and tools."""

    def __init__(self, o):
        self.o, self.serial, self.session = o, 0, None
        self.log = open(o.log, "ab+") if o.log else tempfile.TemporaryFile()
        self.log_read = self.log.seek(0, os.SEEK_END)
        self.start()

    def start(self):
        ours, theirs = socket.socketpair()
        argv = [
            os.path.join(self.o.bin, "agentd"),
            "--private",
            "--connect-fd",
            str(theirs.fileno()),
            "--engine",
            engine_of(self.o.model),
            "--profile",
            "demo",
        ]
        if self.o.no_sandbox:
            argv += ["--sandbox", "off"]
        self.child = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stderr=self.log)
        theirs.close()
        ours.settimeout(SILENCE)
        self.lines, self.sock = ours.makefile("rwb"), ours
        self.call(
            "initialize",
            protocolVersion=1,
            client={"name": "eval", "version": "1"},
            capabilities={},
        )

    def close(self):
        self.lines.close()
        self.sock.close()
        self.child.wait(30)
        self.log.close()

    def repairs(self):
        """Blocks that the tolerant parser mended since the last look: malformed all the same."""
        self.log.seek(self.log_read)
        text = self.log.read()
        self.log_read += len(text)
        return text.count(b" repaired=")

    def read(self):
        try:
            line = self.lines.readline()
        except TimeoutError:
            self.child.kill()
            raise Broken(f"the daemon said nothing for {SILENCE} s and was ended") from None
        except OSError:
            line = b""
        if not line:
            raise Broken("the daemon ended; its last words:\n" + self.last_words())
        return json.loads(line)

    def last_words(self):
        self.child.wait(30)
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").strip().splitlines()
        return "\n".join("  " + x for x in lines[-5:]) or f"  (none; exit code {self.child.returncode})"

    def call(self, method, **params):
        """-> (result, events that came before it)"""
        self.serial += 1
        message = {"jsonrpc": "2.0", "id": self.serial, "method": method, "params": params}
        try:
            self.lines.write(json.dumps(message).encode() + b"\n")
            self.lines.flush()
        except OSError:
            raise Broken("the daemon ended; its last words:\n" + self.last_words()) from None
        events = []
        while True:
            m = self.read()
            if m.get("id") == self.serial:
                if "error" in m:
                    e = m["error"]
                    raise Broken(f"{method}: {e.get('message', e)}")
                return m["result"], events
            if m.get("method") == "event":
                events.append(m["params"])

    def begin(self, work):
        if self.session:  # a connection has room for 128 subscriptions, the machine for 500 cells
            self.call("session.unsubscribe", sessionId=self.session)
            self.call("session.close", sessionId=self.session)
        self.session = self.call("session.create", cwd=work, profile="demo")[0]["sessionId"]
        self.call("session.subscribe", sessionId=self.session, after=0)

    def turn(self, request):
        started, events = self.call(
            "turn.start", sessionId=self.session, input=[{"type": "text", "text": request}]
        )
        out = {"calls": [], "answer": "", "malformed": 0, "longest": 0, "steps": [], "stop": ""}
        by_id, said = {}, []
        while True:
            for e in events:
                self.event(e, out, by_id, said)
            if out["stop"]:
                out["steps"] = said
                out["malformed"] += self.repairs()
                return out
            m = self.read()
            events = [m["params"]] if m.get("method") == "event" else []

    @staticmethod
    def event(e, out, by_id, said):
        data, kind = e.get("data", {}), e.get("data", {}).get("kind")
        if e["type"] == "turn.completed":
            out["answer"], out["stop"] = data.get("message", ""), data["stopReason"]
        elif e["type"] == "turn.failed":
            out["stop"] = data["error"].get("message", "failed")
        elif e["type"] == "usage":
            out["longest"] = max(
                out["longest"], data.get("promptTokens", 0) + data.get("completionTokens", 0)
            )
        elif e["type"] == "item.completed" and kind in ("reasoning", "text"):
            said.append(data["text"])
        elif e["type"] == "item.completed" and kind == "call":
            said.append(f"{data['name']} {data['arguments']}")
            by_id[data["callId"]] = data
            out["malformed"] += "fault" in data
        elif e["type"] == "item.completed" and kind == "result":
            call = by_id.get(data["callId"], {})
            out["malformed"] += data["status"] == "invalid" and "fault" not in call
            said.append(data["text"])
            out["calls"].append(
                {"name": data["name"], "args": call.get("arguments", ""), "result": data["text"]}
            )


def play(runner, env, seed, base):
    task, work = synth.prepare(env, seed, base)
    runner.begin(work)
    turns = []
    for request in task["requests"]:
        turns.append(dict(runner.turn(request), request=request))
        if turns[-1]["stop"] != "end_turn":
            break
    calls = [dict(c, turn=i + 1) for i, t in enumerate(turns) for c in t["calls"]]
    verdict = env.ask(
        op="verify",
        dir=work,
        answers=[t["answer"] for t in turns],
        calls=[{"turn": c["turn"], "name": c["name"], "result": c["result"]} for c in calls],
    )
    shutil.rmtree(work)
    return {
        "env": env.env,
        "family": env.meta["family"],
        "kind": task["kind"],
        "seed": seed,
        "pass": verdict["score"],
        "details": verdict["details"],
        "turns": turns,
        "calls": len(calls),
        "malformed": sum(t["malformed"] for t in turns),
        "longest": max((t["longest"] for t in turns), default=0),
    }


def share(part, whole):
    return f"{100 * part / whole:5.1f} %" if whole else "    -"


def table(results, seconds):
    lines = ["| family | tasks | passed | rate | calls | malformed |", "|---|---|---|---|---|---|"]
    for family, name in FAMILIES.items():
        mine = [r for r in results if r["family"] == family]
        if mine:
            calls = sum(r["calls"] + r["malformed"] for r in mine)
            lines.append(
                f"| {family} {name} | {len(mine)} | {sum(r['pass'] for r in mine)} |"
                f" {share(sum(r['pass'] for r in mine), len(mine))} | {calls} |"
                f" {share(sum(r['malformed'] for r in mine), calls)} |"
            )
    lines.append(f"\n{len(results)} tasks in {seconds:.0f} s")
    return "\n".join(lines)


def by_kind(results):
    kinds = {}
    for r in results:
        k = kinds.setdefault(r["env"] + "/" + r["kind"], [0, 0])
        k[0] += r["pass"]
        k[1] += 1
    return ", ".join(f"{k} {a}/{b}" for k, (a, b) in sorted(kinds.items()))


def summary(o, results, seconds):
    """What --json prints: rates, malformed calls, and every failure with its words."""
    families = []
    for family, name in FAMILIES.items():
        mine = [r for r in results if r["family"] == family]
        if mine:
            calls = sum(r["calls"] + r["malformed"] for r in mine)
            passed, bad = sum(r["pass"] for r in mine), sum(r["malformed"] for r in mine)
            families.append(
                {
                    "family": family,
                    "name": name,
                    "tasks": len(mine),
                    "passed": passed,
                    "rate": round(passed / len(mine), 4),
                    "calls": calls,
                    "malformed": bad,
                }
            )
    failures = [
        {
            "env": r["env"],
            "kind": r["kind"],
            "seed": r["seed"],
            "details": r["details"],
            "turns": [
                {k: t[k] for k in ("request", "steps", "answer", "stop")} for t in r["turns"]
            ],
        }
        for r in results
        if not r["pass"]
    ]
    return {
        "model": o.model,
        "backend": o.backend,
        "select": o.select,
        "seed": o.seed,
        "tasks": len(results),
        "passed": sum(r["pass"] for r in results),
        "calls": sum(f["calls"] for f in families),
        "malformed": sum(f["malformed"] for f in families),
        "seconds": round(seconds, 1),
        "families": families,
        "failures": failures,
    }


def show(r):
    lines = [f"{r['env']}/{r['kind']}, seed {r['seed']}: {r['details']}"]
    for t in r["turns"]:
        lines.append("  user: " + t["request"])
        for s in t.get("steps", []):
            s = s if len(s) < 700 else s[:500] + " ... " + s[-100:]
            lines.append("  model: " + s.replace("\n", "\n         "))
        lines.append(f"  stop: {t['stop']}")
    return "\n".join(lines)


def family_of(word):
    for number, name in FAMILIES.items():
        if word in (str(number), name):
            return number
    names = ", ".join(f"{n} {name}" for n, name in FAMILIES.items())
    raise argparse.ArgumentTypeError(f"no family '{word}'; there are {names}")


def count_of(word):
    if not word.isdigit() or not 0 < int(word) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"'{word}' is not a number from 1 to 1,000,000")
    return int(word)


def options():
    p = argparse.ArgumentParser(prog="eval.py", usage=__doc__.split("\n\n")[1][len("usage: ") :])
    p.add_argument("model")
    p.add_argument("--tasks", type=count_of, default=50, help="per family")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--family", type=family_of)
    p.add_argument("--backend", choices=["daemon", "engine"], default="daemon")
    p.add_argument("--select", choices=["indexer", "dense", "recent"], default="indexer")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--bin", default=os.path.join(synth.HERE, "..", "build", "release", "bin"))
    p.add_argument("--no-sandbox", action="store_true", help="daemon: run tools unconfined")
    p.add_argument("--log", help="daemon: append its log to this file")
    p.add_argument("--json", action="store_true")
    p.add_argument("--show", type=int, default=3, help="failures to print")
    p.add_argument("--out", help="write every result to this file, a line each")
    p.add_argument("--require", type=float, help="percent; less in a family ends with 3")
    o = p.parse_args()
    if o.seed < 0 or o.seed > 100_000:
        p.error("--seed is a number from 0 to 100,000")
    if o.select != "indexer" and o.backend != "engine":
        p.error(f"--select {o.select} needs --backend engine")
    for program in ["agentd-tool", "agentd" if o.backend == "daemon" else "train-generate"]:
        if not os.access(os.path.join(o.bin, program), os.X_OK):
            raise Broken(f"there is no program {program} in {o.bin}; build it, or say --bin DIR")
    if not shutil.which("lua5.4"):
        raise Broken("the tasks are drawn by Lua; please install the package lua5.4")
    if not re.match("(native|script|remote):", o.model) and not os.path.exists(o.model):
        raise Broken(f"there is no model {o.model}")
    return o


def progress(o, done, all_tasks, began):
    if sys.stderr.isatty():
        left = (time.monotonic() - began) / done * (all_tasks - done)
        print(f"\r{done} of {all_tasks} tasks, {left:.0f} s left  ", end="", file=sys.stderr)
        if done == all_tasks:
            print("\r" + " " * 40 + "\r", end="", file=sys.stderr)


def play_all(o):
    runner = (EngineRunner if o.backend == "engine" else DaemonRunner)(o)
    results, began = [], time.monotonic()
    families = [o.family] if o.family else list(FAMILIES)
    with tempfile.TemporaryDirectory() as base:
        for family in families:
            env = synth.Env(FAMILIES[family])
            for i in range(o.tasks):
                results.append(play(runner, env, FIRST_SEED + o.seed * 1_000_000 + i, base))
                progress(o, len(results), o.tasks * len(families), began)
            env.close()
    return results, time.monotonic() - began


def main():
    o = options()
    results, seconds = play_all(o)
    if o.out:
        with open(o.out, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in results)
    said = summary(o, results, seconds)
    if o.json:
        print(json.dumps(said, ensure_ascii=False))
    else:
        print(table(results, seconds))
        print(by_kind(results))
        for r in [r for r in results if not r["pass"]][: o.show]:
            print("\n" + show(r))
    if o.require and any(f["rate"] * 100 < o.require for f in said["families"]):
        sys.exit(3)


if __name__ == "__main__":
    try:
        main()
    except Broken as e:
        sys.exit(f"eval: {e}")
    except BrokenPipeError:
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
