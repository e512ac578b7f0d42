from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from multipert.data import PerturbationData, read_cells, simulate, write_cells
from multipert.errors import InputError

KEYS: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}


def changes(adata: AnnData) -> Any:
    """(contexts, perturbations, genes) log fold changes of the truth."""
    shares = adata.uns["truth"]["shares"]
    return np.log(shares[:, 1:] / shares[:, :1])


def test_cells_converge_to_the_truth() -> None:
    adata = simulate(n_genes=60, contexts=("A", "B"), perturbations=("alpha",), cells_per_group=20_000, seed=1)
    truth, data = adata.uns["truth"], PerturbationData.from_anndata(adata, **KEYS)

    for i, context in enumerate(truth["contexts"]):
        for j, condition in enumerate(truth["conditions"]):
            rows = data.rows(condition=condition, context=context)
            counts = adata.layers["counts"][rows]
            depth = adata.obs["depth"].to_numpy()[rows]
            expected = np.outer(depth, truth["shares"][i, j])
            # Under the truth this is the mean's error in its own standard errors, hence about standard normal.
            error = counts - expected
            z = error.mean(axis=0) / (np.std(error, axis=0) / np.sqrt(len(rows)))
            assert np.abs(z).max() < 4.5
            assert counts.sum() / depth.sum() == pytest.approx(1, rel=0.01)


def test_shares_add_up_to_one() -> None:
    shares = simulate(n_genes=50, cells_per_group=1).uns["truth"]["shares"]

    assert shares.shape == (5, 4, 50)
    np.testing.assert_allclose(shares.sum(axis=-1), 1)


def test_counts_and_expression_look_like_droplet_data() -> None:
    adata = simulate(n_genes=2000, cells_per_group=20)
    counts, X = adata.layers["counts"], adata.X

    assert X.dtype == np.float32
    assert X.format == counts.format == "csr"
    assert 0.85 < 1 - X.nnz / np.prod(X.shape) < 0.95
    assert (counts.data == np.rint(counts.data)).all()
    totals = np.asarray(counts.sum(axis=1)).ravel()
    assert 0.25 < np.std(np.log(totals)) < 0.55
    normalised = np.asarray(X.expm1().sum(axis=1)).ravel()
    np.testing.assert_allclose(normalised, np.median(totals), rtol=1e-4)
    # More spread than Poisson, in expressed genes of one group.
    group = counts[:20].toarray()
    expressed = group.mean(axis=0) > 1
    assert np.median(group.var(axis=0)[expressed] / group.mean(axis=0)[expressed]) > 1.2


def test_the_same_seed_gives_the_same_cells() -> None:
    one, same, other = (simulate(n_genes=50, cells_per_group=3, seed=seed) for seed in (4, 4, 5))

    assert (one.X != same.X).nnz == 0
    assert one.obs.equals(same.obs)
    assert (one.X != other.X).nnz > 0


def test_more_cells_come_from_the_same_world() -> None:
    few, many = (simulate(n_genes=50, cells_per_group=n).uns["truth"]["shares"] for n in (2, 9))

    np.testing.assert_array_equal(few, many)


def test_no_response_means_none() -> None:
    adata = simulate(n_genes=50, cells_per_group=2, response=0)

    assert not changes(adata).any()
    assert not adata.var["response"].any()


def test_the_strongest_responders_can_be_found() -> None:
    adata = simulate()

    np.testing.assert_allclose(adata.var["response"], np.abs(changes(adata)).max(axis=(0, 1)))
    response = adata.var["response"].sort_values(ascending=False)
    assert response.iloc[20] > 1
    assert response.median() < 0.5
    assert adata.var_names[0] == "Gene0001"


@pytest.mark.parametrize(
    ("context_specific", "low", "high"), [(0.0, 0.999999, 1.000001), (0.5, 0.6, 0.98), (1, 0.1, 0.8)]
)
def test_contexts_share_as_much_of_a_response_as_told(context_specific: float, low: float, high: float) -> None:
    adata = simulate(cells_per_group=1, context_specific=context_specific)

    shared = [np.corrcoef(one)[np.triu_indices(5, 1)].mean() for one in np.moveaxis(changes(adata), 1, 0)]

    assert low < np.mean(shared) < high


