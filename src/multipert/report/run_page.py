"""The page of one run: what was predicted, how well, and how it was made."""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from multipert.benchmark import HeldOutTest, Outcome
from multipert.data import PerturbationData
from multipert.evaluation import METRICS
from multipert.evaluation.populations import Comparison, read_comparisons
from multipert.models import Model
from multipert.report import figures
from multipert.report.page import render
from multipert.report.score_table import ARROWS, BETTER, DASH, ScoreTable, number, score_tables, shared_decimals
from multipert.report.svg import to_svg
from multipert.report.verdict import CEILING, NO_CHANGE, closed, judge, judging_metric, perturbations_won

GENES_NAMED = 10
"""Genes named in the scatter of means."""
GENES_DRAWN = 6
"""Genes drawn as violins."""
PERTURBATIONS_DRAWN = 12
"""Perturbations that get figures; of more, those predicted best and worst, so that the page stays small."""

_NOTES = {
    NO_CHANGE: "the control cells as they are",
    "mean-shift": "the mean response of other contexts",
    "nearest-context": "the response of the most similar context",
    "linear": "a response read off the control cells",
    "resample": "values exchanged with perturbed cells",
    CEILING: "half the true cells for the other half",
}


@dataclass(frozen=True)
class Picture:
    """A figure and the words under it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Pictures:
    """What is drawn of one perturbation."""

    means: Picture
    violins: Sequence[Picture]
    components: Picture


@dataclass(frozen=True)
class Section:
    """One perturbation on the page."""

    anchor: str
    perturbation: str
    n_control: int
    n_true: int
    tables: Sequence[ScoreTable]
    caveats: Sequence[str]
    glance: Sequence[tuple[str, str]]
    answer: str
    pictures: Pictures | None


def run_page(test: HeldOutTest) -> str:
    """Write the page of one run.

    Parameters
    ----------
    test
        A fitted model's predictions of its held-out context, scored.

    Returns
    -------
    str
        HTML in one piece: it opens offline, on a phone and on paper.
    """
    model, data = test.model, test.data
    name = model.name
    tables = [outcome.scores for outcome in test.outcomes]
    mean = mean_scores(tables)
    verdict = judge(mean, name)
    several = len(tables) > 1
    drawn = _drawn(tables, name)
    decimals = shared_decimals(np.concatenate([table[judging_metric(table)] for table in tables]))
    return render(
        "run.html.j2",
        model=model,
        held_out=test.held_out,
        context_key=", ".join(data.keys.context_columns),
        perturbations=[outcome.perturbation for outcome in test.outcomes],
        learnt_from=_learnt_from(data, test.held_out),
        verdict=verdict,
        perturbations_won=perturbations_won(tables, name) if several else "",
        judging_metric=judging_metric(mean),
        methods=[str(row) for row in mean.index],
        mean_tables=_tables(mean, name, f"Mean over {len(tables)} perturbations") if several else [],
        sections=[
            _section(test, place, one, decimals, drawn=place in drawn) for place, one in enumerate(test.outcomes)
        ],
        n_drawn=len(drawn),
        training=_training(model),
        facts=_facts(test),
        parameters=_parameters(model),
        cells=_cells(data, test.held_out),
        versions=_versions(),
        metrics=[
            (metric, ARROWS[metric.better], BETTER[metric.better])
            for metric in (METRICS[str(column)] for column in mean.columns)
        ],
    )


def mean_scores(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Scores averaged over perturbations, each metric over those where every method has one.

    Parameters
    ----------
    tables
        For each perturbation, a row for each method and for the ceiling; a column for each metric.
    """
    stack = np.stack([table.to_numpy(dtype=np.float64) for table in tables])
    methods = tables[0].index != CEILING
    known = ~np.isnan(stack)
    known[:, methods] = known[:, methods].all(axis=1, keepdims=True)
    count = known.sum(axis=0)
    total = np.where(known, stack, 0).sum(axis=0)
    return pd.DataFrame(np.where(count > 0, total / np.maximum(count, 1), np.nan), tables[0].index, tables[0].columns)


def _drawn(tables: Sequence[pd.DataFrame], model: str) -> set[int]:
    """Which perturbations get figures: all, or the half predicted worst and the half predicted best of so many."""
    if len(tables) <= PERTURBATIONS_DRAWN:
        return set(range(len(tables)))
    share = np.nan_to_num([closed(table, model) for table in tables], nan=-np.inf)
    order = np.argsort(share, kind="stable")
    half = PERTURBATIONS_DRAWN // 2
    return set(order[:half].tolist()) | set(order[len(order) - half :].tolist())


