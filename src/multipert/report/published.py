"""The study's published tables, and how far our means are from them.

The columns "Euc" and "E-dist" are exchanged in print; the tables here carry them under their right names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from multipert.evaluation import METRICS, STUDY

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
