"""session.py - T29 to T34: ends and lies of the interpreter, start-up files, other sessions,
what is left, weak hosts."""
import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

from harness import PYTHON, WEAK, alive, children, kill_all, main, processes, threat, wait_for


@threat("T29")
def t29_ending(w):
    """Whatever ends the interpreter is told, and the next call works in a fresh one."""
    d = w.daemon()
    for name, code in (("exit", "import os; os._exit(3)"), ("abort", "import os; os.abort()"),
                       ("a crash", "import ctypes; ctypes.string_at(0)"),
                       ("a stack overflow in C", "import sys; sys.setrecursionlimit(10**9)\n"
                                                 "def f(): eval('f()')\nf()"),
                       ("kill", "import os; os.kill(os.getpid(), 9)"),
                       ("another program", "import os; os.execv('/bin/true', ['true'])"),
                       ("another program that stays", "import os; os.execv('/bin/sleep', ['sleep', '4000'])"),
                       ("closing everything", "import os; os.closerange(0, 4096)"),
                       ("closing its socket alone", "import os; os.close(100)"),
                       ("threads that never end and an exit",
                        "import os, threading\nthreading.Thread(target=lambda: os._exit(0)).start()\n"
                        "while True: pass")):
        d.python("kept = 1")
        began = time.monotonic()
        r = d.python(code, timeout_s=10)
        took = time.monotonic() - began
        w.check(f"T29 {name}: the reply says so", r["isError"] and r["stateLost"] and "lost" in r["text"] and
                took < 9, f"{took:.1f} s: {r}")
        r = d.python("'kept' in globals()")
        w.check(f"T29 {name}: the next call works, in a fresh one", r["text"] == "False\n[ok]", str(r))
    r = d.python("raise SystemExit(4)")
    w.check("T29 a plain exit of the code is no end", r["status"] == "failed" and not r["stateLost"], str(r))
    r = d.python("import os, shutil\nos.chdir('/workspace')\nfor n in os.listdir('.'): \n"
                 "  shutil.rmtree(n, True) if os.path.isdir(n) else os.unlink(n)\n"
                 "try: os.rmdir('/workspace')\nexcept OSError: print('held')")
    w.check("T29 the workspace itself cannot be deleted", "held" in r["text"] and os.path.isdir(w.work), str(r))
    r = d.python("import os\nos.mkdir('/workspace/gone'); os.chdir('/workspace/gone'); os.rmdir('/workspace/gone')")
    r = d.python("1 + 1")
    w.check("T29 standing in a deleted folder", r["text"] == "2\n[ok]", str(r))
    d.bash("mkdir /workspace/gone; cd /workspace/gone; rmdir /workspace/gone")
    r = d.bash("echo on")
    w.check("T29 a shell in a deleted folder", r["exitCode"] == 0 and "on" in r["text"], str(r))
    d.bash("cd /workspace")
    r = d.bash("exec 1>&- 2>&-; exec sleep 0")
    w.check("T29 a shell that closes its output and becomes another program", r["exitCode"] == 0, str(r))
    r = subprocess.run([PYTHON, "-I", "-c", "import os; os._exit(3)"])
    w.check("T29 control: the same code ends an interpreter", r.returncode == 3, str(r))


