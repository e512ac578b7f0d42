import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from multipert.data import Keys, PerturbationData, write_cells
from multipert.errors import InputError, InputWarning

KEYS: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "csr": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc": sparse.csc_matrix,
    "float64": lambda dense: sparse.csr_matrix(dense, dtype=np.float64),
    "int64 indices": lambda dense: _with_wide_indices(sparse.csr_matrix(dense)),
    "stored zeros": lambda dense: _with_stored_zeros(sparse.csr_matrix(dense)),
    "unsorted": lambda dense: _unsorted(sparse.csr_matrix(dense)),
    "dense": np.asarray,
    "fortran": np.asfortranarray,
}


def _with_wide_indices(X: Any) -> Any:
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def _with_stored_zeros(X: Any) -> Any:
    full = np.indices(X.shape).reshape(2, -1)
    return sparse.csr_matrix((X.toarray().ravel(), full), shape=X.shape)


def _unsorted(X: Any) -> Any:
    for start, end in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        X.indices[start:end] = X.indices[start:end][::-1].copy()
        X.data[start:end] = X.data[start:end][::-1].copy()
    X.has_sorted_indices = False
    return X


def tiny(X: Any = None, **obs: Any) -> AnnData:
    """Four cells x two genes, two conditions in two contexts, unless told otherwise."""
    X = np.array([[0, 0.5], [1.5, 0], [0, 0.7], [2.5, 1]], dtype=np.float32) if X is None else X
    columns = {"condition": ["control", "drug"] * 2, "cell_type": ["A", "A", "B", "B"], **obs}
    genes = pd.DataFrame(index=["g1", "g2"])
    return AnnData(X, obs=pd.DataFrame(columns, index=["c1", "c2", "c3", "c4"]), var=genes)


def test_kang_is_read_from_its_path(kang_path: Path) -> None:
    data = PerturbationData.from_anndata(kang_path, **KEYS)

    assert data.X.shape == (1975, 6998)
    assert data.conditions == ("control", "stimulated")
    assert data.contexts == ("B", "CD14+Mono", "CD4T", "CD8T", "Dendritic", "FCGR3A+Mono", "NK")
    assert sum(len(data.rows(condition="stimulated", context=one)) for one in data.contexts) == 1039
    raw = anndata.read_h5ad(kang_path)
    assert (data.X != raw.X).nnz == 0
    assert data.cells.equals(raw.obs_names)
    assert data.genes.equals(raw.var_names)


def test_mcfaline_has_nine_perturbations_in_order(mcfaline_path: Path) -> None:
    data = PerturbationData.from_anndata(
        str(mcfaline_path), perturbation_key="perturbation", control="control", context_key="cell_line"
    )

    assert len(data.perturbations) == 9
    assert list(data.perturbations) == sorted(data.perturbations)
    assert data.doses == {}


def test_codes_name_conditions_and_contexts(cells: AnnData, data: PerturbationData) -> None:
    assert data.control == data.conditions[0] == "control"
    assert data.perturbations == ("alpha", "beta")
    assert [data.conditions[code] for code in data.condition] == cells.obs["condition"].tolist()
    assert [data.contexts[code] for code in data.context] == cells.obs["cell_type"].tolist()
    assert len(data) == cells.n_obs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data(cells: AnnData, data: PerturbationData, layout: str) -> None:
    given_matrix = LAYOUTS[layout](cells.X.toarray())
    before = given_matrix.copy()
    obs = cells.obs.copy()

    other = PerturbationData.from_anndata(AnnData(given_matrix, obs=obs, var=cells.var), **KEYS)

    assert other.X.format == "csr"
    assert other.X.dtype == np.float32
    assert other.X.has_canonical_format
    assert other.X.nnz == np.count_nonzero(cells.X.toarray())
    np.testing.assert_array_equal(other.X.toarray(), cells.X.toarray())
    assert other.fingerprint == data.fingerprint
    # The caller's matrix and table are as they were.
    assert getattr(given_matrix, "nnz", None) == getattr(before, "nnz", None)
    if layout not in ("dense", "fortran"):
        np.testing.assert_array_equal(given_matrix.indices, before.indices)
        np.testing.assert_array_equal(given_matrix.data, before.data)
    pd.testing.assert_frame_equal(obs, cells.obs)


@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_a_backed_file_gives_the_same_data(tmp_path: Path, cells: AnnData, data: PerturbationData, layout: str) -> None:
    cells.X = LAYOUTS[layout](cells.X.toarray())
    write_cells(cells, tmp_path / "cells.h5ad")

    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")

    assert PerturbationData.from_anndata(backed, **KEYS).fingerprint == data.fingerprint


