"""A referee for every method: the specification once more in plain torch, trained beside ours.

Each plain network is written from the method's description alone. It gets our network's initial weights, sees the same
batches in the same order, and is trained by torch's own optimisers. Then losses, epoch by epoch, and weights, after all
stages, must be the same. Dropout is off, and noise is a function of its shape, so that both draw the same.

:func:`leaves` is the only place that knows how our networks are built.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn
from torch.nn import functional

import multipert as mp
from models.conftest import KEYS
from multipert.models.network_model import NetworkModel
from multipert.training import Stage

GENES = 40
Doubles = npt.NDArray[np.float64]
Draws = dict[str, Tensor]
Loss = Callable[[Draws, int], Mapping[str, Tensor]]


def world(perturbations: Sequence[str], doses: Sequence[float] | None = None) -> mp.PerturbationData:
    keys: dict[str, Any] = {**KEYS}
    options: dict[str, Any] = {}
    if doses is not None:
        keys |= {"perturbation_key": "compound", "dose_key": "dose"}
        options["doses"] = doses
    adata = mp.simulate(
        n_genes=GENES, contexts="ABC", perturbations=perturbations, cells_per_group=(16, 30), seed=3, **options
    )
    return mp.PerturbationData.from_anndata(adata, **keys)


@pytest.fixture(autouse=True)
def noise_is_a_function_of_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(name: str, draw: Callable[..., Tensor]) -> None:
        def by_shape(*shape: Any, **options: Any) -> Tensor:
            sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
            return draw(sizes, generator=torch.Generator().manual_seed(sum(sizes)))

        monkeypatch.setattr(torch, name, by_shape)
        monkeypatch.setattr(torch, f"{name}_like", lambda x: by_shape(*x.shape))

    replace("rand", torch.rand)
    replace("randn", torch.randn)


# How our networks are built, and how the trainer hands out batches.


def leaves(network: nn.Module) -> list[nn.Module]:
    """The layers that hold weights, in the order in which the network names them."""
    return [one for one in network.modules() if isinstance(one, nn.Linear | nn.BatchNorm1d | nn.LayerNorm)]


def weights(layer: nn.Module) -> dict[str, Tensor]:
    """A layer's own numbers; of one that is spectral-normed, before the norm, and its singular vectors."""
    state = {name: tensor.detach().clone() for name, tensor in layer.state_dict().items()}
    before = "parametrizations.weight."
    if f"{before}original" in state:
        return {
            "weight": state[f"{before}original"],
            "bias": state["bias"],
            "left": state[f"{before}0._u"],
            "right": state[f"{before}0._v"],
        }
    return {name: tensor for name, tensor in state.items() if name != "num_batches_tracked"}


def copy_weights(ours: nn.Module, plain: nn.Module) -> None:
    for mine, theirs in zip(leaves(ours), leaves(plain), strict=True):
        theirs.load_state_dict(weights(mine), strict=False)


def batches(stage: Stage, seed: int) -> Iterator[tuple[int, Draws]]:
    """Every batch of a stage, written out, each with its epoch: profiles by role, labels by name with ``label/``."""
    for epoch in range(stage.epochs):
        order = stage.batches.order(epoch, seed)
        for start in range(0, len(order), stage.batches.size):
            yield epoch, written_out(order.at(slice(start, start + stage.batches.size)))


def written_out(examples: Any) -> Draws:
    cells = {role: torch.from_numpy(examples.matrix[rows].toarray()) for role, rows in examples.cells.items()}
    return cells | {f"label/{name}": torch.as_tensor(label) for name, label in examples.labels.items()}


# The plain training.


@dataclass
class Move:
    """A loss, and the optimisers that follow it; the first of its terms is minimised."""

    loss: Loss
    optimisers: Sequence[torch.optim.Optimizer]
    rate: Callable[[int], float] = lambda step: 1.0


