"""processes.py - T09 to T18: processes outside, what outlives a call, bombs and floods."""
import os
import resource
import signal
import subprocess
import sys
import time

from harness import PYTHON, kill_all, main, processes, wait_for


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


def t10_everything(w):
    marker = subprocess.Popen(["sleep", "4244"])
    for name, code in (("killing", "os.kill(-1, 9)"), ("stopping", "os.kill(-1, 19); os.kill(os.getpid(), 19)"),
                       ("pid 1 by every signal", "[os.kill(1, s) for s in range(1, 32)]"),
                       ("its own group", "os.killpg(0, 9)")):
        began = time.monotonic()
        rc, _, err, record = w.inside([PYTHON, "-I", "-c", "import os\n" + code], timeout_ms=1500)
        w.check(f"T10 {name}: the call ends in time", time.monotonic() - began < 30 and
                "level" in record, f"exit {rc}: {err}")
    w.check("T10 nobody outside was hit", marker.poll() is None, "a process outside died")
    marker.kill()
    marker.wait()
    rc, out, _, _ = w.inside(["echo", "next"])
    w.check("T10 the next call works", rc == 0 and out == "next\n", out)


STRAY = ("import os, signal, sys, time\n"
         "if os.fork() == 0:\n"
         "  os.setsid()\n"
         "  for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\n"
         "  if os.fork() == 0:\n"
         "    os.execv('/bin/sleep', [sys.argv[1], '4000'])\n"
         "  os._exit(0)\n"
         "os.wait(); time.sleep(0.2)\n")


def t11_outliving(w):
    name = f"agentd-stray-{os.getpid()}"
    began = time.monotonic()
    rc, _, err, record = w.inside([PYTHON, "-I", "-c", STRAY, name])
    w.check("T11 double fork with ignored signals: gone when the call ends",
            rc == 0 and not processes(name), f"{processes(name)} {err}")
    w.check("T11 and the reply did not wait for it", time.monotonic() - began < 30, "too slow")
    w.check("T11 the record counts it", record.get("outlived", 0) >= 1, str(record))
    subprocess.run([PYTHON, "-I", "-c", STRAY, name])
    w.check("T11 control: it outlives an unconfined call", wait_for(lambda: bool(processes(name)), 5),
            "no stray")
    kill_all(processes(name))
    # Each parent leaves at once, so that no list of pids is ever right.
    hop = ("import os, sys\nfor _ in range(6):\n  if os.fork() == 0:\n    while True:\n"
           "      if os.fork(): os._exit(0)\n      sys.argv\n")
    name = f"agentd-hop-{os.getpid()}"
    rc, _, err, _ = w.inside([PYTHON, "-I", "-c", hop, name])
    w.check("T11 hopping from fork to fork", rc == 0 and not processes(name), err)
    rc, _, err, _ = w.inside(["bash", "-c", "exec 9>&1; (setsid sleep 4001 >&9 2>&9 &) ; echo done"])
    w.check("T11 a held pipe does not hold the reply", rc == 0 and not processes("4001"), err)


def t12_bombs(w):
    small = w.policy("limits: {tasks: 40, memory: 512M}\n")
    forks = ("import os, sys, time\nn = 0\n"
             "for _ in range(120):\n"
             "  try: pid = os.fork()\n"
             "  except OSError: break\n"
             "  if pid == 0: os.close(1); os.close(2); time.sleep(30); os._exit(0)\n"
             "  n += 1\n"
             "sys.exit(0 if n >= 100 else 1)\n")
    r = w.attack("T12 a hundred processes where forty are allowed", forks, policy=small)
    kill_all(processes("os.close(2); time.sleep(30)"))
    w.check("T12 the reply names the limit or the fork failed cleanly", bool(r), "no record")
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
    began = time.monotonic()
    rc, _, err, record = w.inside(["bash", "-c", ":(){ :|:& };:; sleep 60"], policy=small,
                                  timeout_ms=1500)
    w.check("T12 the classic bomb ends at the deadline", "level" in record and
            time.monotonic() - began < 60 and rc == 124, f"exit {rc}: {err}")
    rc, out, _, _ = w.inside(["echo", "calm"], policy=small)
    w.check("T12 and leaves a working machine", out == "calm\n", out)


