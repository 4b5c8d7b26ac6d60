"""search, open and find over a local index, and the index itself from the command line."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serve_client import BIN, Serve  # noqa: E402

RIVERS = """# Rivers of Arden

The river Tolm rises in the Grey Hills and runs 214 kilometres to the sea at Port Ansel, which \
is the largest well-known harbour of the whole eastern coast.
In 1871 a flood carried away the wooden bridge.

## Bridges

The stone bridge at Merrow was opened in 1874 by the engineer Hanna Voss.
"""
TOWNS = """<!DOCTYPE html><html><head><title>Towns of Arden</title><style>p{}</style></head>
<body><nav><a href="/">Home</a></nav><main><h1>Towns</h1>
<p>Merrow lies on the <a href="../rivers.md">river Tolm</a> &amp; has 4,120 people.</p>
<ul><li>Port Ansel<li>Merrow <a href="http://x.example/a">site</a></ul>
<table><tr><th>Town<th>People<tr><td>Merrow<td>4120</table><pre>a  b
  c</pre></main><footer>contact</footer><script>bad()</script></body></html>"""


def lines_of(text):
    """The numbered lines of an answer."""
    return {int(m.group(1)): m.group(2)
            for m in re.finditer(r"^L(\d+): (.*)$", text, re.M)}


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="agentd-test-")
        self.docs = os.path.join(self.dir, "docs")
        os.makedirs(self.docs + "/sub")
        self.write("rivers.md", RIVERS)
        self.write("sub/towns.html", TOWNS)
        self.db = os.path.join(self.dir, "index.db")

    def tearDown(self):
        shutil.rmtree(self.dir)

    def write(self, name, text):
        data = text if isinstance(text, bytes) else text.encode()
        with open(os.path.join(self.docs, name), "wb") as f:
            f.write(data)

    def ctl(self, *args, code=0):
        done = subprocess.run([BIN + "/agentctl", "index", *args], capture_output=True, text=True)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def add(self):
        """In a cell; on a host that has none, as the message says, without."""
        args = ["add", "--db", self.db, "--json", self.docs]
        done = subprocess.run([BIN + "/agentctl", "index", *args], capture_output=True, text=True)
        if "--sandbox off" in done.stderr:
            return json.loads(self.ctl(*args, "--sandbox", "off"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(os.listdir(self.dir)), ["docs", "index.db"])
        return json.loads(done.stdout)


class Pages(Case):
    def setUp(self):
        super().setUp()
        self.serve = Serve("--profile", "research", "--index", self.docs)

    def tearDown(self):
        self.assertEqual(self.serve.close(), 0)
        super().tearDown()

    def test_published_shape(self):
        got = self.serve.text("search", {"query": "Who opened the bridge at Merrow?"})
        self.assertEqual(got, """\
[0] Who opened the bridge at Merrow? (Search_Results/Who opened the bridge at Merrow?)
**viewing lines [0 - 9] of 9**

L0: 
L1: URL: Search_Results/Who opened the bridge at Merrow?
L2: # Search Results
L3: 
L4:   * 【0†Rivers of Arden; publish_date: none†local】 ... In 1871 a flood carried 
L5: away the wooden bridge. ## Bridges The stone bridge at Merrow was opened in 1874
L6:  by the engineer Hanna Voss.
L7:   * 【1†Towns of Arden; publish_date: none†local】 ... Merrow lies on the river 
L8: Tolm & has 4,120 people. - Port Ansel - Merrow site Town | People Merrow | 4120 
L9: a b c""")
        got = self.serve.text("open", {"id": 0})
        self.assertEqual(got, """\
[1] Rivers of Arden (rivers.md)
**viewing lines [0 - 10] of 10**

L0: 
L1: URL: rivers.md
L2: # Rivers of Arden
L3: 
L4: The river Tolm rises in the Grey Hills and runs 214 kilometres to the sea at 
L5: Port Ansel, which is the largest well-known harbour of the whole eastern coast.
L6: In 1871 a flood carried away the wooden bridge.
L7: 
L8: ## Bridges
L9: 
L10: The stone bridge at Merrow was opened in 1874 by the engineer Hanna Voss.""")

    def test_html_and_links(self):
        self.serve.text("search", {"query": "towns"})
        got = self.serve.text("open", {"id": 0})
        self.assertEqual(got, """\
[1] Towns of Arden (sub/towns.html)
**viewing lines [0 - 13] of 13**

