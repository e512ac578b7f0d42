"""Predicted into a file part by part: the same cells as in memory, whole or not there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import multipert as mp
from multipert.data import read_cells
from multipert.errors import InputError
from multipert.models import prediction

KNOWN: dict[str, Any] = {
    "perturbation_key": "condition",
    "control": "control",
    "context_key": "cell_type",
    "counts_layer": "counts",
}


@pytest.fixture(scope="module")
def world() -> AnnData:
    return mp.simulate(n_genes=60, contexts=("B", "A"), perturbations=("alpha", "beta"), cells_per_group=30, seed=2)


@pytest.fixture(scope="module")
def models(world: AnnData) -> dict[str, mp.models.Model]:
    data = mp.PerturbationData.from_anndata(world, **KNOWN)
    known = {"mean-shift": {}, "mtcell": {}, "mtae": {"epochs": 1, "batch_size": 16}}
    return {name: mp.models.create(name, **small).fit(data) for name, small in known.items()}


@pytest.mark.parametrize("mixed", [False, True], ids=["by context", "mixed"])
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
@pytest.mark.parametrize("name", ["mean-shift", "mtcell", "mtae"])
def test_a_file_holds_what_is_predicted_in_memory(
    world: AnnData, models: dict[str, mp.models.Model], name: str, ending: str, mixed: bool, tmp_path: Path
) -> None:
    controls = world[world.obs["condition"] == "control"]
    controls = controls[np.random.default_rng(0).permutation(controls.n_obs)] if mixed else controls
    controls = controls.copy()
    mp.data.write_cells(controls, tmp_path / f"controls.{ending}")
    expected = models[name].predict(controls, "all", counts=True)

    n_cells, _ = models[name].predict_to(
        tmp_path / f"p.{ending}", tmp_path / f"controls.{ending}", "all", counts=True, on_disk=True
    )
    found = read_cells(tmp_path / f"p.{ending}")

    assert n_cells == found.n_obs == expected.n_obs
    assert list(found.obs_names) == list(expected.obs_names)
    assert found.obs["condition"].astype(str).tolist() == expected.obs["condition"].astype(str).tolist()
    np.testing.assert_allclose(found.X.toarray(), expected.X, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(
        found.layers["counts"].sum(axis=1).ravel(), expected.layers["counts"].sum(axis=1).ravel()
    )
    for said, value in expected.uns["multipert"]["values"].items():
        assert found.uns["multipert"]["values"][said] == pytest.approx(value, rel=1e-4)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_raw_counts_and_genes_in_another_order_are_brought_to_scale_as_they_are_read(
    world: AnnData, models: dict[str, mp.models.Model], tmp_path: Path
) -> None:
    controls = world[world.obs["condition"] == "control"].copy()[:, world.var_names[::-1]].copy()
    controls.X = controls.layers["counts"]
    mp.data.write_cells(controls, tmp_path / "controls.zarr")
    expected = models["mtcell"].predict(controls, "alpha")
    models["mtcell"].predict_to(tmp_path / "p.h5ad", tmp_path / "controls.zarr", "alpha", on_disk=True)
    np.testing.assert_allclose(read_cells(tmp_path / "p.h5ad").X.toarray(), expected.X, rtol=1e-4, atol=1e-5)


def test_parts_of_a_context_are_of_one_size_and_small_contexts_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    context = np.repeat([2, 0, 1], [25, 3, 4])
    parts = prediction._parts(context, 10)
    assert [len(part) for part in parts] == [9, 8, 8, 7]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(32))


def test_many_parts_hold_every_cell_once(
    world: AnnData, models: dict[str, mp.models.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "_FEWEST", 7)
    monkeypatch.setattr(prediction, "_VALUES", 1)
    controls = world[world.obs["condition"] == "control"]
    controls = controls[np.random.default_rng(1).permutation(controls.n_obs)].copy()
    models["mean-shift"].predict_to(tmp_path / "p.zarr", controls, "beta", on_disk=True)
    found, expected = read_cells(tmp_path / "p.zarr"), models["mean-shift"].predict(controls, "beta")
    assert list(found.obs_names) == list(expected.obs_names)
    np.testing.assert_allclose(found.X.toarray(), expected.X, rtol=1e-4, atol=1e-5)


def test_intervals_of_cells_in_parts_are_refused(
    world: AnnData, models: dict[str, mp.models.Model], tmp_path: Path
) -> None:
    controls = world[world.obs["condition"] == "control"].copy()
    with pytest.raises(InputError, match="intervals are of all cells of a context together"):
        models["mtcell"].predict_to(tmp_path / "p.h5ad", controls, "alpha", intervals=0.9, on_disk=True)
    assert not list(tmp_path.iterdir())
