"""The commands about tickets: ``elth ticket show``, ``transform`` and ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from elth.files import expanded
from orchestrator.cli.common import PLACE, Command, open_tracker, out, plugin_option, store_option


@click.group()
def ticket() -> None:
    """Look at, transform and export ticket files."""


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
    which = "after the training" if weights == "trained" else "at the rewind point"
    click.echo(f"{kind}, with the weights {which}")
    click.echo(f"wrote {output}")


@ticket.command(
    cls=Command,
    name="import",
    example="elth ticket import --network resnet20 --weights w.pt --dataset cifar10 "
    "-o t.safetensors",
)
@click.option("--network", required=True, help="The network that they are of, as resnet20.")
@click.option("--weights", type=PLACE, required=True, help="safetensors, or of torch.save.")
@click.option(
    "--mask", type=PLACE, help="As --weights. [default: NAME_mask beside the weights' NAME_orig]"
)
@click.option("--dataset", required=True, help="What it is trained on, as cifar10: elth data list.")
@click.option(
    "--iteration",
    type=click.IntRange(min=0),
    help="How far the weights were trained. [default: the recipe's rewind point]",
)
@plugin_option
@click.option("--output", "-o", type=PLACE, required=True, help="The ticket file.")
def ticket_import(
    network: str,
    weights: Path,
    mask: Path | None,
    dataset: str,
    iteration: int | None,
    output: Path,
) -> None:
    """Make a ticket file of weights and a mask that were found elsewhere.

    Nothing in the files is executed, and whatever does not fit the network is listed at once.
    """
    from elth import data, foreign, networks

    info = data.info(dataset)
    found = foreign.as_ticket(
        networks.canonical(network),
        info.shape,
        foreign.read_tensors(weights),
        foreign.read_tensors(mask) if mask is not None else None,
        iteration=iteration,
        origin={"dataset": info.identity()},
    )
    found.save(output)
    _print_ticket(found)
    click.echo(f"wrote {output}")


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
        click.echo(f"dataset {origin['dataset'].get('name')}, seed {origin.get('seed')}")
    if origin.get("weights") == "trained":
        click.echo(f"weights after the training, at iteration {origin.get('start')}")
    for step in origin.get("history", ()):
        text = ", ".join(f"{key} {value}" for key, value in step.items() if key != "plan")
        click.echo(f"  {text}")


COMMANDS = (ticket,)
