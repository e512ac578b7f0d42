"""What a run says of itself to whoever predicts with it: its score where it was tested, and how far the cells lie."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData

import multipert as mp
from conftest import Run
from models.conftest import KEYS
from multipert.errors import InputWarning
from multipert.models import Model
from multipert.models.left_out import LeftOutScore


@pytest.fixture(scope="module")
def data(adata: AnnData) -> mp.PerturbationData:
    return mp.PerturbationData.from_anndata(adata, **KEYS)


def mean(X: Any) -> np.ndarray:
    return np.asarray(X.mean(axis=0), dtype=np.float64).ravel()


def test_a_run_keeps_its_score_on_what_it_left_out(
    adata: AnnData, data: mp.PerturbationData, controls: AnnData, tmp_path: Path
) -> None:
    model = mp.models.create("nearest-context").fit(data, mp.leave_context_out(data, "B"), run=tmp_path / "run")
    score = mp.models.load(tmp_path / "run").left_out_

    assert score == model.left_out_
    assert score is not None
    assert (score.held_out, score.n) == ("B", 2)
    distances: dict[str, list[float]] = {"nearest-context": [], "mean-shift": [], "linear": []}
    for name, found in distances.items():
        fitted = mp.models.create(name).fit(data, mp.leave_context_out(data, "B"))
        for perturbation in ("alpha", "beta"):
            true = mean(data.X[data.rows(condition=perturbation, context="B")])
            guess = mean(fitted.predict(controls, perturbation).X)
            found.append(float(np.linalg.norm(guess - true) / np.linalg.norm(mean(controls.X) - true)))
    assert score.distance == pytest.approx(np.median(distances.pop("nearest-context")), rel=1e-4)
    assert score.baselines == pytest.approx({name: np.median(found) for name, found in distances.items()}, rel=1e-4)


def test_a_run_of_all_cells_keeps_the_score_of_each_context_left_out(data: mp.PerturbationData, tmp_path: Path) -> None:
    scores = [
        mp.models.create("mtcell").fit(data, mp.leave_context_out(data, context), run=tmp_path / context).left_out_
        for context in data.contexts
    ]
    found = mp.models.create("mtcell").fit(data, run=tmp_path / "all").left_out_

    assert found is not None
    assert (found.held_out, found.n) == (f"each of {len(scores)} contexts in turn", 2 * len(data.contexts))
    distances = [score.distance for score in scores if score is not None]
    assert min(distances) <= found.distance <= max(distances)


@pytest.mark.parametrize("name", ["mean-shift", "mtae", "scgen", "mtcell"])
def test_a_model_that_lost_says_so(
    data: mp.PerturbationData, controls: AnnData, tiny: Callable[..., Model], name: str
) -> None:
    model = tiny(name).fit(data, mp.leave_context_out(data, "B"), device="cpu", progress=False)
    model.left_out_ = LeftOutScore("B", 2, 1.94, {"mean-shift": 0.5, "linear": 0.45})

    with pytest.warns(
        InputWarning, match="this model lost to simpler ones: B, left out of training, was .* 1.94 times"
    ):
        predicted = model.predict(controls, "alpha")

    said = predicted.uns["multipert"]
    assert said["left_out"] in list(said["warnings"])
    assert "mean-shift 0.50, linear 0.45" in said["left_out"]


def test_the_command_says_the_score_in_one_line(run: Run, adata: AnnData, controls: AnnData, tmp_path: Path) -> None:
    adata.write_h5ad(tmp_path / "data.h5ad")
    controls.write_h5ad(tmp_path / "controls.h5ad")
    keys = ("--perturbation-key", "condition", "--control", "control", "--context-key", "cell_type")
    trained = ("--model", "mtae", "--epochs", "1", "--set", "batch_size=16")
    for name, options, expected in (
        ("kept", ("--hold-out", "B"), "B, left out of training, was predicted 0."),
        ("all", (), "each of 3 contexts in turn, left out of training, was predicted 0."),
        (
            "trained",
            trained,
            "how far this model is right about a new context is not known: nothing was left out of training",
        ),
    ):
        fit = ("fit", tmp_path / "data.h5ad", *keys, *options, "--out", tmp_path / name)
        assert run(*fit)[0] == 0
        out = tmp_path / f"{name}.h5ad"
        code, printed, said = run(
            "predict", tmp_path / name, "--cells", tmp_path / "controls.h5ad", "--all", "--out", out
        )
        assert code == 0, said
        assert any(line.startswith(expected) for line in printed.splitlines())
        assert ad.read_h5ad(out).uns["multipert"]["left_out"].startswith(expected)


@pytest.mark.parametrize("name", ["mean-shift", "mtae", "mtcell"])
def test_controls_far_from_every_training_context_are_said(
    data: mp.PerturbationData, controls: AnnData, tiny: Callable[..., Model], name: str, tmp_path: Path
) -> None:
    model = tiny(name).fit(data, mp.leave_context_out(data, "B"), device="cpu", progress=False)
    near = model.predict(controls, "alpha")
    assert not [note for note in near.uns["multipert"]["warnings"] if "times as far" in note]
    model.save(tmp_path / "run")
    model = mp.models.load(tmp_path / "run")
    model.metadata_ = replace(model.metadata_, scale=None)
    strange = controls.copy()
    strange.X = 3 * controls.X[:, np.random.default_rng(0).permutation(controls.n_vars)]
    strange.obs["cell_type"] = "never seen"

    with pytest.warns(InputWarning, match=r"control cells lie [\d.]+ times as far from"):
        far = model.predict(strange, "alpha")

    assert [note for note in far.uns["multipert"]["warnings"] if "times as far from" in note]
