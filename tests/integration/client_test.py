"""agentctl from outside: pipes, a real terminal, interrupts, reconnects, exit codes."""
import json
import os
import pty
import select
import signal
import subprocess
import time

from agent import BIN, Daemon, main

CTL = os.path.join(BIN, "agentctl")
SCRIPT = [
    {"match": "slow", "steps": [{"think": "wait", "text": "slow " * 400, "delay_ms": 20,
                                 "chunk": 2}]},
    {"match": "escape", "steps": [{"text": "a\x1b[31mb\u009bc"}]},
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
    os.write(fd, b"half a line\x03")   # at the prompt it only empties the line
    time.sleep(0.3)
    os.write(fd, b"go\r")
    screen.wait(b"It said")
    screen.wait(b"> ")
    os.write(fd, b"\x04")
    assert os.waitpid(pid, 0)[1] == 0
    d.close()


def test_no_daemon_says_what_to_do():
    r = subprocess.run([CTL, "sessions", "--socket", "/nonexistent/s"], text=True,
                       capture_output=True)
    assert r.returncode == 1 and "/nonexistent/s" in r.stderr, r.stderr


def doctor(*args):
    r = subprocess.run([CTL, "doctor", "--json", *args], text=True, capture_output=True)
    return r.returncode, {f["name"]: f for f in json.loads(r.stdout)["findings"]}


def test_doctor_looks_at_store_and_model():
    model = os.path.join(os.path.dirname(__file__), "../../models/agentd-small.gguf")
    code, found = doctor("--model", model, "--state", "/tmp/agentd-doctor")
    assert code in (0, 3, 5) and found["model"]["ok"] and found["store"]["ok"], found
    assert not os.path.exists("/tmp/agentd-doctor")   # looking changes nothing
    code, found = doctor("--model", "/etc/passwd")
    assert code == 1 and "/etc/passwd" in found["model"]["text"], found


def test_completions_know_every_command():
    script = subprocess.run([CTL, "completions", "bash"], capture_output=True, text=True).stdout
    probe = script + ('\nCOMP_WORDS=("%s" model "") COMP_CWORD=2; _agentctl; echo "${COMPREPLY[@]}"'
                      '\nCOMP_WORDS=("%s" run --pri) COMP_CWORD=2; _agentctl; '
                      'echo "${COMPREPLY[@]}"\n' % (CTL, CTL))
    out = subprocess.run(["bash", "-c", probe], capture_output=True, text=True).stdout.split("\n")
    assert "convert" in out[0] and out[1].strip() == "--private", out


if __name__ == "__main__":
    main(globals())
