"""Cells that a model meets later: their genes by other names, their counts not scaled, their scale another."""

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

import multipert as mp
from multipert.data import Keys, PerturbationData, preprocess, preprocess_like, simulate
from multipert.data.alignment import read_aligned
from multipert.data.gene_names import match_names, symbols
from multipert.data.scale import ExpressionScale, ExpressionSpace, Preprocessing
from multipert.errors import InputError, InputWarning

KEYS = Keys(perturbation_key="condition", control="control", context_key="cell_type")
SYMBOLS = [f"GENE{i}" for i in range(40)]
IDS = [f"ENSG{i:011d}" for i in range(40)]


@pytest.fixture(scope="module")
def counts() -> AnnData:
    world = simulate(n_genes=300, contexts=("A", "B", "C"), perturbations=("alpha",), cells_per_group=40, seed=2)
    return AnnData(world.layers["counts"], obs=world.obs, var=pd.DataFrame(index=world.var_names))


@pytest.fixture(scope="module")
def trained(counts: AnnData) -> AnnData:
    """The training cells of contexts A and B, fifty genes of which are kept."""
    return preprocess(counts[counts.obs["cell_type"] != "C"].copy(), min_counts=0, min_genes=0, n_top_genes=50)


@pytest.fixture(scope="module")
def space(trained: AnnData) -> ExpressionSpace:
    data = PerturbationData.read(trained, KEYS)
    return data.expression_space(np.arange(len(data)))


def controls(adata: AnnData, context: str = "C") -> AnnData:
    return adata[(adata.obs["cell_type"] == context) & (adata.obs["condition"] == "control")].copy()


def together(counts: AnnData) -> AnnData:
    """All cells prepared at once, the new context having no say."""
    choose_on = (counts.obs["cell_type"] != "C").to_numpy()
    return preprocess(counts, min_counts=0, min_genes=0, n_top_genes=50, choose_on=choose_on)


def test_raw_counts_become_what_preparing_all_together_gives(counts: AnnData, space: ExpressionSpace) -> None:
    expected = controls(together(counts))

    aligned = read_aligned(controls(counts)[:, ::-1].copy(), space, KEYS)

    assert list(expected.var_names) == list(space.genes)
    np.testing.assert_allclose(aligned.X.toarray(), expected.X.toarray(), atol=1e-6)
    assert aligned.scale.startswith("raw counts, scaled to a total of")
    assert aligned.notes == ()


def test_a_file_can_be_prepared_like_a_run(counts: AnnData, space: ExpressionSpace) -> None:
    expected = controls(together(counts))

    prepared = preprocess_like(controls(counts), space)

    np.testing.assert_allclose(prepared.X.toarray(), expected.X.toarray(), atol=1e-6)
    np.testing.assert_array_equal(prepared.layers["counts"].toarray(), expected.layers["counts"].toarray())
    np.testing.assert_array_equal(read_aligned(prepared, space, KEYS).X.toarray(), prepared.X.toarray())


def test_a_file_scaled_by_itself_is_refused_with_both_totals(counts: AnnData, space: ExpressionSpace) -> None:
    deep = counts.copy()
    deep.X = deep.X * 2
    alone = controls(preprocess(deep, min_counts=0, min_genes=0, n_top_genes=None))

    with pytest.raises(InputError, match=r"scaled to a total of [\d.]+, those the model was trained on to [\d.]+: "):
        read_aligned(alone, space, KEYS)
    del alone.uns["multipert_preprocessing"]  # as another tool would leave it: the totals tell
    with pytest.raises(InputError, match=r"were scaled to a total of [\d.]+, those the model was trained on"):
        read_aligned(alone, space, KEYS)


def test_totals_tell_where_nothing_else_does(counts: AnnData, space: ExpressionSpace) -> None:
    kept = controls(together(counts))
    kept.uns.clear()
    assert read_aligned(kept, space, KEYS).scale == "log-normalised when given"
    kept.X.data = np.log1p(np.expm1(kept.X.data) * 6)

    with pytest.raises(InputError, match=r"on another scale .* in the median, those of training cells .*--like RUN"):
        read_aligned(kept, space, KEYS)


def test_counts_are_refused_where_no_recipe_is_known(counts: AnnData, space: ExpressionSpace) -> None:
    with pytest.raises(InputError, match="raw counts .* normalised elsewhere"):
        read_aligned(controls(counts), ExpressionSpace(space.genes), KEYS)


def test_a_recipe_is_read_off_totals_that_are_all_the_same(counts: AnnData) -> None:
    whole = preprocess(counts, min_counts=0, min_genes=0, n_top_genes=None)
    target = whole.uns.pop("multipert_preprocessing")["target_sum"]

    data = PerturbationData.read(whole, KEYS)

    assert data.preprocessing is not None
    assert data.preprocessing.target_sum == pytest.approx(target, rel=1e-4)
    aligned = read_aligned(controls(counts), data.expression_space(np.arange(len(data))), KEYS)
    np.testing.assert_allclose(aligned.X.toarray(), controls(whole).X.toarray(), rtol=1e-3, atol=1e-5)


def test_cells_that_training_would_have_dropped_are_counted(counts: AnnData, space: ExpressionSpace) -> None:
    assert space.preprocessing is not None
    strict = ExpressionSpace(space.genes, Preprocessing(100, None, min_counts=80, min_genes=0))

    with pytest.warns(InputWarning, match=r"of 40 cells have fewer than 80 counts or 0 expressed genes"):
        read_aligned(controls(counts), strict, KEYS)


