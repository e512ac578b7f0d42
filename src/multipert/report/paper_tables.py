"""The tables of a study for papers: Markdown, LaTeX and CSV."""

from collections.abc import Callable, Sequence

import pandas as pd

from multipert.benchmark import StudyResults
from multipert.errors import InputError
from multipert.evaluation import METRICS, STUDY
from multipert.report.numbers import ARROWS, DASH
from multipert.report.published import beside_runs
from multipert.report.summary import CEILING, FLOOR, DatasetSummary, summaries
from multipert.report.tables import Cell, Entry, leaderboard


def study_table(results: StudyResults, format: str) -> str:
    """Write the leaderboard of each data set for a paper; where it holds out several kinds, one of each kind.

    Parameters
    ----------
    results
        A benchmark directory's.
    format
        ``"md"`` (Markdown, a table for each data set), ``"latex"`` (booktabs; two tables for each data set, the study's
        nine metrics and the others), ``"csv"`` (tidy and unrounded: a row for each data set, kind, model and metric) or
        ``"runs"`` (tidy, too: each trial beside the published study's run of the same context, dose and seed).

    Raises
    ------
    InputError
        For any other format, and for ``"runs"`` where no data set has published runs.
    """
    writers: dict[str, Callable[[DatasetSummary], str]] = {"md": _markdown, "latex": _latex}
    if format == "csv":
        return _csv(results)
    if format == "runs":
        return _runs(results)
    if format not in writers:
        raise InputError(f"there is no table format {format!r}: choose from md, csv, latex, runs")
    return "\n".join(writers[format](summary) for summary in _alike(results))


def _alike(results: StudyResults) -> list[DatasetSummary]:
    """What has a mean that says something: each data set or, of several kinds that it holds out, each kind."""
    return [of for summary in summaries(results) for of in (summary.kinds.values() or [summary])]


def _kind(summary: DatasetSummary) -> str:
    """What is unseen about what is held out."""
    return next(iter(summary.card.unseen.values()), "context")


def _title(summary: DatasetSummary) -> str:
    return f"{summary.card.name}: {_kind(summary)}" if summary.card.unseen else summary.card.name


def _runs(results: StudyResults) -> str:
    parts = [
        beside_runs(summary).assign(dataset=summary.card.name, published=summary.card.published)
        for summary in summaries(results)
        if summary.card.published is not None
    ]
    table = pd.concat(parts) if parts else pd.DataFrame()
    if table.empty:
        raise InputError("no trial of this study has a published run of the same model, context, dose and seed")
    return table.to_csv(index=False)


def _csv(results: StudyResults) -> str:
    parts = []
    for summary in _alike(results):
        labels = list(summary.models)
        columns = summary.means.T
        normalised = pd.concat([summary.normalise(columns.loc[[metric]], metric) for metric in summary.metrics])
        for label in labels:
            card = summary.models[label]
            parts.append(
                pd.DataFrame(
                    {
                        "dataset": summary.card.name,
                        "unseen": _kind(summary),
                        "label": label,
                        "model": card.name,
                        "preset": card.preset,
                        "trials": len({(t.held_out, t.seed) for t in summary.trials if t.label == label}),
                        "lacking": summary.lacking.get(label, 0),
                        "metric": summary.metrics,
                        "mean": summary.means.loc[label].to_numpy(),
                        "sd": summary.spread.loc[label].to_numpy(),
                        "floor": summary.means.loc[FLOOR].to_numpy(),
                        "ceiling": summary.means.loc[CEILING].to_numpy(),
                        "normalised": normalised[label].to_numpy(),
                    }
                )
            )
    return pd.concat(parts).to_csv(index=False) if parts else ""


def _footnote(summary: DatasetSummary) -> str:
    """What a reader of the numbers must know."""
    held_out = len({trial.held_out for trial in summary.trials})
    seeds = len(summary.results.seeds)
    over = f"mean over {held_out} held-out " + ("case" if summary.card.unseen else "context") + "s" * (held_out != 1)
    over += f"; ± standard deviation over {seeds} seeds" if seeds > 1 else ""
    apart = "; * no score in some contexts, not compared" if summary.incomplete else ""
    return f"{over}; normalised: the way from floor to ceiling by {summary.metric}; best in bold{apart}"


def _markdown(summary: DatasetSummary) -> str:
    metrics = [summary.metric, *(name for name in summary.metrics if name != summary.metric)]
    table = leaderboard(summary, metrics, "", judged=True)
    heads = ["model", "normalised", *(f"{name} {ARROWS[METRICS[name].better]}" for name in metrics)]

    def score(cell: Cell) -> str:
        return " ".join(filter(None, [f"**{cell.text}**" if cell.best else cell.text, cell.spread]))

    def row(entry: Entry) -> str:
        name = _piped(entry.name + ("*" if entry.name in summary.incomplete else ""))
        return f"| {' | '.join([name, _normalised(entry), *map(score, entry.cells)])} |"

    return "\n".join(
        [
            f"### {_piped(_title(summary))}",
            "",
            f"| {' | '.join(heads)} |",
            f"|{'|'.join([':--', *['--:'] * (len(heads) - 1)])}|",
            *map(row, [*table.models, *table.bounds]),
            "",
            f"{_footnote(summary)[0].upper()}{_footnote(summary)[1:].replace('*', chr(92) + '*')}.",
            "",
        ]
    )


def _normalised(entry: Entry) -> str:
    return entry.normalised.text if entry.normalised is not None else ""


def _piped(text: str) -> str:
    """Keep a name from ending its cell, or from being read as markup."""
    for sign in "\\|*_`<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _latex(summary: DatasetSummary) -> str:
    parts = {
        "the nine metrics of the study": ("study", [name for name in summary.metrics if name in STUDY]),
        "metrics beyond the study": ("beyond", [name for name in summary.metrics if name not in STUDY]),
    }
    return "\n".join(
        _latex_table(summary, metrics, which, suffix) for which, (suffix, metrics) in parts.items() if metrics
    )


def _latex_table(summary: DatasetSummary, metrics: Sequence[str], which: str, suffix: str) -> str:
    table = leaderboard(summary, metrics, "", judged=True)
    arrows = {"high": r"$\uparrow$", "low": r"$\downarrow$", "one": r"$\to 1$"}
    heads = ["model", "normalised", *(f"{_tex(name)} {arrows[METRICS[name].better]}" for name in metrics)]

    def score(cell: Cell) -> str:
        text = rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text)
        return f"{text} {_tex(cell.spread)}".rstrip()

    def row(entry: Entry) -> str:
        name = _tex(entry.name + ("*" if entry.name in summary.incomplete else ""))
        return rf"{' & '.join([name, _tex(_normalised(entry)), *map(score, entry.cells)])} \\"

    label = "".join(sign if sign.isalnum() else "-" for sign in _title(summary).lower())
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(_title(summary))}: {which}; {_tex(_footnote(summary))}.}}",
            rf"\label{{tab:{label}-{suffix}}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(metrics) + 1)}}}",
            r"\toprule",
            rf"{' & '.join(heads)} \\",
            r"\midrule",
            *map(row, table.models),
            r"\midrule",
            *map(row, table.bounds),
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
