"""The command line: ``elth plan``, ``run``, ``status``, ``report``, ``ticket``, ``ui`` and more.

Exit codes: 0 done, 2 a request that cannot be met, 3 stages failed or are damaged, 130 stopped by
Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from elth.errors import ElthError
from orchestrator import cli_cluster, cli_data, cli_ticket
from orchestrator.cli_common import (
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_STOPPED,
    Command,
    find_store,
    open_tracker,
    out,
    size_of,
    store_option,
)

if TYPE_CHECKING:
    from orchestrator.experiment import Experiment
    from orchestrator.plan import Plan
    from orchestrator.tracking import Tracked, Tracker

_SHOWN = 20
"""Stages of one state that ``elth status`` lists."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="elth")
def cli() -> None:
    """Find lottery tickets once, stretch and squeeze them into other networks, compare."""


@cli.command(cls=Command, example="elth plan tune_configs/fig6_cifar_resnets.yaml scale=smoke")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
def plan(config: Path, overrides: tuple[str, ...], store: str | None) -> None:
    """Tell what a run of CONFIG would do, before anything is spent."""
    from orchestrator import plan as plans
    from orchestrator.experiment import load

    experiment = load(config, overrides)
    built = plans.build(experiment)
    place, tracked = _look(store)
    finished = {t.key for t in tracked if t.status == "finished"} & set(built.stages)
    _print_plan(experiment, built, finished, tracked, place)


@cli.command(cls=Command, example="elth run tune_configs/quickstart.yaml seeds=[0] --store runs")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@click.option("--retry-failed", is_flag=True, help="Do stages again whose loss was not finite.")
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Run on this Ray cluster; auto: that of this machine. [default: $RAY_ADDRESS, else "
    "a Ray of its own on this machine]",
)
@click.option(
    "--storage",
    metavar="DIR_OR_URL",
    help="Where checkpoints of trainings in progress lie. [default: resources.storage, else "
    "beside the store]",
)
def run(
    config: Path,
    overrides: tuple[str, ...],
    store: str | None,
    retry_failed: bool,
    address: str | None,
    storage: str | None,
) -> None:
    """Run CONFIG: every stage that is not finished in the store, then report.

    Give the same command again after any interruption, and it goes on.
    """
    from orchestrator import cluster, stopping
    from orchestrator import plan as plans
    from orchestrator.apart import apart

    stopping.like_ctrl_c()
    if storage is not None:
        overrides = (*overrides, f"resources.storage={storage}")
    experiment, built = apart(plans.of_file, config, overrides)
    address = cluster.address_of(address)
    from orchestrator.driver import execute

    failed = execute(
        experiment, built, find_store(store), out, retry_failed=retry_failed, address=address
    )
    _exit(failed)


@cli.command(cls=Command, example="elth resume 3f9c1a2b pruning.rounds=10")
@click.argument("run_id")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
def resume(run_id: str, overrides: tuple[str, ...], store: str | None) -> None:
    """Go on from a tracked stage: run the experiment that its run holds, on any machine.

    RUN_ID is the id of a run or the key of its stage, or the beginning of one. What is finished in
    the store is not done again, so with pruning.rounds=N the chain goes on to round N.
    """
    from orchestrator import stopping
    from orchestrator.resume import begin

    stopping.like_ctrl_c()
    tracker = open_tracker(store)
    experiment, built, told = begin(tracker, run_id, overrides)
    out.print(told, highlight=False, markup=False, soft_wrap=True)
    from orchestrator.driver import execute

    _exit(execute(experiment, built, tracker.store, out, retry_failed=False))


