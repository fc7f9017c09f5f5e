"""How often a judgement is right: grids of known truth, judged by the code that ships.

``python -m benchmarks judgement``. Every grid has a dense network, IMP, and four lines at two
rounds. The accuracy of a cell is its true mean, plus what all cells of a seed have in common, plus
a draw of its own whose deviation differs from cell to cell. Four kinds of grids are drawn in turn:

* none differs: every true mean is equal. All that wins or loses is false.
* half differ: half of the lines are 5 points off, which is always seen. Holm's procedure, having
  rejected these, tests the rest at its least strict levels.
* at the margin: lines are exactly half a point off, so that none matches, and none is far from it.
* mixed: differences of 0 to 2 points.

``simulate`` is what the tests call, with fewer grids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import Row, row
from orchestrator.experiment.axes import Axes
from orchestrator.experiment.claims import Claim
from orchestrator.report.cells import Cell, Report
from orchestrator.report.judgement import Difference, Judgement, judge

GRIDS = 10_000
SEEDS = range(2, 11)
KINDS = ("none differs", "half differ", "at the margin", "mixed")
MARGIN = 0.5
CLAIMS = (
    {"ett": "above", "of": ["reinit", "random", "magnitude"], "round": 8},
    {"imp": "reaches", "of": "dense", "round": 4},
    {"ett": "matches", "of": "imp", "round": 8},
)
"""Five hypotheses."""

_LINES = ("imp", "ett", "reinit", "random", "magnitude")
_ROUNDS = (4, 8)
_PLACES = (("dense", 0), *((method, k) for method in _LINES for k in _ROUNDS))
_NONE = 1e-9


@dataclass
class Tally:
    """What came out of some grids."""

    intervals: int = 0
    covering: int = 0
    """95 % intervals, of single comparisons, that hold the truth."""
    families: Counter[str] = field(default_factory=Counter)
    """Families by the kind of grid; of claims by that kind and ``claims``."""
    differs: Counter[str] = field(default_factory=Counter)
    """Those in which something wins or loses and does not differ; of claims: holds, and is false.
    """
    words: Counter[str] = field(default_factory=Counter)
    """Those in which any word, or verdict, is false: also of the wrong sign, or not within the
    margin."""
    said: Counter[tuple[str, float]] = field(default_factory=Counter)
    """How often each word was said, by the size of the true difference."""
    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Put two together."""
        self.intervals += other.intervals
        self.covering += other.covering
        for name in ("families", "differs", "words", "said", "right", "wrong"):
            getattr(self, name).update(getattr(other, name))


def simulate(grids: int, n: int, *, seed: int, images: int = 0, tails: int = 0) -> Tally:
    """Draw grids, judge them and count.

    Args:
        grids: how many.
        n: seeds of each.
        seed: of the draws.
        images: of the test set, to which accuracies are rounded; 0 rounds nothing.
        tails: degrees of freedom of the draws, which are Student's t; 0 is normal.
    """
    rng = np.random.default_rng([seed, n])
    claims = tuple(Claim.model_validate(one) for one in CLAIMS)
    tally = Tally()
    for number in range(grids):
        kind = KINDS[number % len(KINDS)]
        truth = dict(zip(_PLACES, _means(kind, rng).tolist(), strict=True))
        report = Report(
            grid="simulated",
            cells=tuple(_cells(truth, n, rng, images=images, tails=tails)),
            missing=0,
            claims=claims,
            margin=MARGIN,
        )
        _count(judge(report, estimate=False), truth, kind, tally)
    return tally


