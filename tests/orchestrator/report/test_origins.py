"""Versions, commits and machines of a grid, of few questions to a store of many runs."""

from __future__ import annotations

from orchestrator.report.origins import origins
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import begin, chain, epoch, rewind_result


def test_each_value_is_found_once(tracker: Tracker) -> None:
    stages = chain("origins", seeds=[2900, 2901, 2902])
    starts = [one for one in stages if one.kind == "rewind_point"]
    for number, stage in enumerate(starts):
        log = begin(tracker, stage, grid="origins")
        tracker.client.set_tag(log.run_id, "version.torch", f"2.1{number // 2}")
        tracker.client.set_tag(log.run_id, "mlflow.source.git.commit", f"{number}f")
        log.epoch(epoch(1))
        log.finish(rewind_result(), keep_weights=False)
    found = origins(tracker, "origins")
    assert found["PyTorch"] == ("2.10", "2.11")
    assert found["commit"] == ("0f", "1f", "2f")
    assert len(found["machine"]) == 1
    assert origins(tracker, "another") == {}
