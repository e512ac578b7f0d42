"""Each piece of acceleration against the plain module it stands for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse import random as random_sparse
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from multipert.networks import FilmAutoencoder, one_hot
from multipert.networks.film import FilmLayer
from multipert.networks.layers import HiddenLayer
from multipert.training.acceleration import (
    PIECES,
    FusedAdam,
    GradientDescent,
    accelerate,
    compressed_rows,
    leave_out,
    sparse_input,
    sparse_loops,
    sparse_squared_error,
    switched_on,
)

GENES = 20


def sparse(rows: csr_matrix) -> Tensor:
    offsets, columns, values = map(torch.from_numpy, (rows.indptr, rows.indices, rows.data))
    return compressed_rows(offsets, columns, values, rows.shape)


def profiles(cells: int = 6, density: float = 0.3, seed: int = 0, genes: int = GENES) -> Tensor:
    return sparse(random_sparse(cells, genes, density, "csr", np.float32, random_state=seed))


def autoencoder(dropout: float = 0.0) -> FilmAutoencoder:
    torch.manual_seed(0)
    return FilmAutoencoder(GENES, 2, hidden=(8,), latent=4, mask=dropout, dropout=dropout)


def outcome(network: FilmAutoencoder, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its gradients by name."""
    c = one_hot(torch.arange(len(x)) % 2, 2)
    difference = network.decode(network.encode(x), c) - x.to_dense()
    loss = difference.square().mean()
    network.zero_grad()
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("compiled", [False, True])
def test_an_accelerated_network_is_the_plain_one_on_sparse_and_on_dense_profiles(compiled: bool) -> None:
    x = profiles()
    expected = outcome(autoencoder(), x.to_dense())
    network = autoencoder()
    accelerate(network, GENES, sparse=True, bfloat16=False, compiled=compiled)
    for form in (x, x.to_dense()):
        loss, gradients = outcome(network, form)
        torch.testing.assert_close(loss, expected[0])
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[1][name])


LAYERS: dict[str, Callable[[float], nn.Module]] = {
    "hidden": lambda dropout: HiddenLayer(7, 9, dropout=dropout),
    "film": lambda dropout: FilmLayer(7, 9, 2, film_hidden=(3,), dropout=dropout),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_compiled_layer_is_the_plain_one(kind: str) -> None:
    results = []
    for compiled in (True, False):
        torch.manual_seed(0)
        layer = LAYERS[kind](0.0)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        accelerate(layer, GENES, sparse=True, bfloat16=False, compiled=compiled)
        x, c = torch.randn(6, 7, requires_grad=True), one_hot(torch.arange(6) % 2, 2)
        given = (x, c) if kind == "film" else (x,)
        out = layer(*given)
        (out * torch.randn(6, 9)).sum().backward()
        after = layer.eval()(*given)
        results.append([out, after, x.grad, *(p.grad for p in layer.parameters()), *layer.buffers()])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_compiled_dropout_drops_the_share_asked_for_and_scales_the_rest(rate: float) -> None:
    layer, x = HiddenLayer(3, 401, dropout=rate), torch.randn(100, 3)
    expected = layer[2](layer[1](layer[0](x)))
    accelerate(layer, GENES, sparse=True, bfloat16=False, compiled=True)
    torch.manual_seed(1)
    out = layer(x)
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=0.01)
    torch.testing.assert_close(out[out != 0], expected[out != 0] / (1 - rate))
    assert not torch.equal(layer(x) == 0, out == 0), "another mask each time"
    torch.manual_seed(1)
    assert torch.equal(layer(x), out), "the same from the same stream"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.floats(0, 1), st.integers(0, 100))
def test_compiled_transposition_is_scipys(cells: int, genes: int, density: float, seed: int) -> None:
    x = profiles(cells, density, seed, genes)
    for ours, plain in zip(sparse_loops.by_column(x), sparse_input.by_column(x), strict=True):
        torch.testing.assert_close(ours, plain)


def test_it_can_be_undone_and_keeps_the_names_and_the_weights() -> None:
    network, plain = autoencoder(), autoencoder()
    restore = accelerate(network, GENES, sparse=True, bfloat16=True, compiled=True)

    def assert_alike() -> None:
        state = network.state_dict()
        assert list(state) == list(plain.state_dict())
        for name, tensor in plain.state_dict().items():
            assert torch.equal(state[name], tensor), name

    assert_alike()
    restore()
    assert_alike()
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_spectral_normed_first_layer_takes_sparse_profiles_too() -> None:
    layer = nn.Sequential(spectral_norm(nn.Linear(GENES, 5))).eval()
    x = profiles()
    expected = layer(x.to_dense())
    expected.square().sum().backward()
    parameters = dict(layer.named_parameters())
    gradients = {name: parameter.grad.clone() for name, parameter in parameters.items()}
    layer.zero_grad()
    accelerate(layer, GENES, sparse=True, bfloat16=False)
    out = layer(x)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, gradients[name])


