"""session.py - T30 to T34: start-up files, other sessions, what is left, weak hosts."""
import ctypes
import json
import os
import signal
import subprocess
import sys
import time

from harness import PYTHON, main, processes, wait_for


def t31_planted(w):
    marker = os.path.join(w.work, "planted")
    script = os.path.join(w.work, "rc.sh")
    with open(script, "w") as f:
        f.write("touch ./planted\n")
    env = dict(os.environ, BASH_ENV=script, ENV=script, LD_PRELOAD="/nonexistent/x.so")

    def clear():
        if os.path.exists(marker):
            os.unlink(marker)
    rc, _, err, _ = w.inside(["bash", "-c", "true"], env=dict(os.environ, BASH_ENV=script, ENV=script))
    w.check("T31 start-up file of the shell", rc == 0 and not os.path.exists(marker), err)
    w.host(["bash", "-c", "true"], env=dict(os.environ, BASH_ENV=script))
    w.check("T31 control: it runs outside", os.path.exists(marker), "no marker")
    clear()
    rc, out, err, _ = w.inside(["env"], env=dict(env, LD_PRELOAD=""))
    names = {l.split("=")[0] for l in out.splitlines()}
    w.check("T31 the environment is built from nothing",
            rc == 0 and not names & {"BASH_ENV", "ENV", "LD_PRELOAD", "SSH_AUTH_SOCK", "OLDPWD"} and
            "HOME=/tmp/home" in out, out)
    for name in ("bash", ".bashrc", ".profile", "sitecustomize.py", "json.py"):
        with open(os.path.join(w.work, name), "w") as f:
            f.write("#!/bin/sh\ntouch /workspace/planted\n")
        os.chmod(os.path.join(w.work, name), 0o755)
    rc, _, err, _ = w.inside(["bash", "-c", "true"])
    w.check("T31 programs of the workspace are not found by name", rc == 0 and
            not os.path.exists(marker), err)
    clear()
    for name in os.listdir(w.work):
        os.unlink(os.path.join(w.work, name))


def t32_other_sessions(w):
    p = os.path.join(w.policies, "coding.yaml")
    other = os.path.join(w.root, "other")
    os.mkdir(other)
    plant = ("import multiprocessing.shared_memory as m, os, socket, time\n"
             "open('/tmp/note', 'w').write('canary-a'); open('/dev/shm/note', 'w').write('canary-a')\n"
             "s = socket.socket(socket.AF_UNIX); s.bind('\\0agentd-other'); s.listen(2)\n"
             "t = socket.socket(); t.bind(('127.0.0.1', 4711)); t.listen(2)\n"
             "open('/workspace/ready', 'w').close(); time.sleep(600)\n")
    a = subprocess.Popen([w.ctl, "sandbox", "run", "--policy", p, "--workspace", other, "--", PYTHON,
                          "-I", "-c", plant])
    control = None
    try:
        ready = wait_for(lambda: os.path.exists(os.path.join(other, "ready")), 20)
        w.check("T32 the other session is up", ready, "it did not start")
        look = ("import os, socket, sys\n"
                "hits = [p for p in ('/tmp/note', '/dev/shm/note') if os.path.exists(p)]\n"
                "for kind, name in ((socket.AF_UNIX, '\\0agentd-other'), (socket.AF_INET, ('127.0.0.1', 4711))):\n"
                "  try: socket.socket(kind).connect(name); hits.append(str(name))\n"
                "  except OSError: pass\n"
                "for p in os.listdir('/proc'):\n"
                "  try:\n"
                "    if p.isdigit() and int(p) != os.getpid() and b'canary-a' in open(f'/proc/{p}/cmdline', 'rb').read():\n"
                "      hits.append(p)\n"
                "  except OSError: pass\n"
                "print(hits)\nsys.exit(0 if hits else 1)\n")
        rc, out, err, _ = w.inside([PYTHON, "-I", "-c", look])
        w.check("T32 nothing of it is seen", rc == 1, out + err)
        control = subprocess.Popen([PYTHON, "-I", "-c", plant.replace("/workspace", w.outside)
                                    .replace("/tmp/note", w.outside + "/note")])
        wait_for(lambda: os.path.exists(os.path.join(w.outside, "ready")), 20)
        rc, out, err = w.host([PYTHON, "-I", "-c", look])
        w.check("T32 control: without cells all of it is seen", rc == 0 and "4711" in out, out + err)
    finally:
        a.terminate()
        a.wait()
        if control:
            control.kill()
            control.wait()
        for path in ("/dev/shm/note",):
            if os.path.exists(path):
                os.unlink(path)


