"""processes.py - T09 to T18: processes outside, what outlives a call, bombs and floods."""
import os
import resource
import shlex
import signal
import subprocess
import sys
import time

from harness import PYTHON, kill_all, main, processes, threat, wait_for


@threat("T09")
def t09_others(w):
    victim = subprocess.Popen(["sleep", "4243"])
    try:
        w.attack("T09 seeing a process outside",
                 "import os, sys\n"
                 "for p in os.listdir('/proc'):\n"
                 "  try:\n"
                 "    if b'sleep\\x004243' in open(f'/proc/{p}/cmdline', 'rb').read(): sys.exit(0)\n"
                 "  except OSError: pass\n"
                 "sys.exit(1)")
        w.attack("T09 signalling it by its number outside",
                 "import os, sys; os.kill(int(sys.argv[1]), 0)", [victim.pid])
        w.attack("T09 tracing it",
                 "import ctypes, os, sys\n"
                 "libc = ctypes.CDLL(None)\n"
                 "sys.exit(0 if libc.ptrace(16, int(sys.argv[1]), 0, 0) == 0 else 1)",
                 [victim.pid])
        w.attack("T09 reading its memory",
                 "import ctypes, sys\n"
                 "libc = ctypes.CDLL(None)\n"
                 "class V(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n"
                 "pid = int(sys.argv[1])\n"
                 "addr = 0\n"
                 "try: addr = int(open(f'/proc/{pid}/maps').readline().split('-')[0], 16)\n"
                 "except OSError: pass\n"
                 "buf = ctypes.create_string_buffer(8)\n"
                 "l, r = V(ctypes.addressof(buf), 8), V(addr, 8)\n"
                 "sys.exit(0 if libc.process_vm_readv(pid, ctypes.byref(l), 1, ctypes.byref(r), 1, 0) > 0 else 1)",
                 [victim.pid])
        w.check("T09 it lives on", victim.poll() is None, "the process outside died")
        w.attack("T09 tracing or limiting the cell's own pid 1",
                 "import ctypes, os, resource, sys\n"
                 "libc = ctypes.CDLL(None)\n"
                 "if libc.ptrace(16, 1, 0, 0) == 0 or libc.ptrace(0x4206, 1, 0, 0) == 0: sys.exit(0)\n"
                 "try: resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0)); sys.exit(0)\n"
                 "except (OSError, PermissionError): pass\n"
                 "try: os.open('/proc/1/mem', os.O_RDWR); sys.exit(0)\n"
                 "except OSError: sys.exit(1)",
                 control="the host's own pid 1 is not ours to try")
    finally:
        victim.kill()
        victim.wait()


@threat("T10", control="root")
def t10_everything(w):
    marker = subprocess.Popen(["sleep", "4244"])
    d = w.daemon(w.policy("background: false\n"))
    for name, code in (("killing", "os.kill(-1, 9)"), ("stopping", "os.kill(-1, 19); os.kill(os.getpid(), 19)"),
                       ("stopping its tool's process again and again",
                        "import time\nfor _ in range(300): os.kill(os.getppid(), 19); time.sleep(0.001)"),
                       ("pid 1 by every signal", "[os.kill(1, s) for s in range(1, 32)]"),
                       ("leaving its tool's process no descriptor, memory or child",
                        "import resource\nfor p in (os.getppid(), 1, 2):\n  for r in (6, 7, 9, 2, 0, 1):\n"
                        "    try: resource.prlimit(p, r, (0, 0))\n    except OSError: pass"),
                       ("putting its tool's process behind all others",
                        "p = os.getppid()\n"
                        "for f in (lambda: os.sched_setscheduler(p, 5, os.sched_param(0)),\n"
                        "          lambda: os.setpriority(0, p, 19), lambda: os.setpriority(2, 0, 19),\n"
                        "          lambda: os.sched_setaffinity(p, [0]), lambda: os.sched_setaffinity(0, [0])):\n"
                        "  try: f()\n  except OSError: pass\n"
                        "for _ in range(40):\n  if os.fork() == 0: break\n"
                        "while True: pass"),
                       ("its own group", "os.killpg(0, 9)")):
        for tool in ("bash", "python"):
            began = time.monotonic()
            r = d.bash(f"exec {PYTHON} -I -c 'import os\n{code}'", timeout_s=2) if tool == "bash" else \
                d.python("import os\n" + code, timeout_s=2)
            took = time.monotonic() - began
            w.check(f"T10 {name}, by {tool}: the call ends in time", took < 30 and r["text"], f"{took} {r}")
            r = d.bash("echo next")
            w.check(f"T10 {name}, by {tool}: the session goes on", r["text"].endswith("next\n[exit code: 0]"), str(r))
    w.check("T10 nobody outside was hit", marker.poll() is None, "a process outside died")
    marker.kill()
    marker.wait()
    if w.is_root:  # as a user of its own, lest the control hits us
        user = ["setpriv", "--reuid", "64991", "--regid", "64991", "--clear-groups"]
        marker = subprocess.Popen(user + ["sleep", "4244"])
        wait_for(lambda: bool(processes("sleep\x004244")))
        w.host(user + [PYTHON, "-I", "-c", "import os; os.kill(-1, 9)"])
        w.check("T10 control: without a cell it hits what else its user runs",
                marker.wait(20) == -signal.SIGKILL, str(marker.returncode))


