"""agentd-tool serve from outside: real shells, real interpreters, real files."""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve_client import BIN, Serve  # noqa: E402


class Case(unittest.TestCase):
    options = ()

    def setUp(self):
        self.dir = os.path.realpath(tempfile.mkdtemp(prefix="agentd-test-"))
        self.serve = Serve("--workspace", self.dir, *self.options)

    def tearDown(self):
        self.assertEqual(self.serve.close(), 0)
        shutil.rmtree(self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)

    def read(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def bash(self, command, **more):
        return self.serve.call("bash", {"command": command}, **more)

    def python(self, code, **more):
        return self.serve.call("python", {"code": code}, **more)

    def edit(self, **args):
        return self.serve.call("str_replace_editor", args)


def alive(marker):
    """Processes whose command line holds the marker."""
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as f:
                    if marker.encode() in f.read():
                        found.append(int(pid))
            except OSError:
                pass
    return found


class Bash(Case):
    def test_state_survives(self):
        os.mkdir(self.path("sub"))
        self.bash("X='a  b'; export Y=2; f() { echo \"$X $1\"; }; alias g='echo alias'; cd sub; "
                  "declare -A m=([k]='v w'); shopt -s nullglob; shopt -u cmdhist; umask 077")
        before = set(self.bash("shopt")["text"].split("\n"))
        got = self.bash("f z; echo $Y ${m[k]}; pwd; shopt nullglob; umask; alias g")
        self.assertEqual(before - set(self.bash("shopt")["text"].split("\n")), set())
        self.assertIn("cmdhist        \toff", before)
        self.assertEqual(got["text"], "a  b z\n2 v w\n%s/sub\nnullglob       \ton\n0077\n"
                         "alias g='echo alias'\n[exit code: 0]" % self.dir)

    def test_state_survives_exit_but_not_a_kill(self):
        self.bash("A=1; exit 7")
        self.bash("A=2; kill -9 $$")
        self.assertEqual(self.bash("echo $A")["text"], "1\n[exit code: 0]")
        self.bash("A=3; exec true")
        self.assertEqual(self.bash("echo $A")["text"], "1\n[exit code: 0]")

    def test_values_with_newlines_and_quotes(self):
        self.bash("V=$'one\\ntwo \\'q\\' \"d\" $x `y` \\\\ end'")
        self.assertEqual(self.bash("printf %s \"$V\"")["text"],
                         "one\ntwo 'q' \"d\" $x `y` \\ end\n[exit code: 0]")

    def test_exit_codes(self):
        self.assertEqual(self.bash("exit 3")["exit_code"], 3)
        self.assertEqual(self.bash("false")["text"], "[exit code: 1]")
        self.assertEqual(self.bash("nosuchcommand")["text"],
                         "bash: line 1: nosuchcommand: command not found\n[exit code: 127]")
        got = self.bash("kill -9 $$")
        self.assertEqual((got["status"], got["exit_code"]), ("failed", 137))

    def test_syntax_error_is_reported(self):
        got = self.bash("if then")
        self.assertIn("syntax error", got["text"])
        self.assertEqual(got["exit_code"], 2)

    def test_stdout_and_stderr_are_merged_in_order(self):
        self.assertEqual(self.bash("echo a; echo b >&2; echo c")["text"], "a\nb\nc\n[exit code: 0]")

    def test_long_output_is_cut_and_spilled_whole(self):
        got = self.bash("seq 1 20000")
        whole = "".join("%d\n" % i for i in range(1, 20001))
        self.assertEqual(got["output_bytes"], len(whole))
        self.assertEqual(got["cut_bytes"], len(whole) - 4096 - 1024)
        self.assertTrue(got["text"].startswith("1\n2\n3\n"))
        self.assertIn("20000\n[truncated: kept 4096+1024 of %d bytes; full output: spill:%d, "
                      % (len(whole), got["spill"]), got["text"])
        view = self.edit(command="view", path="spill:%d" % got["spill"], view_range=[9000, 9001])
        self.assertIn("  9000\t9000\n  9001\t9001\n", view["text"])

    def test_flood_stays_flat(self):
        got = self.bash("head -c 300000000 /dev/zero")
        self.assertEqual(got["output_bytes"], 300000000)
        with open("/proc/%d/status" % self.serve.proc.pid) as f:
            peak = [int(l.split()[1]) for l in f if l.startswith("VmHWM")][0]
        self.assertLess(peak, 64 * 1024)

    def test_hostile_bytes(self):
        got = self.bash("printf 'a\\0b\\xff\\033[31mred\\r\\n\\xc3'")
        self.assertEqual(got["text"], "a\u2400b\ufffd\u241b[31mred\n\ufffd\n[exit code: 0]")

    def test_nothing_outlives_a_call(self):
        mark = "314159.%d" % os.getpid()
        self.bash("sleep %s & setsid sleep %s & (setsid nohup sleep %s &) ; "
                  "python3 -c 'import os,time\nif os.fork()==0:\n os.setsid()\n"
                  " if os.fork()==0: os.execlp(\"sleep\",\"sleep\",\"%s\")'" % ((mark,) * 4))
        self.assertEqual(alive(mark), [])

    def test_timeout_kills_the_tree_without_jobs(self):
        mark = "271828.%d" % os.getpid()
        got = self.bash("echo begun; (sleep %s; echo no) | cat" % mark, timeout_s=1, jobs=False)
        self.assertEqual(got["status"], "timed_out")
        self.assertEqual(got["text"], "begun\n[timed out: killed after 1 s]")
        self.assertEqual(alive(mark), [])

    def test_command_sees_no_descriptor_of_ours(self):
        got = self.bash("ls /proc/self/fd")  # 3 is the folder that ls reads
        self.assertEqual(got["text"], "0\n1\n2\n3\n[exit code: 0]")


class Jobs(Case):
    def job(self, **args):
        return self.serve.call("job", args)

    def test_soft_limit_makes_a_job_that_ends(self):
        got = self.bash("echo early; sleep 2; echo late; exit 5", timeout_s=1)
        self.assertEqual(got["status"], "running")
        self.assertRegex(got["text"], r"^early\n\[running: job 1, 1\.\d s\]$")
        self.assertIn("job 1: running", self.job(action="list")["text"])
        got = self.job(action="wait", id=1, wait_s=20)
        self.assertRegex(got["text"], r"^late\n\[exit code: 5; job 1 ended after \d\.\d s\]$")
        self.assertEqual(got["exit_code"], 5)

    def test_shell_goes_on_beside_a_job(self):
        self.serve.call("bash", {"command": "sleep 60", "background": True})
        self.assertEqual(self.bash("echo here")["text"], "here\n[exit code: 0]")
        self.assertTrue(self.job(action="kill", id=1)["text"].startswith("[killed: job 1, "))

    def test_input_and_notice(self):
        self.serve.call("bash", {"command": "read x; echo got $x", "background": True})
        got = self.job(action="send", id=1, input="hello\n")
        self.assertEqual(got["status"], "ok")
        for _ in range(100):  # the notice rides in whichever result comes after the end
            if "notices" in got:
                break
            time.sleep(0.05)
            got = self.bash("true")
        self.assertEqual(got["notices"], "job 1 ended with exit code 0\n")
        self.assertIn("got hello", self.job(action="output", id=1)["text"])

    def test_flooding_job_never_stalls(self):
        self.serve.call("bash", {"command": "head -c 50000000 /dev/zero; echo done",
                                 "background": True})
        got = self.job(action="wait", id=1, wait_s=60)
        self.assertEqual(got["exit_code"], 0)
        self.assertTrue(got["output_bytes"] >= 50000000)

    def test_unknown_job(self):
        self.assertEqual(self.job(action="output", id=9)["status"], "invalid")
        self.assertEqual(self.job(action="wait")["status"], "invalid")

    def test_jobs_die_with_the_driver(self):
        mark = "161803.%d" % os.getpid()
        self.serve.call("bash", {"command": "sleep %s" % mark, "background": True})
        self.serve.send(reset=True)
        self.serve.answer()
        self.assertEqual(alive(mark), [])


class Python(Case):
    def test_value_is_echoed_and_state_kept(self):
        self.assertEqual(self.python("x = 20\nprint('p')\nx + 1")["text"], "p\n21\n[ok]")
        self.assertEqual(self.python("def f(): return x\nf()")["text"], "20\n[ok]")
        self.assertEqual(self.python("None")["text"], "[ok]")
        self.assertEqual(self.python("_")["text"], "20\n[ok]")

    def test_stderr_apart(self):
        got = self.python("import sys\nprint('o')\nprint('e', file=sys.stderr)\n3")
        self.assertEqual(got["text"], "o\n3\n[stderr]\ne\n[ok]")

    def test_traceback_has_user_frames_only(self):
        got = self.python("import json\ndef f(s):\n    return json.loads(s)\nf('{')")
        self.assertEqual(got["status"], "failed")
        self.assertIn('File "<cell 1>", line 3, in f\n    return json.loads(s)', got["text"])
        self.assertNotIn("/usr/lib", got["text"])
        self.assertNotIn("<driver>", got["text"])
        self.assertTrue(got["text"].endswith("[error: JSONDecodeError]"))

    def test_interrupt_keeps_variables(self):
        self.python("k = 5")
        got = self.python("while True: pass", timeout_s=1)
        self.assertEqual(got["status"], "timed_out")
        self.assertIn("[timed out after 1 s: interrupted, variables are kept]", got["text"])
        self.assertEqual(self.python("k")["text"], "5\n[ok]")

    def test_stubborn_code_is_killed_and_said_so(self):
        self.python("k = 5")
        got = self.python("import time\nwhile True:\n  try: time.sleep(60)\n"
                          "  except BaseException: pass", timeout_s=1)
        self.assertIn("variables are lost", got["text"])
        self.assertTrue(got["state_lost"])
        self.assertIn("NameError", self.python("k")["text"])

    def test_death_is_said(self):
        got = self.python("import os\nprint('x')\nos._exit(9)")
        self.assertEqual(got["text"], "x\n[the interpreter ended with exit code 9, variables are "
                         "lost]")
        self.assertTrue(got["state_lost"])

    def test_forged_answers_end_the_interpreter(self):
        got = self.python("import os, time\nos.write(100, b'f00 -1 -1 -1 -1\\n')\ntime.sleep(3)")
        self.assertIn("broke its protocol", got["text"])
        got = self.python("import os\nos.write(100, b'f00 -1 -1 -1 -1\\n')")
        self.assertIn("broke its protocol", got["text"])
        got = self.python("import os\nos.write(100, b'x' * 1000)")
        self.assertIn("broke its protocol", got["text"])
        self.assertEqual(self.python("1")["text"], "1\n[ok]")

    def test_fork_does_not_answer_twice(self):
        got = self.python("import os\npid = os.fork()\n'child' if pid == 0 else 'parent'")
        self.assertIn("'parent'", got["text"])
        self.assertEqual(self.python("2")["text"], "2\n[ok]")

    def test_huge_value_and_output(self):
        got = self.python("print('y' * 5000000)\n'z' * 5000000")
        self.assertEqual(got["status"], "ok")
        self.assertLess(len(got["text"]), 6000)
        self.assertGreater(got["cut_bytes"], 5000000)

    def test_odd_text(self):
        got = self.python("print('\\udc80 年')\n'\\ud800'")
        self.assertEqual(got["text"], "\\udc80 年\n'\\ud800'\n[ok]")
        self.assertIn("SyntaxError", self.python("if")["text"])
        self.assertEqual(self.python("raise SystemExit(0)")["text"], "[ok]")
        self.assertIn("[error: SystemExit]", self.python("exit(4)")["text"])

    def test_reset(self):
        self.python("k = 1")
        got = self.serve.call("python", {"code": "'k' in globals()", "reset": True})
        self.assertEqual(got["text"], "False\n[ok]")

    def test_workspace_modules_import(self):
        self.write("mine.py", "def g():\n    raise ValueError('from file')\n")
        got = self.python("import mine\nmine.g()")
        self.assertIn("mine.py", got["text"])
        self.assertIn("ValueError: from file", got["text"])


class Editor(Case):
    def test_view_and_edit(self):
        self.write("a.txt", "one\ntwo\nthree\n")
        self.assertEqual(self.edit(command="view", path="a.txt")["text"],
                         "     1\tone\n     2\ttwo\n     3\tthree")
        got = self.edit(command="str_replace", path=self.path("a.txt"), old_str="two",
                        new_str="2\n2b")
        self.assertEqual(got["text"], "The file a.txt has been edited. Here is the result:\n"
                         "     1\tone\n     2\t2\n     3\t2b\n     4\tthree")
        self.assertEqual(self.read("a.txt"), "one\n2\n2b\nthree\n")
        self.assertEqual(got["undo"], {"path": "a.txt", "existed": True,
                                       "content": "one\ntwo\nthree\n"})
        self.edit(command="insert", path="/workspace/a.txt", insert_line=1, new_str="new")
        self.assertEqual(self.read("a.txt"), "one\nnew\n2\n2b\nthree\n")

    def test_stale_view_is_refused_once(self):
        self.write("a.txt", "one\n")
        self.edit(command="view", path="a.txt")
        self.write("a.txt", "one\nmore\n")
        got = self.edit(command="str_replace", path="a.txt", old_str="one", new_str="1")
        self.assertIn("has changed since you last saw it", got["text"])
        self.assertIn("     2\tmore", got["text"])
        self.assertEqual(self.read("a.txt"), "one\nmore\n")
        got = self.edit(command="str_replace", path="a.txt", old_str="one", new_str="1")
        self.assertEqual(self.read("a.txt"), "1\nmore\n")

    def test_unique_match(self):
        self.write("a.txt", "x\ny\nx\n")
        got = self.edit(command="str_replace", path="a.txt", old_str="x", new_str="z")
        self.assertIn("occurs 2 times in a.txt, in lines 1, 3", got["text"])
        got = self.edit(command="str_replace", path="a.txt", old_str="q", new_str="z")
        self.assertIn("does not occur", got["text"])
        self.write("b.txt", "  if (a)\n")
        got = self.edit(command="str_replace", path="b.txt", old_str="if (a) ", new_str="z")
        self.assertIn("line 1 is like its first line but for white space", got["text"])

    def test_no_way_out(self):
        self.write("ok.txt", "fine\n")
        os.symlink("/etc", self.path("etc"))
        os.symlink("/etc/hostname", self.path("host"))
        os.symlink("ok.txt", self.path("inner"))
        os.symlink("../../../etc/hostname", self.path("up"))
        os.symlink("loop", self.path("loop"))
        for path in ("/etc/hostname", "../x", "a/../../x", "etc/hostname", "host", "up",
                     "etc/../../etc/hostname", "/workspace/../etc/hostname",
                     self.dir + "x/y", "loop"):
            for args in ({"command": "view"}, {"command": "create", "file_text": "pwned"}):
                got = self.edit(path=path, **args)
                self.assertTrue(got["is_error"], path)
        with open("/etc/hostname") as f:
            self.assertNotIn("pwned", f.read())
        self.assertEqual(self.edit(command="view", path="inner")["text"], "     1\tfine")

    def test_not_text(self):
        with open(self.path("bin"), "wb") as f:
            f.write(b"\0\1\2")
        with open(self.path("latin"), "wb") as f:
            f.write(b"caf\xe9\n")
        os.mkfifo(self.path("fifo"))
        self.assertIn("is not a text file", self.edit(command="view", path="bin")["text"])
        self.assertIn("is not UTF-8 text", self.edit(command="view", path="latin")["text"])
        self.assertIn("not a regular file", self.edit(command="view", path="fifo")["text"])

    def test_modes_and_folders(self):
        self.write("run.sh", "echo a\n")
        os.chmod(self.path("run.sh"), 0o755)
        self.edit(command="str_replace", path="run.sh", old_str="a", new_str="b")
        self.assertEqual(os.stat(self.path("run.sh")).st_mode & 0o777, 0o755)
        self.edit(command="create", path="d/e/f.txt", file_text="")
        self.assertEqual(self.edit(command="view", path=".")["text"],
                         "d/\nd/e/\nrun.sh")
        self.assertIn("The file is empty", self.edit(command="view", path="d/e/f.txt")["text"])
        self.assertEqual(sorted(os.listdir(self.path("d/e"))), ["f.txt"])

    def test_missing_arguments(self):
        self.write("a.txt", "x\n")
        for args in ({"command": "create"}, {"command": "str_replace"}, {"command": "insert"},
                     {"command": "insert", "insert_line": 99, "new_str": "x"},
                     {"command": "view", "view_range": [5, 2]}):
            self.assertTrue(self.edit(path="a.txt", **args)["is_error"], args)
        self.assertEqual(self.read("a.txt"), "x\n")


class Patch(Case):
    def patch(self, *lines):
        return self.serve.call("apply_patch", {"patch": "\n".join(
            ("*** Begin Patch",) + lines + ("*** End Patch",)) + "\n"})

    def setUp(self):
        super().setUp()
        self.write("a.txt", "".join("line %d\n" % i for i in range(1, 11)))
        self.write("b.py", "class A:\n    def f(self):\n        return 1\n\n    def g(self):\n"
                   "        return 1\n")

    def test_all_kinds_at_once(self):
        got = self.patch("*** Add File: new/c.txt", "+one", "+", "+three",
                         "*** Update File: a.txt", "@@", " line 2", "-line 3", "+LINE 3", "+3b",
                         " line 4", "@@", "-line 9", " line 10", "+line 11", "*** End of File",
                         "*** Delete File: b.py")
        self.assertEqual(got["text"], "A new/c.txt\nM a.txt\nD b.py")
        self.assertEqual(self.read("new/c.txt"), "one\n\nthree\n")
        self.assertEqual(self.read("a.txt"), "line 1\nline 2\nLINE 3\n3b\nline 4\nline 5\n"
                         "line 6\nline 7\nline 8\nline 10\nline 11\n")
        self.assertFalse(os.path.exists(self.path("b.py")))
        self.assertEqual(got["undo"]["files"][1]["content"][:7], "line 1\n")

    def test_context_marks_choose_the_place(self):
        self.patch("*** Update File: b.py", "@@ class A:", "@@     def g(self):",
                   "-        return 1", "+        return 2")
        self.assertEqual(self.read("b.py").count("return 1"), 1)
        self.assertTrue(self.read("b.py").endswith("return 2\n"))

    def test_move_and_white_space(self):
        got = self.patch("*** Update File: a.txt", "*** Move to: d/moved.txt", " line 1   ",
                         "-  line 2", "+line two")
        self.assertEqual(got["text"], "M a.txt -> d/moved.txt")
        self.assertFalse(os.path.exists(self.path("a.txt")))
        self.assertIn("line 1", self.read("d/moved.txt"))
        self.assertIn("line two", self.read("d/moved.txt"))

    def test_all_or_nothing(self):
        before = self.read("a.txt")
        got = self.patch("*** Add File: new.txt", "+x", "*** Update File: a.txt", "-line 1",
                         "+changed", "*** Update File: b.py", "-no such line", "+y")
        self.assertTrue(got["is_error"])
        self.assertIn("b.py: hunk 1 (line 8 of the patch) does not fit: the file has no such "
                      "place as no such line", got["text"])
        self.assertIn("Nothing was changed.", got["text"])
        self.assertEqual(self.read("a.txt"), before)
        self.assertFalse(os.path.exists(self.path("new.txt")))

    def test_failing_write_is_undone(self):
        before = self.read("a.txt")
        os.mkdir(self.path("sub"))
        self.write("sub/x.txt", "x\n")
        got = self.patch("*** Update File: a.txt", "-line 1", "+changed",
                         "*** Delete File: b.py", "*** Add File: a.txt/below", "+x")
        self.assertTrue(got["is_error"])
        self.assertEqual(self.read("a.txt"), before)
        self.assertTrue(os.path.exists(self.path("b.py")))

    def test_mistakes(self):
        for lines, want in (
                (("*** Add File: a.txt", "+x"), "exists already"),
                (("*** Delete File: none",), "does not exist"),
                (("*** Update File: a.txt",), "changes nothing"),
                (("*** Update File: a.txt", "*bad"), "starts with a blank, - or +"),
                (("*** Update File: ../x", "-a"), "outside the workspace"),
                (("*** Rename File: x",), "is no section"),
                (("junk",), "expected *** Add File:"),
                (("*** Add File: z", "no plus"), "starts with +"),
                ((), "has no sections"),
                (("*** Update File: a.txt", "-line 1", "*** Update File: a.txt", "-line 2"),
                 "has two sections")):
            got = self.patch(*lines)
            self.assertTrue(got["is_error"], lines)
            self.assertIn(want, got["text"])
        got = self.serve.call("apply_patch", {"patch": "hello"})
        self.assertIn("a patch starts with *** Begin Patch", got["text"])
        got = self.serve.call("apply_patch", {"patch": "*** Begin Patch\n*** Delete File: a.txt\n"})
        self.assertIn("does not end with *** End Patch", got["text"])

    def test_stale_view(self):
        self.edit(command="view", path="a.txt")
        self.write("a.txt", "line 1\nother\n")
        got = self.patch("*** Update File: a.txt", "-line 1", "+x")
        self.assertIn("has changed since you last saw it", got["text"])


class Arguments(Case):
    def check(self, tool, args, want):
        got = self.serve.call(tool, args)
        self.assertEqual(got["status"], "invalid")
        self.assertEqual(got["text"], want + "\n[invalid arguments]")

    def test_messages(self):
        self.check("bash", {}, "bash: argument 'command' is required")
        self.check("bash", {"command": 5},
                   "bash: argument 'command' must be a string, got the integer 5")
        self.check("bash", {"command": "x", "cmd": "y"}, "bash: there is no argument 'cmd'; it "
                   "takes command, timeout_s, background")
        self.check("open", {"id": [1]},
                   "open: argument 'id' must be an integer or a string, got an array")
        self.check("open", {"loc": "12"},
                   "open: argument 'loc' must be an integer, got the string \"12\"")
        self.check("str_replace_editor", {"command": "undo", "path": "a"},
                   "str_replace_editor: argument 'command' must be one of \"view\", \"create\", "
                   "\"str_replace\", \"insert\", got the string \"undo\"")
        self.check("str_replace_editor", {"command": "view", "path": "a", "view_range": [1]},
                   "str_replace_editor: argument 'view_range' needs at least 2 items, got 1")
        self.check("bash", {"command": "x", "timeout_s": 0},
                   "bash: argument 'timeout_s' must be at least 1, got the integer 0")
        self.check("plan", {"items": [{"content": "a", "status": "late"}]},
                   "plan: argument 'items[0].status' must be one of \"pending\", \"in_progress\", "
                   "\"done\", got the string \"late\"")

    def test_text_arguments(self):
        got = self.serve.call("bash", '{"command": "echo hi"}')
        self.assertEqual(got["text"], "hi\n[exit code: 0]")
        got = self.serve.call("bash", '{"command": "echo hi"')
        self.assertIn("bash: the arguments are not valid JSON", got["text"])
        self.assertIn("must be a JSON object", self.serve.text("bash", "[1]"))

    def test_bad_lines(self):
        self.assertIn("error", self.serve.raw(b"not json\n"))
        self.assertIn("error", self.serve.raw(b"[]\n"))
        self.assertIn("error", self.serve.raw(b'{"tool":"nope"}\n'))
        self.assertIn("error", self.serve.raw(b'{"tool":"bash","timeout_s":-1}\n'))
        self.assertIn("error", self.serve.raw(b'\xff\xfe\n'))
        self.assertEqual(self.bash("echo still")["text"], "still\n[exit code: 0]")


class Control(unittest.TestCase):
    """The socket of a cell: what arrives during a call is a wish to end it."""

    def setUp(self):
        ours, theirs = socket.socketpair()
        self.proc = subprocess.Popen(
            [os.environ.get("BIN", "build/ci/bin") + "/agentd-tool", "serve", "--control",
             "--strays"], preexec_fn=lambda: os.dup2(theirs.fileno(), 100), close_fds=False)
        theirs.close()
        self.sock = ours
        self.lines = ours.makefile("r")

    def tearDown(self):
        self.lines.close()
        self.sock.close()
        self.proc.wait(10)

    def request(self, tool, args, cancel_after=None):
        text = json.dumps({"id": 1, "tool": tool, "args": args}) + "\n"
        if cancel_after == 0:
            self.sock.sendall((text + '{"cancel": 1}\n').encode())
        else:
            self.sock.sendall(text.encode())
            time.sleep(cancel_after)
            self.sock.sendall(b'{"cancel": 1}\n')
        return json.loads(self.lines.readline())

    def test_cancel(self):
        for after in (0.5, 0):
            began = time.time()
            got = self.request("bash", {"command": "sleep 60"}, after)
            self.assertEqual(got["status"], "cancelled")
            got = self.request("python", {"code": "import time; time.sleep(60)"}, after)
            self.assertEqual(got["status"], "cancelled")
            self.assertLess(time.time() - began, 30)

    def test_end_of_the_other_side_ends_the_call(self):
        self.sock.sendall(b'{"id": 1, "tool": "bash", "args": {"command": "sleep 577215"}}\n')
        time.sleep(0.5)
        self.lines.close()
        self.sock.close()
        self.proc.wait(10)
        self.assertEqual(alive("577215"), [])


class Workspaces(Case):
    def test_another_workspace_resets(self):
        other = tempfile.mkdtemp(prefix="agentd-test-")
        self.bash("Z=1")
        self.python("z = 1")
        got = self.bash("pwd; echo [$Z]", workspace=other)
        self.assertEqual(got["text"], "%s\n[]\n[exit code: 0]" % os.path.realpath(other))
        self.assertIn("NameError", self.python("z")["text"])
        os.rmdir(other)

    def test_paths_are_those_of_a_cell(self):
        probe = subprocess.run(["unshare", "-m", "true"], capture_output=True)
        probe2 = subprocess.run(["unshare", "-U", "-m", "true"], capture_output=True)
        if probe.returncode and probe2.returncode:
            self.skipTest("no mount namespaces here")
        serve = Serve("--as-workspace")
        got = serve.text("bash", {"command": "pwd; echo hi > f"}, workspace=self.dir)
        self.assertEqual(got, "/workspace\n[exit code: 0]")
        self.assertEqual(self.read("f"), "hi\n")
        got = serve.text("python", {"code": "import os; os.getcwd()"})
        self.assertEqual(got, "'/workspace'\n[ok]")
        self.assertEqual(serve.close(), 0)

    @unittest.skipIf(os.geteuid() != 0 or not shutil.which("setpriv"), "needs root to be another")
    def test_paths_are_those_of_a_cell_without_privilege(self):
        probe = ["setpriv", "--reuid", "64990", "--regid", "64990", "--clear-groups", "--inh-caps=-all"]
        if subprocess.run(probe + ["unshare", "-U", "-m", "true"], capture_output=True).returncode:
            self.skipTest("no namespaces for plain users here")
        with tempfile.TemporaryDirectory(dir="/var/tmp") as copy:  # which that user may execute
            tool = shutil.copy2(os.path.join(BIN, "agentd-tool"), copy)
            os.chmod(copy, 0o755)
            os.chmod(self.dir, 0o777)
            request = {"id": 1, "tool": "bash", "args": {"command": "pwd"}, "workspace": self.dir}
            r = subprocess.run(probe + [tool, "serve", "--as-workspace"], input=json.dumps(request) + "\n",
                               capture_output=True, text=True, timeout=60)
        self.assertEqual(json.loads(r.stdout or "{}").get("text"), "/workspace\n[exit code: 0]", r.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=1)