@dataclass
class PlainTraining:
    """Stages after each other; what was lost in every epoch, and how small the gradients of each weight were."""

    network: nn.Module
    seed: int
    losses: list[dict[str, float]] = field(default_factory=list)
    gradients: dict[nn.Parameter, Tensor] = field(default_factory=dict)

    def stage(self, number: int, stage: Stage, moves: Sequence[Move], measure: Loss | None = None) -> None:
        sums: dict[str, float] = {}
        rates = {one: one.param_groups[0]["lr"] for move in moves for one in move.optimisers}
        length = len(stage.batches)
        self.network.train()
        for step, (epoch, draws) in enumerate(batches(stage, self.seed + 1000 * number)):
            for move in moves:
                self.network.zero_grad(set_to_none=True)
                terms = move.loss(draws, epoch)
                next(iter(terms.values())).backward()
                for optimiser in move.optimisers:
                    for group in optimiser.param_groups:
                        group["lr"] = rates[optimiser] * move.rate(step)
                        for parameter in group["params"]:
                            if parameter.grad is not None:
                                before = self.gradients.get(parameter, torch.full_like(parameter, torch.inf))
                                self.gradients[parameter] = torch.minimum(before, parameter.grad.abs())
                    optimiser.step()
                for name, value in terms.items():
                    sums[f"train_{name}"] = sums.get(f"train_{name}", 0.0) + value.item() / length
            if (step + 1) % length == 0:
                if measure is not None:
                    self.network.eval()
                    with torch.no_grad():
                        terms = measure(written_out(stage.validation), epoch)
                    sums |= {f"validation_{name}": value.item() for name, value in terms.items()}
                    self.network.train()
                self.losses.append(sums)
                sums = {}
        for optimiser, rate in rates.items():
            optimiser.param_groups[0]["lr"] = rate


def agree(trained: PlainTraining, ours: nn.Module, rows: Iterable[Mapping[str, Any]]) -> None:
    """Losses of every epoch, and every weight whose gradient was never so small that rounding decides its sign."""
    rows = list(rows)
    assert len(rows) == len(trained.losses)
    for row, expected in zip(rows, trained.losses, strict=True):
        for name, value in expected.items():
            # In evaluation mode a bias before a batch normalisation counts, which only rounding moves.
            rel = 1e-2 if name.startswith("validation") else 2e-4
            assert row[name] == pytest.approx(value, rel=rel, abs=2e-5), (row["stage"], row["epoch"], name)
    compared = 0
    for mine, theirs in zip(leaves(ours), leaves(trained.network), strict=True):
        told = weights(mine)
        for name, parameter in theirs.named_parameters():
            gradient = trained.gradients.get(parameter)
            if gradient is None:
                torch.testing.assert_close(told[name], parameter.detach(), rtol=0, atol=0)
                continue
            sure = gradient > max(1e-5, 1e-3 * gradient.max().item())
            torch.testing.assert_close(told[name][sure], parameter.detach()[sure], rtol=1e-3, atol=5e-5)
            compared += int(sure.sum())
    assert compared > 400, "hardly a weight was moved for sure"


@dataclass
class Case:
    """Our model, fitted; its network as it was before, and its stages; the same numbers for a plain one."""

    name: str
    data: mp.PerturbationData
    options: Mapping[str, Any]
    model: Any = None
    before: Any = None

    def __post_init__(self) -> None:
        self.split = mp.leave_context_out(self.data, "B")
        self.model, twin = (mp.models.create(self.name, preset="study", seed=4, **self.options) for _ in range(2))
        assert isinstance(twin, NetworkModel)
        self.model.fit(self.data, self.split, device="cpu", progress=False)
        twin._begin(self.data, self.split)
        self.before = twin._untrained(twin.metadata_)
        self.stages = twin._stages(self.before, self.data, self.split)
        self.rows = self.model.history_.rows

    def one_hot(self, codes: Tensor) -> Tensor:
        return functional.one_hot(codes.long(), len(self.data.conditions)).float()


# The multi-task family.


