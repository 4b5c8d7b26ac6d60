"""files.py - T01 to T08: reading, writing and tricking by path."""
import contextlib
import os
import re
import shlex
import socket
import subprocess
import threading
import time

from harness import PYTHON, main, threat, wait_for

READ = "import sys; print(open(sys.argv[1]).read())"


@threat("T01")
def t01_host_secrets(w):
    w.attack("T01 file readable by everyone", READ, [w.secret])
    home = os.path.join(w.root, "home/.ssh")
    os.makedirs(home)
    key = os.path.join(home, "id_ed25519")
    with open(key, "w") as f:
        f.write("key\n")
    w.attack("T01 key under a home directory", READ, [key])
    if w.is_root:
        w.attack("T01 password file", READ, ["/etc/shadow"])
    w.attack("T01 the host's users", "import sys\n"
             "names = [l.split(':')[0] for l in open('/etc/passwd')]\n"
             "sys.exit(0 if 'daemon' in names or len(names) > 5 else 1)")
    w.attack("T01 through every root in /proc",
             "import os, sys\n"
             "for p in os.listdir('/proc'):\n"
             "  for way in ('root', 'cwd', 'task/%s/root' % p):\n"
             "    try:\n"
             "      if p.isdigit() and 'canary' in open(f'/proc/{p}/{way}' + sys.argv[1]).read():\n"
             "        sys.exit(0)\n"
             "    except OSError: pass\n"
             "sys.exit(1)", [w.secret])
    w.attack("T01 raw disk and memory devices",
             "import os, sys\n"
             "for d in ('/dev/vda', '/dev/sda', '/dev/nvme0n1', '/dev/mem', '/dev/kmsg', '/proc/kcore',\n"
             "          '/dev/tty', '/dev/ptmx', '/dev/fuse', '/dev/kvm', '/dev/net/tun'):\n"
             "  try: os.close(os.open(d, os.O_RDONLY | os.O_NONBLOCK)); print(d); sys.exit(0)\n"
             "  except OSError: pass\n"
             "sys.exit(1)", control=True if w.is_root else "a plain user may not open them anyway")


@threat("T02")
def t02_daemon_state(w):
    env = dict(os.environ, AGENTD_TEST_CREDENTIAL="canary-env-77", HOME=w.outside)
    w.attack("T02 environment of whoever started it",
             "import os, sys\n"
             "hit = 'canary-env-77' in str(os.environ)\n"
             "for p in os.listdir('/proc'):\n"
             "  try: hit |= b'canary-env-77' in open(f'/proc/{p}/environ', 'rb').read()\n"
             "  except OSError: pass\n"
             "sys.exit(0 if hit else 1)", how={"env": env})
    w.attack("T02 memory and binary of the supervisor",
             "import os, sys\n"
             "for p in ('/proc/1/mem', '/proc/1/exe', '/proc/1/maps', '/proc/1/environ'):\n"
             "  try: os.close(os.open(p, os.O_RDONLY)); sys.exit(0)\n"
             "  except OSError: pass\n"
             "sys.exit(1)", control="the host's own pid 1 may be protected too")


@threat("T02")
def t02_state_as_workspace(w):
    """Nobody gets the daemon's own folders as a workspace, under whatever name."""
    d = w.start()
    state = os.path.join(d.root, "state")
    link = os.path.join(w.root, "to-state")
    os.symlink(d.root, link)
    mark = os.path.join(state, "mark")
    open(mark, "w").close()
    for cwd in (state, os.path.join(state, "sessions"), d.root, link, link + "/state", link + "/state/../state",
                w.root, os.path.dirname(w.root), "/", "/var", "/tmp", "/usr/share", "/etc", "/proc/self/root" + state):
        try:
            s = d.new_session(cwd)
            r = d.bash("find /workspace/ -maxdepth 6 -name mark; ls -A /workspace | head -3", session=s)
        except RuntimeError as e:  # refused at once is as good
            r = {"status": "unavailable", "text": str(e)}
        w.check(f"T02 {cwd.replace(w.root, '.')} as a workspace", r["status"] == "unavailable" and
                "mark" not in r["text"], str(r))
    off = w.start(off=True)
    r = off.bash(f"ls {off.root}/state")
    w.check("T02 control: with the sandbox off its state is there to read", "agentd.db" in r["text"], str(r))
    d.close()
    off.close()