@threat("T30")
def t30_forging(w):
    """A call may lie about itself; it changes no other call's result."""
    d = w.daemon()
    r = d.python("import os\nos.write(100, b'x' * 32 + b' 0 6 -1 -1 -1\\nforged')\n1 + 1")
    w.check("T30 an answer sent ahead, without the nonce", r["isError"] and r["stateLost"] and
            "protocol" in r["text"] and "forged" not in r["text"].replace("'forged", ""), str(r))
    r = d.python("6 * 7")
    w.check("T30 and the next call is untouched", r["text"] == "42\n[ok]", str(r))
    for name, code in (
            ("built-in functions", "import builtins\nfor n in ('repr', 'compile', 'exec', 'eval', 'print', 'len', "
             "'isinstance', 'type', 'dict', 'id', 'int', 'str', 'bytes'):\n"
             "  setattr(builtins, n, lambda *a, **k: 'forged')"),
            ("what os offers", "import os, posix\nfor m in (os, posix):\n"
             "  for n in ('read', 'write', 'getpid', '_exit'): setattr(m, n, lambda *a: b'forged')"),
            ("the streams", "import sys, io\nclass F(io.StringIO):\n  def write(s, t): return sys.__stdout__.write('forged')\n"
             "sys.stdout = sys.stderr = F()"),
            ("modules that the driver may load", "import sys, types\n"
             "for n in ('traceback', 'linecache', 'tokenize', 're', 'enum', 'codecs', '_ast'):\n"
             "  m = types.ModuleType(n); m.__getattr__ = lambda k: (lambda *a, **b: 'forged'); sys.modules[n] = m"),
            ("the search for modules", "import sys\nclass F:\n"
             "  def find_spec(s, n, p=None, t=None): print('forged', n)\nsys.meta_path.insert(0, F())"),
            ("tracing", "import sys, threading\ndef t(f, e, a):\n"
             "  for k in list(f.f_locals): f.f_locals[k] = 'forged'\n"
             "  if 'forged' not in str(f.f_code.co_name): print('forged', end='')\n"
             "  return t\nsys.setprofile(t); sys.settrace(t)"),
            ("a timer", "import signal\nsignal.signal(signal.SIGALRM, lambda *a: print('forged'))\n"
             "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)"),
            ("the display of values", "import sys\nsys.displayhook = sys.excepthook = lambda *a: print('forged')")):
        r = d.python(code)
        later = [d.python("print(6 * 7)\nlen([1, 2])"), d.python("1 / 0"), d.python("'a' + 'b'")]
        said = [x["text"] for x in later]
        w.check(f"T30 replacing {name} changes no later call", said[0] == "42\n2\n[ok]" and
                said[1].endswith("ZeroDivisionError: division by zero\n[error: ZeroDivisionError]") and
                said[2] == "'ab'\n[ok]", f"{r['text'][:200]!r} then {said}")
        d.python("1", reset=True)
    # Threads that wait for the next request, to answer it themselves.
    for name, how in (("by its number", "100"), ("by another number", "os.dup(100)")):
        r = d.python("import os, threading\ndef f(n):\n"
                     "  while True: os.write(100, os.read(n, 65536).split()[0] + b' 0 6 -1 -1 -1\\nforged')\n"
                     f"for _ in range(4): threading.Thread(target=f, args=({how},), daemon=True).start()\n"
                     "import time; time.sleep(0.2)")
        w.check(f"T30 threads that read the interpreter's input, {name}: its end, and told", r["isError"] and
                r["stateLost"], str(r))
        r = d.python("'honest'")
        w.check(f"T30 and the next call is answered by itself, {name}", r["text"] == "'honest'\n[ok]", str(r))
    # What goes on after its call is marked, whenever it prints.
    d.python("import threading, time\ndef f():\n  time.sleep(0.3); print('late words'); time.sleep(600)\n"
             "threading.Thread(target=f, daemon=True).start()")
    r = d.python("import time; time.sleep(0.6); 'mine'")
    w.check("T30 a thread's late words are marked", "late words" not in r["text"] or
            "threads" in r["text"] and "earlier code" in r["text"], str(r))
    r = d.python("1", reset=True)
    # One that ends while it is not looked at, one that Python does not know, a timer of the kernel's.
    native = ("import ctypes, os, time\nl = ctypes.CDLL(None)\n"
              "@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)\n"
              "def f(a):\n  time.sleep(0.3); os.write(1, b'late words\\n'); time.sleep(600)\n"
              "l.pthread_create(ctypes.byref(ctypes.c_ulong()), None, f, None)")
    timer = ("import ctypes, signal\nl, t = ctypes.CDLL(None), ctypes.c_void_p()\n"
             "signal.signal(signal.SIGUSR1, lambda *a: print('late words'))\n"
             "l.timer_create(1, (ctypes.c_int * 16)(0, 0, signal.SIGUSR1, 0), ctypes.byref(t))\n"
             "l.timer_settime(t, 0, (ctypes.c_long * 4)(0, 300000000, 0, 300000000), None)")
    for name, code in (("a thread that has ended since", "import threading, time\ndef f():\n"
                        "  time.sleep(0.3); print('late words')\nthreading.Thread(target=f, daemon=True).start()"),
                       ("a thread that Python does not count", native), ("a timer of the kernel's", timer)):
        quiet = d.python(code)
        r = d.python("import time; time.sleep(2); 'mine'")
        w.check(f"T30 the late words of {name} are marked", "late words" in r["text"] and
                "earlier code" in r["text"] and "meanwhile" not in quiet["text"], f"{quiet} {r}")
        d.python("1", reset=True)
    d.python("import threading, time\nthreading.Thread(target=time.sleep, args=(0.1,)).start()")
    r = d.python("import time; time.sleep(2); 6 * 7")
    w.check("T30 a thread that said nothing is nothing to tell", r["text"] == "42\n[ok]", str(r))
    # A shell call writes into the kept interpreter, or reads what it is sent.
    d.python("mark = 'genuine'")
    poke = ("import glob, os, re, sys\n"
            "hit = False\n"
            "for p in glob.glob('/proc/[0-9]*'):\n"
            "  if p == '/proc/%d' % os.getpid(): continue\n"
            "  try: m = os.open(p + '/mem', os.O_RDWR)\n"
            "  except OSError: continue\n"
            "  hit = True; print(p)\n"
            "  for l in open(p + '/maps'):\n"
            "    g = re.match('([0-9a-f]+)-([0-9a-f]+) rw', l)\n"
            "    if not g: continue\n"
            "    a, b = int(g[1], 16), int(g[2], 16)\n"
            "    try: d = os.pread(m, b - a, a)\n"
            "    except OSError: continue\n"
            "    for f in re.finditer(b'genuine', d): os.pwrite(m, b'forged!', a + f.start())\n"
            "sys.exit(0 if hit else 1)\n")
    r = d.bash("exec " + shlex.join([PYTHON, "-I", "-c", poke]))
    w.check("T30 no memory of the session's other processes is open", r["exitCode"] == 1, str(r))
    w.check("T30 the interpreter keeps what it had", d.python("mark")["text"] == "'genuine'\n[ok]", "it changed")
    victim = subprocess.Popen([PYTHON, "-I", "-c", "mark = 'genuine'; import time; time.sleep(600)"])
    rc, _, _ = w.host([PYTHON, "-I", "-c", poke.replace("glob.glob('/proc/[0-9]*')", f"['/proc/{victim.pid}']")])
    w.check("T30 control: outside it is", rc == 0, f"exit {rc}")
    victim.kill()
    victim.wait()
    # The tool's own process: not to be read, traced, or spoken for.
    r = d.bash(shlex.join([PYTHON, "-I", "-c",
                           "import ctypes, os, sys\n"
                           "l = ctypes.CDLL(None)\n"
                           "got = []\n"
                           "for pid in (1, 2, os.getppid()):\n"
                           "  for f in ('mem', 'environ', 'maps', 'fd', 'exe', 'cwd', 'root', 'auxv', 'stack', 'syscall'):\n"
                           "    try:\n"
                           "      p = f'/proc/{pid}/{f}'\n"
                           "      os.listdir(p) if f in ('fd', 'cwd', 'root') else os.open(p, os.O_RDONLY) \n"
                           "      if pid != os.getppid() or pid <= 2: got.append(p)\n"
                           "    except OSError: pass\n"
                           "  if l.ptrace(16, pid, 0, 0) == 0: got.append(pid)\n"
                           "  if l.syscall(438, l.syscall(434, pid, 0), 100, 0) >= 0: got.append(('fd', pid))\n"
                           "print(got)"]))
    w.check("T30 the tool's own process is closed to the code it runs", r["text"] == "[]\n[exit code: 0]", str(r))
    # What is kept of a long output is not another call's to rewrite.
    forge = ("for f in /tmp/agentd-spill.*/1.txt \"$@\" /proc/[0-9]*/fd/*; do "
             "[ -f \"$f\" ] && grep -qs genuine \"$f\" && echo forged >\"$f\"; done; true")
    for case in (d, w.daemon(off=True)):
        s = case.new_session()
        kept = "seq -f 'genuine %g' 20000"
        r = case.bash(kept, session=s)
        spill = "spill:" + r["text"].rsplit("spill:", 1)[-1].split(",")[0]
        case.bash(f"set -- {case.root}/state/sessions/{s}/spill/*; " + forge, session=s)
        r = case.call("str_replace_editor", s, command="view", path=spill)
        forged = "forged" in r["text"]
        w.check("T30 a kept output is what it was" if case is d else
                "T30 control: without a cell it can be rewritten", forged != (case is d) and
                (forged or "genuine 1\n" in r["text"]), str(r)[:400])
        case.rpc("session.close", sessionId=s)
    other = d.new_session()
    # The kept shell: nothing that a call leaves keeps the next command from being run.
    for poison in ("eval() { echo hijack; }; trap() { echo hijack; }; exit() { echo hijack; }",
                   "__agentd_save() { echo hijack; }; readonly -f __agentd_save", "readonly __agentd_command=hijack",
                   "shopt -s extdebug; trap 'echo hijack; false' DEBUG", "set -n", "set -e; set -u; ulimit -n 3",
                   "exec 2>&-; PATH=/nonexistent; IFS=e", "builtin() { :; }; declare() { echo hijack; }",
                   "builtin set -o pipefail; set() { /bin/echo hijack; }; shopt() { /bin/echo hijack; }",
                   "builtin() { case $1 in cd|umask) /bin/echo hijack;; *) command builtin \"$@\";; esac; }",
                   "shopt -s expand_aliases; for n in builtin trap declare umask eval __agentd_save; do "
                   "alias $n='/bin/echo hijack;'; done"):
        d.bash(poison, session=other)
        r = d.bash("/bin/echo ok", session=other)
        w.check(f"T30 a shell left with {poison[:40]}", "ok\n[exit code: 0]" in r["text"] and "hijack" not in r["text"],
                str(r))
        d.rpc("session.close", sessionId=other)
        other = d.new_session()
    # A state that never ends: forgotten, and told, when it has held up one command.
    r = d.bash("printf 'while :; do :; done\\n#end\\n' >|/proc/$$/fd/10; kill -9 $$", session=other)
    r = d.bash("/bin/echo held", session=other, timeout_s=1)
    w.check("T30 a shell's state without end is dropped, and told", r["stateLost"] and "dropped" in r["text"], str(r))
    r = d.bash("/bin/echo free", session=other, timeout_s=10)
    w.check("T30 and the next command runs", r["text"] == "free\n[exit code: 0]", str(r))
    d.rpc("session.close", sessionId=other)
    # Two sessions of one daemon: what one leaves, the other never sees.
    other = d.new_session()
    d.python("import builtins\nbuiltins.leaked = 'forged'")
    r = d.python("'leaked' in dir(__builtins__)", session=other)
    w.check("T30 another session has an interpreter of its own", r["text"] == "False\n[ok]", str(r))


