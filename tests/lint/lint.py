#!/usr/bin/env python3
"""House rules that a compiler does not check: arrows between folders, one library per file,
sizes, banned functions, promises left in the code. Prints file:line: rule; exits 1 if any."""
import os
import re
import sys

ROOT = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else ".")
FOLDERS = ["base", "engine", "sandbox", "tools", "agentd"]

# Which project headers a folder may include. Faces are single headers of another folder.
ARROWS = {
    "base": [r"base/"],
    "engine": [r"base/", r"engine/"],
    "sandbox": [r"base/", r"sandbox/"],
    "tools": [r"base/", r"tools/"],
    "agentd": [r"base/", r"agentd/", r"engine/(engine|model)\.h$", r"sandbox/", r"tools/"],
}

# A library's header appears in these files alone, so that it can be replaced in an afternoon.
LIBRARIES = {
    r"jansson\.h": ["base/json.h"],
    r"uv\.h": ["agentd/ev.c"],
    r"yaml\.h": ["agentd/yaml.c"],
    r"seccomp\.h": ["sandbox/seccomp.c"],
    r"pcre2\.h": ["engine/pretok.c"],
    r"zstd\.h": ["engine/kvfile.c"],
    r"xxhash\.h": ["engine/hash.c"],
    r"libxml/.*": ["tools/html.c"],
    r"(lua|lualib|lauxlib)\.h": ["agentd/hooks.c", "agentd/lua.c"],
    r"histedit\.h": ["agentd/lineedit.c"],
}

BANNED = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atof|alloca|"
                    r"system|popen|tmpnam|setjmp|longjmp)\s*\(")
RAW_ALLOC = re.compile(r"(?<![\w.>])(malloc|calloc|realloc|strdup|strndup)\s*\(")
PROMISE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|not implemented", re.I)
MAX_FILE, MAX_FUNCTION = 1000, 100

found = []


def report(path, line, rule):
    found.append(f"{os.path.relpath(path, ROOT)}:{line}: {rule}")


def strip(text):
    """Blanks comments and string literals, keeping line numbers."""
    def blank(m):
        return re.sub(r"[^\n]", " ", m.group(0))
    return re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', blank, text, flags=re.S)


def check_includes(path, rel, text):
    folder = rel.split("/")[0]
    for n, line in enumerate(text.split("\n"), 1):
        m = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
        if not m:
            continue
        name = m.group(2)
        if m.group(1) == '"':
            if not any(re.match(p, name) for p in ARROWS[folder]):
                report(path, n, f"{folder}/ may not include {name}")
            continue
        for library, homes in LIBRARIES.items():
            if re.fullmatch(library, name) and rel not in homes:
                report(path, n, f"<{name}> belongs in {', '.join(homes)} alone")


def check_functions(path, code):
    start = None
    for n, line in enumerate(code.split("\n"), 1):
        if line == "{":
            start = n
        elif line == "}" and start:
            if n - start - 1 > MAX_FUNCTION:
                report(path, start, f"function of {n - start - 1} lines (cap {MAX_FUNCTION})")
            start = None


def check_file(path):
    rel = os.path.relpath(path, ROOT)
    with open(path, encoding="utf-8") as f:
        text = f.read()
    lines = text.count("\n")
    if lines > MAX_FILE:
        report(path, 1, f"{lines} lines (cap {MAX_FILE})")
    if not text.startswith("/*"):
        report(path, 1, "the file does not open with what it does")
    check_includes(path, rel, text)
    code = strip(text)
    check_functions(path, code)
    tables = set()  # lines of tables laid out by hand: no column cap
    for m in re.finditer(r"/\* clang-format off \*/.*?/\* clang-format on \*/", text, re.S):
        tables.update(range(text.count("\n", 0, m.start()) + 1, text.count("\n", 0, m.end()) + 2))
    for n, line in enumerate(code.split("\n"), 1):
        if BANNED.search(line):
            report(path, n, f"banned function: {BANNED.search(line).group(1)}")
        if rel != "base/mem.c" and RAW_ALLOC.search(line):
            report(path, n, "allocate through base/mem.h")
        if len(line) > 100 and n not in tables:
            report(path, n, f"{len(line)} columns")
    for n, line in enumerate(text.split("\n"), 1):
        if PROMISE.search(line):
            report(path, n, "a promise left in the code")


def main():
    count = 0
    for folder in FOLDERS:
        for here, _, names in sorted(os.walk(os.path.join(ROOT, folder))):
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    check_file(os.path.join(here, name))
                    count += 1
    print("\n".join(found))
    print(f"{count} files, {len(found)} findings")
    return 1 if found or count == 0 else 0


sys.exit(main())