class PlainFilm(nn.Module):
    """Encoder told nothing; every hidden layer of the decoder scaled and shifted as the condition says."""

    def __init__(self, n_conditions: int, hidden: int, latent: int, film_hidden: int | None, *, variational: bool):
        super().__init__()
        self.into = nn.Linear(GENES, hidden)
        self.into_norm = nn.BatchNorm1d(hidden)
        self.to_latent = nn.Linear(hidden, latent)
        self.from_latent = nn.Linear(latent, hidden)
        self.from_norm = nn.BatchNorm1d(hidden)
        self.film = None if film_hidden is None else nn.Linear(n_conditions, film_hidden)
        n_in = n_conditions if film_hidden is None else film_hidden
        self.gamma, self.beta = nn.Linear(n_in, hidden), nn.Linear(n_in, hidden)
        self.to_genes = nn.Linear(hidden, GENES)
        if variational:
            self.mean, self.log_variance = nn.Linear(latent, latent), nn.Linear(latent, latent)

    def encode(self, x: Tensor) -> Tensor:
        h = functional.leaky_relu(self.into_norm(self.into(x)), 0.01)
        return functional.leaky_relu(self.to_latent(h), 0.01)

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        h = self.from_norm(self.from_latent(z))
        told = c if self.film is None else functional.leaky_relu(self.film(c), 0.01)
        h = functional.leaky_relu(self.gamma(told), 0.01) * h + functional.leaky_relu(self.beta(told), 0.01)
        return functional.leaky_relu(self.to_genes(functional.leaky_relu(h, 0.01)), 0.01)


FILM = {"hidden": 12, "latent": 6, "film_hidden": 5, "mask": 0.0, "dropout": 0.0}
FAMILY: dict[str, Any] = {**FILM, "lr": 1e-3, "warmup_steps": 2, "batch_size": 24, "epochs": 2}


def film_case(
    name: str, n_perturbations: int, **options: Any
) -> tuple[Case, PlainFilm, Callable[[float, Sequence[nn.Module]], torch.optim.Optimizer]]:
    case = Case(name, world([f"p{i}" for i in range(n_perturbations)]), {**FAMILY, **options})
    film_hidden = None if n_perturbations == 1 else 5
    plain = PlainFilm(n_perturbations + 1, 12, 6, film_hidden, variational="vae" in name)

    def adam(lr: float, modules: Sequence[nn.Module]) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for module in modules for p in module.parameters()], lr)

    return case, plain, adam


def coders(plain: PlainFilm) -> list[nn.Module]:
    """All but the variational heads."""
    heads = {getattr(plain, name, None) for name in ("mean", "log_variance")}
    return [one for one in plain.children() if one not in heads and not isinstance(one, PlainSpectral)]


def warm(step: int) -> float:
    return min(1.0, step / 2)


@pytest.mark.parametrize("n_perturbations", [1, 8])
@pytest.mark.parametrize(
    ("name", "stages"), [("mtae", ["x"]), ("mtae-ot", ["target"]), ("mtae-plus-ot", ["x", "target"])]
)
def test_autoencoders(name: str, stages: list[str], n_perturbations: int) -> None:
    options = {"transport_epochs": 3} if len(stages) == 2 else {}
    case, plain, adam = film_case(name, n_perturbations, **options)
    copy_weights(case.before, plain)
    training = PlainTraining(plain, seed=4)
    for number, target in enumerate(stages):

        def loss(draws: Draws, epoch: int, target: str = target) -> Mapping[str, Tensor]:
            decoded = plain.decode(plain.encode(draws["x"]), case.one_hot(draws["label/condition"]))
            return {"mse": functional.mse_loss(decoded, draws[target])}

        training.stage(number, case.stages[number], [Move(loss, [adam(1e-3, [plain])], warm)], loss)
    agree(training, case.model.network_, case.rows)


