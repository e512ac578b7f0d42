"""scButterfly: its stages and what moves in each, and the model from end to end."""

from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData
from torch import nn

import multipert as mp
from models.conftest import KEYS
from models.plain_batches import epoch_of, first_batch
from multipert.models.metadata import FitMetadata
from multipert.models.pairing import pair
from multipert.models.scbutterfly import ScButterfly
from multipert.networks import Butterfly
from multipert.training import Shuffled, Stage, TrainerConfig, random_stream, train

G = 30
FAST: dict[str, Any] = {
    "control_hidden": (12,),
    "perturbed_hidden": (10,),
    "latent": 6,
    "shared": 5,
    "batch_size": 8,
    "pretrain_epochs": 2,
    "epochs": 3,
}


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return mp.simulate(n_genes=G, contexts=("A", "B", "C"), perturbations=("alpha", "beta"), cells_per_group=10, seed=3)


@pytest.fixture(scope="module")
def model(data: mp.PerturbationData) -> ScButterfly:
    return ScButterfly(**FAST).fit(data, mp.leave_context_out(data, "B"))


def training(model: ScButterfly, data: mp.PerturbationData, condition: int = 1) -> tuple[Butterfly, list[Stage]]:
    split = mp.leave_context_out(data, "B")
    with random_stream(model.seed):
        network = model._one_network(FitMetadata.of(data, split))
    return network, model._one_training(network, data, split, [condition])


def test_no_dropout_after_the_last_layer(data: mp.PerturbationData) -> None:
    network, _ = training(ScButterfly(preset="study", control_hidden=(12, 11), batch_size=8), data)
    for side, hidden in (("control", 2), ("perturbed", 1)):
        encoder, decoder = (
            [module.p for module in chain.modules() if isinstance(module, nn.Dropout)]
            for chain in (network.sides[side].encoder, network.sides[side].decoder)
        )
        assert decoder == [0.1] * hidden + [0.0]
        assert encoder == [0.5, *decoder]


# Training.


def test_stages_in_order_and_what_moves_in_each(data: mp.PerturbationData) -> None:
    network, stages = training(ScButterfly(**FAST), data)
    assert [stage.name for stage in stages] == ["pretrain control", "pretrain perturbed", "joint"]
    coders = {f"sides.{side}.{part}" for side in ("control", "perturbed") for part in ("encoder", "decoder")}
    moving = [
        {"sides.control.encoder", "sides.control.decoder", "sides.control.bottleneck"},
        {"sides.perturbed.encoder", "sides.perturbed.decoder", "sides.perturbed.bottleneck"},
        coders | {"translator", "sides.control.discriminator", "sides.perturbed.discriminator"},
    ]
    for stage, expected in zip(stages, moving, strict=True):
        before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        train(network, [stage], seed=1, config=TrainerConfig("cpu", progress=False), identity={})
        moved = {name for name, weight in network.named_parameters() if not torch.equal(weight, before[name])}
        parts = {".".join(name.split(".")[: 3 if name.startswith("sides") else 1]) for name in moved}
        assert parts == expected


def test_encoders_and_decoders_keep_their_optimisers_and_discriminators_have_their_own(
    data: mp.PerturbationData,
) -> None:
    network, (control, perturbed, joint) = training(ScButterfly(preset="study", batch_size=8), data)
    (discriminators,) = joint.updates[0].optimisers
    assert (discriminators.rule, discriminators.lr) == ("sgd", 5e-3)
    assert discriminators.modules == [side.discriminator for side in network.sides.values()]
    others = joint.updates[1].optimisers
    assert [others[0], others[1]] == [control.updates[0].optimisers[0], perturbed.updates[0].optimisers[0]]
    assert others[2].modules == [network.translator]
    for optimiser in (*others, control.updates[0].optimisers[1], perturbed.updates[0].optimisers[1]):
        assert (optimiser.rule, optimiser.lr, optimiser.betas) == ("adam", 1e-3, (0.9, 0.999))
    assert [(stage.epochs, stage.patience) for stage in (control, perturbed, joint)] == [
        (100, 50),
        (100, 50),
        (200, 50),
    ]


