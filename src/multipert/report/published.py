"""The study's own runs and its printed tables, and whether ours agree with them.

The columns "Euc" and "E-dist" are exchanged in print; the tables here carry them under their right names. The study's
Wasserstein is Sinkhorn's (entropic), ours is exact.
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

WRONG_PARTNERS = (
    "the study trained it on wrong partners: a partner's place among the cells of its context was taken for a place "
    "among those of all contexts; the preset study repeats this"
)
"""What must be said of the four optimal-transport rows of every table."""

TRANSPORT = ("mtae-ot", "mtae-plus-ot", "mtvae-ot", "mtvae-plus-ot")

NOTES: Mapping[tuple[str, str], str] = {
    ("kang", "scbutterfly"): "the printed row averages 33 runs, three of them nearly untrained debug runs",
    **dict.fromkeys(
        [("kang", "scgen"), ("kang", "scpregan"), ("kang", "scvidr")], "the printed row averages four runs, not three"
    ),
}
"""What must be said of other printed rows, by table and model: their runs at the three seeds say something else."""

STUDY_SEEDS = 3

LEAST_SPREAD = 0.01
"""A spread over seeds below this share of the study's value is taken for it: three seeds may agree by chance."""


@cache
def published_table(name: str) -> pd.DataFrame:
    """Read a printed table.

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
    with (_FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    table.index = pd.Index([PRINTED[printed] for printed in table["model"]], name="model")
    return table.rename(columns={"model": "printed"})[["printed", *STUDY]]


@cache
def published_runs(name: str) -> pd.DataFrame | None:
    """Read the study's runs, three seeds of each model in each context (and at each dose).

    Parameters
    ----------
    name
        ``"kang"`` or ``"nault"``; of others there are none.

    Returns
    -------
    pandas.DataFrame or None
        Columns ``model``, ``held_out`` (a key, see :func:`context_key`), ``dose`` (as text; empty without doses),
        ``seed`` and the study's nine metrics.
    """
    path = _FOLDER / f"{name}_runs.csv"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        runs = pd.read_csv(file).rename(columns={"wasserstein_sinkhorn": "wasserstein"})
    runs["held_out"] = runs["held_out"].map(context_key)
    runs["dose"] = runs["dose"].map("{:g}".format) if "dose" in runs else ""
    return runs[[*RUN, *STUDY]]


def context_key(context: str) -> str:
    """A context's name without what spellings differ in: ``B Cells`` and ``B_cells`` are one."""
    return "".join(sign for sign in context.lower() if sign.isalnum() or sign == "+")


RUN = ["model", "held_out", "dose", "seed"]
"""What tells the study's runs apart."""
_FOLDER = resources.files("multipert.report") / "published"


def spread_over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation over the study's seeds, pooled over contexts (and doses): a row for each model."""
    variance = runs.groupby(["model", "held_out", "dose"])[list(STUDY)].var()
    return variance.groupby(level="model").mean() ** 0.5


def limits(theirs: pd.DataFrame, spread: pd.DataFrame, ours_of: int, theirs_of: int) -> pd.DataFrame:
    """How far a score of ours may lie from one of theirs so that the two agree.

    Twice the standard deviation that seeds alone give their difference: ``2 s sqrt(1 / n + 1 / m)``, with ``s`` the
    study's own standard deviation over seeds, and ``n`` and ``m`` the seeds that our score and theirs are means of.
    ``s`` is at least a hundredth of the study's value, and for shared genes at least one gene.

    Parameters
    ----------
    theirs, spread
        Scores and ``s``; rows and columns alike.
    ours_of, theirs_of
        ``n`` and ``m``.
    """
    least = LEAST_SPREAD * theirs.abs()
    if "degs" in least:
        least["degs"] = least["degs"].clip(lower=1.0)
    s = spread.where(spread > least, least)
    far: pd.DataFrame = 2 * s * np.sqrt(1 / ours_of + 1 / theirs_of)
    return far


def verdict_of(metric: str, ours: float, theirs: float, limit: float) -> str:
    """Say whether ours ``agrees`` with theirs, or is ``better`` or ``worse``; ``unknown`` without a limit."""
    if not np.isfinite([ours, theirs, limit]).all():
        return "unknown"
    if abs(ours - theirs) <= limit:
        return "agrees"
    short = METRICS[metric].shortfall(np.array([ours, theirs]))
    return "better" if short[0] < short[1] else "worse"


