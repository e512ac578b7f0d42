"""Cells to compare: real ones by cell type, and small made ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

KANG_TYPES = ["B", "CD14+Mono", "CD4T", "CD8T", "Dendritic", "FCGR3A+Mono", "NK"]


_made = itertools.count()


class Cells(NamedTuple):
    control: Any
    truth: Any
    predicted: Any

    def named(self) -> dict[str, Any]:
        return self._asdict()


def adata(X: Any, genes: list[str] | None = None, **obs: Any) -> Any:
    """An AnnData of some expression; no two share a cell."""
    names = genes if genes is not None else [f"g{i}" for i in range(X.shape[1])]
    made = next(_made)
    index = [f"c{i} of {made}" for i in range(X.shape[0])]
    return anndata.AnnData(X, obs=pd.DataFrame(obs, index=index), var=pd.DataFrame(index=names))


@pytest.fixture(scope="session")
def kang(kang_path: Path) -> Callable[[str], Cells]:
    """Control, stimulated and, as a prediction, moved control cells of a cell type."""
    cells = anndata.read_h5ad(kang_path)

    def of(cell_type: str) -> Cells:
        chosen = cells[cells.obs["cell_type"] == cell_type]
        control = chosen[chosen.obs["condition"] == "control"].copy()
        truth = chosen[chosen.obs["condition"] == "stimulated"].copy()
        # A mean shift, and noise that makes every gene of every cell differ, as a network's output does.
        shift = np.asarray(truth.X.mean(axis=0) - control.X.mean(axis=0)).ravel()
        noise = np.random.default_rng(0).gamma(0.5, 0.01, size=control.shape)
        predicted = adata(
            np.maximum(control.X.toarray() + 0.7 * shift, 0).astype(np.float32) + noise.astype(np.float32),
            list(control.var_names),
        )
        return Cells(control, truth, predicted)

    return of


@pytest.fixture(scope="session")
def mcfaline(mcfaline_path: Path) -> dict[str, tuple[Any, Any]]:
    """Control and knocked-down cells of each cell line."""
    cells = anndata.read_h5ad(mcfaline_path)
    is_control = (cells.obs["perturbation"] == "control").to_numpy()
    lines = {line: (cells.obs["cell_line"] == line).to_numpy() for line in sorted(cells.obs["cell_line"].unique())}
    return {line: (cells[rows & is_control].copy(), cells[rows & ~is_control].copy()) for line, rows in lines.items()}


@pytest.fixture
def made() -> Cells:
    """Three small sparse populations that differ, log-normal-like, sizes all different."""
    rng = np.random.default_rng(3)

    def population(n: int, shift: float) -> Any:
        rates = np.where(np.arange(120) < 15, 1.0 + shift, 0.6)
        return adata(sparse.csr_matrix(np.log1p(rng.poisson(rates, size=(n, 120))).astype(np.float32)))

    return Cells(population(31, 0), population(24, 3), population(27, 2))