@threat("T31")
def t31_planted(w):
    marker = os.path.join(w.work, "planted")
    script = os.path.join(w.work, "rc.sh")
    with open(script, "w") as f:
        f.write("touch /workspace/planted ./planted\n")
    env = dict(os.environ, BASH_ENV=script, ENV=script, PYTHONSTARTUP=script, PYTHONPATH=w.work,
               AGENTD_SSH="x")
    for name in ("bash", ".bashrc", ".profile", ".bash_profile", ".inputrc"):
        with open(os.path.join(w.work, name), "w") as f:
            f.write("#!/bin/sh\ntouch /workspace/planted\n")
        os.chmod(os.path.join(w.work, name), 0o755)
    for name in ("sitecustomize", "usercustomize", "json", "os", "traceback", "linecache", "tokenize", "re",
                 "enum", "codecs", "io", "encodings", "_ast", "signal", "matplotlib"):
        with open(os.path.join(w.work, name + ".py"), "w") as f:
            f.write("open('/workspace/planted', 'w').write(__name__)\n")
    d = w.start(env=env)
    for name, call in (("of the shell", lambda: d.bash("true")), ("of the interpreter", lambda: d.python("1")),
                       ("for an error's traceback", lambda: d.python("def f():\n  1 / 0\nf()")),
                       ("for an error of syntax", lambda: d.python("1 +")),
                       ("for the editor", lambda: d.call("str_replace_editor", command="view", path="."))):
        call()
        w.check(f"T31 start-up files and modules {name}", not os.path.exists(marker),
                open(marker).read() if os.path.exists(marker) else "")
        if os.path.exists(marker):
            os.unlink(marker)
    d.python("import traceback")
    w.check("T31 control: the session's own code does import them", os.path.exists(marker), "no marker")
    os.unlink(marker)
    w.host(["bash", "-c", "true"], env=dict(os.environ, BASH_ENV=script))
    w.check("T31 control: outside the shell's file runs", os.path.exists(marker), "no marker")
    os.unlink(marker)
    r = d.bash("env")
    names = {line.split("=")[0] for line in r["text"].splitlines()}
    w.check("T31 the environment is built from nothing", "HOME=/tmp/home" in r["text"] and
            not names & {"BASH_ENV", "ENV", "LD_PRELOAD", "SSH_AUTH_SOCK", "PYTHONPATH", "PYTHONSTARTUP", "AGENTD_SSH"},
            r["text"])
    d.bash("export LD_PRELOAD=/workspace/evil.so LD_LIBRARY_PATH=/workspace PYTHONHOME=/workspace BASH_ENV=/workspace/rc.sh; "
           "echo 'touch /workspace/planted' > ~/.bashrc; mkdir -p ~/.local/lib; cp ~/.bashrc ~/.profile")
    r = d.python("1 + 1", reset=True)
    w.check("T31 what the shell exports does not reach the interpreter's start", r["text"] == "2\n[ok]" and
            not os.path.exists(marker), str(r))
    d.close()
    for name in os.listdir(w.work):
        subprocess.run(["rm", "-rf", os.path.join(w.work, name)])


