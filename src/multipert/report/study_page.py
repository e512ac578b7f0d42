"""The page of a study: which model is best, whether that is any good, and all that stands behind the answer."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from multipert.benchmark import StudyResults
from multipert.benchmark.records import DatasetCard, ModelCard, TrialResult
from multipert.evaluation import METRICS, STUDY
from multipert.report import study_figures as figures
from multipert.report.figures import COLOURS, Floats
from multipert.report.page import render
from multipert.report.score_table import ARROWS, BETTER, number, shared_decimals
from multipert.report.standing import FLOOR, Standing, standings
from multipert.report.study_tables import HeatMap, Leaderboard, PublishedRow, heat_map, leaderboards, published_rows
from multipert.report.study_verdict import DatasetVerdict, overall_tone, study_verdict
from multipert.report.svg import to_svg
from multipert.report.verdict import CEILING

GENES_DRAWN = 6
"""Genes whose expression is drawn."""
CONTEXTS_DRAWN = 12
"""Contexts in which genes are drawn."""
PERTURBATIONS_DRAWN = 24
"""Perturbations that are drawn one by one; of more, those farthest from control."""
SERIES_DRAWN = 3
"""Series of doses that are drawn; of more, those that go farthest from control."""
NAMED_CONDITIONS = 10
"""Conditions that get a colour each in the UMAP; of more, control stands against all others."""

_COORDINATES = re.compile(r' (?:d|x|y|transform)="[^"<>]*"')
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_INDENT = re.compile(r"\n +")

_RATIOS = ("edistance", "wasserstein", "euclidean", "mean_pairwise", "mmd")

GROUPS: Mapping[str, Sequence[str]] = {
    "Baseline metrics": ("degs", "r2_hvg", "r2_deg20", "r2_deg100"),
    "Distance metrics": (*_RATIOS, "edist"),
}
"""The metrics that are drawn, as the study has them apart."""

_READ = {
    "Distance metrics": "All but edist are ratios: the distance to the truth over that to control. On the thin line, "
    "at 1, the prediction is as far from one as from the other. No change is no distance from control, so only "
    "mean_pairwise, over pairs of cells, has a floor."
}


@dataclass(frozen=True)
class Panel:
    """A small figure, what is written above it, and below it what its colours mean where it does not say so itself."""

    svg: Markup
    caption: str
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Panels:
    """Figures that belong together."""

    anchor: str
    heading: str
    text: str
    pictures: Sequence[Panel]


@dataclass(frozen=True)
class Published:
    """The printed table beside ours."""

    name: str
    metrics: Sequence[tuple[str, str, str]]
    rows: Sequence[PublishedRow]
    absent: Sequence[str]
    same_data: bool
    other_presets: Sequence[str]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Key:
    """How a family is drawn, and which of its models has the mark."""

    family: str
    sign: str
    colour: str
    best: str


@dataclass(frozen=True)
class DatasetSection:
    """One data set on the page."""

    anchor: str
    card: DatasetCard
    sentence: str
    verdict: DatasetVerdict
    leaderboards: Sequence[Leaderboard]
    metric: str
    caveats: Sequence[str]
    limits: str
    incomplete: bool
    published: Published | None
    heat_maps: Sequence[HeatMap]
    families: Sequence[Key]
    across: Sequence[tuple[str, Sequence[Panels]]]
    shown: Sequence[str]
    genes: Panels | None
    dose_genes: Sequence[Panels]
    umap: Panels | None
    training: Panels | None
    cost: Panels | None


@dataclass(frozen=True)
class Failure:
    """Trials that failed alike."""

    dataset: str
    label: str
    error: str
    where: Sequence[str]
    traceback: str


def study_page(results: StudyResults) -> str:
    """Write the page of a study.

    Parameters
    ----------
    results
        A benchmark directory's, finished or not.

    Returns
    -------
    str
        HTML in one piece: it opens offline, on a phone and on paper.
    """
    of_datasets = standings(results)
    verdicts = [study_verdict(standing) for standing in of_datasets]
    failed = [trial for trial in results.trials if trial.status == "failed"]
    return render(
        "study.html.j2",
        study=results,
        verdicts=verdicts,
        tone=overall_tone(verdicts),
        sections=[
            _section(f"data-{place + 1}", standing, verdict)
            for place, (standing, verdict) in enumerate(zip(of_datasets, verdicts, strict=True))
        ],
        n_done=len(results.trials) - len(failed),
        n_failed=len(failed),
        n_missing=results.planned - len(results.trials),
        failures=_failures(failed),
        models=[(card, _settings(card)) for card in results.models],
        metrics=[
            (METRICS[name], ARROWS[METRICS[name].better], BETTER[METRICS[name].better]) for name in results.metrics
        ],
    )


def _section(anchor: str, standing: Standing, verdict: DatasetVerdict) -> DatasetSection:
    card, scored = standing.card, bool(standing.trials)
    several, doses = len(card.perturbations) > 1, _drawn_doses(standing)
    across = [("context", _across(anchor, standing, "held_out"))] if scored else []
    if scored and several and not doses:
        across.append(("perturbation", _across(anchor, standing, "perturbation")))
    across += [(f"dose of {name}" if len(doses) > 1 else "dose", _across_doses(anchor, standing, place, series))
               for place, (name, series) in enumerate(doses.items()) if scored]  # fmt: skip
    return DatasetSection(
        anchor=anchor,
        card=card,
        sentence=_sentence(card),
        verdict=verdict,
        leaderboards=leaderboards(standing) if scored else [],
        metric=standing.metric,
        caveats=_caveats(standing),
        limits=_limits(standing),
        incomplete=bool(standing.incomplete),
        published=_published(standing) if scored and card.published is not None else None,
        heat_maps=_heat_maps(standing) if scored else [],
        families=_families(standing),
        across=across,
        shown=standing.shown,
        genes=_genes(anchor, standing) if scored else None,
        dose_genes=[
            panels
            for place, (name, series) in enumerate(doses.items())
            if scored
            for panels in _dose_genes(f"{anchor}-curve-{place}", standing, name, series)
        ],
        umap=_umap(anchor, standing),
        training=_training(anchor, standing) if scored else None,
        cost=_cost(anchor, standing) if scored else None,
    )


def _sentence(card: DatasetCard) -> str:
    """Say what the data are and what is asked of them."""
    n, held = len(card.perturbations), len(card.held_out)
    doses = _doses(card)
    if doses and n > 1:
        what = f"{n} doses" if len(doses) == 1 else f"{n} doses of {len(doses)} perturbations"
    else:
        what = f"{n} perturbations" if n > 1 else card.perturbations[0] if n else "nothing"
    contexts = f"{len(card.contexts)} contexts"
    in_turn = "each context in turn" if held == len(card.contexts) else f"{held} of them in turn"
    return (
        f"{card.source[:1].upper()}{card.source[1:]}: {card.n_cells:,} cells and {card.n_genes:,} genes of {contexts}. "
        f"The response to {what} is held out in {in_turn}, and predicted from control cells."
    )


def _doses(card: DatasetCard) -> dict[str, dict[str, float]]:
    """The series of doses: by the perturbation's name, condition to dose, rising; only where there are at least two."""
    series: dict[str, dict[str, float]] = {}
    for perturbation in card.perturbations:
        if card.doses.get(perturbation, 0) > 0:
            name = perturbation.rpartition("@")[0] or perturbation
            series.setdefault(name, {})[perturbation] = card.doses[perturbation]
    rising = {name: dict(sorted(doses.items(), key=lambda one: one[1])) for name, doses in series.items()}
    return {name: doses for name, doses in rising.items() if len(doses) > 1}


