"""Judgement: which ticket wins, matches or loses, and which claims of an experiment hold.

What is compared stands at one network, dataset, level and variant, and is paired by seeds. Every
comparison belongs to one family, within which it is corrected: the claims of the experiment are
one, and what is compared with each baseline besides is another. ``docs/judging.md`` says what is
computed, why so, and what it cannot tell.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from elth.errors import ElthError
from orchestrator.experiment.axes import Axes
from orchestrator.experiment.claims import Baseline, Claim
from orchestrator.plan.claiming import what_there_is
from orchestrator.report.cells import Cell, Report
from orchestrator.report.inference import ERROR, MOST, Array, Samples, holm, seeds_needed

WINS, MATCHES, LOSES, UNDECIDED = "wins", "matches", "loses", "undecided"
WORDS = (WINS, MATCHES, LOSES, UNDECIDED)
HOLDS, FAILS = "holds", "does not hold"
VERDICTS = (HOLDS, FAILS, UNDECIDED)

CLAIMS = "claims"
"""The family of what an experiment claims."""
AGAINST = ("dense", "imp")
"""What every cell is compared with."""

MEANING = (
    "wins: the interval of the difference lies above 0; matches: not that, and it lies within "
    "± {margin:g} points; loses: below 0, and does not match; else undecided."
)
"""The words, as they stand below a table."""
TICKETS = (
    "A ticket that wins against dense, or matches it, is a matching one (Frankle et al. 2020), and "
    "a winning ticket (Frankle & Carbin 2019) where it starts from the network's initialisation."
)
"""What the field calls a ticket by its comparison with the dense network."""

_WORDS_OF = {
    "differs": (WINS, LOSES),
    "above": (WINS,),
    "below": (LOSES,),
    "matches": (MATCHES,),
    "reaches": (),
    "is reached by": (),
}
"""Which words a comparison may have by what Holm's procedure says of a relation."""
_TURNED = {"above": "below", "below": "above", "matches": "matches", "reaches": "is reached by"}
"""What a relation is, seen from the other side."""

_DIFFERS = ("above", "below")
"""What says the most of a pair: of several claims that hold, a word goes by one of these."""

