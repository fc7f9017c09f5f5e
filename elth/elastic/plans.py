"""Plans: which source unit fills each unit of a deeper or shallower network.

A plan is written in a notation short enough to type:

=============================  ==================================================================
``append``                     repeat units as a whole, right after the last of them
``append:1,2`` ``append:1-4``  repeat these units only
``interpolate``                repeat each unit right after itself
``drop``                       leave out the last units
``drop:1,3,5,7``               leave out these
``auto``                       append where a stage gets deeper, drop where it gets shallower
``interpolate:1,2x4``          each of units 1 and 2 four times in all
``interpolate:1,2x2+append``   one step after the other; the last one fills the stage
``identity``                   every unit in its own place, between networks of one depth
``0 1 1 2 2``                  the source unit of every target unit, spelled out
``0 1 | 0 1 1 | drop``         a plan of its own for every stage
=============================  ==================================================================

A stage that has no units in either network, as the tail of a VGG with one linear layer, need not be
written.

When no units are named, as many distinct units as can be are replicated, as few times as can be,
earlier ones first (E-LTH, section 3.1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from elth.errors import ElthError, unknown
from elth.networks import Anatomy, Stage
from elth.specs import Spec

StagePlan = tuple[int, ...]
"""Source unit of every unit of the target stage."""

OPERATIONS = ("append", "interpolate", "drop", "auto", "identity")

_STEP = re.compile(r"([a-z]+)(?::(\d+(?:[-,]\d+)*)?(?:x(\d+))?)?")


@dataclass(frozen=True)
class Plan:
    """For each stage, the source unit of every target unit."""

    stages: tuple[StagePlan, ...]

    @property
    def is_identity(self) -> bool:
        """Whether each unit fills its own place; true also where only the last are dropped."""
        return all(stage == tuple(range(len(stage))) for stage in self.stages)


@dataclass(frozen=True)
class _Step:
    text: str
    operation: str
    units: tuple[int, ...] | None
    times: int | None


def resolve(text: str, source: Anatomy, target: Anatomy) -> Plan:
    """Work out the plan that a notation means between two networks.

    Args:
        text: the notation (see the module's table).
        source: anatomy of the network that the ticket was found on.
        target: anatomy of the network that it goes to.

    Raises:
        ElthError: the notation cannot be read, or the plan does not fill the target exactly, or
            moves a fixed unit; the message names the stage and the numbers.
    """
    _check_family(source, target)
    parts = [part.strip() for part in text.split("|")]
    every, places = len(source.stages), _written(source, target)
    if len(parts) not in (1, len(places), every):
        some = f" ({len(places)} of them with units)" if len(places) < every else ""
        raise ElthError(
            f"the plan '{text}' has {len(parts)} parts; these networks have "
            f"{every} stages{some}: give one part, or one for each stage"
        )
    if len(parts) == 1:
        parts *= len(places)
    elif len(parts) == every:
        places = list(range(every))
    written = dict(zip(places, parts, strict=True))
    plan = Plan(
        tuple(
            _resolve_stage(written[place], s, t) if place in written else ()
            for place, (s, t) in enumerate(zip(source.stages, target.stages, strict=True))
        )
    )
    check(plan, source, target)
    return plan


def check(plan: Plan, source: Anatomy, target: Anatomy) -> None:
    """Refuse a plan that does not fill every stage of the target or that moves a fixed unit.

    Raises:
        ElthError: the networks are of two families, or the plan does not fit them; the message
            names the stage, what was found and what was expected.
    """
    _check_family(source, target)
    if len(plan.stages) != len(target.stages):
        raise ElthError(f"the plan has {len(plan.stages)} stages, the target {len(target.stages)}")
    for units, s, t in zip(plan.stages, source.stages, target.stages, strict=True):
        if len(units) != len(t.units):
            raise ElthError(
                f"stage {t.name}: the plan fills {len(units)} units ({_spell(units)}), "
                f"the target has {len(t.units)}"
            )
        for position, unit in enumerate(units):
            if not 0 <= unit < len(s.units):
                raise ElthError(f"stage {t.name}: {_no_unit(unit, s)}")
            if (unit in s.fixed or position in t.fixed) and unit != position:
                raise ElthError(
                    f"stage {t.name}: unit {unit} cannot fill place {position}: unit "
                    f"{s.fixed[0] if s.fixed else t.fixed[0]} is fixed, as it changes the "
                    "resolution or width; it stays in its place"
                )


def label(plan: Plan, source: Anatomy, target: Anatomy) -> str:
    """The canonical notation of a plan: the same for every way of writing the same plan.

    ``resolve`` reads it back as the same plan. A named operation comes before a spelled-out plan.

    Example: from ResNet-14 to ResNet-20 ``append``, ``interpolate`` and ``0 1 1`` are one plan,
    and its label is ``append``.
    """
    if plan.is_identity and all(
        len(s.units) == len(t.units) for s, t in zip(source.stages, target.stages, strict=True)
    ):
        return "identity"
    named = []
    for units, s in zip(plan.stages, source.stages, strict=True):
        if len(units) > len(s.units):
            chosen = [u for u in s.free if units.count(u) > 1]
            named += [f"{op}:{_numbers(chosen)}" for op in ("append", "interpolate") if chosen]
        elif len(units) < len(s.units):
            named.append(f"drop:{_numbers([u for u in s.free if u not in units])}")
    for text in ("append", "interpolate", "drop", "auto", *sorted(set(named))):
        try:
            if resolve(text, source, target) == plan:
                return text
        except ElthError:
            continue
    return spell(plan, source, target)


def spell(plan: Plan, source: Anatomy | None = None, target: Anatomy | None = None) -> str:
    """The plan spelled out, one part for all stages where they agree: ``0 1 1 2 2``.

    A stage that is to be empty reads ``drop``; given the anatomies, one that is empty in both
    networks is left out.
    """
    places = _written(source, target) if source and target else range(len(plan.stages))
    parts = [_spell(plan.stages[place]) or "drop" for place in places]
    return parts[0] if len(set(parts)) == 1 else " | ".join(parts)


def explain(
    plan: Plan,
    source: Anatomy,
    target: Anatomy,
    names: tuple[str | Spec, str | Spec] = ("source", "target"),
) -> str:
    """Describe a plan stage by stage, for people.

    Example output for ResNet-20 to ResNet-32, append::

        resnet20 -> resnet32: append
          stage   source units  ->  target units, by source unit
          layer1  0 1 2         ->  0 1 2 1 2    units 1, 2 twice

    A stage that is empty in both networks is left out.
    """
    rows = []
    for place in _written(source, target):
        units, s = plan.stages[place], source.stages[place]
        counts: dict[int, list[int]] = {}
        for unit in range(len(s.units)):
            counts.setdefault(units.count(unit), []).append(unit)
        notes = [
            f"{_units(group)} {_times(times)}"
            for times, group in sorted(counts.items())
            if times != 1
        ]
        rows.append((s.name, _spell(range(len(s.units))), _spell(units), "; ".join(notes)))
    head = ("stage", "source units", "target units, by source unit", "")
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    widths = [max(w, len(h)) for w, h in zip(widths, head, strict=False)]
    lines = [f"{names[0]} -> {names[1]}: {label(plan, source, target)}"]
    for a, b, c, note in (head, *rows):
        line = f"  {a:<{widths[0]}}  {b:<{widths[1]}}  ->  {c:<{widths[2]}}  {note}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _check_family(source: Anatomy, target: Anatomy) -> None:
    for one, other in ((source, target), (target, source)):
        if not one.stages and one != other:
            raise ElthError(
                f"{one.family} tells no anatomy, so no unit of it can be replicated or dropped: "
                "let its function return elth.with_anatomy(network, ...)"
            )
    if source.family != target.family or len(source.stages) != len(target.stages):
        raise ElthError(
            f"a ticket moves within one family of networks: found {source.family} with "
            f"{len(source.stages)} stages and {target.family} with {len(target.stages)}"
        )


def _written(source: Anatomy, target: Anatomy) -> list[int]:
    """Places of the stages that a plan tells of: those with units; all, where none has any."""
    stages = list(zip(source.stages, target.stages, strict=True))
    return [i for i, (s, t) in enumerate(stages) if s.units or t.units] or list(range(len(stages)))


def _resolve_stage(text: str, source: Stage, target: Stage) -> StagePlan:
    if re.fullmatch(r"\d+(\s+\d+)*", text):
        return tuple(int(unit) for unit in text.split())
    steps = [_read_step(part.strip()) for part in text.split("+")]
    goal = len(target.units)
    units = tuple(range(len(source.units)))
    for index, step in enumerate(steps):
        units = _take(step, units, source, goal, last=index == len(steps) - 1)
    if len(units) != goal:
        raise ElthError(
            f"stage {target.name}: '{text}' makes {len(units)} units ({_spell(units)}) of "
            f"{len(source.units)}, the target has {goal}"
        )
    return units


def _read_step(text: str) -> _Step:
    if text.partition(":")[0] in ("double", "halve"):
        raise ElthError(
            f"'{text}' changes width and moves no units, so it is a plan by itself; from Python "
            "elth.change_width does it"
        )
    match = _STEP.fullmatch(text.replace(", ", ","))
    if match is None:
        raise ElthError(
            f"cannot read the plan '{text}': write append, interpolate, drop, auto or identity, "
            "with units as append:1,2 or drop:1-4, times as interpolate:1,2x4, steps joined by +, "
            "or spell the units out as 0 1 1 2 2"
        )
    operation, units, times = match.groups()
    if operation not in OPERATIONS:
        raise unknown("plan", operation, OPERATIONS)
    if operation not in ("append", "interpolate") and times is not None:
        raise ElthError(f"'{text}': {operation} takes no times")
    if operation in ("auto", "identity") and units is not None:
        raise ElthError(f"'{text}': {operation} takes no units; name append or drop")
    if times is not None and int(times) < 1:
        raise ElthError(f"'{text}': a unit is there at least once; leave it out with drop")
    return _Step(text, operation, _read_units(units), int(times) if times else None)


def _read_units(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    units: list[int] = []
    for part in text.split(","):
        first, _, end = part.partition("-")
        if "-" in end or (end and int(end) < int(first)):
            raise ElthError(f"cannot read the units '{part}': write a range as 1-4")
        units += range(int(first), int(end or first) + 1)
    if len(set(units)) != len(units):
        raise ElthError(f"a unit is named twice in '{text}'")
    return tuple(sorted(units))


def _take(step: _Step, units: StagePlan, stage: Stage, goal: int, *, last: bool) -> StagePlan:
    if step.operation == "identity":
        return units
    if step.operation == "auto":
        step = replace(step, operation="append" if goal >= len(units) else "drop")
    for unit in step.units or ():
        if unit in stage.fixed:
            raise ElthError(
                f"stage {stage.name}: unit {unit} is fixed, as it changes the resolution or "
                f"width; '{step.text}' can name units {_spell(stage.free) or 'none'}"
            )
        if unit >= len(stage.units):
            raise ElthError(f"stage {stage.name}: {_no_unit(unit, stage)}")
    if step.operation == "drop":
        return _drop(step, units, stage, goal)
    return _replicate(step, units, stage, goal, last=last)


def _drop(step: _Step, units: StagePlan, stage: Stage, goal: int) -> StagePlan:
    if step.units is not None:
        return tuple(unit for unit in units if unit not in step.units)
    if len(units) < goal:
        raise ElthError(
            f"stage {stage.name}: '{step.text}' can only squeeze; {len(units)} units are to fill "
            f"{goal}: use append or interpolate"
        )
    kept = list(units)
    for position in reversed(range(len(units))):
        if len(kept) > goal and units[position] not in stage.fixed:
            del kept[position]
    return tuple(kept)


def _replicate(step: _Step, units: StagePlan, stage: Stage, goal: int, *, last: bool) -> StagePlan:
    chosen = [
        position
        for position, unit in enumerate(units)
        if (unit in step.units if step.units is not None else unit not in stage.fixed)
    ]
    if step.times is not None:
        extra = (step.times - 1) * len(chosen)
    elif last:
        extra = goal - len(units)
    else:
        raise ElthError(
            f"stage {stage.name}: '{step.text}' is not the last step and so must say how often, "
            f"as {step.text if step.units else step.text + ':'}x2"
        )
    if extra < 0:
        raise ElthError(
            f"stage {stage.name}: '{step.text}' can only stretch; {len(units)} units are to fill "
            f"{goal}: use drop"
        )
    if extra == 0:
        return units
    if not chosen:
        raise ElthError(
            f"stage {stage.name}: {len(units)} units are to fill {goal}, and none of them may be "
            "replicated"
        )
    if step.units is None:
        chosen = chosen[:extra]
    if step.operation == "append":
        block = [units[chosen[i % len(chosen)]] for i in range(extra)]
        end = chosen[-1] + 1
        return (*units[:end], *block, *units[end:])
    each, more = divmod(extra, len(chosen))
    copies = {position: each + (rank < more) for rank, position in enumerate(chosen)}
    return tuple(
        unit for position, unit in enumerate(units) for _ in range(1 + copies.get(position, 0))
    )


def _no_unit(unit: int, stage: Stage) -> str:
    if not stage.units:
        return f"the source has no unit {unit}; it has none"
    return f"the source has no unit {unit}; it has units 0 to {len(stage.units) - 1}"


def _spell(units: Sequence[int]) -> str:
    return " ".join(str(unit) for unit in units)


def _numbers(units: Sequence[int]) -> str:
    return ",".join(str(unit) for unit in units)


def _units(units: Sequence[int]) -> str:
    return f"unit{'s' if len(units) > 1 else ''} {', '.join(str(u) for u in units)}"


def _times(times: int) -> str:
    return {0: "dropped", 2: "twice"}.get(times, f"{times} times")
