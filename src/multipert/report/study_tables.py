"""The tables of a study: on the page, and for papers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from multipert.benchmark import StudyResults
from multipert.errors import InputError
from multipert.evaluation import METRICS, STUDY
from multipert.report.published import Comparison, compare, published_table
from multipert.report.score_table import ARROWS, DASH, Cell, Column, number, score_tables, shared_decimals
from multipert.report.standing import FLOOR, ROUNDING, Standing, standings
from multipert.report.verdict import CEILING

BOUND_NOTES = {
    FLOOR: "no change: the control cells as they are",
    CEILING: "half the true cells for the other half",
}


@dataclass(frozen=True)
class Share:
    """A share of the way from floor to ceiling: as printed, as sorted, and the part of a bar it fills, 0 to 1."""

    text: str
    key: str
    filled: float
    lost: bool


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard: who, how far, and each score with its standard deviation over seeds."""

    name: str
    family: str
    note: str
    share: Share | None
    cells: Sequence[tuple[Cell, str]]


@dataclass(frozen=True)
class Leaderboard:
    """Models from the best to the worst, and the bounds."""

    caption: str
    columns: Sequence[Column]
    judged: int | None
    models: Sequence[Entry]
    bounds: Sequence[Entry]
    missing: Sequence[str]


@dataclass(frozen=True)
class HeatCell:
    """A score in a context: the share of the way it makes colours it."""

    text: str
    key: str
    share: float
    lost: bool
    best: bool


@dataclass(frozen=True)
class HeatMap:
    """One metric: a row for each model, a column for each context, the mean last; floor and ceiling below."""

    caption: str
    metric: str
    first: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[HeatCell]]]
    bounds: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class PublishedRow:
    """A model of ours beside the printed one: metric by metric, both as printed."""

    name: str
    note: str
    cells: Sequence[tuple[Comparison, str, str]]


def share_of(value: float) -> Share:
    """Make a share printable."""
    if not np.isfinite(value):
        return Share(DASH, "", 0.0, lost=False)
    text = number(100 * value, 0)
    return Share(f"{text}%", repr(float(value)), float(np.clip(value, 0, 1)), lost=value < 0 and text != "0")


def leaderboards(standing: Standing) -> list[Leaderboard]:
    """Make the table with the judging metric and the study's nine, and the one with all others."""
    judge = standing.metric
    main = [judge, *(name for name in standing.metrics if name in STUDY and name != judge)]
    others = [name for name in standing.metrics if name not in main]
    where = f"{standing.card.name}, mean over held-out contexts"
    tables = [_leaderboard(standing, main, f"Leaderboard of {where}", judged=True)]
    return tables + ([_leaderboard(standing, others, f"More metrics of {where}", judged=False)] if others else [])


def heat_map(standing: Standing, metric: str, level: str, columns: Sequence[str], caption: str) -> HeatMap:
    """Make the table of one metric by model and by some contexts (or perturbations), and the mean over all."""
    table = standing.by(level, metric).loc[list(columns)]
    table.loc["mean"] = standing.means[metric]
    table.loc["mean", list(standing.incomplete)] = np.nan
    shares = standing.shares(table, metric)
    decimals = shared_decimals(table.to_numpy().ravel())
    whole = [label for label in standing.models if label not in standing.incomplete]
    short = pd.DataFrame(METRICS[metric].shortfall(table[whole].to_numpy()), table.index, whole)
    best = short.min(axis=1).where(short.nunique(axis=1) > 1)
    return HeatMap(
        caption,
        metric,
        "descending" if METRICS[metric].better == "high" else "ascending",
        [str(name) for name in table.index],
        [
            (
                label,
                "not compared" if label in standing.incomplete else "",
                [
                    HeatCell(
                        number(value, decimals),
                        _key(metric, value),
                        0.0 if np.isnan(share) else float(np.clip(share, -1, 1)),
                        bool(share < -ROUNDING),
                        label in short and bool(short.at[row, label] == best[row]),
                    )
                    for row, value, share in zip(table.index, table[label], shares[label], strict=True)
                ],
            )
            for label in standing.ranking
        ],
        [(bound, [number(value, decimals) for value in table[bound]]) for bound in (FLOOR, CEILING)],
    )


