"""What a grid consists of, and what another plan of the same name would make of it.

A grid is its cells and not its name. A plan that holds all that the grid holds is its
continuation. Seeds that are given apart add up: the grid is then the newer plan with the seeds of
both, and that has to hold all. A plan that would drop a cell, or give it another result, is
refused; but not where only a version of ours makes it in another way than the one before, nor
where all that was tried of it has failed. None of this needs MLflow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from elth.errors import ElthError
from orchestrator.experiment.axes import CELL, OF_LINE
from orchestrator.experiment.methods import rank, title
from orchestrator.experiment.pruning import Stop
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.building import build
from orchestrator.plan.ending import Link, Outcome, ended, links_of, verdicts
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import LOOKS_AT, MEASURE, Stage

_AXES = (*CELL, MEASURE, LOOKS_AT, "seed")
_SAID = ("claims", "margin")
"""Parts of an experiment by which its report judges."""
_IDLE = {"name", "description", "paper", "plugins", "seeds", "data", "resources", *_SAID}
"""Parts of an experiment that give no cell another result; seeds are told apart from the rest."""

_LINES = 3
_FIELDS = 4
_WIDTH = 40

_ALSO = "also"

Place = tuple[Any, ...]
"""Where a stage stands in a grid: its values of ``_AXES``."""


def keys_of(
    stages: Mapping[str, Stage], also: Mapping[str, Sequence[Mapping[str, Any]]] = {}
) -> dict[str, dict[str, Any]]:
    """The keys of some stages, each with what it is called, as of ``Content.keys``."""
    found = {key: dict(stage.labels) for key, stage in stages.items()}
    for key, more in also.items():
        found[key][_ALSO] = [dict(labels) for labels in more]
    return found


def all_labels(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All that a stage is called in a grid, as of ``Content.keys``."""
    more = found.get(_ALSO, ())
    return [{name: one for name, one in found.items() if name != _ALSO}, *more] if more else [found]


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a grid, or a file, consists of."""

    text: str
    """The resolved experiment, as YAML."""
    keys: Mapping[str, Mapping[str, Any]]
    """The keys of its stages, each with what it is in this grid.

    A run may be shared with a grid in which it is something else: one count of weights, kept by
    magnitude, belongs to round 4 at 36 % a round and to round 8 at 20 %. What it is in this grid
    besides, as the same round of two variants, is told under ``also``.
    """
    links: Mapping[str, Link] = field(default_factory=dict)
    """What each of them needs, where chains may end early: else nothing."""
    former: Mapping[str, Sequence[str]] = field(default_factory=dict, compare=False, repr=False)
    """The keys that some of its stages had before the version of their method was raised."""

    @staticmethod
    def of(experiment: Experiment, plan: Plan) -> Content:
        """What a file asks for."""
        labels = keys_of(plan.stages, plan.also)
        links = links_of(plan.stages) if experiment.pruning.stop is not None else {}
        former = {key: found for key, one in plan.stages.items() if (found := _former(one))}
        return Content(text=experiment.resolved(), keys=labels, links=links, former=former)

    @functools.cached_property
    def experiment(self) -> dict[str, Any]:
        """The experiment as plain values; none where the text holds no mapping.

        Raises:
            ValueError: it is no YAML.
        """
        try:
            plain = yaml.safe_load(self.text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
        return plain if isinstance(plain, dict) else {}

    @property
    def stop(self) -> Stop | None:
        """What ends its chains early.

        Raises:
            ValueError: it is of another form.
        """
        plain = (self.experiment.get("pruning") or {}).get("stop")
        return None if plain is None else Stop.model_validate(plain)

    def ended(self, found: Mapping[str, Outcome]) -> dict[str, str]:
        """Its stages that are ended, with the reasons (``plan.ending``).

        Args:
            found: those that are finished, by key.
        """
        return ended(self.links, verdicts(self.stop, found)) if self.links else {}

    @functools.cached_property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its stages."""
        return tuple(sorted({labels["seed"] for labels in self.keys.values() if "seed" in labels}))

    @functools.cached_property
    def places(self) -> frozenset[tuple[Place, str]]:
        """Each place with the key of its stage. Where its dataset lies is no part of it.

        What has no seed, as an imported ticket, is no cell, and is there with what comes of it.
        """
        return frozenset(
            (tuple(labels.get(axis, "") for axis in _AXES), key)
            for key, found in self.keys.items()
            for labels in all_labels(found)
            if "seed" in labels
        )


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a plan makes of the grid of its name."""

    grid: str
    store: str
    """For messages."""
    asked: Content
    """What the file asks for."""
    before: Content | None
    """The grid as it is; None if there is none."""
    after: Content
    """The grid as it would be."""
    replaces: bool = False
    """Whether the grid shall be what the file says, whatever it drops."""
    seen: tuple[str, int] = ("", 0)
    """The run and the version of the grid that this was worked out from."""
    mends: bool = False
    """Whether one of the grid's files is gone or damaged, and has to be written anew."""
    has_failed: bool = False
    """Whether of what the grid would lose something has failed, and nothing is finished, stopped or
    at work: as where a network failed that has been mended since."""
    renamed_by: str = "name=OTHER"
    """How the command gives the grid another name, for messages."""

    @functools.cached_property
    def lost(self) -> frozenset[tuple[Place, str]]:
        """What the grid would hold no longer, or with another result."""
        if self.before is None:
            return frozenset()
        gone = self.before.places - self.after.places - self.renewed
        # What was measured can be measured again, of what is kept.
        return frozenset(one for one in gone if not one[0][_AXES.index(MEASURE)])

    @functools.cached_property
    def renewed(self) -> frozenset[tuple[Place, str]]:
        """What the grid holds as an earlier version made it, and is to be done again."""
        former = self.after.former
        were = {(place, old) for place, key in self.after.places for old in former.get(key, ())}
        return self.before.places & were if self.before else frozenset()

    @functools.cached_property
    def dropped(self) -> frozenset[Place]:
        """Of what is lost that which the grid would have no more; the rest comes out otherwise."""
        stay = {place for place, _ in self.after.places}
        return frozenset(place for place, _ in self.lost if place not in stay)

    @property
    def refusal(self) -> str:
        """Why this may not be; empty if it may."""
        if self.before is None or self.replaces or not self.lost or self.has_failed:
            return ""
        dropped = self.dropped
        changed = [place for place, _ in self.lost if place not in dropped]
        would = " and ".join(
            f"{verb} {spell(places)}"
            for verb, places in (("drop", dropped), ("change", changed))
            if places
        )
        what = _fields(self.before.experiment, self.after.experiment)
        why = f" ({what})" if what else ""
        if changed and not what:
            why = (
                " (no field differs: the code or the data that they are made by does, see elth why "
                "with this file)"
            )
        return (
            f"the grid '{self.grid}' in {self.store} is of another plan, and this one would "
            f"{would}{why}: give it a name of its own by {self.renamed_by}, what is "
            "finished is shared; or let the grid be what this file says by --replace, no run is "
            "deleted"
        )

    @property
    def told(self) -> str:
        """What becomes of the grid, in a line."""
        if self.before is None:
            return f"The grid {self.grid} is new in {self.store}."
        if self.lost:
            count = sum(key not in self.after.keys for _, key in self.lost)
            end = " stay in the store"
            if self.has_failed:
                end = ", of which none was finished, are left out"
            return (
                f"The grid {self.grid} in {self.store} is what this file says now; {count:,} "
                f"stages that it held besides{end}."
            )
        count = len(self.after.keys.keys() - self.before.keys.keys()) - len(self.renewed)
        if self.renewed:
            more = f", and {count:,} stages are added" if count else ""
            return (
                f"The grid {self.grid} in {self.store} goes on; what another version made in "
                f"another way is done again: {spell(place for place, _ in self.renewed)}{more}."
            )
        if not count:
            differs = beside(self.grid, self.before, self.asked)
            said = [{k: one.experiment.get(k) for k in _SAID} for one in (self.before, self.after)]
            now = "" if said[0] == said[1] else "; what is claimed of it is what this file says now"
            return differs or f"The grid {self.grid} in {self.store} stays as it is{now}."
        new = sorted(set(self.after.seeds) - set(self.before.seeds))
        seeds = f", {spell_seeds(new)} to {spell_seeds(self.before.seeds)}" if new else ""
        return (
            f"The grid {self.grid} in {self.store} goes on: {count:,} stages are added to its "
            f"{len(self.before.keys):,}{seeds}."
        )


