import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from multipert.data import HeldOut, Keys, PerturbationData, preprocess, simulate, training_mask
from multipert.errors import InputError

KEYS = Keys(perturbation_key="condition", control="control", context_key="cell_type")
SMALL: dict[str, Any] = {"min_counts": 200, "min_genes": 80, "min_cells": 10, "n_top_genes": 100}


@pytest.fixture(scope="module")
def world() -> AnnData:
    return simulate(
        n_genes=300, contexts=("A", "B"), perturbations=("alpha",), cells_per_group=60, counts_per_gene=1, seed=5
    )


@pytest.fixture
def counts(world: AnnData) -> AnnData:
    return AnnData(world.layers["counts"].copy(), obs=world.obs.copy(), var=world.var.copy())


def test_the_recipe_is_scanpys(counts: AnnData) -> None:
    expected = counts.copy()
    sc.pp.filter_cells(expected, min_counts=200)
    sc.pp.filter_cells(expected, min_genes=80)
    sc.pp.filter_genes(expected, min_cells=10)
    sc.pp.normalize_total(expected)
    sc.pp.log1p(expected)
    sc.pp.highly_variable_genes(expected, n_top_genes=100, subset=True)

    result = preprocess(counts, **SMALL)

    assert 0 < result.n_obs < counts.n_obs
    assert result.n_vars == 100
    assert result.obs_names.equals(expected.obs_names)
    assert result.var_names.equals(expected.var_names)
    np.testing.assert_allclose(result.X.toarray(), expected.X.toarray(), rtol=1e-6)


def test_what_comes_out_is_ready_to_learn_from(counts: AnnData) -> None:
    result = preprocess(counts, **SMALL)

    assert result.X.format == "csr"
    assert result.X.dtype == np.float32
    kept = counts[result.obs_names, result.var_names].copy()
    np.testing.assert_array_equal(result.layers["counts"].toarray(), kept.X.toarray())
    pd.testing.assert_frame_equal(result.obs, kept.obs)
    PerturbationData.from_anndata(result, perturbation_key="condition", control="control", context_key="cell_type")


@pytest.mark.parametrize("layout", [np.asarray, sparse.csc_matrix, lambda dense: dense.astype(int)])
def test_layout_does_not_matter_and_the_input_stays(counts: AnnData, layout: Any) -> None:
    given = AnnData(layout(counts.X.toarray()), obs=counts.obs, var=counts.var)

    result = preprocess(given, **SMALL)

    np.testing.assert_array_equal(result.X.toarray(), preprocess(counts, **SMALL).X.toarray())
    assert np.abs(given.X - counts.X).max() == 0


def test_counts_may_be_in_a_layer(world: AnnData, counts: AnnData) -> None:
    result = preprocess(world, layer="counts", **SMALL)

    np.testing.assert_array_equal(result.X.toarray(), preprocess(counts, **SMALL).X.toarray())


def test_all_genes_stay_where_none_are_chosen(counts: AnnData) -> None:
    everything = preprocess(counts, **{**SMALL, "n_top_genes": None})

    assert everything.n_vars == preprocess(counts, **{**SMALL, "n_top_genes": 10_000}).n_vars > 100


def test_genes_can_be_chosen_without_the_held_out_cells(counts: AnnData) -> None:
    mask = training_mask(counts, KEYS, HeldOut("context", context="B"))
    hidden = (counts.obs["cell_type"] == "B") & (counts.obs["condition"] == "alpha")
    np.testing.assert_array_equal(mask, ~hidden.to_numpy())

    everything = preprocess(counts, **{**SMALL, "n_top_genes": None}, choose_on=mask)
    training = everything[mask[counts.obs_names.get_indexer(everything.obs_names)]].copy()
    expected = sc.pp.highly_variable_genes(training, n_top_genes=40, inplace=False)["highly_variable"]

    result = preprocess(counts, **{**SMALL, "n_top_genes": 40}, choose_on=mask)

    assert result.var_names.equals(training.var_names[expected])
    assert result.n_obs == everything.n_obs
    assert not result.var_names.equals(preprocess(counts, **{**SMALL, "n_top_genes": 40}).var_names)


