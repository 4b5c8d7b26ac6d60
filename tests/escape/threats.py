"""threats.py - the list of threats against the cases that attack them: each threat has a case
with a control, and docs/sandbox.md names exactly these. --table prints the rows for it."""
import os
import re
import sys

import files
import kernel
import network
import processes
import session
from harness import THREATS

SCRIPTS = (files, kernel, network, processes, session)


def cases():
    """Threat -> [(script, case, control)], in the order of the scripts."""
    found = {t: [] for t in THREATS}
    for script in SCRIPTS:
        listed = open(script.__file__).read().rsplit("    main(", 1)[1]
        for name, case in vars(script).items():
            for t in getattr(case, "threats", ()):
                assert t in found, f"{name} names {t}, which is no threat"
                assert re.search(rf"\b{name}\b", listed), f"{name} is never run"
                found[t].append((os.path.basename(script.__file__), name, case.control))
    return found


def row(t, rows):
    where = {}
    for script, name, _ in rows:
        where.setdefault(script, []).append(name)
    shown = "; ".join(f"`{script}` {', '.join(names)}" for script, names in where.items())
    control = "yes" if any(c is True for _, _, c in rows) else "as root"
    return f"{shown} | {control} |"


def main():
    found, wrong = cases(), []
    docs = open(os.path.join(os.environ["SRC"], "docs/sandbox.md")).read()
    for t in THREATS:
        if not found[t]:
            wrong.append(f"{t}: nothing attacks it")
        elif all(c not in (True, "root") for _, _, c in found[t]):
            wrong.append(f"{t}: no case has a control")
        else:
            want = row(t, found[t])
            lines = [x for x in docs.splitlines() if x.startswith(f"| {t} |")]
            if len(lines) != 1 or not lines[0].endswith(f"| {want}"):
                wrong.append(f"{t}: docs/sandbox.md should end its row with: {want}")
        if "--table" in sys.argv:
            print(f"| {t} | {row(t, found[t])}")
    print("\n".join(wrong) or f"{len(THREATS)} threats, each attacked and with a control")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