@threat("T03")
def t03_sockets(w):
    path = os.path.join(w.outside, "control.sock")
    names = [path, "\0agentd-escape-" + str(os.getpid())]
    for name in names:
        s = socket.socket(socket.AF_UNIX)
        s.bind(name)
        if name[0] == "/":
            os.chmod(name, 0o777)
        s.listen(8)
        hits = []

        def serve(sock=s, hits=hits):
            while True:
                try:
                    c, _ = sock.accept()
                except OSError:
                    return
                hits.append(1)
                c.close()
        threading.Thread(target=serve, daemon=True).start()
        kind = "path" if name[0] == "/" else "abstract name"
        w.attack(f"T03 Unix socket by {kind}",
                 "import socket, sys\n"
                 "s = socket.socket(socket.AF_UNIX)\n"
                 "s.connect(sys.argv[1].replace('@', '\\0', 1))", [name.replace("\0", "@")],
                 seen=lambda h=hits: bool(h), reset=hits.clear)
        s.close()
    # Services whose sockets lie in the workspace: by an absolute path, by a relative one, and by
    # a hard link to one that lies elsewhere.
    os.makedirs(os.path.join(w.work, "a/b"))
    hits, servers = [], []
    for name, place in (("x.sock", w.work), ("y.sock", os.path.join(w.work, "a/b")), ("z.sock", w.outside)):
        s = socket.socket(socket.AF_UNIX)
        if name == "y.sock":
            here = os.getcwd()
            os.chdir(place)
            s.bind(name)
            os.chdir(here)
        else:
            s.bind(os.path.join(place, name))
        os.chmod(os.path.join(place, name), 0o777)
        s.listen(8)
        servers.append(s)

        def serve_one(sock=s):
            while True:
                try:
                    sock.accept()[0].close()
                except OSError:
                    return
                hits.append(1)
        threading.Thread(target=serve_one, daemon=True).start()
    linked = os.path.join(w.work, "linked.sock")
    os.link(os.path.join(w.outside, "z.sock"), linked)
    for path in ("x.sock", "a/b/y.sock", "linked.sock"):
        w.attack(f"T03 a service's socket in the workspace: {path}",
                 "import os, socket, sys\n"
                 "os.chdir('/workspace' if os.path.isdir('/workspace') else sys.argv[1])\n"
                 "socket.socket(socket.AF_UNIX).connect(sys.argv[2])", [w.work, path], how={"env": dict(os.environ)},
                 seen=lambda: bool(hits), reset=hits.clear, policy="coding")
    for kind in ("copy",):
        w.attack(f"T03 the same in a workspace of kind {kind}",
                 "import os, socket, sys\n"
                 "os.chdir('/workspace' if os.path.isdir('/workspace') else sys.argv[1])\n"
                 "socket.socket(socket.AF_UNIX).connect('x.sock')", [w.work], how={"env": dict(os.environ)},
                 seen=lambda: bool(hits), reset=hits.clear, policy=w.policy(f"workspace: {kind}\n"))
    for s in servers:
        s.close()
    w.clear()
    # Services that come later than the cell, in the workspace and in what is shown of the host.
    name = f"agentd-later-{os.getpid()}"
    places = [(os.path.join(w.work, "late.sock"), "/workspace/late.sock"), ("\0" + name, "\0" + name)]
    if w.is_root:
        places += [(f"{top}/{name}.sock",) * 2 for top in ("/opt", "/usr/local")]
    hits.clear()
    w.daemon().bash("true")
    for outside, inside in places:
        s = socket.socket(socket.AF_UNIX)
        s.bind(outside)
        try:
            if outside[0] == "/":
                os.chmod(outside, 0o777)
            s.listen(8)
            threading.Thread(target=serve_one, args=(s,), daemon=True).start()
            w.attack(f"T03 a socket bound after the cell was made: {outside.replace(w.root, '.')!r}",
                     "import os, socket, sys\n"
                     "for p in sys.argv[1:]:\n"
                     "  try: socket.socket(socket.AF_UNIX).connect(p.replace('@', '\\0', 1)); sys.exit(0)\n"
                     "  except OSError: pass\n"
                     "sys.exit(1)", [outside.replace("\0", "@"), inside.replace("\0", "@")],
                     seen=lambda: wait_for(lambda: bool(hits), 0.3), reset=hits.clear)
        finally:
            s.close()
            if outside[0] == "/":
                os.unlink(outside)
    # And while a call runs: what it holds on to, it has lost a moment later.
    late = os.path.join(w.work, "running.sock")
    r = w.daemon().bash("while [ ! -e /workspace/go ]; do sleep 0.01; done; sleep 1; exec " + shlex.join(
        [PYTHON, "-I", "-c", "import socket\nsocket.socket(socket.AF_UNIX).connect('/workspace/running.sock')"]),
        background=True)
    s = socket.socket(socket.AF_UNIX)
    s.bind(late)
    os.chmod(late, 0o777)
    s.listen(8)
    hits.clear()
    threading.Thread(target=serve_one, args=(s,), daemon=True).start()
    open(os.path.join(w.work, "go"), "w").close()
    r = w.daemon().call("job", action="wait", id=int(re.search(r"job (\d+)", r["text"])[1]), wait_s=20)
    w.check("T03 a socket bound while a call runs is covered", "refused" in r["text"] and not hits, str(r))
    s.close()
    w.clear()
    w.attack("T03 services under /run",
             "import os, sys; sys.exit(0 if os.path.isdir('/run') and os.listdir('/run') else 1)")


