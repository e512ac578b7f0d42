"""The multi-task family: each member against the spec's formulas, written out slowly."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import multipert as mp
from models.plain_batches import first_batch
from multipert.models import MODELS
from multipert.models.film_model import FilmModel, partners
from multipert.models.metadata import FitMetadata
from multipert.models.mtae import (
    Adversarial,
    MTAeAdv,
    MTAeAdvG,
    MTAeOT,
    MTVae,
    Variational,
    soft_labels,
)
from multipert.models.pairing import pair
from multipert.training import Batch, Stage, TrainerConfig, train

FAMILY = [name for name, model in MODELS.items() if issubclass(model, FilmModel)]
TINY: dict[str, Any] = {"epochs": 1, "hidden": (12,), "latent": 6, "batch_size": 16}
LATER_STAGES = ("transport_epochs", "discriminator_epochs", "joint_epochs")


def tiny(name: str, **changes: Any) -> FilmModel:
    known = {field.name for field in dataclasses.fields(MODELS[name].Parameters)}
    later = {key: 1 for key in LATER_STAGES if key in known}
    model = mp.models.create(name, **TINY | later | changes)
    assert isinstance(model, FilmModel)
    return model


@pytest.fixture(scope="module")
def adata() -> AnnData:
    return mp.simulate(n_genes=50, contexts=("A", "B", "C"), perturbations=("p", "q"), cells_per_group=15, seed=2)


@pytest.fixture(scope="module")
def split(data: mp.PerturbationData) -> mp.Split:
    return mp.leave_context_out(data, "B")


def prepared(name: str, data: mp.PerturbationData, split: mp.Split, **changes: Any) -> tuple[Any, Any, list[Stage]]:
    """A model, its untrained network and its stages."""
    model = tiny(name, **changes)
    model.metadata_ = FitMetadata.of(data, split)
    network = model._network(model.metadata_)
    return model, network, model._stages(network, data, split)


def batch_of(stage: Stage) -> Batch:
    return first_batch(stage.batches)


def test_there_are_eight() -> None:
    assert sorted(FAMILY) == [
        "mtae",
        "mtae-adv",
        "mtae-advg",
        "mtae-ot",
        "mtae-plus-ot",
        "mtvae",
        "mtvae-ot",
        "mtvae-plus-ot",
    ]


@pytest.mark.parametrize("name", FAMILY)
def test_a_member_shows_its_latents_and_films(name: str, data: mp.PerturbationData, split: mp.Split) -> None:
    model = tiny(name).fit(data, split)
    controls = data.to_anndata(data.rows(condition="control", context="B"))
    assert model.latent(controls).shape == (15, 6)
    gamma, beta = model.film("q")[0]
    assert gamma.shape == beta.shape == (12,)
    assert not np.array_equal(gamma, model.film("p")[0][0])


@pytest.mark.parametrize("name", FAMILY)
def test_the_study_preset_is_the_spec(name: str) -> None:
    p = mp.models.create(name, preset="study").parameters
    assert (p.hidden, p.latent, p.mask, p.dropout, p.film_hidden) == ((256,), 128, 0.2, 0.5, (16,))
    assert (p.warmup_steps, p.epochs) == (100, 400)
    if "vae" in name:
        assert (p.lr, p.batch_size, p.beta, p.train_heads) == (6.62135564829619e-06, 32, 0.004, False)
    else:
        assert (p.lr, p.batch_size) == (1e-5, 64)
    if "plus" in name:
        assert p.transport_epochs == 400
    if "adv" in name:
        assert (p.discriminator_hidden, p.discriminator_dropout) == (32, 0.1)
        assert (p.discriminator_epochs, p.joint_epochs, p.adversarial_weight) == (400, 100, 0.01)


def moved(name: str, data: mp.PerturbationData, split: mp.Split, **changes: Any) -> list[tuple[str, set[str]]]:
    """Stage by stage, the top-level modules whose parameters moved."""
    _, network, stages = prepared(name, data, split, **changes)
    seen = []
    for stage in stages:
        before = {key: p.detach().clone() for key, p in network.named_parameters()}
        train(network, [stage], seed=1, config=TrainerConfig("cpu", progress=False), identity={})
        changed = {key.split(".")[0] for key, p in network.named_parameters() if not torch.equal(p, before[key])}
        seen.append((stage.name, changed))
    return seen


def test_stages_and_what_moves_in_each(data: mp.PerturbationData, split: mp.Split) -> None:
    both, all_ = {"encoder", "decoder"}, {"encoder", "decoder", "discriminator"}
    assert moved("mtae", data, split) == [("reconstruct", both)]
    assert moved("mtae-ot", data, split) == [("transport", both)]
    assert moved("mtae-plus-ot", data, split) == [("reconstruct", both), ("transport", both)]
    for name in ("mtae-adv", "mtae-advg"):
        expected = [("reconstruct", both), ("discriminate", {"discriminator"}), ("joint", all_)]
        assert moved(name, data, split) == expected
    assert moved("mtvae", data, split) == [("reconstruct", both | {"heads"})]
    assert moved("mtvae", data, split, train_heads=False) == [("reconstruct", both)], "as in the study's runs"


def test_the_discriminator_keeps_its_optimiser_and_the_autoencoder_starts_afresh(
    data: mp.PerturbationData, split: mp.Split
) -> None:
    _, _, (alone, discriminate, joint) = prepared("mtae-adv", data, split)
    against, discriminator = joint.updates
    assert discriminator.optimiser is discriminate.updates[0].optimiser
    assert against.optimiser is not alone.updates[0].optimiser


def test_soft_labels_are_drawn_once_for_each_cell(data: mp.PerturbationData) -> None:
    labels = soft_labels(data, 3)
    control = data.condition == 0
    assert ((labels[control] >= 0.9) & (labels[control] <= 1.0)).all()
    assert ((labels[~control] >= 0.0) & (labels[~control] <= 0.1)).all()
    assert len(np.unique(labels)) == len(data)
    np.testing.assert_array_equal(labels, soft_labels(data, 3))


def slow_cross_entropy(logits: Tensor, labels: Tensor) -> list[float]:
    """-(y log s(l) + (1 - y) log(1 - s(l))), cell by cell, in float64."""
    chance = 1 / (1 + np.exp(-logits.double().numpy()))
    y = labels.double().numpy()
    return [float(-(a * np.log(p) + (1 - a) * np.log(1 - p))) for a, p in zip(y, chance, strict=True)]


@torch.no_grad()
def test_adversarial_losses_are_the_specs(data: mp.PerturbationData, split: mp.Split) -> None:
    model, network, stages = prepared("mtae-adv", data, split)
    assert isinstance(model, MTAeAdv)
    network.eval()  # nothing random, so that the slow way sees the same latents
    batch = batch_of(stages[2])
    against, discriminator = stages[2].updates
    x, condition, soft = batch.cells["x"], batch.labels["condition"], batch.labels["soft"]
    z = network.encode(x)
    logits = network.discriminator(z)
    mse = ((network.decode(z, torch.eye(3)[condition]) - x) ** 2).mean().item()

    told = discriminator.loss(batch)["discriminator"].item()
    assert told == pytest.approx(np.mean(slow_cross_entropy(logits, soft)), rel=1e-5)

    perturbed = condition > 0
    assert 0 < perturbed.sum() < len(perturbed)
    adversarial = np.mean(slow_cross_entropy(logits[perturbed], 1 - soft[perturbed]))
    terms = against.loss(batch)
    assert terms["adversarial"].item() == pytest.approx(adversarial, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(0.99 * mse + 0.01 * adversarial, rel=1e-5)

    none = Batch(batch.cells, {**batch.labels, "condition": torch.zeros_like(condition)}, 0)
    terms = against.loss(none)
    assert terms["loss"].item() == pytest.approx(terms["mse"].item()), "no perturbed cell: the MSE alone, unweighted"


@torch.no_grad()
def test_gaussian_adversarial_losses_are_the_specs(data: mp.PerturbationData, split: mp.Split) -> None:
    model, network, stages = prepared("mtae-advg", data, split)
    assert isinstance(model, MTAeAdvG)
    network.eval()
    batch = batch_of(stages[2])
    against, discriminator = stages[2].updates
    logits = network.discriminator(network.encode(batch.cells["x"]))
    torch.manual_seed(3)
    told = discriminator.loss(batch)["discriminator"].item()
    torch.manual_seed(3)
    noise = network.discriminator(torch.randn(len(logits), 6))
    expected = 0.5 * binary_cross_entropy_with_logits(noise, torch.ones_like(noise))
    expected += 0.5 * binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
    assert told == pytest.approx(expected.item(), rel=1e-5)
    fooled = binary_cross_entropy_with_logits(logits, torch.ones_like(logits)).item()
    assert against.loss(batch)["adversarial"].item() == pytest.approx(fooled, rel=1e-5)


def test_the_discriminator_reads_latents_of_an_encoder_in_training_mode(
    data: mp.PerturbationData, split: mp.Split
) -> None:
    _, network, stages = prepared("mtae-adv", data, split)
    network.train()
    norm = next(module for module in network.encoder.modules() if isinstance(module, nn.BatchNorm1d))
    before = norm.get_buffer("running_mean").clone()
    loss = stages[1].updates[0].loss(batch_of(stages[1]))["discriminator"]
    assert (norm.get_buffer("running_mean") != before).all()
    loss.backward()
    assert all(p.grad is None for p in network.encoder.parameters()), "the latents are detached"


def test_spectral_norm_bounds_the_discriminators_hidden_layer(data: mp.PerturbationData, split: mp.Split) -> None:
    _, network, _ = prepared("mtae-adv", data, split)
    for _ in range(50):
        weight = network.discriminator[0].weight
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1.0, rel=1e-3)


@torch.no_grad()
def test_the_variational_loss_is_the_specs(data: mp.PerturbationData, split: mp.Split) -> None:
    model, network, stages = prepared("mtvae", data, split, beta=0.3)
    assert isinstance(model, MTVae)
    network.eval()
    batch = batch_of(stages[0])
    x = batch.cells["x"]
    h = network.encoder(x)
    mean, log_variance = (one.double() for one in network.heads(h))
    kl = 0.0
    for cell in range(len(batch)):
        for latent in range(6):
            m, v = mean[cell, latent].item(), log_variance[cell, latent].item()
            kl += -0.5 * (1 + v - m**2 - np.exp(v)) / len(batch)
    decoded = network.decode(mean.float(), torch.eye(3)[batch.labels["condition"]])
    mse = ((decoded - x) ** 2).mean().item()
    terms = stages[0].updates[0].loss(batch)
    assert terms["kl"].item() == pytest.approx(kl, rel=1e-4)
    assert terms["loss"].item() == pytest.approx(mse + kl * 0.3 * len(batch) / len(split.train), rel=1e-5)


def test_a_variational_latent_is_sampled_in_training_and_the_mean_after(
    data: mp.PerturbationData, split: mp.Split
) -> None:
    _, network, stages = prepared("mtvae", data, split, mask=0, dropout=0)
    x = batch_of(stages[0]).cells["x"]
    network.eval()
    torch.testing.assert_close(network.encode(x), network.posterior(x)[0])
    heads = network.heads.train()
    mean, variance = torch.full((4000, 6), 2.0), torch.full((4000, 6), 9.0)
    drawn = heads.sample(mean, variance)
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.1)
    assert drawn.std().item() == pytest.approx(3.0, abs=0.1)


def test_transport_maps_controls_to_partners_and_to_themselves_under_control(
    data: mp.PerturbationData, split: mp.Split
) -> None:
    examples = partners(data, split.train, split, seed=1)
    mistaken = partners(data, split.train, split, seed=1, slip=True)
    np.testing.assert_array_equal(mistaken.cells["x"], examples.cells["x"])
    np.testing.assert_array_equal(mistaken.labels["condition"], examples.labels["condition"])
    perturbed = examples.labels["condition"] > 0
    assert not np.array_equal(mistaken.cells["target"][perturbed], examples.cells["target"][perturbed])
    np.testing.assert_array_equal(mistaken.cells["target"][~perturbed], examples.cells["target"][~perturbed])
    x, target, condition = examples.cells["x"], examples.cells["target"], examples.labels["condition"]
    b = data.contexts.index("B")
    assert (data.context[x] != b).all()
    assert (data.context[target] != b).all(), "the held-out context takes no part at all"
    np.testing.assert_array_equal(data.context[x], data.context[target])
    assert (data.condition[x] == 0).all()
    np.testing.assert_array_equal(data.condition[target], condition)
    np.testing.assert_array_equal(x[condition == 0], target[condition == 0])
    kept = split.train[data.context[split.train] != b]
    pairs = pair(data, kept, seed=1)
    assert len(x) == (data.condition[kept] == 0).sum() + len(pairs)


@torch.no_grad()
def test_the_transport_loss_compares_with_the_partner(data: mp.PerturbationData, split: mp.Split) -> None:
    names = [name for name in FAMILY if hasattr(mp.models.create(name).parameters, "partner_slip")]
    assert names == ["mtae-ot", "mtae-plus-ot", "mtvae-ot", "mtvae-plus-ot"]
    for name in names:
        assert mp.models.create(name, preset="study").parameters.partner_slip
        assert not mp.models.create(name).parameters.partner_slip
    model, network, stages = prepared("mtae-ot", data, split)
    assert isinstance(model, MTAeOT)
    network.eval()
    batch = batch_of(stages[0])
    decoded = network.decode(network.encode(batch.cells["x"]), torch.eye(3)[batch.labels["condition"]])
    expected = ((decoded - batch.cells["target"]) ** 2).mean().item()
    assert stages[0].updates[0].loss(batch)["mse"].item() == pytest.approx(expected, rel=1e-6)


def test_members_differ_by_what_the_table_says() -> None:
    assert {name for name in FAMILY if issubclass(MODELS[name], Variational)} == {"mtvae", "mtvae-ot", "mtvae-plus-ot"}
    assert {name for name in FAMILY if issubclass(MODELS[name], Adversarial)} == {"mtae-adv", "mtae-advg"}
