"""Losses that several methods share."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from multipert.models.losses import mean_squared_error
from multipert.networks import SparseBatch
from multipert.training import sparse_batch


def target(lanes: int) -> SparseBatch:
    rows = csr_matrix(np.random.default_rng(0).poisson(0.3, (6, 20)).astype(np.float32))
    if lanes == 1:
        return sparse_batch(rows)
    columns = torch.from_numpy(rows.indices)
    return SparseBatch(
        torch.from_numpy(np.concatenate([rows.indptr, rows.indptr[1:] + rows.nnz])),
        torch.cat([columns, columns + 20]),
        torch.from_numpy(np.concatenate([rows.data, 2 * rows.data])),
        (2, 6, 20),
    )


def test_the_error_to_a_sparse_target_is_that_to_the_dense_one_and_so_is_its_gradient() -> None:
    for lanes in (1, 2):
        sparse, weights = target(lanes), torch.tensor([0.3, 5.0])[:lanes]
        results = []
        for form in (sparse, sparse.dense):
            predicted = torch.randn((lanes, 6, 20), generator=torch.Generator().manual_seed(1)).requires_grad_()
            loss = mean_squared_error(predicted, form)
            (loss * weights).sum().backward()
            results.append((loss.detach(), predicted.grad))
        for ours, plain in zip(*results, strict=True):
            torch.testing.assert_close(ours, plain)


def test_the_prediction_is_left_as_it_is() -> None:
    predicted = torch.rand(1, 6, 20)
    before = predicted.clone()
    mean_squared_error(predicted, target(1))
    assert torch.equal(predicted, before)


def test_a_bfloat16_prediction_gets_a_gradient_that_is_rounded_once() -> None:
    predicted = torch.randn((2, 6, 20), generator=torch.Generator().manual_seed(1)).bfloat16().requires_grad_()
    loss = mean_squared_error(predicted, target(2))
    loss.sum().backward()
    difference = predicted.detach().float() - target(2).dense
    torch.testing.assert_close(loss.detach(), difference.square().mean(dim=(1, 2)))
    assert predicted.grad is not None
    assert torch.equal(predicted.grad, (difference * torch.tensor(2 / 120)).bfloat16())


def test_a_weight_scales_a_bfloat16_gradient_by_what_it_is() -> None:
    """Not by the nearest bfloat16 number, 0.0017 away."""
    predicted = torch.randn((1, 6, 20), generator=torch.Generator().manual_seed(1)).bfloat16().requires_grad_()
    (0.99 * mean_squared_error(predicted, target(1))).sum().backward()
    exact = 0.99 * (predicted.detach().float() - target(1).dense) * 2 / 120
    assert predicted.grad is not None
    assert (predicted.grad.float().abs().sum() / exact.abs().sum()).item() == pytest.approx(1.0, abs=0.0008)


def test_the_error_of_what_is_not_a_number_is_none_either() -> None:
    predicted = torch.zeros(2, 6, 20)
    predicted[1, 2, 3] = torch.nan
    assert mean_squared_error(predicted, target(2)).isnan().tolist() == [False, True]
