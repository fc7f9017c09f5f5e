"""Pictures of analyses as the papers draw them: matrices, paths, lines over sparsity, histograms.

Maene et al. 2021 and E-LTH, section 4.4. Lines are means over seeds, bars from the lowest to the
highest; x is the percent of weights that remain, in its logarithm, as rounds are even on it.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from elth.files import write_atomic
from elth.measures import LINE, measure_of
from orchestrator.report.analyses import Analyses, Group, Looked, Measured, drawn, grouped, words
from orchestrator.report.figure import ETT_COLOURS, STYLE
from orchestrator.store.content import spell_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 4
_LINES = 8
"""Lines of a panel, over which each variant has one of its own."""
_LEVELS = 6
"""Up to so many sparsities, variants are compared by a panel each, as in Figure 2."""
_CURVES = 5
"""Histograms or named paths that one panel shows."""
_TICKS = 3
"""Rounds between the labels of a matrix, as the paper has it, of long lines."""

_COLOURS = ("#000000", *ETT_COLOURS)
_MARKERS = "osv^DPX*"
_MAP = "cividis"
"""A colour map that reads the same for the colour-blind."""

_MATRICES = {
    "angular": "angular distance",
    "cosine": "cosine similarity",
    "l2_full": "Euclidean distance",
    "l2_shared": "Euclidean distance of shared weights",
}


@mpl.rc_context(STYLE)
def draw(analyses: Analyses, folder: Path) -> list[Path]:
    """Draw a picture or more of each measure, as PNG and SVG; returns the files."""
    paths = []
    for name, figure in plots(analyses):
        for suffix in ("png", "svg"):
            path = folder / f"analysis_{name}.{suffix}"
            write_atomic(path, _saved(figure, suffix))
            paths.append(path)
    return paths


@mpl.rc_context(STYLE)
def png_of(one: Measured) -> bytes | None:
    """The picture of one analysis as PNG, its main one; None where it has but single numbers."""
    if measure_of(one.measure).looks_at != LINE and one.measure != "barrier":
        return None
    (group,) = grouped([one])
    if one.measure == "barrier":
        return _saved(_one_path(group), "png")
    figures = _DRAWN.get(one.measure, _over_sparsity)(group, ())
    return next((_saved(figure, "png") for _, figure in figures), None)


def plots(analyses: Analyses) -> Iterator[tuple[str, Figure]]:
    """The pictures of some analyses, with the names of their files."""
    groups = grouped(analyses.found)
    places = {(g.network, g.dataset) for g in groups}
    for group in groups:
        own = [group.measure, *([group.between] if group.between else [])]
        more = [group.network, group.dataset] if len(places) > 1 else []
        end = [re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-") for text in (*more, group.settings)]
        for kind, figure in _DRAWN.get(group.measure, _over_sparsity)(group, analyses.variants):
            name = "_".join(filter(None, (*own, kind, *end)))
            yield name, figure


def _saved(figure: Figure, suffix: str) -> bytes:
    settings: dict[str, Any] = {"dpi": 150} if suffix == "png" else {"metadata": {"Date": None}}
    drawn = io.BytesIO()
    figure.savefig(drawn, format=suffix, **settings)
    return drawn.getvalue()


Drawn = Iterator[tuple[str, Figure]]


def _figure(
    panels: int, *, columns: int = _COLUMNS, width: float = 3.6, height: float = 3.2
) -> tuple[Figure, list[Axes]]:
    columns = min(panels, columns)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes[:panels]


def _headed(figure: Figure, group: Group, what: str) -> None:
    """Say above a picture what it is of, in lines that are no wider than it."""
    seeds = spell_seeds(look.seed for one in group.found for look in one.of)
    parts = [what, f"{group.network} on {group.dataset}", group.settings, seeds]
    room = int(13 * figure.get_figwidth())
    lines = [""]
    for part in filter(None, parts):
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        if len(joined) <= room:
            lines[-1] = joined
        else:
            lines[-1] += "," if lines[-1] else ""
            lines += textwrap.wrap(part, room)
    figure.suptitle("\n".join(filter(None, lines)), fontsize=10)


def _arranged(group: Group) -> tuple[list[str], int]:
    """The lines of a group in panels, and how many of these a row has.

    A row for each method and a column for each variant, as in Figure 4, where that is so.
    """
    lines = list(group.lines)
    variants = {line: group.lines[line][0].of[-1].variant for line in lines}
    count = len(set(variants.values()))
    if 1 < count <= 6 and len(lines) % count == 0:
        bases: dict[str, list[str]] = {}
        for line in lines:
            bases.setdefault(_but(line, variants[line]), []).append(line)
        order = list(dict.fromkeys(variants[line] for line in lines))
        rows = [sorted(some, key=lambda n: order.index(variants[n])) for some in bases.values()]
        if all(len(row) == count for row in rows):
            return [line for row in rows for line in row], count
    return lines, min(_COLUMNS, len(lines))


@dataclass(frozen=True, kw_only=True)
class _Levels:
    """The levels of a whole figure, so that one has the same colour and name in each panel."""

    known: bool
    """Whether they go by the weights that remain; else by their rounds."""
    colours: dict[str, Any]
    """Of each level by its label, densest first."""

    @classmethod
    def of(cls, looks: Iterable[Looked]) -> _Levels:
        """Those of the networks that a figure shows."""
        every = list(looks)
        known = all(look.remaining is not None for look in every)
        every.sort(key=lambda look: (-(look.remaining or 0) if known else 0, look.level))
        labels = list(dict.fromkeys(_level_label(look, known) for look in every))
        colours = list(_COLOURS)
        if len(labels) > _CURVES:
            colours = list(mpl.colormaps[_MAP](np.linspace(0, 0.92, len(labels))))
        return cls(known=known, colours=dict(zip(labels, colours, strict=False)))

    @property
    def are_many(self) -> bool:
        """Whether there are more than single colours tell apart."""
        return len(self.colours) > _CURVES

    def label(self, look: Looked) -> str:
        """The level of a network as the key names it."""
        return _level_label(look, self.known)


def _level_label(look: Looked, known: bool) -> str:
    if known:
        return f"{100 * (look.remaining or 0):.3g} %"
    return f"sparsity {look.target}" if look.target else f"round {look.round}"


# Matrices


def _matrices(group: Group, _: Sequence[str]) -> Drawn:
    """A panel for each line, mean over seeds (Figures 4, 9 to 11, 15 to 18, 21)."""
    lines, columns = _arranged(group)
    for kind, label in _MATRICES.items():
        means = {line: _mean([m.result[kind] for m in group.lines[line]]) for line in lines}
        low, high = _limits(kind, list(means.values()))
        figure, axes = _figure(len(lines), columns=columns, width=3.3, height=3.7)
        image = None
        for axis, line in zip(axes, lines, strict=True):
            image = axis.imshow(
                means[line],
                origin="lower",
                vmin=low,
                vmax=high,
                cmap=_MAP,
                interpolation="nearest",
            )
            axis.set_title(line, loc="left", fontweight="bold", fontsize=10)
            axis.spines[["left", "bottom"]].set_visible(False)
            _name_rounds(axis, group.lines[line][0], len(means[line]))
        assert image is not None
        figure.colorbar(image, ax=axes, label=label, shrink=0.9, aspect=30)
        figure.supxlabel("weights remaining (%)", fontsize=10)
        _headed(figure, group, label)
        yield kind, figure


def _mean(matrices: Sequence[Sequence[Sequence[float | None]]]) -> Any:
    """Elementwise mean over seeds, of what is defined for all of as many rounds as all have."""
    size = min(len(matrix) for matrix in matrices)
    found = []
    for matrix in matrices:
        whole = np.array(matrix, dtype=float)
        kept = [*range(size - 1), len(whole) - 1]  # the last is where the line starts
        found.append(whole[np.ix_(kept, kept)])
    return np.mean(found, axis=0)


def _limits(kind: str, matrices: Sequence[Any]) -> tuple[float, float]:
    values = np.concatenate([matrix[np.isfinite(matrix)] for matrix in matrices])
    if kind == "angular":
        return 0.0, max(1.0, float(values.max(initial=0.0)))
    if kind == "cosine":
        return min(0.0, float(values.min(initial=0.0))), 1.0
    return 0.0, float(values.max(initial=1e-12))


def _name_rounds(axis: Axes, one: Measured, size: int) -> None:
    """Tick the rounds of a matrix by the percent of weights that remain, and the start."""
    rounds = size - 1
    step = _TICKS if rounds > 8 else 1
    places = [k for k in range(0, rounds, step) if step == 1 or rounds - k > 1] + [rounds]
    names = [_percent(one.of[k].remaining, f"round {one.of[k].round}") for k in places[:-1]]
    axis.set_xticks(places, [*names, "start"], rotation=90, fontsize=7.5)
    axis.set_yticks(places, [*names, "start"], fontsize=7.5)
    axis.tick_params(length=2)


def _percent(remaining: float | None, otherwise: str) -> str:
    return otherwise if remaining is None else f"{100 * remaining:.3g}"


# Paths


def _paths(group: Group, variants: Sequence[str]) -> Drawn:
    """Barriers over sparsity, or over variants (Figures 2, 8 right, 20, 23), and paths (8 left)."""
    yield from _over_sparsity(group, variants)
    lines, columns = _arranged(group)
    for name in _along(group):
        figure, axes = _figure(len(lines), columns=columns, width=3.8)
        levels = _Levels.of(one.place for one in group.found)
        tops = [
            _path_panel(axis, group.lines[n], name, levels)
            for axis, n in zip(axes, lines, strict=True)
        ]
        for axis, line in zip(axes, lines, strict=True):
            axis.set_ylim(bottom=0, top=1.08 * max(tops) if max(tops) else 1)
            axis.set_title(line, loc="left", fontweight="bold", fontsize=10)
            axis.set_xlabel("a: from the first network (0) to the second (1)")
            axis.set_ylabel(_PATHS[name])
        _share_key(figure, axes, levels, group)
        _headed(figure, group, f"{_PATHS[name]} on the straight path between {group.between}")
        yield f"path_{name}", figure


def _one_path(group: Group) -> Figure:
    """The curves of one pair, a panel for each of error and loss."""
    names = _along(group)
    levels = _Levels.of(one.place for one in group.found)
    figure, axes = _figure(len(names), columns=2, width=4.2)
    for axis, name in zip(axes, names, strict=True):
        top = _path_panel(axis, group.found, name, levels)
        axis.set_ylim(bottom=0, top=1.08 * top or 1)
        axis.set_xlabel("a: from the first network (0) to the second (1)")
        axis.set_ylabel(_PATHS[name])
    _headed(figure, group, f"{group.found[0].line}, {group.found[0].looks_at}")
    return figure


def _along(group: Group) -> list[str]:
    """What was measured along the paths."""
    points = [point for one in group.found for point in one.result["points"]]
    return [name for name in _PATHS if any(name in point for point in points)]


_PATHS = {
    "train_error": "training error (%)",
    "test_error": "test error (%)",
    "train_loss": "training loss",
    "test_loss": "test loss",
}


def _path_panel(axis: Axes, found: Sequence[Measured], name: str, levels: _Levels) -> float:
    """A curve for each pair, mean over its seeds; returns the highest value between the ends.

    Of a few pairs that is of any seed, as each band is drawn; of many it is of the means.
    """
    pairs: dict[tuple[Any, ...], list[Measured]] = {}
    for one in found:
        pairs.setdefault(tuple(look.level for look in one.of), []).append(one)
    top = 0.0
    for some in pairs.values():
        at = [point["at"] for point in some[0].result["points"]]
        runs = [[point.get(name) for point in one.result["points"]] for one in some]
        every = np.array(runs, dtype=float)
        values = np.mean(every, axis=0)
        shown = (values if levels.are_many else every)[..., [0 <= a <= 1 for a in at]]
        top = max(top, float(np.max(shown[np.isfinite(shown)], initial=0.0)))
        label = levels.label(some[0].place)
        colour = levels.colours[label]
        axis.plot(at, values, color=colour, linewidth=1.2 if levels.are_many else 1.6, label=label)
        if not levels.are_many and len(runs) > 1:
            band = (np.min(every, axis=0), np.max(every, axis=0))
            axis.fill_between(at, *band, color=colour, alpha=0.12, linewidth=0)
    for end in (0, 1):
        axis.axvline(end, color="#bbbbbb", linewidth=0.8, zorder=0)
    return top


def _share_key(figure: Figure, axes: Sequence[Axes], levels: _Levels, group: Group) -> None:
    """One key for panels of pairs: of many a few, from the first to the last."""
    found = _labelled(axes)
    labels = [label for label in levels.colours if label in found]
    if len(labels) > _CURVES:
        chosen = sorted({round(i * (len(labels) - 1) / 5) for i in range(6)})
        labels = [labels[i] for i in chosen]
    are_all = all(one.at is not None for one in group.found)
    which = "the network that differs" if are_all else "the denser network"
    title = f"weights remaining in {which}" if levels.known else which
    _key(figure, [found[label] for label in labels], labels, title=title)


def _labelled(axes: Sequence[Axes]) -> dict[str, Any]:
    """What is drawn in any of some panels, by its label."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return found


