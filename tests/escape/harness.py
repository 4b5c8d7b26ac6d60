"""harness.py - one attack, two runs. The same program runs in a cell and, as the control, on
the host; what happened is judged from outside wherever something outside can show it. A case
passes when the cell stopped the attack and the control got through: a control that fails
proves nothing and is a failure of the test."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PYTHON = "/usr/bin/python3"


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

    def policy(self, text):
        path = os.path.join(self.root, f"policy-{abs(hash(text))}.yaml")
        with open(path, "w") as f:
            f.write("version: 1\nrequire: nolimits\n" + text)
        return path

    def inside(self, argv, policy="coding", timeout_ms=20000, env=None, wrap=(), **kw):
        """Runs argv in a cell; returns (exit code, stdout, stderr without the record, record)."""
        p = os.path.join(self.policies, policy + ".yaml") if "/" not in policy else policy
        cmd = list(wrap) + [self.ctl, "sandbox", "run", "--json", "--policy", p, "--workspace",
                            self.work, "--timeout-ms", str(timeout_ms), "--"] + list(argv)
        kw.setdefault("stdin", subprocess.DEVNULL)
        r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.work,
                           env=env, timeout=120, **kw)
        err = r.stderr.decode("utf-8", "replace").rstrip("\n").split("\n")
        record = {}
        if err and err[-1].startswith("{"):
            record = json.loads(err.pop())
        return r.returncode, r.stdout.decode("utf-8", "replace"), "\n".join(err), record

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
        print(f"ok    {case}", flush=True)

    def skip(self, case, why):
        self.skipped.append(f"{case}: {why}")
        print(f"skip  {case}: {why}", flush=True)

    def check(self, case, condition, why):
        if condition:
            self.ok(case)
        else:
            self.fail(case, why)
        return condition

    def attack(self, case, code, args=(), policy="coding", control=True, seen=None, reset=None,
               env=None, wrap=(), kw=None, timeout_ms=20000):
        """code: Python that exits 0 when it got through. seen(): what shows outside. control:
        True = must get through on the host; a string = why there is none."""
        kw = kw or {}
        argv = [PYTHON, "-I", "-c", code] + [str(a) for a in args]
        if reset:
            reset()
        rc, out, err, record = self.inside(argv, policy, timeout_ms, env, wrap, **kw)
        got = rc == 0 or (seen is not None and seen())
        if "level" not in record:
            return self.fail(case, f"did not run confined (exit {rc}): {err[-300:]}")
        if got:
            return self.fail(case, f"got through the sandbox: {out[-300:]} {err[-300:]}")
        if isinstance(control, str):
            self.ok(f"{case} (no control: {control})")
            return record
        if reset:
            reset()
        rc, out, err = self.host(argv, env, wrap, **kw)
        got = rc == 0 and (seen is None or seen())
        if reset:
            reset()
        if not got:
            return self.fail(case, f"the control did not get through either (exit {rc}): "
                                   f"{out[-200:]} {err[-300:]}")
        self.ok(case)
        return record

    def close(self):
        shutil.rmtree(self.root, ignore_errors=True)
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
                    case(world)
                    print(f"      {case.__name__} took {time.monotonic() - began:.1f} s")
        finally:
            code = world.close()
        sys.exit(code)
    probe = subprocess.run([os.path.join(bin_dir, "agentctl"), "sandbox", "run", "--policy",
                            os.path.join(src, "policies/computation.yaml"), "--", "true"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if probe.returncode == 120:
        print(f"skipped: this host cannot confine: {probe.stdout}")
        sys.exit(77)
    # A copy that everybody may execute, wherever the build tree lies.
    copy = tempfile.mkdtemp(prefix="agentd-escape-bin-", dir="/var/tmp")
    code = 0
    try:
        for name in ("agentctl", "agentd-tool", "agentd-spawner"):
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
