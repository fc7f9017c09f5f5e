"""Turns of several drivers on one cluster: who asks for room, and who makes it."""

from __future__ import annotations

import pytest

from orchestrator.work import sharing
from orchestrator.work.sharing import Turns


class Head:
    """The memory of Ray's head, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: dict[str, str] = {}
        self.now = 1000.0
        monkeypatch.setenv("ELTH_TURN_SECONDS", "100")
        monkeypatch.setattr(sharing, "_put", self.requests.__setitem__)
        monkeypatch.setattr(sharing, "_delete", lambda name: self.requests.pop(name, None))
        monkeypatch.setattr(sharing, "_requests", lambda: dict(self.requests))
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Head:
    return Head(monkeypatch)


def test_room_is_asked_for_after_a_turn_and_until_it_is_there(head: Head) -> None:
    large = Turns("large", yields=False)
    for waits, asks in ((0, False), (99, False), (101, True), (140, True), (0, False)):
        head.sleep(5)
        assert not large.look(waits)
        assert bool(head.requests) is asks


def test_small_trials_make_room_after_a_turn_of_their_own(head: Head) -> None:
    small, large = Turns("small", yields=True), Turns("large", yields=False)
    head.sleep(5)
    large.look(waits=500)
    assert not small.look(waits=0), "they have only begun"
    head.sleep(101)
    large.look(waits=600)
    assert small.look(waits=0)
    assert not small.look(waits=0), "looked a moment ago"


def test_a_head_that_is_away_is_asked_another_time(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ConnectionError("the head is away")

    small, large = Turns("small", yields=True), Turns("large", yields=False)
    with monkeypatch.context() as patched:
        for name in ("_put", "_requests"):
            patched.setattr(sharing, name, away)
        head.sleep(500)
        assert not large.look(waits=500)
        assert not small.look(waits=0)
    head.sleep(5)
    large.look(waits=505)
    assert head.requests


def test_waiting_ends_with_the_request(head: Head) -> None:
    small = Turns("small", yields=True)
    head.requests["large"] = "1"
    head.sleep(5)
    small.look(waits=0)
    head.requests["large"] = "2"
    looks = iter(range(10))

    def over() -> bool:
        if next(looks) == 3:
            head.requests.clear()
        return False

    small.wait(over)
    assert head.now == 1007.0


def test_waiting_ends_after_a_turn_though_nothing_was_placed(head: Head) -> None:
    small = Turns("small", yields=True)
    beats = iter(range(10_000))

    def over() -> bool:
        head.requests["large"] = str(next(beats))
        return False

    for _ in range(2):
        over()
        head.sleep(5)
        small.look(waits=0)
    small.wait(over)
    assert 1110 <= head.now < 1111
    head.sleep(50)
    assert not small.look(waits=0), "a turn of their own comes first"


def test_a_driver_that_died_is_not_waited_for(head: Head) -> None:
    small = Turns("small", yields=True)
    head.requests["dead"] = "7"
    for _ in range(100):
        head.sleep(5)
        assert not small.look(waits=0)
    small.wait(lambda: False)
    assert head.now == 1500.0


def test_one_that_dies_while_it_is_waited_for_is_waited_for_a_minute(head: Head) -> None:
    small = Turns("small", yields=True)
    for text in "12":
        head.requests["dead"] = text
        head.sleep(5)
        small.look(waits=0)
    small.wait(lambda: False)
    assert head.now == 1070.0


def test_a_driver_that_ends_asks_for_nothing(head: Head) -> None:
    large = Turns("large", yields=False)
    head.sleep(5)
    large.look(waits=500)
    assert head.requests
    large.end()
    assert not head.requests
