"""agentctl from outside: pipes, a real terminal, interrupts, reconnects, exit codes."""
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

from agent import BIN, Daemon, history, main, open_session, run

CTL = os.path.join(BIN, "agentctl")
SCRIPT = [
    {"match": "slow", "steps": [{"think": "wait", "text": "slow " * 400, "delay_ms": 20,
                                 "chunk": 2}]},
    {"match": "escape", "steps": [{"text": "a\x1b[31mb\u009bc"}]},
    {"match": "odd names", "steps": [
        {"calls": [{"name": "ba\x1b]0;t\x07sh", "arguments": {"x": "1"}},
                   {"name": "bash", "arguments": {"command": "true", "k\x1b[31m\u009bc": "1"}}]},
        {"text": "done"}]},
    {"match": "", "steps": [
        {"think": "look", "calls": [{"name": "bash", "arguments": {"command": "echo out-$((6*7))"}}]},
        {"text": "It said {{result}}"}]},
]


def ctl(d, *args, stdin="", env=None):
    r = subprocess.run([CTL, args[0], "--socket", d.path, *args[1:]], input=stdin, text=True,
                       capture_output=True, timeout=60, cwd=d.workspace,
                       env={**os.environ, **(env or {})})
    return r.returncode, r.stdout, r.stderr


def newest(d):
    return json.loads(ctl(d, "sessions", "--json")[1])["sessions"][0]["sessionId"]


def test_run_keeps_the_answer_apart():
    d = Daemon(SCRIPT)
    code, out, err = ctl(d, "run", "go")
    assert code == 0 and out == "It said out-42\n[exit code: 0]\n", (code, out)
    assert "look" in err and "echo out-" in err and "2 steps" in err, err
    code, out, err = ctl(d, "run", "--session", newest(d), "--json", "again")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and events[-1]["type"] == "turn.completed", out
    d.close()


def test_terminal_is_not_steered():
    d = Daemon(SCRIPT)
    code, out, _ = ctl(d, "run", "escape")
    assert code == 0 and out == "a[31mbc\n", out
    code, out, err = ctl(d, "run", "odd names")
    assert code == 0 and "+- ba]0;tsh\n" in err and "| k[31mc: 1\n" in err, err
    shown = ctl(d, "show", newest(d))[1]
    assert "call ba]0;tsh " in shown, shown
    assert not {"\x1b", "\x07", "\x9b"} & set(out + err + shown), (out, err, shown)
    d.close()


def test_chat_through_a_pipe():
    d = Daemon(SCRIPT)
    home = {"XDG_STATE_HOME": os.path.join(d.root, "xdg")}
    code, out, err = ctl(d, "chat", stdin="one\n/session\ntwo\\\nlines\n/history\n/nope\n", env=home)
    assert code == 0 and out.count("It said out-42") == 2, (code, out, err)
    assert "unknown command '/nope'" in err and "two\n  lines" in err, err
    mode = os.stat(os.path.join(d.root, "xdg/agentd/chat_history")).st_mode & 0o777
    assert mode == 0o600, oct(mode)
    d.close()


def test_questions_to_the_daemon():
    d = Daemon(SCRIPT)
    ctl(d, "run", "go")
    s = newest(d)
    code, out, _ = ctl(d, "show", s)
    assert code == 0 and "(thought) look" in out and "call bash" in out and "out-42" in out, out
    lines = ctl(d, "export", s)[1].splitlines()
    assert json.loads(lines[0])["sessionId"] == s
    assert [json.loads(x)["seq"] for x in lines[1:]] == list(range(1, len(lines)))
    prompt = ctl(d, "render", s)[1]
    assert prompt.startswith("<\uff5cbegin\u2581of\u2581sentence\uff5c>"), prompt[:40]
    code, fork, _ = ctl(d, "fork", s)
    assert code == 0 and ctl(d, "render", fork.strip())[1] == prompt
    assert ctl(d, "status", "--json")[0] == 0
    code, _, err = ctl(d, "show", "none")
    assert code == 1 and "there is no session 'none'" in err, err
    assert ctl(d, "show")[0] == 2
    d.close()


