"""Losses that several methods share."""

import torch

from multipert.models.losses import cross_entropy, mean_squared_error


def test_the_squared_error_is_averaged_over_all_elements() -> None:
    predicted, target = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    assert mean_squared_error(predicted, target).item() == (4 + 9) / 4


def test_cross_entropy_is_that_of_the_logits_chance_cell_by_cell() -> None:
    logits, labels = torch.tensor([0.0, 2.0]), torch.tensor([0.3, 1.0])
    chance = torch.sigmoid(logits)
    expected = -(labels * chance.log() + (1 - labels) * (1 - chance).log())
    torch.testing.assert_close(cross_entropy(logits, labels), expected)
