"""How a run is shown: lines in a file, a live display in a terminal, lengths of time in words."""

from __future__ import annotations

import dataclasses
import io
import re
import threading
import time

import pytest
from rich.console import Console

from orchestrator.plan.costs import duration
from orchestrator.plan.graph import Plan
from orchestrator.plan.schedule import Running, Schedule, Snapshot
from orchestrator.plan.stage import Stage
from orchestrator.work import progress
from orchestrator.work.progress import Progress, display
from tests.orchestrator.helpers import chain


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 0 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Signalling(io.StringIO):
    """A file that tells when a word has been written to it."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self._word = word
        self.told = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._word in self.getvalue():
            self.told.set()
        return written


def _schedule() -> tuple[list[Stage], Schedule]:
    stages = chain("shown")
    return stages, Schedule(Plan({s.key: s for s in stages}), (), {}, slots=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines come as soon as something has changed."""
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.01)


def test_plain_lines_where_there_is_no_terminal() -> None:
    _, schedule = _schedule()
    file = Signalling("1 of 4 stages done, 1 running, 2 waiting")
    with Progress(schedule, Console(file=file, width=60), "shown"):
        schedule.take("0")
        schedule.advance("0", 1, 0.5, 50.0)
        assert file.told.wait(20)
        schedule.advance("0", 4, 0.0, None)
        schedule.end("0")
    lines = file.getvalue().splitlines()
    assert lines[-1].startswith("4 of 4 stages done in ")
    assert all("\x1b" not in line for line in lines)
    said = [line.partition("] ")[2] for line in lines[:-1]]
    assert len(said) == len(set(said))  # a line comes only when something has changed


def test_plain_lines_in_a_terminal_that_cannot_move_its_cursor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")  # as in the shell of Emacs, and in some batch systems
    _, schedule = _schedule()
    file = Signalling("1 of 4 stages done, 1 running, 2 waiting")
    console = Console(file=file, force_terminal=True, width=120, legacy_windows=False)
    with Progress(schedule, console, "shown"):
        schedule.take("0")
        schedule.advance("0", 1, 0.5, 50.0)
        assert file.told.wait(20)
    with progress.Counter(console, "files read") as counter:
        time.sleep(0.02)  # longer than between two lines
        counter.update(3, 5)
    assert "3 of 5 files read" in file.getvalue()


def test_a_failure_is_told_at_once_and_once_whatever_is_in_it() -> None:
    _, schedule = _schedule()
    file = Signalling("failed: ")
    with Progress(schedule, Console(file=file, width=60), "shown"):
        schedule.take("0")
        schedule.fail("0", "KeyError: [/bold] in layer[1] " + "x" * 80)
        schedule.end("0")
        assert file.told.wait(20)
    text = file.getvalue()
    assert text.count("KeyError: [/bold] in layer[1] " + "x" * 80 + "\n") == 1
    assert text.splitlines()[-1].startswith("0 of 4 stages done, 1 failed, 3 blocked in ")


def test_a_note_is_told_once() -> None:
    _, schedule = _schedule()
    file = Signalling("note: ")
    with Progress(schedule, Console(file=file, width=60), "shown"):
        for _ in range(2):
            schedule.note("[no] compiler " + "x" * 80)
            assert file.told.wait(20)
    assert file.getvalue().count("note: [no] compiler " + "x" * 80 + "\n") == 1


def test_the_last_line_comes_even_if_the_run_is_interrupted() -> None:
    _, schedule = _schedule()
    file = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress(schedule, Console(file=file), "shown"):
        raise KeyboardInterrupt
    assert file.getvalue().splitlines()[-1].startswith("0 of 4 stages done, 4 waiting in ")
    assert not [t for t in threading.enumerate() if t.name == "elth-progress"]


def test_a_live_display_in_a_terminal() -> None:
    _, schedule = _schedule()
    file = Signalling("0/4 stages")
    console = Console(file=file, force_terminal=True, width=120, legacy_windows=False)
    with Progress(schedule, console, "shown"):
        schedule.take("0")
        schedule.advance("0", 0, 0.5, 50.0)
        assert file.told.wait(20)
    assert "0 of 4 stages done, 1 running, 3 waiting in " in file.getvalue().splitlines()[-1]


