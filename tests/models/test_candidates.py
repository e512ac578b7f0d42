"""Which perturbation to take, at what dose, and which are alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multipert as mp
from multipert.models import dose_response, film_distances, rank

KEYS: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}


@pytest.fixture(scope="module")
def data() -> mp.PerturbationData:
    adata = mp.simulate(
        n_genes=60, contexts=("A",), perturbations=("x", "y", "z"), cells_per_group=40, response=2.0, seed=1
    )
    return mp.PerturbationData.from_anndata(adata, **KEYS)


def test_what_leads_to_a_state_comes_first(data: mp.PerturbationData) -> None:
    model = mp.models.create("mean-shift").fit(data)
    controls, state = (data.to_anndata(data.rows(condition=name)) for name in ("control", "y"))
    table = rank(model, controls, state)
    assert table.index[0] == "y"
    assert table.loc["y", "score"] == pytest.approx(1, abs=0.1)
    assert table.loc["y", "along"] == pytest.approx(1, abs=0.1)
    assert (table["low"] <= table["score"]).all()
    assert (table["score"] <= table["high"]).all()
    assert rank(model, controls, state, ["x", "y"], away=True).index[-1] == "y"
    with pytest.raises(mp.InputError, match="already"):
        rank(model, controls, controls)
    with pytest.raises(mp.InputError, match="genes"):
        rank(model, controls, state[:, 10:].copy())


def test_a_curve_finds_the_dose_of_half_the_effect() -> None:
    ladder = (0.1, 0.3, 1.0, 3.0, 10.0)
    adata = mp.simulate(
        n_genes=60, contexts=("A",), perturbations=("p",), doses=ladder, cells_per_group=150, response=2.0, seed=3
    )
    data = mp.PerturbationData.from_anndata(
        adata, perturbation_key="compound", control="control", context_key="cell_type", dose_key="dose"
    )
    model = mp.models.create("mtcell").fit(data, features="dose")
    gene = str(adata.var["response"].idxmax())
    controls = data.to_anndata(data.rows(condition="control"))
    curves, ec50 = dose_response(model, controls, [gene], doses=ladder)
    assert list(curves["dose"]) == list(ladder)
    assert (curves["low"] <= curves["high"]).all()
    half, low, high = (float(ec50[column].iloc[0]) for column in ("ec50", "low", "high"))
    assert ladder[0] < low <= half <= high < ladder[-1]
    place = list(data.genes).index(gene)
    means = [data.X[data.rows(condition=f"p@{dose:g}")][:, place].mean() for dose in ladder]
    np.testing.assert_allclose(curves["mean"], means, atol=0.15)
    with pytest.raises(mp.InputError, match="no gene 'q'"):
        dose_response(model, controls, ["q"])
    with pytest.raises(mp.InputError, match="which compound"):
        dose_response(model, controls, [gene], compound="q")


def test_doses_are_asked_of_models_that_know_them(data: mp.PerturbationData) -> None:
    model = mp.models.create("mean-shift").fit(data)
    with pytest.raises(mp.InputError, match="knows no doses"):
        dose_response(model, data.to_anndata(data.rows(condition="control")), [str(data.genes[0])])
    with pytest.raises(mp.InputError, match="mean-shift has no FiLM"):
        film_distances(model)


def test_perturbations_with_the_same_features_steer_alike(data: mp.PerturbationData) -> None:
    table = mp.PerturbationFeatures.from_table({"x": [1.0, 0.0], "y": [1.0, 0.0], "z": [0.0, 1.0]})
    model = mp.models.create("mtae", epochs=1, batch_size=32, hidden=(8,), latent=4).fit(data, features=table)
    apart = film_distances(model)
    assert apart.loc["x", "y"] == 0
    assert apart.to_numpy().max() > 0
    np.testing.assert_array_equal(apart, apart.T)


def test_a_library_is_ranked_by_what_its_members_are(data: mp.PerturbationData, tmp_path: Path) -> None:
    table = mp.PerturbationFeatures.from_table({"x": [1.0, 0.0], "y": [0.0, 1.0], "z": [0.0, 0.0]})
    library = mp.PerturbationFeatures.from_table({"like y": [0.0, 1.0], "like x": [1.0, 0.0]})
    model = mp.models.create("nearest-perturbation").fit(data, features=table)
    controls, state = (data.to_anndata(data.rows(condition=name)) for name in ("control", "y"))
    path = tmp_path / "controls.h5ad"
    controls.write_h5ad(path)
    ranked = rank(model, path, state, features=library)
    assert set(ranked.index) == {"x", "y", "z", "like x", "like y"}
    assert list(ranked.index[:2]) == ["y", "like y"]
    assert list(ranked.loc[["y", "like y"], "seen"]) == [True, False]
    alone = rank(model, controls, state, ["like y"], features=library)
    assert alone.loc["like y", "score"] == pytest.approx(ranked.loc["like y", "score"])
