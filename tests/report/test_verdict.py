"""The verdict: what the scores say in words, also when it is not what one hoped for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from multipert.benchmark import StudyResults
from multipert.report.summary import summaries
from multipert.report.verdict import Verdict, overall_tone, verdict
from report.study_by_hand import one_perturbation, several_perturbations, study

BASELINES = {"no-change": 0.0, "mean-shift": 0.5}


def found(**changes: Any) -> Verdict:
    data = changes.pop("data", one_perturbation(("B", "NK")))
    return judged(study(data, **{"seeds": (1,), "noise": 0.0, **changes}))


def judged(results: StudyResults) -> Verdict:
    (summary,) = summaries(results)
    return verdict(summary)


def said(one: Verdict) -> str:
    aspects = [f"{aspect.name}: {aspect.text}" for aspect in one.aspects]
    return " ".join([one.answer, one.because, *aspects, *one.evidence, *one.details])


def test_it_names_the_best_model_its_lead_and_where_it_fails() -> None:
    quality = {"mtae": 0.6, "scgen": 0.3, "scvidr": -0.1, **BASELINES}
    text = said(found(data=one_perturbation(), quality=quality, exceptions={("mtae", "NK"): -0.2}))
    # In six of seven contexts 0.6 of the way from 5.5 to -0.04, in one -0.2 of it: on average 0.486.
    assert text.startswith("Only in part. mtae is nearer to the truth than doing nothing, but its direction is only")
    assert "The best of 3 models by edist is mtae." in text
    assert "The best simple baseline is the mean shift: mtae is behind it by 0.079 (95% interval" in text
    assert "49% of the way from doing nothing (5.50) to a replicate (\u22120.040)" in text
    assert "Even mtae is worse than doing nothing in 1 of 7 held-out contexts: NK." in text
    assert "On average, scvidr is worse than doing nothing." in text


def test_a_winner_is_told_with_its_numbers() -> None:
    one = found(quality={"mtae": 0.8, **BASELINES})
    assert one.tone == "won"
    assert said(one).startswith("Yes. mtae is nearer to the truth than doing nothing, and right in direction, size and")
    assert "mtae is ahead of it by 1.66 (95% interval 1.66 to 1.66; ahead in 2 of 2 contexts)." in said(one)
    numbers = "mtae 1.07; the mean shift, the best simple baseline, 2.73; no change 5.50; the ceiling \u22120.04."
    assert numbers in said(one)
    assert "mtae is nowhere worse than doing nothing (2 held-out contexts)." in said(one)


def test_when_all_are_worse_than_nothing_it_says_no() -> None:
    one = found(quality={"mtae": -0.4, "scgen": -0.2, "mean-shift": -0.1})
    assert (one.tone, one.answer) == ("lost", "No.")
    assert one.because.startswith("Predicting that nothing changes would have been nearer to the truth")
    assert "The best of 2 models by edist is scgen." in said(one)
    assert "none of the way" in said(one)


def test_a_lead_is_paired_over_contexts() -> None:
    """2.06 against 2.01 on five contexts and one seed is no difference; the same lead everywhere is one."""
    five = one_perturbation(("B", "CD4T", "CD8T", "Dendritic", "NK"))
    uneven = {("mtae", context): 0.51 + 0.1 * (-1) ** place for place, context in enumerate(five.held_out)}
    quality = {"mtae": 0.51, **BASELINES}
    by_chance = said(found(data=five, quality=quality, exceptions=uneven))
    assert "mtae is ahead of it by 0.17 (95% interval \u22120.59 to 0.92; ahead in 3 of 5" in by_chance
    assert "no more than chance" in by_chance
    assert "no more than chance" not in said(found(data=five, quality=quality))


def test_what_may_be_chance_is_no_yes() -> None:
    spread = {("mtae", "B"): 1.0, ("mtae", "NK"): 0.5}
    one = found(quality={"mtae": 0.75, **BASELINES}, exceptions=spread)
    assert (one.tone, one.answer) == ("partly", "Perhaps.")
    assert "over 2 contexts its lead on doing nothing may be chance" in one.because


def test_one_trial_cannot_tell_how_it_is_elsewhere() -> None:
    one = found(data=one_perturbation(("NK",)), quality={"mtae": 0.9, **BASELINES})
    assert one.answer == "Here, yes."
    assert "One held-out context cannot tell whether it would be elsewhere." in one.because


def test_of_a_run_its_own_model_is_judged() -> None:
    results = study(one_perturbation(("NK",)), quality={"mean-shift": 0.3, "linear": 0.9, "mtae": 0.8}, seeds=(1,))
    assert judged(replace(results, study_file="")).because.startswith("mean-shift is nearer")
    assert judged(results).because.startswith("mtae is nearer")


def test_genes_that_can_be_relied_on_are_named() -> None:
    text = said(found(quality={"mtae": 0.8, **BASELINES}))
    assert (
        "Genes: of 6 that respond, 6 go the right way wherever they respond, 6 of them within a factor of 2: " in text
    )
    assert "Not to be relied on" in said(found(quality={"mtae": 0.1, "mean-shift": 0.0}))


def test_baselines_alone_still_get_an_answer() -> None:
    assert "Only baselines were tried; the best by edist is mean-shift." in said(found(quality=BASELINES))


def test_a_model_without_all_contexts_is_not_compared() -> None:
    quality = {"mtae-adv": 0.9, "mtae": 0.7, "scgen": 0.2, **BASELINES}
    one = found(quality=quality, failed=[("kang_subset", "mtae-adv", "NK", 1)])
    assert "by edist is mtae." in said(one)
    assert "Not compared: mtae-adv, which has no score in some held-out contexts." in said(one)


def test_models_that_are_not_done_yet_get_no_verdict() -> None:
    one = found(quality={"mtae": 0.7, **BASELINES}, missing=[("kang_subset", "mtae", "NK", 1)])
    assert (one.tone, one.answer) == ("undecided", "No verdict.")
    assert "No model has a score in every held-out context" in one.because
    assert "Not compared: mtae" in said(one)


def test_what_equals_no_change_but_for_rounding_is_not_worse() -> None:
    text = said(found(quality={"mtae": -1e-9, **BASELINES}))
    assert "mtae is nowhere worse than doing nothing" in text
    assert "would have been as near to the truth" in text


def test_several_perturbations_fail_in_pairs() -> None:
    one = found(data=several_perturbations(), quality={"mtae": 0.3, **BASELINES}, exceptions={("mtae", "T98G"): -0.5})
    assert "in 3 of 9 pairs of a perturbation and a context: CDK4 in T98G, EGFR in T98G and PDGFRA in T98G." in said(
        one
    )


def test_tones_that_differ_are_no_win() -> None:
    won, lost = found(quality={"mtae": 0.8, **BASELINES}), found(quality={"mtae": -0.8, **BASELINES})
    assert overall_tone([won, won]) == "won"
    assert overall_tone([won, lost]) == "partly"


def spoilt(results: StudyResults, label: str, **scores: float) -> StudyResults:
    """Results in which a model has other scores everywhere."""
    trials = [
        replace(trial, scores={name: {**old, **scores} for name, old in trial.scores.items()})
        if trial.label == label
        else trial
        for trial in results.trials
    ]
    return replace(results, trials=trials)


def small(*, metrics: Sequence[str] | None = None, **quality: float) -> StudyResults:
    quality = {**quality, **BASELINES}
    return study(one_perturbation(("B", "NK")), quality=quality, seeds=(1,), noise=0.0, metrics=metrics)


def test_a_tie_with_doing_nothing_is_no_win() -> None:
    one = judged(study(one_perturbation(("B", "NK")), quality={"mtae": 0.0, "mean-shift": -0.2}, seeds=(1,)))
    assert one.tone == "lost"
    assert "as near" in one.because


def test_an_infinite_ratio_is_no_win() -> None:
    found = said(judged(small(mtae=0.8, metrics=["edist", "degs", "mse", "edistance", "mmd"])))
    assert "it beats no change on 3 of 3 and the mean shift on 4 of 4." in found


def test_cells_that_are_all_alike_are_reported() -> None:
    one = judged(spoilt(small(mtae=0.8), "mtae", variance_ratio=0.01))
    assert one.answer == "As a mean response only."
    assert "its cells are all alike" in one.because


def test_genes_that_no_longer_hang_together_are_reported() -> None:
    one = judged(spoilt(small(mtae=0.8), "mtae", covariance_distance=1.01))
    assert one.answer == "As a mean response only."
    assert "the genes of a cell do not belong together" in one.because


def test_the_response_to_another_perturbation_is_reported() -> None:
    results = study(several_perturbations(), quality={"mtae": 0.8, **BASELINES}, seeds=(1,), noise=0.0)
    one = judged(spoilt(results, "mtae", perturbed_pearson=0.1))
    assert (one.tone, one.answer) == ("lost", "No.")
    assert "it is the response to any perturbation rather than to this one" in one.because


def test_a_response_that_is_too_weak_is_reported() -> None:
    one = judged(spoilt(small(mtae=0.8), "mtae", amplitude=0.4))
    assert one.answer == "Only in part."
    assert "its response is too weak (0.40 times the true one)" in one.because


def test_without_an_effect_there_is_no_way_to_go() -> None:
    results = small(mtae=0.8)
    flat = {
        place: replace(one, bounds={**one.bounds, "ceiling": one.bounds["floor"]})
        for place, one in results.references.items()
    }
    assert "edist has no value, or a replicate is no better than doing nothing" in said(
        judged(replace(results, references=flat))
    )


def test_without_the_judging_score_there_is_no_verdict() -> None:
    assert judged(spoilt(small(mtae=0.8), "mtae", edist=np.nan)).tone == "undecided"


def with_references(results: StudyResults, **changes: object) -> StudyResults:
    return replace(results, references={k: replace(v, **changes) for k, v in results.references.items()})  # type: ignore[arg-type]


def test_the_better_floor_is_where_the_way_begins() -> None:
    results = small(mtae=0.8)
    bounds = next(iter(results.references.values())).bounds
    half_way = {name: {**scores, "edist": 2.73} for name, scores in bounds["floor"].items()}
    text = said(judged(with_references(results, bounds={**bounds, "mean_response": half_way})))
    # From 2.73, half of the way from 5.5 to -0.04, a model at 0.8 of that way has done 0.6 of what was left.
    assert "60% of the way from the mean response (2.73) to a replicate" in text
    assert "no change 5.50; the mean response 2.73" in text


def test_a_metric_that_cannot_tell_gives_no_verdict_and_has_no_part_in_counts() -> None:
    results = small(mtae=0.8, metrics=["edist", "degs", "mse"])
    dull = {"drf": {"stimulated": {"mse": 0.05, "edist": 0.9}}, "wins": {"stimulated": {"mse": 1.0, "edist": 1.0}}}
    assert "it beats no change on 2 of 2 and the mean shift on 2 of 2." in said(
        judged(with_references(results, calibration=dull))
    )
    dull["wins"]["stimulated"]["edist"] = 0.0
    one = judged(with_references(results, calibration=dull))
    assert one.tone == "undecided"
    assert "nothing supports the prediction" in one.because
    assert "by edist, a replicate is no better than a guess" in said(one)
