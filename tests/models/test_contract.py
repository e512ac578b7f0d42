"""What every model must keep, whatever its method."""

from collections.abc import Callable

import numpy as np
import pytest
from anndata import AnnData

import multipert as mp
from models.conftest import KEYS, quick
from multipert.models import MODELS, Model
from multipert.testing import check_model

Tiny = Callable[..., Model]


def test_all_are_there() -> None:
    families = [model.family for model in MODELS.values()]
    assert (families.count("multi-task"), families.count("published"), families.count("baseline")) == (9, 5, 10)


@pytest.mark.parametrize("name", MODELS)
def test_it_can_be_used_as_every_model(name: str) -> None:
    check_model(MODELS[name], **quick(name))


@pytest.mark.parametrize("name", MODELS)
def test_another_seed_gives_another_model_where_anything_is_random(name: str, adata: AnnData, tiny: Tiny) -> None:
    data = mp.PerturbationData.from_anndata(adata, **KEYS)
    controls = data.to_anndata(data.rows(condition="control", context="B"))
    one, other = (tiny(name, seed=seed).fit(data).predict(controls, "alpha").X for seed in (1, 2))
    deterministic = MODELS[name].family == "baseline" and name != "resample"
    assert np.array_equal(one, other) == deterministic


@pytest.mark.parametrize("name", MODELS)
def test_two_contexts_one_perturbation_one_cell_in_a_group(
    name: str, adata: AnnData, controls: AnnData, tiny: Tiny
) -> None:
    few = adata[adata.obs["condition"].isin(["control", "alpha"]) & (adata.obs["cell_type"] != "C")]
    lonely = (few.obs["condition"] == "alpha") & (few.obs["cell_type"] == "A")
    data = mp.PerturbationData.from_anndata(few[~lonely | (lonely.cumsum() == 1)], **KEYS)
    predicted = tiny(name).fit(data, mp.leave_context_out(data, "B")).predict(controls, "alpha")
    assert np.isfinite(predicted.X).all()


@pytest.mark.parametrize("name", MODELS)
def test_nine_perturbations(name: str, tiny: Tiny) -> None:
    names = [f"p{i}" for i in range(9)]
    data = mp.PerturbationData.from_anndata(
        mp.simulate(n_genes=30, contexts=("A", "B"), perturbations=names, cells_per_group=6), **KEYS
    )
    model = tiny(name).fit(data, mp.leave_context_out(data, "B"))
    assert model.perturbations == tuple(names)
    predicted = model.predict(data.to_anndata(data.rows(condition="control", context="B")), "all")
    assert list(predicted.obs["condition"].cat.categories) == names
    assert np.isfinite(predicted.X).all()