def _snapshot(**changes: object) -> Snapshot:
    stages, _ = _schedule()
    running = Running(stage=stages[1], fraction=0.25, accuracy=71.3, since=time.monotonic() - 65)
    fields: dict[str, object] = {
        "total": 9,
        "found": 2,
        "done": 1,
        "running": (running,),
        "waiting": 3,
        "failed": {"key": "why"},
        "blocked": 1,
        "seconds_left": 3700.0,
    }
    return Snapshot(**(fields | changes))  # type: ignore[arg-type]


def test_a_live_display_shows_the_latest_note() -> None:
    text = _display(_snapshot(notes=("an earlier one", "x is begun again: it fell")))
    assert text.splitlines()[-1].strip() == "note: x is begun again: it fell"
    assert "an earlier one" not in text


def _display(now: Snapshot) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(display(now, "a [title]", 125.0))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_display_says_how_far_everything_is() -> None:
    text = _display(_snapshot())
    for words in (
        "a [title]",
        "3/9 stages",
        "2 min 05 s, about 1 h 01 min left",
        "resnet14(width=4) dense round 0, seed 0",
        "71.3 %",
        "1 min 05 s",
        "3 waiting, 2 found finished, 1 failed, 1 blocked",
    ):
        assert words in text
    assert "starting" not in text


def test_the_display_before_and_after() -> None:
    text = _display(_snapshot(running=(), found=0, failed={}, blocked=0, seconds_left=None))
    assert "3 waiting, starting" in text
    assert "left" not in text
    text = _display(_snapshot(total=0, found=0, done=0, running=(), waiting=0, failed={}))
    assert "0/0 stages" in text
    assert "left" not in text


def test_the_latest_results_and_the_slowest_stage_are_shown() -> None:
    now = _snapshot(latest=(("resnet20 round 3, seed 0", 93.4), ("resnet20 round 2, seed 0", 93.0)))
    running = dataclasses.replace(now.running[0], expected=20.0)
    now = dataclasses.replace(now, running=(running,))
    console = Console(width=120, file=io.StringIO())
    console.print(display(now, "shown", 10))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    told = "latest: resnet20 round 3, seed 0: 93.40 %; resnet20 round 2, seed 0: 93.00 %"
    assert told in text
    assert f"slowest: {running.stage.title}: 1 min 05 s, about 20 s expected" in text


def test_accuracies_are_told_in_lines_once_and_a_slow_stage_only_where_it_is_slow() -> None:
    stages = chain("slow")
    schedule = Schedule(Plan({s.key: s for s in stages}), (), {}, slots=1, seconds_per_work=1e-6)
    file = Signalling("slowest: ")
    with Progress(schedule, Console(file=file, width=60), "shown"):
        schedule.take("0")
        schedule.advance("0", 1, 1.0, 87.5)
        schedule.advance("0", 2, 0.5, 50.0, 87.5)
        assert file.told.wait(20)
        schedule.advance("0", 4, 0.0, None)
        schedule.end("0")
    text = file.getvalue()
    assert text.count(f"latest: {stages[1].title}: 87.50 %") == 1
    assert re.search(rf"slowest: {re.escape(stages[2].title)}: \d+ s, about 0 s expected", text)


def test_of_hundreds_of_trials_those_are_shown_that_have_run_longest() -> None:
    (running,) = _snapshot().running
    many = tuple(
        dataclasses.replace(running, accuracy=float(number % 90), since=running.since - number)
        for number in range(500)
    )
    console = Console(file=io.StringIO(), width=120)
    now = _snapshot(running=many, notes=("a note",), latest=(("resnet20 round 3", 93.4),))
    console.print(display(now, "shown", 10, height=20))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= 20
    shown = [line for line in lines if "●" in line]
    assert [
        f"{float(number % 90):.1f} %" in line
        for number, line in zip(range(499, 0, -1), shown, strict=False)
    ] == [True] * len(shown)
    assert any(f"and {500 - len(shown)} more" in line for line in lines)
    assert "3 waiting" in lines[-3], "what counts is not pushed out"


def test_a_display_that_takes_long_is_made_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    _, schedule = _schedule()
    now, asked = [1000.0], [0]
    monkeypatch.setattr("orchestrator.work.progress.time.monotonic", lambda: now[0])
    snapshot = schedule.snapshot

    def slow() -> Snapshot:
        asked[0] += 1
        now[0] += 0.2
        return snapshot()

    monkeypatch.setattr(schedule, "snapshot", slow)
    shown = Progress(schedule, Console(file=io.StringIO()), "shown")
    for _ in range(100):
        now[0] += 1.0
        shown._render()
    assert asked[0] == 10, "a fiftieth of the time"