@threat("T32")
def t32_other_sessions(w):
    d = w.daemon()
    one, two = os.path.join(w.root, "one"), os.path.join(w.root, "two")
    os.mkdir(one)
    os.mkdir(two)
    a, b = d.new_session(one), d.new_session(two)
    plant = ("import ctypes, os, socket, sys\n"
             "base, flat = sys.argv[1:3]\n"
             "open(flat + '/note', 'w').write('canary-a'); open('/dev/shm/note', 'w').write('canary-a')\n"
             "s = socket.socket(socket.AF_UNIX); s.bind('\\0agentd-other'); s.listen(2)\n"
             "t = socket.socket(); t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
             "t.bind(('127.0.0.1', 4711)); t.listen(2)\n"
             "l = ctypes.CDLL(None); l.shmget(0x41474544, 4096, 0o1666); l.msgget(0x41474544, 0o1666)\n"
             "open(base + '/ready', 'w').close(); import time; time.sleep(600)\n")
    look = ("import ctypes, os, socket, sys\n"
            "flat = sys.argv[1]\n"
            "hits = [p for p in (flat + '/note', '/dev/shm/note') if os.path.exists(p)]\n"
            "for kind, name in ((socket.AF_UNIX, '\\0agentd-other'), (socket.AF_INET, ('127.0.0.1', 4711))):\n"
            "  try: socket.socket(kind).connect(name); hits.append(str(name))\n"
            "  except OSError: pass\n"
            "l = ctypes.CDLL(None)\n"
            "if l.shmget(0x41474544, 4096, 0) >= 0: hits.append('shm')\n"
            "if l.msgget(0x41474544, 0) >= 0: hits.append('queue')\n"
            "for p in os.listdir('/proc'):\n"
            "  try:\n"
            "    if p.isdigit() and int(p) != os.getpid() and b'canary-a' in open(f'/proc/{p}/cmdline', 'rb').read():\n"
            "      hits.append(p)\n"
            "  except OSError: pass\n"
            "print(hits)\nsys.exit(0 if hits else 1)\n")
    r = d.bash(shlex.join([PYTHON, "-I", "-c", plant, "/workspace", "/tmp"]), session=a, background=True)
    w.check("T32 the other session is up", wait_for(lambda: os.path.exists(os.path.join(one, "ready")), 20), str(r))
    r = d.bash(shlex.join([PYTHON, "-I", "-c", look, "/tmp"]), session=b)
    w.check("T32 nothing of it is seen", r["exitCode"] == 1 and r["text"].startswith("[]"), str(r))
    r = d.bash("ls -A /workspace /tmp /tmp/home; cat /workspace/../one/ready", session=b)
    w.check("T32 nor its files", "ready\n" not in r["text"] and "note" not in r["text"], str(r))
    control = subprocess.Popen([PYTHON, "-I", "-c", plant, w.outside, w.outside])
    try:
        wait_for(lambda: os.path.exists(os.path.join(w.outside, "ready")), 20)
        rc, out, err = w.host([PYTHON, "-I", "-c", look, w.outside])
        w.check("T32 control: without cells all of it is seen", rc == 0 and "4711" in out and "shm" in out, out + err)
    finally:
        control.kill()
        control.wait()
        libc = ctypes.CDLL(None)
        libc.shmctl(libc.shmget(0x41474544, 4096, 0), 0, 0)
        libc.msgctl(libc.msgget(0x41474544, 0), 0, 0)
        for path in ("/dev/shm/note",):
            if os.path.exists(path):
                os.unlink(path)
        d.rpc("session.close", sessionId=a)
        d.rpc("session.close", sessionId=b)


