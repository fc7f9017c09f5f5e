"""A command that is told of a run: when, what, and what its own failures do."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from orchestrator import plan
from orchestrator.plan.schedule import Schedule
from orchestrator.work import notifying
from orchestrator.work.notifying import Notifier
from orchestrator.work.stopping import TimeOverError
from tests.orchestrator.helpers import tiny

_WRITE = (
    "import json, os, sys; file = open(sys.argv[1], 'a', encoding='utf-8'); "
    "print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('ELTH_')}), file=file)"
)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are looked for without waiting."""
    monkeypatch.setattr(notifying, "_LOOK_SECONDS", 0.01)


def _schedule(failed: dict[str, str] | None = None) -> Schedule:
    return Schedule(plan.build(tiny("told")), (), failed or {}, slots=1)


def _notifier(command: str) -> tuple[Notifier, list[str]]:
    warnings: list[str] = []
    made = Notifier(command, grid="told", store="runs", warn=warnings.append)
    return made, warnings


def _writing(path: Path) -> str:
    return f'{sys.executable} -c "{_WRITE}" {path}'


def _told(path: Path) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8")
    return sorted(map(json.loads, text.splitlines()), key=lambda one: one["ELTH_EVENT"])


def test_the_end_is_told(tmp_path: Path) -> None:
    made, warnings = _notifier(_writing(tmp_path / "told"))
    with made, made.watching(_schedule()):
        pass
    (told,) = _told(tmp_path / "told")
    assert told["ELTH_EVENT"] == "finished"
    assert told["ELTH_MESSAGE"] == "told: finished after 0 s: 0 of 4 stages done"
    assert (told["ELTH_GRID"], told["ELTH_STORE"]) == ("told", "runs")
    numbers = (told["ELTH_DONE"], told["ELTH_FAILED"], told["ELTH_TOTAL"])
    assert numbers == ("0", "0", "4")
    assert warnings == []


def test_the_first_failure_of_this_run_is_told_once(tmp_path: Path) -> None:
    made, warnings = _notifier(_writing(tmp_path / "told"))
    schedule = _schedule()
    with made, made.watching(schedule):
        schedule.take("trial")
        schedule.fail("trial", "it was no good")
        schedule.end("trial")
    failed, finished = _told(tmp_path / "told")
    assert failed["ELTH_EVENT"] == "failed"
    title = "resnet14(width=4) rewind point, seed 0"
    assert failed["ELTH_MESSAGE"] == f"told: failed: {title}: it was no good"
    assert finished["ELTH_MESSAGE"].endswith(": 0 of 4 stages done, 1 failed")
    assert finished["ELTH_FAILED"] == "1"
    assert warnings == []


def test_what_failed_before_is_no_news(tmp_path: Path) -> None:
    made, _ = _notifier(_writing(tmp_path / "told"))
    key = next(iter(plan.build(tiny("told")).stages))
    with made, made.watching(_schedule({key: "long ago"})):
        pass
    assert [one["ELTH_EVENT"] for one in _told(tmp_path / "told")] == ["finished"]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TimeOverError(), "as its hours are over"),
        (KeyboardInterrupt(), "by a signal"),
        (ValueError("the disk is full"), "the disk is full"),
    ],
)
def test_why_it_stopped_is_told(tmp_path: Path, error: BaseException, why: str) -> None:
    made, _ = _notifier(_writing(tmp_path / "told"))
    with pytest.raises(type(error)), made, made.watching(_schedule()):
        raise error
    (told,) = _told(tmp_path / "told")
    assert told["ELTH_EVENT"] == "stopped"
    assert told["ELTH_MESSAGE"] == f"told: stopped after 0 s, {why}: 0 of 4 stages done"


def test_a_command_that_fails_is_a_warning() -> None:
    made, warnings = _notifier("echo first; echo no such host >&2; exit 7")
    with made:
        pass
    about = "the command of --notify, of 'finished',"
    assert warnings == [f"{about} ended with 7: no such host"]


def test_a_command_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifying, "SECONDS", 0.3)
    made, warnings = _notifier(f"(sleep 600; touch {tmp_path / 'late'}) | cat")
    began = time.monotonic()
    with made:
        pass
    assert time.monotonic() - began < 60
    about = "the command of --notify, of 'finished',"
    assert warnings == [f"{about} did not end within 0.3 s, and was ended"]


def test_a_run_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifying, "SECONDS", 0.3)
    made, warnings = _notifier('test "$ELTH_EVENT" = finished || sleep 600')
    schedule = _schedule()
    with made:
        with made.watching(schedule):
            schedule.take("trial")
            schedule.fail("trial", "it was no good")
            schedule.end("trial")
        assert schedule.is_over  # and nothing has waited for the command
    assert len(warnings) == 1
    assert "of 'failed', did not end" in warnings[0]
