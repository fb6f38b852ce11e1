"""From a matplotlib figure to SVG that stands in a page: same bytes each time, own ids, colours from the style sheet.

A colour in a figure is a placeholder for a variable of the style sheet (`--ink`, `--series-0`...), so that one plot
serves the light and the dark scheme.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from io import BytesIO
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["FAINT", "GRID", "INK", "PAPER", "SERIES", "draw", "series_style"]

# Placeholders: no two alike, none that matplotlib uses by itself.
INK, FAINT, GRID, PAPER = "#010a01", "#010a02", "#010a03", "#010a04"
SERIES = tuple(f"#010b{index:02x}" for index in range(6))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--grid", PAPER: "--paper"}
_VARIABLES |= {colour: f"--series-{index}" for index, colour in enumerate(SERIES)}
_COLOUR = re.compile("|".join(_VARIABLES))
_FAMILY = re.compile(r"font-family:[^;]*(?:;|$)")
_SHORTHAND = re.compile(r"font: (?:\d+ )?([\d.]+px) [^;]*")  # of matplotlib before 3.10


def series_style(index: int) -> tuple[str, str]:
    """Colour and marker of the contestant with this number: they differ in both, so that either is enough."""
    return SERIES[index % len(SERIES)], _MARKERS[index % len(_MARKERS)]


def draw(
    name: str, title: str, size: tuple[float, float], paint: Callable[[Figure], Mapping[str, str]], description: str
) -> str:
    """Paint a figure and return its `<svg>` element.

    name: prefix of every id; size: width and height in CSS pixels; paint: draws, and returns the tooltip of each artist
    by its gid. An artist whose gid begins with `point` gets the class `point` (one mark) or `points` (`points-`: a mark
    for each value).
    """
    with mpl.rc_context():
        _configure(name)
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        tips = paint(figure)
        file = BytesIO()
        with warnings.catch_warnings():
            # The browser has other fonts than those that the text is measured with here.
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(file.getvalue(), name, title, description, size, tips)


def _configure(name: str) -> None:
    mpl.rcdefaults()
    mpl.rc("svg", fonttype="none", hashsalt=name)  # text stays text; ids do not change from run to run
    mpl.rc("text", parse_math=False, color=INK)  # a name with dollar signs is no formula
    mpl.rc("font", size=12)
    mpl.rc("axes", labelcolor=INK, titlecolor=INK, edgecolor=FAINT, facecolor="none", axisbelow=True)
    mpl.rc("axes", titlesize=13, titlelocation="left")
    mpl.rc("axes.spines", top=False, right=False)
    mpl.rc("figure", facecolor="none")
    mpl.rc("grid", color=GRID, linewidth=0.8)
    mpl.rc("xtick", color=FAINT, labelcolor=INK)
    mpl.rc("ytick", color=FAINT, labelcolor=INK)
    mpl.rc("legend", frameon=False, labelcolor=INK)


def _inline(
    source: bytes, name: str, title: str, description: str, size: tuple[float, float], tips: Mapping[str, str]
) -> str:
    root = ET.fromstring(source)
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
        _localise(parent, name)
    for element in root.iter("g"):
        tip = tips.get(element.get("id", "").removeprefix(f"{name}-"))
        if tip is not None:
            _label(element, tip, name)
    root.attrib.clear()
    root.attrib.update(
        {
            "id": name,
            "class": "plot",
            "viewBox": f"0 0 {size[0]:g} {size[1]:g}",
            "role": "img",
            "aria-labelledby": f"{name}-title {name}-description",
            "style": f"width: {size[0]:g}px",
        }
    )
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, {"id": f"{name}-{'title' if tag == 'title' else 'description'}"})
        element.text = text
        root.insert(position, element)
    ET.indent(root, "")
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _localise(element: ET.Element, name: str) -> None:
    """Drop namespaces, which HTML does not need; make ids the plot's own; take colours and fonts from the page."""
    element.tag = element.tag.rpartition("}")[2]
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        match key.rpartition("}")[2]:
            case "id":
                element.set("id", f"{name}-{value}")
            case "href":
                element.set("href", f"#{name}-{value.removeprefix('#')}")
            case "style":
                style = _SHORTHAND.sub(r"font-size: \1", _FAMILY.sub("", value)).strip().rstrip(";")
                element.set("style", _COLOUR.sub(lambda found: f"var({_VARIABLES[found[0]]})", style))
            case plain:
                element.set(plain, value.replace("url(#", f"url(#{name}-"))


def _label(element: ET.Element, tip: str, name: str) -> None:
    many = element.get("id", "").startswith(f"{name}-points")
    element.set("class", "points" if many else "point")
    title = ET.Element("title")
    title.text = tip
    element.insert(0, title)
