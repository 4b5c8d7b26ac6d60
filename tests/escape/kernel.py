"""kernel.py - T19 and T21 to T28: network, system calls, privilege, limits."""
import json
import os
import pty
import shlex
import signal
import socket
import subprocess
import threading
import time

from harness import PYTHON, main, processes, threat, wait_for

CALL = ("import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(*a):\n"
        "  r = libc.syscall(*[ctypes.c_long(x) if isinstance(x, int) else x for x in a])\n"
        "  return r, ctypes.get_errno()\n")


def listener(kind):
    s = socket.socket(socket.AF_INET, kind)
    s.bind(("0.0.0.0", 0))
    hits = []
    if kind == socket.SOCK_STREAM:
        s.listen(8)

    def serve():
        while True:
            try:
                if kind == socket.SOCK_STREAM:
                    s.accept()[0].close()
                else:
                    s.recvfrom(100)
            except OSError:
                return
            hits.append(1)
    threading.Thread(target=serve, daemon=True).start()
    return s, s.getsockname()[1], hits


def own_address():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        s.connect(("192.0.2.1", 9))
        return s.getsockname()[0]
    except OSError:
        return "127.0.0.1"
    finally:
        s.close()


@threat("T19")
def t19_network(w):
    tcp, tport, thits = listener(socket.SOCK_STREAM)
    udp, uport, uhits = listener(socket.SOCK_DGRAM)
    for address in {"127.0.0.1", own_address()}:
        w.attack(f"T19 TCP to the host at {address}",
                 "import socket, sys\n"
                 "socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)",
                 [address, tport], seen=lambda: wait_for(lambda: bool(thits), 0.3), reset=thits.clear)
    w.attack("T19 UDP to the host",
             "import socket, sys\n"
             "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
             "s.sendto(b'x', (sys.argv[1], int(sys.argv[2])))\n"
             "sys.exit(0)", [own_address(), uport],
             seen=None if own_address() == "127.0.0.1" else lambda: wait_for(lambda: bool(uhits), 0.3),
             reset=uhits.clear,
             control="on a machine without a route it stays on loopback"
             if own_address() == "127.0.0.1" else True) if own_address() != "127.0.0.1" else \
        w.skip("T19 UDP to the host", "this machine has no address but loopback")
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    serve = ("import socket, sys\n"
             "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
             "s.bind(('0.0.0.0', int(sys.argv[1]))); s.listen(4); s.settimeout(2)\n"
             "try: s.accept(); sys.exit(0)\n"
             "except TimeoutError: sys.exit(1)\n")

    def knock(stop):
        while not stop.is_set():
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
            except OSError:
                pass
            time.sleep(0.05)
    stop = threading.Event()
    t = threading.Thread(target=knock, args=(stop,), daemon=True)
    t.start()
    w.attack("T19 listening for the host", serve, [port])
    stop.set()
    t.join()
    r = w.daemon().python("import socket, threading\n"
                          "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(1)\n"
                          "t = threading.Thread(target=lambda: s.accept()[0].send(b'hi')); t.start()\n"
                          "c = socket.create_connection(s.getsockname()); t.join(); c.recv(9)")
    w.check("T19 the session's own loopback works", r["text"] == "b'hi'\n[ok]", str(r))
    w.attack("T19 names are not resolved", "import socket, sys\n"
             "socket.getaddrinfo('example.org', 80)", control="needs the internet")
    tcp.close()
    udp.close()


@threat("T21")
def t21_families(w):
    families = {"packet": (17, 3, 768), "vsock": (40, 1, 0), "alg": (38, 5, 0),
                "netlink, other protocols": (16, 3, 15), "xdp": (44, 3, 0), "kcm": (41, 2, 0),
                "tipc": (30, 5, 0), "can": (29, 3, 1), "bluetooth": (31, 3, 1), "key": (15, 3, 2)}
    for name, (family, kind, proto) in families.items():
        code = ("import socket, sys\n"
                "socket.socket(*map(int, sys.argv[1:4]))")
        works, _, _ = w.host([PYTHON, "-I", "-c", code, str(family), str(kind), str(proto)])
        w.attack(f"T21 socket family {name}", code, [family, kind, proto],
                 control=True if works == 0 else "not to be had on this host either")
    w.attack("T21 raw IP", "import socket\nsocket.socket(2, 3, 1)",
             control=True if w.is_root else "a plain user may not either")
    w.attack("T21 the host's interfaces",
             "import socket, sys\n"
             "sys.exit(0 if [n for _, n in socket.if_nameindex() if n != 'lo'] else 1)",
             control=True if [n for _, n in socket.if_nameindex() if n != "lo"] else "there are none")


