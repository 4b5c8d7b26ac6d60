"""landlock.py - level landlock, on hosts made weak by a filter: which threats it stops, which it
does not, and that it says so. Every attack has its control with the sandbox off."""
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time

from harness import PYTHON, WEAK, alive, busy_job, children, main, processes, wait_for

CONTAINER = [PYTHON, "-I", "-c", WEAK, "container"]
APPARMOR = [PYTHON, "-I", "-c", WEAK, "apparmor"]
LEVEL = "version: 1\nrequire: landlock\n"
OWNER = 64990  # of the workspace when we are root: without namespaces it is who runs inside


def policy(w, text="background: true\n"):
    path = os.path.join(w.root, f"level-{abs(hash(text))}.yaml")
    with open(path, "w") as f:
        f.write(LEVEL + text + "tools: {'*': allow}\n")
    return path


def own(w, *paths):
    if w.is_root:
        for p in paths:
            os.chown(p, OWNER, OWNER, follow_symlinks=False)


def start(w, off=False):
    own(w, w.work, w.outside, w.secret)
    return w.start(policy(w), off, wrap=CONTAINER)


def python(code, *args):
    return shlex.join([PYTHON, "-I", "-c", code] + [str(a) for a in args])


def attack(w, case, inside, off, code, *args, seen=None, reset=None, weaker=False):
    """weaker: what this level does not stop, and says so."""
    for d in (inside, off):
        if reset:
            reset()
        r = d.bash(python(code, *args), timeout_s=30)
        through = r.get("exitCode") == 0 and (seen is None or seen())
        if d is off:
            w.check(f"{case}: the control gets through", through, r["text"][-300:])
        elif w.check(f"{case}: it ran at level landlock", r["sandbox"] == "landlock", str(r)):
            hit = through or (seen is not None and seen())
            w.check(f"{case}: " + ("is not stopped here" if weaker else "stopped"), hit == weaker,
                    r["text"][-300:])
    if reset:
        reset()


