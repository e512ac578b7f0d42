"""The profile of raw counts in a study: the numbers of `evaluate`, bounds beside them, one score a context."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import multipert as mp
from multipert.benchmark import load_results, plan_study, read_study
from multipert.benchmark.jobs import FitJob, ReferenceJob
from multipert.benchmark.records import write_record
from multipert.errors import InputError
from multipert.evaluation import PROFILES, evaluate_many, scorecard

SIX = list(PROFILES["vcc2026"].metrics())
STUDY = """
models = ["linear"]
profile = ["vcc2026", "study"]

[[datasets]]
name = "made"
held_out = ["A"]
"""
MADE = """
[datasets.simulate]
n_genes = 120
contexts = ["A", "B"]
perturbations = ["alpha", "beta", "gamma"]
cells_per_group = 50
response = 3.0
context_specific = 0.9
counts_per_gene = 2.0
"""


def test_a_study_scores_counts_as_evaluate_does(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY + MADE)
    plan = plan_study(read_study(tmp_path / "study.toml"))
    plan.write(tmp_path)
    kept: dict[type, Any] = {}
    for job in plan.jobs:
        if isinstance(job, FitJob | ReferenceJob):
            kept[type(job)] = (job, job.run())
            write_record(tmp_path / job.file, kept[type(job)][1])
    results = load_results(tmp_path)
    job, _ = kept[FitJob]
    data, cells = job.data(), job.cells()
    split = mp.leave_context_out(data, "A")

    def predict(model: str) -> dict[str, Any]:
        fitted = mp.models.create(model, seed=1).fit(data, split)
        return {name: fitted.predict(cells.control, name, counts=True) for name in cells.truth}

    roles = {"control": cells.control, "truth": cells.truth, "predicted": predict("linear")}
    scores = results.scores.set_index("perturbation")
    pd.testing.assert_frame_equal(
        scores[SIX], evaluate_many(**roles, profile="vcc2026")[SIX], check_names=False, rtol=1e-12
    )
    card = scorecard(**roles, mean_response=predict("mean-shift"), profile="vcc2026")
    assert np.isfinite(card.attrs["score"])
    np.testing.assert_allclose(scores["vcc2026"], card.attrs["score"], rtol=1e-9)
    bounds = results.bounds.groupby("label")[[*SIX, "vcc2026"]].mean()
    np.testing.assert_allclose(bounds.loc["ceiling", SIX], card.loc[SIX, "ceiling"], rtol=1e-9)
    assert bounds.loc["mean_response", "vcc2026"] == pytest.approx(0)
    assert bounds.loc["ceiling", "vcc2026"] == pytest.approx(1)
    assert set(SIX) <= set(results.calibration.index.get_level_values("metric"))
    assert list(results.metrics) == ["vcc2026", *SIX, *PROFILES["study"].metrics()]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            STUDY
            + 'path = "cells.h5ad"\nperturbation_key = "condition"\ncontrol = "control"\ncontext_key = "cell_type"',
            "nothing says where made holds them: name the layer as counts_layer",
        ),
        (STUDY.replace('"vcc2026", "study"', '"vcc2027"') + MADE, "there is no profile 'vcc2027'"),
        (
            STUDY.replace('profile = ["vcc2026", "study"]', 'metrics = ["pds_cosine"]') + MADE,
            "pds_cosine goes with all of its profile",
        ),
    ],
)
def test_what_a_profile_of_counts_lacks_is_said(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "cells.h5ad").touch()
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_study(tmp_path / "study.toml")


def test_a_metric_of_counts_is_not_read_off_expression() -> None:
    cells = mp.simulate(n_genes=20, cells_per_group=5)
    with pytest.raises(InputError, match="reads raw counts: ask for the profile it belongs to"):
        mp.evaluate(control=cells, truth=cells, predicted=cells, metrics=["pds_cosine"])