def published_rows(standing: Standing, name: str) -> tuple[list[PublishedRow], list[str]]:
    """Set our means beside the published table.

    Returns
    -------
    tuple
        A row for each model that both have, and the printed names of those that this study has not.
    """
    table = published_table(name)
    rows = []
    for model, printed in table.iterrows():
        for label in (one for one, card in standing.models.items() if card.name == model):
            card = standing.models[label]
            cells = []
            for metric in STUDY:
                ours, spread = standing.mean(label, metric), standing.deviation(label, metric)
                beside = float(printed[metric])
                decimals = 1 if metric == "degs" else 3
                cells.append((compare(metric, ours, spread, beside), number(ours, decimals), number(beside, decimals)))
            rows.append(PublishedRow(label, f"{printed['printed']}; preset {card.preset}", cells))
    ours_have = {card.name for card in standing.models.values()}
    return rows, [str(printed["printed"]) for model, printed in table.iterrows() if model not in ours_have]


def study_table(results: StudyResults, format: str) -> str:
    """Write the leaderboard of each data set for a paper.

    Parameters
    ----------
    results
        A benchmark directory's.
    format
        ``"md"`` (Markdown, a table for each data set), ``"latex"`` (booktabs; two tables for each data set, the study's
        nine metrics and the others) or ``"csv"`` (tidy and unrounded: a row for each data set, model and metric).

    Raises
    ------
    InputError
        For any other format.
    """
    writers: dict[str, Callable[[Standing], str]] = {"md": _markdown, "latex": _latex}
    if format == "csv":
        return _csv(results)
    if format not in writers:
        raise InputError(f"there is no table format {format!r}: choose from md, csv, latex")
    return "\n".join(writers[format](standing) for standing in standings(results))


def _leaderboard(standing: Standing, metrics: Sequence[str], caption: str, *, judged: bool) -> Leaderboard:
    apart = [FLOOR, CEILING, *standing.incomplete]
    tables = score_tables(standing.means[list(metrics)], {}, apart, caption)
    cells: dict[str, dict[str, Cell]] = {}
    columns = {column.name: column for table in tables for column in table.columns}
    for table in tables:
        for row in (*table.methods, *table.bounds):
            cells.setdefault(row.name, {}).update(zip((one.name for one in table.columns), row.cells, strict=True))

    def entry(name: str, family: str, note: str, share: Share | None) -> Entry:
        scores = [(cells[name][metric], _spread(standing, name, metric)) for metric in metrics]
        return Entry(name, family, note, share, scores)

    return Leaderboard(
        caption,
        [columns[metric] for metric in metrics],
        0 if judged else None,
        [
            entry(
                label,
                standing.models[label].family,
                _note(standing, label),
                share_of(standing.closed[label]) if judged else None,
            )
            for label in standing.ranking
        ],
        [
            entry(bound, "", BOUND_NOTES[bound], share_of(share) if judged else None)
            for bound, share in ((FLOOR, 0.0), (CEILING, 1.0))
        ],
        list(dict.fromkeys(reason for table in tables for reason in table.missing)),
    )


def _note(standing: Standing, label: str) -> str:
    """The family, and what of a model is missing."""
    family = standing.models[label].family
    lacking = standing.lacking.get(label, 0)
    if not lacking:
        return family
    asked = len(standing.card.held_out) * len(standing.results.seeds)
    apart = ", not compared" if label in standing.incomplete else ""
    return f"{family}; {asked - lacking} of {asked} trials{apart}"


def _spread(standing: Standing, label: str, metric: str) -> str:
    """The standard deviation over seeds, to the decimals of its column."""
    value = standing.deviation(label, metric)
    return f"± {number(value, shared_decimals(standing.means[metric]))}" if np.isfinite(value) else ""


def _key(metric: str, value: float) -> str:
    """What a score is sorted by."""
    if not np.isfinite(value):
        return ""
    return repr(float(abs(value - 1) if METRICS[metric].better == "one" else value))


def _csv(results: StudyResults) -> str:
    parts = []
    for standing in standings(results):
        labels = list(standing.models)
        columns = standing.means.T
        shares = pd.concat([standing.shares(columns.loc[[metric]], metric) for metric in standing.metrics])
        for label in labels:
            card = standing.models[label]
            parts.append(
                pd.DataFrame(
                    {
                        "dataset": standing.card.name,
                        "label": label,
                        "model": card.name,
                        "preset": card.preset,
                        "trials": len({(t.held_out, t.seed) for t in standing.trials if t.label == label}),
                        "lacking": standing.lacking.get(label, 0),
                        "metric": standing.metrics,
                        "mean": standing.means.loc[label].to_numpy(),
                        "sd": standing.spread.loc[label].to_numpy(),
                        "floor": standing.means.loc[FLOOR].to_numpy(),
                        "ceiling": standing.means.loc[CEILING].to_numpy(),
                        "closed": shares[label].to_numpy(),
                    }
                )
            )
    return pd.concat(parts).to_csv(index=False) if parts else ""