def t13_memory(w):
    small = w.policy("limits: {memory: 96M, tmp: 32M, tasks: 64}\n")
    heap = ("import sys\nb = []\n"
            "for _ in range(40): b.append(bytearray(b'x' * (10 << 20)))\n"
            "sys.exit(0)\n")
    r = w.attack("T13 four hundred megabytes of heap", heap, policy=small)
    if r and r["level"] == "full":
        w.check("T13 the record says memory", "memory" in r["limits"], str(r["limits"]))
    w.attack("T13 many children that add up",
             "import os, sys, time\n"
             "pids = []\n"
             "for _ in range(10):\n"
             "  pid = os.fork()\n"
             "  if pid == 0:\n"
             "    b = bytearray(b'x' * (40 << 20)); time.sleep(1.0); os._exit(0)\n"
             "  pids.append(pid)\n"
             "bad = sum(os.waitpid(p, 0)[1] != 0 for p in pids)\n"
             "sys.exit(0 if bad == 0 else 1)\n", policy=small)
    w.attack("T13 a memory file system",
             "import os, sys\n"
             "p = '/dev/shm/agentd-bomb'\n"
             "try:\n"
             "  with open(p, 'wb') as f:\n"
             "    for _ in range(200): f.write(b'x' * (1 << 20))\n"
             "  ok = os.path.getsize(p) == 200 << 20\n"
             "except OSError: ok = False\n"
             "try: os.unlink(p)\n"
             "except OSError: pass\n"
             "sys.exit(0 if ok else 1)\n", policy=small)
    if r and r["level"] == "full":
        w.attack("T13 an anonymous file",
                 "import os, sys\n"
                 "fd = os.memfd_create('x')\n"
                 "for _ in range(300): os.write(fd, b'x' * (1 << 20))\n", policy=small)
    rc, out, _, _ = w.inside(["echo", "well"], policy=small)
    w.check("T13 the next call works", out == "well\n", out)


def t14_time(w):
    for name, code in (("an endless loop", "while True: pass"),
                       ("sleeping with every signal ignored",
                        "import signal, time\n"
                        "for s in range(1, 65):\n"
                        "  try: signal.signal(s, signal.SIG_IGN)\n"
                        "  except (OSError, ValueError): pass\n"
                        "time.sleep(1000)"),
                       ("a loop in C", "import re; re.match('(a*)*b', 'a' * 40)")):
        began = time.monotonic()
        rc, _, err, record = w.inside([PYTHON, "-I", "-c", code], timeout_ms=700)
        took = time.monotonic() - began
        w.check(f"T14 {name} ends at the deadline", rc == 124 and "wall" in record.get("limits", []) and
                took < 20, f"exit {rc} after {took:.1f} s: {err}")
        rc, _, _ = w.host([PYTHON, "-I", "-c", code], timeout=1.0)
        w.check(f"T14 control: {name} goes on", rc == 124, f"exit {rc}")
    rc, _, err, record = w.inside(["echo"])
    if record.get("level") == "full":
        quarter = w.policy("limits: {cpu: 25}\n")
        spin = "import time\ne = time.monotonic() + 1.5\nwhile time.monotonic() < e: pass"
        rc, _, _, record = w.inside(["bash", "-c",
                                     f"for i in 1 2 3 4; do {PYTHON} -I -c '{spin}' & done; wait"],
                                    policy=quarter)
        share = record["cpu_ms"] / record["wall_ms"]
        w.check("T14 four busy children share a quarter of a processor", share < 0.6, f"{share:.2f}")