def _drawn_doses(standing: Standing) -> dict[str, dict[str, float]]:
    """The series of doses that are drawn."""
    series = _doses(standing.card)
    if len(series) <= SERIES_DRAWN:
        return series
    floor = standing.by("perturbation", standing.metric)[FLOOR]
    effect = pd.Series(METRICS[standing.metric].shortfall(floor.to_numpy()), floor.index).fillna(-np.inf)
    farthest = sorted(series, key=lambda name: -effect[list(series[name])].max())[:SERIES_DRAWN]
    return {name: doses for name, doses in series.items() if name in farthest}


def _limits(standing: Standing) -> str:
    """Say what is left out so that the page stays small."""
    n, contexts, series = len(standing.card.perturbations), len(standing.references), len(_doses(standing.card))
    said = []
    if n > PERTURBATIONS_DRAWN:
        said.append(f"Of {n} perturbations, the {PERTURBATIONS_DRAWN} farthest from control are drawn.")
    if series > SERIES_DRAWN:
        said.append(f"Of {series} series of doses, {SERIES_DRAWN} are drawn.")
    if contexts > CONTEXTS_DRAWN:
        said.append(f"Genes are drawn in the first {CONTEXTS_DRAWN} contexts.")
    return " ".join(said)


def _caveats(standing: Standing) -> list[str]:
    """What must be said beside the scores of a metric, each once."""
    notes = [(metric, note) for trial in standing.trials for metric, note in trial.notes.items() if note]
    return [f"{metric}: {note}" for metric, note in dict.fromkeys(notes)]


