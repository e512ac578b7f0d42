"""The networks against the spec, layer by layer in plain arithmetic."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multipert.networks import (
    AuxiliaryDiscriminator,
    FiLM,
    FilmAutoencoder,
    GaussianHeads,
    LatentDiscriminator,
    Translator,
    kl_divergence,
    one_hot,
    xavier_linear,
)


def leaky(h: Tensor) -> Tensor:
    return torch.where(h > 0, h, 0.01 * h)


def test_linear_layers_start_xavier_uniform_with_torchs_biases() -> None:
    linear = xavier_linear(300, 100)
    bound = (6 / 400) ** 0.5
    assert 0.95 * bound < linear.weight.abs().max().item() <= bound
    assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert linear.bias.abs().max().item() <= 300**-0.5


@pytest.mark.parametrize("hidden", [(), (3,)])
def test_film_is_gamma_h_plus_beta(hidden: tuple[int, ...]) -> None:
    film = FiLM(3, 4, hidden=hidden)
    h, c = torch.randn(5, 4), torch.randn(5, 3)
    described = c
    for layer in film.hidden:
        described = leaky(described @ layer.weight.T + layer.bias) if isinstance(layer, nn.Linear) else described
    gamma, beta = (leaky(described @ head[0].weight.T + head[0].bias) for head in (film.gamma, film.beta))
    torch.testing.assert_close(film(h, c), gamma * h + beta)


def test_a_one_hot_is_a_row_of_the_identity() -> None:
    assert torch.equal(one_hot(torch.tensor([2, 0, 2]), 3), torch.eye(3)[[2, 0, 2]])


def autoencoder() -> FilmAutoencoder:
    return FilmAutoencoder(20, 3, hidden=(8, 6), latent=4, mask=0.2, dropout=0.5, film_hidden=(2,))


def test_the_encoder_knows_nothing_of_the_condition_and_every_hidden_decoder_layer_does() -> None:
    network = autoencoder()
    assert not any(isinstance(module, FiLM) for module in network.encoder.modules())
    assert len(network.decoder.films) == 2
    assert not any(isinstance(module, FiLM) for module in network.decoder.output.modules())


def test_the_autoencoder_is_the_one_of_the_spec() -> None:
    network = autoencoder().eval()
    x, c = torch.rand(6, 20), one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3)

    def normalised(norm: nn.BatchNorm1d, h: Tensor) -> Tensor:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        return (h - norm.running_mean) / (norm.running_var + 1e-5).sqrt()

    h = x
    encoder: Any = network.encoder
    _, *layers, last = encoder
    for linear, norm, _, _ in layers:
        h = leaky(normalised(norm, h @ linear.weight.T + linear.bias))
    h = leaky(h @ last[0].weight.T + last[0].bias)
    torch.testing.assert_close(network.encode(x), h)
    decoder: Any = network.decoder
    for layer in decoder.layers:
        gamma, beta = layer.film.coefficients(c)
        h = leaky(gamma * normalised(layer.norm, h @ layer.linear.weight.T + layer.linear.bias) + beta)
    output = decoder.output[0]
    torch.testing.assert_close(network.decode(network.encode(x), c), leaky(h @ output.weight.T + output.bias))
    rates = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert rates == [0.2, 0.5, 0.5, 0.5, 0.5]


def test_gaussian_latents_are_drawn_around_the_mean_and_their_divergence_is_torchs() -> None:
    heads = GaussianHeads(lambda: nn.Linear(3, 2))
    mean, variance = torch.full((4000, 2), 2.0), torch.full((4000, 2), 9.0)
    drawn = heads.sample(mean, variance)
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.2)
    assert drawn.std().item() == pytest.approx(3.0, abs=0.2)
    heads.eval()
    assert torch.equal(heads.sample(mean, variance), mean)
    assert not torch.equal(heads.draw(mean, variance), mean)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, variance.sqrt()), normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mean, variance), expected)


def test_discriminators_give_a_logit_for_each_cell_from_spectral_normed_layers() -> None:
    latent = LatentDiscriminator(5, hidden=4, dropout=0.1)
    assert latent(torch.randn(7, 5)).shape == (7,)
    auxiliary = AuxiliaryDiscriminator(20, 3, hidden=(8, 6))
    real, classes = auxiliary(torch.rand(7, 20))
    assert (real.shape, classes.shape) == ((7,), (7, 3))
    for linear in (latent[0], auxiliary.body[0][0], auxiliary.body[1][0]):
        for _ in range(100):
            weight = linear.weight
        assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1.0, rel=1e-3)


def test_a_translator_goes_through_the_mean_when_evaluated_unless_told_to_draw() -> None:
    translator = Translator(["left", "right"], latent=4, shared=3).eval()
    z = torch.randn(5, 4)
    translated, mean, variance = translator(z, "left")
    assert set(translated) == {"left", "right"}
    assert mean.shape == variance.shape == (5, 3)
    assert torch.equal(translated["right"], translator.out_of["right"](mean))
    drawn, _, _ = translator(z, "left", draw=True)
    assert not torch.equal(drawn["right"], translated["right"])
