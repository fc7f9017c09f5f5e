"""``elth flops``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from orchestrator.cli.common import (
    PLACE,
    Command,
    asked,
    is_config,
    open_tracker,
    out,
    store_option,
)

if TYPE_CHECKING:
    from orchestrator.report.flops import Costs


@click.command(cls=Command, example="elth flops rigl_cifar --of resnet56")
@click.argument("grid_or_ticket")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@store_option
@click.option("--of", "reference", default="", help="The network whose dense run is the unit.")
@click.option(
    "--dpf",
    type=click.Choice(["careful", "elth"]),
    default="careful",
    help="A step of DPF: 2 d + 1 or, as E-LTH counts it, d + 2 forward passes of density d.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the costs as JSON.")
@click.option("--output", type=PLACE, help="Folder for flops.json and the figure.")
def flops(
    grid_or_ticket: str,
    overrides: tuple[str, ...],
    store: str | None,
    reference: str,
    dpf: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Tell what the tickets of a grid or config cost, or an exported ticket, layer by layer.

    In units of one dense run: the training of each ticket, and its share of the search before,
    which is the chain of IMP that found it. Of a ticket's file: operations for one image.
    """
    is_file = Path(grid_or_ticket).is_file()
    if is_file and not overrides and not is_config(grid_or_ticket):
        _print_ticket(Path(grid_or_ticket))
        return
    from orchestrator.report.flops import costs, to_json
    from orchestrator.report.flops_figure import draw

    tracker = open_tracker(store)
    grid, content = asked(grid_or_ticket, overrides)
    found = costs(tracker, grid, content, of=reference, dpf=dpf)
    if as_json:
        click.echo(to_json(found), nl=False)
    else:
        _print_grid(found)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        path = output / "flops.json"
        path.write_text(to_json(found), encoding="utf-8")
        written = [path, *draw(found, output)]
        if not as_json:
            told = ", ".join(one.name for one in written)
            out.print(f"{output}: {told}", highlight=False, markup=False, soft_wrap=True)


def _print_grid(found: Costs) -> None:
    panels: dict[str, Table] = {}
    for one in found.spent:
        cell = one.cell
        title = f"{cell.network} on {cell.dataset}"
        if title not in panels:
            table = Table(title=title, title_justify="left", title_style="bold")
            table.add_column("ticket")
            for column in ("sparsity %", "accuracy", "inference", "training", "search", "shared"):
                table.add_column(column, justify="right")
            table.add_column("in all", justify="right")
            panels[title] = table
        numbers = (one.inference, one.training, one.search, one.shared, one.total)
        accuracy = f"{cell.mean:.2f}" + (f" ± {cell.deviation:.2f}" if cell.deviation else "")
        panels[title].add_row(
            cell.name,
            f"{100 * cell.sparsity:.2f}",
            accuracy,
            *(f"{number:.3g}" for number in numbers),
        )
    for table in panels.values():
        out.print(table)
    unit = ", ".join(f"{value:.3g} operations on {name}" for name, value in found.unit.items())
    out.print(
        "Inference: of one image, in units of the dense network. The others: in units of one dense "
        f"run of {found.reference} ({unit}). Search: all that was trained before; shared: each of "
        "those trainings divided by the tickets that need it, of a chain the last. Counted as in "
        "RigL's appendix H.",
        highlight=False,
        markup=False,
    )
    if found.lacking:
        out.print(
            f"{len(found.lacking)} trainings before these are not finished here, and not counted.",
            highlight=False,
            markup=False,
        )


def _print_ticket(path: Path) -> None:
    from elth import masks
    from elth.networks import facts
    from elth.tickets import Ticket

    ticket = Ticket.load(path)
    cost = facts(ticket.network, ticket.shape).cost
    kept = {name: masks.nonzeros({name: mask}) for name, mask in ticket.mask.items()}
    table = Table(title=f"{ticket.network}, for one image", title_justify="left")
    table.add_column("layer")
    for column in ("weights", "kept", "density %", "operations", "of them dense"):
        table.add_column(column, justify="right")
    for name, layer in cost.layers.items():
        dense = 2 * layer.macs + layer.values
        sparse = 2 * layer.macs * kept[name] / layer.weights + layer.values
        table.add_row(
            name,
            f"{layer.weights:,}",
            f"{kept[name]:,}",
            f"{100 * kept[name] / layer.weights:.2f}",
            f"{float(sparse):,.0f}",
            f"{float(dense):,.0f}",
        )
    whole, left = float(cost.inference()), float(cost.inference(kept))
    table.add_section()
    table.add_row(
        "all",
        f"{masks.total(ticket.mask):,}",
        f"{ticket.nonzeros:,}",
        f"{100 * (1 - ticket.sparsity):.2f}",
        f"{left:,.0f}",
        f"{whole:,.0f}",
        style="bold",
    )
    out.print(table)
    out.print(f"Inference: {left / whole:.4f} of the dense network.", highlight=False)


COMMANDS = (flops,)