_Pair = tuple[Axes, Axes]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The accuracy of a cell less that of another, over the seeds that both have.

    In points of accuracy. Where the deviation cannot be told (fewer than two seeds, or all
    differences equal) there is no interval, and nothing is decided.
    """

    cell: Cell
    baseline: Cell
    seeds: tuple[int, ...]
    """Those that both have."""
    values: tuple[float, ...]
    """By seed."""
    mean: float | None
    """None without a common seed."""
    deviation: float | None
    """Of a sample (n - 1)."""
    alone: tuple[float, float] | None
    """The interval of 95 % of this comparison by itself, uncorrected."""
    p: float
    """Of this comparison by itself: of there being no difference, or of a claim not holding."""
    corrected: float
    """The same, corrected by Holm within its family."""
    interval: tuple[float, float] | None
    """At the level that decides within the family: the word, or verdict, is what it shows."""
    error: float
    """How often that interval misses the truth, as .005."""
    family: str
    """``claims``, or the baseline."""
    more_seeds: int | None
    """How many more would decide it with a probability of 80 %, if mean and deviation stay: None of
    what is decided, and where that cannot be told; ``MOST + 1`` is more than ``MOST``."""

    @property
    def n(self) -> int:
        """Seeds in common."""
        return len(self.seeds)

    @property
    def confidence(self) -> float:
        """Of the interval, as .995."""
        return 1 - self.error

    @property
    def why(self) -> str:
        """Why nothing tells the spread, so that there is no interval; empty if there is one."""
        if self.interval is not None:
            return ""
        return {0: "no common seed", 1: "one seed"}.get(self.n, f"{self.n} equal differences")

    @property
    def kept(self) -> float:
        """The mean of the non-zeros, in those of the baseline: 1 where both have as many."""
        ours, theirs = (statistics.fmean(one.nonzeros) for one in (self.cell, self.baseline))
        return ours / theirs if theirs else 1.0

    def more_spelled(self) -> str:
        """How many more seeds, as people read it: ``3 more seeds``; empty where it is not known."""
        if self.more_seeds is None:
            return ""
        if self.more_seeds > MOST:
            return f"more than {MOST} more seeds"
        return f"{self.more_seeds} more seed{'s' if self.more_seeds != 1 else ''}"

    def numbers(self) -> dict[str, Any]:
        """As JSON values, rounded to what honest runs have in common."""
        return {
            "family": self.family,
            "seeds": list(self.seeds),
            "difference": _rounded(self.mean),
            "difference_sd": _rounded(self.deviation),
            "interval_95": _rounded_pair(self.alone),
            "p": _significant(self.p) if self.alone else None,
            "p_corrected": _significant(self.corrected) if self.alone else None,
            "interval": _rounded_pair(self.interval),
            "confidence": round(self.confidence, 8),
            "more_seeds": None if (self.more_seeds or 0) > MOST else self.more_seeds,
            "more_seeds_over": MOST if (self.more_seeds or 0) > MOST else None,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison(Difference):
    """A cell against a baseline, in a word."""

    word: str
    """``wins``, ``matches``, ``loses`` or ``undecided``."""

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"against": _axes(self.baseline), "verdict": self.word, **self.numbers()}


@dataclass(frozen=True, kw_only=True)
class Part(Difference):
    """A claim at one cell, of one that it is compared with."""

    relation: str
    """``above``, ``below``, ``matches`` or ``reaches``."""
    verdict: str
    """``holds``, ``does not hold`` or ``undecided``."""
    leans_against: bool
    """Whether its mean lies where the relation does not hold."""

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        own = {"cell": _axes(self.cell), "of": _axes(self.baseline), "verdict": self.verdict}
        return own | self.numbers()


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim, and what became of it."""

    claim: Claim
    parts: tuple[Part, ...]
    """Its comparisons, of which both cells are there."""
    missing: int
    """Comparisons of which a cell has no result: it is not finished yet, or its chain ended."""

    @property
    def verdict(self) -> str:
        """It holds if all of its parts do, and does not if one does not."""
        found = {part.verdict for part in self.parts}
        if FAILS in found:
            return FAILS
        return HOLDS if found == {HOLDS} and not self.missing else UNDECIDED

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "claim": self.claim.text,
            "verdict": self.verdict,
            "missing": self.missing,
            "parts": [part.plain() for part in self.parts],
        }


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What can be said of a report."""

    margin: float
    """Points of accuracy within which two count as equal."""
    comparisons: tuple[Comparison, ...]
    """Every cell that is shown against each baseline, in the order of the report."""
    claims: tuple[Judged, ...]
    """In the order of the experiment."""
    families: Mapping[str, int]
    """The number of hypotheses of each family, those that wait for results included."""

    _found: dict[tuple[Axes, str], Comparison] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Index the comparisons."""
        for one in self.comparisons:
            self._found.setdefault((Axes.of(one.cell), one.baseline.method), one)

    def against(self, method: str, cell: Cell) -> Comparison | None:
        """The comparison of a cell with the first baseline of a method; None if there is none."""
        return self._found.get((Axes.of(cell), method))

    @property
    def meaning(self) -> str:
        """What the words mean, as it stands below a table."""
        return MEANING.format(margin=self.margin)


