"""What a fitted model says of a perturbation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import multipert as mp
from models.conftest import KEYS
from multipert.models import Explanation, Model

Made = Callable[..., Model]


@pytest.fixture(scope="module")
def fitted(tiny: Made, data: mp.PerturbationData) -> Callable[[str], Model]:
    """The model of a name, fitted without B's response."""
    return lambda name: tiny(name).fit(data, mp.leave_context_out(data, "B"), progress=False)


def decoded_under(model: Any, cells: AnnData, condition: str) -> pd.Series:
    """The mean of cells, encoded and decoded under a condition, nothing below zero."""
    x = torch.from_numpy(cells.X.toarray())
    c = (
        torch.nn.functional.one_hot(torch.tensor(model.metadata_.conditions.index(condition)), 3)
        .float()
        .expand(len(x), 3)
    )
    with torch.no_grad():
        profiles = model.network_.decode(model.network_.encode(x), c).numpy()
    return pd.Series(profiles.clip(0).mean(axis=0), index=cells.var_names)


def genes(explained: Explanation) -> pd.DataFrame:
    assert explained.genes is not None
    return explained.genes


@pytest.mark.parametrize("name", ["mean-shift", "nearest-context", "linear", "mtcell"])
def test_models_that_keep_means_explain_what_they_predict(
    fitted: Callable[[str], Model], controls: AnnData, name: str
) -> None:
    model = fitted(name)
    of_kept, of_given = mp.explain(model, "alpha"), mp.explain(model, "alpha", controls)
    assert (of_kept.of, of_given.of, of_kept.units) == ("B", "12 control cells", None)
    kept = genes(of_kept)
    given = genes(of_given).loc[kept.index]
    np.testing.assert_allclose(kept["control"], given["control"], atol=1e-5)
    np.testing.assert_allclose(
        given["predicted"], model.predict(controls, "alpha").to_df().mean()[kept.index], atol=1e-5
    )
    assert np.corrcoef(kept["effect"], given["effect"])[0, 1] > 0.8
    assert kept["effect"].abs().is_monotonic_decreasing


def test_effects_are_those_of_the_true_cells(tiny: Made) -> None:
    adata = mp.simulate(
        n_genes=40, contexts=("A", "B"), perturbations=("alpha",), cells_per_group=200, context_specific=0, response=2
    )
    data = mp.PerturbationData.from_anndata(adata, **KEYS)
    model = tiny("mean-shift").fit(data, mp.leave_context_out(data, "B"), progress=False)
    control, truth = (
        data.to_anndata(data.rows(condition=name, context="B")).to_df().mean() for name in ("control", "alpha")
    )
    effect = genes(mp.explain(model, "alpha"))["effect"]
    assert np.corrcoef(effect, (truth - control)[effect.index])[0, 1] > 0.9


def test_intervals_hold_the_effect(fitted: Callable[[str], Model]) -> None:
    found = genes(mp.explain(fitted("mtcell"), "alpha"))
    assert found["effect"].between(found["low"], found["high"]).all()
    assert (found["low"] < found["high"]).any()


def test_a_context_or_the_mean_of_all(tiny: Made, data: mp.PerturbationData) -> None:
    model = tiny("mtcell").fit(data, progress=False)
    of_all = mp.explain(model, "alpha")
    assert of_all.of == "the mean of 3 training contexts"
    assert list(genes(of_all)) == ["control", "predicted", "effect"]
    each = pd.concat(
        [genes(mp.explain(model, "alpha", context=context))["effect"] for context in data.contexts], axis=1
    )
    pd.testing.assert_series_equal(genes(of_all)["effect"], each.mean(axis=1), check_like=True, check_names=False)


def test_the_family_moves_genes_by_the_condition_alone(fitted: Callable[[str], Model], controls: AnnData) -> None:
    model = fitted("mtae")
    found = genes(mp.explain(model, "alpha", controls))
    for column, condition in (("predicted", "alpha"), ("control", "control")):
        decoded = decoded_under(model, controls, condition)
        np.testing.assert_allclose(found[column], decoded[found.index], atol=1e-5)