def _learnt_from(data: PerturbationData, held_out: str) -> str:
    """Say what training could see."""
    others = [context for context in data.contexts if context != held_out]
    inside = len(data.rows(context=held_out))
    kept = len(data.rows(condition=data.control, context=held_out))
    several = len(others) > 1
    named = f" ({', '.join(others)})" if len(others) <= 8 else ""
    return (
        f"{len(data) - inside:,} cells of {len(others)} other context{'s' if several else ''}{named}, control and "
        f"perturbed, and the {kept:,} control cells of {held_out}"
    )


def _tables(scores: pd.DataFrame, model: str, caption: str) -> list[ScoreTable]:
    notes = {**_NOTES, model: f"this model, {_NOTES[model]}" if model in _NOTES else "this model"}
    return score_tables(scores, notes, [CEILING], caption)


def _section(test: HeldOutTest, place: int, outcome: Outcome, decimals: int, *, drawn: bool) -> Section:
    model, scores = test.model.name, outcome.scores
    anchor = f"perturbation-{place + 1}"
    (comparison,) = read_comparisons(control=outcome.control, truth=outcome.truth, predicted=outcome.predicted).values()
    caveats = [
        f"{metric.name}: {said}"
        for metric in METRICS.values()
        if metric.caveat is not None and metric.name in scores and (said := metric.caveat(comparison))
    ]
    judged = scores[judging_metric(scores)]
    share = closed(scores, model)
    glance = [(number(value, decimals), repr(float(value)) if np.isfinite(value) else "") for value in judged]
    glance.append((f"{number(100 * share, 0)}%", repr(share)) if np.isfinite(share) else (DASH, ""))
    return Section(
        anchor,
        outcome.perturbation,
        outcome.control.n_obs,
        outcome.truth.n_obs,
        _tables(scores, model, f"{outcome.perturbation} in {test.held_out}"),
        caveats,
        glance,
        judge(scores, model).answer.rstrip("."),
        _pictures(anchor, outcome.perturbation, test.held_out, comparison) if drawn else None,
    )


def _pictures(anchor: str, perturbation: str, held_out: str, cells: Comparison) -> Pictures:
    what = f"{perturbation} in {held_out}"
    # The clearest change in either direction: a knock-down is as good a response as an induction.
    order = np.argsort(-np.abs(cells.wilcoxon_truth), kind="stable")[:GENES_NAMED]
    named = {str(cells.genes[gene]): int(gene) for gene in order}
    return Pictures(
        _means(anchor, what, cells, named),
        [_violin(f"{anchor}-gene-{rank}", cells, *gene) for rank, gene in enumerate([*named.items()][:GENES_DRAWN])],
        _components(anchor, what, cells),
    )


def _means(anchor: str, what: str, cells: Comparison, named: Mapping[str, int]) -> Picture:
    true, predicted, control = cells.truth.mean, cells.predicted.mean, cells.control.mean
    genes = ", ".join(named)
    r2, r2_control = _r2(true, predicted), _r2(true, control)
    svg = to_svg(
        figures.mean_expression(true, predicted, control, named),
        f"{anchor}-means",
        title=f"Predicted against true mean expression, {what}",
        description=f"Scatter plot of {len(true):,} genes; r² = {r2}. Named, from the clearest response: {genes}.",
    )
    caption = (
        f"Each dot is a gene ({len(true):,}); on the dashed line the prediction is right. r² = {r2} over all genes; "
        f"control cells in place of the prediction give {r2_control}, so look at the genes that respond. The "
        f"{len(named)} that respond most clearly (Wilcoxon) are named; a grey ring marks where their control mean "
        "would put them, and the orange line how far the model moved them."
    )
    return Picture(svg, caption)