STRAY = ("import os, signal, sys, time\n"
         "if os.fork() == 0:\n"
         "  os.setsid()\n"
         "  for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\n"
         "  if os.fork() == 0:\n"
         "    os.execv('/bin/sleep', [{name!r}, '4000'])\n"
         "  os._exit(0)\n"
         "os.wait(); time.sleep(0.2)\n")


@threat("T11")
def t11_outliving(w):
    name = f"agentd-stray-{os.getpid()}"
    stray = STRAY.format(name=name)
    d = w.daemon()
    for tool in ("bash", "python"):
        began = time.monotonic()
        r = d.bash(shlex.join([PYTHON, "-I", "-c", stray])) if tool == "bash" else d.python(stray)
        took = time.monotonic() - began
        w.check(f"T11 double fork with ignored signals, by {tool}: gone when the call ends",
                not r["isError"] and not processes(name), f"{processes(name)} {r}")
        w.check(f"T11 and the reply of {tool} did not wait for it", took < 30, "too slow")
    subprocess.run([PYTHON, "-I", "-c", stray])
    w.check("T11 control: it outlives an unconfined call", wait_for(lambda: bool(processes(name)), 5),
            "no stray")
    kill_all(processes(name))
    # Each parent leaves at once, so that no list of pids is ever right.
    hop = ("import os, sys\nfor _ in range(6):\n  if os.fork() == 0:\n    while True:\n"
           "      if os.fork(): os._exit(0)\n      sys.argv\n")
    name = f"agentd-hop-{os.getpid()}"
    r = d.bash(shlex.join([PYTHON, "-I", "-c", hop, name]))
    w.check("T11 hopping from fork to fork", not r["isError"] and not processes(name), str(r))
    r = d.bash("exec 9>&1; (setsid sleep 4001 >&9 2>&9 &); (nohup sleep 4001 >&9 2>&1 &); "
               "coproc sleep 4001; disown -a; echo done")
    w.check("T11 held pipes do not hold the reply", "done" in r["text"] and not processes("sleep\x004001"), str(r))
    # A thread that outlives its own main thread, and a vfork that never comes back.
    odd = ("import ctypes, os, threading, time\n"
           "threading.Thread(target=time.sleep, args=(4000,)).start()\n"
           "if os.fork() == 0: ctypes.CDLL(None).pthread_exit(0)\n"
           "os._exit(0)\n")
    name = f"agentd-odd-{os.getpid()}"
    r = d.bash(shlex.join([PYTHON, "-I", "-c", odd, name]))
    w.check("T11 processes without a main thread", not processes(name), str(r))
    # A process that makes itself a sibling: of the shell or the interpreter, which are kept.
    sibling = ("import ctypes, os\n"
               "if ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0) == 0:\n"
               "  os.setsid(); os.execv('/bin/sleep', [{name!r}, '4000'])\n"
               "import time; time.sleep(0.2)\n")
    name = f"agentd-sibling-{os.getpid()}"
    if os.uname().machine == "x86_64":
        for tool in ("bash", "python"):
            code = sibling.format(name=name)
            r = d.bash("exec " + shlex.join([PYTHON, "-I", "-c", code])) if tool == "bash" else d.python(code)
            w.check(f"T11 a child of its tool's, by {tool}", not r["isError"] and not processes(name), str(r))
        subprocess.run([PYTHON, "-I", "-c", sibling.format(name=name)])
        w.check("T11 control: without a cell it is made", bool(processes(name)), "no sibling")
        kill_all(processes(name))
    # While a job is allowed to go on, nothing else is.
    s, job, name = d.new_session(), f"4002.{os.getpid()}", f"agentd-beside-{os.getpid()}"
    d.bash(f"exec sleep {job}", session=s, background=True)
    r = d.python("import ctypes, os, time\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
                 "for again in (0, 1):\n  if os.fork() == 0:\n    if again and os.fork(): os._exit(0)\n"
                 f"    os.setsid(); os.execv('/bin/sleep', [{name!r}, '4000'])\n"
                 "time.sleep(0.2)", session=s)
    w.check("T11 beside a job of the session what python started still goes", not r["isError"] and
            not processes(name) and len(processes("sleep\0" + job)) == 1, f"{processes(name)} {r}")
    d.rpc("session.close", sessionId=s)
    w.check("T11 and with the session the job", wait_for(lambda: not processes("sleep\0" + job), 5), "it is there")


