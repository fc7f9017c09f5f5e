"""What MLflow's pages show of a stage in MLflow's own terms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from orchestrator.store import pace, runlog
from orchestrator.store.describing import (
    inputs_from,
    inputs_of,
    note_of,
    numbers_of,
    plain_inputs,
)
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import begin, chain, epoch, rewind_result


def test_what_is_a_number_is_a_metric_and_the_rest_is_left_out() -> None:
    params = {"round": "10", "seed": 2, "sparsity": "36.00", "nonzeros": "-", "network": "x"}
    assert numbers_of(params) == {"round": 10, "seed": 2, "sparsity": 36}


def test_the_two_parts_of_a_dataset_are_inputs_that_mlflow_tells_apart() -> None:
    stage = chain()[2]
    found = inputs_of(stage)
    assert [one.tags[0].value for one in found] == ["train", "test"]
    digest = stage.params["dataset"]["fingerprint"][:16]
    assert [one.dataset.digest for one in found] == [f"{digest}-train", f"{digest}-test"]
    assert [json.loads(str(one.dataset.profile))["images"] for one in found] == [1297, 500]
    again = inputs_from(json.loads(json.dumps(plain_inputs(found))))
    assert [one.to_dictionary() for one in again] == [one.to_dictionary() for one in found]


def test_a_stage_of_a_dataset_that_is_not_here_has_inputs_too() -> None:
    stage = chain()[2]
    elsewhere = type(stage).of(
        {**stage.describe(), "labels": {**stage.labels, "dataset": "x", "place": "no_lab.x:y"}}
    )
    assert [json.loads(str(one.dataset.profile)) for one in inputs_of(elsewhere)] == [
        {"images": None},
        {"images": None},
    ]


def test_a_description_names_the_stage_and_links_to_what_it_is_made_from() -> None:
    start, dense = chain()[:2]
    assert note_of(start, "1", "g").startswith(
        f"**{start.title}**: a rewind point of `resnet14(width=4)` on digits, method `rewind`, "
        f"first made for the grid `g`. Its key is `{start.key[:12]}`"
    )
    assert "Made from" not in note_of(start, "1", "g")
    assert note_of(dense, "1", "g").endswith(
        f"Made from [{start.key[:12]}](#/experiments/1/runs?searchFilter="
        f"tags.%60elth.key%60%20%3D%20%27{start.key}%27)."
    )


def test_no_stage_fails_for_its_inputs(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that are the first to name a dataset MLflow refuses one."""
    start = chain("inputs", seeds=[7101])[0]
    log = begin(tracker, start)

    def refused(*_: Any, **__: Any) -> None:
        raise MlflowException("UNIQUE constraint failed")

    monkeypatch.setattr(tracker.client, "log_inputs", refused)
    log.epoch(epoch(1))
    log.finish(rewind_result(), keep_weights=False)
    assert tracker.get(log.run_id).info.status == "FINISHED"


def test_inputs_are_sent_once_and_again_only_if_they_were_refused(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runlog, "_FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(pace, "_SHARE", 1e6)  # else a slow core is waited for
    start = chain("inputs", seeds=[7102])[0]
    sent: list[bool] = []
    send = tracker.client.log_inputs

    def at_second(*args: Any, **words: Any) -> None:
        sent.append(bool(sent))
        if not sent[-1]:
            raise MlflowException("UNIQUE constraint failed")
        send(*args, **words)

    monkeypatch.setattr(tracker.client, "log_inputs", at_second)
    log = begin(tracker, start)
    for number in range(1, 6):
        log.epoch(epoch(number))
    log.finish(rewind_result(), keep_weights=False)
    assert sent == [False, True]
    found = tracker.client.search_runs(
        [tracker.experiments["elth"]],
        f"dataset.name = 'digits' and dataset.context = 'train' "
        f"and tags.`elth.key` = '{start.key}'",
    )
    assert [run.info.run_id for run in found] == [log.run_id]