@threat("T04")
def t04_descriptors(w):
    fd = os.open(w.secret, os.O_RDONLY)
    high = os.dup2(fd, 77)
    d = os.open(w.outside, os.O_RDONLY)
    may = True if w.is_root else "the daemon's own /proc entries are closed to its user as well"
    w.attack("T04 a descriptor left open by whoever started the daemon",
             "import glob, os, sys\n"
             "for p in glob.glob('/proc/[0-9]*/fd/*'):\n"
             "  try:\n"
             "    f = int(p.split('/')[-1]) if p.startswith('/proc/%d/' % os.getpid()) else \\\n"
             "        os.open(p, os.O_RDONLY | os.O_NONBLOCK)\n"
             "    if b'canary' in os.pread(f, 100, 0): sys.exit(0)\n"
             "  except OSError: pass\n"
             "sys.exit(1)", how={"pass_fds": (fd, high)}, control=may)
    w.attack("T04 a directory left open",
             "import glob, os, sys\n"
             "for p in glob.glob('/proc/[0-9]*/fd/*'):\n"
             "  try: os.open(p + '/secret.txt', os.O_RDONLY); sys.exit(0)\n"
             "  except OSError: pass\n"
             "sys.exit(1)", how={"pass_fds": (d,)}, control=may)
    mine = ("import os, sys\n"
            "found = []\n"
            "for n in range(3, 300):\n"
            "  try: found.append(os.fstat(n).st_ino)\n"
            "  except OSError: pass\n"
            "sys.exit(0 if set(found) & set(map(int, sys.argv[1:])) else 1)")
    inodes = [str(os.fstat(n).st_ino) for n in (fd, d)]
    command = {"command": shlex.join([PYTHON, "-I", "-c", mine] + inodes)}
    rc, r = w.tool("bash", command, pass_fds=(fd, high, d))
    w.check("T04 what the starter of a single call left open", r.get("exit_code") == 1, str(r))
    r = subprocess.run([PYTHON, "-I", "-c", mine] + inodes, pass_fds=(fd, high, d))
    w.check("T04 control: a program started so has them", r.returncode == 0, str(r))
    for n in (high, d, fd):
        os.close(n)
    dm = w.daemon()
    listing = dm.bash("ls -l /proc/self/fd")["text"].splitlines()
    w.check("T04 a command has its own three and no more", len(listing) == 6, str(listing))
    got = dm.python("import os\nfound = []\nfor n in range(3, 1024):\n  try: os.fstat(n); "
                    "found.append(n)\n  except OSError: pass\nfound")
    w.check("T04 the interpreter has its own and its socket", got["text"] == "[100]\n[ok]",
            got["text"])


@threat("T05")
def t05_writing(w):
    target = os.path.join(w.outside, "written")

    def gone():
        if os.path.exists(target):
            os.unlink(target)
    w.attack("T05 where everyone may write", "import sys; open(sys.argv[1], 'w').write('x')",
             [target], seen=lambda: os.path.exists(target), reset=gone)
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        name = f"{place}/agentd-escape-{os.getpid()}"

        def clear(n=name):
            if os.path.exists(n):
                os.unlink(n)
        # It succeeds inside, on the session's own file system: only outside counts.
        w.attack(f"T05 {place} of the host",
                 "import sys; open(sys.argv[1], 'w').write('x'); sys.exit(0 if len(sys.argv) > 2 else 1)",
                 [name], control="the write itself is allowed, on the session's own",
                 seen=lambda n=name: os.path.exists(n), reset=clear)
    w.attack("T05 the distribution's files",
             "import os, sys\n"
             "for p in ('/usr/bin/x', '/etc/x', '/opt/x', '/x', '/agentd/x', '/dev/x'):\n"
             "  try: open(p, 'w'); os.unlink(p); sys.exit(0)\n"
             "  except OSError: pass\n"
             "sys.exit(1)", control=True if w.is_root else "a plain user may not either")


