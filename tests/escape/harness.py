"""harness.py - one attack, two runs. The same program runs through a tool call of a real daemon
and, as the control, through a tool call of a daemon whose configuration switched the sandbox
off; what happened is judged from outside wherever something outside can show it. A case passes
when the cell stopped the attack and the control got through: a control that fails proves
nothing and is a failure of the test."""
import ctypes
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PYTHON = "/usr/bin/python3"
PATIENCE = 120
THREATS = tuple(f"T{n:02}" for n in range(1, 35))


def threat(*ids, control=True):
    """Says which threats a case attacks. When it has run, each of them must have been attacked
    through a tool call that ran confined (or was refused), and must have had a control: the
    same attack getting through without the sandbox. control: "root" when only root's controls
    can get through, as where a plain user may do none of it anyway; any other text says why
    this case has none, and then another one of the same threat must."""
    def mark(case):
        case.threats, case.control = ids, control
        return case
    return mark


LIBC = ctypes.CDLL(None)


def end_with_us():
    """A test that is killed leaves no daemon behind."""
    LIBC.prctl(1, signal.SIGTERM)


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


class Daemon:
    """A real agentd with a session of profile code, spoken to over its socket."""

    def __init__(self, world, policy, off=False, env=None, wrap=(), pass_fds=()):
        world.count += 1
        self.world = world
        self.root = os.path.join(world.root, f"d{world.count}")
        os.mkdir(self.root)
        os.chmod(self.root, 0o700)
        policies = os.path.join(self.root, "policies")
        os.mkdir(policies)
        for name in ("coding", "computation", "research", "default"):
            shutil.copy(os.path.join(world.policies, name + ".yaml"), policies)
        if policy != "coding":
            shutil.copy(world.policy_path(policy), os.path.join(policies, "coding.yaml"))
        script = os.path.join(self.root, "script.json")
        with open(script, "w") as f:
            json.dump({"turns": [{"steps": [{"text": "done"}]}]}, f)
        self.path = os.path.join(self.root, "s")
        self.log = os.path.join(self.root, "log")
        self.argv = list(wrap) + [os.path.join(os.path.dirname(world.ctl), "agentd"), "--engine",
                                  "script:" + script, "--socket", self.path, "--state",
                                  os.path.join(self.root, "state"), "--profile", "general",
                                  "--sandbox", "off" if off else "required", "--set",
                                  "agent.policies=" + policies]
        self.env, self.pass_fds = env, pass_fds
        self.start()

    def start(self):
        """Also once more, after it was killed: on the same state."""
        with open(self.log, "ab") as log:
            self.proc = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                         env=self.env, pass_fds=self.pass_fds, cwd=self.world.root,
                                         preexec_fn=end_with_us)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.data, self.number = b"", 0
        if not wait_for(self.connect, 30):
            raise RuntimeError("agentd does not answer: " + self.read_log()[-2000:])
        self.rpc("initialize", protocolVersion=1, client={"name": "escape"})
        self.session = self.new_session()

    def connect(self):
        try:
            self.sock.connect(self.path)
            return True
        except OSError:
            return False

    def new_session(self, cwd=None):
        return self.rpc("session.create", cwd=cwd or self.world.work)["sessionId"]

    def rpc(self, method, **params):
        self.number += 1
        self.sock.sendall(json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method,
                                      "params": params}).encode() + b"\n")
        while True:
            while b"\n" not in self.data:
                more = self.sock.recv(1 << 16)
                if not more:
                    raise RuntimeError("agentd is gone: " + self.read_log()[-2000:])
                self.data += more
            line, self.data = self.data.split(b"\n", 1)
            m = json.loads(line)
            if m.get("id") == self.number:
                break
        if "error" in m:
            raise RuntimeError(f"{method}: {m['error']}")
        return m["result"]

    def call(self, tool, session=None, **args):
        r = self.rpc("tool.call", sessionId=session or self.session, name=tool, arguments=args)
        self.world.note(r["sandbox"], r["status"])
        return r

    def records(self, event):
        """The audit records of one kind that its log holds."""
        found = []
        for line in self.read_log().splitlines():
            at = line.find("{")
            if at > 0 and " audit " in line[:at] and f'"event":"{event}"' in line:
                found.append(json.loads(line[at:]))
        return found

    def bash(self, command, session=None, **args):
        return self.call("bash", session, command=command, **args)

    def python(self, code, session=None, **args):
        return self.call("python", session, code=code, **args)

    def read_log(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def kill(self):
        self.sock.close()
        self.proc.kill()
        self.proc.wait()

    def close(self):
        self.sock.close()
        if self.proc.poll() is None:
            self.proc.terminate()
        try:
            self.proc.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


class World:
    """Where one identity's cases run: binaries, policies, a workspace, planted things."""

    def __init__(self, bin_dir, src):
        self.root = tempfile.mkdtemp(prefix="agentd-escape-", dir="/var/tmp")
        os.chmod(self.root, 0o755)
        self.ctl = os.path.join(bin_dir, "agentctl")
        self.policies = os.path.join(src, "policies")
        self.work = os.path.join(self.root, "work")
        self.outside = os.path.join(self.root, "outside")
        os.mkdir(self.work)
        os.mkdir(self.outside)
        os.chmod(self.outside, 0o777)
        self.secret = os.path.join(self.outside, "secret.txt")
        with open(self.secret, "w") as f:
            f.write("canary-5d41402a\n")
        os.chmod(self.secret, 0o644)
        self.failures, self.passed, self.skipped = [], 0, []
        self.is_root = os.geteuid() == 0
        self.daemons, self.count = {}, 0
        self.confined, self.seen, self.excused = 0, set(), False

    def note(self, level, status):
        """A tool call has ended: in a cell, or refused because there could be none."""
        self.confined += level in ("full", "nolimits") or status == "unavailable"

    def proved(self, case, what):
        self.seen.add((case.split(" ")[0], what))

    def settle(self, case):
        """After a case: what it says it attacks, it has attacked, and with a control."""
        needs = case.control is True or (case.control == "root" and self.is_root)
        for name in case.threats:
            if (name, "attack") not in self.seen:
                self.fail(f"{name} {case.__name__}", "no attack on it ran confined in a tool call")
            if needs and (name, "control") not in self.seen:
                self.fail(f"{name} {case.__name__}", "nothing showed that it gets through "
                          "without the sandbox")

    def policy(self, text):
        """A policy that allows every tool, unless it says which."""
        path = os.path.join(self.root, f"policy-{hashlib.sha1(text.encode()).hexdigest()}.yaml")
        with open(path, "w") as f:
            f.write("version: 1\nrequire: nolimits\n" + text)
            if "tools:" not in text:
                f.write("tools: {'*': allow}\n")
        return path

    def policy_path(self, policy):
        return policy if "/" in policy else os.path.join(self.policies, policy + ".yaml")

    def daemon(self, policy="coding", off=False):
        """The daemon of this policy, started when first needed. The control has none: with the
        sandbox off a policy only decides which tools there are."""
        key = "off" if off else policy
        d = self.daemons.get(key)
        if d is None or d.proc.poll() is not None:
            d = self.daemons[key] = Daemon(self, "coding" if off else policy, off)
        return d

    def start(self, policy="coding", off=False, **how):
        """A daemon of a case's own; the case closes it."""
        return Daemon(self, policy, off, **how)

    def tool(self, tool, args, policy="coding", off=False, wrap=(), workspace=None, **kw):
        """One call by `agentctl tool call`, a process of its own: (exit code, result)."""
        cmd = list(wrap) + [self.ctl, "tool", "call", tool, json.dumps(args), "--json", "--policy",
                            self.policy_path(policy), "--workspace", workspace or self.work,
                            "--sandbox", "off" if off else "on"]
        r = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, cwd=self.work, timeout=PATIENCE, **kw)
        said = {"text": (r.stdout + r.stderr).decode("utf-8", "replace"), "status": "?",
                "level": "?"}
        if r.stdout.startswith(b"{"):
            said = json.loads(r.stdout)
        self.note(said["level"], said["status"])
        return r.returncode, said

    def host(self, argv, env=None, wrap=(), timeout=60, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        try:
            r = subprocess.run(list(wrap) + list(argv), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, cwd=self.work, env=env, timeout=timeout,
                               **kw)
        except subprocess.TimeoutExpired:
            return 124, "", ""
        return r.returncode, r.stdout.decode("utf-8", "replace"), \
            r.stderr.decode("utf-8", "replace")

    def fail(self, case, why):
        self.failures.append(f"{case}: {why}")
        print(f"FAIL  {case}: {why}", flush=True)

    def ok(self, case):
        self.passed += 1
        if self.confined:
            self.proved(case, "attack")
        print(f"ok    {case}", flush=True)

    def skip(self, case, why, whole=False):
        """whole: nothing of the case can be done here, so it need not prove anything."""
        self.excused |= whole
        self.skipped.append(f"{case}: {why}")
        print(f"skip  {case}: {why}", flush=True)

    def check(self, case, condition, why):
        if condition:
            self.ok(case)
            if " control: " in case:
                self.proved(case, "control")
        else:
            self.fail(case, why)
        return condition

    def attack(self, case, code, args=(), policy="coding", control=True, seen=None, reset=None,
               how=None, timeout_s=20):
        """code: Python that exits 0 when it got through, as a command of the bash tool. seen():
        what shows outside. control: True = must get through with the sandbox off; a string =
        why there is none. how: what the daemon is started with (env, wrap, pass_fds). Returns
        the result of the confined call, or None."""
        command = shlex.join([PYTHON, "-I", "-c", code] + [str(a) for a in args])
        through = []
        for off in (False, True):
            if off and isinstance(control, str):
                self.ok(f"{case} (no control: {control})")
                break
            if reset:
                reset()
            d = self.start(policy, off, **how) if how else self.daemon(policy, off)
            r = d.bash(command, timeout_s=timeout_s)
            if how:
                d.close()
            rc, text = r.get("exitCode"), r["text"]
            if off:
                got = rc == 0 and (seen is None or seen())
                if not got:
                    self.fail(case, f"the control did not get through either: {text[-400:]}")
                    return None
                self.ok(case)
                self.proved(case, "control")
            else:
                through = r
                if r["sandbox"] not in ("full", "nolimits"):
                    self.fail(case, f"did not run confined: {r}")
                    return None
                if rc == 0 or (seen is not None and seen()):
                    self.fail(case, f"got through the sandbox: {text[-400:]}")
                    return None
        if reset:
            reset()
        return through

    def clear(self):
        """Empties the workspace; the folder itself stays, cells stand in it."""
        subprocess.run(["find", self.work, "-mindepth", "1", "-delete"], check=False)

    def close(self):
        for d in self.daemons.values():
            d.close()
        subprocess.run(["rm", "-rf", self.root], check=False)
        print(f"{self.passed} passed, {len(self.failures)} failed, {len(self.skipped)} skipped")
        return 1 if self.failures else 0


def processes(marker):
    """Pids of live processes whose command line holds the marker."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as f:
                line = f.read()
        except OSError:
            continue
        if marker.encode() in line:
            found.append(int(name))
    return found


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


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


def busy_job(w, d):
    """A job that is nearly always between vfork and exec, where its parent cannot be stopped."""
    mark = f"65{os.getpid()}"
    d.bash(shlex.join([PYTHON, "-I", "-c", "import subprocess\nwhile True: subprocess.run(['/bin/true'])", mark]),
           background=True)
    said = [d.bash("echo on")["text"].split("\n")[0] for _ in range(40)]
    w.check("a job that starts programs all the time outlives forty calls", said == ["on"] * 40 and
            processes(mark), f"{said} {processes(mark)}")


def main(cases, plain=""):
    """Runs the cases as whoever we are; as root once more as a user without privilege, then
    only those whose name matches `plain`."""
    bin_dir, src = os.environ["BIN"], os.environ["SRC"]
    if len(sys.argv) > 1 and sys.argv[1] == "--as-is":
        world = World(os.environ["ESCAPE_BIN"], src)
        code = 1
        try:
            for case in cases:
                if re.search(os.environ.get("ESCAPE_ONLY", ""), case.__name__):
                    began = time.monotonic()
                    world.confined, world.seen, world.excused = 0, set(), False
                    try:
                        case(world)
                        if hasattr(case, "threats") and not world.excused:
                            world.settle(case)
                    except Exception as e:  # the other cases still count
                        world.fail(case.__name__, f"broke off: {e!r}")
                    print(f"      {case.__name__} took {time.monotonic() - began:.1f} s")
        finally:
            code = world.close()
        sys.exit(code)
    probe = subprocess.run([os.path.join(bin_dir, "agentctl"), "tool", "call", "python",
                            '{"code": "1"}', "--json", "--policy",
                            os.path.join(src, "policies/computation.yaml")],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if '"unavailable"' in probe.stdout:
        print(f"skipped: this host cannot confine: {probe.stdout}")
        sys.exit(77)
    # A copy that everybody may execute, wherever the build tree lies.
    copy = tempfile.mkdtemp(prefix="agentd-escape-bin-", dir="/var/tmp")
    code = 0
    try:
        for name in ("agentd", "agentctl", "agentd-tool", "agentd-spawner"):
            shutil.copy2(os.path.join(bin_dir, name), copy)
        shutil.copytree(os.path.join(src, "policies"), os.path.join(copy, "policies"))
        here = os.path.dirname(os.path.abspath(sys.argv[0]))
        shutil.copytree(here, os.path.join(copy, "escape"))
        subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
        script = os.path.join(copy, "escape", os.path.basename(sys.argv[0]))
        env = dict(os.environ, ESCAPE_BIN=copy, SRC=copy)
        print(f"--- as uid {os.geteuid()}", flush=True)
        code |= subprocess.run([PYTHON, script, "--as-is"], env=env, cwd=copy).returncode
        if os.geteuid() == 0 and shutil.which("setpriv") and plain != "^never$":
            print("--- as a plain user", flush=True)
            user = ["setpriv", "--reuid", "64990", "--regid", "64990", "--clear-groups",
                    "--inh-caps=-all"]
            env["HOME"] = "/nonexistent"
            env.setdefault("ESCAPE_ONLY", plain)
            code |= subprocess.run(user + [PYTHON, script, "--as-is"], env=env,
                                   cwd=copy).returncode
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    sys.exit(code)
