"""What ``elth ui`` adds to a store; the pages themselves are looked at in tests/e2e."""

from __future__ import annotations

import tarfile
from pathlib import Path

from orchestrator.report.ui import add_numbers
from orchestrator.store.address import Store
from orchestrator.store.describing import NUMBERS, numbers_of
from orchestrator.store.tracker import Tracker


def test_runs_of_before_get_their_numbers_once(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parents[2] / "data" / "store_645568c.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    tracker = Tracker(Store.of(tmp_path / "runs"))
    before = {run.info.run_id: run for run in tracker.search()}
    assert not any(name in run.data.metrics for run in before.values() for name in NUMBERS)
    assert add_numbers(tracker) == len(before)
    for run in tracker.search():
        numbers = {name: one for name, one in run.data.metrics.items() if name in NUMBERS}
        assert numbers == numbers_of(run.data.params)
        assert {"round", "seed"} <= numbers.keys()
        assert run.info.end_time == before[run.info.run_id].info.end_time
    assert add_numbers(tracker) == 0


def test_a_new_store_has_nothing_to_add(tracker: Tracker) -> None:
    assert add_numbers(tracker) == 0
