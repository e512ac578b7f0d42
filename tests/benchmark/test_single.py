"""A run is a study of one trial: the same prediction has the same scores, whoever asks."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import multipert as mp
from multipert.benchmark import load_results, plan_study, read_study, results_of_run, run_study
from multipert.benchmark.held_out import HeldOutCells
from multipert.errors import InputError
from multipert.report import study_page, study_table

STUDY = """
models = ["linear"]
[[datasets]]
name = "made"
path = "made.h5ad"
perturbation_key = "condition"
control = "control"
context_key = "cell_type"
held_out = ["B"]
"""


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return mp.simulate(n_genes=60, contexts=("A", "B", "C"), perturbations=("alpha", "beta"), cells_per_group=20)


@pytest.fixture(scope="module")
def fitted(cells: AnnData) -> tuple[mp.models.Model, mp.PerturbationData, mp.data.Split]:
    data = mp.PerturbationData.from_anndata(
        cells, perturbation_key="condition", control="control", context_key="cell_type"
    )
    split = mp.leave_context_out(data, "B")
    return mp.models.create("linear").fit(data, split), data, split


def test_evaluate_a_run_and_a_benchmark_give_the_same_scores_to_the_last_digit(
    cells: AnnData, fitted: tuple[mp.models.Model, mp.PerturbationData, mp.data.Split], tmp_path: Path
) -> None:
    model, data, split = fitted
    control = data.to_anndata(data.rows(condition="control", context="B"))
    by_hand = {}
    for name in data.perturbations:
        truth = data.to_anndata(data.rows(condition=name, context="B"))
        predicted = model.predict(control, name)
        for role, population in (("control", control), ("truth", truth), ("predicted", predicted)):
            population.write_h5ad(tmp_path / f"{role}.h5ad")
        by_hand[name] = mp.evaluate(
            control=tmp_path / "control.h5ad", truth=tmp_path / "truth.h5ad", predicted=tmp_path / "predicted.h5ad"
        )

    cells.write_h5ad(tmp_path / "made.h5ad")
    (tmp_path / "study.toml").write_text(STUDY)
    assert run_study(plan_study(read_study(tmp_path / "study.toml")), tmp_path / "out")
    of_study, of_run = load_results(tmp_path / "out"), results_of_run(model, data, split)
    for results in (of_study, of_run):
        (trial,) = (trial for trial in results.trials if trial.label == "linear")
        for name, scores in by_hand.items():
            np.testing.assert_array_equal([trial.scores[name][metric] for metric in scores.index], scores)
    table = pd.read_csv(io.StringIO(study_table(of_run, "csv")), float_precision="round_trip")
    mean = (by_hand["alpha"]["mse"] + by_hand["beta"]["mse"]) / 2
    assert table.set_index(["label", "metric"]).loc[("linear", "mse"), "mean"] == pytest.approx(mean, rel=1e-15)


def test_pilots_are_scored_where_one_context_is_held_out(
    fitted: tuple[mp.models.Model, mp.PerturbationData, mp.data.Split],
) -> None:
    _, data, split = fitted
    model = mp.models.create("mtcell").fit(data, split)
    cells = HeldOutCells.of(data, "made", split.rule, data.perturbations, ["mse"])
    pilots = cells.test(model, "mtcell").pilots
    assert list(pilots) == ["0", "5", "10"]  # of twenty true cells ten are left to score with
    assert pilots["10"]["alpha"]["mse"] < pilots["0"]["alpha"]["mse"]
    assert cells.test(fitted[0], "linear").pilots == {}


def test_no_pilot_is_asked_for_where_several_contexts_are_predicted(
    fitted: tuple[mp.models.Model, mp.PerturbationData, mp.data.Split],
) -> None:
    data = mp.PerturbationData.from_anndata(
        mp.simulate(n_genes=60, contexts=("A", "B"), combinations=("alpha+beta",), cells_per_group=20),
        perturbation_key="condition",
        control="control",
        context_key="cell_type",
    )
    split = mp.leave_combination_out(data, "alpha+beta")
    model = mp.models.create("mtcell").fit(data, split)
    trial = HeldOutCells.of(data, "made", split.rule, data.perturbations, ["mse"]).test(model, "mtcell")
    assert np.isfinite(trial.scores["alpha+beta"]["mse"])
    assert trial.pilots == {}


def test_the_page_of_a_run_is_the_page_of_a_study(
    fitted: tuple[mp.models.Model, mp.PerturbationData, mp.data.Split],
) -> None:
    page = study_page(results_of_run(*fitted))
    for said in (
        "Predicted by linear: 2 perturbations in B",
        "linear learned from 120 cells of 2 other contexts (A, C), control and perturbed, and the 20 "
        "control cells of B.",
        "Predicted and true mean expression",
        "The three populations",
        "Parameters of linear, as used",
        "held out</span>",
    ):
        assert said in page
    assert set(re.findall(r"<th scope=\"row\">([\w-]+)<span class=\"note\">baseline", page)) == {
        "linear",
        "mean-shift",
        "nearest-context",
        "resample",
    }


def test_the_page_draws_the_intervals_that_a_model_gives_and_calls_genes_by_symbol(cells: AnnData) -> None:
    called = cells.copy()
    called.var["gene_symbol"] = [f"SYM{place}" for place in range(cells.n_vars)]
    called.var_names = [f"ENSG{place:011}" for place in range(cells.n_vars)]
    data = mp.PerturbationData.from_anndata(
        called, perturbation_key="condition", control="control", context_key="cell_type"
    )
    split = mp.leave_context_out(data, "B")
    page = study_page(results_of_run(mp.models.create("mtcell").fit(data, split), data, split, source="made.h5ad"))
    assert "The line under a prediction is the 90% interval that its model gives for the mean." in page
    assert re.search(r"intervals hold \d+% of true means", page)
    assert "SYM" in page
    assert "ENSG" not in page
    assert "contexts (made.h5ad)" in page


def test_a_run_without_a_held_out_context_has_no_truth(
    fitted: tuple[mp.models.Model, mp.PerturbationData, mp.data.Split],
) -> None:
    model, data, _ = fitted
    with pytest.raises(InputError, match="nothing was held out"):
        results_of_run(model, data, mp.data.train_on_everything(data))
