"""Chains that end before their last round, by ``pruning.stop``: what is ended with them, and why.

A round that has collapsed, or whose accuracy is below the bound, is the last of its chain. It is a
result as any other, and so is what is made of it. The rounds that would have followed, and all that
needs one of them, are *ended*: neither failed nor blocked.

That is decided from what is tracked of the rounds that come before, and from nothing else: not from
what is finished beyond, which another grid may have asked for, nor from who asks, where or when.
So the driver, its workers and the reports come to the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from orchestrator.experiment.pruning import Stop
from orchestrator.plan.stage import Stage, is_twin

_NAMED = 2


class Outcome(Protocol):
    """What is tracked of a finished stage."""

    @property
    def stage(self) -> Stage:
        """The stage."""

    @property
    def accuracy(self) -> float | None:
        """Test accuracy in percent after the last epoch."""

    @property
    def collapsed(self) -> tuple[str, ...]:
        """Weights of which no element is left."""


@dataclass(frozen=True)
class Link:
    """What a stage needs, and what it goes on from."""

    parents: tuple[str, ...]
    after: str = ""
    """The key of the round that comes before it in its chain, if it is such a round."""


def is_round(stage: Stage) -> bool:
    """Whether a stage is a round of a chain, which another one may go on from."""
    return stage.kind == "round" and not is_twin(stage)


def link_of(stage: Stage) -> Link:
    """What a stage needs; a round goes on from the round before it, which it names last."""
    goes_on = stage.kind == "round" and len(stage.parents) > 1
    return Link(stage.parents, stage.parents[-1] if goes_on else "")


def links_of(stages: Mapping[str, Stage]) -> dict[str, Link]:
    """What each stage needs, in the order of the plan."""
    return {key: link_of(stage) for key, stage in stages.items()}


def verdict(stop: Stop | None, found: Outcome) -> str:
    """Why a finished round is the last of its chain; nothing if the chain goes on."""
    if stop is None or not is_round(found.stage):
        return ""
    why = ""
    below = stop.accuracy_below
    if stop.collapsed and found.collapsed:
        more = len(found.collapsed) - _NAMED
        named = ", ".join(found.collapsed[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        why = f"has lost every weight of {named}"
    elif below is not None and found.accuracy is not None and not found.accuracy >= below:
        why = f"has {_told(found.accuracy, below)} % < {below:g} %"
    dense = not link_of(found.stage).after
    return f"{found.stage.title} {why}{', before any pruning' if dense else ''}" if why else ""


def verdicts(stop: Stop | None, found: Mapping[str, Outcome]) -> dict[str, str]:
    """Why some finished stages are the last of a chain, by key."""
    told = ((key, verdict(stop, one)) for key, one in found.items()) if stop is not None else ()
    return {key: why for key, why in told if why}


def ended(links: Mapping[str, Link], last: Mapping[str, str]) -> dict[str, str]:
    """The stages that are ended, each with the reason.

    Args:
        links: what each stage needs, parents before children.
        last: the rounds that are the last of their chain, as of ``verdicts``; of those that are
            ended themselves it does not matter.
    """
    found: dict[str, str] = {}
    for key, link in links.items():
        before = [found[parent] for parent in link.parents if parent in found]
        why = before[0] if before else last.get(link.after, "")
        if why:
            found[key] = why
    return found


def endings(stages: Mapping[str, str]) -> list[str]:
    """A line for people for each chain by whose end some stages are ended, as of ``ended``."""
    return [
        f"ended: {why}: the rounds that follow and what needs them are not done"
        for why in dict.fromkeys(stages.values())
    ]


def _told(accuracy: float, below: float) -> str:
    """An accuracy with as many digits as show that it is below a bound."""
    digits = next((n for n in range(1, 9) if float(f"{accuracy:.{n}f}") < below), 17)
    return f"{accuracy:.{digits}f}"
