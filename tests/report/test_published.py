"""The study's runs and printed tables beside ours."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from multipert.benchmark import StudyResults
from multipert.errors import InputError
from multipert.evaluation import STUDY
from multipert.models import MODELS
from multipert.report import study_page, study_table
from multipert.report.published import (
    NOTES,
    PRINTED,
    STUDY_SEEDS,
    TRANSPORT,
    beside_published,
    beside_runs,
    context_key,
    limits,
    published_runs,
    published_table,
    spread_over_seeds,
    verdict_of,
)
from multipert.report.summary import DatasetSummary, summaries
from report.study_by_hand import DOSES, card, eight_doses, one_perturbation, study

KANG = ("B", "NK")


def their_scores(name: str) -> pd.DataFrame:
    runs = published_runs(name)
    assert runs is not None
    return runs


def as_theirs(results: StudyResults, **changes: float) -> StudyResults:
    """The same trials, with the scores of the study's own runs, some of them changed."""
    runs = their_scores(str(results.datasets[0].published)).set_index(["model", "held_out", "dose", "seed"])[
        list(STUDY)
    ]
    doses = results.datasets[0].doses
    trials = []
    for trial in results.trials:
        scores: dict[str, dict[str, float]] = {}
        for name, old in trial.scores.items():
            run = runs.loc[(trial.model, context_key(trial.held_out), f"{doses[name]:g}" if doses else "", trial.seed)]
            scores[name] = {**old, **{metric: float(run[metric]) for metric in STUDY}, **changes}
        trials.append(replace(trial, scores=scores))
    return replace(results, trials=trials)


def summary_of(results: StudyResults) -> DatasetSummary:
    (summary,) = summaries(results)
    return summary


@pytest.fixture
def kang() -> StudyResults:
    return as_theirs(
        study(one_perturbation(KANG), models=[card("mtae", preset="study")], quality={"mtae": 0.5}, seeds=(1, 2, 19193))
    )


def test_printed_tables_are_read_under_the_names_of_the_registry() -> None:
    printed = published_table("kang")
    assert printed.loc["mtae", "degs"] == 75.714
    assert printed.loc["scvidr", "mmd"] == 0.182
    assert printed.loc["scvidr", "printed"] == "vidrSingle"
    assert published_table("nault").loc["scvidr-dose", "edistance"] == 9.295
    assert published_table("hagai").loc["scgen", "wasserstein"] == 1.576
    for name in ("kang", "nault", "hagai"):
        table = published_table(name)
        assert list(table.columns) == ["printed", *STUDY]
        # With the columns under their right names, the E-distance is the squared distance of the means; rounding and
        # the mean over contexts leave a little.
        assert np.allclose(table["edistance"], table["mmd"])
    assert set(PRINTED.values()) <= set(MODELS)


@pytest.mark.parametrize("name", ["kang", "nault"])
def test_the_runs_give_the_printed_means_but_where_a_note_says_why_not(name: str) -> None:
    runs = their_scores(name)
    assert (runs.groupby(["model", "held_out", "dose"]).size() == STUDY_SEEDS).all()
    means, printed = runs.groupby("model")[list(STUDY)].mean(), published_table(name)[list(STUDY)]
    assert set(means.index) == set(printed.index)
    far = ((means - printed.loc[means.index]).abs() > 0.0011).any(axis=1)
    assert {model for model, is_far in far.items() if is_far} == {model for table, model in NOTES if table == name}


def test_the_row_of_debug_runs_reads_otherwise_at_the_three_seeds() -> None:
    means = their_scores("kang").groupby("model")[list(STUDY)].mean().loc["scbutterfly"]
    expected = {"degs": 66.7, "r2_hvg": 0.948, "r2_deg20": 0.973, "r2_deg100": 0.944, "edistance": 0.203}
    expected |= {"wasserstein": 0.555, "euclidean": 0.418, "mean_pairwise": 0.755}
    for metric, value in expected.items():
        assert means[metric] == pytest.approx(value, abs=0.06 if metric == "degs" else 0.0006)


def test_spellings_of_a_context_are_one() -> None:
    assert context_key("B Cells") == context_key("B_cells")
    assert context_key("CD14+Mono") != context_key("CD14Mono")


def test_the_spread_is_that_of_seeds_within_a_context() -> None:
    rows = [("m", context, "", seed) for context in "AB" for seed in (1, 2)]
    runs = pd.DataFrame(rows, columns=["model", "held_out", "dose", "seed"])
    for metric in STUDY:
        runs[metric] = [1.0, 3.0, 101.0, 105.0]
    # Variances 2 and 8 within the contexts; what lies between them does not count.
    assert spread_over_seeds(runs).loc["m", "mmd"] == pytest.approx(5**0.5)


def test_a_limit_is_twice_what_seeds_alone_give_a_difference() -> None:
    theirs, spread = pd.DataFrame({"degs": [50.0], "mmd": [0.2]}), pd.DataFrame({"degs": [4.0], "mmd": [0.01]})
    one = limits(theirs, spread, 1, 1).iloc[0]
    assert one["degs"] == pytest.approx(2 * 4 * 2**0.5)
    assert limits(theirs, spread, 3, 3).iloc[0]["mmd"] == pytest.approx(2 * 0.01 * (2 / 3) ** 0.5)
    tiny = limits(theirs, 0 * spread, 1, 1).iloc[0]
    assert tiny["degs"] == pytest.approx(2 * 1 * 2**0.5)
    assert tiny["mmd"] == pytest.approx(2 * 0.002 * 2**0.5)


