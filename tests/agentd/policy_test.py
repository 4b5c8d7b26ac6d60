"""policy_test.py - a policy with each of its keys left out, misspelt, emptied or filled with
something else: either refused, naming file and line, or no weaker than it was."""
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

CTL = os.path.join(os.environ["BIN"], "agentctl")
ROOT = tempfile.mkdtemp(prefix="agentd-policy-", dir="/var/tmp")
os.mkdir(ROOT + "/show")
with open(ROOT + "/hook.lua", "w") as f:
    f.write("function before_call(call) end\n")
BASE = {
    "version": 1, "summary": "all keys", "require": "nolimits", "profile": "strict", "landlock": "required",
    "workspace": "temp", "background": False,
    "read": ["/usr/share", {"path": "/srv", "at": "/data", "optional": True}], "env": {"CI": "1"},
    "network": {"mode": "proxy", "allow": ["a.example.org"], "deny": ["b.example.org"], "ports": [8443]},
    "secrets": [{"host": "a.example.org", "header": "Authorization", "prefix": "Bearer ", "from_env": "NOWHERE",
                 "port": 443}],
    "limits": {"memory": "64M", "tmp": "8M", "tmp_inodes": 500, "disk": "16M", "disk_inodes": 500, "file": "8M",
               "tasks": 32, "cpu": 50, "cpu_seconds": 10, "open_files": 256, "wall": "5s", "wall_max": "10s",
               "output": "8K"},
    "max_calls": 7, "repeat": {"nudge": 2, "insist": 3, "pause": 4},
    "tools": {"bash": "ask", "python": {"decision": "allow", "max_calls": 3, "timeout": "2s"}, "find": "deny"},
    "hooks": [ROOT + "/hook.lua"],
}
VALUES = [None, [], {}, "", "~", "*", "off", True, 0, -1, "x" * 3000, [None], ["*"]]


def text(v, top=False):
    """YAML in flow style; words and numbers bare, since what is quoted is text."""
    if isinstance(v, dict):
        pairs = [f"{text(k) or json.dumps(k)}: {text(x)}" for k, x in v.items()]
        return "\n".join(pairs) + "\n" if top else "{" + ", ".join(pairs) + "}"
    if isinstance(v, list):
        return "[" + ", ".join("~" if x is None else text(x) for x in v) + "]"
    if v is None:
        return ""
    if isinstance(v, str) and not re.fullmatch(r"[A-Za-z0-9_./-]+|~", v):
        return json.dumps(v)
    return v if isinstance(v, str) else json.dumps(v)


def explain(policy, n):
    path = f"{ROOT}/p{n}.yaml"
    with open(path, "w") as f:
        f.write(policy if isinstance(policy, str) else text(policy, True))
    r = subprocess.run([CTL, "sandbox", "explain", "--json", "--policy", path], capture_output=True, text=True)
    os.unlink(path)
    return r.returncode, (json.loads(r.stdout)["spec"] if r.returncode == 0 else r.stdout), r.stderr


def read(lines):
    """What is allowed, as sets and numbers: smaller is stricter."""
    said = {"tools": {}, "reach": set(), "never": set(), "port": set(), "show": set(), "limits": {}, "word": {},
            "rest": "deny", "secret": set(), "env": set(), "hooks": set()}
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "tool":
            said["tools"][rest.split(" ")[0]] = rest.split(" ")[1].rstrip(",")
        elif word == "limit":
            said["limits"][rest.split(" ")[0]] = float(rest.split(" ")[1])
        elif word in ("reach", "never", "port", "secret"):
            said[word].add(rest)
        elif word in ("read", "write"):
            said["show"].add(line)
        elif word in ("env", "hook"):
            said["env" if word == "env" else "hooks"].add(rest)
        elif word in ("require", "network", "profile", "landlock", "background"):
            said["word"][word] = rest.strip()
    return said


RANK = {"deny": 0, "ask": 1, "allow": 2, "none": 0, "proxy": 1, "host": 2}
BASE_SAID = None
DEFAULT = None