def test_attach_and_tail_see_what_was_and_what_comes():
    d = Daemon(SCRIPT)
    ctl(d, "run", "go")
    s = newest(d)
    code, out, err = ctl(d, "attach", "--once", s)
    assert code == 0 and "It said out-42" in out and "look" in err, (code, out, err)
    tail = subprocess.Popen([CTL, "tail", "--socket", d.path, "--json", s], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    time.sleep(0.3)
    d.kill()          # the daemon goes and comes back; tail stays
    d.start()
    ctl(d, "run", "--session", s, "more")
    seen = []
    for line in tail.stdout:
        seen.append(json.loads(line))
        if seen[-1]["type"] == "turn.completed":
            break
    seqs = [e["seq"] for e in seen if "seq" in e and e["type"] != "item.delta"]
    assert seqs and seqs == sorted(seqs), seqs
    tail.send_signal(signal.SIGINT)
    assert tail.wait(10) == 0
    d.close()


class Screen:
    """What a terminal has shown, read in order."""

    def __init__(self, fd):
        self.fd, self.data = fd, b""

    def wait(self, want, seconds=30):
        end = time.monotonic() + seconds
        while want not in self.data and time.monotonic() < end:
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.data += os.read(self.fd, 65536)
                except OSError:
                    break
        assert want in self.data, (want, self.data[-1500:])
        self.data = self.data.split(want, 1)[1]


def test_ctrl_c_ends_the_turn_and_not_the_program():
    d = Daemon(SCRIPT)
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", XDG_STATE_HOME=os.path.join(d.root, "xdg"))
        os.execv(CTL, [CTL, "chat", "--socket", d.path, "--workspace", d.workspace])
    screen = Screen(fd)
    screen.wait(b"> ")
    os.write(fd, b"slow please\r")
    screen.wait(b"slow slow")
    os.write(fd, b"\x03")
    screen.wait(b"cancelled")
    screen.wait(b"> ")
    os.write(fd, b"half a line")
    screen.wait(b"half a line")
    os.write(fd, b"\x03")   # at the prompt it only empties the line
    screen.wait(b"> ")
    os.write(fd, b"go\r")
    screen.wait(b"It said")
    screen.wait(b"> ")
    os.write(fd, b"\x04")
    assert os.waitpid(pid, 0)[1] == 0
    d.close()


def terminal(d, *args, **env):
    """agentctl in a terminal of its own; (pid, descriptor, screen)."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", XDG_STATE_HOME=os.path.join(d.root, "xdg"), **env)
        os.execv(CTL, [CTL, args[0], "--socket", d.path, *args[1:]])
    return pid, fd, Screen(fd)


def said(d):
    """What the newest session's user said, turn by turn."""
    c = d.client()
    return [e["data"]["text"] for e in history(c, newest(d)) if e["data"].get("kind") == "user"]


def test_typing_in_a_terminal():
    d = Daemon([{"steps": [{"text": "heard {{user}}"}]}], profile="chat")
    pid, fd, screen = terminal(d, "chat", "--workspace", d.workspace, LANG="C", LC_ALL="C")
    screen.wait(b"> ")
    typed = [  # keys, and the line that they make
        ("hällo 日本語 x\x7fy\r", "hällo 日本語 y"),      # letters of any script, backspace
        ("\x1b[A\x05!\r", "hällo 日本語 y!"),            # the line before, its end
        ("語言\x1b[D\x1b[Dxy\r", "xy語言"),             # to the left over wide letters
        ("abc\x01\x0bnew\r", "new"),                    # to the beginning, cut the rest
        ("gone\x15kept\r", "kept"),                      # cut the line
        ("one \\\rtwo\r", "one \ntwo")]                # a line that goes on
    for keys, line in typed:
        os.write(fd, keys.encode())
        screen.wait(b"heard " + line.split("\n")[0].encode())
        screen.wait(b"> ")
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 20, 0, 0))
    os.write(fd, b"a line that is longer than ")
    time.sleep(0.2)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 70, 0, 0))  # in mid-line
    time.sleep(0.2)
    os.write(fd, b"the window\xff\r")  # a byte that is no letter is dropped
    screen.wait(b"heard a line that is longer than the window")
    screen.wait(b"> ")
    os.write(fd, b"\x04")
    assert os.waitpid(pid, 0)[1] == 0
    assert said(d) == [line for _, line in typed] + ["a line that is longer than the window"]
    # another chat knows the lines of the one before
    pid, fd, screen = terminal(d, "chat", "--workspace", d.workspace)
    screen.wait(b"> ")
    os.write(fd, b"\x1b[A\r")
    screen.wait(b"heard a line that is longer")
    os.write(fd, b"/quit\r")
    assert os.waitpid(pid, 0)[1] == 0
    d.close()


