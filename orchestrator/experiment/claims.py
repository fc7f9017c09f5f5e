"""Claims: the comparisons that an experiment is about, named before its results are looked at.

``{ett: above, of: [reinit, random], network: resnet20, round: 10}`` claims that ETT is more
accurate than Reinit, and than Random, there. All claims are judged as one family
(``report.judgement``).
Nothing of it is in a key, as no training depends on what is said of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from elth.errors import ElthError, nearest, unknown
from orchestrator.experiment.axes import Axes
from orchestrator.experiment.basics import OneOrMore, Section, Whole
from orchestrator.experiment.methods import method_of, title
from orchestrator.experiment.selecting import STORED, Cells, as_labels, is_stored

MARGIN = 0.5
"""Points of accuracy within which two count as equal, where an experiment says nothing else."""

RELATIONS: Mapping[str, str] = {
    "above": "is more accurate than",
    "below": "is less accurate than",
    "matches": "is within the margin of",
    "reaches": "is not below, by the margin or more,",
}
"""What may be claimed of a method against another, and how it is read."""

_DENSE = "dense"


class Baseline(Section):
    """What something is compared with: a method, and what tells its lines apart.

    It stands at the network, dataset and level of what is compared with it; ``dense`` at none.
    """

    method: str
    """Its method."""
    source: Annotated[tuple[str, ...], OneOrMore] = ()
    """As cells write it: a network, or ``network@dataset``. Left out: any."""
    transform: Annotated[tuple[str, ...], OneOrMore] = ()
    """As cells write it. Left out: any."""
    variant: Annotated[tuple[str, ...], OneOrMore] = ()
    """``none`` is the experiment itself. Left out: that of what is compared, or where the method
    has none of it on that network, as where only RigL is trained for longer, the experiment."""
    noise: Annotated[tuple[Whole, ...], OneOrMore] = (0,)
    """Twins by their numbers. Left out: the cell itself."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @field_validator("method")
    @classmethod
    def _known_method(cls, name: str, info: ValidationInfo) -> str:
        if not is_stored(info):
            method_of(name)
        return name

    @property
    def name(self) -> str:
        """As people read it: ``IMP``, ``ETT <- resnet14 append``."""
        text = title(self.method)
        text += f" <- {', '.join(self.source)}" if self.source else ""
        text += f" {', '.join(self.transform)}" if self.transform else ""
        text += f", {', '.join(self.variant)}" if self.variant else ""
        return text + (f", noise {', '.join(map(str, self.noise))}" if self.noise != (0,) else "")

    def pairs(self, cells: Iterable[Axes], near: Iterable[Axes]) -> list[tuple[Axes, Axes]]:
        """Cells, each with one that it is compared with.

        Args:
            cells: of one network and dataset.
            near: all that there are of these.
        """
        own = [one for one in near if one.method == self.method]
        has = {one.variant for one in own}
        given = as_labels("variant", self.variant)
        return [
            (cell, other)
            for cell in cells
            for variants in (given or (cell.variant if cell.variant in has else "",),)
            for other in own
            if cell != other
            and (cell.level == other.level or _DENSE in (cell.method, other.method))
            and (not self.source or other.source in self.source)
            and (not self.transform or other.transform in self.transform)
            and other.variant in variants
            and other.noise in self.noise
        ]


class _Of(Section):
    of: Annotated[tuple[Baseline, ...], OneOrMore] = Field(min_length=1)
    """What the method is compared with: names of methods, or of their lines as
    ``{method: ett, source: resnet14, transform: append}``."""


class Claim(Cells, _Of):  # whose field stands first, in files and in stores
    """A method, what it is said to be, and of what: at the method's own cells, all or some.

    The method and the relation are a pair of their own, as ``ett: above``.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    noise: Annotated[tuple[Whole, ...], OneOrMore] = (0,)
    """Twins by their numbers. Left out: the cells themselves."""

    @model_validator(mode="after")
    def _says_one_thing(self, info: ValidationInfo) -> Claim:
        given = self.model_extra or {}
        spelled = f"one method and what is claimed of it, as ett: above ({', '.join(RELATIONS)})"
        said = [n for n, value in given.items() if isinstance(value, str) and value in RELATIONS]
        if len(given) == 1 and not said:
            ((name, value),) = given.items()
            if not is_stored(info):
                method_of(name)
            raise unknown(f"relation of {name}", str(value), RELATIONS)
        others = [name for name in given if name not in said]
        if others:
            known = list(type(self).model_fields)
            raise ElthError(
                f"unknown key '{others[0]}'{nearest(others[0], known)} (a claim has: "
                f"{', '.join(known)}, and {spelled})"
            )
        if len(said) != 1:
            raise ElthError(
                f"expected {spelled}; found {', '.join(f'{n}: {given[n]}' for n in said) or 'none'}"
            )
        if not is_stored(info):
            method_of(said[0])
        return self

    @property
    def method(self) -> str:
        """The method that something is claimed of."""
        return next(iter(self.model_extra or {}))

    @property
    def relation(self) -> str:
        """What is claimed: one of ``RELATIONS``."""
        return str((self.model_extra or {})[self.method])

    @property
    def text(self) -> str:
        """As people read it: ``ETT above Reinit, Random: resnet20, round 10``."""
        own = Baseline.model_construct(
            method=self.method,
            source=self.source,
            transform=self.transform,
            variant=self.variant,
            noise=self.noise,
        )
        where = [*self.network, *self.dataset]
        where += [f"round {', '.join(map(str, self.round))}"] if self.round else []
        where += [f"{100 * value:g} %" for value in self.sparsity]
        where += [f"from {name}" for name in self.ticket]
        told = f"{own.name} {self.relation} {', '.join(one.name for one in self.of)}"
        return told + (f": {', '.join(where)}" if where else "")

    def pairs(self, places: Iterable[Axes], baseline: Baseline) -> list[tuple[Axes, Axes]]:
        """The cells that are claimed something of, each with one that it is compared with.

        Args:
            places: the cells that there are, or will be.
            baseline: one of ``of``.
        """
        near: dict[tuple[str, str], list[Axes]] = {}
        for place in places:
            near.setdefault((place.dataset, place.network), []).append(place)
        return [
            (cell, other)
            for some in near.values()
            for cell, other in baseline.pairs(
                [one for one in some if self.is_of(one._asdict())], some
            )
            if self.is_at((other if cell.method == _DENSE else cell)._asdict())
        ]

    def is_of(self, labels: Mapping[str, Any]) -> bool:
        """Whether something is claimed of a cell, its level apart, by the labels of its stage."""
        return labels["method"] == self.method and super().is_of(labels)

    def plain(self) -> dict[str, Any]:
        """As JSON values, without what was left out."""
        return {self.method: self.relation} | self.model_dump(mode="json", exclude_unset=True)

    @staticmethod
    def stored(plain: Mapping[str, Any]) -> Claim:
        """What a store holds of it: the code that it names may not be here."""
        return Claim.model_validate(plain, context={STORED: True})