@cli.command(cls=Command, example="elth status tune_configs/quickstart.yaml")
@click.argument("grid_or_config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
def status(grid_or_config: str, overrides: tuple[str, ...], store: str | None) -> None:
    """Tell how far a grid is: what runs, waits, failed or is blocked, and why."""
    from orchestrator.status import STATES, states

    tracker = open_tracker(store)
    grid = _grid(grid_or_config, overrides)
    found = states(tracker, grid)
    out.print(f"{grid} in {tracker.store}", highlight=False, markup=False, soft_wrap=True)
    table = Table()
    table.add_column("state")
    table.add_column("stages", justify="right")
    for state in STATES:
        count = sum(1 for one in found if one.state == state)
        if count:
            table.add_row(state, str(count))
    out.print(table)
    for state in STATES[1:]:
        some = [one for one in found if one.state == state]
        for one in some[:_SHOWN]:
            why = f": {one.reason}" if one.reason else ""
            line = f"{state}: {one.title}{why}"
            out.print(line, highlight=False, markup=False, soft_wrap=True)
            for text in one.log:
                out.print(f"    {text}", highlight=False, markup=False, soft_wrap=True)
        if len(some) > _SHOWN:
            out.print(f"{state}: {len(some) - _SHOWN} more", highlight=False)


@cli.command(cls=Command, example="elth verify quickstart")
@click.argument("grid_or_config", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@click.option(
    "--faulty",
    is_flag=True,
    help="Set aside, instead, the stages whose gradients may have been wrong (docs/numerics.md).",
)
def verify(
    grid_or_config: str | None, overrides: tuple[str, ...], store: str | None, faulty: bool
) -> None:
    """Read every file of the finished stages of a grid, or of all, and compare checksums.

    A stage with a damaged file is set aside, and the next elth run does it again; so does one that
    comes upon the damage. From a server every file is fetched.
    """
    tracker = open_tracker(store)
    grid = _grid(grid_or_config, overrides) if grid_or_config else None
    if faulty:
        _set_faulty_aside(tracker, grid)
        return
    count, damaged = 0, 0
    for stage, why in tracker.verify(grid):
        count += 1
        if why:
            damaged += 1
            line = f"damaged: {stage.title}: {why}"
            out.print(line, highlight=False, markup=False, soft_wrap=True)
    told = f"{count} finished stages in {tracker.store}: {count - damaged} whole"
    told += f", {damaged} damaged and set aside; elth run does them again" if damaged else ""
    out.print(told, highlight=False, markup=False, soft_wrap=True)
    if damaged:
        sys.exit(EXIT_FAILED)


@cli.command(cls=Command, example="elth report quickstart --json > cells.json")
@click.argument("grid_or_config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print the cells as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the cells as CSV.")
@click.option("--provenance", is_flag=True, help="With --json: run ids, numerics and times too.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder for table, CSV, JSON and figure."
)
def report(
    grid_or_config: str,
    overrides: tuple[str, ...],
    store: str | None,
    as_json: bool,
    as_csv: bool,
    provenance: bool,
    output: Path | None,
) -> None:
    """Print the results of a grid, from the store alone."""
    from orchestrator import report as reports

    if as_json and as_csv:
        raise click.UsageError("give --json or --csv, not both")
    if provenance and not as_json:
        raise click.UsageError("--provenance goes with --json")
    tracker = open_tracker(store)
    found = reports.collect(tracker, _grid(grid_or_config, overrides))
    if as_json:
        click.echo(reports.to_json(found, provenance=provenance), nl=False)
    elif as_csv:
        click.echo(reports.to_csv(found), nl=False)
    else:
        out.print(reports.to_tables(found))
    if output is not None:
        for path in reports.write(found, output):
            click.echo(f"wrote {path}", err=True)


@cli.command(cls=Command, example="elth networks --dataset mnist")
@click.option("--dataset", default="cifar10", show_default=True, help="Fixes input and classes.")
def networks(dataset: str) -> None:
    """List the networks with their prunable weights and all parameters."""
    from elth.data import info
    from elth.networks import NETWORKS, blueprint, options, prunable

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
    for name in NETWORKS:
        try:
            network = blueprint(name, shape)
        except ElthError:  # such images are too small for it
            small.append(name)
            continue
        stages = network.anatomy.stages
        table.add_row(
            name,
            network.anatomy.family,
            " ".join(str(len(stage.units)) for stage in stages),
            ", ".join(f"{k}={v}" for k, v in options(name).items() if k not in common),
            f"{sum(network.get_parameter(n).numel() for n in prunable(network)):,}",
            f"{sum(p.numel() for p in network.parameters()):,}",
        )
    out.print(table)
    out.print(
        "Also: init=kaiming_normal (kaiming_uniform for lenet_300_100); bn_affine=true where there "
        "is batch normalisation.",
        highlight=False,
    )
    if small:
        out.print(f"These images are too small for {', '.join(small)}.", highlight=False)


@cli.command(cls=Command, example="elth methods")
def methods() -> None:
    """List the methods of a grid: what is trained, and from what it is made."""
    from elth import criteria
    from orchestrator.methods import METHODS, REWIND

    table = Table()
    for column in ("method", "in reports", "what is trained", "settings (criteria.NAME)"):
        table.add_column(column)
    for name, method in METHODS.items():
        settings = criteria.options(method.criterion) if method.criterion else {}
        if method.base == REWIND:
            settings["at"] = "rewind"
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        table.add_row(name, method.title, method.about, shown)
    out.print(table)


@cli.command(cls=Command, example="elth recipes")
def recipes() -> None:
    """List the named recipes, from which the recipe of an experiment may start."""
    from elth.recipes import RECIPES

    table = Table(pad_edge=False)
    for column in ("recipe", "length", "rewind", "batch", "optimiser", "lr", "falls at"):
        table.add_column(column)
    for column in ("decay", "warm-up", "augment"):
        table.add_column(column)
    for name, recipe in RECIPES.items():
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


@cli.command(cls=Command, example="elth ui --port 5001 --no-browser")
@store_option
@click.option("--grid", help="Show this grid only.")
@click.option("--port", default=5000, show_default=True)
@click.option("--no-browser", is_flag=True, help="Only serve, and print the address.")
def ui(store: str | None, grid: str | None, port: int, no_browser: bool) -> None:
    """Open the MLflow pages on the store, on this machine only (127.0.0.1)."""
    from orchestrator import ui as pages

    sys.exit(pages.serve(open_tracker(store), grid=grid, port=port, browser=not no_browser))


def _set_faulty_aside(tracker: Tracker, grid: str | None) -> None:
    from orchestrator import soundness

    chosen = soundness.faulty(tracker.stages())
    if grid is not None:
        chosen = soundness.of_grid(chosen, tracker.grid_keys(grid))
    for one in chosen:
        line = f"set aside: {one.stage.title} ({one.numerics})"
        tracker.set_aside(tracker.get(one.run_id), "its gradients may have been wrong")
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    told = f"{len(chosen)} stages in {tracker.store} come from gradients that may be wrong"
    told += "; elth run does them again" if chosen else ""
    out.print(told, highlight=False, markup=False, soft_wrap=True)


def _exit(failed: Mapping[str, str]) -> None:
    """Tell what failed, if anything did."""
    for reason in failed.values():
        click.echo(f"elth: failed: {reason}", err=True)
    if failed:
        sys.exit(EXIT_FAILED)


for command in (*cli_cluster.COMMANDS, cli_data.data, cli_ticket.ticket):
    cli.add_command(command)


def _look(place: str | None) -> tuple[str, list[Tracked]]:
    """The stages of a store, none if it is not there; nothing is created."""
    store = find_store(place)
    if not store.is_there:
        return str(store), []
    return str(store), open_tracker(place).stages()


def _grid(grid_or_config: str, overrides: tuple[str, ...] = ()) -> str:
    """The name of a grid; overrides of a config may change it, as ``scale=smoke`` does."""
    path = Path(grid_or_config)
    if path.suffix in (".yaml", ".yml"):
        from orchestrator.experiment import load

        for text in overrides:
            if not text.startswith(("scale=", "name=")):
                raise ElthError(
                    f"'{text}' changes what is run, and results are those of the last elth run: "
                    "only scale=... and name=... say which grid is meant"
                )
        return load(path, overrides).name
    if overrides:
        raise ElthError(f"'{overrides[0]}' can change a config only, and {path} names a grid")
    return grid_or_config


def _print_plan(
    experiment: Experiment, built: Plan, finished: set[str], tracked: list[Tracked], place: str
) -> None:
    from orchestrator import plan as plans
    from orchestrator.progress import duration
    from orchestrator.resources import local_slots

    table = Table(
        title=f"{experiment.name}: {experiment.dataset}, seeds "
        f"{', '.join(str(seed) for seed in experiment.seeds)}",
        title_justify="left",
    )
    table.add_column("stage")
    for column in ("in all", "finished", "to do"):
        table.add_column(column, justify="right")
    everything = plans.count_kinds(built.stages.values())
    have = plans.count_kinds(built.stages[key] for key in finished)
    for kind in plans.KINDS:
        row = (everything[kind], have[kind], everything[kind] - have[kind])
        table.add_row(kind.replace("_", " "), *(str(n) for n in row))
    table.add_section()
    total = len(built.stages)
    table.add_row("all", str(total), str(len(finished)), str(total - len(finished)), style="bold")
    out.print(table)
    trainings = everything["round"] + everything["retraining"]
    lines, cells = built.alone()
    out.print(
        f"Trainings: {trainings:,}. Each line of the figure by itself would take {lines:,}, each "
        f"cell by itself {cells:,}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    todo = [stage for key, stage in built.stages.items() if key not in finished]
    if not todo:
        line = f"Nothing to do: every stage is finished in {place}."
        out.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    try:
        count = local_slots(experiment)
    except ElthError as error:
        out.print(f"Not on this machine: {error}.", highlight=False, markup=False, soft_wrap=True)
        count = 1
    jobs = built.jobs(finished)
    known = plans.seconds_per_work(tracked, built)
    seconds = plans.makespan(jobs, count, finished) * (known or 1.0)
    how = (
        "from the times of finished stages in this store"
        if known
        else "a rough guess, until stages have been timed here"
    )
    size = sum(plans.stored_bytes(stage) for stage in todo)
    out.print(
        f"Time: about {duration(seconds)}, {count} trial{'s' if count > 1 else ''} at a time "
        f"({how}).\nDisk: about {size_of(size)} in {place}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _is_of_the_store(error: Exception) -> bool:
    """Whether it comes from MLflow or the disk and not from a mistake of this program."""
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return True
    return any(kind.__name__ == "MlflowException" for kind in type(error).__mro__)


def main() -> None:
    """Run the command line; a refused request is one line and exit code 2."""
    try:
        cli(standalone_mode=False)
    except ElthError as error:
        click.echo(f"elth: error: {error}", err=True)
        sys.exit(EXIT_REFUSED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(EXIT_REFUSED)
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        click.echo(f"elth: error: {error.format_message()}{hint}", err=True)
        sys.exit(EXIT_REFUSED)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("elth: stopped; the same command goes on from what is tracked", err=True)
        sys.exit(EXIT_STOPPED)
    except Exception as error:
        if not _is_of_the_store(error):
            raise
        from orchestrator.outbox import plain

        click.echo(f"elth: error: {plain(error)}", err=True)
        sys.exit(EXIT_REFUSED)


if __name__ == "__main__":
    main()
