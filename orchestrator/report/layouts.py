"""Layouts: our numbers in the shape of a paper's table, the printed ones beside them.

A layout is a function from the cells of a report to sheets. To add one, write a function here and
name it in ``LAYOUTS``; a config asks for it under ``paper.layout``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from elth import plugins
from elth.errors import unknown
from orchestrator.experiment.methods import rank, title
from orchestrator.experiment.papers import Paper, Printed
from orchestrator.report.cells import network_order
from orchestrator.report.sheets import Entry, Sheet

if TYPE_CHECKING:
    from orchestrator.report.cells import Cell


Layout = Callable[["Book"], list[Sheet]]


class Book:
    """The cells of a report at one level, and the printed numbers.

    A paper's rounds are of its own chains: what comes of an imported ticket is in no sheet.
    """

    def __init__(self, cells: Sequence[Cell], paper: Paper, dataset: str, round_: int) -> None:
        self.cells = tuple(
            c
            for c in cells
            if (c.method == "dense" or (c.round == round_ and not c.target))
            and not (c.variant or c.noise or c.ticket)
        )
        self.paper = paper
        self.dataset = dataset
        self.title = f"{paper.title}, round {round_}"
        """The paper's title and the level that is compared, with our sparsity if there is any."""
        found = [c.sparsity for c in self.cells if c.method == "imp"]
        if found:
            self.title += f" ({100 * statistics.fmean(found):.2f} % sparsity)"

    def find(
        self, method: str, network: str, source: str = "", transform: str = "", dataset: str = ""
    ) -> Entry:
        """The number of a cell; the transform may be left out where there is only one."""
        dataset = dataset or self.dataset
        axes = (method, network, source, dataset)
        for cell in self.cells:
            if (cell.method, cell.network, cell.source, cell.dataset) == axes and (
                not transform or cell.transform == transform
            ):
                return Entry(cell=cell, printed=self.printed(*axes, cell.transform))
        return Entry(printed=self.printed(*axes, transform))

    def printed(
        self, method: str, network: str, source: str, dataset: str, transform: str
    ) -> float | None:
        """The printed number of a cell."""
        for one in self.paper.printed:
            axes = (one.method, one.network, self.source(one), one.dataset or self.dataset)
            if axes == (method, network, source, dataset) and one.transform in ("", transform):
                return one.accuracy
        return None

    def source(self, one: Printed) -> str:
        """The source of a printed number, as cells write it."""
        found = one.source_dataset or self.dataset
        same = not one.source or found == (one.dataset or self.dataset)
        return one.source if same else f"{one.source}@{found}"

    def places(self) -> list[tuple[str, str, str, str, str]]:
        """Method, network, source, transform and dataset of all numbers, ours and printed."""
        ours = [(c.method, c.network, c.source, c.transform, c.dataset) for c in self.cells]
        any_plan = {(m, n, s, "", d) for m, n, s, _, d in ours}
        theirs = [
            (p.method, p.network, self.source(p), p.transform, p.dataset or self.dataset)
            for p in self.paper.printed
        ]
        return ours + [key for key in theirs if key not in any_plan.union(ours)]

    def transforms(self, method: str, source: str, dataset: str) -> tuple[str, ...]:
        """The transforms that need a row each: those of a source of which a target has several.

        Else one that is left out, as nothing has to be told apart.
        """
        found: dict[str, set[str]] = {}
        for cell in self.cells:
            if (cell.method, cell.source, cell.dataset) == (method, source, dataset):
                found.setdefault(cell.network, set()).add(cell.transform)
        if all(len(names) < 2 for names in found.values()):
            return ("",)
        return tuple(sorted(set().union(*found.values())))

    def networks(self, dataset: str = "") -> list[str]:
        """The networks that are trained, shallow ones first."""
        found = {n for _, n, _, _, d in self.places() if not dataset or d == dataset}
        return sorted(found, key=network_order)

    def datasets(self) -> list[str]:
        """The datasets that are trained on, the experiment's first."""
        found = dict.fromkeys(key[4] for key in self.places())
        return sorted(found, key=lambda name: (name != self.dataset, name))


def by_network(book: Book) -> list[Sheet]:
    """Table 1 of E-LTH: a row for each method and source, a column for each network."""
    sheets = []
    for dataset in book.datasets():
        keys = [key for key in book.places() if key[4] == dataset]
        networks = book.networks(dataset)
        rows = sorted(
            {(m, s) for m, _, s, _, _ in keys}, key=lambda r: (rank(r[0]), network_order(r[1]))
        )
        sheets.append(
            Sheet(
                title=f"{book.title}: {dataset}",
                corner="method",
                columns=tuple(networks),
                rows=tuple(
                    (
                        _name(method, source, plan),
                        tuple(book.find(method, n, source, plan, dataset) for n in networks),
                    )
                    for method, source in rows
                    for plan in book.transforms(method, source, dataset)
                ),
            )
        )
    return sheets