@threat("T06")
def t06_paths(w):
    link = os.path.join(w.work, "link")
    for target, name in ((w.secret, "link to a file"), (w.outside, "link to a directory")):
        os.symlink(target, link)
        w.attack(f"T06 {name}", "import os, sys\n"
                 "p = '/workspace/link' if os.path.isdir('/workspace') else sys.argv[1]\n"
                 "p = p + '/secret.txt' if os.path.isdir(p) else p\n"
                 "print(open(p).read())", [link])
        os.unlink(link)
    w.attack("T06 upwards", "import os, sys\n"
             "up = '../' * 40\n"
             "print(open(up + sys.argv[1].lstrip('/')).read())", [w.secret])
    hard = os.path.join(w.work, "hard")
    w.attack("T06 hard link to a file outside",
             "import os, sys\n"
             "os.link(sys.argv[1], sys.argv[2]); os.unlink(sys.argv[2])", [w.secret, hard],
             control=True if w.is_root else "protected_hardlinks may refuse a plain user")
    w.attack("T06 file handles",
             "import ctypes, os, sys\n"
             "libc = ctypes.CDLL(None, use_errno=True)\n"
             "buf = ctypes.create_string_buffer(b'\\x80\\0\\0\\0' + b'\\0' * 140, 144)\n"
             "mnt = ctypes.c_int()\n"
             "p = sys.argv[1] if os.path.exists(sys.argv[1]) else '/usr'\n"
             "if libc.name_to_handle_at(-100, p.encode(), buf, ctypes.byref(mnt), 0) < 0: sys.exit(1)\n"
             "d = os.open('/', os.O_RDONLY)\n"
             "sys.exit(0 if libc.open_by_handle_at(d, buf, os.O_RDONLY) >= 0 else 1)", [w.secret],
             control=True if w.is_root else "needs a capability that a plain user lacks")
    w.attack("T06 open past the working directory after chdir games",
             "import os, sys, tempfile\n"
             "t = tempfile.mkdtemp(); os.makedirs(t + '/a/b'); d = os.open(t + '/a/b', os.O_RDONLY)\n"
             "os.rename(t + '/a/b', t + '/b')\n"
             "p = sys.argv[1]\n"
             "os.fchdir(d)\n"
             "print(open('../' * 10 + p.lstrip('/')).read())", [w.secret])
    # A folder and a link change places while the tools that write files walk through them.
    d, swap = w.daemon(), os.path.join(w.outside, "swap")
    os.mkdir(swap)
    os.chmod(swap, 0o777)
    flip = ("import ctypes, sys\nl = ctypes.CDLL(None)\na, b = [p.encode() for p in sys.argv[1:]]\n"
            "while True: l.renameat2(-100, a, -100, b, 2)\n")
    s = d.new_session()
    d.bash(f"cd /workspace; mkdir A; ln -s {swap} B; exec " + shlex.join([PYTHON, "-I", "-c", flip, "A", "B"]),
           session=s, background=True)
    made = 0
    for i in range(15):
        r = d.call("str_replace_editor", session=s, command="create", path=f"A/e{i}", file_text="x")
        q = d.call("apply_patch", session=s, patch=f"*** Begin Patch\n*** Add File: A/p{i}\n+x\n*** End Patch\n")
        made += (r["status"] == "ok") + (q["status"] == "ok")
    w.check("T06 the editor and patches write through a folder that swaps with a link", os.listdir(swap) == [],
            f"{made} made, outside: {os.listdir(swap)}")
    d.rpc("session.close", sessionId=s)
    p = subprocess.Popen([PYTHON, "-I", "-c", flip, os.path.join(w.work, "A"), os.path.join(w.work, "B")])

    def through():
        with contextlib.suppress(OSError):
            open(os.path.join(w.work, "A/x"), "w").close()
        return bool(os.listdir(swap))
    w.check("T06 control: a plain write is led outside", wait_for(through, 20), "never")
    p.kill()
    p.wait()
    w.clear()
    # The workspace's path becomes a link to somewhere else between asking and opening.
    real, trap = os.path.join(w.root, "moving"), os.path.join(w.root, "trap")
    os.mkdir(real)
    os.symlink(w.outside, trap)
    rc, r = w.tool("bash", {"command": "ls /workspace"}, workspace=trap)
    # A link that the person names is followed once, to its real path; what is then mounted is
    # that directory and no other.
    w.check("T06 a named link is resolved before anything is opened", rc == 0 and
            "secret.txt" in r["text"], str(r))