@threat("T05", "T07", "T13")
def t05_shared_inodes(w):
    """What a cell shares with the host, it cannot mark, hold or lease."""
    may = True if w.is_root else "a plain user may not either"
    w.attack("T05 times of the host's device files",
             "import os, sys\n"
             "for p in ('/dev/null', '/dev/zero', '/dev/urandom', '/usr/bin', '/etc/ssl/certs'):\n"
             "  try: os.utime(p); sys.exit(0)\n"
             "  except OSError: pass\n"
             "sys.exit(1)")
    w.attack("T05 modes and attributes of them",
             "import os, sys\n"
             "for p in ('/dev/null', '/dev/zero', '/usr/bin', '/opt', '/'):\n"
             "  for f in (lambda: os.chmod(p, os.stat(p).st_mode & 0o7777), lambda: os.chown(p, os.stat(p).st_uid, -1)):\n"
             "    try: f(); sys.exit(0)\n"
             "    except OSError: pass\n"
             "sys.exit(1)", control=may)
    w.attack("T07 a lease that makes others wait",
             "import fcntl, os, sys\n"
             "p = '/workspace/lease' if os.path.isdir('/workspace') else sys.argv[1]\n"
             "f = os.open(p, os.O_CREAT | os.O_RDWR)\n"
             "fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)", [os.path.join(w.work, "lease")])
    w.attack("T13 huge pages, which no limit of the cell counts", CALL +
             "r, e = call(319, b'x', 4)\nsys.exit(0 if r >= 0 else 1)")


@threat("T22")
def t22_namespaces(w):
    may = True if w.is_root else "a plain user may not either"
    w.attack("T22 a user namespace", CALL + "sys.exit(0 if call(272, 0x10000000)[0] == 0 else 1)")
    w.attack("T22 by clone", CALL +
             "r, _ = call(56, 0x10000000 | 17, 0, 0, 0, 0)\n"
             "if r == 0: os._exit(0)\n"
             "sys.exit(0 if r > 0 else 1)")
    w.attack("T22 by clone with high bits set", CALL +
             "r, _ = call(56, 0x10000000 | 17 | (1 << 40), 0, 0, 0, 0)\n"
             "if r == 0: os._exit(0)\n"
             "sys.exit(0 if r > 0 else 1)")
    w.attack("T22 by clone3", CALL + "import struct\n"
             "args = struct.pack('<11Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)\n"
             "b = ctypes.create_string_buffer(args, 88)\n"
             "r, _ = call(435, b, 88)\n"
             "if r == 0: os._exit(0)\n"
             "sys.exit(0 if r > 0 else 1)")
    for name, code in (("mount", "call(165, b'none', b'/tmp', b'tmpfs', 0, None)"),
                       ("remount", "call(165, None, b'/', None, 32 | 4096, None)"),
                       ("fsopen", "call(430, b'tmpfs', 0)"),
                       ("open_tree", "call(428, -100, b'/usr', 1)"),
                       ("mount_setattr", "call(442, -100, b'/tmp', 0, bytes(32), 32)"),
                       ("umount", "(call(166, b'/proc', 2) if os.path.isdir('/workspace') else (0, 0))"),
                       ("chroot", "call(161, b'/tmp')"),
                       ("pivot_root", "(call(155, b'.', b'.') if os.path.isdir('/workspace') else (0, 0))")):
        w.attack(f"T22 {name}", CALL + f"sys.exit(0 if {code}[0] >= 0 else 1)",
                 control="it would change this machine" if name in ("mount", "remount") else may)
    w.attack("T22 joining a namespace", CALL +
             "fd = os.open('/proc/self/ns/uts', os.O_RDONLY)\n"
             "sys.exit(0 if call(308, fd, 0)[0] == 0 else 1)", control=may)