@pytest.mark.parametrize(
    ("metric", "ours", "limit", "verdict"),
    [
        ("degs", 70.0, 6.0, "agrees"),
        ("degs", 60.0, 6.0, "worse"),
        ("mmd", 90.0, 6.0, "worse"),
        ("mmd", 60.0, 6.0, "better"),
        ("mmd", np.inf, 6.0, "unknown"),
        ("mmd", 60.0, np.nan, "unknown"),
    ],
)
def test_what_differs_is_better_or_worse_by_the_metrics_direction(
    metric: str, ours: float, limit: float, verdict: str
) -> None:
    assert verdict_of(metric, ours, 75.0, limit) == verdict


def test_each_trial_stands_beside_the_run_of_its_context_and_seed(kang: StudyResults) -> None:
    pairs = beside_runs(summary_of(kang))
    assert len(pairs) == 2 * 3 * len(STUDY)
    assert (pairs["ours"] == pairs["study"]).all()
    assert (pairs["verdict"] == "agrees").all()
    worse = beside_runs(summary_of(as_theirs(kang, edistance=9.0))).set_index("metric")["verdict"]
    assert (worse["edistance"] == "worse").all()
    assert (worse["mmd"] == "agrees").all()


def test_a_seed_that_the_study_has_not_has_no_run_beside_it() -> None:
    results = study(one_perturbation(KANG), models=[card("mtae")], quality={"mtae": 0.5}, seeds=(5,))
    assert beside_runs(summary_of(results)).empty
    beside = beside_published(summary_of(results))
    assert beside is not None
    assert beside.trials == []
    assert len(beside.rows) == 1
    with pytest.raises(InputError, match="no trial of this study has a published run"):
        study_table(results, "runs")


def test_doses_stand_apart_in_the_table_and_as_means_on_the_page() -> None:
    data = replace(eight_doses(), published="nault", contexts=("B_Cells", "T Cells"), held_out=("B_Cells", "T Cells"))
    results = as_theirs(study(data, models=[card("mtae")], quality={"mtae": 0.5}, seeds=(1,)))
    table = pd.read_csv(io.StringIO(study_table(results, "runs")))
    assert len(table) == 2 * len(DOSES) * len(STUDY)
    assert sorted(table["dose"].unique()) == list(DOSES)
    beside = beside_published(summary_of(results))
    assert beside is not None
    assert [(row.name, *row.notes) for row in beside.trials] == [
        ("mtae", "B_Cells, seed 1"),
        ("mtae", "T Cells, seed 1"),
    ]
    assert beside.trial_counts == {"agrees": 2 * len(STUDY)}


def test_a_mean_stands_beside_the_studys_over_the_same_contexts_and_the_printed_one(kang: StudyResults) -> None:
    beside = beside_published(summary_of(kang))
    assert beside is not None
    (row,) = beside.rows
    runs = their_scores("kang")
    mine = runs[(runs["model"] == "mtae") & runs["held_out"].isin(["b", "nk"])]
    assert row.cells[0].ours == row.cells[0].study == f"{mine['degs'].mean():.1f}"
    assert row.cells[0].printed == "75.7"
    # Seeds of the two contexts are independent, so that the noise of their mean is smaller.
    spread = (mine.groupby("held_out")["degs"].var().mean() / 2) ** 0.5
    assert row.cells[0].spread == f"± {spread:.1f}"
    assert beside.counts == {"agrees": len(STUDY)}


def test_without_runs_of_the_study_our_own_spread_decides() -> None:
    data = replace(one_perturbation(KANG), published="hagai")
    several, one = (
        beside_published(summary_of(study(data, models=[card("mtae")], quality={"mtae": 0.5}, seeds=seeds)))
        for seeds in ((1, 2), (1,))
    )
    assert several is not None
    assert one is not None
    assert several.trials == one.trials == []
    assert several.counts["unknown"] == 0
    assert one.counts == {"unknown": len(STUDY)}  # a single run has no spread
    assert all(cell.study == "" for cell in one.rows[0].cells)


def test_rows_that_are_wrong_in_print_say_so() -> None:
    models = [card(name) for name in ("mtae", "mtae-ot", "scgen", "scbutterfly")]
    quality = {model.label: 0.5 for model in models}
    beside = beside_published(summary_of(study(one_perturbation(KANG), models=models, quality=quality, seeds=(1,))))
    assert beside is not None
    remarks = {row.name: row.remark for row in beside.rows}
    assert "wrong partners" in remarks["mtae-ot"]
    assert "four runs" in remarks["scgen"]
    assert "three of them nearly untrained debug runs" in remarks["scbutterfly"]
    assert remarks["mtae"] == ""


def test_a_row_says_what_was_changed_of_its_preset() -> None:
    models = [card("mtae", preset="study", changes={"epochs": 4})]
    beside = beside_published(
        summary_of(study(one_perturbation(KANG), models=models, quality={"mtae": 0.5}, seeds=(1,)))
    )
    assert beside is not None
    assert beside.rows[0].notes == ["MTAe; preset study, epochs = 4"]


def test_a_remark_on_several_rows_stands_on_the_page_once() -> None:
    models = [card(name) for name in ("mtae", "mtae-ot", "mtvae-ot", "scgen")]
    page = study_page(
        study(one_perturbation(KANG), models=models, quality={model.label: 0.5 for model in models}, seeds=(1,))
    )
    assert page.count("trained it on wrong partners") == 1
    assert [page.count(f"flagged: note {number}") for number in (1, 2, 3)] == [2, 1, 0]
    assert set(TRANSPORT) <= set(MODELS)
