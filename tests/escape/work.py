"""work.py - real work under coding.yaml: a sandbox that breaks compilers protects nobody."""
import os
import shutil

from harness import busy_job, main


def does(w, case, script, want=None, policy="coding"):
    """The script as one call of the bash tool; the session and its folder are kept."""
    r = w.daemon(policy).bash("(cd /workspace; set -e\n" + script + "\n)", timeout_s=180)
    w.check(case, r.get("exitCode") == 0 and r["sandbox"] != "none" and (want is None or want in r["text"]),
            f"{r['status']}: {r['text'][-900:]}")


def have(w, case, program):
    if shutil.which(program, path="/usr/local/bin:/usr/bin:/bin"):
        return True
    w.skip(case, f"{program} is not installed")
    return False


def compilers(w):
    if have(w, "gcc", "gcc"):
        does(w, "gcc", "mkdir c; cd c; printf '#include <stdio.h>\\nint main(void){puts(\"built\");}' >a.c;"
                       "gcc -O2 -g -o a a.c; ./a", "built")
    if have(w, "g++", "g++"):
        does(w, "g++ with threads", "cd c; printf '#include <thread>\\n#include <iostream>\\n"
             "int main(){int n=0;std::thread t([&]{n=42;});t.join();std::cout<<n;}' >a.cc;"
             "g++ -O1 -pthread -o b a.cc; ./b", "42")
    if have(w, "make", "make"):
        does(w, "make -j", "mkdir m; cd m; for i in 1 2 3 4 5 6 7 8; do echo \"int f$i(void){return $i;}\" >f$i.c;"
             " done; printf 'O=$(patsubst %%.c,%%.o,$(wildcard *.c))\\nlib.a: $O\\n\\tar rcs $@ $^\\n' >Makefile;"
             "make -j4 >/dev/null; ar t lib.a | wc -l", "8")
    if have(w, "cmake", "cmake"):
        does(w, "cmake and ctest", "mkdir k; cd k; printf 'cmake_minimum_required(VERSION 3.10)\\nproject(k C)\\n"
             "enable_testing()\\nadd_executable(k k.c)\\nadd_test(NAME k COMMAND k)\\n' >CMakeLists.txt;"
             "echo 'int main(void){return 0;}' >k.c; cmake -S . -B b >/dev/null; cmake --build b >/dev/null;"
             "cd b; ctest", "100% tests passed")


def versioning(w):
    if have(w, "git", "git"):
        does(w, "git init, commit, clone, gc", "git init -q r; cd r; git config user.email a@b; git config user.name n;"
             "echo x >f; git add f; git commit -qm one; git gc -q; cd ..; git clone -q r s; git -C s log --oneline",
             "one")


