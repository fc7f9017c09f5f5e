"""``make faults``: every fault that was not done yet with this state of the code.

The log (``faults/log.jsonl``) has a line for each case: its name, the commit, whether it passed,
and why not. A case that passed at this commit is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faults.cases import References, cases, check
from faults.project import Fault, NotHere

LOG = Path(__file__).parent / "log.jsonl"


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=LOG.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def main() -> int:
    """Do the cases; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="only cases in whose name one of these stands")
    parser.add_argument("--moments", type=int, default=50, help="random moments, one process a job")
    parser.add_argument("--together", type=int, default=10, help="random moments, two workers")
    given = parser.parse_args()
    commit, results = _commit(), {}
    if LOG.exists() and not commit.endswith("-dirty"):
        lines = [json.loads(line) for line in LOG.read_text().splitlines()]
        results = {x["case"]: x["passed"] for x in lines if x["commit"] == commit and x["passed"]}
    failed = before = not_here = 0
    with tempfile.TemporaryDirectory(prefix="elth-faults-") as root:
        references = References(Path(root))
        for number, case in enumerate(cases(references, given.moments, given.together)):
            if given.words and not any(word in case.name for word in given.words):
                continue
            if case.name in results:
                before += 1
                continue
            began, why, passed = time.monotonic(), "", True
            path = Path(root) / f"case-{number}"
            try:
                check(case, path, references)
            except NotHere as reason:
                print(f"not here           {case.name}: {reason}")
                not_here += 1
                continue
            except Fault as fault:
                why, passed = str(fault), False
            shutil.rmtree(path, ignore_errors=True)
            failed += not passed
            results[case.name] = passed
            line = {
                "case": case.name,
                "commit": commit,
                "passed": passed,
                "seconds": round(time.monotonic() - began, 1),
                "why": why,
            }
            with LOG.open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(f"{'ok' if passed else 'FAILED':6} {line['seconds']:6.1f} s  {case.name}")
            if why:
                print(f"       {why}")
            sys.stdout.flush()
    print(
        f"{len(results)} cases: {len(results) - failed} hold ({before} of them from the log), "
        f"{failed} do not, {not_here} cannot be done here"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