def _key(figure: Figure, handles: Sequence[Any], labels: Sequence[str], title: str = "") -> None:
    """A key below a figure, in as many columns as it has room for."""
    longest = max(map(len, labels), default=1)
    beside = max(1, min(len(labels), int(figure.get_figwidth() / (0.6 + 0.085 * longest))))
    figure.legend(
        handles,
        [label.replace("<-", "←") for label in labels],
        loc="outside lower center",
        ncols=beside,
        frameon=False,
        title=title or None,
        fontsize=8.5,
        title_fontsize=8.5,
    )


# Lines


def _over_sparsity(group: Group, variants: Sequence[str]) -> Drawn:
    """Numbers over the weights that remain: a panel for each, lines by method and variant."""
    names = drawn(group)
    if not names:
        return
    if group.between == "twins" and _is_over_variants(group):
        yield from _over_variants(group, names, variants)
        return
    parts = _parted(group)
    panels = [(name, title, lines) for name in names for title, lines in parts.items()]
    columns = len(parts) if 1 < len(parts) <= _COLUMNS else min(3, len(panels))
    figure, axes = _figure(len(panels), columns=columns, width=4.6, height=3.4)
    limits: dict[str, list[Axes]] = {}
    for axis, (name, title, lines) in zip(axes, panels, strict=True):
        _line_panel(axis, group, name, lines, list(group.lines))
        axis.set_ylabel("\n".join(_wrapped(words(name))))
        axis.set_title(title, loc="left", fontweight="bold", fontsize=10)
        limits.setdefault(name, []).append(axis)
    for some in limits.values():
        low, high = min(a.get_ylim()[0] for a in some), max(a.get_ylim()[1] for a in some)
        for axis in some:
            axis.set_ylim(low, high)
    found = _labelled(axes)
    if len(found) > 1 or list(found) != list(parts):
        _key(figure, list(found.values()), list(found))
    what = f"{group.measure} between {group.between}" if group.between else group.measure
    _headed(figure, group, what)
    yield "", figure


