"""changes.py - workspace: copy, from outside: the folder stays as it was; what is listed is
what was done; what is taken over is what the code inside saw; nothing else changes, whatever names
and links stand in the way."""
import json
import os
import random
import shutil
import subprocess

from harness import PYTHON, main

COPY = "workspace: copy\n"
EDITS = r"""
set -e
sed -i 's/five/FIVE/; s/nine/NINE/' a.txt; chmod 755 a.txt
rm gone; rm -r old; mkdir old; echo new > old/h
mkdir -p n/m; printf 'x\0y' > n/m/bin; chmod 500 n
ln -sfn elsewhere l; rm -r was_dir; echo file > was_dir; rm was_file; mkdir was_file; echo in > was_file/in
touch "$(printf 'evil\nname\033[31m')" ; echo z > 'back\slash'; printf '\377' > "$(printf 'b\377d')"
touch d/e/same; chmod 600 d/e/mode; truncate -s 70M sparse; printf open > open-end; rm -rf deep
echo 'x y' > "$(printf 'a\342\200\256b')"
"""


def plant(w):
    w.clear()
    for d in ("d/e", "old/sub", "was_dir/in", "deep/" + "/".join("k" * 40 for _ in range(30))):
        os.makedirs(os.path.join(w.work, d))
    for name, text in (("a.txt", "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\n"), ("gone", "g\n"),
                       ("old/f", "f\n"), ("old/sub/g", "g\n"), ("d/e/same", "s\n"), ("d/e/mode", "m\n"),
                       ("was_file", "w\n")):
        with open(os.path.join(w.work, name), "w") as f:
            f.write(text)
    os.symlink("a.txt", os.path.join(w.work, "l"))
    return snapshot(w.work)


SNAP = """
import hashlib, json, os, stat, sys
def snapshot(top):
    out = {}
    for d, dirs, names in os.walk(os.fsencode(top)):
        for n in dirs + names:
            p = os.path.join(d, n)
            s = os.lstat(p)
            if stat.S_ISLNK(s.st_mode): v = ['link', os.fsdecode(os.readlink(p))]
            elif stat.S_ISDIR(s.st_mode): v = ['dir', oct(s.st_mode & 0o7777)]
            elif stat.S_ISREG(s.st_mode): v = ['file', oct(s.st_mode & 0o7777), s.st_size,
                                               hashlib.sha256(open(p, 'rb').read()).hexdigest()]
            else: v = ['other']
            out[os.fsdecode(os.path.relpath(p, os.fsencode(top)))] = v
    return out
"""
exec(SNAP)


def cli(w, *args, ok=(0,)):
    r = subprocess.run([w.ctl] + list(args), capture_output=True, cwd=w.work, timeout=120)
    return r.returncode, r.stdout.decode("utf-8", "replace"), r.stderr.decode("utf-8", "replace")


def by_path(o):
    return {c["path"] + ("!" if c["change"] == "removed" else ""): c for c in o["changes"]}


def one_shot(w):
    """sandbox run: listed, and taken over with --apply."""
    before, p = plant(w), w.policy(COPY)
    look = "import json\n" + SNAP + "print(json.dumps(snapshot('.')))"
    both = EDITS + "\n" + PYTHON + " -I -c \"$0\""
    rc, out, err = cli(w, "sandbox", "run", "--json", "-p", p, "--", "bash", "-c", both, look)
    said = json.loads(err.strip().split("\n")[-1])
    w.check("the folder is as it was", rc == 0 and snapshot(w.work) == before, err[-300:])
    c = by_path(said)
    want = {"a.txt", "gone!", "old/f!", "old/sub!", "old/h", "n", "n/m", "n/m/bin", "l", "was_dir!", "was_dir",
            "was_file!", "was_file", "was_file/in", "evil\\012name\\033[31m", "back\\\\slash", "b\\377d",
            "d/e/mode", "sparse", "open-end", "deep!", "a\\342\\200\\256b"}
    w.check("what was done is listed, and nothing else", set(c) == want, str(set(c) ^ want))
    w.check("a change of mode alone says so", c["d/e/mode"]["content"] is False and
            (c["d/e/mode"]["oldMode"], c["d/e/mode"]["mode"]) == ("0644", "0600"), str(c["d/e/mode"]))
    w.check("the diff of a text", c["a.txt"]["diff"] == "@@ -2,8 +2,8 @@\n two\n three\n four\n-five\n+FIVE\n six\n"
            " seven\n eight\n-nine\n+NINE\n", str(c["a.txt"]))
    w.check("no diff of bytes", "diff" not in c["n/m/bin"] and "binary" in c["n/m/bin"]["note"], str(c["n/m/bin"]))
    rc, out, err = cli(w, "sandbox", "run", "-p", p, "--", "bash", "-c", EDITS)
    w.check("the printed list steers no terminal", "\033" not in err and "evil\\012name" in err and
            "\u202e" not in err, err[:400])
    rc, out, err = cli(w, "sandbox", "run", "--apply", "-p", p, "--", "bash", "-c", both + "; exit 3", look)
    w.check("a program that fails changes nothing", rc == 3 and snapshot(w.work) == before, err[-300:])
    rc, out, err = cli(w, "sandbox", "run", "--apply", "-p", p, "--", "bash", "-c", both, look)
    inside = json.loads(out)
    w.check("taken over, the folder is what was seen inside", rc == 0 and snapshot(w.work) == inside,
            str({k: (inside.get(k), v) for k, v in snapshot(w.work).items() if inside.get(k) != v})[:600] + err[-300:])
    owner = os.stat(w.work)
    w.check("and belongs to the owner of the folder", all(
        os.lstat(os.path.join(d, n)).st_uid == owner.st_uid for d, dirs, names in os.walk(w.work) for n in dirs + names),
        "another owner")
    w.check("holes stay holes", os.stat(os.path.join(w.work, "sparse")).st_blocks < 1000, "it is full")
    rc, out, err = cli(w, "sandbox", "run", "-p", p, "--", "true")
    w.check("no changes are said to be none", "no changes" in err, err)
    subprocess.run(["chmod", "-R", "u+rwX", w.work])


