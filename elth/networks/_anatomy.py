"""What a network tells about itself, so that one mechanism transforms every family."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of units of one width, between two changes of resolution (E-LTH, section 3.1)."""

    name: str
    """As the paper or the state dict calls it, for messages."""
    units: tuple[str, ...]
    """State-dict prefix of each unit: all tensors below it move together."""
    fixed: tuple[int, ...] = ()
    """Positions that are never replicated or dropped, as the down-sampling unit."""

    @classmethod
    def numbered(cls, name: str, depth: int, *, fixed: tuple[int, ...] = ()) -> Stage:
        """A stage whose units are named ``name.0``, ``name.1``, ..."""
        return cls(name=name, units=tuple(f"{name}.{unit}" for unit in range(depth)), fixed=fixed)

    @property
    def free(self) -> tuple[int, ...]:
        """Positions that may be replicated or dropped."""
        return tuple(i for i in range(len(self.units)) if i not in self.fixed)


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The stages and units of a network. What lies outside every unit is stem or head."""

    family: str
    """Tickets move within a family only."""
    stages: tuple[Stage, ...]
    head: str = "fc"
    """State-dict prefix of the last layer, which belongs to the classes of a dataset."""
    unpruned: tuple[str, ...] = ()
    """Prunable weights that the published recipe leaves whole; they count in the total."""
