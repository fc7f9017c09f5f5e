"""A ticket of one store, imported into another: trained there as here, and gone on from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.e2e.conftest import Project

pytestmark = pytest.mark.e2e

CHAIN = """\
name: chain
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 2ep, milestones: [1ep]}
pruning: {rate: 0.5, rounds: 2}
grid:
  - {method: imp, network: resnet14(width=4)}
"""
FROM = """\
name: from
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 2ep, milestones: [1ep]}
pruning: {rate: 0.5, rounds: 1}
TICKETS
grid:
  - {method: imp, network: resnet14(width=4), ticket: theirs}
  - {method: reinit, network: resnet14(width=4), ticket: theirs}
  - {method: ett, source: resnet14(width=4), network: resnet20(width=4), ticket: theirs}
resources: {concurrent: 1}
"""


def test_a_ticket_trains_in_another_store_as_where_it_was_found(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here, there = Project(tmp_path / "here"), Project(tmp_path / "there")
    here.write("chain.yaml", CHAIN)
    done = here.elth("run", "chain.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(here.report("chain", "--provenance"))
    runs = {cell["round"]: cell["runs"][0] for cell in found}
    file = tmp_path / "t.safetensors"
    done = here.elth("ticket", "export", runs[1], "-o", str(file))
    assert done.returncode == 0, done.stderr

    tickets = f"tickets: {{theirs: {{sha256: {'ab' * 32}, iteration: 1, nonzeros: 5506}}}}"
    there.write("from.yaml", FROM.replace("TICKETS", tickets))
    lacks = there.elth("run", "from.yaml")
    assert lacks.returncode == 2
    assert lacks.stderr.startswith("elth: error: the store ")
    assert "lacks the ticket theirs (sha256 abababababab" in lacks.stderr
    assert len(lacks.stderr.splitlines()) == 1
    done = there.elth("ticket", "import", "--ticket", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    named = re.search(r"^tickets:\n.+$", done.stdout, re.MULTILINE)
    assert named is not None
    there.write("from.yaml", FROM.replace("TICKETS", named[0]))
    done = there.elth("run", "from.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "5 of 5 stages done, 1 of them found finished" in done.stdout

    cells = there.cells("from")
    assert {cell["ticket"] for cell in cells} == {"theirs"}
    axes = [(cell["network"], cell["method"], cell["round"]) for cell in cells]
    assert axes == [
        ("resnet14(width=4)", "imp", 0),
        ("resnet14(width=4)", "reinit", 0),
        ("resnet14(width=4)", "imp", 1),
        ("resnet20(width=4)", "ett", 0),
    ]
    own = {cell["round"]: cell for cell in found}
    for cell in cells:
        if cell["method"] == "imp":
            same = own[cell["round"] + 1]
            assert cell["accuracy"] == same["accuracy"]
            assert cell["nonzeros"] == same["nonzeros"]
    again = there.elth("run", "from.yaml")
    assert "5 of 5 stages done, 5 of them found finished" in again.stdout
    assert len(there.done()) == 5
