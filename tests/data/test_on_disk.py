"""Cells on disk say and give what the same cells do in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import multipert as mp
from multipert.data import on_disk
from multipert.data.on_disk import MatrixOnDisk
from multipert.errors import InputError, InputWarning

KNOWN: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}


@pytest.fixture(params=["cells.h5ad", "cells.zarr", "dense.h5ad", "dense.zarr", "odd.h5ad"])
def file(request: pytest.FixtureRequest, cells: AnnData, tmp_path: Path) -> Path:
    """The cells in a file: sparse, dense, or sparse with columns unsorted and a zero stored."""
    path = tmp_path / request.param
    if "dense" in path.name:
        cells.X = cells.X.toarray()
    if "odd" in path.name:
        X = cells.X.tocsr()
        length = X.indptr[1]
        X.indices[:length], X.data[:length] = X.indices[:length][::-1].copy(), X.data[:length][::-1].copy()
        gone = np.flatnonzero(X.toarray()[1] == 0)[0]
        more = sparse.csr_matrix(([0.0], ([1], [gone])), shape=X.shape, dtype=np.float32)
        X = sparse.csr_matrix(
            (
                np.insert(X.data, X.indptr[1], more.data),
                np.insert(X.indices, X.indptr[1], more.indices),
                X.indptr + (np.arange(len(X.indptr)) > 1),
            ),
            shape=X.shape,
        )
        cells.X = X
    mp.data.write_cells(cells, path)
    return path


def test_cells_on_disk_are_the_same_data(file: Path, cells: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multipert.data.on_disk.BLOCK", 300)  # a block is a few cells
    held = mp.PerturbationData.from_anndata(cells, **KNOWN)
    data = mp.PerturbationData.from_anndata(file, **KNOWN, on_disk=True)

    assert isinstance(data.X, MatrixOnDisk)
    assert data.is_on_disk
    assert not held.is_on_disk
    assert data.fingerprint == held.fingerprint
    assert data.preprocessing == held.preprocessing
    rows = np.arange(len(data))
    assert data.expression_space(rows) == held.expression_space(rows)
    np.testing.assert_array_equal(data.to_anndata().X.toarray(), held.X.toarray())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 89), max_size=60), along=st.sampled_from([1, 100, 1_000_000]))
def test_any_rows_in_any_order_are_read(file: Path, cells: AnnData, rows: list[int], along: int) -> None:
    matrix = mp.PerturbationData.from_anndata(file, **KNOWN, on_disk=True).X
    X = cells.X.toarray() if sparse.issparse(cells.X) else cells.X
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("multipert.data.on_disk._ALONG", along)
        found = matrix[np.array(rows, dtype=np.int64)]
    assert found.has_canonical_format
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), X[rows])


def test_what_is_small_is_read_and_what_is_large_stays(
    cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mp.data.write_cells(cells, tmp_path / "cells.zarr")
    assert not mp.PerturbationData.from_anndata(tmp_path / "cells.zarr", **KNOWN).is_on_disk
    monkeypatch.setattr(on_disk, "SHARE", 1e-12)
    assert mp.PerturbationData.from_anndata(tmp_path / "cells.zarr", **KNOWN).is_on_disk
    assert not mp.PerturbationData.from_anndata(tmp_path / "cells.zarr", **KNOWN, on_disk=False).is_on_disk


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda X: X.data.__setitem__(100, np.nan), "1 values are NaN .the first in cell"),
        (lambda X: X.data.__setitem__(slice(100, 300), -1.0), "200 values are negative .the first in cell"),
        (lambda X: X.data.__setitem__(slice(None), 2.0), "the values are raw counts"),
    ],
)
def test_what_is_wrong_on_disk_is_said_as_in_memory(
    cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], None], sentence: str
) -> None:
    monkeypatch.setattr("multipert.data.on_disk.BLOCK", 300)
    spoil(cells.X)
    mp.data.write_cells(cells, tmp_path / "cells.h5ad")
    said = []
    for stays in (True, False):
        with pytest.raises(InputError, match=sentence) as raised:
            mp.PerturbationData.from_anndata(tmp_path / "cells.h5ad", **KNOWN, on_disk=stays)
        said.append(str(raised.value))
    assert said[0] == said[1]


def test_columns_on_disk_are_refused(cells: AnnData, tmp_path: Path) -> None:
    cells.X = cells.X.tocsc()
    mp.data.write_cells(cells, tmp_path / "cells.zarr")
    with pytest.raises(InputError, match=r"stored as 'csc_matrix': write it again as a csr_matrix"):
        mp.PerturbationData.from_anndata(tmp_path / "cells.zarr", **KNOWN, on_disk=True)
    assert len(mp.PerturbationData.from_anndata(tmp_path / "cells.zarr", **KNOWN)) == cells.n_obs


def test_indices_that_point_outside_are_refused(cells: AnnData, tmp_path: Path) -> None:
    import h5py

    mp.data.write_cells(cells, tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "a") as written:
        written["X/indices"][50] = 400
    with pytest.raises(InputError, match="the sparse matrix is damaged"):
        mp.PerturbationData.from_anndata(tmp_path / "cells.h5ad", **KNOWN, on_disk=True)


@pytest.mark.parametrize("as_column", [lambda starts: starts[:, None], lambda starts: np.repeat(starts, 2)])
def test_rows_that_begin_nowhere_are_refused(
    as_column: Callable[[np.ndarray], np.ndarray], cells: AnnData, tmp_path: Path
) -> None:
    mp.data.write_cells(cells, tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as opened:
        starts = as_column(opened["X/indptr"][:])
        del opened["X/indptr"]
        opened["X"]["indptr"] = starts
    with pytest.raises(InputError, match="matrix is damaged"):
        mp.PerturbationData.from_anndata(tmp_path / "cells.h5ad", **KNOWN, on_disk=True)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_column_that_no_file_can_hold_is_named(streamed: bool, cells: AnnData, tmp_path: Path) -> None:
    data = mp.PerturbationData.from_anndata(cells, **KNOWN)
    model = mp.models.create("mean-shift").fit(data)
    controls = data.to_anndata(data.rows(condition=data.control))
    controls.obs["odd"] = [np.ones(2) for _ in range(controls.n_obs)]
    with pytest.raises(InputError, match=r"cannot be written .*'odd'.*drop or mend that column"):
        model.predict_to(tmp_path / "out.h5ad", controls, data.perturbations[0], on_disk=streamed)
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize(
    "name", ["mean-shift", "nearest-context", "linear", "resample", "mtcell", "scgen", "mtae", "mtae-ot"]
)
def test_models_learn_from_disk_what_they_learn_in_memory(name: str, cells: AnnData, tmp_path: Path) -> None:
    mp.data.write_cells(cells, tmp_path / "cells.zarr")
    stored, held = (
        mp.PerturbationData.from_anndata(tmp_path / "cells.zarr", **KNOWN, on_disk=stays) for stays in (True, False)
    )
    small = {"epochs": 1, "batch_size": 16} if name in ("scgen", "mtae", "mtae-ot") else {}
    controls = held.to_anndata(held.rows(condition="control", context="B"))
    found, expected = (
        mp.models.create(name, **small).fit(data, mp.leave_context_out(data, "B")).predict(controls, "alpha").X
        for data in (stored, held)
    )
    if small:  # another order of cells
        assert found.shape == expected.shape
        assert np.isfinite(found).all()
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_counts_on_disk_are_preprocessed_into_what_they_become_in_memory(
    cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multipert.data.on_disk.BLOCK", 300)
    counts = AnnData(cells.layers["counts"], obs=cells.obs, var=cells.var)
    options: dict[str, Any] = {"min_counts": 30, "min_genes": 5, "n_top_genes": 20}
    mp.data.write_cells(counts, tmp_path / "counts.zarr")
    expected = mp.preprocess(counts, **options)

    for name in ("out.zarr", "out.h5ad"):
        stored = mp.data.read_cells(tmp_path / "counts.zarr", on_disk=True)
        done = mp.data.preprocess_to(tmp_path / name, stored, on_disk=True, **options)
        found = mp.data.read_cells(tmp_path / name)

        assert list(found.obs_names) == list(expected.obs_names)
        assert list(found.var_names) == list(expected.var_names)
        np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())
        np.testing.assert_array_equal(found.layers["counts"].toarray(), expected.layers["counts"].toarray())
        for kept in (done, found.uns["multipert_preprocessing"]):
            assert kept["target_sum"] == expected.uns["multipert_preprocessing"]["target_sum"]
            assert kept["steps"].equals(expected.uns["multipert_preprocessing"]["steps"])
        data = mp.PerturbationData.from_anndata(tmp_path / name, **KNOWN, counts_layer="counts", on_disk=True)
        assert data.fingerprint == mp.PerturbationData.from_anndata(expected, **KNOWN).fingerprint


@pytest.mark.parametrize("name", ["world.h5ad", "world.zarr"])
def test_simulated_counts_are_written_as_they_are_drawn(name: str, tmp_path: Path) -> None:
    world: dict[str, Any] = {
        "n_genes": 40,
        "contexts": ("A", "B"),
        "perturbations": ("alpha",),
        "cells_per_group": 300,
        "seed": 5,
    }
    assert mp.data.simulate_to(tmp_path / name, **world) == 1200
    found, expected = mp.data.read_cells(tmp_path / name), mp.simulate(**world)
    np.testing.assert_array_equal(found.X.toarray(), expected.layers["counts"].toarray())
    assert found.obs["condition"].tolist() == expected.obs["condition"].tolist()
    np.testing.assert_array_equal(found.uns["truth"]["shares"], expected.uns["truth"]["shares"])


def test_of_files_on_disk_a_sample_is_scored_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adata = mp.simulate(n_genes=60, contexts=("A",), perturbations=("alpha", "beta"), cells_per_group=60)
    control = adata[adata.obs["condition"] == "control"].copy()
    truth = adata[adata.obs["condition"] != "control"].copy()
    files: dict[str, Any] = {"control": control, "truth": truth, "predicted": truth}
    for name, cells in files.items():
        mp.data.write_cells(cells, tmp_path / f"{name}.zarr")
    paths: dict[str, Any] = {name: tmp_path / f"{name}.zarr" for name in files}
    chosen: dict[str, Any] = {"perturbation_key": "condition", "metrics": ["edist", "mse", "pearson_delta"]}

    whole = mp.scorecard(**paths, **chosen, on_disk=True)
    monkeypatch.setattr(on_disk, "SCORED", 30)
    with pytest.warns(InputWarning, match="of the true cells, 120, 60 stand for all, evenly spaced"):
        sample = mp.scorecard(**paths, **chosen, on_disk=True)

    np.testing.assert_allclose(whole["score"], mp.scorecard(**files, **chosen)["score"], atol=1e-6)
    assert (sample["score"].xs("mse", level="metric") == 0).all()


def test_examples_on_disk_are_mixed_in_blocks_and_all_come_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from multipert.training import Examples

    class Stored:
        shape = (1000, 3)

    monkeypatch.setattr("multipert.training.examples.BLOCK", 10)
    monkeypatch.setattr("multipert.training.examples.FETCHED", 200)
    rows = np.random.default_rng(0).permutation(np.arange(0, 2000, 2))
    examples = Examples(Stored(), {"x": rows}, {})

    order = examples.shuffled(np.random.default_rng(1))

    assert sorted(order) == list(range(1000))
    together = np.unique(rows[order[:200]] // 20)
    assert len(together) == 20  # whole blocks
    assert (np.diff(rows[order[:200]]) > 0).mean() < 0.7  # mixed among each other
    assert (np.diff(examples.in_file_order.cells["x"]) > 0).all()