def beside_runs(summary: DatasetSummary, *, by_dose: bool = True) -> pd.DataFrame:
    """Set each of our trials beside the study's run of the same model, context, dose and seed.

    Parameters
    ----------
    summary
        Of a data set with a published table.
    by_dose
        Whether doses stand apart; or the means over those that both have.

    Returns
    -------
    pandas.DataFrame
        A row for each pair and metric: ``label``, ``held_out``, ``dose``, ``seed``, ``metric``, ``ours``, ``study``,
        ``limit`` and ``verdict``; none where the study has no such runs.
    """
    columns = ["label", "held_out", "dose", "seed", "metric", "ours", "study", "limit", "verdict"]
    runs = published_runs(str(summary.card.published))
    rows = summary.results.scores
    ours = rows[rows["dataset"] == summary.card.name].assign(key=lambda table: table["held_out"].map(context_key))
    metrics = [metric for metric in STUDY if metric in summary.metrics]
    if runs is None or ours.empty or not metrics:
        return pd.DataFrame(columns=columns)
    doses = {name: f"{summary.card.doses[name]:g}" for name in summary.card.perturbations if name in summary.card.doses}
    ours["dose"] = ours["perturbation"].map(doses).fillna("")
    runs = runs.rename(columns={"held_out": "key"})
    both = ours.merge(runs, on=["model", "key", "dose", "seed"], suffixes=("", "_study"))
    if not by_dose:
        runs, both = runs.assign(dose=""), both.assign(dose="")
        runs = runs.groupby(["model", "key", "dose", "seed"], as_index=False)[list(STUDY)].mean()
        kept = ["label", "model", "held_out", "key", "dose", "seed"]
        both = both.groupby(kept, as_index=False, sort=False)[[*metrics, *(f"{one}_study" for one in metrics)]].mean()
    spread = spread_over_seeds(runs.rename(columns={"key": "held_out"})).reindex(both["model"])[metrics]
    theirs = both[[f"{metric}_study" for metric in metrics]].set_axis(metrics, axis=1)
    limit = limits(theirs, spread.set_axis(theirs.index), 1, 1)
    parts = [
        both[["label", "held_out", "dose", "seed"]].assign(
            metric=metric, ours=both[metric], study=theirs[metric], limit=limit[metric]
        )
        for metric in metrics
    ]
    table = pd.concat(parts, ignore_index=True)
    table["verdict"] = [
        verdict_of(metric, ours, theirs, most)
        for metric, ours, theirs, most in table[["metric", "ours", "study", "limit"]].itertuples(index=False)
    ]
    return table[columns]


@dataclass(frozen=True)
class Beside:
    """A score of ours, the study's own, its spread over seeds, and the printed one; each as printed here."""

    verdict: str
    ours: str
    study: str
    spread: str = ""
    printed: str = ""


@dataclass(frozen=True)
class BesideRow:
    """A model (or a trial) of ours beside the study's; ``remark`` is what must be said of the printed row."""

    name: str
    notes: Sequence[str]
    cells: Sequence[Beside]
    remark: str = ""


@dataclass(frozen=True)
class BesidePublished:
    """A data set's means and trials beside those of the study.

    Attributes
    ----------
    name
        Of the published table.
    metrics
        Name, arrow and what the arrow says.
    rows, trials
        Means of models; single trials (means over doses), where the study's runs are known.
    absent
        Printed names of models that this study has not.
    same_data
        Whether the cells are those of the published table.
    other_presets
        Those used here that are not the study's.
    counts, trial_counts
        Verdicts.
    """

    name: str
    metrics: Sequence[tuple[str, str, str]]
    rows: Sequence[BesideRow]
    trials: Sequence[BesideRow]
    absent: Sequence[str]
    same_data: bool
    other_presets: Sequence[str]
    counts: Mapping[str, int]
    trial_counts: Mapping[str, int]

    @property
    def remarks(self) -> list[str]:
        """What must be said of the printed rows, each once: rows refer to them by number."""
        return list(dict.fromkeys(row.remark for row in self.rows if row.remark))


