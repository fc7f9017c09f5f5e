"""How often a worker sends: many workers, one server."""

from __future__ import annotations

import random

import pytest

from orchestrator.store.pace import SLOW, Pace


def _middle(low: float, high: float) -> float:
    return (low + high) / 2


def test_a_server_that_answers_at_once_is_sent_to_as_often_as_can_be() -> None:
    pace = Pace(5.0, _middle)
    for _ in range(10):
        pace.answered(0.01, 0.001)
        assert pace.pause() == 5


def test_an_error_halves_the_rate_and_answers_bring_it_back_step_by_step() -> None:
    pace = Pace(5.0, _middle)
    pace.failed()
    assert pace.pause() == 10
    pace.answered(SLOW, 0.001)
    assert pace.pause() == 20
    pauses = []
    for _ in range(10):
        pace.answered(0.1, 0.001)
        pauses.append(pace.pause())
    assert pauses[:3] == pytest.approx([15, 12, 10])
    assert pauses == sorted(pauses, reverse=True)
    assert pauses[-1] == 5


def test_a_server_that_is_away_is_asked_now_and_then() -> None:
    pace = Pace(5.0, _middle)
    for _ in range(30):
        pace.failed()
    assert pace.pause() == 120


def test_sending_takes_a_two_hundredth_of_a_core_at_most() -> None:
    pace = Pace(5.0, _middle)
    pace.answered(0.1, 0.1)
    assert pace.pause() == 20


def test_those_that_began_together_part() -> None:
    paces = [Pace(5.0) for _ in range(20)]
    pauses = {pace.pause() for pace in paces}
    assert len(pauses) == 20
    assert min(pauses) >= 3.75
    assert max(pauses) <= 6.25


def test_what_is_drawn_for_it_leaves_the_process_s_own_generator_alone() -> None:
    state = random.getstate()
    assert Pace(5.0).pause() != Pace(5.0).pause()
    assert random.getstate() == state


@pytest.mark.parametrize("workers", [8, 64, 512])
def test_workers_share_what_one_server_takes(workers: int) -> None:
    """A stand-in: of the batches of a second it answers twenty, and refuses the others."""
    paces = [Pace(5.0) for _ in range(workers)]
    due = [pace.pause() for pace in paces]
    asked = refused = 0
    for second in range(3600):
        now = [i for i in range(workers) if due[i] <= second]
        for nth, i in enumerate(now):
            if nth < 20:
                paces[i].answered(0.05, 0.0)
            else:
                paces[i].failed()
            due[i] = second + paces[i].pause()
        if second >= 1800:
            asked += len(now)
            refused += max(0, len(now) - 20)
    answered = (asked - refused) / 1800
    assert answered >= min(20, workers / 5) * 0.6
    assert refused <= 0.3 * asked