def by_source(book: Book) -> list[Sheet]:
    """Table 5 of E-LTH: a row for each source, a column for each target; the diagonal is IMP."""
    sheets = []
    for dataset in book.datasets():
        networks = book.networks(dataset)
        sources = {s for _, _, s, _, d in book.places() if d == dataset and s}
        rows = []
        for source in sorted({*networks, *sources}, key=network_order):
            for plan in book.transforms("ett", source, dataset):
                entries = [
                    book.find("imp", network, dataset=dataset)
                    if network == source
                    else book.find("ett", network, source, plan, dataset)
                    for network in networks
                ]
                rows.append((f"{source} {plan}".rstrip(), tuple(entries)))
        sheets.append(
            Sheet(
                title=f"{book.title}: {dataset}",
                corner="source",
                columns=tuple(networks),
                rows=tuple(rows),
            )
        )
    return sheets


def across_datasets(book: Book) -> list[Sheet]:
    """Table 6 of E-LTH: moved tickets, beside the ticket that IMP finds on the target itself.

    A ticket that goes to another dataset may take its head along: a column of its own.
    """

    def order(move: tuple[str, str, str]) -> tuple[object, ...]:
        source, dataset, network = move
        return (source.partition("@")[2] or dataset, dataset, network_order(network))

    moved = {"ett": "moved", "ett_head": "with its head"}
    moves = list({(s, d, n) for m, n, s, _, d in book.places() if m in moved})
    ways = [m for m in moved if m == "ett" or any(m == key[0] for key in book.places())]
    origins = {(s.partition("@")[0], s.partition("@")[2] or d) for s, d, _ in moves}
    own = [(network, dataset, network) for network, dataset in origins]
    rows = []
    for source, dataset, network in sorted({*moves, *own}, key=order):
        name, _, found = source.partition("@")
        target = f"{name} on {found or dataset} -> {network} on {dataset}"
        imp = book.find("imp", network, dataset=dataset)
        if source == network:
            rows.append(
                (
                    target,
                    (imp, *(book.find(w, network, source, dataset=dataset) for w in ways[1:]), imp),
                )
            )
            continue
        plans = dict.fromkeys(p for way in ways for p in book.transforms(way, source, dataset))
        for plan in [p for p in plans if p] or [""]:
            entries = (book.find(way, network, source, plan, dataset) for way in ways)
            rows.append((f"{target} {plan}".rstrip(), (*entries, imp)))
    return [
        Sheet(
            title=book.title,
            corner="ticket",
            columns=(*(moved[way] for way in ways), "IMP on the target"),
            rows=tuple(rows),
        )
    ]


def by_method(book: Book) -> list[Sheet]:
    """Table 7 of E-LTH, and Table 5 of its first version: one column, a row for each method."""
    sheets = []
    for dataset in book.datasets():
        for network in book.networks(dataset):
            keys = [key for key in book.places() if (key[1], key[4]) == (network, dataset)]
            keys.sort(key=lambda key: (rank(key[0]), network_order(key[2]), key[3]))
            rows = tuple((_name(m, s, t), (book.find(m, n, s, t, d),)) for m, n, s, t, d in keys)
            title = f"{book.title}: {network} on {dataset}"
            sheets.append(Sheet(title=title, corner="method", columns=("accuracy",), rows=rows))
    return sheets


def curves(book: Book) -> list[Sheet]:
    """A figure: accuracy against sparsity, drawn; there is no sheet."""
    return []


LAYOUTS: dict[str, Layout] = {
    "curves": curves,
    "by_network": by_network,
    "by_source": by_source,
    "by_method": by_method,
    "across_datasets": across_datasets,
}


def lay_out(cells: Sequence[Cell], paper: Paper, dataset: str, last: int) -> list[Sheet]:
    """The sheets of a paper's table or figure.

    Args:
        cells: our cells; those of the paper's round, or of the last one where it names none, and
            the dense ones are laid out.
        paper: the table or figure.
        dataset: the dataset of the experiment.
        last: the last round that is asked for.

    Raises:
        ElthError: there is no layout of this name.
    """
    layout = LAYOUTS.get(paper.layout)
    if layout is None:
        if not plugins.is_reference(paper.layout) and not plugins.listed():
            raise unknown("layout", paper.layout, LAYOUTS)
        layout = plugins.named("LAYOUTS", paper.layout, "layout", LAYOUTS)
    return layout(Book(cells, paper, dataset, paper.round or last))


def _name(method: str, source: str, transform: str = "") -> str:
    if source:
        plan = transform if transform != "identity" else ""
        return f"{title(method)} <- {source} {plan}".rstrip()
    return title(method)