@threat("T23")
def t23_interfaces(w):
    probes = {"io_uring": ("call(425, 4, ctypes.create_string_buffer(120))", 0),
              "bpf": ("call(321, 0, ctypes.create_string_buffer(128), 128)", 0),
              "userfaultfd": ("call(323, 1)", 0),
              "add_key": ("call(248, b'user', b'agentd', b'x', 1, -2)", 0),
              "keyctl": ("call(250, 0, -2, 1)", 0),
              "perf events": ("call(298, ctypes.create_string_buffer(bytes([1,0,0,0,112,0,0,0]) + bytes(104)), 0, -1, -1, 0)", 0),
              "memfd_secret": ("call(447, 0)", 0), "kcmp": ("call(312, os.getpid(), os.getpid(), 0, 0, 0)", 0),
              "pidfd_getfd": ("call(438, os.pidfd_open(os.getpid()), 0, 0)", 0),
              "fanotify": ("call(300, 0x200, 0)", 0), "vmsplice": ("call(278, os.pipe()[1], 0, 0, 0)", 0),
              "modify_ldt": ("call(154, 0, ctypes.create_string_buffer(64), 64)", 0),
              "unknown numbers": ("call(999)", 0)}
    for name, (code, _) in probes.items():
        full = CALL + f"r, e = {code}\nprint(r, e)\nsys.exit(0 if r >= 0 or e not in (1, 38) else 1)"
        works, _, _ = w.host([PYTHON, "-I", "-c", full])
        w.attack(f"T23 {name}", full,
                 control=True if works == 0 else "not to be had on this host either")


ASM = ("import ctypes, mmap, os, sys\n"
       "def run(code):\n"
       "  m = mmap.mmap(-1, 4096, prot=7)\n"
       "  m.write(bytes.fromhex(code))\n"
       "  f = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
       "  return f()\n")


@threat("T24")
def t24_filter(w):
    # mov eax,20 (getpid of the 32-bit table); int 0x80; ret
    w.attack("T24 the 32-bit entry",
             ASM + "sys.exit(0 if run('b814000000cd80c3') == os.getpid() else 1)")
    for name, code in (("32-bit", "b814000000cd80c3"), ("x32", "b8270000400f05c3")):
        # mov eax,0x40000027 (getpid of x32); syscall; ret
        r = w.daemon().bash("exec " + shlex.join([PYTHON, "-I", "-c", ASM + f"run('{code}')"]))
        w.check(f"T24 the {name} entry ends the process", r["exitCode"] == 128 + signal.SIGSYS, str(r))
    w.attack("T24 high bits of a socket family", CALL +
             "r, e = call(41, 16 | (1 << 32), 3, 15)\nsys.exit(0 if r >= 0 else 1)")
    w.attack("T24 high bits of a mode", CALL +
             "p = b'/workspace/bits' if os.path.isdir('/workspace') else sys.argv[1].encode()\n"
             "os.close(os.open(p, os.O_CREAT | os.O_WRONLY))\n"
             "r, e = call(90, p, 0o4755 | (1 << 32))\n"
             "bad = os.stat(p).st_mode & 0o6000\nos.unlink(p)\nsys.exit(0 if bad else 1)",
             [os.path.join(w.work, "bits")])
    answer = (CALL + "import struct\n"
              "libc.prctl(38, 1, 0, 0, 0)\n"
              "prog = ctypes.create_string_buffer(struct.pack('<HBBI', 6, 0, 0, {action}), 8)\n"
              "class F(ctypes.Structure): _fields_ = [('n', ctypes.c_ushort), ('p', ctypes.c_void_p)]\n"
              "f = F(1, ctypes.addressof(prog))\n"
              "r, e = call(317, 1, {flags}, ctypes.byref(f))\n")
    w.attack("T24 a filter of its own that allows everything",
             answer.format(action="0x7fff0000", flags=0) +
             "sys.exit(0 if r == 0 and call(272, 0x10000000)[0] == 0 else 1)")
    w.attack("T24 a filter with a listener",
             answer.format(action="0x7fff0000", flags=8) + "sys.exit(0 if r >= 0 else 1)")


