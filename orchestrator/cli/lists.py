"""``elth networks``, ``methods``, ``recipes`` and ``measures``: what a config may name."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table

from elth.errors import ElthError
from orchestrator.cli.common import Command, out, plugin_option


@click.command(cls=Command, example="elth networks --dataset mnist")
@click.option("--dataset", default="cifar10", show_default=True, help="Fixes input and classes.")
@plugin_option
def networks(dataset: str) -> None:
    """List the networks with their prunable weights and all parameters."""
    from elth.data import info
    from elth.networks import blueprint, module, names, options, prunable

    shape = info(dataset).shape
    small, common = [], ("init", "bn_affine")
    table = Table(
        title=f"networks, for {dataset} ({shape.channels}x{shape.size}x{shape.size}, "
        f"{shape.classes} classes)",
        title_justify="left",
    )
    for column in ("name", "family", "stages x units", "options"):
        table.add_column(column)
    for column in ("prunable", "parameters"):
        table.add_column(column, justify="right")
    for name in names():
        try:
            network = blueprint(name, shape)
        except ElthError as error:  # such images are too small for it
            if module(name):
                out.print(f"{name}: {error}", highlight=False, markup=False, soft_wrap=True)
            else:
                small.append(name)
            continue
        stages = network.anatomy.stages
        table.add_row(
            name,
            network.anatomy.family if network.anatomy.head else "-",
            " ".join(str(len(stage.units)) for stage in stages) or "-",
            ", ".join(f"{k}={v}" for k, v in options(name).items() if k not in common),
            f"{sum(network.get_parameter(n).numel() for n in prunable(network)):,}",
            f"{sum(p.numel() for p in network.parameters()):,}",
        )
    out.print(table)
    out.print(
        "Also: init=kaiming_normal (kaiming_uniform for lenet_300_100), kaiming_uniform or "
        "kaiming_uniform_fan_out; bn_affine=true where there is batch normalisation.",
        highlight=False,
    )
    if small:
        out.print(f"These images are too small for {', '.join(small)}.", highlight=False)


@click.command(cls=Command, example="elth methods")
@plugin_option
def methods() -> None:
    """List the methods of a grid: what is trained, and from what it is made."""
    from elth import criteria, dynamic
    from orchestrator.experiment.methods import REWIND, SPARSE, method_of, names

    table = Table()
    for column in ("method", "in reports", "what is trained", "settings (criteria.NAME)"):
        table.add_column(column)
    for name in names():
        method = method_of(name)
        settings: dict[str, Any] = {}
        if method.base == SPARSE:
            settings = {**dynamic.defaults(method.criterion), "at": "init"}
        elif method.criterion:
            settings = criteria.options(method.criterion)
        if method.base == REWIND:
            settings["at"] = "rewind"
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        table.add_row(name, method.title, method.about, shown)
    out.print(table)


@click.command(cls=Command, example="elth recipes")
@plugin_option
def recipes() -> None:
    """List the named recipes, from which the recipe of an experiment may start."""
    from orchestrator.experiment.recipes import recipes_by_name

    table = Table(pad_edge=False)
    for column in ("recipe", "length", "rewind", "batch", "optimiser", "lr", "falls at"):
        table.add_column(column)
    for column in ("decay", "warm-up", "augment"):
        table.add_column(column)
    for name, recipe in recipes_by_name().items():
        values = recipe.full()
        momentum = f" {values['momentum']:g}" if values["optimiser"] == "sgd" else ""
        falls = " ".join(values["milestones"]) or values["schedule"]
        table.add_row(
            name,
            *(str(values[field]) for field in ("length", "rewind", "batch_size")),
            values["optimiser"] + momentum,
            f"{values['lr']:g}",
            falls,
            f"{values['weight_decay']:g}",
            values["warmup"] if recipe.warmup.count else "-",
            values["augment"],
        )
    out.print(table)
    out.print(
        "ep: epochs, it: iterations; sgd with its momentum, the rate lr falls to a tenth (gamma). "
        "In a config: recipe: {base: NAME, FIELD: VALUE}. MLflow has all, as recipe.FIELD.",
        highlight=False,
    )


@click.command(cls=Command, example="elth measures")
def measures() -> None:
    """List the measures that look inside IMP: for analyses in a config, and elth analyse."""
    from elth.measures import LINE, MEASURES, NETWORK, PAIR

    looks_at = {NETWORK: "one training", PAIR: "two trainings", LINE: "all rounds of a line"}
    table = Table()
    for column in ("measure", "looks at", "what it is", "settings"):
        table.add_column(column)
    for name, known in MEASURES.items():
        settings = ", ".join(
            f"{key}={'all' if value is None else value}"
            for key, value in vars(known.settings()).items()
        )
        table.add_row(name, looks_at[known.looks_at], known.about, settings)
    out.print(table)


COMMANDS = (networks, methods, recipes, measures)