@pytest.mark.parametrize("n_perturbations", [1, 8])
@pytest.mark.parametrize(
    ("name", "stages"), [("mtvae", ["x"]), ("mtvae-ot", ["target"]), ("mtvae-plus-ot", ["x", "target"])]
)
def test_variational_autoencoders(name: str, stages: list[str], n_perturbations: int) -> None:
    """The heads keep their initial weights, as in the study."""
    options = {"transport_epochs": 3} if len(stages) == 2 else {}
    case, plain, adam = film_case(name, n_perturbations, beta=2.0, **options)
    copy_weights(case.before, plain)
    training = PlainTraining(plain, seed=4)
    for number, target in enumerate(stages):
        n_training = len(case.stages[number].batches.examples)  # type: ignore[attr-defined]

        def loss(draws: Draws, epoch: int, target: str = target, n_training: int = n_training) -> Mapping[str, Tensor]:
            h = plain.encode(draws["x"])
            mean = functional.leaky_relu(plain.mean(h), 0.01)
            log_variance = functional.leaky_relu(plain.log_variance(h), 0.01)
            z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean) if plain.training else mean
            mse = functional.mse_loss(plain.decode(z, case.one_hot(draws["label/condition"])), draws[target])
            kl = (-0.5 * (1 + log_variance - mean**2 - log_variance.exp())).sum(1).mean()
            return {"loss": mse + 2.0 * 24 / n_training * kl, "mse": mse, "kl": kl}

        training.stage(number, case.stages[number], [Move(loss, [adam(1e-3, coders(plain))], warm)], loss)
    agree(training, case.model.network_, case.rows)


class PlainSpectral(nn.Linear):
    """A linear layer over its largest singular value, followed by one power iteration in every training pass."""

    left: Tensor
    right: Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out)
        self.register_buffer("left", torch.zeros(n_out))
        self.register_buffer("right", torch.zeros(n_in))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.left = functional.normalize(self.weight @ self.right, dim=0, eps=1e-12)
                self.right = functional.normalize(self.weight.T @ self.left, dim=0, eps=1e-12)
        return functional.linear(x, self.weight / (self.left @ self.weight @ self.right), self.bias)


@pytest.mark.parametrize("gaussian", [False, True])
def test_adversarial_autoencoders(gaussian: bool) -> None:
    options = {"discriminator_hidden": 9, "discriminator_dropout": 0.0, "discriminator_epochs": 2, "joint_epochs": 2}
    case, plain, adam = film_case("mtae-advg" if gaussian else "mtae-adv", 1, **options, adversarial_weight=0.3)
    plain.first, plain.second = PlainSpectral(6, 9), nn.Linear(9, 1)
    copy_weights(case.before, plain)
    autoencoder = [one for one in plain.children() if one not in (plain.first, plain.second)]
    bce = nn.BCEWithLogitsLoss()

    def logit(z: Tensor) -> Tensor:
        out: Tensor = plain.second(functional.leaky_relu(plain.first(z), 0.01)).squeeze(1)
        return out

    def reconstruct(draws: Draws, epoch: int) -> Mapping[str, Tensor]:
        z = plain.encode(draws["x"])
        return {"mse": functional.mse_loss(plain.decode(z, case.one_hot(draws["label/condition"])), draws["x"])}

    def tell(draws: Draws, epoch: int) -> Mapping[str, Tensor]:
        z = plain.encode(draws["x"]).detach()
        if gaussian:
            noise, native = logit(torch.randn_like(z)), logit(z)  # both count as passes, in either order
            loss = 0.5 * bce(noise, torch.ones_like(noise)) + 0.5 * bce(native, torch.zeros_like(native))
        else:
            loss = bce(logit(z), draws["label/soft"])
        return {"discriminator": loss}

    def against(draws: Draws, epoch: int) -> Mapping[str, Tensor]:
        z = plain.encode(draws["x"])
        mse = functional.mse_loss(plain.decode(z, case.one_hot(draws["label/condition"])), draws["x"])
        said = logit(z)
        if gaussian:
            adversarial = bce(said, torch.ones_like(said))
        else:
            perturbed = draws["label/condition"] > 0
            if not perturbed.any():
                return {"loss": mse, "mse": mse, "adversarial": torch.zeros(())}
            adversarial = bce(said[perturbed], 1 - draws["label/soft"][perturbed])
        return {"loss": 0.7 * mse + 0.3 * adversarial, "mse": mse, "adversarial": adversarial}

    training = PlainTraining(plain, seed=4)
    first, discriminate, joint = case.stages
    discriminator = Move(tell, [adam(1e-3, [plain.first, plain.second])], warm)
    training.stage(0, first, [Move(reconstruct, [adam(1e-3, autoencoder)], warm)], reconstruct)
    training.stage(1, discriminate, [discriminator], tell)
    training.stage(2, joint, [Move(against, [adam(1e-3, autoencoder)], warm), discriminator], against)
    agree(training, case.model.network_, case.rows)


