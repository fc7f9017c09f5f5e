"""``elth why`` and ``elth diff``: why a stage is to do, and in what two experiments differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.table import Table

from elth.errors import ElthError
from orchestrator.cli.common import (
    Command,
    find_store,
    is_config,
    open_tracker,
    out,
    store_option,
)
from orchestrator.experiment.shipped import is_shipped
from orchestrator.store.content import spell_seeds

if TYPE_CHECKING:
    from orchestrator.plan.comparing import Cells, Comparison, Difference, Side
    from orchestrator.report.why import Why


_SHOWN = 5
"""Stages of a group that are listed."""
_LISTED = 20
"""Cells of a kind that are listed."""


@click.command(cls=Command, example="elth why quickstart recipe.lr=0.05")
@click.argument("stage_or_config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--stage", help="With a config: this stage alone, with all that is known of it.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@store_option
def why(
    stage_or_config: str,
    overrides: tuple[str, ...],
    stage: str | None,
    as_json: bool,
    store: str | None,
) -> None:
    """Tell why a stage is not found finished in the store.

    STAGE is its title, as 'resnet20 round 3, seed 0', or the beginning of its key or of its run's
    id. Of a CONFIG all stages that are to do are told, gathered by their reasons. A stage that is
    to do is compared with the nearest that is finished: of the same kind, with the same labels, and
    the fewest fields that differ, of its own or of what it is made of.
    """
    from orchestrator import plan as plans
    from orchestrator.plan.naming import find
    from orchestrator.report.why import Reading

    if not (is_config(stage_or_config) or is_shipped(stage_or_config)):  # no stage is called so
        if overrides or stage:
            raise ElthError(
                f"{'--stage' if stage else repr(overrides[0])} goes with a config, and "
                f"'{stage_or_config}' is none, but a stage or a grid: give the config's file, or "
                "one stage alone, as elth why 'resnet20 round 3, seed 0'"
            )
        reading = Reading(open_tracker(store))
        one = reading.find(stage_or_config)
        found = reading.why(one, reading.stages)
        _print_one(found, reading.facts(found, reading.stages), as_json)
        return
    experiment, built = plans.of_file(stage_or_config, overrides)
    reading = Reading(open_tracker(store))
    if stage is not None:
        runs = {one.run_id: one.key for one in reading.tracked}
        one = find(stage, built.stages, runs, experiment.name)
        found = reading.why(one, built.stages)
        _print_one(found, reading.facts(found, built.stages), as_json)
        return
    reasons = [reading.why(one, built.stages) for one in built.stages.values()]
    rest = [one for one in reasons if one.state != "finished"]
    if as_json:
        click.echo(json.dumps([one.plain() for one in rest], indent=1))
        return
    _say(
        f"{experiment.name} in {reading.tracker.store}: of {len(reasons)} stages "
        f"{len(reasons) - len(rest)} are finished, {len(rest)} are not"
    )
    _print_groups(rest)


def _print_one(found: Why, facts: Sequence[str], as_json: bool) -> None:
    from orchestrator.report.why import told

    if as_json:
        click.echo(json.dumps({**found.plain(), "facts": list(facts)}, indent=1))
        return
    _say(f"{found.stage.title}: {found.state}{f', {found.reason}' if found.axes else ''}")
    _say(f"  key {found.stage.key}")
    if found.nearest is not None:
        near = found.nearest
        _say(f"  nearest finished: {near.stage.title} (run {near.run_id[:8]}), where")
        for difference in found.differences:
            _say(f"    {told(difference)}")
    elif found.reason:
        _say(f"  {found.reason}")
    for line in facts:
        _say(f"  {line}")


def _print_groups(rest: Sequence[Why]) -> None:
    from orchestrator.report.why import grouped

    for (state, reason), some in grouped(rest).items():
        _say(f"\n{len(some)} {state}{f': {reason}' if reason else ''}")
        for one in some[:_SHOWN]:
            near = f"; nearest: {one.nearest.stage.title}" if one.axes and one.nearest else ""
            _say(f"    {one.stage.title} ({one.stage.key[:12]}){near}")
        if len(some) > _SHOWN:
            _say(f"    and {len(some) - _SHOWN} more")


@click.command(cls=Command, example="elth diff quickstart quickstart --a pruning.rounds=10")
@click.argument("a")
@click.argument("b")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--a", "only_a", multiple=True, metavar="KEY=VALUE", help="Changes A alone.")
@click.option("--b", "only_b", multiple=True, metavar="KEY=VALUE", help="Changes B alone.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@store_option
def diff(
    a: str,
    b: str,
    overrides: tuple[str, ...],
    only_a: tuple[str, ...],
    only_b: tuple[str, ...],
    as_json: bool,
    store: str | None,
) -> None:
    """Tell what two experiments share, and in what they differ.

    A and B are config files, names of grids in the store, or of configs that come with elth where
    no grid is called so, or --a or --b changes it; KEY=VALUE changes both configs. Two configs need
    no store.
    """
    from orchestrator.plan.comparing import compare_experiments

    both = [(a, only_a, "--a"), (b, only_b, "--b")]
    are_configs = [_is_config(name, own, store) for name, own, _ in both]
    if overrides and not any(are_configs):
        raise ElthError(f"'{overrides[0]}' can change configs only, and {a} and {b} are grids")
    sides = [
        _config(name, (*overrides, *own), own) if is_one else _grid(name, own, flag, store)
        for (name, own, flag), is_one in zip(both, are_configs, strict=True)
    ]
    found = compare_experiments(*sides)
    if as_json:
        shared = {k: dict(zip(("both", "a", "b"), n, strict=True)) for k, n in found.stages.items()}
        click.echo(json.dumps({**asdict(found), "stages": shared}, indent=1))
        return
    _print_comparison(found, *sides)


def _is_config(name: str, own: Sequence[str], store: str | None) -> bool:
    """Whether a side is a config; a bare word is the grid of that name, where there is one."""
    if is_config(name) or not is_shipped(name) or own:
        return is_config(name, own)
    return not (find_store(store).is_there and open_tracker(store).grids.is_begun(name))


def _config(name: str, overrides: Sequence[str], own: Sequence[str]) -> Side:
    from orchestrator import plan as plans
    from orchestrator.plan.comparing import Side

    experiment, built = plans.of_file(name, overrides)
    title = f"the config {name} of elth" if is_shipped(name) else name
    return Side(name=" ".join((title, *own)), experiment=experiment, plan=built)


def _grid(name: str, own: Sequence[str], flag: str, store: str | None) -> Side:
    from orchestrator import plan as plans
    from orchestrator.plan.comparing import Side
    from orchestrator.report.why import experiment_of

    if own:
        raise ElthError(f"{flag} {own[0]} can change a config only, and {name} names a grid")
    experiment = experiment_of(open_tracker(store), name)
    return Side(
        name=f"the grid {name}", experiment=experiment, plan=plans.build(experiment, is_stored=True)
    )


def _print_comparison(found: Comparison, a: Side, b: Side) -> None:
    from orchestrator.plan.comparing import shown

    _say(f"A: {a.name}\nB: {b.name}")
    table = Table()
    table.add_column("stages")
    for column in ("in both", "in A only", "in B only"):
        table.add_column(column, justify="right")
    for kind, counts in found.stages.items():
        if any(counts):
            table.add_row(kind.replace("_", " "), *(f"{count:,}" for count in counts))
    table.add_section()
    sums = (f"{sum(column):,}" for column in zip(*found.stages.values(), strict=True))
    table.add_row("all", *sums, style="bold")
    out.print(table)
    if not found.fields:
        _say("No field of the experiments differs.")
    for field in found.fields:
        if field.lost is None or field.new is None:
            does = "(cannot be told alone)"
        elif field.lost == field.new == 0:
            does = "(in no key)"
        else:
            does = f"(alone: {field.lost} stages of A no more asked for, {field.new} new ones)"
        _say(f"{field.path}: {shown(field.a)} -> {shown(field.b)}  {does}")
    _say(f"Cells: {found.same} in both by the same stages, seeds counted.")
    _print_cells("in A only", found.only_a)
    _print_cells("in B only", found.only_b)
    _print_cells("in both, by stages with different keys", found.other)


def _changed(one: Difference) -> str:
    from orchestrator.plan.comparing import shown

    place = f" of {one.where}" if one.where else ""
    return f"{one.path}{place}: {shown(one.a)} -> {shown(one.b)}"


def _print_cells(where: str, cells: Iterable[Cells]) -> None:
    some = list(cells)
    if some:
        _say(f"Cells {where}: {sum(len(one.seeds) for one in some)}")
    told: list[str] = []
    for one in some[:_LISTED]:
        _say(f"    {one.title}, {spell_seeds(one.seeds)}")
        before, told = told, [_changed(why) for why in one.why]
        if told and told != before:
            _say(f"        {'; '.join(told)}")
    if len(some) > _LISTED:
        _say(f"    and {len(some) - _LISTED} more")


def _say(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)


COMMANDS = (why, diff)
