"""A network's mean as one more member of mtcell's sum."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix

from models.conftest import KEYS, quick
from multipert import PerturbationData, Split, leave_context_out, simulate
from multipert.errors import InputError, InputWarning
from multipert.models import MODELS, Model, NetworkModel, create, load, register
from multipert.models.metadata import FitMetadata
from multipert.training import History, Stage, TrainerConfig

Rows = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def world() -> PerturbationData:
    """Five contexts whose responses have nothing in common, so that mtcell is poor."""
    rng = np.random.default_rng(0)
    adata = simulate(n_genes=60, perturbations=("alpha", "beta"), cells_per_group=30, response=0, seed=3)
    X = adata.X.toarray() + np.float32(2)
    for context in adata.obs["cell_type"].unique():
        for condition in ("alpha", "beta"):
            group = (adata.obs["cell_type"] == context) & (adata.obs["condition"] == condition)
            X[group.to_numpy()] += rng.normal(0, 0.5, 60).astype(np.float32)
    adata.X = csr_matrix(X)
    return PerturbationData.from_anndata(adata, **KEYS)


@pytest.fixture
def stand_in(world: PerturbationData) -> Iterator[type[NetworkModel]]:
    """A network that knows the truth, or as far as it says ``luck``, chance."""
    group = world.condition * len(world.contexts) + world.context
    means = np.stack([np.asarray(world.X[group == code].mean(axis=0)).ravel() for code in range(group.max() + 1)])
    by_group = means.reshape(len(world.conditions), len(world.contexts), -1)

    class StandIn(NetworkModel):
        name = "stand-in"
        family = "multi-task"
        luck: ClassVar[float] = 0.0
        fits: ClassVar[list[int]] = []

        def _network(self, metadata: FitMetadata) -> Any:
            from torch import nn

            return nn.Linear(1, 1)

        def _stages(self, network: Any, data: PerturbationData, split: Split) -> list[Stage]:
            return []

        def _learn(
            self, data: PerturbationData, split: Split, config: TrainerConfig, identity: Mapping[str, Any]
        ) -> History:
            self.network_ = self._untrained(self.metadata_)
            self.fits.append(len(split.train))
            return History()

        def _predict(self, X: csr_matrix, groups: Rows, condition: int) -> npt.NDArray[np.float32]:
            nearest = np.linalg.norm(by_group[0] - np.asarray(X.mean(axis=0)), axis=1).argmin()
            shift = by_group[condition, nearest] - by_group[0, nearest]
            if condition and self.luck:
                rng = np.random.default_rng((condition, nearest))
                shift = (1 - self.luck) * shift + self.luck * rng.normal(0, 0.5, X.shape[1])
            return (X.toarray() + shift).astype(np.float32)

    register(StandIn)
    yield StandIn
    MODELS.remove("stand-in")


def error(model: Model, data: PerturbationData, context: str) -> float:
    """Distance from the true mean, as a share of the response."""
    control, truth = (data.to_anndata(data.rows(condition=name, context=context)) for name in ("control", "alpha"))
    means = [np.asarray(cells.X.mean(axis=0)).ravel() for cells in (model.predict(control, "alpha"), control, truth)]
    return float(np.linalg.norm(means[0] - means[2]) / np.linalg.norm(means[1] - means[2]))


def test_a_member_that_knows_the_truth_decides(world: PerturbationData, stand_in: type[NetworkModel]) -> None:
    split = leave_context_out(world, "B")
    model = create("mtcell", member="stand-in").fit(world, split)
    assert 0.9 < model.member_.weight <= 1  # type: ignore[attr-defined]
    assert error(model, world, "B") < 0.2 < 0.7 < error(create("mtcell").fit(world, split), world, "B")


def test_noise_has_no_say(
    world: PerturbationData, stand_in: type[NetworkModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "luck", 1.0)
    model = create("mtcell", member="stand-in").fit(world, leave_context_out(world, "B"))
    assert 0 <= model.member_.weight < 0.1  # type: ignore[attr-defined]


def test_neither_fit_sees_what_is_left_out(world: PerturbationData, stand_in: type[NetworkModel]) -> None:
    split = leave_context_out(world, "B")
    create("mtcell", member="stand-in").fit(world, split)
    *without, whole = stand_in.fits  # type: ignore[attr-defined]
    assert whole == len(split.train)
    assert without == [len(split.train) - 2 * 24] * 4  # of each context, four fifths of 30 cells of two perturbations


def test_a_context_of_training_is_answered_for_without_its_cells(
    world: PerturbationData, stand_in: type[NetworkModel]
) -> None:
    model: Any = create("mtcell", member="stand-in").fit(world, leave_context_out(world, "B"))
    control = world.to_anndata(world.rows(condition="control", context="B"))
    known = model.known_response(world.conditions.index("alpha"), world.contexts.index("B"))
    np.testing.assert_allclose(model.predict(control, "alpha").X.mean(axis=0), known.predicted, rtol=1e-4)


def test_one_training_context_is_not_enough(
    world: PerturbationData, stand_in: type[NetworkModel], tmp_path: Path
) -> None:
    two = np.isin(world.context, [0, 1])
    data = PerturbationData.from_anndata(world.to_anndata(np.flatnonzero(two)), **KEYS)
    with pytest.warns(InputWarning, match="no two training contexts to choose the weight of stand-in by"):
        model = create("mtcell", member="stand-in").fit(data, leave_context_out(data, "B"))
    plain = create("mtcell").fit(data, leave_context_out(data, "B"))
    model.save(tmp_path / "run")
    assert error(load(tmp_path / "run"), data, "B") == error(model, data, "B") == error(plain, data, "B")


def test_a_run_keeps_its_member(world: PerturbationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multipert.models.member.preset_values", lambda kind, preset: quick(kind.name))
    model: Any = create("mtcell", member="mtae").fit(world, leave_context_out(world, "B"), run=tmp_path / "run")
    again: Any = load(tmp_path / "run")
    for one in (model, again):
        one.member_ = dataclasses.replace(one.member_, weight=0.5)
    control = world.to_anndata(world.rows(condition="control", context="B"))
    first, second = (one.predict(control, "alpha").X for one in (model, again))
    np.testing.assert_array_equal(first, second)
    assert again.history_.steps == model.history_.steps > 0


@pytest.mark.parametrize("name", ["mtea", "scgen", "mtcell", "mean-shift"])
def test_what_is_no_member_is_refused_at_once(name: str) -> None:
    with pytest.raises(InputError, match=f"member is a network of the multi-task family, or none, not '{name}'"):
        create("mtcell", member=name)
