"""agentctl index as its users meet it: scripts without blanks, odd queries, damage, two writers
at once, Ctrl-C, folders that change."""
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import unittest

BIN = os.environ.get("BIN", "build/ci/bin")
CELL = []


def setUpModule():
    """Documents are read in a cell; where there can be none, unconfined."""
    with tempfile.TemporaryDirectory() as d:
        os.mkdir(d + "/docs")
        done = subprocess.run([BIN + "/agentctl", "index", "add", "--db", d + "/i", d + "/docs"],
                              capture_output=True, text=True)
        if done.returncode:
            print("skipped in a cell: " + done.stderr)
            CELL.extend(["--sandbox", "off"])


class Index(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="agentd-test-")
        self.docs = self.dir + "/docs"
        self.db = self.dir + "/index.db"
        os.mkdir(self.docs)

    def tearDown(self):
        shutil.rmtree(self.dir)

    def write(self, name, text, folder=None):
        path = os.path.join(folder or self.docs, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)

    def ctl(self, verb, *args):
        return subprocess.run([BIN + "/agentctl", "index", verb, "--db", self.db, *args],
                              capture_output=True, text=True)

    def add(self, *args):
        done = self.ctl("add", "--json", *CELL, *(args or [self.docs]))
        self.assertEqual(done.returncode, 0, done.stderr)
        got = json.loads(done.stdout.splitlines()[-1])
        return tuple(got[k] for k in ("added", "updated", "unchanged", "removed"))

    def found(self, query):
        done = self.ctl("search", "--", query)
        self.assertEqual(done.returncode, 0, (query, done.stderr))
        return sorted(line.split("(docs/")[1].rstrip(")") for line in done.stdout.splitlines()
                      if "(docs/" in line)

    def test_scripts_without_blanks(self):
        self.write("zh.md", "# \u673a\u5668\u5b66\u4e60\n\n\u6df1\u5ea6\u5b66\u4e60\u662f\u673a\u5668"
                   "\u5b66\u4e60\u7684\u4e00\u4e2a\u5206\u652f\u3002\u5317\u4eac\u662f\u4e2d\u56fd"
                   "\u7684\u9996\u90fd\u3002\n")
        self.write("ja.md", "# \u65e5\u672c\n\n\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd"
                   "\u3067\u3059\u3002\u30ab\u30bf\u30ab\u30ca\u3002\n")
        self.write("ko.md", "# \ud55c\uad6d\n\n\uc11c\uc6b8\uc740 \ub300\ud55c\ubbfc\uad6d\uc758 "
                   "\uc218\ub3c4\uc785\ub2c8\ub2e4.\n")
        self.write("th.md", "\u0e01\u0e23\u0e38\u0e07\u0e40\u0e17\u0e1e\u0e40\u0e1b\u0e47\u0e19"
                   "\u0e40\u0e21\u0e37\u0e2d\u0e07\u0e2b\u0e25\u0e27\u0e07\n")
        self.write("en.md", "A heron stood in the river. Caf\u00e9 au lait.\n")
        self.add()
        for query, want in (("\u673a\u5668\u5b66\u4e60", ["zh.md"]), ("\u5317\u4eac", ["zh.md"]),
                            ("\u9996\u90fd", ["ja.md", "zh.md"]), ("\u6771\u4eac", ["ja.md"]),
                            ("\u65e5\u672c\u306e\u9996\u90fd", ["ja.md", "zh.md"]),
                            ("\u4ec0\u4e48\u662f\u5206\u652f", ["zh.md"]),
                            ("\u90fd", ["ja.md", "zh.md"]), ("\u4eac\u5317", []),
                            ("\u30ab\u30bf", ["ja.md"]), ("\uc11c\uc6b8", ["ko.md"]),
                            ("\uc218\ub3c4", ["ko.md"]),
                            ("\u0e01\u0e23\u0e38\u0e07\u0e40\u0e17\u0e1e", ["th.md"]),
                            ("heron", ["en.md"]), ("cafe", ["en.md"]), ("herons", ["en.md"])):
            self.assertEqual(self.found(query), want, query)
        done = self.ctl("search", "\u9996\u90fd")
        self.assertIn("\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd", done.stdout)

    def test_no_query_is_an_error(self):
        self.write("a.md", "heron and col and NEAR\n")
        self.add()
        for query in ('"', '""', '"""', "*", "heron*", "^heron", "-heron", "(", ")", "NEAR(heron", ":",
                      "title:heron", "col:", "{a}: heron", "AND", "OR", "NOT", "NOT heron", "+",
                      "'; DROP TABLE doc; --", "heron AND", "a" * 5000, "heron " * 500, "\x01",
                      "\U0001f986", "\u3000", "\ufffe", "\u673a" * 500, '"heron', 'heron" OR "'):
            self.found(query)
        self.assertEqual(self.found("title:heron"), ["a.md"])

    def test_an_older_index_gets_its_words_anew(self):
        self.write("zh.md", "\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd\n")
        self.write("en.md", "heron\n")
        self.add()
        with sqlite3.connect(self.db) as c:  # as an earlier version wrote it
            c.executescript("DROP TABLE fts; CREATE VIRTUAL TABLE fts USING fts5(title, body, "
                            "content='', tokenize='porter unicode61 remove_diacritics 2');"
                            "INSERT INTO fts(rowid, title, body) SELECT id, title, body FROM doc;"
                            "PRAGMA user_version = 0")
        self.assertEqual((self.found("\u9996\u90fd"), self.found("heron")), ([], ["en.md"]))
        self.assertEqual(self.add(), (0, 0, 2, 0))
        self.assertEqual((self.found("\u9996\u90fd"), self.found("heron")), (["zh.md"], ["en.md"]))

    def test_changes(self):
        for i in range(6):
            self.write("sub/%d.md" % i, "number%d common\n" % i)
        self.assertEqual(self.add(), (6, 0, 0, 0))
        self.assertEqual(self.add(), (0, 0, 6, 0))
        self.write("sub/0.md", "changed thoroughly\n")
        os.unlink(self.docs + "/sub/1.md")
        os.rename(self.docs + "/sub/2.md", self.docs + "/sub/two.md")
        os.rename(self.docs + "/sub/3.md", self.docs + "/sub/4.md")  # takes another's place
        self.assertEqual(self.add(), (1, 2, 1, 3))
        self.assertEqual(self.found("number0"), [])
        self.assertEqual(self.found("thoroughly"), ["sub/0.md"])
        self.assertEqual(self.found("number1"), [])
        self.assertEqual(self.found("number2"), ["sub/two.md"])
        self.assertEqual(self.found("number3"), ["sub/4.md"])
        self.assertEqual(self.found("number4"), [])
        self.assertEqual(self.found("common"), ["sub/4.md", "sub/5.md", "sub/two.md"])

    def test_two_folders_of_one_name(self):
        self.write("a.md", "first\n")
        self.add()
        other = self.dir + "/other/docs"
        self.write("b.md", "second\n", other)
        done = self.ctl("add", *CELL, other)
        self.assertEqual(done.returncode, 1)
        self.assertIn("under the name 'docs' already; give this folder another with --name",
                      done.stderr)
        self.assertEqual(self.found("first"), ["a.md"])
        self.assertEqual(self.add("--name", "docs2", other), (1, 0, 0, 0))
        self.assertEqual(self.found("first"), ["a.md"])

    def test_names_of_any_bytes(self):
        docs = os.fsencode(self.dir) + b"/b\xffd"
        os.mkdir(docs)
        with open(docs + b"/x\xfe.txt", "w") as f:
            f.write("heron")
        for args in (["add", *CELL, docs], ["list"], ["search", "heron"], ["remove", b"b\xffd"]):
            done = self.ctl(args[0], "--json", *args[1:])
            self.assertEqual((done.returncode, len(done.stdout.splitlines())), (0, 1), (args, done))
            json.loads(done.stdout)

    def test_what_is_no_index(self):
        self.write("a.md", "heron " * 3000)
        self.add()
        with open(self.db, "rb") as f:
            good = f.read()
        with sqlite3.connect(self.dir + "/other.db") as c:
            c.execute("CREATE TABLE theirs(a)")
        with open(self.dir + "/other.db", "rb") as f:
            other = f.read()
        noise = bytes((b * 7 + 13) & 255 for b in good)
        for data, words in ((b"no database at all\n" * 100, "damaged"), (good[:4096], "damaged"),
                            (good[:8192] + noise[8192:], "damaged"), (noise, "damaged"),
                            (other, "a database of something else")):
            for verb, args in (("search", ["heron"]), ("add", [*CELL, self.docs])):
                with open(self.db, "wb") as f:
                    f.write(data)
                os.utime(self.docs + "/a.md")  # to be read again
                done = self.ctl(verb, *args)
                self.assertEqual(done.returncode, 1, (data[:20], verb, done))
                self.assertIn(words, done.stderr)
                self.assertIn("index.db'", done.stderr)
                self.assertNotIn("/workspace", done.stderr)
                with open(self.db, "rb") as f:
                    self.assertEqual(f.read(), data)
        done = self.ctl("add", *CELL, self.db)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("index.db': Not a directory", done.stderr)
        done = self.ctl("add", "--sandbox", "of", self.docs)
        self.assertEqual(done.returncode, 2, done)
        self.assertIn("on|off", done.stderr)
        with open(self.db, "wb"):
            pass
        self.assertIn("no index at", self.ctl("search", "x").stderr)
        self.assertEqual(self.add(), (1, 0, 0, 0))

    def test_two_writers_lose_nothing(self):
        folders = []
        for k in range(4):
            folders.append("%s/part%d" % (self.dir, k))
            for i in range(40):
                self.write("%d.md" % i, "part%d heron\n" % k, folders[-1])
        procs = [subprocess.Popen([BIN + "/agentctl", "index", "add", "-q", "--db", self.db, *CELL, f],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                 for f in folders]
        for p in procs:
            out = p.communicate(timeout=200)
            self.assertEqual(p.returncode, 0, out)
        rows = [json.loads(line) for line in self.ctl("list", "--json").stdout.splitlines()]
        self.assertEqual([(r["name"], r["documents"]) for r in rows],
                         [("part%d" % k, 40) for k in range(4)])
        self.assertEqual([n for n in os.listdir(self.dir) if n.startswith(".")], [])

    def test_an_interrupt_keeps_what_was_read(self):
        if CELL:
            self.skipTest("needs a cell")
        for i in range(4000):
            self.write("%d/%d.html" % (i // 500, i), "<p>" + "heron word%d " % i * 300)
        p = subprocess.Popen([BIN + "/agentctl", "index", "add", "--db", self.db, self.docs],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             start_new_session=True)
        line = p.stderr.readline()  # progress: it is at work
        self.assertRegex(line, r"^\d+ of 4000 files$")
        os.killpg(p.pid, signal.SIGINT)
        out, err = p.communicate(timeout=200)
        if " 4000 documents" not in out:
            self.assertEqual(p.returncode, 1, (out, err))
            self.assertIn("interrupted; what was read is kept", err)
        done = self.ctl("list", "--json")
        kept = json.loads(done.stdout)["documents"]
        self.assertGreater(kept, 0)
        added, _, unchanged, removed = self.add()
        self.assertEqual((added + unchanged, unchanged, removed), (4000, kept, 0))
        self.assertEqual(self.found("word3999"), ["7/3999.html"])
        self.assertEqual([n for n in os.listdir(self.dir) if n.startswith(".")], [])


if __name__ == "__main__":
    unittest.main(verbosity=1)