def test_pairs_are_made_among_all_cells_of_a_context_then_divided_as_their_control_cells(
    data: mp.PerturbationData,
) -> None:
    _, (control, perturbed, joint) = training(ScButterfly(**FAST), data, condition=2)
    split = mp.leave_context_out(data, "B")
    expected = pair(data, np.flatnonzero(data.context != 1))
    here = (expected.condition == 2) & np.isin(expected.control, split.train)
    assert isinstance(joint.batches, Shuffled)
    assert isinstance(control.batches, Shuffled)
    assert isinstance(perturbed.batches, Shuffled)
    cells = joint.batches.examples.cells
    np.testing.assert_array_equal(cells["control"], expected.control[here])
    np.testing.assert_array_equal(cells["perturbed"], expected.partner[here])
    assert list(control.batches.examples.cells) == ["control"]
    assert list(perturbed.batches.examples.cells) == ["perturbed"]
    assert joint.validation is not None
    here = (expected.condition == 2) & np.isin(expected.control, split.validation)
    np.testing.assert_array_equal(joint.validation.cells["control"], expected.control[here])
    np.testing.assert_array_equal(joint.validation.cells["perturbed"], expected.partner[here])


def test_the_short_last_batch_is_kept_in_the_study_preset(data: mp.PerturbationData) -> None:
    """Of 16 pairs, in batches of 6."""
    for preset, sizes in (("study", [6, 6, 4]), ("default", [6, 6])):
        _, stages = training(ScButterfly(preset=preset, **FAST | {"batch_size": 6}), data)
        for stage in stages:
            assert [len(batch) for batch in epoch_of(stage.batches)] == sizes
            assert stage.keep == ("best-if-stopped" if preset == "study" else "best")
    _, (stage, *_) = training(ScButterfly(preset="study", **FAST | {"batch_size": 5}), data)
    assert [len(batch) for batch in epoch_of(stage.batches)] == [5, 5, 5], "a single pair has no variance"


def test_the_joint_stage_alone_draws_latents_in_validation(data: mp.PerturbationData) -> None:
    network, (control, perturbed, joint) = training(ScButterfly(**FAST), data)
    network.eval()
    batch = first_batch(joint.batches)
    for stage, alike in ((control, True), (perturbed, True), (joint, False)):
        assert stage.measure is not None
        first, again = (stage.measure(batch)["mse"] for _ in range(2))
        assert torch.equal(first, again) == alike


def test_the_adversarial_term_draws_its_own_dropout(data: mp.PerturbationData) -> None:
    network, (*_, joint) = training(ScButterfly(**FAST), data)
    shown: list[Any] = []
    network.register_forward_hook(lambda *passed: shown.append(passed[-1][1]))
    joint.updates[1].loss(first_batch(joint.batches))
    judged, decoded = (one["control"]["perturbed"] for one in shown)
    assert not torch.allclose(judged, decoded)


def test_the_study_preset_is_the_spec() -> None:
    p = ScButterfly(preset="study").parameters
    assert (p.control_hidden, p.perturbed_hidden, p.latent, p.shared) == ((256,), (128,), 128, 128)
    assert (p.mask, p.dropout, p.kl_weight, p.kl_warmup) == (0.5, 0.1, 20, 50)
    assert (p.lr, p.discriminator_lr, p.against_below, p.zero_below) == (1e-3, 5e-3, 1.35, 1e-4)
    assert (p.batch_size, p.pretrain_epochs, p.epochs, p.patience) == (64, 100, 200, 50)


# From end to end.


def test_one_network_for_each_perturbation(model: ScButterfly, data: mp.PerturbationData, controls: AnnData) -> None:
    assert list(model.history_.table["stage"].unique()) == [
        f"{perturbation}: {stage}"
        for perturbation in ("alpha", "beta")
        for stage in ("pretrain control", "pretrain perturbed", "joint")
    ]
    assert model.n_parameters == 2 * sum(p.numel() for p in training(model, data)[0].parameters())
    assert not np.allclose(model.predict(controls, "alpha").X, model.predict(controls, "beta").X)


def test_small_predicted_values_become_zero(model: ScButterfly, data: mp.PerturbationData, controls: AnnData) -> None:
    split = mp.leave_context_out(data, "B")
    expected = model.predict(controls, "alpha").X
    cut = ScButterfly(**FAST, zero_below=0.5).fit(data, split).predict(controls, "alpha").X
    assert ((expected > 0) & (expected < 0.5)).any()
    np.testing.assert_array_equal(cut, np.where(expected < 0.5, 0, expected))


def test_a_perturbation_without_pairs_and_too_large_a_batch_are_refused(
    adata: AnnData, data: mp.PerturbationData
) -> None:
    kept = adata[(adata.obs["condition"] != "beta") | (adata.obs["cell_type"] == "B")]
    lacking = mp.PerturbationData.from_anndata(kept, **KEYS)
    with pytest.raises(mp.InputError, match="no context with both control cells and cells of 'beta'"):
        ScButterfly(**FAST).fit(lacking, mp.leave_context_out(lacking, "B"))
    with pytest.raises(mp.InputError, match="16 training cells cannot fill a batch of 64"):
        ScButterfly(**FAST | {"batch_size": 64}).fit(data, mp.leave_context_out(data, "B"))
