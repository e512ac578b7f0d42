"""The verdict: what the scores say in words, also when it is not what one hoped for."""

import numpy as np
import pytest

from multipert.report.run_page import mean_scores
from multipert.report.verdict import closed, duel, judge
from report.made_by_hand import losing, scores_of, winning


def test_a_model_that_beats_both_is_told_so() -> None:
    verdict = judge(winning(), "candidate")
    assert verdict.tone == "won"
    assert verdict.answer == "Yes."
    said = " ".join(verdict.evidence)
    assert "candidate 0.200, no change 0.800, the mean shift 0.400, ceiling 0.100" in said
    assert "closes 86% of the gap between no change and the ceiling" in said
    assert "the mean shift closes 57%" in said


def test_a_model_that_loses_is_told_so() -> None:
    verdict = judge(losing(), "candidate")
    assert verdict.tone == "lost"
    assert verdict.answer == "No."
    assert "nothing changes would have been nearer" in verdict.because
    assert any("leads away from the truth" in sentence for sentence in verdict.evidence)


def test_better_than_nothing_is_not_better_than_the_mean_shift() -> None:
    verdict = judge(scores_of(candidate=0.5, no_change=0.8, mean_shift=0.4, ceiling=0.1), "candidate")
    assert verdict.tone == "partly"
    assert "no nearer than the best simple baseline, the mean shift" in verdict.because


def test_a_tie_with_doing_nothing_is_no_win() -> None:
    verdict = judge(scores_of(candidate=0.8, no_change=0.8, mean_shift=0.9, ceiling=0.1), "candidate")
    assert verdict.tone == "lost"
    assert "as near" in verdict.because


def test_the_direction_of_each_metric_counts() -> None:
    assert (duel(winning(), "candidate", "mean-shift") == 1).all()
    assert (duel(losing(), "candidate", "mean-shift") == -1).all()


def test_an_infinite_ratio_is_no_win() -> None:
    scores = winning()
    scores.loc["no-change", "edistance"] = np.inf
    scores.loc["candidate", "mse"] = np.nan
    compared = duel(scores, "candidate", "no-change")
    assert "edistance" not in compared
    assert "mse" not in compared


def test_metrics_that_disagree_are_reported() -> None:
    scores = losing()
    scores["edist"] = winning()["edist"]
    verdict = judge(scores, "candidate")
    assert verdict.tone == "disputed"
    assert verdict.answer == "The metrics disagree."
    assert "Against no change and the mean shift, most metrics say the opposite." in verdict.because


def test_cells_that_are_all_alike_are_reported() -> None:
    scores = winning()
    scores.loc["candidate", "variance_ratio"] = 0.01
    assert "vary far less than true ones (variance_ratio 0.010)" in judge(scores, "candidate").evidence[-1]


def test_without_an_effect_no_share_is_closed() -> None:
    scores = scores_of(candidate=0.5, no_change=0.1, mean_shift=0.4, ceiling=0.1)
    assert np.isnan(closed(scores, "candidate"))
    assert any("cannot be said" in sentence for sentence in judge(scores, "candidate").evidence)


def test_reaching_the_ceiling() -> None:
    scores = scores_of(candidate=0.05, no_change=0.8, mean_shift=0.4, ceiling=0.1)
    assert any("reaches the ceiling" in sentence for sentence in judge(scores, "candidate").evidence)


def test_without_the_judging_score_there_is_no_verdict() -> None:
    scores = winning()
    scores.loc["no-change", "edist"] = np.nan
    assert judge(scores, "candidate").tone == "undecided"


@pytest.mark.parametrize(("model", "tone"), [("no-change", "lost"), ("mean-shift", "partly")])
def test_a_baseline_is_called_one(model: str, tone: str) -> None:
    verdict = judge(scores_of(no_change=0.8, mean_shift=0.4, ceiling=0.1), model)
    assert (verdict.tone, verdict.answer) == (tone, "A baseline.")


def test_means_compare_methods_over_the_same_perturbations() -> None:
    first, second = winning(), losing()
    second.loc["no-change", "mse"] = np.nan
    mean = mean_scores([first, second])
    assert mean.loc["candidate", "mse"] == pytest.approx(0.2)
    assert mean.loc["candidate", "edist"] == pytest.approx(0.55)
    assert mean.loc["ceiling", "mse"] == pytest.approx(0.1)
    first.loc["no-change", "edistance"] = np.inf
    assert np.isinf(np.asarray(mean_scores([first, second])["edistance"], dtype=float)[1])


def test_the_rival_is_the_best_of_the_simple_baselines() -> None:
    scores = scores_of(candidate=0.3, no_change=0.8, mean_shift=0.4, ceiling=0.1)
    scores.loc["resample"] = 0.2
    verdict = judge(scores, "candidate")
    assert verdict.tone == "partly"
    assert "no nearer than the best simple baseline, resampling" in verdict.because
