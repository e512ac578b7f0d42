"""A small world that the tests of this room share."""

import pytest
from anndata import AnnData

from multipert.data import PerturbationData, simulate


@pytest.fixture
def cells() -> AnnData:
    """Three contexts x three conditions x ten cells, forty genes; a fresh copy each time."""
    return simulate(
        n_genes=40,
        contexts=("A", "B", "C"),
        perturbations=("alpha", "beta"),
        cells_per_group=10,
        counts_per_gene=2,
        seed=3,
    )


@pytest.fixture
def data(cells: AnnData) -> PerturbationData:
    return PerturbationData.from_anndata(
        cells, perturbation_key="condition", control="control", context_key="cell_type"
    )