def groups():
    found = []
    for top, dirs, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(top, d) for d in dirs if d.startswith("agentd-")]
        if top.count("/") > 9:
            dirs.clear()
    return found


def mounts():
    """Those that a cell makes; others of the machine come and go."""
    with open("/proc/self/mountinfo") as f:
        return sum("agentd" in line or line.split(" - ")[1].split()[1] in ("none", "overlay") for line in f)


def mine(w):
    """Cells of this test alone: other tests may run beside it."""
    return [g for g in groups() if g.rsplit("-", 2)[1] in w.spawners]


@threat("T33")
def t33_leftovers(w):
    """Cells of processes of their own, each of which ends badly."""
    before = mounts(), set(os.listdir("/dev/shm")), set(os.listdir("/tmp"))
    n = int(os.environ.get("AGENTD_CELLS", "10"))
    mark = f"4246.{os.getpid()}"
    mess = {"command": f"echo x >/dev/shm/x.{os.getpid()}; mkfifo /tmp/f.{os.getpid()}; "
                       "ulimit -c unlimited; (setsid sleep {mark} &) ; kill -SEGV $$"}
    good = sum(w.tool("bash", mess)[1]["level"] in ("full", "nolimits") for _ in range(n))
    w.check(f"T33 {n} cells are made", good == n, str(good))
    w.check(f"T33 {n} cells: no process left", not processes("sleep\0" + mark), "sleep is alive")
    w.check(f"T33 {n} cells: no mount left", mounts() <= before[0], f"{before[0]} -> {mounts()}")
    mine = f".{os.getpid()}"
    new = set(os.listdir("/dev/shm")) - before[1]
    w.check("T33 no shared memory left", not {x for x in new if x.endswith(mine)}, str(new))
    w.check("T33 no core file", not [x for x in os.listdir(w.work) if "core" in x], str(os.listdir(w.work)))
    new = set(os.listdir("/tmp")) - before[2]
    w.check("T33 nothing in the host's /tmp", not {x for x in new if x.endswith(mine)}, str(new))
    w.tool("bash", mess, off=True)
    new = set(os.listdir("/dev/shm")) - before[1], set(os.listdir("/tmp")) - before[2]
    w.check("T33 control: without a cell shared memory and a FIFO are left",
            all({x for x in k if x.endswith(mine)} for k in new), str(new))
    for path in (f"/dev/shm/x{mine}", f"/tmp/f{mine}"):
        if os.path.exists(path):
            os.unlink(path)
    kill_all(processes("sleep\0" + mark))
    for name in os.listdir(w.work):
        if "core" in name:
            os.unlink(os.path.join(w.work, name))