def test_contexts_differ_before_anything_is_done() -> None:
    shares = simulate(cells_per_group=1).uns["truth"]["shares"][:, 0]

    assert np.log(shares).std(axis=0).mean() > 0.2


def test_the_response_can_be_learnt_from_other_contexts() -> None:
    data = PerturbationData.from_anndata(simulate(), **KEYS)

    def mean(condition: str, context: str) -> Any:
        return np.asarray(data.X[data.rows(condition=condition, context=context)].mean(axis=0)).ravel()

    for name in data.perturbations:
        shift = {one: mean(name, one) - mean(data.control, one) for one in data.contexts}
        for held_out in data.contexts:
            others = np.mean([shift[one] for one in data.contexts if one != held_out], axis=0)
            assert np.corrcoef(others, shift[held_out])[0, 1] > 0.5


class TestDoses:
    def test_the_response_grows_with_the_dose(self) -> None:
        adata = simulate(n_genes=200, perturbations=("drug",), doses=(10, 0.1, 1), cells_per_group=5)
        size = np.abs(changes(adata)).sum(axis=(0, 2))

        assert list(adata.uns["truth"]["conditions"]) == ["control", "drug@10", "drug@0.1", "drug@1"]
        assert size[1] < size[2] < size[0]

    def test_both_ways_of_naming_doses_agree(self) -> None:
        adata = simulate(n_genes=30, perturbations=("drug",), doses=(0.1, 10), cells_per_group=5)

        named = PerturbationData.from_anndata(
            adata, perturbation_key="compound", control="control", context_key="cell_type", dose_key="dose"
        )
        alone = PerturbationData.from_anndata(adata, context_key="cell_type", dose_key="dose", compound="drug")
        whole = PerturbationData.from_anndata(adata, **KEYS)

        assert named.conditions == alone.conditions == whole.conditions == ("control", "drug@0.1", "drug@10")
        assert named.fingerprint == alone.fingerprint == whole.fingerprint


class TestCombinations:
    @pytest.mark.parametrize("interaction", [0.0, 0.5, -0.5])
    def test_a_combination_is_the_sum_of_its_members_times_the_interaction(self, interaction: float) -> None:
        adata = simulate(n_genes=80, combinations=("alpha+beta", "alpha+gamma"), interaction=interaction)
        changed = changes(adata)
        # Shares are told apart from effects only up to what is common to all genes.
        effect = changed - changed.mean(axis=-1, keepdims=True)
        names = list(adata.uns["truth"]["conditions"])[1:]
        assert names == ["alpha", "beta", "gamma", "alpha+beta", "alpha+gamma"]

        for pair, members in (("alpha+beta", ("alpha", "beta")), ("alpha+gamma", ("alpha", "gamma"))):
            both = sum(effect[:, names.index(one)] for one in members)
            np.testing.assert_allclose(effect[:, names.index(pair)], (1 + interaction) * both, atol=1e-9)

    def test_combinations_have_doses_too(self) -> None:
        adata = simulate(n_genes=30, perturbations=("a", "b"), doses=(1, 3), combinations=("a+b",), cells_per_group=2)

        assert list(adata.uns["truth"]["conditions"]) == ["control", "a@1", "a@3", "b@1", "b@3", "a+b@1", "a+b@3"]
        assert set(adata.obs["compound"]) == {"control", "a", "b", "a+b"}


