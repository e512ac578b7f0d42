"""The verdict on a study: the best model, what it must beat, and where even it is worse than nothing."""

from typing import Any

from multipert.report.standing import standings
from multipert.report.study_verdict import DatasetVerdict, overall_tone, study_verdict
from report.study_by_hand import one_perturbation, several_perturbations, study

BASELINES = {"no-change": 0.0, "mean-shift": 0.5}


def verdict(**changes: Any) -> DatasetVerdict:
    data = changes.pop("data", one_perturbation(("B", "NK")))
    (standing,) = standings(study(data, **{"seeds": (1,), "noise": 0.0, **changes}))
    return study_verdict(standing)


def said(found: DatasetVerdict) -> str:
    return " ".join([found.answer, found.because, *found.evidence, *found.details])


def test_it_names_the_best_model_its_lead_and_where_it_fails() -> None:
    quality = {"mtae": 0.6, "scgen": 0.3, "scvidr": -0.1, **BASELINES}
    text = said(verdict(data=one_perturbation(), quality=quality, exceptions={("mtae", "NK"): -0.2}))
    # In six of seven contexts 0.6 of the way from 5.5 to -0.04, in one -0.2 of it: on average 0.486.
    assert text.startswith("Only in part. The best of 3 models by edist is mtae.")
    assert "No model beats the mean shift: mtae is behind it by 0.08." in text
    assert "mtae closes 49% of the gap between no change and the ceiling, the mean shift 50%." in text
    assert "Even mtae is worse than doing nothing in 1 of 7 held-out contexts: NK." in text
    assert "On average, scvidr is worse than doing nothing." in text


def test_a_winner_is_told_with_its_numbers() -> None:
    found = verdict(quality={"mtae": 0.8, **BASELINES})
    assert found.tone == "won"
    assert said(found).startswith("Yes. The only model to compare is mtae.")
    assert "mtae is ahead of the mean shift by 1.66." in said(found)
    numbers = "mtae 1.07; the mean shift, the best simple baseline, 2.73; no change 5.50; the ceiling \u22120.04."
    assert numbers in said(found)
    assert "mtae is nowhere worse than doing nothing (2 held-out contexts)." in said(found)


def test_when_all_are_worse_than_nothing_it_says_no() -> None:
    found = verdict(quality={"mtae": -0.4, "scgen": -0.2, "mean-shift": -0.1})
    assert (found.tone, found.answer) == ("lost", "No.")
    assert "The best of 2 models by edist is scgen. Predicting that nothing changes" in found.because
    assert "closes" not in said(found)


def test_a_lead_within_the_spread_over_seeds_is_called_so() -> None:
    quality = {"mtae": 0.52, **BASELINES}
    assert "no more than seeds alone make of it" in said(verdict(quality=quality, seeds=(1, 2, 3), noise=0.1))
    assert "no more than seeds alone make of it" not in said(verdict(quality=quality))


def test_baselines_alone_still_get_an_answer() -> None:
    assert "Only baselines were tried; the best by edist is mean-shift." in said(verdict(quality=BASELINES))


def test_a_model_without_all_contexts_is_not_compared() -> None:
    quality = {"mtae-adv": 0.9, "mtae": 0.7, "scgen": 0.2, **BASELINES}
    found = verdict(quality=quality, failed=[("kang_subset", "mtae-adv", "NK", 1)])
    assert "by edist is mtae." in found.because
    assert "Not compared: mtae-adv, which has no score in some held-out contexts." in said(found)


def test_models_that_are_not_done_yet_get_no_verdict() -> None:
    found = verdict(quality={"mtae": 0.7, **BASELINES}, missing=[("kang_subset", "mtae", "NK", 1)])
    assert (found.tone, found.answer) == ("undecided", "No verdict.")
    assert "No model has a score in every held-out context" in found.because
    assert "Not compared: mtae" in said(found)


def test_what_equals_no_change_but_for_rounding_is_not_worse() -> None:
    text = said(verdict(quality={"mtae": -1e-9, **BASELINES}))
    assert "mtae is nowhere worse than doing nothing" in text


def test_several_perturbations_fail_in_pairs() -> None:
    found = verdict(
        data=several_perturbations(), quality={"mtae": 0.3, **BASELINES}, exceptions={("mtae", "T98G"): -0.5}
    )
    assert "in 3 of 9 pairs of a perturbation and a context: CDK4 in T98G, EGFR in T98G and PDGFRA in T98G." in said(
        found
    )


def test_tones_that_differ_are_no_win() -> None:
    won, lost = verdict(quality={"mtae": 0.8, **BASELINES}), verdict(quality={"mtae": -0.8, **BASELINES})
    assert overall_tone([won, won]) == "won"
    assert overall_tone([won, lost]) == "partly"