@pytest.mark.parametrize("compiled", [False, True])
def test_input_dropout_drops_the_share_asked_for_of_the_values_and_scales_the_rest(compiled: bool) -> None:
    network = nn.Sequential(nn.Dropout(0.2))
    accelerate(network, 200, sparse=True, bfloat16=False, compiled=compiled)
    x = sparse(csr_matrix(np.ones((200, 200), np.float32)))
    out = network(x).to_dense()
    assert (out == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert out.max().item() == pytest.approx(1 / 0.8)
    network.eval()
    assert torch.equal(network(x).to_dense(), x.to_dense())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.floats(0, 1), st.integers(0, 100))
def test_the_sparse_squared_error_is_the_dense_one(cells: int, genes: int, density: float, seed: int) -> None:
    target = profiles(cells, density, seed, genes)
    results = []
    for loss_of in (sparse_squared_error, lambda p, t: (p - t.to_dense()).square().mean()):
        predicted = torch.randn(cells, genes, generator=torch.Generator().manual_seed(seed)).requires_grad_()
        before = predicted.detach().clone()
        loss = loss_of(predicted, target)
        (0.7 * loss).backward()
        assert torch.equal(predicted, before), "the prediction is left as it is"
        results.append((loss.detach(), predicted.grad))
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain)


def test_a_bfloat16_prediction_gets_a_gradient_that_is_rounded_once() -> None:
    target = profiles()
    predicted = torch.randn(6, GENES).bfloat16().requires_grad_()
    (0.99 * sparse_squared_error(predicted, target)).backward()
    exact = 0.99 * (predicted.detach().float() - target.to_dense()) * 2 / (6 * GENES)
    assert predicted.grad is not None
    torch.testing.assert_close(predicted.grad, exact.bfloat16())
    total = (predicted.grad.float().abs().sum() / exact.abs().sum()).item()
    assert total == pytest.approx(1.0, abs=0.002), "not tilted by a rounded weight"


def test_the_output_layer_alone_is_rounded_in_training_alone() -> None:
    network, plain = (nn.Sequential(nn.Linear(5, 8), nn.Linear(8, GENES)) for _ in range(2))
    plain.load_state_dict(network.state_dict())
    accelerate(network, GENES, sparse=True, bfloat16=True)
    x = torch.randn(4, 5)
    out = network(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), plain(x), rtol=0.05, atol=0.02)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad.dtype == torch.float32 for parameter in network.parameters())
    assert torch.equal(network.eval()(x), plain(x))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_is_torchs_however_a_parameter_is_stored(weight_decay: float) -> None:
    options: dict[str, Any] = {"betas": (0.5, 0.9), "weight_decay": weight_decay}
    ours = [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3, 5).t()), nn.Parameter(torch.randn(7))]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    adam = FusedAdam(ours, 0.1, epsilon=1e-4, **options)
    plain = torch.optim.Adam(theirs, 0.1, eps=1e-4, **options)
    for step in range(5):
        for own, other in zip(ours, theirs, strict=True):
            gradient = None if step == 2 and own.dim() == 1 else torch.randn(own.shape)
            own.grad, other.grad = gradient, None if gradient is None else gradient.clone()
        plain.param_groups[0]["lr"] = 0.1 / (1 + step)
        plain.step()
        adam.step(1 / (1 + step))
        assert all(parameter.grad is None for parameter in ours)
        if step == 3:  # a resumed one goes on as if nothing had been
            state = {name: tensor.clone() for name, tensor in adam.state().items()}
            adam = FusedAdam(ours, 0.1, epsilon=1e-4, **options)
            adam.restore(state)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)


def test_gradient_descent_follows_the_gradient() -> None:
    parameter, still = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0]))
    parameter.grad = torch.tensor([1.0, -1.0])
    GradientDescent([parameter, still], 0.1).step(0.5)
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.95, 2.05]))
    assert still.item() == 3.0


def test_a_piece_can_be_left_out() -> None:
    assert all(map(switched_on, PIECES))
    x, predicted = profiles(), torch.randn(6, GENES)
    try:
        leave_out({"sparse-loss"})
        assert not switched_on("sparse-loss")
        assert switched_on("sparse-input")
        torch.testing.assert_close(sparse_squared_error(predicted, x), (predicted - x.to_dense()).square().mean())
    finally:
        leave_out(set())
