#!/usr/bin/env python3
"""A second, slow and obvious reading of the message format, against which agentctl encode and
parse are compared on random conversations. Usage: encoding_oracle.py AGENTCTL [COUNT [SEED]].
Shares no line and no table with the C code; its JSON is Python's own."""
import json
import random
import re
import subprocess
import sys

BAR, LOW = "\uff5c", "\u2581"
BOS = f"<{BAR}begin{LOW}of{LOW}sentence{BAR}>"
EOS = f"<{BAR}end{LOW}of{LOW}sentence{BAR}>"
USER, ASST = f"<{BAR}User{BAR}>", f"<{BAR}Assistant{BAR}>"
DSML, THINK, ENDTHINK = f"{BAR}DSML{BAR}", "<think>", "</think>"

HEAD = "\n".join([
    "## Tools", "",
    "You have access to a set of tools you can use to answer the user's question.",
    f'You can invoke functions by writing a "<{DSML}function_calls>" block like the following '
    "as part of your reply to the user:",
    f"<{DSML}function_calls>", f'<{DSML}invoke name="$FUNCTION_NAME">',
    f'<{DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE'
    f"</{DSML}parameter>", "...", f"</{DSML}invoke>", f'<{DSML}invoke name="$FUNCTION_NAME2">',
    "...", f"</{DSML}invoke>", f"</{DSML}function_calls>", "",
    "String and scalar parameters should be specified as is without any escaping or quotes, "
    'while lists and objects should use JSON format. The "string" attribute should be set to '
    '"true" for string type parameters and "false" for other types (numbers, booleans, arrays, '
    "objects).", "",
    "If the thinking_mode is enabled, then after function results you should strongly consider "
    "outputting a thinking block. Here is an example:", "",
    f"<{DSML}function_calls>", "...", f"</{DSML}function_calls>", "",
    "<function_results>", "...", "</function_results>", "",
    f"{THINK}...thinking about results{ENDTHINK}", "",
    "Here are the functions available in JSONSchema format:", "<functions>", ""])


class Refused(Exception):
    pass


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def text(content):
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return content or ""


def extras(m):
    out = ""
    if m.get("tools"):
        lines = "\n".join(dumps(t["function"]) for t in m["tools"])
        out += "\n\n" + HEAD + lines + "\n</functions>\n"
    if m.get("response_format"):
        out += ("\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to "
                "reply:\n" + dumps(m["response_format"]))
    return out


def calls(m):
    out = [f"<{DSML}function_calls>"]
    for c in m["tool_calls"]:
        f = c["function"]
        try:
            arguments = json.loads(f["arguments"])
            arguments_text = json.dumps(arguments, ensure_ascii=False).encode()
        except (ValueError, UnicodeEncodeError):
            raise Refused("arguments_not_json") from None
        if b"Infinity" in arguments_text or b"NaN" in arguments_text:
            raise Refused("arguments_not_json")
        if not isinstance(arguments, dict):
            raise Refused("arguments_not_object")
        lines = []
        for key, v in arguments.items():
            string = isinstance(v, str)
            shown = v if string else dumps(v)
            if f"/{DSML}parameter" in shown:
                raise Refused("value_unrepresentable")
            lines.append(f'<{DSML}parameter name="{key}" string="{str(string).lower()}">{shown}'
                         f"</{DSML}parameter>")
        out += [f'<{DSML}invoke name="{f["name"]}">', "\n".join(lines), f"</{DSML}invoke>"]
    return "\n\n" + "\n".join(out + [f"</{DSML}function_calls>"])


def fold(messages, first):
    """System text behind a user message or a result moves into it."""
    out = []
    for i, m in enumerate(messages):
        if m["role"] == "system" and out and out[-1][1]["role"] in ("user", "developer", "tool"):
            if i >= first > out[-1][0]:
                raise Refused("system_after_context")
            body = text(m.get("content")) + extras(m)
            out[-1][2] += "\n\n" + body if body else ""
        else:
            out.append([i, m, ""])
    return out


def encode(case):
    context, messages = case.get("context", []), case["messages"]
    options = case["options"]
    thinking = options["thinking_mode"] == "thinking"
    whole = context + messages
    items = fold(whole, len(context))
    last = max([k for k, (_, m, _) in enumerate(items) if m["role"] in ("user", "developer")],
               default=-1)
    keep = options.get("keep", "v32")

    def opens(k):
        return thinking and {"v32": k >= last, "keep_all": True, "none": k == len(items) - 1}[keep]

    out = BOS if options.get("add_default_bos_token", True) and not context else ""
    for k, (index, m, folded) in enumerate(items):
        if index < len(context):
            continue
        role, content = m["role"], text(m.get("content"))
        if role == "system":
            out += content + extras(m)
        elif role == "user":
            out += USER + content + folded + ASST + (THINK if opens(k) else ENDTHINK)
        elif role == "developer":
            if not content:
                raise Refused("developer_empty_content")
            out += (USER + extras(m) + "\n\n# The user's message is: " + content + folded + ASST
                    + (THINK if opens(k) else ENDTHINK))
        elif role == "assistant":
            shown = thinking and {"v32": k > last, "keep_all": True, "none": False}[keep]
            if shown:
                if k > last and not m.get("reasoning_content") and not m.get("tool_calls"):
                    raise Refused("assistant_needs_reasoning")
                out += (m.get("reasoning_content") or "") + ENDTHINK
            out += content + (calls(m) if m.get("tool_calls") else "") + EOS
        elif role == "tool":
            before = k
            while before >= 0 and items[before][1]["role"] == "tool":
                before -= 1
            if before < 0 or items[before][1]["role"] != "assistant":
                raise Refused("tool_bad_position")
            n = len(items[before][1].get("tool_calls") or [])
            if k - before > n:
                raise Refused("tool_without_call")
            if k - before == 1:
                out += "\n\n<function_results>"
            out += "\n<result>" + content + folded + "</result>"
            if k - before == n:
                out += "\n</function_results>\n\n" + (THINK if opens(k) else ENDTHINK)
        else:
            raise Refused("unknown_role")
    return out