@dataclass(frozen=True)
class _Line:
    """A row for a paper: its name, the share it closes, and each score as printed, with its spread and whether best."""

    name: str
    share: str
    scores: Sequence[tuple[str, str, bool]]


def _lines(standing: Standing, metrics: Sequence[str], *, judged: bool) -> tuple[list[_Line], list[_Line]]:
    """Models from the best to the worst, then floor and ceiling."""
    table = _leaderboard(standing, metrics, "", judged=judged)

    def line(entry: Entry) -> _Line:
        share = entry.share.text if entry.share is not None else ""
        apart = "*" if entry.name in standing.incomplete else ""
        return _Line(entry.name + apart, share, [(cell.text, spread, cell.best) for cell, spread in entry.cells])

    return [line(entry) for entry in table.models], [line(entry) for entry in table.bounds]


def _footnote(standing: Standing) -> str:
    """What a reader of the numbers must know."""
    contexts = len({trial.held_out for trial in standing.trials})
    seeds = len(standing.results.seeds)
    over = f"mean over {contexts} held-out context{'s' if contexts != 1 else ''}"
    over += f"; ± standard deviation over {seeds} seeds" if seeds > 1 else ""
    apart = "; * no score in some contexts, not compared" if standing.incomplete else ""
    return f"{over}; closed: share of the way from floor to ceiling by {standing.metric}; best in bold{apart}"


def _markdown(standing: Standing) -> str:
    metrics = [standing.metric, *(name for name in standing.metrics if name != standing.metric)]
    models, bounds = _lines(standing, metrics, judged=True)
    heads = ["model", "closed", *(f"{name} {ARROWS[METRICS[name].better]}" for name in metrics)]

    def row(line: _Line) -> str:
        scores = [
            " ".join(filter(None, [f"**{text}**" if best else text, spread])) for text, spread, best in line.scores
        ]
        return f"| {' | '.join([_piped(line.name), line.share, *scores])} |"

    return "\n".join(
        [
            f"### {_piped(standing.card.name)}",
            "",
            f"| {' | '.join(heads)} |",
            f"|{'|'.join([':--', *['--:'] * (len(heads) - 1)])}|",
            *map(row, [*models, *bounds]),
            "",
            f"{_footnote(standing)[0].upper()}{_footnote(standing)[1:].replace('*', chr(92) + '*')}.",
            "",
        ]
    )


def _piped(text: str) -> str:
    """Keep a name from ending its cell, or from being read as markup."""
    for sign in "\\|*_`<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _latex(standing: Standing) -> str:
    parts = {
        "the nine metrics of the study": ("study", [name for name in standing.metrics if name in STUDY]),
        "metrics beyond the study": ("beyond", [name for name in standing.metrics if name not in STUDY]),
    }
    return "\n".join(
        _latex_table(standing, metrics, which, suffix) for which, (suffix, metrics) in parts.items() if metrics
    )


def _latex_table(standing: Standing, metrics: Sequence[str], which: str, suffix: str) -> str:
    models, bounds = _lines(standing, metrics, judged=True)
    arrows = {"high": r"$\uparrow$", "low": r"$\downarrow$", "one": r"$\to 1$"}
    heads = ["model", "closed", *(f"{_tex(name)} {arrows[METRICS[name].better]}" for name in metrics)]

    def row(line: _Line) -> str:
        scores = [
            (rf"\textbf{{{_tex(text)}}}" if best else _tex(text)) + (f" {_tex(spread)}" if spread else "")
            for text, spread, best in line.scores
        ]
        return rf"{' & '.join([_tex(line.name), _tex(line.share), *scores])} \\"

    label = "".join(sign if sign.isalnum() else "-" for sign in standing.card.name.lower())
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(standing.card.name)}: {which}; {_tex(_footnote(standing))}.}}",
            rf"\label{{tab:{label}-{suffix}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(metrics) + 1)}}}",
            r"\toprule",
            rf"{' & '.join(heads)} \\",
            r"\midrule",
            *map(row, models),
            r"\midrule",
            *map(row, bounds),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    DASH: "--",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def _tex(text: str) -> str:
    """Escape what LaTeX would take for a command."""
    return "".join(_TEX.get(sign, sign) for sign in text)