# Latent arithmetic.


class PlainVae(nn.Module):
    """Two hidden layers either way; in scVIDR's code the second has its weights from the first's like: one set."""

    def __init__(self, hidden: int, latent: int) -> None:
        super().__init__()

        def layer(n_in: int) -> list[nn.Module]:
            return [nn.Linear(n_in, hidden), nn.BatchNorm1d(hidden, eps=1e-3, momentum=0.01), nn.LeakyReLU(0.01)]

        self.encoder = nn.Sequential(*layer(GENES), *layer(hidden))
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(*layer(latent), *layer(hidden), nn.Linear(hidden, GENES))

    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        mean, variance = self.mean(h), torch.exp(self.log_variance(h)) + 1e-4
        x_hat = self.decoder(mean + variance.sqrt() * torch.randn_like(mean))
        kl = torch.distributions.kl_divergence(
            torch.distributions.Normal(mean, variance.sqrt()), torch.distributions.Normal(0.0, 1.0)
        )
        return ((x - x_hat) ** 2).sum(1), kl.sum(1)


VAE: dict[str, Any] = {
    "hidden": 12,
    "latent": 5,
    "dropout": 0.0,
    "kl_weight": 0.3,
    "lr": 5e-3,
    "weight_decay": 0.1,
    "batch_size": 24,
    "epochs": 6,
}


def trained_vae(case: Case, networks: Sequence[nn.Module], finals: Sequence[nn.Module]) -> list[PlainVae]:
    """One plain autoencoder for each of ours, trained on the same batches and compared."""
    found = []
    per = len(case.rows) // len(networks)
    for number, (before, after) in enumerate(zip(networks, finals, strict=True)):
        plain = PlainVae(12, 5)
        copy_weights(before, plain)

        def loss(draws: Draws, epoch: int, plain: PlainVae = plain) -> Mapping[str, Tensor]:
            squares, kl = plain.terms(draws["x"])
            return {"loss": (0.5 * squares + 0.5 * (0.3 * kl)).mean(), "squares": squares.mean(), "kl": kl.mean()}

        def monitored(draws: Draws, epoch: int, plain: PlainVae = plain) -> Mapping[str, Tensor]:
            squares, kl = plain.terms(draws["x"])
            return {"loss": 0.5 * (squares + kl).mean()}

        adam = torch.optim.Adam(plain.parameters(), 5e-3, eps=0.01, weight_decay=0.1)
        training = PlainTraining(plain, seed=4)
        training.stage(number, case.stages[number], [Move(loss, [adam])], monitored)
        agree(training, after, case.rows[number * per : (number + 1) * per])
        copy_weights(after, plain)  # to the last digit, so that the smallest move can be compared
        found.append(plain.eval())
    return found


def test_scgen() -> None:
    case = Case("scgen", world(["p", "q"]), VAE)
    trained_vae(case, list(case.before), list(case.model.network_))


@torch.no_grad()
def delta_of(plain: PlainVae, data: mp.PerturbationData, held_out: str, perturbation: str) -> Doubles:
    """By ordinary least squares on the centroids of the other contexts."""

    def centroid(condition: str, context: str) -> Doubles:
        x = torch.from_numpy(data.X[data.rows(condition=condition, context=context)].toarray())
        return plain.mean(plain.encoder(x)).mean(0).numpy()

    others = [context for context in data.contexts if context != held_out]
    before = [centroid("control", context) for context in others]
    moved = [centroid(perturbation, context) - at for context, at in zip(others, before, strict=True)]
    return LinearRegression().fit(before, moved).predict([centroid("control", held_out)])[0]


@torch.no_grad()
def predicts(case: Case, plain: PlainVae, perturbation: str, delta: Doubles) -> None:
    controls = case.data.to_anndata(case.data.rows(condition="control", context="B"))
    z = plain.mean(plain.encoder(torch.from_numpy(controls.X.toarray())))
    expected = plain.decoder(z + torch.from_numpy(delta).float()).clamp(min=0)
    np.testing.assert_allclose(case.model.predict(controls, perturbation).X, expected, rtol=1e-5, atol=1e-5)


