"""Each tool as a stranger meets it: agentctl tool call --session against a real daemon."""
import json
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../integration"))
from agent import BIN, Daemon, open_session  # noqa: E402

SCRIPT = [{"steps": [{"text": "done"}]}]


class Session(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.d = Daemon(SCRIPT, profile="general", sandbox="required")
        cls.c = cls.d.client()
        cls.s = open_session(cls.c, cls.d)
        if cls.call("bash", command="true")["status"] == "unavailable":
            cls.d.close()
            cls.d = Daemon(SCRIPT, profile="general", sandbox="off")
            cls.c = cls.d.client()
            cls.s = open_session(cls.c, cls.d)

    @classmethod
    def tearDownClass(cls):
        cls.c.close()
        cls.d.close()

    @classmethod
    def call(cls, tool, **args):
        return cls.c.call("tool.call", sessionId=cls.s, name=tool, arguments=args)

    def ctl(self, tool, args, *more):
        return subprocess.run([BIN + "/agentctl", "tool", "call", tool, args, "--session", self.s,
                               "--socket", self.d.path, *more], capture_output=True, text=True)

    def path(self, name):
        return os.path.join(self.d.workspace, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()


class Walk(Session):
    def test_shell_keeps_what_a_shell_keeps(self):
        self.call("bash", command="set -o pipefail; set -u; set -o noclobber; shopt -s nullglob; "
                  "X=(a 'b c'); declare -A M=([k]=v); f() { echo in f $1; }; alias ll='ls -l'; "
                  "umask 027; mkdir -p deep; cd deep; export E=1; readonly R=2; "
                  "cd() { builtin cd \"$@\" && echo moved; }; trap 'echo bye' EXIT")
        got = self.call("bash", command="echo ${X[1]} ${M[k]} $E $R ${PWD##*/}; f 3; umask; "
                        "false | true; echo $?; shopt -q nullglob && echo nullglob; "
                        "alias ll; cd ..; ( echo $unset )")
        self.assertEqual(got["text"].split("\nbash: ")[0], "b c v 1 2 deep\nin f 3\n0027\n1\n"
                         "nullglob\nalias ll='ls -l'\nmoved")
        self.assertIn("unset: unbound variable", got["text"])
        # errexit ends its own command, not those after it; xtrace shows nothing of ours.
        self.call("bash", command="set +u; set +o pipefail; set +o noclobber; unset -f cd; set -e")
        got = self.call("bash", command="false; echo on; set -x; echo x")
        self.assertEqual(got["text"], "on\n++ echo x\nx\n[exit code: 0]")

    def test_what_is_left_running_is_said(self):
        got = self.call("bash", command="sleep 600 & echo started")
        self.assertEqual(got["text"], "started\n[what the command left running was ended; start it "
                         "with background true to keep it]\n[exit code: 0]")

    def test_jobs(self):
        got = self.call("bash", command="cat; sleep 600", background=True)
        self.assertRegex(got["text"], r"^\[running: job \d+, \d")
        n = int(got["text"].split("job ")[1].split(",")[0])
        self.assertEqual(self.call("job", action="send", id=n)["text"],
                         "send needs input, the text for the job\n[invalid arguments]")
        self.call("job", action="send", id=n, input="hello\n")
        end = time.monotonic() + 30
        got = self.call("job", action="output", id=n)
        while "hello" not in got["text"] and time.monotonic() < end:
            got = self.call("job", action="output", id=n)
        self.assertIn("hello\n[running: job", got["text"])
        got = self.call("job", action="kill", id=n)
        self.assertRegex(got["text"], r"^\[killed: job %d, " % n)
        self.assertEqual(got["status"], "ok")
        self.assertIn("exit code: 137", self.call("job", action="output", id=n)["text"])

    def test_soft_limit_becomes_a_job(self):
        got = self.call("bash", command="echo early; sleep 600", timeout_s=1)
        self.assertRegex(got["text"], r"^early\n\[running: job \d+, 1\.\d s\]$")
        n = int(got["text"].split("job ")[1].split(",")[0])
        self.assertEqual(self.call("job", action="kill", id=n)["status"], "ok")

    def test_long_output_can_be_read_back(self):
        got = self.call("bash", command="seq 1 100000")
        self.assertRegex(got["text"], r"\n\[truncated: kept 4096\+1024 of 588895 bytes; full output: "
                         r"spill:\d+, read with open or str_replace_editor view\]\n\[exit code: 0\]$")
        spill = got["text"].split("full output: ")[1].split(",")[0]
        got = self.call("str_replace_editor", command="view", path=spill,
                        view_range=[50000, 50001])
        self.assertEqual(got["text"], " 50000\t50000\n 50001\t50001\n[lines 50000-50001 of 100000; "
                         "view_range shows others]")
        self.assertIn("\nL99: 98", self.call("open", id=spill, loc=99, num_lines=1)["text"])

    def test_python(self):
        self.assertEqual(self.call("python", code="x = 41\nx + 1")["text"], "42\n[ok]")
        got = self.call("python", code="import sys\nprint('o'); print('e', file=sys.stderr)\nx")
        self.assertEqual(got["text"], "o\n41\n[stderr]\ne\n[ok]")
        got = self.call("python", code="input('name? ')")
        self.assertIn("EOFError: nobody can answer input() here; write the value into the code",
                      got["text"])
        got = self.call("python", code="import io\nsys.stdin = io.StringIO('hi\\n')\ninput()")
        self.assertEqual(got["text"], "'hi'\n[ok]")
        got = self.call("python", code="import json\njson.loads('{')")
        self.assertNotIn("/usr/lib", got["text"])
        got = self.call("python", code="while True: pass", timeout_s=1)
        self.assertIn("[timed out after 1 s: interrupted, variables are kept]", got["text"])
        self.assertFalse(got["stateLost"])
        self.assertEqual(self.call("python", code="x")["text"], "41\n[ok]")
        got = self.call("python", code="import time\nwhile True:\n try: time.sleep(60)\n "
                        "except BaseException: pass", timeout_s=1)
        self.assertIn("interpreter killed, variables are lost]", got["text"])
        self.assertTrue(got["stateLost"])
        self.assertIn("NameError", self.call("python", code="x")["text"])

    def test_python_calls_tools(self):
        self.write("birds.md", b"# Heron\n\nA heron stood in the river.\n")
        got = self.call("python", code="page = tools.search('heron')\nhit = tools.open(id=0)\n"
                        "'Heron' in page, hit.splitlines()[-1]")
        self.assertRegex(got["text"], r"^\(True, 'L4: A heron stood in the river.'\)\n\[ok\]\n"
                         r"\[called: search ok \d+ ms, open ok \d+ ms\]$")
        self.assertEqual([(c["tool"], c["status"]) for c in got["called"]],
                         [("search", "ok"), ("open", "ok")])
        got = self.call("python", code="tools.bash('echo from code; exit 3')")
        self.assertIn("tools.ToolError: from code\n[exit code: 3]\n[error: ToolError]", got["text"])
        got = self.call("python", code="tools.str_replace_editor('create', 'made.txt', 'x\\n')\n"
                        "tools.memory(action='write', name='n', text='t')\n"
                        "[tools.bash('echo %d' % i)[0] for i in range(5)]")
        self.assertTrue(got["text"].startswith("['0', '1', '2', '3', '4']\n[ok]\n[called: "))
        self.assertEqual([(c["tool"], c["status"]) for c in got["called"]],
                         [("str_replace_editor", "ok"), ("memory", "ok")] + 5 * [("bash", "ok")])
        self.assertTrue(all(set(c) == {"tool", "status", "ms"} for c in got["called"]), got)
        got = self.call("python", code="for i in range(12):\n  try: tools.bash('exit %d' % (i % 2))\n"
                        "  except Exception: pass")
        self.assertIn(", bash failed", got["text"])
        self.assertTrue(got["text"].endswith(", and 4 more]"), got["text"])
        self.assertEqual([c["status"] for c in got["called"]], 6 * ["ok", "failed"])
        self.assertEqual(self.read("made.txt"), b"x\n")
        for code, words in (("tools.python('1')", "cannot be called from code"),
                            ("tools.finish('x')", "cannot be called from code"),
                            ("tools.nope()", "there is no tool 'nope'"),
                            ("tools.search()", "argument 'query' is required"),
                            ("tools.search(1)", "must be a string, got the integer 1"),
                            ("tools.find('a', 1, 2)", "no argument '(positional)'"),
                            ("tools.search(query=print)", "TypeError: a tool takes text")):
            got = self.call("python", code=code)
            self.assertTrue(got["isError"], code)
            self.assertIn(words, got["text"])
        # The outer limit holds for both; nothing is out of step afterwards.
        got = self.call("python", code="tools.bash('sleep 600')", timeout_s=1)
        self.assertLess(got["us"], 60000000)
        self.assertTrue(got["isError"], got)
        self.assertEqual(self.call("python", code="hit[-6:]")["text"], "'river.'\n[ok]")
        log = self.d.read_log().replace('", "', '","').replace('": "', '":"')
        for how in ("started", "ok", "failed"):
            self.assertIn('"event":"tool","from":"python","tool":"bash","status":"%s"' % how, log)
        got = self.call("python", code="tools.bash('kill -9 $PPID')")
        self.assertEqual(got["called"][0]["tool"], "bash")
        self.assertNotEqual(got["called"][0]["status"], "started")
        self.assertNotIn("called", self.call("python", code="1"))

    def test_code_gets_no_tool_that_policy_denies(self):
        policy = self.d.root + "/narrow.yaml"
        with open(policy, "w") as f:
            f.write("version: 1\nsummary: t\nrequire: nolimits\nworkspace: dir\n"
                    "tools:\n  python: allow\n  memory: ask\n")
        for tool, words in (("bash", "[denied: bash is not in policy"),
                            ("memory", "nobody approved it]")):
            done = subprocess.run(
                [BIN + "/agentctl", "tool", "call", "python", json.dumps(
                    {"code": "tools.%s(%s)" % (tool, "'touch pwned'" if tool == "bash" else
                                               "action='list'")}),
                 "--policy", policy, "--workspace", self.d.workspace, "--sandbox", "off"],
                capture_output=True, text=True)
            self.assertIn(words, done.stdout)
        self.assertFalse(os.path.exists(self.path("pwned")))

    def test_figures_are_files(self):
        if subprocess.run(["/usr/bin/python3", "-c", "import matplotlib"],
                          capture_output=True).returncode:
            self.skipTest("python3-matplotlib is not installed")
        got = self.call("python", code="import matplotlib.pyplot as plt\nplt.plot([1, 2])\n"
                        "plt.figure()\nplt.show()", timeout_s=100)
        self.assertTrue(got["text"].endswith("figure: figures/figure-1.png\nfigure: "
                                             "figures/figure-2.png\n[ok]"), got["text"])
        self.assertEqual(self.read("figures/figure-1.png")[:8], b"\x89PNG\r\n\x1a\n")

    def edit(self, **args):
        return self.call("str_replace_editor", **args)

    def test_editor_keeps_line_ends(self):
        self.write("crlf.txt", b"one\r\ntwo\r\nthree\r\n")
        self.edit(command="str_replace", path="crlf.txt", old_str="one\ntwo\n", new_str="1\n2\n")
        self.edit(command="insert", path="crlf.txt", insert_line=1, new_str="new")
        self.assertEqual(self.read("crlf.txt"), b"1\r\nnew\r\n2\r\nthree\r\n")
        self.write("end.txt", b"a\nb")
        self.edit(command="insert", path="end.txt", insert_line=2, new_str="c")
        self.assertEqual(self.read("end.txt"), b"a\nb\nc")
        self.call("apply_patch", patch="*** Begin Patch\n*** Update File: crlf.txt\n@@\n 1\n-new\n"
                  "+newer\n 2\n*** Update File: end.txt\n@@\n-a\n+A\n b\n*** End Patch")
        self.assertEqual(self.read("crlf.txt"), b"1\r\nnewer\r\n2\r\nthree\r\n")
        self.assertEqual(self.read("end.txt"), b"A\nb\nc")

    def test_editor_refuses_stale_views(self):
        self.write("stale.txt", b"v1\n")
        self.edit(command="view", path="stale.txt")
        self.write("stale.txt", b"v2\n")
        for args in ({"command": "str_replace", "old_str": "v2", "new_str": "x"},
                     {"command": "create", "file_text": "x"}):
            got = self.edit(path="stale.txt", **args)
            self.assertEqual(got["text"], "stale.txt has changed since you last saw it, so it was "
                             "not edited. It now reads:\n     1\tv2\n[error]")
            self.assertEqual(self.read("stale.txt"), b"v2\n")
            self.write("stale.txt", b"v3\n")
            self.edit(command="view", path="stale.txt")
            self.write("stale.txt", b"v2\n")

    def test_patch_says_what_is_near(self):
        self.write("p.py", b"def f():\n    x = 1\n    y = 2\n    return x\n")
        got = self.call("apply_patch", patch="*** Begin Patch\n*** Update File: p.py\n@@\n     x = 1\n"
                        "-    y = 3\n+    y = 4\n*** Add File: never.txt\n+x\n*** End Patch")
        self.assertEqual(got["text"], "p.py: hunk 1 (line 4 of the patch) does not fit: the file has "
                         "no such place as:\n    x = 1\n    y = 3\nNearest is line 2, which reads:\n"
                         "    x = 1\n    y = 2\nNothing was changed.\n[error]")
        self.assertFalse(os.path.exists(self.path("never.txt")))

    def test_notes_of_a_workspace_are_shared(self):
        self.call("memory", action="write", name="team", text="build with ninja", scope="workspace")
        other = open_session(self.c, self.d)
        got = self.c.call("tool.call", sessionId=other, name="memory", arguments={
            "action": "read", "name": "team", "scope": "workspace"})
        self.assertEqual(got["text"], "build with ninja")
        got = self.c.call("tool.call", sessionId=other, name="memory",
                          arguments={"action": "list"})
        self.assertEqual(got["text"], "There are no notes.")

    def test_exit_codes(self):
        for args, code in (('{"command": "true"}', 0), ('{"command": "false"}', 1), ("{}", 2)):
            self.assertEqual(self.ctl("bash", args).returncode, code)
        self.assertEqual(json.loads(self.ctl("python", '{"code": "1"}', "--json").stdout)["text"],
                         "1\n[ok]")


class BadArguments(Session):
    """Everything that does not fit, to every tool: a sentence each, and the tool goes on."""

    def raw(self, tool, text):
        return self.c.call("tool.call", sessionId=self.s, name=tool, arguments=text)

    def wrong_values(self, spec):
        kinds = {"string": "s", "integer": 7, "boolean": True, "array": [], "object": {}}
        wanted = spec.get("type") or [o["type"] for o in spec["anyOf"]]
        for kind, value in kinds.items():
            if kind not in wanted:
                yield value
        yield from (None, 1.5, [[]], {"a": {"b": []}})
        if "minimum" in spec:
            yield spec["minimum"] - 1
        if "maximum" in spec:
            yield spec["maximum"] + 1
        if "enum" in spec:
            yield from ("", spec["enum"][0].upper(), spec["enum"][0] + "x")

    @staticmethod
    def good(spec):
        if "enum" in spec:
            return spec["enum"][0]
        return {"string": "x", "integer": max(1, spec.get("minimum", 1)), "boolean": False,
                "array": [], "object": {}}[spec.get("type", "string")]

    def tools(self):
        done = subprocess.run([BIN + "/agentctl", "tool", "list", "-p", "general", "--json"],
                              capture_output=True)
        return [t["function"] for t in json.loads(done.stdout)]

    def refused(self, tool, text, *words):
        got = self.raw(tool, text)
        self.assertEqual(got["status"], "invalid", (tool, text[:200], got))
        self.assertTrue(got["text"].endswith("[invalid arguments]"), got)
        for word in words:
            self.assertIn(word, got["text"], (tool, text[:200]))

    def test_wrong_kinds(self):
        for tool in self.tools():
            props = tool["parameters"]["properties"]
            need = {k: self.good(props[k]) for k in tool["parameters"].get("required", [])}
            for name, spec in props.items():
                for value in self.wrong_values(spec):
                    if isinstance(value, dict) and spec.get("type") == "object":
                        continue
                    self.refused(tool["name"], json.dumps({**need, name: value}),
                                 tool["name"] + ": argument '" + name)
            for name in need:
                less = {k: v for k, v in need.items() if k != name}
                self.refused(tool["name"], json.dumps(less), "'%s' is required" % name)
            self.refused(tool["name"], json.dumps({"nonsense": 1, **need}), "'nonsense'")
            for text in ("", "{", "[]", "null", "7", '"x"', "{\"a\":}", "{} {}",
                         '{"a": 1, "a": 2}', '{"x": "\\ud800"}', '{"x": "\\u0000"}',
                         '{"x":' + "[" * 3000 + "]" * 3000 + "}", '{"x": 99999999999999999999}'):
                if text or need:
                    self.refused(tool["name"], text)
        self.assertEqual(self.call("bash", command="echo on")["text"], "on\n[exit code: 0]")

    def test_extreme_values(self):
        long = "x" * 100000
        for tool, args in (
                ("bash", {"command": ""}), ("bash", {"command": "\n"}),
                ("bash", {"command": "true", "timeout_s": 2 ** 63 - 1}),
                ("bash", {"command": ": " + long}),
                ("job", {"action": "output", "id": -(2 ** 63)}),
                ("job", {"action": "wait", "id": 0, "wait_s": 2 ** 62}),
                ("python", {"code": ""}), ("python", {"code": long}),
                ("python", {"code": "1", "timeout_s": 2 ** 63 - 1}),
                ("search", {"query": ""}), ("search", {"query": long}),
                ("search", {"query": '" AND (', "topn": -(2 ** 63)}),
                ("search", {"query": "NEAR(", "topn": 2 ** 63 - 1}),
                ("open", {"id": ""}), ("open", {"id": long}), ("open", {"id": -9}),
                ("open", {"id": 2 ** 63 - 1}), ("open", {"cursor": 2 ** 63 - 1}),
                ("open", {"loc": 2 ** 63 - 1, "num_lines": 2 ** 63 - 1}),
                ("open", {"loc": -(2 ** 63), "num_lines": -(2 ** 63)}),
                ("find", {"pattern": ""}), ("find", {"pattern": long}),
                ("find", {"pattern": "x", "cursor": -(2 ** 63)}),
                ("str_replace_editor", {"command": "view", "path": ""}),
                ("str_replace_editor", {"command": "view", "path": long}),
                ("str_replace_editor", {"command": "view", "path": "."}),
                ("str_replace_editor", {"command": "view", "path": "../../etc/passwd"}),
                ("str_replace_editor", {"command": "view", "path": "b", "view_range": [9, 2]}),
                ("str_replace_editor", {"command": "view", "path": "b", "view_range": [-3, -4]}),
                ("str_replace_editor", {"command": "insert", "path": "b", "insert_line": 2 ** 62,
                                        "new_str": "x"}),
                ("str_replace_editor", {"command": "str_replace", "path": "b", "old_str": ""}),
                ("str_replace_editor", {"command": "create", "path": "b/c"}),
                ("str_replace_editor", {"command": "create", "path": "a\nb\t\x01", "file_text": ""}),
                ("apply_patch", {"patch": ""}), ("apply_patch", {"patch": long}),
                ("apply_patch", {"patch": "*** Begin Patch\n*** Update File: b\n@@\n*** End Patch"}),
                ("plan", {"items": []}), ("memory", {"action": "write", "name": "", "text": ""}),
                ("memory", {"action": "write", "name": "../b", "text": "x"}),
                ("memory", {"action": "write", "name": "b", "text": long}),
                ("recall", {}), ("recall", {"seq": -(2 ** 63)}), ("recall", {"query": '"*('}),
                ("finish", {"answer": ""}),
                ("finish", {"answer": "\u3010" + "9" * 40 + "\u2020L1-L2\u3011"})):
            self.write("b", b"one\ntwo\n")
            got = self.call(tool, **args)
            self.assertNotEqual(got["status"], "unknown", (tool, args))
            self.assertTrue(got["text"], (tool, args))
            if got["isError"]:
                self.assertRegex(got["text"], "[a-z]", (tool, args))
        self.assertEqual(self.call("bash", command="echo on")["text"], "on\n[exit code: 0]")

    def test_ten_megabytes(self):
        text = json.dumps({"command": "create", "path": "big", "file_text": "x" * (10 << 20)})
        done = subprocess.run([BIN + "/agentctl", "tool", "call", "str_replace_editor", "-",
                               "--session", self.s, "--socket", self.d.path], input=text.encode(),
                              capture_output=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex((done.stdout + done.stderr).decode(), "cap|limit|large|most|exceed|long")
        self.assertEqual(self.call("bash", command="echo on")["text"], "on\n[exit code: 0]")


if __name__ == "__main__":
    unittest.main(verbosity=1)