def weaker(now, path, removed):
    base, why = BASE_SAID, []
    names = set(now["tools"]) | set(base["tools"]) | {"job", "never-heard-of"}
    for name in names:
        was = base["tools"].get(name, base["tools"].get("*", "deny"))
        is_ = now["tools"].get(name, now["tools"].get("*", "deny"))
        if RANK[is_] > RANK[was]:
            why.append(f"tool {name}: {was} -> {is_}")
    if RANK[now["word"]["network"]] > RANK[base["word"]["network"]]:
        why.append("network " + now["word"]["network"])
    for what in ("show", "secret", "env"):
        if now[what] - base[what]:
            why.append(f"{what}: {now[what] - base[what]}")
    if {x for x in now["reach"] if not x.startswith("nobody")} - base["reach"]:
        why.append(f"reach {now['reach']}")
    if now["word"]["network"] == "proxy":
        if now["port"] - base["port"] - ({"443 of tunnels"} if removed else set()):
            why.append(f"ports {now['port']}")
        if base["never"] - now["never"] and path[-1] != "deny" and "deny" not in path:
            why.append("the deny list is gone")
    if now["word"]["require"] == "none" or (base["word"]["require"] == "full" != now["word"]["require"]):
        why.append("require " + now["word"]["require"])
    if base["hooks"] - now["hooks"] and "hooks" not in path:
        why.append("hooks are gone")
    for name, v in now["limits"].items():
        if v > max(base["limits"][name], DEFAULT["limits"][name]):
            why.append(f"limit {name} {base['limits'][name]} -> {v}")
        if v > base["limits"][name] and not removed and name in path:
            why.append(f"limit {name} grew to {v}")
    if not removed and path[0] in ("profile", "landlock", "require"):
        if now["word"][path[0]] != base["word"][path[0]]:
            why.append(f"{path[0]} {now['word'][path[0]]}")
    return why


def paths(node, at=()):
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield at + (key,)
        yield from paths(value, at + (key,))


def changed(path, how, value=None):
    policy = json.loads(json.dumps(BASE))
    node = policy
    for key in path[:-1]:
        node = node[key]
    key = path[-1]
    if how == "set":
        node[key] = value
    elif isinstance(node, list):
        del node[key]
    elif how == "misspell":
        items = [(k if k != key else value, v) for k, v in node.items()]
        node.clear()
        node.update(items)
    else:
        del node[key]
    return policy


def main():
    global BASE_SAID, DEFAULT
    code, lines, err = explain(BASE, "base")
    if code == 120:
        print("skipped: this host cannot keep the base policy: " + str(lines))
        return 77
    assert code == 0, err
    BASE_SAID = read(lines)
    DEFAULT = read(explain({"version": 1, "workspace": "temp", "require": "nolimits"}, "default")[1])
    cases = []
    for path in paths(BASE):
        cases.append((path, "remove", None))
        if isinstance(path[-1], str) and path[0] not in ("env",) and path[:1] != ("tools",):
            for name in (path[-1] + "s", path[-1].upper()):
                cases.append((path, "misspell", name))
        cases += [(path, "set", v) for v in VALUES]
    failed = []

    def one(n):
        path, how, value = cases[n]
        if how == "misspell" and path in (("tools",) + path[1:],):
            return
        code, said, err = explain(changed(path, how, value), n)
        name = f"{'.'.join(map(str, path))} {how} {str(value)[:40]!r}"
        if code == 0 and how == "misspell" and path[-1] != value:
            failed.append(f"{name}: accepted")
        elif code == 0:
            why = weaker(read(said), path, how == "remove")
            # A name that could be meant is a grant, not an accident; so is showing a path where it is.
            named = path[0] in ("secrets", "read") or path[:2] == ("network", "allow")
            named |= path == ("landlock",)  # off is a word of its own
            if why and not (named and not [x for x in why if not x.startswith(("secret", "reach", "show", "landlock"))]):
                failed.append(f"{name}: {why}")
        elif code not in (1, 120):
            failed.append(f"{name}: exit {code}: {err[-200:]}")
        elif code == 1 and not re.search(r"p\d+\.yaml(:\d+)?: \S.{8}", err):
            failed.append(f"{name}: no file and line: {err[-200:]}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(len(cases))))
    for whole in ("", "[]", "~", "tools: {'*': allow}", "version: 2", "version: 1\nversion: 1", "version: '1'",
                 "version: 1\ntools: {bash: allow, bash: deny}", "version: 1\n---\nversion: 1", "\0", "version: 1\n\ttools: {}",
                 "version: 1\na: &a [*a]", "version: 1\n<<: {tools: {'*': allow}}", "version: !!int 1\ntools: !!map {}",
                 "{" * 500, "version: 1\nnetwork: {mode: host}", "version: 1\nrequire: none"):
        code, said, err = explain(whole, "text")
        if code != 1 or "ptext.yaml" not in err:
            failed.append(f"{whole[:40]!r}: exit {code}: {str(said)[:100]} {err[-200:]}")
    subprocess.run(["rm", "-rf", ROOT], check=False)
    for f in failed:
        print("FAIL " + f)
    print(f"{len(cases)} policies, {len(failed)} failures")
    return 1 if failed else 0


sys.exit(main())
