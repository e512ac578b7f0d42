"""From a matplotlib figure to SVG that lives inside a page: labelled, without foreign names, in the page's own ink."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import style
from matplotlib.figure import Figure

INK = "#010203"
"""Stands for the colour of the page's text, which is another in the dark: becomes ``currentColor``."""

CLASS = "class:"
"""A gid that begins so becomes a CSS class, so that the page can style what matplotlib drew."""

_COORDINATES = re.compile(r' (?:d|x|y|transform)="[^"<>]*"')
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_FONT = re.compile(r" font-family: [^;\"]*;| transform=\"rotate\(-0 [^\"]*\"")
_INDENT = re.compile(r"\n +")

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "svg.hashsalt": "multipert",  # the same figure gives the same bytes
    "text.parse_math": False,  # a gene's name is no formula
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.constrained_layout.use": True,
    "figure.dpi": 72,  # a pixel is a point: what is measured is what SVG will say
    "savefig.dpi": 220,  # of the layers that are drawn as pixels
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw as every figure of a page is drawn, whatever the user's own matplotlib settings; also a decorator."""
    with style.context(["default", STYLE]):
        yield


def to_svg(figure: Figure, name: str, *, title: str, description: str) -> Markup:
    """Write a figure as an SVG element for a page.

    Parameters
    ----------
    figure
        The figure.
    name
        One no other figure of the page has; only letters, digits and hyphens.
    title, description
        What a reader who cannot see it should know: in a phrase, and in a sentence or two.
    """
    text = io.StringIO()
    with house_style():
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = ElementTree.fromstring(text.getvalue())
    for unwanted in [child for child in svg if child.tag.endswith("metadata")]:
        svg.remove(unwanted)
    used = _references(svg)
    for element in svg.iter():
        # Inside HTML the namespaces go without saying, and no address is left that looks like a request.
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: _in_page(value, name, used) for key, value in element.attrib.items()}
        identity = element.attrib.pop("id", "")
        if identity.startswith(CLASS):
            element.set("class", identity.removeprefix(CLASS))
        elif identity in used:
            element.set("id", f"{name}-{identity}")
    svg.attrib.pop("version", None)
    svg.attrib |= {"role": "img", "aria-label": title, "aria-describedby": f"{name}-desc"}
    described = ElementTree.Element("desc", {"id": f"{name}-desc"})
    described.text = description
    titled = ElementTree.Element("title")
    titled.text = title
    svg.insert(0, described)
    svg.insert(0, titled)
    # As HTML has it: an empty style element must not close itself, or it swallows the rest of the page.
    return Markup(_shorter(ElementTree.tostring(svg, encoding="unicode", short_empty_elements=False)))


def _shorter(svg: str) -> str:
    """Write coordinates to a hundredth of a point, no indentation and no font, which is the page's: half the bytes."""
    svg = _FONT.sub("", _INDENT.sub("\n", svg))
    return _COORDINATES.sub(lambda found: _DECIMALS.sub(r"\1", found[0]), svg)


def _references(svg: ElementTree.Element) -> set[str]:
    """Find the ids that something in the picture points to."""
    found = set()
    for element in svg.iter():
        for key, value in element.attrib.items():
            if key.endswith("href") and value.startswith("#"):
                found.add(value[1:])
            elif "url(#" in value:
                found.add(value.partition("url(#")[2].partition(")")[0])
    return found


def _in_page(value: str, name: str, used: set[str]) -> str:
    """Give an attribute the page's ink, and let it point to ids that are this figure's own."""
    value = value.replace(INK, "currentColor").replace("url(#", f"url(#{name}-")
    return f"#{name}-{value[1:]}" if value.startswith("#") and value[1:] in used else value