def test_scvidr() -> None:
    case = Case("scvidr", world(["p", "q"]), VAE)
    found = trained_vae(case, list(case.before), list(case.model.network_))
    for plain, perturbation in zip(found, case.data.perturbations, strict=True):
        predicts(case, plain, perturbation, delta_of(plain, case.data, "B", perturbation))


def test_scvidr_of_doses() -> None:
    case = Case("scvidr-dose", world(["p"], doses=(0.3, 2.0, 10.0)), VAE)
    (plain,) = trained_vae(case, list(case.before), list(case.model.network_))
    delta = delta_of(plain, case.data, "B", "p@10")
    for dose in (0.3, 2.0, 10.0):
        predicts(case, plain, f"p@{dose:g}", delta * np.log(1 + dose) / np.log(11))


# scPreGAN.


class PlainPreGAN(nn.Module):
    """E, G_A, G_B, D_A, D_B of the paper; sigmoid and softmax outputs."""

    def __init__(self, n_contexts: int) -> None:
        super().__init__()

        def normed(*widths: int) -> list[nn.Module]:
            return [one for i, o in pairwise(widths) for one in (nn.Linear(i, o), nn.LayerNorm(o), nn.ReLU())]

        self.E = nn.Sequential(*normed(GENES, 12, 8), nn.Linear(8, 4))
        self.G_A, self.G_B = (nn.Sequential(*normed(4, 8, 12, GENES)) for _ in range(2))
        self.D_A, self.D_B = (self.discriminator(n_contexts) for _ in range(2))

    @staticmethod
    def discriminator(n_contexts: int) -> nn.ModuleDict:
        body = nn.Sequential(PlainSpectral(GENES, 12), nn.ReLU(), PlainSpectral(12, 8), nn.ReLU())
        return nn.ModuleDict({"body": body, "real": nn.Linear(8, 1), "classes": nn.Linear(8, n_contexts)})

    @staticmethod
    def judged(discriminator: nn.ModuleDict, x: Tensor, contexts: Tensor, target: float) -> Tensor:
        h = discriminator["body"](x)
        said = torch.sigmoid(discriminator["real"](h))
        named = torch.softmax(discriminator["classes"](h), 1)
        out: Tensor = nn.BCELoss()(said, torch.full_like(said, target)) + nn.NLLLoss()(named, contexts)
        return out