LINKS = ("tmp", "dev", "proc", "etc", "usr", ".lower", ".upper", "agentd", "spill", "figures")


@threat("T07")
def t07_traps(w):
    """Planted by one call; the daemon and later calls walk into none of it."""
    marker = os.path.join(w.outside, "hook-ran")
    d = w.daemon()
    hook = ("mkdir -p traps; cd traps; git init -q 2>/dev/null || mkdir -p .git/hooks; "
            "for h in pre-commit post-checkout post-index-change fsmonitor; do "
            f"printf '#!/bin/sh\\ntouch {marker}\\n' >.git/hooks/$h; chmod 755 .git/hooks/$h; done; "
            f"printf '[core]\\n\\tfsmonitor = touch {marker}\\n\\tpager = touch {marker}\\n"
            f"[alias]\\n\\tstatus = !touch {marker}\\n' >>.git/config; cd ..; ")
    links = "".join(f"ln -s {w.outside} {name}; " for name in LINKS)
    r = d.bash("cd /workspace && { " + hook + links + "mkfifo README.md traps/notes.txt; "
               "ln -s loop loop; ln -s . here; ln -s /proc/self/root everything; "
               "truncate -s 3G huge.txt; echo 'a kept needle' >found.md; "
               "seq -f 'a%g' 200000 | { echo '<p>x<a'; cat; echo '>'; } >wide.html; mkfifo AGENTS.md .env; mkdir -m 0 closed; "
               "touch $'new\nline\x1b[31m' $'\xff\xfe.txt' -- '-rf' '$(touch x)' '; touch x'; }")
    w.check("T07 traps are planted", r["exitCode"] == 0, str(r))
    deep = ("import os\nos.chdir('/workspace')\n"
            "for i in range(1500):\n  os.mkdir('d' * 200); os.chdir('d' * 200)\n")
    r = d.python(deep + "os.chdir('/workspace')")
    w.check("T07 a tree fifteen hundred levels deep is made", not r["isError"], str(r))
    before = sorted(os.listdir(w.outside))
    s = d.new_session()
    for name, call in (
            ("a command", lambda: d.bash("echo still here", session=s)),
            ("the interpreter", lambda: d.python("1 + 1", session=s)),
            ("search", lambda: d.call("search", session=s, query="still here")),
            ("the editor, of the folder", lambda: d.call("str_replace_editor", session=s,
                                                        command="view", path="/workspace")),
            ("the editor, of a FIFO", lambda: d.call("str_replace_editor", session=s,
                                                    command="view", path="README.md")),
            ("the editor, making a file below a link",
             lambda: d.call("str_replace_editor", session=s, command="create",
                            path="tmp/made", file_text="x")),
            ("the editor, of a file without end", lambda: d.call("str_replace_editor", session=s,
                                                               command="view", path="huge.txt")),
            ("the editor, far down", lambda: d.call("str_replace_editor", session=s,
                                                   command="view", path="/".join(["d" * 200] * 15))),
            ("open, of a FIFO", lambda: d.call("open", session=s, id="README.md")),
            ("a patch through a link", lambda: d.call("apply_patch", session=s, patch=(
                "*** Begin Patch\n*** Add File: etc/made\n+x\n*** End Patch\n")))):
        began = time.monotonic()
        r = call()
        w.check(f"T07 {name} comes back", time.monotonic() - began < 30 and r["status"] not in
                ("timed_out", "unavailable", "unknown"), str(r)[:400])
    r = d.call("search", session=s, query="needle")
    w.check("T07 search finds what is there in spite of traps", "a kept needle" in r["text"], str(r)[:400])
    rc, r = w.tool("bash", {"command": "echo next session"})
    w.check("T07 the next session starts in spite of traps", rc == 0 and "next session" in r["text"] and
            r["level"] in ("full", "nolimits"), str(r))
    r = d.bash("cd /workspace/traps; git status; git add -A; git commit -qm x; true", session=s)
    d.rpc("session.close", sessionId=s)
    w.check("T07 nothing outside was made, written or run", sorted(os.listdir(w.outside)) == before and
            not os.path.exists(marker), str(os.listdir(w.outside)))
    shut = os.path.join(w.root, "shut")
    os.mkdir(shut)
    s = d.new_session(shut)
    d.bash("chmod 0 /workspace", session=s)
    d.rpc("session.close", sessionId=s)
    s = d.new_session(shut)
    r = d.bash("echo in; chmod 755 /workspace; touch /workspace/again", session=s)
    w.check("T07 a workspace that was closed to its owner opens again", r["exitCode"] == 0 and
            os.path.exists(os.path.join(shut, "again")), str(r))
    d.rpc("session.close", sessionId=s)
    r = subprocess.run(["timeout", "1", "cat", os.path.join(w.work, "README.md")])
    w.check("T07 control: reading the FIFO hangs", r.returncode == 124, str(r.returncode))
    with open(os.path.join(w.work, "tmp/through-link"), "w"):
        pass
    w.check("T07 control: the links lead outside", "through-link" in os.listdir(w.outside), "no")
    os.unlink(os.path.join(w.outside, "through-link"))
    subprocess.run(["git", "-c", "safe.directory=*", "status"], cwd=os.path.join(w.work, "traps"),
                   capture_output=True, env=dict(os.environ, HOME=w.outside))
    w.check("T07 control: outside git runs what its settings say", not os.path.isdir(
        os.path.join(w.work, "traps/.git/refs")) or os.path.exists(marker), "it did not")
    if os.path.exists(marker):
        os.unlink(marker)
    w.clear()