def odd(w):
    """What cannot be taken over is left, and said."""
    plant(w)
    p = w.policy(COPY)
    rc, out, err = cli(w, "sandbox", "run", "--apply", "-p", p, "--", "sh", "-c", "mkfifo pipe; echo y > yes")
    w.check("a pipe is left, the rest is taken", rc == 1 and "left     pipe" in err and
            os.path.exists(os.path.join(w.work, "yes")) and not os.path.lexists(os.path.join(w.work, "pipe")), err)
    r = w.host([w.ctl, "tool", "call", "bash", json.dumps({"command": "echo t > by_tool"}), "--policy", p,
                "--workspace", w.work, "--json"])
    o = json.loads(r[1])
    w.check("a tool call lists its changes", [c["path"] for c in o["changes"]] == ["by_tool"] and
            not os.path.exists(os.path.join(w.work, "by_tool")), str(o))
    r = w.host([w.ctl, "tool", "call", "bash", json.dumps({"command": "echo t > by_tool"}), "--policy", p,
                "--workspace", w.work, "--json", "--apply"])
    w.check("and takes them over", json.loads(r[1])["applied"] == ["by_tool"] and
            os.path.exists(os.path.join(w.work, "by_tool")), r[1])
    rc, out, err = cli(w, "sandbox", "run", "--json", "-p", p, "--", "bash", "-c",
                       "mkdir many; cd many; for i in {1..12000}; do : > $i; done")
    o = json.loads(err.strip().split("\n")[-1])
    w.check("many files are listed", len(o["changes"]) == 12001 and o["cut"] is False, str(len(o["changes"])))
    rc, out, err = cli(w, "sandbox", "run", "--json", "--apply", "-p", p, "--", PYTHON, "-I", "-c",
                       "import os\nfor i in range(300): os.mkdir('d' * 9); os.chdir('d' * 9)")
    w.check("too deep is said, and nothing is done by halves", rc == 1 and not
            os.path.exists(os.path.join(w.work, "d" * 9)), f"{rc} {err[-300:]}")