def _heat_maps(standing: Standing) -> list[HeatMap]:
    name = standing.card.name
    metrics = list(dict.fromkeys([standing.metric, *(one for one in ("degs",) if one in standing.metrics)]))
    maps = [
        heat_map(
            standing,
            metric,
            "held_out",
            standing.card.held_out,
            f"{metric} of every model in every held-out context of {name}",
        )
        for metric in metrics
    ]
    if len(standing.card.perturbations) > 1:
        far = standing.strongest(PERTURBATIONS_DRAWN)
        which = "every perturbation" if len(far) == len(standing.card.perturbations) else f"{len(far)} perturbations"
        caption = f"{standing.metric} of every model for {which} of {name}"
        maps.append(heat_map(standing, standing.metric, "perturbation", far, caption))
    return maps


def _published(standing: Standing) -> Published:
    name = str(standing.card.published)
    rows, absent = published_rows(standing, name)
    shown = {row.name for row in rows}
    return Published(
        name,
        [(metric, ARROWS[METRICS[metric].better], BETTER[METRICS[metric].better]) for metric in STUDY],
        rows,
        absent,
        standing.card.name == name,
        sorted({card.preset for label, card in standing.models.items() if label in shown} - {"study"}),
        Counter(comparison.verdict for row in rows for comparison, _, _ in row.cells),
    )


def _families(standing: Standing) -> list[Key]:
    order = [*figures.FAMILIES, *standing.best_of_family]
    return [
        Key(family, figures.mark_of(family).sign, figures.mark_of(family).colour, standing.best_of_family[family])
        for family in dict.fromkeys(order)
        if family in standing.best_of_family
    ]


def _across(anchor: str, standing: Standing, level: str) -> list[Panels]:
    """Draw each metric across contexts or perturbations."""
    what = "context" if level == "held_out" else "perturbation"
    families = {label: card.family for label, card in standing.models.items()}
    best = [key.best for key in _families(standing)]
    rows = standing.card.held_out if level == "held_out" else standing.strongest(PERTURBATIONS_DRAWN)
    tables = {metric: standing.by(level, metric).loc[list(rows)] for metric in standing.metrics}
    return [
        Panels(
            f"{anchor}-{what}-{place}",
            heading,
            _READ.get(heading, ""),
            [
                Panel(
                    _svg(
                        figures.metric_by_row(tables[metric], families, best, ratio=metric in _RATIOS),
                        f"{anchor}-{what}-{metric.replace('_', '-')}",
                        title=f"{metric} of every model by {what}, {standing.card.name}",
                        description=_ends(tables[metric], best),
                    ),
                    f"{metric} {ARROWS[METRICS[metric].better]}",
                )
                for metric in metrics
                if metric in standing.metrics
            ],
        )
        for place, (heading, metrics) in enumerate(GROUPS.items())
        if set(metrics) & set(standing.metrics)
    ]


