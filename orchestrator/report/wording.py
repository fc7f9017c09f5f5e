"""The question that a grid asks, and what came of it, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from orchestrator.experiment.methods import METHODS, SPARSE, rank, title
from orchestrator.report.analyses import Analyses
from orchestrator.report.cells import Report, network_order
from orchestrator.report.inference import MOST
from orchestrator.report.judgement import (
    FAILS,
    HOLDS,
    UNDECIDED,
    VERDICTS,
    WORDS,
    Judged,
    Judgement,
)
from orchestrator.report.verdicts import counts_of

_NAMED = 4
"""Names that a sentence bears."""


def question(report: Report, analyses: Analyses) -> str:
    """What a grid asks: of moved tickets, of IMP's, of sparse training, or of what lies inside."""
    cells = report.shown
    if not cells:
        return "Nothing of this grid is finished yet, so there is nothing to be told."
    datasets = _all(list(dict.fromkeys(c.dataset for c in cells)), "datasets")
    moved = [c for c in cells if c.is_moved and c.method in ("ett", "ett_head")]
    rest = sorted(
        {c.method for c in cells if c.method not in ("dense", "imp", "ett", "ett_head")}, key=rank
    )
    sparse = [name for name in rest if name in METHODS and METHODS[name].base == SPARSE]
    controls = [name for name in rest if name not in sparse]
    if moved:
        sources = _networks(c.source for c in moved)
        targets = _networks(c.network for c in moved)
        text = (
            f"Does a ticket that IMP finds on {_or(sources, 'networks')} stay as accurate when ETT "
            f"moves it to {_or(targets, 'networks')} ({datasets})"
        )
        more = "does it stay above"
    elif any(c.method == "imp" for c in cells):
        networks = _networks(c.network for c in cells if c.method == "imp")
        text = (
            f"Does the ticket that IMP finds in {_all(networks, 'networks')} stay as accurate as "
            f"the dense network on {datasets}"
        )
        more = "is it above"
    else:
        networks = _networks(c.network for c in cells)
        named = _all([title(name) for name in rest or ["dense"]], "methods")
        place = _all(networks, "networks")
        return f"How accurate are {named} on {place}, {datasets}, at which sparsity?"
    if controls:
        names = _all([title(name) for name in controls], "controls")
        text += f", and {more} {names} of the same sparsity"
    if sparse:
        text += f", and how does it compare with {_all([title(n) for n in sparse], 'methods')}"
    if analyses.found:
        measures = list(dict.fromkeys(one.measure for one in analyses.found))
        text += f"; and what do {_all(measures, 'measures')} show of it"
    return f"{text}?"


def verdict(report: Report, judgement: Judgement) -> str:
    """What came of it: of the experiment's claims where it has any, else of the comparisons."""
    if judgement.claims:
        return _of_claims(judgement)
    if not judgement.comparisons:
        return "There is nothing to compare: " + (
            "no two of its cells stand at one level." if report.cells else "no cell is finished."
        )
    total = Counter(one.word for one in judgement.comparisons)
    if total.keys() == {UNDECIDED}:
        return _of_nothing(judgement)
    sentences = []
    for baseline, place in _BASELINES.items():
        groups: dict[str, Counter[str]] = {}
        for one in judgement.comparisons:
            name = _group(one.cell.method, baseline) if one.baseline.method == baseline else ""
            if name:
                groups.setdefault(name, Counter())[one.word] += 1
        told = "; ".join(f"{name} {_counted(groups[name])}" for name in _GROUPS if name in groups)
        sentences += [f"Against {place}, {told}."] if told else []
    if not sentences:  # controls alone, beside the dense network, or other baselines
        return f"Against {'; '.join(counts_of(judgement))}."
    return " ".join(sentences)


_BASELINES = {"imp": "IMP's own ticket of the same sparsity", "dense": "the dense network"}
_GROUPS = ("IMP", "ETT", "sparse training", "a control")


