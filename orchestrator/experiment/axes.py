"""The axes by which cells are told apart: one list for plans, selections, claims and reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Axes(NamedTuple):
    """Where a cell stands: its value on each axis, seeds apart.

    An axis with a default may be missing among the labels of a stage, which then has that.
    """

    network: str
    dataset: str
    method: str
    source: str = ""
    """The network, or ``network@dataset``, on which its ticket was found, if that is another."""
    transform: str = ""
    """How its ticket was moved, if it was."""
    round: int = 0
    """Of what has an exact sparsity it is the one whose rewind point and noise that has."""
    target: str = ""
    """Exact sparsity that was asked for, as ``0.9``; empty for a whole round."""
    ticket: str = ""
    """The imported ticket from which rounds are counted, if there is one."""
    variant: str = ""
    """The variant of the experiment; empty for the experiment itself."""
    noise: int = 0
    """Number of the twin; 0 is the cell itself."""

    @staticmethod
    def of(cell: Any) -> Axes:
        """The axes of a report's cell, or of the labels of a stage."""
        if isinstance(cell, Mapping):
            return Axes(**{name: cell[name] for name in CELL if name in cell})
        return Axes(*(getattr(cell, name) for name in CELL))

    @property
    def level(self) -> tuple[int, str, str]:
        """What is compared stands at one level: the same round, sparsity and imported ticket."""
        return (self.round, self.target, self.ticket)  # COMPARED_AT


CELL = Axes._fields
"""All axes, seeds apart."""
LEVEL = ("round", "target")
"""Those on which the cells of a line differ: how sparse each is."""
COMPARED_AT = (*LEVEL, "ticket")
"""Those of ``Axes.level``: rounds of an imported ticket are levels of their own."""
OF_LINE = tuple(axis for axis in CELL if axis not in LEVEL)
"""Those that the cells of a line have in common: a chain is one, and so is a method beside it."""
ON_NETWORK = tuple(axis for axis in OF_LINE if axis not in ("network", "dataset"))
"""Those that tell apart lines on one network and dataset."""
USUAL: Mapping[str, Any] = Axes._field_defaults
"""What a stage has on the axes that its labels may leave out."""
IN_CONFIGS = {"target": "sparsity"}
"""What an axis is called in a config, where that is another word."""
