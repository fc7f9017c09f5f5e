"""Chains that end before their last round, in whole runs: killed, continued, and overtaken."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Project, finish

pytestmark = pytest.mark.e2e

STEEP = """\
name: steep
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 1ep, rewind: 2it, milestones: []}
pruning: {rate: 0.9, rounds: 4, stop: {accuracy_below: 30}}
grid:
  - {method: imp, network: resnet14(width=8)}
  - {method: ett, source: resnet14(width=8), network: resnet20(width=8), round: [3, 4]}
  - {method: magnitude, network: resnet14(width=8), round: 4}
resources: {concurrent: 1}
"""
"""9 stages; of 43,656 weights 43 are left in round 3, which nobody learns the digits with."""


def _ended(project: Project) -> list[str]:
    """What ``elth status`` says of ended stages; that is all it has to say."""
    done = project.elth("status", "steep")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line for line in done.stdout.splitlines() if ": " in line]
    assert all(line.startswith("ended: ") for line in lines)
    return lines


def test_the_same_command_ends_the_same_chains(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole, killed = Project(tmp_path / "whole"), Project(tmp_path / "killed")
    for project in (whole, killed):
        project.write("steep.yaml", STEEP)
    out = finish(whole.start("run", "steep.yaml"))
    assert re.search(r"^\d+ of 9 stages done, \d+ ended in ", out, re.MULTILINE)
    assert "at least one of these is empty; round 4 is the last that can be asked for" in out
    assert len(set(re.findall(r"^ended: (.+? % < 30 %[^:]*): the rounds", out, re.MULTILINE))) == 1
    lines = _ended(whole)
    assert any(line.startswith("ended: resnet14(width=8) round 4, seed 0: ") for line in lines)

    driver = killed.start("run", "steep.yaml")
    killed.wait_for(lambda: any("round 1" in title for title in killed.done().values()), driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    assert len(killed.done()) < len(whole.done())
    again = killed.elth("run", "steep.yaml")
    assert (again.returncode, again.stderr) == (0, "")
    assert sorted(killed.done().values()) == sorted(whole.done().values())
    assert killed.report("steep") == whole.report("steep")
    assert _ended(killed) == lines

    # Another grid goes on: what it does beyond the end is none of this one's.
    before = whole.report("steep")
    further = whole.elth("run", "steep.yaml", "name=further", "pruning.stop=null")
    assert (further.returncode, further.stderr) == (0, "")
    assert "9 of 9 stages done" in further.stdout
    done = whole.done()
    same = whole.elth("run", "steep.yaml")
    assert (same.returncode, same.stderr) == (0, "")
    assert whole.done() == done
    assert whole.report("steep") == before
    assert _ended(whole) == lines