def test_a_view_gives_its_own_cells(cells: AnnData) -> None:
    data = PerturbationData.from_anndata(cells[cells.obs["cell_type"] == "B"], **KEYS)

    assert data.contexts == ("B",)
    assert data.conditions == ("control", "alpha", "beta")


def test_changing_the_anndata_later_changes_nothing(cells: AnnData) -> None:
    data = PerturbationData.from_anndata(cells, **KEYS)
    before = data.X.copy(), data.obs.copy()

    cells.X.data[:] = 1
    cells.obs["condition"] = "control"

    np.testing.assert_array_equal(data.X.toarray(), before[0].toarray())
    pd.testing.assert_frame_equal(data.obs, before[1])


def test_a_layer_is_read_in_place_of_x(cells: AnnData, data: PerturbationData) -> None:
    cells.layers["log"], cells.X = cells.X, cells.layers["counts"]

    other = PerturbationData.from_anndata(cells, **KEYS, layer="log")

    assert other.fingerprint == data.fingerprint
    assert other.keys.layer == "log"


@given(
    X=hnp.arrays(np.float32, (6, 3), elements=st.sampled_from([0, 0, 0, 0.5, 1, 2.25])).filter(
        lambda X: bool((X % 1).any())
    ),
    condition=st.lists(st.sampled_from(["control", "a", "b"]), min_size=6, max_size=6).filter(
        lambda labels: "control" in labels and len(set(labels)) > 1
    ),
    context=st.lists(st.sampled_from(["A", "B"]), min_size=6, max_size=6),
)
def test_data_survives_the_way_out_and_back(X: Any, condition: list[str], context: list[str]) -> None:
    obs = pd.DataFrame({"condition": condition, "cell_type": context}, index=list("uvwxyz"))
    data = PerturbationData.from_anndata(AnnData(X, obs=obs), **KEYS)

    again = PerturbationData.from_anndata(data.to_anndata(), **dataclasses.asdict(data.keys))

    assert again.fingerprint == data.fingerprint
    assert again.conditions == data.conditions
    assert again.keys == data.keys
    pd.testing.assert_frame_equal(again.obs, data.obs)
    np.testing.assert_array_equal(again.X.toarray(), X)
    for name in data.conditions:
        np.testing.assert_array_equal(data.rows(condition=name), np.flatnonzero(np.array(condition) == name))


def test_chosen_rows_keep_their_order(cells: AnnData, data: PerturbationData) -> None:
    rows = np.array([5, 2, 40])

    chosen = data.to_anndata(rows)

    assert chosen.obs_names.tolist() == cells.obs_names[rows].tolist()
    assert chosen.X.dtype == np.float32
    np.testing.assert_array_equal(chosen.X.toarray(), cells.X.toarray()[rows])


def test_the_fingerprint_tells_contents_apart(cells: AnnData, data: PerturbationData) -> None:
    def changed(change: Callable[[AnnData], None]) -> str:
        other = cells.copy()
        change(other)
        return PerturbationData.from_anndata(other, **KEYS).fingerprint

    def swap_labels(key: str) -> Callable[[AnnData], None]:
        def swap(other: AnnData) -> None:
            labels = other.obs[key].astype(str).to_numpy()
            labels[[0, -1]] = labels[[-1, 0]]
            other.obs[key] = labels

        return swap

    def change_value(other: AnnData) -> None:
        other.X.data[0] += 0.01

    def rename_gene(other: AnnData) -> None:
        other.var_names = ["new", *other.var_names[1:]]

    def rename_cells(other: AnnData) -> None:
        other.obs_names = [f"again{name}" for name in other.obs_names]
        other.obs["note"] = "something else"

    prints = [
        changed(change) for change in (swap_labels("condition"), swap_labels("cell_type"), change_value, rename_gene)
    ]
    assert len({data.fingerprint, *prints}) == 5
    assert changed(rename_cells) == data.fingerprint


@pytest.mark.parametrize("kind", [str, int, "category", bool])
def test_labels_of_any_type_are_compared_as_text(kind: Any) -> None:
    treated = pd.Series([0, 1, 0, 1]).astype(kind).to_numpy()

    data = PerturbationData.from_anndata(
        tiny(treated=treated), perturbation_key="treated", control=str(treated[0]), context_key="cell_type"
    )

    assert data.condition.tolist() == [0, 1, 0, 1]
    assert data.conditions == (str(treated[0]), str(treated[1]))