def _wrapped(text: str, width: int = 34) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _parted(group: Group) -> dict[str, list[str]]:
    """Lines by panels: all in one, or one for each variant where they are too many."""
    lines = list(group.lines)
    if len(lines) <= _LINES:
        return {"": lines}
    found: dict[str, list[str]] = {}
    for line in lines:
        found.setdefault(group.lines[line][0].of[-1].variant or "as it is", []).append(line)
    return found if len(found) > 1 else {"": lines}


def _line_panel(
    axis: Axes, group: Group, name: str, lines: Sequence[str], every: Sequence[str]
) -> None:
    xs: list[float] = []
    known = _are_remaining_known(group)
    for line in lines:
        curve = group.curve(line, name)
        if not curve:
            continue
        if not known:
            curve.sort(key=lambda point: point.level)
        x = [100 * (p.remaining or 0) if known else float(p.level[0]) for p in curve]
        mean = np.array([point.mean for point in curve])
        low = mean - [min(point.values, default=np.nan) for point in curve]
        high = [max(point.values, default=np.nan) for point in curve] - mean
        place = lines.index(line) if len(lines) < len(every) else every.index(line)
        axis.errorbar(
            x,
            mean,
            yerr=np.clip([low, high], 0, None),
            label=_short(line, group, len(lines) < len(every)),
            color=_COLOURS[place % len(_COLOURS)],
            marker=_MARKERS[place % len(_MARKERS)],
            linestyle="-" if line.startswith("IMP") else "--",
            linewidth=1.4,
            markersize=3.8,
            capsize=2,
            elinewidth=0.8,
        )
        xs += x
    if xs:
        _remaining_axis(axis, xs, group)
    axis.grid(axis="y", color="#dddddd", linewidth=0.6)