def files(w):
    inside, off = start(w), start(w, True)
    secret, plan = w.secret, os.path.join(w.outside, "planted")
    read = "import sys; assert 'canary' in open(sys.argv[1]).read()"
    attack(w, "T01 a file that everybody may read", inside, off, read, secret)
    attack(w, "T01 password file", inside, off, "assert open('/etc/passwd').read()")
    attack(w, "T06 over a link", inside, off, "import os, sys\n"
           "if os.path.lexists('l'): os.unlink('l')\n"
           "os.symlink(sys.argv[1], 'l'); assert open('l').read()", secret)
    attack(w, "T06 over /proc/self/root", inside, off, read, "/proc/self/root" + secret)
    attack(w, "T06 a hard link", inside, off, "import os, sys; os.link(sys.argv[1], 'h'); assert open('h').read()",
           secret, reset=lambda: w.clear())
    attack(w, "T06 a rename inwards", inside, off, "import os, sys; os.rename(sys.argv[1], 'taken')", plan,
           seen=lambda: not os.path.exists(plan), reset=lambda: (open(plan, "w").close(), own(w, plan)))
    attack(w, "T05 writing outside", inside, off, "import sys; open(sys.argv[1], 'w').write('x')", plan,
           seen=lambda: os.path.exists(plan), reset=lambda: os.path.exists(plan) and os.unlink(plan))
    attack(w, "T05 writing to the host's /tmp", inside, off, "import sys; open(sys.argv[1], 'w').write('x')",
           f"/tmp/agentd-planted-{os.getpid()}", seen=lambda: os.path.exists(f"/tmp/agentd-planted-{os.getpid()}"),
           reset=lambda: os.path.exists(f"/tmp/agentd-planted-{os.getpid()}") and
           os.unlink(f"/tmp/agentd-planted-{os.getpid()}"))
    attack(w, "T05 cutting off a file outside", inside, off, "import os, sys; os.truncate(sys.argv[1], 0)", plan,
           seen=lambda: os.path.getsize(plan) == 0,
           reset=lambda: (open(plan, "w").write("full"), own(w, plan)))
    here = os.path.relpath(plan, w.work)
    for name, code in (("chmod", "import os, sys; os.chmod(sys.argv[1], 0o707)"),
                       ("chmod by a relative path", "import os, sys; os.chmod(sys.argv[2], 0o707)"),
                       ("chmod over a link", "import os, sys\nif os.path.lexists('m'): os.unlink('m')\n"
                                             "os.symlink(sys.argv[1], 'm'); os.chmod('m', 0o707)"),
                       ("chmod over a descriptor", "import os, sys\nf = os.open(sys.argv[1], os.O_PATH)\n"
                                                   "os.chmod(f'/proc/self/fd/{f}', 0o707)"),
                       ("chmod in a folder opened before", "import os, sys\n"
                        "os.chmod('planted', 0o707, dir_fd=os.open(os.path.dirname(sys.argv[1]), os.O_PATH))"),
                       ("chmod by a folder that is swapped meanwhile",
                        "import os, sys, threading, time\nout = os.path.dirname(sys.argv[1])\n"
                        "os.makedirs('d', exist_ok=True); open('d/planted', 'w').close()\n"
                        "if not os.path.lexists('e'): os.symlink(out, 'e')\n"
                        "import ctypes; l = ctypes.CDLL(None)\n"
                        "go = True\ndef swap():\n"
                        "  while go: l.renameat2(-100, b'd', -100, b'e', 2)\n"
                        "t = threading.Thread(target=swap); t.start()\nn = 0\nend = time.monotonic() + 2\n"
                        "while time.monotonic() < end and os.stat(sys.argv[1]).st_mode & 0o777 != 0o707:\n"
                        "  try: os.chmod('d/planted', 0o707); n += 1\n"
                        "  except OSError: pass\n"
                        "go = False; t.join()\n")):
        attack(w, f"T05 {name} outside", inside, off, code, plan, here,
               seen=lambda: os.stat(plan).st_mode & 0o777 == 0o707,
               reset=lambda: (open(plan, "w").close(), own(w, plan), os.chmod(plan, 0o644)))
    attack(w, "T05 the times of a file outside", inside, off, "import os, sys; os.utime(sys.argv[1], (77, 77))", plan,
           seen=lambda: os.stat(plan).st_mtime == 77, reset=lambda: (open(plan, "w").close(), own(w, plan)))
    w.clear()
    r = inside.bash("echo '#!/bin/sh' > s; echo 'echo ran' >> s; chmod 750 s; ./s; touch -d @99 s; stat -c '%a %Y' s; "
                    "mkdir d; chmod 700 d; cp -p s d/t; stat -c '%a %Y' d/t; touch -h d")
    w.check("modes and times of its own files can be changed", r["text"] ==
            "ran\n750 99\n750 99\n[exit code: 0]", str(r))
    attack(w, "T06 whether a path outside is there, and its size", inside, off,
           "import os, sys; assert os.stat(sys.argv[1]).st_size == 16", secret, weaker=True)
    attack(w, "T08 a set-user-id program", inside, off, "import os, sys\nopen('su', 'w').close(); os.chmod('su', 0o4755)",
           seen=lambda: os.stat(os.path.join(w.work, "su")).st_mode & 0o4000 != 0, reset=lambda: w.clear())
    inside.close()
    off.close()


