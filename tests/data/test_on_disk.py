"""Cells on disk say and give what the same cells do in memory."""

from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

import multipert as mp
from multipert.data import on_disk
from multipert.data.on_disk import MatrixOnDisk
from multipert.errors import InputError

KNOWN = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}


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
@given(rows=st.lists(st.integers(0, 89), max_size=60))
def test_any_rows_in_any_order_are_read(file: Path, cells: AnnData, rows: list[int]) -> None:
    matrix = mp.PerturbationData.from_anndata(file, **KNOWN, on_disk=True).X
    X = cells.X.toarray() if sparse.issparse(cells.X) else cells.X
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
    cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: object, sentence: str
) -> None:
    monkeypatch.setattr("multipert.data.on_disk.BLOCK", 300)
    spoil(cells.X)  # type: ignore[operator]
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