def test_units_by_what_film_does_to_them(fitted: Callable[[str], Model]) -> None:
    model = fitted("mtae")
    explained = mp.explain(model, "beta")
    units = explained.units
    assert explained.genes is None
    assert units is not None
    assert units["strength"].is_monotonic_decreasing
    (gamma, beta), (gamma_0, beta_0) = model.film("beta")[0], model.film("control")[0]  # type: ignore[attr-defined]
    strongest = int(units["unit"][0])
    inputs = np.random.default_rng(0).normal(size=(20_000, len(units)))
    moved = np.sqrt((((gamma - gamma_0) * inputs + beta - beta_0) ** 2).mean(axis=0))
    assert strongest == moved.argmax()
    assert units["strength"][0] == pytest.approx(moved[strongest], rel=0.05)
    assert all(word[0] in "+-" and word[1:] in model.metadata_.genes for word in units["genes"][0].split())


def test_gene_scores_of_scvidr(fitted: Callable[[str], Model]) -> None:
    model = fitted("scvidr")
    explained = mp.explain(model, "alpha")
    assert explained.of == "B"
    assert genes(explained)["score"].equals(model.gene_scores("alpha"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["scgen", "scpregan", "scbutterfly"])
def test_networks_that_keep_no_cells_need_some(fitted: Callable[[str], Model], controls: AnnData, name: str) -> None:
    model = fitted(name)
    with pytest.raises(mp.InputError, match=rf"{name} keeps no cells, .*give control cells"):
        mp.explain(model, "alpha")
    assert len(genes(mp.explain(model, "alpha", controls))) == controls.n_vars


def test_contexts_count_equally(fitted: Callable[[str], Model], adata: AnnData) -> None:
    controls = adata[adata.obs["condition"] == "control"]
    uneven = controls[[*range(12), *range(12, 15)]]
    both = mp.explain(fitted("mean-shift"), "alpha", uneven.copy())
    assert both.of == "15 control cells of 2 contexts, which count equally"
    means = [controls[rows].to_df().mean() for rows in (range(12), range(12, 15))]
    np.testing.assert_allclose(genes(both)["control"], (sum(means) / 2)[genes(both).index], atol=1e-6)


def test_what_cannot_be_explained(fitted: Callable[[str], Model], controls: AnnData) -> None:
    nothing, shift, family = fitted("no-change"), fitted("mean-shift"), fitted("mtae")
    for given in (None, controls):
        with pytest.raises(mp.InputError, match="no-change moves no gene under 'alpha': there is nothing to explain"):
            mp.explain(nothing, "alpha", given)
    with pytest.raises(mp.InputError, match="knows no perturbation 'alpah'; did you mean 'alpha'"):
        mp.explain(shift, "alpah")
    with pytest.raises(mp.InputError, match="knows no context 'D'"):
        mp.explain(shift, "alpha", context="D")
    with pytest.raises(mp.InputError, match="leave one out"):
        mp.explain(shift, "alpha", controls, context="A")
    with pytest.raises(mp.InputError, match="mtae keeps no cells"):
        mp.explain(family, "alpha", context="A")


@pytest.mark.parametrize("name", ["mean-shift", "mtcell"])
def test_a_context_without_control_cells(tiny: Made, adata: AnnData, name: str) -> None:
    without = adata[(adata.obs["cell_type"] != "C") | (adata.obs["condition"] != "control")].copy()
    model = tiny(name).fit(mp.PerturbationData.from_anndata(without, **KEYS), progress=False)
    assert mp.explain(model, "alpha").of == "the mean of 2 training contexts"
    with pytest.raises(mp.InputError, match="training saw no control cells of 'C'"):
        mp.explain(model, "alpha", context="C")