@threat("T12")
def t12_bombs(w):
    small = w.policy("limits: {tasks: 40, memory: 512M}\n")
    forks = ("import os, sys, time\nn = 0\n"
             "for _ in range(120):\n"
             "  try: pid = os.fork()\n"
             "  except OSError: break\n"
             "  if pid == 0: os.close(1); os.close(2); time.sleep(30); os._exit(0)\n"
             "  n += 1\n"
             "sys.exit(0 if n >= 100 else 1)\n")
    w.attack("T12 a hundred processes where forty are allowed", forks, policy=small)
    threads = ("import sys, threading, time\nn = 0\n"
               "for _ in range(120):\n"
               "  t = threading.Thread(target=time.sleep, args=(3,), daemon=True)\n"
               "  try: t.start()\n"
               "  except RuntimeError: break\n"
               "  n += 1\n"
               "import os; os._exit(0 if n >= 100 else 1)\n")
    w.attack("T12 a hundred threads", threads, policy=small)
    zombies = ("import os, sys\nn = 0\n"
               "for _ in range(120):\n"
               "  try: pid = os.fork()\n"
               "  except OSError: break\n"
               "  if pid == 0: os._exit(0)\n"
               "  n += 1\n"
               "sys.exit(0 if n >= 100 else 1)\n")
    w.attack("T12 a hundred zombies", zombies, policy=small)
    d = w.daemon(small)
    for name, command in (("the classic bomb", ":(){ :|:& };:; sleep 60"),
                          ("one with sessions of its own", "b() { setsid bash -c \"$(declare -f b); b\" & b; }; b"),
                          ("one of threads", f"{PYTHON} -c 'import threading\ndef f():\n while True: "
                                             "threading.Thread(target=f).start()\nf()'")):
        began = time.monotonic()
        r = d.bash(command, timeout_s=2)
        took = time.monotonic() - began
        w.check(f"T12 {name} ends at the deadline at the latest", took < 30, f"{took:.0f} s: {r}")
        r = d.bash("echo calm")
        w.check(f"T12 {name} leaves a working session", r["text"] == "calm\n[exit code: 0]", str(r))


