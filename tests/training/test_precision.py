"""Training where the widest products are rounded to bfloat16, and where weights are stored feature by feature."""

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

import multipert as mp
from multipert.models.losses import mean_squared_error
from multipert.networks import FilmAutoencoder, Lanes, Precision
from multipert.networks.layers import WIDE
from multipert.training import Batch, Batches, Examples, Interrupted, Optimiser, Stage, TrainerConfig, Update, train

GENES = WIDE + 6
X = csr_matrix(np.random.default_rng(0).poisson(0.05, (96, GENES)).astype(np.float32))
EXAMPLES = Examples(X, {"x": np.arange(96)}, {"condition": np.arange(96) % 2})


def autoencoder(lanes: Lanes) -> FilmAutoencoder:
    return FilmAutoencoder(lanes, GENES, 2, hidden=(16,), latent=8, mask=0.2, dropout=0.1)


def fitted(
    precision: Precision, folder: Path | None = None, *, interrupt: bool = False
) -> tuple[Mapping[str, Tensor], float]:
    lanes = Lanes([3])
    network = autoencoder(lanes)
    batches = 0

    def loss(batch: Batch) -> dict[str, Tensor]:
        nonlocal batches
        batches += 1
        if interrupt and batches == 9:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.3)  # the main thread hears of it while this batch is still in progress
        decoded = network.decode(network.encode(batch.cells["x"]), batch.labels["condition"])
        return {"mse": mean_squared_error(decoded, batch.cells["x"])}

    stage = Stage("only", Batches(EXAMPLES, 16), 8, [Update(Optimiser([network], 0.01), loss)])
    config = TrainerConfig("cpu", folder, progress=False, precision=precision)
    history = train(network, lanes, [stage], seed=3, config=config, identity={})
    return network.state_dict(), float(history.rows[-1]["train_mse"])


def test_bfloat16_learns_as_well_as_float32() -> None:
    (exact, exact_loss), (rounded, rounded_loss) = fitted("float32"), fitted("bfloat16")
    start = float(np.square(X.toarray()).mean())
    assert exact_loss < 0.95 * start
    assert rounded_loss == pytest.approx(exact_loss, rel=0.01)
    name = "decoder.layers.1.linear.weight"
    assert rounded[name].dtype == torch.float32
    assert not torch.equal(rounded[name], exact[name])


def test_a_resumed_training_is_the_uninterrupted_one_with_wide_layers_too(tmp_path: Path) -> None:
    """Moments are read back stored row by row, beside weights that are stored feature by feature."""
    with pytest.raises(Interrupted):
        fitted("float32", tmp_path, interrupt=True)
    (resumed, _), (whole, _) = fitted("float32", tmp_path), fitted("float32")
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_automatic_precision_is_float32_where_bfloat16_was_not_shown_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(
        "multipert.training.loop.set_precision", lambda network, precision, device: taken.append(precision)
    )
    data = mp.PerturbationData.from_anndata(
        mp.simulate(n_genes=40, contexts=["A", "B"], perturbations=["alpha"], cells_per_group=20),
        perturbation_key="condition",
        control="control",
        context_key="cell_type",
    )
    small = {"epochs": 1, "hidden": 8, "latent": 4, "batch_size": 16}
    for name in ("mtae", "scgen"):
        mp.models.create(name, **small).fit(data)
        mp.models.create(name, **small).fit(data, precision="bfloat16")
    assert taken == ["auto", "bfloat16", "float32", "bfloat16"]
    mp.models.create("mtae", preset="study", **small).fit(data)
    mp.models.create("mtae", preset="study", **small).fit(data, precision="bfloat16")
    assert taken[4:] == ["float32", "bfloat16"], "the study's recipes are of float32"
