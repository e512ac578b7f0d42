"""What a figure of the page is made of: panels in groups under a heading."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup
from matplotlib.figure import Figure

from multipert.report.summary import DatasetSummary


@dataclass(frozen=True, eq=False)
class Panel:
    """A small drawing.

    Attributes
    ----------
    figure
        The drawing.
    caption
        What is written above it.
    title, description
        What a reader who cannot see it should know: in a phrase, and in a sentence or two.
    legend
        What its colours mean, where it does not say so itself: names and colours.
    """

    figure: Figure
    caption: str
    title: str
    description: str
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Group:
    """Panels side by side, under a heading and a remark of their own where there are several groups.

    A ``folded`` group opens at a click on its heading.
    """

    panels: Sequence[Panel]
    heading: str = ""
    remark: str = ""
    size: Literal["", "wide", "small-ones"] = ""
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A figure: what the page's navigation calls it, its heading, how to read it, and its panels.

    ``name`` is its own among the figures of a page.
    """

    name: str
    link: str
    heading: str
    text: Markup
    groups: Sequence[Group]


def key(kind: str, text: str) -> Markup:
    """A word with the colour of a population before it: ``control``, ``true``, ``predicted`` or ``predicted-too``."""
    return Markup('<span class="key {}">{}</span>').format(kind, text)


def shown_keys(summary: DatasetSummary) -> Markup:
    """The colours of control and true cells, and of those predicted by the models that are drawn."""
    predicted = zip(("predicted", "predicted-too"), summary.shown, strict=False)
    keys = [
        key("control", "control"),
        key("true", "true"),
        *(key(kind, f"predicted by {who}") for kind, who in predicted),
    ]
    return Markup(" ").join(keys)