def _group(method: str, baseline: str) -> str:
    """In whose name a sentence tells of a method; controls are measured by IMP alone."""
    base = METHODS[method].base if method in METHODS else ""
    if method in ("imp", "ett", "ett_head"):
        return "IMP" if method == "imp" else "ETT"
    if base == SPARSE:
        return "sparse training"
    return "a control" if baseline == "imp" else ""


def _counted(words: Counter[str]) -> str:
    """How often each word is said: ``wins in 3 of 9 cells, loses in 2 and is undecided in 4``."""
    told: list[str] = []
    for word in WORDS:
        if words[word]:
            verb = f"is {word}" if word == UNDECIDED else word
            cells = "" if told else f" of {words.total()} cell{'s' * (words.total() != 1)}"
            told.append(f"{verb} in {words[word]}{cells}")
    return joined(told, "and")


def _of_nothing(judgement: Judgement) -> str:
    """What is said where no comparison is decided."""
    count = len(judgement.comparisons)
    seeds = sorted({one.n for one in judgement.comparisons})
    text = f"With {joined([str(n) for n in seeds], 'or')} seed{'s' * (seeds != [1])} "
    text += f"none of {count} comparisons is decided." if count > 1 else "nothing is decided."
    more = [one.more_seeds for one in judgement.comparisons if one.more_seeds]
    if more and min(more) <= MOST:
        return f"{text} {min(more)} more seed{'s' * (min(more) != 1)} would probably decide one."
    return f"{text} One seed does not tell how far seeds are apart." if seeds == [1] else text


def _of_claims(judgement: Judgement) -> str:
    """Two sentences: what holds and what does not, and what is open."""
    by: dict[str, list[str]] = {name: [] for name in VERDICTS}
    for one in judgement.claims:
        by[one.verdict].append(one.claim.text)
    count = len(judgement.claims)
    parts = []
    for name, verb in ((HOLDS, "hold"), (FAILS, "do not hold")):
        some = by[name]
        if some:
            said = name if len(some) == 1 else verb
            parts.append(f"{len(some)} {said} ({_few(some)})")
    text = f"Of {count} claim{'s' * (count != 1)} of this experiment "
    text += f"{joined(parts, 'and')}." if parts else "none is decided."
    if by[UNDECIDED]:
        open_ = [one for one in judgement.claims if one.verdict == UNDECIDED]
        waiting = sum(one.missing > 0 for one in open_)
        more = [seeds for one in open_ if (seeds := _more_seeds(one)) is not None]
        text += f" Undecided: {_few(by[UNDECIDED])}"
        text += f"; {waiting} of these wait for cells" if waiting else ""
        if more and min(more) <= MOST:
            text += f"; {min(more)} more seed{'s' * (min(more) != 1)} would probably decide one"
        text += "."
    return text


def _more_seeds(one: Judged) -> int | None:
    """How many more seeds would decide a claim; None where that is not known.

    One part that does not hold decides it. If none looks like that, it takes as many as the slowest
    of its parts, which must all hold, and be there.
    """
    open_ = [part for part in one.parts if part.verdict == UNDECIDED]
    against = [part.more_seeds for part in open_ if part.more_seeds and part.leans_against]
    if against:
        return min(against)
    wanted = [part.more_seeds for part in open_ if part.more_seeds]
    if one.missing or len(wanted) < len(open_):
        return None
    return max(wanted, default=None)


def _few(texts: Sequence[str]) -> str:
    rest = len(texts) - _NAMED
    return "; ".join(texts[:_NAMED]) + (f"; and {rest} more" if rest > 0 else "")


def _networks(names: Iterable[str]) -> list[str]:
    return sorted(set(names), key=network_order)


def _all(names: Sequence[str], kind: str) -> str:
    """Names in a sentence; of many their number."""
    return joined(names, "and") if len(names) <= _NAMED else f"{len(names)} {kind}"


def _or(names: Sequence[str], kind: str) -> str:
    return joined(names, "or") if len(names) <= _NAMED else f"any of {len(names)} {kind}"


def joined(names: Sequence[str], word: str) -> str:
    """Names as a sentence has them: ``a, b and c``."""
    return f" {word} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