def kernel(w):
    inside, off = start(w), start(w, True)
    path = os.path.join(w.outside, "sock")
    service = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    service.bind(path)
    os.chmod(path, 0o777)
    own(w, path)
    service.settimeout(0.2)

    def heard():
        try:
            return bool(service.recv(10))
        except OSError:
            return False
    attack(w, "T03 a service's socket", inside, off,
           "import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'x', sys.argv[1])", path,
           seen=heard)
    attack(w, "T03 by a pair of datagram sockets", inside, off,
           "import socket, sys\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.sendto(b'x', sys.argv[1])",
           path, seen=heard)
    service.close()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    listener.settimeout(0.2)
    port = listener.getsockname()[1]

    def called():
        try:
            listener.accept()[0].close()
            return True
        except OSError:
            return False
    attack(w, "T19 a connection", inside, off,
           "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)", port, seen=called)
    listener.close()
    attack(w, "T19 a datagram", inside, off,
           "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))")
    attack(w, "T21 raw netlink", inside, off, "import socket; socket.socket(16, socket.SOCK_RAW, 0)")
    attack(w, "T23 rings", inside, off, "import ctypes; l = ctypes.CDLL(None)\n"
           "assert l.syscall(425, 1, ctypes.create_string_buffer(256)) >= 0")
    attack(w, "T32 System V memory that others see", inside, off, "import ctypes; l = ctypes.CDLL(None)\n"
           "i = l.shmget(0, 4096, 0o1600); assert i >= 0; l.shmctl(i, 0, 0)")
    attack(w, "T33 shared memory that stays", inside, off,
           "open('/dev/shm/agentd-landlock', 'w')", seen=lambda: os.path.exists("/dev/shm/agentd-landlock"),
           reset=lambda: os.path.exists("/dev/shm/agentd-landlock") and os.unlink("/dev/shm/agentd-landlock"))
    for name, code in (("", "import resource as r; r.setrlimit(r.RLIMIT_RTTIME, (5, 5))"),
                       (" by the old call", "import ctypes; l = ctypes.CDLL(None)\n"
                        "assert l.syscall(160, 15, ctypes.byref((ctypes.c_ulong * 2)(5, 5))) == 0"),
                       (" with high bits", "import ctypes; l = ctypes.CDLL(None)\n"
                        "two = (ctypes.c_ulong * 2)(5, 5)\n"
                        "assert l.syscall(302, 0, ctypes.c_ulong(1 << 32 | 15), ctypes.byref(two), 0) == 0")):
        attack(w, "T33 the limit that a cell is known by, changed" + name, inside, off, code)
    r = inside.bash("ulimit -a > /dev/null && ulimit -n 64 && ulimit -n")
    w.check("and limits can be read, others lowered", r["text"].startswith("64\n"), str(r))
    r = inside.bash("grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; id -u")
    said = r["text"].split()
    w.check("T26 no capability, no new privileges, a filter, and not root", [said[i] for i in (1, 3, 5, 9)] == ["0" * 16] * 4 and
            said[said.index("NoNewPrivs:") + 1] == "1" and said[said.index("Seccomp:") + 1] == "2" and
            int(said[said.index("Seccomp:") + 2]) != 0, str(r))
    inside.close()
    off.close()