def _means(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """The true mean of each place, less that of the dense network."""
    means = np.zeros(len(_PLACES))
    lines = np.arange(len(_PLACES)) >= 1 + len(_ROUNDS)  # all but dense and IMP
    signs = rng.choice([-1.0, 1.0], len(_PLACES))
    if kind == "half differ":
        means[lines & (rng.random(len(_PLACES)) < 0.5)] = 5.0
    elif kind == "at the margin":
        means[lines] = MARGIN
    elif kind == "mixed":
        means[1:] = rng.choice([0.0, 0.25, 0.5, 1.0, 2.0], len(_PLACES) - 1)
    return means * signs


def _cells(
    truth: dict[tuple[str, int], float],
    n: int,
    rng: np.random.Generator,
    *,
    images: int,
    tails: int,
) -> Iterator[Cell]:
    shape = (len(truth), n)
    drawn = rng.standard_t(tails, shape) if tails else rng.standard_normal(shape)
    own = drawn * rng.uniform(0.1, 0.6, len(truth))[:, None]
    accuracy = 90 + np.array([*truth.values()])[:, None] + rng.standard_normal(n) + own
    if images:
        accuracy = np.round(accuracy * images / 100) * 100 / images
    for (method, k), values in zip(truth, accuracy.tolist(), strict=True):
        moved = method == "ett"
        yield Cell(
            network="resnet20",
            method=method,
            source="resnet14" if moved else "",
            transform="append" if moved else "",
            round=k,
            dataset="digits",
            sparsity=1 - 0.64**k,
            seeds=tuple(range(n)),
            nonzeros=(1000,) * n,
            accuracy=tuple(values),
            runs=("",) * n,
            numerics=("",) * n,
            seconds=(0.0,) * n,
        )


def _count(judged: Judgement, truth: dict[tuple[str, int], float], kind: str, tally: Tally) -> None:
    families: dict[str, list[tuple[bool, bool]]] = {}
    for one in judged.comparisons:
        delta = _true(one, truth)
        tally.said[one.word, round(abs(delta), 2)] += 1
        _cover(one, delta, tally)
        is_wrong = not _is_right(one.word, delta)
        (tally.wrong if is_wrong else tally.right)[one.word] += 1
        differs = abs(delta) < _NONE and one.word in ("wins", "loses")
        if one.family != "claims":
            families.setdefault(f"{kind}/{one.family}", []).append((differs, is_wrong))
    for claim in judged.claims:
        for part in claim.parts:
            is_so = _holds(part.relation, _true(part, truth))
            held = part.verdict == "holds" and not is_so
            refuted = part.verdict == "does not hold" and is_so
            (tally.wrong if held or refuted else tally.right)[part.verdict] += 1
            families.setdefault(f"{kind}/claims", []).append((held, held or refuted))
    for name, found in families.items():
        which = f"{kind}, claims" if name.endswith("/claims") else kind
        tally.families[which] += 1
        tally.differs[which] += any(differs for differs, _ in found)
        tally.words[which] += any(wrong for _, wrong in found)


def _true(one: Difference, truth: dict[tuple[str, int], float]) -> float:
    cell, other = (Axes.of(each) for each in (one.cell, one.baseline))
    return truth[cell.method, cell.round] - truth[other.method, other.round]


def _cover(one: Difference, delta: float, tally: Tally) -> None:
    if one.alone is not None:
        tally.intervals += 1
        tally.covering += one.alone[0] <= delta <= one.alone[1]


def _is_right(word: str, delta: float) -> bool:
    return {
        "wins": delta > _NONE,
        "matches": abs(delta) < MARGIN - _NONE,
        "loses": delta < -_NONE,
        "undecided": True,
    }[word]


def _holds(relation: str, delta: float) -> bool:
    return {
        "above": delta > _NONE,
        "matches": abs(delta) < MARGIN - _NONE,
        "reaches": delta > -MARGIN + _NONE,
    }[relation]


def rows(grids: int = GRIDS) -> list[Row]:
    """Coverage by number of seeds, family-wise rates by kind of grid, words by true difference."""
    found: list[Row] = []
    everything = Tally()
    for n in SEEDS:
        tally = simulate(grids, n, seed=0)
        found.append(_coverage(f"{n} seeds: 95 % intervals that hold the truth", tally))
        everything.add(tally)
        print(found[-1]["name"], found[-1]["value"], flush=True)
    for kind in (*KINDS, *(f"{kind}, claims" for kind in KINDS)):
        what = "a claim that holds and is false" if "claims" in kind else "a false difference"
        for title, counts in ((what, everything.differs), ("any false word", everything.words)):
            limit = _limit(everything.families[kind]) if counts is everything.differs else ""
            name = f"{kind}: families with {title}"
            found.append(_rate(name, counts[kind], everything.families[kind], limit))
    for word in ("wins", "matches", "loses", "holds", "does not hold"):
        right, wrong = everything.right[word], everything.wrong[word]
        found.append(_rate(f"of all '{word}': right", right, right + wrong))
    for size in _SIZES:
        total = sum(count for (_, at), count in everything.said.items() if at == size)
        for word in ("wins", "matches", "loses", "undecided"):
            count = everything.said[word, size]
            found.append(_rate(f"{size:g} points apart: '{word}'", count, total))
    for n, changes in _HARDER:
        told = ", ".join(f"{name} {value}" for name, value in changes.items())
        tally = simulate(grids // 5, n, seed=1, **changes)
        title = f"{n} seeds, {told}: 95 % intervals that hold the truth"
        found.append(_coverage(title, tally, limit=""))
        kind = KINDS[0]
        title = f"{n} seeds, {told}, {kind}: families with a false difference"
        found.append(_rate(title, tally.differs[kind], tally.families[kind]))
    return found


_SIZES = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
"""True differences of which the words are told."""
_HARDER: Sequence[tuple[int, dict[str, Any]]] = tuple(
    (n, changes) for changes in ({"images": 500}, {"tails": 3}) for n in (2, 3, 5, 10)
)
"""What the t interval does not allow for: accuracies in steps, and rare seeds far from the rest."""


def _coverage(name: str, tally: Tally, limit: str = "95 ± 1") -> Row:
    return _rate(name, tally.covering, tally.intervals, limit)


def _rate(name: str, count: int, of: int, limit: str = "") -> Row:
    return row(name, "%", [round(100 * count / max(of, 1), 2)], limit, f"of {of:,}")


def _limit(of: int) -> str:
    """5 %, and three standard errors of the simulation."""
    return f"< {5 + 300 * (0.05 * 0.95 / max(of, 1)) ** 0.5:.2f}"
