#!/usr/bin/env bash
# Every vector of the message format, byte for byte, through agentctl encode and parse: our own
# in tests/golden/encoding, and the authors' when a shared folder lies beside the sources.
set -u
exec python3 - "$BIN/agentctl" "$SRC/tests/golden/encoding" "$SRC/../shared/vectors/encoding" <<'PY'
import glob, json, os, subprocess, sys

ctl, own, shared = sys.argv[1:]
failed = count = 0
rendered = []


def run(noun, value, *options):
    p = subprocess.run([ctl, noun, *options, "-"], input=json.dumps(value).encode(),
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return p.returncode, json.loads(p.stdout)


def check(name, got, want, key):
    global failed, count
    count += 1
    if got != want:
        failed += 1
        print(f"{name}: got {str(got)[:600]!r}\n  want {str(want)[:600]!r}")


def vector(path, noun, key):
    with open(path, "rb") as f:
        raw = f.read()
    case = json.loads(raw)
    # The file itself is the input: its numbers and escapes must not pass through Python.
    p = subprocess.run([ctl, noun, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    got = p.returncode, json.loads(p.stdout)
    want = (1, {"error": case["expected_error"]}) if "expected_error" in case \
        else (0, {key: case["expected"]})
    check(path, got, want, key)
    if noun == "encode" and p.returncode == 0:
        rendered.append((path, raw.replace(b"\n", b" "), case["expected"]))


for folder in (own, shared):
    for noun, key in (("encode", "prompt"), ("parse", "message")):
        for path in sorted(glob.glob(f"{folder}/{noun}/*.json")):
            vector(path, noun, key)

p = subprocess.run([ctl, "encode", "--batch", "--pieces", "-"], stdout=subprocess.PIPE,
                   input=b"\n".join(raw for _, raw, _ in rendered))
for (path, _, expected), line in zip(rendered, p.stdout.split(b"\n")):
    check(path + " pieces", "".join(x["text"] for x in json.loads(line)["pieces"]), expected, "")

if os.path.isdir(shared):
    def load(name):
        with open(f"{shared}/official/{name}", encoding="utf-8", newline="") as f:
            return f.read()

    whole = json.loads(load("test_input.json"))
    whole["messages"][0]["tools"] = whole["tools"]
    options = {"thinking_mode": "thinking", "drop_thinking": True, "add_default_bos_token": True}
    cases = [(whole["messages"], load("test_output.txt").rstrip("\n"))]
    for kind in ("wo_date", "w_date"):
        value = json.loads(load(f"test_input_search_{kind}.json"))
        cases.append((value["messages"], load(f"test_output_search_{kind}.txt")))
    for messages, text in cases:
        check("official", run("encode", {"messages": messages, "options": options}),
              (0, {"prompt": text}), "prompt")
    for messages, at in ((whole["messages"], 4), (whole["messages"], 7)):
        prompt = run("encode", {"messages": [messages[at]], "context": messages[:at],
                                "options": options})[1].get("prompt")
        message = run("parse", {"thinking_mode": "thinking", "text": prompt})[1].get("message")
        want = {"role": "assistant", "content": messages[at].get("content") or "",
                "reasoning_content": messages[at].get("reasoning_content") or "",
                "tool_calls": [{"type": "function", "function": c["function"]}
                               for c in messages[at].get("tool_calls") or []]}
        for m in (want, message):
            for c in m["tool_calls"]:
                c["function"]["arguments"] = json.loads(c["function"]["arguments"])
        check("official round trip", message, want, "message")
    for name, size in (("tools_block_head", 1133), ("response_format_head", 80)):
        with open(f"{shared}/{name}.txt", "rb") as f:
            check(name, len(f.read()), size, "")

print(f"{count} checks, {failed} failed")
sys.exit(1 if failed or count == 0 else 0)
PY