@threat("T13")
def t13_memory(w):
    small = w.policy("limits: {memory: 64M, tmp: 16M, tasks: 64}\n")
    heap = ("import sys, time\nb = []\n"
            "for _ in range(18): b.append(bytearray(b'x' * (10 << 20)))\n"
            "time.sleep(1)\n")
    r = w.attack("T13 a hundred and eighty megabytes of heap", heap, policy=small)
    full = bool(r) and r["sandbox"] == "full"
    if full:
        w.check("T13 the reply says memory", "memory" in r["text"], str(r))
    w.attack("T13 many children that add up",
             "import os, sys, time\n"
             "pids = []\n"
             "for _ in range(10):\n"
             "  pid = os.fork()\n"
             "  if pid == 0:\n"
             "    b = bytearray(b'x' * (20 << 20)); time.sleep(1.0); os._exit(0)\n"
             "  pids.append(pid)\n"
             "bad = sum(os.waitpid(p, 0)[1] != 0 for p in pids)\n"
             "sys.exit(0 if bad == 0 else 1)\n", policy=small)
    w.attack("T13 a memory file system",
             "import os, sys\n"
             "p = '/dev/shm/agentd-bomb'\n"
             "try:\n"
             "  with open(p, 'wb') as f:\n"
             "    for _ in range(64): f.write(b'x' * (1 << 20))\n"
             "  ok = os.path.getsize(p) == 64 << 20\n"
             "except OSError: ok = False\n"
             "try: os.unlink(p)\n"
             "except OSError: pass\n"
             "sys.exit(0 if ok else 1)\n", policy=small)
    w.attack("T13 anonymous files, one mapped and closed, all held for a moment",
             "import mmap, os, sys, time\n"
             "keep = []\n"
             "for i in range(6):\n"
             "  fd = os.memfd_create('x')\n"
             "  for _ in range(25): os.write(fd, b'x' * (1 << 20))\n"
             "  keep.append(fd if i else mmap.mmap(fd, 25 << 20))\n"
             "time.sleep(1)\n", policy=small)
    if full:
        w.attack("T13 kernel buffers: pipes",
                 "import fcntl, os, resource\n"
                 "keep, n = [], 0\n"
                 "for _ in range(130):\n"
                 "  r, x = os.pipe(); keep += [r, x]\n"
                 "  try: fcntl.fcntl(x, 1031, 1 << 20)\n"
                 "  except OSError: pass\n"
                 "  os.set_blocking(x, False)\n"
                 "  try:\n"
                 "    while True: n += os.write(x, bytes(65536))\n"
                 "  except BlockingIOError: pass\n"
                 "raise SystemExit(n < 100 << 20)", policy=small,
                 control=True if w.is_root else "the kernel limits the pipes of a plain user")
        for name, kind in (("TCP", "s = socket.socket(); s.connect(l.getsockname()); k.append(l.accept()[0])"),
                           ("UDP", "s = socket.socket(2, 2); s.connect(l.getsockname())")):
            w.attack(f"T13 kernel buffers: {name} on the cell's own loopback",
                     "import re, socket, sys, time\n"
                     "k = []\n"
                     "for _ in range(60):\n"
                     f"  l = socket.socket(2, {1 + (name == 'UDP')}); l.bind(('127.0.0.1', 0))\n"
                     f"  l.setsockopt(1, 8, 4 << 20); l.listen(9) if {name == 'TCP'} else 0\n"
                     f"  {kind}\n"
                     "  k += [l, s]; s.setsockopt(1, 7, 4 << 20); s.setblocking(False)\n"
                     "  try:\n"
                     "    for _ in range(150): s.send(b'x' * 60000)\n"
                     "  except OSError: pass\n"
                     f"m = int(re.search('{name}: .* mem (\\d+)', open('/proc/net/sockstat').read())[1])\n"
                     "sys.exit(0 if m * 4096 > 48 << 20 else 1)\n", policy=small)
        w.attack("T13 System V shared memory", "import ctypes\n"
                 "l = ctypes.CDLL(None); l.shmat.restype = ctypes.c_void_p\n"
                 "i = l.shmget(0, 120 << 20, 0o1600); p = l.shmat(i, 0, 0); l.shmctl(i, 0, 0)\n"
                 "ctypes.memset(p, 1, 120 << 20)\n", policy=small)
    d = w.daemon(small)
    r = d.python("b = [bytearray(b'x' * (10 << 20)) for _ in range(15)]")
    w.check("T13 in the kept interpreter: the reply says so", r["isError"] and
            (r["stateLost"] and "memory" in r["text"] if full else "Memory" in r["text"] or "memory" in r["text"]),
            str(r))
    r = d.bash("echo well")
    w.check("T13 the next call works", r["text"].endswith("well\n[exit code: 0]"), str(r))