def test_a_combination_with_control_is_the_perturbation_alone() -> None:
    labels = ["ctrl", "KLF1+ctrl", "ctrl+KLF1", "FOO+"]
    keys = KEYS | {"control": "ctrl"}
    with pytest.warns(InputWarning, match=r"2 labels .* 'KLF1\+ctrl' is read as 'KLF1', the others likewise"):
        data = PerturbationData.from_anndata(tiny(condition=labels), **keys)
    assert data.conditions == ("ctrl", "FOO+", "KLF1")
    assert data.condition.tolist() == [0, 2, 2, 1]


def test_repeated_cell_names_keep_their_order() -> None:
    adata = tiny()
    adata.obs_names = ["c", "c", "d", "d"]

    data = PerturbationData.from_anndata(adata, **KEYS)

    assert data.cells.tolist() == ["c", "c", "d", "d"]
    assert data.to_anndata(data.rows(context="B")).obs_names.tolist() == ["d", "d"]


class TestDoses:
    def test_each_compound_at_each_dose_is_a_condition(self) -> None:
        adata = tiny(
            X=np.full((6, 2), 0.5, np.float32)[:4],
            condition=["b", "DMSO", "a", "b"],
            dose=[10.0, np.nan, 0.1, 2.0],
        )

        data = PerturbationData.from_anndata(
            adata, perturbation_key="condition", control="DMSO", context_key="cell_type", dose_key="dose"
        )

        assert data.conditions == ("DMSO", "a@0.1", "b@2", "b@10")  # by number, not by letter
        assert data.condition.tolist() == [3, 0, 1, 2]
        assert data.doses == {"DMSO": 0, "a@0.1": 0.1, "b@2": 2, "b@10": 10}
        assert data.labels("b@10") == {"condition": "b", "dose": 10}
        assert data.labels("DMSO") == {"condition": "DMSO", "dose": 0}

    @pytest.mark.parametrize("kind", [float, np.float32, str, "category"])
    def test_a_dose_alone_has_its_control_at_zero(self, kind: Any) -> None:
        adata = tiny(Dose=pd.Series([0, 0.01, 30, 0.01]).astype(kind).to_numpy())

        data = PerturbationData.from_anndata(adata, context_key="cell_type", dose_key="Dose", compound="TCDD")

        assert data.conditions == ("control", "TCDD@0.01", "TCDD@30")
        assert data.condition.tolist() == [0, 1, 2, 1]
        assert data.doses["TCDD@0.01"] == 0.01
        assert data.labels("TCDD@30") == {"Dose": 30}
        assert data.labels("control") == {"Dose": 0}

    def test_an_unnamed_compound_takes_the_name_of_its_column(self) -> None:
        data = PerturbationData.from_anndata(
            tiny(TCDD=[0, 1, 0, 1]), context_key="cell_type", dose_key="TCDD", control="vehicle"
        )

        assert data.conditions == ("vehicle", "TCDD@1")
        assert PerturbationData.from_anndata(data.to_anndata(), **dataclasses.asdict(data.keys)).keys == data.keys

    def test_a_perturbation_without_dose_is_labelled_by_its_name(self, data: PerturbationData) -> None:
        assert data.labels("alpha") == {"condition": "alpha"}
        assert data.labels("control") == {"condition": "control"}


def test_the_summary_can_be_read(data: PerturbationData) -> None:
    assert repr(data).splitlines() == [
        "PerturbationData: 90 cells x 40 genes",
        "  control: 'control' (30 cells)",
        "  perturbations (2): alpha, beta",
        "  contexts (3): A, B, C",
    ]


