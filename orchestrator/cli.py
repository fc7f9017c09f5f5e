"""The command line: ``elth plan``, ``run``, ``status``, ``report``, ``ticket``, ``ui`` and more.

Exit codes: 0 done, 2 a request that cannot be met, 3 stages failed, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import click
from rich.console import Console
from rich.table import Table

from elth.errors import ElthError
from orchestrator import cli_cluster

if TYPE_CHECKING:
    from orchestrator.experiment import Experiment
    from orchestrator.plan import Plan
    from orchestrator.store import Store
    from orchestrator.tracking import Tracked, Tracker

EXIT_REFUSED = 2
EXIT_FAILED = 3
EXIT_STOPPED = 130
_SHOWN = 20
"""Stages of one state that ``elth status`` lists."""

out = Console()
if not out.is_terminal and "COLUMNS" not in os.environ:
    out = Console(width=120)  # a file or a pipe has no width, and 80 columns break tables


class _Command(click.Command):
    """A command whose help ends with an example."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example below the options."""
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"  {line}\n")


def _store_option(command: Any) -> Any:
    return click.option(
        "--store",
        metavar="DIR_OR_URI",
        help="Where runs are kept: a directory or an MLflow address. "
        "[default: $MLFLOW_TRACKING_URI, else runs]",
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="elth")
def cli() -> None:
    """Find lottery tickets once, stretch and squeeze them into other networks, compare."""


@cli.command(cls=_Command, example="elth plan tune_configs/fig6_cifar_resnets.yaml scale=smoke")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@_store_option
def plan(config: Path, overrides: tuple[str, ...], store: str | None) -> None:
    """Tell what a run of CONFIG would do, before anything is spent."""
    from orchestrator import plan as plans
    from orchestrator.experiment import load

    experiment = load(config, overrides)
    built = plans.build(experiment)
    place, tracked = _look(store)
    finished = {t.key for t in tracked if t.status == "finished"} & set(built.stages)
    _print_plan(experiment, built, finished, tracked, place)


@cli.command(cls=_Command, example="elth run tune_configs/quickstart.yaml seeds=[0] --store runs")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@_store_option
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
    from orchestrator.experiment import load

    stopping.like_ctrl_c()
    if storage is not None:
        overrides = (*overrides, f"resources.storage={storage}")
    experiment = load(config, overrides)
    built = plans.build(experiment)
    address = cluster.address_of(address)
    from orchestrator.driver import execute

    failed = execute(
        experiment, built, _store(store), out, retry_failed=retry_failed, address=address
    )
    _exit(failed)


@cli.command(cls=_Command, example="elth resume 3f9c1a2b pruning.rounds=10")
@click.argument("run_id")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@_store_option
def resume(run_id: str, overrides: tuple[str, ...], store: str | None) -> None:
    """Go on from a tracked stage: run the experiment that its run holds, on any machine.

    RUN_ID is the id of a run or the key of its stage, or the beginning of one. What is finished in
    the store is not done again, so with pruning.rounds=N the chain goes on to round N.
    """
    from orchestrator import stopping
    from orchestrator.resume import begin

    stopping.like_ctrl_c()
    tracker = _open(store)
    experiment, built, told = begin(tracker, run_id, overrides)
    out.print(told, highlight=False, markup=False, soft_wrap=True)
    from orchestrator.driver import execute

    _exit(execute(experiment, built, tracker.store, out, retry_failed=False))


