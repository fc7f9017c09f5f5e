"""Counts that must leave a layer empty: told before anything is trained.

Through a layer of which no weight is left no signal passes, but for a shortcut around it. Which
layer that is shows when the weights are known; that there is one is arithmetic, where fewer weights
are left than there are layers, or where a criterion, or the distribution of a sparse training,
gives each layer its share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from elth import criteria, dynamic
from elth.counts import kept_at, last_round
from elth.networks import facts
from orchestrator.experiment.methods import REWIND, SOURCE, SPARSE, method_of, title
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.costs import kept_after
from orchestrator.plan.sparse import weights_of_layers
from orchestrator.plan.stage import info_of

_NAMED = 4

_Place = tuple[str, str, str, float]
"""A network, its dataset, the imported ticket from which its rounds are counted, and their rate."""


@dataclass(frozen=True)
class _Level:
    """A round, or an exact sparsity."""

    round: int
    target: str

    @property
    def where(self) -> str:
        """As ``at a sparsity of 0.9``; what is so in a round is so in those that follow."""
        return f"at a sparsity of {self.target}" if self.target else f"from round {self.round} on"


@dataclass(frozen=True, kw_only=True)
class _Network:
    """The layers of a network, and how it is pruned."""

    name: str
    sizes: Mapping[str, int]
    """Weights that can be pruned, by layer."""
    shapes: Mapping[str, tuple[int, ...]]
    """The shape of each."""
    unpruned: tuple[str, ...]
    """Layers that are never pruned."""
    rate: float
    start: int
    """Weights that are left before the first round."""

    @property
    def total(self) -> int:
        """All weights that count."""
        return sum(self.sizes.values())

    @property
    def whole(self) -> int:
        """Those of ``unpruned``."""
        return sum(self.sizes[layer] for layer in self.unpruned)

    @property
    def layers(self) -> int:
        """Layers that are pruned."""
        return len(self.sizes) - len(self.unpruned)

    def kept(self, level: _Level) -> int:
        """Weights that are left at a level, in all."""
        if level.target:
            return kept_at(level.target, self.total)
        return kept_after(self.rate, level.round, self.start)

    def is_short(self, level: _Level) -> bool:
        """Whether fewer weights are left for the layers that are pruned than there are of these."""
        return self.kept(level) - self.whole < self.layers


def notes(experiment: Experiment) -> tuple[str, ...]:
    """What a person should know of the counts that an experiment asks for; usually nothing."""
    asked: dict[_Place, dict[_Level, None]] = {}
    by_criterion: dict[tuple[_Place, str], dict[_Level, None]] = {}
    by_method: dict[tuple[_Place, dynamic.Method], dict[_Level, None]] = {}
    rates = {name: pruning.rate for name, pruning in experiment.prunings().items()}
    settings = {name: experiment.variant(name).criteria for name in rates}
    for cell in experiment.cells():
        method, level = method_of(cell.method), _Level(cell.round, cell.target)
        moved = method.base == SOURCE
        own = (cell.source, cell.source_dataset) if moved else (cell.network, cell.dataset)
        place = (*own, cell.ticket, rates[cell.variant])
        asked.setdefault(place, {})[level] = None
        if method.base == REWIND:
            by_criterion.setdefault((place, method.criterion), {})[level] = None
        if method.base == SPARSE:
            own_settings = settings[cell.variant].get(method.criterion, {})
            given = {name: one for name, one in own_settings.items() if name != "at"}
            sparse = dynamic.method(method.criterion, given)
            by_method.setdefault((place, sparse), {})[level] = None
    networks = {place: _network(experiment, *place) for place in asked}
    found = [note for place, some in asked.items() for note in _short(networks[place], some)]
    for (place, criterion), some in by_criterion.items():
        found += _shared_out(networks[place], criterion, some)
    for (place, sparse), some in by_method.items():
        found += _spread_out(networks[place], sparse, some)
    return tuple(dict.fromkeys(found))


def _network(experiment: Experiment, name: str, dataset: str, ticket: str, rate: float) -> _Network:
    info = info_of(dataset)
    told = facts(name, info.shape)
    return _Network(
        name=f"{name} on {info.title}{f' from {ticket}' if ticket else ''}",
        sizes=told.sizes,
        shapes=weights_of_layers(name, info.shape),
        unpruned=told.anatomy.unpruned,
        rate=rate,
        start=experiment.tickets[ticket].nonzeros if ticket else told.prunable,
    )


def _short(network: _Network, levels: Iterable[_Level]) -> Iterator[str]:
    """Where fewer weights than layers are left: the first round, and the least sparsity."""
    short = [level for level in levels if network.is_short(level)]
    if any(not level.target for level in short):
        first = last_round(network.rate, network.start, network.whole + network.layers) + 1
        first = 0 if network.is_short(_Level(0, "")) else first
        last = last_round(network.rate, network.start, max(network.whole, 1))
        yield f"{_left(network, _Level(first, ''))}; round {last} is the last that can be asked for"
    targets = [level for level in short if level.target]
    if targets:
        yield _left(network, max(targets, key=network.kept))


def _left(network: _Network, level: _Level) -> str:
    left = network.kept(level) - network.whole
    count = f"{left:,} weight{'' if left == 1 else 's'}{'' if level.target else ' at most'}"
    return (
        f"{network.name}: {level.where} there {'is' if left == 1 else 'are'} {count} for "
        f"{network.layers} layers, so at least one of these is empty"
    )


def _shared_out(network: _Network, criterion: str, levels: Iterable[_Level]) -> Iterator[str]:
    """Where a criterion that gives each layer its share first leaves one with nothing."""

    def shares(kept: int) -> Mapping[str, int]:
        return criteria.shares(criterion, network.sizes, kept, network.unpruned) or {}

    return _first_empty(network, criterion, levels, shares)


def _spread_out(
    network: _Network, method: dynamic.Method, levels: Iterable[_Level]
) -> Iterator[str]:
    """The same of a sparse training that spreads its weights over the layers beforehand."""

    def counts(kept: int) -> Mapping[str, int]:
        return method.counts(network.shapes, kept, network.unpruned) or {}

    return _first_empty(network, method.name, levels, counts)


def _first_empty(
    network: _Network,
    name: str,
    levels: Iterable[_Level],
    shares: Callable[[int], Mapping[str, int]],
) -> Iterator[str]:
    for level in sorted(levels, key=network.kept, reverse=True):
        if network.is_short(level):
            return  # which is told of every method
        kept = network.kept(level)
        empty = [layer for layer, share in shares(kept).items() if not share]
        if empty:
            more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
            yield (
                f"{title(name)} on {network.name}: {level.where} ({kept:,} weights) none is "
                f"left in {', '.join(empty[:_NAMED])}{more}"
            )
            return
