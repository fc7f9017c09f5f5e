"""The commands about tickets: ``elth ticket show``, ``transform``, ``export`` and ``import``."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from elth.errors import ElthError
from elth.files import expanded
from orchestrator.cli.common import (
    PLACE,
    Command,
    find_store,
    open_tracker,
    out,
    plugin_option,
    store_option,
)

if TYPE_CHECKING:
    from elth.tickets import Ticket


@click.group()
def ticket() -> None:
    """Look at, transform, export and import tickets."""


@ticket.command(cls=Command, name="show", example="elth ticket show ticket.safetensors")
@click.argument("ticket_or_run")
@plugin_option
@store_option
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
    cls=Command,
    name="transform",
    example="elth ticket transform resnet14.safetensors --to resnet56 --plan append",
)
@click.argument("file", type=PLACE)
@plugin_option
@click.option("--to", "target", required=True, help="The network to go to, as resnet56.")
@click.option(
    "--plan", "text", default="auto", show_default=True, help="As append, drop:1-4 or double."
)
@click.option("--seed", default=0, show_default=True, help="For plans that draw: double:gaussian.")
@click.option("--output", "-o", type=PLACE, help="[default: FILE-TO]")
def ticket_transform(file: Path, target: str, text: str, seed: int, output: Path | None) -> None:
    """Stretch or squeeze a ticket file into another network of its family."""
    from elth import elastic
    from elth.networks import blueprint
    from elth.tickets import Ticket

    before = Ticket.load(file)
    if elastic.is_outside(text):
        spec, version, _ = elastic.outside(text)
        after = elastic.apply(before, str(spec), target, seed)
        explained = f"{before.network} -> {after.network}: {spec}, version {version}"
    elif elastic.is_width(text):
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
    cls=Command, name="export", example="elth ticket export 3f9c1a2b -o ticket.safetensors"
)
@click.argument("run_id")
@plugin_option
@click.option(
    "--weights",
    type=click.Choice(["rewind", "trained"]),
    default="rewind",
    show_default=True,
    help="Those at the rewind point, or those after the training of the run.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["ticket", "torch"]),
    default="ticket",
    show_default=True,
    help="A ticket of elth; or a state dict with the mask applied, for torch.load and "
    "load_state_dict.",
)
@click.option("--output", "-o", type=PLACE, help="[default: NETWORK-KEY]")
@store_option
def ticket_export(
    run_id: str, weights: str, form: str, output: Path | None, store: str | None
) -> None:
    """Write the ticket of a tracked run (its id or key, or the beginning of one) to a file."""
    if weights == "trained":
        tracker = open_tracker(store)
        from orchestrator.work.tickets import trained_ticket

        found: Any = trained_ticket(tracker, run_id)
    else:
        found = _ticket(run_id, store)
    if output is None:
        stem = f"{_file_name(str(found.network))}-{run_id[:8]}"
        stem += "-trained" if weights == "trained" else ""
        output = Path(f"{stem}.{'pt' if form == 'torch' else 'safetensors'}")
    if form == "torch":
        found.save_state(output)
    else:
        found.save(output)
    _print_ticket(found)
    kind = "a PyTorch state dict, masked" if form == "torch" else "a ticket"
    which = "after the training" if weights == "trained" else _point_of(found)
    click.echo(f"{kind}, with the weights {which}")
    click.echo(f"wrote {output}")


@ticket.command(
    cls=Command,
    name="import",
    example="elth ticket import --network resnet20 --weights w.pt --mask m.pt --dataset cifar10 "
    "--iteration 1000\nelth ticket import --ticket t.safetensors --store runs",
)
@click.option("--network", help="The network that they are of, as resnet20.")
@click.option("--weights", type=PLACE, help="safetensors, or of torch.save.")
@click.option(
    "--mask", type=PLACE, help="As --weights. [default: NAME_mask beside the weights' NAME_orig]"
)
@click.option(
    "--ticket",
    "file",
    type=PLACE,
    help="Instead of network, weights and mask: a ticket file of elth.",
)
@click.option(
    "--dataset",
    help="What it is trained on, as cifar10: elth data list. [default: that of the ticket file]",
)
@click.option(
    "--iteration",
    type=click.IntRange(min=0),
    help="How far the weights were trained. [default: the rewind point, in a ticket file]",
)
@plugin_option
@click.option("--output", "-o", type=PLACE, help="Write a ticket file, instead of into the store.")
@store_option
def ticket_import(
    network: str | None,
    weights: Path | None,
    mask: Path | None,
    file: Path | None,
    dataset: str | None,
    iteration: int | None,
    output: Path | None,
    store: str | None,
) -> None:
    """Put weights and a mask that were found elsewhere into the store, for a grid to start from.

    Nothing in the files is executed, and whatever does not fit the network is listed at once. What
    is printed names the ticket in a config. With -o a ticket file is made, and no store is touched.
    """
    if output is not None and store is not None:
        raise click.UsageError("give -o for a ticket file, or --store for a store, not both")
    if file is not None:
        if network is not None or weights is not None or mask is not None:
            raise click.UsageError("--ticket has network, weights and mask: give it alone")
        found = _read_ticket(file)
        dataset = dataset or _dataset_of(found, file)
    elif network is None or weights is None:
        raise click.UsageError("give --network and --weights, or --ticket")
    else:
        found = _read_foreign(network, weights, mask, dataset, iteration)
        assert dataset is not None
    if output is None:
        at = iteration if iteration is not None else _iteration_of(found, dataset)
        _put(found, dataset, at, [one for one in (file, weights, mask) if one], store)
        return
    if file is not None and iteration is not None:
        found = dataclasses.replace(found, origin={**found.origin, "start": iteration})
    found.save(output)
    _print_ticket(found)
    click.echo(f"wrote {output}")


def _read_foreign(
    network: str, weights: Path, mask: Path | None, dataset: str | None, iteration: int | None
) -> Ticket:
    """A ticket of somebody else's files."""
    from elth import data, foreign, networks

    if dataset is None:
        raise click.UsageError("Missing option '--dataset'")
    info = data.info(dataset)
    return foreign.as_ticket(
        networks.canonical(network),
        info.shape,
        foreign.read_tensors(weights),
        foreign.read_tensors(mask) if mask is not None else None,
        iteration=iteration,
        origin={"dataset": info.identity()},
    )