def busy(d, mark):
    """Two processes inside, one in a session of its own; True when both run."""
    d.bash(f"setsid sleep {mark} & exec sleep {mark}", background=True)
    return wait_for(lambda: len(processes("sleep\0" + mark)) == 2, 20)


@threat("T33")
def t33_daemon_killed(w):
    """The daemon is killed in the middle of calls, and started again."""
    d, mark = w.start(), f"4247.{os.getpid()}"
    w.spawners = {str(c) for c in children(d.proc.pid)}
    w.check("T33 the call runs", busy(d, mark), str(processes(mark)))
    d.kill()
    w.check("T33 after kill -9 of the daemon everything is gone within three seconds",
            wait_for(lambda: not processes("sleep\0" + mark) and not any(alive(int(c)) for c in w.spawners),
                     3 + 7), str(processes(mark)))
    w.check("T33 and no control group is left", wait_for(lambda: not mine(w), 5), str(mine(w)))
    d.start()
    r = d.bash("echo again")
    w.check("T33 started again on the same state it works", r["text"] == "again\n[exit code: 0]", str(r))
    # Daemon and spawner at once: nobody is left to tidy up, the next start does.
    d.new_session()
    busy(d, mark)
    w.spawners = {str(c) for c in children(d.proc.pid)}
    d.proc.send_signal(signal.SIGSTOP)
    for c in w.spawners:
        os.kill(int(c), signal.SIGKILL)
    d.kill()
    w.check("T33 after kill -9 of both everything is gone", wait_for(lambda: not processes("sleep\0" + mark), 10),
            str(processes(mark)))
    d.start()
    r = d.bash("echo once more")
    w.check("T33 and the next start sweeps their control groups", "once more" in r["text"] and
            wait_for(lambda: not mine(w), 5), f"{mine(w)} {r}")
    d.close()
    off = w.start(off=True)
    busy(off, mark)
    helpers = children(off.proc.pid)
    for c in helpers:  # lest they tidy up when they see it die
        os.kill(c, signal.SIGSTOP)
    off.kill()
    kill_all(helpers)
    time.sleep(0.3)
    w.check("T33 control: without a cell they outlive the daemon", bool(processes("sleep\0" + mark)), "gone")
    kill_all(processes("sleep\0" + mark))


def shared_segments():
    with open("/proc/sysvipc/shm") as f:
        return {line.split()[1] for line in f if line.split()[1].isdigit()}


def counts(pids):
    """What one daemon and its spawner hold, and what of theirs the machine holds."""
    fds = [len(os.listdir(f"/proc/{p}/fd")) for p in pids]
    with open("/proc/sysvipc/shm") as f:
        n_shm = sum(1 for _ in f)
    return {"descriptors": fds, "mounts": mounts(), "shared memory": (n_shm, len(os.listdir("/dev/shm"))),
            "groups": len([g for g in groups() if g.rsplit("-", 2)[1] in {str(p) for p in pids}]),
            "processes": len([c for p in pids for c in children(p)])}