def groups():
    found = []
    for top, dirs, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(top, d) for d in dirs if d.startswith("agentd-")]
        if top.count("/") > 9:
            dirs.clear()
    return found


def mounts():
    with open("/proc/self/mountinfo") as f:
        return sum(1 for _ in f)


def mine(w):
    """Cells of this test alone: other tests may run beside it."""
    return [g for g in groups() if g.rsplit("-", 2)[1] in w.spawners]


def t33_leftovers(w):
    w.spawners = set()
    before = mounts(), set(os.listdir("/dev/shm")), set(os.listdir("/tmp"))
    n = int(os.environ.get("AGENTD_CELLS", "10"))
    for _ in range(n):
        rc, _, err, _ = w.inside(["sh", "-c", "echo x >/dev/shm/x; mkfifo /tmp/f; (sleep 4246 &) ; "
                                              "kill -SEGV $$"])
    w.check(f"T33 {n} cells: no process left", not processes("sleep\x004246"), "sleep is alive")
    w.check(f"T33 {n} cells: no mount left", mounts() <= before[0], f"{before[0]} -> {mounts()}")
    new = set(os.listdir("/dev/shm")) - before[1]
    w.check("T33 no shared memory left", not {x for x in new if x == "x"}, str(new))
    w.check("T33 no core file", not [x for x in os.listdir(w.work) if "core" in x], str(os.listdir(w.work)))
    w.check("T33 nothing in the host's /tmp", "f" not in set(os.listdir("/tmp")) - before[2], "f is there")
    # The daemon is killed in the middle of a call.
    p = subprocess.Popen([w.ctl, "sandbox", "run", "--policy", os.path.join(w.policies, "coding.yaml"),
                          "--workspace", w.work, "--", "bash", "-c",
                          "touch /workspace/up; setsid sleep 4247 & exec sleep 4247"])
    wait_for(lambda: os.path.exists(os.path.join(w.work, "up")), 20)
    wait_for(lambda: len(processes("sleep\x004247")) == 2, 20)  # both have become sleep
    spawner = [c for c in children(p.pid)]
    w.spawners = {str(c) for c in spawner}
    w.check("T33 the call runs", len(processes("sleep\x004247")) == 2, str(processes("4247")))
    os.kill(p.pid, signal.SIGKILL)
    p.wait()
    w.check("T33 after kill -9 of the daemon everything is gone within three seconds",
            wait_for(lambda: not processes("sleep\x004247") and not any(alive(c) for c in spawner), 3 + 7),
            str(processes("4247")))
    w.check("T33 and no control group is left", wait_for(lambda: not mine(w), 5), str(mine(w)))
    # The spawner itself is killed: cells die with it, the next start sweeps its groups.
    os.unlink(os.path.join(w.work, "up"))
    p = subprocess.Popen([w.ctl, "sandbox", "run", "--policy", os.path.join(w.policies, "coding.yaml"),
                          "--workspace", w.work, "--", "bash", "-c",
                          "touch /workspace/up; setsid sleep 4248 & exec sleep 4248"],
                         stderr=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(os.path.join(w.work, "up")), 20)
    wait_for(lambda: len(processes("sleep\x004248")) == 2, 20)  # both have become sleep
    spawner = children(p.pid)
    w.spawners = {str(c) for c in spawner}
    for c in spawner:
        os.kill(c, signal.SIGKILL)
    p.wait()
    w.check("T33 after kill -9 of the spawner everything is gone",
            wait_for(lambda: not processes("sleep\x004248"), 10), str(processes("4248")))
    rc, _, err, _ = w.inside(["true"])
    w.check("T33 and the next start sweeps its control groups", rc == 0 and wait_for(lambda: not mine(w), 5),
            f"{mine(w)} {err}")
    os.unlink(os.path.join(w.work, "up"))