def grown(before: Content, experiment: Experiment, plan: Plan) -> Content:
    """A grid with a plan added: the plan, also for those seeds that only the grid has.

    With more rounds, what is asked of the last round alone moves on to the new one; what the grid
    has of it at the former last round stays.
    """
    asked = Content.of(experiment, plan)
    seeds = tuple(sorted({*before.seeds, *experiment.seeds}))
    whole, after = experiment.model_copy(update={"seeds": seeds}), asked
    if whole.resolved() == before.text and asked.places <= before.places:
        return before  # as the same plan of ten thousand stages takes seconds
    if seeds != experiment.seeds:
        after = Content.of(whole, build(whole, is_stored=True))
    stay = _of_former_rounds(before, after, whole)
    return dataclasses.replace(after, keys={**after.keys, **stay}) if stay else after


def joined(before: Content, asked: Content) -> Content:
    """A grid with one of another store added, by their keys alone: no code of theirs is needed.

    The one that holds all of the other; or, of two that differ in their seeds alone, the one of
    both. Else what is added, by which something is lost.
    """
    if asked.places <= before.places:
        return before
    is_more = {place[:-1] for place, _ in asked.places} == {p[:-1] for p, _ in before.places}
    seeds = sorted({*before.seeds, *asked.seeds})
    shared = set(before.seeds) & set(asked.seeds)
    if before.places <= asked.places or not is_more:
        return asked
    if any(p not in asked.places for p in before.places if p[0][-1] in shared):
        return asked
    if _fields(before.experiment, asked.experiment):
        return asked
    whole = yaml.safe_dump(
        {**asked.experiment, "seeds": seeds}, sort_keys=False, allow_unicode=True
    )
    return Content(
        text=whole,
        keys={**before.keys, **asked.keys},
        links={**before.links, **asked.links},
    )


