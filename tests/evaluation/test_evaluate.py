"""`evaluate` takes cells as they come, and says in one sentence what it cannot take."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import multipert as mp
from evaluation.conftest import Cells, adata
from multipert.data import PerturbationData
from multipert.errors import InputError
from multipert.evaluation import METRICS, PROFILES, STUDY, bounds, evaluate, evaluate_many


def test_all_scores_but_discrimination_in_order(made: Cells) -> None:
    scores = evaluate(**made.named())
    assert list(scores.index) == [name for name, metric in METRICS.items() if not metric.several]
    assert scores.dtype == np.float64
    assert scores.attrs["notes"] == {}


def test_chosen_scores_in_the_order_asked(made: Cells) -> None:
    scores = evaluate(**made.named(), metrics=["mse", "degs", "mse"])
    assert list(scores.index) == ["mse", "degs"]
    assert list(evaluate(**made.named(), metrics=STUDY).index) == list(STUDY)


def test_no_warning_escapes(made: Cells) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(**made.named())
        evaluate(control=made.control, truth=made.control, predicted=made.control)


def test_memory_paths_and_backed_files_give_the_same_scores(made: Cells, tmp_path: Path) -> None:
    in_memory = evaluate(**made.named())
    paths: dict[str, Any] = {}
    for role, cells in made.named().items():
        if role == "predicted":
            cells.X = cells.X.toarray()
        paths[role] = tmp_path / f"{role}.h5ad"
        cells.write_h5ad(paths[role])
    pd.testing.assert_series_equal(evaluate(**paths), in_memory)
    as_text: dict[str, Any] = {role: str(path) for role, path in paths.items()}
    pd.testing.assert_series_equal(evaluate(**as_text), in_memory)
    backed = {role: anndata.read_h5ad(path, backed="r") for role, path in paths.items()}
    pd.testing.assert_series_equal(evaluate(**backed), in_memory)


@pytest.mark.parametrize(
    "store",
    [
        lambda X: X.toarray(),
        sparse.csc_matrix,
        sparse.csr_array,
        lambda X: X.toarray().astype(np.float64),
        lambda X: np.asfortranarray(X.toarray()),
        lambda X: sparse.csr_matrix(  # stored zeros
            (np.append(X.data, 0).astype(np.float32), np.append(X.indices, 119), np.append(X.indptr[:-1], X.nnz + 1)),
            shape=X.shape,
        ),
    ],
)
def test_how_the_values_are_stored_does_not_matter(made: Cells, store: Any) -> None:
    stored = {role: adata(store(cells.X)) for role, cells in made.named().items()}
    np.testing.assert_allclose(evaluate(**stored), evaluate(**made.named()), rtol=1e-5, atol=1e-7)


def test_the_cells_given_are_left_as_they_were(made: Cells) -> None:
    before = {role: cells.copy() for role, cells in made.named().items()}
    evaluate(**made.named())
    for role, cells in made.named().items():
        assert (cells.X != before[role].X).nnz == 0
        pd.testing.assert_frame_equal(cells.obs, before[role].obs)


def test_genes_are_matched_by_name(made: Cells) -> None:
    order = np.random.default_rng(0).permutation(made.truth.n_vars)
    shuffled = Cells(made.control[:, order].copy(), made.truth, made.predicted[:, order[::-1]].copy())
    pd.testing.assert_series_equal(evaluate(**shuffled.named()), evaluate(**made.named()))


def test_views_are_taken(made: Cells) -> None:
    views = {role: cells[:20] for role, cells in made.named().items()}
    copies = {role: cells[:20].copy() for role, cells in made.named().items()}
    pd.testing.assert_series_equal(evaluate(**views), evaluate(**copies))


def refused(cells: dict[str, Any], **options: Any) -> str:
    """The sentence of a refusal."""
    with pytest.raises(InputError) as refusal:
        (evaluate_many if "perturbation_key" in options else evaluate)(**cells, **options)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    return sentence


CALLED = {"control": "control cells", "truth": "true cells", "predicted": "predicted cells"}


@pytest.mark.parametrize(("value", "fault"), [(np.nan, "NaN"), (np.inf, "infinite"), (-0.5, "negative")])
@pytest.mark.parametrize("role", CALLED)
@pytest.mark.parametrize("as_dense", [True, False])
def test_values_that_cannot_be_are_refused(made: Cells, value: float, fault: str, role: str, as_dense: bool) -> None:
    cells = made.named()
    X = cells[role].X.toarray()
    X[3, 7] = value
    cells[role] = adata(X if as_dense else sparse.csr_matrix(X))
    cell = cells[role].obs_names[3]
    expected = f"the {CALLED[role]}: 1 values are {fault} (the first in cell '{cell}', gene 'g7'): "
    assert refused(cells).startswith(expected)


def test_predictions_may_round_below_zero(made: Cells) -> None:
    X = made.predicted.X.toarray()
    below = np.where(X == 0, np.float32(-5e-4), X)
    for store in (np.array, sparse.csr_matrix):
        scores = evaluate(**{**made.named(), "predicted": adata(store(below))})
        np.testing.assert_allclose(scores, evaluate(**made.named()), rtol=1e-6, atol=1e-9)
    assert "values are negative" in refused({**made.named(), "truth": adata(below)})


def test_genes_that_differ_are_named(made: Cells) -> None:
    fewer = {**made.named(), "predicted": made.predicted[:, :118].copy()}
    assert "the predicted cells lack 2 of the 120 genes of the true cells (g118, g119)" in refused(fewer)
    more = {**made.named(), "truth": made.truth[:, 8:].copy()}
    assert "the control cells have 8 genes that the true cells do not (g0, g1, g2, g3, g4 and 3 more)" in refused(more)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_gene_names_are_refused(made: Cells) -> None:
    cells = made.named()
    cells["truth"].var_names = ["g0", *cells["truth"].var_names[:-1]]
    assert "the true cells: 1 gene names occur more than once ('g0')" in refused(cells)


def test_no_cells_and_no_expression_are_refused(made: Cells) -> None:
    assert "0 cells x 120 genes" in refused({**made.named(), "predicted": made.predicted[:0].copy()})
    no_expression = anndata.AnnData(obs=made.control.obs, var=made.control.var)
    assert "the control cells: X is empty" in refused({**made.named(), "control": no_expression})
    assert "every value is zero" in refused({**made.named(), "predicted": adata(np.zeros((3, 120)))})


@pytest.fixture
def real(kang: Callable[[str], Cells]) -> Cells:
    """Cells whose counts show: two kinds of control, one of them standing for a prediction."""
    cells = kang("CD14+Mono")
    return Cells(cells.control[:60].copy(), cells.truth[:60].copy(), cells.truth[60:120].copy())


def as_counts(cells: Any) -> Any:
    """The counts that log-normalised cells come from."""
    counts = np.expm1(cells.X.toarray().astype(np.float64))
    counts /= np.where(counts > 0, counts, np.inf).min(axis=1, keepdims=True)
    return changed(cells, np.rint(counts))


def changed(cells: Any, X: Any) -> Any:
    other = cells.copy()
    other.X = sparse.csr_matrix(X.astype(np.float32))
    return other


@pytest.mark.parametrize("role", CALLED)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda cells: as_counts(cells), "the values are raw counts (all are whole numbers)"),
        (lambda cells: changed(cells, as_counts(cells).X.toarray() * 0.02), "normalised, but not log-transformed"),
        (lambda cells: changed(cells, np.log1p(cells.X.toarray())), "were log-transformed twice"),
        (lambda cells: changed(cells, cells.X.toarray() * 9), "too large to be log-normalised"),
        (
            lambda cells: changed(cells, np.where(cells.X.toarray() > 3, 1e30, cells.X.toarray())),
            "too large to be log-normalised",
        ),
    ],
)
def test_cells_that_fit_would_refuse_are_refused(real: Cells, role: str, change: Any, sentence: str) -> None:
    cells = real.named()
    cells[role] = change(cells[role])
    told = refused(cells)
    assert told.startswith(f"the {CALLED[role]}: the values")
    assert sentence in told
    with pytest.raises(InputError) as of_fit:
        PerturbationData.from_anndata(
            anndata.concat({"a": cells[role], "b": cells[role]}, label="made", index_unique="-"),
            perturbation_key="made", control="a", context_key="cell_type",
        )  # fmt: skip
    assert str(of_fit.value) == told.removeprefix(f"the {CALLED[role]}: ")


def smoothed(cells: Any, X: Any) -> Any:
    """Cells whose counts no longer show, as a network predicts them."""
    rng = np.random.default_rng(0)
    return changed(cells, X.mean(axis=0) * rng.uniform(0.9, 1.1, size=X.shape))


@pytest.mark.parametrize("transform", [np.log1p, lambda X: np.expm1(X) * 0.04])
def test_predictions_on_another_scale_are_refused_with_the_figures(real: Cells, transform: Any) -> None:
    moved = smoothed(real.predicted, transform(real.predicted.X.toarray()))
    told = refused({**real.named(), "predicted": moved})
    assert told.startswith("the predicted cells and the true cells are not on one scale: a cell's total")


def test_controls_that_are_not_logged_are_refused_with_the_figures(real: Cells) -> None:
    moved = smoothed(real.control, np.expm1(real.control.X.toarray()) * 0.04)
    told = refused({**real.named(), "control": moved})
    assert told.startswith("the control cells and the true cells are not on one scale: a cell's total")


def test_predictions_that_are_only_poor_are_scored(real: Cells) -> None:
    poor = smoothed(real.predicted, real.predicted.X.toarray()).X.toarray()
    rng = np.random.default_rng(0)
    for X in (0.5 * poor, 1.5 * poor, rng.permutation(poor, axis=1), rng.uniform(0, 3, size=poor.shape)):
        assert np.isfinite(evaluate(**{**real.named(), "predicted": changed(real.predicted, X)})["mse"])


@pytest.mark.parametrize("transform", [lambda X: np.expm1(X) * 0.3, np.log1p])
def test_a_prediction_of_ours_that_was_transformed_since_is_refused(transform: Any) -> None:
    cells = mp.simulate(
        n_genes=300, contexts=["A", "B", "C"], cells_per_group=80, context_specific=0.0, response=0.5, seed=1
    )
    keys: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
    data = mp.PerturbationData.from_anndata(cells, **keys)
    model = mp.models.create("mean-shift").fit(data, mp.leave_context_out(data, "B"))
    control = data.to_anndata(data.rows(condition="control", context="B"))
    name = data.perturbations[0]
    truth = data.to_anndata(data.rows(condition=name, context="B"))
    predicted = model.predict(control, name)
    evaluate(control=control, truth=truth, predicted=predicted, metrics=["mse"])
    assert "multipert" in predicted.uns
    predicted.X = transform(predicted.X)
    with pytest.raises(InputError, match="not on one scale"):
        evaluate(control=control, truth=truth, predicted=predicted, metrics=["mse"])
    del predicted.uns["multipert"]["values"]  # of an older version, or changed by hand
    with pytest.raises(InputError, match="not on one scale"):
        evaluate(control=control, truth=truth, predicted=predicted, metrics=["mse"])


def test_files_scaled_each_to_its_own_total_are_refused(real: Cells) -> None:
    def to(total: float, cells: Any) -> Any:
        X = np.expm1(cells.X.toarray())
        return changed(cells, np.log1p(total * X / X.sum(axis=1, keepdims=True)))

    cells = {"control": to(1500, real.control), "truth": to(2500, real.truth), "predicted": to(2500, real.predicted)}
    assert "(sum of expm1) is 1500 against 2500 (medians)" in refused(cells)
    assert evaluate(**{**cells, "control": to(2500, real.control)})["mse"] > 0


def test_several_perturbations_are_not_pooled_unasked(made: Cells) -> None:
    cells = {role: labelled(part, "ab") for role, part in made.named().items()}
    cells["control"].obs["drug"] = "none"
    told = refused(cells)
    assert "hold 2 perturbations, told apart by obs['drug'] (a, b)" in told
    assert "--perturbation-key drug" in told
    assert evaluate_many(**cells, perturbation_key="drug").shape[0] == 2
    del cells["control"].obs["drug"]
    assert evaluate(**cells).notna().any()  # nothing says that they are perturbations


def test_files_that_cannot_be_read_are_refused(made: Cells, tmp_path: Path) -> None:
    assert "absent.h5ad does not exist" in refused({**made.named(), "truth": tmp_path / "absent.h5ad"})
    text = tmp_path / "text.h5ad"
    text.write_text("not cells")
    assert "the true cells: " in refused({**made.named(), "truth": text})
    assert "is no h5ad file" in refused({**made.named(), "truth": text})
    whole, part = tmp_path / "whole.h5ad", tmp_path / "part.h5ad"
    made.truth.write_h5ad(whole)
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "truncated or damaged" in refused({**made.named(), "truth": part})
    assert "give an AnnData or the path" in refused({**made.named(), "truth": [1, 2]})
    fewer = made.predicted[:, :118].copy()
    fewer.X = -fewer.X
    fewer.write_h5ad(part)
    assert refused({**made.named(), "predicted": part}).startswith(f"the predicted cells ({part}): ")


def test_unknown_metrics_are_refused(made: Cells) -> None:
    assert refused(made.named(), metrics=["mse", "speed"]).startswith(
        "there is no metric named speed: choose among degs"
    )
    assert "discrimination needs several perturbations" in refused(made.named(), metrics=["discrimination"])


def labelled(cells: Any, labels: str) -> Any:
    named = cells.copy()
    named.obs["drug"] = pd.Categorical([labels[i % len(labels)] for i in range(cells.n_obs)], categories=list("zyxab"))
    return named


def test_several_perturbations_score_each_like_alone(made: Cells) -> None:
    truth, predicted = labelled(made.truth, "ab"), labelled(made.predicted, "ba")
    scores: Any = evaluate_many(control=made.control, truth=truth, predicted=predicted, perturbation_key="drug")
    assert list(scores.columns) == list(PROFILES["default"].metrics())
    assert list(scores.index) == ["a", "b"]
    assert scores.index.name == "drug"
    for drug in "ab":
        alone = evaluate(
            control=made.control,
            truth=truth[truth.obs["drug"] == drug],
            predicted=predicted[predicted.obs["drug"] == drug],
        )
        pd.testing.assert_series_equal(
            scores.loc[drug].drop(["perturbed_pearson", "discrimination"]), alone, check_names=False
        )


def test_perturbations_given_by_name_score_like_those_told_apart_by_a_column(made: Cells) -> None:
    truth, predicted = labelled(made.truth, "ab"), labelled(made.predicted, "ba")
    apart = evaluate_many(control=made.control, truth=truth, predicted=predicted, perturbation_key="drug")
    named = [{drug: cells[cells.obs["drug"] == drug].copy() for drug in "ba"} for cells in (truth, predicted)]
    by_name = evaluate_many(control=made.control, truth=named[0], predicted=named[1])
    pd.testing.assert_frame_equal(by_name, apart, check_names=False)
    with pytest.raises(InputError, match="name the column that does, or give each its own cells"):
        evaluate_many(control=made.control, truth=truth, predicted=predicted)
    with pytest.raises(InputError, match="there are no true cells"):
        evaluate_many(control=made.control, truth={}, predicted={})
    limits = bounds(control=made.control, truth=named[0], metrics=["mse"])
    told = bounds(control=made.control, truth=truth, perturbation_key="drug", metrics=["mse"])
    pd.testing.assert_frame_equal(limits, told, check_names=False)


def test_one_perturbation_has_no_discrimination(made: Cells) -> None:
    one = {role: labelled(cells, "a") for role, cells in made.named().items()}
    scores = evaluate_many(**one, perturbation_key="drug")
    assert scores[["discrimination", "perturbed_pearson"]].isna().all(axis=None)


def test_perturbations_that_differ_are_named(made: Cells) -> None:
    cells = {"control": made.control, "truth": labelled(made.truth, "ab"), "predicted": labelled(made.predicted, "ax")}
    assert "hold none of 1 perturbations of the true cells (b)" in refused(cells, perturbation_key="drug")
    cells["truth"] = labelled(made.truth, "a")
    assert "hold 1 perturbations that the true cells do not (x)" in refused(cells, perturbation_key="drug")
    assert "the perturbation key 'dose' is not a column of obs; there is 'drug'" in refused(
        cells, perturbation_key="dose"
    )


def test_an_estimate_says_so(made: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multipert.evaluation.distances.EXACT_TRANSPORT_CELLS", 25)
    monkeypatch.setattr("multipert.evaluation.distances.TRANSPORT_DRAW_CELLS", 20)
    first, again = (evaluate(**made.named(), seed=4) for _ in range(2))
    assert "estimated from 3 draws of 20 cells" in first.attrs["notes"]["wasserstein"]
    pd.testing.assert_series_equal(first, again)


def test_importing_the_package_is_light() -> None:
    heavy = ["torch", "numba", "scanpy", "sklearn", "pertpy", "ot"]
    code = f"import sys, multipert.evaluation; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
