"""A grid that is watched: its line, its display in any terminal, and when it is over."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from orchestrator.report.status import STATES, State
from orchestrator.report.watching import Look, display, line, look
from tests.orchestrator.helpers import TINY, Finished


def _state(number: int, state: str, **words: object) -> State:
    title = f"resnet20(width=8) <- resnet14(width=8) append round {number}, seed 0"
    return State(key=f"{number:064x}", state=state, title=title, **words)  # type: ignore[arg-type]


def _look(*states: State, drivers: int = 1) -> Look:
    return Look(grid="g", store="runs", states=states, drivers=drivers)


MIXED = _look(
    _state(1, "finished", accuracy=91.25, ended=1000),
    _state(2, "finished", accuracy=90.5, ended=3000),
    _state(3, "finished", ended=4000),
    _state(4, "running", accuracy=55.125, reason="for 12 s"),
    _state(5, "failed", reason="the loss was not finite"),
    _state(6, "blocked", reason="another failed"),
    _state(7, "waiting", reason="can start"),
)


def _shown(now: Look, width: int, height: int = 24, note: str = "") -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(display(now, height=height, note=note))
    return capture.get().splitlines()


def test_a_line_tells_counts_and_the_last_accuracy() -> None:
    assert line(MIXED) == (
        "3 of 7 stages finished, 1 running, 1 failed, 1 blocked, 1 waiting; last resnet20(width=8) "
        "<- resnet14(width=8) append round 2, seed 0: 90.50 %"
    )


def test_it_is_said_when_no_run_is_at_work() -> None:
    waiting = _state(1, "waiting")
    assert line(_look(waiting, drivers=0)).endswith("1 waiting (no run is at work on it)")
    assert line(_look(waiting, drivers=2)).endswith("1 waiting (2 runs at work)")
    assert line(_look(_state(1, "finished"), drivers=0)) == "1 of 1 stages finished"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_display_fits_in_any_width(width: int) -> None:
    lines = _shown(MIXED, width)
    assert len(lines) == 7
    assert all(len(text.rstrip()) <= width for text in lines)
    assert lines[0].startswith("g in runs")
    assert "3/7" in lines[1]


def test_a_display_tells_what_is_wrong_first_and_the_last_results_last() -> None:
    rows = _shown(MIXED, 120)[3:]
    name = "resnet20(width=8) <- resnet14(width=8) append round"
    assert [row.rstrip() for row in rows] == [
        f"✗ {name} 5, seed 0  failed: the loss was not finite",
        f"● {name} 4, seed 0: 55.12 %  for 12 s",
        f"✓ {name} 2, seed 0: 90.50 %",
        f"✓ {name} 1, seed 0: 91.25 %",
    ]


def test_a_display_fits_in_any_height() -> None:
    many = _look(*(_state(number, "running", reason="for 1 s") for number in range(100)))
    for height in (8, 12, 30):
        lines = _shown(many, 80, height, note="the store does not answer")
        assert len(lines) < height
        assert lines[-1].startswith("the store does not answer")
        assert lines[-2].startswith("and ")
        shown = sum(text.startswith("●") for text in lines)
        assert lines[-2].split()[1] == str(100 - shown)


@pytest.mark.parametrize("state", STATES)
def test_when_it_is_over(state: str) -> None:
    over = state in ("finished", "failed", "blocked", "ended")
    assert _look(_state(1, "finished"), _state(2, state)).is_over == over
    failed = state in ("failed", "blocked")
    assert _look(_state(1, "finished"), _state(2, state)).has_failed == failed


def test_a_finished_grid(finished: Finished) -> None:
    now = look(finished.tracker, "done")
    assert now.is_over
    assert not now.has_failed
    assert now.counts == {"finished": 24}
    assert now.drivers == 0
    assert len(now.latest) == 3
    assert [one.ended for one in now.latest] == sorted((s.ended for s in now.latest), reverse=True)
    plain = now.plain()
    assert plain["counts"] == {state: 24 if state == "finished" else 0 for state in STATES}
    first = now.states[0].plain()
    assert first["labels"]["network"] == TINY
    assert first["state"] == "finished"