def _read_ticket(file: Path) -> Ticket:
    from elth.tickets import Ticket

    return Ticket.load(file)


def _dataset_of(found: Ticket, file: Path) -> str:
    """The dataset of a ticket file, if that can be found here by its name."""
    from elth import data

    told = found.origin.get("dataset") or {}
    name = str(told.get("name", ""))
    try:
        if name and data.info(name).identity() == told:
            return name
    except ElthError:  # a folder of images is found by its manifest alone
        pass
    raise ElthError(
        f"{file} does not say where its dataset{f' {name}' if name else ''} is to be found: give "
        "--dataset"
    )


def _iteration_of(found: Ticket, dataset: str) -> int:
    """The iteration from which a ticket's training goes on, as its file tells."""
    from elth import data
    from elth.counts import rewind_step
    from elth.recipes import Recipe

    if "start" in found.origin:
        return int(found.origin["start"])
    if "recipe" in found.origin:
        return rewind_step(data.info(dataset).train_size, Recipe.of(found.origin["recipe"]))
    raise ElthError("how far were the weights trained? Give --iteration, as --iteration 1000")


def _put(
    found: Ticket, dataset: str, iteration: int, files: Sequence[Path], store: str | None
) -> None:
    """Put a ticket into a store, and print how a config names it."""
    from elth import data
    from orchestrator.plan.imported import imported
    from orchestrator.store.imported_tickets import put
    from orchestrator.store.tracker import Tracker

    info = data.info(dataset)
    if info.shape != found.shape:
        raise ElthError(f"the ticket is for {found.shape}, and {info.title} has {info.shape}")
    digest, nonzeros = found.digest, found.nonzeros
    stage = imported(
        str(found.network), info.name, sha256=digest, iteration=iteration, nonzeros=nonzeros
    )
    about = {
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "origin": dict(found.origin),
    }
    tracker = Tracker(find_store(store))
    tracker.tend()
    is_new = put(tracker, stage, found, about)
    _print_ticket(found)
    click.echo(
        f"{'put into' if is_new else 'is already in'} {tracker.store}, as {stage.title} "
        f"({stage.key[:12]}). In a config:\n"
    )
    words = f"sha256: {digest}, iteration: {iteration}, nonzeros: {nonzeros}"
    click.echo(f"tickets:\n  theirs: {{{words}}}\ngrid:")
    click.echo(f"  - {{method: imp, network: {_spelled(found.network)}, ticket: theirs}}")


def _spelled(network: Any) -> str:
    """A network within braces of YAML."""
    return f"'{network}'" if any(c in str(network) for c in ",:{}[]") else str(network)


def _ticket(ticket_or_run: str, store: str | None) -> Any:
    from elth.tickets import Ticket

    path = expanded(ticket_or_run)
    if path.exists() or path.suffix.lower() == ".safetensors":
        return Ticket.load(path)
    tracker = open_tracker(store)
    from orchestrator.work.tickets import tracked_ticket

    return tracked_ticket(tracker, ticket_or_run)


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
        seed = f", seed {origin['seed']}" if "seed" in origin else ""
        click.echo(f"dataset {origin['dataset'].get('name')}{seed}")
    if origin.get("weights") == "trained":
        click.echo(f"weights after the training, at iteration {origin.get('start')}")
    elif "start" in origin:
        at = f"iteration {origin['start']}" if origin["start"] else "initialisation"
        click.echo(f"training starts at {at}")
    for step in origin.get("history", ()):
        text = ", ".join(f"{key} {value}" for key, value in step.items() if key != "plan")
        click.echo(f"  {text}")


def _point_of(ticket: Ticket) -> str:
    """From where the training of a ticket goes on, at which its weights are."""
    if ticket.origin.get("way", {}).get("weights") == "trained":
        return "as the round before ended with them, from the rewind point on"
    start = ticket.origin.get("start")  # there only where it is not the recipe's rewind point
    if start is None:
        return "at the rewind point"
    return f"at iteration {start}" if start else "at initialisation"


COMMANDS = (ticket,)
