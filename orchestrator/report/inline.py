"""Figures of matplotlib as SVG that stands in a page: small, and in the colours of the reader.

A file of matplotlib says beside each line how it looks, so that no page could show it light and
dark. Here looks become classes, whose rules name colours by variables (``Palette.rules``).
"""

from __future__ import annotations

import colorsys
import io
import re
from dataclasses import dataclass, field
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from orchestrator.report.figure import STYLE

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {f"{_SVG}{name}" for name in ("style", "title")} | {
    "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}RDF",
    f"{_SVG}metadata",
}
_NUMBER = re.compile(r"-?\d*\.\d+(?:e-?\d+)?")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_IDLE = {"font-family", "stroke-dashoffset"}
_UNIT = 1.25
"""CSS pixels for a point of matplotlib: 10 points of its letters are 12.5 pixels."""
_CONTRAST = 4.0
"""What a colour has at least of the dark paper, by WCAG's measure."""

PAPER = {"light": "#ffffff", "dark": "#16191d"}
"""What figures are drawn on."""


@dataclass
class Palette:
    """The looks of all figures of a page."""

    _classes: dict[str, str] = field(default_factory=dict)
    _colours: set[str] = field(default_factory=set)

    def name(self, style: str) -> str:
        """The class of what matplotlib says of an element, as ``fill: none; stroke: #000000``."""
        pairs = (part.split(":", 1) for part in style.split(";") if ":" in part)
        known = {name.strip(): value.strip() for name, value in pairs}
        rule = ";".join(f"{n}:{self._rule(v)}" for n, v in known.items() if n not in _IDLE)
        return self._classes.setdefault(rule, f"m{len(self._classes)}") if rule else ""

    def _rule(self, value: str) -> str:
        colours = [one.lower() for one in _COLOUR.findall(value)]
        self._colours.update(colours)
        value = _COLOUR.sub(lambda found: f"var({_variable(found[0])})", value)
        return _NUMBER.sub(lambda found: _short(found[0], 2), value)

    @property
    def rules(self) -> str:
        """The rules of the classes, as CSS."""
        return "\n".join(f".{name}{{{rule}}}" for rule, name in self._classes.items())

    def colours(self, paper: str) -> str:
        """The variables of the colours as CSS, for ``light`` or ``dark`` paper."""
        chosen = ((one, one if paper == "light" else in_dark(one)) for one in sorted(self._colours))
        return "".join(f"{_variable(one)}:{shown};" for one, shown in chosen)


def inline(figure: Figure, palette: Palette, *, name: str, alt: str) -> Markup:
    """A figure as an element of a page.

    Args:
        figure: any of matplotlib.
        palette: where its looks go.
        name: what its ids begin with, of no other figure of the page.
        alt: what it shows, for those who do not see it.
    """
    drawn = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(drawn, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(drawn.getvalue())
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    used = {one.attrib[_LINK][1:] for one in root.iter(f"{_SVG}use")}
    used |= {found[1] for one in root.iter() if (found := _clip(one.attrib.get("clip-path", "")))}
    ids = {one: f"{name}{number}" for number, one in enumerate(sorted(used))}
    inside = "".join(_written(child, palette, ids) for child in root)
    return Markup(
        f'<svg class="plot" role="img" aria-label="{escape(alt)}" '
        f'viewBox="0 0 {_short(str(width), 1)} {_short(str(height), 1)}" '
        f'width="{width * _UNIT:.0f}" height="{height * _UNIT:.0f}">{inside}</svg>'
    )


def _clip(text: str) -> re.Match[str] | None:
    return re.fullmatch(r"url\(#(.+)\)", text)


def _written(element: ElementTree.Element, palette: Palette, ids: dict[str, str]) -> str:
    """An element and what it holds; groups that say nothing are left out."""
    if element.tag in _DROPPED:
        return ""
    tag = element.tag.removeprefix(_SVG)
    inside = "".join(_written(child, palette, ids) for child in element)
    if tag == "defs" and not inside:
        return ""
    attributes = _attributes(element, palette, ids)
    if tag == "g" and not attributes:
        return inside
    text = str(escape(element.text.strip())) if tag in ("text", "tspan") and element.text else ""
    start = f"{tag} {attributes}" if attributes else tag
    return f"<{start}>{text}{inside}</{tag}>" if text or inside else f"<{start}/>"


def _attributes(element: ElementTree.Element, palette: Palette, ids: dict[str, str]) -> str:
    found: dict[str, str] = {}
    for key, value in element.attrib.items():
        if key == "style":
            chosen = palette.name(value)
            if chosen:
                found["class"] = chosen
        elif key == "id":
            if value in ids:
                found["id"] = ids[value]
        elif key == _LINK:
            is_mark = value.startswith("#")  # else it is the data of an image
            found["href"] = f"#{ids[value[1:]]}" if is_mark else "".join(value.split())
        elif key == "clip-path" and (clip := _clip(value)):
            found[key] = f"url(#{ids[clip[1]]})"
        elif key.startswith("{"):
            continue
        elif key == "d":
            found[key] = _path(value)
        elif not (key == "transform" and value.startswith("rotate(-0 ")):
            found[key] = _NUMBER.sub(lambda one: _short(one[0], 1), value)
    return " ".join(f'{key}="{escape(value)}"' for key, value in found.items())


def _path(text: str) -> str:
    """A path with numbers as exact as a screen shows them."""
    rounded = _NUMBER.sub(lambda one: _short(one[0], 1), text)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", rounded).strip()


def _short(number: str, digits: int) -> str:
    text = f"{float(number):.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _variable(colour: str) -> str:
    return f"--k{colour[1:].lower()}"


def in_dark(colour: str) -> str:
    """A colour of a figure, as it is drawn on dark paper: greys turned over, others lighter.

    Example:
        >>> in_dark("#000000"), in_dark("#ffffff"), in_dark("#e69f00")
        ('#ededed', '#16191d', '#e69f00')
    """
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    if max(red, green, blue) - min(red, green, blue) < 0.02:
        if light > 0.995:
            return PAPER["dark"]
        return "#" + f"{round(255 * (0.93 - 0.79 * light**1.5)):02x}" * 3
    shown = colour.lower()
    while contrast(shown, PAPER["dark"]) < _CONTRAST and light < 0.95:
        light += 0.02
        parts = colorsys.hls_to_rgb(hue, light, saturation)
        shown = "#" + "".join(f"{round(255 * one):02x}" for one in parts)
    return shown


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours, from 1 to 21."""
    first, second = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
