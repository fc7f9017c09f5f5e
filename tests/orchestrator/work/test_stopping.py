"""Signals that end a run: what they start, and when they end it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from orchestrator.work import stopping
from orchestrator.work.stopping import SIGNALS, Stop


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The signals' handlers are as before, and until then those that no nohup has set."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The drivers whose trials were told to end."""
    drivers: list[str] = []

    def tell(name: str) -> bool:
        drivers.append(name)
        return True

    monkeypatch.setattr(stopping, "_tell", tell)
    return drivers


@pytest.fixture
def ended() -> list[int]:
    """The signals that reached Tune."""
    return []


@pytest.fixture
def stop(ended: list[int]) -> Stop:
    """A driver that listens."""

    def end(number: int, frame: FrameType | None) -> None:
        ended.append(number)

    made = Stop("me")
    made.listen(end)
    return made


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_lets_trials_end(
    number: int, stop: Stop, told: list[str], ended: list[int]
) -> None:
    stop.look(busy=False)
    assert not stop.asked
    assert (told, ended) == ([], [])
    signal.raise_signal(number)
    assert stop.asked
    stop.look(busy=True)
    stop.look(busy=True)
    assert (told, ended) == (["me/0"], [])
    stop.look(busy=False)
    assert len(ended) == 1


def test_trials_are_told_again_where_the_head_did_not_hear_it(
    stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of it would end the whole run, in the middle of its end."""
    heard = iter((ConnectionError("away"), None))

    def put(*_: object, **__: object) -> None:
        if (error := next(heard)) is not None:
            raise error

    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.experimental.internal_kv._internal_kv_put", put)
    signal.raise_signal(signal.SIGTERM)
    for _ in range(3):
        stop.look(busy=True)
    assert next(heard, "told twice") == "told twice"


def test_trials_that_take_too_long_are_not_waited_for(
    stop: Stop, told: list[str], ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(stopping, "GRACE_SECONDS", -1.0)
    stop.look(busy=True)
    assert len(ended) == 1


def test_the_second_signal_ends_at_once_and_the_third_by_force(
    stop: Stop, ended: list[int]
) -> None:
    signal.raise_signal(signal.SIGINT)
    assert ended == []
    signal.raise_signal(signal.SIGINT)
    assert len(ended) == 1
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_before_tune_listens_every_signal_is_ctrl_c(number: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stopping.like_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stopping.like_ctrl_c()
    signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_without_ray_nobody_is_told_and_nobody_asks() -> None:
    asked = stopping.watch("me")
    assert asked() is False
    assert stopping._tell("me") is True
    assert stopping.watch("me")() is False


def test_trials_that_make_room_are_told_once_and_the_next_are_not(
    stop: Stop, told: list[str], ended: list[int]
) -> None:
    first = stop.name
    stop.pause()
    assert not stop.asked
    stop.look(busy=True)
    assert (told, ended) == ([first], [])
    stop.look(busy=False)
    assert len(ended) == 1
    stop.resume()
    assert not stop.pauses
    assert stop.name != first
    stop.listen(lambda number, frame: ended.append(number))
    stop.look(busy=False)
    assert (told, len(ended)) == ([first], 1)


def test_a_signal_during_a_pause_ends_the_run(stop: Stop, told: list[str]) -> None:
    stop.pause()
    signal.raise_signal(signal.SIGTERM)
    stop.resume()
    assert stop.asked


def test_time_that_is_over_is_as_the_first_signal(
    told: list[str], ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("orchestrator.work.stopping.time.monotonic", lambda: now[0])
    made = Stop("me", until=200.0)
    made.listen(lambda number, frame: ended.append(number))
    made.look(busy=True)
    assert not made.asked
    now[0] = 200.0
    assert made.asked
    assert made.is_late
    made.look(busy=True)
    assert (told, ended) == (["me/0"], [])
    now[0] += stopping.GRACE_SECONDS
    made.look(busy=True)
    assert ended == []  # trials still have time to write
    now[0] += 0.5
    made.look(busy=True)
    assert len(ended) == 1


def test_a_signal_before_the_time_is_over_is_one(told: list[str]) -> None:
    made = Stop("me", until=0.0)
    made.listen(lambda number, frame: None)
    assert made.is_late
    signal.raise_signal(signal.SIGINT)
    assert made.asked
    assert not made.is_late