def _across_doses(anchor: str, standing: Standing, place: int, series: Mapping[str, float]) -> list[Panels]:
    families = {label: card.family for label, card in standing.models.items()}
    best = [key.best for key in _families(standing)]
    panels = []
    for number_, (heading, metrics) in enumerate(GROUPS.items()):
        pictures = []
        for metric in (one for one in metrics if one in standing.metrics):
            table = standing.by("perturbation", metric).loc[list(series)]
            figure = figures.metric_by_dose(table, list(series.values()), families, best, ratio=metric in _RATIOS)
            svg = _svg(
                figure,
                f"{anchor}-dose-{place}-{metric.replace('_', '-')}",
                title=f"{metric} of every model by dose, {standing.card.name}",
                description=_ends(table, best),
            )
            pictures.append(Panel(svg, f"{metric} {ARROWS[METRICS[metric].better]}"))
        if pictures:
            panels.append(Panels(f"{anchor}-dose-{place}-{number_}", heading, _READ.get(heading, ""), pictures))
    return panels


def _ends(table: pd.DataFrame, best: Sequence[str]) -> str:
    """Describe a panel in words: the means of what is marked."""
    means = {str(label): float(table[label].mean()) for label in [*best, FLOOR, CEILING]}
    decimals = shared_decimals(means.values())
    return "Means: " + ", ".join(f"{label} {number(value, decimals)}" for label, value in means.items()) + "."


def _genes(anchor: str, standing: Standing) -> Panels | None:
    """Draw the genes that respond most across contexts, for the perturbation with the largest effect."""
    overview = standing.results.overviews.get(standing.card.name)
    far = standing.strongest(1)
    if overview is None or not far:
        return None
    perturbation = far[0]
    control = standing.card.conditions[0]
    pictures = []
    for place, gene in enumerate(list(overview.genes.get(perturbation, ()))[:GENES_DRAWN]):
        groups = {}
        for reference in standing.references[:CONTEXTS_DRAWN]:
            trials = [standing.trial(label, reference.held_out) for label in standing.shown]
            cells = [
                reference.expression.get(control, {}).get(gene, ()),
                reference.expression.get(perturbation, {}).get(gene, ()),
                *(trial.expression.get(perturbation, {}).get(gene, ()) if trial else () for trial in trials),
            ]
            if len(cells[0]) and len(cells[1]):
                groups[reference.held_out] = [np.asarray(values, dtype=np.float64) for values in cells]
        if groups:
            pictures.append(
                Panel(
                    _svg(
                        figures.gene_by_context(groups),
                        f"{anchor}-gene-{place}",
                        title=f"Expression of {gene} by context: control, true and predicted cells",
                        description=_gene_means(groups, standing.shown),
                    ),
                    gene,
                )
            )
    return Panels(f"{anchor}-genes", "Genes across contexts", perturbation, pictures) if pictures else None


def _gene_means(groups: Mapping[str, Sequence[Floats]], shown: Sequence[str]) -> str:
    names = ["control", "true", *shown]
    return "Means: " + "; ".join(
        f"{context}: "
        + ", ".join(f"{name} {number(float(c.mean()), 2)}" for name, c in zip(names, cells, strict=True) if len(c))
        for context, cells in groups.items()
    )