def _short(line: str, group: Group, parted: bool) -> str:
    """A line without its variant, where that is the title of its panel."""
    variant = group.lines[line][0].of[-1].variant
    return _but(line, variant) if parted else line


def _but(line: str, variant: str) -> str:
    """The name of a line without its variant."""
    return re.sub(rf", {re.escape(variant)}(?=, | and |$)", "", line) if variant else line


def _are_remaining_known(group: Group) -> bool:
    """Whether all that is looked at can be placed by the weights that remain; else by rounds.

    Nothing that is empty has a place on their logarithm.
    """
    return all(look.remaining for one in group.found for look in one.of)


def _remaining_axis(axis: Axes, values: Sequence[float], group: Group) -> None:
    """An axis from dense to sparse in the logarithm, ticked every few rounds as the papers do."""
    if not _are_remaining_known(group):
        axis.set_xlabel("round")
        return
    axis.set_xlabel("weights remaining (%)")
    axis.set_xscale("log")
    axis.set_xlim(1.12 * max(values), min(values) / 1.12)
    levels = sorted({round(value, 6) for value in values}, reverse=True)
    step = max(1, -(-len(levels) // 8))
    axis.xaxis.set_major_locator(FixedLocator(levels[::step]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))


def _is_over_variants(group: Group) -> bool:
    levels = {one.place.level for one in group.found}
    return len({one.of[0].variant for one in group.found}) > 1 and len(levels) <= _LEVELS


def _over_variants(group: Group, names: Sequence[str], variants: Sequence[str]) -> Drawn:
    """Instability by variants in the order of the file, a panel for each sparsity (Figure 2)."""
    levels: dict[tuple[int, str], list[Measured]] = {}
    for one in group.found:
        levels.setdefault(one.place.level, []).append(one)
    there = {one.of[0].variant for one in group.found}
    order = [name for name in ("", *variants) if name in there]
    order += sorted(there.difference(order))
    panels = [(name, level) for name in names for level in sorted(levels)]
    figure, axes = _figure(len(panels), columns=len(levels), width=max(3.0, 0.55 * len(order)))
    bases: dict[str, int] = {}
    for axis, (name, level) in zip(axes, panels, strict=True):
        lines: dict[str, dict[int, list[float]]] = {}
        for one in levels[level]:
            variant = one.of[0].variant
            base = _but(one.line, variant)
            place = lines.setdefault(base, {}).setdefault(order.index(variant), [])
            place += [one.numbers[name]] if name in one.numbers else []
        for base, places in lines.items():
            shade = bases.setdefault(base, len(bases))
            chosen = sorted(places)
            values = [places[place] or [np.nan] for place in chosen]
            mean = np.array([float(np.mean(some)) for some in values])
            low = mean - [min(some) for some in values]
            high = [max(some) for some in values] - mean
            axis.errorbar(
                chosen,
                mean,
                yerr=np.clip([low, high], 0, None),
                label=base,
                color=_COLOURS[shade % len(_COLOURS)],
                marker=_MARKERS[shade % len(_MARKERS)],
                linewidth=1.4,
                markersize=4.5,
                capsize=2.5,
                elinewidth=0.9,
            )
        axis.set_xticks(range(len(order)), [name or "as it is" for name in order], rotation=45)
        axis.set_xlim(-0.4, len(order) - 0.6)
        axis.set_ylabel("\n".join(_wrapped(words(name))))
        remaining = {one.place.remaining for one in levels[level]}
        title = f"round {level[0]}"
        if len(remaining) == 1 and None not in remaining:
            title = f"{100 * (remaining.pop() or 0):.3g} % remain"
        axis.set_title(title, loc="left", fontweight="bold", fontsize=10)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    for name in names:
        some = [axis for axis, (own, _) in zip(axes, panels, strict=True) if own == name]
        limits = [axis.get_ylim() for axis in some]
        for axis in some:
            axis.set_ylim(min(0.0, *(one[0] for one in limits)), max(one[1] for one in limits))
    if len(bases) > 1:
        found = _labelled(axes)
        _key(figure, list(found.values()), list(found))
    _headed(figure, group, f"{group.measure} between twins")
    yield "", figure


# Histograms


def _histograms(group: Group, variants: Sequence[str]) -> Drawn:
    """Surviving weights in bins, of one round filled, of more over each other (Figures 5, 19, 22).

    Counts are means over seeds.
    """
    lines, columns = _arranged(group)
    figure, axes = _figure(len(lines), columns=columns, width=3.6, height=3.0)
    chosen = _chosen(group)
    one_only = all(len(looks) == 1 for looks in _common(group).values())
    levels = _Levels.of(look for looks in chosen.values() for look in looks.values())
    for axis, line in zip(axes, lines, strict=True):
        some = group.lines[line]
        for k, look in chosen[line].items():
            edges, counts = _counts([one.result["rounds"][k] for one in some])
            label = levels.label(look)
            alone = one_only and len(levels.colours) == 1
            axis.stairs(
                counts if one_only else counts / max(counts.sum(), 1),
                edges,
                fill=one_only,
                color="#0072B2" if alone else levels.colours[label],
                linewidth=1.2,
                label=label,
            )
        axis.set_title(line, loc="left", fontweight="bold", fontsize=10)
        axis.set_xlabel("weight")
        axis.set_ylabel("weights in a bin" if one_only else "share of surviving weights")
    width = max(max(map(abs, axis.get_xlim())) for axis in axes)
    for axis in axes:
        axis.set_xlim(-width, width)
    found = _labelled(axes)
    labels = [label for label in levels.colours if label in found]
    title = "weights remaining" if levels.known else ""
    _key(figure, [found[label] for label in labels], labels, title=title)
    _headed(figure, group, "surviving weights")
    yield "", figure
    if any(len(one.of) > 1 for one in group.found):
        yield from (("bimodality", figure) for _, figure in _over_sparsity(group, variants))


def _common(group: Group) -> dict[str, tuple[Looked, ...]]:
    """Of each line the networks that all its seeds have."""
    return {
        line: some[0].of[: min(len(one.result["rounds"]) for one in some)]
        for line, some in group.lines.items()
    }


def _chosen(group: Group) -> dict[str, dict[int, Looked]]:
    """Of each line a few networks by their places, of the same levels in all where there are."""
    common = _common(group)
    every = _few(sorted({look.level for looks in common.values() for look in looks}))
    found = {}
    for line, looks in common.items():
        shared = [k for k, look in enumerate(looks) if look.level in every]
        places = shared if len(shared) > 1 else _few(range(len(looks)))
        found[line] = {k: looks[k] for k in places}
    return found


def _few(some: Sequence[Any]) -> list[Any]:
    """At most as many as a panel shows, evenly, the first and the last among them."""
    last = len(some) - 1
    return [some[i] for i in sorted({round(i * last / (_CURVES - 1)) for i in range(_CURVES)})]


def _counts(found: Sequence[dict[str, Any]]) -> tuple[Any, Any]:
    """Edges and mean counts of several histograms, whose edges are multiples of one width."""
    width = found[0]["width"]
    firsts = [round(one["edges"][0] / width) if one["counts"] else 0 for one in found]
    low = min(firsts)
    size = max(first - low + len(one["counts"]) for first, one in zip(firsts, found, strict=True))
    counts = np.zeros(size)
    for first, one in zip(firsts, found, strict=True):
        counts[first - low : first - low + len(one["counts"])] += one["counts"]
    return (low + np.arange(size + 1)) * width, counts / len(found)


_DRAWN: dict[str, Callable[[Group, Sequence[str]], Drawn]] = {
    "barrier": _paths,
    "distances": _matrices,
    "histograms": _histograms,
}
