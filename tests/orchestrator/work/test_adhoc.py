"""Measures of tracked runs that are kept nowhere: by the command, and in a notebook."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import orchestrator
from elth.errors import ElthError
from elth.measures import MEASURES
from orchestrator.cli import analysing
from orchestrator.cli.main import cli
from orchestrator.plan.stage import Stage
from orchestrator.work.adhoc import inquire
from orchestrator.work.tickets import tracked_ticket
from tests.orchestrator.helpers import TINY, Finished


def _stage(inside: Finished, title: str) -> Stage:
    named = title.replace("NET", TINY)
    (found,) = (s for s in inside.plan.stages.values() if s.title == f"{named}, seed 0")
    return found


def _analyse(inside: Finished, measure: str, *words: str) -> Result:
    keys = [_stage(inside, one).key[:12] if "NET" in one else one for one in words]
    place = str(inside.store.folder)
    return CliRunner().invoke(cli, ["analyse", measure, *keys, "--store", place])


def test_it_comes_to_what_the_grid_has_tracked_and_keeps_nothing(
    inside: Finished, tmp_path: Path
) -> None:
    before = len(inside.tracker.stages())
    file = tmp_path / "found.json"
    pair = ("NET round 1", "NET round 1, noise 1")
    done = _analyse(inside, "barrier", *pair, "points=3", "data=test", "--json", "-o", str(file))
    assert done.exit_code == 0, done.exception
    found = json.loads(file.read_bytes())
    assert json.loads(done.stdout) == found
    tracked = _stage(inside, "barrier of NET round 1, noise 0 and noise 1")
    assert found["result"] == inside.tracker.load(tracked.key)[1].measured
    assert (found["settings"]["points"], found["settings"]["data"]) == (3, "test")
    assert [one["key"] for one in found["of"]] == list(tracked.parents)
    assert len(inside.tracker.stages()) == before


def test_single_numbers_are_a_table(inside: Finished) -> None:
    done = _analyse(inside, "overlap", "NET round 1", "NET round 2")
    assert re.search(r"iou +│ +0\.5 ", done.output)
    done = _analyse(inside, "thresholds", "NET dense round 0", "NET round 1")
    assert "thresholds (rate 0.5) of" in done.output
    assert "5,506" in done.output


def test_what_is_not_defined_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"title": "a round", "run": "0" * 32}
    plain = {"measure": "signs", "settings": {}, "of": [one, one], "numbers": {}}
    analysing._print(plain | {"result": {"pooled": {"agreement": None}}})
    assert re.search(r"none is defined +│ +- ", capsys.readouterr().out)


def test_a_dataset_that_has_become_another_is_refused(inside: Finished) -> None:
    key = _stage(inside, "NET round 1").key
    found = inquire(inside.tracker, "curvature", [key], {})
    assert found.dataset(Path(), "cpu") is not None
    stage = found.looks[0].stage
    other = {**stage.params, "dataset": {**stage.params["dataset"], "train_size": 7}}
    look = replace(found.looks[0], stage=replace(stage, params=other))
    with pytest.raises(ElthError, match="is another now .*expected 7.*put back what was there"):
        replace(found, looks=(look,)).dataset(Path(), "cpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("overlap", "NET round 1"), "measure overlap looks at two trained networks, found 1"),
        (("travel", "NET rewind point"), "is a rewind point: name a round or a retraining"),
        (("travel", "NET imported 9d6d661c, iteration 21"), "is an imported stage"),
        (("travel", "distances of NET rounds 0 to 2"), "is an analysis stage"),
        (("thresholds", "NET dense round 0"), "give it, as rate=0.2"),
        (("thresholds", "NET dense round 0", "rate=2"), "rate must be a fraction"),
        (("barrier", "NET round 1", "NET round 2", "pionts=3"), "did you mean 'points'"),
        (("travel", "ffffffffff"), "has no run or stage 'ffffffffff'"),
    ],
)
def test_what_cannot_be_measured_is_said(
    inside: Finished, words: tuple[str, ...], message: str
) -> None:
    if "imported" in words[1]:
        given = next(one for one in inside.plan.stages.values() if one.is_given)
        words = (words[0], given.key[:12])
    with pytest.raises(ElthError, match=re.escape(message)):
        raise _analyse(inside, *words).exception or AssertionError("it was not refused")


def test_measures_are_listed() -> None:
    text = CliRunner().invoke(cli, ["measures"]).output
    assert all(name in text for name in MEASURES)


def test_an_analysis_has_no_ticket(inside: Finished) -> None:
    key = _stage(inside, "distances of NET rounds 0 to 2").key
    with pytest.raises(ElthError, match="is an analysis .distances of .*, which has no ticket"):
        tracked_ticket(inside.tracker, key)


def test_a_notebook_has_the_numbers_of_analyses_and_what_they_look_at(inside: Finished) -> None:
    found = orchestrator.results("inside", store=inside.store.folder)
    frame = found.analyses()
    assert sorted(set(frame.measure)) == ["barrier", "distances", "overlap"]
    overlaps = frame[(frame.measure == "overlap") & (frame.variant == "")]
    assert overlaps[overlaps.ticket == ""].iou.tolist() == [0.5, 0.5]
    assert frame[frame.measure == "distances"].iou.isna().all()
    one = found.trained(method="imp", round=2, variant="lrr")
    trained = inside.tracker.load(_stage(inside, "NET round 2, lrr").key)[1].trained
    assert trained is not None
    assert all(torch.equal(one.trained[name], tensor) for name, tensor in trained.items())
    assert sum(int(mask.sum()) for mask in one.mask.values()) == 2753
    with pytest.raises(ElthError, match="unknown axis 'rounds'"):
        found.trained(rounds=2)


def test_rounds_of_an_imported_ticket_are_a_line_of_their_own(inside: Finished) -> None:
    stages = inside.plan.stages
    for key in inside.plan.analyses:
        parents = [stages[parent].labels for parent in stages[key].parents]
        assert len({labels.get("ticket", "") for labels in parents}) == 1
        assert stages[key].labels.get("ticket", "") == parents[0].get("ticket", "")