def others(w):
    """Processes outside: seen, and nothing more."""
    inside, off = start(w), start(w, True)
    user = dict(user=OWNER, group=OWNER, extra_groups=[]) if w.is_root else {}
    mark = f"60{os.getpid()}"

    def victim():
        return subprocess.Popen(["/usr/bin/sleep", mark], env={"SECRET": "canary"}, **user)
    v = victim()
    alive_now = []

    def dead():
        gone = v.poll() is not None
        alive_now.append(gone)
        return gone
    attack(w, "T02 T09 environment of another process", inside, off,
           "import sys; assert 'canary' in open(f'/proc/{sys.argv[1]}/environ').read()", v.pid)
    attack(w, "T09 memory of another process", inside, off,
           "import sys; open(f'/proc/{sys.argv[1]}/mem', 'rb')", v.pid)
    attack(w, "T09 folder and files of another process", inside, off,
           "import os, sys; os.listdir(f'/proc/{sys.argv[1]}/fd'); os.listdir(f'/proc/{sys.argv[1]}/cwd')", v.pid)
    attack(w, "T09 tracing another process", inside, off,
           "import ctypes, sys; l = ctypes.CDLL(None); assert l.ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0", v.pid)
    worse = os.getpriority(os.PRIO_PROCESS, v.pid) + 1  # whatever this test itself was started with
    if worse <= 19:
        attack(w, "T09 a worse place in line for another process", inside, off,
               "import os, sys; os.setpriority(os.PRIO_PROCESS, *map(int, sys.argv[1:3]))", v.pid, worse,
               seen=lambda: os.getpriority(os.PRIO_PROCESS, v.pid) == worse)
    if not w.is_root:  # root here lacks the capability, so that there would be no control
        attack(w, "T09 limits of another process", inside, off,
               "import resource, sys; resource.prlimit(int(sys.argv[1]), resource.RLIMIT_NOFILE, (9, 9))", v.pid)
    attack(w, "T09 the list of processes, and their command lines", inside, off,
           "import sys; assert sys.argv[2] in open(f'/proc/{sys.argv[1]}/cmdline').read()", v.pid, mark, weaker=True)
    attack(w, "T09 a signal to another process", inside, off, "import os, sys; os.kill(int(sys.argv[1]), 15)", v.pid,
           seen=lambda: wait_for(dead, 0.5))
    v.kill()
    v.wait()
    v = victim()
    r = inside.bash(python("import os, signal\nsignal.signal(15, signal.SIG_IGN)\nos.kill(-1, 15)"))
    time.sleep(0.2)
    w.check("T10 a signal to everybody reaches nobody outside", v.poll() is None, str(r))
    r = inside.bash("echo on")
    w.check("T10 and the session goes on", r["exitCode"] == 0 and "on" in r["text"], str(r))
    v.kill()
    v.wait()
    inside.close()
    off.close()


def ends(w):
    """Nothing outlives its call, its session, the daemon, the spawner, or the reaper."""
    d = start(w)
    mark = f"61{os.getpid()}"
    for name, how in (("in the background", "sleep {} &"), ("a session of its own", "setsid sleep {} &"),
                      ("twice forked", "(setsid sh -c 'sleep {} & exit' &)"),
                      ("that ignores signals", "(trap '' TERM HUP INT; setsid sleep {} &)")):
        r = d.bash(how.format(mark) + "; echo ok")
        w.check(f"T11 a child {name} is gone with its call", "ok" in r["text"] and
                wait_for(lambda: not processes(mark), 5), f"{r} {processes(mark)}")
    hop = ("import os, time\nend = time.monotonic() + 60\nwhile time.monotonic() < end:\n"
           "  if os.fork(): os._exit(0)\n  os.setsid()\n")
    r = d.bash(f"{python(hop, mark)} & sleep 0.3; echo ok")
    w.check("T11 a child that hops from fork to fork", "ok" in r["text"] and
            wait_for(lambda: not processes(mark), 5), f"{r} {processes(mark)}")
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass\n"
    r = d.bash(f"{python(bomb, mark)} & sleep 0.5; echo over", timeout_s=20)
    w.check("T12 a fork bomb is over with its call", wait_for(lambda: not processes(mark), 10),
            f"{r} {len(processes(mark))}")
    r = d.bash("echo on")
    w.check("T12 and the session goes on", "on" in r["text"], str(r))
    r = d.python("import time\ntime.sleep(600)", timeout_s=1)
    w.check("T14 the time limit holds", r["status"] in ("timed_out", "failed", "killed"), str(r))
    nameless = {"command": python(
        "import os, time\nf = os.open(os.environ.get('TMPDIR', '/tmp'), os.O_TMPFILE | os.O_RDWR)\n"
        "for _ in range(150): os.write(f, b'x' * (1 << 20))\ntime.sleep(0.5); print('held')")}
    for off in (False, True):
        rc, r = w.tool("bash", nameless, policy(w, "workspace: temp\nlimits: {tmp: 8M}\n"), off, CONTAINER)
        w.check("T15 control: without it they are held" if off else
                "T15 a hundred and fifty megabytes without a name where temporary files are", (rc == 0) == off and
                ("held\n" in r["text"]) == off and (off or r["level"] == "landlock"), f"{rc} {r}")
    r = d.bash("echo kept > $TMPDIR/kept; echo $TMPDIR")
    scratch = r["text"].split("\n")[0]
    w.check("T33 a folder of its own stands for /tmp", scratch.startswith("/tmp/agentd-tmp-") and
            os.path.exists(scratch), str(r))
    r = d.bash("python3 -c 'import os\nfor i in range(400): os.mkdir(\"x\" * 100); os.chdir(\"x\" * 100)' ; "
               "cd $TMPDIR; mkdir closed; touch closed/in; chmod 0 closed; ln -s /usr link; mkfifo pipe; "
               "/usr/bin/python3 -c 'import os\nfor i in range(400): os.mkdir(\"y\" * 100); os.chdir(\"y\" * 100)'")
    other = d.new_session()
    r = d.bash(f"ls {scratch}; cat {scratch}/kept", session=other)
    w.check("T32 another session's folder is closed", "kept\n" not in r["text"] and "y" * 100 not in r["text"], str(r))
    d.rpc("session.close", sessionId=d.session)
    d.rpc("session.close", sessionId=other)
    w.check("T33 and is gone with the session", wait_for(lambda: not os.path.exists(scratch), 10), scratch)
    w.clear()
    d.close()


