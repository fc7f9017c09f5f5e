"""Whole runs through Ray and MLflow, as a user starts them: real processes, real signals."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Project

pytestmark = pytest.mark.e2e

GRID = """\
name: small
dataset: digits
seeds: [0, 1]
recipe: {base: digits_resnet, length: 3ep, milestones: [2ep]}
pruning: {rate: 0.5, rounds: 2}
grid:
  - {method: imp, network: resnet14(width=8)}
  - {method: ett, source: resnet14(width=8), network: resnet20(width=8), transform: append}
  - {method: [reinit, random, magnitude], network: resnet14(width=8)}
"""

ODD = """\
name: odd
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 2it, rewind: 1it, milestones: []}
pruning: {rate: 0.5, rounds: 1}
criteria: {snip: {samples: 64}}
grid:
  - {method: [imp, snip], network: resnet14(width=4)}
resources: {concurrent: 1}
"""
"""A setting and a network of which the plan knows nothing without building them."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose small grid has been run to its end."""
    project = Project(tmp_path_factory.mktemp("finished"))
    project.write("small.yaml", GRID)
    done = project.elth("run", "small.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    project.output = done.stdout + done.stderr
    return project


def test_a_grid_runs_to_its_report(finished: Project) -> None:
    cells = finished.cells("small")
    found = {(c["network"], c["method"], c["round"]) for c in cells}
    small, large = "resnet14(width=8)", "resnet20(width=8)"
    assert found == {
        (small, "dense", 0),
        (small, "imp", 1),
        (small, "imp", 2),
        (small, "reinit", 2),
        (small, "random", 2),
        (small, "magnitude", 2),
        (large, "ett", 2),
    }
    nonzeros = {c["method"]: c["nonzeros"] for c in cells if c["network"] == small}
    # width 8: 72 + 2,304 + 8,192 + 32,768 + 320 weights: stem, three stages, head; halved twice
    assert nonzeros["dense"] == [43_656] * 2
    assert nonzeros["imp"] == nonzeros["reinit"] == nonzeros["random"] == nonzeros["magnitude"]
    assert all(c["seeds"] == [0, 1] and len(c["accuracy"]) == 2 for c in cells)
    assert all(a > 30 for c in cells for a in c["accuracy"]), "far above chance, which is 10"
    report = finished.path / "runs/reports/small"
    names = {"table.txt", "cells.csv", "cells.json", "accuracy.png", "accuracy.svg", "report.html"}
    assert names <= {p.name for p in report.iterdir()}
    assert (report / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_the_output_is_plain_and_free_of_ray(finished: Project) -> None:
    text = finished.output
    assert "\x1b[" not in text, "no terminal codes when the output is no terminal"
    assert not re.search(r"\b(ray|tune|raylet|gcs_server|traceback|warning)\b", text.lower()), text
    assert re.search(r"\[\d+ s\] \d+ of 16 stages done", text)


def test_the_driver_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(sorted({'torch', 'torchvision', 'sklearn'} & set(sys.modules)))\n"
    )
    project = Project(tmp_path)
    project.write("odd.yaml", ODD)
    done = project.python("-c", code, "run", "odd.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 of 4 stages done in" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


NOTEBOOK = """\
import json, orchestrator

found = orchestrator.run("odd.yaml", ["pruning.rounds=1"], quiet=True)
frame = found.frame()
found.ticket(method="imp").save("t.safetensors")
found.figure().savefig("figure.png")
same = orchestrator.results("odd").frame()
print(json.dumps({"rows": len(frame), "same": bool(same.equals(frame)), "of": repr(found)}))
"""


def test_an_experiment_from_python(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("odd.yaml", ODD)
    done = project.python("-c", NOTEBOOK)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"rows": 3, "same": True, "of": "<Results of odd: 3 cells>"}
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    shown = project.elth("ticket", "show", "t.safetensors")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert project.elth("run", "odd.yaml", "pruning.rounds=1").stdout.count("found finished") == 1


def test_the_same_command_runs_nothing_again(finished: Project) -> None:
    before = finished.runs()
    again = finished.elth("run", "small.yaml")
    assert again.returncode == 0, again.stderr
    assert "16 of 16 stages done, 16 of them found finished" in again.stdout
    assert finished.runs() == before


def test_more_rounds_continue_the_chain(finished: Project) -> None:
    before = finished.runs()
    more = finished.elth(
        "run",
        "small.yaml",
        "pruning.rounds=3",
        "seeds=[0]",
        "name=more",
        "grid=[{method: imp, network: resnet14(width=8)}]",
    )
    assert more.returncode == 0, more.stderr
    after = finished.runs()
    assert before.items() <= after.items(), "no earlier round was trained or written again"
    assert set(after.values()) - set(before.values()) == {"resnet14(width=8) round 3, seed 0"}
    assert [c["round"] for c in finished.cells("more")] == [0, 1, 2, 3]


def test_another_config_finds_the_shared_prefix(finished: Project) -> None:
    finished.write(
        "other.yaml",
        GRID.replace("name: small", "name: other").replace("[reinit, random, magnitude]", "reinit"),
    )
    plan = finished.elth("plan", "other.yaml")
    assert plan.returncode == 0, plan.stderr
    assert "Nothing to do: every stage is finished" in plan.stdout


def test_status_tells_what_is_there(finished: Project) -> None:
    status = finished.elth("status", "small")
    assert status.returncode == 0, status.stderr
    assert "finished" in status.stdout
    assert "16" in status.stdout


def test_export_transform_show(finished: Project) -> None:
    cell = next(c for c in finished.cells("small", "--provenance") if c["method"] == "imp")
    done = finished.elth("ticket", "export", cell["runs"][0], "-o", "t.safetensors")
    assert done.returncode == 0, done.stderr
    done = finished.elth(
        "ticket", "transform", "t.safetensors", "--to", "resnet56(width=8)", "--plan", "append"
    )
    assert done.returncode == 0, done.stderr
    assert "layer1  0 1           ->  0 1 1 1 1 1 1 1 1" in done.stdout
    assert "before: 50.00 % sparsity" in done.stdout
    assert "after: " in done.stdout


def test_kill_between_rounds_goes_on(finished: Project, tmp_path: Path) -> None:
    """kill -9 of the driver once a round is tracked; the same command gives the same report."""
    project = Project(tmp_path)
    project.write("small.yaml", GRID)
    driver = project.start("run", "small.yaml")
    project.wait_for(lambda: any("round 1" in title for title in project.done().values()), driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=60)
    tracked = project.done()
    assert len(tracked) < 16, "it was killed before the end"
    done = project.elth("run", "small.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of them found finished" in done.stdout
    titles = list(project.runs().values())
    assert len(titles) == len(set(titles)) == 16, "no stage is tracked twice"
    assert tracked.items() <= project.runs().items(), "what was tracked was not done again"
    assert project.report("small") == finished.report("small")


def test_ctrl_c_leaves_a_state_that_continues(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("small.yaml", GRID)
    driver = project.start("run", "small.yaml", "seeds=[0]", "recipe.length=40ep")
    project.wait_for(lambda: len(project.done()) > 0, driver)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 130, out + err
    assert "the same command goes on" in err
    plan = project.elth("plan", "small.yaml", "seeds=[0]", "recipe.length=40ep")
    assert plan.returncode == 0
    assert "Nothing to do" not in plan.stdout


def test_a_loss_that_is_not_finite_is_a_result_with_a_status(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("small.yaml", GRID)
    done = project.elth("run", "small.yaml", "seeds=[0]", "recipe.lr=1e30", "recipe.rewind=0ep")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "the training loss was not finite at iteration" in done.stderr
    assert "Traceback" not in done.stderr
    status = project.elth("status", "small")
    assert "failed: " in status.stdout


def test_a_run_under_a_locale_without_umlauts_is_gone_on_with(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("odd.yaml", ODD + 'description: "90 % → ETT, Müller"\n')
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = project.elth("run", "odd.yaml", "grid.0.method=imp", "criteria={}", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    run = next(run for run, title in project.done().items() if "round 1" in title)
    again = project.elth("resume", run, "description=ETT")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "of the 2 rounds of its chain 0 are left" in again.stdout