def parse(s, thinking):
    """The strict reader, as the definition puts it: read to a stop, look at what lay before."""
    at = 0

    def read(*stops):
        nonlocal at
        hits = [(s.find(x, at), x) for x in stops if s.find(x, at) >= 0]
        if not hits:
            before, at = s[at:], len(s)
            return before, None
        where, stop = min(hits)
        before, at = s[at:where], where + len(stop)
        return before, stop

    opener = f"\n\n<{DSML}function_calls"
    message = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []}
    if thinking:
        message["reasoning_content"], stop = read(ENDTHINK, opener)
        if stop != ENDTHINK:
            raise Refused("thinking_unterminated")
    message["content"], stop = read(EOS, opener)
    if stop is None:
        raise Refused("answer_unterminated")
    if stop == opener:
        while at < len(s):
            before, stop = read(f"<{DSML}invoke", f"</{DSML}function_calls>")
            if before != ">\n":
                raise Refused("block_format")
            if stop is None:
                raise Refused("block_unterminated")
            if stop.startswith("</"):
                break
            before, stop = read(f"<{DSML}parameter", f"</{DSML}invoke")
            name = re.fullmatch(r'\s*name="(.*?)">\n\n?', before, re.S)
            if not name:
                raise Refused("invoke_format")
            given = {}
            while stop == f"<{DSML}parameter":
                before, _ = read(f"/{DSML}parameter")
                p = re.fullmatch(r' name="(.*?)" string="(true|false)">(.*?)<\n?', before, re.S)
                if not p:
                    raise Refused("parameter_format")
                if p[1] in given:
                    raise Refused("parameter_duplicate")
                given[p[1]] = dumps(p[3]) if p[2] == "true" else p[3]
                before, stop = read(f"<{DSML}parameter", f"</{DSML}invoke")
                if before != ">\n":
                    raise Refused("parameter_format")
            arguments = "{" + ", ".join(f"{dumps(k)}: {v}" for k, v in given.items()) + "}"
            message["tool_calls"].append({"type": "function", "function": {
                "name": name[1], "arguments": arguments}})
        before, _ = read(EOS)
        if before:
            raise Refused("text_after_calls")
    if at < len(s):
        raise Refused("text_after_end")
    for x in (BOS, EOS, THINK, ENDTHINK, DSML):
        if x in message["content"] or x in message["reasoning_content"]:
            raise Refused("special_token_in_text")
    return message


# --- random conversations ---------------------------------------------------------------------

BITS = ["", "a", "x y", "\n", "\n\n", '"', "\\", "\t", "\u0000", "\u001f", "\u007f", "\u2028", "é",
        "天气", "🌤", BAR, LOW, "<", "</", USER, ASST, EOS, BOS, THINK, ENDTHINK, DSML,
        f"</{DSML}parameter>", f"<{DSML}invoke", "{}", "true", "3", "<result>", "</result>"]


def bits(r, most=4):
    return "".join(r.choice(BITS) for _ in range(r.randrange(most)))


def value(r, depth=0):
    kind = r.randrange(4 if depth > 2 else 6)
    if kind == 0:
        return r.choice([0, -1, 3, 12345678901234567890123, 1.5, 1e16, 1e-5, -0.0, 2.5e300, 1e22])
    if kind == 1:
        return r.choice([True, False, None])
    if kind < 4:
        return bits(r)
    if kind == 4:
        return [value(r, depth + 1) for _ in range(r.randrange(3))]
    return {bits(r, 2) + str(i): value(r, depth + 1) for i in range(r.randrange(3))}


def spelled(r, v):
    """JSON text of v, spelled in one of many ways."""
    s = json.dumps(v, ensure_ascii=r.random() < 0.5,
                   separators=r.choice([(",", ":"), (", ", ": "), (" ,\n", "\t: ")]))
    if r.random() < 0.1 and s.startswith("{") and len(s) > 2:
        s = '{"0": 0, ' + s[1:-1] + ', "0": [1e2, {"a": 1, "a": -0}]}'  # duplicate keys
    if r.random() < 0.05:
        s = r.choice(["", "{", "[1]", "3", "nul", '{"a": 01}', '{"a": "\\ud800"}', '{"a": NaN}',
                      '{"a": 1e999}', '{"a" 1}', "{} x", '{"a": "\t"}', '{"a": .5}'])
    return s