def in_session(w):
    """A session of the daemon: list, apply a part, apply, drop; and what a person does meanwhile."""
    before = plant(w)
    d = w.start(w.policy(COPY))

    def changes(*args):
        return cli(w, "changes", d.session, "--socket", d.path, *args)
    rc, out, err = changes()
    w.check("before the first call there are none", rc == 0 and out == "no changes\n", out + err)
    d.bash("echo 1 > one; mkdir sub; echo 2 > sub/two; echo 3 > sub/three; echo more >> a.txt; rm gone")
    rc, out, err = changes("--json")
    w.check("listed by the daemon, the folder untouched", set(by_path(json.loads(out))) ==
            {"one", "sub", "sub/two", "sub/three", "a.txt", "gone!"} and snapshot(w.work) == before, out + err)
    rc, out, err = changes("--apply", "sub/two")
    w.check("a part is taken over, with the folder on its way", rc == 0 and out == "taken    sub/two\ntaken    sub\n" and
            os.listdir(os.path.join(w.work, "sub")) == ["two"], out + err)
    rc, out, err = changes("--json")
    w.check("what was taken is no change any more", set(by_path(json.loads(out))) ==
            {"one", "sub/three", "a.txt", "gone!"}, out)
    with open(os.path.join(w.work, "a.txt"), "a") as f:
        f.write("by a person\n")
    rc, out, err = changes("--apply")
    text = open(os.path.join(w.work, "a.txt")).read()
    w.check("what a person changed since is left, and said", rc == 1 and "left     a.txt" in out and
            text.endswith("by a person\n") and os.path.exists(os.path.join(w.work, "one")) and
            not os.path.exists(os.path.join(w.work, "gone")), out + err)
    rc, out, err = changes("--apply", "--force", "a.txt")
    w.check("unless forced", rc == 0 and open(os.path.join(w.work, "a.txt")).read().endswith("nine\nmore\n"), out + err)
    # A person, or another session, puts a link where a folder was.
    d.bash("echo inner > d/e/inner; echo s > d/e/same")
    outside = os.path.join(w.outside, "e")
    shutil.rmtree(outside, ignore_errors=True)
    os.mkdir(outside)
    os.rename(os.path.join(w.work, "d/e"), os.path.join(w.work, "moved"))
    os.symlink(outside, os.path.join(w.work, "d/e"))
    rc, out, err = changes("--apply")
    w.check("over a link nothing is written", rc == 1 and os.listdir(outside) == [] and
            os.path.islink(os.path.join(w.work, "d/e")), out + err)
    rc, out, err = changes("--apply", "--force")
    w.check("forced, the folder takes the link's place", rc == 0 and os.listdir(outside) == [] and
            open(os.path.join(w.work, "d/e/inner")).read() == "inner\n", out + err)
    shutil.copy(os.path.join(w.work, "moved/mode"), os.path.join(w.work, "d/e"))
    r = d.bash("echo kept=1; x=5; rm -r d")
    w.check("nothing is gone below", os.path.exists(os.path.join(w.work, "d/e/same")), str(r))
    rc, out, err = changes("--drop")
    w.check("dropped", rc == 0 and changes()[1] == "no changes\n", out + err)
    r = d.bash("cat d/e/same; echo x=$x")
    w.check("the next call sees the folder as it is, and says what was lost", "s\nx=\n" in r["text"] and r["stateLost"],
            str(r))
    rc, out, err = changes("sub")
    w.check("paths go with --apply", rc == 2, err)
    d.close()
    d = w.start()
    d.session = d.rpc("session.create", cwd=w.work, copy=True)["sessionId"]
    before = snapshot(w.work)
    d.bash("echo copied > copied")
    w.check("a session that asked for a copy has one", set(by_path(json.loads(changes("--json")[1]))) == {"copied"} and
            snapshot(w.work) == before, changes()[1])
    r = w.host([w.ctl, "run", "--copy", "--socket", d.path, "--profile", "general", "x"])
    w.check("agentctl run asks for one, and names the way", "agentctl changes s" in r[2] or "agentctl changes " in r[2], str(r))
    r = w.host([w.ctl, "run", "--copy", "--private", "--engine", "script:/dev/null", "x"])
    w.check("a private daemon's copy is refused", r[0] != 0 and "would end with" in r[2], str(r))
    rc, out, err = cli(w, "sandbox", "run", "--copy", "--json", "-p", os.path.join(w.policies, "coding.yaml"), "--", "sh", "-c", "echo z > z")
    w.check("--copy of sandbox run", set(by_path(json.loads(err.strip().split("\n")[-1]))) == {"z"} and
            snapshot(w.work) == before, err[-300:])
    d.session = d.new_session()
    rc, out, err = changes()
    w.check("a session that edits in place is told so", rc == 1 and "workspace: copy" in err, out + err)
    d.close()


def diffs(w):
    """git apply makes of the old text the new one, by the printed diff."""
    rnd, good = random.Random(7), 0
    p = w.policy(COPY)
    for n in range(12):
        w.clear()
        old = [f"line {rnd.randrange(12)}" for _ in range(rnd.choice([0, 1, 3, 40, 400]))]
        new = list(old)
        for _ in range(rnd.choice([1, 2, 9, 900])):
            at = rnd.randrange(len(new) + 1)
            if rnd.random() < 0.5:
                new.insert(at, f"new {rnd.randrange(5)}")
            elif at < len(new):
                del new[at]
        end = rnd.choice(["\n", ""])
        a, b = "".join(x + "\n" for x in old), "\n".join(new) + (end if new else "")
        if a == b:
            b += "x\n"
        with open(os.path.join(w.work, "t"), "w") as f:
            f.write(a)
        with open(os.path.join(w.outside, "new"), "w") as f:
            f.write(b)
        with open(os.path.join(w.outside, "new")) as f:
            r = subprocess.run([w.ctl, "sandbox", "run", "-p", p, "--", "sh", "-c", "cat > t"], stdin=f, cwd=w.work,
                               capture_output=True, text=True, timeout=60)
        diff = r.stderr[r.stderr.index("--- "):]
        g = subprocess.run(["git", "apply", "--unidiff-zero", "-"], input=diff, cwd=w.work, text=True,
                           capture_output=True, env=dict(os.environ, GIT_CEILING_DIRECTORIES=w.root))
        got = open(os.path.join(w.work, "t")).read()
        if g.returncode or got != b:
            w.fail(f"diff {n}", f"{g.stderr} {diff[:300]!r}")
        good += got == b
    w.check("twelve diffs were applied by git", good == 12, str(good))


if __name__ == "__main__":
    main([one_shot, odd, in_session, diffs], plain="one_shot|in_session")
