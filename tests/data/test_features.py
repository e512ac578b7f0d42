"""What perturbations are: read from several sources, and made into vectors of conditions."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import multipert as mp
from multipert.data.condition_names import members_at
from multipert.data.condition_vectors import ConditionVectors, dose_basis
from multipert.data.features import read_features
from multipert.data.structures import scaffold_groups, scaffolds

DRUGS = {"aspirin": "CC(=O)Oc1ccccc1C(=O)O", "salicylate": "OC(=O)c1ccccc1O", "ethanol": "CCO"}


def cells(**options: object) -> mp.PerturbationData:
    adata = mp.simulate(n_genes=30, contexts=("A", "B"), cells_per_group=6, **options)  # type: ignore[arg-type]
    keys: dict[str, Any] = {"perturbation_key": "compound", "dose_key": "dose"} if "doses" in options else {}
    return mp.PerturbationData.from_anndata(
        adata, **{"perturbation_key": "condition", "control": "control", "context_key": "cell_type"} | keys
    )


@pytest.fixture(scope="module")
def pairs() -> mp.PerturbationData:
    return cells(perturbations=("a", "b", "c"), combinations=("a+b", "b+c"))


def vectors(features: mp.PerturbationFeatures, data: mp.PerturbationData) -> ConditionVectors:
    return ConditionVectors.fit(features, data, mp.train_on_everything(data))


@pytest.mark.parametrize(
    ("name", "doses", "expected"),
    [
        ("a", {}, (("a", None),)),
        ("a+b", {}, (("a", None), ("b", None))),
        ("a+b@2", {"a+b@2": 2.0}, (("a", 2.0), ("b", 2.0))),
        ("a@1+b@2", {}, (("a", 1.0), ("b", 2.0))),
        ("a@home", {}, (("a@home", None),)),
        ("IFN-g+", {}, (("IFN-g+", None),)),
    ],
)
def test_a_name_tells_members_and_doses(name: str, doses: dict[str, float], expected: object) -> None:
    assert members_at(name, doses) == expected


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_the_basis_of_doses_is_nothing_at_0_rises_and_stays_below_1(first: float, second: float) -> None:
    halves = (0.1, 1.0, 30.0)
    assert (dose_basis(0.0, halves) == 0).all()
    low, high = (dose_basis(dose, halves) for dose in sorted((first, second)))
    assert (low <= high).all()
    assert (high < 1).all()
    np.testing.assert_allclose(low, 1 - np.exp(-np.log1p(min(first, second) / np.array(halves))), rtol=1e-9)


def test_a_combination_is_made_of_its_members_in_any_order(pairs: mp.PerturbationData) -> None:
    known = vectors(mp.PerturbationFeatures.from_members(pairs), pairs)
    v = known.of(["control", "a", "b", "a+b", "b+a", "c+a"], {}, "control")
    assert not v[0].any()
    np.testing.assert_array_equal(v[3].sum(axis=0), v[1].sum(axis=0) + v[2].sum(axis=0))
    np.testing.assert_array_equal(v[3].sum(axis=0), v[4].sum(axis=0))
    assert v[5].any(), "a combination that was never measured"


def test_members_that_training_never_saw_have_no_number(pairs: mp.PerturbationData) -> None:
    split = mp.leave_combination_out(pairs, "a+b", seen=1)
    known = ConditionVectors.fit(mp.PerturbationFeatures.from_members(pairs), pairs, split)
    assert known.says_nothing_of("b", {})
    assert not known.says_nothing_of("a+b", {})


def test_doses_in_between_lie_in_between() -> None:
    data = cells(perturbations=("a",), doses=(1.0, 10.0))
    known = vectors(mp.PerturbationFeatures.from_doses(data), data)
    doses = {"control": 0.0, "a@0": 0.0, "a@1": 1.0, "a@3": 3.0, "a@10": 10.0}
    control, zero, low, middle, high = known.of(list(doses), doses, "control")[:, 0]
    np.testing.assert_array_equal(zero, control)
    assert (low < middle).all()
    assert (middle < high).all()


def test_features_by_dose_need_doses(pairs: mp.PerturbationData) -> None:
    with pytest.raises(mp.InputError, match="dose_key"):
        mp.PerturbationFeatures.from_doses(pairs)


def test_vectors_of_a_table_are_the_mean_and_the_directions_of_training(pairs: mp.PerturbationData) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(5, 7)) * 1000, index=["a", "b", "c", "d", "e"])
    known = vectors(mp.PerturbationFeatures.from_table(table), pairs)
    assert known.width == 3, "three members: their mean, and two directions"
    trained = known.of(["a", "b", "c"], {}, "control")[:, 0]
    np.testing.assert_array_equal(trained[:, 0], 1)
    np.testing.assert_allclose((trained[:, 1:] ** 2).sum(axis=1).mean(), 1, rtol=1e-5)
    # Distances among training members are those of the table, in units of their own.
    apart = np.linalg.norm(table.loc["a"] - table.loc["b"]) / np.linalg.norm(table.loc["a"] - table.loc["c"])
    ours = np.linalg.norm(trained[0] - trained[1]) / np.linalg.norm(trained[0] - trained[2])
    np.testing.assert_allclose(ours, apart, rtol=1e-5)


def test_further_perturbations_are_described_as_those_of_training_were(pairs: mp.PerturbationData) -> None:
    table = pd.DataFrame(np.eye(4), index=["a", "b", "c", "d"])
    all_at_once = vectors(mp.PerturbationFeatures.from_table(table), pairs)
    known = vectors(mp.PerturbationFeatures.from_table(table.loc[["a", "b", "c"]]), pairs)
    more = known.with_others(mp.PerturbationFeatures.from_table(table.loc[["d"]]))
    np.testing.assert_allclose(more.of(["d"], {}, "control"), all_at_once.of(["d"], {}, "control"), atol=1e-6)
    with pytest.raises(mp.InputError, match="has 3"):
        known.with_others(mp.PerturbationFeatures.from_table(table.iloc[:, :3]))


def test_what_features_do_not_describe_is_named(pairs: mp.PerturbationData) -> None:
    table = mp.PerturbationFeatures.from_table({"a": [1.0, 2.0], "x": [0.0, 1.0]})
    with pytest.raises(mp.InputError, match=r"do not describe 'b', 'c'.*leave out its cells"):
        vectors(table, pairs)


def test_tables_are_read_from_every_format(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}, index=pd.Index(["a", "b"], name="gene"))
    frame.to_csv(tmp_path / "t.csv")
    frame.to_csv(tmp_path / "t.tsv", sep="\t")
    frame.to_parquet(tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", names=np.array(["a", "b"]), table=frame.to_numpy())
    adata = mp.simulate(n_genes=20, contexts=("A",), cells_per_group=1)
    adata.varm["ESM2"] = np.ones((20, 3))
    adata.write_h5ad(tmp_path / "t.h5ad")
    for name in ("t.csv", "t.tsv", "t.parquet", "t.npz"):
        read = read_features(f"table={tmp_path / name}")
        assert read is not None
        assert read.names == ("a", "b")
        np.testing.assert_array_equal(read.table, frame.to_numpy())
    read = read_features(f"genes={tmp_path / 't.h5ad'}:ESM2")
    assert read is not None
    assert read.names == tuple(adata.var_names)
    assert read.table.shape == (20, 3)


def test_gene_sets_are_features(tmp_path: Path) -> None:
    (tmp_path / "sets.gmt").write_text("one\thttp\ta\tb\ntwo\t\tb\tc\n")
    read = read_features(f"genes={tmp_path / 'sets.gmt'}")
    assert read is not None
    assert read.names == ("a", "b", "c")
    np.testing.assert_array_equal(read.table, [[1, 0], [1, 1], [0, 1]])


def test_genes_that_vary_together_lie_together_and_perturbed_cells_play_no_part() -> None:
    adata = mp.simulate(n_genes=20, contexts=("A", "B"), perturbations=("p",), cells_per_group=50)
    X = np.random.default_rng(0).gamma(2.0, 0.4, adata.shape).astype(np.float32)
    X[:, 1] = X[:, 0] * 0.9
    adata.X, perturbed = X, (adata.obs["condition"] != "control").to_numpy()
    keys: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
    first = mp.PerturbationFeatures.from_genes(mp.PerturbationData.from_anndata(adata, **keys))
    apart = np.linalg.norm(first.table - first.table[0], axis=1)
    assert apart[1:].argmin() == 0
    X[perturbed, 1] = 0
    again = mp.PerturbationFeatures.from_genes(mp.PerturbationData.from_anndata(adata, **keys))
    np.testing.assert_array_equal(first.table, again.table)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("smile=x.csv", "did you mean 'smiles'|no source of features 'smile'"),
        ("smiles", "need a file"),
        ("table=nowhere.csv", "no file nowhere.csv"),
        ("dose=x.csv", "leave out"),
        ("members", "read off the cells"),
    ],
)
def test_a_wrong_source_is_said_in_a_sentence(source: str, message: str) -> None:
    with pytest.raises(mp.InputError, match=message):
        read_features(source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("gene,x\na,1\na,2\n", "'a' more than once"),
        ("gene,x\na,\n", "no finite numbers"),
        ("gene,x\na,high\n", "numbers alone"),
        ("gene,x\n", "a row for each name"),
    ],
)
def test_a_wrong_table_is_said_in_a_sentence(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(mp.InputError, match=message):
        read_features(f"table={tmp_path / 't.csv'}")


class TestStructures:
    def test_drugs_that_are_alike_have_fingerprints_that_are(self) -> None:
        read = mp.PerturbationFeatures.from_smiles(DRUGS)
        a, s, e = read.table
        assert (a * s).sum() / np.maximum(a, s).sum() > (a * e).sum() / np.maximum(a, e).sum()

    def test_a_file_is_read_by_its_columns(self, tmp_path: Path) -> None:
        pd.DataFrame({"drug": list(DRUGS), "smiles": list(DRUGS.values())}).to_csv(tmp_path / "d.csv", index=False)
        read = read_features(f"smiles={tmp_path / 'd.csv'}")
        assert read is not None
        assert read.names == tuple(DRUGS)
        (tmp_path / "e.csv").write_text("drug,structure\na,CC\n")
        with pytest.raises(mp.InputError, match="no column 'smiles'"):
            read_features(f"smiles={tmp_path / 'e.csv'}")

    def test_no_structure_is_named(self) -> None:
        with pytest.raises(mp.InputError, match="'nonsense' is no SMILES"):
            mp.PerturbationFeatures.from_smiles({"ethanol": "CCO", "nonsense": "C(("})

    def test_without_rdkit_the_install_line_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "rdkit", None)
        with pytest.raises(mp.InputError, match=r"pip install 'multipert\[drugs\]'"):
            mp.PerturbationFeatures.from_smiles(DRUGS)

    def test_no_scaffold_is_in_two_parts(self) -> None:
        drugs = {f"b{i}": "c1ccccc1" + "C" * i for i in range(5)} | {f"n{i}": "C1CCNCC1" + "C" * i for i in range(3)}
        drugs |= {f"c{i}": "C" * (i + 1) for i in range(4)}
        parts = scaffold_groups(drugs, 3)
        assert sorted(name for part in parts for name in part) == sorted(drugs)
        of = scaffolds(drugs)
        where = [{of[name] for name in part} - {""} for part in parts]
        assert all(not first & second for i, first in enumerate(where) for second in where[:i])

    def test_folds_of_scaffolds_are_splits_by_drug(self) -> None:
        data = cells(perturbations=tuple(DRUGS))
        folds = mp.scaffold_folds(data, DRUGS, 2)
        held = sorted(name for fold in folds for name in fold.rule.conditions)
        assert held == sorted(DRUGS)
        assert {fold.kind for fold in folds} == {"perturbation"}
        alike = [fold for fold in folds if "aspirin" in fold.rule.conditions]
        assert "salicylate" in alike[0].rule.conditions, "one scaffold, benzene"