def judge(
    report: Report,
    against: Iterable[str | Mapping[str, Any]] = AGAINST,
    *,
    estimate: bool = True,
) -> Judgement:
    """Compare the cells of a report with baselines, and judge what its experiment claims.

    A pair of cells that a claim is about belongs to the family of claims, wherever it is shown;
    every other pair to that of its baseline. Twins are compared only where a claim names them.
    Of a part of a grid it is what it is in the whole: else whoever shows less would find more.

    Args:
        report: the cells; those that are still missing count in their families.
        against: the baselines: names of methods, or mappings as under ``of`` of a claim.
        estimate: whether it is worked out how many more seeds would decide what is undecided.

    Raises:
        ElthError: a baseline is no method, or no cell has it beside it.
    """
    cells = {Axes.of(cell): cell for cell in report.whole or report.cells}
    shown = {Axes.of(cell) for cell in report.cells}
    places = list(dict.fromkeys([*report.planned, *cells]))
    wanted = [
        list(dict.fromkeys(pair for one in claim.of for pair in claim.pairs(places, one)))
        for claim in report.claims
    ]
    said = dict.fromkeys(
        (claim.relation, *pair)
        for claim, pairs in zip(report.claims, wanted, strict=True)
        for pair in pairs
    )
    there = [one for one in said if cells.keys() >= {*one[1:]}]
    parts = _judged(there, len(said), cells, report.margin, estimate=estimate)
    claimed = _by_pair(said, parts)
    families = {CLAIMS: len(said)} if report.claims else {}
    comparisons: list[Comparison] = []
    told: set[_Pair] = set()
    baselines: list[Baseline] = []
    for given in against:
        baseline = Baseline.model_validate(given)
        if baseline in baselines:
            continue
        baselines.append(baseline)
        facing = _facing(baseline, places, report)
        if not facing and given not in AGAINST:
            raise ElthError(
                f"no cell of {report.grid} has {baseline.name} at its network, level and variant: "
                f"{what_there_is(baseline.method, places)}"
            )
        pairs = []
        for first, second in facing:  # the other way round it is the same hypothesis
            if not told & {(first, second), (second, first)}:
                pairs.append((first, second))
                told.add((first, second))
        families[baseline.name] = sum(pair not in claimed for pair in pairs)
        comparisons += _compared(
            [pair for pair in pairs if cells.keys() >= {*pair}],
            baseline.name,
            families,
            cells,
            report.margin,
            claimed,
            estimate=estimate,
        )
    order = {place: rank for rank, place in enumerate(cells) if place in shown}
    comparisons = [one for one in comparisons if Axes.of(one.cell) in order]
    return Judgement(
        margin=report.margin,
        comparisons=tuple(sorted(comparisons, key=lambda one: order[Axes.of(one.cell)])),
        claims=tuple(
            Judged(
                claim=claim,
                parts=tuple(parts[key] for key in keys if key in parts),
                missing=sum(key not in parts for key in keys),
            )
            for claim, pairs in zip(report.claims, wanted, strict=True)
            for keys in ([(claim.relation, *pair) for pair in pairs],)
        ),
        families=families,
    )


def _facing(baseline: Baseline, places: Iterable[Axes], report: Report) -> list[_Pair]:
    """Every cell that is shown, or will be, with the baseline that it is compared with."""
    near: dict[tuple[str, str], list[Axes]] = {}
    for place in places:
        near.setdefault((place.dataset, place.network), []).append(place)
    if report.asked & near.keys():
        near = {where: some for where, some in near.items() if where in report.asked}
    return [
        pair
        for some in near.values()
        for pair in baseline.pairs(
            [one for one in some if one.method != "dense" and not one.noise], some
        )
    ]