@threat("T33")
def t33_one_daemon(w):
    """Sessions come and go in one daemon; AGENTD_CELLS says how many."""
    d = w.start()
    pids = [d.proc.pid] + children(d.proc.pid)
    mark = f"4249.{os.getpid()}"
    n = int(os.environ.get("AGENTD_CELLS", "20"))

    def use(i):
        s = d.new_session()
        r = d.bash("echo x >/dev/shm/x; (setsid sleep " + mark + " &); mkfifo /tmp/f; python3 -c "
                   "'import ctypes; ctypes.CDLL(None).shmget(7, 4096, 0o1666)'; echo ok", session=s)
        if i % 4 == 0:
            d.python("kept = 1", session=s)
        if i % 5 == 0:
            d.bash("sleep " + mark, session=s, background=True)
        d.rpc("session.close", sessionId=s)
        return "ok" in r["text"]
    for i in range(4):
        use(i)
    wait_for(lambda: not processes("sleep\0" + mark), 10)
    time.sleep(0.3)
    before, good = counts(pids), 0
    for i in range(n):
        good += use(i)
    w.check(f"T33 {n} sessions of one daemon worked", good == n, f"{good} of {n}")
    def same():
        """The spawner keeps the user namespaces of the last eight owners."""
        now = counts(pids)
        return now["descriptors"][0] <= before["descriptors"][0] and \
            now["descriptors"][1] <= before["descriptors"][1] + 8 and \
            {**now, "descriptors": 0} == {**before, "descriptors": 0}
    w.check(f"T33 {n} sessions of one daemon leave nothing", wait_for(same, 10), f"{before} then {counts(pids)}")
    w.check("T33 nor a process", not processes("sleep\0" + mark), str(processes("sleep\0" + mark)))
    d.close()
    d = w.start(off=True)
    had = shared_segments()
    use(4)
    left = shared_segments() - had
    w.check("T33 control: without cells a session leaves shared memory", bool(left), "nothing")
    for i in left:
        ctypes.CDLL(None).shmctl(int(i), 0, 0)
    if os.path.exists("/dev/shm/x"):
        os.unlink("/dev/shm/x")
    if os.path.exists("/tmp/f"):
        os.unlink("/tmp/f")
    d.close()
    kill_all(processes("sleep\0" + mark))


@threat("T33", control="without a cell there is no spawner")
def t33_spawner_dies(w):
    """The spawner of a daemon is killed: its cells go with it, the next call gets new ones."""
    d = w.start()
    mark = f"4251.{os.getpid()}"
    d.bash("kept=1; sleep " + mark, background=True)
    spawner = [c for c in children(d.proc.pid) if "spawner" in open(f"/proc/{c}/comm").read()]
    for c in spawner:
        os.kill(c, signal.SIGKILL)
    w.check("T33 the spawner of a daemon dies: its cells are gone", bool(spawner) and
            wait_for(lambda: not processes("sleep\0" + mark), 10), f"{spawner} {processes(mark)}")
    r = d.bash("echo again $kept")
    w.check("T33 and the next call works, and says what was lost", worked_anew(r), str(r))
    d.close()


ANEW = "[shell and interpreter were started anew: what earlier calls set in them is gone]\n"


def worked_anew(r):
    return r["text"] == ANEW + "again\n[exit code: 0]" and r["stateLost"] and r["sandbox"] in ("full", "nolimits")


@threat("T33", control="without a cell there is no spawner")
def t33_spawner_dies_in_a_call(w):
    """A call that the tool never read is sent to a new cell; one that it read may have had
    effects, is told as unknown, and is never repeated."""
    d = w.start()
    d.bash("kept=1")
    for read, command in ((False, "echo again $kept"), (True, "echo x >> ran; sleep 600")):
        spawner = [c for c in children(d.proc.pid) if "spawner" in open(f"/proc/{c}/comm").read()]
        got = []
        if not read:  # it cannot wake the cell up any more
            os.kill(spawner[0], signal.SIGSTOP)
        t = threading.Thread(target=lambda: got.append(d.bash(command)))
        t.start()
        if read:
            wait_for(lambda: os.path.exists(os.path.join(w.work, "ran")), 10)
        else:
            time.sleep(0.3)
        os.kill(spawner[0], signal.SIGKILL)
        t.join(60)
        r = got[0] if got else {}
        if read:
            lines = open(os.path.join(w.work, "ran")).read()
            w.check("T33 the spawner dies during a call: unknown, and not run twice", r.get("status") == "unknown" and
                    lines == "x\n", f"{r} {lines!r}")
        else:
            w.check("T33 the spawner dies before a call is read: it is sent again", bool(r) and worked_anew(r), str(r))
    w.clear()
    d.close()


def many_sessions(w):
    """More sessions than the host has ranges of ids for cells: the idle ones make room."""
    if not os.environ.get("AGENTD_LONG"):
        return
    d = w.start()
    bad = []
    for i in range(520):
        r = d.bash(f"echo {i}", session=d.new_session())
        if r["text"] != f"{i}\n[exit code: 0]":
            bad.append((i, r))
    w.check("520 sessions of one daemon, none closed: each has its cell", not bad, str(bad[:2]))
    d.close()