def _of_former_rounds(
    before: Content, after: Content, whole: Experiment
) -> dict[str, Mapping[str, Any]]:
    """What a grid has that the same experiment with fewer rounds asks for, and is not in it now."""
    here = {place for place, _ in after.places}
    missing = {place for place, _ in before.places if place not in here}
    rounds = {place[_AXES.index("round")] for place in missing}
    rounds = {number for number in rounds if 0 < number < whole.pruning.rounds}
    if not rounds:
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    first, *rest = sorted({place[-1] for place in missing})
    for seeds in ((first,), tuple(rest)):  # one seed tells soon whether it is so
        for number in sorted(rounds) if seeds else ():
            pruning = whole.pruning.model_copy(update={"rounds": number})
            fewer = {"pruning": pruning, "seeds": seeds, "claims": ()}  # which may be of more
            one = whole.model_copy(update=fewer)
            with contextlib.suppress(ElthError):  # an exact sparsity that needs more rounds
                made = Content.of(one, build(one, is_stored=True))
                found |= {
                    key: made.keys[key]
                    for place, key in made.places & before.places
                    if place in missing
                }
        if {labels["round"] for labels in found.values() if labels["seed"] == first} != rounds:
            break
    return found


def beside(grid: str, held: Content, asked: Content) -> str:
    """How a grid differs from what a file asks for, in a line; empty if it does not."""
    more, less = held.places - asked.places, asked.places - held.places
    if not more and not less:
        return ""
    besides = spell(place for place, _ in more)
    if not less:
        seeds = set(held.seeds) - set(asked.seeds)
        if seeds and {p[:-1] for p, _ in held.places} == {p[:-1] for p, _ in asked.places}:
            besides = spell_seeds(seeds)
        return (
            f"The grid {grid} holds more than this file asks for, which is shown by its name: "
            f"{besides}."
        )
    what = _fields(held.experiment, asked.experiment)
    return (
        f"The grid {grid} is another: it lacks {len(less):,} of the {len(asked.keys):,} stages of "
        f"this file"
        + (f", and holds besides {besides}" if more else "")
        + (f" ({what})" if what else "")
        + "."
    )


