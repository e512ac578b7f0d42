"""Models that train in a moment, and the small world they are tried in."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from anndata import AnnData

import multipert as mp
from multipert.models import MODELS, Model

KEYS: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}

QUICK: dict[str, Any] = {
    "batch_size": 4,
    "epochs": 2,
    "pretrain_epochs": 1,
    "transport_epochs": 1,
    "discriminator_epochs": 1,
    "joint_epochs": 1,
    "iterations": 3,
    "latent": 4,
}


def quick(name: str) -> dict[str, Any]:
    """Values with which a model trains in a moment."""
    known = {field.name for field in dataclasses.fields(MODELS[name].Parameters)}
    return {key: value for key, value in QUICK.items() if key in known}


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Model]:
    """Makes the model of a name, such that it trains in a moment."""
    return lambda name, **changes: mp.models.create(name, **(quick(name) | changes))


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return mp.simulate(
        n_genes=40, contexts=("A", "B", "C"), perturbations=("alpha", "beta"), cells_per_group=12, seed=3
    )


@pytest.fixture(scope="module")
def data(adata: AnnData) -> mp.PerturbationData:
    return mp.PerturbationData.from_anndata(adata, **KEYS)


@pytest.fixture(scope="module")
def controls(adata: AnnData) -> AnnData:
    return adata[(adata.obs["condition"] == "control") & (adata.obs["cell_type"] == "B")].copy()