def below(pid):
    return [p for c in children(pid) for p in [c] + below(c)]


def killed(w):
    """Also what has left its group and session, which only the tree below us still tells; and
    when nobody is left to whom it could be told, the next start ends it."""
    mark = f"63{os.getpid()}"
    for who in ("daemon", "spawner", "reaper", "three at once"):
        d = start(w)
        d.bash(f"setsid sh -c 'sleep {mark}; true' & wait", background=True)
        scratch = d.bash("echo $TMPDIR")["text"].split("\n")[0]
        w.check(f"T33 the job runs before the {who} is killed", wait_for(lambda: processes("sleep\0" + mark), 10), "no")
        spawner = [c for c in children(d.proc.pid) if "spawner" in open(f"/proc/{c}/comm").read()]
        reapers = [c for s in spawner for c in children(s)]
        tools = [p for r in reapers for p in below(r) if p not in processes(mark)]  # they would clean up
        every = [d.proc.pid] + spawner + reapers + tools
        victims = {"daemon": [d.proc.pid], "spawner": spawner, "reaper": reapers}.get(who, every)
        for signo in [signal.SIGSTOP] * (victims is every) + [signal.SIGKILL]:
            for pid in victims:
                os.kill(pid, signo)
        if victims is every:
            w.check("T33 with all three gone nobody ends it at once", wait_for(
                lambda: not any(map(alive, reapers)), 10) and bool(processes("sleep\0" + mark)), "it ended")
            next_one = start(w)
            next_one.bash("true")
        w.check(f"T33 the {who} is killed: nothing of the session is left", bool(reapers) and
                wait_for(lambda: not processes("sleep\0" + mark) and not any(map(alive, reapers)), 10),
                f"{processes(mark)} {[r for r in reapers if alive(r)]}")
        w.check(f"T33 nor its folder, when the {who} was killed", wait_for(lambda: not os.path.exists(scratch), 10),
                scratch)
        if victims is every:
            next_one.kill()
        d.kill()