class TestBadInput:
    @staticmethod
    def refused(adata: AnnData, **keys: Any) -> str:
        with pytest.raises(InputError) as refusal:
            PerturbationData.from_anndata(adata, **{**KEYS, **keys})
        message = str(refusal.value)
        assert "\n" not in message
        return message

    @pytest.mark.parametrize(
        ("key", "role"),
        [("perturbation_key", "perturbation key"), ("context_key", "context key"), ("dose_key", "dose key")],
    )
    def test_missing_key(self, key: str, role: str) -> None:
        message = self.refused(tiny(), **{key: "cell-type"})

        said = f"the {role} 'cell-type' is not a column of obs; "
        assert message == said + "did you mean 'cell_type'? there are 'cell_type', 'condition'"

    def test_no_key_at_all(self) -> None:
        assert self.refused(tiny(), perturbation_key=None) == (
            "nothing says what was done to a cell: give perturbation_key, dose_key or both"
        )

    def test_one_column_for_two_things(self) -> None:
        assert "is also the perturbation or dose key" in self.refused(tiny(), context_key="condition")

    def test_no_control_label(self) -> None:
        assert self.refused(tiny(), control=None) == (
            "control is missing: give the label of control cells in obs['condition']"
        )

    def test_a_compound_beside_a_perturbation_key(self) -> None:
        assert "compound 'TCDD' is given beside perturbation_key" in self.refused(tiny(), compound="TCDD")

    def test_absent_control_label(self) -> None:
        assert self.refused(tiny(), control="ctrl") == (
            "no cell is labelled 'ctrl', the control, in obs['condition']; "
            "did you mean 'control'? there are 'control', 'drug'"
        )

    def test_nothing_but_controls(self) -> None:
        assert self.refused(tiny(condition=["control"] * 4)) == (
            "every cell is a control in obs['condition']: at least one perturbation is needed to learn from"
        )

    def test_missing_layer(self) -> None:
        adata = tiny()
        adata.layers["logged"] = adata.X

        assert self.refused(adata, layer="log") == "there is no layer 'log'; did you mean 'logged'?"

    def test_no_expression_at_all(self) -> None:
        adata = AnnData(obs=tiny().obs, var=tiny().var)

        assert self.refused(adata) == "X is empty: name the layer that holds expression; there are none"

    @pytest.mark.parametrize("key", ["condition", "cell_type"])
    def test_cells_without_a_label(self, key: str) -> None:
        message = self.refused(tiny(**{key: pd.Categorical(["control", None, "drug", None])}))

        assert f"obs[{key!r}] is empty (NaN) in 2 cells: label these cells or drop them" in message

    @pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
    @pytest.mark.parametrize(
        ("value", "fault"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (-0.5, "negative")]
    )
    def test_values_that_cannot_be(self, value: float, fault: str, layout: str) -> None:
        X = tiny().X.copy()
        X[2, 1] = X[3, 0] = value

        message = self.refused(tiny(X=LAYOUTS[layout](X)))

        assert message.startswith(f"2 values are {fault} (the first in cell 'c3', gene 'g2'): ")

    def test_raw_counts(self, cells: AnnData) -> None:
        assert self.refused(cells, layer="counts") == (
            "the values are raw counts (all are whole numbers): log-normalise first, with multipert.preprocess(adata) "
            "or `multipert preprocess`"
        )
        assert "raw counts" in self.refused(tiny(X=np.array([[1, 0], [0, 3], [0, 0], [2, 1]])))

    def test_values_too_large_for_logarithms(self) -> None:
        message = self.refused(tiny(X=tiny().X * 33.3))

        assert message.startswith("the values reach 83.25, too large to be log-normalised: log-normalise first")

    def test_nothing_but_zeros(self) -> None:
        assert self.refused(tiny(X=np.zeros((4, 2)))) == ("every value is zero: there is no expression in it")

    def test_values_that_are_no_numbers(self) -> None:
        adata = tiny()
        adata.layers["odd"] = np.ones((4, 2), dtype=np.complex64)

        assert "of type complex64, not numbers" in self.refused(adata, layer="odd")

    @pytest.mark.filterwarnings("ignore:Variable names are not unique")
    def test_repeated_genes(self) -> None:
        adata = tiny()
        adata.var_names = ["ISG15", "ISG15"]

        assert self.refused(adata) == (
            "1 gene names occur more than once ('ISG15'): make them unique, for instance with "
            "adata.var_names_make_unique()"
        )

    def test_no_genes(self) -> None:
        assert self.refused(tiny()[:, []]) == "there is no expression in it: 4 cells x 0 genes"

    def test_no_cells(self) -> None:
        assert self.refused(tiny()[[]]) == "there are no cells in it"

    def test_doses_that_are_no_numbers(self) -> None:
        message = self.refused(tiny(dose=["0", "10 uM", "0", "1"]), dose_key="dose")

        assert message == (
            "the dose in obs['dose'] is no finite number in 1 cells (such as '10 uM'): give plain numbers, in one unit"
        )

    def test_negative_doses(self) -> None:
        message = self.refused(tiny(dose=[0, -2, 0, -1]), dose_key="dose")

        assert message.startswith("the dose in obs['dose'] is negative in 2 cells (such as -2)")

    def test_a_perturbed_cell_at_dose_zero(self) -> None:
        message = self.refused(tiny(dose=[0, 0, 0, 1]), dose_key="dose")

        assert message == (
            "1 perturbed cells (such as those of 'drug') are at dose 0 in obs['dose']: "
            "label them 'control' or drop them"
        )

    def test_doses_alone_without_a_zero(self) -> None:
        message = self.refused(tiny(dose=[1, 2, 1, 2]), perturbation_key=None, control=None, dose_key="dose")

        assert message == "no cell is at dose 0, the control, in obs['dose']; there are '1', '2'"

    def test_unknown_condition_or_context(self, data: PerturbationData) -> None:
        with pytest.raises(
            InputError,
            match=r"there is no condition 'alfa'; did you mean 'alpha'\? there are 'alpha', 'control', 'beta'",
        ):
            data.rows(condition="alfa")
        with pytest.raises(InputError, match="there is no context 'D'; there are 'A', 'B', 'C'"):
            data.rows(context="D")
        with pytest.raises(InputError, match="there is no condition 'delta'"):
            data.labels("delta")

    def test_a_file_is_named(self, tmp_path: Path, cells: AnnData) -> None:
        write_cells(cells, tmp_path / "cells.h5ad")

        with pytest.raises(InputError, match=r"cells\.h5ad: no cell is labelled 'ctrl'"):
            PerturbationData.from_anndata(tmp_path / "cells.h5ad", **{**KEYS, "control": "ctrl"})