def test_a_mask_works_with_doses_alone(counts: AnnData) -> None:
    counts.obs["dose"] = np.where(counts.obs["condition"] == "alpha", 3.0, 0.0)

    mask = training_mask(counts, Keys(context_key="cell_type", dose_key="dose"), HeldOut("context", context="A"))

    hidden = (counts.obs["cell_type"] == "A") & (counts.obs["dose"] > 0)
    np.testing.assert_array_equal(mask, ~hidden)


def test_importing_the_room_does_not_import_scanpy() -> None:
    code = "import sys, multipert.data; sys.exit(bool({'scanpy', 'torch', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class TestBadInput:
    def test_values_that_are_no_counts(self, world: AnnData) -> None:
        with pytest.raises(
            InputError, match=r"no raw counts \(some are not whole numbers\): .*; did you mean 'counts'\?"
        ):
            preprocess(world)

    @pytest.mark.parametrize(("value", "fault"), [(-1, "negative"), (np.nan, "NaN"), (np.inf, "infinite")])
    def test_values_that_cannot_be(self, counts: AnnData, value: float, fault: str) -> None:
        counts.X.data[0] = value

        with pytest.raises(InputError, match=f"1 values are {fault}"):
            preprocess(counts)

    def test_no_cell_left(self, counts: AnnData) -> None:
        with pytest.raises(InputError, match=r"only 0 of 240 cells .*: min_counts=500 leaves 20 .* and min_genes=720"):
            preprocess(counts, min_counts=500, min_genes=720)

    def test_no_gene_left(self, counts: AnnData) -> None:
        with pytest.raises(InputError, match=r"no gene is seen in 1000 cells .*: lower min_cells"):
            preprocess(counts, **{**SMALL, "min_cells": 1000})

    @pytest.mark.parametrize("mask", [np.ones(3, dtype=bool), np.arange(240)])
    def test_a_mask_that_does_not_fit(self, counts: AnnData, mask: Any) -> None:
        with pytest.raises(InputError, match="one true or false for each of the 240 cells"):
            preprocess(counts, **SMALL, choose_on=mask)

    def test_a_mask_without_cells(self, counts: AnnData) -> None:
        with pytest.raises(InputError, match="no cell that choose_on names is left"):
            preprocess(counts, **SMALL, choose_on=np.zeros(240, dtype=bool))

    def test_an_unknown_context(self, counts: AnnData) -> None:
        with pytest.raises(InputError, match="there is no context 'D'; there are 'A', 'B'"):
            training_mask(counts, KEYS, HeldOut("context", context="D"))


class TestThresholds:
    @staticmethod
    def panel(n_genes: int) -> AnnData:
        """Half of its genes expressed in every cell."""
        counts = np.tile(np.array([2.0, 0.0], dtype=np.float32), (400, n_genes // 2))
        counts[np.arange(400), 1] = 1
        names = [f"g{i}" for i in range(n_genes)]
        return AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(index=names))

    def test_a_panel_is_no_transcriptome(self) -> None:
        result = preprocess(self.panel(1200))

        assert result.n_obs == 400
        steps = result.uns["multipert_preprocessing"]["steps"]
        assert list(steps.index) == [
            "as given",
            "cells with 60 counts",
            "cells with 86 expressed genes",
            "genes seen in 4 cells",
        ]
        assert steps["cells"].tolist() == [400] * 4

    def test_the_true_cause_is_named(self) -> None:
        adata = self.panel(1200)
        adata.X[:250, 160:] = 0  # 250 cells with 81 expressed genes

        with pytest.raises(
            InputError,
            match=r"only 150 of 400 cells would stay: min_genes=86 leaves 150 \(.*; lower min_genes, or give",
        ):
            preprocess(adata)
        assert preprocess(adata, min_genes=86).n_obs == 150  # asked for
        assert preprocess(adata, min_genes=80).n_obs == 400

    def test_a_whole_transcriptome_is_filtered_as_in_the_study(self) -> None:
        steps = preprocess(self.panel(12_000), n_top_genes=None).uns["multipert_preprocessing"]["steps"]

        assert "cells with 500 counts" in steps.index
        assert "cells with 720 expressed genes" in steps.index