def t15_disk(w):
    small = w.policy("limits: {disk: 32M, tmp: 8M, tmp_inodes: 500, disk_inodes: 300}\n")
    big = os.path.join(w.work, "big")

    def clear():
        subprocess.run(["rm", "-rf", big])

    def too_big():
        return os.path.exists(big) and os.path.isfile(big) and os.path.getsize(big) >= 500 << 20
    write = ("import os, sys\n"
             "p = '/workspace/big' if os.path.isdir('/workspace') else sys.argv[1]\n"
             "f = os.open(p, os.O_CREAT | os.O_WRONLY)\n"
             "for _ in range(500): os.write(f, b'x' * (1 << 20))\n")
    r = w.attack("T15 five hundred megabytes into the workspace", write, [big], policy=small,
                 seen=too_big, reset=clear)
    if r:
        w.check("T15 the record says disk", "disk" in r["limits"], str(r["limits"]))
    clear()
    w.attack("T15 reserving without writing",
             "import os, sys\n"
             "p = '/workspace/big' if os.path.isdir('/workspace') else sys.argv[1]\n"
             "f = os.open(p, os.O_CREAT | os.O_WRONLY)\n"
             "import ctypes\n"
             "r = ctypes.CDLL(None, use_errno=True).fallocate(f, 0, 0, 500 << 20)\n"
             "sys.exit(0 if r == 0 else 1)\n", [big], policy=small, reset=clear)
    clear()
    files = ("import os, sys\n"
             "p = '/workspace/big' if os.path.isdir('/workspace') else sys.argv[1]\n"
             "os.makedirs(p, exist_ok=True)\n"
             "for i in range(8000): os.close(os.open(f'{p}/{i}', os.O_CREAT | os.O_WRONLY))\n")
    w.attack("T15 eight thousand files into the workspace", files, [big], policy=small,
             reset=clear)
    clear()
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
    rc, out, _, _ = w.inside(["sh", "-c", "rm -rf /workspace/big; echo freed"], policy=small)
    w.check("T15 the session can still delete", out == "freed\n", out)


def t16_floods(w):
    p = os.path.join(w.policies, "coding.yaml")
    r = subprocess.Popen([w.ctl, "sandbox", "run", "--json", "--policy", p, "--workspace", w.work,
                          "--", "sh", "-c", "head -c 300000000 /dev/zero"],
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while r.poll() is None:
        try:
            with open(f"/proc/{r.pid}/status") as f:
                peak = max([peak] + [int(l.split()[1]) for l in f if l.startswith("VmRSS")])
        except OSError:
            pass
        time.sleep(0.01)
    err = r.stderr.read().decode()
    r.stderr.close()
    w.check("T16 three hundred megabytes of output pass", '"stdout_bytes":300000000' in err, err[-200:])
    w.check("T16 in flat memory", peak < 64 << 10, f"{peak} KiB")


def t18_descriptors(w):
    w.attack("T18 ten thousand descriptors",
             "import os, resource, sys\n"
             "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
             "resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))\n"
             "for _ in range(10000): os.dup(0)\n", policy=w.policy("limits: {open_files: 256}\n"),
             control=True if resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 10100
             else "the hard limit here is lower")
    rc, out, err, _ = w.inside([PYTHON, "-I", "-c",
                                "import os\n"
                                "try:\n"
                                "  while True:\n"
                                "    r, x = os.pipe(); os.set_blocking(x, False)\n"
                                "    try:\n"
                                "      while True: os.write(x, b'x' * 65536)\n"
                                "    except BlockingIOError: pass\n"
                                "except OSError: pass\n"
                                "print('full')"])
    w.check("T18 every pipe filled", rc == 0 and out == "full\n", err[-200:])
    rc, _, err, _ = w.inside(["true", "x" * 120000])
    w.check("T18 giant arguments are refused with a sentence", rc != 0 and len(err) > 10, err)
    rc, out, err, _ = w.inside(["sh", "-c", "echo \"$(head -c 100000 /dev/zero | tr '\\0' x)\" | wc -c"])
    w.check("T18 giant arguments inside are the kernel's business", "100001" in out, err)


if __name__ == "__main__":
    main([t09_others, t10_everything, t11_outliving, t12_bombs, t13_memory, t14_time, t15_disk,
          t16_floods, t18_descriptors],
         plain="" if os.environ.get("AGENTD_LONG") else "t09|t11|t12|t13|t15")
