"""The compiled loops against what they stand for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.sparse import csr_matrix
from scipy.sparse import random as random_sparse
from torch import Tensor, nn

from multipert.networks import BatchNorm, Dropout, FiLM, Lanes, Layer, Linear, leaky_relu
from multipert.networks.compiled import compiled
from multipert.networks.sparse import _transposed
from multipert.training import sparse_batch


def hidden_layer(n_lanes: int, *, film: bool, rate: float) -> Layer:
    """A hidden layer whose normalisation has moved from where it starts."""
    lanes = Lanes(range(n_lanes))
    norm = BatchNorm(lanes, 6)
    layer = Layer(
        Linear(lanes, 5, 6), norm=norm, film=FiLM(lanes, 3, 6) if film else None, dropout=Dropout(lanes, rate)
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in (norm.weight, norm.bias):
        nn.init.uniform_(parameter, -1.0, 2.0, generator=generator)
    return layer


def outcome(layer: Layer, forward: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Output, gradients of all parameters and of the input, and what evaluation will normalise by."""
    assert isinstance(layer.norm, BatchNorm)
    assert isinstance(layer.dropout, Dropout)
    n_lanes = len(layer.norm.weight)
    layer.dropout.lanes.to("cpu")  # streams started anew
    generator = torch.Generator().manual_seed(2)
    x, incoming = (torch.randn(n_lanes, 7, width, generator=generator) for width in (5, 6))
    out = forward(x.requires_grad_())
    gradients = torch.autograd.grad(out, [x, *layer.parameters()], incoming)
    return [out.detach(), *gradients, layer.norm.running_mean.clone(), layer.norm.running_variance.clone()]


@pytest.mark.parametrize("n_lanes", [1, 3])
@pytest.mark.parametrize("film", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_a_hidden_layer_in_one_loop_is_its_modules_in_turn(n_lanes: int, film: bool, rate: float) -> None:
    condition = torch.arange(7).remainder(3).expand(n_lanes, -1)
    together, in_turn = (hidden_layer(n_lanes, film=film, rate=rate) for _ in range(2))

    def modules(x: Tensor) -> Tensor:
        assert in_turn.norm is not None
        assert in_turn.dropout is not None
        h = in_turn.norm(in_turn.linear(x))
        if in_turn.film is not None:
            h = in_turn.film(h, condition)
        return in_turn.dropout(leaky_relu(h))

    for _ in range(2):  # the second time, evaluation's numbers have moved
        ours = outcome(together, lambda x: together(x, condition))
        plain = outcome(in_turn, modules)
        for own, expected in zip(ours, plain, strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_a_hidden_layer_passes_on_what_is_not_a_number() -> None:
    layer = hidden_layer(1, film=True, rate=0.0)
    x = torch.rand(1, 7, 5)
    x[0, 3, 2] = torch.nan
    assert layer(x, torch.zeros(1, 7, dtype=torch.int64)).isnan().all()


@settings(deadline=None)  # the first call compiles
@given(st.integers(1, 8), st.integers(1, 12), st.floats(0, 1), st.integers(0, 99))
def test_the_batch_gene_by_gene_is_scipys(cells: int, genes: int, density: float, seed: int) -> None:
    rows = random_sparse(cells, genes, density=density, format="csr", dtype=np.float32, random_state=seed)
    expected = csr_matrix(rows).tocsc()
    for own, theirs in zip(_transposed(sparse_batch(rows)), ("indices", "indptr", "data"), strict=True):
        np.testing.assert_array_equal(own.numpy(), getattr(expected, theirs))


@settings(deadline=None)  # the first call compiles
@given(st.integers(1, 8), st.floats(0, 1), st.floats(0, 0.99), st.integers(0, 99))
def test_dropout_leaves_a_sparse_batch_some_of_its_values(cells: int, density: float, rate: float, seed: int) -> None:
    rows = random_sparse(cells, 9, density=density, format="csr", dtype=np.float32, random_state=seed)
    batch = sparse_batch(rows)
    dropped = batch.dropout(rate, Lanes([seed]))
    assert dropped.shape == batch.shape
    assert len(dropped.values) == len(dropped.columns) == dropped.offsets[-1]
    kept = dropped.dense != 0
    torch.testing.assert_close(dropped.dense, torch.where(kept, batch.dense / (1 - rate), 0.0))


def test_what_cannot_be_kept_on_disk_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere_to_write(*arguments: Any, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*arguments, **options)

    monkeypatch.setattr("multipert.networks.compiled.njit", nowhere_to_write)

    def double(x: Any) -> Any:
        return 2 * x

    twice = compiled(double)
    assert twice(np.float32(1.5)) == 3.0
    assert twice.signatures, "it was not compiled"  # type: ignore[attr-defined]