@pytest.mark.parametrize("slip", [True, False])
def test_scpregan(slip: bool) -> None:
    options = {"hidden": (12, 8), "latent": 4, "batch_size": 16, "epochs": 2, "iterations": 2, "decay_every": 3}
    weight = {"reconstruction_weight": 2.0, "adversarial_weight": 0.2, "encoding_weight": 0.1}
    case = Case("scpregan", world(["p"]), {**options, **weight, "encoder_lr": 5e-4, "label_slip": slip})
    plain = PlainPreGAN(3)
    copy_weights(case.before[0], plain)

    def discriminators(draws: Draws, epoch: int) -> Mapping[str, Tensor]:
        a, b, at, bt = (draws[k] for k in ("control", "perturbed", "label/control", "label/perturbed"))
        from_b, from_a = plain.G_A(plain.E(b)).detach(), plain.G_B(plain.E(a)).detach()
        loss_a = plain.judged(plain.D_A, a, at, 1) + plain.judged(plain.D_A, from_b, bt, 0)
        loss_b = plain.judged(plain.D_B, b, bt, 1) + plain.judged(plain.D_B, from_a, at, 0)
        return {"discriminators": loss_a + loss_b}

    def generators(draws: Draws, epoch: int) -> Mapping[str, Tensor]:
        """A second batch; under the labels of the first, in the original's slip."""
        a, b = draws["next control"], draws["next perturbed"]
        at, bt = (draws[f"label/{'' if slip else 'next '}{side}"] for side in ("control", "perturbed"))
        za, zb = plain.E(a), plain.E(b)
        aa, ab, ba, bb = plain.G_A(za), plain.G_B(za), plain.G_A(zb), plain.G_B(zb)
        zaa, zab, zba, zbb = (plain.E(x) for x in (aa, ab, ba, bb))
        aba, bab = plain.G_A(zab), plain.G_B(zba)
        reconstruction = functional.mse_loss(aa, a) + functional.mse_loss(bb, b)
        sources = ((zaa, za), (zab, za), (zba, zb), (zbb, zb))
        encoding = torch.stack([functional.mse_loss(z, source.detach()) for z, source in sources]).sum()
        # A discriminator follows its singular values once in a pass, so that each side is judged in one.
        on_a, on_b = (torch.cat(cells) for cells in ((aa, aba, ba), (bb, bab, ab)))
        adversarial = 3 * plain.judged(plain.D_A, on_a, torch.cat([at, at, bt]), 1)
        adversarial = adversarial + 3 * plain.judged(plain.D_B, on_b, torch.cat([bt, bt, at]), 1)
        loss = 2.0 * reconstruction + 0.2 * adversarial + 0.1 * encoding
        return {"loss": loss, "reconstruction": reconstruction, "adversarial": adversarial, "encoding": encoding}

    adam = {
        part: torch.optim.Adam(getattr(plain, part).parameters(), 1e-3, betas=(0.5, 0.9))
        for part in ("G_A", "G_B", "D_A", "D_B")
    }
    encoder = torch.optim.Adam(plain.E.parameters(), 5e-4)

    def decay(step: int) -> float:
        return 0.9 ** ((step + 1) // 3)

    training = PlainTraining(plain, seed=4)
    moves = [
        Move(discriminators, [adam["D_A"], adam["D_B"]], decay),
        Move(generators, [encoder, adam["G_A"], adam["G_B"]], decay),
    ]
    training.stage(0, case.stages[0], moves)
    agree(training, case.model.network_[0], case.rows)


# scButterfly.


def normed(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.LeakyReLU(0.01))


class PlainSide(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(normed(GENES, hidden), normed(hidden, 6))
        self.decoder = nn.Sequential(normed(6, hidden), normed(hidden, GENES))
        self.mean, self.log_variance, self.out = normed(6, 5), normed(6, 5), normed(5, 6)
        self.discriminator = nn.Sequential(nn.Linear(6, 1), nn.BatchNorm1d(1), nn.Sigmoid())


class PlainButterfly(nn.Module):
    """R (control) and A (perturbed), a translator of each side alone, and the one of both."""

    def __init__(self) -> None:
        super().__init__()
        self.R, self.A = PlainSide(12), PlainSide(10)
        self.r_mean, self.r_log_variance, self.a_mean, self.a_log_variance = (normed(6, 5) for _ in range(4))
        self.out_r, self.out_a = normed(5, 6), normed(5, 6)

    @staticmethod
    def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
        return -0.5 * torch.mean(1 + log_variance - mean**2 - log_variance.exp())

    @staticmethod
    def drawn(mean: Tensor, log_variance: Tensor, *, draw: bool) -> Tensor:
        return mean + torch.exp(log_variance / 2) * torch.randn_like(mean) if draw else mean

    def alone(self, side: PlainSide, x: Tensor) -> tuple[Tensor, Tensor]:
        z = side.encoder(x)
        mean, log_variance = side.mean(z), side.log_variance(z)
        out = side.decoder(side.out(self.drawn(mean, log_variance, draw=self.training)))
        return functional.mse_loss(out, x), self.divergence(mean, log_variance)

    def translated(self, r: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        """Latents native on both sides, then R2R, R2A, A2R, A2A, then the divergence; drawn in validation too."""
        zr, za = self.R.encoder(r), self.A.encoder(a)
        of_r, of_a = (self.r_mean(zr), self.r_log_variance(zr)), (self.a_mean(za), self.a_log_variance(za))
        sr, sa = self.drawn(*of_r, draw=True), self.drawn(*of_a, draw=True)
        kl = self.divergence(*of_r) + self.divergence(*of_a)
        return zr, za, self.out_r(sr), self.out_a(sr), self.out_r(sa), self.out_a(sa), kl


@pytest.mark.parametrize("against_below", [100.0, 0.0])
def test_scbutterfly(against_below: float) -> None:
    options: dict[str, Any] = {
        "control_hidden": (12,),
        "perturbed_hidden": (10,),
        "latent": 6,
        "shared": 5,
        "mask": 0.0,
        "dropout": 0.0,
        "kl_weight": 8.0,
        "kl_warmup": 2,
        "against_below": against_below,
        "batch_size": 16,
        "pretrain_epochs": 3,
        "epochs": 3,
    }
    case = Case("scbutterfly", world(["p"]), options)
    plain = PlainButterfly()
    copy_weights(case.before[0], plain)

    def share(epoch: int) -> float:
        return min(1.0, epoch / 2)

    def alone(side: PlainSide, role: str) -> Loss:
        def loss(draws: Draws, epoch: int) -> Mapping[str, Tensor]:
            mse, kl = plain.alone(side, draws[role])
            return {"loss": mse + share(epoch) * 8 / GENES * kl, "mse": mse, "kl": kl}

        return loss

    def mse_alone(side: PlainSide, role: str) -> Loss:
        return lambda draws, epoch: {"mse": plain.alone(side, draws[role])[0]}

    def discriminated(draws: Draws) -> Tensor:
        zr, za, _, r2a, a2r, _, _ = plain.translated(draws["control"], draws["perturbed"])
        u = torch.rand(len(zr))
        labels = torch.tensor([max(v, 0.8) if v > 0.5 else min(v, 0.2) for v in u.tolist()])
        native = (u > 0.5).unsqueeze(1)
        said_a = plain.A.discriminator(torch.where(native, za, r2a)).squeeze(1)
        said_r = plain.R.discriminator(torch.where(native, zr, a2r)).squeeze(1)
        return functional.binary_cross_entropy(said_a, labels) + functional.binary_cross_entropy(said_r, labels)

    def decoded(draws: Draws) -> tuple[Tensor, Tensor]:
        r, a = draws["control"], draws["perturbed"]
        _, _, r2r, r2a, a2r, a2a, kl = plain.translated(r, a)
        errors = functional.mse_loss(plain.R.decoder(r2r), r) + functional.mse_loss(plain.R.decoder(a2r), r)
        errors = errors + functional.mse_loss(plain.A.decoder(r2a), a) + functional.mse_loss(plain.A.decoder(a2a), a)
        return errors, kl

    def discriminators(draws: Draws, epoch: int) -> Mapping[str, Tensor]:
        return {"discriminators": discriminated(draws)}

    def translators(draws: Draws, epoch: int) -> Mapping[str, Tensor]:
        against = discriminated(draws)
        errors, kl = decoded(draws)
        taken_off = against if against < against_below else 0.0
        return {"loss": errors + share(epoch) * 16 / GENES * kl - taken_off, "mse": errors, "kl": kl}

    def coder(side: PlainSide) -> torch.optim.Optimizer:
        return torch.optim.Adam([*side.encoder.parameters(), *side.decoder.parameters()], 1e-3)

    def bottleneck(side: PlainSide) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for one in (side.mean, side.log_variance, side.out) for p in one.parameters()], 1e-3)

    of_r, of_a = coder(plain.R), coder(plain.A)
    shared = [p for name, p in plain.named_parameters() if not name.startswith(("R.", "A."))]
    judges = torch.optim.SGD([*plain.R.discriminator.parameters(), *plain.A.discriminator.parameters()], 5e-3)
    training = PlainTraining(plain, seed=4)
    first, second, joint = case.stages
    training.stage(
        0, first, [Move(alone(plain.R, "control"), [of_r, bottleneck(plain.R)])], mse_alone(plain.R, "control")
    )
    training.stage(
        1, second, [Move(alone(plain.A, "perturbed"), [of_a, bottleneck(plain.A)])], mse_alone(plain.A, "perturbed")
    )
    moves = [Move(discriminators, [judges]), Move(translators, [of_r, of_a, torch.optim.Adam(shared, 1e-3)])]
    training.stage(2, joint, moves, lambda draws, epoch: {"mse": decoded(draws)[0]})
    agree(training, case.model.network_[0], case.rows)