def test_a_question_in_two_terminals():
    ask = {"name": "ask_user", "arguments": {"questions": [
        {"id": "c", "question": "Which colour?", "options": ["red", "blue"]},
        {"id": "n", "question": "How many?"}]}}
    d = Daemon([{"steps": [{"calls": [ask]}, {"text": "{{seen:c: ([a-z]+)}} it is"}]}])
    c = d.client()
    s = c.call("session.create", cwd=d.workspace, profile="code")["sessionId"]
    c.call("turn.start", sessionId=s, input="go")
    one = terminal(d, "attach", "--once", s)
    two = terminal(d, "attach", "--once", s)
    for _, fd, screen in one, two:
        screen.wait(b"Which colour?")
        screen.wait(b"2 blue")
        screen.wait(b"answer: ")
    os.write(two[1], b"2\n")
    two[2].wait(b"How many?")
    os.write(two[1], b"three\n")
    two[2].wait(b"blue it is")
    os.write(one[1], b"red\nfour\n")  # too late: the first answer has won
    one[2].wait(b"blue it is")
    for pid, _, _ in one, two:
        assert os.waitpid(pid, 0)[1] == 0
    d.close()


def test_every_command_helps():
    listed = subprocess.run([CTL, "--help"], text=True, capture_output=True).stdout
    names = [line.split()[0] for line in listed.split("\n") if line.startswith("  ")]
    assert len(names) > 20 and "chat" in names, names
    for name in names:
        r = subprocess.run([CTL, name, "--help"], text=True, capture_output=True)
        assert r.returncode == 0 and r.stdout.startswith("usage: agentctl " + name), (name, r)
        commands = "commands:" in r.stdout
        assert commands or "Exit" in r.stdout, (name, r.stdout)
        assert commands or name == "completions" or "--json" in r.stdout, (name, r.stdout)
        assert not [x for x in r.stdout.split("\n") if x.endswith(" ")], (name, r.stdout)
        r = subprocess.run([CTL, name, "--no-such-option"], text=True, capture_output=True)
        assert r.returncode == 2 and r.stderr and not r.stdout, (name, r)
    r = subprocess.run([CTL, "version", "--json"], text=True, capture_output=True)
    assert json.loads(r.stdout)["version"]


