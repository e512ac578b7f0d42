"""The page of a study (a run is a study of one trial): which model is best, whether that is any good, and why."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from markupsafe import Markup

from multipert.benchmark import StudyResults
from multipert.benchmark.records import ModelCard, TrialResult
from multipert.evaluation import METRICS
from multipert.report.figures import FIGURES, Section
from multipert.report.frame import render
from multipert.report.numbers import ARROWS, BETTER, number
from multipert.report.published import BesidePublished, beside_published
from multipert.report.summary import DatasetSummary, summaries
from multipert.report.svg import to_svg
from multipert.report.tables import HeatMap, Leaderboard, heat_maps, leaderboards, leaderboards_by_kind
from multipert.report.verdict import Verdict, overall_tone, verdict


@dataclass(frozen=True)
class DatasetPart:
    """One data set on the page."""

    summary: DatasetSummary
    sentence: str
    verdict: Verdict
    caveats: Sequence[str]
    leaderboards: Sequence[Leaderboard]
    by_kind: Sequence[Leaderboard]
    published: BesidePublished | None
    heat_maps: Sequence[HeatMap]
    more_maps: Sequence[HeatMap]
    figures: Sequence[Section]


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
        A benchmark directory's, finished or not, or those of one run.

    Returns
    -------
    str
        HTML in one piece: it opens offline, on a phone and on paper.
    """
    of_datasets = summaries(results)
    verdicts = [verdict(summary) for summary in of_datasets]
    failed = [trial for trial in results.trials if trial.status == "failed"]
    return render(
        "page.html.j2",
        svg=_svg,
        study=results,
        verdicts=verdicts,
        tone=overall_tone(verdicts),
        parts=[_part(summary, said) for summary, said in zip(of_datasets, verdicts, strict=True)],
        n_done=len(results.trials) - len(failed),
        n_failed=len(failed),
        n_missing=results.planned - len(results.trials),
        failures=_failures(failed),
        models=[(card, _settings(card), _training(results, card.label)) for card in results.models],
        metrics=[
            (METRICS[name], ARROWS[METRICS[name].better], BETTER[METRICS[name].better]) for name in results.metrics
        ],
    )


def _svg(part: DatasetPart, section: Section, place: str) -> Markup:
    """Draw the panel at ``place`` (its group and its number there) of a figure."""
    group, number_ = map(int, place.split("-"))
    panel = section.groups[group].panels[number_]
    name = f"{part.summary.anchor}-{section.name}-{place}"
    return to_svg(panel.figure, name, title=panel.title, description=panel.description)


def _part(summary: DatasetSummary, said: Verdict) -> DatasetPart:
    scored = bool(summary.trials)
    maps, more_maps = heat_maps(summary) if scored else ([], [])
    return DatasetPart(
        summary=summary,
        sentence=_sentence(summary),
        verdict=said,
        caveats=_caveats(summary),
        leaderboards=leaderboards(summary) if scored else [],
        by_kind=leaderboards_by_kind(summary),
        published=beside_published(summary) if scored else None,
        heat_maps=maps,
        more_maps=more_maps,
        figures=[section for draw in FIGURES if (section := draw(summary)) is not None],
    )


def _sentence(summary: DatasetSummary) -> str:
    """Say what the data are and what is asked of them."""
    card, doses = summary.card, summary.doses
    n, held = len(card.perturbations), len(card.held_out)
    if doses and n > 1:
        what = f"{n} doses" if len(doses) == 1 else f"{n} doses of {len(doses)} perturbations"
    else:
        what = f"{n} perturbations" if n > 1 else card.perturbations[0] if n else "nothing"
    turn = f"{held} of them in turn" if held > 1 else card.held_out[0] if held else "none"
    in_turn = "each context in turn" if held == len(card.contexts) else turn
    if card.unseen:
        kinds = Counter(card.unseen.values())
        unseen = "; ".join(f"{kind} ({count} in turn)" for kind, count in kinds.items())
        contexts = held - sum(kinds.values())
        return (
            f"{card.source[:1].upper()}{card.source[1:]}: {card.n_cells:,} cells and {card.n_genes:,} genes of "
            f"{len(card.contexts)} contexts. Training never saw what is scored: {unseen}"
            + (f"; context ({contexts} in turn)" if contexts else "")
            + ". It is predicted from control cells."
        )
    return (
        f"{card.n_cells:,} cells and {card.n_genes:,} genes of {len(card.contexts)} contexts ({card.source}). The "
        f"response to {what} is held out in {in_turn}, and predicted from control cells."
    )


def _caveats(summary: DatasetSummary) -> list[str]:
    """What must be said beside the scores of metrics, each once: what differs in its first number alone is one."""
    noted: dict[tuple[str, ...], tuple[dict[str, None], set[int]]] = {}
    for trial in summary.trials:
        for metric, notes in trial.notes.items():
            for note in filter(None, notes.split("; ")):
                parts = re.split(r"(\d+)", note, maxsplit=1)  # before, number, after; or all of it
                metrics, numbers = noted.setdefault(tuple(parts[::2]), ({}, set()))
                metrics[metric] = None
                numbers.update(map(int, parts[1::2]))
    between = {said: " to ".join(map(str, sorted({*sorted(n)[:1], *sorted(n)[-1:]}))) for said, (_, n) in noted.items()}
    return [f"{', '.join(metrics)}: {between[said].join(said)}" for said, (metrics, _) in noted.items()]


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


def _training(results: StudyResults, label: str) -> str:
    """What one trial of a model took, the first that was done."""
    trial = next((one for one in results.trials if one.label == label and one.status == "done"), None)
    if trial is None or isnan(trial.seconds_fit):
        return ""
    took = f"{number(trial.seconds_fit)} s to fit"
    return f"{trial.n_parameters:,} parameters, {trial.steps:,} steps, {took}" if trial.n_parameters else took
