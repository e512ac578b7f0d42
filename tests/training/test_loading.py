"""Batches: from the host's memory or from a device's, in the order a sampler gives."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from multipert.errors import InputError
from multipert.training import Batch, DataLoader, Examples, Sampler, Shuffled, SideBySide
from multipert.training.acceleration import leave_out

X = csr_matrix(np.random.default_rng(1).poisson(0.4, (50, 9)).astype(np.float32))
CPU = torch.device("cpu")


def examples(*rows: int) -> Examples:
    here = np.array(rows)
    return Examples(X, {"x": here, "target": here[::-1].copy()}, {"row": here.astype(np.float32)})


def side(name: str, *rows: int) -> Examples:
    return Examples(X, {name: np.array(rows, dtype=np.int64)}, {name: np.array(rows, dtype=np.int64)})


def some(sampler: Sampler, seed: int = 1, start: int = 0, steps: int | None = None, **options: Any) -> list[Batch]:
    """Batches from step ``start`` on; those of the first epoch by default."""
    number = len(sampler) - start if steps is None else steps
    return list(islice(DataLoader(CPU, **options).endless(sampler, seed, start), number))


def test_an_epoch_holds_every_example_once_but_for_the_short_last_batch() -> None:
    sampler = Shuffled(examples(*range(40)), 12)
    first, second = (torch.cat([b.labels["row"] for b in some(sampler, start=s, steps=3)]).tolist() for s in (0, 3))
    assert len(first) == len(set(first)) == 36
    assert first != second


@pytest.mark.parametrize(("size", "sizes"), [(12, [12, 12, 12, 4]), (13, [13, 13, 13]), (40, [40]), (64, [40])])
def test_the_short_last_batch_is_kept_on_request_unless_it_is_a_single_example(size: int, sizes: list[int]) -> None:
    sampler = Shuffled(examples(*range(40)), size, drop_last=False)
    assert [len(batch) for batch in some(sampler)] == sizes
    assert len(sampler) == len(sizes)
    assert not sampler.always_full


def test_too_few_examples_for_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match="40 training cells cannot fill a batch of 64: set batch_size to 40 or less"):
        Shuffled(examples(*range(40)), 64)


@pytest.mark.parametrize("size", [3, 7, 700])
def test_batches_hold_the_rows_and_labels_of_their_examples_and_know_their_epoch(size: int) -> None:
    sampler = Shuffled(examples(*range(20)), size, drop_last=False)
    for step, batch in enumerate(some(sampler, steps=3 * len(sampler))):
        assert batch.epoch == step // len(sampler)
        rows = batch.labels["row"].numpy().astype(int)
        np.testing.assert_array_equal(batch.cells["x"].to_dense(), X[rows].toarray())
        np.testing.assert_array_equal(batch.cells["target"].to_dense(), X[19 - rows].toarray())


@pytest.mark.parametrize("sampler", [Shuffled(examples(*range(20)), 4), SideBySide([examples(*range(9))], 3, 5)])
def test_a_resumed_epoch_goes_on_where_it_stopped(sampler: Sampler) -> None:
    whole, rest = some(sampler, steps=10), some(sampler, start=3, steps=7)
    assert [b.labels["row"].tolist() for b in whole[3:]] == [b.labels["row"].tolist() for b in rest]
    assert [b.epoch for b in whole[3:]] == [b.epoch for b in rest]


def test_sides_are_drawn_independently_and_gone_through_before_they_are_shuffled_anew() -> None:
    drawn = some(SideBySide([side("a", *range(6)), side("b", *range(10, 18))], size=2, length=6))
    assert [len(batch) for batch in drawn] == [2] * 6
    first, second = (torch.cat([batch.labels[name] for batch in drawn]).tolist() for name in ("a", "b"))
    assert sorted(first[:6]) == sorted(first[6:]) == list(range(6))
    assert first[:6] != first[6:]
    assert sorted(second[:8]) == list(range(10, 18))
    for batch in drawn:
        for name in ("a", "b"):
            np.testing.assert_array_equal(batch.cells[name].to_dense(), X[batch.labels[name].numpy()].toarray())


def test_a_side_smaller_than_a_batch_repeats_and_one_without_cells_is_refused() -> None:
    (batch,) = some(SideBySide([side("a", 7), side("b", 1, 2)], size=4, length=1))
    assert batch.labels["a"].tolist() == [7] * 4
    assert sorted(batch.labels["b"].tolist()) == [1, 1, 2, 2]
    with pytest.raises(InputError, match="no b cells to train on"):
        SideBySide([side("a", 7), side("b")], size=4, length=1)


def test_a_matrix_that_is_held_on_a_device_gives_the_same_rows_written_out() -> None:
    sampler = Shuffled(examples(*range(20)), 4)
    for streamed, held in zip(some(sampler), some(sampler, resident=True), strict=True):
        for role in ("x", "target"):
            assert streamed.cells[role].is_sparse_csr
            assert held.cells[role].layout == torch.strided
            assert torch.equal(streamed.cells[role].to_dense(), held.cells[role])


def test_without_sparse_input_batches_are_dense() -> None:
    sampler = Shuffled(examples(*range(20)), 4)
    expected = some(sampler)
    try:
        leave_out({"sparse-input"})
        dense = some(sampler)
    finally:
        leave_out(set())
    for ours, theirs in zip(dense, expected, strict=True):
        assert ours.cells["x"].layout == torch.strided
        assert torch.equal(ours.cells["x"], theirs.cells["x"].to_dense())
