"""Whether a prediction can be trusted: worthless ones are exposed, a replicate gets its yes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from benchmarks import flattered

from multipert import PerturbationData, scorecard, simulate
from multipert.evaluation.trust import Trust, lead, trust

ONE = (
    "edist", "pearson_delta", "sign_deg100", "amplitude", "de_recall", "variance_ratio", "covariance_distance"
)  # fmt: skip
SEVERAL = (*ONE, "perturbed_pearson")
"""The metrics that have a say."""


def judged(case: dict[str, Any]) -> Trust:
    return trust(scorecard(**case, metrics=SEVERAL if isinstance(case["truth"], dict) else ONE))


def states(found: Trust) -> dict[str, str]:
    return {aspect.name: aspect.state for aspect in found.aspects}


def test_cells_that_are_all_the_true_mean_are_exposed(kang_path: Path) -> None:
    found = judged(flattered.collapsed())
    assert (found.tone, found.answer) == ("lost", "No.")
    assert "its cells are all alike" in found.because
    assert states(found)["Direction"] == states(found)["Size"] == "right"


def test_values_exchanged_between_cells_are_exposed(kang_path: Path) -> None:
    found = judged(flattered.shuffled())
    assert (found.tone, found.answer) == ("partly", "As a mean response only.")
    assert "the genes of a cell do not belong together" in found.because


@pytest.mark.parametrize("case", [flattered.other_controls, flattered.swapped])
def test_what_no_evidence_supports_is_exposed(mcfaline_path: Path, case: Any) -> None:
    """Of nine knock-downs in A172 hardly one can be told from control: so much is said of any prediction."""
    found = judged(case())
    assert (found.tone, found.answer) == ("undecided", "Not on this evidence.")
    assert "nothing supports the prediction" in found.because
    assert set(states(found).values()) == {"unknown"}


@pytest.fixture(scope="module")
def five() -> dict[str, Any]:
    """Control cells of a context, and two halves of its cells under each of five perturbations of clear effect."""
    names = ["alpha", "beta", "gamma", "delta", "epsilon"]
    adata = simulate(perturbations=names, response=2.0, n_genes=300, cells_per_group=120, seed=1)
    data = PerturbationData.from_anndata(
        adata, perturbation_key="condition", control="control", context_key="cell_type"
    )
    context = data.contexts[0]
    cells = {
        name: data.to_anndata(data.rows(condition=name, context=context)) for name in (*data.perturbations, "control")
    }
    control = cells.pop("control")
    half = {place: {name: some[place::2].copy() for name, some in cells.items()} for place in (0, 1)}
    return {"control": control, "first": half[0], "second": half[1]}


def test_a_replicate_gets_its_yes(five: dict[str, Any]) -> None:
    found = judged({"control": five["control"], "truth": five["first"], "predicted": five["second"]})
    assert (found.tone, found.answer) == ("won", "Yes.")
    assert found.because.endswith("right in direction, size and population, by more than chance.")
    assert {state for name, state in states(found).items() if name != "Genes"} == {"right"}


def test_the_right_cells_under_the_wrong_names_are_exposed(five: dict[str, Any]) -> None:
    names = list(five["first"])
    predicted = {name: five["second"][names[place - 1]] for place, name in enumerate(names)}
    found = judged({"control": five["control"], "truth": five["first"], "predicted": predicted})
    assert (found.tone, found.answer) == ("lost", "No.")
    assert states(found)["Direction"] == "wrong"


def test_a_lead_is_paired_and_told_with_its_interval() -> None:
    levels = [["p1", "p2", "p3", "p4", "p5"], ["x"], ["edist"]]
    index = pd.MultiIndex.from_product(levels, names=["held_out", "perturbation", "metric"])
    table = pd.DataFrame({"score": [2.1, 1.9, 2.2, 2.0, 1.85], "rival": [2.2, 2.1, 2.0, 2.0, 2.0]}, index)
    found = lead(table, "rival", "another model")
    assert found is not None
    assert (found.ahead, found.n, found.unit) == (3, 5, "context")
    assert found.mean == pytest.approx(0.05)
    assert not found.sure
    assert found.told() == "ahead of another model by 0.050 (95% interval \u22120.15 to 0.25; ahead in 3 of 5 contexts)"
    one = lead(table.iloc[:1], "rival", "another model")
    assert one is not None
    assert np.isnan(one.low)
    assert one.told() == "ahead of another model by 0.10"