class TestSeveralColumns:
    @staticmethod
    def donors() -> AnnData:
        return tiny(donor=["p2", "p1", "p1", "p1"])

    def test_several_columns_make_a_context(self) -> None:
        data = PerturbationData.from_anndata(self.donors(), **{**KEYS, "context_key": ["cell_type", "donor"]})

        assert data.contexts == ("A | p1", "A | p2", "B | p1")
        assert data.context.tolist() == [1, 0, 2, 2]
        assert data.keys.context_columns == ("cell_type", "donor")
        assert PerturbationData.read(data.to_anndata(), data.keys).fingerprint == data.fingerprint

    def test_keys_survive_json(self) -> None:
        keys = Keys(dose_key="dose", context_key=["a", "b"], covariate_key=["c"])

        assert Keys(**json.loads(json.dumps(dataclasses.asdict(keys)))) == keys
        assert (keys.compound, keys.control, keys.covariate_key) == ("dose", "control", "c")

    def test_a_covariate_is_read(self) -> None:
        data = PerturbationData.from_anndata(self.donors(), **KEYS, covariate_key="donor")
        without = PerturbationData.from_anndata(self.donors(), **KEYS)

        assert data.covariates == ("p1", "p2")
        assert data.covariate.tolist() == [1, 0, 0, 0]
        assert data.rows(context="A", covariate="p2").tolist() == [0]
        assert without.covariates == ()
        assert without.covariate.tolist() == [0, 0, 0, 0]
        assert data.fingerprint != without.fingerprint
        assert "covariate levels (2): p1, p2" in repr(data)

    def test_counts_come_with_the_cells(self, cells: AnnData) -> None:
        data = PerturbationData.from_anndata(cells, **KEYS, counts_layer="counts")

        assert data.counts is not None
        np.testing.assert_array_equal(data.counts.toarray(), cells.layers["counts"].toarray())
        rows = data.rows(context="B")
        np.testing.assert_array_equal(
            data.to_anndata(rows).layers["counts"].toarray(), cells.layers["counts"][rows].toarray()
        )

    def test_a_counts_layer_must_hold_counts(self, cells: AnnData) -> None:
        cells.layers["log"] = cells.X.copy()
        with pytest.raises(InputError, match="the values of layer 'log' are no raw counts"):
            PerturbationData.from_anndata(cells, **KEYS, counts_layer="log")

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ({"context_key": ["cell_type", "cell_type"]}, "context_key names a column twice"),
            ({"context_key": []}, "context_key takes the name of a column"),
            ({"covariate_key": "cell_type"}, "'cell_type' is context key and covariate key"),
            ({"covariate_key": "condition"}, "the covariate key 'condition' is also the perturbation"),
            ({"covariate_key": "batch"}, "the covariate key 'batch' is not a column of obs"),
            ({"covariate_key": "tube"}, r"no level of the covariate obs\['tube'\] has both control and perturbed"),
        ],
    )
    def test_what_does_not_go_together(self, keys: dict[str, Any], message: str) -> None:
        adata = tiny(tube=["c", "d", "c", "d"])
        with pytest.raises(InputError, match=message):
            PerturbationData.from_anndata(adata, **{**KEYS, **keys})