@threat("T33", control="without a cell there are no groups")
def t33_other_namespace(w):
    """A process id means nothing in another pid namespace: groups of a spawner out here are not
    taken for stale by one in there, though they share the tree."""
    if not w.is_root or subprocess.run(["unshare", "-pf", "--mount-proc", "true"], capture_output=True).returncode:
        return w.skip("T33 groups of another pid namespace", "needs root and a pid namespace", True)
    d, mark = w.start(), f"4250.{os.getpid()}"
    busy(d, mark)
    pids = {str(c) for c in children(d.proc.pid)}
    held = [g for g in groups() if g.rsplit("-", 2)[1] in pids]
    if held:
        rc, r = w.tool("bash", {"command": "echo inner"}, wrap=["unshare", "-pf", "--mount-proc"])
        w.check("T33 a cell inside of another pid namespace works", rc == 0 and "inner" in r["text"], str(r))
        w.check("T33 and it did not sweep the groups out here", all(os.path.isdir(g) for g in held) and
                len(processes("sleep\0" + mark)) == 2, str(held))
    else:
        w.skip("T33 groups of another pid namespace", "no control groups here", True)
    d.close()


def refused(w, case, wrap, reason, remedy):
    """By one call of its own and by a session of a daemon: nothing runs, and the answer says
    why and what to do; with the sandbox off the same call does run on that host."""
    marker = os.path.join(w.work, "ran")
    touch = {"command": "touch ran"}
    rc, r = w.tool("bash", touch, wrap=wrap)
    w.check(f"T34 {case}: refused", rc == 3 and r["status"] == "unavailable", f"exit {rc}: {r}")
    w.check(f"T34 {case}: with the reason and the way out", reason in r["text"] and remedy in r["text"], str(r))
    d = w.start(wrap=wrap)
    for r in (d.bash("touch ran"), d.python("open('ran', 'w')"),
              d.call("str_replace_editor", command="create", path="ran", file_text="x")):
        w.check(f"T34 {case}: by a daemon too", r["status"] == "unavailable" and reason in r["text"] and
                remedy in r["text"], str(r))
    d.close()
    w.check(f"T34 {case}: and nothing ran", not os.path.exists(marker), "the program ran")
    rc, r = w.tool("bash", touch, wrap=wrap, off=True)
    w.check(f"T34 control: {case}, the sandbox off: it runs, and says so", os.path.exists(marker) and
            r["level"] not in ("full", "nolimits"), f"{rc} {r}")
    if os.path.exists(marker):
        os.unlink(marker)
    d = subprocess.run(wrap + [w.ctl, "doctor", "--json"], capture_output=True, text=True, timeout=60,
                       env=dict(os.environ, HOME=w.outside))
    w.check(f"T34 {case}: doctor agrees", d.returncode in (4, 5), f"exit {d.returncode}: {d.stdout[-300:]}")


@threat("T34")
def t34_weak_hosts(w):
    probe = subprocess.run(["unshare", "-Ur", "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces"],
                           capture_output=True)
    if probe.returncode == 0:
        refused(w, "user namespaces switched off",
                ["unshare", "-Ur", "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"",
                 "sh"], "max_user_namespaces", "sysctl")
    else:
        w.skip("T34 user namespaces switched off", "unshare does not work here")
    if os.uname().machine == "x86_64":
        refused(w, "a container's default profile", [PYTHON, "-I", "-c", WEAK, "container"],
                "container profile", "seccomp profile")
        refused(w, "namespaces without mounts, as Ubuntu's AppArmor rule",
                [PYTHON, "-I", "-c", WEAK, "apparmor"], "refused", "AppArmor")
    strict = w.policy("landlock: required\n")
    true = {"command": "echo ok > /tmp/x; cat /tmp/x"}
    rc, r = w.tool("bash", true, policy=strict, env=dict(os.environ, AGENTD_LANDLOCK_ABI="0"))
    w.check("T34 required Landlock is missing: refused", rc == 3 and "Landlock" in r["text"], str(r))
    for abi in ("1", "3", "5"):
        d = w.start(env=dict(os.environ, AGENTD_LANDLOCK_ABI=abi))
        r, cells = d.bash(true["command"]), d.records("cell")
        have = cells[0]["cell"]["cell"].get("landlock_abi") if cells and "cell" in cells[0]["cell"] else \
            cells[0]["cell"].get("landlock_abi") if cells else None
        w.check(f"T34 Landlock {abi} is used as such, and the record says so", r["text"].startswith("ok\n") and
                have is not None and have <= int(abi), f"{r} {cells}")
        d.close()
    full = os.path.join(w.root, "full.yaml")
    with open(full, "w") as f:
        f.write("version: 1\nrequire: full\nworkspace: temp\ntools: {bash: allow}\n")
    rc, r = w.tool("bash", true, policy=full)
    w.check("T34 full is kept or refused, never less", (rc == 0 and r["level"] == "full") or
            (rc == 3 and "control group" in r["text"]), str(r))


if __name__ == "__main__":
    main([t29_ending, t30_forging, t31_planted, t32_other_sessions, t33_leftovers, t33_daemon_killed, t33_one_daemon,
          t33_spawner_dies, t33_spawner_dies_in_a_call, many_sessions,
          t33_other_namespace, t34_weak_hosts])