L0: 
L1: URL: sub/towns.html
L2: # Towns
L3: 
L4: Merrow lies on the 【0†river Tolm】 & has 4,120 people.
L5: 
L6: - Port Ansel
L7: - Merrow 【1†site†x.example】
L8: 
L9: Town | People
L10: Merrow | 4120
L11: 
L12: a  b
L13:   c""")
        self.assertTrue(self.serve.text("open", {"id": 0}).startswith("[2] Rivers of Arden"))

    def test_find_scroll_and_citations(self):
        self.write("long.txt", "".join("line %d has a word%s\n" % (i, i % 97) for i in range(500)))
        self.serve.text("search", {"query": "word42"})
        page = {}
        cursors = []
        for loc in (0, 100, 200, 300, 400, 480):
            got = self.serve.text("open", {"id": "long.txt", "loc": loc})
            cursors.append(int(re.match(r"\[(\d+)\]", got).group(1)))
            page.update(lines_of(got))
        self.assertEqual(len(page), 502)
        self.assertEqual(cursors, [1, 2, 3, 4, 5, 6])
        got = self.serve.text("find", {"pattern": "WORD42", "cursor": 3})
        self.assertIn("Find results for text: `word42` in `line 0 has a word0`", got)
        found = [int(n) for n in re.findall(r"match at L(\d+)】", got)]
        self.assertEqual(found, [i + 2 for i in range(500) if i % 97 == 42])
        # Every line that find shows is that line of the page, byte for byte.
        shown = lines_of(got)
        at = 0
        for n in found:
            self.assertEqual(shown[at], "# 【%d†match at L%d】" % (found.index(n), n))
            for k in range(1, 5):
                if at + k in shown and n + k - 1 in page:
                    self.assertEqual(shown[at + k], page[n + k - 1])
            at += 6
        got = self.serve.text("open", {"id": 1, "cursor": 7, "num_lines": 2})
        self.assertEqual(lines_of(got), {found[1]: page[found[1]], found[1] + 1: page[found[1] + 1]})

    def test_what_was_shown_never_changes(self):
        before = self.serve.text("open", {"id": "rivers.md"})
        self.write("rivers.md", "gone")
        after = self.serve.text("open", {"cursor": 0})
        self.assertEqual(lines_of(before), lines_of(after))

    def test_cursors_of_an_earlier_process(self):
        got = self.serve.text("search", {"query": "river"}, first_cursor=5)
        self.assertTrue(got.startswith("[5] river"))
        self.assertIn("page 2 is no longer open", self.serve.text("open", {"cursor": 2}))
        self.assertTrue(self.serve.text("open", {"id": 0}, first_cursor=6).startswith("[6] "))

    def test_mistakes_are_told(self):
        for args, want in (({}, "no page is open yet"), ({"id": 3}, "no page is open yet")):
            self.assertIn(want, self.serve.text("open", args))
        self.assertIn("no page is open yet", self.serve.text("find", {"pattern": "x"}))
        self.assertIn("[0 - 2] of 2", self.serve.text("search", {"query": "zzzz"}))
        self.assertIn("has no links", self.serve.text("open", {"id": 0}))
        self.assertIn("no page with cursor 9", self.serve.text("open", {"cursor": 9}))
        self.assertIn("Error fetching URL `nowhere.md`", self.serve.text("open", {"id": "nowhere.md"}))
        self.assertEqual(self.serve.text("find", {"pattern": "q" * 600}),
                         "the pattern must have 1 to 500 bytes")
        self.assertEqual(self.serve.text("search", {"query": "  "}), "the query is empty")
        self.assertIn("[", self.serve.text("search", {"query": "\" AND ( NEAR * ^ : -"}))

    def test_hostile_documents(self):
        self.write("nul.txt", b"text\0more needle")
        self.write("bad.txt", b"needle \xff\xfe\xc3( end")
        self.write("deep.html", b"<div>" * 50000 + b"needle deep" + b"</div>" * 50000)
        self.write("marks.html", "<p>needle 【0†fake†evil】 【x【9†</p><a href='javascript:x()'>j</a>")
        self.write("huge.html", b"<p>needle huge " + b"x" * 200000 + b"</p>")
        self.write("attr.html", b"<html><body><a href='" + b"y" * 100000 + b"'>needle attr</a>")
        self.serve.send(reset=True)
        self.serve.answer()
        serve = Serve("--profile", "research", "--index", self.docs)
        got = serve.text("search", {"query": "needle"})
        self.assertNotIn("nul.txt", got)
        for name in ("bad.txt", "deep.html", "marks.html", "huge.html", "attr.html"):
            got = serve.text("open", {"id": name})
            self.assertTrue(got.startswith("["), got[:200])
            self.assertTrue(all(len(l) <= 80 for l in lines_of(got).values()))
        self.assertEqual(serve.close(), 0)

    def test_spill_opens(self):
        got = self.serve.call("bash", {"command": "seq 1 9000"}, profile="general",
                              workspace=self.dir)
        got = self.serve.text("open", {"id": "spill:%d" % got["spill"], "loc": 8000,
                                       "num_lines": 2}, profile="general")
        self.assertEqual(lines_of(got), {8000: "7999", 8001: "8000"})


class Index(Case):
    def test_incremental(self):
        got = self.add()
        self.assertEqual((got["added"], got["skipped"], got["total"]), (2, 0, 2))
        got = self.add()
        self.assertEqual((got["added"], got["unchanged"]), (0, 2))
        self.write("rivers.md", RIVERS.replace("Voss", "Zeppelin"))
        self.write("new.txt", "A note about badgers.\n")
        os.unlink(self.docs + "/sub/towns.html")
        got = self.add()
        self.assertEqual((got["added"], got["updated"], got["removed"], got["total"]), (1, 1, 1, 2))
        self.assertIn("nothing found", self.ctl("search", "--db", self.db, "Voss"))
        self.assertIn("docs/rivers.md", self.ctl("search", "--db", self.db, "zeppelins"))
        self.assertIn("nothing found", self.ctl("search", "--db", self.db, "people"))
        self.assertIn("badgers", self.ctl("search", "--db", self.db, "badger"))

    def test_failure_leaves_the_index_alone(self):
        self.add()
        before = self.ctl("list", "--db", self.db)
        self.ctl("add", "--db", self.db, "/nonexistent", code=1)
        self.ctl("add", "--db", self.db, "--sandbox", "off", self.db, code=1)
        self.assertEqual(self.ctl("list", "--db", self.db), before)
        self.assertEqual(sorted(os.listdir(self.dir)), ["docs", "index.db"])

    def test_two_roots_list_and_remove(self):
        self.add()
        other = os.path.join(self.dir, "other")
        os.mkdir(other)
        with open(other + "/a.txt", "w") as f:
            f.write("otters\n")
        self.ctl("add", "--db", self.db, "--name", "wild", "--sandbox", "off", other)
        rows = [json.loads(l) for l in self.ctl("list", "--db", self.db, "--json").splitlines()]
        self.assertEqual([(r["name"], r["documents"]) for r in rows], [("docs", 2), ("wild", 1)])
        self.assertEqual(self.ctl("remove", "--db", self.db, "docs"), "2 documents removed\n")
        self.assertIn("wild/a.txt", self.ctl("search", "--db", self.db, "otter"))
        self.assertIn("no folder named 'docs'", self.ctl("remove", "--db", self.db, "docs", code=1))

    def test_tools_read_the_database_alone(self):
        self.add()
        shutil.rmtree(self.docs)
        serve = Serve("--profile", "research", "--index", self.db)
        self.assertIn("Rivers of Arden", serve.text("search", {"query": "flood 1871"}))
        self.assertIn("L2: # Rivers of Arden", serve.text("open", {"id": 0}))
        self.assertEqual(serve.close(), 0)
        os.makedirs(self.docs)

    def test_ranking_prefers_titles_and_all_words(self):
        self.write("a.txt", "Otters\n\nAnimals of the river.\n")
        self.write("b.txt", "Animals\n\nOtters, otters, minks.\n")
        self.write("c.txt", "Unrelated\n\nThe river is long.\n")
        self.add()
        got = self.ctl("search", "--db", self.db, "otters", "river")
        self.assertRegex(got, r"^ 1\. Otters")

    @unittest.skipUnless(shutil.which("pdftotext"), "pdftotext (poppler-utils) is not installed")
    def test_pdf(self):
        text = b"BT /F1 24 Tf 72 720 Td (Pelicans nest on the island) Tj ET"
        objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
                   b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources"
                   b"<</Font<</F1 5 0 R>>>>>>",
                   b"<</Length %d>>stream\n%s\nendstream" % (len(text), text),
                   b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
        pdf, at = b"%PDF-1.4\n", []
        for i, o in enumerate(objects):
            at.append(len(pdf))
            pdf += b"%d 0 obj%s\nendobj\n" % (i + 1, o)
        xref = len(pdf)
        pdf += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % a for a in at)
        pdf += b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % xref
        self.write("birds.pdf", pdf)
        self.write("broken.pdf", b"%PDF-1.4\nnothing of the kind")
        got = self.add()
        self.assertEqual((got["added"], got["skipped"]), (3, 1))
        self.assertIn("docs/birds.pdf", self.ctl("search", "--db", self.db, "pelican", "nest"))

    def test_errors(self):
        self.assertIn("there is no index at", self.ctl("list", "--db", self.db, code=1))
        self.assertIn("folder '/nonexistent'", self.ctl("add", "--db", self.db, "/nonexistent",
                                                        code=1))
        with open(self.db, "wb") as f:
            f.write(b"SQLite format 3\0" + b"garbage" * 1000)
        self.assertIn("index", self.ctl("search", "--db", self.db, "x", code=1))

    def test_charsets(self):
        self.write("latin.txt", "Caf\xe9 na\xefve z\xfcrich".encode("latin-1"))
        self.write("meta.html", b"<meta charset='koi8-r'><title>t</title><p>"
                   + "\u043c\u043e\u0441\u0442 bridgeword".encode("koi8-r"))
        self.write("wide.txt", b"\xff\xfe" + "wideword \u5e74".encode("utf-16-le"))
        self.add()
        self.assertIn("Caf\xe9 na\xefve", self.ctl("search", "--db", self.db, "Z\xfcrich"))
        self.assertIn("\u043c\u043e\u0441\u0442", self.ctl("search", "--db", self.db, "bridgeword"))
        self.assertIn("\u5e74", self.ctl("search", "--db", self.db, "wideword"))


if __name__ == "__main__":
    unittest.main(verbosity=1)
