"""agentctl tool call: the whole way of a call, through schema, cell and driver."""
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

BIN = os.environ.get("BIN", "build/ci/bin")


def call(tool, args, *options, stdin=None, timeout=600):
    text = args if isinstance(args, str) else json.dumps(args)
    done = subprocess.run([BIN + "/agentctl", "tool", "call", tool, text, "--json", *options],
                          capture_output=True, timeout=timeout, input=stdin)
    got = json.loads(done.stdout) if done.stdout else {"error": done.stderr.decode()}
    got["rc"] = done.returncode
    return got


def cells_work():
    return call("bash", {"command": "true"}).get("level") == "full"


class Unconfined(unittest.TestCase):
    level = "none"
    options = ("--sandbox", "off")

    def setUp(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="agentd-test-"))
        os.chmod(self.dir, 0o755)

    def tearDown(self):
        shutil.rmtree(self.dir)

    def call(self, tool, args, *options, **more):
        return call(tool, args, "--workspace", self.dir, *self.options, *options, **more)

    def test_bash_acts_on_the_workspace(self):
        got = self.call("bash", {"command": "echo made > here; echo out; exit 4"})
        self.assertEqual((got["text"], got["exit_code"], got["rc"], got["level"]),
                         ("out\n[exit code: 4]", 4, 1, self.level))
        with open(self.dir + "/here") as f:
            self.assertEqual(f.read(), "made\n")

    def test_python_editor_patchless_chain(self):
        self.assertEqual(self.call("python", {"code": "6 * 7"})["text"], "42\n[ok]")
        got = self.call("str_replace_editor", {"command": "create", "path": "a/b.txt",
                                               "file_text": "river\n"})
        self.assertEqual((got["text"], got["rc"]), ("The file a/b.txt has been created.", 0))
        got = self.call("search", {"query": "river"})
        self.assertIn("【0†river; publish_date: none†local】", got["text"])
        self.assertEqual(got["level"], self.level)

    def test_limits_are_reported(self):
        got = self.call("bash", {"command": "yes | head -c 2000000"})
        self.assertEqual(got["output_bytes"], 2000000)
        self.assertEqual(got["cut_bytes"], 2000000 - 5120)
        self.assertLess(len(got["text"]), 6000)

    def test_arguments_from_stdin(self):
        got = self.call("bash", "-", stdin=b'{"command": "echo piped"}')
        self.assertEqual(got["text"], "piped\n[exit code: 0]")

    def test_large_arguments(self):
        text = "x" * 500000
        got = self.call("str_replace_editor", "-", stdin=json.dumps(
            {"command": "create", "path": "big", "file_text": text}).encode())
        self.assertEqual(got["rc"], 0)
        self.assertEqual(os.path.getsize(self.dir + "/big"), 500000)
        got = self.call("bash", "-", stdin=json.dumps(
            {"command": "x='%s'; echo ${#x}" % text}).encode())
        self.assertEqual(got["text"], "500000\n[exit code: 0]")

    def test_exit_codes(self):
        self.assertEqual(self.call("bash", {})["rc"], 2)
        self.assertEqual(self.call("nope", {})["rc"], 2)
        self.assertEqual(self.call("bash", "not json")["rc"], 2)
        self.assertEqual(self.call("recall", {"query": "x"})["rc"], 3)
        self.assertEqual(call("bash", {"command": "x"}, "--workspace", "/nonexistent")["rc"], 1)
        self.assertEqual(self.call("bash", {"command": "x"}, "--profile", "nope")["rc"], 1)

    def test_policy_decides(self):
        for policy, tool, args, want in (
                ("default", "bash", {"command": "echo ran > f"}, "[denied: bash is not in policy "
                 "default.yaml]"),
                ("computation", "bash", {"command": "echo ran > f"}, "[denied: bash is not in "
                 "policy computation.yaml]"),
                ("computation", "python", {"code": "2 ** 10"}, "1024\n[ok]")):
            got = self.call(tool, args, "--policy", policy)
            self.assertEqual(got["text"], want)
            self.assertEqual(got["rc"], 3 if "denied" in want else 0)
        self.assertFalse(os.path.exists(self.dir + "/f"))
        got = call("bash", {"command": "x"}, "--policy", "/nonexistent.yaml")
        self.assertEqual(got["rc"], 1)

    def test_lua_tools(self):
        tools, policy = self.dir + "/tools", self.dir + "/p.yaml"
        shutil.copytree(os.environ.get("SRC", ".") + "/configs/tools", tools)
        with open(policy, "w") as f:
            f.write("version: 1\nsummary: t\nrequire: nolimits\nworkspace: dir\n"
                    "tools:\n  convert_length: allow\n  count_lines: allow\n  forever: allow\n")
        opts = ("--tools", tools, "--policy", policy)
        got = self.call("convert_length", {"value": 3, "from": "mile", "to": "km"}, *opts)
        self.assertEqual((got["text"], got["level"]), ("3 mile = 4.82803 km", "daemon"))
        got = self.call("convert_length", {"value": 3, "from": "mile", "to": "parsec"}, *opts)
        self.assertIn("argument 'to' must be one of", got["text"])
        got = self.call("count_lines", {"folder": ".", "pattern": "*.yaml"}, *opts)
        self.assertEqual((got["text"], got["level"]), ("8\n[exit code: 0]", self.level))
        self.call("count_lines", {"folder": "'; touch pwned; '", "pattern": "x"}, *opts)
        self.assertFalse(os.path.exists(self.dir + "/pwned"))
        got = self.call("convert_length", {"value": 1, "from": "m", "to": "m"}, "--tools", tools)
        self.assertIn("[denied: convert_length is not in policy coding.yaml]", got["text"])
        # A script that never ends, or fails, comes back with a sentence.
        for body, want in (("while true do end", "step"), ("error('no luck')", "no luck"),
                           ("return io.open('/etc/passwd')", "io"),
                           ("return ('a'):rep(100):find(('.*'):rep(30) .. 'b')", "too long"),
                           ("while true do local s = ('x'):rep(8000000) end", "or 2 s"),
                           ("setmetatable({}, {__gc = function() while true do end end})", "__gc"),
                           ("local s = 'x' while true do s = s .. s end", "memory"),
                           ("local function f() return 1 + f() end return f()", "memory"),
                           ("error({code = 5})", "error"),
                           ("local t = {} while true do t[#t + 1] = {} end", "memory")):
            with open(tools + "/forever.lua", "w") as f:
                f.write('tool = {name = "forever", description = "d", parameters = {type = '
                        '"object", properties = {}}}\nfunction run(a) %s end\n' % body)
            got = self.call("forever", {}, *opts)
            self.assertTrue(got["is_error"])
            self.assertIn(want, got["text"])
        # What does not load is an error that names the file; the schema bytes are stable.
        with open(tools + "/forever.lua", "w") as f:
            f.write("tool = {name = 'bash'}")
        done = subprocess.run([BIN + "/agentctl", "tool", "list", "--tools", tools],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("forever.lua", done.stderr)
        with open(tools + "/forever.lua", "w") as f:
            f.write("tool = {name = 'forever', description = 'd', parameters = {type = 'object', "
                    "properties = {x = {type = 'strnig'}}}} function run() end")
        done = subprocess.run([BIN + "/agentctl", "tool", "list", "--tools", tools],
                              capture_output=True, text=True)
        self.assertIn("properties.x: type must be one of", done.stderr)
        os.unlink(tools + "/forever.lua")
        texts = {subprocess.run([BIN + "/agentctl", "tool", "list", "-p", "math", "--json",
                                 "--tools", tools], capture_output=True).stdout for _ in range(5)}
        self.assertEqual(len(texts), 1)
        listed = json.loads(texts.pop())
        self.assertEqual([t["function"]["name"] for t in listed],
                         ["python", "finish", "convert_length", "count_lines"])

    def test_hooks_narrow(self):
        with open(self.dir + "/hook.lua", "w") as f:
            f.write("function before_call(c)\n  if c.tool == 'bash' and c.args.command:find('rm ') "
                    "then return 'deny', 'no deleting' end\n  return 'allow'\nend\n")
        with open(self.dir + "/p.yaml", "w") as f:
            f.write("version: 1\nsummary: t\nrequire: nolimits\nworkspace: dir\n"
                    "hooks: [%s/hook.lua]\ntools:\n  bash: allow\n" % self.dir)
        opts = ("--policy", self.dir + "/p.yaml")
        self.assertEqual(self.call("bash", {"command": "rm -rf x"}, *opts)["text"],
                         "[denied: hook hook.lua: no deleting]")
        self.assertEqual(self.call("bash", {"command": "echo ok"}, *opts)["rc"], 0)
        self.assertEqual(self.call("python", {"code": "1"}, *opts)["rc"], 3)

    def test_search_engines_from_yaml(self):
        example = os.environ.get("SRC", ".") + "/configs/search.yaml"
        got = self.call("search", {"query": "nothing here"}, "--search", example)
        # The example's hosts are not ours to reach: the file is read, the answer is a sentence.
        self.assertIn("nothing here", got["text"])
        with open(self.dir + "/bad.yaml", "w") as f:
            f.write("providers: none\n")
        got = self.call("search", {"query": "x"}, "--search", self.dir + "/bad.yaml")
        self.assertIn("bad.yaml:1: 'providers' must be a list", got["text"])
        self.assertEqual(got["rc"], 3)

    def test_lua_function_as_search_engine(self):
        engines = tempfile.TemporaryDirectory(prefix="agentd-test-")
        self.addCleanup(engines.cleanup)
        with open(engines.name + "/engine.lua", "w") as f:
            f.write("function request(query, count, source)\n"
                    "  if query == 'loop' then while true do end end\n"
                    "  if query == 'bomb' then return {url = string.rep('x', 1000000000)} end\n"
                    "  if query == 'fail' then error('no luck') end\n"
                    "  if query == 'odd' then return 5 end\n"
                    "  if query == 'qqempty zz' then return {} end\n"
                    "  return {{title = 'T ' .. query, url = 'http://example.org/' .. count,\n"
                    "           snippet = source, date = '2024'},\n"
                    "          {title = 'bad', url = 'file:///etc/passwd'}, 7}\nend\n")
        with open(engines.name + "/s.yaml", "w") as f:
            f.write("providers:\n  - name: mine\n    type: lua\n    file: engine.lua\n")
        options = ("--search", engines.name + "/s.yaml")
        got = self.call("search", {"query": "r\u00edver", "topn": 3}, *options)
        self.assertIn("  * \u30100\u2020T r\u00edver; publish_date: 2024\u2020example.org\u3011 web",
                      got["text"])
        self.assertNotIn("passwd", got["text"])
        for query, words in (("loop", "step"), ("bomb", "memory"), ("fail", "no luck"),
                             ("odd", "request() must return a table")):
            got = self.call("search", {"query": query}, *options)
            self.assertTrue(got["is_error"], got)
            self.assertIn("search provider 'mine'", got["text"])
            self.assertIn(words, got["text"])
        self.assertNotIn("\u2020", self.call("search", {"query": "qqempty zz"}, *options)["text"])
        for text, words in (("    file: nope.lua\n", "nope.lua"), ("", "needs 'file'")):
            with open(engines.name + "/bad.yaml", "w") as f:
                f.write("providers:\n  - type: lua\n" + text)
            got = self.call("search", {"query": "x"}, "--search", engines.name + "/bad.yaml")
            self.assertIn("bad.yaml:", got["error"])
            self.assertIn(words, got["error"])

    def test_tools_of_the_daemon(self):
        state = self.dir + "/state"
        os.mkdir(state)
        opt = ("--state", state)
        self.assertIn("There are no notes", self.call("memory", {"action": "list"}, *opt)["text"])
        self.call("memory", {"action": "write", "name": "a-1", "text": "first line\n"}, *opt)
        self.call("memory", {"action": "append", "name": "a-1", "text": "second"}, *opt)
        got = self.call("memory", {"action": "read", "name": "a-1"}, *opt)
        self.assertEqual(got["text"], "first line\nsecond")
        self.assertEqual(self.call("memory", {"action": "search", "text": "SECOND"}, *opt)["text"]
                         .strip(), "a-1:2: second")
        self.assertEqual(self.call("memory", {"action": "read", "name": "../../etc/passwd"},
                                   *opt)["rc"], 2)
        self.assertEqual(self.call("memory", {"action": "write", "name": "big",
                                              "text": "x" * 70000}, *opt)["rc"], 1)
        self.call("memory", {"action": "delete", "name": "a-1"}, *opt)
        self.assertEqual(self.call("memory", {"action": "read", "name": "a-1"}, *opt)["rc"], 1)
        got = self.call("plan", {"items": [{"content": "x", "status": "done"},
                                           {"content": "y", "status": "pending"}]})
        self.assertEqual(got["text"], "Plan kept: 2 steps, 1 done, 0 in progress.")
        self.assertEqual(self.call("finish", {"answer": "plain"})["text"], "Finished.")
        got = self.call("finish", {"answer": "so 【0†L1-L2】"})
        self.assertIn("no page was shown under cursor 0", got["text"])
        for answer in ("", " \n\t"):
            got = self.call("finish", {"answer": answer})
            self.assertEqual((got["status"], got["rc"]), ("failed", 1))
            self.assertIn("'answer' is empty; say what was done or found", got["text"])
        open(self.dir + "/there.txt", "w").close()
        os.symlink("/etc/passwd", self.dir + "/leads_out")
        os.symlink("/etc", self.dir + "/etc")
        for path in ("there.txt", "./there.txt", "/workspace/there.txt", self.dir + "/there.txt", "leads_out"):
            got = self.call("finish", {"answer": "x", "artifacts": [path]})
            self.assertEqual(got["text"], "Finished.", path)
        for path, words in (("gone.txt", "'gone.txt' does not exist"), ("/etc/passwd", "is not in the workspace"),
                            ("etc/passwd", "does not exist"), ("../" * 20 + "etc/passwd", "does not exist"),
                            ("a\x1b[31m\nb", "does not exist")):
            got = self.call("finish", {"answer": "x", "artifacts": ["there.txt", path]})
            self.assertEqual(got["rc"], 1, path)
            self.assertIn(words, got["text"])
            self.assertIn("1 artifact is not there; write it into the workspace or leave it out", got["text"])
            self.assertNotIn("\x1b", got["text"])

    def test_nothing_is_left(self):
        mark = "141421.%d" % os.getpid()
        self.call("bash", {"command": "setsid nohup sleep %s & disown; echo" % mark})
        time.sleep(0.1)
        left = subprocess.run(["pgrep", "-f", "sleep " + mark], capture_output=True)
        self.assertEqual(left.stdout, b"")

    def test_undo_is_kept(self):
        with open(self.dir + "/f.txt", "w") as f:
            f.write("before\n")
        state = self.dir + "/state"
        os.mkdir(state)
        self.call("str_replace_editor", {"command": "str_replace", "path": "f.txt",
                                         "old_str": "before", "new_str": "after"},
                  "--state", state)
        with open(state + "/undo/0000.json") as f:
            self.assertEqual(json.load(f), {"path": "f.txt", "existed": True,
                                            "content": "before\n"})


class Confined(Unconfined):
    level = "full"
    options = ()

    def test_cell_is_a_cell(self):
        got = self.call("bash", {"command": "pwd; id -u; ls /root /home /srv 2>&1 | head -3; "
                                            "ls -d /proc/[0-9]* | wc -l"})
        self.assertIn("/workspace\n1000\n", got["text"])
        self.assertIn("No such file", got["text"])

    def test_attacks_on_the_tool_itself_are_told(self):
        got = self.call("bash", {"command": "kill -9 $PPID; sleep 1"})
        self.assertEqual(got["status"], "unknown")
        self.assertIn("may have had effects", got["text"])
        self.assertTrue(got["state_lost"])
        with open(self.dir + "/p.yaml", "w") as f:
            f.write("version: 1\nsummary: t\nrequire: nolimits\nworkspace: dir\n"
                    "tools:\n  bash:\n    decision: allow\n    timeout: 1s\n")
        # Stopping it holds nobody: pid 1 of the cell sends it on, and limits hold.
        got = self.call("bash", {"command": "kill -STOP $PPID; sleep 60"}, "--policy",
                        self.dir + "/p.yaml")
        self.assertEqual(got["status"], "timed_out")
        got = self.call("bash", {"command": "kill -STOP $PPID; echo on"})
        self.assertEqual(got["text"], "on\n[exit code: 0]")

    def test_memory_limit_is_named(self):
        with open(self.dir + "/p.yaml", "w") as f:
            f.write("version: 1\nsummary: t\nrequire: nolimits\nworkspace: dir\n"
                    "limits:\n  memory: 200M\ntools:\n  python: allow\n")
        got = self.call("python", {"code": "b = bytes(1) * (400 << 20)\nlen(b)"}, "--policy",
                        self.dir + "/p.yaml")
        self.assertTrue(got["is_error"], got["text"])
        self.assertNotIn(str(400 << 20), got["text"])


POLICY = """version: 1
summary: test
require: nolimits
workspace: dir
network:
  mode: proxy
  ports: [443, %d]
  allow: ["%s"]
tools:
  open: allow
  search: allow
  bash: allow
"""


def own_address():
    """An address of this host that is not the loopback, or None."""
    done = subprocess.run(["hostname", "-I"], capture_output=True, text=True)
    return next((a for a in done.stdout.split() if ":" not in a and not a.startswith("127.")), None)


class Proxied(unittest.TestCase):
    """Pages through the daemon's proxy: from a cell without a network of its own."""

    def setUp(self):
        self.address = own_address()
        if not self.address:
            self.skipTest("this host has no address but the loopback")
        self.dir = tempfile.mkdtemp(prefix="agentd-test-")
        test = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                test.seen.append(self.path)
                self.path = self.path.split("?")[0]
                there = {"/ok": b"<title>Ok</title>reached",
                         "/search": json.dumps({"results": [{
                             "title": "Hit", "url": "http://%s:%d/ok" % (test.address, test.port),
                             "content": "found"}]}).encode(),
                         "/go": ("http://127.0.0.2:%d/ok" % test.port),
                         "/meta": "http://169.254.169.254/latest"}.get(self.path)
                self.send_response(302 if isinstance(there, str) else 200 if there else 404)
                if isinstance(there, str):
                    self.send_header("Location", there)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(there if isinstance(there, bytes) else b"")

            def log_message(self, *args):
                pass

        self.seen = []
        self.server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.policy = self.dir + "/p.yaml"
        with open(self.policy, "w") as f:
            f.write(POLICY % (self.port, self.address))

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()
        shutil.rmtree(self.dir)

    def open(self, url):
        return call("open", {"id": url}, "--policy", self.policy, "--workspace", self.dir)

    def test_listed_host_only(self):
        base = "http://%s:%d" % (self.address, self.port)
        self.assertIn("reached", self.open(base + "/ok")["text"])
        self.assertEqual(self.open(base + "/ok")["level"], "full")
        for url, want in ((base + "/go", "127.0.0.2"), (base + "/meta", "169.254.169.254"),
                          ("http://unlisted.invalid/", "allow list"),
                          ("https://unlisted.invalid/", "does not allow")):
            got = self.open(url)
            self.assertTrue(got["is_error"], url)
            self.assertIn(want, got["text"])
            self.assertNotIn("reached", got["text"])
        self.assertEqual(self.seen.count("/ok"), 2)

    def test_search_engines_through_the_proxy(self):
        base = "http://%s:%d" % (self.address, self.port)
        with open(self.dir + "/engine.lua", "w") as f:
            f.write("function request(q) return {url = '%s/search?lua=' .. q} end\n"
                    "function results(a, q, n)\n  local out = {}\n  for i, r in ipairs(a.results)"
                    " do out[i] = {title = r.title .. q, url = r.url, snippet = r.content} end\n"
                    "  return out\nend\n" % base)
        for text, want in (("type: searxng\n    url: %s" % base, "Hit; publish_date: none"),
                           ("type: json\n    url: \"%s/search?x={query}\"\n    snippet: content"
                            % base, "Hit; publish_date: none"),
                           ("type: lua\n    file: engine.lua", "Hitbird; publish_date: none")):
            with open(self.dir + "/s.yaml", "w") as f:
                f.write("providers:\n  - name: p\n    " + text + "\n")
            got = call("search", {"query": "bird"}, "--policy", self.policy, "--workspace", self.dir,
                       "--search", self.dir + "/s.yaml")
            self.assertIn(want, got["text"], text)
            self.assertIn("found", got["text"])
            self.assertEqual(got["level"], "full")
        self.assertEqual(self.seen, ["/search?format=json&q=bird&categories=general",
                                     "/search?x=bird", "/search?lua=bird"])

    def test_cassette(self):
        base = "http://%s:%d" % (self.address, self.port)
        tape = self.dir + "/tape"
        os.mkdir(self.dir + "/ws")
        with open(self.dir + "/s.yaml", "w") as f:
            f.write("providers:\n  - name: p\n    type: searxng\n    url: %s\n" % base)

        def run(mode, tool, args, policy):
            return call(tool, args, "--policy", policy, "--workspace", self.dir + "/ws", "--search",
                        self.dir + "/s.yaml", "--cassette", mode + tape)
        asked = (("search", {"query": "bird"}), ("open", {"id": base + "/ok"}))
        first = [run("record:", *a, self.policy)["text"] for a in asked]
        self.assertIn("Hit; publish_date", first[0])
        self.assertIn("reached", first[1])
        n = len(self.seen)
        none = self.dir + "/none.yaml"
        with open(none, "w") as f:
            f.write("version: 1\nsummary: t\nrequire: full\nworkspace: dir\ntools:\n"
                    "  open: allow\n  search: allow\n")
        self.assertEqual([run("replay:", *a, none)["text"] for a in asked], first)
        self.assertEqual(len(self.seen), n)
        got = run("replay:", "open", {"id": base + "/other"}, none)
        self.assertIn("it was not recorded", got["text"])
        self.assertIn("record:FILE or replay:FILE", call(
            "open", {"id": base}, "--workspace", self.dir, "--cassette", tape)["text"])
        self.assertIn("nope", call("open", {"id": base}, "--workspace", self.dir, "--cassette",
                                   "replay:" + self.dir + "/nope")["text"])

    def test_commands_go_through_the_proxy_and_nowhere_else(self):
        fetch = ("python3 -c \"import urllib.request as u; print(u.urlopen('http://%s:%d/ok', "
                 "timeout=5).read())\" 2>&1 | tail -1")
        around = ("python3 -c \"import socket; socket.create_connection(('%s', %d), 3)\" "
                  "2>&1 | tail -1")
        for command, want, n in ((fetch % (self.address, self.port), "reached", 1),
                                 (fetch % ("unlisted.invalid", self.port), "403", 1),
                                 (around % (self.address, self.port), "rror", 1)):
            got = call("bash", {"command": command}, "--policy", self.policy, "--workspace",
                       self.dir)
            self.assertIn(want, got["text"])
            self.assertEqual(len(self.seen), n)


def load_tests(loader, tests, pattern):
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(Unconfined))
    if cells_work():
        suite.addTests(loader.loadTestsFromTestCase(Confined))
        suite.addTests(loader.loadTestsFromTestCase(Proxied))
    else:
        print("skipped: no full sandbox on this host: "
              + call("bash", {"command": "true"}).get("text", ""), file=sys.stderr)
    return suite


if __name__ == "__main__":
    unittest.main(verbosity=1)