def interpreters(w):
    does(w, "python: processes, threads, sockets, sqlite",
         "/usr/bin/python3 - <<'E'\n"
         "import multiprocessing as m, asyncio, sqlite3, ssl, ctypes, tempfile, threading\n"
         "def sq(x): return x * x\n"
         "if __name__ == '__main__':\n"
         "  with m.Pool(3) as p: assert p.map(sq, range(9))[-1] == 64\n"
         "  async def go():\n"
         "    async def serve(r, w): w.write(await r.read(5)); await w.drain(); w.close()\n"
         "    s = await asyncio.start_server(serve, '127.0.0.1', 0)\n"
         "    r, x = await asyncio.open_connection(*s.sockets[0].getsockname())\n"
         "    x.write(b'hello'); assert await r.read(5) == b'hello'\n"
         "  asyncio.run(go())\n"
         "  assert sqlite3.connect(tempfile.mktemp()).execute('select 1').fetchone() == (1,)\n"
         "  print('all of it')\n"
         "E", "all of it")
    does(w, "two hundred test files",
         "mkdir t; for i in $(seq 200); do printf 'import unittest\\nclass T(unittest.TestCase):\\n"
         "  def test(self): self.assertEqual(%d, %d)\\n' $i $i >t/test_$i.py; done;"
         "/usr/bin/python3 -m unittest discover -s t 2>&1 | tail -3", "OK")
    rc, _, _ = w.host(["/usr/bin/python3", "-m", "venv", "--help"])
    if rc == 0 and os.path.exists("/usr/lib/python3.11/ensurepip"):
        does(w, "venv and pip without a network",
             "/usr/bin/python3 -m venv v; mkdir -p pkg/hello_agent; echo 'word = \"packed\"' >pkg/hello_agent/__init__.py;"
             "printf '[build-system]\\nrequires=[]\\n' >/dev/null;"
             "printf 'from setuptools import setup\\nsetup(name=\"hello_agent\", version=\"1\", packages=[\"hello_agent\"])\\n'"
             " >pkg/setup.py; v/bin/pip install -q --no-index --no-build-isolation ./pkg 2>&1 | tail -3;"
             "v/bin/python -c 'import hello_agent; print(hello_agent.word)'", "packed")
    else:
        w.skip("venv and pip without a network", "python3-venv is not installed")
    if have(w, "node", "node"):
        does(w, "node: workers, children, a server",
             "cat >n.js <<'E'\n"
             "const {Worker, isMainThread, parentPort} = require('worker_threads');\n"
             "if (!isMainThread) { parentPort.postMessage(7); }\n"
             "else { const w = new Worker(__filename); w.on('message', v => {\n"
             "  const out = require('child_process').execSync('echo kid').toString().trim();\n"
             "  const s = require('http').createServer((q, r) => r.end('served')).listen(0, '127.0.0.1', () =>\n"
             "    require('http').get(s.address(), r => r.on('data', d => { console.log(v, out, String(d)); process.exit(0); })));\n"
             "}); }\nE\nnode n.js", "7 kid served")
    if have(w, "npm", "npm"):
        does(w, "npm without a network", "mkdir -p dep app; echo '{\"name\":\"dep\",\"version\":\"1.0.0\"}' >dep/package.json;"
             "echo 'module.exports=5' >dep/index.js; echo '{\"name\":\"app\",\"version\":\"1.0.0\"}' >app/package.json; cd app;"
             "npm install --offline --no-audit --no-fund ../dep >/dev/null 2>&1; node -e 'console.log(require(\"dep\"))'", "5")
    for name, program, script, want in (
            ("go", "go", "mkdir g; cd g; go mod init g 2>/dev/null; printf 'package main\\nfunc main(){println(6)}' >m.go;"
             "go run m.go 2>&1", "6"),
            ("cargo", "cargo", "cargo init -q --name c cargo_c; cd cargo_c; cargo run -q --offline", "Hello"),
            ("perl", "perl", "perl -MFile::Temp -e 'print 6*7'", "42"),
            ("tar and gzip", "tar", "mkdir z; echo x >z/f; tar czf z.tgz z; rm -r z; tar xzf z.tgz; cat z/f", "x"),
            ("java", "javac", "printf 'class A{public static void main(String[] a){System.out.println(5+4);}}' >A.java;"
             "javac A.java; java -Xmx64m A", "9")):
        if have(w, name, program):
            does(w, name, script, want)


def jobs(w):
    busy_job(w, w.daemon("coding"))


def copies(w):
    keep = os.path.join(w.work, "original")
    with open(keep, "w") as f:
        f.write("as it was\n")
    does(w, "a copied workspace is writable", "echo changed >original; echo new >new; cat original new",
         "changed\nnew\n", policy=w.policy("workspace: copy\n"))
    with open(keep) as f:
        w.check("and the original untouched", f.read() == "as it was\n" and
                not os.path.exists(os.path.join(w.work, "new")), "it changed")
    r = w.daemon("computation").python("import math; math.factorial(20)")
    w.check("strict: computation", r["text"] == "2432902008176640000\n[ok]", str(r))
    if have(w, "debug profile", "gdb"):
        does(w, "debug: gdb", "gdb -batch -ex run --args /bin/true 2>&1", "exited normally",
             policy=w.policy("profile: debug\nlimits: {memory: 2G}\n"))
    w.clear()


if __name__ == "__main__":
    main([compilers, versioning, interpreters, jobs, copies],
         plain="" if os.environ.get("AGENTD_LONG") else "compilers|versioning|jobs|copies")
