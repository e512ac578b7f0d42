"""Components are scanpy's up to sign, whichever way they are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata
import numpy as np
import pytest
import scanpy
from scipy import sparse
from scipy.spatial.distance import pdist

from evaluation import naive
from evaluation.conftest import Cells
from multipert.evaluation.components import principal_components


def distances(parts: Any) -> Any:
    return pdist(np.concatenate(parts))


@pytest.mark.parametrize("cell_type", ["Dendritic", "CD4T"])
def test_components_of_real_cells_are_scanpys(kang: Callable[[str], Cells], cell_type: str) -> None:
    cells = kang(cell_type)
    both = anndata.concat([cells.control, cells.truth])
    scanpy.pp.pca(both)
    ours = np.concatenate(principal_components([sparse.csr_array(cells.control.X), sparse.csr_array(cells.truth.X)]))
    theirs = both.obsm["X_pca"]
    assert ours.shape == theirs.shape
    signs = np.sign(np.sum(ours * theirs, axis=0))
    np.testing.assert_allclose(ours * signs, theirs, atol=2e-3 * np.abs(theirs).max())
    np.testing.assert_allclose(pdist(ours), pdist(theirs), rtol=1e-4)


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (60, 60), (1, 30), (30, 1), (200, 90)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_route_gives_the_distances_of_a_full_decomposition(shape: tuple[int, int], dtype: Any) -> None:
    rng = np.random.default_rng(0)
    cells = np.maximum(rng.normal(size=shape) * np.linspace(3, 0.1, shape[1]), 0).astype(dtype)
    other = np.maximum(rng.normal(0.5, size=(35, shape[1])), 0).astype(dtype)
    expected = distances(naive.pcs(cells.astype(float), other.astype(float))) if shape[1] > 1 else None
    for parts in ([cells, other], [sparse.csr_array(cells), other], [sparse.csr_array(cells), sparse.csr_array(other)]):
        exact = principal_components(parts)
        if expected is None:  # with one gene the only component is the gene
            expected = distances([cells.astype(float), other.astype(float)])
        np.testing.assert_allclose(distances(exact), expected, rtol=1e-6, atol=1e-5)
        if min(len(cells) + len(other), shape[1]) > 50:
            lanczos = principal_components(parts, n_components=20, exact_size=10)
            np.testing.assert_allclose(
                distances(lanczos), distances(principal_components(parts, n_components=20)), rtol=1e-3, atol=1e-3
            )


def test_identical_cells_lie_at_the_origin() -> None:
    for part in principal_components([np.full((5, 7), 0.3), np.full((4, 7), 0.3)]):
        np.testing.assert_allclose(part, 0, atol=1e-6)
