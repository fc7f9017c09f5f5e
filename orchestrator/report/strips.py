"""Small pictures for the rows of a table, as SVG of a few hundred bytes.

The seeds of a cell on one scale with those of its table, and the layers of its mask in shades.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

SHADES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
"""The shares of weights that remain at which shades end, densest first; the next one is for less,
and one of its own for none."""

_WIDTH = 120
_HEIGHT = 16


def seeds_strip(
    values: Sequence[float],
    mean: float,
    interval: tuple[float, float] | None,
    span: tuple[float, float],
    reference: float | None,
) -> Markup:
    """A dot for each seed, a line for the interval and a bar for the mean.

    It is for the eye alone, as the numbers stand beside it.

    Args:
        values: the accuracies.
        mean: of these.
        interval: in which the mean is; what lies outside of the span is cut off.
        span: the accuracies at the left and the right end.
        reference: where a thin line stands in all rows, if anywhere.
    """
    low, high = span

    def at(value: float) -> str:
        place = (value - low) / (high - low) if high > low else 0.5
        return _number(4 + (_WIDTH - 8) * min(max(place, -0.03), 1.03))

    parts = []
    if reference is not None:
        parts.append(f'<path class="r" d="M{at(reference)} 0v{_HEIGHT}"/>')
    if interval is not None:
        parts.append(f'<path class="i" d="M{at(interval[0])} 8H{at(interval[1])}"/>')
    parts.append(f'<path class="d" d="{"".join(f"M{at(value)} 8h0" for value in values)}"/>')
    parts.append(f'<path class="m" d="M{at(mean)} 3v10"/>')
    return Markup(f'<svg class="f" viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(parts)}</svg>')


def layers_strip(sparsities: Mapping[str, float]) -> Markup:
    """A mark for each layer in the order of the network, darker the fewer weights it keeps."""
    runs: dict[int, list[tuple[int, int]]] = {}
    before = -1
    for place, sparsity in enumerate(sparsities.values()):
        shade = shade_of(sparsity)
        if shade == before:
            first, length = runs[shade][-1]
            runs[shade][-1] = (first, length + 1)
        else:
            runs.setdefault(shade, []).append((place, 1))
        before = shade
    paths = "".join(
        f'<path class="s{shade}" d="{"".join(f"M{first} .5h{length}" for first, length in some)}"/>'
        for shade, some in sorted(runs.items())
    )
    densest = min(sparsities, key=sparsities.__getitem__)
    sparsest = max(sparsities, key=sparsities.__getitem__)
    told = (
        f"{len(sparsities)} layers, zeros from {100 * sparsities[densest]:.1f} % in "
        f"{_layer(densest)} to {100 * sparsities[sparsest]:.1f} % in {_layer(sparsest)}"
    )
    return Markup(
        f'<svg class="h" role="img" aria-label="{escape(told)}" viewBox="0 0 {len(sparsities)} 1" '
        f'preserveAspectRatio="none">{paths}</svg>'
    )


def shade_of(sparsity: float) -> int:
    """The number of a layer's shade, 0 for the densest."""
    density = 1 - sparsity
    if density <= 0:
        return len(SHADES) + 1
    return sum(density < bound for bound in SHADES)


def _layer(name: str) -> str:
    return name.removesuffix(".weight")


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