def _dose_genes(anchor: str, standing: Standing, name: str, series: Mapping[str, float]) -> list[Panels]:
    """Draw genes across doses: the mean over contexts of several, and the first context by context."""
    overview = standing.results.overviews.get(standing.card.name)
    genes = list(overview.genes.get(next(iter(series)), ()))[:GENES_DRAWN] if overview is not None else []
    held_out = [reference.held_out for reference in standing.references]
    curves = {(gene, context): _curve(standing, gene, context, list(series)) for gene in genes for context in held_out}

    def draw(gene: str, contexts: Sequence[str], number_: int, caption: str) -> Panel:
        stack = np.stack([curves[gene, context] for context in contexts])
        # A dose that one context lacks is the mean over the others; one that all lack stays open.
        known = np.isfinite(stack)
        total = np.where(known, stack, 0).sum(axis=0)
        curve = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
        control, true, *predicted = curve
        where = contexts[0] if len(contexts) == 1 else f"mean over {len(contexts)} contexts"
        svg = _svg(
            figures.dose_response(list(series.values()), float(control[0]), true, predicted),
            f"{anchor}-{number_}",
            title=f"Mean expression of {gene} by dose of {name}, {where}",
            description=f"Control {number(float(control[0]), 2)}. "
            + " ".join(
                f"{who}: {', '.join(number(float(value), 2) for value in values)}."
                for who, values in zip(["True", *standing.shown], [true, *predicted], strict=True)
            ),
        )
        return Panel(svg, caption)

    if not genes or not held_out:
        return []
    panels = [
        Panels(
            f"{anchor}-genes",
            f"Dose-response curves{f' of {name}' if name else ''}",
            f"mean over {len(held_out)} held-out contexts",
            [draw(gene, held_out, place, gene) for place, gene in enumerate(genes)],
        )
    ]
    if len(held_out) > 1:
        few = held_out[:CONTEXTS_DRAWN]
        pictures = [draw(genes[0], [context], len(genes) + place, context) for place, context in enumerate(few)]
        panels.append(Panels(f"{anchor}-contexts", f"{genes[0]} in each context", "", pictures))
    return panels


def _curve(standing: Standing, gene: str, context: str, conditions: Sequence[str]) -> Floats:
    """(control, true and predicted, conditions) mean expression of a gene; NaN where it was not measured."""
    reference = standing.results.references[standing.card.name, context]
    trials = [standing.trial(label, context) for label in standing.shown]
    control = reference.means.get(standing.card.conditions[0], {}).get(gene, np.nan)
    sources = [reference.means, *(trial.means if trial is not None else {} for trial in trials)]
    rows = [[means.get(condition, {}).get(gene, np.nan) for condition in conditions] for means in sources]
    return np.array([[control] * len(conditions), *rows], dtype=np.float64)


def _umap(anchor: str, standing: Standing) -> Panels | None:
    """Draw the cells three times: by their part in the first split, by context and by condition."""
    card, overview = standing.card, standing.results.overviews.get(standing.card.name)
    if overview is None or not len(overview.umap.get("x", ())) or not card.held_out:
        return None
    places = np.column_stack([overview.umap["x"], overview.umap["y"]]).astype(np.float64)
    contexts, conditions = ([str(name) for name in overview.umap[column]] for column in ("context", "condition"))
    control, first = card.conditions[0], card.held_out[0]
    split = [
        "held out" if context == first and condition != control else "training"
        for context, condition in zip(contexts, conditions, strict=True)
    ]
    colours = {"training": COLOURS["control"], "held out": COLOURS["predicted"]}
    by_condition, names = _condition_colours(card), conditions
    if by_condition is None:
        by_condition = {control: COLOURS["control"], "perturbed": COLOURS["true"]}
        names = [control if condition == control else "perturbed" for condition in conditions]
    drawn = (
        ("split", "Training and held out", split, colours, ()),
        ("context", "Context", contexts, figures.distinct(list(card.contexts)), card.contexts),
        ("condition", "Condition", names, by_condition, ()),
    )
    pictures = []
    for what, caption, kinds, colour, named in drawn:
        counts = Counter(kinds)
        svg = _svg(
            figures.cells_by_name(places, kinds, colour, named=list(named)),
            f"{anchor}-umap-{what}",
            title=f"UMAP of {card.name} by {what}",
            description="Cells drawn: " + ", ".join(f"{name} {counts[name]}" for name in colour if counts[name]) + ".",
        )
        legend = [(name, tone) for name, tone in colour.items() if counts[name]]
        pictures.append(Panel(svg, caption, legend))
    return Panels(f"{anchor}-umap", "The split", first, pictures)


def _condition_colours(card: DatasetCard) -> dict[str, str] | None:
    """A colour for each condition: shades for doses; none where there are too many to tell apart."""
    control, *perturbed = card.conditions
    grey = {control: COLOURS["control"]}
    doses = _doses(card)
    if len(doses) == 1 and set(next(iter(doses.values()))) == set(perturbed):
        return grey | figures.shades(list(next(iter(doses.values()))))
    return grey | figures.distinct(perturbed) if len(perturbed) <= NAMED_CONDITIONS else None


