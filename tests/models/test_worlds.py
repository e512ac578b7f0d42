"""Every model in two simulated worlds: one in which all contexts respond alike and strongly, one without response."""

from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import multipert as mp
from models.conftest import KEYS

pytestmark = pytest.mark.slow

# In worlds this small an epoch is a few batches: these settings give every network some hundred steps.
SETTINGS: dict[str, dict[str, Any]] = {
    "mtae": {"batch_size": 16, "epochs": 40},
    "mtae-adv": {"batch_size": 16, "epochs": 30, "discriminator_epochs": 2, "joint_epochs": 10},
    "mtae-advg": {"batch_size": 16, "epochs": 30, "discriminator_epochs": 2, "joint_epochs": 10},
    "mtae-ot": {"batch_size": 16, "epochs": 60},
    "mtae-plus-ot": {"batch_size": 16, "epochs": 30, "transport_epochs": 30},
    "mtvae": {"batch_size": 16, "epochs": 40},
    "mtvae-ot": {"batch_size": 16, "epochs": 60},
    "mtvae-plus-ot": {"batch_size": 16, "epochs": 30, "transport_epochs": 30},
    "scgen": {"hidden": 128, "epochs": 60, "batch_size": 16},
    "scvidr": {"hidden": 128, "epochs": 60, "batch_size": 16},
    "scvidr-dose": {"hidden": 128, "epochs": 60, "batch_size": 16},
    "scbutterfly": {"batch_size": 16, "mask": 0.2, "lr": 5e-3},
}


def world(response: float) -> mp.PerturbationData:
    cells = mp.simulate(
        n_genes=200,
        contexts=("A", "B", "C", "D"),
        perturbations=("p",),
        cells_per_group=80,
        response=response,
        context_specific=0.1,
    )
    # Few true cells leave much noise between them: what no prediction can be held to.
    hidden = np.flatnonzero((cells.obs["cell_type"] == "B") & (cells.obs["condition"] == "p"))
    kept = np.setdiff1d(np.arange(cells.n_obs), hidden[16:])
    return mp.PerturbationData.from_anndata(cells[kept], **KEYS)


def predicted(name: str, data: mp.PerturbationData) -> tuple[AnnData, AnnData, AnnData]:
    """Control, true and predicted cells of the held-out context."""
    model = mp.models.create(name, **SETTINGS.get(name, {})).fit(data, mp.leave_context_out(data, "B"))
    control, truth = (data.to_anndata(data.rows(condition=name, context="B")) for name in ("control", "p"))
    return control, truth, model.predict(control, "p")


def mean(cells: AnnData) -> Any:
    return np.asarray(cells.X.mean(axis=0)).ravel()


@pytest.fixture(scope="module")
def responding() -> mp.PerturbationData:
    return world(2.0)


@pytest.fixture(scope="module")
def silent() -> mp.PerturbationData:
    return world(0.0)


@pytest.mark.parametrize("name", [name for name in mp.models.MODELS if name != "no-change"])
def test_a_strong_shared_response_is_found(name: str, responding: mp.PerturbationData) -> None:
    control, truth, prediction = predicted(name, responding)
    score = mp.evaluate(control=control, truth=truth, predicted=prediction, metrics=["edist_vs_control"])
    assert score["edist_vs_control"] < 1


@pytest.mark.parametrize("name", mp.models.MODELS)
def test_no_response_is_invented(name: str, silent: mp.PerturbationData) -> None:
    """The shift that is predicted is smaller than the one between halves of the true cells, the noise ceiling's."""
    control, truth, prediction = predicted(name, silent)
    rng = np.random.default_rng(0)
    halves = [np.array_split(rng.permutation(truth.n_obs), 2) for _ in range(5)]
    noise = np.mean([np.linalg.norm(mean(truth[one]) - mean(truth[other])) for one, other in halves])
    assert np.linalg.norm(mean(prediction) - mean(control)) < noise