def said(w):
    """The level is never taken silently, and never where a policy asks for more."""
    own(w, w.work)

    def run(wrap, text, *argv, env=None):
        r = subprocess.run(wrap + [w.ctl, "sandbox", "run", "--json", "--policy", policy(w, text), "--workspace",
                                   w.work, "--"] + list(argv or ["true"]), capture_output=True, text=True,
                           env=env, timeout=60)
        record = (r.stderr.strip().split("\n") or [""])[-1]
        return r.returncode, json.loads(r.stdout if r.returncode == 120 else record)
    for name, wrap in (("container", CONTAINER), ("AppArmor's rule", APPARMOR)):
        rc, o = run(wrap, "")
        w.check(f"T34 {name}: the record names the level and what is weaker", rc == 0 and o["level"] == "landlock" and
                o["cell"]["namespaces"] == "none" and len(o["cell"]["weaker"]) >= 5, str(o))
    rc, o = run([], "")
    w.check("T34 where namespaces work they are used, whatever less is accepted", rc == 0 and
            o["level"] in ("full", "nolimits"), str(o))
    for need in ("full", "nolimits") if w.is_root else ("nolimits",):
        path = os.path.join(w.root, need + "-needed.yaml")
        with open(path, "w") as f:
            f.write(f"version: 1\nrequire: {need}\n")
        r = subprocess.run(CONTAINER + [w.ctl, "sandbox", "run", "--json", "--policy", path, "--workspace", w.work,
                                        "--", "true"], capture_output=True, text=True, timeout=60)
        o = json.loads(r.stdout)
        w.check(f"T34 require {need}: refused, and told what is offered", r.returncode == 120 and
                o["offered"] == "landlock" and "require: landlock" in o["remedy"], str(o))
    for text, word in (("workspace: copy\n", "workspace: dir"), ("network: {mode: proxy}\n", "mode: none"),
                       ("network: {mode: host, i_know: true}\n", "mode: none"), ("profile: debug\n", "profile: default"),
                       ("landlock: 'off'\n", "landlock: off")):
        rc, o = run(CONTAINER, text)
        w.check(f"T34 what the level lacks is refused in words: {text.strip()}", rc == 120 and word in o["remedy"] and
                o["offered"] == "landlock", str(o))
    rc, o = run(CONTAINER, "", env=dict(os.environ, AGENTD_LANDLOCK_ABI="2"))
    w.check("T34 an old Landlock: refused", rc == 120 and "ABI 3" in o["remedy"] and o["offered"] == "none", str(o))
    rc, o = run(CONTAINER, "", env=dict(os.environ, AGENTD_LANDLOCK_ABI="4"))
    w.check("T34 a Landlock without scopes: said that signals are not held", rc == 0 and
            any("signals" in x for x in o["cell"]["weaker"]), str(o))
    rc, o = run(CONTAINER, "workspace: temp\n", "sh", "-c", "pwd > x; cat x >&2; ls ..")
    w.check("T34 a temporary workspace works", rc == 0 and o["level"] == "landlock", str(o))
    if w.is_root:
        os.chown(w.work, 0, 0)
        rc, o = run(CONTAINER, "")
        w.check("T34 root's own workspace is refused: inside would be root", rc == 120 and o["step"] == "user", str(o))
        own(w, w.work)
    r = subprocess.run(CONTAINER + [w.ctl, "sandbox", "explain", "--policy", policy(w, ""), "--workspace", w.work],
                       capture_output=True, text=True, timeout=60)
    w.check("T34 explain says it", "level    landlock\nweaker" in r.stdout and "without namespaces" in r.stdout,
            r.stdout[-500:] + r.stderr)
    r = subprocess.run(CONTAINER + [w.ctl, "doctor", "--json"], capture_output=True, text=True, timeout=60,
                       env=dict(os.environ, HOME=w.outside))
    w.check("T34 doctor says it", r.returncode == 4 and json.loads(r.stdout)["level"] == "landlock", r.stdout[-500:])
    d = start(w)
    r = d.bash("pwd")
    w.check("T34 and every result", r["sandbox"] == "landlock" and r["text"].startswith(w.work), str(r))
    w.check("T34 and the daemon's log", '"level":"landlock"' in d.read_log() or '\\"level\\":\\"landlock\\"' in
            d.read_log(), d.read_log()[-800:])
    d.close()