def _training(anchor: str, standing: Standing) -> Panels | None:
    """Draw how one trial of each model was trained: the first that was done."""
    pictures = []
    for place, label in enumerate(standing.models):
        trial = next(trial for trial in standing.trials if trial.label == label)
        history = pd.DataFrame(dict(trial.history))
        loss = _main_loss(history)
        if loss is None:
            continue
        last = [
            f"{part} {number(float(history[column].dropna().iloc[-1]))}"
            for column, part in ((f"train_{loss}", "training"), (f"validation_{loss}", "validation"))
            if column in history and history[column].notna().any()
        ]
        svg = _svg(
            figures.training(history, loss),
            f"{anchor}-training-{place}",
            title=f"Training of {label}: {loss} by step",
            description=f"Held out: {trial.held_out}; seed {trial.seed}. At the end {', '.join(last)}.",
        )
        pictures.append(Panel(svg, f"{label}: {loss}"))
    text = f"{standing.trials[0].held_out}, seed {standing.trials[0].seed}"
    return Panels(f"{anchor}-training", "Training curves", text, pictures) if pictures else None


def _main_loss(history: pd.DataFrame) -> str | None:
    """Name the loss to draw: the one called so, else the first that was recorded most often."""
    columns = [str(name) for name in history if str(name).startswith(("train_", "validation_"))]
    known = {name: int(history[name].notna().sum()) for name in columns}
    if not known or max(known.values()) == 0:
        return None
    fullest = max(known, key=lambda name: (name == "train_loss" and known[name] > 0, known[name]))
    return fullest.partition("_")[2]


def _cost(anchor: str, standing: Standing) -> Panels | None:
    """Draw what each model took against the share of the gap it closed."""
    families = {label: card.family for label, card in standing.models.items()}
    closed = {label: share for label, share in standing.closed.items() if np.isfinite(share)}
    kinds = (
        ("seconds_fit", "Time to fit one trial", "seconds"),
        ("peak_memory_mb", "Peak memory", "MB"),
        ("n_parameters", "Trained parameters", "parameters"),
    )
    pictures = []
    for column, caption, unit in kinds:
        costs = {
            str(label): float(value)
            for label, value in standing.costs[column].items()
            if label in closed and np.isfinite(value) and value > 0
        }
        if costs:
            svg = _svg(
                figures.cost(costs, closed, families, unit),
                f"{anchor}-cost-{column.replace('_', '-')}",
                title=f"{caption} against the gap closed, {standing.card.name}",
                description="; ".join(
                    f"{label}: {number(value)} {unit}, {number(100 * closed[label], 0)}%"
                    for label, value in costs.items()
                ),
            )
            pictures.append(Panel(svg, caption))
    far = [label for label, share in closed.items() if share < -1]
    text = f" Below {number(-100, 0)}%, at the lower edge: {', '.join(far)}." if far else ""
    return Panels(f"{anchor}-cost", "Cost and accuracy", text, pictures) if pictures else None


def _svg(figure: Figure, name: str, *, title: str, description: str) -> Markup:
    """Write a figure with coordinates to a hundredth of a point, and without indentation: half the bytes."""
    svg = to_svg(figure, name, title=title, description=description)
    return Markup(_COORDINATES.sub(lambda found: _DECIMALS.sub(r"\1", found[0]), _INDENT.sub("\n", svg)))


def _failures(failed: Sequence[TrialResult]) -> list[Failure]:
    """Failed trials, those that failed alike together."""
    alike: dict[tuple[str, str, str], list[TrialResult]] = {}
    for trial in failed:
        alike.setdefault((trial.dataset, trial.label, trial.error), []).append(trial)
    return [
        Failure(*what, [f"{trial.held_out} (seed {trial.seed})" for trial in trials], trials[0].traceback)
        for what, trials in alike.items()
    ]


def _settings(card: ModelCard) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in card.changes.items())