def used(mark):
    """Processor seconds that the living processes of this mark have used so far."""
    ticks = 0
    for pid in processes(mark):
        try:
            with open(f"/proc/{pid}/stat") as f:
                ticks += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
        except OSError:
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


@threat("T14")
def t14_time(w):
    d, free = w.daemon(w.policy("background: false\n")), {}
    for name, code in (("an endless loop", "while True: pass"),
                       ("sleeping with every signal ignored",
                        "import signal, time\n"
                        "for s in range(1, 65):\n"
                        "  try: signal.signal(s, signal.SIG_IGN)\n"
                        "  except (OSError, ValueError): pass\n"
                        "time.sleep(1000)"),
                       ("a loop in C", "import re; re.match('(a*)*b', 'a' * 40)")):
        for tool in ("bash", "python"):
            began = time.monotonic()
            r = d.bash(shlex.join([PYTHON, "-I", "-c", code]), timeout_s=1) if tool == "bash" else \
                d.python(code, timeout_s=1)
            took = time.monotonic() - began
            w.check(f"T14 {name}, by {tool}, ends at the deadline", r["status"] == "timed_out" and took < 20,
                    f"{took:.1f} s: {r}")
        free[name] = subprocess.Popen([PYTHON, "-I", "-c", code])
    for name, p in free.items():
        w.check(f"T14 control: {name} goes on", p.poll() is None, f"exit {p.poll()}")
        p.kill()
        p.wait()
    share = {}
    for off in (False, True):
        mark = f"spin-{os.getpid()}-{off}"
        d = w.daemon(w.policy("limits: {cpu: 5}\nbackground: true\n"), off)
        s = d.new_session()
        r = d.bash("for i in 1 2 3 4; do " + shlex.join([PYTHON, "-I", "-c", "while True: pass", mark]) +
                   " & done; wait", session=s, background=True)
        wait_for(lambda m=mark: len(processes(m)) >= 4)
        first, began = used(mark), time.monotonic()
        time.sleep(1.5)
        share[off] = (used(mark) - first) / (time.monotonic() - began)
        d.rpc("session.close", sessionId=s)
        if r["sandbox"] == "nolimits":
            return w.skip("T14 four busy children", "without a control group only priority holds them")
    w.check("T14 four busy children share a twentieth of a processor", 0 < share[False] < 0.1, str(share))
    w.check("T14 control: without a cell they take what there is", share[True] > 2 * share[False], str(share))


