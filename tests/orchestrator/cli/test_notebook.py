"""The system from Python, on a grid that is finished; what runs Ray is in ``tests/e2e``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import orchestrator
from elth import masks
from elth.errors import ElthError
from orchestrator.report.cells import Report
from orchestrator.store.tracker import Tracker
from orchestrator.work.tickets import ticket_of
from tests.orchestrator.helpers import INFINITE, TINY, TINY_DEEPER, Finished, round_of, write_yaml


@pytest.fixture(scope="module")
def found(finished: Finished) -> orchestrator.Results:
    return orchestrator.results("done", store=finished.store.folder)


def test_the_package_is_light_and_has_two_functions() -> None:
    code = (
        "import sys, orchestrator\n"
        "heavy = {'torch', 'ray', 'mlflow', 'pandas', 'matplotlib', 'click', 'rich', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert orchestrator.run.__doc__ and orchestrator.results.__doc__\n"
        "assert not {'torch', 'ray', 'mlflow', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "from orchestrator import plan, work; assert work.__file__\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_row_for_each_cell_and_seed(found: orchestrator.Results) -> None:
    frame = found.frame()
    assert " ".join(frame.columns) == (
        "network method source transform round target variant noise ticket sparsity dataset seed "
        "nonzeros accuracy run_id"
    )
    cells = found.report.cells
    assert len(frame) == sum(len(cell.seeds) for cell in cells) == 2 * len(cells)
    assert repr(found) == f"<Results of done: {len(cells)} cells>"
    ett = frame[(frame.method == "ett") & (frame.seed == 1)]
    (row,) = ett.to_dict("records")
    assert (row["network"], row["source"], row["transform"]) == (TINY_DEEPER, TINY, "append")
    (cell,) = (cell for cell in cells if cell.method == "ett")
    assert (row["accuracy"], row["nonzeros"]) == (cell.accuracy[1], cell.nonzeros[1])
    assert row["run_id"] == cell.runs[1]
    dense = frame[(frame.method == "dense") & (frame.network == TINY)]
    assert dense["round"].tolist() == [0, 0]
    assert dense.sparsity.tolist() == [0, 0]


def test_the_ticket_that_is_meant(found: orchestrator.Results, finished: Finished) -> None:
    ticket = found.ticket(network=TINY, method="imp", round=2, seed=1)
    expected = ticket_of(round_of(finished.plan, TINY, 2, 1), finished.tracker.load)
    assert str(ticket.network) == TINY
    assert masks.digest(ticket.mask) == masks.digest(expected.mask)
    assert ticket.origin == expected.origin
    moved = found.ticket(source=TINY, transform="append", seed=0)
    assert str(moved.network) == TINY_DEEPER


def test_a_ticket_that_is_not_there_or_not_the_only_one(found: orchestrator.Results) -> None:
    message = r"unknown network of done 'resnet14'; did you mean 'resnet14\(width=4\)'\? \(there "
    with pytest.raises(ElthError, match=message):
        found.ticket(network="resnet14")
    messages = (
        f"unknown round of done (network='{TINY}', method='imp') '3' (there is: 1, 2)",
        f"4 tickets of done are meant by network='{TINY}', method='imp': say also round (1, 2) or "
        "seed (0, 1)",
    )
    with pytest.raises(ElthError, match=re.escape(messages[0])):
        found.ticket(network=TINY, method="imp", round=3)
    with pytest.raises(ElthError, match=re.escape(messages[1])):
        found.ticket(network=TINY, method="imp")
    with pytest.raises(ElthError, match=r"tickets of done are meant: say also network \('resnet1"):
        found.ticket()


def test_a_figure(found: orchestrator.Results) -> None:
    figure = found.figure()
    assert isinstance(figure, Figure)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == [f"{TINY}, digits", f"{TINY_DEEPER}, digits"]


def test_nothing_finished_yet(found: orchestrator.Results, stopped: Finished) -> None:
    empty = orchestrator.Results(
        report=Report(grid="new", cells=(), missing=3), tracker=found.tracker
    )
    assert repr(orchestrator.results("stopped", store=stopped.store.folder)).endswith(", 5 ended>")
    assert repr(empty) == "<Results of new: 0 cells, 3 stages missing>"
    assert empty.frame().empty
    with pytest.raises(ElthError, match="nothing of new is finished yet: there is no figure"):
        empty.figure()
    with pytest.raises(ElthError, match="nothing of new is finished yet: there is no ticket"):
        empty.ticket(round=1)


def test_no_such_store_or_grid(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(ElthError, match="there is no store in .*/none"):
        orchestrator.results("done", store=tmp_path / "none")
    with pytest.raises(ElthError, match="gone.*done"):
        orchestrator.results("gone", store=finished.store.folder)


def test_what_is_finished_is_not_run_again(
    finished: Finished, tmp_path: Path, no_training: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "done.yaml"
    config.write_text(finished.experiment.resolved(), encoding="utf-8")
    found = orchestrator.run(config, store=finished.store.folder, quiet=True)
    assert (found.report.grid, found.report.missing) == ("done", 0)
    assert capsys.readouterr().out == ""
    with pytest.raises(ElthError, match="pruning"):
        orchestrator.run(config, "pruning.rate=2", store=finished.store.folder)


def test_results_of_a_file_are_those_that_it_asks_for(
    finished: Finished, found: orchestrator.Results, tmp_path: Path, no_training: None
) -> None:
    """Of the grid, which holds another seed, the name gives all."""
    config = tmp_path / "done.yaml"
    config.write_text(finished.experiment.resolved(), encoding="utf-8")
    place = finished.store.folder
    one = orchestrator.run(config, "seeds=[1]", store=place, quiet=True)
    assert set(one.frame().seed) == {1}
    assert one.ticket(network=TINY, method="imp", round=2).origin["seed"] == 1
    again = orchestrator.results(config, ["seeds=[1]"], store=place)
    assert again.frame().equals(one.frame())
    assert set(orchestrator.results("done", store=place).frame().seed) == {0, 1}
    with pytest.raises(
        ElthError, match="the grid 'done' in .* would drop IMP on .* round 2, seeds"
    ):
        orchestrator.run(config, "pruning.rounds=1", store=place, quiet=True)
    assert orchestrator.results("done", store=place).frame().equals(found.frame())
    name = "name=done-again"
    orchestrator.run(config, name, store=place, quiet=True)
    words = [name, "pruning.rounds=1", f"grid=[{{method: imp, network: '{TINY}'}}]"]
    fewer = orchestrator.run(config, words, store=place, quiet=True, replace=True)
    assert max(fewer.frame()["round"]) == 1


def test_failed_stages_are_an_error(
    tmp_path: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "orchestrator.work.driver.execute", lambda *_, **__: {"a": "x diverged", "b": "y waits"}
    )
    config = write_yaml(
        tmp_path / "failing.yaml",
        {
            "dataset": "digits",
            "seeds": [0],
            "recipe": INFINITE,
            "pruning": {"rounds": 1},
            "grid": [{"method": "imp", "network": TINY}],
        },
    )
    message = (
        "of 3 stages of failing 2 failed or could not begin: x diverged; and 1 more; what is "
        "finished is in orchestrator.results('failing')"
    )
    with pytest.raises(ElthError, match=re.escape(message)):
        orchestrator.run(config, store=tracker.store.folder)


def test_a_part_of_a_grid(finished: Finished, tmp_path: Path, no_training: None) -> None:
    config = tmp_path / "done.yaml"
    config.write_text(finished.experiment.resolved(), encoding="utf-8")
    place = finished.store.folder
    part = orchestrator.run(config, store=place, only="method=ett,reinit", quiet=True)
    assert set(part.frame().method) == {"ett", "reinit"}
    both = orchestrator.results("done", store=place, only=["method=ett", "method=reinit"])
    assert both.frame().equals(part.frame())
    with pytest.raises(ElthError, match="method=snip chooses nothing of done"):
        orchestrator.results("done", store=place, only="method=snip")
