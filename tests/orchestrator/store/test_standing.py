"""What of a plan is finished, ended and to do: one answer for run, plan and resume."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator import plan
from orchestrator.cli.main import cli
from orchestrator.store import redo
from orchestrator.store.address import Store
from orchestrator.store.marks import TIDIED
from orchestrator.store.standing import standing_of
from orchestrator.store.tracker import Tracker
from orchestrator.work import resume
from tests.orchestrator.helpers import RECIPE, TINY, Finished, do, round_of, tiny, write_yaml

ONE = {"rate": 0.5, "rounds": 1, "repel": 2.0}
TWO = ONE | {"rounds": 2}


@pytest.fixture(scope="module")
def repelled(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A chain of one round that is repelled from where the dense network ended."""
    found = tiny("repelled", seeds=[0], pruning=ONE)
    built = plan.build(found)
    store = Store.of(tmp_path_factory.mktemp("repelled"))
    tracker = Tracker(store)
    do(found, built, tracker)
    return Finished(store=store, tracker=tracker, experiment=found, plan=built)


def test_what_is_finished_is_not_to_do(repelled: Finished) -> None:
    now = standing_of(repelled.tracker, repelled.plan, repelled.tracker.stages())
    assert now.finished.keys() == repelled.plan.stages.keys()
    assert (now.todo, now.again, now.over) == ([], frozenset(), {})
    more = plan.build(tiny("repelled", seeds=[0], pruning=TWO))
    now = standing_of(repelled.tracker, more, repelled.tracker.stages())
    assert now.todo == [round_of(more, TINY, 2, 0)]


def test_what_is_to_be_done_again_is_to_do(repelled: Finished) -> None:
    last = round_of(repelled.plan, TINY, 1, 0)
    now = standing_of(
        repelled.tracker, repelled.plan, repelled.tracker.stages(), [last.key, "other"]
    )
    assert now.todo == [last]
    assert now.again == {last.key}
    assert last.key not in now.finished


def test_a_round_that_repels_the_next_and_has_no_weights_is_to_do(
    repelled: Finished, tmp_path: Path
) -> None:
    tracker, last = repelled.tracker, round_of(repelled.plan, TINY, 1, 0)
    run = tracker.run_of(last.key)
    assert run is not None
    tracker.client.set_tag(run.info.run_id, TIDIED, "now")
    tracked = tracker.stages()
    assert not redo.waiting(tracker, tracked)
    assert standing_of(tracker, repelled.plan, tracked).todo == [], "nothing asks for them"
    more = plan.build(tiny("repelled", seeds=[0], pruning=TWO))
    now = standing_of(tracker, more, tracked)
    assert now.todo == [last, round_of(more, TINY, 2, 0)]
    assert now.again == {last.key}
    assert now.short.needed == (last,)

    given = {"dataset": "digits", "seeds": [0], "recipe": RECIPE, "pruning": TWO}
    grid = [{"method": "imp", "network": TINY}]
    config = write_yaml(tmp_path / "repelled.yaml", given | {"grid": grid})
    told = CliRunner().invoke(cli, ["plan", str(config), "--store", str(repelled.store)])
    assert "note: 1 finished stages are trained again and compared" in told.output, told.output
    line = resume.begin(tracker, run.info.run_id, ["pruning.rounds=2"])[2]
    assert line.endswith("of the 3 rounds of its chain 2 are left, of all 4 stages 2"), line
