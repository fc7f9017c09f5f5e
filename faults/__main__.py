"""``make faults``: every fault that was not done yet with this state of the code.

The log (``faults/log.jsonl``) has a line for each case: its name, the commit, whether it passed,
and why not. A case that passed at this commit is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from faults.cases import Case, References, cases, check
from faults.project import Fault, NotHere, Project

LOG = Path(__file__).parent / "log.jsonl"


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=LOG.parent,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return done.stdout.strip() or "unknown"


class Log:
    """What became of the cases, in the file and on the terminal."""

    def __init__(self, commit: str) -> None:
        self.commit = commit
        self.passed: dict[str, bool] = {}
        if LOG.exists() and not commit.endswith("-dirty"):
            lines = [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()]
            self.passed = {x["case"]: True for x in lines if x["commit"] == commit and x["passed"]}
        self.before = 0
        self.not_here = 0

    def add(self, case: Case, seconds: float, why: str = "") -> None:
        """Note a case; it has passed if there is no reason why not."""
        self.passed[case.name] = not why
        line = {
            "case": case.name,
            "commit": self.commit,
            "passed": not why,
            "seconds": round(seconds, 1),
            "why": why,
        }
        with LOG.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        print(f"{'FAILED' if why else 'ok':6} {seconds:6.1f} s  {case.name}")
        if why:
            print(f"       {why}")
        sys.stdout.flush()

    def close(self, seconds: float) -> int:
        """Print the counts; returns the exit code."""
        hold = sum(self.passed.values())
        print(
            f"{len(self.passed)} cases: {hold} hold ({self.before} of them from the log), "
            f"{len(self.passed) - hold} do not, {self.not_here} cannot be done here; "
            f"{seconds / 60:.0f} min"
        )
        return 0 if hold == len(self.passed) else 1


class Leaving:
    """A case that holds if nothing is left of it: looked at while the next one is under way."""

    def __init__(self, case: Case, project: Project, began: float, log: Log) -> None:
        self.case, self.project, self.log = case, project, log
        self.seconds = time.monotonic() - began

    def settle(self) -> None:
        """Wait for the end of its processes, and note it."""
        try:
            self.project.nothing_left()
        except Fault as fault:
            self.log.add(self.case, self.seconds, str(fault))
        else:
            self.log.add(self.case, self.seconds)
        self.project.clear()
        shutil.rmtree(self.project.path, ignore_errors=True)


def main() -> int:
    """Do the cases; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="only cases in whose name one of these stands")
    parser.add_argument("--moments", type=int, default=50, help="random moments, one process a job")
    parser.add_argument("--together", type=int, default=10, help="random moments, two workers")
    given = parser.parse_args()
    # What a shell begins in the background ignores Ctrl-C, and so would all that is begun here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log, leaving, start = Log(_commit()), None, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="elth-faults-") as root:
        references = References(Path(root))
        for number, case in enumerate(cases(references, given.moments, given.together)):
            if given.words and not any(word in case.name for word in given.words):
                continue
            if log.passed.get(case.name):
                log.before += 1
                continue
            began, path = time.monotonic(), Path(root) / f"case-{number}"
            project, why = None, ""
            try:
                project = check(case, path, references)
            except NotHere as reason:
                print(f"not here           {case.name}: {reason}")
                log.not_here += 1
            except Fault as fault:
                why = str(fault)
            except Exception:  # of one case, and the others go on
                why = traceback.format_exc()
            if leaving is not None:
                leaving.settle()
            leaving = Leaving(case, project, began, log) if project else None
            if why:
                log.add(case, time.monotonic() - began, why)
                shutil.rmtree(path, ignore_errors=True)
        if leaving is not None:
            leaving.settle()
    return log.close(time.monotonic() - start)


if __name__ == "__main__":
    sys.exit(main())