def _former(stage: Stage) -> tuple[str, ...]:
    """The keys of a stage under all earlier versions of its method, of those of ours."""
    steps = stage.params.get("ticket", ())
    latest = max((v for step in steps if isinstance(v := step.get("version"), int)), default=1)
    found = []
    for version in range(1, latest):
        ticket = []
        for step in steps:
            is_later = isinstance(step.get("version"), int) and step["version"] > version
            rest = {name: value for name, value in step.items() if name != "version"}
            named = rest | ({"version": version} if version > 1 else {})
            ticket.append(named if is_later else step)
        found.append(dataclasses.replace(stage, params={**stage.params, "ticket": ticket}).key)
    return tuple(found)


def spell_seeds(seeds: Iterable[int]) -> str:
    """Seeds as people write them: ``seed 0``, ``seeds 0, 2``, ``seeds 0 to 9``."""
    found = sorted(set(seeds))
    return f"seed{'s' if len(found) != 1 else ''} {_numbers(found)}"


def _numbers(found: list[int]) -> str:
    """Sorted numbers; more than three in a row by the first and the last."""
    parts: list[str] = []
    while found:
        length = 1
        while length < len(found) and found[length] == found[0] + length:
            length += 1
        row, found = found[:length], found[length:]
        parts += [f"{row[0]} to {row[-1]}"] if length > 3 else map(str, row)
    return ", ".join(parts)


def spell(places: Iterable[Place]) -> str:
    """Cells as the lines that they belong to, as ``imp on resnet20, rounds 4, 5, seed 0``."""
    lines: dict[Place, list[dict[str, Any]]] = {}
    found = [dict(zip(_AXES, place, strict=True)) for place in places]
    found.sort(key=lambda one: (one["dataset"], one["network"], rank(one["method"]), str(one)))
    cells = [one for one in found if one["method"] != "rewind" and not one[MEASURE]]
    for one in cells or found:
        lines.setdefault(tuple(one[axis] for axis in OF_LINE), []).append(one)
    told = []
    for line, some in list(lines.items())[:_LINES]:
        network, dataset, method, source, transform, ticket, variant, noise = line
        plan = "" if transform in ("", "identity") else f" {transform}"
        text = f"{title(method)}{f' <- {source}{plan}' if source else ''}"
        text += f"{f' from {ticket}' if ticket else ''} on {network}, {dataset}"
        text += f", {variant}" if variant else ""
        text += f", noise {noise}" if noise else ""
        rounds = sorted({one["round"] for one in some if not one["target"] and one["round"]})
        targets = sorted({float(one["target"]) for one in some if one["target"]})
        if rounds:
            text += f", round{'s' if len(rounds) > 1 else ''} {_numbers(rounds)}"
        if targets:
            text += f", sparsity {', '.join(map(repr, targets))}"
        told.append(f"{text}, {spell_seeds(one['seed'] for one in some)}")
    rest = len(lines) - len(told)
    return "; ".join(told) + (f"; and {rest} lines more" if rest else "")


def _fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The fields by which two experiments differ, as ``recipe.lr is 0.1 there and 0.2 here``."""
    there, here = ({k: v for k, v in one.items() if k not in _IDLE} for one in (before, after))
    found = list(_differences("", there, here))
    told = [
        f"{name} is {_value(old)} there and {_value(new)} here"
        for name, old, new in found[:_FIELDS]
    ]
    return ", ".join(told) + (f", and {len(found) - _FIELDS} more" if found[_FIELDS:] else "")


def _differences(name: str, there: Any, here: Any) -> Iterator[tuple[str, Any, Any]]:
    """Dotted names, as overrides write them, with the values of both; None where there is none."""
    if all(isinstance(one, list) and one and isinstance(one[0], dict) for one in (there, here)):
        there, here = dict(enumerate(there)), dict(enumerate(here))
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in {**there, **here}:
            full = f"{name}.{key}" if name else str(key)
            yield from _differences(full, there.get(key), here.get(key))
    elif _given(there) != _given(here):
        yield name, there, here


def _given(value: Any) -> Any:
    return None if value in ({}, []) else value


def _value(value: Any) -> str:
    text = "not given" if _given(value) is None else str(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
