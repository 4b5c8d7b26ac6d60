"""check.py - what must hold before anything is trained.

usage: check.py envs [ENV...] [--bin BUILD/bin] [--count N]
           the oracle scores 1, an empty run scores 0, a task is the same when drawn again
       check.py daemon [ENV...] [--bin BUILD/bin] [--count N]
           the same calls in the daemon's sandbox have the same results
       check.py render [ENV...] [--bin BUILD/bin]
           render.py and `agentctl encode` agree byte for byte, piece by piece
       check.py tokenizer TOKENIZER.json [ENV...] [--bin BUILD/bin]
           tok.py and the engine's tokenizer agree, and text survives the round trip
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

import eval as evaluate
import render
import synth
import tok

ENVS = ["copy", "python", "files", "documents", "session"]


def snapshot(top):
    out = {}
    for folder, _, names in os.walk(top):
        for n in names:
            path = os.path.join(folder, n)
            with open(path, "rb") as f:
                out[os.path.relpath(path, top)] = f.read()
    return out


def setup(env, seed, base):
    task, work = synth.prepare(env, seed, base)
    return task, work, snapshot(work)


def check_env(name, bin_dir, first, count):
    """-> failures, as sentences"""
    bad, kinds = [], set()
    env, tools = synth.Env(name), synth.Tools(bin_dir)
    with tempfile.TemporaryDirectory() as base:
        for seed in range(first, first + count):
            task, work, world = setup(env, seed, base)
            again = setup(env, seed, base)
            if (task, world) != (again[0], again[2]):
                bad.append(f"{name} {seed}: drawn twice, the task differs")
            for answers in ([], [""] * len(task["requests"]), ["Done."] * len(task["requests"])):
                if env.ask(op="verify", dir=work, answers=answers, calls=[])["score"] != 0:
                    bad.append(f"{name} {seed} ({task['kind']}): a run that did nothing passes")
            for done in (work, again[1]):
                shutil.rmtree(done)
            record, score, why = synth.play(env, tools, seed, base)
            if score != 1:
                bad.append(f"{name} {seed} ({task['kind']}): the oracle fails: {why}")
            kinds.add(record["kind"])
    env.close()
    tools.close()
    print(f"{name}: {count} tasks of {len(kinds)} kinds, {len(bad)} failures")
    return bad


def script_of(record):
    """The oracle's words as a script for the daemon's scripted engine."""
    turns = []
    for t in sorted(record["turns"], key=lambda t: -len(t["request"])):
        steps = []
        for s in t["steps"]:
            steps.append(
                {"think": s["think"], "text": s["answer"]}
                if "answer" in s
                else {
                    "think": s["think"],
                    "calls": [{"name": s["call"]["name"], "arguments": dict(s["call"]["args"])}],
                }
            )
        turns.append({"match": t["request"], "steps": steps})
    return {"turns": turns}


def check_daemon(name, bin_dir, first, count):
    """The daemon, its sandbox and its tools answer an oracle with the bytes it was trained on."""
    bad, calls = [], 0
    env, tools = synth.Env(name), synth.Tools(bin_dir)
    with tempfile.TemporaryDirectory() as base:
        for seed in range(first, first + count):
            record, _, _ = synth.play(env, tools, seed, base)
            path = os.path.join(base, "script.json")
            with open(path, "w", encoding="utf-8") as f:
                json.dump(script_of(record), f)
            runner = evaluate.DaemonRunner(
                argparse.Namespace(model="script:" + path, bin=bin_dir, no_sandbox=False, log=None)
            )
            got = evaluate.play(runner, env, seed, base)
            runner.close()
            want = [s["result"] for t in record["turns"] for s in t["steps"] if "call" in s]
            seen = [c["result"] for t in got["turns"] for c in t["calls"]]
            calls += len(want)
            if want != seen:
                bad += [
                    f"{name} {seed} ({record['kind']}): {a!r} but in the daemon {b!r}"
                    for a, b in zip(want, seen)
                    if a != b
                ]
                if len(want) != len(seen):
                    bad.append(
                        f"{name} {seed}: {len(want)} calls, {len(seen)} in the daemon;"
                        f" {got['turns'][-1]['stop']}"
                    )
            elif got["pass"] != 1:
                bad.append(
                    f"{name} {seed}: the oracle's words fail in the daemon: {got['details']}"
                )
    env.close()
    tools.close()
    print(f"{name}: {count} tasks through the daemon, {calls} calls, {len(bad)} failures")
    return bad


def messages(record, last, tools):
    out = [{"role": "system", "content": render.SYSTEM, "tools": tools}]
    n = 0
    for t in record["turns"][: last + 1]:
        out.append({"role": "user", "content": t["request"]})
        for s in t["steps"]:
            m = {
                "role": "assistant",
                "reasoning_content": s["think"],
                "content": s.get("answer", ""),
            }
            if "call" in s:
                n += 1
                m["tool_calls"] = [
                    {
                        "id": str(n),
                        "type": "function",
                        "function": {
                            "name": s["call"]["name"],
                            "arguments": json.dumps(dict(s["call"]["args"]), ensure_ascii=False),
                        },
                    }
                ]
            out.append(m)
            if "call" in s:
                out.append({"role": "tool", "tool_call_id": str(n), "content": s["result"]})
    return out


def joined(pieces):
    """Neighbouring ordinary pieces as one: what is tokenised together."""
    out = []
    for text, special in pieces:
        if out and not special and not out[-1][1]:
            out[-1] = (out[-1][0] + text, False)
        elif text:
            out.append((text, special))
    return out


def check_parse(records):
    """What render.py writes for a step, eval.py reads back as the same step."""
    bad = []
    for s in (s for r in records for t in r["turns"] for s in t["steps"]):
        g = render.Segments()
        g.text(s["think"] + render.ENDTHINK)
        render.calls(g, s["call"]) if "call" in s else g.text(s["answer"])
        g.flush()
        want = (
            s["think"],
            s.get("answer", ""),
            [(s["call"]["name"], dict(s["call"]["args"]))] if "call" in s else [],
        )
        if evaluate.parse("".join(t for t, _, _ in g.out)) != want:
            bad.append(f"read back otherwise: {s}")
    return bad


def check_render(bin_dir, records):
    tools, asked, ours = render.load_tools(), [], []
    listed = subprocess.run(
        [os.path.join(bin_dir, "agentctl"), "tool", "list", "--profile", "demo", "--json"],
        stdout=subprocess.PIPE,
    ).stdout
    if json.loads(listed) != tools:
        return ["train/tools.json is not what `agentctl tool list --profile demo --json` prints"]
    for r in records:
        for last in range(len(r["turns"])):
            asked.append(
                json.dumps(
                    {
                        "messages": messages(r, last, tools),
                        "options": {"thinking_mode": "thinking"},
                    },
                    ensure_ascii=False,
                )
            )
            ours.append(joined((t, lit) for t, lit, _ in render.example(r, last, tools)))
    p = subprocess.run(
        [os.path.join(bin_dir, "agentctl"), "encode", "--batch", "--pieces", "-"],
        input="\n".join(asked).encode() + b"\n",
        stdout=subprocess.PIPE,
    )
    theirs = [json.loads(x) for x in p.stdout.decode().splitlines()]
    bad = check_parse(records)
    if len(theirs) != len(ours):
        bad.append(f"{len(ours)} prompts, {len(theirs)} answers")
    for mine, their in zip(ours, theirs):
        if "pieces" not in their:
            bad.append(f"encode: {their}")
        elif mine != joined((x["text"], x["special"]) for x in their["pieces"]):
            bad.append(f"differs: {mine[-6:]}")
    print(f"render: {len(ours)} prompts, {len(bad)} differ")
    return bad


def check_tokenizer(bin_dir, path, records):
    t, r = tok.Tokenizer.load(path), random.Random(1)
    texts = [
        s["result"] for x in records for turn in x["turns"] for s in turn["steps"] if "result" in s
    ]
    texts += [
        "".join(r.choice(" aZ09_-'\"\r\n\t.,é龥あ\u2003🙂<|｜") for _ in range(r.randrange(1, 60)))
        for _ in range(300)
    ]
    bad = [f"round trip of {x!r}" for x in texts if t.decode(t.encode(x)) != x.encode()]
    asked = "".join(
        json.dumps({"text": x, "special": False}, ensure_ascii=False) + "\n" for x in texts
    )
    p = subprocess.run(
        [os.path.join(bin_dir, "agentctl"), "model", "tokenize", path, "--batch"],
        input=asked.encode(),
        stdout=subprocess.PIPE,
    )
    theirs = [json.loads(x)["ids"] for x in p.stdout.decode().splitlines()]
    bad += [f"the engine cuts {x!r} otherwise" for x, y in zip(texts, theirs) if t.encode(x) != y]
    if len(theirs) != len(texts):
        bad.append(f"{len(texts)} texts, {len(theirs)} answers")
    print(f"tokenizer: {len(texts)} texts, {len(bad)} failures")
    return bad


def main():
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["envs", "daemon", "render", "tokenizer"])
    p.add_argument("rest", nargs="*")
    p.add_argument("--bin", default=os.path.join(synth.HERE, "..", "build", "release", "bin"))
    p.add_argument("--count", type=int, default=40)
    p.add_argument("--first", type=int, default=500_000_000)
    o = p.parse_args()
    if o.what == "daemon":
        bad = sum((check_daemon(e, o.bin, o.first, o.count) for e in o.rest or ENVS[1:]), [])
    elif o.what == "envs":
        bad = sum((check_env(e, o.bin, o.first, o.count) for e in o.rest or ENVS), [])
    else:
        records = []
        with tempfile.TemporaryDirectory() as base:
            for name in o.rest[o.what == "tokenizer" :] or ENVS:
                env, tools = synth.Env(name), synth.Tools(o.bin)
                records += [synth.play(env, tools, o.first + i, base)[0] for i in range(o.count)]
        bad = (
            check_render(o.bin, records)
            if o.what == "render"
            else check_tokenizer(o.bin, o.rest[0], records)
        )
    for b in bad[:8]:
        print(b[:600], file=sys.stderr)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