def children(pid):
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat") as f:
                if name.isdigit() and int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(name))
        except OSError:
            pass
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


# A preloader: installs a filter that answers as a container's profile would, then executes.
WEAK = r"""
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
NS = 0x7e020000
def ld(k): return struct.pack('<HBBI', 0x20, 0, 0, k)
def jeq(k, t, f): return struct.pack('<HBBI', 0x15, t, f, k)
def jset(k, t, f): return struct.pack('<HBBI', 0x45, t, f, k)
def ret(k): return struct.pack('<HBBI', 0x06, 0, 0, k)
ALLOW, EPERM, ENOSYS = 0x7fff0000, 0x00050001, 0x00050026
deny = [165, 166, 428, 429, 430, 431, 432, 433, 442, 155, 308]
if sys.argv[1] == 'container':
    prog = [ld(0), jeq(435, 0, 1), ret(ENOSYS), jeq(56, 0, 3), ld(16), jset(NS, 0, 1), ret(EPERM), ld(0),
            jeq(272, 0, 1), ret(EPERM)]
else:
    deny = deny + [170]
    prog = [ld(0)]
for n in deny:
    prog += [jeq(n, 0, 1), ret(EPERM)]
prog += [ret(ALLOW)]
raw = ctypes.create_string_buffer(b''.join(prog))
class F(ctypes.Structure): _fields_ = [('n', ctypes.c_ushort), ('p', ctypes.c_void_p)]
f = F(len(prog), ctypes.addressof(raw))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.syscall(317, 1, 0, ctypes.byref(f)) == 0, ctypes.get_errno()
os.execvp(sys.argv[2], sys.argv[2:])
"""


def refused(w, case, wrap, reason, remedy):
    marker = os.path.join(w.work, "ran")
    r = subprocess.run(wrap + [w.ctl, "sandbox", "run", "--json", "--policy",
                               os.path.join(w.policies, "coding.yaml"), "--workspace", w.work, "--",
                               "touch", "/workspace/ran"], capture_output=True, text=True, timeout=60)
    said = {}
    try:
        said = json.loads(r.stdout)
    except ValueError:
        pass
    w.check(f"T34 {case}: refused", r.returncode == 120 and said.get("refused") is True,
            f"exit {r.returncode}: {r.stdout[-300:]} {r.stderr[-300:]}")
    w.check(f"T34 {case}: with the reason and the way out",
            reason in said.get("reason", "") and remedy in said.get("remedy", ""), str(said))
    w.check(f"T34 {case}: and nothing ran", not os.path.exists(marker), "the program ran")
    d = subprocess.run(wrap + [w.ctl, "doctor", "--json"], capture_output=True, text=True, timeout=60,
                       env=dict(os.environ, HOME=w.outside))
    w.check(f"T34 {case}: doctor agrees", d.returncode in (4, 5), f"exit {d.returncode}: {d.stdout[-300:]}")


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
    env = dict(os.environ, AGENTD_LANDLOCK_ABI="0")
    rc, out, err, _ = w.inside(["true"], policy=strict, env=env)
    w.check("T34 required Landlock is missing: refused", rc == 120 and "Landlock" in out, out + err)
    for abi in ("1", "2", "3", "5"):
        rc, out, err, record = w.inside(["sh", "-c", "echo ok > /tmp/x; cat /tmp/x"],
                                        env=dict(os.environ, AGENTD_LANDLOCK_ABI=abi))
        have = record.get("cell", {}).get("landlock_abi")
        w.check(f"T34 Landlock {abi} is used as such", out == "ok\n" and have is not None and have <= int(abi),
                f"{out} {err} {have}")
    full = os.path.join(w.root, "full.yaml")
    with open(full, "w") as f:
        f.write("version: 1\nrequire: full\nworkspace: temp\n")
    rc, out, err, record = w.inside(["true"], policy=full)
    level = record.get("level")
    w.check("T34 full is kept or refused, never less",
            (rc == 0 and level == "full") or (rc == 120 and "control group" in err + out), f"{rc} {err} {out}")


if __name__ == "__main__":
    main([t31_planted, t32_other_sessions, t33_leftovers, t34_weak_hosts])