def test_the_space_survives_json(space: ExpressionSpace) -> None:
    assert space.preprocessing is not None
    assert space.scale is not None
    assert Preprocessing.from_mapping(asdict(space.preprocessing)) == space.preprocessing
    assert Preprocessing.from_mapping(space.preprocessing.to_uns()) == space.preprocessing
    assert ExpressionScale(**asdict(space.scale)) == space.scale


@pytest.mark.parametrize("uns", [{"target_sum": "much"}, {}, {"target_sum": -1}, 3])
def test_a_recipe_that_is_none_is_refused(trained: AnnData, uns: Any) -> None:
    other = trained.copy()
    other.uns["multipert_preprocessing"] = uns
    with pytest.raises(InputError, match="not as multipert writes it"):
        PerturbationData.read(other, KEYS)


def test_a_recipe_that_the_cells_belie_is_refused(trained: AnnData) -> None:
    other = trained.copy()
    other.X.data = other.X.data + 1
    with pytest.raises(InputError, match="says that cells were scaled to a total of"):
        PerturbationData.read(other, KEYS)


def test_another_logarithm_is_refused(trained: AnnData) -> None:
    other = trained.copy()
    other.uns["log1p"] = {"base": 2}
    with pytest.raises(InputError, match="logarithms to base 2"):
        PerturbationData.read(other, KEYS)


class TestGeneNames:
    @given(st.permutations(range(40)))
    def test_order_does_not_matter(self, order: list[int]) -> None:
        names, note = match_names(pd.DataFrame(index=[SYMBOLS[i] for i in order]), pd.Index(SYMBOLS))
        assert note is None
        assert list(names) == [SYMBOLS[i] for i in order]

    @pytest.mark.parametrize(("index", "column", "wanted"), [(IDS, SYMBOLS, SYMBOLS), (SYMBOLS, IDS, IDS)])
    def test_a_column_holds_the_names(self, index: list[str], column: list[str], wanted: list[str]) -> None:
        var = pd.DataFrame({"other": 1.0, "named": pd.Categorical(column), "note": "x"}, index=index)

        names, note = match_names(var, pd.Index(wanted))

        assert list(names) == wanted
        assert note == "genes were matched by var['named'] (40 of 40 found)"

    @pytest.mark.parametrize("where", ["file", "model", "column"])
    def test_versions_are_left_off(self, where: str) -> None:
        versions = [f"{name}.{number}" for number, name in enumerate(IDS)]
        var = pd.DataFrame({"id": versions if where == "column" else "x"}, index=SYMBOLS)
        if where != "column":
            var.index = pd.Index(versions if where == "file" else IDS)
        wanted = versions if where == "model" else IDS

        names, note = match_names(var, pd.Index(wanted))

        assert list(names) == wanted
        assert "without Ensembl versions" in str(note)

    def test_readers_are_told_symbols(self) -> None:
        var = pd.DataFrame({"gene_symbol": ["ISG15", "ISG15", None, "", "IFI6"]}, index=IDS[:5])
        assert list(symbols(var)) == [*IDS[:4], "IFI6"]
        assert list(symbols(var.set_axis(SYMBOLS[:5]))) == SYMBOLS[:5]
        assert list(symbols(pd.DataFrame(index=IDS))) == IDS

    def test_a_name_that_comes_twice_counts_once(self) -> None:
        var = pd.DataFrame({"symbol": [*SYMBOLS, "GENE3"]}, index=[*IDS, "ENSG00000999999"])

        names, note = match_names(var, pd.Index(SYMBOLS))

        assert list(names) == [*SYMBOLS, ""]
        assert "1 that come twice count once" in str(note)

    @pytest.mark.parametrize(
        ("index", "message"),
        [
            (IDS, "symbols .*'GENE0'.* Ensembl ids .*, and no column of var holds symbols: add one"),
            ([name.title() for name in SYMBOLS], "differ in upper and lower case"),
            ([f"x{i}" for i in range(40)], "no gene of the training data is there"),
        ],
    )
    def test_nothing_in_common(self, index: list[str], message: str) -> None:
        with pytest.raises(InputError, match=message):
            match_names(pd.DataFrame(index=index), pd.Index(SYMBOLS))

    def test_what_was_matched_otherwise_is_said(self, counts: AnnData, space: ExpressionSpace) -> None:
        other = controls(counts)
        expected = read_aligned(other, space, KEYS).X.toarray()
        other.var["symbol"] = other.var_names
        other.var_names = [f"ENSG{i:011d}.7" for i in range(other.n_vars)]

        with pytest.warns(InputWarning, match=r"matched by var\['symbol'\] \(50 of 50 found\)"):
            aligned = read_aligned(other, space, KEYS)

        np.testing.assert_array_equal(aligned.X.toarray(), expected)
        with warnings.catch_warnings():
            warnings.simplefilter("error", InputWarning)
            read_aligned(controls(counts), space, KEYS)


def test_a_group_whose_median_cell_is_empty_has_a_scale(tmp_path: Path) -> None:
    X = np.zeros((40, 3), dtype=np.float32)
    X[::4] = 0.7
    X[1, 1] = 0.3
    obs = pd.DataFrame({"condition": ["control", "drug"] * 20, "cell_type": "A"}, index=[f"c{i}" for i in range(40)])
    adata = AnnData(X, obs=obs)
    data = PerturbationData.read(adata, KEYS)

    mp.models.create("no-change").fit(data, run=tmp_path / "run")

    controls = adata[adata.obs["condition"] == "control"].copy()
    predicted = mp.models.load(tmp_path / "run").predict(controls, "drug")
    np.testing.assert_array_equal(predicted.X, controls.X)