def beside_published(summary: DatasetSummary) -> BesidePublished | None:
    """Set our scores beside those of the study, if it has this data set."""
    name = summary.card.published
    if name is None:
        return None
    table = published_table(name)
    rows = [row for model in table.index for row in _mean_rows(summary, name, str(model))]
    trials = _trial_rows(beside_runs(summary, by_dose=False))
    ours, shown = {card.name for card in summary.models.values()}, {row.name for row in rows}
    return BesidePublished(
        name,
        [(metric, ARROWS[METRICS[metric].better], BETTER[METRICS[metric].better]) for metric in STUDY],
        rows,
        trials,
        [str(printed["printed"]) for model, printed in table.iterrows() if model not in ours],
        summary.card.name == name,
        sorted({card.preset for label, card in summary.models.items() if label in shown} - {"study"}),
        Counter(cell.verdict for row in rows for cell in row.cells),
        Counter(cell.verdict for row in trials for cell in row.cells),
    )


def _mean_rows(summary: DatasetSummary, name: str, model: str) -> list[BesideRow]:
    """Our means of a model, the study's over the same contexts at its three seeds, and the printed ones."""
    printed = published_table(name).loc[model].to_dict()
    theirs, spread = _study_means(summary, name, model)
    found = []
    for label, card in summary.models.items():
        if card.name != model:
            continue
        seeds = len({trial.seed for trial in summary.trials if trial.label == label})
        if theirs is not None:
            limit = limits(theirs, spread, seeds, STUDY_SEEDS).iloc[0]
        else:  # only our own spread is known
            spread = pd.DataFrame([{metric: summary.deviation(label, metric) for metric in STUDY}])
            limit = (2 * spread * np.sqrt(1 / seeds + 1 / STUDY_SEEDS)).iloc[0]
        cells = []
        for metric in STUDY:
            ours, decimals = summary.mean(label, metric), 1 if metric == "degs" else 3
            study = float(theirs[metric].iloc[0]) if theirs is not None else float(printed[metric])
            known = (number(study, decimals), f"± {number(float(spread[metric].iloc[0]), decimals)}")
            shown = known if theirs is not None else ("", "")
            verdict = verdict_of(metric, ours, study, float(limit[metric]))
            cells.append(Beside(verdict, number(ours, decimals), *shown, number(float(printed[metric]), decimals)))
        remark = WRONG_PARTNERS if model in TRANSPORT else NOTES.get((name, model), "")
        changes = [f"{parameter} = {value}" for parameter, value in card.changes.items()]
        notes = [f"{printed['printed']}; {', '.join([f'preset {card.preset}', *changes])}"]
        found.append(BesideRow(label, notes, cells, remark))
    return found


def _study_means(summary: DatasetSummary, name: str, model: str) -> tuple[pd.DataFrame | None, pd.DataFrame]:
    """The study's mean over our contexts and doses and its three seeds, and its standard deviation over seeds."""
    runs = published_runs(name)
    held_out = {context_key(trial.held_out) for trial in summary.trials}
    doses = {f"{dose:g}" for name, dose in summary.card.doses.items() if name in summary.card.perturbations} or {""}
    if runs is not None:
        runs = runs[(runs["model"] == model) & runs["held_out"].isin(held_out) & runs["dose"].isin(doses)]
    if runs is None or runs.empty:
        return None, pd.DataFrame()
    trials = runs.groupby(["model", "held_out", "seed"], as_index=False)[list(STUDY)].mean().assign(dose="")
    # Contexts are trained apart, so that their seeds' noise averages out.
    spread = spread_over_seeds(trials) / np.sqrt(trials["held_out"].nunique())
    return trials[list(STUDY)].mean().to_frame().T.set_axis(spread.index), spread


def _trial_rows(pairs: pd.DataFrame) -> list[BesideRow]:
    rows = []
    for (label, held_out, seed), one in pairs.groupby(["label", "held_out", "seed"], sort=False):
        known = {pair["metric"]: pair for pair in one.to_dict("records")}
        cells = []
        for metric in STUDY:
            pair, decimals = known.get(metric, {}), 1 if metric == "degs" else 3
            ours, study = (number(float(pair.get(who, np.nan)), decimals) for who in ("ours", "study"))
            cells.append(Beside(str(pair.get("verdict", "unknown")), ours, study))
        rows.append(BesideRow(str(label), [f"{held_out}, seed {seed}"], cells))
    return rows
