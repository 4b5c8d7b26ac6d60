"""render.py - records to prompts: the message encoding of DeepSeek-V3.2 in thinking mode.

A record is what an oracle did (see synth.py). One turn of it becomes one example: the history
with its reasoning dropped, then the turn with its reasoning kept, as a list of segments
(text, is_literal, is_target). Text between two literals is one segment, because the daemon
tokenises it so. tests/train/test_render.sh holds this file against `agentctl encode`.
"""
import json
import os

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASST, DSML = "<｜User｜>", "<｜Assistant｜>", "｜DSML｜"
THINK, ENDTHINK = "<think>", "</think>"
LITERALS = [BOS, EOS, USER, ASST, DSML, THINK, ENDTHINK]

SYSTEM = "You are agentd, a careful assistant. Use the tools, then answer in plain words."

TOOLS_HEAD = """## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following \
as part of your reply to the user:
<｜DSML｜function_calls>
<｜DSML｜invoke name="$FUNCTION_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$FUNCTION_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while \
lists and objects should use JSON format. The "string" attribute should be set to "true" for \
string type parameters and "false" for other types (numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider \
outputting a thinking block. Here is an example:

<｜DSML｜function_calls>
...
</｜DSML｜function_calls>

<function_results>
...
</function_results>

<think>...thinking about results</think>

Here are the functions available in JSONSchema format:
<functions>
"""
TOOLS_TAIL = "\n</functions>\n"


def load_tools():
    """Profile demo's tools, as `agentctl tool list --profile demo --json` prints them."""
    with open(
        os.path.join(os.path.dirname(os.path.abspath(__file__)), "tools.json"), encoding="utf-8"
    ) as f:
        return json.load(f)


class Segments:
    """Collects text; cuts it at the template's literals, never at a literal in outside text."""

    def __init__(self):
        self.out = []
        self.held = []
        self.target = False

    def flush(self):
        if self.held:
            self.out.append(("".join(self.held), False, self.target))
            self.held = []

    def text(self, s):
        if s:
            self.held.append(s)

    def literal(self, s):
        self.flush()
        self.out.append((s, True, self.target))

    def template(self, s):
        """Template text in which literals count."""
        while s:
            at, lit = min(((s.find(x), x) for x in LITERALS if x in s), default=(-1, ""))
            if at < 0:
                self.text(s)
                return
            self.text(s[:at])
            self.literal(lit)
            s = s[at + len(lit) :]

    def own(self, target):
        self.flush()
        self.target = target


def preamble(g, tools):
    g.literal(BOS)
    g.text(SYSTEM)
    g.text("\n\n")
    g.template(TOOLS_HEAD)
    g.text("\n".join(json.dumps(t["function"], ensure_ascii=False) for t in tools))
    g.text(TOOLS_TAIL)


def calls(g, call):
    g.template(f'\n\n<{DSML}function_calls>\n<{DSML}invoke name="{call["name"]}">\n')
    for key, value in call["args"]:
        string = "true" if isinstance(value, str) else "false"
        g.template(f'<{DSML}parameter name="{key}" string="{string}">')
        g.text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        g.template(f"</{DSML}parameter>\n")
    if not call["args"]:
        g.text("\n")
    g.template(f"</{DSML}invoke>\n</{DSML}function_calls>")


def turn(g, request, steps, live):
    """live: the last turn, whose reasoning is kept and which is trained on."""
    g.literal(USER)
    g.text(request)
    g.literal(ASST)
    g.literal(THINK if live else ENDTHINK)
    for step in steps:
        g.own(live)
        if live:
            g.text(step["think"])
            g.literal(ENDTHINK)
        if "call" in step:
            calls(g, step["call"])
        else:
            g.text(step["answer"])
        g.literal(EOS)
        g.own(False)
        if "call" in step:
            g.text(
                "\n\n<function_results>\n<result>"
                + step["result"]
                + "</result>\n</function_results>\n\n"
            )
            g.literal(THINK if live else ENDTHINK)


def example(record, last, tools):
    """The segments of turn `last` of a record, the turns before it as history."""
    g = Segments()
    preamble(g, tools)
    for i, t in enumerate(record["turns"][: last + 1]):
        turn(g, t["request"], t["steps"], i == last)
    g.flush()
    return g.out
