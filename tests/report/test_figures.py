"""Figures that are drawn where records have what they show."""

from dataclasses import replace
from typing import Any

from multipert.report.figures.doses import half_effective_doses
from multipert.report.figures.film import film_map
from multipert.report.summary import summaries
from report.study_by_hand import eight_doses, one_perturbation, several_perturbations, study

ONE: dict[str, Any] = {"metrics": ("edist",), "seeds": (1,), "noise": 0.0}


def test_the_dose_of_half_the_effect_is_drawn_and_told() -> None:
    (summary,) = summaries(study(eight_doses(), **ONE))
    section = half_effective_doses(summary)
    assert section is not None
    (group,) = section.groups
    assert [panel.caption for panel in group.panels] == list(eight_doses().held_out)
    gene = group.panels[0].description.partition(";")[0]
    assert 1 < float(gene.partition("true ")[2].partition(",")[0]) < 30  # a response that rises with log1p of dose
    assert half_effective_doses(summaries(study(one_perturbation(("B", "NK")), **ONE))[0]) is None


def test_perturbations_are_mapped_where_a_model_has_film() -> None:
    results = study(several_perturbations(), **ONE)
    assert film_map(summaries(results)[0]) is None
    places = {"NTC": [0.0, 0.0], "CDK4": [3.0, 4.0], "EGFR": [0.0, 1.0], "PDGFRA": [1.0, 1.0]}
    told = [replace(one, film=places) if one.label == "mtae" else one for one in results.trials]
    section = film_map(summaries(replace(results, trials=told))[0])
    assert section is not None
    first = section.groups[0].panels[0]
    assert first.title == "Map of 3 perturbations in FiLM space, A172 held out"
    assert first.description.startswith("Distance from control: CDK4 5.00, PDGFRA 1.41")