def _paired(pair: _Pair, cells: Mapping[Axes, Cell]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The seeds that two cells have in common, and the differences of their accuracies."""
    cell, other = (cells[place] for place in pair)
    reference = dict(zip(other.seeds, other.accuracy, strict=True))
    found = [
        (seed, accuracy - reference[seed])
        for seed, accuracy in zip(cell.seeds, cell.accuracy, strict=True)
        if seed in reference
    ]
    return tuple(seed for seed, _ in found), tuple(value for _, value in found)


def word_of(low: float, high: float, margin: float) -> str:
    """The word for an interval of the difference; ``undecided`` for one that is not a number."""
    if low > 0:
        return WINS
    if low >= -margin and high <= margin:
        return MATCHES
    return LOSES if high < 0 else UNDECIDED


def _refutes(relation: str, low: float, high: float, margin: float) -> bool:
    """Whether an interval lies where a relation does not hold."""
    return {
        "above": high < 0,
        "below": low > 0,
        "matches": low > margin or high < -margin,
        "reaches": high < -margin,
    }[relation]


@dataclass(frozen=True, kw_only=True)
class _Numbers:
    """What differences have in common before anything is decided."""

    pairs: Sequence[_Pair]
    seeds: Sequence[tuple[int, ...]]
    values: Sequence[tuple[float, ...]]
    samples: Samples
    alone: tuple[Array, Array]

    @staticmethod
    def of(pairs: Sequence[_Pair], cells: Mapping[Axes, Cell]) -> _Numbers:
        found = [_paired(pair, cells) for pair in pairs]
        values = [one for _, one in found]
        samples = Samples.of(values)
        return _Numbers(
            pairs=pairs,
            seeds=[seeds for seeds, _ in found],
            values=values,
            samples=samples,
            alone=samples.interval(ERROR),
        )

    def fields(self, place: int, cells: Mapping[Axes, Cell]) -> dict[str, Any]:
        """What a difference says of itself, as the fields of ``Difference``."""
        cell, other = self.pairs[place]
        return {
            "cell": cells[cell],
            "baseline": cells[other],
            "seeds": self.seeds[place],
            "values": self.values[place],
            "mean": _number(self.samples.mean[place]),
            "deviation": _number(self.samples.deviation[place]),
            "alone": _pair_of(self.alone, place),
        }


def _judged(
    said: Sequence[tuple[str, Axes, Axes]],
    size: int,
    cells: Mapping[Axes, Cell],
    margin: float,
    *,
    estimate: bool,
) -> dict[tuple[str, Axes, Axes], Part]:
    """What becomes of each relation that is claimed of a pair."""
    if not said:
        return {}
    numbers = _Numbers.of([(cell, other) for _, cell, other in said], cells)
    samples = numbers.samples
    relations = np.array([relation for relation, *_ in said])
    p = np.empty(len(said))
    for relation in set(relations.tolist()):
        of_it = relations == relation
        p[of_it] = samples[of_it].p(relation, margin)
    corrected, level = holm(p, size)
    strict = np.full(len(said), ERROR / size)
    narrow, wide = samples.interval(level), samples.interval(strict)
    decided = []
    for place, relation in enumerate(relations.tolist()):
        verdict, shown, error = UNDECIDED, _pair_of(wide, place), strict[place]
        if corrected[place] <= ERROR:
            verdict, shown, error = HOLDS, _pair_of(narrow, place), level[place]
        elif shown is not None and _refutes(relation, *shown, margin):
            verdict = FAILS
        decided.append((verdict, shown, float(error)))
    more = np.zeros(len(said))
    is_open = np.array([verdict == UNDECIDED for verdict, *_ in decided])
    for relation in set(relations[is_open].tolist()) if estimate else ():
        of_it = is_open & (relations == relation)
        more[of_it] = _more_to_claim(relation, samples[of_it], margin, level[of_it], strict[of_it])
    found = {}
    for place, (key, (verdict, shown, error)) in enumerate(zip(said, decided, strict=True)):
        mean = float(samples.mean[place])
        found[key] = Part(
            **numbers.fields(place, cells),
            p=float(p[place]),
            corrected=float(corrected[place]),
            interval=shown,
            error=error,
            family=CLAIMS,
            more_seeds=int(more[place]) or None,
            relation=key[0],
            verdict=verdict,
            leans_against=_refutes(key[0], mean, mean, margin),
        )
    return found


def _more_to_claim(
    relation: str, samples: Samples, margin: float, level: Array, strict: Array
) -> Array:
    """More seeds by which a relation would be seen to hold, or not to."""
    if relation == "matches":
        return seeds_needed(
            samples, centre=0.0, margin=margin, differs=strict, within=level, outside=True
        )
    centre = -margin if relation == "reaches" else 0.0
    holds = samples.mean < centre if relation == "below" else samples.mean > centre
    differs = np.where(holds, level, strict)
    return seeds_needed(samples, centre=centre, margin=None, differs=differs, within=strict)


def _by_pair(
    said: Iterable[tuple[str, Axes, Axes]], parts: Mapping[tuple[str, Axes, Axes], Part]
) -> dict[_Pair, list[tuple[str, Part]]]:
    """What is claimed of each pair of cells, from either side; nothing where one is missing."""
    found: dict[_Pair, list[tuple[str, Part]]] = {}
    for relation, cell, other in said:
        part = parts.get((relation, cell, other))
        for pair, seen in (((cell, other), relation), ((other, cell), _TURNED[relation])):
            found.setdefault(pair, []).extend([(seen, part)] if part else [])
    return found


def _compared(
    pairs: Sequence[_Pair],
    name: str,
    families: Mapping[str, int],
    cells: Mapping[Axes, Cell],
    margin: float,
    claimed: Mapping[_Pair, Sequence[tuple[str, Part]]],
    *,
    estimate: bool,
) -> list[Comparison]:
    """The word of each pair, those that are claimed something of in the family of claims."""
    if not pairs:
        return []
    numbers = _Numbers.of(pairs, cells)
    samples = numbers.samples
    is_own = np.array([pair not in claimed for pair in pairs])
    p = samples.p("differs", margin)
    corrected, level = p.copy(), np.full(len(pairs), ERROR)
    corrected[is_own], level[is_own] = holm(p[is_own], families[name])
    strict = np.where(is_own, *(ERROR / max(families.get(one, 1), 1) for one in (name, CLAIMS)))
    by: list[str] = ["differs"] * len(pairs)
    for place in np.nonzero(~is_own)[0].tolist():
        level[place], by[place] = strict[place], "reaches"
        corrected[place] = min(p[place] * families[CLAIMS], 1)
        for relation, part in sorted(claimed[pairs[place]], key=lambda one: one[0] not in _DIFFERS):
            if part.verdict == HOLDS and by[place] == "reaches":
                level[place], by[place] = part.error, relation
                if relation in _DIFFERS:
                    corrected[place] = part.corrected
    wide, narrow = samples.interval(strict), samples.interval(level)
    decided = []
    for place in range(len(pairs)):
        shown, error = _pair_of(wide, place), strict[place]
        word = word_of(*shown, margin) if shown else UNDECIDED
        if shown and word in (UNDECIDED, MATCHES):  # a win is asked for before a match
            low, high = float(narrow[0][place]), float(narrow[1][place])
            found = word_of(low, high, margin)
            if found in _WORDS_OF[by[place]] and (word == UNDECIDED or found == WINS):
                word, shown, error = found, (low, high), level[place]
        decided.append((word, shown, float(error)))
    more = np.zeros(len(pairs))
    is_open = np.array([word == UNDECIDED for word, *_ in decided])
    if estimate and is_open.any():
        errors = {"differs": level[is_open], "within": strict[is_open]}
        more[is_open] = seeds_needed(samples[is_open], centre=0.0, margin=margin, **errors)
    return [
        Comparison(
            **numbers.fields(place, cells),
            p=float(p[place]),
            corrected=float(corrected[place]),
            interval=shown,
            error=error,
            family=name if is_own[place] else CLAIMS,
            more_seeds=int(more[place]) or None,
            word=word,
        )
        for place, (word, shown, error) in enumerate(decided)
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _pair_of(interval: tuple[Array, Array], place: int) -> tuple[float, float] | None:
    low, high = float(interval[0][place]), float(interval[1][place])
    return None if np.isnan(low) else (low, high)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4) + 0.0


def _rounded_pair(pair: tuple[float, float] | None) -> list[float | None] | None:
    return None if pair is None else [_rounded(value) for value in pair]


def _significant(value: float) -> float:
    return float(f"{value:.4g}")


def _axes(cell: Cell) -> dict[str, Any]:
    """Where a cell stands, as JSON values, without axes that say nothing."""
    always = ("dataset", "network", "method", "round")
    given = Axes.of(cell)._asdict()
    return {name: value for name, value in given.items() if value or name in always}