def test_output_that_cannot_be_written_is_told():
    d = Daemon(SCRIPT)
    ctl(d, "run", "go")
    session = newest(d)
    asked = [["sessions"], ["show", session], ["export", session], ["render", session],
             ["status", "--json"], ["fork", session], ["run", "go"], ["attach", session],
             ["tail", "--after", "0", session]]
    alone = [["version"], ["--help"], ["run", "--help"], ["completions", "bash"], ["tool", "list"],
             ["sandbox", "keys"]]
    lines = [[CTL, a[0], "--socket", d.path, *a[1:]] for a in asked] + [[CTL, *a] for a in alone]
    lines += [[os.path.join(BIN, "agentd"), flag] for flag in ("--explain-config", "--version")]
    for line in lines:
        for to in ">/dev/full", ">&-":
            r = subprocess.run(["bash", "-c", 'exec "$@" ' + to, "-", *line], text=True,
                               stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
            assert r.returncode == 1 and "standard output" in r.stderr, (line, to, r)
    r = subprocess.run(["bash", "-c", 'exec "$@" <&- 2>&-', "-", CTL, "run", "--socket", d.path,
                        "go"], text=True, capture_output=True, timeout=60)
    assert r.returncode == 0 and r.stdout.startswith("It said out-42"), r
    d.close()


def test_values_that_are_none_are_refused():
    d = Daemon(SCRIPT)
    ctl(d, "run", "go")
    session = newest(d)
    for args, said in ((["sessions", "--state", "lost"], "idle|running|closed"),
                       (["run", "--approve", "yes", "go"], "allow_once|"),
                       (["cancel", "--mode", "medium", session], "soft|hard"),
                       (["attach", "--after", "-5", session], "--after"),
                       (["tail", "--after", "-7"], "--after"), (["run", " "], "empty"),
                       (["run", "-qx", "go"], "'-x'")):
        code, out, err = ctl(d, *args)
        assert code == 2 and said in err and not out, (args, code, out, err)
    code, _, err = ctl(d, "run", "--workspace", CTL, "go")
    assert code == 1 and CTL in err and "Not a directory" in err, err
    odd = os.path.join(os.fsencode(d.root), b"o\xffdd")
    os.mkdir(odd)
    for args, said in (([b"run", b"--profile", b"a\xff", b"go"], b"no profile 'a"),
                       ([b"run", b"--session", b"a\xff", b"go"], b"no session 'a"),
                       ([b"attach", b"a\xff"], b"no session 'a"),
                       ([b"run", b"--workspace", odd, b"go"], b"must be UTF-8")):
        r = subprocess.run([CTL.encode(), args[0], b"--socket", d.path.encode(), *args[1:]],
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        assert r.returncode == 1 and said in r.stderr, (args, r)
    d.close()


def test_no_daemon_says_what_to_do():
    asking = [["sessions"], ["show", "x"], ["run", "x"], ["chat"], ["attach", "x"], ["tail"],
              ["approve"], ["cancel", "x"], ["fork", "x"], ["export", "x"], ["render", "x"],
              ["status"], ["cache", "explain", "x"], ["tool", "call", "bash", "{}", "--session",
                                                     "x"]]
    for args in asking:
        r = subprocess.run([CTL, *args, "--socket", "/nonexistent/s"], text=True,
                           capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
        assert r.returncode == 1 and "/nonexistent/s" in r.stderr, (args, r)
        assert "start one" in r.stderr and not r.stdout, (args, r)
    with open("/dev/null") as null:
        r = subprocess.run([CTL, "sessions", "--socket", "/etc/passwd"], text=True, stdin=null,
                           capture_output=True)
    assert r.returncode == 1 and "/etc/passwd" in r.stderr, r


def test_another_user_is_told():
    if os.getuid() != 0:
        return
    d = Daemon(SCRIPT)
    os.chmod(d.root, 0o755)

    def other(*args):
        r = subprocess.run([CTL, *args, "--socket", d.path], text=True, capture_output=True,
                           stdin=subprocess.DEVNULL, user=65534, group=65534, timeout=60,
                           env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"})
        assert r.returncode == 1 and not r.stdout and "socket.uids" in r.stderr, r
    try:
        subprocess.run([CTL, "version"], user=65534, group=65534, check=True,
                       stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        d.close()
        return  # these programs lie where nobody else can read them
    other("sessions")
    os.chmod(d.path, 0o777)  # the socket's mode is not what keeps others out
    for args in ["sessions"], ["run", "x"], ["tail"], ["chat"]:
        other(*args)
    d.close()


def test_a_long_session_is_shown_whole():
    d = Daemon([{"steps": [{"text": "{{turns}}"}]}], profile="chat")
    c = d.client()
    s = c.call("session.create")["sessionId"]
    for i in range(40):
        c.call("turn.run", sessionId=s, input="message %d %s" % (i, "x" * 15000))
    code, out, _ = ctl(d, "show", s)
    assert code == 0 and out.count("message ") == 40 and len(out) > 40 * 15000
    code, out, _ = ctl(d, "export", s)
    assert code == 0 and json.loads(out.splitlines()[-1])["type"] == "turn.completed"
    tails = [subprocess.Popen([CTL, "tail", "--socket", d.path, "--json", "--once"], text=True,
                              stdout=subprocess.PIPE) for _ in range(12)]
    end = time.monotonic() + 30
    while c.call("daemon.status")["connections"] < 13 and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.3)
    c.call("turn.run", sessionId=s, input="seen by all")
    for t in tails:
        out = t.communicate(timeout=60)[0]
        assert t.returncode == 0 and "seen by all" in out, (t.returncode, out[-2000:])
    d.close()


def doctor(*args):
    r = subprocess.run([CTL, "doctor", "--json", *args], text=True, capture_output=True)
    return r.returncode, {f["name"]: f for f in json.loads(r.stdout)["findings"]}


def test_doctor_looks_at_store_and_model():
    model = os.path.join(os.path.dirname(__file__), "../../models/agentd-small.gguf")
    code, found = doctor("--model", model, "--state", "/tmp/agentd-doctor")
    assert code in (0, 3, 5) and found["model"]["ok"] and found["store"]["ok"], found
    assert not os.path.exists("/tmp/agentd-doctor")   # looking changes nothing
    assert "huge pages" in found["memory"]["text"] and "pin" in found["memory"]["text"], found
    code, found = doctor("--model", "/etc/passwd")
    assert code == 1 and "/etc/passwd" in found["model"]["text"], found


def test_completions_know_every_command():
    script = subprocess.run([CTL, "completions", "bash"], capture_output=True, text=True).stdout
    probe = script + ('\nCOMP_WORDS=("%s" model "") COMP_CWORD=2; _agentctl; echo "${COMPREPLY[@]}"'
                      '\nCOMP_WORDS=("%s" run --pri) COMP_CWORD=2; _agentctl; '
                      'echo "${COMPREPLY[@]}"\n' % (CTL, CTL))
    out = subprocess.run(["bash", "-c", probe], capture_output=True, text=True).stdout.split("\n")
    assert "convert" in out[0] and out[1].strip() == "--private", out


def test_long_histories_come_in_pages():
    d = Daemon([{"steps": [{"text": "short"}]}])
    c = d.client()
    s = open_session(c, d, profile="chat")
    for i in range(3):  # more than the window holds: the messages are kept all the same
        run(c, s, "%d " % i + "long text \u00e9\n" * 380000)
    page = c.call("session.get", sessionId=s)
    assert 0 < len(page["messages"]) < 3 and page["next"] == len(page["messages"]), page["next"]
    last = c.call("session.get", sessionId=s, after=2)
    assert len(last["messages"]) == 1 and "next" not in last
    assert c.call("session.get", sessionId=s, after=99)["messages"] == []
    page = c.call("session.export", sessionId=s)
    assert page["events"][-1]["seq"] == page["next"]
    events = history(c, s)
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1)), len(events)
    code, out, err = ctl(d, "show", "--json", s)
    got = json.loads(out)
    assert code == 0 and [m["content"][:2] for m in got["messages"]] == [
        "%d " % i for i in range(3)] and "next" not in got, err
    code, out, err = ctl(d, "export", s)
    assert code == 0 and len(out.splitlines()) == 1 + len(events), err
    d.close()


if __name__ == "__main__":
    main(globals())