def work(w):
    d = start(w)
    r = d.bash("cat > a.c <<'E'\n#include <stdio.h>\nint main(){puts(\"hello\");}\nE\ngcc a.c -o a && ./a && "
               "git init -q . && git add a.c && git -c user.name=n -c user.email=e commit -qm x && git log --oneline | wc -l")
    w.check("compiling and git work", r["text"].startswith("hello\n1\n"), str(r))
    r = d.python("import os, subprocess, tempfile, sqlite3\nx = 41\n"
                 "tempfile.mkstemp(); sqlite3.connect('db').execute('create table t(a)')\n"
                 "subprocess.run(['true']).returncode, os.cpu_count() > 0")
    w.check("Python works", r["text"] == "(0, True)\n[ok]", str(r))
    w.check("and is kept", d.python("x + 1")["text"] == "42\n[ok]", "not kept")
    busy_job(w, d)
    r = d.call("str_replace_editor", command="view", path="/workspace/a.c")
    w.check("the editor knows /workspace", "#include" in r["text"], str(r))
    r = d.bash("seq 1 100000")
    w.check("what is cut can be read", "spill:1" in r["text"], r["text"][-200:])
    r = d.bash("sleep 30; echo x", background=True)
    w.check("jobs work", "job" in r["text"], str(r))
    d.close()
    w.clear()


PROBES = ("import ctypes, os\n"
          "l = ctypes.CDLL(None, use_errno=True)\n"
          "def call(*a):\n"
          "  ctypes.set_errno(0)\n"
          "  return l.syscall(*a) >= 0 or ctypes.get_errno()\n"
          "print([call(239, 0, 0, 0, 0, 0) for _ in range(5)], call(165, 0, 0, 0, 0, 0), call(9999), "
          "call(285, os.open('x', 66), 0, 0, 10))\n"
          "os.chmod('x', 0o700)\n"
          "try: os.chmod('x', 0o4700)\n"
          "except PermissionError: print('no set-id')\n")


def calls(w):
    """log_calls: refused as ever, and told by name; unsafe_allow: those named, and recorded."""
    own(w, w.work)

    def run(text, wrap=(), level="nolimits"):
        path = os.path.join(w.root, f"calls-{abs(hash(text + level))}.yaml")
        with open(path, "w") as f:
            f.write(f"version: 1\nrequire: {level}\n{text}tools: {{'*': allow}}\n")
        r = subprocess.run(list(wrap) + [w.ctl, "sandbox", "run", "--json", "-p", path, "-w", w.work, "--", PYTHON,
                                         "-I", "-c", PROBES], capture_output=True, text=True, timeout=90)
        return r, json.loads((r.stderr.strip().split("\n") or ["{}"])[-1]) if r.returncode == 0 else {}
    plain, record = run("")
    w.check("calls: without log_calls nothing is told", "refused_calls" not in record and
            plain.stdout == "[1, 1, 1, 1, 1] 1 38 95\nno set-id\n", plain.stdout + plain.stderr)
    r, record = run("log_calls: true\n")
    w.check("calls: with it the same are refused", r.stdout == plain.stdout, r.stdout + r.stderr)
    w.check("calls: and told by name and number", record.get("refused_calls") ==
            {"get_mempolicy": 4, "mount": 1, "call 9999": 1, "fallocate": 1, "chmod": 1}, str(record))
    w.check("calls: the record says so", record["cell"]["log_calls"] is True, str(record))
    r, record = run("log_calls: true\nunsafe_allow: [get_mempolicy]\n")
    w.check("calls: what is added is allowed, the rest is not", r.stdout.startswith("[True, True, True, True, True] 1 38 95"),
            r.stdout + r.stderr)
    w.check("calls: and is recorded", record["cell"]["unsafe_allow"] == ["get_mempolicy"] and
            "get_mempolicy" not in record["refused_calls"], str(record))
    r, record = run("log_calls: true\n", CONTAINER, "landlock")
    w.check("calls: at level landlock too", record.get("level") == "landlock" and
            record["refused_calls"].get("get_mempolicy") == 4, str(record) + r.stderr)
    for name, word in (("socket", "rules on its arguments"), ("clone3", "answer for the filter"), ("nope", "no system call"),
                       ("x" * 60, "longer than any")):
        r, _ = run(f"unsafe_allow: [{name}]\n")
        w.check(f"calls: {name[:9]} cannot be added", r.returncode == 1 and word in r.stderr and ":3:" in r.stderr,
                r.stderr)
    d = w.start(w.policy("log_calls: true\nbackground: true\n"))
    d.bash(python("import os; os.chroot('/')"))
    r = d.python("import time\nimport os\ntry: os.chroot('/')\nexcept OSError as e: print(e.errno)")
    w.check("calls: a session's kept interpreter goes on", r["text"].startswith("1\n"), str(r))
    log = d.read_log().replace("\\", "")
    w.check("calls: and the audit tells", '"event":"refused","call":"chroot","times":' in log, log[-500:])
    d.bash("kill -9 -1")
    r = d.python("import os\ntry: os.chroot('/')\nexcept OSError as e: print(e.errno)")
    w.check("calls: whoever kills everything ends no refusal", r["text"].split("\n")[-2] in ("1", "38"), str(r))
    d.close()