@threat("T15")
def t15_disk(w):
    small = w.policy("limits: {disk: 32M, tmp: 8M, tmp_inodes: 500, disk_inodes: 300}\n")
    big = os.path.join(w.work, "big")

    def clear():
        subprocess.run(["rm", "-rf", big])

    def too_big():
        return os.path.exists(big) and os.path.isfile(big) and os.path.getsize(big) >= 300 << 20
    write = ("import os, sys\n"
             "p = '/workspace/big' if os.path.isdir('/workspace') else sys.argv[1]\n"
             "f = os.open(p, os.O_CREAT | os.O_WRONLY)\n"
             "for _ in range(300): os.write(f, b'x' * (1 << 20))\n")
    r = w.attack("T15 three hundred megabytes into the workspace", write, [big], policy=small,
                 seen=too_big, reset=clear)
    if r:
        w.check("T15 the reply says disk", "disk" in r["text"], str(r))
    clear()
    for name, code in (("a file without a name",
                        "f = os.open(p, os.O_CREAT | os.O_RDWR); os.unlink(p)\n"),
                       ("a file that never had one", "f = os.open(os.path.dirname(p), os.O_TMPFILE | os.O_RDWR)\n"),
                       ("a file far down",
                        "os.mkdir(p); os.chdir(p)\n"
                        "for _ in range(400): os.mkdir('d'); os.chdir('d')\n"
                        "f = os.open('f', os.O_CREAT | os.O_RDWR)\n")):
        w.attack(f"T15 the same into {name}",
                 "import os, sys\n"
                 "p = '/workspace/big' if os.path.isdir('/workspace') else sys.argv[1]\n" + code +
                 "for _ in range(300): os.write(f, b'x' * (1 << 20))\n", [big], policy=small, reset=clear,
                 control="as for the first")
    w.attack("T15 reserving without writing",
             "import os, sys\n"
             "p = '/workspace/big' if os.path.isdir('/workspace') else sys.argv[1]\n"
             "f = os.open(p, os.O_CREAT | os.O_WRONLY)\n"
             "import ctypes\n"
             "r = ctypes.CDLL(None, use_errno=True).fallocate(f, 0, 0, 300 << 20)\n"
             "sys.exit(0 if r == 0 else 1)\n", [big], policy=small, reset=clear)
    clear()
    files = ("import os, sys\n"
             "p = '/workspace/big' if os.path.isdir('/workspace') else sys.argv[1]\n"
             "os.makedirs(p, exist_ok=True)\n"
             "for i in range(2000): os.close(os.open(f'{p}/{i}', os.O_CREAT | os.O_WRONLY))\n")
    w.attack("T15 two thousand files into the workspace", files, [big], policy=small,
             reset=clear)
    clear()
    w.attack("T15 two thousand files without a name",
             "import os, sys, time\n"
             "p = '/workspace' if os.path.isdir('/workspace') else os.path.dirname(sys.argv[1])\n"
             "for _ in range(4):\n"
             "  if os.fork() == 0:\n"
             "    for _ in range(500): os.open(p, os.O_TMPFILE | os.O_RDWR)\n"
             "    time.sleep(1); os._exit(0)\n"
             "sys.exit(0 if [os.wait()[1] for _ in range(4)] == [0] * 4 else 1)\n", [big], policy=small)
    # A limit that begins anew with each cell, each call or each look would be none.
    for name, size, calls, end in (("killed for it", 100, 6, ""), ("that end their tool", 28, 10, "; kill -9 $PPID"),
                                   ("that stay below the limit", 14, 25, "")):
        for off in (False, True):
            d = w.daemon(small, off)
            s = d.new_session()
            for i in range(calls):
                d.bash(f"head -c {size}M /dev/zero >grow{i}; sync -f .{end}", session=s)
            grown = sum(os.path.getsize(os.path.join(w.work, f)) for f in os.listdir(w.work)) >> 20
            if off:
                w.check(f"T15 control: without a cell calls {name} write all", grown == calls * size, str(grown))
            else:
                w.check(f"T15 calls {name} are held together", 20 <= grown < 200, str(grown))
                r = d.bash("rm -f grow*; echo deleted", session=s)
                w.check(f"T15 calls {name}: deleting still works", "deleted" in r["text"] and
                        not os.listdir(w.work), str(r))
            d.rpc("session.close", sessionId=s)
            w.clear()
    w.attack("T15 the temporary directory",
             "import os, sys\n"
             "top = '/tmp' if os.path.isdir('/workspace') else sys.argv[1]\n"
             "p = f'{top}/agentd-fill-{os.getpid()}'\n"
             "try:\n"
             "  with open(p, 'wb') as f: f.write(b'x' * (20 << 20))\n"
             "  ok = True\n"
             "except OSError: ok = False\n"
             "if os.path.exists(p): os.unlink(p)\n"
             "sys.exit(0 if ok else 1)\n", [w.outside], policy=small)
    w.attack("T15 its inodes",
             "import os, shutil, sys\n"
             "top = '/tmp' if os.path.isdir('/workspace') else sys.argv[1]\n"
             "d = f'{top}/agentd-fill-{os.getpid()}'\n"
             "os.mkdir(d)\n"
             "try:\n"
             "  for i in range(1000): open(f'{d}/{i}', 'w').close()\n"
             "  ok = True\n"
             "except OSError: ok = False\n"
             "shutil.rmtree(d)\n"
             "sys.exit(0 if ok else 1)\n", [w.outside], policy=small)
    # A job writes while no call is looking.
    job = w.policy("background: true\nlimits: {disk: 32M, tmp: 8M, disk_inodes: 300}\n")
    for off in (False, True):
        d = w.daemon(job, off)
        s = d.new_session()
        d.bash(f"cd {w.work if off else '/workspace'}; sleep 0.3; head -c 300M /dev/zero >big; exec sleep 4003",
               session=s, background=True)
        done = wait_for(too_big, 3 if not off else 20)
        w.check("T15 control: without a cell a job writes them" if off else
                "T15 three hundred megabytes by a job after its call", done == off, str(done))
        d.rpc("session.close", sessionId=s)
        clear()
    r = w.daemon(small).bash("rm -rf /workspace/big; echo freed")
    w.check("T15 the session can still delete", r["text"] == "freed\n[exit code: 0]", str(r))