class TestDonors:
    def test_donors_shift_what_their_cells_express(self) -> None:
        adata = simulate(
            n_genes=40, contexts=("A",), perturbations=("alpha",), cells_per_group=20_000, donors=("p1", "p2"), seed=2
        )
        truth = adata.uns["truth"]
        assert set(adata.obs["donor"]) == {"p1", "p2"}
        for number, donor in enumerate(truth["donors"]):
            rows = ((adata.obs["donor"] == donor) & (adata.obs["condition"] == "control")).to_numpy()
            weights = truth["shares"][0, 0] * np.exp(truth["donor_shifts"][number])
            expected = np.outer(adata.obs["depth"][rows], weights / weights.sum())
            error = adata.layers["counts"][rows] - expected
            z = np.asarray(error.mean(axis=0) / (np.std(error, axis=0) / np.sqrt(rows.sum()))).ravel()
            assert np.abs(z[expected.sum(axis=0) > 10]).max() < 4.5

    def test_depths_differ_as_told(self) -> None:
        adata = simulate(n_genes=40, donors=("p1", "p2"), depths={"p2": 3.0, "A": 2.0, "alpha": 0.5})
        depth = adata.obs.groupby(["cell_type", "condition", "donor"], observed=True)["depth"].median()

        assert depth["B", "control", "p2"] / depth["B", "control", "p1"] == pytest.approx(3, rel=0.3)
        assert depth["A", "control", "p1"] / depth["C", "control", "p1"] == pytest.approx(2, rel=0.3)
        assert depth["B", "alpha", "p1"] / depth["B", "control", "p1"] == pytest.approx(0.5, rel=0.3)

    def test_donors_change_nothing_else(self) -> None:
        plain, donors = simulate(cells_per_group=2), simulate(cells_per_group=2, donors=("p1", "p2"))

        np.testing.assert_array_equal(plain.uns["truth"]["shares"], donors.uns["truth"]["shares"])
        np.testing.assert_array_equal(plain.obs["depth"], donors.obs["depth"])


def test_group_sizes_can_be_unequal() -> None:
    adata = simulate(n_genes=20, cells_per_group=(5, 25))
    sizes = adata.obs.groupby(["cell_type", "condition"], observed=True).size()

    assert len(sizes) == 20
    assert 5 <= sizes.min() < sizes.max() <= 25


def test_the_world_can_be_written_and_read(tmp_path: Path) -> None:
    adata = simulate(n_genes=30, perturbations=("drug",), doses=(1, 2), cells_per_group=2)
    write_cells(adata, tmp_path / "world.h5ad")

    again = read_cells(tmp_path / "world.h5ad").uns["truth"]

    np.testing.assert_array_equal(again["shares"], adata.uns["truth"]["shares"])
    assert list(again["conditions"]) == ["control", "drug@1", "drug@2"]
    assert list(again["contexts"]) == ["A", "B", "C", "D", "E"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_genes": 5}, "n_genes is 5: at least 20"),
        ({"contexts": []}, "contexts must be one or more different names"),
        ({"contexts": ["A", "A"]}, "contexts must be one or more different names"),
        ({"perturbations": []}, "perturbations must be one or more different names"),
        ({"perturbations": ["control"]}, "none of them 'control'"),
        ({"doses": [0, 1]}, "doses must be one or more different positive numbers"),
        ({"doses": []}, "doses must be one or more different positive numbers"),
        ({"cells_per_group": 0}, "cells_per_group is 0: every group needs a cell"),
        ({"response": -1}, "response is -1"),
        ({"context_specific": 2}, "context_specific is 2: it must be between 0 and 1"),
        ({"counts_per_gene": 0}, "counts_per_gene is 0: it must be positive"),
        ({"combinations": ["alpha+delta"]}, "combinations must be different, each of two or more perturbations"),
        ({"combinations": ["alpha"]}, "combinations must be different, each of two or more perturbations"),
        ({"combinations": ["alpha+alpha"]}, "combinations must be different, each of two or more perturbations"),
        ({"interaction": -2}, "interaction is -2"),
        ({"donors": ["p1", "p1"]}, "donors must be different names"),
        ({"donor_effect": -1}, "donor_effect is -1"),
        ({"depths": {"p9": 2}}, r"depths names \['p9'\], which is no context, condition or donor"),
        ({"depths": {"A": 0}}, "depths must be positive factors"),
        ({"cells_per_group": 10**8}, "that makes 2,000,000,000 cells x 1,000 genes, more than can be drawn"),
        ({"cells_per_group": (5, 2)}, "from the fewest to the most, not from 5 to 2"),
    ],
)
def test_worlds_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(**arguments)