def sub_ids(w):
    """A plain user with subordinate ids: pid 1 of a cell is somebody else than the payload."""
    if not w.is_root or not os.path.exists("/usr/bin/newuidmap") or \
            subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        return w.skip("subordinate ids", "needs root, a mount namespace and the package uidmap")
    names = {}
    for name, line in (("passwd", f"agentd-sub:x:{OWNER}:{OWNER}::/nonexistent:/bin/sh\n"),
                       ("subuid", "agentd-sub:870000:65536\n"), ("subgid", "agentd-sub:870000:65536\n")):
        names[name] = os.path.join(w.root, name)
        with open(names[name], "w") as f:
            f.write((open("/etc/passwd").read() if name == "passwd" else "") + line)
        os.chmod(names[name], 0o644)
        if not os.path.exists("/etc/" + name):
            return w.skip("subordinate ids", f"/etc/{name} is not there to be covered")
    binds = "; ".join(f"mount --bind {at} /etc/{name}" for name, at in names.items())
    user = ["unshare", "-m", "sh", "-c", binds + "; exec \"$@\"", "sh", "setpriv", "--reuid", str(OWNER), "--regid",
            str(OWNER), "--clear-groups", "--inh-caps=-all"]
    work = os.path.join(w.root, "sub")
    os.mkdir(work)
    own(w, work)
    seen = {}
    for name, more in (("two ids", []), ("one id", ["--no-new-privs"])):
        mark = f"62{os.getpid()}"
        p = subprocess.Popen(user + more + [w.ctl, "sandbox", "run", "--json", "-p", w.policy("workspace: dir\n"), "-w", work,
                                            "--", "sh", "-c", f"kill -9 1; echo a > f; touch up; sleep {mark}"],
                             stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        wait_for(lambda: os.path.exists(os.path.join(work, "up")) and processes("sleep\0" + mark), 20)
        payload = processes("sleep\0" + mark)
        ids = {}
        for pid in payload[:1]:
            while pid > 1:
                with open(f"/proc/{pid}/status") as f:
                    fields = dict(x.rstrip("\n").split(":\t", 1) for x in f if ":\t" in x)
                ids.setdefault(fields["NSpid"].split()[-1], int(fields["Uid"].split()[0]))
                if fields["NSpid"].split()[-1] == "1":
                    break
                pid = int(fields["PPid"])
            os.kill(payload[0], signal.SIGKILL)
        record = json.loads(p.communicate(timeout=30)[1].decode().strip().split("\n")[-1])
        seen[name] = ids.get("1"), {v for k, v in ids.items() if k != "1"}, record["cell"]["init"], \
            os.stat(os.path.join(work, "f")).st_uid
        os.unlink(os.path.join(work, "up"))
    w.check("subordinate ids: pid 1 has one of them, the payload is the user, its files are the user's",
            seen["two ids"] == (935535, {OWNER}, "an id of its own", OWNER), str(seen))
    w.check("subordinate ids: where they cannot be had, one id serves, and the record says so",
            seen["one id"] == (OWNER, {OWNER}, "the payload's id", OWNER), str(seen))


if __name__ == "__main__":
    if os.uname().machine != "x86_64":
        sys.exit(77)
    main([files, kernel, others, ends, killed, said, work, calls, sub_ids], plain="kernel|others|said|calls|killed")