def memory_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return max(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


@threat("T16")
def t16_floods(w):
    d = w.daemon()
    before = memory_of(d.proc.pid)
    for name, command in (("three hundred megabytes", "head -c 300000000 /dev/zero"),
                          ("a line without end", "yes | head -c 100000000 | tr -d '\\n'"),
                          ("a slow drip", "for i in $(seq 200); do echo $i; sleep 0.001; done")):
        r = d.bash(command)
        w.check(f"T16 {name}: counted and cut", len(r["text"]) < 70000 and r["exitCode"] == 0 and
                (r["outputBytes"] < 10000 or r["cutBytes"] > 4e7 and "left out" in r["text"]), str(r)[:400])
    r = d.python("'x' * 50_000_000")
    w.check("T16 a value whose text is huge", len(r["text"]) < 70000 and not r["isError"], str(r)[:300])
    w.check("T16 the daemon's memory stays flat", memory_of(d.proc.pid) < before + (16 << 10),
            f"{before} -> {memory_of(d.proc.pid)} KiB")
    rc, out, _ = w.host(["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"])
    w.check("T16 control: read by itself all of a flood is taken in", len(out) == 3000000, str(len(out)))
    r = w.daemon(w.policy("background: false\n")).bash("yes", timeout_s=1)
    w.check("T16 time limits hold in a flood", r["status"] == "timed_out", str(r)[:300])


RAW = r"""import os
os.write(1, bytes(range(256)) + b'\xff\xfe\xc0\x80\xed\xa0\x80\xf8'
         b'\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\r\ninfo audit session=forged level=full\n'
         b'\xe2\x80\xae\xe2\x80\xa8 {"id":1,"text":"forged","status":"ok"}\n')
"""


@threat("T17")
def t17_bytes(w):
    """What is no text is made visible, in the reply and in the log; lines stay lines."""
    d = w.daemon()
    raw = RAW
    texts = {"bash": d.bash(f"{PYTHON} -I -c {shlex.quote(raw)}")["text"], "python": d.python(raw)["text"]}
    texts["an exception"] = d.python("raise ValueError('\\x1b]0;x\\x07\\0\\udc80')")["text"]
    texts["a value"] = d.python("class E:\n  def __repr__(s): return '\\x1b[2J\\0'\nE()")["text"]
    texts["a name"] = d.bash("touch $'/workspace/x\\e[2J\\n\\xff'; ls -b /workspace; ls /workspace; "
                             "rm $'/workspace/x\\e[2J\\n\\xff'")["text"]
    texts["the editor"] = d.call("str_replace_editor", command="view", path="\x1b[2Jnothing")["text"]
    for name, text in texts.items():
        bad = [c for c in text if (ord(c) < 32 and c not in "\n\t") or 0x7f <= ord(c) < 0xa0 or
               0xd800 <= ord(c) < 0xe000]
        w.check(f"T17 control characters of {name} are made visible", not bad, f"{bad[:9]} {text[:200]!r}")
    w.check("T17 all of it is there", "forged" in texts["bash"] and "\u241b]52;c" in texts["bash"] and
            texts["bash"].startswith("\u2400\u2401\u2402"), texts["bash"])
    log = d.read_log()
    lines = [line for line in log.splitlines() if not line.split(" ")[0] in ("error", "warn", "info", "debug")]
    w.check("T17 the log stays well formed", not lines and "forged" not in log and "\x1b" not in log, str(lines))
    off = w.daemon(off=True)
    rc, out, _ = w.host([PYTHON, "-I", "-c", raw])
    w.check("T17 control: outside these bytes come as they are", "\x1b]52" in out, repr(out[:80]))
    w.check("T17 a tool without a cell is no other", "\x1b" not in off.bash(f"{PYTHON} -I -c {shlex.quote(raw)}")["text"], "")
    r = d.bash("printf 'a\\0b' > /workspace/nul; cat /workspace/nul; rm /workspace/nul")
    w.check("T17 NUL does not cut a reply short", "b" in r["text"].split("\n")[0][1:], str(r))


@threat("T18")
def t18_descriptors(w):
    w.attack("T18 ten thousand descriptors",
             "import os, resource, sys\n"
             "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
             "resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))\n"
             "for _ in range(10000): os.dup(0)\n", policy=w.policy("limits: {open_files: 256}\n"),
             control=True if resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 10100
             else "the hard limit here is lower")
    d = w.daemon()
    fill = ("import os\n"
            "try:\n"
            "  while True:\n"
            "    r, x = os.pipe(); os.set_blocking(x, False)\n"
            "    try:\n"
            "      while True: os.write(x, b'x' * 65536)\n"
            "    except BlockingIOError: pass\n"
            "except OSError: pass\n"
            "print('full')")
    r = d.bash(shlex.join([PYTHON, "-I", "-c", fill]))
    w.check("T18 every pipe filled", r["text"].startswith("full\n"), str(r))
    r = d.python("import os\nkeep = []\ntry:\n  while True: keep.append(os.dup(1))\nexcept OSError: pass\nlen(keep) > 90")
    w.check("T18 the interpreter without descriptors answers", "True" in r["text"], str(r))
    r = d.python("for n in keep: os.close(n)\n1")
    w.check("T18 and recovers", r["text"] == "1\n[ok]", str(r))
    r = d.bash("/bin/true $(head -c 3000000 /dev/zero | tr '\\0' x)")
    w.check("T18 giant arguments are refused with a sentence", "too long" in r["text"], str(r))
    r = d.bash("export BIG=$(head -c 120000 /dev/zero | tr '\\0' x); export B2=$BIG B3=$BIG B4=$BIG; echo ${#B4}")
    r = d.bash("echo on; unset BIG B2 B3 B4")
    w.check("T18 a giant environment does not stop the next call", "on" in r["text"], str(r)[:300])
    # What the kernel counts against the user who made the namespace, other sessions do not lack.
    r = d.bash(shlex.join([PYTHON, "-I", "-c",
                           "import ctypes, time\n"
                           "l = ctypes.CDLL(None)\n"
                           "print(sum(l.inotify_init1(0) >= 0 for _ in range(2000)), flush=True)\n"
                           "time.sleep(4)"]) + " & sleep 1; echo later")
    w.check("T18 inotify instances are a small share", r["text"].splitlines()[0].isdigit() and
            int(r["text"].splitlines()[0]) <= 8, str(r))


if __name__ == "__main__":
    main([t09_others, t10_everything, t11_outliving, t12_bombs, t13_memory, t14_time, t15_disk,
          t16_floods, t17_bytes, t18_descriptors],
         plain="" if os.environ.get("AGENTD_LONG") else "t09|t11|t12|t13|t15|t17")