def tools(r):
    return [{"type": "function", "function": {"name": bits(r, 3), "description": bits(r),
                                              "parameters": value(r)}}
            for _ in range(r.randrange(3))]


def message(r, role):
    m = {"role": role}
    if r.random() < 0.9:
        m["content"] = r.choice([bits(r), bits(r), None, [{"type": "text", "text": bits(r)},
                                                          {"type": "text", "text": bits(r)}]])
    if role in ("system", "developer") and r.random() < 0.4:
        m["tools"] = tools(r)
    if role in ("system", "developer") and r.random() < 0.2:
        m["response_format"] = r.choice([{}, None, {"type": "json_object", "x": value(r)}])
    if role == "assistant":
        if r.random() < 0.7:
            m["reasoning_content"] = bits(r)
        if r.random() < 0.6:
            m["tool_calls"] = [{"id": str(i), "type": "function", "function": {
                "name": bits(r, 3), "arguments": spelled(r, {f"k{i}{bits(r, 2)}": value(r)
                                                             for i in range(r.randrange(3))})}}
                for i in range(r.randrange(3))]
    return m


def conversation(r):
    out = []
    if r.random() < 0.5:
        out.append(message(r, "system"))
    for _ in range(r.randrange(8)):
        role = r.choices(["user", "assistant", "system", "developer", "critic"],
                         [4, 5, 1, 0.5, 0.1])[0]
        m = message(r, role)
        out.append(m)
        n = len(m.get("tool_calls") or [])
        for _ in range(n if r.random() < 0.85 else r.randrange(n + 2)):
            out.append(message(r, "tool"))
    cut = r.choice([0, 0, 0, r.randrange(len(out) + 1)])
    case = {"messages": out[cut:], "options": {
        "thinking_mode": r.choice(["thinking", "chat"]), "drop_thinking": r.random() < 0.5,
        "add_default_bos_token": r.random() < 0.9, "keep": r.choice(["v32", "v32", "keep_all",
                                                                     "none"])}}
    if cut:
        case["context"] = out[:cut]
    return case


def completion(r):
    parts = [f"\n\n<{DSML}function_calls", ">\n", f"<{DSML}invoke", ' name="f">\n', ' name="',
             f"<{DSML}parameter", ' name="a" string="true">', ' name="b" string="false">', "<",
             f"/{DSML}parameter", f"</{DSML}parameter>\n", f"</{DSML}invoke", f"</{DSML}invoke>\n",
             f"</{DSML}function_calls>", EOS, ENDTHINK, "1", "x", '"', "\n", ">", "\u00a0"]
    whole = (f"\n\n<{DSML}function_calls>\n<{DSML}invoke name=\"f\">\n<{DSML}parameter name=\"a\" "
             f"string=\"true\">1</{DSML}parameter>\n<{DSML}parameter name=\"b\" string=\"false\">1"
             f"</{DSML}parameter>\n</{DSML}invoke>\n<{DSML}invoke name=\"g\">\n\n</{DSML}invoke>\n"
             f"</{DSML}function_calls>{EOS}")
    thinking = r.random() < 0.5
    s = "".join(r.choice(parts) for _ in range(r.randrange(12))) if r.random() < 0.3 else whole
    s = ("r" + ENDTHINK if thinking else "") + bits(r, 2) + s
    for _ in range(r.randrange(3)):
        at = r.randrange(len(s) + 1)
        s = s[:at] + r.choice([r.choice(parts), "", ""]) + s[at + r.randrange(8):]
    return {"thinking_mode": "thinking" if thinking else "chat", "text": s}


def compare(ctl, noun, cases, oracle):
    lines = "\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n"
    p = subprocess.run([ctl, noun, "--batch", "-"], input=lines.encode(), stdout=subprocess.PIPE)
    answers = p.stdout.decode().split("\n")[:-1]
    failed, errors = abs(len(answers) - len(cases)), {}
    for case, line in zip(cases, answers):
        try:
            want = oracle(case)
        except Refused as e:
            want = {"error": str(e)}
            errors[str(e)] = errors.get(str(e), 0) + 1
        if json.loads(line) != want:
            failed += 1
            if failed <= 3:
                print(f"{noun} {json.dumps(case, ensure_ascii=False)}\n  got  {line}\n"
                      f"  want {json.dumps(want, ensure_ascii=False)}")
    print(f"{noun}: {len(cases)} cases, {failed} differ; refused: {dict(sorted(errors.items()))}")
    return failed


def main():
    ctl = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
    r = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    failed = compare(ctl, "encode", [conversation(r) for _ in range(count)],
                     lambda c: {"prompt": encode(c)})
    failed += compare(ctl, "parse", [completion(r) for _ in range(count)], lambda c: {
        "message": parse(c["text"], c["thinking_mode"] == "thinking")})
    return 1 if failed else 0


sys.exit(main())