def _r2(first: figures.Floats, second: figures.Floats) -> str:
    """Squared Pearson correlation, as printed."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return DASH
    return number(float(np.corrcoef(first, second)[0, 1]) ** 2, 3)


def _violin(name: str, cells: Comparison, gene: str, index: int) -> Picture:
    column = np.array([index])
    populations = {
        role: population.columns(column)[:, 0]
        for role, population in zip(figures.COLOURS, (cells.control, cells.truth, cells.predicted), strict=True)
    }
    means = ", ".join(f"{role} {number(float(values.mean()), 2)}" for role, values in populations.items())
    up = cells.true_shift[index] > 0
    svg = to_svg(
        figures.violins(populations),
        name,
        title=f"Expression of {gene} in control, true and predicted cells",
        description=f"Violin plots. Mean expression: {means}.",
    )
    return Picture(svg, f"{gene} {'↑' if up else '↓'}")


def _components(anchor: str, what: str, cells: Comparison) -> Picture:
    coordinates = dict(zip(figures.COLOURS, cells.components.values(), strict=True))
    shares = _shares(cells)
    svg = to_svg(
        figures.components(coordinates, shares),
        f"{anchor}-components",
        title=f"Control, true and predicted cells in two principal components, {what}",
        description="Scatter plot of cells. " + _direction(coordinates),
    )
    caption = (
        "Each dot is a cell, placed in the first two principal components of control, true and predicted cells "
        "together. Large marks are the means; arrows lead from the mean of control to the others: the better the "
        "prediction, the closer the two arrows, and the more alike the two clouds. " + _direction(coordinates)
    )
    return Picture(svg, caption)


def _direction(coordinates: Mapping[str, figures.Floats]) -> str:
    """How the predicted shift compares with the true one, over all components."""
    control, true, predicted = (cells.mean(axis=0) for cells in coordinates.values())
    length, moved = np.linalg.norm(true - control), np.linalg.norm(predicted - control)
    if not length > 0 or not moved > 1e-6 * length:
        return "The predicted mean stays at that of control." if length > 0 else ""
    cosine = float((true - control) @ (predicted - control) / (length * moved))
    return (
        f"Over all components the predicted shift is {number(100 * float(moved / length), 0)}% as long as the true "
        f"one, at an angle of {number(float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))), 0)}°."
    )


def _shares(cells: Comparison) -> tuple[float, float]:
    """Share of the variance of all cells along each of the first two components."""
    populations = (cells.control, cells.truth, cells.predicted)
    n = np.array([population.n_cells for population in populations])
    means = np.stack([population.mean for population in populations])
    within = np.array([(population.n_cells - 1) * population.variance.sum() for population in populations])
    total = within.sum() + (n[:, None] * (means - np.average(means, axis=0, weights=n)) ** 2).sum()
    along = (np.concatenate(list(cells.components.values())) ** 2).sum(axis=0)
    first, second = np.pad(along, (0, 2))[:2] / max(total, np.finfo(float).tiny)
    return float(first), float(second)


def _training(model: Model) -> list[Picture]:
    """Draw a curve for each loss; none for a model that was not trained."""
    history = model.history_.table
    losses = dict.fromkeys(
        str(column).partition("_")[2] for column in history if str(column).startswith(("train_", "validation_"))
    )
    return [_curve(history, loss, f"training-{place}") for place, loss in enumerate(losses)]


def _curve(history: pd.DataFrame, loss: str, name: str) -> Picture:
    last = [
        f"{part} {number(float(history[f'{prefix}_{loss}'].dropna().iloc[-1]))}"
        for prefix, part in (("train", "training"), ("validation", "validation"))
        if f"{prefix}_{loss}" in history and history[f"{prefix}_{loss}"].notna().any()
    ]
    ends = f"{loss} after {len(history)} epochs: {', '.join(last)}."
    svg = to_svg(
        figures.training_curve(history, loss), name, title=f"Training curve of {loss}", description=f"Line plot; {ends}"
    )
    return Picture(svg, ends)


def _facts(test: HeldOutTest) -> list[tuple[str, str]]:
    model, data = test.model, test.data
    keys = {field: value for field, value in dataclasses.asdict(data.keys).items() if value is not None}
    return [
        ("Model", repr(model)),
        ("What it is", f"{model.title} ({model.source})"),
        ("Preset", model.preset),
        ("Seed", str(model.seed)),
        ("Trained parameters", f"{model.n_parameters:,}"),
        ("Steps", f"{model.history_.steps:,}"),
        ("Time to fit", _duration(model.seconds_fit_)),
        ("Data", f"{len(data):,} cells, {len(data.genes):,} genes, fingerprint {data.fingerprint}"),
        ("Read from", ", ".join(f"{field} = {value!r}" for field, value in keys.items())),
    ]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _parameters(model: Model) -> list[tuple[str, str, str]]:
    """Name, value and meaning of each."""
    return [
        (field.name, str(getattr(model.parameters, field.name)), field.metadata.get("meaning", ""))
        for field in dataclasses.fields(model.parameters)
    ]


def _cells(data: PerturbationData, held_out: str) -> list[tuple[str, list[tuple[int, bool]]]]:
    """For each context, the number of cells under each condition and whether they were held out."""
    n_conditions, n_contexts = len(data.conditions), len(data.contexts)
    counts = np.bincount(data.context * n_conditions + data.condition, minlength=n_contexts * n_conditions)
    return [
        (context, [(int(n), context == held_out and place > 0 and n > 0) for place, n in enumerate(row)])
        for context, row in zip(data.contexts, counts.reshape(n_contexts, n_conditions), strict=True)
    ]


def _versions() -> list[tuple[str, str]]:
    packages = ("multipert", "torch", "anndata", "scanpy", "scikit-learn", "numpy", "matplotlib")
    found = [(package, importlib.metadata.version(package)) for package in packages]
    return [("python", platform.python_version()), *found]
