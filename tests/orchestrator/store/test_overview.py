"""The grids of a store at a glance."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.store.address import Store
from orchestrator.store.files import FILES, Files
from orchestrator.store.leases import SEEN, open_run
from orchestrator.store.overview import Overview, overview
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import (
    ELSEWHERE,
    artifact,
    begin,
    chain,
    grid_file,
    rewind_result,
    round_result,
    tiny,
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """Two grids that share a rewind point, one with a failure, one at work."""
    tracker = Tracker(Store.of(tmp_path_factory.mktemp("glance")))
    start, dense, first, second = chain("short")
    text = tiny("short", description="Two\nlines of text").resolved()
    tracker.grids.open("short", text, {one.key: one for one in (start, dense)}, "")
    tracker.grids.open("long", tiny("long").resolved(), {one.key: one for one in chain("long")}, "")
    begin(tracker, start, grid="short").finish(rewind_result(), keep_weights=False)
    begin(tracker, dense, grid="long").finish(round_result(900), keep_weights=True)
    begin(tracker, first, grid="long").fail("it broke", final=False, details="")
    at_work = open_run(tracker, second, grid="long", driver=ELSEWHERE)
    tracker.client.set_tag(at_work, SEEN, "2100-01-01T00:00:00+00:00")
    tracker.grids.open("empty", tiny("empty").resolved(), {}, "")
    return tracker


def _found(tracker: Tracker) -> dict[str, Overview]:
    return {one.name: one for one in overview(tracker)}


def _bytes(tracker: Tracker, key: str) -> int:
    run = tracker.run_of(key)
    assert run is not None
    folder = artifact(tracker, run.info.run_id, "result")
    return sum(path.stat().st_size for path in folder.iterdir())


def test_what_each_grid_is_at_a_glance(filled: Tracker) -> None:
    found = _found(filled)
    assert list(found) == ["empty", "long", "short"]
    start, dense = (_bytes(filled, one.key) for one in chain("short")[:2])
    short, long = found["short"], found["long"]
    assert (short.stages, short.finished, short.failed, short.running) == (2, 2, 0, 0)
    assert (short.size, short.description) == (start + dense, "Two lines of text")
    assert (long.stages, long.finished, long.failed, long.running) == (4, 2, 1, 1)
    assert (long.size, long.trouble) == (start + dense, "")
    assert long.seen == 4102444800.0, "what it said of itself, by its own clock"
    ended = max(one.ended for one in filled.stages("short"))
    assert short.seen == ended / 1000
    assert (found["empty"].stages, found["empty"].size) == (0, 0)
    assert found["empty"].seen is not None, "when it was begun"


def test_sizes_of_runs_of_before_come_from_their_folders(
    filled: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    sizes = Files.sizes

    def noting(self: Files, run_id: str, folder: str = "") -> dict[str, int]:
        asked.append(run_id)
        return sizes(self, run_id, folder)

    monkeypatch.setattr(Files, "sizes", noting)
    before = _found(filled)
    assert asked == [], "the list of stages tells"
    run = filled.run_of(chain("short")[0].key)
    assert run is not None
    filled.client.delete_tag(run.info.run_id, FILES)
    assert {name: one.size for name, one in _found(filled).items()} == {
        name: one.size for name, one in before.items()
    }
    assert asked == [run.info.run_id], "once, though two grids have it"
    filled.client.set_tag(run.info.run_id, FILES, run.data.tags[FILES])


def test_a_grid_that_is_known_by_tags_alone_or_half_begun(tmp_path: Path) -> None:
    tracker = Tracker(Store.of(tmp_path / "runs"))
    (start, *_) = chain("gone")
    begin(tracker, start, grid="gone").finish(rewind_result(), keep_weights=False)
    tracker.grids.open("broken", tiny("broken").resolved(), {start.key: start}, "")
    grid_file(tracker, "broken", "keys.json").unlink()
    found = _found(tracker)
    assert (found["gone"].stages, found["gone"].finished) == (1, 1)
    assert found["gone"].trouble == "its own run is gone, only tags tell of it"
    assert "was never begun to the end, or its files are gone" in found["broken"].trouble


def test_a_set_aside_stage_is_told_and_takes_room(tmp_path: Path) -> None:
    tracker = Tracker(Store.of(tmp_path / "runs"))
    (start, *_) = chain("aside")
    tracker.grids.open("aside", tiny("aside").resolved(), {start.key: start}, "")
    log = begin(tracker, start, grid="aside")
    log.finish(rewind_result(), keep_weights=False)
    size = _found(tracker)["aside"].size
    tracker.set_aside(tracker.client.get_run(log.run_id), "for a test")
    (one,) = _found(tracker).values()
    assert (one.finished, one.failed, one.set_aside, one.size) == (0, 0, 1, size)
    assert size > 0


def test_of_a_database_that_is_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = Tracker(Store.of(f"sqlite:///{tmp_path}/x.db"))
    (start, *_) = chain("other")
    tracker.grids.open("other", tiny("other").resolved(), {start.key: start}, "")
    log = begin(tracker, start, grid="other")
    log.finish(rewind_result(), keep_weights=False)
    size = _found(tracker)["other"].size
    tracker.client.delete_tag(log.run_id, FILES)
    assert _found(tracker)["other"].size == size > 0