@cli.command(cls=_Command, example="elth status tune_configs/quickstart.yaml")
@click.argument("grid_or_config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@_store_option
def status(grid_or_config: str, overrides: tuple[str, ...], store: str | None) -> None:
    """Tell how far a grid is: what runs, waits, failed or is blocked, and why."""
    from orchestrator.status import STATES, states

    tracker = _open(store)
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


@cli.command(cls=_Command, example="elth report quickstart --json > cells.json")
@click.argument("grid_or_config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@_store_option
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
    tracker = _open(store)
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


@cli.command(cls=_Command, example="elth networks --dataset mnist")
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


@cli.group()
def data() -> None:
    """List datasets, describe an image folder as one, and make it fast to read."""


@data.command(cls=_Command, name="list", example="elth data list")
def data_list() -> None:
    """List the datasets; options are given as in cifar10(size=224)."""
    from elth.data import DATASETS, info, options

    table = Table()
    for column in ("name", "images", "classes", "training", "test", "options"):
        table.add_column(column)
    for name in DATASETS:
        shown = ", ".join(f"{key}={value}" for key, value in options(name).items())
        if name == "folder":
            table.add_row(name, "any JPEG, PNG", "", "", "", shown)
            continue
        found = info(name)
        shape = f"{found.shape.channels}x{found.shape.size}x{found.shape.size}"
        sizes = (f"{found.train_size:,}", f"{found.test_size:,}")
        table.add_row(name, shape, str(found.shape.classes), *sizes, shown)
    out.print(table)


@data.command(
    cls=_Command,
    name="manifest",
    example="elth data manifest data/flowers --name flowers -o flowers.json\n"
    "elth plan my.yaml 'dataset=folder(manifest=flowers.json,size=64)'",
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Its name, and that of its folder in data.root.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="[default: NAME.json]")
def data_manifest(folder: Path, name: str, output: Path | None) -> None:
    """Describe a folder of images (train/CLASS/*, val/CLASS/*) in a file, once.

    The manifest is the dataset's identity: every run compares its folder with it.
    """
    from elth.data import make_manifest

    output = output or Path(f"{name}.json")
    manifest = make_manifest(folder, name, output)
    sizes = ", ".join(f"{part['images']:,} {word}" for word, part in manifest["parts"].items())
    click.echo(f"{name}: {len(manifest['classes'])} classes, images: {sizes}")
    click.echo(f"wrote {output}; in a config: dataset: folder(manifest={output},size=64)")


@data.command(
    cls=_Command,
    name="prepare",
    example="elth data prepare data/imagenet data/imagenet256\n"
    "elth plan my.yaml 'dataset=folder(manifest=data/imagenet256/manifest.json)'",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--name", help="What the dataset is called. [default: that of DESTINATION]")
@click.option(
    "--short", default=256, show_default=True, help="Pixels of an image's shorter side, at most."
)
@click.option("--quality", default=95, show_default=True, help="Of the JPEG files, 1 to 100.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Images at a time. [default: every processor]"
)
def data_prepare(
    source: Path,
    destination: Path,
    name: str | None,
    short: int,
    quality: int,
    threads: int | None,
) -> None:
    """Make a folder of large images (train/CLASS/*, val/CLASS/*) small and fast to read, once.

    Images are resized, never enlarged, and packed into shards; JPEG files that are small enough are
    kept as they are. The result is a dataset of its own. Give the same command again after any
    interruption, and it goes on; once all is done, it checks every byte.
    """
    from elth.data import prepare
    from orchestrator.progress import Counter

    with Counter(out, "images") as counter:
        manifest = prepare(
            source,
            destination,
            name=name,
            short=short,
            quality=quality,
            threads=threads,
            progress=counter.update,
        )
    sizes = ", ".join(f"{part['images']:,} {word}" for word, part in manifest["parts"].items())
    size = sum(one["bytes"] for part in manifest["parts"].values() for one in part["shards"])
    path = destination / "manifest.json"
    click.echo(
        f"{manifest['name']}: {len(manifest['classes'])} classes, images: {sizes}; {_bytes(size)}"
    )
    click.echo(f"wrote {path}; in a config: dataset: folder(manifest={path},size=224)")


@cli.command(cls=_Command, example="elth methods")
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


@cli.group()
def ticket() -> None:
    """Look at, transform and export ticket files."""


@ticket.command(cls=_Command, name="show", example="elth ticket show ticket.safetensors")
@click.argument("ticket_or_run")
@_store_option
def ticket_show(ticket_or_run: str, store: str | None) -> None:
    """Describe a ticket file, or the ticket of a tracked run."""
    from elth import masks

    found = _ticket(ticket_or_run, store)
    _print_ticket(found)
    table = Table()
    table.add_column("weight")
    table.add_column("shape")
    table.add_column("kept", justify="right")
    table.add_column("sparsity %", justify="right")
    sparsity = masks.layer_sparsity(found.mask)
    for name, mask in found.mask.items():
        kept = int(mask.sum())
        shape = "x".join(str(n) for n in mask.shape)
        table.add_row(name, shape, f"{kept:,}", f"{100 * sparsity[name]:.2f}")
    out.print(table)


@ticket.command(
    cls=_Command,
    name="transform",
    example="elth ticket transform resnet14.safetensors --to resnet56 --plan append",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", "target", required=True, help="The network to go to, as resnet56.")
@click.option(
    "--plan", "text", default="auto", show_default=True, help="As append, drop:1-4 or double."
)
@click.option("--seed", default=0, show_default=True, help="For plans that draw: double:gaussian.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="[default: FILE-TO]")
def ticket_transform(file: Path, target: str, text: str, seed: int, output: Path | None) -> None:
    """Stretch or squeeze a ticket file into another network of its family."""
    from elth import elastic
    from elth.networks import blueprint
    from elth.tickets import Ticket

    before = Ticket.load(file)
    if elastic.is_width(text):
        after = elastic.change_width(before, target, text, seed)
        explained = f"{before.network} -> {after.network}: {elastic.parse_width(text)}"
    else:
        after = elastic.transform(before, target, text)
        source, goal = (blueprint(t.network, t.shape).anatomy for t in (before, after))
        resolved = elastic.resolve(text, source, goal)
        explained = elastic.explain(resolved, source, goal, (before.network, after.network))
    output = output or file.with_name(f"{file.stem}-{_file_name(str(after.network))}.safetensors")
    after.save(output)
    click.echo(explained)
    for name, one in (("before", before), ("after", after)):
        click.echo(
            f"{name:>6}: {100 * one.sparsity:.2f} % sparsity, "
            f"{one.nonzeros:,} non-zeros of {_total(one):,}"
        )
    click.echo(f"wrote {output}")


@ticket.command(
    cls=_Command, name="export", example="elth ticket export 3f9c1a2b -o ticket.safetensors"
)
@click.argument("run_id")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="[default: NETWORK-KEY]")
@_store_option
def ticket_export(run_id: str, output: Path | None, store: str | None) -> None:
    """Write the ticket of a tracked run (its id or key, or the beginning of one) to a file."""
    found = _ticket(run_id, store)
    output = output or Path(f"{_file_name(str(found.network))}-{run_id[:8]}.safetensors")
    found.save(output)
    _print_ticket(found)
    click.echo(f"wrote {output}")


@cli.command(cls=_Command, example="elth ui --port 5001 --no-browser")
@_store_option
@click.option("--grid", help="Show this grid only.")
@click.option("--port", default=5000, show_default=True)
@click.option("--no-browser", is_flag=True, help="Only serve, and print the address.")
def ui(store: str | None, grid: str | None, port: int, no_browser: bool) -> None:
    """Open the MLflow pages on the store, on this machine only (127.0.0.1)."""
    from orchestrator import ui as pages

    sys.exit(pages.serve(_open(store), grid=grid, port=port, browser=not no_browser))


def _exit(failed: Mapping[str, str]) -> None:
    """Tell what failed, if anything did."""
    for reason in failed.values():
        click.echo(f"elth: failed: {reason}", err=True)
    if failed:
        sys.exit(EXIT_FAILED)


cli_cluster.add_commands(cli, _Command, _store_option)


def _store(place: str | None) -> Store:
    from orchestrator.passing import take_credentials
    from orchestrator.store import Store

    place = place or os.environ.get("MLFLOW_TRACKING_URI") or None
    return Store.of(take_credentials(place) if place else None)


def _open(place: str | None) -> Tracker:
    """The tracker of a store that must be there already."""
    store = _store(place)
    if not store.is_there:
        raise ElthError(f"there is no store in {store}; run an experiment, or name one by --store")
    from orchestrator.tracking import Tracker

    return Tracker(store)


def _look(place: str | None) -> tuple[str, list[Tracked]]:
    """The stages of a store, none if it is not there; nothing is created."""
    store = _store(place)
    if not store.is_there:
        return str(store), []
    return str(store), _open(place).stages()


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


def _ticket(ticket_or_run: str, store: str | None) -> Any:
    from elth.tickets import Ticket

    path = Path(ticket_or_run)
    if path.exists() or path.suffix == ".safetensors":
        return Ticket.load(path)
    from orchestrator import stages
    from orchestrator.tracking import stage_of

    tracker = _open(store)
    found = tracker.get(ticket_or_run)
    stage = stage_of(found)
    if stage.kind == "rewind_point":
        raise ElthError(f"run {ticket_or_run} is a rewind point, which has no mask; name a round")
    from elth import masks

    mask = tracker.load_run(found)[1].mask if stage.kind == "retraining" else None
    made = stages.ticket(stage, tracker.load, known=mask)
    tracked = found.data.tags.get("elth.mask_sha256")
    if tracked is not None and tracked != masks.digest(made.mask):
        raise ElthError(
            f"the mask of run {ticket_or_run}, made again, is not the one that was tracked: the "
            "store is damaged, or this is another version of torch"
        )
    return made


def _total(ticket: Any) -> int:
    return sum(mask.numel() for mask in ticket.mask.values())


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text).strip("-")


def _print_ticket(ticket: Any) -> None:
    shape = ticket.shape
    click.echo(
        f"{ticket.network} for {shape.channels}x{shape.size}x{shape.size} images of "
        f"{shape.classes} classes: {100 * ticket.sparsity:.2f} % sparsity, "
        f"{ticket.nonzeros:,} non-zeros of {_total(ticket):,} prunable weights"
    )
    origin = ticket.origin
    if "dataset" in origin:
        click.echo(f"dataset {origin['dataset'].get('name')}, seed {origin.get('seed')}")
    for step in origin.get("history", ()):
        text = ", ".join(f"{key} {value}" for key, value in step.items() if key != "plan")
        click.echo(f"  {text}")


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
        f"({how}).\nDisk: about {_bytes(size)} in {place}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _bytes(count: float) -> str:
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.3g} TB"


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


if __name__ == "__main__":
    main()
