"""The study's published tables, and how far our means are from them.

The columns "Euc" and "E-dist" are exchanged in print; the tables here carry them under their right names.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from multipert.evaluation import METRICS, STUDY
from multipert.report.numbers import ARROWS, BETTER, number
from multipert.report.summary import DatasetSummary

PRINTED: Mapping[str, str] = {
    "MTAe": "mtae",
    "MTAeAdv": "mtae-adv",
    "MTAeAdvG": "mtae-advg",
    "MTAeOT": "mtae-ot",
    "MTAePlusOT": "mtae-plus-ot",
    "MTVae": "mtvae",
    "MTVaeOT": "mtvae-ot",
    "MTVaePlusOT": "mtvae-plus-ot",
    "scButterfly": "scbutterfly",
    "scGen": "scgen",
    "scPreGAN": "scpregan",
    "vidrSingle": "scvidr",
    "vidrMult": "scvidr-dose",
}
"""The models by the names of the printed tables."""

TOLERANCE = 0.1
"""Means that differ by less than this share of the published one agree."""


@dataclass(frozen=True)
class Comparison:
    """One of our means beside the published one.

    Attributes
    ----------
    ours, published
        The two means.
    verdict
        ``"agrees"``, or ``"better"`` or ``"worse"`` than published; ``"unknown"`` where we have none.
    """

    ours: float
    published: float
    verdict: str


@cache
def published_table(name: str) -> pd.DataFrame:
    """Read a published table.

    Parameters
    ----------
    name
        ``"kang"``, ``"nault"`` or ``"hagai"``.

    Returns
    -------
    pandas.DataFrame
        A row for each model, by its name in the registry; a column for each of the study's nine metrics. The printed
        name is in the column ``printed``.
    """
    with (resources.files("multipert.report") / "published" / f"{name}.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    table.index = pd.Index([PRINTED[printed] for printed in table["model"]], name="model")
    return table.rename(columns={"model": "printed"})[["printed", *STUDY]]


def compare(metric: str, ours: float, spread: float, published: float) -> Comparison:
    """Set one of our means beside the published one.

    They agree where they differ by less than a tenth of the published value, or than twice the standard deviation over
    our seeds.

    Parameters
    ----------
    metric
        Which.
    ours, spread
        Our mean, and its standard deviation over seeds (NaN where there is one seed).
    published
        The printed mean.
    """
    if not np.isfinite(ours):
        return Comparison(ours, published, "unknown")
    if abs(ours - published) <= max(TOLERANCE * abs(published), 2 * np.nan_to_num(spread)):
        return Comparison(ours, published, "agrees")
    short = METRICS[metric].shortfall(np.array([ours, published]))
    return Comparison(ours, published, "better" if short[0] < short[1] else "worse")


@dataclass(frozen=True)
class PublishedRow:
    """A model of ours beside the printed one: metric by metric, both as printed."""

    name: str
    note: str
    cells: Sequence[tuple[Comparison, str, str]]


@dataclass(frozen=True)
class BesidePublished:
    """The printed table beside ours."""

    name: str
    metrics: Sequence[tuple[str, str, str]]
    rows: Sequence[PublishedRow]
    absent: Sequence[str]
    same_data: bool
    other_presets: Sequence[str]
    counts: Mapping[str, int]


def beside_published(summary: DatasetSummary) -> BesidePublished | None:
    """Set our means beside the published table of the data set, if there is one."""
    if summary.card.published is None:
        return None
    name = summary.card.published
    rows, absent = _rows(summary, name)
    shown = {row.name for row in rows}
    return BesidePublished(
        name,
        [(metric, ARROWS[METRICS[metric].better], BETTER[METRICS[metric].better]) for metric in STUDY],
        rows,
        absent,
        summary.card.name == name,
        sorted({card.preset for label, card in summary.models.items() if label in shown} - {"study"}),
        Counter(comparison.verdict for row in rows for comparison, _, _ in row.cells),
    )


def _rows(summary: DatasetSummary, name: str) -> tuple[list[PublishedRow], list[str]]:
    """Set our means beside the published table.

    Returns
    -------
    tuple
        A row for each model that both have, and the printed names of those that this study has not.
    """
    table = published_table(name)
    rows = []
    for model, printed in table.iterrows():
        for label in (one for one, card in summary.models.items() if card.name == model):
            card = summary.models[label]
            cells = []
            for metric in STUDY:
                ours, spread = summary.mean(label, metric), summary.deviation(label, metric)
                beside = float(printed[metric])
                decimals = 1 if metric == "degs" else 3
                cells.append((compare(metric, ours, spread, beside), number(ours, decimals), number(beside, decimals)))
            rows.append(PublishedRow(label, f"{printed['printed']}; preset {card.preset}", cells))
    ours_have = {card.name for card in summary.models.values()}
    return rows, [str(printed["printed"]) for model, printed in table.iterrows() if model not in ours_have]