@threat("T08")
def t08_set_id(w):
    bad = os.path.join(w.work, "bad")

    def set_id():
        return os.path.exists(bad) and os.stat(bad).st_mode & 0o6000 != 0

    def clear():
        if os.path.exists(bad):
            os.unlink(bad)
    for name, code in (
            ("chmod", "shutil.copy('/bin/true', p); os.chmod(p, 0o4755)"),
            ("fchmod", "f = open(p, 'w'); os.fchmod(f.fileno(), 0o6755)"),
            ("open with mode", "os.umask(0); os.close(os.open(p, os.O_CREAT | os.O_WRONLY, 0o4755))"),
            ("mknod with mode", "os.mknod(p, 0o104755)"),
            ("fchmodat2", "open(p, 'w').close()\n"
             "import ctypes\nctypes.CDLL(None).syscall(452, -100, p.encode(), 0o4755, 0)\n"
             "if not os.stat(p).st_mode & 0o6000: os.chmod(p, 0o4755)"),
            ("install", "import subprocess; subprocess.run(['install', '-m', '4755', '/bin/true', p], check=True)")):
        w.attack(f"T08 set-user-id file by {name}",
                 "import os, shutil, sys\n"
                 "p = '/workspace/bad' if os.path.isdir('/workspace') else sys.argv[1]\n" + code,
                 [bad], seen=set_id, reset=clear)
        clear()
    w.attack("T08 device file", "import os, sys\n"
             "p = '/workspace/bad' if os.path.isdir('/workspace') else sys.argv[1]\n"
             "os.mknod(p, 0o20666, os.makedev(1, 5))\n"
             "os.close(os.open(p, os.O_RDONLY))", [bad], reset=clear,
             control=True if w.is_root else "a plain user may not either")
    own = os.path.join(w.work, "made")
    w.daemon().bash("echo x > /workspace/made; mkdir -p /workspace/d; chmod 777 /workspace/made")
    w.check("T08 files made inside belong to the workspace's owner",
            os.stat(own).st_uid == os.stat(w.work).st_uid, str(os.stat(own)))
    w.attack("T08 set-user-id programs that are there",
             "import subprocess, sys\n"
             "r = subprocess.run(['setpriv', '--nnp', 'true'])\n"
             "s = open('/proc/self/status').read()\n"
             "sys.exit(1 if 'NoNewPrivs:\\t1' in s else 0)")


if __name__ == "__main__":
    main([t01_host_secrets, t02_daemon_state, t02_state_as_workspace, t03_sockets, t04_descriptors, t05_writing,
          t06_paths, t07_traps, t08_set_id])