TTY = ("import fcntl, os, sys, termios\n"
       "got = False\n"
       "for name in ('/dev/tty', '/dev/console', '/dev/pts/0'):\n"
       "  try: os.close(os.open(name, os.O_RDWR)); got = True\n"
       "  except OSError: pass\n"
       "for fd in range(10):\n"
       "  for c in b'x\\n':\n"
       "    try: fcntl.ioctl(fd, termios.TIOCSTI, bytes([c])); got = True\n"
       "    except OSError: pass\n"
       "  try: fcntl.ioctl(fd, 0x541C, bytes([3])); got = True\n"
       "  except OSError: pass\n"
       "sys.exit(0 if got else 1)\n")


def on_terminal(argv, cwd):
    """What it prints on a terminal of its own."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execvp(argv[0], argv)
    out = b""
    while True:
        try:
            more = os.read(fd, 4096)
        except OSError:
            break
        if not more:
            break
        out += more
    os.waitpid(pid, 0)
    os.close(fd)
    return out.decode("utf-8", "replace")


@threat("T25")
def t25_terminal(w):
    p = os.path.join(w.policies, "coding.yaml")
    command = json.dumps({"command": shlex.join([PYTHON, "-I", "-c", TTY])})
    argv = [w.ctl, "tool", "call", "bash", command, "--json", "--policy", p, "--workspace", w.work]
    out = on_terminal(argv, w.work)
    w.check("T25 typing into the terminal of who made the call", '"exit_code":1}' in out and
            '"level":"none"' not in out, out)
    out = on_terminal(argv + ["--sandbox", "off"], w.work)
    w.check("T25 control: without a cell it can be had", '"exit_code":0}' in out or not w.is_root, out)
    # A daemon that was started from a terminal: a tool call must not type into it.
    wrap = [PYTHON, "-I", "-c",
            "import ctypes, os, pty, sys\n"
            "pid, fd = pty.fork()\n"
            "if pid == 0:\n"
            "  ctypes.CDLL(None).prctl(1, 15)\n"  # it ends with its terminal
            "  os.execv(sys.argv[1], sys.argv[1:])\n"
            "while True:\n"
            "  try:\n    if not os.read(fd, 4096): break\n"
            "  except OSError: break\n"]
    w.attack("T25 typing into the terminal of the daemon",
             TTY.replace("'/dev/pts/0')", "'/dev/pts/0', *__import__('glob').glob('/dev/pts/[0-9]*'))"),
             how={"wrap": wrap}, control=True if w.is_root else "another session's terminal is root's to open")
    out = subprocess.run([PYTHON, "-c",
                          "import pty, os, sys\n"
                          "pid, fd = pty.fork()\n"
                          "if pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n"
                          "import time\ntime.sleep(0.5)\n"
                          "os.write(fd, b'echo $((40+2)); tty; exit\\n')\n"
                          "out = b''\n"
                          "while True:\n"
                          "  try: b = os.read(fd, 4096)\n"
                          "  except OSError: break\n"
                          "  if not b: break\n"
                          "  out += b\n"
                          "sys.stdout.buffer.write(out)\n", w.ctl, "sandbox", "shell", "--policy", p,
                          "--workspace", w.work], capture_output=True, text=True, timeout=60)
    w.check("T25 sandbox shell has a terminal of its own", "42" in out.stdout, out.stdout + out.stderr)


@threat("T26")
def t26_privilege(w):
    w.attack("T26 capabilities, new privileges, no filter",
             "import sys\n"
             "s = dict(l.split(':', 1) for l in open('/proc/self/status') if ':' in l)\n"
             "bad = any(int(s[k], 16) for k in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'))\n"
             "bad |= s['NoNewPrivs'].strip() != '1' or s['Seccomp'].strip() != '2'\n"
             "sys.exit(0 if bad else 1)")
    w.attack("T26 personality without randomisation", CALL +
             "sys.exit(0 if call(135, 0x0040000)[0] >= 0 else 1)")
    w.attack("T26 becoming another user", "import os, sys\n"
             "for u in (0, 1, 1999, 65534):\n"
             "  try: os.setresuid(u, u, u); sys.exit(0)\n"
             "  except OSError: pass\n"
             "sys.exit(1)", control=True if w.is_root else "a plain user may not either")
    for off in (False, True):
        d, uids = w.daemon(off=off), set()
        s = d.new_session()
        for n in (4245, 4246):
            d.bash(f"exec sleep {n}.{os.getpid()}", session=s, background=True)

        def look():
            for pid in processes(f".{os.getpid()}\0"):
                with open(f"/proc/{pid}/status") as f:
                    status = f.read()
                uids.update(status.split("Uid:")[1].split("\n")[0].split() +
                            status.split("Gid:")[1].split("\n")[0].split())
            return bool(uids)
        found = wait_for(look)
        d.rpc("session.close", sessionId=s)
        if not off:
            w.check("T26 seen from outside it is never the host's root", found and "0" not in uids, str(uids))
        elif w.is_root:
            w.check("T26 control: without a cell it is", found and "0" in uids, str(uids))


@threat("T27", control="root")
def t27_machine(w):
    may = True if w.is_root else "a plain user may not either"
    host = socket.gethostname().encode()
    for name, code, control in (
            ("host name", f"call(170, {host!r}, {len(host)})", may),
            ("clock", "call(227, 0, ctypes.create_string_buffer(16))", "it would set the clock"),
            ("adjusting the clock", "(-1, call(159, ctypes.create_string_buffer(bytes([0x10]) + bytes(207)))[1])",
             "it would change the clock"),
            ("swap", "(0 if call(167, b'/nonexistent', 0)[1] == 2 else -1, 0)", may),
            ("modules", "(0 if call(313, -1, b'', 0)[1] == 9 else -1, 0)", "needs module support"),
            ("restart", "(0 if call(169, 1, 2, 3, 0)[1] == 22 else -1, 0)", may),
            ("kexec", "(0 if call(246, 0, 0, 0, 0x80000000)[1] not in (1, 38) else -1, 0)", "needs kexec"),
            ("kernel log", "call(103, 10, 0, 0)", may), ("accounting", "call(163, 0)", "it would change it"),
            ("I/O ports", "call(172, 3)", "many kernels lack it")):
        w.attack(f"T27 {name}", CALL + f"sys.exit(0 if {code}[0] >= 0 else 1)", control=control)
    w.attack("T27 kernel settings",
             "import os, sys\n"
             "for p in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/sysrq-trigger',\n"
             "          '/proc/sys/vm/drop_caches', '/proc/irq/default_smp_affinity', '/sys/kernel/mm/ksm/run'):\n"
             "  try: os.close(os.open(p, os.O_WRONLY)); print(p); sys.exit(0)\n"
             "  except OSError: pass\n"
             "sys.exit(1)", control=may)


@threat("T28")
def t28_limits(w):
    may = True if w.is_root else "a plain user may not either"
    w.attack("T28 control groups", "import os, sys\n"
             "bad = os.path.isdir('/sys/fs/cgroup') and bool(os.listdir('/sys/fs/cgroup'))\n"
             "sys.exit(0 if bad else 1)", control=True if os.path.isdir("/sys/fs/cgroup") else "no groups")
    w.attack("T28 real-time scheduling", "import os\n"
             "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))", control=may)
    w.attack("T28 a better place in line when memory runs out",
             "import os\nos.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-900')",
             control="root of a container may lack the capability too")
    w.attack("T28 raising a limit", "import resource as r\n"
             "s, h = r.getrlimit(r.RLIMIT_NPROC)\n"
             "r.setrlimit(r.RLIMIT_NPROC, (h + 1 if h > 0 else 5, h + 1 if h > 0 else 5))\n",
             control="depends on the host's own limits")
    w.attack("T28 a higher priority", "import os\nos.nice(-5)", control=may)
    w.attack("T28 core files", "import resource as r, sys\n"
             "r.setrlimit(r.RLIMIT_CORE, (1 << 20, 1 << 20))\n", control="depends on the host's limits")


if __name__ == "__main__":
    main([t19_network, t21_families, t05_shared_inodes, t22_namespaces, t23_interfaces, t24_filter, t25_terminal,
          t26_privilege, t27_machine, t28_limits],
         plain="" if os.environ.get("AGENTD_LONG") else "t05|t22|t26|t28")
